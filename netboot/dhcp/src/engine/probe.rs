//! Is an address really free? One ARP question before an address is offered for the first time (RFC 2131 section
//! 3.1, step 2), remembered, so that a machine that boots again and again is never kept waiting.

use std::net::{Ipv4Addr, SocketAddrV4};

use rackbar_model::{EventKind, MacAddr, Severity, Timestamp};

use super::question::Question;
use super::{Engine, Site, event};
use crate::leases::{Probing, State};
use crate::packet::Packet;
use crate::{InterfaceId, Output};

/// How long we wait for an answer, in milliseconds. Stations answer ARP within one; iPXE asks again after a second.
const PROBE_WAIT: u64 = 300;
/// How long silence counts, in milliseconds.
const PROBE_MEMORY: u64 = 10 * 60_000;
/// How long after its lease ended a client gets its address back without a probe, in milliseconds.
const BOUND_MEMORY: u64 = 60 * 60_000;

/// Probes in a row answered by one station that call for a word.
const SUSPICIOUS: u32 = 4;

/// A DISCOVER that waits for a probe.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Waiting {
    interface: InterfaceId,
    source: SocketAddrV4,
    local_port: u16,
    bytes: Vec<u8>,
}

impl Waiting {
    fn new(question: &Question<'_>) -> Box<Self> {
        Box::new(Self {
            interface: question.interface,
            source: question.source,
            local_port: question.local_port,
            bytes: question.packet.bytes().to_vec(),
        })
    }
}

impl Engine {
    /// Sends a probe when the address needs one; then the offer waits.
    pub(super) fn probe_first(
        &mut self,
        now: Timestamp,
        at: usize,
        question: &Question<'_>,
        address: Ipv4Addr,
        out: &mut Vec<Output>,
    ) -> bool {
        let key = question.key();
        let limit = self.config.limits.probes;
        let open: usize = self.sites.iter().map(|site| site.table.probing()).sum();
        let site = &mut self.sites[at];
        let reachable =
            question.relay().is_none() && site.network.interface.is_some_and(|own| own.id == question.interface);
        let own = site.table.find(&key) == Some(address);
        let until = match site.table.get(address) {
            // It asks again while the probe is out: the newest question is the one to answer.
            Some(binding) if own && matches!(binding.state, State::Probing(_)) => binding.state.until(),
            Some(binding) => {
                let recent = |at: Option<Timestamp>, span| at.is_some_and(|at| now.since(at) < span);
                let known = recent(binding.probed, PROBE_MEMORY) || (own && recent(binding.last_bound, BOUND_MEMORY));
                (!known && reachable && open < limit).then_some(now.plus(PROBE_WAIT))
            }
            None => (reachable && open < limit).then_some(now.plus(PROBE_WAIT)),
        };
        let Some(until) = until else { return false };
        let again = matches!(site.table.get(address).map(|b| &b.state), Some(State::Probing(_)));
        site.table.assign(
            address,
            &key,
            State::Probing(Probing {
                until,
                question: Waiting::new(question),
            }),
        );
        if !again {
            out.push(Output::Probe {
                interface: question.interface,
                address,
            });
        }
        true
    }

    /// A probe was answered, or the shell is sure it was not.
    pub(super) fn probed(
        &mut self,
        now: Timestamp,
        interface: InterfaceId,
        address: Ipv4Addr,
        owner: Option<MacAddr>,
        out: &mut Vec<Output>,
    ) {
        let probing = self.sites.iter().enumerate().find_map(|(at, site)| {
            let on = site.network.interface.is_some_and(|own| own.id == interface);
            let binding = site.table.get(address).filter(|_| on)?;
            let State::Probing(probing) = &binding.state else {
                return None;
            };
            Some((at, binding.mac, probing.question.clone()))
        });
        let Some((at, client, waiting)) = probing else { return };
        if owner.is_none_or(|owner| owner == client) {
            self.silent(now, at, address, out);
            return;
        }
        self.sites[at].table.abandon(address, owner, now);
        out.extend(self.commit(at, address));
        out.push(event(client, EventKind::AddressConflict { address, owner }));
        if let Some(owner) = owner {
            self.sites[at].tell_answerer(owner, out);
        }
        self.ask_again(now, at, &waiting, out);
    }

    /// Nobody answered: the offer can leave.
    pub(super) fn silent(&mut self, now: Timestamp, at: usize, address: Ipv4Addr, out: &mut Vec<Output>) {
        let table = &mut self.sites[at].table;
        let Some(State::Probing(probing)) = table.get(address).map(|b| b.state.clone()) else {
            return;
        };
        table.idle(address, now);
        table.set_probed(address, now);
        self.ask_again(now, at, &probing.question, out);
    }

    fn ask_again(&mut self, now: Timestamp, at: usize, waiting: &Waiting, out: &mut Vec<Output>) {
        let question = Packet::new(&waiting.bytes)
            .ok()
            .and_then(|packet| Question::new(packet, waiting.interface, waiting.source, waiting.local_port));
        if let Some(question) = question {
            self.offer(now, at, &question, out);
        }
    }
}

impl Site {
    /// Says so when one station answers for address after address: a router that answers ARP for everybody would
    /// empty the pool.
    fn tell_answerer(&mut self, owner: MacAddr, out: &mut Vec<Output>) {
        let count = self
            .answerer
            .filter(|(who, _)| *who == owner)
            .map_or(1, |(_, count)| count.saturating_add(1));
        self.answerer = Some((owner, count));
        if count == SUSPICIOUS {
            let text = format!(
                "network {}: {owner} answers for every address we ask about; if it is a router, switch its proxy ARP off, \
                 else take its addresses out of the pool",
                self.network.name
            );
            out.push(Output::Event {
                mac: Some(owner),
                kind: EventKind::Note {
                    text,
                    severity: Severity::Error,
                },
            });
        }
    }
}

//! The DHCPv4 server (RFC 2131 section 4.3).

use std::net::Ipv4Addr;

use rackbar_model::{BootWay, EventKind, Severity, Timestamp};

use super::boot::BootAnswer;
use super::question::Question;
use super::reply::Reply;
use super::stance::Stance;
use super::telling::discover_event;
use super::{Admission, Engine, event};
use crate::Output;
use crate::leases::{Bound, Offered, Refusal, State};
use crate::packet::{MessageType, code};

/// How long an offered address is kept for its client, in milliseconds. EDK2 collects offers for 4 s, then asks.
const OFFER_HOLD: u64 = 30_000;
/// Shortest lease a client can ask for, in seconds.
const MIN_LEASE: u32 = 60;

/// What a REQUEST is about (RFC 2131 table 4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Asking {
    /// It took our offer.
    Selecting,
    /// It booted and hopes to keep its address.
    InitReboot,
    /// It renews or rebinds.
    Renewing,
}

impl Engine {
    pub(super) fn discover(&mut self, now: Timestamp, at: usize, question: &Question<'_>, out: &mut Vec<Output>) {
        let late = self.asks_late(now, question);
        if self.first_heard(now, question, MessageType::Discover) {
            out.push(event(
                question.mac,
                discover_event(&self.sites[at].network.name, question),
            ));
            out.extend(late.map(|seconds| event(question.mac, EventKind::AskedLate { seconds })));
        }
        let own = match self.sites[at].stance {
            Stance::Own(_) => true,
            Stance::Proxy(_) => false,
            Stance::Listening(_) => {
                self.counters.listening += 1;
                return;
            }
            Stance::Off => {
                self.counters.no_network += 1;
                return;
            }
        };
        let admission = self.admit(at, question);
        self.tell_ignored(question, admission, out);
        if admission == Admission::Nothing {
            return;
        }
        if admission == Admission::All {
            self.negotiate(now, at, question, out);
        }
        let full = own || (admission == Admission::All && self.led_by_address(question));
        let offered = full && self.offer(now, at, question, out);
        if !offered && !own && admission == Admission::All {
            self.proxy_offer(now, at, question, out);
        }
    }

    /// True when negotiation found that this machine needs its address from us, although another server is there.
    fn led_by_address(&self, question: &Question<'_>) -> bool {
        let way = self.clients.get(question.mac).and_then(|memory| memory.way);
        matches!(way, Some(BootWay::FullDhcp | BootWay::UefiHttp | BootWay::UefiHttps))
    }

    /// Offers an address, or probes one first. False when there is none.
    pub(super) fn offer(&mut self, now: Timestamp, at: usize, question: &Question<'_>, out: &mut Vec<Output>) -> bool {
        let key = question.key();
        let site = &mut self.sites[at];
        let Some(address) = site
            .table
            .choose(now, &site.network, &key, question.packet.requested_address())
        else {
            self.tell_exhausted(at, out);
            return false;
        };
        if site.table.pool().1 > 0 {
            site.exhausted = false;
        } else if site.table.is_last_resort(&key, address) {
            self.tell_exhausted(at, out);
        }
        // A machine that restarts while its lease runs: the lease is not touched until it requests.
        if !matches!(
            self.sites[at].table.get(address).map(|b| &b.state),
            Some(State::Bound(_))
        ) {
            if self.probe_first(now, at, question, address, out) {
                return true;
            }
            let offered = State::Offered(Offered {
                until: now.plus(OFFER_HOLD),
            });
            self.sites[at].table.assign(address, &key, offered);
        }
        let seconds = self.lease_seconds(at, question);
        self.reply(now, at, question, MessageType::Offer, Some(address), Some(seconds), out);
        true
    }

    pub(super) fn request(&mut self, now: Timestamp, at: usize, question: &Question<'_>, out: &mut Vec<Output>) {
        let packet = &question.packet;
        let wanted = packet.requested_address().or(question.ciaddr());
        if self.first_heard(now, question, MessageType::Request) {
            let kind = EventKind::DhcpRequest {
                address: wanted,
                server: packet.server_id(),
            };
            out.push(event(question.mac, kind));
        }
        if let Some(memory) = self.clients.get_mut(question.mac) {
            memory.requested(now, wanted);
        }
        let asking = match (packet.server_id(), question.ciaddr()) {
            (Some(server), _) if server != self.sites[at].network.server => {
                self.chose_another(now, at, question, server, out);
                return;
            }
            (Some(_), _) => Asking::Selecting,
            (None, None) => Asking::InitReboot,
            (None, Some(_)) => Asking::Renewing,
        };
        let Some(address) = wanted.filter(|_| self.speaks_to(at, question)) else {
            return;
        };
        let site = &self.sites[at];
        match site.table.check(&site.network, &question.key(), address) {
            Ok(()) => self.acknowledge(now, at, question, address, out),
            // We offered it to both, because no other was left.
            Err(Refusal::Taken)
                if asking == Asking::Selecting && site.table.merely_offered(&question.key(), address) =>
            {
                self.acknowledge(now, at, question, address, out);
            }
            Err(refusal) => self.refuse(now, at, question, asking, refusal, address, out),
        }
    }

    /// Whether a REQUEST is ours to answer. Beside another server, and while we still listen for one, those of our own
    /// leases and offers are: taking a lease back from a running machine is worse than a second server.
    fn speaks_to(&self, at: usize, question: &Question<'_>) -> bool {
        let site = &self.sites[at];
        let bound = || {
            let binding = site
                .table
                .find(&question.key())
                .and_then(|address| site.table.get(address));
            binding.is_some_and(|b| matches!(b.state, State::Bound(_) | State::Offered(_)))
        };
        let admitted = self.admit(at, question) != Admission::Nothing;
        match site.stance {
            Stance::Own(_) => admitted,
            Stance::Proxy(_) => admitted && (bound() || self.led_by_address(question)),
            Stance::Listening(_) => admitted && bound(),
            Stance::Off => false,
        }
    }

    /// The client took another server's offer: ours is free again, and now we know of that server.
    fn chose_another(
        &mut self,
        now: Timestamp,
        at: usize,
        question: &Question<'_>,
        server: Ipv4Addr,
        out: &mut Vec<Output>,
    ) {
        let table = &mut self.sites[at].table;
        if let Some(address) = table.find(&question.key())
            && matches!(
                table.get(address).map(|b| &b.state),
                Some(State::Offered(_) | State::Probing(_))
            )
        {
            table.idle(address, now);
        }
        // Relays forward to several servers on purpose.
        if question.relay().is_none() {
            self.foreign_server(now, at, server, out);
        }
    }

    fn acknowledge(
        &mut self,
        now: Timestamp,
        at: usize,
        question: &Question<'_>,
        address: Ipv4Addr,
        out: &mut Vec<Output>,
    ) {
        let seconds = self.lease_seconds(at, question);
        let key = question.key();
        let table = &mut self.sites[at].table;
        let before = table.find(&key).filter(|old| *old != address);
        let until = now.plus(u64::from(seconds) * 1000);
        table.assign(address, &key, State::Bound(Bound { until }));
        table.set_hostname(address, question.text(code::HOST_NAME));
        out.extend(self.commit(at, address));
        self.reply(now, at, question, MessageType::Ack, Some(address), Some(seconds), out);
        // A client has one address; what it had before goes back.
        if let Some(old) = before {
            let table = &mut self.sites[at].table;
            let (holder, bound) = match table.get(old) {
                Some(b) => (Some(b.mac), matches!(b.state, State::Bound(_))),
                None => (None, false),
            };
            let shared = key.id.is_some() && table.get(old).is_some_and(|b| b.id.is_empty());
            if holder == Some(question.mac) && !shared {
                table.idle(old, now);
                out.extend(self.commit(at, old).filter(|_| bound));
            }
        }
    }

    /// NAKs, or stays silent where another server may know better.
    #[allow(clippy::too_many_arguments, reason = "the parts of one refusal")]
    fn refuse(
        &mut self,
        now: Timestamp,
        at: usize,
        question: &Question<'_>,
        asking: Asking,
        refusal: Refusal,
        address: Ipv4Addr,
        out: &mut Vec<Output>,
    ) {
        let site = &self.sites[at];
        let we_know = match refusal {
            Refusal::Reserved | Refusal::Taken | Refusal::Abandoned => true,
            Refusal::WrongNetwork | Refusal::NotOurs => site.foreign.is_none(),
        };
        let authoritative = matches!(site.stance, Stance::Own(_)) && we_know;
        // A NAK is broadcast; for a client beyond a router that would be on the wrong wire.
        let here = site.network.interface.is_some_and(|own| own.id == question.interface);
        if !(asking == Asking::Selecting || authoritative) || !(here || question.relay().is_some()) {
            return;
        }
        let reason = refusal.words(address);
        let buffer = self.buffer();
        let reply = Reply {
            network: &self.sites[at].network,
            question,
            kind: MessageType::Nak,
            address: None,
            lease_seconds: None,
            boot: None,
            hostname: None,
            reason: Some(&reason),
        };
        out.push(reply.send(buffer));
        out.push(event(question.mac, EventKind::DhcpNak { reason }));
        let table = &mut self.sites[at].table;
        if let Some(own) = table.find(&question.key())
            && matches!(table.get(own).map(|b| &b.state), Some(State::Offered(_)))
        {
            table.idle(own, now);
        }
    }

    pub(super) fn release(&mut self, now: Timestamp, at: usize, question: &Question<'_>, out: &mut Vec<Output>) {
        let table = &mut self.sites[at].table;
        let own = table
            .find(&question.key())
            .filter(|own| question.ciaddr() == Some(*own));
        let Some(address) = own else { return };
        if matches!(table.get(address).map(|b| &b.state), Some(State::Bound(_))) {
            table.idle(address, now);
            out.extend(self.commit(at, address));
            out.push(event(question.mac, EventKind::DhcpRelease { address }));
        }
    }

    /// RFC 2131 section 4.3.5: parameters for a client that has its address from elsewhere.
    pub(super) fn inform(&mut self, now: Timestamp, at: usize, question: &Question<'_>, out: &mut Vec<Output>) {
        let admission = self.admit(at, question);
        match self.sites[at].stance {
            Stance::Own(_) if admission != Admission::Nothing => {
                self.reply(now, at, question, MessageType::Ack, None, None, out);
            }
            Stance::Proxy(_) if admission == Admission::All => self.boot_server(now, at, question, out),
            Stance::Own(_) | Stance::Proxy(_) | Stance::Listening(_) | Stance::Off => {}
        }
    }

    /// Sends an OFFER or ACK of the server and tells it.
    #[allow(clippy::too_many_arguments, reason = "the parts of one answer")]
    fn reply(
        &mut self,
        now: Timestamp,
        at: usize,
        question: &Question<'_>,
        kind: MessageType,
        address: Option<Ipv4Addr>,
        lease_seconds: Option<u32>,
        out: &mut Vec<Output>,
    ) {
        let boots = self.admit(at, question) == Admission::All;
        let buffer = self.buffer();
        let network = &self.sites[at].network;
        let led = self.clients.get(question.mac).and_then(|memory| memory.way);
        let boot = BootAnswer::new(&self.config.boot, network, question, false, led).filter(|_| boots);
        let reserved = network.reservations.iter().find(|r| Some(r.address) == address);
        let reply = Reply {
            network,
            question,
            kind,
            address,
            lease_seconds,
            boot: boot.as_ref(),
            hostname: reserved.and_then(|r| r.hostname.as_deref()),
            reason: None,
        };
        out.push(reply.send(buffer));
        let memory = self.clients.get_mut(question.mac);
        if let Some(memory) = memory
            && boot.is_some()
            && kind == MessageType::Offer
        {
            memory.answered(now);
        }
        if !self.first_heard(now, question, kind) {
            return;
        }
        let way = boot.as_ref().and_then(|b| b.way);
        let boot_file = boot.map(|b| b.file);
        out.push(event(
            question.mac,
            if kind == MessageType::Offer {
                EventKind::DhcpOffer {
                    address,
                    way,
                    boot_file,
                }
            } else {
                EventKind::DhcpAck {
                    address,
                    lease_seconds,
                    boot_file,
                }
            },
        ));
    }

    fn lease_seconds(&self, at: usize, question: &Question<'_>) -> u32 {
        let most = self.sites[at].network.lease_seconds.max(MIN_LEASE);
        question
            .packet
            .lease_time()
            .map_or(most, |asked| asked.clamp(MIN_LEASE, most))
    }

    fn tell_exhausted(&mut self, at: usize, out: &mut Vec<Output>) {
        let site = &mut self.sites[at];
        let (pool, _) = site.table.pool();
        if std::mem::replace(&mut site.exhausted, true) {
            return;
        }
        let text = format!(
            "network {}: no free address, all {pool} of the pool are leased, offered or in use; make the pool larger or the \
             lease time shorter",
            site.network.name
        );
        out.push(Output::Event {
            mac: None,
            kind: EventKind::Note {
                text,
                severity: Severity::Error,
            },
        });
    }
}

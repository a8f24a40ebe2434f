//! Addresses that clients say are in use (DHCPDECLINE, RFC 2131 section 4.3.3), each told, and once who says it of more
//! than its share.

use std::collections::HashMap;

use rackbar_model::{EventKind, Severity, Timestamp};

use super::question::{Question, relay_id};
use super::{Engine, event};
use crate::Output;
use crate::leases::Blame;
use crate::packet::{code, relay};
use crate::shift::Shift;

/// Clients and ports remembered as told of. MAC addresses and option 82 are whatever a packet says.
const MOST: usize = 32;
/// How often the same one is told again, in milliseconds.
const AGAIN: u64 = 6 * 3_600_000;

/// Who was told of as declining more than its share, and when.
#[derive(Debug, Default)]
pub(super) struct Decliners(HashMap<Blame, Timestamp>);

impl Decliners {
    /// True when this one is to be told now.
    fn take(&mut self, now: Timestamp, blame: &Blame) -> bool {
        self.0.retain(|_, told| now.since(*told) < AGAIN);
        let new = self.0.len() < MOST && !self.0.contains_key(blame);
        if new {
            self.0.insert(blame.clone(), now);
        }
        new
    }

    /// The clock was set.
    pub(super) fn shift(&mut self, by: Shift) {
        self.0.values_mut().for_each(|told| by.apply(told));
    }
}

impl Engine {
    pub(super) fn decline(&mut self, now: Timestamp, at: usize, question: &Question<'_>, out: &mut Vec<Output>) {
        let table = &mut self.sites[at].table;
        // Only the client that has the address may decline it, else one host could spoil the whole pool.
        let own = table
            .find(&question.key())
            .filter(|own| question.packet.requested_address() == Some(*own));
        let Some(address) = own else { return };
        let over = table.decline(address, now, blame(question));
        out.extend(self.commit(at, address));
        match over {
            None => out.push(event(question.mac, EventKind::DhcpDecline { address })),
            Some(blame) => self.tell_decliner(now, at, question, &blame, out),
        }
    }

    fn tell_decliner(
        &mut self,
        now: Timestamp,
        at: usize,
        question: &Question<'_>,
        blame: &Blame,
        out: &mut Vec<Output>,
    ) {
        if !self.decliners.take(now, blame) {
            return;
        }
        let (table, network) = (&self.sites[at].table, &self.sites[at].network.name);
        let share = blame.share(table.pool().0);
        let who = match blame {
            Blame::Client(mac) => mac.to_string(),
            Blame::Place(_) => {
                let info = question.packet.sub_options(code::RELAY_INFO);
                let port = info.get(relay::CIRCUIT_ID).and_then(relay_id).unwrap_or_default();
                format!("what is behind port {port:?} of its switch")
            }
        };
        let text = format!(
            "network {network}: {who} says of one address after the other that somebody uses it; on its word {share} of \
             the pool stay out of use, the others can be given to anybody. If devices with addresses of their own are in \
             the pool, take those out of it, else look at this machine"
        );
        let kind = EventKind::Note {
            text,
            severity: Severity::Warning,
        };
        out.push(event(question.mac, kind));
    }
}

/// On whose word an address goes out of use that this client declines.
fn blame(question: &Question<'_>) -> Vec<Blame> {
    let mut blame = vec![Blame::Client(question.mac)];
    let info = question.packet.sub_options(code::RELAY_INFO);
    // A remote identifier alone names a whole switch, or in some networks the client itself.
    if let Some(circuit) = info.get(relay::CIRCUIT_ID) {
        let relay_address = question.packet.giaddr().octets();
        let remote = info.get(relay::REMOTE_ID).unwrap_or_default();
        // The length keeps two pairs of identifiers apart that read the same in a row; it is one octet on the wire.
        let place = [&relay_address[..], &[circuit.len() as u8], circuit, remote].concat();
        blame.push(Blame::Place(place.into()));
    }
    blame
}

//! Relays that pass on requests of subnets we have no network for: told once each, with what to configure.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use rackbar_model::{EventKind, Severity, Timestamp};

use super::Engine;
use super::question::Question;
use crate::Output;
use crate::shift::Shift;

/// Relays remembered. Their addresses are whatever a packet says, so the memory and the events are bounded.
const MOST: usize = 32;
/// How often the same relay is told again, in milliseconds.
const AGAIN: u64 = 6 * 3_600_000;

/// Relays told of, and when.
#[derive(Debug, Default)]
pub(super) struct StrangeRelays(HashMap<Ipv4Addr, Timestamp>);

impl StrangeRelays {
    /// True when this one is to be told now.
    fn take(&mut self, now: Timestamp, relay: Ipv4Addr) -> bool {
        self.0.retain(|_, told| now.since(*told) < AGAIN);
        let new = self.0.len() < MOST && !self.0.contains_key(&relay);
        if new {
            self.0.insert(relay, now);
        }
        new
    }

    /// The clock was set.
    pub(super) fn shift(&mut self, by: Shift) {
        self.0.values_mut().for_each(|told| by.apply(told));
    }
}

impl Engine {
    /// Says that nobody behind this relay is answered, and what to write so that they are.
    pub(super) fn tell_strange_relay(&mut self, now: Timestamp, question: &Question<'_>, out: &mut Vec<Output>) {
        let (Some(relay), Some(subnet)) = (question.relay(), question.relayed_from()) else {
            return;
        };
        if !self.strange_relays.take(now, relay) {
            return;
        }
        let near = |own: crate::config::Interface| own.id == question.interface;
        let site = self.sites.iter().find(|site| site.network.interface.is_some_and(near));
        let through = site.map_or_else(
            || "the name of the network on which the relay reaches us".to_owned(),
            |site| format!("{:?}", site.network.name),
        );
        let text = format!(
            "the DHCP relay {relay} passes on requests from a subnet with {subnet}, which is in no network here: machines \
             behind it get no answer. To serve them, add to rackbar.toml a [[network]] with a name, role = \"rack\" or \
             \"bmc\", subnet = the network of {subnet} with its prefix length, through = {through}, gateway = the router \
             there and pool = what to give out"
        );
        out.push(Output::Event {
            mac: None,
            kind: EventKind::Note {
                text,
                severity: Severity::Warning,
            },
        });
    }
}

//! The orders in which bindings are looked for: what time ends next, and what is lent first.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use rackbar_model::Timestamp;

use super::abandoned::Abandonments;
use super::{Binding, State};

/// Addresses by time.
#[derive(Debug, Default)]
pub(super) struct Orders {
    /// Those that time alone ends, by when.
    pub(super) timeline: BTreeSet<(Timestamp, Ipv4Addr)>,
    /// Idle ones, by their place in the order of reuse.
    pub(super) idle: BTreeSet<(Timestamp, Ipv4Addr)>,
    /// Offers to clients that never had a lease of the address, by their end.
    pub(super) untaken: BTreeSet<(Timestamp, Ipv4Addr)>,
    pub(super) abandoned: Abandonments,
}

impl Orders {
    pub(super) fn insert(&mut self, address: Ipv4Addr, binding: &Binding) {
        if let Some(until) = binding.state.until() {
            self.timeline.insert((until, address));
        }
        match &binding.state {
            State::Idle(idle) => _ = self.idle.insert((idle.since, address)),
            State::Abandoned(abandoned) => self.abandoned.insert(address, abandoned),
            State::Offered(offered) if binding.last_bound.is_none() => {
                self.untaken.insert((offered.until, address));
            }
            State::Probing(_) | State::Offered(_) | State::Bound(_) => {}
        }
    }

    pub(super) fn remove(&mut self, address: Ipv4Addr, binding: &Binding) {
        if let Some(until) = binding.state.until() {
            self.timeline.remove(&(until, address));
        }
        match &binding.state {
            State::Idle(idle) => _ = self.idle.remove(&(idle.since, address)),
            State::Abandoned(abandoned) => self.abandoned.remove(address, abandoned),
            State::Offered(offered) => _ = self.untaken.remove(&(offered.until, address)),
            State::Probing(_) | State::Bound(_) => {}
        }
    }
}

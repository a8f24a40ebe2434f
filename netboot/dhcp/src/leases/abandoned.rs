//! Addresses out of use because somebody else has them: whose word that rests on, and when they come back.
//!
//! A DECLINE (RFC 2131 section 4.3.3) is one client's word, and it asks for the next address right after it: a client
//! that always declines would walk through the whole pool. So one client, and one port of a switch where option 82
//! names it, has a *share*: the addresses that are out of use on its word at one time. With one more, the oldest of
//! them becomes *spare*: it goes to whoever finds no fresh address, before any machine's own is lent.
//!
//! All others come back after [`ABANDON`], and earlier, oldest first, when nothing else is left and they had their
//! [`REST`]. The engine probes each before it is offered again, so that a real conflict that can be seen is seen.
//! Whose word it was is not in the store: after a restart everybody has a new share.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use rackbar_model::{MacAddr, Timestamp};

use super::{Binding, State, Table};

/// How long an address that somebody else uses is left alone, in milliseconds.
const ABANDON: u64 = 30 * 60_000;
/// How long it is left alone even when no other is left, in milliseconds: stations that answer for every address would
/// otherwise have us probe one after the other as fast as they answer.
const REST: u64 = 60_000;

/// The largest share of a client. More real conflicts in half an hour are a misconfigured network.
const CLIENT_SHARE: u32 = 4;
/// The largest share of a port: a whole enclosure of blades can be behind one.
const PLACE_SHARE: u32 = 16;

/// On whose word an address is out of use.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum Blame {
    /// A client by its MAC address alone: identifiers cost nothing.
    Client(MacAddr),
    /// Everybody behind one port: relay address and the sub-options 1 and 2 of option 82 (RFC 3046).
    Place(Box<[u8]>),
}

impl Blame {
    /// Addresses of a pool of `pool` that may be out of use on this word at one time; at least one, so that a real
    /// conflict is heeded in the smallest pool.
    pub(crate) fn share(&self, pool: u32) -> usize {
        let share = match self {
            Self::Client(_) => (pool / 4).clamp(1, CLIENT_SHARE),
            Self::Place(_) => (pool / 2).clamp(1, PLACE_SHARE),
        };
        share as usize
    }
}

/// An address out of use.
#[derive(Clone, Debug)]
pub(crate) struct Abandoned {
    /// When it is fresh again: [`ABANDON`] after it was found in use.
    pub(crate) until: Timestamp,
    /// Whose word that is; empty when a probe of ours was answered, or after a restart.
    pub(crate) blame: Vec<Blame>,
    /// Beyond somebody's share.
    pub(crate) spare: bool,
}

/// All abandoned addresses of a network, in the orders they are looked for.
#[derive(Debug, Default)]
pub(crate) struct Abandonments {
    held: BTreeSet<(Timestamp, Ipv4Addr)>,
    spare: BTreeSet<(Timestamp, Ipv4Addr)>,
    /// Those held, by whose word.
    blamed: BTreeSet<(Blame, Timestamp, Ipv4Addr)>,
}

impl Abandonments {
    pub(super) fn insert(&mut self, address: Ipv4Addr, abandoned: &Abandoned) {
        if abandoned.spare {
            self.spare.insert((abandoned.until, address));
            return;
        }
        self.held.insert((abandoned.until, address));
        for blame in &abandoned.blame {
            self.blamed.insert((blame.clone(), abandoned.until, address));
        }
    }

    pub(super) fn remove(&mut self, address: Ipv4Addr, abandoned: &Abandoned) {
        self.spare.remove(&(abandoned.until, address));
        self.held.remove(&(abandoned.until, address));
        for blame in &abandoned.blame {
            self.blamed.remove(&(blame.clone(), abandoned.until, address));
        }
    }

    /// The oldest address out of use on this word, when there are more than `share` of them.
    pub(super) fn beyond(&self, blame: &Blame, share: usize) -> Option<Ipv4Addr> {
        let first = (blame.clone(), Timestamp(0), Ipv4Addr::UNSPECIFIED);
        let mut on_it = self.blamed.range(first..).take_while(|(whose, _, _)| whose == blame);
        let oldest = on_it.next().map(|(_, _, address)| *address)?;
        (on_it.take(share).count() >= share).then_some(oldest)
    }

    /// Those beyond somebody's share, oldest first.
    pub(super) fn spare(&self) -> &BTreeSet<(Timestamp, Ipv4Addr)> {
        &self.spare
    }

    /// Those that had their rest, oldest first; last those of the store that end later than any of this clock would.
    pub(super) fn rested(&self, now: Timestamp) -> impl Iterator<Item = &(Timestamp, Ipv4Addr)> {
        let newest = now.plus(ABANDON - REST);
        let rested = self.held.iter().take_while(move |(until, _)| *until <= newest);
        let unbelievable = (now.plus(ABANDON + 1), Ipv4Addr::UNSPECIFIED);
        rested.chain(self.held.range(unbelievable..))
    }
}

impl Table {
    /// Takes an address out of use because somebody answers there.
    pub(crate) fn abandon(&mut self, address: Ipv4Addr, owner: Option<MacAddr>, now: Timestamp) {
        self.abandon_on(address, owner, now, Vec::new());
    }

    /// Takes an address out of use on somebody's word. Where that is more than one's share, the oldest that rests on the
    /// same word is spare again, and whose word it was is returned.
    pub(crate) fn decline(&mut self, address: Ipv4Addr, now: Timestamp, blame: Vec<Blame>) -> Option<Blame> {
        self.abandon_on(address, None, now, blame.clone());
        let pool = self.fresh.len();
        let mut over = None;
        for blame in blame {
            if let Some(oldest) = self.orders.abandoned.beyond(&blame, blame.share(pool)) {
                self.spare(oldest);
                over.get_or_insert(blame);
            }
        }
        over
    }

    fn abandon_on(&mut self, address: Ipv4Addr, owner: Option<MacAddr>, now: Timestamp, blame: Vec<Blame>) {
        self.remove(address);
        self.put(
            address,
            Binding {
                mac: owner.unwrap_or_default(),
                id: Box::default(),
                hostname: None,
                state: State::Abandoned(Abandoned {
                    until: now.plus(ABANDON),
                    blame,
                    spare: false,
                }),
                probed: None,
                last_bound: None,
                stored: false,
            },
        );
    }

    fn spare(&mut self, address: Ipv4Addr) {
        if let Some(State::Abandoned(abandoned)) = self.get(address).map(|binding| &binding.state) {
            let spare = Abandoned {
                spare: true,
                ..abandoned.clone()
            };
            self.set_state(address, State::Abandoned(spare));
        }
    }
}

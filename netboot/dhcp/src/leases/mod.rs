//! The bindings of one network: which address stands for which client, and what may be handed out next.
//!
//! ```text
//!           DISCOVER, not lately probed            silence            REQUEST
//!   fresh ───────────────────────────▶ Probing ─────────────▶ Offered ────────▶ Bound ◀─┐ REQUEST
//!     ▲                                   │ answered            │ not taken      │ │ └──┘ (renewal)
//!     │ time                              ▼                     ▼    RELEASE,time│ │
//!     └────────────────────────────── Abandoned ◀──DECLINE──────┼────────────────┼─┘
//!                                                               ▼                ▼
//!                                       Offered ◀──DISCOVER── Idle ◀─────────────┘
//! ```
//!
//! The happy path is the upper row. An idle binding waits for its client to come back; when no fresh address is left,
//! the one idle for longest goes to somebody else, and offers that never became a lease go first: a flood of made-up
//! MAC addresses cannot push out the addresses of machines that are merely switched off. With none idle either, an
//! abandoned one is tried again (`abandoned` says which and when), and then the oldest offer that nobody took yet goes to
//! who asks next, and an address is the first one's who requests it: a flood of made-up DISCOVERs holds up nobody who
//! means it (RFC 2131 section 3.1 lets a server offer what it did not reserve).
//!
//! **Which client is which.** RFC 2131 says the client identifier is the key and `chaddr` only when there is none. One
//! machine that netboots shows four identifiers in a minute (its PXE ROM sends its UUID, iPXE and our loader their own,
//! the operating system a DUID), all from one MAC address, and would eat four addresses. So everything that shows it is
//! part of booting (`Key::id` is `None`) is known by its MAC alone, and so is an identifier that merely spells the MAC.
//! Any other identifier inherits the MAC's binding when no other identifier holds it; a second one beside it (two
//! containers on one MAC) gets an address of its own, as the RFC wants. An identifier never counts without its MAC:
//! machines cloned from one disk image share their DUID, and two machines must never share an address.

mod abandoned;
mod free;
mod orders;

use std::collections::HashMap;
use std::net::Ipv4Addr;

use rackbar_model::{Lease, LeaseState, MacAddr, Timestamp};

pub(crate) use abandoned::{Abandoned, Blame};
pub(crate) use free::FreeMap;

use orders::Orders;

use crate::shift::Shift;
use crate::{Network, ReservedFor};

/// Who asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Key<'a> {
    pub(crate) mac: MacAddr,
    /// Client identifier, when it counts besides the MAC.
    pub(crate) id: Option<&'a [u8]>,
    /// Client identifier as sent; reservations go by it alone.
    pub(crate) sent_id: Option<&'a [u8]>,
}

/// An address and who it stands for.
#[derive(Clone, Debug)]
pub(crate) struct Binding {
    pub(crate) mac: MacAddr,
    /// Empty when the MAC alone is the key.
    pub(crate) id: Box<[u8]>,
    pub(crate) hostname: Option<String>,
    pub(crate) state: State,
    /// When an ARP probe last met silence.
    pub(crate) probed: Option<Timestamp>,
    /// When it last was a lease of this very client.
    pub(crate) last_bound: Option<Timestamp>,
    /// What it was last, lease or abandoned, and when that ended or ends, is as the store had it at the start: not read
    /// from the clock of this run, which may have been wrong then.
    pub(crate) stored: bool,
}

impl Binding {
    /// The clock was set: what was read from it moves along.
    fn shift(&mut self, by: Shift) {
        match &mut self.state {
            State::Probing(Probing { until, .. }) | State::Offered(Offered { until }) => by.apply(until),
            State::Bound(_) | State::Idle(_) | State::Abandoned(_) if self.stored => {}
            State::Bound(Bound { until })
            | State::Idle(Idle { since: until })
            | State::Abandoned(Abandoned { until, .. }) => by.apply(until),
        }
        if let Some(at) = self.last_bound.as_mut().filter(|_| !self.stored) {
            by.apply(at);
        }
        if let Some(at) = &mut self.probed {
            by.apply(at);
        }
    }
}

/// What a binding is right now.
#[derive(Clone, Debug)]
pub(crate) enum State {
    Probing(Probing),
    Offered(Offered),
    Bound(Bound),
    Idle(Idle),
    Abandoned(Abandoned),
}

/// An ARP probe is out; the question waits for it.
#[derive(Clone, Debug)]
pub(crate) struct Probing {
    pub(crate) until: Timestamp,
    pub(crate) question: Box<crate::engine::Waiting>,
}

/// Offered, not yet requested.
#[derive(Clone, Debug)]
pub(crate) struct Offered {
    pub(crate) until: Timestamp,
}

/// Acknowledged.
#[derive(Clone, Debug)]
pub(crate) struct Bound {
    pub(crate) until: Timestamp,
}

/// Nobody uses it; its client may come back.
#[derive(Clone, Debug)]
pub(crate) struct Idle {
    /// Place in the order of reuse.
    pub(crate) since: Timestamp,
}

impl State {
    /// When time alone ends it.
    pub(crate) fn until(&self) -> Option<Timestamp> {
        match self {
            Self::Probing(Probing { until, .. })
            | Self::Offered(Offered { until })
            | Self::Bound(Bound { until })
            | Self::Abandoned(Abandoned { until, .. }) => Some(*until),
            Self::Idle(_) => None,
        }
    }
}

/// Why an address cannot be given to a client that asks for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Refusal {
    /// Not in the subnet at all.
    WrongNetwork,
    /// In the subnet, but neither in a pool nor reserved for this client.
    NotOurs,
    /// Reserved for another client.
    Reserved,
    /// Another client's.
    Taken,
    /// In use by an unknown station.
    Abandoned,
}

impl Refusal {
    /// In words, for the client's log and the operator's timeline.
    pub(crate) fn words(self, address: Ipv4Addr) -> String {
        match self {
            Self::WrongNetwork => format!("{address} does not belong to this network"),
            Self::NotOurs => format!("{address} is not in a pool of this network"),
            Self::Reserved => format!("{address} is reserved for another machine"),
            Self::Taken => format!("{address} is leased to another machine"),
            Self::Abandoned => format!("{address} is used by an unknown station"),
        }
    }
}

/// All bindings of one network.
#[derive(Debug, Default)]
pub(crate) struct Table {
    bindings: HashMap<Ipv4Addr, Binding>,
    by_mac: HashMap<MacAddr, Ipv4Addr>,
    /// Keyed by the MAC's octets, then the identifier's.
    by_id: HashMap<Box<[u8]>, Ipv4Addr>,
    fresh: FreeMap,
    reserved: HashMap<Ipv4Addr, ReservedFor>,
    reserved_mac: HashMap<MacAddr, Ipv4Addr>,
    reserved_id: HashMap<Vec<u8>, Ipv4Addr>,
    orders: Orders,
    probing: usize,
}

impl Table {
    /// An empty table for a network, of at most `limit` pool addresses.
    pub(crate) fn new(network: &Network, limit: usize) -> Self {
        let mut table = Self::default();
        for reservation in network.reservations.iter().filter(|r| network.assignable(r.address)) {
            table.reserved.insert(reservation.address, reservation.client.clone());
            match &reservation.client {
                ReservedFor::Mac(mac) => _ = table.reserved_mac.insert(*mac, reservation.address),
                ReservedFor::ClientId(id) => _ = table.reserved_id.insert(id.clone(), reservation.address),
            }
        }
        let reserved = &table.reserved;
        table.fresh = FreeMap::new(&network.pools, limit, |address| {
            network.assignable(address) && !reserved.contains_key(&address)
        });
        table
    }

    /// Takes a lease from the store (`stored`), or of the table this one replaces.
    pub(crate) fn restore(&mut self, lease: Lease, stored: bool) {
        let state = match lease.state {
            LeaseState::Bound => State::Bound(Bound { until: lease.expires }),
            LeaseState::Released => State::Idle(Idle { since: lease.expires }),
            LeaseState::Abandoned => State::Abandoned(Abandoned {
                until: lease.expires,
                blame: Vec::new(),
                spare: false,
            }),
        };
        let last_bound = (lease.state != LeaseState::Abandoned).then_some(lease.expires);
        let id = lease.client_id.into_boxed_slice();
        let hostname = lease.hostname;
        self.put(
            lease.address,
            Binding {
                mac: lease.mac,
                id,
                hostname,
                state,
                probed: None,
                last_bound,
                stored,
            },
        );
    }

    /// Addresses in the pools, and how many of them no binding holds back.
    pub(crate) fn pool(&self) -> (u32, u32) {
        (
            self.fresh.len(),
            self.fresh
                .free()
                .saturating_add(self.orders.idle.len() as u32)
                .saturating_add(self.orders.abandoned.spare().len() as u32)
                .min(self.fresh.len()),
        )
    }

    /// True when a client could get an address here.
    pub(crate) fn can_serve(&self, key: &Key<'_>) -> bool {
        self.fresh.len() > 0 || self.reservation(key).is_some()
    }

    /// The binding of an address.
    pub(crate) fn get(&self, address: Ipv4Addr) -> Option<&Binding> {
        self.bindings.get(&address)
    }

    /// All bindings.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Ipv4Addr, &Binding)> {
        self.bindings.iter().map(|(address, binding)| (*address, binding))
    }

    /// Probes that are out.
    pub(crate) fn probing(&self) -> usize {
        self.probing
    }

    /// When time next ends something.
    pub(crate) fn deadline(&self) -> Option<Timestamp> {
        self.orders.timeline.first().map(|(at, _)| *at)
    }

    /// An address whose time is over, if any.
    pub(crate) fn due(&self, now: Timestamp) -> Option<Ipv4Addr> {
        self.orders
            .timeline
            .first()
            .filter(|(at, _)| *at <= now)
            .map(|(_, address)| *address)
    }

    /// The address reserved for this client.
    pub(crate) fn reservation(&self, key: &Key<'_>) -> Option<Ipv4Addr> {
        let by_id = || key.sent_id.and_then(|id| self.reserved_id.get(id));
        self.reserved_mac.get(&key.mac).or_else(by_id).copied()
    }

    /// The address this client has or had.
    pub(crate) fn find(&self, key: &Key<'_>) -> Option<Ipv4Addr> {
        let by_mac = self.by_mac.get(&key.mac).copied();
        let Some(id) = key.id else { return by_mac };
        let own = self.by_id.get(&joined(key.mac, id)).copied();
        own.or_else(|| {
            by_mac.filter(|address| {
                let heir = self
                    .bindings
                    .get(address)
                    .filter(|b| matches!(b.state, State::Bound(_)));
                heir.is_none_or(|b| b.id.is_empty() || *b.id == *id)
            })
        })
    }

    /// Chooses an address for a client that looks for one (RFC 2131 section 4.3.1): reserved, its own, the one it
    /// wishes, a fresh one, one out of use on a word that does not count, the one idle for longest, the one out of use
    /// for longest, the one offered for longest.
    pub(crate) fn choose(
        &self,
        now: Timestamp,
        network: &Network,
        key: &Key<'_>,
        wish: Option<Ipv4Addr>,
    ) -> Option<Ipv4Addr> {
        let usable = |address: &Ipv4Addr| self.check(network, key, *address).is_ok();
        self.reservation(key)
            .filter(usable)
            .or_else(|| self.find(key).filter(usable))
            .or_else(|| wish.filter(|address| self.fresh.is_free(*address)))
            .or_else(|| self.fresh.pick(spread(key.mac)))
            .or_else(|| self.first_lendable(network, self.orders.abandoned.spare()))
            .or_else(|| self.first_lendable(network, &self.orders.idle))
            .or_else(|| self.first_lendable(network, self.orders.abandoned.rested(now)))
            .or_else(|| self.first_lendable(network, &self.orders.untaken))
    }

    /// Whether an address is offered to another client than this one, which has not taken it yet and never had it.
    pub(crate) fn merely_offered(&self, key: &Key<'_>, address: Ipv4Addr) -> bool {
        let offered = |b: &Binding| matches!(b.state, State::Offered(_)) && b.last_bound.is_none();
        self.get(address).is_some_and(offered) && self.find(key) != Some(address)
    }

    /// Whether an address is taken only because no better one is left.
    pub(crate) fn is_last_resort(&self, key: &Key<'_>, address: Ipv4Addr) -> bool {
        let abandoned = |b: &Binding| matches!(b.state, State::Abandoned(_));
        self.get(address).is_some_and(abandoned) || self.merely_offered(key, address)
    }

    /// Whether this client may have this address.
    pub(crate) fn check(&self, network: &Network, key: &Key<'_>, address: Ipv4Addr) -> Result<(), Refusal> {
        if !network.contains(address) {
            return Err(Refusal::WrongNetwork);
        }
        let reserved = self.reservation(key) == Some(address);
        if !reserved && self.reserved.contains_key(&address) {
            return Err(Refusal::Reserved);
        }
        if !reserved && (!self.fresh.contains(address) || !network.assignable(address)) {
            return Err(Refusal::NotOurs);
        }
        let Some(binding) = self.bindings.get(&address) else {
            return Ok(());
        };
        let own = self.find(key) == Some(address);
        match &binding.state {
            State::Abandoned(_) => Err(Refusal::Abandoned),
            State::Probing(_) | State::Offered(_) | State::Bound(_) if !own => Err(Refusal::Taken),
            State::Idle(_) if !own && !reserved && binding.last_bound.is_some() => Err(Refusal::Taken),
            State::Probing(_) | State::Offered(_) | State::Bound(_) | State::Idle(_) => Ok(()),
        }
    }

    fn first_lendable<'a>(
        &self,
        network: &Network,
        order: impl IntoIterator<Item = &'a (Timestamp, Ipv4Addr)>,
    ) -> Option<Ipv4Addr> {
        let mut addresses = order.into_iter().map(|(_, address)| *address);
        addresses.find(|address| self.lendable(network, *address))
    }

    /// Whether an address may go to somebody else.
    fn lendable(&self, network: &Network, address: Ipv4Addr) -> bool {
        self.fresh.contains(address) && network.assignable(address) && !self.reserved.contains_key(&address)
    }

    /// Puts an address into a state for a client. What the address was before is kept as far as it is the same
    /// client's.
    pub(crate) fn assign(&mut self, address: Ipv4Addr, key: &Key<'_>, state: State) {
        let own = self.find(key) == Some(address);
        let old = self.remove(address);
        let probed = old.as_ref().and_then(|b| b.probed);
        let old = old.filter(|_| own);
        let id: Box<[u8]> = match (&state, key.id, &old) {
            (State::Bound(_), id, _) => id.unwrap_or_default().into(),
            // Until it is bound, an offer must not take the address away from the identifier that holds it.
            (_, _, Some(old)) => old.id.clone(),
            (_, id, None) => id.unwrap_or_default().into(),
        };
        let last_bound = match &state {
            State::Bound(bound) => Some(bound.until),
            _ => old.as_ref().and_then(|b| b.last_bound),
        };
        let stored = old.as_ref().is_some_and(|b| b.stored) && !matches!(state, State::Bound(_));
        let hostname = old.and_then(|b| b.hostname);
        self.put(
            address,
            Binding {
                mac: key.mac,
                id,
                hostname,
                state,
                probed,
                last_bound,
                stored,
            },
        );
    }

    /// Changes the state of an existing binding.
    pub(crate) fn set_state(&mut self, address: Ipv4Addr, state: State) {
        if let Some(mut binding) = self.remove(address) {
            binding.state = state;
            self.put(address, binding);
        }
    }

    /// Records that a probe met silence.
    pub(crate) fn set_probed(&mut self, address: Ipv4Addr, at: Timestamp) {
        if let Some(binding) = self.bindings.get_mut(&address) {
            binding.probed = Some(at);
        }
    }

    /// Records the client's host name.
    pub(crate) fn set_hostname(&mut self, address: Ipv4Addr, name: Option<String>) {
        if let Some(binding) = self.bindings.get_mut(&address)
            && name.is_some()
        {
            binding.hostname = name;
        }
    }

    /// Ends an offer, a lease or a probe: the binding waits for its client.
    pub(crate) fn idle(&mut self, address: Ipv4Addr, now: Timestamp) {
        // Never-taken offers stand in front of the whole order of reuse.
        let since = self
            .get(address)
            .and_then(|b| b.last_bound)
            .map_or(Timestamp(0), |_| now);
        self.set_state(address, State::Idle(Idle { since }));
    }

    /// The clock was set: what was read from it moves along, so that everything lasts as long as it would have.
    pub(crate) fn shift(&mut self, by: Shift) {
        self.orders = Orders::default();
        for (address, binding) in &mut self.bindings {
            binding.shift(by);
            self.orders.insert(*address, binding);
        }
    }

    /// Forgets an address; it is fresh again.
    pub(crate) fn remove(&mut self, address: Ipv4Addr) -> Option<Binding> {
        let binding = self.bindings.remove(&address)?;
        self.orders.remove(address, &binding);
        self.probing -= usize::from(matches!(binding.state, State::Probing(_)));
        if self.by_mac.get(&binding.mac) == Some(&address) {
            self.by_mac.remove(&binding.mac);
        }
        let id_key = joined(binding.mac, &binding.id);
        if self.by_id.get(&id_key) == Some(&address) {
            self.by_id.remove(&id_key);
        }
        if !self.reserved.contains_key(&address) {
            self.fresh.give(address);
        }
        Some(binding)
    }

    fn put(&mut self, address: Ipv4Addr, binding: Binding) {
        self.fresh.take(address);
        self.orders.insert(address, &binding);
        self.probing += usize::from(matches!(binding.state, State::Probing(_)));
        // Whoever uses an abandoned address did not get it from us.
        if matches!(binding.state, State::Abandoned(_)) {
            self.bindings.insert(address, binding);
            return;
        }
        if binding.id.is_empty() {
            self.by_mac.insert(binding.mac, address);
        } else {
            self.by_mac.entry(binding.mac).or_insert(address);
            self.by_id.insert(joined(binding.mac, &binding.id), address);
        }
        self.bindings.insert(address, binding);
    }
}

/// Where in the pool to look first for this client: with its lease forgotten (an appliance without a disk, restarted)
/// it most likely gets the same address again, and nobody else gets it first.
fn spread(mac: MacAddr) -> u64 {
    // FNV-1a.
    mac.0.iter().fold(0xcbf2_9ce4_8422_2325, |hash, b| {
        (hash ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3)
    })
}

fn joined(mac: MacAddr, id: &[u8]) -> Box<[u8]> {
    [&mac.0[..], id].concat().into()
}

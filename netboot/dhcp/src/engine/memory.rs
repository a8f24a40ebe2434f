//! What each machine's firmware did with our answers, and which way to lead it next (negotiation, A3).
//!
//! ```text
//!             DISCOVER                REQUEST, 4011            a boot file fetched
//!   Looking ───────────▶ Answered ─────────────────▶ Requested ──────────────────▶ Fetched
//!                          │  ▲ DISCOVER again          │                             │
//!                          └──┴─────────────────────────┴─────────DISCOVER────────────┘
//! ```
//!
//! The happy path is the upper row; a machine that fetched a boot file has shown that its way works, and its counts
//! start anew. Going back from `Answered` to `Answered` counts an offer without an echo, going back from `Requested`
//! a request that led to nothing. Two of either, and the way is given up for the next one the site allows.

use std::collections::{BTreeSet, HashMap};
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

use rackbar_model::{BootWay, ClientArch, FirmwareHabit, MacAddr, Timestamp};

use crate::shift::Shift;

/// DISCOVERs closer than this are one try heard twice (two relays, a chatty ROM), in milliseconds.
const SAME_TRY: u64 = 1500;
/// A transaction number met again after this belongs to another transaction, in milliseconds.
const SAME_TRANSACTION: u64 = 60_000;
/// How often a way may come to nothing before the next one's turn.
const PATIENCE: u32 = 2;
/// Time for a BMC to lead the machine, in milliseconds: it fetches, sets, restarts, and meanwhile the firmware goes on
/// asking as before.
const BMC_TIME: u64 = 120_000;
/// A habit that is confirmed at every boot is recorded again after this, in milliseconds, so that it does not grow old.
const CONFIRM_AGAIN: u64 = 24 * 3_600_000;

/// What a machine last did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClientPhase {
    /// Nothing yet that we answered.
    Looking,
    /// We sent boot information.
    Answered {
        /// When.
        at: Timestamp,
    },
    /// It requested an address, from us or another server, or asked port 4011.
    Requested {
        /// When.
        at: Timestamp,
    },
    /// It fetched a boot file.
    Fetched {
        /// When.
        at: Timestamp,
    },
}

/// What we remember of a machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClientMemory {
    /// Its boot interface.
    pub mac: MacAddr,
    /// First message.
    pub first_seen: Timestamp,
    /// Last message.
    pub last_seen: Timestamp,
    /// Option 93 of its firmware.
    pub arch: Option<ClientArch>,
    /// The address it last asked for, from us or another server.
    pub address: Option<Ipv4Addr>,
    /// What it last did.
    pub phase: ClientPhase,
    /// The way we lead it now; `None` until its firmware asked.
    pub way: Option<BootWay>,
    /// Boot offers we sent in all.
    pub offers: u32,
    /// Requests seen in all, to whichever server.
    pub requests: u32,
    /// Messages to port 4011 in all.
    pub boot_server_requests: u32,
    /// Boot files fetched in all.
    pub fetches: u32,
    /// Offers since its last sign of understanding.
    pub unanswered: u32,
    /// Requests since then that were followed by no fetch.
    pub fruitless: u32,
    /// The way that last led to a fetch.
    pub proven: Option<BootWay>,
    /// Ways given up since one last worked.
    pub given_up: Vec<BootWay>,
    /// Why it was moved to its way, in words.
    pub reason: Option<String>,
    /// When what we know of its firmware was recorded last; `None` while nothing was.
    pub learnt: Option<Timestamp>,
    /// When its BMC was asked to lead it.
    pub(super) bmc_asked: Option<Timestamp>,
    pub(super) told: Told,
    /// The policy refusal was told.
    pub(super) ignored: bool,
    /// That we have no boot file for it was told.
    pub(super) fileless: bool,
    /// That no other way is left was told.
    pub(super) stuck: bool,
}

/// Messages of a transaction already put into events: retransmissions are answered, not told again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Told {
    xid: u32,
    begun: Timestamp,
    /// One bit a message type.
    kinds: u16,
}

impl ClientMemory {
    fn new(mac: MacAddr, now: Timestamp) -> Self {
        Self {
            mac,
            first_seen: now,
            last_seen: now,
            arch: None,
            address: None,
            phase: ClientPhase::Looking,
            way: None,
            offers: 0,
            requests: 0,
            boot_server_requests: 0,
            fetches: 0,
            unanswered: 0,
            fruitless: 0,
            proven: None,
            given_up: Vec::new(),
            reason: None,
            learnt: None,
            bmc_asked: None,
            told: Told::default(),
            ignored: false,
            fileless: false,
            stuck: false,
        }
    }

    /// Its firmware looks for a server again: counts what became of the last try, and says in words why its way
    /// should be given up, if it should.
    pub(super) fn looks_again(&mut self, now: Timestamp) -> Option<String> {
        if self.bmc_asked.is_some_and(|at| now.since(at) < BMC_TIME) {
            return None;
        }
        match self.phase {
            ClientPhase::Answered { at } if now.since(at) >= SAME_TRY => {
                self.unanswered = self.unanswered.saturating_add(1);
            }
            ClientPhase::Requested { at } if now.since(at) >= SAME_TRY => {
                self.fruitless = self.fruitless.saturating_add(1);
            }
            ClientPhase::Looking
            | ClientPhase::Answered { .. }
            | ClientPhase::Requested { .. }
            | ClientPhase::Fetched { .. } => {}
        }
        if let Some(way @ (BootWay::RedfishUrl | BootWay::VirtualMedia)) = self.way {
            let tries = self.unanswered.saturating_add(self.fruitless);
            return (tries >= PATIENCE).then(|| {
                format!("led by {way}, it asked the network {tries} times more and fetched no boot file that way")
            });
        }
        let offers = match self.way {
            Some(BootWay::Proxy) => "proxy offers",
            Some(BootWay::UefiHttps) => "offers of an address and an HTTPS URL",
            Some(BootWay::FullDhcp | BootWay::UefiHttp | BootWay::RedfishUrl | BootWay::VirtualMedia) | None => {
                "offers of an address and a boot file"
            }
        };
        let why = match self.way {
            Some(BootWay::UefiHttps) => "the firmware does not trust the boot certificate, or has no TLS",
            _ => "the firmware ignores them",
        };
        if self.unanswered >= PATIENCE {
            return Some(format!(
                "{} {offers} and no request, nothing on port 4011: the firmware does not take them",
                self.unanswered
            ));
        }
        (self.fruitless >= PATIENCE).then(|| {
            format!(
                "{} requests after our {offers} and no boot file fetched: {why}",
                self.fruitless
            )
        })
    }

    /// The next way of those the site allows, in its order, that was not given up before.
    pub(super) fn next_way(&self, allowed: impl IntoIterator<Item = BootWay>) -> Option<BootWay> {
        allowed
            .into_iter()
            .find(|way| Some(*way) != self.way && !self.given_up.contains(way))
    }

    /// What a habit recorded before a restart says.
    pub(super) fn recalled(habit: FirmwareHabit) -> Self {
        Self {
            arch: habit.arch,
            way: Some(habit.way),
            proven: habit.proven.then_some(habit.way),
            given_up: habit.given_up,
            reason: habit.reason,
            learnt: Some(habit.seen),
            ..Self::new(habit.mac, habit.seen)
        }
    }

    /// What is to be recorded of its firmware now; `None` while it has no way.
    pub(super) fn learn(&mut self, now: Timestamp) -> Option<FirmwareHabit> {
        let way = self.way?;
        self.learnt = Some(now);
        Some(FirmwareHabit {
            mac: self.mac,
            arch: self.arch,
            way,
            proven: self.proven == Some(way),
            given_up: self.given_up.clone(),
            reason: self.reason.clone(),
            seen: now,
        })
    }

    /// Begins anew with its firmware. True when something was recorded of it.
    pub(super) fn unlearn(&mut self) -> bool {
        self.phase = ClientPhase::Looking;
        self.way = None;
        self.unanswered = 0;
        self.fruitless = 0;
        self.proven = None;
        self.given_up.clear();
        self.reason = None;
        self.stuck = false;
        self.learnt.take().is_some()
    }

    /// Changes the way; returns the one before.
    pub(super) fn change_way(&mut self, to: BootWay, now: Timestamp) -> Option<BootWay> {
        let by_bmc = matches!(to, BootWay::RedfishUrl | BootWay::VirtualMedia);
        self.bmc_asked = by_bmc.then_some(now);
        self.unanswered = 0;
        self.fruitless = 0;
        self.phase = ClientPhase::Looking;
        let from = self.way.replace(to);
        self.given_up.extend(from);
        from
    }

    /// We sent boot information.
    pub(super) fn answered(&mut self, now: Timestamp) {
        self.offers = self.offers.saturating_add(1);
        // A repeat within one try keeps the try's beginning, else a ROM that asks every second never counts.
        if !matches!(self.phase, ClientPhase::Answered { at } if now.since(at) < SAME_TRY) {
            self.phase = ClientPhase::Answered { at: now };
        }
    }

    /// It requested, from us or another server.
    pub(super) fn requested(&mut self, now: Timestamp, address: Option<Ipv4Addr>) {
        self.address = address.or(self.address);
        self.requests = self.requests.saturating_add(1);
        self.unanswered = 0;
        if matches!(self.phase, ClientPhase::Answered { .. }) {
            self.phase = ClientPhase::Requested { at: now };
        }
    }

    /// It spoke to port 4011.
    pub(super) fn asked_boot_server(&mut self, now: Timestamp, address: Option<Ipv4Addr>) {
        self.address = address.or(self.address);
        self.boot_server_requests = self.boot_server_requests.saturating_add(1);
        self.unanswered = 0;
        self.phase = ClientPhase::Requested { at: now };
    }

    /// It broke off TLS: its firmware said so itself, and the way need not come to nothing a second time.
    pub(super) fn refused_tls(&mut self) {
        if self.way == Some(BootWay::UefiHttps) {
            self.fruitless = PATIENCE;
        }
    }

    /// It fetched a boot file: its way works. True when that is news worth recording.
    pub(super) fn fetched(&mut self, now: Timestamp) -> bool {
        let old = self.learnt.is_none_or(|at| now.since(at) >= CONFIRM_AGAIN);
        let news = self.way.is_some() && (self.proven != self.way || !self.given_up.is_empty() || old);
        self.fetches = self.fetches.saturating_add(1);
        self.unanswered = 0;
        self.fruitless = 0;
        self.proven = self.way;
        self.given_up.clear();
        self.stuck = false;
        self.bmc_asked = None;
        self.phase = ClientPhase::Fetched { at: now };
        news
    }

    /// True the first time this message of this transaction is asked about.
    pub(super) fn tell_once(&mut self, xid: u32, kind: u8, now: Timestamp) -> bool {
        let told = &mut self.told;
        if told.xid != xid || now.since(told.begun) > SAME_TRANSACTION {
            *told = Told {
                xid,
                begun: now,
                kinds: 0,
            };
        }
        let bit = 1u16.checked_shl(u32::from(kind)).unwrap_or(0);
        let first = told.kinds & bit == 0;
        told.kinds |= bit;
        first
    }

    /// True when a transaction was begun within so many milliseconds.
    pub(super) fn spoke_within(&self, millis: u64, now: Timestamp) -> bool {
        self.told.begun != Timestamp::default() && now.since(self.told.begun) <= millis
    }

    /// The clock was set. What was not read from it in its `life` came from a store.
    fn shift(&mut self, by: Shift, life: &RangeInclusive<Timestamp>) {
        [&mut self.first_seen, &mut self.last_seen]
            .into_iter()
            .chain(&mut self.learnt)
            .filter(|at| life.contains(at))
            .for_each(|at| by.apply(at));
        match &mut self.phase {
            ClientPhase::Looking => {}
            ClientPhase::Answered { at } | ClientPhase::Requested { at } | ClientPhase::Fetched { at } => by.apply(at),
        }
        if let Some(at) = &mut self.bmc_asked {
            by.apply(at);
        }
        by.apply(&mut self.told.begun);
    }

    /// Leaves this transaction out of the events.
    pub(super) fn tell_nothing(&mut self, xid: u32, now: Timestamp) {
        self.told = Told {
            xid,
            begun: now,
            kinds: u16::MAX,
        };
    }
}

/// All machines remembered, at most `limit`; the one silent for longest goes first.
#[derive(Debug, Default)]
pub(super) struct Clients {
    map: HashMap<MacAddr, ClientMemory>,
    by_age: BTreeSet<(Timestamp, MacAddr)>,
}

impl Clients {
    /// The machine, remembered from now on.
    pub(super) fn see(&mut self, mac: MacAddr, now: Timestamp, limit: usize) -> &mut ClientMemory {
        if let Some(old) = self.map.get(&mac) {
            self.by_age.remove(&(old.last_seen, mac));
        } else {
            self.shrink(limit.max(1) - 1);
        }
        self.by_age.insert((now, mac));
        let memory = self.map.entry(mac).or_insert_with(|| ClientMemory::new(mac, now));
        memory.last_seen = now;
        memory
    }

    /// Takes in what was known before a restart, unless the machine spoke since. False when there is no room.
    pub(super) fn recall(&mut self, habit: FirmwareHabit, limit: usize) -> bool {
        let (mac, seen) = (habit.mac, habit.seen);
        if self.map.len() >= limit || self.map.contains_key(&mac) {
            return self.map.contains_key(&mac);
        }
        self.by_age.insert((seen, mac));
        self.map.insert(mac, ClientMemory::recalled(habit));
        true
    }

    /// The machine, if remembered.
    pub(super) fn get_mut(&mut self, mac: MacAddr) -> Option<&mut ClientMemory> {
        self.map.get_mut(&mac)
    }

    /// The machine, if remembered.
    pub(super) fn get(&self, mac: MacAddr) -> Option<&ClientMemory> {
        self.map.get(&mac)
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = &ClientMemory> {
        self.map.values()
    }

    /// The clock was set, from which all times in its `life` were read.
    pub(super) fn shift(&mut self, by: Shift, life: RangeInclusive<Timestamp>) {
        self.map.values_mut().for_each(|memory| memory.shift(by, &life));
        self.by_age = self.map.values().map(|memory| (memory.last_seen, memory.mac)).collect();
    }

    /// Forgets the longest silent until at most `limit` are left.
    pub(super) fn shrink(&mut self, limit: usize) {
        while self.map.len() > limit
            && let Some((_, mac)) = self.by_age.pop_first()
        {
            self.map.remove(&mac);
        }
    }
}

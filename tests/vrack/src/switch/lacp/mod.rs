//! Link aggregation with LACP (IEEE 802.1AX-2020), the switch's side of one bundle.
//!
//! Per member, the machines of clause 6.4 reduced to what a bundle with fixed members needs: Receive, Periodic, Mux with
//! coupled control, and Transmit. Selection is by the rule of 6.4.14 for one aggregator: the lowest member whose partner
//! speaks decides which partner the bundle leads to, and members that lead elsewhere stay out.
//!
//! ```text
//! Receive:  link up ──▶ EXPIRED ──3 s──▶ DEFAULTED        a PDU from any state ──▶ CURRENT
//!              CURRENT ──3 or 90 s of silence──▶ EXPIRED
//! Mux:      Detached ──selected──▶ Waiting ──2 s──▶ Attached ──partner in sync──▶ Distributing
//!              any ──no longer selected, silent, or partner out of sync──▶ back
//! ```
//!
//! A member forwards while its Mux distributes, and in no other state: a machine that does not speak LACP, as firmware
//! does not, hears nothing. `fallback` is what switches offer against that: while no member's partner speaks, the first
//! member whose link is up forwards alone.

mod pdu;

use std::time::Duration;

use tokio::time::Instant;

use super::lldp;
use pdu::{End, Pdu, state};

/// Defaults of the standard (6.4.4, table 6-1): what each end asks the other to send at.
const FAST_PERIODIC: Duration = Duration::from_secs(1);
const SLOW_PERIODIC: Duration = Duration::from_secs(30);
const SHORT_TIMEOUT: Duration = Duration::from_secs(3);
const LONG_TIMEOUT: Duration = Duration::from_secs(90);
const AGGREGATE_WAIT: Duration = Duration::from_secs(2);
/// Most PDUs in one Fast_Periodic_Time (6.4.16).
const BURST: u32 = 3;
const PRIORITY: u16 = 0x8000;

/// How a bundle behaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LagConfig {
    /// While no partner speaks LACP, one member forwards alone.
    pub fallback: bool,
    /// Asks partners to speak every second and gives them up after three; else every 30 s and 90.
    pub fast: bool,
}

/// Is the slow protocols' address and LACP.
pub(super) fn is_lacp(frame: &[u8]) -> bool {
    frame.starts_with(&pdu::DESTINATION) && frame.get(12..15) == Some(&[0x88, 0x09, 1])
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Receive {
    Disabled,
    Expired,
    Defaulted,
    Current,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mux {
    Detached,
    Waiting(Instant),
    Attached,
    Distributing,
}

/// One member's machines.
#[derive(Debug)]
struct Member {
    /// The switch port, counted from 0: its number in PDUs is one more.
    port: u32,
    actor: End,
    partner: End,
    receive: Receive,
    /// `current_while`.
    current: Option<Instant>,
    mux: Mux,
    /// When the next PDU is due of itself.
    periodic: Option<Instant>,
    /// `NTT`: something changed that the partner must hear.
    tell: bool,
    /// Start of the present Fast_Periodic_Time and the PDUs sent in it.
    burst: (Option<Instant>, u32),
}

/// All members of a bundle.
#[derive(Debug)]
pub(super) struct Aggregator {
    config: LagConfig,
    members: Vec<Member>,
}

impl Member {
    fn new(port: u32, key: u16, fast: bool) -> Self {
        let mut actor = End {
            system_priority: PRIORITY,
            system: lldp::CHASSIS,
            key,
            port_priority: PRIORITY,
            port: u16::try_from(port + 1).unwrap_or(u16::MAX),
            state: state::ACTIVITY | state::AGGREGATION | state::DEFAULTED,
        };
        actor.set(state::TIMEOUT, fast);
        Self {
            port,
            actor,
            partner: End::default(),
            receive: Receive::Disabled,
            current: None,
            mux: Mux::Detached,
            periodic: None,
            tell: false,
            burst: (None, 0),
        }
    }

    fn link(&mut self, up: bool, now: Instant) {
        match (up, self.receive) {
            (false, _) => {
                (self.receive, self.current, self.periodic) = (Receive::Disabled, None, None);
                self.partner = End::default();
                self.set_mux(Mux::Detached);
                self.tell = false;
            }
            (true, Receive::Disabled) => self.expire(now),
            (true, Receive::Expired | Receive::Defaulted | Receive::Current) => {}
        }
    }

    /// Enters EXPIRED (6.4.12): the partner is asked to speak soon, and what it said counts no longer as in sync.
    fn expire(&mut self, now: Instant) {
        self.receive = Receive::Expired;
        self.current = Some(now + SHORT_TIMEOUT);
        self.partner.set(state::SYNCHRONIZATION, false);
        self.partner.set(state::TIMEOUT, true);
        self.actor.set(state::EXPIRED, true);
        self.periodic = Some(now);
    }

    fn default_partner(&mut self) {
        self.receive = Receive::Defaulted;
        self.current = None;
        self.partner = End::default();
        self.actor.set(state::EXPIRED, false);
        self.actor.set(state::DEFAULTED, true);
        self.tell = true;
    }

    /// Enters CURRENT: recordPDU and updateNTT (6.4.9).
    fn hear(&mut self, pdu: &Pdu, now: Instant) {
        const SEEN: u8 = state::ACTIVITY | state::TIMEOUT | state::AGGREGATION | state::SYNCHRONIZATION;
        let same = |theirs: &End, mask: u8| {
            (
                theirs.aggregation(),
                theirs.port_priority,
                theirs.port,
                theirs.state & mask,
            ) == (
                self.actor.aggregation(),
                self.actor.port_priority,
                self.actor.port,
                self.actor.state & mask,
            )
        };
        let knows_us = same(&pdu.partner, state::AGGREGATION);
        let up_to_date = same(&pdu.partner, SEEN);
        self.partner = pdu.actor;
        // Their sync counts only when they mean this very port, or do not want to aggregate at all.
        let agrees = pdu.actor.has(state::SYNCHRONIZATION) && (knows_us || !pdu.actor.has(state::AGGREGATION));
        self.partner.set(state::SYNCHRONIZATION, agrees);
        self.actor.set(state::EXPIRED, false);
        self.actor.set(state::DEFAULTED, false);
        let timeout = if self.actor.has(state::TIMEOUT) {
            SHORT_TIMEOUT
        } else {
            LONG_TIMEOUT
        };
        (self.receive, self.current) = (Receive::Current, Some(now + timeout));
        if self.partner.has(state::TIMEOUT) {
            self.periodic = self.periodic.map(|due| due.min(now + FAST_PERIODIC));
        }
        self.tell |= !up_to_date;
    }

    fn set_mux(&mut self, mux: Mux) {
        let bits = match mux {
            Mux::Detached | Mux::Waiting(_) => 0,
            Mux::Attached => state::SYNCHRONIZATION,
            Mux::Distributing => state::SYNCHRONIZATION | state::COLLECTING | state::DISTRIBUTING,
        };
        let before = self.actor.state;
        for bit in [state::SYNCHRONIZATION, state::COLLECTING, state::DISTRIBUTING] {
            self.actor.set(bit, bits & bit != 0);
        }
        self.tell |= self.actor.state != before;
        self.mux = mux;
    }

    /// One step of the Mux machine with coupled control (6.4.15); true when it moved.
    fn step(&mut self, selected: bool, now: Instant) -> bool {
        let in_sync = self.partner.has(state::SYNCHRONIZATION);
        let next = match self.mux {
            _ if !selected => Mux::Detached,
            Mux::Detached => Mux::Waiting(now + AGGREGATE_WAIT),
            Mux::Waiting(until) if until <= now => Mux::Attached,
            Mux::Attached if in_sync => Mux::Distributing,
            Mux::Distributing if !in_sync => Mux::Attached,
            Mux::Waiting(_) | Mux::Attached | Mux::Distributing => return false,
        };
        let moved = next != self.mux;
        if moved {
            self.set_mux(next);
        }
        moved
    }

    /// The PDU to send now, if one is due and the burst allows it.
    fn transmit(&mut self, now: Instant) -> Option<Vec<u8>> {
        if self.receive == Receive::Disabled {
            return None;
        }
        let due = self.periodic.is_some_and(|due| due <= now);
        if !due && !self.tell {
            return None;
        }
        if self.burst.0.is_none_or(|start| now >= start + FAST_PERIODIC) {
            self.burst = (Some(now), 0);
        }
        if self.burst.1 >= BURST {
            return None;
        }
        self.burst.1 += 1;
        self.tell = false;
        // We are active, so PDUs are always periodic; the partner's timeout says how often.
        let fast = self.partner.has(state::TIMEOUT);
        self.periodic = Some(now + if fast { FAST_PERIODIC } else { SLOW_PERIODIC });
        let pdu = Pdu {
            actor: self.actor,
            partner: self.partner,
        };
        Some(pdu.frame(lldp::port_address(self.port), 0))
    }

    fn deadline(&self) -> Option<Instant> {
        if self.receive == Receive::Disabled {
            return None;
        }
        let waiting = match self.mux {
            Mux::Waiting(until) => Some(until),
            Mux::Detached | Mux::Attached | Mux::Distributing => None,
        };
        let wants = if self.tell { self.burst.0 } else { self.periodic };
        // A full burst waits for its time to pass.
        let free = self
            .burst
            .0
            .filter(|_| self.burst.1 >= BURST)
            .map(|start| start + FAST_PERIODIC);
        let send = wants.max(free.filter(|_| wants.is_some()));
        [self.current, waiting, send].into_iter().flatten().min()
    }
}

impl Aggregator {
    /// A bundle of switch ports, counted from 0, under a key of its own.
    pub(super) fn new(ports: &[u32], key: u16, config: LagConfig) -> Self {
        let members = ports.iter().map(|port| Member::new(*port, key, config.fast)).collect();
        Self { config, members }
    }

    /// A member's link came up or went down.
    pub(super) fn link(&mut self, member: usize, up: bool, now: Instant) {
        if let Some(member) = self.members.get_mut(member) {
            member.link(up, now);
        }
    }

    /// A frame to the slow protocols' address; anything but an LACPDU is ignored.
    pub(super) fn receive(&mut self, member: usize, frame: &[u8], now: Instant) {
        let (Some(member), Some(pdu)) = (self.members.get_mut(member), Pdu::parse(frame)) else {
            return;
        };
        // Our own PDU is a loop, not a partner.
        if member.receive != Receive::Disabled && pdu.actor.system != lldp::CHASSIS {
            member.hear(&pdu, now);
        }
    }

    /// Does what is due; appends the frames to send, each with its member.
    pub(super) fn poll(&mut self, now: Instant, out: &mut Vec<(usize, Vec<u8>)>) {
        for member in &mut self.members {
            if member.current.is_some_and(|until| until <= now) {
                match member.receive {
                    Receive::Current => member.expire(now),
                    Receive::Disabled | Receive::Expired | Receive::Defaulted => member.default_partner(),
                }
            }
        }
        let leads_to = self.members.iter().find_map(partner);
        for member in &mut self.members {
            let selected = partner(member).is_some_and(|its| Some(its) == leads_to);
            while member.step(selected, now) {}
        }
        self.say_fallback();
        for (at, member) in self.members.iter_mut().enumerate() {
            out.extend(member.transmit(now).map(|frame| (at, frame)));
        }
    }

    /// A member that forwards alone says so: it collects and distributes without a partner.
    fn say_fallback(&mut self) {
        let alone = self.alone();
        for (at, member) in self.members.iter_mut().enumerate() {
            if member.mux != Mux::Distributing {
                let before = member.actor.state;
                member.actor.set(state::COLLECTING, alone == Some(at));
                member.actor.set(state::DISTRIBUTING, alone == Some(at));
                member.tell |= before != member.actor.state;
            }
        }
    }

    /// When [`Aggregator::poll`] next has something to do.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.members.iter().filter_map(Member::deadline).min()
    }

    /// The members that forward, in order.
    pub(super) fn active(&self) -> Vec<usize> {
        if let Some(alone) = self.alone() {
            return vec![alone];
        }
        let distributing = |(at, member): (usize, &Member)| (member.mux == Mux::Distributing).then_some(at);
        self.members.iter().enumerate().filter_map(distributing).collect()
    }

    /// The member that forwards alone, where the bundle falls back.
    fn alone(&self) -> Option<usize> {
        let silent = |member: &Member| matches!(member.receive, Receive::Disabled | Receive::Defaulted);
        if !self.config.fallback || !self.members.iter().all(silent) {
            return None;
        }
        self.members
            .iter()
            .position(|member| member.receive == Receive::Defaulted)
    }
}

/// Whom a member leads to, while its partner speaks and wants to be aggregated.
fn partner(member: &Member) -> Option<(u16, [u8; 6], u16)> {
    let speaks = matches!(member.receive, Receive::Current | Receive::Expired) && member.partner.port != 0;
    (speaks && member.partner.has(state::AGGREGATION)).then(|| member.partner.aggregation())
}

#[cfg(test)]
mod tests;

//! The client over all its servers, and what is done to the clock.
//!
//! ```text
//!          first selection              offset small              none selected for long
//! Unset ───── Step or Slew ──▶ Synced ──── Slew ──▶ Synced ─────── the error bound grows ──▶ Unsynchronised to our
//!                                │ offset over half a second                                  own clients, and Lost
//!                                └── for five minutes: Step
//! ```

use std::net::SocketAddr;

use crate::leap::due_today;
use crate::packet::{Leap, PACKET};
use crate::select::{combine, select};
use crate::source::{Best, Refused, Source};
use crate::{DRIFT, SECOND, SystemState, reference_of};

/// Beyond this the first correction is a step; below, slewing is over in a minute or two and nobody sees time go back.
const STEP_AT_START: u64 = 10_000_000;
/// The kernel slews no more than this (adjtimex(2): half a second).
const SLEWABLE: u64 = 500_000_000;
/// Milliseconds that a larger offset must last before the clock is set: one odd answer must not do it.
const STEP_OUT: u64 = 300_000;
/// An error bound beyond this is called unsynchronised.
const LOST: u64 = SECOND as u64;

/// Whom to follow.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ClientConfig {
    /// Servers, port 123 usually.
    pub servers: Vec<SocketAddr>,
    /// With no server to follow, our clock is the reference at this stratum.
    pub local_stratum: Option<u8>,
}

/// What is to be done to the clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Adjust {
    /// Add this many nanoseconds at once.
    Step(i64),
    /// Add this many nanoseconds by running a little faster or slower.
    Slew(i64),
}

/// What the shell is to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Output {
    /// Send a request.
    Send {
        /// To whom.
        to: SocketAddr,
        /// What.
        packet: [u8; PACKET],
    },
    /// Correct the clock, and say whether this UTC day ends with a leap second.
    Adjust {
        /// How.
        how: Adjust,
        /// The leap second at the end of this UTC day.
        leap: Leap,
        /// The error bound afterwards, in nanoseconds.
        bound: u64,
    },
    /// Nobody was heard for so long that the clock may be off by more than a second: it is synchronised no more, until
    /// the next correction.
    Lost,
}

/// How a server is seen, for people.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sight {
    /// Who.
    pub address: SocketAddr,
    /// Its last eight tries, the newest in the lowest bit.
    pub reach: u8,
    /// Whether we follow it, or what keeps us from it.
    pub state: &'static str,
    /// Its stratum, when it was heard.
    pub stratum: Option<u8>,
    /// How far our clock is off by it, in nanoseconds.
    pub offset: Option<i64>,
    /// Round trip in nanoseconds.
    pub delay: Option<u64>,
}

/// The client.
#[derive(Debug)]
pub struct Client {
    config: ClientConfig,
    sources: Vec<Source>,
    chosen: Vec<SocketAddr>,
    state: SystemState,
    set: bool,
    /// The shell was told of a correction, and of no loss since.
    kept: bool,
    /// Since when the offset is too large to slew.
    large_since: Option<u64>,
}

impl Client {
    /// Begins to ask at monotonic time `now` (milliseconds).
    pub fn new(config: ClientConfig, now: u64) -> Self {
        let sources = config.servers.iter().map(|at| Source::new(*at, now)).collect();
        Self {
            config,
            sources,
            chosen: Vec::new(),
            state: SystemState::unsynchronised(),
            set: false,
            kept: false,
            large_since: None,
        }
    }

    /// Follows others from now on; those that stay keep their samples.
    pub fn configure(&mut self, config: ClientConfig, now: u64) {
        self.sources.retain(|source| config.servers.contains(&source.address));
        for server in &config.servers {
            if !self.sources.iter().any(|source| source.address == *server) {
                self.sources.push(Source::new(*server, now));
            }
        }
        self.config = config;
    }

    /// Whether this server answered one of its last eight requests, and does not refuse us.
    pub fn answers(&self, server: SocketAddr) -> bool {
        let heard = |source: &Source| source.address == server && source.reach != 0 && !source.denied;
        self.sources.iter().any(heard)
    }

    /// When [`Self::tick`] wants to be called.
    pub fn deadline(&self) -> Option<u64> {
        let wanted = self.sources.iter().filter(|source| !source.denied);
        wanted.map(Source::deadline).min()
    }

    /// Sends what is due, and says when the clock is kept no more. `nonce` gives random numbers, `unix` the time of the clock.
    pub fn tick(
        &mut self,
        now: u64,
        mut unix: impl FnMut() -> u64,
        mut nonce: impl FnMut() -> u64,
        out: &mut Vec<Output>,
    ) {
        if self.kept && !self.is_synchronised(unix()) {
            self.kept = false;
            out.push(Output::Lost);
        }
        for source in &mut self.sources {
            source.expire(now);
            if source.is_due(now) && !source.denied {
                let packet = source.ask(nonce(), unix(), now);
                out.push(Output::Send {
                    to: source.address,
                    packet,
                });
            }
        }
    }

    /// A packet came at unix time `unix`.
    ///
    /// # Errors
    /// When it told nothing, and why.
    pub fn hear(
        &mut self,
        from: SocketAddr,
        bytes: &[u8],
        unix: u64,
        now: u64,
        out: &mut Vec<Output>,
    ) -> Result<(), Refused> {
        let source = self.sources.iter_mut().find(|source| source.address == from);
        source.ok_or(Refused::NotOurs)?.hear(bytes, unix, now)?;
        self.correct(unix, now, out);
        Ok(())
    }

    fn correct(&mut self, unix: u64, now: u64, out: &mut Vec<Output>) {
        let candidates: Vec<(SocketAddr, Best)> = self
            .sources
            .iter()
            .filter_map(|source| Some((source.address, source.best(now)?)))
            .collect();
        // At the start: everybody who answers at all is heard three times before one is believed. One that fell silent since
        // holds up nobody.
        let starting = |source: &Source| {
            let few = (1..3).contains(&source.heard()) && source.answers();
            source.is_starting() && source.reach != 0 || few
        };
        if !self.set && self.sources.iter().any(starting) {
            return;
        }
        let all: Vec<Best> = candidates.iter().map(|(_, best)| *best).collect();
        let picked = select(&all);
        let chosen: Vec<Best> = picked.iter().filter_map(|n| all.get(*n).copied()).collect();
        let (Some(offset), Some(first)) = (combine(&chosen), chosen.first()) else {
            self.chosen.clear();
            return;
        };
        self.chosen = picked
            .iter()
            .filter_map(|n| candidates.get(*n).map(|one| one.0))
            .collect();
        let how = self.how(offset, now);
        let Some(how) = how else { return };
        let leap = majority(&chosen);
        let reference = self.chosen.first().map_or([0; 4], |one| reference_of(one.ip()));
        self.state = SystemState {
            leap,
            stratum: first.measured.stratum.saturating_add(1).min(15),
            reference_id: reference,
            root_delay: first.measured.root_delay.saturating_add(first.measured.delay),
            root_dispersion: first
                .measured
                .root_dispersion
                .saturating_add(first.jitter)
                .saturating_add(offset.unsigned_abs().min(SLEWABLE)),
            updated: unix,
            precision: -20,
        };
        match how {
            Adjust::Step(by) => {
                self.state.updated = unix.saturating_add_signed(by);
                self.state.root_dispersion = first.measured.root_dispersion.saturating_add(first.jitter);
                self.sources.iter_mut().for_each(Source::forget);
            }
            Adjust::Slew(by) => self.sources.iter_mut().for_each(|source| source.moved(by)),
        }
        (self.set, self.kept) = (true, true);
        let (Adjust::Step(by) | Adjust::Slew(by)) = how;
        out.push(Output::Adjust {
            how,
            // By the corrected clock: the one before may be off by years.
            leap: due_today(leap, unix.saturating_add_signed(by)),
            bound: first.bound,
        });
    }

    fn how(&mut self, offset: i64, now: u64) -> Option<Adjust> {
        let size = offset.unsigned_abs();
        if !self.set {
            return Some(if size > STEP_AT_START {
                Adjust::Step(offset)
            } else {
                Adjust::Slew(offset)
            });
        }
        if size <= SLEWABLE {
            self.large_since = None;
            return Some(Adjust::Slew(offset));
        }
        let since = *self.large_since.get_or_insert(now);
        (now.saturating_sub(since) >= STEP_OUT).then(|| {
            self.large_since = None;
            Adjust::Step(offset)
        })
    }

    /// Whether the clock was set by others and cannot be off by more than a second since.
    fn is_synchronised(&self, now: u64) -> bool {
        let age = now.saturating_sub(self.state.updated) / SECOND as u64;
        let bound = self.state.root_dispersion.saturating_add(age.saturating_mul(DRIFT));
        self.set && bound < LOST
    }

    /// What a server with this clock says of it at unix time `now`.
    pub fn system(&self, now: u64) -> SystemState {
        if self.is_synchronised(now) {
            return self.state.clone();
        }
        match self.config.local_stratum {
            Some(stratum) => SystemState::local(stratum, now),
            None => SystemState::unsynchronised(),
        }
    }

    /// How each server is seen.
    pub fn sights(&self, now: u64) -> Vec<Sight> {
        let of = |source: &Source| {
            let best = source.best(now);
            Sight {
                address: source.address,
                reach: source.reach,
                state: match (source.denied, source.reach, best.is_some()) {
                    (true, ..) => "refuses us",
                    (_, 0, _) => "does not answer",
                    (_, _, false) => "is not synchronised itself",
                    _ if self.chosen.first() == Some(&source.address) => "followed",
                    _ if self.chosen.contains(&source.address) => "agrees",
                    _ if !self.set => "is being measured",
                    _ => "disagrees with the others",
                },
                stratum: best.map(|best| best.measured.stratum),
                offset: best.map(|best| best.measured.offset),
                delay: best.map(|best| best.measured.delay),
            }
        };
        self.sources.iter().map(of).collect()
    }
}

/// A leap second is believed when most say so.
fn majority(chosen: &[Best]) -> Leap {
    let votes = |leap| chosen.iter().filter(|one| one.leap == leap).count();
    [Leap::Insert, Leap::Delete]
        .into_iter()
        .find(|leap| votes(*leap) * 2 > chosen.len())
        .unwrap_or(Leap::None)
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;

//! One server that we ask: the exchange, the filter over its last samples (RFC 5905 sections 8 and 10), and how often.

use std::net::SocketAddr;

use crate::packet::{Leap, Mode, PACKET, Packet, Stamp, nanos};
use crate::{DRIFT, SECOND};

/// Samples the filter looks at.
const SAMPLES: usize = 8;
/// Shortest and longest interval as powers of two of seconds.
const MIN_POLL: u8 = 6;
const MAX_POLL: u8 = 10;
/// Requests at the start, two seconds apart, so that a clock is right within seconds.
const BURST: u8 = 6;
/// Milliseconds that an answer may take.
pub(crate) const PATIENCE: u64 = 1500;

/// What one exchange told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Measured {
    /// Nanoseconds to add to our clock.
    pub offset: i64,
    /// Round trip in nanoseconds.
    pub delay: u64,
    /// Whether the server's own clock follows another one; if not, its time is only what it believes.
    pub synchronised: bool,
    /// What it says of leap seconds.
    pub leap: Leap,
    /// Its stratum.
    pub stratum: u8,
    /// Its distance from the root: half its root delay, and its root dispersion, in nanoseconds.
    pub distance: u64,
    /// Its root delay in nanoseconds.
    pub root_delay: u64,
    /// Its root dispersion in nanoseconds.
    pub root_dispersion: u64,
}

/// Why a packet told nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// It is no answer to our request; the true one may still come.
    NotOurs,
    /// The server sent a kiss-o'-death with this code.
    Kiss([u8; 4]),
    /// Its timestamps make no sense.
    Nonsense,
}

/// A request. `nonce` is random: the answer must repeat it, and it tells nobody what our clock says (RFC 9769's advice).
pub fn request(nonce: u64) -> [u8; PACKET] {
    let packet = Packet {
        leap: Leap::None,
        version: 4,
        mode: Mode::Client,
        stratum: 0,
        poll: 6,
        precision: 32,
        root_delay: 0,
        root_dispersion: 0,
        reference_id: [0; 4],
        reference: Stamp::default(),
        origin: Stamp::default(),
        receive: Stamp::default(),
        transmit: Stamp(nonce),
    };
    packet.write()
}

/// Reads the answer to [`request`]. `sent` and `received` are unix times of our clock.
///
/// # Errors
/// When it is not the answer, refuses, or makes no sense.
pub fn measure(bytes: &[u8], nonce: u64, sent: u64, received: u64) -> Result<Measured, Refused> {
    let packet = Packet::read(bytes).ok_or(Refused::NotOurs)?;
    if packet.mode != Mode::Server || packet.origin != Stamp(nonce) || !(3..=4).contains(&packet.version) {
        return Err(Refused::NotOurs);
    }
    let code = packet.reference_id;
    if packet.stratum == 0 && [*b"RATE", *b"DENY", *b"RSTR"].contains(&code) {
        return Err(Refused::Kiss(code));
    }
    if packet.transmit == Stamp(0) || packet.receive == Stamp(0) {
        return Err(Refused::Nonsense);
    }
    let ours = i64::try_from(received.saturating_sub(sent)).map_err(|_| Refused::Nonsense)?;
    let theirs = packet.transmit.since(packet.receive);
    if theirs < 0 || theirs > ours.saturating_add(SECOND) {
        return Err(Refused::Nonsense);
    }
    let there = packet.receive.since(Stamp::of_unix(sent));
    let back = packet.transmit.since(Stamp::of_unix(received));
    let (root_delay, root_dispersion) = (nanos(packet.root_delay), nanos(packet.root_dispersion));
    let distance = root_delay / 2 + root_dispersion;
    let near = distance < 3 * SECOND as u64 / 2;
    Ok(Measured {
        offset: there / 2 + back / 2,
        delay: ours.saturating_sub(theirs).max(0).unsigned_abs(),
        synchronised: packet.leap != Leap::Unsynchronised && (1..16).contains(&packet.stratum) && near,
        leap: packet.leap,
        stratum: packet.stratum,
        distance,
        root_delay,
        root_dispersion,
    })
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    measured: Measured,
    /// Monotonic milliseconds.
    at: u64,
}

#[derive(Clone, Copy, Debug)]
struct Outstanding {
    nonce: u64,
    sent: u64,
    deadline: u64,
}

/// What a source says of our clock now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Best {
    pub(crate) measured: Measured,
    /// What its newest sample says of leap seconds: the best one may be hours old, from before a warning or its end.
    pub(crate) leap: Leap,
    /// Half of what the true offset may be away from this one, in nanoseconds.
    pub(crate) bound: u64,
    pub(crate) jitter: u64,
}

/// A server that we ask.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) address: SocketAddr,
    /// The last eight tries, the newest in the lowest bit.
    pub(crate) reach: u8,
    pub(crate) denied: bool,
    poll: u8,
    /// The shortest interval that the server bears. One that said RATE keeps its long one for good (RFC 5905 section 7.4),
    /// also when it is silent or our clock is set.
    floor: u8,
    burst: u8,
    next: u64,
    outstanding: Option<Outstanding>,
    samples: Vec<Sample>,
}

impl Source {
    pub(crate) const fn new(address: SocketAddr, now: u64) -> Self {
        Self {
            address,
            reach: 0,
            denied: false,
            poll: MIN_POLL,
            floor: MIN_POLL,
            burst: BURST,
            next: now,
            outstanding: None,
            samples: Vec::new(),
        }
    }

    /// When it wants to be asked, or to be told that the answer is late.
    pub(crate) fn deadline(&self) -> u64 {
        self.outstanding.map_or(self.next, |one| one.deadline.min(self.next))
    }

    /// Gives up a late answer.
    pub(crate) fn expire(&mut self, now: u64) {
        if self.outstanding.is_some_and(|one| one.deadline <= now) {
            self.outstanding = None;
        }
    }

    /// Whether it is time to ask.
    pub(crate) const fn is_due(&self, now: u64) -> bool {
        self.next <= now
    }

    /// A request leaves at monotonic time `now` and unix time `unix`.
    pub(crate) fn ask(&mut self, nonce: u64, unix: u64, now: u64) -> [u8; PACKET] {
        self.reach <<= 1;
        self.outstanding = Some(Outstanding {
            nonce,
            sent: unix,
            deadline: now + PATIENCE,
        });
        // A server that does not answer is asked as often as it bears, mostly once a minute, however good its poll interval
        // once was.
        self.next = now + if self.burst > 0 { 2000 } else { 1000 << self.interval() };
        self.burst = self.burst.saturating_sub(1);
        request(nonce)
    }

    const fn interval(&self) -> u8 {
        if self.reach == 0 { self.floor } else { self.poll }
    }

    /// A packet came from its address.
    pub(crate) fn hear(&mut self, bytes: &[u8], unix: u64, now: u64) -> Result<(), Refused> {
        let one = self.outstanding.ok_or(Refused::NotOurs)?;
        match measure(bytes, one.nonce, one.sent, unix) {
            Ok(measured) => {
                self.outstanding = None;
                self.reach |= 1;
                if measured.synchronised {
                    self.samples.insert(0, Sample { measured, at: now });
                    self.samples.truncate(SAMPLES);
                    if self.samples.len() == SAMPLES && self.burst == 0 && self.poll < MAX_POLL {
                        self.poll += 1;
                    }
                } else {
                    self.samples.clear();
                }
                Ok(())
            }
            Err(Refused::Kiss(code)) => {
                self.outstanding = None;
                self.burst = 0;
                (self.poll, self.floor) = (MAX_POLL, MAX_POLL);
                self.next = now + (1000 << MAX_POLL);
                self.denied = code != *b"RATE";
                self.samples.clear();
                Err(Refused::Kiss(code))
            }
            Err(refused) => Err(refused),
        }
    }

    /// Our clock was set: what was measured before counts no more.
    pub(crate) fn forget(&mut self) {
        self.samples.clear();
        self.outstanding = None;
        self.poll = self.floor;
    }

    /// Samples so far.
    pub(crate) fn heard(&self) -> usize {
        self.samples.len()
    }

    /// Whether it answered one of the last three requests.
    pub(crate) const fn answers(&self) -> bool {
        self.reach & 0b111 != 0
    }

    /// Whether its first requests are still under way.
    pub(crate) const fn is_starting(&self) -> bool {
        self.burst > 2
    }

    /// Our clock is being moved by this much: what was measured before is less by it.
    pub(crate) fn moved(&mut self, by: i64) {
        for sample in &mut self.samples {
            sample.measured.offset = sample.measured.offset.saturating_sub(by);
        }
    }

    /// The sample with the least delay: the queues on the way, which are all that makes delays differ, were shortest.
    /// An older one counts as if it had been longer on its way, since our clock drifted from it.
    pub(crate) fn best(&self, now: u64) -> Option<Best> {
        if self.reach == 0 || self.denied {
            return None;
        }
        let drift = |sample: &Sample| now.saturating_sub(sample.at) / 1000 * DRIFT;
        let best = self
            .samples
            .iter()
            .min_by_key(|sample| (sample.measured.delay / 2).saturating_add(drift(sample)))?;
        let newest = self.samples.first()?;
        let offset = best.measured.offset;
        let squares = self.samples.iter().map(|sample| {
            let difference = i128::from(sample.measured.offset) - i128::from(offset);
            u128::try_from(difference * difference).unwrap_or(u128::MAX)
        });
        let mean = squares.sum::<u128>() / self.samples.len().max(1) as u128;
        let jitter = u64::try_from(mean.isqrt()).unwrap_or(u64::MAX);
        let age = drift(best);
        Some(Best {
            measured: best.measured,
            leap: newest.measured.leap,
            bound: (best.measured.delay / 2)
                .saturating_add(best.measured.distance)
                .saturating_add(age)
                .saturating_add(jitter),
            jitter,
        })
    }
}

//! A capture on demand: what is seen from now on, as a pcapng file that is given away piece by piece.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::epoll::EpollFlags;
use rackbar_capture::frame;
use rackbar_capture::pcapng::{self, Interface, Packet, Statistics};
use rackbar_capture::{Filter, Rest};

use super::tap::{Buffer, Seen, Tap};
use super::{BATCH, BY, CaptureError, Captures, Machine, Pace, be_modest, nanos_now};
use crate::poll::Poller;

/// Captures at one time.
const MOST: usize = 4;
/// Longest, in seconds.
pub const MOST_SECONDS: u32 = 3_600;
/// Largest file, in bytes.
pub const MOST_BYTES: u64 = 256 << 20;
/// Smallest one that is of any use.
pub const LEAST_BYTES: u64 = 4_096;
/// A piece is given away when it is so large, or so old.
const PIECE: usize = 32 << 10;
const TICK: Duration = Duration::from_millis(250);
/// What the end of the file takes for each interface.
const STATISTICS: usize = 128;
/// How long the end waits for a reader who is slow.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// What is wanted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Order {
    /// On this interface; on all of the rack when left out.
    pub interface: Option<String>,
    /// Of this machine alone.
    pub machine: Option<Machine>,
    /// The headers of everything, not of boot packets alone.
    pub everything: bool,
    /// For so long.
    pub seconds: u32,
    /// The file grows to so many bytes at most.
    pub bytes: u64,
}

/// What became of a piece.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Given {
    /// It was taken.
    Taken,
    /// There is no room for it now.
    Full,
    /// Nobody wants it any more.
    Gone,
}

/// A place among the captures that run at one time.
struct Place(Arc<Captures>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, std::sync::atomic::Ordering::AcqRel);
    }
}

/// A capture that is ready to run: its sockets are open and queue what comes.
pub struct Live {
    order: Order,
    filter: Filter,
    taps: Vec<Tap>,
    poller: Poller,
    start: u64,
    counts: Vec<Statistics>,
    piece: Vec<u8>,
    /// Packets of each interface in the piece.
    in_piece: Vec<u64>,
    written: u64,
    _place: Place,
}

impl Captures {
    /// Opens the sockets of a capture.
    ///
    /// # Errors
    /// When captures are off, the interface is none of ours, too many run already, or the system refuses.
    pub fn open(self: &Arc<Self>, order: Order) -> Result<Live, CaptureError> {
        use std::sync::atomic::Ordering;
        let (links, tcp) = self.links(order.interface.as_deref())?;
        if self.running.fetch_add(1, Ordering::AcqRel) >= MOST {
            self.running.fetch_sub(1, Ordering::AcqRel);
            return Err(CaptureError::Busy(MOST));
        }
        let place = Place(Arc::clone(self));
        let rest = match (order.everything, &order.machine) {
            (false, _) => Rest::Nothing,
            (true, Some(machine)) => Rest::Of(machine.macs.clone()),
            (true, None) => Rest::Everything,
        };
        let filter = Filter { tcp, names: true, rest };
        let system = CaptureError::System;
        let poller = Poller::new().map_err(|error| system(error.to_string()))?;
        let mut taps = Vec::new();
        for (token, link) in (0..).zip(&links) {
            let opened = Tap::open(link, &filter).and_then(|tap| {
                poller.add(&tap, EpollFlags::EPOLLIN, token)?;
                Ok(tap)
            });
            taps.push(opened.map_err(|error| system(format!("{}: {error}", link.name)))?);
        }
        Ok(Live {
            start: nanos_now(),
            counts: vec![Statistics::default(); taps.len()],
            in_piece: vec![0; taps.len()],
            piece: Vec::new(),
            written: 0,
            order,
            filter,
            taps,
            poller,
            _place: place,
        })
    }
}

impl Live {
    /// Captures until the time is over, the file is full or nobody wants it any more. Waits; for a thread of its own.
    pub fn run(mut self, mut give: impl FnMut(Vec<u8>) -> Given) {
        be_modest();
        let end = Instant::now() + Duration::from_secs(u64::from(self.order.seconds.min(MOST_SECONDS)));
        if self.head().is_err() {
            return;
        }
        let (mut buffer, mut pace, mut ready) = (Buffer::new(), Pace::new(), Vec::new());
        // At once: whoever asked sees that it has begun.
        let mut given: Option<Instant> = None;
        let mut asked = Instant::now();
        let mut full = false;
        loop {
            let now = Instant::now();
            if full || now >= end {
                break;
            }
            if self.piece.len() >= PIECE || (!self.piece.is_empty() && given.is_none_or(|at| now >= at + TICK)) {
                given = Some(now);
                if self.give(&mut give) == Given::Gone {
                    return;
                }
            }
            ready.clear();
            // The waiting is short also where nothing comes, so that whoever hung up is noticed.
            if self.poller.wait(Some(end.min(now + TICK)), &mut ready).is_err() {
                break;
            }
            // Packets of others may come all the time and none for this file.
            if self.piece.is_empty() && now >= asked + TICK {
                asked = now;
                if give(Vec::new()) == Given::Gone {
                    return;
                }
            }
            for (token, _) in &ready {
                full |= self.look(*token as usize, &mut buffer, &mut pace);
            }
        }
        self.tail(&mut give);
    }

    fn head(&mut self) -> std::io::Result<()> {
        let words = self.filter.words();
        pcapng::section_header(&mut self.piece, BY)?;
        for tap in &self.taps {
            let interface = Interface {
                name: &tap.link.name,
                snap: frame::SNAP as u32,
                filter: &words,
            };
            pcapng::interface_description(&mut self.piece, &interface)?;
        }
        Ok(())
    }

    /// Takes what an interface has, some of it at a time; true when the file is full.
    fn look(&mut self, number: usize, buffer: &mut Buffer, pace: &mut Pace) -> bool {
        let Some(tap) = self.taps.get(number) else { return false };
        let end = self.order.bytes.saturating_sub((STATISTICS * self.taps.len()) as u64);
        for _ in 0..BATCH {
            let Ok(Some(seen)) = tap.receive(buffer) else { break };
            pace.one();
            let machine = self.order.machine.as_ref();
            if machine.is_some_and(|machine| !machine.concerned(seen.whole)) {
                continue;
            }
            if put(&mut self.piece, number, &seen, end.saturating_sub(self.written)) {
                return true;
            }
            if let Some(count) = self.in_piece.get_mut(number) {
                *count += 1;
            }
        }
        false
    }

    /// Gives the piece away. Where there is no room its packets are lost, as nothing waits for a slow reader; the head of the
    /// file is in the first piece, for which there is room.
    fn give(&mut self, give: &mut impl FnMut(Vec<u8>) -> Given) -> Given {
        let piece = std::mem::take(&mut self.piece);
        let length = piece.len() as u64;
        let given = give(piece);
        for (count, statistics) in self.in_piece.iter_mut().zip(&mut self.counts) {
            let packets = std::mem::take(count);
            match given {
                Given::Taken => statistics.delivered += packets,
                Given::Full | Given::Gone => statistics.dropped += packets,
            }
        }
        if given == Given::Taken {
            self.written += length;
        }
        given
    }

    /// The last packets, and how each interface did.
    fn tail(mut self, give: &mut impl FnMut(Vec<u8>) -> Given) {
        let until = Instant::now() + LAST_WORDS;
        for (count, statistics) in self.in_piece.iter().zip(&mut self.counts) {
            statistics.delivered += count;
        }
        for ((number, tap), statistics) in (0..).zip(&self.taps).zip(&mut self.counts) {
            let (accepted, dropped) = tap.counts();
            statistics.accepted = accepted;
            statistics.dropped += dropped;
            (statistics.start, statistics.end) = (self.start, nanos_now());
            // Memory takes it.
            let _ = pcapng::interface_statistics(&mut self.piece, number, statistics);
        }
        while give(self.piece.clone()) == Given::Full && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Writes a packet; true when there is no room for it.
fn put(piece: &mut Vec<u8>, number: usize, seen: &Seen<'_>, room: u64) -> bool {
    let before = piece.len();
    let packet = Packet {
        interface: u32::try_from(number).unwrap_or(u32::MAX),
        at: seen.at,
        direction: seen.direction,
        length: seen.length,
        bytes: seen.bytes,
    };
    let written = pcapng::enhanced_packet(piece, &packet);
    let full = written.is_err() || piece.len() as u64 > room;
    if full {
        piece.truncate(before);
    }
    full
}

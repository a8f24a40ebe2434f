//! Serial over LAN: the payload and the small stop-and-wait protocol in it, the same at both ends (sections 15.9, 15.11).
//!
//! Each direction numbers its packets 1 to 15 and has one unacknowledged at a time; 0 is an acknowledgement alone.

use core::time::Duration;

use crate::read::{Malformed, Reader};

/// Set in a packet from the BMC's peer: it took no characters, send again.
pub const NACK: u8 = 0x40;
/// From console: send a break. From BMC: a break was seen.
pub const BREAK: u8 = 0x10;

/// How long a packet waits for its acknowledgement before it is sent again (section 15.11: a parameter; this is the
/// usual default of BMCs rounded up for a busy emulator).
const RETRY: Duration = Duration::from_millis(500);
/// Tries before a packet is given up (section 15.11, retry count's default of 7).
const TRIES: u8 = 7;

/// A SOL payload (table 15-2).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SolPacket {
    /// 1 to 15; 0 when it carries no characters and wants no acknowledgement.
    pub sequence: u8,
    /// The sequence number acknowledged; 0 for none.
    pub acked: u8,
    /// How many characters of the acknowledged packet were taken.
    pub accepted: u8,
    /// Operation (to BMC) or status (from BMC).
    pub flags: u8,
    /// Characters.
    pub data: Vec<u8>,
}

impl SolPacket {
    /// The payload's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![self.sequence & 0x0f, self.acked & 0x0f, self.accepted, self.flags];
        out.extend_from_slice(&self.data);
        out
    }

    /// Reads the payload.
    ///
    /// # Errors
    /// When it is shorter than its four bytes of header.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new("SOL payload (15.9)", bytes);
        let [sequence, acked, accepted, flags] = reader.array()?;
        let data = reader.rest().to_vec();
        Ok(Self {
            sequence: sequence & 0x0f,
            acked: acked & 0x0f,
            accepted,
            flags,
            data,
        })
    }
}

/// What a received packet led to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SolArrived {
    /// New characters for the reader.
    pub data: Vec<u8>,
    /// The other end sent a break.
    pub broke: bool,
}

/// One end of a console. Packets to send come from [`Self::poll`].
#[derive(Debug, Default)]
pub struct SolEnd {
    /// Characters not yet acknowledged; the first `in_flight` of them are in the packet that waits.
    queue: Vec<u8>,
    in_flight: usize,
    sequence: u8,
    sent_at: Duration,
    tries: u8,
    /// The last sequence number taken from the other end, to tell a repeated packet from a new one.
    taken: u8,
    owed: Option<(u8, u8)>,
    /// Largest number of characters in a packet we send.
    pub limit: usize,
}

/// Characters kept while the other end does not listen; the oldest go first, as in a terminal's scrollback.
const BACKLOG: usize = 64 * 1024;

impl SolEnd {
    /// An end that puts at most `limit` characters in a packet.
    pub fn new(limit: usize) -> Self {
        Self {
            limit: limit.clamp(1, 255),
            ..Self::default()
        }
    }

    /// Queues characters.
    pub fn write(&mut self, data: &[u8]) {
        self.queue.extend_from_slice(data);
        if let Some(excess) = self.queue.len().checked_sub(BACKLOG) {
            let start = self.in_flight.min(self.queue.len());
            let end = start.saturating_add(excess).min(self.queue.len());
            self.queue.drain(start..end);
        }
    }

    /// Takes a packet from the other end.
    pub fn input(&mut self, packet: &SolPacket) -> SolArrived {
        if packet.acked != 0 && packet.acked == self.sequence && self.in_flight > 0 {
            let taken = usize::from(packet.accepted).min(self.in_flight);
            self.queue.drain(..taken);
            self.in_flight = 0;
            self.tries = 0;
        }
        let mut arrived = SolArrived {
            data: Vec::new(),
            broke: packet.flags & BREAK != 0,
        };
        if packet.sequence != 0 {
            if packet.sequence != self.taken {
                arrived.data.clone_from(&packet.data);
                self.taken = packet.sequence;
            } else {
                arrived.broke = false;
            }
            self.owed = Some((packet.sequence, u8::try_from(packet.data.len()).unwrap_or(u8::MAX)));
        }
        arrived
    }

    /// The next packet to send, if one is due.
    pub fn poll(&mut self, now: Duration) -> Option<SolPacket> {
        let waiting = self.in_flight > 0;
        if waiting && now >= self.sent_at + RETRY {
            if self.tries >= TRIES {
                // Give the characters up, as a serial line without a listener would.
                self.queue.drain(..self.in_flight.min(self.queue.len()));
                self.in_flight = 0;
                self.tries = 0;
            } else {
                self.tries += 1;
                return Some(self.packet(now));
            }
        }
        if self.in_flight == 0 && !self.queue.is_empty() {
            self.sequence = self.sequence % 15 + 1;
            self.in_flight = self.queue.len().min(self.limit);
            self.tries = 1;
            return Some(self.packet(now));
        }
        let (acked, accepted) = self.owed.take()?;
        Some(SolPacket {
            acked,
            accepted,
            ..SolPacket::default()
        })
    }

    fn packet(&mut self, now: Duration) -> SolPacket {
        self.sent_at = now;
        let (acked, accepted) = self.owed.take().unwrap_or_default();
        let data = self.queue.iter().take(self.in_flight).copied().collect();
        SolPacket {
            sequence: self.sequence,
            acked,
            accepted,
            flags: 0,
            data,
        }
    }

    /// When [`Self::poll`] next has something to repeat.
    pub fn deadline(&self) -> Option<Duration> {
        (self.in_flight > 0).then(|| self.sent_at + RETRY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever is lost, what arrives is a prefix in order, and all of it once losses end.
        #[test]
        fn characters_arrive_once_in_order(text in proptest::collection::vec(any::<u8>(), 1..300),
                                           lost in proptest::collection::vec(any::<bool>(), 0..6)) {
            let (mut here, mut there) = (SolEnd::new(40), SolEnd::new(40));
            here.write(&text);
            let mut got = Vec::new();
            let mut now = Duration::ZERO;
            let mut lost = lost.into_iter();
            for _ in 0..200 {
                while let Some(packet) = here.poll(now) {
                    if lost.next() != Some(true) {
                        got.extend(there.input(&SolPacket::decode(&packet.encode()).unwrap()).data);
                    }
                }
                while let Some(packet) = there.poll(now) {
                    if lost.next() != Some(true) {
                        here.input(&packet);
                    }
                }
                now += Duration::from_millis(600);
            }
            prop_assert_eq!(got, text);
        }

        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(packet) = SolPacket::decode(&bytes) {
                SolEnd::new(10).input(&packet);
            }
        }
    }
}

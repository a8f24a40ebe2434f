//! The server: one request in, at most one reply of the same length out.
//!
//! Only requests of clients, versions 3 and 4, are answered. Control and private messages (modes 6 and 7), which made
//! other servers amplifiers, are dropped. Who asks too often hears it (kiss-o'-death RATE, RFC 5905 section 7.4), and mostly
//! hears nothing.

use std::net::IpAddr;

use crate::packet::{Leap, Mode, PACKET, Packet, Stamp, short};
use crate::{DRIFT, SECOND, SystemState};

/// Clients remembered for their rate.
const PLACES: usize = 4096;

/// How often a client may ask.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Requests a second in the long run.
    pub per_second: u32,
    /// Requests at once.
    pub burst: u32,
}

impl Default for Limits {
    fn default() -> Self {
        // A client's start is eight requests two seconds apart, and a machine may hold several clients.
        Self {
            per_second: 2,
            burst: 32,
        }
    }
}

/// Whose packet it is, and when it came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Asker {
    /// Its address.
    pub client: IpAddr,
    /// It is on a network that we serve; others get a DENY.
    pub served: bool,
    /// Unix time of the arrival.
    pub received: u64,
    /// Monotonic time in milliseconds.
    pub monotonic: u64,
}

/// What was counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Requests answered with the time.
    pub answered: u64,
    /// Kiss-o'-death RATE and DENY sent.
    pub kissed: u64,
    /// Packets dropped.
    pub dropped: u64,
}

#[derive(Clone, Copy)]
struct Place {
    client: IpAddr,
    /// Monotonic milliseconds.
    at: u64,
    /// Thousandths.
    tokens: u32,
    /// Requests over the limit.
    over: u32,
}

/// The server's memory: rates of clients, in fixed space.
pub struct Server {
    limits: Limits,
    places: Vec<Option<Place>>,
    counters: Counters,
}

impl Server {
    /// Knows no client yet.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            places: vec![None; PLACES],
            counters: Counters::default(),
        }
    }

    /// What was counted so far.
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    /// Answers the packet `bytes`. `transmit` is asked for the unix time last of all.
    pub fn answer(
        &mut self,
        bytes: &[u8],
        from: Asker,
        state: &SystemState,
        transmit: impl FnOnce() -> u64,
    ) -> Option<[u8; PACKET]> {
        let Asker {
            client,
            served,
            received,
            monotonic,
        } = from;
        let request =
            Packet::read(bytes).filter(|packet| packet.mode == Mode::Client && matches!(packet.version, 3 | 4));
        let Some(request) = request else {
            self.counters.dropped += 1;
            return None;
        };
        let reply = Packet {
            leap: state.leap,
            version: request.version,
            mode: Mode::Server,
            stratum: state.stratum,
            poll: request.poll.clamp(4, 17),
            precision: state.precision,
            root_delay: short(state.root_delay),
            root_dispersion: short(dispersion(state, received)),
            reference_id: state.reference_id,
            reference: Stamp::of_unix(state.updated),
            origin: request.transmit,
            receive: Stamp::of_unix(received),
            transmit: Stamp::default(),
        };
        let kiss = match (self.allowed(client, monotonic), served) {
            (Rate::Fine, true) => None,
            (Rate::Fine, false) => Some(*b"DENY"),
            (Rate::Tell, _) => Some(*b"RATE"),
            (Rate::Silence, _) => {
                self.counters.dropped += 1;
                return None;
            }
        };
        let (mut reply, count) = match kiss {
            None => (reply, &mut self.counters.answered),
            Some(code) => (kissed(&reply, code), &mut self.counters.kissed),
        };
        *count += 1;
        reply.transmit = Stamp::of_unix(transmit());
        Some(reply.write())
    }

    fn allowed(&mut self, client: IpAddr, now: u64) -> Rate {
        let key = match client {
            IpAddr::V4(v4) => u64::from(v4.to_bits()),
            IpAddr::V6(v6) => (v6.to_bits() ^ v6.to_bits() >> 64) as u64,
        };
        let full = self.limits.burst.saturating_mul(1000);
        let fresh = Place {
            client,
            at: now,
            tokens: full,
            over: 0,
        };
        let index = (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 52) as usize;
        let Some(place) = self.places.get_mut(index % PLACES) else {
            return Rate::Silence;
        };
        let place = place.get_or_insert(fresh);
        // Of two clients at one place, the later one begins anew: lenient, and of fixed size.
        if place.client != client {
            *place = fresh;
        }
        let passed = u32::try_from(now.saturating_sub(place.at)).unwrap_or(u32::MAX);
        place.tokens = passed
            .saturating_mul(self.limits.per_second)
            .saturating_add(place.tokens)
            .min(full);
        place.at = now;
        if place.tokens >= 1000 {
            place.tokens -= 1000;
            return Rate::Fine;
        }
        place.over = place.over.wrapping_add(1);
        // One in four hears why; the others cost us nothing, and a forged source is not flooded by us.
        if place.over % 4 == 1 { Rate::Tell } else { Rate::Silence }
    }
}

enum Rate {
    Fine,
    Tell,
    Silence,
}

/// The error bound grows while the clock runs by itself.
fn dispersion(state: &SystemState, now: u64) -> u64 {
    let age = now.saturating_sub(state.updated) / SECOND as u64;
    if state.stratum == 0 || state.reference_id == *b"LOCL" {
        return state.root_dispersion;
    }
    state.root_dispersion.saturating_add(age.saturating_mul(DRIFT))
}

fn kissed(reply: &Packet, code: [u8; 4]) -> Packet {
    Packet {
        leap: Leap::Unsynchronised,
        stratum: 0,
        reference_id: code,
        ..*reply
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_790_000_000_000_000_000;
    const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 10, 0, 5));

    fn request(first: u8) -> Vec<u8> {
        let mut bytes = vec![0; 48];
        bytes[0] = first;
        bytes[2] = 6;
        bytes[40..].copy_from_slice(&0x1122_3344_5566_7788u64.to_be_bytes());
        bytes
    }

    fn state() -> SystemState {
        SystemState {
            leap: Leap::Insert,
            stratum: 3,
            reference_id: [192, 0, 2, 1],
            root_delay: 20_000_000,
            root_dispersion: 5_000_000,
            updated: NOW - 100 * SECOND as u64,
            precision: -23,
        }
    }

    fn ask(server: &mut Server, bytes: &[u8], served: bool, at: u64) -> Option<Packet> {
        let from = Asker {
            client: CLIENT,
            served,
            received: NOW,
            monotonic: at,
        };
        let reply = server.answer(bytes, from, &state(), || NOW + 1000);
        reply.map(|bytes| Packet::read(&bytes).unwrap())
    }

    #[test]
    fn both_versions_get_the_time_with_its_error_bound() {
        let mut server = Server::new(Limits::default());
        for (first, version) in [(0x23, 4), (0x1b, 3), (0xe3, 4)] {
            let reply = ask(&mut server, &request(first), true, 0).unwrap();
            assert_eq!((reply.version, reply.mode, reply.stratum), (version, Mode::Server, 3));
            assert_eq!((reply.leap, reply.poll), (Leap::Insert, 6));
            assert_eq!(reply.origin, Stamp(0x1122_3344_5566_7788));
            assert_eq!(reply.transmit.since(reply.receive), 999);
            // 5 ms, and 15 ppm of the hundred seconds since.
            assert_eq!(reply.root_dispersion, short(6_500_000));
        }
    }

    #[test]
    fn what_is_no_request_of_a_client_is_dropped() {
        let mut server = Server::new(Limits::default());
        // Symmetric, server, broadcast, control, private; versions 1 and 7.
        for first in [0x21, 0x24, 0x25, 0x26, 0x27, 0x0b, 0x3b] {
            assert_eq!(ask(&mut server, &request(first), true, 0), None);
        }
        assert_eq!(ask(&mut server, &request(0x23)[..47], true, 0), None);
        assert_eq!(server.counters().dropped, 8);
    }

    #[test]
    fn a_client_that_asks_too_often_is_told_now_and_then() {
        let mut server = Server::new(Limits::default());
        let replies: Vec<_> = (0..72).map(|_| ask(&mut server, &request(0x23), true, 1000)).collect();
        let kissed = |reply: &&Option<Packet>| reply.is_some_and(|reply| reply.reference_id == *b"RATE");
        assert_eq!(replies.iter().filter(|reply| reply.is_some()).count(), 32 + 10);
        assert_eq!(replies.iter().filter(kissed).count(), 10);
        let kiss = replies.iter().find(kissed).unwrap().unwrap();
        assert_eq!((kiss.stratum, kiss.leap), (0, Leap::Unsynchronised));
        // Two seconds later four more are fine.
        let later = (0..8).filter_map(|_| ask(&mut server, &request(0x23), true, 3000));
        assert_eq!(later.filter(|reply| reply.stratum == 3).count(), 4);
    }

    #[test]
    fn a_stranger_is_denied() {
        let reply = ask(&mut Server::new(Limits::default()), &request(0x23), false, 0).unwrap();
        assert_eq!((reply.stratum, &reply.reference_id), (0, b"DENY"));
    }

    proptest::proptest! {
        #[test]
        fn no_reply_is_longer_than_its_request(bytes in proptest::collection::vec(0u8.., 0..200), served: bool) {
            let from = Asker { client: CLIENT, served, received: NOW, monotonic: 0 };
            let reply = Server::new(Limits::default()).answer(&bytes, from, &state(), || NOW);
            proptest::prop_assert!(reply.is_none_or(|reply| reply.len() <= bytes.len()));
        }
    }
}

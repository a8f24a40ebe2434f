//! NTP version 4 without sockets and clocks (RFC 5905): a server, and a client that finds out how far the clock is off.
//!
//! [`Server::answer`] turns one request into one reply. [`Client`] polls several servers, filters and selects, and says what
//! is to be done to the clock: step or slew. [`measure`] is the one exchange that a machine which only wants the time once
//! needs (SNTP, RFC 5905 section 14).
//!
//! [`Names`] keeps the addresses of servers that are known by name.
//!
//! Terms: *unix time* here is nanoseconds since 1970 in a `u64`; *monotonic time* is milliseconds of a clock that nobody
//! sets; a *sample* is what one exchange told; the *root* is the clock at the end of the chain of servers.

mod client;
mod leap;
mod names;
mod packet;
mod select;
mod server;
mod source;

pub use client::{Adjust, Client, ClientConfig, Output, Sight};
pub use names::{MOST_OF_A_NAME, NameSight, Names, ServerName};
pub use packet::{Leap, Mode, PACKET, Packet, Stamp};
pub use server::{Asker, Counters, Limits, Server};
pub use source::{Measured, Refused, measure, request};

use std::net::IpAddr;

/// Nanoseconds of one second.
pub(crate) const SECOND: i64 = 1_000_000_000;

/// How fast an undisciplined clock may drift: nanoseconds per second (RFC 5905 PHI, 15 ppm).
pub(crate) const DRIFT: u64 = 15_000;

/// What a server says of its own clock.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SystemState {
    /// Leap second to come, or that the clock is not synchronised.
    pub leap: Leap,
    /// 1 for a reference clock, one more than the server followed; 0 when not synchronised.
    pub stratum: u8,
    /// Whom the clock follows: an IPv4 address, or four letters.
    pub reference_id: [u8; 4],
    /// Round trip to the root in nanoseconds.
    pub root_delay: u64,
    /// Error bound against the root at `updated`, in nanoseconds.
    pub root_dispersion: u64,
    /// Unix time at which the clock was last set or adjusted.
    pub updated: u64,
    /// Resolution of the clock as a power of two of seconds.
    pub precision: i8,
}

impl SystemState {
    /// A clock that nobody vouches for.
    pub const fn unsynchronised() -> Self {
        Self {
            leap: Leap::Unsynchronised,
            stratum: 0,
            reference_id: *b"INIT",
            root_delay: 0,
            root_dispersion: 0,
            updated: 0,
            precision: -20,
        }
    }

    /// A clock that the site calls the reference, at a stratum that gives way to every real one.
    pub const fn local(stratum: u8, now: u64) -> Self {
        Self {
            leap: Leap::None,
            stratum,
            reference_id: *b"LOCL",
            updated: now,
            ..Self::unsynchronised()
        }
    }
}

/// The reference ID of a server that is followed (RFC 5905 figure 12; of IPv6 addresses a part only, as no MD5 is at hand).
pub(crate) const fn reference_of(address: IpAddr) -> [u8; 4] {
    match address {
        IpAddr::V4(address) => address.octets(),
        IpAddr::V6(address) => {
            let octets = address.octets();
            [octets[12], octets[13], octets[14], octets[15]]
        }
    }
}

//! Syslog without sockets and files: messages of RFC 3164 and RFC 5424, the framings of TCP (RFC 6587), records as they
//! lie on the disk, and what a person searches for.
//!
//! Everything here was written by a stranger: nothing is believed but the address it came from, control characters
//! never reach a terminal or a page, and every length is bounded. A parser of our own, since the programs are built to
//! abort on a panic, and since a message that no standard fits is kept all the same: as text.

mod filter;
mod framing;
mod message;
mod record;

pub use filter::Filter;
pub use framing::{Framing, Splitter};
pub use message::{Facility, Level, Message, parse};
pub use record::{Record, Torn, decode, encode};

/// Longest message that is kept, in bytes; the rest of a longer one is cut (RFC 5424 section 6.1 asks for 2048).
pub const LONGEST: usize = 8192;

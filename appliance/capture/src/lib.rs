//! Packet captures: which frames are of a boot and how much of each is kept, as rules and as a program for the kernel
//! ([`filter`]); a bounded memory of the newest ([`ring`]); and the file format that Wireshark and tcpdump read
//! ([`pcapng`]). Pure: no socket, no clock, no file.
//!
//! Payloads that may hold secrets are never kept: what boot files, HTTP, TLS and SSH carry is cut off behind the headers
//! ([`frame::kept`]).

pub mod filter;
pub mod frame;
pub mod pcapng;
pub mod ring;

pub use filter::{Filter, Instruction, Rest};
pub use pcapng::Direction;
pub use ring::{Captured, Ring};

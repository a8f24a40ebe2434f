//! TFTP server (RFC 1350, 2347, 2348, 2349, 7440) as an engine without sockets, clocks or files.
//!
//! [`Server::open`] judges a datagram that came to port 69 and gives a [`Transfer`]; the shell gives that one a UDP
//! port of its own, feeds it what comes from the client and carries out its [`Output`]s. Files are whatever
//! [`Files::open`] finds under a name; no name ever becomes a path.
//!
//! Time is a `Duration` since any fixed moment, such as `Instant::elapsed` of the shell's start: round trips on a rack
//! are shorter than a millisecond, and a clock that is being set must not disturb a transfer.

mod files;
pub mod packet;
mod queue;
mod rtt;
mod server;
mod transfer;

pub use files::{FileTable, Files, normalise};
pub use queue::{Queue, Queued, Waiting};
pub use server::{Limits, Opening, Server, TransferId};
pub use transfer::{Outcome, Output, Transfer, Window};

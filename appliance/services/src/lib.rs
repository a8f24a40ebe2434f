//! The shells around the network boot engines: sockets, threads and files for DHCP, TFTP, boot HTTP, DNS, NTP,
//! syslog and IPv6 router advertisements. They decide nothing; what they see goes through the doors in [`doors`].
//!
//! Each service is a module with a `start` that returns a handle: status in words, live reconfiguration, stop. They run
//! on their own threads over epoll: batches of packets are one system call each way, and none waits for another.

mod bind;
mod busy;
pub mod capture;
mod clients;
pub mod dhcp;
pub mod dns;
pub mod doors;
mod frame;
pub mod http;
mod link;
mod metrics;
mod mmsg;
pub mod ntp;
mod outside;
mod poll;
pub mod ra;
mod random;
mod running;
pub mod syslog;
pub mod tftp;

use std::sync::Arc;

pub use bind::StartError;
pub use busy::{Again, Busy, Waiter};
pub use clients::ClientTable;
pub use doors::{BootDesk, BootReply, EventSink, LeaseLog, LeaseLogError};
pub use link::Link;
pub use metrics::{Counter, Metrics, Sample, SampleKind};
pub use outside::Outside;

/// What all services share.
#[derive(Clone)]
pub struct Common {
    /// Takes what happens.
    pub events: Arc<dyn EventSink>,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Who is behind an address.
    pub clients: Arc<ClientTable>,
    /// Who waits for boot files.
    pub busy: Arc<Busy>,
    /// Where nobody boots.
    pub outside: Outside,
    /// The newest boot packets.
    pub captures: Arc<capture::Captures>,
}

impl Common {
    /// Fresh counters and an empty table of clients.
    pub fn new(events: Arc<dyn EventSink>) -> Self {
        Self {
            events,
            metrics: Arc::default(),
            clients: Arc::default(),
            busy: Arc::default(),
            outside: Outside::default(),
            captures: Arc::default(),
        }
    }
}

//! The shells around the network boot engines: sockets, threads and files for DHCP, TFTP, boot HTTP and IPv6 router
//! advertisements. They decide nothing; what they see goes through the doors in [`doors`].

pub mod doors;

pub use doors::{BootDesk, BootReply, EventSink, LeaseLog, LeaseLogError};

//! Listening for LLDP (IEEE 802.1AB-2016): which switch port is at the other end of each cable. We never send any.

mod socket;
mod tlv;

pub use socket::LldpListener;
pub use tlv::{Announcement, parse};

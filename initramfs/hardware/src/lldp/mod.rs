//! LLDP (IEEE 802.1AB-2016): which switch port is at the other end of each cable.

mod tlv;

pub use tlv::{Announcement, parse};

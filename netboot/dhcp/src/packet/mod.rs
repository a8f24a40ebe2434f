//! The DHCPv4 message on the wire (RFC 2131 section 2, options RFC 2132 and others).
//!
//! [`Packet`] is a view over received bytes: it tolerates missing END options, options cut short, packets without
//! padding, and gives `None` for what is not there. [`Message`] is a value: building one that makes no sense takes
//! effort, and encoding it never fails; what does not fit the client's size is moved to the `file` and `sname`
//! fields (option 52) and, when even those are full, left out and counted.

mod message;
mod option;
mod view;

pub use message::{Chaddr, Fit, Message};
pub use option::{DhcpOption, Text, code, ipxe, pxe, relay};
pub use view::{Packet, PacketError, SubOptions};

/// Offsets of the fixed fields (RFC 2131 figure 1).
mod field {
    use std::ops::Range;

    pub(super) const OP: usize = 0;
    pub(super) const HTYPE: usize = 1;
    pub(super) const HLEN: usize = 2;
    pub(super) const HOPS: usize = 3;
    pub(super) const XID: Range<usize> = 4..8;
    pub(super) const SECS: Range<usize> = 8..10;
    pub(super) const FLAGS: Range<usize> = 10..12;
    pub(super) const CIADDR: Range<usize> = 12..16;
    pub(super) const YIADDR: Range<usize> = 16..20;
    pub(super) const SIADDR: Range<usize> = 20..24;
    pub(super) const GIADDR: Range<usize> = 24..28;
    pub(super) const CHADDR: Range<usize> = 28..44;
    pub(super) const SNAME: Range<usize> = 44..108;
    pub(super) const FILE: Range<usize> = 108..236;
    pub(super) const COOKIE: Range<usize> = 236..240;
    pub(super) const OPTIONS: usize = 240;
}

const COOKIE: [u8; 4] = [99, 130, 83, 99];
const BROADCAST_FLAG: u16 = 0x8000;
const HTYPE_ETHERNET: u8 = 1;

/// Smallest message we send: BOOTP's 300 octets (RFC 951). Relays and PXE ROMs of the nineties drop shorter ones.
pub const MIN_MESSAGE: usize = 300;

/// Largest message every client takes: a 576-octet datagram less IP and UDP headers (RFC 2131 section 2).
pub const DEFAULT_LIMIT: usize = 576 - 28;

/// Largest message we ever send: a 1500-octet frame less IP and UDP headers. Boot ROMs do not reassemble fragments.
pub const MAX_MESSAGE: usize = 1500 - 28;

/// Direction of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Op {
    /// 1, client to server.
    Request,
    /// 2, server to client.
    Reply,
}

/// DHCP message type (option 53).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum MessageType {
    /// A client looks for servers.
    Discover = 1,
    /// A server offers.
    Offer = 2,
    /// A client takes an offer, or wants to keep its address.
    Request = 3,
    /// A client found its address in use.
    Decline = 4,
    /// A server gives the address.
    Ack = 5,
    /// A server refuses.
    Nak = 6,
    /// A client gives its address back.
    Release = 7,
    /// A client that has an address asks for the other parameters.
    Inform = 8,
}

impl MessageType {
    /// Reads the code of option 53.
    pub const fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::Discover,
            2 => Self::Offer,
            3 => Self::Request,
            4 => Self::Decline,
            5 => Self::Ack,
            6 => Self::Nak,
            7 => Self::Release,
            8 => Self::Inform,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests;

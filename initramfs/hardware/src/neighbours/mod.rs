//! Listening to the switch: LLDP, spanning tree and LACP, on every cable. We never answer: a machine that is only being
//! looked at must not join a bundle or a tree.

mod bpdu;
mod lacp;
mod socket;

use rackbar_model::PortSays;

use crate::lldp::{self, Announcement};

pub use bpdu::parse as parse_bpdu;
pub use lacp::parse as parse_lacp;
pub use socket::Listener;

/// What was heard.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Heard {
    /// Which port it is.
    Lldp(Announcement),
    /// How it behaves.
    Port(PortSays),
}

/// A protocol to listen to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Protocol {
    Lldp,
    SpanningTree,
    Slow,
}

impl Protocol {
    const ALL: [Self; 3] = [Self::Lldp, Self::SpanningTree, Self::Slow];

    /// What a packet socket is bound to: an EtherType, or for frames with a length in its place the kernel's own number
    /// (`ETH_P_802_2`).
    const fn number(self) -> u16 {
        match self {
            Self::Lldp => 0x88cc,
            Self::SpanningTree => 0x0004,
            Self::Slow => 0x8809,
        }
    }

    /// Reads a payload, which begins behind the EtherType or length.
    fn read(self, payload: &[u8]) -> Option<Heard> {
        match self {
            Self::Lldp => lldp::parse(payload).map(Heard::Lldp),
            Self::SpanningTree => bpdu::parse(payload).map(Heard::Port),
            Self::Slow => lacp::parse(payload).map(Heard::Port),
        }
    }
}

//! IPMI 2.0 over LAN (RMCP+), both ends, and the message bodies KCS shares with it. Sans-IO.
//!
//! Section numbers are those of the *Intelligent Platform Management Interface Specification v2.0, rev. 1.1*; RMCP and
//! its presence ping come from DMTF's *ASF 2.0* (DSP0136).
//!
//! ```text
//!  command   typed requests and answers: power, boot flags, LAN, users, payloads      (same over LAN and KCS)
//!  message   network function, command, data; the IPMB-like wrapping with checksums   (section 13.8)
//!  packet    session header of IPMI 1.5 and RMCP+, integrity trailer                  (sections 13.6, 13.28)
//!  rakp      open session and RAKP 1-4                                                (sections 13.17 to 13.24)
//!  crypto    keys, authentication codes, AES-CBC of cipher suites 3 and 17            (sections 13.25 to 13.32)
//!  client    one session towards a BMC: retries, deadlines, serial over LAN
//!  server    the BMC's end: many sessions, accounts and commands asked from its owner
//! ```
//!
//! Nothing here opens a socket or reads a clock: time is a [`core::time::Duration`] since a moment its user chose, and
//! random bytes come from an [`Entropy`]. Bytes from outside never panic; what does not parse is an error or dropped.

pub mod client;
pub mod command;
mod crypto;
mod entropy;
mod message;
mod packet;
pub mod rakp;
mod read;
pub mod rmcp;
mod secret;
pub mod server;
pub mod sol;
mod window;

pub use crypto::{CipherSuite, SessionKeys};
pub use entropy::{Entropy, OsEntropy};
pub use message::{BMC_ADDRESS, CONSOLE_ADDRESS, Completion, LanMessage, NetFn, Request, Response};
pub use packet::{Opened, Packet, PayloadType, Sealed, seal_plain, seal_v15};
pub use read::Malformed;
pub use secret::Secret;
pub use window::Window;

/// The UDP port of RMCP ("asf-rmcp", DSP0136 section 3.2.3.1).
pub const PORT: u16 = 623;

/// Privilege levels (section 6.8).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Privilege {
    /// May only ask who is there.
    Callback = 1,
    /// May read.
    User = 2,
    /// May switch power and boot device.
    Operator = 3,
    /// May configure the BMC.
    Administrator = 4,
}

impl Privilege {
    /// The level of a privilege nibble; `None` for reserved values, OEM and "no access" (15).
    pub const fn from_nibble(nibble: u8) -> Option<Self> {
        match nibble & 0x0f {
            1 => Some(Self::Callback),
            2 => Some(Self::User),
            3 => Some(Self::Operator),
            4 => Some(Self::Administrator),
            _ => None,
        }
    }
}

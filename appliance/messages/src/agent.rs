//! The agent's conversation with its appliance, over TLS pinned to the site's certificate.
//!
//! The agent connects, sends [`FromAgent::Hello`], and waits for [`ToAgent::Welcome`] or [`ToAgent::Refused`]. After
//! that both sides send when they have something to say. The agent sends a heartbeat at the interval it was told.

use alloc::string::String;
use alloc::vec::Vec;

use rackbar_model::{Inventory, MacAddr, NodeId};
use serde::{Deserialize, Serialize};

/// What the agent says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum FromAgent {
    /// The first message.
    Hello(Hello),
    /// The inventory, whole. Sent after `Welcome`, whenever it changed, and when asked.
    Facts(alloc::boxed::Box<Inventory>),
    /// A sign of life.
    Heartbeat {
        /// Milliseconds since the kernel started.
        uptime_millis: u64,
    },
    /// The outcome of an [`Ask`].
    Done {
        /// The number of the ask.
        id: u32,
        /// `Err` says what failed, in words.
        result: Result<(), String>,
    },
}

/// Who the agent is and how it proves that.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Hello {
    /// [`crate::PROTOCOL_VERSION`] of the agent.
    pub version: u16,
    /// The agent program's version.
    pub agent: String,
    /// What entitles it to speak.
    pub proof: Proof,
    /// MAC address of the interface the machine booted from (`BOOTIF`).
    pub boot_mac: MacAddr,
    /// All MAC addresses of its physical interfaces.
    pub macs: Vec<MacAddr>,
    /// Milliseconds since the kernel started.
    pub uptime_millis: u64,
}

/// A proof of the right to speak for a machine.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Proof {
    /// The one-time token of the kernel arguments, bound to the machine that it was rendered for.
    BootToken([u8; 32]),
    /// The session secret a `Welcome` gave, for connecting again in the same boot.
    Session([u8; 32]),
}

impl core::fmt::Debug for Proof {
    // Secrets never reach a log, whoever prints the message.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::BootToken(_) => "BootToken(..)",
            Self::Session(_) => "Session(..)",
        })
    }
}

/// What the appliance says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ToAgent {
    /// The proof was good.
    Welcome(Welcome),
    /// It was not; the appliance closes after this.
    Refused(RefusedReason),
    /// Do something; the agent answers with [`FromAgent::Done`].
    Ask {
        /// Number of this ask in this session.
        id: u32,
        /// What to do.
        ask: Ask,
    },
}

/// The answer to a good proof.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The node's identity.
    pub node: NodeId,
    /// Its name; the agent sets it as the host name.
    pub name: String,
    /// For connecting again in this boot.
    pub session: [u8; 32],
    /// Interval of heartbeats in milliseconds.
    pub heartbeat_millis: u32,
    /// The appliance's clock, milliseconds since 1970: the agent sets its own by it when it is far off.
    pub now_millis: u64,
}

impl core::fmt::Debug for Welcome {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Self {
            node,
            name,
            session: _,
            heartbeat_millis,
            now_millis,
        } = self;
        f.debug_struct("Welcome")
            .field("node", node)
            .field("name", name)
            .field("heartbeat_millis", heartbeat_millis)
            .field("now_millis", now_millis)
            .finish_non_exhaustive()
    }
}

/// Why an agent was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum RefusedReason {
    /// The agent speaks a version this appliance does not.
    Version,
    /// The token is not one of ours.
    UnknownToken,
    /// The token was used before: somebody may have copied it.
    TokenUsed,
    /// The token is too old.
    TokenExpired,
    /// The token was made for another machine.
    OtherMachine,
    /// The session is not known: boot again.
    UnknownSession,
}

impl core::fmt::Display for RefusedReason {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Version => "the agent speaks a protocol version this appliance does not know",
            Self::UnknownToken => "the boot token is not one of ours",
            Self::TokenUsed => "the boot token was used before; boot the machine again, and find out who used it",
            Self::TokenExpired => "the boot token is too old; boot the machine again",
            Self::OtherMachine => "the boot token was made for another machine",
            Self::UnknownSession => "the session is not known; boot the machine again",
        })
    }
}

/// What the appliance may ask of an agent.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Ask {
    /// Look again and send the inventory.
    Facts,
    /// Restart the machine.
    Reboot,
    /// Switch the machine off.
    PowerOff,
}

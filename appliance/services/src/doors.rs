//! The doors through which the shells reach the rest of the appliance. Whoever owns the view of the rack implements
//! them; services know neither the store nor a node, so they can be tested with an implementation of ten lines.

use std::net::IpAddr;

use bytes::Bytes;
use rackbar_messages::BootReport;
use rackbar_model::{EventKind, FirmwareHabit, Lease, MacAddr};

/// Takes what happened.
pub trait EventSink: Send + Sync {
    /// Records that `kind` happened, about the interface `mac` when it is known.
    ///
    /// Called from the threads that serve packets: it must queue and return, not wait for a disk.
    fn event(&self, mac: Option<MacAddr>, kind: EventKind);
}

/// Keeps leases across a restart and a power cut.
pub trait LeaseLog: Send + Sync {
    /// The newest lease of every address ever committed, in any order.
    ///
    /// # Errors
    /// When the log cannot be read; the DHCP service then does not start, because it would hand out addresses twice.
    fn load(&self) -> Result<Vec<Lease>, LeaseLogError>;

    /// Records `batch` durably: when this returns `Ok`, a power cut does not lose it. A later lease of the same
    /// address replaces the earlier one, also within one batch.
    ///
    /// Called with all leases of a batch of packets at once; no acknowledgement of any of them leaves before it
    /// returns (RFC 2131 section 3.1 step 4: the server "commits the binding to persistent storage" first).
    ///
    /// # Errors
    /// When the batch is not safe. The service then drops the answers of this batch: clients ask again.
    fn commit(&self, batch: &[Lease]) -> Result<(), LeaseLogError>;

    /// What was learnt of the firmware of machines, as [`Self::learnt`] recorded it last.
    ///
    /// # Errors
    /// When the log cannot be read; the service then starts all the same and learns anew.
    fn habits(&self) -> Result<Vec<FirmwareHabit>, LeaseLogError>;

    /// Records what was learnt of a machine's firmware in place of what was recorded before, or that nothing is. It must
    /// queue and return: nothing waits for it, and what a power cut loses is learnt again.
    fn learnt(&self, mac: MacAddr, habit: Option<&FirmwareHabit>);
}

/// Leases could not be read or made durable. The text says what, where and why.
#[derive(Debug, thiserror::Error)]
#[error("the lease log failed: {0}")]
pub struct LeaseLogError(pub String);

/// Says what a machine boots.
pub trait BootDesk: Send + Sync {
    /// The iPXE script of the machine with interface `mac`, asked for from `client`.
    fn script(&self, mac: MacAddr, client: IpAddr) -> BootReply;

    /// The postcard [`rackbar_messages::SignedManifest`] of the machine with interface `mac`, made for `nonce`.
    fn manifest(&self, mac: MacAddr, nonce: [u8; 16], client: IpAddr) -> BootReply;

    /// What an installer asks for below its token: its answers, or that a step of its was heard; and the interface of the
    /// machine that the token was made for.
    fn installer(&self, _token: &str, _what: &str, _client: IpAddr) -> (BootReply, Option<MacAddr>) {
        let (status, text) = (404, "No installer is under way.".to_owned());
        (BootReply::Refused { status, text }, None)
    }

    /// `client` asked for a file of an installer's disc and was answered with `status`. Called for each: it must be quick.
    fn disc_answered(&self, _client: IpAddr, _path: &str, _status: u16) {}

    /// A boot program told how far it is.
    fn report(&self, report: BootReport, client: IpAddr);
}

/// What [`BootDesk`] answers.
#[derive(Clone, PartialEq, Eq)]
pub enum BootReply {
    /// A document to send with status 200. Never cached: it may hold a one-time token.
    Bytes {
        /// Media type.
        content_type: &'static str,
        /// The document.
        body: Bytes,
    },
    /// No document, with a reason a person can read on the machine's screen.
    Refused {
        /// HTTP status code, 400 to 599.
        status: u16,
        /// Why and what to do.
        text: String,
    },
}

impl std::fmt::Debug for BootReply {
    // Scripts and manifests hold boot tokens.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bytes { content_type, body } => f
                .debug_struct("Bytes")
                .field("content_type", content_type)
                .field("len", &body.len())
                .finish_non_exhaustive(),
            Self::Refused { status, text } => f
                .debug_struct("Refused")
                .field("status", status)
                .field("text", text)
                .finish(),
        }
    }
}

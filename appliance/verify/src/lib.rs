//! Proof that a node is as wanted: the list of checks, the code that runs them, and the signed report.
//!
//! The list ([`capabilities`]) is data with stable ids; a check's code has two halves. Its *probe* is plain POSIX shell
//! that reads `/proc` and `/sys` on the node and changes nothing there; its *judge* is a pure function from what is wanted
//! ([`Context`]) and what the probe printed to a verdict in words. Field and tests run the same code: only [`Reach`]
//! differs.

mod agent;
mod capability;
mod checks;
mod context;
#[doc(hidden)]
pub mod fuzzing;
mod reach;
mod report;
mod run;
mod text;

pub use agent::ThroughAgent;
pub use capability::{Capabilities, Capability, Level, capabilities};
pub use context::{BootFirst, Context, Peer, Seen, Wanted, WantedName};
pub use reach::{Asked, OverSsh, Reach};
pub use report::{Checked, NodeReport, REPORT_VERSION, Report, ReportError, SignedReport, check, sign};
pub(crate) use run::REACHABLE;
pub use run::{run, settle, unreached};
pub use text::text;

//! The management machine's own disks, and moving the appliance's state from memory onto one of them.
//!
//! ```text
//! survey ─▶ choose ─▶ prepare ─▶ copy (while it runs) ─▶ daemon stops ─▶ copy what changed ─▶ settle ─▶ daemon starts
//!                     partition is called rackbar-moving                              └─ now it is called rackbar-data
//! ```
//! The appliance looks for its state in a partition called `rackbar-data` and in no other. So the new name is the one step
//! that counts: before it a power cut leaves what there was, state in memory and a disk that nobody takes for the state;
//! after it the disk is whole. Nothing is written anywhere between the last copy and the new start.

mod choose;
mod copy;
mod prepare;
mod survey;
#[cfg(test)]
mod tests;

pub use choose::{Refusal, choose};
pub use copy::{Copied, copy};
pub use prepare::{Prepared, prepare};
pub use survey::{OwnDisk, survey};

/// Name of the partition that takes the state.
pub const DATA: &str = "rackbar-data";

/// Its name until everything is on it.
pub const MOVING: &str = "rackbar-moving";

/// Name of the partition that an appliance boots from.
pub const ESP: &str = "rackbar-esp";

/// What went wrong, and what to do.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct StorageError(pub String);

/// Turns an I/O error into words: what was being done.
fn during(what: impl std::fmt::Display) -> impl FnOnce(std::io::Error) -> StorageError {
    move |error| StorageError(format!("{what}: {error}"))
}

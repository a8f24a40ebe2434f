//! What appliance, agent and boot loader say to each other: postcard enums, framed for a byte stream.
//!
//! The rule of versions: variants and fields are only ever added at the end, [`PROTOCOL_VERSION`] goes up with each
//! change, and each version keeps its exact bytes in `tests/`. If such a test fails, undo the change, not the test.
#![no_std]

extern crate alloc;

mod agent;
mod frame;
mod loader;

pub use agent::{
    Ask, BmcSetup, BmcStatic, DiskLayout, FromAgent, Hello, JobFailure, JobId, JobReport, Proof, RefusedReason,
    ToAgent, Welcome, Work,
};
pub use frame::{FrameError, MAX_FRAME, decode, encode, read_frame, write_frame};
pub use loader::{BootFile, BootFileRole, BootManifest, BootReport, SignedManifest};

/// Longest pause of an agent with a job between two tries to reach the appliance. Who waits for its work has the machine
/// reset when it stays away, so this and [`CONNECTING`] bound how long it may.
pub const BUSY_PAUSE: core::time::Duration = core::time::Duration::from_secs(10);

/// Longest time that a try of an agent to reach the appliance takes, up to its welcome.
pub const CONNECTING: core::time::Duration = core::time::Duration::from_secs(44);

/// The version both ends name first.
pub const PROTOCOL_VERSION: u16 = 5;

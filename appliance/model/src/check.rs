//! Words of proof: a check with a stable id, and what came of it.

use alloc::string::String;

use serde::{Deserialize, Serialize};

use crate::Timestamp;

/// How a check ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum CheckStatus {
    /// It is as wanted.
    Passed,
    /// It is not.
    Failed,
    /// It does not apply to this machine or role; the detail says why.
    Skipped,
}

/// Ids of all checks of a system, in the order in which they are run.
pub const CHECKS: [&str; 23] = [
    "os.reachable",
    "os.identity",
    "disk.layout",
    "disk.errors",
    "memory.total",
    "cpu.threads",
    "firmware.bios",
    "boot.order",
    "net.addresses",
    "net.link",
    "net.pairs",
    "net.mtu",
    "dns.resolve",
    "time.sync",
    "proxy.packages",
    "ssh.hostkey",
    "services.failed",
    "kernel.taint",
    "security.nopassword",
    "burnin.machine",
    "burnin.cpu",
    "burnin.memory",
    "burnin.disk",
];

/// The result of one check.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
pub struct CheckResult {
    /// Stable id, such as `disk.layout`.
    pub id: String,
    /// How it ended.
    pub status: CheckStatus,
    /// What was wanted, in words.
    pub wanted: String,
    /// What was observed, in words.
    pub observed: String,
    /// What to do when it failed, else why it was skipped, else empty.
    pub advice: String,
    /// When it ended.
    pub at: Timestamp,
    /// Milliseconds it took.
    pub millis: u64,
}

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

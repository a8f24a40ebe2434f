//! The list of checks as published data.

use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

/// The versioned list.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Capabilities {
    /// Raised when a check changes its meaning. New checks do not raise it.
    pub version: u32,
    /// The checks, in the order in which they are run.
    pub checks: Vec<Capability>,
}

/// One check.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Capability {
    /// Stable id; never reused for anything else.
    pub id: String,
    /// What it shows, as a sentence.
    pub title: String,
    /// One machine, or machines together.
    pub level: Level,
    /// The layer of ready state it belongs to, 1 to 7.
    pub layer: u8,
    /// Where it looks: `ssh` (on the node), `bmc` (out of band), `agent` (what our agent's last burn-in showed, which takes the
    /// machine from its work and is therefore asked for by itself).
    pub how: String,
}

/// What a check is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// One machine.
    Component,
    /// Several machines together.
    Platform,
}

static LIST: LazyLock<Capabilities> = LazyLock::new(|| {
    // Compiled in, and read by a test: it cannot fail in the field.
    serde_json::from_str(include_str!("../capabilities.json")).unwrap_or(Capabilities {
        version: 0,
        checks: Vec::new(),
    })
});

/// The list this program was built with.
pub fn capabilities() -> &'static Capabilities {
    &LIST
}

//! The flight recorder's reading of one machine's timeline: where its boot stands, in words, and what to do next.
//!
//! Two steps. [`Reading`] goes over the events and keeps what happened in the newest boot. [`RULES`](rules::RULES) is a
//! table, furthest
//! stage first: the first rule that fits gives the verdict. Silence counts as much as events do, so `now` is an input.

mod port;
mod reading;
mod rest;
mod rules;

use alloc::string::String;
use core::fmt;

use rackbar_model::{Event, Severity, Timestamp};

use reading::Reading;

/// How far a boot came.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Stage {
    /// Not a packet seen.
    Silent,
    /// DHCP.
    Dhcp,
    /// The firmware fetches the first file.
    BootFile,
    /// Our loader or iPXE runs.
    Loader,
    /// The kernel was started.
    Kernel,
    /// The agent runs.
    Agent,
    /// The inventory is here.
    Discovered,
    /// It boots, or runs, the system on its own disk.
    Disk,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Silent => "silent",
            Self::Dhcp => "dhcp",
            Self::BootFile => "boot file",
            Self::Loader => "loader",
            Self::Kernel => "kernel",
            Self::Agent => "agent",
            Self::Discovered => "discovered",
            Self::Disk => "disk",
        })
    }
}

/// The reading of a timeline.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verdict {
    /// What happened, one sentence.
    pub text: String,
    /// How far the newest boot came.
    pub stage: Stage,
    /// `Info` while all is as expected, `Warning` when it is late, `Error` when a person must act.
    pub severity: Severity,
    /// What a person should do; empty when nothing.
    pub next_step: String,
}

/// Reads the events of one machine, oldest first, as of `now`.
pub fn verdict(events: &[Event], now: Timestamp) -> Verdict {
    let reading = Reading::of(events, now);
    rules::RULES
        .iter()
        .find_map(|rule| (rule.says)(&reading))
        .unwrap_or_else(|| Verdict {
            text: "nothing seen of this machine yet".into(),
            stage: Stage::Silent,
            severity: Severity::Info,
            next_step: "power it on with network boot first in its boot order".into(),
        })
}

#[cfg(test)]
mod rest_tests;
#[cfg(test)]
mod tests;

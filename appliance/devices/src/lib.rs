//! Talking to management controllers (BMCs): finding them, who they are, power, boot, firmware settings, accounts,
//! media, sensors, logs, console.
//!
//! ```text
//!  probe     who is there, without a password
//!  bmc       one BMC: a queue, back-off, and the ranked ways to it ("hammers"): Redfish first, then IPMI
//!  attempts  wrong passwords, counted so that no account is locked
//!  redfish   the client of DMTF's DSP0266 over HTTPS, tolerant of what real BMCs answer
//!  bios      firmware settings and what a registry allows (pure)
//!  console   serial over LAN, live
//!  ipmi      the client of IPMI 2.0 over LAN; protocol in `rackbar-ipmi`
//! ```
//!
//! Differences between makers are data (`rackbar-hw-profiles`); no maker's name stands in this code.

mod account;
mod address;
mod attempts;
mod bios;
mod bmc;
mod budget;
mod console;
mod error;
mod health;
mod identity;
mod ipmi;
mod pace;
mod probe;
mod redfish;
mod tls;

use std::time::Duration;

pub use account::{AccountChange, AccountRole, BmcAccount, NewAccount};
pub use address::{BmcAddress, Credentials, Fingerprint, ParseFingerprintError};
pub use attempts::{Attempts, Counting, Keep};
pub use bios::{Applies, BiosAttribute, BiosAttributes, BiosKind, BiosRule, Staged};
pub use bmc::{Bmc, Capability, Choice, Turn};
pub use budget::Budget;
pub use console::SolStream;
pub use error::{Cause, Error, Interface};
pub use health::{Health, HealthState, LogLine, Sensor};
pub use identity::{BmcIdentity, BootOption, BootOverride, BootTarget, LanSettings, MediaDrive};
pub use probe::{IpmiPresence, ProbeReport, RedfishRoot, probe};
pub use rackbar_hw_profiles::{Applied as AppliedProfile, Profiles, look as look_at_profile};

/// How patient we are with a BMC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timing {
    /// For a TCP connection with TLS.
    pub connect: Duration,
    /// For the answer to one Redfish request.
    pub answer: Duration,
    /// Before an IPMI message is repeated.
    pub repeat: Duration,
    /// How often an IPMI message is sent.
    pub tries: u8,
    /// How long a power change or a task may take until the BMC shows it.
    pub settle: Duration,
    /// Between two looks at the power state.
    pub look: Duration,
    /// In which at most two wrong passwords of an account are tried.
    pub wrong_passwords: Duration,
}

impl Default for Timing {
    /// Slow BMCs need 10 s and more for a Redfish resource they have not cached.
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            answer: Duration::from_secs(60),
            repeat: Duration::from_secs(2),
            tries: 4,
            settle: Duration::from_secs(90),
            look: Duration::from_secs(2),
            // As long as the slower of the usual lock-outs count.
            wrong_passwords: Duration::from_secs(10 * 60),
        }
    }
}

//! A system that somebody else installed, and that was taken in as it is: what it says of itself, and how it is reached.

use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::{DiskRef, Inventory, Timestamp};

/// What a running system says of itself. What it does not say is empty.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct RunningSystem {
    /// Its name for people (`PRETTY_NAME` of os-release(5)).
    pub name: String,
    /// Its name for programs (`ID`), such as `debian`.
    pub id: String,
    /// Its version for programs (`VERSION_ID`).
    pub version: String,
    /// Release of its kernel, as `uname -r` says it.
    pub kernel: String,
    /// Its host name.
    pub hostname: String,
    /// Its machine-id(5).
    pub machine_id: String,
    /// The disks that it uses.
    pub in_use: Vec<DiskInUse>,
}

/// A whole disk that a running system uses.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct DiskInUse {
    /// Its kernel name there; not stable.
    pub name: String,
    /// What tells it from every other.
    pub disk: DiskRef,
    /// What for: mount points, `swap`, `part of dm-0`. At most [`DiskInUse::MOST_USES`].
    pub uses: Vec<String>,
}

impl DiskInUse {
    /// Uses of one disk that are told.
    pub const MOST_USES: usize = 32;
}

/// What our agent prints when it is asked to look once at the system it was brought to (`rackbar-agent --report`).
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct MachineReport {
    /// The machine.
    pub inventory: Inventory,
    /// The system on it.
    pub system: RunningSystem,
}

/// A system that was adopted.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
pub struct Adopted {
    /// The system, as it was when it was looked at.
    pub system: RunningSystem,
    /// Account that logs in over SSH.
    pub user: String,
    /// Where it answered.
    #[cfg_attr(feature = "utoipa", schema(value_type = String))]
    pub address: IpAddr,
    /// TCP port of its SSH server.
    pub port: u16,
    /// The host key that it showed and must show from now on, as OpenSSH writes it.
    pub host_key: String,
    /// Nobody had said which host key it should show: the first one was taken.
    pub trusted_on_first_use: bool,
    /// Fingerprint of the key that it lets in, when that is not the appliance's own; the key itself is kept sealed.
    pub own_key: Option<String>,
    /// Who took it in.
    pub by: String,
    /// When.
    pub at: Timestamp,
}

//! What the API says of the appliance's own disks.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Where the state is, and where it could be.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct StorageState {
    /// True when the state is lost with the power.
    pub volatile: bool,
    /// Where the state is and why, in words.
    pub words: String,
    /// Why the last move to a disk did not succeed.
    pub failed: Option<String>,
    /// The appliance's own disks, by kernel name.
    pub disks: Vec<StorageDisk>,
}

/// A disk of the management machine.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct StorageDisk {
    /// Kernel name.
    pub name: String,
    /// Model.
    pub model: Option<String>,
    /// Serial number.
    pub serial: Option<String>,
    /// World-wide name.
    pub wwn: Option<String>,
    /// Path by its bus address.
    pub by_path: Option<String>,
    /// Size in bytes.
    pub size_bytes: u64,
    /// What is on it, in words; empty when it is blank.
    pub holds: Vec<String>,
    /// Who uses it, in words; empty when nobody does.
    pub users: Vec<String>,
    /// Why it cannot take the state, whoever consents.
    pub refusal: Option<String>,
    /// It can take the state, and what is on it would be lost: that wants consent.
    pub needs_consent: bool,
}

/// Which disk is to take the state.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StorageOrder {
    /// Kernel name, serial number, WWN or path.
    pub disk: String,
    /// The same disk, named once more: all that is on it may be lost.
    #[serde(default)]
    pub destroy: Option<String>,
}

/// What came of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct StorageDone {
    /// In words.
    pub done: String,
}

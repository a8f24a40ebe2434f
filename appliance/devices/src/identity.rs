//! What a BMC tells about the machine it manages.

use rackbar_model::{FirmwareMode, MacAddr, PowerState};

/// Who a BMC is and what it manages. Everything may be missing.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct BmcIdentity {
    /// MAC address of the BMC's own interface.
    pub mac: Option<MacAddr>,
    /// Firmware version of the BMC.
    pub firmware: Option<String>,
    /// Serial number of the system.
    pub system_serial: Option<String>,
    /// UUID of the system; a weak witness, duplicated in the field.
    pub uuid: Option<String>,
    /// Maker of the system.
    pub manufacturer: Option<String>,
    /// Model of the system.
    pub model: Option<String>,
    /// MAC addresses of the system's network interfaces.
    pub nic_macs: Vec<MacAddr>,
    /// Power of the system.
    pub power: PowerState,
}

/// Where a boot comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BootTarget {
    /// As the firmware is set up; clears an override.
    Default,
    /// Network by PXE, or whatever the BMC calls network when it knows no PXE.
    Network,
    /// Network by UEFI HTTP boot.
    Http,
    /// Hard disk.
    Disk,
    /// CD, real or virtual.
    Cd,
    /// Firmware set-up.
    Setup,
    /// Something else, in the BMC's own word. Seen, never set.
    Other(String),
}

/// A boot override.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BootOverride {
    /// From where; [`BootTarget::Default`] means none is in force.
    pub target: BootTarget,
    /// For the next boot only.
    pub once: bool,
    /// In which firmware mode, where the BMC says.
    pub mode: Option<FirmwareMode>,
}

//! What a BMC tells about the machine it manages.

use core::fmt;
use std::net::Ipv4Addr;

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

impl fmt::Display for BootTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Default => "the firmware's own order",
            Self::Network => "network",
            Self::Http => "HTTP",
            Self::Disk => "disk",
            Self::Cd => "CD",
            Self::Setup => "firmware set-up",
            Self::Other(word) => word,
        })
    }
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
    /// What UEFI HTTP boot fetches, where the BMC says.
    pub url: Option<String>,
}

/// A drive of the BMC's own, whose image it fetches from a URL.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MediaDrive {
    /// Its name in the BMC, such as `Cd`.
    pub id: String,
    /// What it can be: `CD`, `DVD`, `USBStick`, `Floppy`.
    pub kinds: Vec<String>,
    /// Whether something is in; nothing where the BMC does not say.
    pub inserted: Option<bool>,
    /// The image that is in.
    pub image: Option<String>,
    /// It is the one that images are put into.
    pub ours: bool,
}

/// An entry of the machine's own boot order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BootOption {
    /// How the order names it, such as `Boot0003`.
    pub id: String,
    /// Its name for people.
    pub name: String,
    /// UEFI device path, as the BMC writes it.
    pub path: Option<String>,
    /// What kind of device it is, as far as name and path tell.
    pub target: BootTarget,
    /// It counts.
    pub enabled: bool,
}

/// Network settings of a BMC.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LanSettings {
    /// MAC address; read only.
    pub mac: Option<MacAddr>,
    /// IPv4 address.
    pub address: Option<Ipv4Addr>,
    /// Prefix length.
    pub prefix: u8,
    /// Default gateway.
    pub gateway: Option<Ipv4Addr>,
    /// The address comes from DHCP.
    pub dhcp: bool,
    /// VLAN, when tagging is on.
    pub vlan: Option<u16>,
}

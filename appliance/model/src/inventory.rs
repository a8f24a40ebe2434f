//! What an agent found in a machine. Every field may be missing: firmware lies, drivers are absent, and an inventory
//! that is refused because one table is broken helps nobody.

use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::MacAddr;

/// Everything known of one machine's hardware at one moment.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct Inventory {
    /// Firmware vendor, version, mode.
    pub firmware: FirmwareInfo,
    /// SMBIOS type 1.
    pub system: SystemInfo,
    /// SMBIOS type 2.
    pub board: BoardInfo,
    /// SMBIOS type 3.
    pub chassis: ChassisInfo,
    /// Processors, as the kernel sees them.
    pub cpu: CpuInfo,
    /// Memory, as kernel and SMBIOS type 17 see it.
    pub memory: MemoryInfo,
    /// PCI functions.
    pub pci: Vec<PciDevice>,
    /// Ethernet interfaces.
    pub nics: Vec<Nic>,
    /// Block devices that are whole disks.
    pub disks: Vec<Disk>,
    /// Trusted Platform Module.
    pub tpm: Option<TpmInfo>,
    /// The baseboard management controller, as seen in-band over KCS.
    pub bmc: Option<BmcInfo>,
    /// How this boot came about.
    pub boot: BootInfo,
}

/// Firmware (SMBIOS 3.x type 0, section 7.1).
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct FirmwareInfo {
    /// Vendor string.
    pub vendor: Option<String>,
    /// Version string.
    pub version: Option<String>,
    /// Release date as the firmware writes it (usually MM/DD/YYYY).
    pub date: Option<String>,
    /// BIOS or UEFI.
    pub mode: Option<FirmwareMode>,
    /// Secure Boot state, from the EFI variable; `None` under BIOS.
    pub secure_boot: Option<bool>,
}

/// The interface through which the operating system was started.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum FirmwareMode {
    /// PC BIOS.
    Bios,
    /// UEFI.
    Uefi,
}

/// System (SMBIOS type 1, section 7.2). The UUID is a weak witness: it is duplicated in the field.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct SystemInfo {
    /// Manufacturer.
    pub manufacturer: Option<String>,
    /// Product name.
    pub product: Option<String>,
    /// Serial number; placeholders such as "To be filled by O.E.M." are dropped by the reader.
    pub serial: Option<String>,
    /// UUID in the byte order of SMBIOS 2.6 and later, hyphenated lower case.
    pub uuid: Option<String>,
    /// SKU number.
    pub sku: Option<String>,
}

/// Baseboard (SMBIOS type 2, section 7.3).
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct BoardInfo {
    /// Manufacturer.
    pub manufacturer: Option<String>,
    /// Product.
    pub product: Option<String>,
    /// Serial number.
    pub serial: Option<String>,
}

/// Chassis (SMBIOS type 3, section 7.4).
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct ChassisInfo {
    /// Manufacturer.
    pub manufacturer: Option<String>,
    /// Serial number.
    pub serial: Option<String>,
    /// Asset tag.
    pub asset_tag: Option<String>,
}

/// Processors.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct CpuInfo {
    /// Model name of the first processor.
    pub model: Option<String>,
    /// Architecture as `uname -m` says it.
    pub arch: Option<String>,
    /// Populated sockets.
    pub sockets: u16,
    /// Physical cores, all sockets.
    pub cores: u16,
    /// Logical processors, all sockets.
    pub threads: u16,
    /// Highest frequency the kernel knows, in MHz.
    pub max_mhz: Option<u32>,
    /// Feature flags worth a decision, such as `vmx`, `svm`, `aes`, `avx2`, `avx512f`.
    pub flags: Vec<String>,
    /// Microcode revision, as the kernel writes it.
    pub microcode: Option<String>,
}

/// Memory.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct MemoryInfo {
    /// Memory the kernel can use, in bytes.
    pub total_bytes: u64,
    /// Modules by slot.
    pub modules: Vec<MemoryModule>,
}

/// A memory device (SMBIOS type 17, section 7.18).
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct MemoryModule {
    /// Device locator, such as `DIMM_A1`.
    pub slot: String,
    /// Size in bytes; 0 means the slot is empty.
    pub size_bytes: u64,
    /// Memory type, such as `DDR5`.
    pub kind: Option<String>,
    /// Speed in MT/s.
    pub speed_mts: Option<u32>,
    /// Manufacturer.
    pub manufacturer: Option<String>,
    /// Part number.
    pub part: Option<String>,
    /// Serial number.
    pub serial: Option<String>,
}

/// One PCI function.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct PciDevice {
    /// `domain:bus:device.function`, such as `0000:03:00.0`.
    pub address: String,
    /// Vendor ID.
    pub vendor: u16,
    /// Device ID.
    pub device: u16,
    /// Subsystem vendor ID.
    pub subsystem_vendor: u16,
    /// Subsystem ID.
    pub subsystem: u16,
    /// Class code: base class, subclass, programming interface.
    pub class: u32,
    /// Kernel driver bound to it.
    pub driver: Option<String>,
    /// Name from the PCI ID list; filled in by the appliance (the list is too large for the agent).
    pub name: Option<String>,
}

/// One Ethernet interface.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct Nic {
    /// Kernel name in the discovery system; not stable, never used as a key.
    pub name: String,
    /// Permanent MAC address where the driver tells it, else the current one.
    pub mac: MacAddr,
    /// Kernel driver.
    pub driver: Option<String>,
    /// Firmware version from ethtool.
    pub firmware: Option<String>,
    /// PCI address.
    pub pci: Option<String>,
    /// Link speed in Mbit/s when the link is up.
    pub speed_mbps: Option<u32>,
    /// Carrier.
    pub link: bool,
    /// Highest MTU the driver allows.
    pub max_mtu: Option<u32>,
    /// Addresses in the discovery system.
    #[cfg_attr(feature = "utoipa", schema(value_type = Vec<String>))]
    pub addresses: Vec<IpAddr>,
    /// The switch port at the other end, by LLDP.
    pub lldp: Option<LldpNeighbour>,
    /// True for the interface this boot came through.
    pub boot: bool,
}

/// A neighbour's LLDP announcement (IEEE 802.1AB-2016, clause 8).
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct LldpNeighbour {
    /// Chassis ID, printable.
    pub chassis_id: String,
    /// Port ID, printable.
    pub port_id: String,
    /// Port description.
    pub port_description: Option<String>,
    /// System name.
    pub system_name: Option<String>,
    /// System description.
    pub system_description: Option<String>,
    /// Port VLAN ID (IEEE 802.1 organizationally specific TLV, annex D.2.1).
    pub vlan: Option<u16>,
}

/// One whole disk.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct Disk {
    /// Kernel name in the discovery system; not stable, never used as a key.
    pub name: String,
    /// Size in bytes.
    pub size_bytes: u64,
    /// Model.
    pub model: Option<String>,
    /// Serial number.
    pub serial: Option<String>,
    /// World Wide Name or NVMe EUI-64/NGUID.
    pub wwn: Option<String>,
    /// Firmware revision.
    pub firmware: Option<String>,
    /// True when the medium rotates.
    pub rotational: bool,
    /// Bus.
    pub bus: DiskBus,
    /// PCI address of its controller.
    pub pci: Option<String>,
    /// Stable path as udev's by-path would write it, where it can be derived.
    pub by_path: Option<String>,
    /// Logical sector size in bytes.
    pub sector_bytes: u32,
    /// True when the kernel says it is removable.
    pub removable: bool,
    /// Health, where the kernel or the device gives it.
    pub health: Option<DiskHealth>,
}

/// The bus a disk is attached to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum DiskBus {
    /// Not recognised.
    #[default]
    Unknown,
    /// NVMe.
    Nvme,
    /// SATA.
    Sata,
    /// SAS or parallel SCSI.
    Sas,
    /// virtio-blk or virtio-scsi.
    Virtio,
    /// USB mass storage.
    Usb,
    /// MultiMediaCard or SD.
    Mmc,
}

/// A disk's own word on its health (NVMe Base 2.0 figure 207; ATA SMART return status).
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct DiskHealth {
    /// The device reports no critical warning.
    pub ok: bool,
    /// Rated life used, in per cent; may exceed 100.
    pub percent_used: Option<u16>,
    /// Temperature in degrees Celsius.
    pub celsius: Option<i16>,
    /// Power-on hours.
    pub power_on_hours: Option<u64>,
    /// Media errors.
    pub media_errors: Option<u64>,
}

/// A TPM.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct TpmInfo {
    /// Major version: 1 or 2.
    pub version: u8,
    /// Description from the kernel.
    pub description: Option<String>,
    /// SHA-256 of the endorsement key's public part, when it could be read.
    pub endorsement_key_sha256: Option<String>,
}

/// The BMC as its own host sees it over KCS (IPMI 2.0 sections 20.1 and 23.2).
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct BmcInfo {
    /// IPv4 or IPv6 address of its LAN channel.
    #[cfg_attr(feature = "utoipa", schema(value_type = Option<String>))]
    pub address: Option<IpAddr>,
    /// Netmask of an IPv4 address, as a prefix length.
    pub prefix: Option<u8>,
    /// Default gateway.
    #[cfg_attr(feature = "utoipa", schema(value_type = Option<String>))]
    pub gateway: Option<IpAddr>,
    /// MAC address of its LAN channel.
    pub mac: Option<MacAddr>,
    /// VLAN ID, when one is set.
    pub vlan: Option<u16>,
    /// True when the address comes from DHCP.
    pub dhcp: Option<bool>,
    /// Firmware revision, `major.minor`.
    pub firmware: Option<String>,
    /// IANA enterprise number of the maker.
    pub manufacturer_id: Option<u32>,
    /// Product ID.
    pub product_id: Option<u16>,
    /// IPMI version, such as `2.0`.
    pub ipmi_version: Option<String>,
}

/// How the running system was booted.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct BootInfo {
    /// MAC address of the interface the firmware booted from.
    pub mac: Option<MacAddr>,
    /// Kernel release.
    pub kernel: Option<String>,
    /// Kernel modules that were wanted by a device but missing from the image, by modalias.
    pub missing_drivers: Vec<String>,
}

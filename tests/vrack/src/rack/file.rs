//! A rack as a TOML file. Unknown fields are errors with line and column; what cannot be is said in words before
//! anything starts.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::Path;

use rackbar_model::Timestamp;
use serde::Deserialize;

use super::hardware;
use super::switching::{self, SwitchFile};
use crate::machine::{DiskBus, MemoryModules, NicModel};
use crate::seat::BootDevice;
use crate::switch::SpanningTree;

/// Why a rack file was refused.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It could not be read.
    #[error("cannot read the rack file {path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// It is not what a rack file looks like; the message names line and field.
    #[error("the rack file {path} is wrong: {source}")]
    Syntax {
        /// The file.
        path: String,
        /// Where and what.
        source: Box<toml::de::Error>,
    },
    /// It reads well and makes no sense.
    #[error("the rack file {path} makes no sense: {reason}")]
    Sense {
        /// The file.
        path: String,
        /// What and where.
        reason: String,
    },
}

/// A rack.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RackFile {
    /// Its name: short, part of paths.
    pub name: String,
    /// What it is there to show, one line.
    pub description: String,
    /// VLAN numbers by name; `rack` and `bmc` must exist.
    #[serde(default = "default_vlans")]
    pub vlans: BTreeMap<String, u16>,
    /// The switch.
    #[serde(default)]
    pub switch: SwitchFile,
    /// The appliance.
    #[serde(default)]
    pub appliance: ApplianceFile,
    /// A DHCP server the site already has on the rack VLAN.
    pub foreign_dhcp: Option<ForeignDhcp>,
    /// The machines, in the order of their switch ports.
    #[serde(rename = "node")]
    pub nodes: Vec<NodeFile>,
}

fn default_vlans() -> BTreeMap<String, u16> {
    BTreeMap::from([("rack".into(), 10), ("bmc".into(), 20)])
}

/// What the appliance boots from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Medium {
    /// `rackbar.img` as a disk.
    #[default]
    Disk,
    /// `rackbar.iso` in a CD drive.
    IsoCd,
    /// `rackbar.iso` written to a USB stick.
    IsoDisk,
    /// Kernel and archives from a foreign web server, by iPXE.
    Ipxe,
    /// There is no appliance machine: a test puts something else on the network.
    None,
}

/// What starts the appliance.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ApplianceFirmware {
    /// OVMF.
    #[default]
    Uefi,
    /// SeaBIOS; only with the `ipxe` medium.
    Bios,
}

/// How the appliance is told to treat DHCP on the rack VLAN.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DhcpRole {
    /// It is the DHCP server.
    #[default]
    Own,
    /// Somebody else is; it answers boot questions only.
    Proxy,
    /// It listens first and decides.
    Auto,
}

/// The appliance.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ApplianceFile {
    /// RAM in MiB.
    pub memory_mib: u32,
    /// Virtual CPUs.
    pub cpus: u32,
    /// What it boots from.
    pub medium: Medium,
    /// What starts it.
    pub firmware: ApplianceFirmware,
    /// Its DHCP role on the rack VLAN.
    pub dhcp: DhcpRole,
    /// Its address on the rack VLAN, prefix 24.
    pub rack_address: Ipv4Addr,
    /// Its address on the BMC VLAN, prefix 24.
    pub bmc_address: Ipv4Addr,
    /// One port carries the rack and the BMC VLAN, both tagged, in place of an access port for each.
    pub trunk: bool,
    /// A VGA display and a keyboard, beside the serial console.
    pub display: bool,
    /// A hardware watchdog, which resets it.
    pub watchdog: bool,
    /// An interface to the outside. Without one its API is reached by way of the rack's network.
    pub uplink: bool,
    /// A USB socket that takes a stick while it runs.
    pub usb: bool,
    /// What its clock shows when it is switched on, as `2001-09-09T01:46:40Z`; the time when left out.
    pub clock: Option<Timestamp>,
    /// More arguments for its kernel; only where iPXE's script names them.
    pub kernel_arguments: String,
}

impl Default for ApplianceFile {
    fn default() -> Self {
        Self {
            memory_mib: 768,
            cpus: 1,
            medium: Medium::Disk,
            firmware: ApplianceFirmware::Uefi,
            dhcp: DhcpRole::Own,
            rack_address: Ipv4Addr::new(10, 77, 10, 1),
            bmc_address: Ipv4Addr::new(10, 77, 20, 1),
            trunk: false,
            display: false,
            watchdog: false,
            uplink: true,
            usb: false,
            clock: None,
            kernel_arguments: String::new(),
        }
    }
}

/// A DHCP server that was there first.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForeignDhcp {
    /// Its own address, prefix 24.
    pub address: Ipv4Addr,
    /// First address it hands out.
    pub first: Ipv4Addr,
    /// How many.
    pub count: u32,
}

/// Firmware of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeFirmware {
    /// SeaBIOS with iPXE in the NIC's ROM.
    BiosIpxe,
    /// OVMF, PXE over TFTP.
    UefiPxe,
    /// OVMF, HTTP Boot.
    UefiHttp,
}

/// A machine, or several alike.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeFile {
    /// Its name; with `count`, the numbers are appended.
    pub name: String,
    /// So many of them.
    #[serde(default = "one")]
    pub count: u32,
    /// What starts it.
    pub firmware: NodeFirmware,
    /// RAM in MiB.
    #[serde(default = "node_memory")]
    pub memory_mib: u32,
    /// What its memory modules say of themselves.
    pub modules: Option<MemoryModules>,
    /// Virtual CPUs, as the kernel counts them.
    #[serde(default = "one")]
    pub cpus: u32,
    /// Sockets that they are spread over.
    #[serde(default = "one")]
    pub sockets: u32,
    /// How many of them are threads of one core.
    #[serde(default = "one")]
    pub threads: u32,
    /// What its clock shows when it is switched on, as `2001-09-09T01:46:40Z`; the time when left out.
    pub clock: Option<Timestamp>,
    /// SMBIOS UUID; made from the name when left out. Two nodes may share one: that happens on real boards.
    pub uuid: Option<String>,
    /// SMBIOS system serial number; made from the name when left out.
    pub serial: Option<String>,
    /// A TPM 2.0.
    #[serde(default)]
    pub tpm: bool,
    /// A BMC on the management VLAN, with KCS to the machine.
    #[serde(default = "yes")]
    pub bmc: bool,
    /// Password of its BMC's administrator, where it is not the one that all have: one that nobody told the appliance.
    pub bmc_password: Option<String>,
    /// Its BMC has a Redfish service; an older one speaks IPMI alone.
    #[serde(default = "yes")]
    pub bmc_redfish: bool,
    /// NICs; one on the rack VLAN when left out.
    #[serde(default = "one_nic")]
    pub nics: Vec<NicFile>,
    /// While nobody on a `lag` of this node speaks LACP, its first port forwards alone.
    #[serde(default)]
    pub lacp_fallback: bool,
    /// The switch asks for an LACPDU every second and gives a partner up after three, in place of 30 s and 90.
    #[serde(default)]
    pub lacp_fast: bool,
    /// Disks; one NVMe when left out.
    #[serde(default = "one_disk")]
    pub disks: Vec<DiskFile>,
    /// Empty drive bays that take an NVMe disk while the machine runs.
    #[serde(default)]
    pub bays: u8,
    /// Order of the boot devices.
    #[serde(default = "network_first")]
    pub boot: Vec<BootDevice>,
}

fn one() -> u32 {
    1
}

fn yes() -> bool {
    true
}

/// The node's archive is unpacked in RAM beside firmware that takes 100 MiB for itself.
fn node_memory() -> u32 {
    512
}

fn one_nic() -> Vec<NicFile> {
    vec![NicFile {
        vlan: "rack".into(),
        model: NicModel::Virtio,
        trunk: Vec::new(),
        stp: SpanningTree::Off,
        lag: None,
    }]
}

fn one_disk() -> Vec<DiskFile> {
    vec![DiskFile {
        bus: DiskBus::Nvme,
        size_mib: 8192,
        serial: None,
        model: None,
    }]
}

fn network_first() -> Vec<BootDevice> {
    vec![BootDevice::Network, BootDevice::Disk]
}

/// A NIC and its switch port.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NicFile {
    /// VLAN of untagged frames, by name.
    pub vlan: String,
    /// Emulated hardware.
    #[serde(default)]
    pub model: NicModel,
    /// VLANs carried with a tag besides: the port becomes a trunk.
    #[serde(default)]
    pub trunk: Vec<String>,
    /// Spanning tree on the port: `off`, `edge` (PortFast) or `stp`.
    #[serde(default)]
    pub stp: SpanningTree,
    /// NICs of this node with the same name here are one bundle to the switch, under LACP.
    pub lag: Option<String>,
}

/// A disk.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskFile {
    /// Attachment.
    #[serde(default)]
    pub bus: DiskBus,
    /// Size in MiB; the file is sparse.
    pub size_mib: u64,
    /// Serial number; made from the node's name when left out.
    pub serial: Option<String>,
    /// Model, for SATA.
    pub model: Option<String>,
}

impl RackFile {
    /// Reads and checks a rack file.
    ///
    /// # Errors
    /// What is wrong, with line and field where it is a matter of writing.
    pub fn load(path: &Path) -> Result<Self, FileError> {
        let shown = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|source| FileError::Read {
            path: shown.clone(),
            source,
        })?;
        Self::parse(&text, &shown)
    }

    /// As [`RackFile::load`], of text; `path` is for messages.
    ///
    /// # Errors
    /// As [`RackFile::load`].
    pub fn parse(text: &str, path: &str) -> Result<Self, FileError> {
        let file: Self = toml::from_str(text).map_err(|source| FileError::Syntax {
            path: path.into(),
            source: Box::new(source),
        })?;
        let mut file = Self {
            nodes: file.nodes.iter().flat_map(copies).collect(),
            ..file
        };
        file.check().map_err(|reason| FileError::Sense {
            path: path.into(),
            reason,
        })?;
        file.nodes.iter_mut().for_each(|node| node.count = 1);
        Ok(file)
    }

    /// The number of a VLAN by name; the file's check made sure that it exists.
    pub fn vlan(&self, name: &str) -> u16 {
        self.vlans.get(name).copied().unwrap_or(1)
    }

    fn check(&self) -> Result<(), String> {
        if !is_name(&self.name) {
            return Err(format!(
                "`name`: {:?} is not 1 to 16 lower-case letters, digits or hyphens",
                self.name
            ));
        }
        for name in ["rack", "bmc"] {
            if !self.vlans.contains_key(name) {
                return Err(format!("`vlans.{name}` is missing"));
            }
        }
        if let Some((name, number)) = self.vlans.iter().find(|(_, number)| !(1..=4094).contains(*number)) {
            return Err(format!("`vlans.{name}`: {number} is not a VLAN number (1 to 4094)"));
        }
        self.switch.check()?;
        let appliance = &self.appliance;
        if !appliance.kernel_arguments.is_empty() && appliance.medium != Medium::Ipxe {
            return Err(
                "`appliance.kernel_arguments`: our media bring their own; these need `medium = \"ipxe\"`".into(),
            );
        }
        if appliance.firmware == ApplianceFirmware::Bios && !matches!(appliance.medium, Medium::Ipxe | Medium::None) {
            return Err("`appliance.firmware`: our media start under UEFI; BIOS needs `medium = \"ipxe\"`".into());
        }
        if self.nodes.len() > 200 {
            return Err(format!(
                "{} nodes are more than one switch address range holds (200)",
                self.nodes.len()
            ));
        }
        let mut seen = BTreeSet::new();
        self.nodes.iter().try_for_each(|node| {
            if !seen.insert(&node.name) {
                return Err(format!("two nodes are called `{}`", node.name));
            }
            self.check_node(node)
                .map_err(|reason| format!("node `{}`: {reason}", node.name))
        })
    }

    fn check_node(&self, node: &NodeFile) -> Result<(), String> {
        if !is_name(&node.name) {
            return Err("its name is not 1 to 16 lower-case letters, digits or hyphens".into());
        }
        if node.nics.is_empty() || node.nics.len() > 8 {
            return Err(format!("it has {} NICs; 1 to 8 are possible", node.nics.len()));
        }
        for name in node
            .nics
            .iter()
            .flat_map(|nic| std::iter::once(&nic.vlan).chain(&nic.trunk))
        {
            if !self.vlans.contains_key(name) {
                return Err(format!("there is no VLAN called `{name}`"));
            }
        }
        switching::check(node)?;
        hardware::check(node)?;
        if node.disks.iter().filter(|disk| disk.bus == DiskBus::Sata).count() > 5 {
            return Err("more than five SATA disks".into());
        }
        if node.memory_mib < 256 {
            return Err(format!(
                "{} MiB of memory is less than firmware and inspection need (256)",
                node.memory_mib
            ));
        }
        Ok(())
    }
}

fn copies(node: &NodeFile) -> Vec<NodeFile> {
    if node.count == 1 {
        return vec![node.clone()];
    }
    (1..=node.count)
        .map(|number| NodeFile {
            name: format!("{}{number}", node.name),
            ..node.clone()
        })
        .collect()
}

fn is_name(name: &str) -> bool {
    (1..=16).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = "name = \"t\"\ndescription = \"\"\n[[node]]\nname = \"n\"\nfirmware = \"uefi-pxe\"\n";

    fn refusal(text: &str) -> String {
        RackFile::parse(text, "t.toml").map(|_| ()).unwrap_err().to_string()
    }

    #[test]
    fn a_short_file_is_filled_up() {
        let file = RackFile::parse(&format!("{SMALL}count = 3\n"), "t.toml").unwrap();
        let names: Vec<_> = file.nodes.iter().map(|node| node.name.as_str()).collect();
        assert_eq!(names, ["n1", "n2", "n3"]);
        assert_eq!((file.vlan("rack"), file.vlan("bmc")), (10, 20));
        assert_eq!(file.nodes[0].nics[0].vlan, "rack");
    }

    #[test]
    fn refusals_say_where() {
        let unknown = refusal(&format!("{SMALL}ram = 3\n"));
        assert!(
            unknown.contains("t.toml") && unknown.contains("line 6") && unknown.contains("`ram`"),
            "{unknown}"
        );
        let vlan = refusal(&format!("{SMALL}nics = [{{ vlan = \"dmz\" }}]\n"));
        assert!(vlan.contains("node `n`") && vlan.contains("`dmz`"), "{vlan}");
        let twice = refusal(&format!("{SMALL}[[node]]\nname = \"n\"\nfirmware = \"uefi-http\"\n"));
        assert!(twice.contains("two nodes are called `n`"), "{twice}");
        let nics = |first: &str| {
            format!("{SMALL}nics = [{{ vlan = \"rack\", lag = \"a\"{first} }}, {{ vlan = \"rack\", lag = \"a\" }}]\n")
        };
        assert!(RackFile::parse(&nics(", stp = \"edge\""), "t.toml").is_ok());
        let stp = refusal(&nics(", stp = \"stp\""));
        assert!(stp.contains("node `n`") && stp.contains("edge"), "{stp}");
        let unequal = refusal(&nics(", trunk = [\"bmc\"]"));
        assert!(unequal.contains("same VLANs"), "{unequal}");
        let lone = refusal(&format!("{SMALL}lacp_fallback = true\n"));
        assert!(lone.contains("lag"), "{lone}");
        let delay = refusal(&format!("{SMALL}[switch]\nforward_delay_ms = 90000\n"));
        assert!(delay.contains("switch.forward_delay_ms"), "{delay}");
        let bios = refusal(&format!("{SMALL}[appliance]\nfirmware = \"bios\"\n"));
        assert!(bios.contains("medium"), "{bios}");
        let more = refusal(&format!("{SMALL}[appliance]\nkernel_arguments = \"a=1\"\n"));
        assert!(more.contains("medium"), "{more}");
    }
}

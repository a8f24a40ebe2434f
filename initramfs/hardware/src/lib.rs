//! Reading a machine: sysfs, SMBIOS, PCI, disks, LLDP, the BMC over KCS; and loading the drivers its devices ask for.
//!
//! Readers take a [`Root`] so that tests run them on fixture trees. Everything is optional: a broken table costs its
//! own fields and nothing else. Readers change nothing; what changes a device ([`block`], [`gpt`], [`rtc`], `bmc::configure`) is
//! called by those who were told to.

pub mod block;
pub mod bmc;
pub mod cmdline;
pub mod disks;
mod ethtool;
#[doc(hidden)]
pub mod fuzzing;
pub mod gpt;
mod health;
pub mod lldp;
pub mod machine;
pub mod modules;
pub mod neighbours;
pub mod nics;
pub mod passthrough;
mod root;
pub mod rtc;
pub mod running;
pub mod smbios;
#[cfg(test)]
mod testing;
pub mod tpm;
pub mod uevent;

use std::path::Path;

use rackbar_model::{BootInfo, FirmwareInfo, FirmwareMode, Inventory, MacAddr, MemoryInfo};

pub use root::Root;

/// Reads the whole machine. `boot_mac` is the interface the firmware booted from. Neighbours and addresses of the
/// interfaces are for the caller to add.
pub fn inventory(root: &Root, boot_mac: Option<MacAddr>) -> Inventory {
    let tables = smbios::read(root);
    let mode = machine::firmware_mode(root);
    let mut nics = nics::read(root);
    for nic in &mut nics {
        nic.boot = boot_mac == Some(nic.mac);
    }
    Inventory {
        firmware: FirmwareInfo {
            mode: Some(mode),
            secure_boot: (mode == FirmwareMode::Uefi)
                .then(|| machine::secure_boot(root))
                .flatten(),
            ..tables.firmware
        },
        system: tables.system,
        board: tables.board,
        chassis: tables.chassis,
        cpu: machine::cpu(root),
        memory: MemoryInfo {
            total_bytes: machine::memory_bytes(root),
            modules: tables.modules,
        },
        pci: machine::pci(root),
        nics,
        disks: disks::read(root),
        tpm: machine::tpm(root),
        bmc: bmc::read(root),
        boot: BootInfo {
            mac: boot_mac,
            kernel: root.text("proc/sys/kernel/osrelease"),
            missing_drivers: modules::missing_drivers(root),
        },
    }
}

/// The PCI address of the nearest PCI function above a device, such as the one behind a virtio device.
fn pci_of(root: &Root, device: impl AsRef<Path>) -> Option<String> {
    let path = root.resolve(device)?;
    let mut parts = path.iter().filter_map(|part| part.to_str());
    parts.rfind(|part| is_pci_address(part)).map(str::to_owned)
}

/// `0000:03:00.0`; large servers have domains of five digits.
fn is_pci_address(text: &str) -> bool {
    let fields: Vec<&str> = text.split([':', '.']).collect();
    let hex = |field: &str| field.bytes().all(|b| b.is_ascii_hexdigit());
    matches!(fields.as_slice(), [domain, bus, device, function]
        if domain.len() >= 4 && bus.len() == 2 && device.len() == 2 && function.len() == 1)
        && fields.iter().all(|field| hex(field))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Tree;

    #[test]
    fn an_empty_tree_gives_an_inventory() {
        let tree = Tree::new(&[]);
        let found = inventory(tree.root(), Some(MacAddr([2, 0, 0, 0, 0, 1])));
        assert_eq!(found.firmware.mode, Some(FirmwareMode::Bios));
        assert!(found.disks.is_empty() && found.nics.is_empty() && found.bmc.is_none());
        assert!(found.boot.mac.is_some());
    }

    #[test]
    fn pci_addresses_are_told_from_scsi_ones() {
        assert!(is_pci_address("0000:3b:00.1") && is_pci_address("10000:e1:00.0"));
        assert!(!is_pci_address("0:0:0:0") && !is_pci_address("pci0000:00") && !is_pci_address("target2:0:0"));
    }
}

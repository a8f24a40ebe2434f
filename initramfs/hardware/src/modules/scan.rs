//! The devices that are present now, as modaliases.

use std::collections::BTreeSet;

use crate::Root;

/// The modaliases of all present devices, in two groups.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Wanted {
    /// Network devices in the order of their bus addresses. Loaded one after the other: the kernel numbers interfaces
    /// in the order it meets them, and `eth0` should be the same port at every boot of the same machine.
    pub ordered: Vec<String>,
    /// All others; any order, any number at a time.
    pub others: Vec<String>,
}

/// Collects the modaliases of all devices without a driver, and of the firmware tables and processor.
pub fn present(root: &Root) -> Wanted {
    let mut others = BTreeSet::new();
    let mut wanted = Wanted::default();
    for bus in root.names("sys/bus") {
        for device in root.names(format!("sys/bus/{bus}/devices")) {
            let folder = format!("sys/bus/{bus}/devices/{device}");
            if root.exists(format!("{folder}/driver")) {
                continue;
            }
            let Some(alias) = root.text(format!("{folder}/modalias")) else {
                continue;
            };
            if is_network(&alias) {
                if !wanted.ordered.contains(&alias) {
                    wanted.ordered.push(alias);
                }
            } else {
                others.insert(alias);
            }
        }
    }
    for file in ["sys/class/dmi/id/modalias", "sys/devices/system/cpu/modalias"] {
        others.extend(root.text(file));
    }
    wanted.others = others.into_iter().collect();
    wanted
}

/// PCI class 02 (network controller) and virtio device 1 (network card).
fn is_network(alias: &str) -> bool {
    (alias.starts_with("pci:") && alias.contains("bc02sc")) || alias.starts_with("virtio:d00000001")
}

/// PCI classes whose devices are useless without a driver and matter to an operator: mass storage, network,
/// Fibre Channel and InfiniBand. Bridges and management devices without a driver are normal and would only be noise.
fn matters(class: u32) -> bool {
    matches!(class >> 16, 0x01 | 0x02) || matches!(class >> 8, 0x0c04 | 0x0c06)
}

/// The modaliases of storage and network devices that no driver has claimed.
pub fn missing_drivers(root: &Root) -> Vec<String> {
    let mut missing = Vec::new();
    for device in root.names("sys/bus/pci/devices") {
        let folder = format!("sys/bus/pci/devices/{device}");
        if root.hex(format!("{folder}/class")).is_some_and(matters) && !root.exists(format!("{folder}/driver")) {
            missing.extend(root.text(format!("{folder}/modalias")));
        }
    }
    // virtio devices sit behind a PCI function that has a driver; 1 is network, 2 block, 8 SCSI host (virtio 1.2, 5).
    for device in root.names("sys/bus/virtio/devices") {
        let folder = format!("sys/bus/virtio/devices/{device}");
        let kind = root.hex(format!("{folder}/device"));
        if matches!(kind, Some(1 | 2 | 8)) && !root.exists(format!("{folder}/driver")) {
            missing.extend(root.text(format!("{folder}/modalias")));
        }
    }
    missing
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Tree;

    #[test]
    fn network_devices_keep_their_order_and_claimed_devices_are_left_alone() {
        let tree = Tree::new(&[
            ("sys/bus/pci/devices/0000:00:02.0/modalias", "pci:v2bc03sc00i00\n"),
            ("sys/bus/pci/devices/0000:00:03.0/modalias", "pci:v9bc02sc00i00\n"),
            ("sys/bus/pci/devices/0000:00:04.0/modalias", "pci:v1bc02sc00i00\n"),
            ("sys/bus/pci/devices/0000:00:05.0/modalias", "pci:v1bc01sc06i01\n"),
            ("sys/bus/pci/devices/0000:00:05.0/driver/x", ""),
            ("sys/class/dmi/id/modalias", "dmi:bvnX\n"),
        ]);
        let wanted = present(tree.root());
        assert_eq!(wanted.ordered, ["pci:v9bc02sc00i00", "pci:v1bc02sc00i00"]);
        assert_eq!(wanted.others, ["dmi:bvnX", "pci:v2bc03sc00i00"]);
    }

    #[test]
    fn only_storage_and_network_without_a_driver_are_missing() {
        let tree = Tree::new(&[
            ("sys/bus/pci/devices/0000:00:00.0/class", "0x060000\n"),
            ("sys/bus/pci/devices/0000:00:00.0/modalias", "pci:bridge\n"),
            ("sys/bus/pci/devices/0000:00:03.0/class", "0x020000\n"),
            ("sys/bus/pci/devices/0000:00:03.0/modalias", "pci:nic\n"),
            ("sys/bus/pci/devices/0000:00:04.0/class", "0x010802\n"),
            ("sys/bus/pci/devices/0000:00:04.0/modalias", "pci:nvme\n"),
            ("sys/bus/pci/devices/0000:00:04.0/driver/x", ""),
        ]);
        assert_eq!(missing_drivers(tree.root()), ["pci:nic"]);
    }
}

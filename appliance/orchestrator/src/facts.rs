//! What an inventory says beside the one before: names for PCI functions, and the differences in words.

use std::collections::BTreeMap;

use pci_ids::FromId as _;
use rackbar_model::{Disk, Inventory, MemoryModule, Nic, PciDevice};

/// Lines of difference kept; a machine that changed all over is described by its inventory, not by a list.
const MAX_LINES: usize = 40;

/// Fills in names from the PCI ID list.
pub fn name_pci(inventory: &mut Inventory) {
    for device in &mut inventory.pci {
        let named = pci_ids::Device::from_vid_pid(device.vendor, device.device);
        device.name = match named {
            Some(found) => Some(format!("{} {}", found.vendor().name(), found.name())),
            None => pci_ids::Vendor::from_id(device.vendor)
                .map(|vendor| format!("{} (device {:04x})", vendor.name(), device.device)),
        };
    }
}

/// What is different in `new`, one line each, things before their properties. Readings that always move (temperature,
/// hours, addresses) are not differences of a machine.
pub fn diff(old: &Inventory, new: &Inventory) -> Vec<String> {
    let mut lines = Lines(Vec::new());
    let (a, b) = (old, new);
    lines.text("firmware", &a.firmware.version, &b.firmware.version);
    lines.value("firmware mode", &a.firmware.mode, &b.firmware.mode);
    lines.value("secure boot", &a.firmware.secure_boot, &b.firmware.secure_boot);
    lines.text("manufacturer", &a.system.manufacturer, &b.system.manufacturer);
    lines.text("product", &a.system.product, &b.system.product);
    lines.text("system serial", &a.system.serial, &b.system.serial);
    lines.text("system UUID", &a.system.uuid, &b.system.uuid);
    lines.text("board serial", &a.board.serial, &b.board.serial);
    lines.text("asset tag", &a.chassis.asset_tag, &b.chassis.asset_tag);
    lines.text("processor", &a.cpu.model, &b.cpu.model);
    lines.value("processor sockets", &Some(a.cpu.sockets), &Some(b.cpu.sockets));
    lines.value("processor cores", &Some(a.cpu.cores), &Some(b.cpu.cores));
    lines.text("microcode", &a.cpu.microcode, &b.cpu.microcode);
    // The kernel's total moves by some pages with every kernel; 64 MiB is less than any module.
    if a.memory.total_bytes.abs_diff(b.memory.total_bytes) > 64 << 20 {
        lines.0.push(format!(
            "memory: {} MiB, was {} MiB",
            b.memory.total_bytes >> 20,
            a.memory.total_bytes >> 20
        ));
    }
    lines.keyed(
        "memory module",
        &a.memory.modules,
        &b.memory.modules,
        |one| one.slot.clone(),
        module,
    );
    lines.keyed("network interface", &a.nics, &b.nics, |one| one.mac.to_string(), nic);
    lines.keyed("disk", &a.disks, &b.disks, disk_key, disk);
    lines.keyed("PCI function", &a.pci, &b.pci, |one| one.address.clone(), pci);
    let tpm = |one: &Inventory| one.tpm.as_ref().map(|tpm| format!("version {}", tpm.version));
    lines.text("TPM", &tpm(a), &tpm(b));
    let bmc = |one: &Inventory| one.bmc.as_ref().and_then(|bmc| bmc.mac).map(|mac| mac.to_string());
    lines.text("BMC MAC address", &bmc(a), &bmc(b));
    let firmware = |one: &Inventory| one.bmc.as_ref().and_then(|bmc| bmc.firmware.clone());
    lines.text("BMC firmware", &firmware(a), &firmware(b));
    lines.finish()
}

struct Lines(Vec<String>);

impl Lines {
    fn text(&mut self, what: &str, old: &Option<String>, new: &Option<String>) {
        let say = |value: &Option<String>| value.clone().unwrap_or_else(|| "unknown".into());
        if old != new {
            self.0.push(format!("{what}: {}, was {}", say(new), say(old)));
        }
    }

    fn value<T: PartialEq + std::fmt::Debug>(&mut self, what: &str, old: &Option<T>, new: &Option<T>) {
        let say = |value: &Option<T>| value.as_ref().map(|value| format!("{value:?}").to_lowercase());
        self.text(what, &say(old), &say(new));
    }

    /// Things that come and go, found again by a key, and their description.
    fn keyed<T>(&mut self, what: &str, old: &[T], new: &[T], key: impl Fn(&T) -> String, words: impl Fn(&T) -> String) {
        let describe = |set: &[T]| set.iter().map(|one| (key(one), words(one))).collect::<BTreeMap<_, _>>();
        let (old, new) = (describe(old), describe(new));
        for (key, words) in &old {
            match new.get(key) {
                None => self.0.push(format!("{what} {key} is gone ({words})")),
                Some(now) if now != words => self.0.push(format!("{what} {key}: {now}, was {words}")),
                Some(_) => {}
            }
        }
        for (key, words) in new.iter().filter(|(key, _)| !old.contains_key(*key)) {
            self.0.push(format!("{what} {key} is new ({words})"));
        }
    }

    fn finish(mut self) -> Vec<String> {
        let over = self.0.len().saturating_sub(MAX_LINES);
        if over > 0 {
            self.0.truncate(MAX_LINES);
            self.0.push(format!("and {over} more differences"));
        }
        self.0
    }
}

fn or_unknown(text: &Option<String>) -> &str {
    text.as_deref().unwrap_or("unknown")
}

fn module(one: &MemoryModule) -> String {
    if one.size_bytes == 0 {
        return "empty".into();
    }
    format!(
        "{} MiB, part {}, serial {}",
        one.size_bytes >> 20,
        or_unknown(&one.part),
        or_unknown(&one.serial)
    )
}

fn nic(one: &Nic) -> String {
    let link = match (one.link, one.speed_mbps) {
        (true, Some(speed)) => format!("link at {speed} Mbit/s"),
        (true, None) => "link".into(),
        (false, _) => "no link".into(),
    };
    let port = one.lldp.as_ref().map_or(String::new(), |port| {
        format!(", at {} port {}", port.chassis_id, port.port_id)
    });
    format!(
        "{}, firmware {}, {link}{port}",
        or_unknown(&one.driver),
        or_unknown(&one.firmware)
    )
}

/// A disk's serial follows it to another bay; its kernel name does not.
fn disk_key(one: &Disk) -> String {
    one.serial
        .clone()
        .or_else(|| one.wwn.clone())
        .unwrap_or_else(|| one.name.clone())
}

fn disk(one: &Disk) -> String {
    let health = match &one.health {
        Some(health) if !health.ok => ", FAILING",
        _ => "",
    };
    let gigabytes = one.size_bytes / 1_000_000_000;
    format!(
        "{} {gigabytes} GB, firmware {}{health}",
        or_unknown(&one.model),
        or_unknown(&one.firmware)
    )
}

fn pci(one: &PciDevice) -> String {
    format!("{:04x}:{:04x} {}", one.vendor, one.device, or_unknown(&one.name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rackbar_model::{DiskHealth, MacAddr};

    fn machine() -> Inventory {
        let mut inventory = Inventory::default();
        inventory.disks.push(Disk {
            name: "sda".into(),
            serial: Some("D1".into()),
            size_bytes: 480_000_000_000,
            health: Some(DiskHealth {
                ok: true,
                celsius: Some(30),
                ..DiskHealth::default()
            }),
            ..Disk::default()
        });
        inventory.nics.push(Nic {
            name: "eth0".into(),
            mac: MacAddr([0x52, 0x54, 0, 0, 0, 1]),
            ..Nic::default()
        });
        inventory
    }

    #[test]
    fn what_always_moves_is_no_difference() {
        let old = machine();
        let mut new = machine();
        new.disks[0].name = "sdb".into();
        new.disks[0].health = Some(DiskHealth {
            ok: true,
            celsius: Some(45),
            ..DiskHealth::default()
        });
        new.nics[0].addresses.push([10, 0, 0, 1].into());
        assert_eq!(diff(&old, &new), Vec::<String>::new());
    }

    #[test]
    fn what_a_person_wants_to_know_is_one_line_each() {
        let old = machine();
        let mut new = machine();
        new.disks[0].serial = Some("D2".into());
        new.nics[0].link = true;
        new.firmware.version = Some("2.0".into());
        let lines = diff(&old, &new);
        assert_eq!(lines.len(), 4, "{lines:?}");
        assert_eq!(lines[0], "firmware: 2.0, was unknown");
        assert!(
            lines[1].starts_with("network interface 52:54:00:00:00:01: "),
            "{lines:?}"
        );
        assert!(lines[2].starts_with("disk D1 is gone"), "{lines:?}");
        assert!(lines[3].starts_with("disk D2 is new"), "{lines:?}");
    }

    #[test]
    fn known_pci_functions_get_names() {
        let pci = vec![
            PciDevice {
                vendor: 0x8086,
                device: 0x10fb,
                ..PciDevice::default()
            },
            PciDevice {
                vendor: 0x8086,
                device: 0xfffe,
                ..PciDevice::default()
            },
            PciDevice {
                vendor: 0xabce,
                device: 0x0001,
                ..PciDevice::default()
            },
        ];
        let mut inventory = Inventory {
            pci,
            ..Inventory::default()
        };
        name_pci(&mut inventory);
        assert!(
            inventory.pci[0].name.as_deref().unwrap().contains("82599"),
            "{:?}",
            inventory.pci[0].name
        );
        assert_eq!(
            inventory.pci[1].name.as_deref(),
            Some("Intel Corporation (device fffe)")
        );
        assert_eq!(inventory.pci[2].name, None);
    }
}

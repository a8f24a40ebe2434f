//! What an expression sees of a node. Values are made when they are asked for: most rules look at two or three.

use std::sync::Arc;

use minijinja::value::{Enumerator, Object, ObjectRepr, Serde, Value};
use rackbar_model::{Disk, DiskBus, Inventory, Nic, Node};
use serde::Serialize;

/// The names an expression may use, and what they are.
pub(super) const NAMES: &[(&str, &str)] = &[
    ("arch", "architecture, such as `x86_64`"),
    (
        "bmc",
        "its BMC as seen in-band: `address`, `mac`, `firmware`, ..., or none",
    ),
    ("bmc_mac", "MAC address of the BMC, or none"),
    ("board", "SMBIOS board: `manufacturer`, `product`, `serial`"),
    ("boot", "how it booted: `mac`, `kernel`, `missing_drivers`"),
    ("chassis", "SMBIOS chassis: `manufacturer`, `serial`, `asset_tag`"),
    ("cores", "processor cores of all sockets"),
    (
        "cpu",
        "processors: `model`, `sockets`, `cores`, `threads`, `max_mhz`, `flags`, ...",
    ),
    (
        "disks",
        "its disks: `size_gib`, `model`, `serial`, `bus`, `rotational`, `removable`, ...",
    ),
    (
        "firmware",
        "`vendor`, `version`, `date`, `mode` (`bios` or `uefi`), `secure_boot`",
    ),
    ("id", "Rackbar's own identity of the node"),
    (
        "lldp",
        "switch port of the boot NIC: `system_name`, `port_id`, `chassis_id`, `vlan`, ..., or none",
    ),
    ("mac", "MAC address of the NIC it booted from"),
    ("macs", "all MAC addresses known to be its own"),
    ("manufacturer", "manufacturer of the system"),
    ("memory", "memory: `total_bytes`, `modules`"),
    (
        "memory_gib",
        "memory in GiB, rounded to the nearest: modules as fitted where the firmware tells them",
    ),
    ("name", "the node's name"),
    (
        "nics",
        "its NICs: `mac`, `driver`, `speed_mbps`, `link`, `boot`, `pci`, `lldp`, ...",
    ),
    ("number", "the number at the end of the node's name, or none"),
    (
        "pci",
        "its PCI devices: `vendor`, `device`, `class`, `driver`, `address`, `name`",
    ),
    ("product", "product name of the system"),
    ("serial", "serial number of the system"),
    (
        "system",
        "SMBIOS system: `manufacturer`, `product`, `serial`, `uuid`, `sku`",
    ),
    ("tpm", "its TPM: `version`, ..., or none"),
];

const GIB: u64 = 1 << 30;

/// A node, to expressions.
#[derive(Debug)]
pub(super) struct Context(pub(super) Arc<Node>);

impl Object for Context {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Map
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let node = &self.0;
        let key = key.as_str()?;
        match key {
            "id" => return Some(Value::from(node.id.to_string())),
            "name" => return Some(Value::from(node.name.as_str())),
            "number" => return Some(number(&node.name).map_or(Value::from(()), Value::from)),
            "macs" => return Some(node.macs.iter().map(|mac| Value::from(mac.to_string())).collect()),
            "disks" if node.inventory.is_some() => return Some(disks(node)),
            _ => {}
        }
        NAMES.iter().any(|(name, _)| *name == key).then_some(())?;
        Some(
            node.inventory
                .as_ref()
                .map_or(Value::from(()), |inventory| of_inventory(inventory, key)),
        )
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(NAMES.iter().map(|(name, _)| Value::from(*name)).collect())
    }
}

fn of<T: Serialize>(value: T) -> Value {
    Value::from(Serde(value))
}

fn of_inventory(inventory: &Inventory, key: &str) -> Value {
    match key {
        "arch" => text(&inventory.cpu.arch),
        "bmc" => of(&inventory.bmc),
        "bmc_mac" => of(inventory.bmc.as_ref().and_then(|bmc| bmc.mac)),
        "board" => of(&inventory.board),
        "boot" => of(&inventory.boot),
        "chassis" => of(&inventory.chassis),
        "cores" => Value::from(inventory.cpu.cores),
        "cpu" => of(&inventory.cpu),
        "firmware" => of(&inventory.firmware),
        "lldp" => of(boot_nic(inventory).and_then(|nic| nic.lldp.as_ref())),
        "mac" => of(boot_nic(inventory).map(|nic| nic.mac).or(inventory.boot.mac)),
        "manufacturer" => text(&inventory.system.manufacturer),
        "memory" => of(&inventory.memory),
        "memory_gib" => Value::from(memory_gib(inventory)),
        "nics" => inventory.nics.iter().map(nic).collect(),
        "pci" => of(&inventory.pci),
        "product" => text(&inventory.system.product),
        "serial" => text(&inventory.system.serial),
        "system" => of(&inventory.system),
        "tpm" => of(&inventory.tpm),
        _ => Value::UNDEFINED,
    }
}

/// One disk of a node, to expressions. Rules walk the disks of every node, mostly for one field.
#[derive(Debug)]
struct DiskView {
    node: Arc<Node>,
    index: usize,
}

const DISK_FIELDS: &[&str] = &[
    "name",
    "size_gib",
    "size_bytes",
    "model",
    "serial",
    "wwn",
    "firmware",
    "rotational",
    "bus",
    "usb",
    "pci",
    "by_path",
    "sector_bytes",
    "removable",
    "health",
];

impl Object for DiskView {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Map
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let disk: &Disk = self.node.inventory.as_ref()?.disks.get(self.index)?;
        Some(match key.as_str()? {
            "name" => Value::from(disk.name.as_str()),
            "size_gib" => Value::from(disk.size_bytes / GIB),
            "size_bytes" => Value::from(disk.size_bytes),
            "model" => text(&disk.model),
            "serial" => text(&disk.serial),
            "wwn" => text(&disk.wwn),
            "firmware" => text(&disk.firmware),
            "rotational" => Value::from(disk.rotational),
            "bus" => of(disk.bus),
            "usb" => Value::from(disk.bus == DiskBus::Usb),
            "pci" => text(&disk.pci),
            "by_path" => text(&disk.by_path),
            "sector_bytes" => Value::from(disk.sector_bytes),
            "removable" => Value::from(disk.removable),
            "health" => of(&disk.health),
            _ => return None,
        })
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Str(DISK_FIELDS)
    }
}

fn text(text: &Option<String>) -> Value {
    text.as_deref().map_or(Value::from(()), Value::from)
}

fn disks(node: &Arc<Node>) -> Value {
    let count = node.inventory.as_ref().map_or(0, |inventory| inventory.disks.len());
    (0..count)
        .map(|index| {
            Value::from_object(DiskView {
                node: Arc::clone(node),
                index,
            })
        })
        .collect()
}

/// A NIC, to expressions.
pub(super) fn nic(nic: &Nic) -> Value {
    of(nic)
}

/// The NIC the machine booted from.
pub(crate) fn boot_nic(inventory: &Inventory) -> Option<&Nic> {
    let by_mac = || inventory.nics.iter().find(|nic| Some(nic.mac) == inventory.boot.mac);
    inventory.nics.iter().find(|nic| nic.boot).or_else(by_mac)
}

/// Memory in GiB: the modules' sizes, because what the kernel can use is some hundred MiB less than what was bought.
pub(crate) fn memory_gib(inventory: &Inventory) -> u64 {
    let fitted = inventory
        .memory
        .modules
        .iter()
        .fold(0u64, |sum, module| sum.saturating_add(module.size_bytes));
    fitted.max(inventory.memory.total_bytes).saturating_add(GIB / 2) / GIB
}

/// `7` of `node-007`.
fn number(name: &str) -> Option<u64> {
    let digits = name.bytes().rev().take_while(u8::is_ascii_digit).count();
    name.get(name.len() - digits..)?.parse().ok()
}

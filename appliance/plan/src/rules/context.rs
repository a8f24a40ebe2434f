//! What an expression sees of a node. Values are made when they are asked for: most rules look at two or three.

use std::sync::Arc;

use minijinja::value::{Enumerator, Object, ObjectRepr, Serde, Value, ValueKind};
use rackbar_model::{BmcInfo, Disk, DiskBus, Inventory, LldpNeighbour, Nic, Node, TpmInfo};
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

/// The first part of `path` (`cpu.threads`, `nic.speed_mbps`) that a machine which has everything does not have, and what there is
/// in its place. `None` where nothing is known to be wrong, as behind lists and plain values.
pub(super) fn unknown_field(path: &str) -> Option<(String, Vec<String>)> {
    let port = Nic {
        boot: true,
        lldp: Some(LldpNeighbour::default()),
        ..Nic::default()
    };
    let mut parts = path.split('.');
    let mut value = match parts.next()? {
        "nic" => nic(&port),
        name => {
            let whole = Inventory {
                bmc: Some(BmcInfo::default()),
                tpm: Some(TpmInfo::default()),
                nics: vec![port],
                ..Inventory::default()
            };
            of_inventory(&whole, name)
        }
    };
    for part in parts {
        if value.kind() != ValueKind::Map {
            return None;
        }
        let names = value.try_iter().ok()?;
        let names: Vec<String> = names.filter_map(|name| name.as_str().map(str::to_owned)).collect();
        if !names.iter().any(|name| name == part) {
            return Some((part.to_owned(), names));
        }
        value = value.get_attr(part).ok()?;
    }
    None
}

#[cfg(test)]
mod tests {
    use crate::rules::{check_expression, check_nic, check_template};

    #[test]
    fn a_misspelt_field_is_told_with_the_one_that_was_meant() {
        let told = |refused: Result<(), crate::site::formats::Refusal>| {
            let refused = refused.unwrap_err();
            (refused.message, refused.suggestion.unwrap_or_default())
        };
        let (message, suggestion) = told(check_expression("memory_gib > 8 and cpu.thread > 4"));
        assert_eq!(message, "`cpu.thread` is not there: `cpu` has no field `thread`");
        assert!(suggestion.contains("`threads`"), "{suggestion}");
        let (message, suggestion) = told(check_expression("lldp and lldp.zzz == 'leaf'"));
        assert!(
            message.contains("`lldp.zzz`") && suggestion.contains("system_name"),
            "{message}: {suggestion}"
        );
        assert!(
            told(check_template("srv-{{ board.serail }}"))
                .0
                .contains("`board.serail`")
        );
        assert!(told(check_nic("nic.speed >= 25000")).0.contains("`nic.speed`"));
    }

    #[test]
    fn every_field_that_there_is_may_be_named() {
        for text in [
            "cpu.threads > 4 and 'avx2' in cpu.flags",
            "bmc and bmc.firmware == '2.1'",
            "tpm and tpm.version",
            "firmware.mode == 'uefi' and firmware.secure_boot",
            "lldp and lldp.system_name == 'leaf7a'",
            "disks[0].anything is undefined or disks | selectattr('usb') | list",
            "memory.modules | length > 0 and system.manufacturer == chassis.manufacturer",
            "boot.mac == mac and name == 'x' and serial",
        ] {
            assert!(check_expression(text).is_ok(), "{text}");
        }
        assert!(check_nic("nic.lldp.system_name == 'leaf' and nic.speed_mbps > 1").is_ok());
    }
}

//! A machine's inventory in the shapes that Facter 4 (core facts) and Ohai give theirs, for tools that read those.
//!
//! Only what an agent saw is there: facts of an installed system, such as its release, are for the tools themselves.

use rackbar_model::{Disk, Inventory, Nic, Node};
use serde_json::{Map, Value, json};

/// The inventory as Facter would print it with `--json`. Empty for a machine that was never looked at.
pub fn facter(node: &Node, fqdn: &str) -> Value {
    let Some(inventory) = &node.inventory else {
        return json!({});
    };
    let (cpu, system, board) = (&inventory.cpu, &inventory.system, &inventory.board);
    let models = vec![cpu.model.clone().unwrap_or_default(); usize::from(cpu.threads)];
    let disks = inventory
        .disks
        .iter()
        .map(|disk| (disk.name.clone(), facter_disk(disk)));
    let interfaces = inventory.nics.iter().map(|nic| (nic.name.clone(), facter_nic(nic)));
    let (hostname, domain) = fqdn.split_once('.').unwrap_or((fqdn, ""));
    let boot = boot_nic(inventory);
    clean(json!({
        "dmi": {
            "manufacturer": system.manufacturer,
            "product": { "name": system.product, "serial_number": system.serial, "uuid": system.uuid },
            "board": { "manufacturer": board.manufacturer, "product": board.product, "serial_number": board.serial },
            "chassis": { "asset_tag": inventory.chassis.asset_tag },
            "bios": {
                "vendor": inventory.firmware.vendor, "version": inventory.firmware.version,
                "release_date": inventory.firmware.date,
            },
        },
        "processors": {
            "count": cpu.threads, "physicalcount": cpu.sockets, "isa": cpu.arch, "models": models,
            "cores": cpu.cores.checked_div(cpu.sockets), "threads": cpu.threads.checked_div(cpu.cores),
        },
        "memory": {
            "system": {
                "total_bytes": inventory.memory.total_bytes, "total": human(inventory.memory.total_bytes),
            },
        },
        "disks": disks.collect::<Map<_, _>>(),
        "networking": {
            "hostname": hostname, "domain": (!domain.is_empty()).then_some(domain), "fqdn": fqdn,
            "ip": node.address.filter(std::net::IpAddr::is_ipv4),
            "ip6": node.address.filter(std::net::IpAddr::is_ipv6),
            "mac": boot.map(|nic| nic.mac.to_string()), "primary": boot.map(|nic| nic.name.clone()),
            "interfaces": interfaces.collect::<Map<_, _>>(),
        },
    }))
}

fn facter_disk(disk: &Disk) -> Value {
    json!({
        "size_bytes": disk.size_bytes, "size": human(disk.size_bytes), "model": disk.model,
        "serial_number": disk.serial, "wwn": disk.wwn, "type": if disk.rotational { "hdd" } else { "ssd" },
    })
}

fn facter_nic(nic: &Nic) -> Value {
    json!({
        "mac": nic.mac.to_string(),
        "ip": nic.addresses.iter().find(|one| one.is_ipv4()), "ip6": nic.addresses.iter().find(|one| one.is_ipv6()),
    })
}

/// The inventory as Ohai would print it. Empty for a machine that was never looked at.
pub fn ohai(node: &Node, fqdn: &str) -> Value {
    let Some(inventory) = &node.inventory else {
        return json!({});
    };
    let (cpu, system, board) = (&inventory.cpu, &inventory.system, &inventory.board);
    let mut processors = Map::new();
    for number in 0..cpu.threads {
        let mhz = cpu.max_mhz.map(|mhz| mhz.to_string());
        let one = json!({ "model_name": cpu.model, "mhz": mhz, "flags": cpu.flags });
        processors.insert(number.to_string(), one);
    }
    processors.insert("total".into(), json!(cpu.threads));
    processors.insert("real".into(), json!(cpu.sockets));
    processors.insert("cores".into(), json!(cpu.cores));
    let disks = inventory.disks.iter().map(|disk| (disk.name.clone(), ohai_disk(disk)));
    let interfaces = inventory.nics.iter().map(|nic| (nic.name.clone(), ohai_nic(nic)));
    let (hostname, domain) = fqdn.split_once('.').unwrap_or((fqdn, ""));
    clean(json!({
        "hostname": hostname, "domain": (!domain.is_empty()).then_some(domain), "fqdn": fqdn,
        "ipaddress": node.address.filter(std::net::IpAddr::is_ipv4),
        "macaddress": boot_nic(inventory).map(|nic| nic.mac.to_string().to_uppercase()),
        "dmi": {
            "system": {
                "manufacturer": system.manufacturer, "product_name": system.product,
                "serial_number": system.serial, "uuid": system.uuid, "sku_number": system.sku,
            },
            "base_board": {
                "manufacturer": board.manufacturer, "product_name": board.product, "serial_number": board.serial,
            },
            "chassis": {
                "manufacturer": inventory.chassis.manufacturer, "serial_number": inventory.chassis.serial,
                "asset_tag": inventory.chassis.asset_tag,
            },
            "bios": {
                "vendor": inventory.firmware.vendor, "version": inventory.firmware.version,
                "release_date": inventory.firmware.date,
            },
        },
        "cpu": processors,
        "memory": { "total": format!("{}kB", inventory.memory.total_bytes / 1024) },
        "block_device": disks.collect::<Map<_, _>>(),
        "network": { "interfaces": interfaces.collect::<Map<_, _>>() },
    }))
}

/// Sizes are in sectors of 512 bytes and numbers are text, as in the kernel's files that Ohai reads.
fn ohai_disk(disk: &Disk) -> Value {
    let flag = |flag: bool| if flag { "1" } else { "0" };
    json!({
        "size": (disk.size_bytes / 512).to_string(), "removable": flag(disk.removable),
        "rotational": flag(disk.rotational), "model": disk.model, "firmware_rev": disk.firmware,
        "logical_block_size": disk.sector_bytes.to_string(),
    })
}

fn ohai_nic(nic: &Nic) -> Value {
    let mut addresses = Map::new();
    addresses.insert(nic.mac.to_string().to_uppercase(), json!({ "family": "lladdr" }));
    for address in &nic.addresses {
        let family = if address.is_ipv4() { "inet" } else { "inet6" };
        addresses.insert(address.to_string(), json!({ "family": family }));
    }
    json!({
        "encapsulation": "Ethernet", "addresses": addresses, "link_speed": nic.speed_mbps,
        "state": if nic.link { "up" } else { "down" }, "driver": nic.driver,
    })
}

fn boot_nic(inventory: &Inventory) -> Option<&Nic> {
    inventory.nics.iter().find(|nic| nic.boot).or(inventory.nics.first())
}

/// A size as Facter writes it: two decimals and a binary unit.
fn human(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["bytes", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    let mut scale = 1u64;
    while unit + 1 < UNITS.len() && bytes / scale >= 1024 {
        scale = scale.saturating_mul(1024);
        unit += 1;
    }
    let name = UNITS.get(unit).copied().unwrap_or_default();
    if unit == 0 {
        return format!("{bytes} {name}");
    }
    let hundredths = u128::from(bytes) * 100 / u128::from(scale);
    format!("{}.{:02} {name}", hundredths / 100, hundredths % 100)
}

/// Without what is not known: the tools leave such facts out too.
fn clean(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let known = map.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(known.map(|(key, value)| (key, clean(value))).collect())
        }
        other => other,
    }
}

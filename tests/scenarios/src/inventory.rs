//! What an inventory has to hold, measured at the machine it was taken of: the virtual rack knows what is in it.

use anyhow::{Context, Result, ensure};
use rackbar_model::{DiskBus, FirmwareMode, Inventory, Nic};
use rackbar_vrack::machine::{self, MachineConfig, NicModel};
use rackbar_vrack::rack;

/// What firmware and kernel may keep of a machine's memory for themselves.
const KEPT: u64 = 192 << 20;

/// Checks that an inventory is that of a machine of the rack, and that nothing is left out that the machine has.
///
/// # Errors
/// Names what is missing or wrong, and shows it.
pub fn complete(inventory: &Inventory, node: &rack::Node) -> Result<()> {
    let config = node.machine.config();
    identity(inventory, config)?;
    processor_and_memory(inventory, config)?;
    functions(inventory)?;
    for (at, nic) in config.nics.iter().enumerate() {
        let found = inventory.nics.iter().find(|found| found.mac == nic.mac);
        let found = found.with_context(|| format!("no NIC {} among {:?}", nic.mac, inventory.nics))?;
        interface(found, at, nic.model).with_context(|| format!("NIC {}", nic.mac))?;
    }
    ensure!(inventory.nics.len() == config.nics.len(), "NICs {:?}", inventory.nics);
    for disk in &config.disks {
        one_disk(inventory, disk).with_context(|| format!("disk {}", disk.serial))?;
    }
    ensure!(
        inventory.disks.len() == config.disks.len(),
        "disks {:?}",
        inventory.disks
    );
    boot(inventory, config)?;
    management(inventory, node)
}

fn identity(inventory: &Inventory, config: &MachineConfig) -> Result<()> {
    let (system, id) = (&inventory.system, &config.identity);
    ensure!(system.serial.as_ref() == Some(&id.serial), "{system:?}");
    ensure!(system.product.as_ref() == Some(&id.product), "{system:?}");
    ensure!(system.manufacturer.as_ref() == Some(&id.manufacturer), "{system:?}");
    ensure!(system.uuid.as_ref() == Some(&id.uuid), "{system:?}");
    ensure!(
        inventory.board.serial.as_ref() == Some(&id.board_serial),
        "{:?}",
        inventory.board
    );
    ensure!(
        inventory.chassis.asset_tag.as_ref() == Some(&id.asset_tag),
        "{:?}",
        inventory.chassis
    );
    let firmware = &inventory.firmware;
    let uefi = config.firmware.is_uefi();
    let mode = if uefi { FirmwareMode::Uefi } else { FirmwareMode::Bios };
    ensure!(firmware.mode == Some(mode), "{firmware:?}");
    ensure!(firmware.version.as_ref() == Some(&id.firmware_version), "{firmware:?}");
    // Debian's OVMF without keys: off, and not unknown.
    ensure!(firmware.secure_boot == uefi.then_some(false), "{firmware:?}");
    Ok(())
}

fn processor_and_memory(inventory: &Inventory, config: &MachineConfig) -> Result<()> {
    let cpu = &inventory.cpu;
    let are = &config.processors;
    let (cores, threads) = (are.sockets * are.cores, are.logical());
    ensure!(
        [cpu.sockets, cpu.cores, cpu.threads].map(u32::from) == [are.sockets, cores, threads],
        "{cpu:?} of {are:?}"
    );
    ensure!(cpu.model.is_some() && cpu.arch.as_deref() == Some("x86_64"), "{cpu:?}");
    ensure!(cpu.flags.iter().any(|flag| flag == "aes"), "{cpu:?}");
    let memory = &inventory.memory;
    let whole = u64::from(config.memory_mib) << 20;
    ensure!(
        memory.total_bytes <= whole && memory.total_bytes >= whole - KEPT,
        "{} of {whole} bytes",
        memory.total_bytes
    );
    let modules: u64 = memory.modules.iter().map(|module| module.size_bytes).sum();
    ensure!(modules == whole, "modules {:?}", memory.modules);
    for module in &memory.modules {
        // QEMU's are of the type that the standard calls RAM, and nothing more exact.
        ensure!(
            !module.slot.is_empty() && module.kind.as_deref() == Some("RAM"),
            "{module:?}"
        );
        if let Some(printed) = &config.modules {
            ensure!(
                module.manufacturer.as_ref() == Some(&printed.manufacturer)
                    && module.part.as_ref() == Some(&printed.part)
                    && module.serial.as_ref() == Some(&printed.serial)
                    && module.speed_mts == Some(u32::from(printed.speed_mts)),
                "{module:?} and not {printed:?}"
            );
        }
    }
    Ok(())
}

fn functions(inventory: &Inventory) -> Result<()> {
    let nameless = inventory.pci.iter().find(|function| function.name.is_none());
    ensure!(nameless.is_none(), "no name: {nameless:?}");
    // A host bridge, a bus for what is slow, and what the machine is for.
    ensure!(inventory.pci.len() >= 4, "{:?}", inventory.pci);
    let missing = &inventory.boot.missing_drivers;
    ensure!(missing.is_empty(), "drivers that the image lacks: {missing:?}");
    Ok(())
}

fn interface(nic: &Nic, at: usize, model: NicModel) -> Result<()> {
    let (driver, speed) = match model {
        NicModel::Virtio => ("virtio_net", 10_000),
        NicModel::E1000e => ("e1000e", 1_000),
    };
    ensure!(nic.driver.as_deref() == Some(driver), "{nic:?}");
    ensure!(nic.link && nic.speed_mbps == Some(speed), "{nic:?}");
    // The Intel card tells the version of its firmware, virtio has none.
    ensure!(nic.firmware.is_some() == (model == NicModel::E1000e), "{nic:?}");
    ensure!(nic.pci.is_some() && nic.max_mtu.is_some(), "{nic:?}");
    let neighbour = nic.lldp.as_ref().context("no switch port")?;
    ensure!(
        neighbour.port_id.starts_with(&format!("Ethernet{}/", at + 1)) && neighbour.system_name.is_some(),
        "{neighbour:?}"
    );
    Ok(())
}

fn one_disk(inventory: &Inventory, disk: &machine::Disk) -> Result<()> {
    let found = inventory
        .disks
        .iter()
        .find(|found| found.serial.as_ref() == Some(&disk.serial));
    let found = found.with_context(|| format!("not among {:?}", inventory.disks))?;
    let bus = match disk.bus {
        machine::DiskBus::Nvme => DiskBus::Nvme,
        machine::DiskBus::Sata => DiskBus::Sata,
        machine::DiskBus::Virtio => DiskBus::Virtio,
        machine::DiskBus::Usb => DiskBus::Usb,
    };
    ensure!(found.bus == bus && found.size_bytes == disk.size, "{found:?}");
    let turns = matches!(bus, DiskBus::Sata | DiskBus::Usb);
    ensure!(found.rotational == turns, "{found:?}");
    ensure!(found.removable == (bus == DiskBus::Usb), "{found:?}");
    ensure!(found.sector_bytes == 512 && found.pci.is_some(), "{found:?}");
    if bus != DiskBus::Virtio {
        ensure!(found.model.is_some() && found.firmware.is_some(), "{found:?}");
    }
    // Of the others QEMU gives the model itself.
    if let (DiskBus::Sata, Some(model)) = (bus, &disk.model) {
        ensure!(found.model.as_ref() == Some(model), "{found:?}");
    }
    if let Some(wwn) = disk.wwn() {
        let named = format!("naa.{wwn:016x}");
        ensure!(found.wwn.as_ref() == Some(&named), "not {named}: {found:?}");
    }
    // What a disk says of itself; a stick and a virtual disk have no word for it.
    let told = matches!(bus, DiskBus::Nvme | DiskBus::Sata);
    ensure!(
        found.health.as_ref().is_some_and(|health| health.ok) == told,
        "{found:?}"
    );
    if let (DiskBus::Nvme, Some(health)) = (bus, &found.health) {
        ensure!(
            health.celsius.is_some() && health.percent_used.is_some() && health.power_on_hours.is_some(),
            "{health:?}"
        );
    }
    Ok(())
}

fn boot(inventory: &Inventory, config: &MachineConfig) -> Result<()> {
    let boots: Vec<&Nic> = inventory.nics.iter().filter(|nic| nic.boot).collect();
    let [nic] = boots[..] else {
        anyhow::bail!("not one boot NIC: {:?}", inventory.nics);
    };
    ensure!(
        inventory.boot.mac == Some(nic.mac) && !nic.addresses.is_empty(),
        "{:?}, {nic:?}",
        inventory.boot
    );
    ensure!(inventory.boot.kernel.is_some(), "{:?}", inventory.boot);
    let tpm = inventory.tpm.as_ref();
    ensure!(tpm.is_some() == config.tpm, "{tpm:?}");
    if let Some(tpm) = tpm {
        ensure!(tpm.version == 2 && tpm.endorsement_key_sha256.is_some(), "{tpm:?}");
    }
    Ok(())
}

/// The BMC as its host sees it: where it is on the network of the BMCs, and what it is.
fn management(inventory: &Inventory, node: &rack::Node) -> Result<()> {
    let Some(station) = &node.bmc else {
        ensure!(inventory.bmc.is_none(), "{:?}", inventory.bmc);
        return Ok(());
    };
    let bmc = inventory.bmc.as_ref().context("no BMC")?;
    let address = station.bound().map(|bound| bound.address.into());
    ensure!(
        bmc.address.is_some() && bmc.address == address,
        "{bmc:?}, and it is at {address:?}"
    );
    ensure!(bmc.mac == Some(station.mac()), "{bmc:?}");
    ensure!(bmc.firmware.is_some() && bmc.ipmi_version.is_some(), "{bmc:?}");
    Ok(())
}

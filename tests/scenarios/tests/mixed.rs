//! Machines that are no two alike: what each of them has is in its inventory.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use rackbar_model::{DiskBus, Inventory};
use rackbar_scenarios::{COMPLETE, Stage, eventually};
use rackbar_vrack::seat::PowerAction;

/// What a machine is told apart by.
type Has = fn(&Inventory) -> Result<()>;

/// An Intel card with its maker's driver, a TPM, a port that carries tags, a machine without a BMC, one with six disks on
/// four buses: all are discovered, and told apart by what is in them.
#[tokio::test(flavor = "multi_thread")]
async fn unequal_machines_are_discovered_with_all_that_is_in_them() -> Result<()> {
    let stage = Stage::serving("mixed").await?;
    let names: Vec<String> = stage.rack.nodes().iter().map(|node| node.name.clone()).collect();
    for name in &names {
        stage.rack.power(name, PowerAction::On).await?;
    }
    for name in &names {
        let node = stage.until_discovered(name).await?;
        println!("{name} is {}: {}", node.name, node.verdict);
        if name != "nobmc" {
            stage.until_complete(name).await?;
        }
    }
    let wanted: [(&str, Has); 5] = [
        ("intel", has_the_intel_driver),
        ("tpm", has_a_tpm),
        ("trunk", has_two_ports),
        ("nobmc", has_no_bmc),
        ("disks", has_six_disks),
    ];
    for (name, has) in wanted {
        // A stick behind USB comes up seconds after the rest, and is told of then.
        let seen = || async {
            let node = stage.node(name).await?.context("not known")?;
            has(node.inventory.as_ref().context("no inventory")?)
        };
        eventually(&format!("all of {name} is seen"), COMPLETE, seen).await?;
    }
    stage.end().await;
    Ok(())
}

fn has_the_intel_driver(inventory: &Inventory) -> Result<()> {
    let nic = inventory.nics.iter().find(|nic| nic.boot).context("no boot NIC")?;
    ensure!(nic.driver.as_deref() == Some("e1000e"), "{nic:?}");
    let card = nic
        .pci
        .as_ref()
        .and_then(|at| inventory.pci.iter().find(|device| device.address == *at));
    let maker = card.with_context(|| format!("no PCI device behind {nic:?}"))?.vendor;
    ensure!(maker == 0x8086, "PCI vendor {maker:04x}");
    Ok(())
}

fn has_a_tpm(inventory: &Inventory) -> Result<()> {
    let version = inventory.tpm.as_ref().map(|tpm| tpm.version);
    ensure!(version == Some(2), "{:?}", inventory.tpm);
    Ok(())
}

fn has_two_ports(inventory: &Inventory) -> Result<()> {
    let ports: BTreeSet<&str> = inventory
        .nics
        .iter()
        .filter_map(|nic| Some(nic.lldp.as_ref()?.port_id.as_str()))
        .collect();
    ensure!(ports.len() == 2, "switch ports {ports:?} of {:?}", inventory.nics);
    ensure!(inventory.nics.iter().all(|nic| nic.link), "{:?}", inventory.nics);
    Ok(())
}

fn has_no_bmc(inventory: &Inventory) -> Result<()> {
    ensure!(inventory.bmc.is_none(), "{:?}", inventory.bmc);
    ensure!(
        inventory.system.serial.is_some() && inventory.disks.iter().all(|disk| disk.serial.is_some()),
        "{inventory:?}"
    );
    Ok(())
}

fn has_six_disks(inventory: &Inventory) -> Result<()> {
    let mut buses: Vec<DiskBus> = inventory.disks.iter().map(|disk| disk.bus).collect();
    buses.sort_by_key(|bus| format!("{bus:?}"));
    let all = [
        DiskBus::Nvme,
        DiskBus::Nvme,
        DiskBus::Sata,
        DiskBus::Sata,
        DiskBus::Usb,
        DiskBus::Virtio,
    ];
    ensure!(buses == all, "{buses:?}");
    let disk = |serial: &str| {
        let found = inventory
            .disks
            .iter()
            .find(|disk| disk.serial.as_deref() == Some(serial));
        found.with_context(|| format!("no disk {serial} among {:?}", inventory.disks))
    };
    for serial in ["WD-0001", "WD-0002"] {
        let disk = disk(serial)?;
        ensure!(disk.size_bytes == 16_384 << 20 && !disk.removable, "{disk:?}");
        ensure!(disk.model.as_deref() == Some("VIRTUAL HDD 16G"), "{disk:?}");
    }
    let sticks = inventory.disks.iter().filter(|disk| disk.removable).count();
    ensure!(sticks == 1, "{sticks} removable disks");
    Ok(())
}

//! Machines that are no two alike: what each of them has is in its inventory.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rackbar_model::{DiskBus, Inventory};
use rackbar_scenarios::{Stage, eventually};
use rackbar_vrack::machine;
use rackbar_vrack::seat::PowerAction;

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
        stage.until_complete(name).await?;
    }
    a_clock_from_a_warehouse_is_right(&stage, "nobmc").await?;
    a_disk_comes_and_goes(&stage, "trunk").await?;
    let node = stage.node("intel").await?.context("not known")?;
    has_the_intel_driver(node.inventory.as_ref().context("no inventory")?)?;
    stage.end().await;
    Ok(())
}

/// A machine that believes to be in 2001, when no certificate of ours was good yet, has come as far as every other one, and
/// both its clocks were set.
async fn a_clock_from_a_warehouse_is_right(stage: &Stage, name: &str) -> Result<()> {
    let console = stage.console(name)?;
    let told = console
        .lines()
        .find(|line| line.contains("the clock was ") && line.contains(" s off"));
    let told = told.with_context(|| format!("nothing tells of its clock: {console}"))?;
    let off = told
        .split("the clock was ")
        .nth(1)
        .and_then(|rest| rest.split(' ').next());
    let off: f64 = off.context("no number")?.parse()?;
    // More than twenty years.
    ensure!(off > 20.0 * 365.0 * 86_400.0, "{told}");
    let machine = &stage.rack.node(name).context("no such machine")?.machine;
    // The appliance's own clock may be as old as the snapshot that it was restored from, and no older than its program.
    let shown = machine.clock().await?;
    ensure!(shown > "2026-01-01T00:00:00Z".parse()?, "its clock shows {shown}");
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

/// Put into a bay of a running machine, a disk gets its driver, which nothing needed before, and is in the inventory; taken
/// out, it is in the history alone.
async fn a_disk_comes_and_goes(stage: &Stage, name: &str) -> Result<()> {
    const SERIAL: &str = "IN-THE-BAY-1";
    const SOON: Duration = Duration::from_secs(60);
    let machine = &stage.rack.node(name).context("no such machine")?.machine;
    let disk = machine::Disk {
        bus: machine::DiskBus::Nvme,
        image: stage.rack.directory().join("in-the-bay.img"),
        size: 2 << 30,
        serial: SERIAL.into(),
        model: None,
    };
    let loaded = || -> Result<bool> {
        let console = stage.console(name)?;
        let mut told = console
            .lines()
            .filter(|line| line.contains("drivers loaded for new devices"));
        Ok(told.any(|line| line.contains("nvme")))
    };
    ensure!(!loaded()?, "a driver for NVMe was there before");
    machine.plug_in(machine::Slot::Bay(0), &disk).await?;
    let found = || async {
        let node = stage.node(name).await?.context("known")?;
        let disks = node.inventory.context("no inventory")?.disks;
        let new = disks.iter().find(|disk| disk.serial.as_deref() == Some(SERIAL));
        let new = new.with_context(|| format!("{disks:?}"))?;
        ensure!(new.bus == DiskBus::Nvme && new.size_bytes == disk.size, "{new:?}");
        ensure!(new.health.as_ref().is_some_and(|health| health.ok), "{new:?}");
        anyhow::Ok(())
    };
    eventually("a disk put into a bay is seen", SOON, found).await?;
    ensure!(loaded()?, "nothing tells of a driver: {}", stage.console(name)?);

    machine.pull(machine::Slot::Bay(0)).await?;
    let gone = || async {
        let node = stage.node(name).await?.context("known")?;
        let disks = node.inventory.context("no inventory")?.disks;
        ensure!(
            disks.iter().all(|disk| disk.serial.as_deref() != Some(SERIAL)),
            "{disks:?}"
        );
        anyhow::Ok(node.id)
    };
    let id = eventually("a disk taken out is gone", SOON, gone).await?;
    let path = format!("/api/v1/nodes/{id}/inventories");
    let history = stage.api.read::<serde_json::Value>(&path).await?.to_string();
    ensure!(history.contains(SERIAL), "its history forgot the disk: {history}");
    Ok(())
}

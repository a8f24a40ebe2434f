//! Machines that are no two alike: what each of them has is in its inventory.

use anyhow::{Context, Result, ensure};
use rackbar_model::Inventory;
use rackbar_scenarios::Stage;
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
    let node = stage.node("intel").await?.context("not known")?;
    has_the_intel_driver(node.inventory.as_ref().context("no inventory")?)?;
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

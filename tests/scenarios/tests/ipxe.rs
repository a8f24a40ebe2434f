//! Nodes that boot by iPXE where the site wants that: with the site's own script, and under UEFI.

use anyhow::{Result, ensure};
use rackbar_model::FirmwareMode;
use rackbar_scenarios::{Stage, rack_file};

/// A BIOS machine runs the site's own script in its iPXE before ours; UEFI machines get iPXE in place of our loader, the
/// one by PXE and the other by HTTP Boot.
#[tokio::test(flavor = "multi_thread")]
async fn nodes_boot_by_ipxe_with_the_sites_script() -> Result<()> {
    let mut file = rack_file("demo")?;
    file.nodes.truncate(3);
    let script = "\n[[boot.script]]\ntext = \"\"\"\n#!ipxe\necho THE SITE SPEAKS FIRST\ngoto rackbar\n\"\"\"\n";
    let uefi = "[boot]\nuefi = \"snponly.efi\"\n";
    let stage = Stage::set_with(file, |text| text.replace("[boot]\n", uefi) + script).await?;
    stage.start_appliance().await?;
    for name in ["n1", "n2", "n3"] {
        stage.power_on(name).await?;
    }
    let machines = [
        ("n1", FirmwareMode::Bios),
        ("n2", FirmwareMode::Uefi),
        ("n3", FirmwareMode::Uefi),
    ];
    for (name, mode) in machines {
        let node = stage.until_discovered(name).await?;
        let found = node.inventory.as_ref().and_then(|inventory| inventory.firmware.mode);
        ensure!(found == Some(mode), "{name}: {found:?}");
        let texts: Vec<String> = stage.timeline(&node).await?.into_iter().map(|item| item.text).collect();
        ensure!(
            texts.iter().any(|text| text.contains("script sent")),
            "{name}: no script in {texts:#?}"
        );
        if mode == FirmwareMode::Uefi {
            ensure!(
                texts.iter().any(|text| text.contains("snponly.efi sent")),
                "{name}: no iPXE in {texts:#?}"
            );
            ensure!(
                texts.iter().all(|text| !text.contains("loader.efi")),
                "{name}: our loader in {texts:#?}"
            );
        }
    }
    for name in ["n1", "n2", "n3"] {
        let console = stage.console(name)?;
        ensure!(
            console.contains("THE SITE SPEAKS FIRST"),
            "{name}'s console shows nothing of the site's script:\n{console}"
        );
    }
    stage.end().await;
    Ok(())
}

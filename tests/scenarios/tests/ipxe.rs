//! Nodes that boot by iPXE where the site wants that: with the site's own script, and under UEFI.

use anyhow::{Context, Result, ensure};
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

/// What the site has a BIOS machine do: the iPXE of its adapter's ROM goes on to Debian's, which shows a menu.
const TO_UNDIONLY: &str = r#"
[[boot.script]]
text = """
#!ipxe
iseq ${net0/chip} undionly && goto mine ||
echo ROM ${net0/chip} GOES ON
chain tftp://${net0/dhcp-server}/undionly.kpxe || exit
:mine
menu THE MENU OF RACK SEVEN
item disk Boot from its disk
item rackbar Inspect it with Rackbar
choose --timeout 1500 --default rackbar what && goto ${what} || exit
:disk
exit
"""
"#;

/// iPXE as Debian builds it, over the adapter's own driver: for adapters that have no iPXE in their ROM it is all there is. The
/// menu's default is taken when nobody chooses.
#[tokio::test(flavor = "multi_thread")]
async fn a_bios_machine_boots_by_undionly_with_the_sites_menu() -> Result<()> {
    let mut file = rack_file("demo")?;
    file.nodes.truncate(1);
    let stage = Stage::set_with(file, |text| text + TO_UNDIONLY).await?;
    stage.start_appliance().await?;
    stage.power_on("n1").await?;
    let node = stage.until_discovered("n1").await?;
    let timeline = stage.timeline(&node).await?;
    let texts: Vec<&str> = timeline.iter().map(|item| item.text.as_str()).collect();
    let at = |from: usize, part: &str| {
        let rest = texts.get(from..).unwrap_or_default();
        let place = rest.iter().position(|text| text.contains(part));
        place
            .map(|at| from + at)
            .with_context(|| format!("no {part:?} in its place: {texts:#?}"))
    };
    // The ROM's script, its iPXE, the script for that one, and the kernel.
    let rom = at(0, "script sent")?;
    let undionly = at(rom, "undionly.kpxe sent")?;
    let script = at(undionly, "script sent")?;
    at(script, "vmlinuz sent")?;
    let console = stage.console("n1")?;
    for part in ["GOES ON", "THE MENU OF RACK SEVEN", "Inspect it with Rackbar"] {
        ensure!(console.contains(part), "no {part:?} on its console:\n{console}");
    }
    stage.end().await;
    Ok(())
}

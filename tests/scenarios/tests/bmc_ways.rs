//! A machine whose firmware takes nothing that we say by DHCP, beside a server that knows nothing of booting: its BMC
//! leads it to us, by a URL for one boot or by a disc in its virtual drive.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rackbar_model::{BootWay, EventKind, Node, NodeState};
use rackbar_scenarios::{Stage, eventually, rack_file};
use rackbar_vrack::seat::MachinePower as _;
use rackbar_vrack::switch::Fault;

/// The machine with UEFI.
const MACHINE: &str = "n2";
/// Two offers that are ignored come first, each a minute of firmware's patience under an emulator; then a whole boot.
const LED: Duration = Duration::from_secs(480);

/// The machine is switched on, our proxy offers never reach it, and it is discovered all the same.
async fn led_by(way: &'static str) -> Result<(Stage, Node)> {
    let mut file = rack_file("proxy")?;
    file.nodes.retain(|node| node.name == MACHINE);
    let ways = move |text: String| text.replace("[boot]\n", &format!("[boot]\nnegotiate = [\"proxy\", \"{way}\"]\n"));
    let stage = Stage::serving_with(file, ways).await?;
    let port = *stage
        .rack
        .node(MACHINE)
        .and_then(|node| node.ports.first())
        .context("a port")?;
    stage.rack.switch().set_fault(port, Fault::no_proxy_offers());
    stage.power_on(MACHINE).await?;
    let discovered = || async {
        match stage.node(MACHINE).await {
            Ok(Some(node)) if node.state == NodeState::Discovered && node.inventory.is_some() => Ok(node),
            Ok(node) => Err(node.map(|node| node.verdict)),
            Err(error) => Err(Some(format!("{error:#}"))),
        }
    };
    let node = match eventually("it is discovered", LED, discovered).await {
        Ok(node) => node,
        Err(error) => {
            if let Some(node) = stage.node(MACHINE).await? {
                println!("{}", told(&stage, &node).await?.0);
            }
            return Err(error);
        }
    };
    let ours = stage.api.leases().await?;
    ensure!(
        ours.iter().all(|lease| lease.network != "rack"),
        "it was given an address of ours, which this site does not allow: {ours:?}"
    );
    Ok((stage, node))
}

/// Its timeline in words, and the ways it was moved to.
async fn told(stage: &Stage, node: &Node) -> Result<(String, Vec<BootWay>)> {
    let timeline = stage.timeline(node).await?;
    let to = |kind: &EventKind| match kind {
        EventKind::WayChanged { to, .. } => Some(*to),
        _ => None,
    };
    let ways = timeline.iter().filter_map(|item| to(&item.event.kind)).collect();
    let lines: Vec<_> = timeline.into_iter().map(|item| item.text).collect();
    Ok((lines.join("\n"), ways))
}

#[tokio::test(flavor = "multi_thread")]
async fn firmware_that_takes_no_offer_boots_the_url_its_bmc_was_given() -> Result<()> {
    let (stage, node) = led_by("redfish_url").await?;
    let (text, ways) = told(&stage, &node).await?;
    println!("{text}");
    ensure!(ways == [BootWay::RedfishUrl], "{ways:?}");
    ensure!(
        text.contains("its next boot is to fetch http://") && text.contains("/boot/v1/loader.efi"),
        "nothing tells of the URL"
    );
    stage.end().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn firmware_that_takes_no_offer_boots_our_disc_from_its_bmcs_virtual_drive() -> Result<()> {
    let (stage, node) = led_by("virtual_media").await?;
    let taken_out = || async {
        let (text, ways) = told(&stage, &node).await.map_err(|error| format!("{error:#}"))?;
        if text.contains("virtual CD drive: empty") {
            Ok((text, ways))
        } else {
            Err(text)
        }
    };
    let (text, ways) = eventually("our disc is taken out", Duration::from_secs(60), taken_out).await?;
    let machine = &stage.rack.node(MACHINE).context("no such machine")?.machine;
    ensure!(machine.media().is_none(), "the drive still holds {:?}", machine.media());
    println!("{text}");
    ensure!(ways == [BootWay::VirtualMedia], "{ways:?}");
    for words in ["/boot/v1/loader.iso is in", "its next boot is to come from"] {
        ensure!(text.contains(words), "nothing tells {words:?}");
    }
    ensure!(
        stage.console(MACHINE)?.contains("Rackbar loader"),
        "our loader did not run"
    );
    stage.end().await;
    Ok(())
}

//! Beside a DHCP server that was there first.

use anyhow::{Context, Result, ensure};
use rackbar_model::{BootWay, EventKind};
use rackbar_scenarios::{Stage, rack_file};
use rackbar_vrack::seat::PowerAction;
use rackbar_vrack::switch::Fault;

/// With `dhcp = "auto"` the appliance listens before it speaks, finds the other server, and only adds boot information.
#[tokio::test(flavor = "multi_thread")]
async fn proxy_dhcp_boots_nodes_beside_a_foreign_server() -> Result<()> {
    let stage = Stage::serving("proxy").await?;
    for name in ["n1", "n2"] {
        stage.power_on(name).await?;
    }
    for name in ["n1", "n2"] {
        let node = stage.until_discovered(name).await?;
        let address = node.address.context("an address")?;
        ensure!(
            stage.api.leases().await?.iter().all(|lease| lease.network != "rack"),
            "the appliance leased an address on a network that has a server of its own"
        );
        println!(
            "{name} discovered at {address}, which the other server gave it: {}",
            node.verdict
        );
    }
    let events = stage.api.events().await?;
    ensure!(
        events
            .iter()
            .any(|item| matches!(item.event.kind, EventKind::ForeignDhcpServer { .. })),
        "nobody said that there is another DHCP server"
    );
    stage.end().await;
    Ok(())
}

/// A firmware that does not take proxy offers asks again and again. After two offers without an echo the appliance gives it
/// an address out of those set aside for this, and says why.
#[tokio::test(flavor = "multi_thread")]
async fn firmware_deaf_to_proxy_offers_is_led_by_an_address_of_ours() -> Result<()> {
    const MACHINE: &str = "n2";
    let mut file = rack_file("proxy")?;
    file.nodes.retain(|node| node.name == MACHINE);
    let aside = |text: String| {
        text.replacen(
            "pool = [\"10.77.10.100-10.77.10.199\"]",
            "pool = [\"10.77.10.210-10.77.10.220\"]",
            1,
        )
    };
    let stage = Stage::serving_with(file, aside).await?;
    let port = *stage
        .rack
        .node(MACHINE)
        .and_then(|node| node.ports.first())
        .context("a port")?;
    stage.rack.switch().set_fault(port, Fault::no_proxy_offers());
    stage.rack.power(MACHINE, PowerAction::On).await?;
    let node = stage.until_discovered(MACHINE).await?;
    let timeline = stage.timeline(&node).await?;
    for item in &timeline {
        println!("{}", item.text);
    }
    let moved = timeline.iter().any(|item| {
        let kind = &item.event.kind;
        matches!(
            kind,
            EventKind::WayChanged {
                from: BootWay::Proxy,
                to: BootWay::FullDhcp,
                ..
            }
        )
    });
    ensure!(moved, "nothing tells that it is led another way");
    let ours = stage
        .api
        .leases()
        .await?
        .into_iter()
        .find(|lease| lease.network == "rack");
    let ours = ours.context("no lease of ours")?;
    ensure!(ours.address.to_string().starts_with("10.77.10.2"), "{ours:?}");
    stage.end().await;
    Ok(())
}

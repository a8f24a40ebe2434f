//! Beside a DHCP server that was there first.

use anyhow::{Context, Result, ensure};
use rackbar_model::EventKind;
use rackbar_scenarios::Stage;

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

//! The appliance on a trunk port, its networks tagged.

use anyhow::{Result, ensure};
use rackbar_scenarios::Stage;

/// Nodes on access ports are found, their BMCs too, by an appliance that has both networks as VLANs of one port.
#[tokio::test(flavor = "multi_thread")]
async fn an_appliance_on_a_trunk_serves_its_vlans() -> Result<()> {
    // Booted, not continued: tagged interfaces are what this story is about, from the first moment on.
    let stage = Stage::set(rackbar_scenarios::rack_file("trunk")?).await?;
    stage.start_appliance().await?;
    for name in ["n1", "n2"] {
        stage.power_on(name).await?;
    }
    for name in ["n1", "n2"] {
        let node = stage.until_discovered(name).await?;
        println!("{name} discovered: {}", node.verdict);
    }
    let leases = stage.api.leases().await?;
    for network in ["rack", "bmc"] {
        ensure!(
            leases.iter().any(|lease| lease.network == network),
            "no lease on {network}: {leases:?}"
        );
    }
    stage.end().await;
    Ok(())
}

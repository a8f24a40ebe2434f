//! One machine alone with the appliance, timed: what a boot takes when nothing else wants the processor.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use rackbar_scenarios::{Stage, rack_file};
use rackbar_vrack::seat::PowerAction;

/// Far above the aim, which is for an idle machine: a machine that builds something else must not fail here.
const AT_MOST: Duration = Duration::from_secs(150);

async fn discovered(name: &str) -> Result<()> {
    let mut file = rack_file("demo")?;
    file.nodes.retain(|node| node.name == name);
    let stage = Stage::serving_with(file, |text| text).await?;
    // The button, not the BMC: its discovery by the appliance is no part of a boot.
    let start = Instant::now();
    stage.rack.power(name, PowerAction::On).await?;
    let node = stage.until_discovered(name).await?;
    let time = start.elapsed();
    println!(
        "ALONE {name}: power-on to Discovered {:.1} s: {}",
        time.as_secs_f64(),
        node.verdict
    );
    for item in stage.timeline(&node).await? {
        println!("  {} {}", item.event.at, item.text);
    }
    ensure!(time < AT_MOST, "{name} took {:.1} s", time.as_secs_f64());
    stage.end().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bios_node_alone_is_discovered_in_time() -> Result<()> {
    discovered("n1").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_uefi_node_alone_is_discovered_in_time() -> Result<()> {
    discovered("n2").await
}

//! The appliance loses its power at any moment, and loses nothing else.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rackbar_model::MacAddr;
use rackbar_scenarios::{Stage, eventually, rack_file};
use rackbar_vrack::host::{Host, Ipv4};
use rackbar_vrack::seat::{MachinePower, PowerAction};

/// Moments after serving at which the power goes, in milliseconds: in no pattern, but the same in every run.
const MOMENTS: [u64; 10] = [40, 1_130, 350, 2_210, 90, 1_740, 610, 3_020, 220, 870];
/// Clients that ask for addresses while the power goes.
const CLIENTS: usize = 8;

/// Ten power cuts while clients take leases: the store opens every time, and no lease a client was given is forgotten.
#[tokio::test(flavor = "multi_thread")]
async fn power_cuts_lose_no_acknowledged_lease() -> Result<()> {
    let mut file = rack_file("demo")?;
    file.nodes.clear();
    let stage = Stage::set(file).await?;
    let mut given: BTreeMap<MacAddr, Ipv4Addr> = BTreeMap::new();
    for (round, moment) in MOMENTS.into_iter().enumerate() {
        stage
            .start_appliance()
            .await
            .with_context(|| format!("round {round}, after the cut before it"))?;
        kept(&stage, &given).await.with_context(|| format!("round {round}"))?;
        let clients: Vec<Host> = (0..CLIENTS)
            .map(|n| stage.rack.host("rack", Ipv4::dhcp(format!("r{round}c{n}"))))
            .collect();
        let cut = Instant::now() + Duration::from_millis(moment);
        tokio::time::sleep_until(cut.into()).await;
        stage.appliance.machine.act(PowerAction::ForceOff).await?;
        // What a client holds now was acknowledged before the power went.
        given.extend(
            clients
                .iter()
                .filter_map(|client| Some((client.mac(), client.bound()?.address))),
        );
    }
    stage.start_appliance().await?;
    kept(&stage, &given).await?;
    ensure!(
        given.len() >= CLIENTS,
        "too few leases were given to prove anything: {}",
        given.len()
    );
    println!("{} power cuts, {} leases given, none lost", MOMENTS.len(), given.len());
    stage.end().await;
    Ok(())
}

async fn kept(stage: &Stage, given: &BTreeMap<MacAddr, Ipv4Addr>) -> Result<()> {
    let leases = stage.api.leases().await?;
    for (mac, address) in given {
        ensure!(
            leases
                .iter()
                .any(|lease| lease.mac == *mac && lease.address == *address),
            "{mac} was given {address}, and the appliance does not know it any more"
        );
    }
    Ok(())
}

/// The appliance restarts while nodes boot; they are discovered all the same, and what was known before stays known.
#[tokio::test(flavor = "multi_thread")]
async fn an_appliance_that_restarts_under_booting_nodes_discovers_them() -> Result<()> {
    let mut file = rack_file("demo")?;
    file.nodes.truncate(2);
    let stage = Stage::set(file).await?;
    stage.start_appliance().await?;
    stage.power_on("n1").await?;
    let first = stage.until_discovered("n1").await?;
    stage.power_on("n2").await?;
    let seen = || async {
        let node = stage.node("n2").await?.context("not known")?;
        let timeline = stage.timeline(&node).await?;
        let asked = timeline
            .iter()
            .any(|item| matches!(item.event.kind, rackbar_model::EventKind::DhcpAck { .. }));
        ensure!(asked, "{}", node.verdict);
        Ok(())
    };
    eventually("n2 has begun to boot", rackbar_scenarios::DISCOVERED, seen).await?;
    stage.appliance.machine.act(PowerAction::ForceOff).await?;
    stage.start_appliance().await?;
    let n1 = stage.node("n1").await?.context("n1 was forgotten")?;
    ensure!(
        n1.id == first.id && n1.inventory.is_some(),
        "n1 lost its identity or its inventory"
    );
    let n1 = stage.until_connected("n1").await?;
    ensure!(n1.id == first.id, "n1's agent came back as another node");
    stage.until_discovered("n2").await?;
    stage.end().await;
    Ok(())
}

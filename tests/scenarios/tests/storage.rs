//! An appliance without a data partition runs from memory until it is given a disk.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rackbar_model::{Lease, Node};
use rackbar_scenarios::{Stage, eventually, rack_file};
use rackbar_vrack::rack::Medium;
use serde_json::{Value, json};

const STORAGE: &str = "/api/v1/storage";

async fn storage(stage: &Stage) -> Result<Value> {
    stage.api.read(STORAGE).await
}

async fn lease(stage: &Stage, node: &Node) -> Result<Option<Lease>> {
    let leases = stage.api.leases().await?;
    Ok(leases.into_iter().find(|lease| node.macs.contains(&lease.mac)))
}

/// Waits until the state is on a disk; gives its words.
async fn until_kept(stage: &Stage) -> Result<String> {
    let kept = || async {
        match storage(stage).await {
            Ok(state) if state["volatile"] == false => Ok(state["words"].to_string()),
            other => Err(format!("{other:?}")),
        }
    };
    eventually("the state is on a disk", Duration::from_secs(120), kept).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_appliance_from_a_cd_is_given_a_disk_and_keeps_what_it_knew_through_a_power_cut() -> Result<()> {
    let mut file = rack_file("demo")?;
    file.nodes.retain(|node| node.name == "n1");
    file.appliance.medium = Medium::IsoCd;
    let stage = Stage::set(file).await?;
    stage.start_appliance().await?;
    stage.power_on("n1").await?;
    let node = stage.until_discovered("n1").await?;
    let before = lease(&stage, &node).await?.context("n1 has a lease")?;

    let state = storage(&stage).await?;
    ensure!(state["volatile"] == true, "not in memory: {state}");
    let disk = &state["disks"][0];
    ensure!(
        disk["serial"] == "APPLIANCE-0" && disk["holds"] == json!([]) && disk["refusal"].is_null(),
        "the empty disk is not offered: {state}"
    );
    let refused = stage.api.post::<Value>(STORAGE, &json!({ "disk": "sdz" })).await;
    ensure!(format!("{refused:?}").contains("404"), "{refused:?}");
    let start = Instant::now();
    let done: Value = stage.api.post(STORAGE, &json!({ "disk": "APPLIANCE-0" })).await?;
    let prepared = start.elapsed().as_secs_f64();
    let words = until_kept(&stage).await?;
    println!(
        "{done}; {words}; prepared after {prepared:.1} s, serving on it after {:.1} s",
        start.elapsed().as_secs_f64()
    );

    // Right then.
    stage.appliance.machine.cut_power().await?;
    stage.start_appliance().await?;
    let words = until_kept(&stage).await?;
    ensure!(words.contains("ext4"), "{words}");
    let again = stage.until_connected("n1").await?;
    ensure!(
        again.id == node.id && again.inventory.is_some(),
        "n1 lost its identity or its inventory"
    );
    let after = lease(&stage, &node).await?.context("n1's lease was forgotten")?;
    ensure!(after.address == before.address, "{after:?} instead of {before:?}");
    let told: Vec<String> = stage.api.events().await?.into_iter().map(|event| event.text).collect();
    ensure!(
        told.iter().any(|text| text.contains("the state is on")),
        "the move is not in the audit trail: {told:#?}"
    );
    // It has a place now, and no second one beside it.
    let refused = stage
        .api
        .post::<Value>(STORAGE, &json!({ "disk": "APPLIANCE-0" }))
        .await;
    ensure!(format!("{refused:?}").contains("409"), "{refused:?}");
    stage.end().await;
    Ok(())
}

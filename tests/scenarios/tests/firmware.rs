//! What is done to a machine that stays in memory: its firmware, its BMC, its burn-in, and checks through its agent.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rackbar_model::PowerState;
use rackbar_plan::{Run, Stand};
use rackbar_scenarios::install::{READY, commit_all, is_ready, until_done};
use rackbar_scenarios::{Stage, eventually};
use rackbar_vrack::rack::RackFile;

use crate::install::prepared;

/// Firmware settings, a BMC password of the machine's own, burn-in: all that can be done to a machine that stays in memory.
const FIRMWARE: &str = r#"
version = 1

[role.tested]
memory = "agent"
rotate_bmc_password = true
bios = { ProcVirtualization = "Disabled", SriovGlobalEnable = "Enabled" }
burn_in = { cpu_seconds = 3, memory_seconds = 3, disk_seconds = 3 }

[[rule]]
name = "everything"
when = "true"
role = "tested"
"#;

/// The same for a machine whose BMC has a password that nobody knows: first an account of ours, and an address.
const INSIDE: &str = r#"
[network.bmc]
subnet = "10.77.20.0/24"
gateway = "10.77.20.1"
addresses = "10.77.20.200-10.77.20.209"

[role.inside]
memory = "agent"
bmc = { network = "bmc", account = "rackbar" }
bios = { ProcVirtualization = "Disabled" }

[[rule]]
name = "its BMC takes no login of ours"
when = "firmware.mode == 'uefi'"
role = "inside"
"#;

/// The demo's `n2`: its BMC was set up from inside the machine, proven from outside, and is driven since.
async fn the_bmc_was_set_up_from_inside(stage: &Stage, run: &Run) -> Result<()> {
    let node = stage.node("n2").await?.context("known")?;
    is_ready(&node)?;
    let (_, stand) = (run.actions.iter())
        .find(|(name, _)| name.0.ends_with("bmc.setup"))
        .context("the plan has no bmc.setup")?;
    let Stand::Done { outcome, .. } = stand else {
        anyhow::bail!("bmc.setup: {stand:?}");
    };
    ensure!(
        outcome.summary.contains("took our login as rackbar at 10.77.20.20"),
        "{}",
        outcome.summary
    );
    ensure!(
        node.bmc_address
            .is_some_and(|address| outcome.summary.ends_with(&address.to_string()))
    );
    let seen = node.inventory.context("an inventory")?.bmc.context("a BMC")?;
    ensure!((seen.dhcp, seen.address) == (Some(false), node.bmc_address), "{seen:?}");
    println!("{}", outcome.summary);
    Ok(())
}

/// `rackbar verify` of machines that have no system: what their agents tell is checked, the rest says why not.
async fn they_are_checked_in_memory(stage: &Stage) -> Result<()> {
    for name in ["n1", "n2"] {
        let node = stage.node(name).await?.context("known")?;
        let request = serde_json::json!({ "nodes": [node.id.to_string()] });
        let report: serde_json::Value = stage.api.post("/api/v1/verify", &request).await?;
        let payload = report["payload"].as_str().context("a signed report")?;
        let payload: serde_json::Value = serde_json::from_str(payload)?;
        // The answer is the whole rack's.
        let nodes = payload["nodes"].as_array().context("machines")?;
        let id = node.id.to_string();
        let own = nodes.iter().find(|one| one["node"] == id.as_str()).context(name)?;
        let checks = own["checks"].as_array().context("checks")?;
        let status = |id: &str| {
            checks
                .iter()
                .find(|one| one["id"] == id)
                .map(|one| one["status"].clone())
        };
        for id in [
            "memory.total",
            "cpu.threads",
            "time.sync",
            "kernel.taint",
            "disk.errors",
            "firmware.bios",
        ] {
            ensure!(
                status(id).is_some_and(|status| status == "passed"),
                "{name}: {id} in {checks:#?}"
            );
        }
        // Of the other one's role no burn-in is wanted, so none is looked at.
        for part in ["burnin.machine", "burnin.cpu", "burnin.memory", "burnin.disk"] {
            let wanted = (name == "n1").then_some("passed");
            let came = status(part);
            ensure!(
                came.as_ref().and_then(|one| one.as_str()) == wanted,
                "{name}: {part} in {checks:#?}"
            );
        }
        let skipped: Vec<_> = checks.iter().filter(|one| one["status"] == "skipped").collect();
        let told = skipped
            .iter()
            .all(|one| one["advice"].as_str().is_some_and(|why| !why.is_empty()));
        ensure!(skipped.len() >= 5 && told, "{name}: {skipped:#?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn firmware_settings_password_and_burn_in_are_done_and_proven() -> Result<()> {
    let factory = |file: &mut RackFile| {
        for node in file.nodes.iter_mut().filter(|node| node.name == "n2") {
            node.bmc_password = Some("nobody-knows".into());
        }
    };
    // The rule for the one machine goes before the one for all.
    let (head, all) = FIRMWARE.split_once("[[rule]]").context("a rule")?;
    let site = format!("{head}{INSIDE}\n[[rule]]{all}");
    let stage = prepared(&["n1", "n2"], factory, &site).await?;
    let (plan, id) = commit_all(&stage.api).await?;
    ensure!(
        plan.actions.iter().all(|action| action.destroys.is_none()),
        "a machine that stays in memory loses data: {plan:#?}"
    );
    let run = until_done(&stage.api, id, READY).await?;
    the_bmc_was_set_up_from_inside(&stage, &run).await?;
    for kind in [
        "bmc.password",
        "bios.settings",
        "agent.restart",
        "bios.verify",
        "burn-in",
    ] {
        let stand = run.actions.iter().find(|(name, _)| name.0.ends_with(kind));
        let (_, stand) = stand.with_context(|| format!("the plan has no {kind}: {:#?}", run.actions))?;
        ensure!(
            matches!(stand, Stand::Done { outcome, .. } if !outcome.nothing_to_do),
            "{kind}: {stand:?}"
        );
    }
    let node = stage.node("n1").await?.context("known")?;
    is_ready(&node)?;
    they_are_checked_in_memory(&stage).await?;
    // The BMCs take orders with the new passwords: the appliance kept them.
    for name in ["n1", "n2"] {
        let node = stage.node(name).await?.context("known")?;
        stage.api.power(node.id, "off").await?;
        let off = || async {
            let node = stage.node(name).await?.context("known")?;
            ensure!(node.power == PowerState::Off, "{}", node.power);
            anyhow::Ok(())
        };
        eventually("the machine is off", Duration::from_secs(60), off).await?;
    }
    stage.end().await;
    Ok(())
}

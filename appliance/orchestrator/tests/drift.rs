//! Firmware attributes of a ready machine are watched through its BMC, and never changed by that.
#![allow(clippy::unwrap_used, reason = "a test may unwrap")]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use common::bmcs::{self, HERE, Watch};
use common::life::{Life, Sim};
use common::{until, until_event, until_node};
use rackbar_model::{EventKind, NodeId};
use rackbar_orchestrator::bmc::BmcDoor as _;
use rackbar_orchestrator::executor::PlanRequest;
use rackbar_plan::{ActionKind, RunState};
use rackbar_vrack::bmc::{Faults, Loopback, Pretend};
use rackbar_vrack::seat;

const ROLES: &str = r#"
version = 1

[role.firm]
memory = "agent"
bios = { ProcVirtualization = "Enabled" }
"#;

const DRIFT: &str = "the firmware attribute ProcVirtualization is Disabled, wanted Enabled";

/// Reads of the firmware attributes so far, and what was asked of the BMC that changes something.
fn asked(bmc: &Loopback) -> (usize, Vec<String>) {
    let requests = bmc.state().requests();
    let reads = requests
        .iter()
        .filter(|one| one.starts_with("GET ") && one.contains("/Bios"))
        .count();
    let session = |one: &String| one.contains("Sessions");
    let changes = requests
        .into_iter()
        .filter(|one| !one.starts_with("GET ") && !session(one))
        .collect();
    (reads, changes)
}

/// Somebody at the set-up screen: sets it, and leaves with a restart.
async fn set_by_hand(watch: &Watch, machine: &Pretend, value: &str) {
    let wanted = BTreeMap::from([("ProcVirtualization".to_owned(), value.to_owned())]);
    watch.devices.stage_bios(HERE, &wanted).await.unwrap();
    machine.guest_resets();
}

async fn read_again(bmc: &Loopback) {
    let (before, _) = asked(bmc);
    until("two more reads", || (asked(bmc).0 >= before + 2).then_some(())).await;
}

async fn drift_is(life: &Life, node: NodeId, wanted: &[&str]) {
    until_node(&life.rack, "the drift", |shown| {
        shown.id == node && shown.drift == wanted
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn firmware_settings_of_a_ready_machine_are_watched_and_only_shown() {
    let folder = tempfile::tempdir().unwrap();
    let sim = Arc::new(Sim::default());
    *sim.settings_look.lock().unwrap() = Some(Duration::from_millis(50));
    let (life, node) = Life::first(folder.path(), &sim).await;
    life.executor.set_site(ROLES, "anna").unwrap();
    life.executor.bind(node, Some("firm".into()), "anna").unwrap();
    let (bmc, machine, _dir) = bmcs::simulated(seat::PowerState::On).await;
    let watch = Watch::with(life.rack.clone(), &bmc, "secret", bmcs::TIMING);
    watch.lease();
    watch.found().await;
    set_by_hand(&watch, &machine, "Enabled").await;
    let plan = life.executor.plan(&PlanRequest::default()).unwrap();
    let run = life.executor.commit(&plan.id, &[], "anna").unwrap();
    until("the run is done", || {
        life.executor.run(run).filter(|run| run.state == RunState::Done)
    })
    .await;
    read_again(&bmc).await;
    drift_is(&life, node, &[]).await;

    // Somebody changes it: that is shown and told, and planned to be put right; nothing is done to the machine.
    set_by_hand(&watch, &machine, "Disabled").await;
    let (_, by_hand) = asked(&bmc);
    drift_is(&life, node, &[DRIFT]).await;
    until_event(
        &life.rack,
        "drift seen",
        |kind| matches!(kind, EventKind::DriftSeen { what } if what == DRIFT),
    )
    .await;
    read_again(&bmc).await;
    assert_eq!(asked(&bmc).1, by_hand, "the look changed something");
    assert_eq!(life.state(node), "ready");
    let plan = life.executor.plan(&PlanRequest::default()).unwrap();
    let sets = |action: &rackbar_plan::Action| matches!(&action.kind, ActionKind::BiosSettings { attributes } if attributes["ProcVirtualization"] == "Enabled");
    assert!(plan.actions.iter().any(sets), "{plan:#?}");

    // Hands off means its BMC too. What was under way may end.
    life.executor.maintenance(node, true, "a fan", "anna").unwrap();
    let (before, _) = asked(&bmc);
    let more = until("reads in maintenance", || (asked(&bmc).0 > before + 1).then_some(()));
    assert!(tokio::time::timeout(Duration::from_secs(3), more).await.is_err());
    life.executor.maintenance(node, false, "", "anna").unwrap();
    drift_is(&life, node, &[DRIFT]).await;

    // A BMC that is silent takes nothing back, and is read when it answers.
    bmc.state().set_faults(bmcs::DEAF);
    machine.guest_resets();
    drift_is(&life, node, &[DRIFT]).await;
    bmc.state().set_faults(Faults::NONE);
    set_by_hand(&watch, &machine, "Enabled").await;
    drift_is(&life, node, &[]).await;
    until_event(
        &life.rack,
        "drift gone",
        |kind| matches!(kind, EventKind::DriftGone { what } if what == DRIFT),
    )
    .await;
    watch.stop().await;
    life.kill().await;
}

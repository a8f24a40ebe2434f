//! `recover` from every state a node can be in, and from every kind of action: one command, one known state.
#![allow(clippy::unwrap_used, reason = "a test may unwrap")]

mod common;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use common::life::{Life, Sim};
use common::{until, until_node};
use rackbar_model::NodeId;
use rackbar_orchestrator::executor::PlanRequest;
use rackbar_plan::{RunId, RunState, Stand};

const ROLES: &str = r##"
version = 1
ssh_keys = ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f test"]

[role.worker]
os = "debian-12"
burn_in = { cpu_seconds = 1 }
step = [{ name = "mark", script = "#!/bin/sh\ntrue\n" }]

[role.spare]
memory = "agent"
"##;

/// Every kind of action that is planned for a machine without a BMC, and the role that it is planned for.
const KINDS: [(&str, &str); 11] = [
    ("worker", "agent"),
    ("worker", "burn-in"),
    ("worker", "disk.erase"),
    ("worker", "os.write"),
    ("worker", "os.setup"),
    ("worker", "boot.order"),
    ("worker", "restart"),
    ("worker", "os.reachable"),
    ("worker", "step"),
    ("worker", "verify"),
    ("spare", "memory"),
];

/// A machine that has this role; nothing is committed.
async fn bound(folder: &Path, sim: &Arc<Sim>, role: &str) -> (Life, NodeId) {
    let (life, node) = Life::first(folder, sim).await;
    life.executor.set_site(ROLES, "anna").unwrap();
    life.executor.bind(node, Some(role.into()), "anna").unwrap();
    (life, node)
}

fn commit(life: &Life) -> RunId {
    let plan = life.executor.plan(&PlanRequest::default()).unwrap();
    assert!(plan.refused.is_empty() && !plan.actions.is_empty(), "{plan:#?}");
    life.executor.commit(&plan.id, &["node-001".into()], "anna").unwrap()
}

/// Recovers the node and holds it to what that promises: the run that it was in has ended, nothing is at work on it, the
/// state is a known one, and a commit leads to ready from there.
async fn recovered(life: &Life, sim: &Sim, node: NodeId, run: Option<RunId>, from: &str) {
    life.executor.recover(node, "anna").unwrap();
    if let Some(run) = run {
        let ended = until("the run has ended", || {
            life.executor.run(run).filter(|run| run.ended.is_some())
        })
        .await;
        let open = ended.actions.values().filter(|stand| !stand.settled()).count();
        assert_eq!(open, 0, "from {from}: {:?}", ended.actions);
    }
    // A machine whose role is known is shown as available as soon as it is looked at again.
    let known = |state: &str| ["discovered", "available"].contains(&state);
    until_node(&life.rack, "a known state", |node| known(node.state.name())).await;
    *sim.hang.lock().unwrap() = None;
    *sim.fail.lock().unwrap() = None;
    let again = commit(life);
    let ended = until("the second run has ended", || {
        life.executor.run(again).filter(|run| run.ended.is_some())
    })
    .await;
    assert_eq!(ended.state, RunState::Done, "from {from}: {:?}", ended.actions);
    until_node(&life.rack, "ready", |node| node.state.name() == "ready").await;
    assert!(
        sim.most_at_once() <= 1,
        "from {from}: two actions at once on one machine"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_recovered_from_every_kind_of_action_under_way() {
    let mut states = BTreeSet::new();
    for (role, kind) in KINDS {
        let folder = tempfile::tempdir().unwrap();
        let sim = Arc::new(Sim::default());
        let (life, node) = bound(folder.path(), &sim, role).await;
        *sim.hang.lock().unwrap() = Some(kind);
        let run = commit(&life);
        tokio::time::timeout(common::PATIENCE, sim.stopped.notified())
            .await
            .expect(kind);
        states.insert(life.state(node));
        recovered(&life, &sim, node, Some(run), kind).await;
        life.kill().await;
    }
    let working = ["configuring", "provisioning"];
    assert!(working.iter().all(|state| states.contains(*state)), "{states:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_recovered_from_the_failure_of_every_kind_of_action() {
    for (role, kind) in KINDS {
        let folder = tempfile::tempdir().unwrap();
        let sim = Arc::new(Sim::default());
        let (life, node) = bound(folder.path(), &sim, role).await;
        *sim.fail.lock().unwrap() = Some(kind);
        let run = commit(&life);
        until_node(&life.rack, "failed", |node| node.state.name() == "failed").await;
        let ended = until("the run has ended", || {
            life.executor.run(run).filter(|run| run.ended.is_some())
        })
        .await;
        let named = ended
            .actions
            .iter()
            .any(|(id, stand)| id.to_string().contains(kind) && matches!(stand, Stand::Failed { .. }));
        assert!(named, "{kind}: {:?}", ended.actions);
        recovered(&life, &sim, node, Some(run), kind).await;
        life.kill().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_planned_kinds_are_those_of_the_table() {
    let folder = tempfile::tempdir().unwrap();
    let sim = Arc::new(Sim::default());
    let (life, node) = bound(folder.path(), &sim, "worker").await;
    for role in ["worker", "spare"] {
        life.executor.bind(node, Some(role.into()), "anna").unwrap();
        let plan = life.executor.plan(&PlanRequest::default()).unwrap();
        for action in &plan.actions {
            let kind = action.kind.name();
            assert!(
                KINDS.iter().any(|row| row.1 == kind),
                "{kind} is planned and missing here"
            );
        }
    }
    life.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_recovered_from_every_state_in_which_nothing_is_under_way() {
    for from in ["available", "maintenance", "ready"] {
        let folder = tempfile::tempdir().unwrap();
        let sim = Arc::new(Sim::default());
        let (life, node) = bound(folder.path(), &sim, "worker").await;
        match from {
            "maintenance" => life.executor.maintenance(node, true, "a fan", "anna").unwrap(),
            "ready" => {
                commit(&life);
            }
            _ => {}
        }
        until_node(&life.rack, from, |node| node.state.name() == from).await;
        recovered(&life, &sim, node, None, from).await;
        life.kill().await;
    }
}

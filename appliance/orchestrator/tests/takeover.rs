//! Intent that changes while a run is under way: a commit takes the node over.
#![allow(clippy::unwrap_used, reason = "a test may unwrap")]

mod common;

use std::sync::Arc;

use common::life::{Life, Sim, Stop};
use common::{until, until_node};
use rackbar_model::NodeId;
use rackbar_orchestrator::executor::PlanRequest;
use rackbar_plan::{Plan, Run, RunId, RunState, Stand};

const ROLES: &str = r##"
version = 1
ssh_keys = ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f test"]

[role.worker]
os = "debian-12"

[role.other]
os = "debian-12"
step = [{ name = "mark", script = "#!/bin/sh\ntrue\n" }]

[role.spare]
memory = "agent"
"##;

impl Life {
    fn become_a(&self, node: NodeId, role: &str) -> Arc<Plan> {
        self.executor.bind(node, Some(role.into()), "anna").unwrap();
        self.executor.plan(&PlanRequest::default()).unwrap()
    }

    async fn ended(&self, run: RunId) -> Arc<Run> {
        until("the run has ended", || {
            self.executor.run(run).filter(|run| run.ended.is_some())
        })
        .await
    }
}

/// A worker whose run stops in the action of this kind until it is given up.
async fn worker(folder: &std::path::Path, kind: &'static str) -> (Life, Arc<Sim>, NodeId, RunId) {
    let sim = Arc::new(Sim::default());
    let (life, node) = Life::first(folder, &sim).await;
    life.executor.set_site(ROLES, "anna").unwrap();
    *sim.hang.lock().unwrap() = Some(kind);
    let plan = life.become_a(node, "worker");
    let run = life.executor.commit(&plan.id, &["node-001".into()], "anna").unwrap();
    tokio::time::timeout(common::PATIENCE, sim.stopped.notified())
        .await
        .expect(kind);
    (life, sim, node, run)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_changed_in_the_middle_of_a_run_is_taken_over_by_the_next_commit() {
    for kind in [
        "agent",
        "disk.erase",
        "os.write",
        "os.setup",
        "boot.order",
        "restart",
        "os.reachable",
        "verify",
    ] {
        let folder = tempfile::tempdir().unwrap();
        let (life, sim, node, first) = worker(folder.path(), kind).await;
        let plan = life.become_a(node, "spare");
        let second = life.executor.commit(&plan.id, &[], "anna").unwrap();
        *sim.hang.lock().unwrap() = None;
        let (old, new) = (life.ended(first).await, life.ended(second).await);
        assert_eq!(old.state, RunState::Superseded, "{kind}");
        assert_eq!(new.state, RunState::Done, "{kind}");
        assert_eq!(
            (old.superseded.get(&node), new.takes.get(&node)),
            (Some(&second), Some(&first))
        );
        let superseded = format!("superseded by run {second}");
        let left = old
            .actions
            .values()
            .filter(|stand| matches!(stand, Stand::Skipped { reason } if reason.contains(&superseded)));
        let done = old.actions.values().filter(|stand| matches!(stand, Stand::Done { .. }));
        assert_eq!(left.count() + done.count(), old.actions.len(), "{:?}", old.actions);
        let began = new.actions.values().all(|stand| matches!(stand, Stand::Done { .. }));
        assert!(began, "{:?}", new.actions);
        let shown = until_node(&life.rack, "ready", |node| node.state.name() == "ready").await;
        assert_eq!(
            shown.role.as_deref(),
            Some("spare"),
            "it shows the role it was worked on for"
        );
        assert!(sim.most_at_once() <= 1, "two actions at once on one machine");
        life.kill().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_under_way_to_the_same_end_is_left_alone_unless_it_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (life, sim, node, first) = worker(folder.path(), "os.write").await;
    let plan = life.executor.plan(&PlanRequest::default()).unwrap();
    assert!(plan.actions.is_empty(), "{:?}", plan.actions);
    assert!(
        plan.left_out
            .iter()
            .any(|left| left.node == node && left.reason.contains(&format!("run {first} ")))
    );
    let request = PlanRequest {
        nodes: Some(vec![node]),
        ..PlanRequest::default()
    };
    let plan = life.executor.plan(&request).unwrap();
    let missing = life.executor.commit(&plan.id, &[], "anna").unwrap_err().to_string();
    assert!(missing.contains("--yes-destroy"), "{missing}");
    assert_eq!(
        life.executor.run(first).unwrap().state,
        RunState::Going,
        "a refused commit leaves the run alone"
    );
    let second = life.executor.commit(&plan.id, &["node-001".into()], "anna").unwrap();
    *sim.hang.lock().unwrap() = None;
    assert_eq!(life.ended(second).await.state, RunState::Done);
    assert_eq!(life.executor.run(first).unwrap().state, RunState::Superseded);
    life.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ended_while_the_node_was_let_go_is_not_done_again_and_nothing_more_is_destroyed() {
    let folder = tempfile::tempdir().unwrap();
    let (life, sim, node, first) = worker(folder.path(), "os.write").await;
    // Planned while nothing is installed; the write, which cannot be undone, ends well all the same.
    let plan = life.become_a(node, "other");
    assert!(plan.actions.iter().any(|action| action.kind.name() == "os.write"));
    *sim.ends_well.lock().unwrap() = true;
    let second = life.executor.commit(&plan.id, &["node-001".into()], "anna").unwrap();
    *sim.hang.lock().unwrap() = None;
    let (old, new) = (life.ended(first).await, life.ended(second).await);
    let done = |run: &Run, kind: &str| {
        let name = run
            .plan
            .actions
            .iter()
            .find(|action| action.kind.name() == kind)
            .map(|action| action.id.clone());
        name.is_some_and(|name| matches!(run.actions[&name], Stand::Done { .. }))
    };
    assert!(done(&old, "os.write"), "{:?}", old.actions);
    assert_eq!(new.state, RunState::Done, "{:?}", new.actions);
    assert_ne!(new.plan.id, plan.id, "it was planned anew from what the write left");
    let before = rackbar_plan::destroys_more(&plan, &new.plan);
    assert!(before.is_empty(), "{before:?}");
    life.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_run_whose_site_changes_before_it_begins_does_nothing_and_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let (life, sim, node, first) = worker(folder.path(), "os.write").await;
    *sim.deaf.lock().unwrap() = true;
    let plan = life.become_a(node, "other");
    let second = life.executor.commit(&plan.id, &["node-001".into()], "anna").unwrap();
    assert_eq!(life.executor.run(second).unwrap().state, RunState::Waiting);
    life.executor.set_site(&ROLES.replace("true", "false"), "anna").unwrap();
    sim.wake.notify_waiters();
    let (old, new) = (life.ended(first).await, life.ended(second).await);
    assert_eq!((old.state, new.state), (RunState::Superseded, RunState::Failed));
    assert!(
        new.actions
            .values()
            .all(|stand| matches!(stand, Stand::Skipped { reason } if reason.contains("site file")))
    );
    life.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_recovered_out_of_both_runs_while_one_waits_for_the_other() {
    let folder = tempfile::tempdir().unwrap();
    let (life, sim, node, first) = worker(folder.path(), "os.write").await;
    *sim.deaf.lock().unwrap() = true;
    let plan = life.become_a(node, "spare");
    let second = life.executor.commit(&plan.id, &[], "anna").unwrap();
    life.executor.recover(node, "anna").unwrap();
    assert_eq!(life.ended(second).await.state, RunState::Failed);
    sim.wake.notify_waiters();
    assert_eq!(life.ended(first).await.state, RunState::Superseded);
    until_node(&life.rack, "available", |node| node.state.name() == "available").await;
    life.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_every_step_of_a_takeover_both_runs_end_and_the_node_is_ready() {
    // While the old attempt does not hear (0) or is just being told (1); before and after each attempt of the new run.
    for cut in 0..6 {
        let folder = tempfile::tempdir().unwrap();
        let (life, sim, node, first) = worker(folder.path(), "os.write").await;
        let plan = life.become_a(node, "spare");
        *sim.deaf.lock().unwrap() = cut == 0;
        let next = *sim.begun.lock().unwrap() + 1;
        *sim.stop.lock().unwrap() = match cut {
            2 => Some(Stop::Before(next)),
            3 => Some(Stop::After(next)),
            4 => Some(Stop::Before(next + 1)),
            5 => Some(Stop::After(next + 1)),
            _ => None,
        };
        let second = life.executor.commit(&plan.id, &[], "anna").unwrap();
        if cut >= 2 {
            tokio::time::timeout(common::PATIENCE, sim.stopped.notified())
                .await
                .expect("an attempt of the new run");
        }
        let written = life.executor.run(second).unwrap();
        life.kill().await;
        *sim.stop.lock().unwrap() = None;
        *sim.deaf.lock().unwrap() = false;
        let life = Life::start(folder.path(), &sim).await;
        let (old, new) = (life.ended(first).await, life.ended(second).await);
        assert_eq!(old.superseded.get(&node), Some(&second), "cut {cut}: {old:?}");
        assert!(
            matches!(old.state, RunState::Superseded | RunState::Done),
            "cut {cut}: {:?}",
            old.state
        );
        assert_eq!(
            new.state,
            RunState::Done,
            "cut {cut}, was {:?}: {:?}",
            written.state,
            new.actions
        );
        assert!(sim.most_at_once() <= 1, "cut {cut}");
        life.kill().await;
    }
}

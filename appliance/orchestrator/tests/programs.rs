//! Programs of the users across plans and runs: what was committed keeps the program that it was made with, and what was
//! only planned does not outlive it.
#![allow(clippy::unwrap_used, reason = "a test may unwrap")]

mod common;

use std::sync::Arc;

use common::life::{Life, Sim};
use common::{until, until_node};
use rackbar_artifacts::ProgramError;
use rackbar_artifacts::programs::InUse;
use rackbar_model::{Digest, ProgramEntry};
use rackbar_orchestrator::executor::{CommitError, PlanRequest};
use rackbar_plan::{RunId, RunState};

const SITE: &str = r##"
version = 1
ssh_keys = ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f test"]
[role.worker]
os = "debian-12"
step = [{ name = "join", program = "node-setup", arguments = ["now"] }]
[[rule]]
name = "all"
role = "worker"
when = "true"
"##;

/// The same, and a role without the program, which no rule gives.
fn roles() -> String {
    format!("{SITE}[role.bare]\nos = \"debian-12\"\n")
}

/// The smallest static program that the store takes: a header, one part, and a byte that tells it from others.
fn program(fill: u8) -> Vec<u8> {
    let mut file = vec![0; 4096];
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"\x7fELF\x02\x01\x01");
    put(16, &[2, 0, 62, 0, 1]);
    put(24, &0x40_0100u64.to_le_bytes());
    put(32, &[64]);
    put(52, &[64, 0, 56, 0, 1]);
    put(64, &[1, 0, 0, 0, 5]);
    put(80, &0x40_0000u64.to_le_bytes());
    put(96, &4096u64.to_le_bytes());
    put(104, &4096u64.to_le_bytes());
    put(4095, &[fill]);
    file
}

fn put(life: &Life, fill: u8) -> Arc<ProgramEntry> {
    let mut upload = life.programs.begin("node-setup").unwrap();
    upload.write(&program(fill)).unwrap();
    let placed = upload.finish(None).unwrap();
    life.programs.sweep(&life.executor.programs_in_use());
    placed.entry
}

fn is_here(life: &Life, sha256: &Digest) -> bool {
    life.programs.content(sha256).is_ok()
}

async fn done(life: &Life, run: RunId) {
    let ended = until("the run has ended", || {
        life.executor.run(run).filter(|run| run.ended.is_some())
    });
    assert_eq!(ended.await.state, RunState::Done);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_without_its_program_is_not_possible_and_one_whose_program_changed_is_stale() {
    let folder = tempfile::tempdir().unwrap();
    let (life, _) = Life::first(folder.path(), &Arc::new(Sim::default())).await;
    life.executor.set_site(SITE, "anna").unwrap();
    until_node(&life.rack, "it has its role", |node| node.role.is_some()).await;
    let plan = || life.executor.plan(&PlanRequest::default()).unwrap();
    let refused = plan();
    assert!(refused.actions.is_empty(), "{:?}", refused.actions);
    assert!(
        refused.refused[0].reason.contains("rackbar program add"),
        "{:?}",
        refused.refused
    );
    let stale = |plan: &rackbar_plan::Plan, words: &str| {
        let error = life
            .executor
            .commit(&plan.id, &["node-001".into()], "anna")
            .unwrap_err();
        let CommitError::Stale(changed) = &error else {
            panic!("{error}");
        };
        assert!(changed.iter().any(|line| line.contains(words)), "{words}: {changed:?}");
    };
    put(&life, 1);
    let first = plan();
    put(&life, 2);
    stale(&first, "the program node-setup is another now");
    let second = plan();
    assert_ne!(first.id, second.id);
    life.programs
        .remove("node-setup", &life.executor.programs_in_use())
        .unwrap();
    stale(&second, "the program node-setup is no longer here");
    life.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_keeps_its_program_across_an_upload_under_the_name_and_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let sim = Arc::new(Sim::default());
    let (life, node) = Life::first(folder.path(), &sim).await;
    life.executor.set_site(SITE, "anna").unwrap();
    until_node(&life.rack, "it has its role", |node| node.role.is_some()).await;
    let old = put(&life, 1);
    *sim.hang.lock().unwrap() = Some("step");
    let plan = life.executor.plan(&PlanRequest::default()).unwrap();
    let run = life.executor.commit(&plan.id, &["node-001".into()], "anna").unwrap();
    tokio::time::timeout(common::PATIENCE, sim.stopped.notified())
        .await
        .unwrap();
    let used = InUse::from([("node-setup".to_owned(), old.sha256)]);
    assert_eq!(life.executor.programs_in_use(), used);
    let refused = life.programs.remove("node-setup", &life.executor.programs_in_use());
    assert!(matches!(refused, Err(ProgramError::InUse(_))), "{refused:?}");

    let new = put(&life, 2);
    assert!(is_here(&life, &old.sha256) && is_here(&life, &new.sha256));
    let pinned = life.executor.run(run).unwrap();
    let pinned = pinned
        .plan
        .actions
        .iter()
        .find_map(|action| action.kind.program())
        .unwrap();
    assert_eq!(pinned.sha256, old.sha256, "a plan is what it was");

    // Another life takes the run up, and still knows what it needs.
    life.kill().await;
    *sim.hang.lock().unwrap() = None;
    let life = Life::start(folder.path(), &sim).await;
    assert!(is_here(&life, &old.sha256), "nothing goes before the runs are known");
    done(&life, run).await;
    life.programs.sweep(&life.executor.programs_in_use());
    assert!(!is_here(&life, &old.sha256) && is_here(&life, &new.sha256));
    // What was run is not what is there now: the step is to be run again, and only that.
    until_node(&life.rack, "ready", |node| node.state.name() == "ready").await;
    let request = PlanRequest {
        nodes: Some(vec![node]),
        ..PlanRequest::default()
    };
    let again = life.executor.plan(&request).unwrap();
    let pinned = again.actions.iter().find_map(|action| action.kind.program());
    assert_eq!(pinned.map(|program| program.sha256), Some(new.sha256), "{again:?}");
    assert!(again.destructive().is_empty());
    life.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_waits_for_a_node_is_planned_anew_with_the_program_that_it_was_committed_with() {
    let folder = tempfile::tempdir().unwrap();
    let sim = Arc::new(Sim::default());
    let (life, node) = Life::first(folder.path(), &sim).await;
    life.executor.set_site(&roles(), "anna").unwrap();
    let plan = |role: &str| {
        life.executor.bind(node, Some(role.into()), "anna").unwrap();
        life.executor.plan(&PlanRequest::default()).unwrap()
    };
    let commit = |plan: &rackbar_plan::Plan| life.executor.commit(&plan.id, &["node-001".into()], "anna").unwrap();
    let old = put(&life, 1);
    *sim.hang.lock().unwrap() = Some("os.write");
    let first = commit(&plan("bare"));
    tokio::time::timeout(common::PATIENCE, sim.stopped.notified())
        .await
        .unwrap();
    // The write does not hear that it is given up, and ends well: what the second run finds is not what it planned for.
    (*sim.deaf.lock().unwrap(), *sim.ends_well.lock().unwrap()) = (true, true);
    let planned = plan("worker");
    let second = commit(&planned);
    assert_eq!(life.executor.run(second).unwrap().state, RunState::Waiting);
    let refused = life.programs.remove("node-setup", &life.executor.programs_in_use());
    assert!(matches!(refused, Err(ProgramError::InUse(_))), "{refused:?}");
    let new = put(&life, 2);
    *sim.hang.lock().unwrap() = None;
    sim.wake.notify_waiters();
    done(&life, second).await;
    assert_eq!(life.executor.run(first).unwrap().state, RunState::Superseded);
    let ran = life.executor.run(second).unwrap();
    assert_ne!(ran.plan.id, planned.id, "it was planned anew");
    let pinned = ran
        .plan
        .actions
        .iter()
        .find_map(|action| action.kind.program())
        .unwrap();
    assert_eq!(pinned.sha256, old.sha256, "whoever committed it looked at this program");
    assert_ne!(pinned.sha256, new.sha256);
    life.kill().await;
}

//! What people order while a run is under way: pause and resume, also of a run that still waits and across a restart of the
//! appliance.
#![allow(clippy::unwrap_used, reason = "a test may unwrap")]

mod common;

use std::sync::Arc;

use common::life::{Life, Sim, Stop};
use common::{PATIENCE, until};
use rackbar_model::NodeId;
use rackbar_orchestrator::executor::RunOrder;
use rackbar_plan::{Run, RunId, RunState, Stand};

async fn stopped(sim: &Sim) {
    tokio::time::timeout(PATIENCE, sim.stopped.notified())
        .await
        .expect("an attempt begins");
}

/// How many actions of a run are done, and how many wait.
fn count(run: &Run) -> (usize, usize) {
    let stands = || run.actions.values();
    (
        stands().filter(|stand| matches!(stand, Stand::Done { .. })).count(),
        stands().filter(|stand| **stand == Stand::Waiting).count(),
    )
}

/// The run when what was under way has ended: all of it is done or waits.
async fn at_rest(life: &Life, run: RunId) -> Arc<Run> {
    until("what runs has ended", || {
        let run = life.executor.run(run)?;
        let (done, waiting) = count(&run);
        (done + waiting == run.actions.len() && run.state != RunState::Waiting).then_some(run)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_run_ends_what_runs_begins_nothing_and_goes_on_when_it_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let sim = Arc::new(Sim::default());
    let (life, node) = Life::first(folder.path(), &sim).await;
    *sim.gate.lock().unwrap() = Some("os.write");
    let run = life.commit(node);
    stopped(&sim).await;
    let paused = life.executor.order(run, RunOrder::Pause, "anna").unwrap();
    assert_eq!(paused.state, RunState::Paused);
    let (done, waiting) = count(&paused);
    assert_eq!(done + waiting + 1, paused.actions.len(), "one is under way");
    sim.wake.notify_waiters();
    let rested = at_rest(&life, run).await;
    assert_eq!(rested.state, RunState::Paused);
    assert_eq!(
        count(&rested),
        (done + 1, waiting),
        "what ran has ended, and nothing was begun"
    );
    assert_eq!(life.state(node), "provisioning");
    let resumed = life.executor.order(run, RunOrder::Resume, "anna").unwrap();
    assert_eq!(resumed.state, RunState::Going);
    assert_eq!(life.run_ended(run).await.state, RunState::Done);
    assert_eq!(life.state(node), "ready");
    life.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_stays_paused_when_the_appliance_restarts() {
    let folder = tempfile::tempdir().unwrap();
    let sim = Arc::new(Sim::default());
    let (life, node) = Life::first(folder.path(), &sim).await;
    *sim.stop.lock().unwrap() = Some(Stop::Before(3));
    let run = life.commit(node);
    stopped(&sim).await;
    life.executor.order(run, RunOrder::Pause, "anna").unwrap();
    *sim.stop.lock().unwrap() = None;
    life.kill().await;
    let life = Life::start(folder.path(), &sim).await;
    // What was under way is taken up and ends.
    let rested = at_rest(&life, run).await;
    assert_eq!(rested.state, RunState::Paused);
    assert_eq!(count(&rested), (3, rested.actions.len() - 3), "{:?}", rested.actions);
    life.kill().await;
    let life = Life::start(folder.path(), &sim).await;
    let still = life.executor.run(run).unwrap();
    assert_eq!((still.state, &still.actions), (RunState::Paused, &rested.actions));
    life.executor.order(run, RunOrder::Resume, "anna").unwrap();
    assert_eq!(life.run_ended(run).await.state, RunState::Done);
    assert_eq!(life.state(node), "ready");
    life.kill().await;
}

/// A run that hangs, and one that waits for it and is paused.
async fn held(life: &Life, sim: &Sim, node: NodeId) -> (RunId, RunId) {
    *sim.hang.lock().unwrap() = Some("os.write");
    *sim.deaf.lock().unwrap() = true;
    let first = life.commit(node);
    stopped(sim).await;
    let second = life.commit(node);
    let told = life.executor.order(second, RunOrder::Pause, "anna").unwrap();
    assert_eq!((told.state, told.held), (RunState::Waiting, true));
    (first, second)
}

async fn lets_go(life: &Life, sim: &Sim, first: RunId) {
    *sim.hang.lock().unwrap() = None;
    sim.wake.notify_waiters();
    assert_eq!(life.run_ended(first).await.state, RunState::Superseded);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_paused_while_it_waits_for_another_begins_paused() {
    let folder = tempfile::tempdir().unwrap();
    let sim = Arc::new(Sim::default());
    let (life, node) = Life::first(folder.path(), &sim).await;
    let (first, second) = held(&life, &sim, node).await;
    lets_go(&life, &sim, first).await;
    let rested = at_rest(&life, second).await;
    assert_eq!(
        (rested.state, rested.held, count(&rested).0),
        (RunState::Paused, false, 0),
        "nothing is begun"
    );
    life.executor.order(second, RunOrder::Resume, "anna").unwrap();
    assert_eq!(life.run_ended(second).await.state, RunState::Done);

    // Resumed before it could begin, it begins by itself.
    let (first, second) = held(&life, &sim, node).await;
    let told = life.executor.order(second, RunOrder::Resume, "anna").unwrap();
    assert_eq!((told.state, told.held), (RunState::Waiting, false));
    lets_go(&life, &sim, first).await;
    assert_eq!(life.run_ended(second).await.state, RunState::Done);
    life.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_paused_while_it_waits_begins_paused_after_a_restart_too() {
    let folder = tempfile::tempdir().unwrap();
    let sim = Arc::new(Sim::default());
    let (life, node) = Life::first(folder.path(), &sim).await;
    let (first, second) = held(&life, &sim, node).await;
    life.kill().await;
    let life = Life::start(folder.path(), &sim).await;
    stopped(&sim).await;
    assert!(life.executor.run(second).unwrap().held);
    lets_go(&life, &sim, first).await;
    let rested = at_rest(&life, second).await;
    assert_eq!((rested.state, count(&rested).0), (RunState::Paused, 0));
    life.kill().await;
}

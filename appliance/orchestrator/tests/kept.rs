//! How much is kept of runs that have ended: as much after years of daily checks as after a month.
#![allow(clippy::unwrap_used, reason = "a test may unwrap")]

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;

use common::life::{Life, Sim};
use rackbar_orchestrator::Rack;
use rackbar_store::Table;

/// More than are kept.
const RUNS: usize = 40;

/// What the appliance keeps.
const KEPT: usize = 32;

/// Numbers of the runs of which the store has anything.
fn stored(rack: &Rack) -> BTreeSet<String> {
    let records = rack.store().list(Table::Work).unwrap();
    let keys = records.iter().map(|(key, _)| String::from_utf8_lossy(key).into_owned());
    let runs = keys.filter_map(|key| Some(key.strip_prefix("run/")?.split('/').next()?.to_owned()));
    runs.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_oldest_ended_runs_are_let_go_of_when_another_ends_and_not_at_the_next_start_alone() {
    let folder = tempfile::tempdir().unwrap();
    let sim = Arc::new(Sim::default());
    let (life, node) = Life::first(folder.path(), &sim).await;
    life.make_ready(node).await;
    let mut last = None;
    for _ in 0..RUNS {
        let run = life.executor.verify(Some(vec![node]), "anna").unwrap();
        life.run_ended(run).await;
        last = Some(run);
    }
    let runs = life.executor.runs();
    assert_eq!(runs.len(), KEPT);
    assert_eq!(runs.last().map(|run| run.id), last, "the newest is kept");
    let first = runs[0].id;
    common::until("the store has let go too", || {
        (stored(&life.rack).len() == KEPT).then_some(())
    })
    .await;
    life.kill().await;
    let life = Life::start(folder.path(), &sim).await;
    let again = life.executor.runs();
    assert_eq!((again.len(), again[0].id), (KEPT, first));
    assert_eq!(life.state(node), "ready");
    let run = life.executor.verify(Some(vec![node]), "anna").unwrap();
    assert!(Some(run) > last, "no number is given twice");
    life.kill().await;
}

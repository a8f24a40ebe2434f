//! Runs of the store that are not gone on with: of a state that was put in from an export, and those with a record that
//! cannot be read.
#![allow(clippy::unwrap_used, reason = "a test may unwrap")]

mod common;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use common::life::{Life, Sim, hardware};
use common::{Server, boot, mac, site, until};
use rackbar_model::NodeId;
use rackbar_plan::{RunId, RunState, Stand};
use rackbar_store::{Store, Table};

/// A life that ended while an image was being written; its disks were emptied before that.
async fn cut_off(folder: &Path, sim: &Arc<Sim>) -> (NodeId, RunId) {
    *sim.hang.lock().unwrap() = Some("os.write");
    let (life, node) = Life::first(folder, sim).await;
    let run = life.commit(node);
    sim.stopped.notified().await;
    until("it is written down that the image is being written", || {
        let run = life.executor.run(run)?;
        let writes = |(id, stand): (&rackbar_plan::ActionId, &Stand)| {
            id.0.ends_with("os.write") && matches!(stand, Stand::Running(_))
        };
        run.actions.iter().any(writes).then_some(())
    })
    .await;
    life.kill().await;
    *sim.hang.lock().unwrap() = None;
    (node, run)
}

/// A later life, with the machine's agent.
async fn again(folder: &Path, sim: &Arc<Sim>) -> Life {
    let (mut life, site) = (Life::start(folder, sim).await, site());
    let server = Server::start(&site, life.rack.clone(), Duration::from_secs(600)).await;
    let (agent, _) = boot(&site, &server, &[mac(1)], hardware(1, 20)).await;
    life.machine = Some((server, agent, site));
    life
}

/// Puts this in the place of each record whose key ends so.
async fn spoil(folder: &Path, ending: &str, value: &[u8]) -> usize {
    let path = folder.join("rackbar.redb");
    let store = until("the store of the life before is closed", || Store::open(&path).ok()).await;
    let keys = store.list(Table::Work).unwrap().into_iter().map(|(key, _)| key);
    let keys: Vec<Vec<u8>> = keys.filter(|key| key.ends_with(ending.as_bytes())).collect();
    keys.iter().for_each(|key| store.put(Table::Work, key, value).unwrap());
    store.close();
    keys.len()
}

fn words(stand: &Stand) -> &str {
    match stand {
        Stand::Skipped { reason } | Stand::Failed { reason, .. } => reason,
        _ => "",
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_of_a_state_that_was_put_in_end_before_anything_of_them_is_done() {
    let folder = tempfile::tempdir().unwrap();
    let sim = Arc::new(Sim::default());
    let (node, run) = cut_off(folder.path(), &sim).await;
    let begun = *sim.begun.lock().unwrap();
    // A start that is cut off after this one finds the state put in again; the one after that does not.
    for put_in in [true, true, false] {
        *sim.put_in.lock().unwrap() = put_in;
        let life = Life::start(folder.path(), &sim).await;
        assert!(life.executor.is_written());
        let left = life.executor.run(run).unwrap();
        assert!(
            left.ended.is_some() && left.state == RunState::Failed,
            "{:?}",
            left.state
        );
        let open: Vec<&Stand> = left
            .actions
            .values()
            .filter(|stand| !matches!(stand, Stand::Done { .. }))
            .collect();
        assert!(open.len() > 1, "{open:?}");
        let says = |stand: &&Stand| words(stand).contains("this state was put in from an export; plan again");
        assert!(open.iter().all(says), "{open:?}");
        assert_eq!(*sim.begun.lock().unwrap(), begun, "nothing of it is acted on");
        assert_eq!(life.state(node), "discovered");
        life.kill().await;
    }
    let life = again(folder.path(), &sim).await;
    let next = life.commit(node);
    assert_eq!(next, RunId(run.0 + 1));
    assert_eq!(life.run_ended(next).await.state, RunState::Done);
    life.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_with_a_record_that_cannot_be_read_is_shown_failed_and_not_walked() {
    for (ending, action) in [("/disk.erase", "/disk.erase"), ("/plan", "/record"), ("/head", "")] {
        let folder = tempfile::tempdir().unwrap();
        let sim = Arc::new(Sim::default());
        let (node, run) = cut_off(folder.path(), &sim).await;
        let begun = *sim.begun.lock().unwrap();
        assert!(
            spoil(folder.path(), ending, b"{\"of a later form\":1}").await > 0,
            "{ending}"
        );
        for start in ["first", "next"] {
            let life = Life::start(folder.path(), &sim).await;
            let left = life.executor.run(run).unwrap();
            assert!(
                left.ended.is_some() && left.state == RunState::Failed,
                "{ending} {start}"
            );
            assert!(left.actions.values().all(Stand::settled), "{ending} {start}: {left:?}");
            let failed = |(id, stand): (&rackbar_plan::ActionId, &Stand)| {
                id.0.ends_with(action)
                    && matches!(stand, Stand::Failed { advice, .. } if advice.contains("plan and commit again"))
            };
            assert!(
                action.is_empty() || left.actions.iter().any(failed),
                "{ending} {start}: {:?}",
                left.actions
            );
            assert_eq!(*sim.begun.lock().unwrap(), begun, "{ending} {start}");
            life.kill().await;
        }
        let life = Life::start(folder.path(), &sim).await;
        assert_eq!(
            life.commit(node),
            RunId(run.0 + 1),
            "{ending}: its number stays its own"
        );
        life.kill().await;
    }
}

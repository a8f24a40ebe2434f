//! Runs of the store that are not gone on with: of a state that was put in from an export, and those with a record that
//! cannot be read.
#![allow(clippy::unwrap_used, reason = "a test may unwrap")]

mod common;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use common::life::{Life, Sim, hardware};
use common::{Server, boot, mac, site, until, until_node};
use rackbar_model::NodeId;
use rackbar_orchestrator::executor::{Install, PlanRequest};
use rackbar_plan::{ActionKind, RunId, RunState, Stand};
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
async fn again(folder: &Path, sim: &Arc<Sim>, node: NodeId) -> Life {
    let (mut life, site) = (Life::start(folder, sim).await, site());
    let server = Server::start(&site, life.rack.clone(), Duration::from_secs(600)).await;
    let (agent, welcome) = boot(&site, &server, &[mac(1)], hardware(1, 20)).await;
    life.machine = Some((server, agent, site));
    assert_eq!(welcome.node, node, "{:?}", life.rack.nodes());
    until_node(&life.rack, "its agent", |one| one.id == node && one.agent_connected).await;
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
    let life = again(folder.path(), &sim, node).await;
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
            assert_eq!(life.state(node), "discovered", "{ending} {start}");
            life.kill().await;
        }
        let life = again(folder.path(), &sim, node).await;
        assert_eq!(
            life.commit(node),
            RunId(run.0 + 1),
            "{ending}: its number stays its own"
        );
        life.kill().await;
    }
}

/// The attempt is written down as under way and what it needs of the node is not, as a power cut left it between two commits.
#[tokio::test(flavor = "multi_thread")]
async fn what_an_attempt_needs_of_its_node_is_true_again_when_it_is_taken_up() {
    let folder = tempfile::tempdir().unwrap();
    let sim = Arc::new(Sim::default());
    let (life, node) = Life::first(folder.path(), &sim).await;
    life.make_ready(node).await;
    let plan = life
        .executor
        .plan(&PlanRequest {
            nodes: Some(vec![node]),
            reinstall: true,
            install: Some(Install {
                os: "debian-12".into(),
                ssh_keys: vec!["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGv0 me".into()],
                ..Install::default()
            }),
            ..PlanRequest::default()
        })
        .unwrap();
    let first = plan.actions.iter().find(|action| action.node == Some(node)).unwrap();
    assert!(matches!(first.kind, ActionKind::Agent { .. }), "{:?}", first.kind);
    *sim.hang.lock().unwrap() = Some(first.kind.name());
    let run = life.executor.commit(&plan.id, &[node.to_string()], "anna").unwrap();
    sim.stopped.notified().await;
    until("it is under way", || life.executor.run(run)).await;
    life.kill().await;
    let path = folder.path().join("rackbar.redb");
    let store = until("the store of the life before is closed", || Store::open(&path).ok()).await;
    let key = format!("node/{node}").into_bytes();
    let mut work: serde_json::Value = serde_json::from_slice(&store.get(Table::Work, &key).unwrap().unwrap()).unwrap();
    assert_eq!(work["boots_disk"], false);
    work["boots_disk"] = true.into();
    store
        .put(Table::Work, &key, &serde_json::to_vec(&work).unwrap())
        .unwrap();
    store.close();
    drop(store);
    let life = Life::start(folder.path(), &sim).await;
    sim.stopped.notified().await;
    let kept = life.rack.store().get(Table::Work, &key).unwrap().unwrap();
    let kept: serde_json::Value = serde_json::from_slice(&kept).unwrap();
    assert_eq!(kept["boots_disk"], false, "its agent is what it is to boot");
    life.kill().await;
}

/// A commit that cannot be written down begins nothing, and takes nothing along that waits for the disk.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_cannot_be_written_loses_nothing_that_waits_for_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let sim = Arc::new(Sim::default());
    let (life, node) = Life::first(folder.path(), &sim).await;
    let site = "version = 1\n[role.worker]\nos = \"debian-12\"\n";
    life.executor.set_site(site, "anna").unwrap();
    let plan = life.install(node);
    assert!(life.executor.is_written());
    life.rack.store().close();
    assert!(life.executor.bind(node, Some("worker".into()), "anna").is_err());
    assert!(!life.executor.is_written());
    let name = life.rack.node(&node.to_string()).unwrap().name.clone();
    assert!(life.executor.commit(&plan.id, &[name], "anna").is_err());
    assert!(life.executor.runs().is_empty());
    assert!(!life.executor.is_written(), "the binding still waits to be written");
}

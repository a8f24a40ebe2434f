//! Runs of the executor with a real store and a real view of nodes; only the hands are simulated.
#![allow(clippy::unwrap_used, reason = "a test may unwrap")]

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{boot, mac, machine, rack, site, until, until_node};
use rackbar_artifacts::Artifacts;
use rackbar_artifacts::images::{ImageMeta, Images};
use rackbar_messages::JobId;
use rackbar_model::{Disk, DiskBus, Inventory, NodeId, Timestamp};
use rackbar_orchestrator::Rack;
use rackbar_orchestrator::executor::{CommitError, Executor, Install, Parts, PlanRequest, RunOrder};
use rackbar_orchestrator::hands::{Done, Hands, Learned, Task, Working};
use rackbar_plan::engine::Bounds;
use rackbar_plan::{ActionKind, RunState};
use rackbar_store::Store;
use rackbar_trust::SigningKey;
use rackbar_verify::NodeReport;
use tokio::sync::Notify;

/// Where an attempt stops for ever: before or after its work.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stop {
    Before(usize),
    After(usize),
}

/// Machines that do all they are told.
#[derive(Default)]
struct Sim {
    /// What was done, by job: an agent answers for one number once.
    done: Mutex<BTreeMap<JobId, String>>,
    begun: Mutex<usize>,
    stop: Mutex<Option<Stop>>,
    stopped: Notify,
    /// Kinds that wait until they are given up.
    hang: Mutex<Option<&'static str>>,
}

impl Hands for Sim {
    fn carry_out(&self, mut task: Task) -> Working<'_> {
        Box::pin(async move {
            let action = task.action().unwrap().clone();
            let number = {
                let mut begun = self.begun.lock().unwrap();
                *begun += 1;
                *begun
            };
            let stop = *self.stop.lock().unwrap();
            if stop == Some(Stop::Before(number)) {
                self.stopped.notify_one();
                return std::future::pending().await;
            }
            if *self.hang.lock().unwrap() == Some(action.kind.name()) {
                self.stopped.notify_one();
                task.give_up.wait_for(|give_up| *give_up).await.unwrap();
                return Done::failed("given up", "none", true);
            }
            self.done
                .lock()
                .unwrap()
                .entry(task.job)
                .or_insert_with(|| action.kind.name().into());
            if stop == Some(Stop::After(number)) {
                self.stopped.notify_one();
                return std::future::pending().await;
            }
            let done = Done::well("done");
            match &action.kind {
                ActionKind::WriteImage {
                    target, image, sha256, ..
                } => done.and(Learned::Written {
                    image: image.clone(),
                    sha256: *sha256,
                    target: target.clone(),
                }),
                ActionKind::Setup { setup, .. } => done.and(Learned::SetUp {
                    setup: setup.clone(),
                    host_key: "ssh-ed25519 AAAA".into(),
                }),
                ActionKind::Verify { .. } => done.and(Learned::Checked(Box::new(NodeReport {
                    node: action.node.unwrap(),
                    name: "n".into(),
                    role: None,
                    serial: None,
                    image: None,
                    plan: None,
                    run: Some(task.run.0),
                    checks: vec![rackbar_model::CheckResult {
                        id: "disk.layout".into(),
                        status: rackbar_model::CheckStatus::Passed,
                        wanted: "x".into(),
                        observed: "x".into(),
                        advice: String::new(),
                        at: Timestamp(1),
                        millis: 1,
                    }],
                    erased: Vec::new(),
                }))),
                _ => done,
            }
        })
    }
}

/// A machine with one disk.
fn hardware(number: u8, gib: u64) -> Inventory {
    let uuid = format!("4c4c4544-0001-0001-8001-00000000000{number}");
    let mut inventory = machine(&[mac(number)], &format!("SN{number}"), &uuid);
    inventory.disks.push(Disk {
        name: "vda".into(),
        size_bytes: gib << 30,
        serial: Some(format!("DISK{number}")),
        bus: DiskBus::Nvme,
        ..Disk::default()
    });
    inventory
}

/// An appliance on a folder: its store, its view, its executor.
struct Life {
    rack: Rack,
    executor: Executor,
    images: Arc<Images>,
    /// The machine's agent and who it is connected to; only the first life has one.
    machine: Option<(common::Server, common::Agent, common::Site)>,
}

impl Life {
    /// Starts on what the folder holds. The writer of an earlier life may still be closing the file.
    async fn start(folder: &Path, sim: &Arc<Sim>) -> Self {
        let path = folder.join("rackbar.redb");
        let store = until("the store of the life before is closed", || Store::open(&path).ok()).await;
        let rack = rack(store.clone());
        let images = folder.join("images");
        std::fs::create_dir_all(&images).unwrap();
        let images = Arc::new(Images::open(&images, 1 << 30, Arc::new(Artifacts::new())).unwrap());
        let parts = Parts {
            hands: sim.clone(),
            images: Some(images.clone()),
            services: Default::default(),
            bounds: Bounds::default(),
            signer: Arc::new(SigningKey::generate().unwrap().0),
            site_name: "test".into(),
        };
        let executor = Executor::start(rack.clone(), store, parts).unwrap();
        images.settle();
        Self {
            rack,
            executor,
            images,
            machine: None,
        }
    }

    /// The first life: one machine with one disk, discovered, and an image.
    async fn first(folder: &Path, sim: &Arc<Sim>) -> (Self, NodeId) {
        let mut life = Self::start(folder, sim).await;
        let site = site();
        let server = common::Server::start(&site, life.rack.clone(), Duration::from_secs(600)).await;
        let (agent, welcome) = boot(&site, &server, &[mac(1)], hardware(1, 20)).await;
        life.machine = Some((server, agent, site));
        let meta = ImageMeta {
            name: "debian-12".into(),
            ..ImageMeta::default()
        };
        let mut raw = vec![0; 1 << 20];
        (raw[510], raw[511]) = (0x55, 0xaa);
        let mut upload = life.images.begin(meta).unwrap();
        upload.write(&raw).unwrap();
        upload.finish(None).unwrap();
        (life, welcome.node)
    }

    /// Everything ends, as in a power cut.
    async fn kill(self) {
        if let Some((server, agent, _)) = self.machine {
            drop(agent);
            server.stop().await;
        }
    }

    fn install(&self, node: NodeId) -> Arc<rackbar_plan::Plan> {
        let request = PlanRequest {
            nodes: Some(vec![node]),
            reinstall: false,
            install: Some(Install {
                os: "debian-12".into(),
                ssh_keys: vec!["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGv0 me".into()],
                ..Install::default()
            }),
        };
        let plan = self.executor.plan(&request).unwrap();
        assert!(plan.refused.is_empty() && !plan.actions.is_empty(), "{plan:#?}");
        plan
    }

    fn commit(&self, node: NodeId) -> rackbar_plan::RunId {
        let plan = self.install(node);
        let name = self.rack.node(&node.to_string()).unwrap().name.clone();
        self.executor.commit(&plan.id, &[name], "test").unwrap()
    }

    fn state(&self, node: NodeId) -> String {
        self.rack.node(&node.to_string()).unwrap().state.name().into()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_installed_checked_reported_and_ready() {
    let folder = tempfile::tempdir().unwrap();
    let sim = Arc::new(Sim::default());
    let (life, node) = Life::first(folder.path(), &sim).await;
    let plan = life.install(node);
    let refused = life.executor.commit(&plan.id, &[], "test").unwrap_err();
    assert!(
        matches!(&refused, CommitError::Consent { missing } if missing.len() == 1),
        "{refused}"
    );
    assert!(life.executor.runs().is_empty());
    let run = life.commit(node);
    until_node(&life.rack, "ready", |node| node.state.name() == "ready").await;
    let ended = until("the run has ended", || {
        life.executor.run(run).filter(|run| run.ended.is_some())
    })
    .await;
    assert_eq!(ended.state, RunState::Done);
    let report = life.executor.report(node).unwrap();
    assert!(rackbar_verify::check(&report.to_bytes(), None).unwrap().report.passed());
    assert!(life.rack.node(&node.to_string()).unwrap().installed.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_every_action_boundary_the_node_still_ends_ready() {
    let steps = {
        let folder = tempfile::tempdir().unwrap();
        let sim = Arc::new(Sim::default());
        let (life, node) = Life::first(folder.path(), &sim).await;
        life.install(node).actions.len()
    };
    let folder = tempfile::tempdir().unwrap();
    let sim = Arc::new(Sim::default());
    let (mut life, node) = Life::first(folder.path(), &sim).await;
    // One run, many kills: each action is killed once before and once after its work.
    *sim.stop.lock().unwrap() = Some(Stop::Before(1));
    let run = life.commit(node);
    for step in 0..steps {
        for after in [false, true] {
            tokio::time::timeout(common::PATIENCE, sim.stopped.notified())
                .await
                .expect("an attempt begins");
            // Taken up, it is asked for again: once to be killed after its work, once to end.
            let next = *sim.begun.lock().unwrap() + 1;
            *sim.stop.lock().unwrap() = Some(if after {
                Stop::Before(next + 1)
            } else {
                Stop::After(next)
            });
            life.kill().await;
            life = Life::start(folder.path(), &sim).await;
        }
        assert!(sim.done.lock().unwrap().len() <= step + 2);
    }
    until_node(&life.rack, "ready", |node| node.state.name() == "ready").await;
    let ended = until("the run has ended", || {
        life.executor.run(run).filter(|run| run.ended.is_some())
    })
    .await;
    assert_eq!(ended.state, RunState::Done);
    let done = sim.done.lock().unwrap();
    assert_eq!(
        done.len(),
        steps,
        "no action is lost, and none has a second job: {done:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_whose_inputs_changed_is_refused_and_says_which() {
    let folder = tempfile::tempdir().unwrap();
    let sim = Arc::new(Sim::default());
    let (life, node) = Life::first(folder.path(), &sim).await;
    let plan = life.install(node);
    life.images.remove("debian-12", &Default::default()).unwrap();
    let refused = life
        .executor
        .commit(&plan.id, &["node-001".into()], "test")
        .unwrap_err();
    let CommitError::Stale(changes) = &refused else {
        panic!("{refused}")
    };
    assert!(changes.iter().any(|change| change.contains("debian-12")), "{changes:?}");
    assert!(life.executor.runs().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_recovered_in_the_middle_of_a_run_and_can_be_committed_again() {
    for kind in ["disk.erase", "os.write", "restart", "verify"] {
        let folder = tempfile::tempdir().unwrap();
        let sim = Arc::new(Sim::default());
        let (life, node) = Life::first(folder.path(), &sim).await;
        *sim.hang.lock().unwrap() = Some(kind);
        let run = life.commit(node);
        tokio::time::timeout(common::PATIENCE, sim.stopped.notified())
            .await
            .expect(kind);
        let busy = {
            let plan = life.install(node);
            life.executor
                .commit(&plan.id, &["node-001".into()], "test")
                .unwrap_err()
        };
        assert!(matches!(busy, CommitError::Busy { .. }), "{busy}");
        let recovered = life.executor.recover(node, "anna").unwrap();
        assert_eq!(recovered.state, "discovered");
        let ended = until("the run has ended", || {
            life.executor.run(run).filter(|run| run.ended.is_some())
        })
        .await;
        assert_eq!(ended.state, RunState::Failed);
        assert_eq!(life.state(node), "discovered", "after {kind}");
        *sim.hang.lock().unwrap() = None;
        life.commit(node);
        until_node(&life.rack, "ready", |node| node.state.name() == "ready").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn maintenance_takes_a_node_out_of_its_run_and_a_run_can_be_cancelled() {
    let folder = tempfile::tempdir().unwrap();
    let sim = Arc::new(Sim::default());
    let (life, node) = Life::first(folder.path(), &sim).await;
    *sim.hang.lock().unwrap() = Some("os.write");
    let run = life.commit(node);
    tokio::time::timeout(common::PATIENCE, sim.stopped.notified())
        .await
        .expect("it writes");
    life.executor.maintenance(node, true, "a fan", "anna").unwrap();
    until("the run has ended", || {
        life.executor.run(run).filter(|run| run.ended.is_some())
    })
    .await;
    assert_eq!(life.state(node), "maintenance");
    life.executor.maintenance(node, false, "", "anna").unwrap();
    assert_eq!(life.state(node), "discovered");
    let run = life.commit(node);
    tokio::time::timeout(common::PATIENCE, sim.stopped.notified())
        .await
        .expect("it writes");
    life.executor.order(run, RunOrder::Cancel, "anna").unwrap();
    let ended = until("the run has ended", || {
        life.executor.run(run).filter(|run| run.ended.is_some())
    })
    .await;
    assert_eq!(ended.state, RunState::Cancelled);
}

const ROLES: &str = r#"
version = 1
ssh_keys = ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f test"]

[role.worker]
os = "debian-12"

[role.spare]
memory = "agent"
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_role_changed_in_the_middle_of_a_run_is_refused_with_words_and_planned_from_what_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let sim = Arc::new(Sim::default());
    let (life, node) = Life::first(folder.path(), &sim).await;
    life.executor.set_site(ROLES, "anna").unwrap();
    life.executor.bind(node, Some("worker".into()), "anna").unwrap();
    *sim.hang.lock().unwrap() = Some("os.write");
    let plan = life.executor.plan(&PlanRequest::default()).unwrap();
    let run = life.executor.commit(&plan.id, &["node-001".into()], "anna").unwrap();
    tokio::time::timeout(common::PATIENCE, sim.stopped.notified())
        .await
        .expect("it writes");
    life.executor.bind(node, Some("spare".into()), "anna").unwrap();
    let plan = life.executor.plan(&PlanRequest::default()).unwrap();
    let refused = life.executor.commit(&plan.id, &[], "anna").unwrap_err().to_string();
    assert!(refused.contains(&format!("rackbar run cancel {run}")), "{refused}");
    assert!(refused.contains("recover"), "{refused}");
    life.executor.recover(node, "anna").unwrap();
    until("the run has ended", || {
        life.executor.run(run).filter(|run| run.ended.is_some())
    })
    .await;
    let plan = life.executor.plan(&PlanRequest::default()).unwrap();
    let kinds: Vec<&str> = plan.actions.iter().map(|action| action.kind.name()).collect();
    assert!(kinds.contains(&"memory") && !kinds.contains(&"os.write"), "{kinds:?}");
    life.executor.commit(&plan.id, &[], "anna").unwrap();
    until_node(&life.rack, "ready", |node| node.state.name() == "ready").await;
    life.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ready_machine_that_changes_shows_its_drift_until_it_is_as_before() {
    let folder = tempfile::tempdir().unwrap();
    let sim = Arc::new(Sim::default());
    let (mut life, node) = Life::first(folder.path(), &sim).await;
    life.commit(node);
    until_node(&life.rack, "ready", |node| node.state.name() == "ready").await;
    let mut changed = hardware(1, 20);
    changed.disks[0].serial = Some("DISK9".into());
    let agent = &mut life.machine.as_mut().unwrap().1;
    agent.facts(changed).await;
    let shown = until_node(&life.rack, "drift", |node| !node.drift.is_empty()).await;
    assert!(
        shown
            .drift
            .iter()
            .any(|what| what.contains("DISK1") && what.contains("is gone")),
        "{:?}",
        shown.drift
    );
    assert!(
        shown
            .drift
            .iter()
            .any(|what| what.contains("DISK9") && what.contains("is new")),
        "{:?}",
        shown.drift
    );
    assert_eq!(
        shown.state.name(),
        "ready",
        "drift is shown, and nothing is done about it"
    );
    agent.facts(hardware(1, 20)).await;
    until_node(&life.rack, "without drift", |node| node.drift.is_empty()).await;
    life.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn consent_by_name_never_reaches_another_machine_that_took_the_name() {
    let folder = tempfile::tempdir().unwrap();
    let sim = Arc::new(Sim::default());
    let (life, first) = Life::first(folder.path(), &sim).await;
    let plan = life.install(first);
    let (server, _, site) = life.machine.as_ref().unwrap();
    let (agent, welcome) = boot(site, server, &[mac(2)], hardware(2, 40)).await;
    life.rack.rename(first, "broken").unwrap();
    life.rack.rename(welcome.node, "node-001").unwrap();
    let refused = life
        .executor
        .commit(&plan.id, &["node-001".into()], "anna")
        .unwrap_err();
    assert!(matches!(refused, CommitError::Stale(_)), "{refused}");
    assert!(life.executor.runs().is_empty());
    let run = life.commit(welcome.node);
    until("the run has ended", || {
        life.executor.run(run).filter(|run| run.state == RunState::Done)
    })
    .await;
    assert_eq!(life.state(welcome.node), "ready");
    assert_eq!(
        life.state(first),
        "discovered",
        "the one that had the name is left alone"
    );
    drop(agent);
    life.kill().await;
}

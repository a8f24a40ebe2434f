//! An appliance with a real store and a real view of nodes, and machines that do all they are told.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rackbar_artifacts::images::{ImageMeta, Images};
use rackbar_artifacts::{Artifacts, Programs};
use rackbar_messages::JobId;
use rackbar_model::{BmcInfo, Disk, DiskBus, Inventory, NodeId, Timestamp};
use rackbar_orchestrator::Rack;
use rackbar_orchestrator::executor::{Executor, Install, Parts, PlanRequest, SETTINGS_LOOK};
use rackbar_orchestrator::hands::{Appliance, Done, Hands, Learned, System, Task, Working};
use rackbar_plan::engine::Bounds;
use rackbar_plan::{ActionKind, RunId, ServiceSeen};
use rackbar_store::Store;
use rackbar_trust::SigningKey;
use rackbar_verify::NodeReport;
use tokio::sync::Notify;

use super::{boot, mac, machine, rack, site, until};

/// Where an attempt stops for ever: before or after its work.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stop {
    Before(usize),
    After(usize),
}

/// Machines that do all they are told.
#[derive(Default)]
pub struct Sim {
    /// What was done, by job: an agent answers for one number once.
    pub done: Mutex<BTreeMap<JobId, String>>,
    pub begun: Mutex<usize>,
    pub stop: Mutex<Option<Stop>>,
    pub stopped: Notify,
    /// Kinds that wait until they are given up.
    pub hang: Mutex<Option<&'static str>>,
    /// Kinds that fail for good.
    pub fail: Mutex<Option<&'static str>>,
    /// Services are not there while this says why.
    pub missing: Mutex<Option<&'static str>>,
    /// Those do not hear that they are given up before `wake`.
    pub deaf: Mutex<bool>,
    pub wake: Notify,
    /// Those end well when they are given up: they were past the point where they could stop.
    pub ends_well: Mutex<bool>,
    /// Kinds that wait for `wake` and then do what they are told.
    pub gate: Mutex<Option<&'static str>>,
    /// Hands that write images and set systems up for real, where a test has a machine for that.
    pub real: Mutex<Option<Arc<Appliance>>>,
    /// What those hands do in place of that.
    pub real_kinds: Mutex<Option<Vec<&'static str>>>,
    /// How often a life looks at firmware attributes, when not as seldom as an appliance.
    pub settings_look: Mutex<Option<Duration>>,
    /// A life begins with a state that was put in.
    pub put_in: Mutex<bool>,
    /// What each attempt was told of its machine, by kind.
    pub told: Mutex<Vec<(&'static str, System)>>,
    /// Attempts under way on each node, and the most there ever were.
    at_work: Mutex<(BTreeMap<NodeId, usize>, usize)>,
}

/// An attempt under way.
struct AtWork<'a>(&'a Sim, NodeId);

impl<'a> AtWork<'a> {
    fn new(sim: &'a Sim, node: NodeId) -> Self {
        let mut at_work = sim.at_work.lock().unwrap();
        let entry = at_work.0.entry(node).or_default();
        *entry += 1;
        let count = *entry;
        at_work.1 = at_work.1.max(count);
        Self(sim, node)
    }
}

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        *self.0.at_work.lock().unwrap().0.entry(self.1).or_default() -= 1;
    }
}

impl Sim {
    fn is_real(&self, kind: &ActionKind) -> bool {
        match &*self.real_kinds.lock().unwrap() {
            Some(kinds) => kinds.contains(&kind.name()),
            None => matches!(kind, ActionKind::WriteImage { .. } | ActionKind::Setup { .. }),
        }
    }

    /// Attempts that were ever at work on one node at once.
    pub fn most_at_once(&self) -> usize {
        self.at_work.lock().unwrap().1
    }
}

impl Hands for Sim {
    fn carry_out(&self, mut task: Task) -> Working<'_> {
        Box::pin(async move {
            let action = task.action().unwrap().clone();
            let real = self.real.lock().unwrap().clone();
            if let Some(real) = real.filter(|_| self.is_real(&action.kind)) {
                return real.carry_out(task).await;
            }
            self.told
                .lock()
                .unwrap()
                .push((action.kind.name(), task.system.clone()));
            let _at_work = action.node.map(|node| AtWork::new(self, node));
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
            if *self.fail.lock().unwrap() == Some(action.kind.name()) {
                return Done::failed("it broke", "mend it", false);
            }
            let missing = self.missing.lock().unwrap().filter(|_| is_service(&action.kind));
            if let Some(why) = missing {
                let (serves, says) = (false, why.to_owned());
                let seen = Learned::Service(ServiceSeen { serves, says });
                return Done::failed(why, "start it", true).and(seen);
            }
            if *self.gate.lock().unwrap() == Some(action.kind.name()) {
                let woken = self.wake.notified();
                self.stopped.notify_one();
                woken.await;
            }
            if *self.hang.lock().unwrap() == Some(action.kind.name()) {
                self.stopped.notify_one();
                let woken = self.wake.notified();
                task.give_up.wait_for(|give_up| *give_up).await.unwrap();
                let deaf = *self.deaf.lock().unwrap();
                if deaf {
                    woken.await;
                }
                if !*self.ends_well.lock().unwrap() {
                    return Done::failed("given up", "none", true);
                }
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
                ActionKind::Installer {
                    target,
                    image,
                    sha256,
                    setup,
                    ..
                } => done
                    .and(Learned::Written {
                        image: image.clone(),
                        sha256: *sha256,
                        target: target.clone(),
                    })
                    .and(Learned::SetUp {
                        setup: setup.clone(),
                        host_key: "ssh-ed25519 AAAA".into(),
                    }),
                ActionKind::Setup {
                    setup, again: Some(_), ..
                } => done.and(Learned::Adjusted(setup.clone())),
                ActionKind::Setup { setup, .. } => done.and(Learned::SetUp {
                    setup: setup.clone(),
                    host_key: "ssh-ed25519 AAAA".into(),
                }),
                ActionKind::BurnIn(_) => done.and(Learned::BurnedIn(vec![passed("burnin.cpu")])),
                ActionKind::Verify { .. } => done.and(Learned::Checked(Box::new(NodeReport {
                    node: action.node.unwrap(),
                    name: "n".into(),
                    role: None,
                    serial: None,
                    image: None,
                    plan: None,
                    run: Some(task.run.0),
                    checks: vec![passed("disk.layout")],
                    erased: task.system.erased.clone(),
                    burned_in: task.system.burned_in.clone(),
                    state: None,
                }))),
                _ => done,
            }
        })
    }

    fn noted(&self, node: NodeId, job: JobId) {
        let real = self.real.lock().unwrap().clone();
        real.into_iter().for_each(|real| real.noted(node, job));
    }

    fn settled(&self, node: NodeId, run: RunId, kind: &ActionKind, well: bool) {
        let real = self.real.lock().unwrap().clone();
        real.into_iter().for_each(|real| real.settled(node, run, kind, well));
    }
}

const fn is_service(kind: &ActionKind) -> bool {
    matches!(kind, ActionKind::Service(_))
}

fn passed(id: &str) -> rackbar_model::CheckResult {
    rackbar_model::CheckResult {
        id: id.into(),
        status: rackbar_model::CheckStatus::Passed,
        wanted: "x".into(),
        observed: "x".into(),
        advice: String::new(),
        at: Timestamp(1),
        millis: 1,
    }
}

/// A machine with one disk.
pub fn hardware(number: u8, gib: u64) -> Inventory {
    let uuid = format!("4c4c4544-0001-0001-8001-00000000000{number}");
    let mut inventory = machine(&[mac(number)], &format!("SN{number}"), &uuid);
    inventory.disks.push(Disk {
        name: "vda".into(),
        size_bytes: gib << 30,
        serial: Some(format!("DISK{number}")),
        bus: DiskBus::Nvme,
        ..Disk::default()
    });
    inventory.bmc = Some(BmcInfo::default());
    inventory
}

/// An appliance on a folder: its store, its view, its executor.
pub struct Life {
    pub store: Store,
    pub rack: Rack,
    pub executor: Executor,
    pub images: Arc<Images>,
    pub programs: Programs,
    /// The machine's agent and who it is connected to; only the first life has one.
    pub machine: Option<(super::Server, super::Agent, super::Site)>,
}

impl Life {
    /// Starts on what the folder holds. The writer of an earlier life may still be closing the file.
    pub async fn start(folder: &Path, sim: &Arc<Sim>) -> Self {
        let path = folder.join("rackbar.redb");
        let store = until("the store of the life before is closed", || Store::open(&path).ok()).await;
        let rack = rack(store.clone());
        let images = folder.join("images");
        std::fs::create_dir_all(&images).unwrap();
        let images = Arc::new(Images::open(&images, 1 << 30, Arc::new(Artifacts::new())).unwrap());
        let programs = Programs::open(&folder.join("programs"), 1 << 30).unwrap();
        let parts = Parts {
            hands: sim.clone(),
            images: Some(images.clone()),
            programs: Some(programs.clone()),
            services: [rackbar_plan::OwnService::Proxy].into(),
            bounds: Bounds::default(),
            settings_look: sim.settings_look.lock().unwrap().unwrap_or(SETTINGS_LOOK),
            signer: Arc::new(SigningKey::generate().unwrap().0),
            site_name: "test".into(),
            put_in: *sim.put_in.lock().unwrap(),
        };
        let executor = Executor::start(rack.clone(), store.clone(), parts).unwrap();
        images.settle();
        rack.set_serving(rackbar_plan::OwnService::Proxy, [[10, 10, 0, 1].into()]);
        Self {
            store,
            rack,
            executor,
            images,
            programs,
            machine: None,
        }
    }

    /// The first life: one machine with one disk, discovered, and an image.
    pub async fn first(folder: &Path, sim: &Arc<Sim>) -> (Self, NodeId) {
        let (mut life, server, site) = Self::empty(folder, sim).await;
        let (agent, welcome) = boot(&site, &server, &[mac(1)], hardware(1, 20)).await;
        life.machine = Some((server, agent, site));
        (life, welcome.node)
    }

    /// A life with an image and a server for agents, and no machine yet.
    pub async fn empty(folder: &Path, sim: &Arc<Sim>) -> (Self, super::Server, super::Site) {
        let life = Self::start(folder, sim).await;
        let site = site();
        let server = super::Server::start(&site, life.rack.clone(), Duration::from_secs(600)).await;
        let meta = ImageMeta {
            name: "debian-12".into(),
            ..ImageMeta::default()
        };
        let mut raw = vec![0; 1 << 20];
        (raw[510], raw[511]) = (0x55, 0xaa);
        let mut upload = life.images.begin(meta).unwrap();
        upload.write(&raw).unwrap();
        upload.finish(None).unwrap();
        (life, server, site)
    }

    /// Puts Debian's installer into the catalogue.
    pub fn add_installer(&self) {
        let meta = ImageMeta {
            name: "debian-12-installer".into(),
            ..ImageMeta::default()
        };
        let mut upload = self.images.begin(meta).unwrap();
        upload.write(&super::netboot(b"kernel", b"initrd")).unwrap();
        upload.finish(None).unwrap();
    }

    /// Everything ends, as in a power cut.
    pub async fn kill(self) {
        if let Some((server, agent, _)) = self.machine {
            drop(agent);
            server.stop().await;
        }
    }

    pub fn install(&self, node: NodeId) -> Arc<rackbar_plan::Plan> {
        let request = PlanRequest {
            nodes: Some(vec![node]),
            reinstall: true,
            install: Some(Install {
                os: "debian-12".into(),
                ssh_keys: vec!["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGv0 me".into()],
                ..Install::default()
            }),
            ..PlanRequest::default()
        };
        let plan = self.executor.plan(&request).unwrap();
        assert!(plan.refused.is_empty() && !plan.actions.is_empty(), "{plan:#?}");
        plan
    }

    pub fn commit(&self, node: NodeId) -> rackbar_plan::RunId {
        let plan = self.install(node);
        let name = self.rack.node(&node.to_string()).unwrap().name.clone();
        self.executor.commit(&plan.id, &[name], "test").unwrap()
    }

    /// The run when nothing of it will change any more.
    pub async fn run_ended(&self, run: RunId) -> Arc<rackbar_plan::Run> {
        let ended = || self.executor.run(run).filter(|run| run.ended.is_some());
        until("the run has ended", ended).await
    }

    /// An installed machine whose checks passed.
    pub async fn make_ready(&self, node: NodeId) {
        let run = self.run_ended(self.commit(node)).await;
        assert_eq!(run.state, rackbar_plan::RunState::Done, "{:?}", run.actions);
    }

    pub fn state(&self, node: NodeId) -> String {
        self.rack.node(&node.to_string()).unwrap().state.name().into()
    }
}

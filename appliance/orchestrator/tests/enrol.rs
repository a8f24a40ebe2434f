//! The secrets by which an installed system enrols itself at its tools: made when its files are laid, one for each machine
//! and tool, in no plan and no journal, forgotten or taken back when the action has ended.
#![allow(clippy::unwrap_used, reason = "a test may unwrap")]

mod common;

use std::sync::{Arc, Mutex};

use common::life::{Life, Sim};
use common::{Agent, settings, until, until_node};
use rackbar_handoff::enrol::{Enrolment, Kind};
use rackbar_messages::{Ask, FromAgent, JobFailure, JobId, JobReport, ToAgent, Work};
use rackbar_model::{NodeId, OsFile};
use rackbar_orchestrator::enrolments::Enrolments;
use rackbar_orchestrator::executor::PlanRequest;
use rackbar_orchestrator::hands::{Appliance, Hands as _, Reach, System, Task};
use rackbar_plan::site::Enrol;
use rackbar_plan::{Action, Run, RunId};
use rackbar_store::Table;

const SITE: &str = r#"
version = 1
domain = "rack.example"
[network.rack]
subnet = "10.0.0.0/24"
addresses = "10.0.0.20-10.0.0.60"
[role.worker]
os = "debian-12"
[[role.worker.network]]
name = "mgmt"
network = "rack"
nics = ["boot"]
[[rule]]
name = "all"
when = "true"
role = "worker"
[handoff.puppet]
server = "puppet.rack.example"
[handoff.salt]
master = "salt.rack.example"
[handoff.role.worker]
enrol = ["salt", "puppet"]
"#;

/// What the machine was given, attempt after attempt, and how many attempts it still fails: with a word whether another may help.
#[derive(Default)]
struct Machine {
    given: Mutex<Vec<Vec<OsFile>>>,
    fails: Mutex<Vec<bool>>,
}

impl Machine {
    async fn serve(self: Arc<Self>, mut agent: Agent) {
        while let Ok(heard) = agent.hear().await {
            let ToAgent::Ask { id, ask } = heard else { continue };
            agent.say(&FromAgent::Done { id, result: Ok(()) }).await.unwrap();
            let Ask::Begin { job, work } = ask else { continue };
            let result = self.work(*work);
            agent.say(&FromAgent::Ended { job, result }).await.unwrap();
        }
    }

    fn work(&self, work: Work) -> Result<JobReport, JobFailure> {
        match work {
            Work::Write { image, .. } => Ok(JobReport::Written {
                sha256: image.sha256,
                fetched: image.bytes,
                disk_bytes: image.bytes,
                holes: 0,
                millis: 1,
                steps: Vec::new(),
            }),
            Work::Setup { setup, .. } => {
                let paths = setup.files.iter().map(|file| file.path.clone()).collect();
                self.given.lock().unwrap().push(setup.files);
                match self.fails.lock().unwrap().pop() {
                    Some(again) => Err(JobFailure {
                        reason: "the disk is full".into(),
                        advice: "empty it".into(),
                        again,
                    }),
                    None => Ok(JobReport::SetUp(paths)),
                }
            }
            other => panic!("asked for {other:?}"),
        }
    }

    /// The content of a file in what was given at an attempt.
    fn file(&self, attempt: usize, end: &str) -> (String, u32) {
        let given = self.given.lock().unwrap();
        let file = given[attempt].iter().find(|file| file.path.ends_with(end));
        let file = file.unwrap_or_else(|| panic!("no {end} in attempt {attempt}"));
        (file.content.clone(), file.mode)
    }

    fn token(&self, attempt: usize) -> String {
        let (text, mode) = self.file(attempt, "/csr_attributes.yaml");
        assert_eq!(mode, 0o600);
        let hex = |word: &&str| word.len() == 64 && word.bytes().all(|b| b.is_ascii_hexdigit());
        let mut words = text.split(|c: char| !c.is_ascii_alphanumeric());
        words.find(hex).expect("a token").to_owned()
    }
}

struct Stage {
    life: Life,
    node: NodeId,
    machine: Arc<Machine>,
    hands: Arc<Appliance>,
    _server: common::Server,
    _folder: tempfile::TempDir,
}

impl Stage {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let sim = Arc::new(Sim::default());
        let (mut life, node) = Life::first(folder.path(), &sim).await;
        let mut reached = settings();
        reached.networks[0].address = Some([127, 0, 0, 1].into());
        reached.networks[0].prefix = 8;
        life.rack.configure(reached);
        until_node(&life.rack, "its address", |one| one.id == node && one.address.is_some()).await;
        let store = life.rack.store().clone();
        let hands = Appliance::new(life.rack.clone(), store, Some(life.images.clone()), Reach::default()).unwrap();
        let hands = Arc::new(hands);
        *sim.real.lock().unwrap() = Some(hands.clone());
        let machine = Arc::new(Machine::default());
        let (server, agent, _site) = life.machine.take().unwrap();
        tokio::spawn(machine.clone().serve(agent));
        life.executor.set_site(SITE, "test").unwrap();
        Self {
            life,
            node,
            machine,
            hands,
            _server: server,
            _folder: folder,
        }
    }

    /// Installs the machine; gives the run when it has ended.
    async fn install(&self, again: bool) -> Arc<Run> {
        let request = PlanRequest {
            reinstall: again,
            ..PlanRequest::default()
        };
        let plan = self.life.executor.plan(&request).unwrap();
        assert!(plan.refused.is_empty() && !plan.actions.is_empty(), "{plan:#?}");
        let name = self.life.rack.node(&self.node.to_string()).unwrap().name.clone();
        let run = self.life.executor.commit(&plan.id, &[name], "test").unwrap();
        let ended = || self.life.executor.run(run).filter(|run| run.ended.is_some());
        until("the run has ended", ended).await
    }

    /// An attempt of the action of `run` that writes the image, as it is taken up after a restart.
    fn taken_up(&self, run: &Run, job: u8) -> Task {
        let writes = |action: &Action| action.kind.installs().is_some();
        Task {
            run: run.id,
            plan: run.plan.clone(),
            position: run.plan.actions.iter().position(writes).unwrap(),
            node: self.life.rack.node(&self.node.to_string()),
            system: System::default(),
            job: JobId([job; 16]),
            attempt: 1,
            taken_up: true,
            progress: Arc::new(|_| ()),
            give_up: tokio::sync::watch::channel(false).1,
        }
    }

    /// The secrets that are kept, by tool.
    fn kept(&self) -> Vec<Enrolment> {
        let mut all = Enrolments::new(self.life.rack.store().clone()).list().unwrap();
        all.sort_by(|a, b| a.tool.cmp(&b.tool));
        all
    }
}

fn states(kept: &[Enrolment]) -> Vec<(&str, &str, Option<u64>)> {
    let now = kept.iter().map(|one| one.made).max().unwrap();
    kept.iter()
        .map(|one| (one.tool.as_str(), one.state(now), one.run))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_install_lays_secrets_of_the_machines_own_and_forgets_them() {
    let stage = Stage::new().await;
    // The first attempt fails: the second lays the same, so that no machine ever has two that are good.
    stage.machine.fails.lock().unwrap().push(true);
    let run = stage.install(false).await;
    assert_eq!(run.state, rackbar_plan::RunState::Done, "{run:#?}");
    let token = stage.machine.token(0);
    assert_eq!(stage.machine.token(1), token);
    let (key, mode) = stage.machine.file(1, "/minion.pem");
    assert!(key.contains("PRIVATE KEY") && mode == 0o600);
    assert_eq!(stage.machine.file(0, "/minion.pem").0, key);
    assert!(stage.machine.file(1, "/rackbar.conf").0.contains("salt.rack.example"));
    let kept = stage.kept();
    let RunId(number) = run.id;
    assert_eq!(
        states(&kept),
        [("puppet", "placed", Some(number)), ("salt", "placed", Some(number))]
    );
    assert!(matches!(&kept[1].secret, Kind::Pair { private: None, public } if public.contains("PUBLIC KEY")));

    // Nobody else is told: the plan names the tools, and what happened has no secret in it.
    let line = key.lines().nth(1).unwrap();
    let plan = serde_json::to_string(&run.plan).unwrap();
    assert!(plan.contains("enrolment at puppet"), "{plan}");
    let events = stage.life.rack.store().events(0, 10_000).unwrap();
    for text in [
        plan,
        serde_json::to_string(&*run).unwrap(),
        serde_json::to_string(&events).unwrap(),
    ] {
        assert!(!text.contains(&token) && !text.contains(line), "{text}");
    }
    let runs = stage.life.rack.store().list(Table::Work).unwrap();
    let shown = |secret: &str| {
        let mut values = runs.iter().map(|(_, value)| String::from_utf8_lossy(value));
        values.any(|value| value.contains(secret))
    };
    assert!(shown("os.setup") && !shown(&token) && !shown(line));

    // Installed anew, it gets others, and what the first system had is worth nothing.
    let second = stage.install(true).await;
    assert_eq!(second.state, rackbar_plan::RunState::Done, "{second:#?}");
    let fresh = stage.machine.token(2);
    assert_ne!(fresh, token);
    let kept = stage.kept();
    let RunId(number) = second.id;
    assert_eq!(
        states(&kept),
        [("puppet", "placed", Some(number)), ("salt", "placed", Some(number))]
    );
    let digest = rackbar_trust::sha256(fresh.as_bytes());
    assert!(matches!(&kept[0].secret, Kind::Token { sha256, .. } if sha256.0 == digest));
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_of_an_install_that_failed_are_taken_back() {
    let stage = Stage::new().await;
    stage.machine.fails.lock().unwrap().push(false);
    let run = stage.install(false).await;
    assert_eq!(run.state, rackbar_plan::RunState::Failed);
    let kept = stage.kept();
    let RunId(number) = run.id;
    assert_eq!(
        states(&kept),
        [("puppet", "revoked", Some(number)), ("salt", "revoked", Some(number))]
    );
    let nothing = |one: &Enrolment| match &one.secret {
        Kind::Token { text, .. } => text.is_none(),
        Kind::Pair { private, .. } => private.is_none(),
    };
    assert!(kept.iter().all(nothing), "what was taken back is kept nowhere");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_earlier_system_enrols_by_is_taken_back_also_by_an_attempt_that_is_taken_up() {
    let stage = Stage::new().await;
    let run = stage.install(false).await;
    let RunId(number) = run.id;
    let book = Enrolments::new(stage.life.rack.store().clone());
    // The power went before the secret of the earlier system's tool was taken back; the other tool's is this run's.
    let later = |enrolment: &mut Enrolment| enrolment.run = Some(number + 1);
    book.change(Enrol::Salt, stage.node, later).unwrap().unwrap();
    let mut again = (*run).clone();
    again.id = RunId(number + 1);
    for job in 1..3 {
        let done = stage.hands.carry_out(stage.taken_up(&again, job)).await;
        done.result.unwrap();
        assert_eq!(
            states(&stage.kept()),
            [
                ("puppet", "revoked", Some(number)),
                ("salt", "placed", Some(number + 1))
            ]
        );
    }
}

//! `recover` from every state a node can be in, and from every kind of action: one command, one known state.
//!
//! The tables are whole by construction: [`row`] and [`place`] name every kind and every state without a catch-all, so a
//! new one does not compile here until it has a row, and each row is held to what is really planned or reached.
#![allow(clippy::unwrap_used, reason = "a test may unwrap")]

mod common;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use common::bmcs::{self, Watch};
use common::life::{Life, Sim, hardware};
use common::{Agent, boot, discover, mac, token_for, until, until_event, until_node};
use rackbar_messages::{Ask, Proof, ToAgent};
use rackbar_model::{EventKind, FailedIn, NodeId, NodeState};
use rackbar_orchestrator::executor::{CommitError, NodeError, PlanRequest, RunOrder};
use rackbar_plan::{ActionKind, RunId, RunState, Stand};
use rackbar_services::EventSink as _;
use rackbar_store::Store;
use rackbar_vrack::bmc::Loopback;
use rackbar_vrack::seat;

const ROLES: &str = r##"
version = 1
ssh_keys = ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f test"]

[role.worker]
os = "debian-12"
burn_in = { cpu_seconds = 1 }
step = [{ name = "mark", script = "#!/bin/sh\ntrue\n" }]

[role.spare]
memory = "agent"

[role.inside]
memory = "agent"
bmc = { account = "rackbar" }

[role.firm]
memory = "agent"
rotate_bmc_password = true
bios = { ProcVirtualization = "Enabled" }

[role.mended]
memory = "rescue"
step = [{ name = "mend", script = "#!/bin/sh\ntrue\n" }]

[network.rack]
subnet = "10.10.0.0/24"
proxy = "own"

[role.netboot]
os = "debian-12-installer"
network = [{ name = "lan", network = "rack", nics = ["boot"] }]

[role.late]
memory = "agent"
burn_in = { cpu_seconds = 1 }
after = ["spare"]
"##;

/// Every kind of action, and the role it is planned for.
const KINDS: [(&str, &str); 20] = [
    ("bmc.password", "firm"),
    ("bios.settings", "firm"),
    ("agent.restart", "firm"),
    ("agent", "worker"),
    ("bios.verify", "firm"),
    ("burn-in", "worker"),
    ("disk.erase", "worker"),
    ("os.write", "worker"),
    ("os.setup", "worker"),
    ("boot.order", "worker"),
    ("restart", "worker"),
    ("os.reachable", "worker"),
    ("step", "worker"),
    ("verify", "worker"),
    ("barrier", "late"),
    ("memory", "spare"),
    ("rescue", "mended"),
    ("bmc.setup", "inside"),
    ("os.install", "netboot"),
    ("service.proxy", "netboot"),
];

/// The row of a kind. No catch-all: a new kind needs a row, and what it needs to be planned.
const fn row(kind: &ActionKind) -> usize {
    match kind {
        ActionKind::RotatePassword => 0,
        ActionKind::BiosSettings { .. } => 1,
        ActionKind::Agent { fresh: true } => 2,
        ActionKind::Agent { fresh: false } => 3,
        ActionKind::BiosVerify { .. } => 4,
        ActionKind::BurnIn(_) => 5,
        ActionKind::Erase { .. } => 6,
        ActionKind::WriteImage { .. } => 7,
        ActionKind::Setup { .. } => 8,
        ActionKind::BootOrder { .. } => 9,
        ActionKind::Restart { .. } => 10,
        ActionKind::Reachable { .. } => 11,
        ActionKind::Step(_) => 12,
        ActionKind::Verify { .. } => 13,
        ActionKind::Barrier { .. } => 14,
        ActionKind::StayInMemory { .. } => 15,
        ActionKind::Rescue { .. } => 16,
        ActionKind::BmcSetUp { .. } => 17,
        ActionKind::Installer { .. } => 18,
        // One row for all: what is done is the same for each service.
        ActionKind::Service(_) => 19,
    }
}

/// What a story needs to stay alive while it is told.
struct Stage {
    life: Life,
    node: NodeId,
    /// The machine that the node waits for at a barrier, and its agent.
    other: Option<(NodeId, Agent)>,
    bmc: Option<(Watch, Loopback, tempfile::TempDir)>,
}

impl Stage {
    /// A machine that has this role; nothing of it is committed.
    async fn set(folder: &Path, sim: &Arc<Sim>, role: &str) -> Self {
        let (life, node) = Life::first(folder, sim).await;
        life.executor.set_site(ROLES, "anna").unwrap();
        let mut stage = Self {
            life,
            node,
            other: None,
            bmc: None,
        };
        match role {
            "netboot" => stage.life.add_installer(),
            "late" => stage.other = Some(stage.second().await),
            "firm" => stage.bmc = Some(stage.with_bmc().await),
            "mended" => {
                stage.bind(node, "worker");
                commit(&stage.life);
                until_node(&stage.life.rack, "ready", |node| node.state.name() == "ready").await;
            }
            _ => {}
        }
        stage.bind(node, role);
        stage
    }

    fn bind(&self, node: NodeId, role: &str) {
        self.life.executor.bind(node, Some(role.into()), "anna").unwrap();
    }

    async fn second(&self) -> (NodeId, Agent) {
        let (server, _, site) = self.life.machine.as_ref().unwrap();
        let (agent, welcome) = boot(site, server, &[mac(2)], hardware(2, 20)).await;
        self.bind(welcome.node, "spare");
        (welcome.node, agent)
    }

    async fn with_bmc(&self) -> (Watch, Loopback, tempfile::TempDir) {
        let (bmc, _, folder) = bmcs::simulated(seat::PowerState::On).await;
        let watch = Watch::with(self.life.rack.clone(), &bmc, "secret", bmcs::TIMING);
        watch.lease();
        assert_eq!(watch.found().await.id, self.node, "the BMC of another machine");
        (watch, bmc, folder)
    }

    async fn end(self) {
        if let Some((watch, ..)) = self.bmc {
            watch.stop().await;
        }
        self.life.kill().await;
    }
}

fn commit(life: &Life) -> RunId {
    let plan = life.executor.plan(&PlanRequest::default()).unwrap();
    assert!(plan.refused.is_empty() && !plan.actions.is_empty(), "{plan:#?}");
    life.executor.commit(&plan.id, &["node-001".into()], "anna").unwrap()
}

async fn ended(life: &Life, run: RunId) -> Arc<rackbar_plan::Run> {
    until("the run has ended", || {
        life.executor.run(run).filter(|run| run.ended.is_some())
    })
    .await
}

/// Recovers the node and holds it to what that promises: what a run had for it is settled, the state is a known one, and
/// a commit leads to ready from there.
async fn recovered(stage: &Stage, sim: &Sim, run: Option<RunId>, from: &str) {
    let (life, node) = (&stage.life, stage.node);
    life.executor.recover(node, "anna").unwrap();
    if let Some(run) = run {
        until("what the run had for it is settled", || {
            let run = life.executor.run(run)?;
            let mut mine = run.plan.actions.iter().filter(|action| action.node == Some(node));
            mine.all(|action| run.actions[&action.id].settled()).then_some(())
        })
        .await;
        if let Some((other, _)) = &stage.other {
            life.executor.recover(*other, "anna").unwrap();
        }
        let ended = ended(life, run).await;
        let open = ended.actions.values().filter(|stand| !stand.settled()).count();
        assert_eq!(open, 0, "from {from}: {:?}", ended.actions);
    }
    // A machine whose role is known is shown as available as soon as it is looked at again.
    let known = |state: &str| ["discovered", "available"].contains(&state);
    until_node(&life.rack, "a known state", |shown| {
        shown.id == node && known(shown.state.name())
    })
    .await;
    *sim.hang.lock().unwrap() = None;
    *sim.fail.lock().unwrap() = None;
    let again = ended(life, commit(life)).await;
    assert_eq!(again.state, RunState::Done, "from {from}: {:?}", again.actions);
    until_node(&life.rack, "ready", |shown| {
        shown.id == node && shown.state.name() == "ready"
    })
    .await;
    assert!(
        sim.most_at_once() <= 1,
        "from {from}: two actions at once on one machine"
    );
}

/// The kind that hangs or breaks so that the story of `kind` is told: a barrier does nothing itself, it waits for others.
fn cause(kind: &'static str) -> &'static str {
    if kind == "barrier" { "memory" } else { kind }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_recovered_from_every_kind_of_action_under_way() {
    let mut states = BTreeSet::new();
    for (kind, role) in KINDS {
        let folder = tempfile::tempdir().unwrap();
        let sim = Arc::new(Sim::default());
        let stage = Stage::set(folder.path(), &sim, role).await;
        *sim.hang.lock().unwrap() = Some(cause(kind));
        let run = commit(&stage.life);
        tokio::time::timeout(common::PATIENCE, sim.stopped.notified())
            .await
            .expect(kind);
        states.insert(stage.life.state(stage.node));
        recovered(&stage, &sim, Some(run), kind).await;
        stage.end().await;
    }
    let working = ["configuring", "provisioning"];
    assert!(working.iter().all(|state| states.contains(*state)), "{states:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_recovered_from_the_failure_of_every_kind_of_action() {
    for (kind, role) in KINDS {
        let folder = tempfile::tempdir().unwrap();
        let sim = Arc::new(Sim::default());
        let stage = Stage::set(folder.path(), &sim, role).await;
        *sim.fail.lock().unwrap() = Some(cause(kind));
        let run = commit(&stage.life);
        let failing = stage.other.as_ref().map_or(stage.node, |(other, _)| *other);
        // A service that is not there is no machine's failure.
        if !kind.starts_with("service.") {
            until_node(&stage.life.rack, "failed", |node| {
                node.id == failing && node.state.name() == "failed"
            })
            .await;
        }
        let ended = ended(&stage.life, run).await;
        let named = ended.plan.actions.iter().any(|action| {
            let stand = &ended.actions[&action.id];
            let so = match kind {
                "barrier" => matches!(stand, Stand::Skipped { .. }),
                _ => matches!(stand, Stand::Failed { .. }),
            };
            action.kind.name() == kind && so
        });
        assert!(named, "{kind}: {:?}", ended.actions);
        recovered(&stage, &sim, Some(run), kind).await;
        stage.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ready_machine_whose_checks_fail_after_a_change_in_place_is_no_longer_in_work() {
    let (folder, sim) = (tempfile::tempdir().unwrap(), Arc::new(Sim::default()));
    let stage = Stage::set(folder.path(), &sim, "worker").await;
    let life = &stage.life;
    ended(life, commit(life)).await;
    until_node(&life.rack, "ready", |node| node.state.name() == "ready").await;
    let other = ROLES.replace("#!/bin/sh\\ntrue\\n", "#!/bin/sh\\ntrue now\\n");
    assert_ne!(other, ROLES);
    life.executor.set_site(&other, "anna").unwrap();
    *sim.fail.lock().unwrap() = Some("verify");
    let run = ended(life, commit(life)).await;
    assert_eq!(run.state, RunState::Failed, "{:?}", run.actions);
    assert!(
        run.actions
            .iter()
            .any(|(id, stand)| id.0.contains("step") && matches!(stand, Stand::Done { .. }))
    );
    assert_eq!(life.state(stage.node), "ready", "its drift says what differs");
    // Checks alone move nobody: one that failed stays so.
    *sim.fail.lock().unwrap() = Some("step");
    life.executor
        .set_site(&ROLES.replace("#!/bin/sh\\ntrue", "#!/bin/sh\\ntrue still"), "anna")
        .unwrap();
    ended(life, commit(life)).await;
    assert_eq!(life.state(stage.node), "failed");
    *sim.fail.lock().unwrap() = Some("verify");
    let run = life.executor.verify(Some(vec![stage.node]), "anna").unwrap();
    ended(life, run).await;
    assert_eq!(life.state(stage.node), "failed");
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_was_filled_since_a_plan_was_made_has_its_commit_refused() {
    let (folder, sim) = (tempfile::tempdir().unwrap(), Arc::new(Sim::default()));
    let mut stage = Stage::set(folder.path(), &sim, "worker").await;
    let one_by_one = ROLES.replace("[role.worker]", "[role.worker]\nbatch = 1");
    stage.life.executor.set_site(&one_by_one, "anna").unwrap();
    let (second, agent) = stage.second().await;
    stage.other = Some((second, agent));
    stage.bind(second, "worker");
    let executor = &stage.life.executor;
    let plan = |node| {
        let request = PlanRequest {
            nodes: Some(vec![node]),
            ..PlanRequest::default()
        };
        executor.plan(&request).unwrap()
    };
    let (one, two) = (plan(stage.node), plan(second));
    *sim.hang.lock().unwrap() = Some("burn-in");
    let run = executor.commit(&one.id, &["node-001".into()], "anna").unwrap();
    until_node(&stage.life.rack, "in work", |node| node.state.name() == "configuring").await;
    let refused = executor.commit(&two.id, &["node-002".into()], "anna").unwrap_err();
    let CommitError::Stale(changes) = &refused else {
        panic!("{refused}")
    };
    assert!(changes[0].contains("at most 1 in work at once"), "{changes:?}");
    executor.order(run, RunOrder::Cancel, "anna").unwrap();
    ended(&stage.life, run).await;
    until_node(&stage.life.rack, "at rest", |node| {
        node.id == stage.node && node.state.name() == "available"
    })
    .await;
    executor.commit(&two.id, &["node-002".into()], "anna").unwrap();
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_planned_kinds_are_those_of_the_table() {
    let mut planned = BTreeSet::new();
    let roles: BTreeSet<&str> = KINDS.iter().map(|(_, role)| *role).collect();
    for role in roles {
        let folder = tempfile::tempdir().unwrap();
        let sim = Arc::new(Sim::default());
        let stage = Stage::set(folder.path(), &sim, role).await;
        let plan = stage.life.executor.plan(&PlanRequest::default()).unwrap();
        for action in &plan.actions {
            let (kind, of) = KINDS[row(&action.kind)];
            assert_eq!(kind, action.kind.name(), "a row has another kind's name");
            if of == role {
                planned.insert(kind);
            }
        }
        stage.end().await;
    }
    let missing: Vec<&str> = KINDS
        .iter()
        .map(|row| row.0)
        .filter(|kind| !planned.contains(kind))
        .collect();
    assert!(
        missing.is_empty(),
        "{missing:?} are not planned for the role of their row"
    );
}

/// Every state.
fn states() -> [NodeState; 11] {
    let failure = FailedIn {
        during: "provisioning".into(),
        reason: "it broke".into(),
        retry: None,
    };
    [
        NodeState::Enrolled,
        NodeState::Inspecting,
        NodeState::Discovered,
        NodeState::Available,
        NodeState::Configuring,
        NodeState::Provisioning,
        NodeState::Ready,
        NodeState::HandedOver,
        NodeState::Cleaning,
        NodeState::Maintenance,
        NodeState::Failed(failure),
    ]
}

/// Where a state is in [`states`]. No catch-all: a new state needs its place there, and a way to it below.
const fn place(state: &NodeState) -> usize {
    match state {
        NodeState::Enrolled => 0,
        NodeState::Inspecting => 1,
        NodeState::Discovered => 2,
        NodeState::Available => 3,
        NodeState::Configuring => 4,
        NodeState::Provisioning => 5,
        NodeState::Ready => 6,
        NodeState::HandedOver => 7,
        NodeState::Cleaning => 8,
        NodeState::Maintenance => 9,
        NodeState::Failed(_) => 10,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_recovered_from_every_state() {
    for (at, state) in states().into_iter().enumerate() {
        assert_eq!(place(&state), at);
        match state {
            NodeState::Enrolled => from_enrolled().await,
            NodeState::Inspecting => from_inspecting().await,
            NodeState::HandedOver => from_handed_over().await,
            NodeState::Cleaning => from_cleaning().await,
            NodeState::Discovered
            | NodeState::Available
            | NodeState::Configuring
            | NodeState::Provisioning
            | NodeState::Ready
            | NodeState::Maintenance
            | NodeState::Failed(_) => from_discovered_on(&state).await,
        }
    }
}

/// From a state that a discovered machine gets to.
async fn from_discovered_on(state: &NodeState) {
    let folder = tempfile::tempdir().unwrap();
    let sim = Arc::new(Sim::default());
    let stage = Stage::set(folder.path(), &sim, "worker").await;
    let (life, node) = (&stage.life, stage.node);
    match state {
        NodeState::Discovered => life.executor.bind(node, None, "anna").unwrap(),
        NodeState::Maintenance => life.executor.maintenance(node, true, "a fan", "anna").unwrap(),
        NodeState::Configuring => *sim.hang.lock().unwrap() = Some("agent"),
        NodeState::Provisioning => *sim.hang.lock().unwrap() = Some("os.write"),
        NodeState::Failed(_) => *sim.fail.lock().unwrap() = Some("os.write"),
        _ => {}
    }
    let nothing = matches!(
        state,
        NodeState::Discovered | NodeState::Available | NodeState::Maintenance
    );
    let run = (!nothing).then(|| commit(life));
    let name = state.name();
    until_node(&life.rack, name, |node| node.state.name() == name).await;
    if name == "maintenance" {
        // Hands off means ours too: what a person does to it now is not ended by a word that says nothing of it.
        let refused = life.executor.recover(node, "anna").unwrap_err().to_string();
        assert!(
            refused.contains("by anna: a fan") && refused.contains("recover node-001 --end-maintenance"),
            "{refused}"
        );
        assert_eq!(life.state(node), "maintenance");
        life.executor.maintenance(node, false, "", "anna").unwrap();
    }
    if name == "discovered" {
        life.executor.recover(node, "anna").unwrap();
        assert_eq!(life.state(node), "discovered");
        stage.bind(node, "worker");
    }
    recovered(&stage, &sim, run, name).await;
    stage.end().await;
}

/// From the first packet: nothing is known of the machine but that it is there.
async fn from_enrolled() {
    let folder = tempfile::tempdir().unwrap();
    let sim = Arc::new(Sim::default());
    let (mut life, server, site) = Life::empty(folder.path(), &sim).await;
    life.rack.event(Some(mac(1)), discover("rack"));
    let node = until_node(&life.rack, "enrolled", |node| node.state.name() == "enrolled")
        .await
        .id;
    let done = life.executor.recover(node, "anna").unwrap();
    assert_eq!(done.state, "enrolled");
    assert!(done.next.contains("restart it by hand"), "{}", done.next);
    let (agent, welcome) = boot(&site, &server, &[mac(1)], hardware(1, 20)).await;
    assert_eq!(welcome.node, node);
    life.machine = Some((server, agent, site));
    to_ready(life, &sim, node, "enrolled").await;
}

/// While the agent is connected and its inventory does not come: it is asked for once more.
async fn from_inspecting() {
    let folder = tempfile::tempdir().unwrap();
    let sim = Arc::new(Sim::default());
    let (mut life, server, site) = Life::empty(folder.path(), &sim).await;
    let token = Proof::BootToken(token_for(&life.rack, mac(1)));
    let (mut agent, welcome) = Agent::connect(&site, server.address, mac(1), token).await.unwrap();
    until_node(&life.rack, "inspecting", |node| {
        node.state.name() == "inspecting" && node.agent_connected
    })
    .await;
    let done = life.executor.recover(welcome.node, "anna").unwrap();
    assert_eq!(done.state, "inspecting");
    assert!(done.next.contains("asked to look at it again"), "{}", done.next);
    loop {
        if matches!(agent.hear().await.unwrap(), ToAgent::Ask { ask: Ask::Facts, .. }) {
            break;
        }
    }
    agent.facts(hardware(1, 20)).await;
    until_node(&life.rack, "discovered", |node| node.inventory.is_some()).await;
    life.machine = Some((server, agent, site));
    to_ready(life, &sim, welcome.node, "inspecting").await;
}

/// Binds a discovered machine, recovers it once more and brings it to ready.
async fn to_ready(life: Life, sim: &Sim, node: NodeId, from: &str) {
    life.executor.set_site(ROLES, "anna").unwrap();
    life.executor.bind(node, Some("worker".into()), "anna").unwrap();
    let (other, bmc) = (None, None);
    let stage = Stage { life, node, other, bmc };
    recovered(&stage, sim, None, from).await;
    stage.end().await;
}

/// A machine in a state that no work of this version enters, as an earlier or a later version may have left it in the
/// store; its agent comes anew.
async fn left_in(folder: &Path, sim: &Arc<Sim>, state: &NodeState) -> Stage {
    let stage = Stage::set(folder, sim, "worker").await;
    let node = stage.node;
    stage.end().await;
    let path = folder.join("rackbar.redb");
    let store = until("the store of the life before is closed", || Store::open(&path).ok()).await;
    let (_, json) = store.nodes().unwrap().into_iter().find(|(id, _)| *id == node).unwrap();
    let mut saved: serde_json::Value = serde_json::from_slice(&json).unwrap();
    saved["node"]["state"] = serde_json::to_value(state).unwrap();
    store.save_node(node, serde_json::to_vec(&saved).unwrap());
    store.flush().unwrap();
    drop(store);
    let mut life = Life::start(folder, sim).await;
    let site = common::site();
    let server = common::Server::start(&site, life.rack.clone(), std::time::Duration::from_secs(600)).await;
    let token = Proof::BootToken(token_for(&life.rack, mac(1)));
    let (mut agent, _) = Agent::connect(&site, server.address, mac(1), token).await.unwrap();
    agent.facts(hardware(1, 20)).await;
    agent.until_read(&life.rack, node).await;
    life.machine = Some((server, agent, site));
    assert_eq!(life.state(node), state.name(), "a boot moves no machine out of it");
    Stage {
        life,
        node,
        other: None,
        bmc: None,
    }
}

async fn from_cleaning() {
    let folder = tempfile::tempdir().unwrap();
    let sim = Arc::new(Sim::default());
    let stage = left_in(folder.path(), &sim, &NodeState::Cleaning).await;
    recovered(&stage, &sim, None, "cleaning").await;
    stage.end().await;
}

/// What belongs to somebody else is never touched, by no word of ours.
async fn from_handed_over() {
    let folder = tempfile::tempdir().unwrap();
    let sim = Arc::new(Sim::default());
    let stage = left_in(folder.path(), &sim, &NodeState::HandedOver).await;
    let refused = stage.life.executor.recover(stage.node, "anna");
    assert_eq!(refused, Err(NodeError::HandedOver("node-001".into())));
    assert_eq!(stage.life.state(stage.node), "handed_over");
    let plan = stage.life.executor.plan(&PlanRequest::default()).unwrap();
    assert!(plan.actions.is_empty(), "{plan:#?}");
    until_event(&stage.life.rack, "the boot", |kind| {
        matches!(kind, EventKind::AgentUp { .. })
    })
    .await;
    stage.end().await;
}

//! Burn-in by command, on machines whose agent is simulated: the results are in the reports, the machine is what it was
//! afterwards, and one whose hardware does not bear it is not ready.
#![allow(clippy::unwrap_used, reason = "a test may unwrap")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::life::{Life, Sim};
use common::{Agent, mac, token_for};
use rackbar_messages::{Ask, FromAgent, JobReport, Proof, ToAgent, Work};
use rackbar_model::{BurnIn, CheckResult, CheckStatus, NodeId, Timestamp};
use rackbar_orchestrator::executor::{PlanError, PlanRequest};
use rackbar_orchestrator::hands::{Appliance, Reach};
use rackbar_plan::{Run, RunState};
use rackbar_verify::NodeReport;

const WANTED: BurnIn = BurnIn {
    cpu_seconds: 60,
    memory_seconds: 120,
    disk_seconds: 0,
};

/// An agent that exercises its machine, whose memory is `sound` or not.
async fn serve(mut agent: Agent, sound: Arc<AtomicBool>) {
    while let Ok(heard) = agent.hear().await {
        let ToAgent::Ask { id, ask } = heard else { continue };
        agent.say(&FromAgent::Done { id, result: Ok(()) }).await.unwrap();
        let Ask::Begin { job, work } = ask else { continue };
        assert_eq!(*work, Work::BurnIn(WANTED));
        let sound = sound.load(Ordering::SeqCst);
        let result = |id: &str, failed: bool| CheckResult {
            id: id.into(),
            status: if failed {
                CheckStatus::Failed
            } else {
                CheckStatus::Passed
            },
            wanted: "it bears it".into(),
            observed: if failed {
                "a word changed".into()
            } else {
                "it did".into()
            },
            advice: if failed {
                "replace the module".into()
            } else {
                String::new()
            },
            at: Timestamp(7),
            millis: 1,
        };
        let results = vec![result("burnin.cpu", false), result("burnin.memory", !sound)];
        let result = Ok(JobReport::BurnedIn(results));
        agent.say(&FromAgent::Ended { job, result }).await.unwrap();
    }
}

struct Stage {
    life: Life,
    node: NodeId,
    sound: Arc<AtomicBool>,
    server: common::Server,
    _folder: tempfile::TempDir,
}

impl Stage {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let sim = Arc::new(Sim::default());
        let (mut life, node) = Life::first(folder.path(), &sim).await;
        let store = life.rack.store().clone();
        let hands = Appliance::new(life.rack.clone(), store, None, Reach::default()).unwrap();
        *sim.real.lock().unwrap() = Some(Arc::new(hands));
        *sim.real_kinds.lock().unwrap() = Some(vec!["burn-in"]);
        let (server, agent, _site) = life.machine.take().unwrap();
        let sound = Arc::new(AtomicBool::new(true));
        tokio::spawn(serve(agent, sound.clone()));
        Self {
            life,
            node,
            sound,
            server,
            _folder: folder,
        }
    }

    async fn burn_in(&self, sound: bool) -> Arc<Run> {
        self.sound.store(sound, Ordering::SeqCst);
        let request = PlanRequest {
            nodes: Some(vec![self.node]),
            burn_in: Some(WANTED),
            ..PlanRequest::default()
        };
        let plan = self.life.executor.plan(&request).unwrap();
        assert!(plan.refused.is_empty(), "{:?}", plan.refused);
        // Nothing is destroyed, so no consent is asked for.
        let run = self.life.executor.commit(&plan.id, &[], "anna").unwrap();
        self.life.run_ended(run).await
    }

    /// The machine in the signed report of itself.
    fn report(&self) -> NodeReport {
        let file = self.life.executor.report(self.node).unwrap().to_bytes();
        rackbar_verify::check(&file, None).unwrap().report.nodes.remove(0)
    }

    fn state(&self) -> String {
        self.life.state(self.node)
    }
}

fn kinds(run: &Run) -> Vec<&'static str> {
    run.plan.actions.iter().map(|action| action.kind.name()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_installed_machine_is_exercised_by_command_and_is_ready_again_with_what_it_bore_in_its_report() {
    let stage = Stage::new().await;
    stage.life.make_ready(stage.node).await;
    let before = stage.life.rack.node(&stage.node.to_string()).unwrap().installed.clone();
    assert!(stage.report().burned_in.is_empty());
    let run = stage.burn_in(true).await;
    assert_eq!(run.state, RunState::Done, "{:?}", run.actions);
    assert_eq!(kinds(&run), ["agent", "burn-in", "restart", "os.reachable", "verify"]);
    assert_eq!(stage.state(), "ready");
    let after = stage.life.rack.node(&stage.node.to_string()).unwrap().installed.clone();
    assert_eq!(after, before, "its system is the same");
    let report = stage.report();
    let bore: Vec<&str> = report.burned_in.iter().map(|one| one.id.as_str()).collect();
    assert_eq!(bore, ["burnin.cpu", "burnin.memory"]);
    assert_eq!(report.run, Some(run.id.0), "its checks were run again");
    stage.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_does_not_bear_it_is_not_ready_until_it_does() {
    let stage = Stage::new().await;
    stage.life.make_ready(stage.node).await;
    let run = stage.burn_in(false).await;
    assert_eq!(run.state, RunState::Failed);
    assert_eq!(stage.state(), "failed");
    let shown = stage.life.rack.node(&stage.node.to_string()).unwrap();
    let words = serde_json::to_string(&shown.state).unwrap();
    assert!(
        words.contains("burnin.memory") && words.contains("replace the module"),
        "{words}"
    );
    // What was proved before is no proof any more.
    let report = stage.report();
    let failed = |one: &CheckResult| one.status == CheckStatus::Failed;
    assert!(report.burned_in.iter().any(failed) && !report.passed(), "{report:?}");
    // Neither do its checks make it ready.
    let checks = stage.life.executor.verify(Some(vec![stage.node]), "anna").unwrap();
    assert_eq!(stage.life.run_ended(checks).await.state, RunState::Done);
    assert_eq!(stage.state(), "failed");
    let shown = stage.life.rack.node(&stage.node.to_string()).unwrap();
    let words = serde_json::to_string(&shown.state).unwrap();
    assert!(words.contains("rackbar burn-in"), "{words}");
    // The part was replaced.
    let run = stage.burn_in(true).await;
    assert_eq!(run.state, RunState::Done, "{:?}", run.actions);
    assert_eq!(stage.state(), "ready");
    assert!(stage.report().passed());
    stage.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_starts_anew_under_its_load_has_not_borne_it_and_is_not_given_it_again() {
    let folder = tempfile::tempdir().unwrap();
    let sim = Arc::new(Sim::default());
    let (mut life, node) = Life::first(folder.path(), &sim).await;
    let store = life.rack.store().clone();
    let hands = Appliance::new(life.rack.clone(), store, None, Reach::default()).unwrap();
    *sim.real.lock().unwrap() = Some(Arc::new(hands));
    *sim.real_kinds.lock().unwrap() = Some(vec!["burn-in"]);
    let (server, mut agent, site) = life.machine.take().unwrap();
    life.make_ready(node).await;
    let request = PlanRequest {
        nodes: Some(vec![node]),
        burn_in: Some(WANTED),
        ..PlanRequest::default()
    };
    let plan = life.executor.plan(&request).unwrap();
    let run = life.executor.commit(&plan.id, &[], "anna").unwrap();
    loop {
        let ToAgent::Ask { id, ask } = agent.hear().await.unwrap() else {
            continue;
        };
        agent.say(&FromAgent::Done { id, result: Ok(()) }).await.unwrap();
        if matches!(ask, Ask::Begin { .. }) {
            break;
        }
    }
    drop(agent);
    let proof = Proof::BootToken(token_for(&life.rack, mac(1)));
    let (agent, _) = Agent::connect(&site, server.address, mac(1), proof).await.unwrap();
    // It would bear it this time.
    tokio::spawn(serve(agent, Arc::new(AtomicBool::new(true))));
    let run = life.run_ended(run).await;
    assert_eq!((run.state, life.state(node).as_str()), (RunState::Failed, "failed"));
    let words = serde_json::to_string(&life.rack.node(&node.to_string()).unwrap().state).unwrap();
    assert!(words.contains("started anew in the middle of it"), "{words}");
    let file = life.executor.report(node).unwrap().to_bytes();
    let report = rackbar_verify::check(&file, None).unwrap().report.nodes.remove(0);
    let bore: Vec<_> = report
        .burned_in
        .iter()
        .map(|one| (one.id.as_str(), one.status))
        .collect();
    assert_eq!(bore, [("burnin.machine", CheckStatus::Failed)]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_discovered_machine_is_exercised_without_a_site_and_stays_discovered() {
    let stage = Stage::new().await;
    assert!(stage.life.executor.site().is_none());
    let run = stage.burn_in(true).await;
    assert_eq!((run.state, kinds(&run)), (RunState::Done, vec!["agent", "burn-in"]));
    assert_eq!(stage.state(), "discovered");
    let run = stage.burn_in(false).await;
    assert_eq!((run.state, stage.state().as_str()), (RunState::Failed, "failed"));
    stage.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burn_in_needs_names_and_a_time_and_is_no_part_of_another_plan() {
    let stage = Stage::new().await;
    let refused = |request: &PlanRequest| stage.life.executor.plan(request).unwrap_err();
    let good = PlanRequest {
        nodes: Some(vec![stage.node]),
        burn_in: Some(WANTED),
        ..PlanRequest::default()
    };
    let mut nobody = good.clone();
    nobody.nodes = None;
    assert_eq!(refused(&nobody), PlanError::NoNodes);
    let mut nothing = good.clone();
    nothing.burn_in = Some(BurnIn::default());
    assert_eq!(refused(&nothing), PlanError::BurnsNothing);
    let mut both = good;
    both.reinstall = true;
    assert_eq!(refused(&both), PlanError::BurnInAlone);
    stage.server.stop().await;
}

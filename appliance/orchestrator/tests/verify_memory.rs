//! `rackbar verify` of a machine that stays in our agent: what the agent can tell is checked, and of the rest is said why it
//! does not apply.
#![allow(clippy::unwrap_used, reason = "a test may unwrap")]

mod common;

use std::sync::Arc;

use common::bmcs::task;
use common::life::{Life, Sim, hardware};
use common::{Agent, boot, mac, until, until_node};
use rackbar_messages::{Ask, FromAgent, JobReport, ToAgent, Work};
use rackbar_model::{CheckStatus, NodeId};
use rackbar_orchestrator::executor::{CommitError, PlanRequest, VerifyError};
use rackbar_orchestrator::hands::{Appliance, Hands as _, Learned, Reach};
use rackbar_plan::{ActionKind, RunState};
use rackbar_verify::NodeReport;

const SITE: &str = r#"
version = 1
[role.spare]
memory = "agent"
[[rule]]
name = "all"
when = "true"
role = "spare"
"#;

/// An agent that tells how its machine is, whenever it is asked.
async fn tell(mut agent: Agent, told: &'static str) {
    while let Ok(heard) = agent.hear().await {
        let ToAgent::Ask { id, ask } = heard else { continue };
        agent.say(&FromAgent::Done { id, result: Ok(()) }).await.unwrap();
        if let Ask::Begin { job, work } = ask {
            assert_eq!(*work, Work::Condition);
            let result = Ok(JobReport::Condition(told.into()));
            agent.say(&FromAgent::Ended { job, result }).await.unwrap();
        }
    }
}

/// What one attempt of the checks came to.
async fn checked(life: &Life, node: NodeId) -> (Result<String, String>, NodeReport) {
    let hands = Appliance::new(life.rack.clone(), life.rack.store().clone(), None, Reach::default()).unwrap();
    let shown = life.rack.node(&node.to_string()).unwrap();
    let (task, _give_up) = task(&shown, ActionKind::Verify { checks: Vec::new() });
    let done = hands.carry_out(task).await;
    let [Learned::Checked(report)] = done.learned.as_slice() else {
        panic!("{done:?}")
    };
    let result = done
        .result
        .map(|outcome| outcome.summary)
        .map_err(|failure| failure.reason);
    (result, report.as_ref().clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_in_memory_is_checked_through_its_agent_and_says_what_does_not_apply() {
    let folder = tempfile::tempdir().unwrap();
    let sim = Arc::new(Sim::default());
    let (mut life, node) = Life::first(folder.path(), &sim).await;
    let nothing = life.executor.verify(Some(vec![node]), "anna").unwrap_err();
    assert!(matches!(nothing, VerifyError::Nothing(_)), "{nothing}");
    life.executor.set_site(SITE, "anna").unwrap();
    let plan = life.executor.plan(&PlanRequest::default()).unwrap();
    life.executor.commit(&plan.id, &[], "anna").unwrap();
    let role = life.rack.node(&node.to_string()).unwrap().role.clone();
    assert_eq!(
        role.as_deref(),
        Some("spare"),
        "a machine is worked on for the role it was planned for"
    );
    until_node(&life.rack, "ready", |node| node.state.name() == "ready").await;

    // Alone and with the rack.
    for nodes in [Some(vec![node]), None] {
        let run = life.executor.verify(nodes, "anna").unwrap();
        let ended = until("the run has ended", || {
            life.executor.run(run).filter(|run| run.ended.is_some())
        });
        assert_eq!(ended.await.plan.actions.len(), 1);
        assert_eq!(life.state(node), "ready");
    }

    let (server, agent, _site) = life.machine.take().unwrap();
    let agent = tokio::spawn(tell(agent, "online=0-3\ntainted=0\nlines=500\nlog=Linux version 6"));
    let (result, report) = checked(&life, node).await;
    assert!(
        result.unwrap_err().contains("time.sync"),
        "an agent without a clock proves no time"
    );
    let of = |id: &str| report.checks.iter().find(|one| one.id == id).cloned().unwrap();
    assert_eq!(of("kernel.taint").status, CheckStatus::Passed);
    assert_eq!(of("disk.errors").observed, "none in 500 lines");
    for id in ["os.identity", "net.pairs", "services.failed", "disk.layout"] {
        let one = of(id);
        assert!(one.status == CheckStatus::Skipped && !one.advice.is_empty(), "{one:?}");
    }
    server.stop().await;
    agent.await.unwrap();
    life.kill().await;
}

/// One machine that is worked on holds up the checks of the rack no more than it must.
#[tokio::test(flavor = "multi_thread")]
async fn checks_of_the_rack_leave_out_what_another_run_works_on_and_say_so() {
    let folder = tempfile::tempdir().unwrap();
    let sim = Arc::new(Sim::default());
    let (life, busy) = Life::first(folder.path(), &sim).await;
    let (server, _, site) = life.machine.as_ref().unwrap();
    let (_agent, second) = boot(site, server, &[mac(2)], hardware(2, 40)).await;
    for node in [busy, second.node] {
        life.make_ready(node).await;
    }
    *sim.gate.lock().unwrap() = Some("verify");
    let held = life.executor.verify(Some(vec![busy]), "anna").unwrap();
    sim.stopped.notified().await;
    *sim.gate.lock().unwrap() = None;
    let rack = life.executor.verify(None, "anna").unwrap();
    let ended = life.run_ended(rack).await;
    assert_eq!(ended.state, RunState::Done);
    let of = |id: NodeId| ended.plan.actions.iter().any(|action| action.node == Some(id));
    assert!(of(second.node) && !of(busy), "{:?}", ended.plan);
    let left: Vec<_> = ended
        .plan
        .left_out
        .iter()
        .map(|left| (left.node, left.reason.as_str()))
        .collect();
    let reason = format!("run {held} works on it; check it when that has ended");
    assert_eq!(left, [(busy, reason.as_str())]);
    // Asked for by name it is refused.
    for nodes in [vec![busy], vec![busy, second.node]] {
        let refused = life.executor.verify(Some(nodes), "anna").unwrap_err();
        let of_run = matches!(&refused, VerifyError::Commit(CommitError::Busy { run, .. }) if *run == held);
        assert!(of_run, "{refused}");
    }
    sim.wake.notify_waiters();
    assert_eq!(life.run_ended(held).await.state, RunState::Done);
    life.kill().await;
}

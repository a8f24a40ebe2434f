//! Leaving our agent by a jump into the installed kernel: the agent says that all is loaded, jumps when it hears that this
//! was written down, and nobody waits longer than that takes.
#![allow(clippy::unwrap_used, reason = "a test may unwrap")]

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::Agent;
use common::life::{Life, Sim};
use rackbar_messages::{Ask, FromAgent, JobFailure, JobId, JobReport, ToAgent, Work};
use rackbar_orchestrator::executor::PlanRequest;
use rackbar_orchestrator::hands::{Appliance, Reach};
use rackbar_plan::{Outcome, Run, RunState, Stand};

const SITE: &str = r#"
version = 1
ssh_keys = ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f test"]
[role.worker]
os = "debian-12"
restart = "kexec"
[[rule]]
name = "all"
when = "true"
role = "worker"
"#;

/// Far less than anybody who waits for a machine to go down or to come back gives it, and far more than a frame takes.
const AT_ONCE: Duration = Duration::from_secs(20);

/// Why a machine cannot jump.
const LOCKED: &str = "the kernel is locked down by Secure Boot";

/// What an agent was told, in order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Told {
    Kexec,
    Noted,
    Reboot,
}

/// An agent that jumps, or cannot, and stays connected until it is told to go.
async fn leave(mut agent: Agent, jumps: bool) -> Vec<Told> {
    let mut told = Vec::new();
    let mut at: Option<JobId> = None;
    loop {
        match agent.hear().await.unwrap() {
            ToAgent::Ask { id, ask } => {
                agent.say(&FromAgent::Done { id, result: Ok(()) }).await.unwrap();
                match ask {
                    Ask::Begin { job, work } => {
                        assert!(matches!(*work, Work::Kexec { .. }), "{work:?}");
                        told.push(Told::Kexec);
                        at = Some(job);
                        let refused = JobFailure {
                            reason: LOCKED.into(),
                            advice: String::new(),
                            again: false,
                        };
                        let result = if jumps { Ok(JobReport::Jumping) } else { Err(refused) };
                        agent.say(&FromAgent::Ended { job, result }).await.unwrap();
                    }
                    Ask::Reboot => {
                        told.push(Told::Reboot);
                        return told;
                    }
                    _ => {}
                }
            }
            ToAgent::Noted(job) if Some(job) == at => {
                told.push(Told::Noted);
                if jumps {
                    return told;
                }
            }
            _ => {}
        }
    }
}

/// Installs a machine that leaves our agent so; gives the run, how its restart ended, how long all took and what the agent heard.
async fn install(jumps: bool) -> (Arc<Run>, Outcome, Duration, Vec<Told>) {
    let folder = tempfile::tempdir().unwrap();
    let sim = Arc::new(Sim::default());
    let (mut life, node) = Life::first(folder.path(), &sim).await;
    let store = life.rack.store().clone();
    let hands = Appliance::new(life.rack.clone(), store, None, Reach::default()).unwrap();
    *sim.real.lock().unwrap() = Some(Arc::new(hands));
    *sim.real_kinds.lock().unwrap() = Some(vec!["restart"]);
    let (server, agent, _site) = life.machine.take().unwrap();
    let machine = tokio::spawn(leave(agent, jumps));
    life.executor.set_site(SITE, "test").unwrap();
    let plan = life.executor.plan(&PlanRequest::default()).unwrap();
    let began = Instant::now();
    let run = life.executor.commit(&plan.id, &["node-001".into()], "test").unwrap();
    let run = life.run_ended(run).await;
    let took = began.elapsed();
    let told = tokio::time::timeout(AT_ONCE, machine).await.unwrap().unwrap();
    let restart = run.plan.actions.iter().find(|action| action.kind.name() == "restart");
    let Stand::Done { outcome, tries: 1, .. } = &run.actions[&restart.unwrap().id] else {
        panic!("{:?}", run.actions);
    };
    let outcome = outcome.clone();
    assert_eq!(life.state(node), "ready");
    server.stop().await;
    (run, outcome, took, told)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jump_is_done_when_the_agent_is_to_jump_and_nobody_waits_for_it_to_go() {
    let (run, outcome, took, told) = install(true).await;
    assert_eq!(run.state, RunState::Done, "{:?}", run.actions);
    assert_eq!(outcome.summary, "the installed kernel starts");
    assert_eq!(
        told,
        [Told::Kexec, Told::Noted],
        "it jumps by what it hears and is not restarted"
    );
    assert!(took < AT_ONCE, "it took {took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_cannot_jump_is_restarted_through_its_firmware_and_the_run_says_why() {
    let (run, outcome, took, told) = install(false).await;
    assert_eq!(run.state, RunState::Done, "{:?}", run.actions);
    assert!(
        outcome.summary.contains("through its firmware") && outcome.summary.contains(LOCKED),
        "{}",
        outcome.summary
    );
    assert_eq!((told.first(), told.last()), (Some(&Told::Kexec), Some(&Told::Reboot)));
    assert!(took < AT_ONCE, "it took {took:?}");
}

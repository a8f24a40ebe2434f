//! Jobs over a real agent's connection: lost connections, machines that boot anew, and an appliance that restarts.
#![allow(clippy::unwrap_used, reason = "a test may unwrap")]

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::*;
use rackbar_messages::{Ask, FromAgent, JobFailure, JobId, JobReport, Proof, ToAgent, Work};
use rackbar_model::NodeId;
use rackbar_orchestrator::Rack;
use rackbar_orchestrator::hands::{Appliance, Hands as _, Reach};
use rackbar_plan::Progress;
use rackbar_store::{Options, Store};
use tokio::sync::watch;
use tokio::task::JoinHandle;

const HEARTBEAT: Duration = Duration::from_secs(600);
const JOB: JobId = JobId([7; 16]);

/// A job that somebody waits for.
struct Waited {
    task: JoinHandle<Result<JobReport, JobFailure>>,
    give_up: watch::Sender<bool>,
    seen: Arc<Mutex<Vec<Progress>>>,
}

fn ask(rack: &Rack, node: NodeId) -> Waited {
    let (give_up, mut told) = watch::channel(false);
    let (rack, seen) = (rack.clone(), Arc::new(Mutex::new(Vec::new())));
    let list = seen.clone();
    let task = tokio::spawn(async move {
        let progress = move |one| list.lock().unwrap().push(one);
        rack.job(node, JOB, Work::Layout, progress, &mut told).await
    });
    Waited { task, give_up, seen }
}

impl Waited {
    async fn end(self) -> Result<JobReport, JobFailure> {
        tokio::time::timeout(PATIENCE, self.task)
            .await
            .expect("the job ends")
            .unwrap()
    }
}

/// The agent is asked to begin the job and says yes.
async fn begun(agent: &mut Agent) {
    loop {
        match agent.hear().await.unwrap() {
            ToAgent::Ask {
                id,
                ask: Ask::Begin { job, work },
            } => {
                assert_eq!((job, *work), (JOB, Work::Layout));
                return agent.say(&FromAgent::Done { id, result: Ok(()) }).await.unwrap();
            }
            ToAgent::Ask { ask: Ask::Facts, .. } => {}
            other => panic!("{other:?} in place of a job"),
        }
    }
}

fn ended() -> FromAgent {
    let result = Ok(JobReport::Layout(Vec::new()));
    FromAgent::Ended { job: JOB, result }
}

async fn again(site: &Site, server: &Server, proof: Proof) -> Agent {
    Agent::connect(site, server.address, mac(1), proof)
        .await
        .expect("it is welcome")
        .0
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_goes_on_under_its_number_when_the_connection_breaks_and_comes_back() {
    let site = site();
    let server = Server::start(&site, rack(Store::in_memory(Options::default()).unwrap()), HEARTBEAT).await;
    let (mut agent, welcome) = boot(&site, &server, &[mac(1)], machine(&[mac(1)], "S1", "u-1")).await;
    let waited = ask(&server.rack, welcome.node);
    begun(&mut agent).await;
    let progress = FromAgent::Progress {
        job: JOB,
        doing: "looking".into(),
        done: 1,
        total: 2,
    };
    agent.say(&progress).await.unwrap();
    until("the progress is told", || {
        (!waited.seen.lock().unwrap().is_empty()).then_some(())
    })
    .await;
    drop(agent);
    let mut agent = again(&site, &server, Proof::Session(welcome.session)).await;
    // The same number: an agent that runs it does not run it twice.
    begun(&mut agent).await;
    agent.say(&ended()).await.unwrap();
    assert_eq!(waited.end().await, Ok(JobReport::Layout(Vec::new())));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_that_is_told_before_the_job_is_asked_for_again_is_taken() {
    let site = site();
    let server = Server::start(&site, rack(Store::in_memory(Options::default()).unwrap()), HEARTBEAT).await;
    let (mut agent, welcome) = boot(&site, &server, &[mac(1)], machine(&[mac(1)], "S1", "u-1")).await;
    let waited = ask(&server.rack, welcome.node);
    begun(&mut agent).await;
    drop(agent);
    // It ended while nobody was connected: the first it says.
    let mut agent = again(&site, &server, Proof::Session(welcome.session)).await;
    agent.say(&ended()).await.unwrap();
    assert_eq!(waited.end().await, Ok(JobReport::Layout(Vec::new())));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_booted_anew_is_asked_to_begin_again() {
    let site = site();
    let server = Server::start(&site, rack(Store::in_memory(Options::default()).unwrap()), HEARTBEAT).await;
    let (mut agent, welcome) = boot(&site, &server, &[mac(1)], machine(&[mac(1)], "S1", "u-1")).await;
    let waited = ask(&server.rack, welcome.node);
    begun(&mut agent).await;
    drop(agent);
    let token = token_for(&server.rack, mac(1));
    let mut agent = again(&site, &server, Proof::BootToken(token)).await;
    begun(&mut agent).await;
    agent.say(&ended()).await.unwrap();
    assert_eq!(waited.end().await, Ok(JobReport::Layout(Vec::new())));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_appliance_that_restarts_while_a_job_runs_hears_its_end_and_says_that_it_is_noted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rackbar.redb");
    let site = site();
    let (node, session, mut agent) = {
        let server = Server::start(&site, rack(Store::open(&path).unwrap()), HEARTBEAT).await;
        let (mut agent, welcome) = boot(&site, &server, &[mac(1)], machine(&[mac(1)], "S1", "u-1")).await;
        let waited = ask(&server.rack, welcome.node);
        begun(&mut agent).await;
        server.rack.store().flush().unwrap();
        waited.task.abort();
        let _ = waited.task.await;
        server.stop().await;
        (welcome.node, welcome.session, agent)
    };
    // The agent sees its connection end and comes again.
    while agent.hear().await.is_ok() {}
    let store = until("the store of the life before is closed", || Store::open(&path).ok()).await;
    let server = Server::start(&site, rack(store.clone()), HEARTBEAT).await;
    let mut agent = again(&site, &server, Proof::Session(session)).await;
    // The end comes before the executor has taken its action up.
    agent.say(&ended()).await.unwrap();
    agent.until_read(&server.rack, node).await;
    let waited = ask(&server.rack, node);
    assert_eq!(waited.end().await, Ok(JobReport::Layout(Vec::new())));
    let hands = Appliance::new(server.rack.clone(), store, None, Reach::default()).unwrap();
    hands.noted(node, JOB);
    let noted = async {
        loop {
            if let ToAgent::Noted(job) = agent.hear().await.unwrap() {
                return job;
            }
        }
    };
    assert_eq!(tokio::time::timeout(PATIENCE, noted).await.expect("it is noted"), JOB);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_given_up_by_its_agent_and_without_one_at_once() {
    let site = site();
    let server = Server::start(&site, rack(Store::in_memory(Options::default()).unwrap()), HEARTBEAT).await;
    let (mut agent, welcome) = boot(&site, &server, &[mac(1)], machine(&[mac(1)], "S1", "u-1")).await;
    let waited = ask(&server.rack, welcome.node);
    begun(&mut agent).await;
    waited.give_up.send(true).unwrap();
    let ToAgent::Ask { id, ask: order } = agent.hear().await.unwrap() else {
        panic!("no order");
    };
    assert_eq!(order, Ask::GiveUp(JOB));
    agent.say(&FromAgent::Done { id, result: Ok(()) }).await.unwrap();
    let failure = JobFailure {
        reason: "given up at a safe point".into(),
        advice: String::new(),
        again: true,
    };
    let result = Err(failure.clone());
    agent.say(&FromAgent::Ended { job: JOB, result }).await.unwrap();
    assert_eq!(waited.end().await, Err(failure));
    drop(agent);
    until_node(&server.rack, "without an agent", |node| !node.agent_connected).await;
    let waited = ask(&server.rack, welcome.node);
    waited.give_up.send(true).unwrap();
    let reason = waited.end().await.unwrap_err().reason;
    assert!(reason.contains("not connected"), "{reason}");
    server.stop().await;
}

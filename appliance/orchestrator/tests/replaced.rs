//! A machine is replaced by another that takes its name: what was agreed to for the one is not agreed to for the other,
//! and what is known of the one stays with it.
#![allow(clippy::unwrap_used, reason = "a test may unwrap")]

mod common;

use std::sync::Arc;

use common::life::{Life, Sim, hardware};
use common::{Agent, boot, kinds, mac, until, until_node};
use rackbar_messages::{Proof, RefusedReason, ToAgent};
use rackbar_model::{Node, NodeId};
use rackbar_orchestrator::executor::{CommitError, NodeError, PlanRequest};
use rackbar_plan::{Plan, RunId, RunState};

/// The site, with the serial number of the machine that is `web-1`.
fn site_for(serial: &str) -> String {
    format!(
        r#"
version = 1
ssh_keys = ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f test"]

[role.web]
os = "debian-12"

[[machine]]
name = "web-1"
serial = "{serial}"
role = "web"
"#
    )
}

fn plan(life: &Life, reinstall: bool) -> Arc<Plan> {
    let request = PlanRequest {
        reinstall,
        ..PlanRequest::default()
    };
    life.executor.plan(&request).unwrap()
}

fn nodes_of(plan: &Plan) -> Vec<NodeId> {
    let mut nodes: Vec<NodeId> = plan.actions.iter().filter_map(|action| action.node).collect();
    nodes.dedup();
    nodes
}

async fn done(life: &Life, run: RunId) {
    until("the run is done", || {
        life.executor.run(run).filter(|run| run.state == RunState::Done)
    })
    .await;
}

async fn is_ready(life: &Life, id: NodeId) -> Arc<Node> {
    until_node(&life.rack, "ready", |node| {
        node.id == id && node.state.name() == "ready"
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_takes_the_name_of_another_needs_its_own_consent_and_the_old_one_keeps_its_story() {
    let folder = tempfile::tempdir().unwrap();
    let sim = Arc::new(Sim::default());
    let (mut life, old) = Life::first(folder.path(), &sim).await;
    life.executor.set_site(&site_for("SN1"), "anna").unwrap();
    let first = plan(&life, false);
    let yes = ["web-1".to_owned()];
    done(&life, life.executor.commit(&first.id, &yes, "anna").unwrap()).await;
    let was = is_ready(&life, old).await;
    assert_eq!(was.installed.as_ref().unwrap().hostname, "web-1");

    // A plan to install it anew was made and agreed upon, then the machine broke and went out of the rack.
    let for_old = plan(&life, true);
    assert_eq!(nodes_of(&for_old), [old]);
    let (server, agent, site) = life.machine.take().unwrap();
    drop(agent);
    until_node(&life.rack, "the old one gone", |node| {
        node.id == old && !node.agent_connected
    })
    .await;

    // Another comes into its place. The site does not know it yet: nothing is to be done about it.
    let (agent, welcome) = boot(&site, &server, &[mac(2)], hardware(2, 40)).await;
    let new = welcome.node;
    assert_ne!(new, old, "another machine is another node");
    let begun = *sim.begun.lock().unwrap();
    let before = plan(&life, true);
    assert!(!nodes_of(&before).contains(&new), "{before:#?}");
    assert!(before.left_out.iter().any(|one| one.node == new), "{before:#?}");

    // The name is given to it in the site: what was planned for the old one is not good for it, whatever was agreed to.
    life.executor.set_site(&site_for("SN2"), "anna").unwrap();
    let stale = life.executor.commit(&for_old.id, &yes, "anna").unwrap_err();
    assert!(matches!(stale, CommitError::Stale(_)), "{stale}");
    let stale = life.executor.commit(&before.id, &yes, "anna").unwrap_err();
    assert!(matches!(stale, CommitError::Stale(_)), "{stale}");

    // Its own plan touches it alone, and wants its own consent: one for the old machine, by its id, is none.
    let own = plan(&life, false);
    assert_eq!(nodes_of(&own), [new], "{own:#?}");
    for not_it in [vec![], vec![old.to_string()], vec![was.name.clone()]] {
        let refused = life.executor.commit(&own.id, &not_it, "anna").unwrap_err();
        let missing = vec!["web-1".to_owned()];
        assert_eq!(refused, CommitError::Consent { missing }, "{not_it:?}");
    }
    assert_eq!(*sim.begun.lock().unwrap(), begun, "nothing was begun on any machine");
    assert_eq!(life.state(new), "discovered");
    done(&life, life.executor.commit(&own.id, &yes, "anna").unwrap()).await;
    let now = is_ready(&life, new).await;
    assert_eq!(now.installed.as_ref().unwrap().hostname, "web-1");

    // What is known of the old one stays with the old one, also over a restart; the new one has a story of its own.
    life.machine = Some((server, agent, site));
    let story = kinds(&life.rack, old);
    let told = kinds(&life.rack, new);
    life.kill().await;
    let life = Life::start(folder.path(), &sim).await;
    let node = |id: NodeId| life.rack.node(&id.to_string()).unwrap();
    assert_eq!(node(old).installed, was.installed);
    let no_role = |node: &Node| node.id == old && node.role.is_none();
    until_node(&life.rack, "it is no machine of the site any more", no_role).await;
    assert_eq!(node(new).installed, now.installed);
    assert_eq!(kinds(&life.rack, old)[..story.len()], story);
    assert!(story.iter().any(|kind| kind == "action_done"), "{story:?}");
    assert_eq!(
        told.iter().filter(|kind| *kind == "node_enrolled").count(),
        1,
        "{told:?}"
    );
    assert_eq!(
        life.executor.report(old).map(|_| ()),
        Some(()),
        "the old one's report is kept"
    );
    assert_eq!(
        plan(&life, false).actions,
        [],
        "nothing is left to do, least of all to the old one"
    );
    life.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_is_gone_is_forgotten_with_its_name_and_comes_back_as_another() {
    let folder = tempfile::tempdir().unwrap();
    let sim = Arc::new(Sim::default());
    let (mut life, old) = Life::first(folder.path(), &sim).await;
    life.executor.set_site(&site_for("SN1"), "anna").unwrap();
    let yes = ["web-1".to_owned()];

    // Not while it is there, and not while it is worked on.
    let there = life.executor.forget(old, "anna").unwrap_err();
    assert_eq!(there, NodeError::StillThere("node-001".into()));
    *sim.hang.lock().unwrap() = Some("os.write");
    let run = life.executor.commit(&plan(&life, false).id, &yes, "anna").unwrap();
    sim.stopped.notified().await;
    let busy = life.executor.forget(old, "anna").unwrap_err();
    assert!(matches!(busy, NodeError::Busy { run: one, .. } if one == run), "{busy}");
    *sim.hang.lock().unwrap() = None;
    life.executor.recover(old, "anna").unwrap();
    until("the run has ended", || {
        life.executor.run(run).filter(|run| run.ended.is_some())
    })
    .await;
    done(
        &life,
        life.executor.commit(&plan(&life, false).id, &yes, "anna").unwrap(),
    )
    .await;
    is_ready(&life, old).await;

    let (server, agent, site) = life.machine.take().unwrap();
    drop(agent);
    until_node(&life.rack, "it is gone", |node| !node.agent_connected).await;
    life.executor.forget(old, "anna").unwrap();
    assert!(life.rack.nodes().is_empty());
    let gone = life.executor.forget(old, "anna").unwrap_err();
    assert_eq!(gone, NodeError::NoSuchNode(old));
    life.rack.store().flush().unwrap();
    let story = life.rack.store().timeline(old, 10_000).unwrap();
    let told = |event: &rackbar_model::Event| event.kind.to_string().contains("forgotten by anna");
    assert!(
        story.len() > 10 && story.iter().any(told),
        "its story stays in the journal"
    );

    // Over a restart too. Then the very machine comes back: it is a new one, with the first name that is free, of which
    // nothing is known and on which nothing is destroyed without consent.
    server.stop().await;
    life.kill().await;
    let mut life = Life::start(folder.path(), &sim).await;
    assert!(life.rack.nodes().is_empty());
    assert!(life.executor.report(old).is_none() && life.executor.run(run).is_some());
    let server = common::Server::start(&site, life.rack.clone(), std::time::Duration::from_secs(600)).await;
    let (agent, welcome) = boot(&site, &server, &[mac(1)], hardware(1, 20)).await;
    life.machine = Some((server, agent, site));
    assert_ne!(welcome.node, old);
    let shown = life.rack.node(&welcome.node.to_string()).unwrap();
    assert_eq!((shown.name.as_str(), &shown.installed), ("node-001", &None));
    let refused = life.executor.commit(&plan(&life, false).id, &[], "anna").unwrap_err();
    assert_eq!(refused, CommitError::Consent { missing: yes.into() });

    // Its session ends with it: the agent that comes back has to boot anew.
    let (server, agent, site) = life.machine.take().unwrap();
    drop(agent);
    until_node(&life.rack, "it is gone", |node| !node.agent_connected).await;
    life.executor.forget(welcome.node, "anna").unwrap();
    let proof = Proof::Session(welcome.session);
    let refused = Agent::connect(&site, server.address, mac(1), proof).await.map(|_| ());
    assert_eq!(refused, Err(ToAgent::Refused(RefusedReason::UnknownSession)));
    server.stop().await;
    life.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_word_that_means_two_machines_is_consent_for_neither() {
    let folder = tempfile::tempdir().unwrap();
    let sim = Arc::new(Sim::default());
    let (life, first) = Life::first(folder.path(), &sim).await;
    let (server, _, site) = life.machine.as_ref().unwrap();
    let (_agent, second) = boot(site, server, &[mac(2)], hardware(2, 40)).await;
    let name = life.rack.node(&second.node.to_string()).unwrap().name.clone();
    // The first machine is to be called as the second is called now.
    let text = site_for("SN1").replace("web-1", &name);
    life.executor.set_site(&text, "anna").unwrap();
    let plan = plan(&life, false);
    assert_eq!(nodes_of(&plan), [first], "{plan:#?}");
    let refused = life
        .executor
        .commit(&plan.id, std::slice::from_ref(&name), "anna")
        .unwrap_err();
    let says = refused.to_string();
    assert!(matches!(refused, CommitError::Ambiguous(_)), "{says}");
    assert!(says.contains(&format!("--yes-destroy {first}")), "{says}");
    let other = life
        .executor
        .commit(&plan.id, &[second.node.to_string()], "anna")
        .unwrap_err();
    assert!(matches!(other, CommitError::Consent { .. }), "{other}");
    assert!(life.executor.runs().is_empty(), "nothing was begun");
    // A MAC address means one machine whatever it is called.
    done(
        &life,
        life.executor.commit(&plan.id, &[mac(1).to_string()], "anna").unwrap(),
    )
    .await;
    life.kill().await;
}

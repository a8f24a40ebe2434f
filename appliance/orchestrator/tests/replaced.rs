//! A machine is replaced by another that takes its name: what was agreed to for the one is not agreed to for the other,
//! and what is known of the one stays with it.
#![allow(clippy::unwrap_used, reason = "a test may unwrap")]

mod common;

use std::sync::Arc;

use common::life::{Life, Sim, hardware};
use common::{boot, kinds, mac, until, until_node};
use rackbar_model::{Node, NodeId};
use rackbar_orchestrator::executor::{CommitError, PlanRequest};
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
    assert_eq!(node(old).role, None, "no machine of the site any more");
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

//! Burn-in by command: what it plans for each kind of machine, that it destroys nothing, and what it refuses.
#![allow(missing_docs, reason = "a test")]

mod common;

use common::{STATIC, WORKER, all, carried_out, change, ids, node, one, refusal, site};
use rackbar_model::{BurnIn, NodeState, Timestamp};
use rackbar_plan::{ActionKind, Facts, Plan, RestartWay, Scope, Site, plan, stale};

const WANTED: BurnIn = BurnIn {
    cpu_seconds: 600,
    memory_seconds: 1200,
    disk_seconds: 0,
};

fn burn_in(site: &Site, facts: &Facts) -> Plan {
    let scope = Scope {
        nodes: Some(facts.nodes.iter().map(|node| node.node.id).collect()),
        burn_in: Some(WANTED),
        ..Scope::default()
    };
    let plan = plan(site, facts, &scope, Timestamp(1));
    assert_eq!(plan.check(), Ok(()));
    assert!(plan.destructive().is_empty(), "it destroys: {:?}", plan.actions);
    plan
}

/// A worker that runs its system and is ready.
fn ready(site: &Site) -> Facts {
    let mut facts = one(1);
    let first = all(site, &facts);
    carried_out(&mut facts, &first);
    change(&mut facts.nodes[0], |node| {
        (node.state, node.agent_connected) = (NodeState::Ready, false);
    });
    assert!(all(site, &facts).is_empty());
    facts
}

#[test]
fn an_installed_machine_is_taken_out_of_its_system_and_back_into_it() {
    let site = site(&WORKER.replace("os = \"debian-12\"", "os = \"debian-12\"\nrestart = \"kexec\""));
    let facts = ready(&site);
    let plan = burn_in(&site, &facts);
    let wanted = ["agent.restart", "burn-in", "restart", "os.reachable", "verify"];
    assert_eq!(ids(&plan), wanted.map(|name| format!("node-001/{name}")));
    assert_eq!(plan.actions[1].kind, ActionKind::BurnIn(WANTED));
    assert!(
        plan.actions[1].limits.seconds > 1800,
        "it may take the time that was asked for"
    );
    assert_eq!(plan.actions[1].limits.tries, 1);
    let installed = facts.nodes[0].installed.as_ref().unwrap();
    let kind = ActionKind::Restart {
        way: RestartWay::Kexec,
        target: installed.target.clone(),
    };
    assert_eq!(plan.actions[2].kind, kind, "as its role restarts");
    let restarts: Vec<bool> = plan.actions.iter().map(|action| action.reboots).collect();
    assert_eq!(
        restarts,
        [true, false, true, false, false],
        "the plan shows its restarts"
    );
    for pair in plan.actions.windows(2) {
        assert_eq!(pair[1].needs, [pair[0].id.clone()], "one after the other");
    }
    assert!(stale(&plan, &site, &facts).is_empty());
}

#[test]
fn an_installed_machine_without_a_role_goes_back_to_the_checks_that_passed_last() {
    let mut facts = ready(&site(WORKER));
    facts.nodes[0].installed.as_mut().unwrap().checked = Some(vec!["disk.layout".into()]);
    let plan = burn_in(&site("version = 1"), &facts);
    let checks = vec!["disk.layout".to_owned()];
    assert_eq!(plan.actions.last().unwrap().kind, ActionKind::Verify { checks });
}

#[test]
fn a_discovered_machine_stays_in_our_agent_with_or_without_a_site() {
    let mut facts = one(1);
    change(&mut facts.nodes[0], |node| node.agent_connected = true);
    for site in [site("version = 1"), site(WORKER), Site::default()] {
        let plan = burn_in(&site, &facts);
        assert_eq!(ids(&plan), ["node-001/agent", "node-001/burn-in"]);
    }
}

#[test]
fn a_machine_that_is_ready_in_memory_stays_there_and_is_checked_again() {
    let text =
        "version = 1\n[role.spare]\nmemory = \"agent\"\n[[rule]]\nname = \"all\"\nrole = \"spare\"\nwhen = \"true\"\n";
    let site = site(text);
    let mut facts = one(1);
    change(&mut facts.nodes[0], |node| {
        (node.state, node.agent_connected) = (NodeState::Ready, true);
    });
    let wanted = ["agent", "burn-in", "verify"];
    assert_eq!(
        ids(&burn_in(&site, &facts)),
        wanted.map(|name| format!("node-001/{name}"))
    );
    change(&mut facts.nodes[0], |node| node.state = NodeState::Discovered);
    assert_eq!(
        ids(&burn_in(&site, &facts)).len(),
        2,
        "it was not ready, and does not become so by this"
    );
}

#[test]
fn hands_are_off_and_what_cannot_be_reached_is_refused_with_what_to_do() {
    let site = site(WORKER);
    let mut facts = ready(&site);
    // The node's state may still show what it was.
    facts.nodes[0].maintenance = true;
    let held = burn_in(&site, &facts);
    assert!(held.actions.is_empty() && held.left_out[0].reason.contains("hands off"));
    let whole = plan(
        &site,
        &facts,
        &Scope {
            reinstall: true,
            ..Scope::default()
        },
        Timestamp(1),
    );
    assert!(whole.actions.is_empty() && whole.left_out[0].reason.contains("hands off"));
    facts.nodes[0].maintenance = false;
    facts.nodes[0].bmc = false;
    assert!(refusal(&burn_in(&site, &facts)).contains("no BMC to restart it"));
    let mut unseen = one(1);
    change(&mut unseen.nodes[0], |node| node.inventory = None);
    assert!(refusal(&burn_in(&site, &unseen)).contains("has not been inspected"));
}

#[test]
fn only_the_named_machines_are_touched() {
    let site = site(STATIC);
    let mut facts = one(1);
    facts.nodes.push(node(2, Vec::new()));
    let scope = Scope {
        nodes: Some(vec![facts.nodes[1].node.id]),
        burn_in: Some(WANTED),
        ..Scope::default()
    };
    let plan = plan(&site, &facts, &scope, Timestamp(1));
    assert!(
        plan.actions
            .iter()
            .all(|action| action.node == Some(facts.nodes[1].node.id))
    );
    assert_eq!(plan.actions.len(), 2);
}

#[test]
fn of_a_role_with_a_batch_only_so_many_are_away_from_their_work_at_once() {
    let site = site(&WORKER.replace("os = \"debian-12\"", "os = \"debian-12\"\nbatch = 2"));
    let mut rack = Facts::default();
    for number in 1..=5 {
        rack.nodes.extend(one(number).nodes);
    }
    for node in &mut rack.nodes {
        change(node, |node| node.agent_connected = true);
    }
    let plan = burn_in(&site, &rack);
    let needs = |number: u16| {
        let id = format!("node-{number:03}/agent");
        let first = plan.actions.iter().find(|action| action.id.0 == id).unwrap();
        first.needs.iter().map(|id| id.0.clone()).collect::<Vec<_>>()
    };
    for number in [1, 2] {
        assert!(needs(number).is_empty(), "the first two begin at once");
    }
    for number in 3..=5 {
        assert_eq!(needs(number), [format!("node-{:03}/burn-in", number - 2)]);
    }
    // One that is at work in another run takes a place.
    change(&mut rack.nodes[0], |node| node.state = NodeState::Provisioning);
    let others = rack.nodes[1..].iter().map(|node| node.node.id).collect();
    let scope = Scope {
        nodes: Some(others),
        burn_in: Some(WANTED),
        ..Scope::default()
    };
    let plan = rackbar_plan::plan(&site, &rack, &scope, Timestamp(1));
    let first = plan.actions.iter().filter(|action| action.needs.is_empty()).count();
    assert_eq!(first, 1, "{:?}", ids(&plan));
}

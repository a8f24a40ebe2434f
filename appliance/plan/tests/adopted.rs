//! Machines whose system was adopted: no plan touches them until they are named and another system is asked for.
#![allow(missing_docs, reason = "a test")]

mod common;

use std::net::IpAddr;

use common::{STATIC, WORKER, all, change, facts, ids, node, one, refusal, site};
use rackbar_model::{BurnIn, NodeState, Timestamp};
use rackbar_plan::{Facts, Plan, Scope, plan, stale};

/// A machine that would be installed, were its system not an adopted one.
fn adopted() -> Facts {
    let mut facts = one(1);
    facts.nodes[0].adopted = true;
    change(&mut facts.nodes[0], |node| {
        (node.state, node.agent_connected) = (NodeState::Ready, false);
    });
    facts
}

fn planned(facts: &Facts, text: &str, scope: Scope) -> Plan {
    let plan = plan(&site(text), facts, &scope, Timestamp(1));
    assert_eq!(plan.check(), Ok(()));
    plan
}

fn named(facts: &Facts) -> Scope {
    Scope {
        nodes: Some(facts.nodes.iter().map(|node| node.node.id).collect()),
        ..Scope::default()
    }
}

#[test]
fn an_adopted_machine_is_left_as_it_is_whatever_its_role_and_state() {
    for text in [WORKER, STATIC] {
        for state in [NodeState::Ready, NodeState::Available, NodeState::Discovered] {
            let mut facts = adopted();
            change(&mut facts.nodes[0], |node| node.state = state.clone());
            for scope in [Scope::default(), named(&facts)] {
                let rotates = Scope {
                    rotate_passwords: true,
                    ..scope.clone()
                };
                for scope in [scope, rotates] {
                    let plan = planned(&facts, text, scope);
                    assert!(plan.actions.is_empty(), "{:?}", plan.actions);
                    assert!(
                        plan.left_out[0].reason.contains("adopted and stays as it is"),
                        "{plan:?}"
                    );
                }
            }
        }
    }
    // Who has everything installed anew has not named it.
    let whole = Scope {
        reinstall: true,
        ..Scope::default()
    };
    assert!(planned(&adopted(), WORKER, whole).actions.is_empty());
}

#[test]
fn it_is_emptied_only_when_it_is_named_and_its_owner_consents() {
    let facts = adopted();
    let scope = Scope {
        reinstall: true,
        ..named(&facts)
    };
    let plan = planned(&facts, WORKER, scope);
    assert!(ids(&plan).contains(&"node-001/disk.erase"), "{:?}", ids(&plan));
    assert_eq!(plan.destructive().len(), 1, "consent is asked for");
    // So it is where a system is named for it, and only where it is named too.
    let simple = Scope {
        replace_adopted: true,
        ..named(&facts)
    };
    assert_eq!(planned(&facts, WORKER, simple.clone()).destructive().len(), 1);
    let whole = Scope { nodes: None, ..simple };
    assert!(planned(&facts, WORKER, whole).actions.is_empty());
    // Without a way into our agent it is refused, with a way out.
    let mut alone = adopted();
    alone.nodes[0].bmc = false;
    let scope = Scope {
        reinstall: true,
        ..named(&alone)
    };
    assert!(refusal(&planned(&alone, WORKER, scope)).contains("rackbar node forget"));
}

#[test]
fn a_plan_from_before_it_was_adopted_is_out_of_date() {
    let text = site(WORKER);
    let before = facts(vec![node(1, one(1).nodes[0].node.inventory.clone().unwrap().disks)]);
    let plan = all(&text, &before);
    assert!(!plan.destructive().is_empty() && stale(&plan, &text, &before).is_empty());
    let mut after = before.clone();
    after.nodes[0].adopted = true;
    let changed = stale(&plan, &text, &after);
    assert!(changed[0].contains("adopted and stays as it is"), "{changed:?}");
}

#[test]
fn a_burn_in_that_would_end_its_system_is_refused() {
    let facts = adopted();
    let scope = Scope {
        burn_in: Some(BurnIn {
            cpu_seconds: 60,
            ..BurnIn::default()
        }),
        ..named(&facts)
    };
    let plan = planned(&facts, WORKER, scope);
    assert!(
        plan.actions.is_empty() && refusal(&plan).contains("was adopted"),
        "{plan:?}"
    );
}

#[test]
fn the_address_at_which_an_adopted_system_answers_is_no_other_machine_s() {
    let address: IpAddr = [10, 10, 0, 50].into();
    let given = |facts: &Facts| {
        let plan = planned(facts, STATIC, Scope::default());
        let setups = plan.actions.iter().filter_map(|action| action.kind.setup());
        let all: Vec<String> = setups.flat_map(|setup| setup.networks[0].addresses.clone()).collect();
        (plan, all)
    };
    let mut before = adopted();
    before.nodes.extend(one(2).nodes);
    let (old, first) = given(&before);
    assert!(
        !first.is_empty() && first.iter().all(|one| one == "10.10.0.50/24"),
        "{first:?}"
    );
    let mut after = before.clone();
    after.nodes[0].adopted_address = Some(address);
    let (_, next) = given(&after);
    // The second is the DNS server's.
    assert!(
        !next.is_empty() && next.iter().all(|one| one == "10.10.0.52/24"),
        "{next:?}"
    );
    // A plan that was made before it was taken in is stale.
    let why = stale(&old, &site(STATIC), &after);
    let taken = "address 10.10.0.50, meant for node-002, is taken by now";
    assert!(why.iter().any(|words| words == taken), "{why:?}");
    // What is bound already stays, whatever answered there.
    after.nodes[1].addresses.insert("lan".into(), address);
    assert_eq!(given(&after).1, first);
}

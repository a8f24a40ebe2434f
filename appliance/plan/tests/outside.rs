//! A plan for some nodes keeps to what the site says of the others.
#![allow(missing_docs, reason = "a test")]

mod common;

use common::{all, change, disk, facts, id, ids, node, site};
use rackbar_model::{DiskBus, FailedIn, NodeState, Timestamp};
use rackbar_plan::{Facts, Plan, Scope, Site, plan};

const CEPH: &str = r##"
version = 1
[role.monitor]
os = "debian-12"
batch = 2
[role.osd]
os = "debian-12"
after = ["monitor"]
[[rule]]
name = "monitors"
when = "number <= 3"
role = "monitor"
[[rule]]
name = "disks"
when = "true"
role = "osd"
"##;

/// Three monitors and two others, in these states.
fn rack(states: [NodeState; 5]) -> Facts {
    let mut facts = facts((1..=5).map(|n| node(n, vec![disk("A", 8, DiskBus::Nvme)])).collect());
    for (node, state) in facts.nodes.iter_mut().zip(states) {
        change(node, |node| node.state = state);
    }
    facts
}

fn of(site: &Site, facts: &Facts, numbers: &[u16]) -> Plan {
    let nodes = Some(numbers.iter().map(|number| id(*number)).collect());
    let made = plan(
        site,
        facts,
        &Scope {
            nodes,
            ..Scope::default()
        },
        Timestamp(1),
    );
    assert_eq!(made.check(), Ok(()));
    made
}

fn failed() -> NodeState {
    NodeState::Failed(FailedIn {
        during: "provisioning".into(),
        reason: "x".into(),
        retry: None,
    })
}

#[test]
fn a_node_alone_still_waits_for_the_roles_before_its_own() {
    use NodeState::{Discovered, HandedOver, Maintenance, Provisioning, Ready};
    let site = site(CEPH);
    let facts = rack([Ready, Provisioning, Discovered, Discovered, Discovered]);
    let made = of(&site, &facts, &[4]);
    assert!(made.actions.is_empty(), "{:?}", ids(&made));
    let [refused] = made.refused.as_slice() else {
        panic!("{:?}", made.refused)
    };
    assert_eq!(refused.node, id(4));
    let told = "comes after role monitor, and there not ready and not in this plan: node-002 (provisioning), node-003 \
                (discovered); plan them too";
    assert!(refused.reason.contains(told), "{}", refused.reason);

    // With all that are missing in the plan, it waits behind them.
    let made = of(&site, &facts, &[2, 3, 4]);
    assert!(made.refused.is_empty(), "{:?}", made.refused);
    assert!(ids(&made).contains(&"role.osd/barrier"));
    // With one of them, not.
    let made = of(&site, &facts, &[3, 4]);
    assert!(
        made.refused
            .iter()
            .any(|one| one.node == id(4) && one.reason.contains("node-002"))
    );

    // Who is ready, or belongs to somebody else, holds up nobody; nor do those of the same role.
    let made = of(&site, &rack([Ready, HandedOver, Ready, Discovered, failed()]), &[4]);
    assert!(made.refused.is_empty() && !made.actions.is_empty());
    // Hands off is not ready, also where the whole rack is planned.
    let facts = rack([Ready, Ready, Maintenance, Discovered, Discovered]);
    for made in [of(&site, &facts, &[4, 5]), all(&site, &facts)] {
        let held = |number| {
            let told =
                |one: &rackbar_plan::Refusal| one.node == id(number) && one.reason.contains("node-003 (maintenance)");
            made.refused.iter().any(told)
        };
        assert!(held(4) && held(5), "{:?}", made.refused);
    }
}

#[test]
fn a_batch_counts_those_that_another_run_works_on() {
    use NodeState::{Configuring, Discovered, Provisioning, Ready};
    let site = site(CEPH);
    // One of two places is free: what is planned goes one by one.
    let made = of(
        &site,
        &rack([Provisioning, Discovered, Discovered, Ready, Ready]),
        &[2, 3],
    );
    let second = made
        .actions
        .iter()
        .find(|action| action.id.0.starts_with("node-003/"))
        .unwrap();
    assert_eq!(second.needs[0].0, "node-002/verify");
    // None is.
    for other in [Configuring, failed()] {
        let made = of(&site, &rack([Provisioning, other, Discovered, Ready, Ready]), &[3]);
        assert!(made.actions.is_empty(), "{:?}", ids(&made));
        let reason = &made.refused[0].reason;
        assert!(reason.contains("at most 2 in work at once") && reason.contains("node-001 (provisioning), node-002"));
    }
    // Who was never begun takes no place: the first of a rack can be done alone.
    let made = of(
        &site,
        &rack([Discovered, Discovered, Discovered, Discovered, Discovered]),
        &[1],
    );
    assert!(made.refused.is_empty() && !made.actions.is_empty());
}

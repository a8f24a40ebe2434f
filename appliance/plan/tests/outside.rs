//! A plan for some nodes keeps to what the site says of the others.
#![allow(missing_docs, reason = "a test")]

mod common;

use common::{all, change, disk, facts, id, ids, node, site};
use rackbar_model::{DiskBus, FailedIn, NodeState, Timestamp};
use rackbar_plan::{Facts, Plan, Scope, Site, held_up, plan};

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

#[test]
fn a_role_waits_for_nobody_who_cannot_be_planned_for_want_of_a_name() {
    use NodeState::Discovered;
    let facts = rack([Discovered, Discovered, Discovered, Discovered, Discovered]);
    // Three monitors of one name, and a template that only disks can fill.
    for name in ["mon", "mon-{no.such}"] {
        let site = site(&CEPH.replace(
            "role = \"monitor\"",
            &format!("role = \"monitor\"\nhostname = {name:?}"),
        ));
        let made = all(&site, &facts);
        assert!(made.actions.is_empty(), "{name}: {:?}", ids(&made));
        let told = |one: &&rackbar_plan::Refusal| {
            one.reason
                .contains("comes after role monitor, and there node-001 is refused")
        };
        assert_eq!(
            made.refused.iter().filter(told).count(),
            2,
            "{name}: {:?}",
            made.refused
        );
    }
}

#[test]
fn a_commit_looks_again_at_those_that_the_plan_depends_on() {
    use NodeState::{Discovered, Provisioning, Ready};
    let site = site(CEPH);
    let rested = rack([Ready, Ready, Discovered, Discovered, Discovered]);
    let (monitor, whole) = (of(&site, &rested, &[3]), all(&site, &rested));
    for made in [&monitor, &whole] {
        assert_eq!(held_up(made, &site, &rested), Vec::<String>::new());
    }
    // Others of the role were begun since: one leaves a place of the two, two leave none.
    let one = rack([Provisioning, Ready, Discovered, Discovered, Discovered]);
    assert_eq!(held_up(&monitor, &site, &one), Vec::<String>::new());
    let two = rack([Provisioning, failed(), Discovered, Discovered, Discovered]);
    let [told] = held_up(&monitor, &site, &two).try_into().unwrap();
    assert!(
        told.contains("at most 2 in work at once") && told.contains("node-002 (failed)"),
        "{told}"
    );
    // A plan that begins with two has no room for that where one is taken.
    let rested = rack([Ready, Discovered, Discovered, Ready, Ready]);
    let pair = of(&site, &rested, &[2, 3]);
    assert_eq!(held_up(&pair, &site, &rested), Vec::<String>::new());
    let taken = rack([Provisioning, Discovered, Discovered, Ready, Ready]);
    let [told] = held_up(&pair, &site, &taken).try_into().unwrap();
    assert!(
        told.contains("room for 1 in work at once now, and the plan begins with 2"),
        "{told}"
    );
    // One by one, they have.
    let rolling = of(&site, &taken, &[2, 3]);
    assert_eq!(held_up(&rolling, &site, &taken), Vec::<String>::new());

    // What a role comes after is no longer ready.
    let rested = rack([Ready, Ready, Ready, Discovered, Discovered]);
    let disk = of(&site, &rested, &[4]);
    assert_eq!(held_up(&disk, &site, &rested), Vec::<String>::new());
    let [told] = held_up(&disk, &site, &rack([Ready, failed(), Ready, Discovered, Discovered]))
        .try_into()
        .unwrap();
    assert!(
        told.contains("not ready and not in this plan: node-002 (failed)"),
        "{told}"
    );
    // Its own nodes count for nothing, whatever became of them.
    let behind = of(
        &site,
        &rack([Ready, Ready, Discovered, Discovered, Discovered]),
        &[3, 4],
    );
    let begun = rack([Ready, Ready, Provisioning, Discovered, Discovered]);
    assert_eq!(held_up(&behind, &site, &begun), Vec::<String>::new());
}

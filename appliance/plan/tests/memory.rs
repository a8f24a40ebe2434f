//! What a plan with memory remembers, and what makes it look again.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod common;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use common::{carried_out, change, disk, facts, image, node, site};
use rackbar_model::{DiskBus, NodeState, Timestamp};
use rackbar_plan::{Facts, Memory, OwnService, Scope, Site, plan, replan};

const SITE: &str = r##"
version = 1
[network.lan]
subnet = "10.0.0.0/24"
addresses = "10.0.0.10-10.0.0.99"
dns = ["10.0.0.2"]
[network.late]
subnet = "10.1.0.0/24"
[role.a]
os = "debian-12"
root = { pick = "smallest" }
bios = { X = "1" }
network = [{ name = "lan", network = "lan" }]
step = [{ name = "join", script = "#!/bin/sh" }]
[role.b]
os = "debian-12"
root = { pick = "smallest" }
timezone = "Europe/Berlin"
network = [{ name = "lan", network = "lan" }]
[[rule]]
name = "all"
when = "true"
role = "a"
"##;

/// Four nodes that are as the site wants them.
fn ready() -> (Site, Facts) {
    let site = site(SITE);
    let nodes = (0..4).map(|number| node(number, vec![disk(&format!("R{number}"), 240, DiskBus::Nvme)]));
    let mut facts = facts(nodes.collect());
    let made = plan(&site, &facts, &Scope::default(), Timestamp(0));
    carried_out(&mut facts, &made);
    (site, facts)
}

/// A memory of a rack that is as wanted.
fn primed(site: &Site, facts: &Facts) -> Memory {
    let mut memory = Memory::default();
    let made = replan(&mut memory, site, facts, &Scope::default(), Timestamp(0));
    assert_eq!(
        (made.unchanged.len(), made.actions.len()),
        (facts.nodes.len(), 0),
        "{made:?}"
    );
    assert_eq!(memory.decided(), facts.nodes.len());
    memory
}

type Happens = fn(&mut Site, &mut Facts, &mut Scope);

/// What may change, each of which makes another plan.
const CHANGES: &[(&str, Happens)] = &[
    ("the site", |site, _, _| {
        *site = common::site(&SITE.replace("10.0.0.2", "10.0.0.3"));
    }),
    ("an image", |_, facts, _| {
        _ = facts.images.insert("debian-12".into(), image("debian-12", 9));
    }),
    ("no image", |_, facts, _| facts.images.clear()),
    ("reinstall", |_, _, scope| scope.reinstall = true),
    ("a role by hand", |_, facts, _| facts.nodes[1].role = Some("b".into())),
    ("maintenance", |_, facts, _| facts.nodes[1].maintenance = true),
    ("no BMC and an agent", |_, facts, _| {
        change(&mut facts.nodes[1], |node| node.agent_connected = true);
    }),
    ("firmware", |_, facts, _| {
        facts.nodes[1].bios = Some(BTreeMap::from([("X".to_owned(), "0".to_owned())]));
    }),
    ("what is installed", |_, facts, _| facts.nodes[1].installed = None),
    ("a step", |_, facts, _| {
        facts.nodes[1].installed.as_mut().unwrap().steps.clear();
    }),
    ("its checks", |_, facts, _| {
        facts.nodes[1].installed.as_mut().unwrap().checked = None
    }),
    ("adopted", |_, facts, _| facts.nodes[1].adopted = true),
    ("its address", |_, facts, _| {
        facts.nodes[1]
            .addresses
            .insert("lan".into(), Ipv4Addr::new(10, 0, 0, 77).into());
    }),
    ("its address is another's too", |_, facts, _| {
        facts.nodes[0].addresses = facts.nodes[3].addresses.clone();
    }),
    ("its address is in use", |_, facts, _| {
        facts.taken.insert(facts.nodes[1].addresses["lan"]);
    }),
    ("its state", |_, facts, _| {
        change(&mut facts.nodes[1], |node| node.state = NodeState::Cleaning);
    }),
    ("its disks", |_, facts, _| {
        change(&mut facts.nodes[1], |node| {
            node.inventory.as_mut().unwrap().disks.clear()
        });
    }),
    ("its name", |_, facts, _| {
        change(&mut facts.nodes[1], |node| node.name = "other".into())
    }),
    ("another node of its name", |_, facts, _| {
        let name = facts.nodes[1].node.name.clone();
        change(&mut facts.nodes[2], |node| node.name = name);
    }),
    ("it is gone", |_, facts, _| _ = facts.nodes.remove(1)),
    ("a new one", |_, facts, _| {
        facts.nodes.push(node(9, vec![disk("R9", 240, DiskBus::Nvme)]));
    }),
    ("an order of another scope", |_, facts, scope| {
        scope.nodes = Some(vec![facts.nodes[1].node.id]);
        facts.nodes[1].role = Some("b".into());
    }),
];

#[test]
fn whatever_changes_the_plan_is_that_without_memory() {
    for (what, happens) in CHANGES {
        let (mut site, mut facts) = ready();
        let mut memory = primed(&site, &facts);
        let before = plan(&site, &facts, &Scope::default(), Timestamp(0));
        let mut scope = Scope::default();
        happens(&mut site, &mut facts, &mut scope);
        let anew = plan(&site, &facts, &scope, Timestamp(0));
        let differs = |one: &rackbar_plan::Plan| {
            (
                one.actions.clone(),
                one.refused.clone(),
                one.left_out.clone(),
                one.unchanged.clone(),
            )
        };
        assert!(differs(&anew) != differs(&before), "{what} changes nothing");
        for _ in 0..2 {
            let again = replan(&mut memory, &site, &facts, &scope, Timestamp(0));
            assert_eq!(again, anew, "{what}");
        }
    }
}

#[test]
fn what_moves_by_itself_makes_nobody_look_again() {
    let (site, mut facts) = ready();
    let mut memory = primed(&site, &facts);
    for node in &mut facts.nodes {
        change(node, |node| node.last_seen = Timestamp(77));
    }
    facts.taken.insert(Ipv4Addr::new(10, 0, 0, 98).into());
    let place = (OwnService::Dns, vec!["10.0.0.2".to_owned()]);
    facts.seen.insert(
        place,
        rackbar_plan::ServiceSeen {
            serves: true,
            says: "it answers".into(),
        },
    );
    replan(&mut memory, &site, &facts, &Scope::default(), Timestamp(0));
    assert_eq!(memory.decided(), 0);
    facts.nodes[3].role = Some("b".into());
    replan(&mut memory, &site, &facts, &Scope::default(), Timestamp(0));
    assert_eq!(memory.decided(), 1);
}

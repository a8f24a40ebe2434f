//! The planner at size: 10,000 nodes from nothing, when all is as wanted, and one node of them.
#![allow(missing_docs, reason = "a benchmark")]

#[path = "../tests/common/mod.rs"]
mod common;

use common::{carried_out, disk, facts, node};
use divan::Bencher;
use rackbar_model::{DiskBus, Timestamp};
use rackbar_plan::{Facts, Memory, Scope, Site, plan, replan, stale};

fn main() {
    divan::main();
}

const SITE: &str = r##"
version = 1
[network.lan]
subnet = "10.0.0.0/16"
addresses = "10.0.10.0-10.0.250.0"
gateway = "10.0.0.1"
dns = ["10.0.0.2"]
[role.storage]
os = "debian-12"
root = { media = "ssd", pick = "smallest" }
batch = 20
bios = { ProcVirtualization = "Enabled" }
network = [{ name = "lan", network = "lan" }]
[role.compute]
os = "debian-12"
after = ["storage"]
root = { media = "ssd", pick = "smallest" }
network = [{ name = "lan", network = "lan" }]
step = [{ name = "join", script = "#!/bin/sh" }]
[[rule]]
name = "huge"
when = "memory_gib >= 512 and cores >= 64"
role = "storage"
[[rule]]
name = "storage"
when = "disks | selectattr('rotational') | list | length >= 4"
role = "storage"
hostname = "st-{{ number }}"
[[rule]]
name = "compute"
when = "product == 'Virtual'"
role = "compute"
hostname = "cn-{{ number }}"
"##;

fn rack(count: u16) -> Facts {
    let nodes = (0..count).map(|number| {
        let mut disks = vec![disk(&format!("R{number}"), 240, DiskBus::Nvme)];
        for index in 0..4 {
            let mut data = disk(&format!("D{number}-{index}"), 4000, DiskBus::Sata);
            data.rotational = number % 5 == 0;
            disks.push(data);
        }
        node(number, disks)
    });
    facts(nodes.collect())
}

fn site() -> Site {
    common::site(SITE)
}

#[divan::bench(args = [100, 1_000, 10_000])]
fn everything(bencher: Bencher, count: u16) {
    let (site, facts) = (site(), rack(count));
    bencher.bench_local(|| plan(&site, &facts, &Scope::default(), Timestamp(0)));
}

#[divan::bench(args = [10_000])]
fn all_as_wanted(bencher: Bencher, count: u16) {
    let (site, mut facts) = (site(), rack(count));
    let first = plan(&site, &facts, &Scope::default(), Timestamp(0));
    carried_out_fast(&mut facts, &first);
    bencher.bench_local(|| plan(&site, &facts, &Scope::default(), Timestamp(0)));
}

/// The whole site is planned again after one node of it was given another role, and back; all others are as wanted.
#[divan::bench(args = [10_000])]
fn again_after_one_node_changed(bencher: Bencher, count: u16) {
    let (site, mut facts) = (site(), rack(count));
    let scope = Scope::default();
    let first = plan(&site, &facts, &scope, Timestamp(0));
    carried_out_fast(&mut facts, &first);
    let mut memory = Memory::default();
    let again = replan(&mut memory, &site, &facts, &scope, Timestamp(0));
    assert_eq!(again.unchanged.len(), usize::from(count));
    bencher.bench_local(|| {
        let node = &mut facts.nodes[usize::from(count) / 2];
        node.role = match node.role.take() {
            Some(_) => None,
            None => Some("storage".to_owned()),
        };
        replan(&mut memory, &site, &facts, &scope, Timestamp(0))
    });
}

/// [`carried_out`] goes through the whole plan for each node.
fn carried_out_fast(facts: &mut Facts, plan: &rackbar_plan::Plan) {
    let mut by_node = std::collections::HashMap::<_, Vec<_>>::new();
    for action in &plan.actions {
        by_node.entry(action.node).or_default().push(action.clone());
    }
    for node in &mut facts.nodes {
        let actions = by_node.remove(&Some(node.node.id)).unwrap_or_default();
        let mut one = Facts {
            nodes: vec![node.clone()],
            ..Facts::default()
        };
        carried_out(
            &mut one,
            &rackbar_plan::Plan {
                actions,
                ..plan.clone_empty()
            },
        );
        *node = one.nodes.remove(0);
    }
}

trait CloneEmpty {
    fn clone_empty(&self) -> Self;
}

impl CloneEmpty for rackbar_plan::Plan {
    fn clone_empty(&self) -> Self {
        Self {
            id: self.id.clone(),
            made: self.made,
            inputs: rackbar_plan::Inputs::of(self.inputs.site),
            actions: Vec::new(),
            refused: Vec::new(),
            unchanged: Vec::new(),
            left_out: Vec::new(),
            scope: self.scope.clone(),
            limits: Default::default(),
        }
    }
}

#[divan::bench(args = [10_000])]
fn one_node_of(bencher: Bencher, count: u16) {
    let (site, facts) = (site(), rack(count));
    let scope = Scope {
        nodes: Some(vec![common::id(count / 2)]),
        reinstall: false,
        ..Scope::default()
    };
    bencher.bench_local(|| plan(&site, &facts, &scope, Timestamp(0)));
}

#[divan::bench(args = [10_000])]
fn is_it_stale(bencher: Bencher, count: u16) {
    let (site, facts) = (site(), rack(count));
    let plan = plan(&site, &facts, &Scope::default(), Timestamp(0));
    bencher.bench_local(|| stale(&plan, &site, &facts));
}

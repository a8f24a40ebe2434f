//! Whether a plan may still be committed: which of its inputs changed, and what that changes.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use rackbar_model::{DiskRef, NodeId};

use super::{disk, seen, services};
use crate::rules::Rules;
use crate::site::Site;
use crate::{Action, ActionKind, Facts, NodeFacts, OwnService, Plan, Scope, digest};

/// What changed since a plan was made, in words; empty when it may be committed.
pub fn stale(plan: &Plan, site: &Site, facts: &Facts) -> Vec<String> {
    let mut out = Vec::new();
    if digest::of(site) != plan.inputs.site {
        out.push("the site file in force is another than the plan was made from".to_owned());
    }
    for (name, digest) in &plan.inputs.images {
        match facts.images.get(name) {
            None => out.push(format!("the image {name} is no longer in the catalogue")),
            Some(entry) if digest::of(entry) != *digest => {
                out.push(format!("the image {name} is another now: SHA-256 {}", entry.sha256));
            }
            Some(_) if facts.retired.contains_key(name) => out.push(format!("the image {name} was retired")),
            Some(_) => {}
        }
    }
    for (name, sha256) in &plan.inputs.programs {
        match facts.programs.get(name) {
            None => out.push(format!("the program {name} is no longer here (`rackbar program list`)")),
            Some(entry) if entry.sha256 != *sha256 => {
                out.push(format!("the program {name} is another now: SHA-256 {}", entry.sha256));
            }
            Some(_) => {}
        }
    }
    for (name, release) in &plan.inputs.repositories {
        match facts.repositories.get(name) {
            None => out.push(format!(
                "repository {name} is no longer locked (`rackbar repository list`)"
            )),
            Some(lock) if lock.release != *release => {
                out.push(format!(
                    "repository {name} is locked to another state now: SHA-256 {}",
                    lock.release
                ));
            }
            Some(_) => {}
        }
    }
    services_changed(plan, site, facts, &mut out);
    let rules = Rules::new(site);
    let nodes: HashMap<NodeId, &NodeFacts> = facts.nodes.iter().map(|node| (node.node.id, node)).collect();
    let mut planned: BTreeMap<NodeId, Vec<&Action>> = BTreeMap::new();
    for action in &plan.actions {
        planned
            .entry(action.node.unwrap_or(NodeId([0; 16])))
            .or_default()
            .push(action);
    }
    for (id, digest) in &plan.inputs.nodes {
        let actions = planned.get(id).map_or(&[][..], Vec::as_slice);
        match nodes.get(id) {
            None => out.push(format!("node {} is no longer known", name(actions))),
            Some(node) => {
                let binding = rules.bind(node);
                let (role, hostname) = (binding.role.as_deref().unwrap_or_default(), binding.hostname.as_deref());
                if super::hands_off(node).is_some()
                    || seen(node, role, site.role.get(role), hostname.unwrap_or_default()) != *digest
                {
                    out.extend(differences(plan, site, facts, node, actions));
                }
            }
        }
    }
    addresses(plan, facts, &mut out);
    out
}

/// Services whose intent is another: the site says something else, or our own address is.
fn services_changed(plan: &Plan, site: &Site, facts: &Facts, out: &mut Vec<String>) {
    for (field, before) in &plan.inputs.services {
        let parts = field.strip_prefix("network.").and_then(|field| field.rsplit_once('.'));
        let Some((network, name)) = parts else { continue };
        let service = OwnService::ALL.into_iter().find(|service| service.name() == name);
        let now = service.and_then(|service| services::wanted(site, facts, network, service));
        match now {
            None => out.push(format!("{field}: the site has no network {network} any more")),
            Some(now) if now != *before => {
                out.push(format!("{field} was {before} when the plan was made, and is {now} now"))
            }
            Some(_) => {}
        }
    }
}

/// What `fresh` destroys beyond `agreed`, in words; empty when whoever consented to `agreed` has consented to it.
pub fn destroys_more(agreed: &Plan, fresh: &Plan) -> Vec<String> {
    let before = destroyed(agreed);
    let more = destroyed(fresh)
        .into_iter()
        .filter(|(what, _)| !before.contains_key(what));
    more.map(|(_, words)| words).collect()
}

/// What each node loses: a disk, or where it is none what the plan says; and that in words.
fn destroyed(plan: &Plan) -> BTreeMap<(NodeId, Option<DiskRef>, String), String> {
    let mut out = BTreeMap::new();
    for action in &plan.actions {
        let (Some(node), Some(words)) = (action.node, &action.destroys) else {
            continue;
        };
        let name = name(&[action]);
        let disks = action.kind.erases();
        if disks.is_empty() {
            out.insert((node, None, words.clone()), format!("{name}: {words}"));
            continue;
        }
        for disk in disks {
            let key = (node, Some(disk.clone()), String::new());
            out.insert(key, format!("{name}: everything on the disk with {disk}"));
        }
    }
    out
}

fn name(actions: &[&Action]) -> String {
    actions.first().map_or_else(String::new, |action| {
        action.id.0.split('/').next().unwrap_or_default().to_owned()
    })
}

/// Plans the one node anew and says what is different.
fn differences(plan: &Plan, site: &Site, facts: &Facts, node: &NodeFacts, actions: &[&Action]) -> Vec<String> {
    let id = node.node.id;
    let scope = Scope {
        nodes: Some(vec![id]),
        ..plan.scope.clone()
    };
    let fresh = super::plan(site, facts, &scope, plan.made);
    let name = name(actions);
    if let Some(refusal) = fresh
        .refused
        .iter()
        .chain(&fresh.left_out)
        .find(|refusal| refusal.node == id)
    {
        return vec![format!("node {name}: {}", refusal.reason)];
    }
    // What is not the node's own, a barrier or a service, has its own word.
    let mut now = fresh.actions.iter().filter(|action| action.node == Some(id)).peekable();
    if now.peek().is_none() {
        return vec![format!("node {name} is as wanted by now")];
    }
    let kinds = |actions: &mut dyn Iterator<Item = &Action>| -> BTreeMap<String, ActionKind> {
        let suffix = |action: &Action| action.id.0.split_once('/').map_or("", |(_, suffix)| suffix).to_owned();
        actions.map(|action| (suffix(action), action.kind.clone())).collect()
    };
    let (before, now) = (kinds(&mut actions.iter().copied()), kinds(&mut now));
    let mut out = Vec::new();
    for (kind, action) in &before {
        match now.get(kind) {
            None => out.push(format!("node {name}: {kind} is no longer needed")),
            Some(other) if other != action => out.push(format!(
                "node {name}: {kind} would do something else now{}",
                detail(node, other)
            )),
            Some(_) => {}
        }
    }
    out.extend(
        now.keys()
            .filter(|kind| !before.contains_key(*kind))
            .map(|kind| format!("node {name}: {kind} is needed too")),
    );
    if out.is_empty() {
        out.push(format!(
            "node {name}: its role, name, disks, NICs or BMC are not what they were when the plan was made"
        ));
    }
    out
}

fn detail(node: &NodeFacts, kind: &ActionKind) -> String {
    let disks = kind.erases();
    if disks.is_empty() {
        return String::new();
    }
    let inventory = node.node.inventory.iter().flat_map(|inventory| &inventory.disks);
    let found = inventory.filter(|found| disks.contains(&disk::reference(found)));
    format!(": {}", found.map(disk::words).collect::<Vec<_>>().join("; "))
}

/// Addresses the plan gives out that somebody else has by now.
fn addresses(plan: &Plan, facts: &Facts, out: &mut Vec<String>) {
    let owners = facts.owners();
    for action in &plan.actions {
        for (address, whose) in given(action) {
            let other = owners.get(&address).is_some_and(|owner| Some(*owner) != action.node);
            if other || facts.taken.contains(&address) || facts.appliance.contains(&address) {
                out.push(format!("address {address}, meant for {whose}, is taken by now"));
            }
        }
    }
}

/// Static addresses that an action gives out, and to whom.
fn given(action: &Action) -> Vec<(IpAddr, String)> {
    if let Some(setup) = action.kind.setup() {
        let given = setup.networks.iter().flat_map(|network| &network.addresses);
        let given = given.filter_map(|address| address.split('/').next()?.parse().ok());
        return given.map(|address| (address, setup.hostname.clone())).collect();
    }
    match &action.kind {
        ActionKind::BmcSetUp {
            network: Some(network), ..
        } => {
            let whose = format!("the BMC of {}", name(&[action]));
            let address = network.address.map(|fixed| IpAddr::from(fixed.address));
            address.map(|address| (address, whose)).into_iter().collect()
        }
        _ => Vec::new(),
    }
}

//! From a site and what was observed to a plan: a pure function, the same inputs give the same plan.
//!
//! Each node is decided on by itself ([`node`]); what ties nodes together is static addresses, host names that must be
//! unique, batches within a role, barriers between roles, and the services that their systems are told of ([`services`]). A plan for one node ([`Scope::nodes`]) therefore costs
//! that node and one pass over the bound addresses, whatever the size of the site.

mod archive;
mod burn_in;
mod chain;
mod disk;
mod firmware;
mod install;
mod memory;
mod network;
mod node;
mod outside;
mod packages;
mod repository;
mod services;
mod stale;
mod step;
mod view;

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use rackbar_model::{Digest, NodeId, NodeState, Timestamp};

use crate::rules::{Binding, Rules};
use crate::site::problem::did_you_mean;
use crate::site::{Role, Site};
use crate::{
    Action, ActionId, ActionKind, Facts, Inputs, Layer, Limits, NodeFacts, Plan, PlanId, Refusal, Scope, Target, digest,
};
use network::{Pool, Selectors};
use node::{Case, Decision};
use outside::Outside;
use services::{Needs, Services};

pub use install::{INSTALL_ROLE, install};
pub use memory::Memory;
pub(crate) use network::edges;
pub use outside::held_up;
pub use repository::lock_differs;
pub use stale::{destroys_more, stale};
pub use step::step_digest;
pub use view::NodeView;

/// Makes the plan that takes the nodes of the scope to what the site wants. `now` only says when it was made.
pub fn plan(site: &Site, facts: &Facts, scope: &Scope, now: Timestamp) -> Plan {
    make(site, facts, scope, now, None)
}

/// Makes the same plan as [`plan`], in less time where `memory` has been given to this before: nodes that were as wanted,
/// and of which nothing has changed, are not decided on again.
pub fn replan(memory: &mut Memory, site: &Site, facts: &Facts, scope: &Scope, now: Timestamp) -> Plan {
    memory.be_of(site, facts, scope);
    memory.only(facts);
    make(site, facts, scope, now, Some(memory))
}

fn make(site: &Site, facts: &Facts, scope: &Scope, now: Timestamp, memory: Option<&mut Memory>) -> Plan {
    let rules = Rules::new(site);
    let mut planner = Planner::new(site, facts, scope, memory);
    if let Some(wanted) = scope.burn_in {
        planner.exercise(&rules, wanted);
        return planner.finish(now);
    }
    let bound = planner.bind(&rules);
    planner.outside = Outside::new(site, facts, scope, &rules, bound.iter().map(|node| node.role));
    planner.decide(&rules, &bound);
    planner.finish(now)
}

/// A node that has a role and a name.
struct Bound<'a> {
    node: &'a NodeFacts,
    /// `None` where they are remembered.
    binding: Option<Binding<'a>>,
    role: &'a str,
    /// Place of the role among all, and how the host name is sorted.
    rank: usize,
    number: Natural,
    hostname: String,
}

impl<'a> Bound<'a> {
    fn key(&self) -> (usize, &str, u64, &str, NodeId) {
        let word = self.hostname.get(..self.number.word).unwrap_or_default();
        (self.rank, word, self.number.value, &self.hostname, self.node.node.id)
    }
}

/// A plan in the making.
struct Planner<'a> {
    site: &'a Site,
    facts: &'a Facts,
    scope: &'a Scope,
    outside: Outside<'a>,
    services: Services<'a>,
    memory: Option<&'a mut Memory>,
    actions: Vec<Action>,
    refused: Vec<Refusal>,
    /// A node of each role that was refused before anything was decided on it.
    unbound: BTreeMap<&'a str, String>,
    unchanged: Vec<NodeId>,
    left_out: Vec<Refusal>,
    inputs: BTreeMap<NodeId, Digest>,
    /// Repositories of roles that something is done for, with what each is locked to.
    repositories: BTreeMap<String, Digest>,
}

impl<'a> Planner<'a> {
    fn new(site: &'a Site, facts: &'a Facts, scope: &'a Scope, memory: Option<&'a mut Memory>) -> Self {
        Self {
            site,
            facts,
            scope,
            outside: Outside::default(),
            services: Services::new(site, facts),
            memory,
            actions: Vec::new(),
            refused: Vec::new(),
            unbound: BTreeMap::new(),
            unchanged: Vec::new(),
            left_out: Vec::new(),
            inputs: BTreeMap::new(),
            repositories: BTreeMap::new(),
        }
    }

    /// Roles and names of the nodes in scope, in the order they are planned in.
    fn bind(&mut self, rules: &Rules<'a>) -> Vec<Bound<'a>> {
        let order = order(self.site).into_iter().enumerate();
        let order: HashMap<&str, usize> = order.map(|(at, name)| (name, at)).collect();
        let mut bound = Vec::with_capacity(self.facts.nodes.len());
        for node in self.facts.nodes.iter().filter(|node| self.scope.holds(node.node.id)) {
            let reason = hands_off(node).or_else(|| stays_adopted(node, self.scope));
            if let Some(reason) = reason {
                self.left_out.push(said(node, reason.to_owned()));
                continue;
            }
            let Some((role, hostname, binding)) = self.names(node, rules) else {
                continue;
            };
            bound.push(Bound {
                node,
                binding,
                role,
                rank: order.get(role).copied().unwrap_or(usize::MAX),
                number: Natural::of(&hostname),
                hostname,
            });
        }
        bound.sort_by(|a, b| a.key().cmp(&b.key()));
        self.unique(rules, bound)
    }

    /// Role and host name of a node, with what bound them when they are not remembered. `None` when it has none, which is said.
    fn names(&mut self, node: &'a NodeFacts, rules: &Rules<'a>) -> Option<(&'a str, String, Option<Binding<'a>>)> {
        if let Some((role, hostname)) = self.memory.as_ref().and_then(|memory| memory.names(node))
            && let Some((role, _)) = self.site.role.get_key_value(role)
        {
            return Some((role, hostname.to_owned(), None));
        }
        let binding = rules.bind(node);
        let Some(name) = binding.role.as_deref() else {
            self.left_out.push(said(node, no_role(node)));
            return None;
        };
        let Some((role, _)) = self.site.role.get_key_value(name) else {
            let hint = did_you_mean(name, self.site.role.keys().map(String::as_str)).unwrap_or_default();
            let reason = format!("{}: the site has no role {name}. {hint}", binding.decided);
            self.refused.push(said(node, reason));
            return None;
        };
        match &binding.hostname {
            Ok(hostname) => Some((role, hostname.clone(), Some(binding))),
            Err(reason) => {
                self.unbound.entry(role).or_insert_with(|| node.node.name.clone());
                self.refused.push(said(node, reason.clone()));
                None
            }
        }
    }

    /// Refuses nodes that would share a host name. DNS does not tell names apart by case (RFC 4343 section 2).
    fn unique(&mut self, rules: &Rules<'a>, bound: Vec<Bound<'a>>) -> Vec<Bound<'a>> {
        let mut holders: HashMap<Cow<'_, str>, usize> = HashMap::with_capacity(bound.len());
        for node in &bound {
            *holders.entry(lower(&node.hostname)).or_default() += 1;
        }
        // A node outside the scope holds the name it goes by.
        for node in self.facts.nodes.iter().filter(|node| !self.scope.holds(node.node.id)) {
            if let Some(holders) = holders.get_mut(&lower(&node.node.name)) {
                *holders += 1;
            }
        }
        let others = bound.iter().map(|node| holders.get(&lower(&node.hostname)));
        let others: Vec<usize> = others.map(|all| all.map_or(0, |all| all.saturating_sub(1))).collect();
        let mut sole = Vec::with_capacity(bound.len());
        for (node, others) in bound.into_iter().zip(others) {
            if others == 0 {
                sole.push(node);
                continue;
            }
            let decided = node.binding.as_ref().map(|binding| binding.decided);
            let decided = decided.unwrap_or_else(|| rules.bind(node.node).decided);
            let reason = format!(
                "{decided} calls it {}, and so are {others} other nodes called; make the host name template tell them apart",
                node.hostname
            );
            self.unbound
                .entry(node.role)
                .or_insert_with(|| node.node.node.name.clone());
            self.refused.push(said(node.node, reason));
        }
        sole
    }

    /// Decides on every node, role by role.
    fn decide(&mut self, rules: &Rules<'a>, bound: &[Bound<'a>]) {
        let mut pool = Pool::new(self.site, self.facts);
        let mut ends: BTreeMap<&str, RoleEnd> = BTreeMap::new();
        for nodes in bound.chunk_by(|a, b| a.role == b.role) {
            let Some((name, role)) = nodes.first().and_then(|node| self.site.role.get_key_value(node.role)) else {
                continue;
            };
            let room = self.outside.room(name, role);
            let gate = match &room {
                Ok(_) => self.gate(name, &role.after, &ends),
                Err(reason) => Err(reason.clone()),
            };
            let mut end = RoleEnd {
                room: room.ok().flatten(),
                needs: self.services.of_role(role),
                selectors: network::selectors(role),
                ..RoleEnd::default()
            };
            for node in nodes {
                let memory = self.memory.as_ref().filter(|_| node.binding.is_none());
                if memory.is_some_and(|memory| memory.holds(node.node, self.site, &pool)) {
                    self.unchanged.push(node.node.node.id);
                } else {
                    self.one(rules, node, role, &gate, &mut end, &mut pool);
                }
            }
            ends.insert(name, end);
        }
    }

    /// What must have ended before the first node of a role is begun: the action to wait for, or why it cannot be.
    fn gate(
        &mut self,
        name: &str,
        after: &[String],
        ends: &BTreeMap<&str, RoleEnd>,
    ) -> Result<Option<ActionId>, String> {
        let mut needs: Vec<ActionId> = Vec::new();
        for role in after {
            if let Some(reason) = self.outside.holds_up(role) {
                return Err(reason);
            }
            let end = ends.get(role.as_str());
            let unbound = self.unbound.get(role.as_str());
            if let Some(node) = end.and_then(|end| end.refused.as_ref()).or(unbound) {
                return Err(format!("its role comes after role {role}, and there {node} is refused"));
            }
            needs.extend(end.into_iter().flat_map(|end| end.last.iter().cloned()));
        }
        if needs.is_empty() {
            return Ok(None);
        }
        let id = ActionId(format!("role.{name}/barrier"));
        self.actions.push(Action {
            id: id.clone(),
            node: None,
            target: Target::Rack,
            layer: Layer::Coordination,
            kind: ActionKind::Barrier { name: name.to_owned() },
            changes: Vec::new(),
            needs,
            destroys: None,
            reboots: false,
            estimate_seconds: 0,
            reason: format!("role {name} comes after {}", after.join(", ")),
            limits: Limits {
                seconds: u32::MAX,
                tries: 1,
            },
        });
        Ok(Some(id))
    }

    fn one(
        &mut self,
        rules: &Rules<'a>,
        bound: &Bound<'a>,
        role: &'a Role,
        gate: &Result<Option<ActionId>, String>,
        end: &mut RoleEnd,
        pool: &mut Pool,
    ) {
        let (site, facts, node) = (self.site, self.facts, bound.node);
        let anew = bound.binding.is_none().then(|| rules.bind(node));
        let Some(binding) = bound.binding.as_ref().or(anew.as_ref()) else {
            return;
        };
        let case = Case {
            site,
            facts,
            reinstall: self.scope.reinstall,
            rotate_passwords: self.scope.rotate_passwords,
            node,
            binding,
            role_name: bound.role,
            role,
            selectors: &end.selectors,
            hostname: &bound.hostname,
        };
        // Of other nodes before.
        pool.answers();
        let decided = case.decide(pool);
        if let Some(memory) = &mut self.memory {
            match decided {
                Decision::Unchanged => memory.keep(node, bound.role, &bound.hostname, pool.answers()),
                Decision::Refused(_) | Decision::Act(_) => memory.forget(node.node.id),
            }
        }
        let decision = match (decided, gate) {
            (Decision::Act(_), Err(reason)) => Decision::Refused(reason.clone()),
            (decision, _) => decision,
        };
        match decision {
            Decision::Unchanged => self.unchanged.push(node.node.id),
            Decision::Refused(reason) => {
                end.refused.get_or_insert_with(|| bound.hostname.clone());
                self.refused.push(Refusal {
                    node: node.node.id,
                    name: bound.hostname.clone(),
                    reason,
                });
            }
            Decision::Act(mut actions) => {
                let mut before: Vec<ActionId> = gate.iter().flatten().cloned().collect();
                // Rolling: the node that is N places ahead in its role must be ready. So never more than N are under way.
                if let Some(room) = end.room {
                    let ahead = end.last.len().checked_sub(room);
                    before.extend(ahead.and_then(|at| end.last.get(at)).cloned());
                }
                for action in actions.iter_mut().filter(|action| action.needs.is_empty()) {
                    action.needs.clone_from(&before);
                }
                let locked = role.repositories.iter().filter_map(|name| {
                    let lock = self.facts.repositories.get(name)?;
                    Some((name.clone(), lock.release))
                });
                self.repositories.extend(locked);
                self.services.tie(role, &end.needs, &mut actions);
                end.last.extend(actions.last().map(|action| action.id.clone()));
                self.inputs
                    .insert(node.node.id, seen(node, bound.role, Some(role), &bound.hostname));
                self.actions.append(&mut actions);
            }
        }
    }

    fn finish(mut self, now: Timestamp) -> Plan {
        self.refused
            .sort_by(|a, b| (natural(&a.name), a.node).cmp(&(natural(&b.name), b.node)));
        self.left_out
            .sort_by(|a, b| (natural(&a.name), a.node).cmp(&(natural(&b.name), b.node)));
        self.unchanged.sort();
        let (mut actions, services) = self.services.finish(self.scope);
        actions.append(&mut self.actions);
        let (mut images, mut programs) = (BTreeMap::new(), BTreeMap::new());
        for action in &actions {
            if let Some(program) = action.kind.program() {
                programs.insert(program.name.clone(), program.sha256);
            }
            if let Some((image, _)) = action.kind.installs()
                && !images.contains_key(image)
                && let Some(entry) = self.facts.images.get(image)
            {
                images.insert(image.clone(), digest::of(entry));
            }
        }
        let inputs = Inputs {
            site: digest::of(self.site),
            nodes: self.inputs,
            images,
            programs,
            repositories: self.repositories,
            services,
        };
        let mut id = digest::of(&(&inputs, self.scope, &actions, &self.refused)).to_string();
        id.truncate(12);
        Plan {
            id: PlanId(id),
            made: now,
            inputs,
            actions,
            refused: self.refused,
            unchanged: self.unchanged,
            left_out: self.left_out,
            scope: self.scope.clone(),
            limits: self.site.limits.clone(),
        }
    }
}

/// How a role's nodes end.
#[derive(Default)]
struct RoleEnd {
    /// The last action of each planned node, in order.
    last: Vec<ActionId>,
    /// The first node that is refused.
    refused: Option<String>,
    /// How many may be worked on at once.
    room: Option<usize>,
    /// What they depend on.
    needs: Needs,
    /// How their NICs are chosen.
    selectors: Selectors,
}

fn said(node: &NodeFacts, reason: String) -> Refusal {
    Refusal {
        node: node.node.id,
        name: node.node.name.clone(),
        reason,
    }
}

/// Why a node is not to be touched at all.
fn hands_off(node: &NodeFacts) -> Option<&'static str> {
    let maintenance = "in maintenance: hands off until that is ended";
    match node.node.state {
        _ if node.maintenance => Some(maintenance),
        NodeState::Maintenance => Some(maintenance),
        NodeState::HandedOver => Some("handed over to another owner"),
        NodeState::Enrolled
        | NodeState::Inspecting
        | NodeState::Discovered
        | NodeState::Available
        | NodeState::Configuring
        | NodeState::Provisioning
        | NodeState::Ready
        | NodeState::Cleaning
        | NodeState::Failed(_) => None,
    }
}

/// Why an adopted machine is left as it is: what is on it was not installed by us, and nothing of ours is put there unless
/// its owner names it and asks for another system in its place.
fn stays_adopted(node: &NodeFacts, scope: &Scope) -> Option<&'static str> {
    let asked = (scope.reinstall || scope.replace_adopted) && scope.nodes.is_some();
    (node.adopted && !asked).then_some(
        "its system was adopted and stays as it is: nothing is changed on it. `rackbar plan NODE --reinstall`, with its name, \
         puts another system in its place",
    )
}

fn no_role(node: &NodeFacts) -> String {
    let more = if node.node.inventory.is_none() {
        "; it has no inventory yet"
    } else {
        ""
    };
    format!(
        "no role is bound: no rule matches, it is no expected machine and none was bound by hand{more}. It is not touched"
    )
}

/// The digest of what a plan rests on for a node: what it is to be, what is on it, and what identifies its parts. Not
/// what moves by itself, such as temperatures and addresses of the discovery system.
fn seen(node: &NodeFacts, name: &str, role: Option<&Role>, hostname: &str) -> Digest {
    let inventory = node.node.inventory.as_ref();
    // What the host sees of its BMC counts where the role sets that up, and an address by DHCP comes and goes.
    let sets_up = role.is_some_and(|role| role.bmc.network.is_some() || role.bmc.account.is_some());
    let bmc = inventory.and_then(|inventory| inventory.bmc.as_ref());
    let bmc = bmc.filter(|_| sets_up).map(|bmc| {
        let address = bmc.address.filter(|_| bmc.dhcp != Some(true));
        (bmc.mac, bmc.dhcp, bmc.vlan, address)
    });
    let disks: Vec<_> = inventory
        .into_iter()
        .flat_map(|inventory| &inventory.disks)
        .map(|disk| {
            (
                &disk.serial,
                &disk.wwn,
                &disk.by_path,
                disk.size_bytes,
                &disk.model,
                disk.removable,
            )
        })
        .collect();
    let nics: Vec<_> = inventory
        .into_iter()
        .flat_map(|inventory| &inventory.nics)
        .map(|nic| (nic.mac, &nic.pci))
        .collect();
    let mode = inventory.and_then(|inventory| inventory.firmware.mode);
    digest::of(&(
        name,
        hostname,
        disks,
        nics,
        mode,
        &node.bios,
        node.bmc,
        &node.installed,
        node.password_rotated,
        (bmc, &node.bmc_account, &node.wrong_boot_order),
        node.adopted,
    ))
}

/// Roles so that each comes behind those it waits for. A cycle, which a checked site has not, is broken anywhere.
fn order(site: &Site) -> Vec<&str> {
    let mut ordered: Vec<&str> = Vec::with_capacity(site.role.len());
    let mut left: Vec<&str> = site.role.keys().map(String::as_str).collect();
    while !left.is_empty() {
        let waits = |name: &&str| {
            let after = site.role.get(*name).map_or(&[][..], |role| role.after.as_slice());
            after.iter().any(|other| left.contains(&other.as_str()))
        };
        let (stay, go): (Vec<&str>, Vec<&str>) = left.iter().copied().partition(waits);
        if go.is_empty() {
            ordered.extend(stay);
            break;
        }
        ordered.extend(go);
        left = stay;
    }
    ordered
}

/// A name in small letters; nearly all are.
fn lower(name: &str) -> Cow<'_, str> {
    match name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        true => Cow::Owned(name.to_ascii_lowercase()),
        false => Cow::Borrowed(name),
    }
}

/// How a name is sorted: `node-10` behind `node-9`.
#[derive(Clone, Copy)]
struct Natural {
    /// Bytes of what is before the number at its end.
    word: usize,
    value: u64,
}

impl Natural {
    fn of(name: &str) -> Self {
        let digits = name.bytes().rev().take_while(u8::is_ascii_digit).count();
        let word = name.len().saturating_sub(digits);
        let value = name.get(word..).and_then(|number| number.parse().ok()).unwrap_or(0);
        Self { word, value }
    }
}

/// A name's sort key.
fn natural(name: &str) -> (&str, u64, &str) {
    let Natural { word, value } = Natural::of(name);
    (name.get(..word).unwrap_or_default(), value, name)
}

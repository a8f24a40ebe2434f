//! Nodes that a plan does not touch and that its nodes depend on: barriers and batches count them too.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use rackbar_model::{NodeId, NodeState};

use super::hands_off;
use crate::rules::Rules;
use crate::site::{Role, Site};
use crate::{Facts, Plan, Scope};

/// Names that a refusal lists.
const LISTED: usize = 5;

/// Nodes that have a role, are not planned for, and are not ready; by role. Those that were handed over belong to
/// another owner and hold up nobody.
#[derive(Default)]
pub(super) struct Outside<'a>(BTreeMap<String, Vec<(&'a str, &'a NodeState)>>);

impl<'a> Outside<'a> {
    /// Looks at what these roles, those of the planned nodes, depend on; costs nothing where that is nothing.
    pub(super) fn new<'r>(
        site: &Site,
        facts: &'a Facts,
        scope: &Scope,
        rules: &Rules<'_>,
        roles: impl Iterator<Item = &'r str>,
    ) -> Self {
        let mut wanted: BTreeSet<&str> = BTreeSet::new();
        for (name, role) in roles.filter_map(|role| site.role.get_key_value(role)) {
            wanted.extend(role.after.iter().map(String::as_str));
            wanted.extend(role.batch.map(|_| name.as_str()));
        }
        let mut outside = Self::default();
        if wanted.is_empty() {
            return outside;
        }
        for node in &facts.nodes {
            let state = &node.node.state;
            let planned = scope.holds(node.node.id) && hands_off(node).is_none();
            if planned || matches!(state, NodeState::Ready | NodeState::HandedOver) {
                continue;
            }
            if let Some(role) = rules.bind(node).role.filter(|role| wanted.contains(role.as_ref())) {
                let here = outside.0.entry(role.into_owned()).or_default();
                here.push((node.node.name.as_str(), state));
            }
        }
        outside
    }

    /// Why a role that comes after `role` cannot begin; `None` when all of it that is not planned is ready.
    pub(super) fn holds_up(&self, role: &str) -> Option<String> {
        let waiting = self.0.get(role)?;
        Some(format!(
            "its role comes after role {role}, and there not ready and not in this plan: {}; plan them too, or wait \
             until they are ready",
            list(waiting)
        ))
    }

    /// How many nodes of a role with a batch may be worked on, beside those that are in work already or failed in it.
    pub(super) fn room(&self, name: &str, role: &Role) -> Result<Option<usize>, String> {
        let Some(batch) = role.batch else { return Ok(None) };
        let unfinished = |state: &NodeState| match state {
            NodeState::Configuring | NodeState::Provisioning | NodeState::Cleaning | NodeState::Failed(_) => true,
            NodeState::Enrolled
            | NodeState::Inspecting
            | NodeState::Discovered
            | NodeState::Available
            | NodeState::Ready
            | NodeState::Maintenance
            | NodeState::HandedOver => false,
        };
        let here = self.0.get(name).into_iter().flatten();
        let busy: Vec<_> = here.filter(|(_, state)| unfinished(state)).copied().collect();
        let room = usize::try_from(batch).unwrap_or(usize::MAX).saturating_sub(busy.len());
        if room > 0 || busy.is_empty() {
            return Ok(Some(room));
        }
        Err(format!(
            "role {name} has at most {batch} in work at once, and not ready and not in this plan are {}; wait until they \
             are ready, recover them, or put them into maintenance",
            list(&busy)
        ))
    }
}

/// Why a plan may not begin any more: since it was made other nodes of its roles were taken into work, or roles that its own come
/// after are no longer ready. Nodes that the plan itself decided on do not count. Empty when it may.
pub fn held_up(plan: &Plan, site: &Site, facts: &Facts) -> Vec<String> {
    if plan.scope.burn_in.is_some() {
        return Vec::new();
    }
    let apart = plan.refused.iter().chain(&plan.left_out).map(|said| said.node);
    let acted = plan.actions.iter().filter_map(|action| action.node);
    let own = acted.chain(plan.unchanged.iter().copied()).chain(apart);
    let scope = Scope {
        nodes: Some(own.collect::<BTreeSet<_>>().into_iter().collect()),
        ..Scope::default()
    };
    let rules = Rules::new(site);
    let at_once = at_once(plan);
    let mut roles: BTreeMap<String, usize> = BTreeMap::new();
    for node in &facts.nodes {
        if let Some(first) = at_once.get(&node.node.id)
            && let Some(role) = rules.bind(node).role
        {
            *roles.entry(role.into_owned()).or_default() += usize::from(*first);
        }
    }
    let outside = Outside::new(site, facts, &scope, &rules, roles.keys().map(String::as_str));
    let mut out = Vec::new();
    for (name, first) in &roles {
        let Some(role) = site.role.get(name) else { continue };
        out.extend(role.after.iter().filter_map(|role| outside.holds_up(role)));
        match outside.room(name, role) {
            Err(reason) => out.push(reason),
            Ok(Some(room)) if room < *first => out.push(format!(
                "role {name} has room for {room} in work at once now, and the plan begins with {first}"
            )),
            Ok(_) => {}
        }
    }
    out
}

/// The nodes of a plan, and whether each may begin before any other node of its batch has ended.
fn at_once(plan: &Plan) -> BTreeMap<NodeId, bool> {
    let of: HashMap<_, _> = plan.actions.iter().map(|action| (&action.id, action.node)).collect();
    let mut nodes = BTreeMap::new();
    for action in &plan.actions {
        let Some(node) = action.node else { continue };
        // A barrier has no node of its own: it is between roles, and does not make a batch smaller.
        let other = |need| of.get(need).copied().flatten().is_some_and(|other| other != node);
        *nodes.entry(node).or_insert(true) &= !action.needs.iter().any(other);
    }
    nodes
}

fn list(nodes: &[(&str, &NodeState)]) -> String {
    let mut nodes = nodes.to_vec();
    nodes.sort_by(|a, b| super::natural(a.0).cmp(&super::natural(b.0)));
    let told = nodes.iter().take(LISTED);
    let mut words: Vec<String> = told.map(|(name, state)| format!("{name} ({})", state.name())).collect();
    let more = nodes.len().saturating_sub(LISTED);
    if more > 0 {
        words.push(format!("{more} more"));
    }
    words.join(", ")
}

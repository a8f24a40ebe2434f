//! Nodes that a plan does not touch and that its nodes depend on: barriers and batches count them too.

use std::collections::{BTreeMap, BTreeSet};

use rackbar_model::NodeState;

use super::hands_off;
use crate::rules::Rules;
use crate::site::{Role, Site};
use crate::{Facts, Scope};

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

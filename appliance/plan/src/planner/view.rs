//! Ways to look at a plan, and what must hold of every plan.

use std::collections::{HashMap, HashSet};

use rackbar_model::NodeId;

use crate::{Action, ActionId, ActionKind, Plan};

/// A node's part of a plan.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeView<'p> {
    /// The node.
    pub node: NodeId,
    /// Its host name, as in the names of its actions.
    pub name: &'p str,
    /// Its actions in order.
    pub actions: Vec<&'p Action>,
    /// Expected seconds, one action behind the other.
    pub seconds: u64,
    /// What is destroyed, in words, each once.
    pub destroys: Vec<&'p str>,
    /// It restarts at least once.
    pub reboots: bool,
}

impl Plan {
    /// The plan node by node, in the order they are planned in. Barriers and services belong to no node.
    pub fn by_node(&self) -> Vec<NodeView<'_>> {
        let mut at: HashMap<NodeId, usize> = HashMap::new();
        let mut views: Vec<NodeView<'_>> = Vec::new();
        for action in &self.actions {
            let Some(node) = action.node else { continue };
            let index = *at.entry(node).or_insert_with(|| {
                let name = action.id.0.split('/').next().unwrap_or_default();
                views.push(NodeView {
                    node,
                    name,
                    actions: Vec::new(),
                    seconds: 0,
                    destroys: Vec::new(),
                    reboots: false,
                });
                views.len() - 1
            });
            let Some(view) = views.get_mut(index) else { continue };
            view.actions.push(action);
            view.seconds += u64::from(action.estimate_seconds);
            view.reboots |= action.reboots;
            if let Some(destroys) = action
                .destroys
                .as_deref()
                .filter(|words| !view.destroys.contains(words))
            {
                view.destroys.push(destroys);
            }
        }
        views
    }

    /// The nodes whose data is destroyed: each needs consent.
    pub fn destructive(&self) -> Vec<NodeView<'_>> {
        self.by_node()
            .into_iter()
            .filter(|view| !view.destroys.is_empty())
            .collect()
    }

    /// An action by its name.
    pub fn action(&self, id: &ActionId) -> Option<&Action> {
        self.actions.iter().find(|action| action.id == *id)
    }

    /// True when there is nothing to do.
    pub const fn is_empty(&self) -> bool {
        self.actions.is_empty()
    }

    /// Expected seconds of the whole, when everything that may run at once does: the longest path.
    pub fn critical_seconds(&self) -> u64 {
        let mut ends: HashMap<&ActionId, u64> = HashMap::with_capacity(self.actions.len());
        for action in &self.actions {
            let begin = action
                .needs
                .iter()
                .filter_map(|need| ends.get(need))
                .max()
                .copied()
                .unwrap_or(0);
            ends.insert(&action.id, begin + u64::from(action.estimate_seconds));
        }
        ends.into_values().max().unwrap_or(0)
    }

    /// Holds the plan against what must be true of every plan.
    ///
    /// # Errors
    /// The first thing that is not: a name that is there twice, a need that does not point to an earlier action, an
    /// action that writes to a disk without saying so or without a node whose inputs are recorded, an install that is
    /// not begun by our agent.
    pub fn check(&self) -> Result<(), String> {
        let mut seen: HashSet<&ActionId> = HashSet::with_capacity(self.actions.len());
        let mut agents: HashSet<NodeId> = HashSet::new();
        for action in &self.actions {
            let id = &action.id;
            if let Some(need) = action.needs.iter().find(|need| !seen.contains(need)) {
                return Err(format!("{id} needs {need}, which does not come before it"));
            }
            if !seen.insert(id) {
                return Err(format!("{id} is there twice"));
            }
            let destructive = matches!(action.kind, ActionKind::Erase { .. }) || action.kind.installs().is_some();
            if destructive != action.destroys.is_some() {
                return Err(format!("{id} does not say rightly what it destroys"));
            }
            if let (ActionKind::Agent { .. }, Some(node)) = (&action.kind, action.node) {
                agents.insert(node);
            }
            match action.node {
                Some(node) if !self.inputs.nodes.contains_key(&node) => {
                    return Err(format!("{id} works on a node the plan knows no inputs of"));
                }
                None if !matches!(action.kind, ActionKind::Barrier { .. } | ActionKind::Service(_)) => {
                    return Err(format!("{id} has no node"));
                }
                Some(node) if destructive && !agents.contains(&node) => {
                    return Err(format!("{id} would run before our agent is there"));
                }
                _ => {}
            }
            let untouched = self.left_out.iter().chain(&self.refused).map(|refusal| refusal.node);
            if destructive
                && action
                    .node
                    .is_some_and(|node| untouched.into_iter().any(|other| other == node))
            {
                return Err(format!("{id} works on a node that is not to be touched"));
            }
        }
        Ok(())
    }
}

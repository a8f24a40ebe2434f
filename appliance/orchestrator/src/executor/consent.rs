//! Whether a person said yes to what a plan destroys, by words that can mean one machine only.
//!
//! A machine has a name of now and one that a plan gives it, and the second may be the first of another machine. A word
//! that means two of them is taken for neither: consent for one must never empty the other.

use std::collections::{BTreeSet, HashMap};

use rackbar_model::{MacAddr, NodeId};
use rackbar_plan::{NodeFacts, Plan};

use super::types::CommitError;

/// Holds the words of a consent against the nodes of a plan: names of now or as planned, ids, MAC addresses.
///
/// # Errors
/// [`CommitError::Ambiguous`] when a word that is needed means several machines, [`CommitError::Consent`] when a node is
/// not named at all.
pub(super) fn check(plan: &Plan, nodes: &[NodeFacts], consent: &[String]) -> Result<(), CommitError> {
    let mut names: HashMap<&str, BTreeSet<NodeId>> = HashMap::new();
    for view in plan.by_node() {
        names.entry(view.name).or_default().insert(view.node);
    }
    for node in nodes {
        names.entry(&node.node.name).or_default().insert(node.node.id);
    }
    let (mut meant, mut shared) = (BTreeSet::new(), HashMap::new());
    for said in consent {
        if let Ok(id) = said.parse::<NodeId>() {
            meant.insert(id);
        } else if let Ok(mac) = said.parse::<MacAddr>() {
            let has = nodes.iter().filter(|node| node.node.macs.contains(&mac));
            meant.extend(has.map(|node| node.node.id));
        } else if let Some(of) = names.get(said.as_str()) {
            match of.len() {
                1 => meant.extend(of),
                _ => shared.extend(of.iter().map(|id| (*id, said.as_str()))),
            }
        }
    }
    let (mut missing, mut several) = (Vec::new(), Vec::new());
    for view in plan.destructive() {
        match shared.get(&view.node) {
            _ if meant.contains(&view.node) => {}
            Some(said) => several.push(format!("{said} (--yes-destroy {})", view.node)),
            None => missing.push(view.name.to_owned()),
        }
    }
    match (several.is_empty(), missing.is_empty()) {
        (false, _) => Err(CommitError::Ambiguous(several)),
        (true, false) => Err(CommitError::Consent { missing }),
        (true, true) => Ok(()),
    }
}

//! Intent that changes while a run is under way: a later run takes nodes over from earlier ones.
//!
//! ```text
//!   earlier run   Going ──Supersede(node)──▶ what waits: Skipped; what runs: told to give up ──▶ nothing open on the node
//!   later run     Waiting ───────────────────────────────────────────────────may_begin──Begin──▶ Going
//! ```
//!
//! The later run is written down as waiting before the earlier ones are told, so that a kill in between loses neither:
//! whoever finds a waiting run tells the earlier ones again. Giving up takes at most the engine's grace, so a waiting run
//! waits for at most that long.

use std::collections::BTreeSet;

use rackbar_model::{NodeId, Timestamp};

use super::{Engine, Output};
use crate::{Run, RunId, RunState, Stand};

/// True when a run that waits may begin: nothing is open in another run on any node it still has work for. `busy` says of
/// a node whether another run has.
pub fn may_begin(run: &Run, busy: impl Fn(NodeId) -> bool) -> bool {
    run.state == RunState::Waiting && !run.open_nodes().any(busy)
}

impl Run {
    /// True when an action of the node may still change.
    pub fn open(&self, node: NodeId) -> bool {
        self.open_nodes().any(|open| open == node)
    }

    /// Nodes with an action that may still change; one may come more than once.
    pub fn open_nodes(&self) -> impl Iterator<Item = NodeId> {
        let open = |id| self.actions.get(id).is_some_and(|stand: &Stand| !stand.settled());
        let actions = self.plan.actions.iter();
        actions.filter_map(move |action| action.node.filter(|_| open(&action.id)))
    }
}

impl Engine {
    /// A later run takes nodes over. Together: of two that one waits for the other, neither did not end well.
    pub(super) fn supersede(&mut self, now: Timestamp, nodes: &BTreeSet<NodeId>, by: RunId, out: &mut Vec<Output>) {
        let open: BTreeSet<NodeId> = self.run.open_nodes().filter(|node| nodes.contains(node)).collect();
        let taken: BTreeSet<NodeId> = open
            .into_iter()
            .filter(|node| !self.run.superseded.contains_key(node))
            .collect();
        if taken.is_empty() {
            return;
        }
        let reason = format!("superseded by run {by}");
        for node in &taken {
            self.run.superseded.insert(*node, by);
            // Who was taken out before keeps the reason it was given.
            self.run.excluded.entry(*node).or_insert_with(|| reason.clone());
        }
        out.push(Output::JournalRun);
        self.give_these_up(
            now,
            &|action| action.node.is_some_and(|node| taken.contains(&node)),
            &reason,
            out,
        );
    }

    /// True when all that did not end well was taken over, and nothing failed.
    pub(super) fn was_taken_over(&self) -> bool {
        !self.run.superseded.is_empty()
            && self.run.plan.actions.iter().all(|action| {
                match self.run.actions.get(&action.id) {
                    Some(Stand::Done { .. }) => true,
                    // A barrier is nobody's: that it was not reached says nothing of its own.
                    Some(Stand::Skipped { .. }) => {
                        action.node.is_none_or(|node| self.run.superseded.contains_key(&node))
                    }
                    Some(Stand::Waiting | Stand::Running(_) | Stand::Again { .. } | Stand::Failed { .. }) | None => {
                        false
                    }
                }
            })
    }
}

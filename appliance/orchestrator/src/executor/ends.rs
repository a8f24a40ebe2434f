//! What the end of a run means for a node: it is ready, or failed, or back where it stands without that run.
//!
//! That is written down after the end itself. A power cut between the two leaves a run that has ended on a node that does not
//! show it, and the next life draws the conclusion: [`NodeWork::concluded`] says of which run it was drawn last.

use std::collections::BTreeMap;
use std::sync::Arc;

use rackbar_model::{FailedIn, Node, NodeId, NodeState};
use rackbar_plan::{Action, ActionKind, Run, RunId, Stand};

use super::memory::NodeWork;
use super::nodes::{hardware, state_during, stays_in_memory};
use super::{Book, Inner};
use crate::rack::now;

/// What a run came to on one node.
enum NodeEnd {
    /// All of it is done.
    Done {
        /// Its checks passed.
        proved: bool,
        /// It stays in our agent.
        memory: bool,
    },
    /// Something failed, which was said then.
    Failed {
        /// Nothing but its checks.
        checks_only: bool,
    },
    /// It was not gone on with; why, when that is said.
    GivenUp(Option<String>),
}

impl NodeEnd {
    /// From how the actions of the node stand; `last` settled last. `None` while any may change.
    fn of(mine: &[(&Action, &Stand)], last: &Stand) -> Option<Self> {
        if mine.iter().any(|(_, stand)| !stand.settled()) {
            return None;
        }
        let any = |is: fn(&ActionKind) -> bool| mine.iter().any(|(action, _)| is(&action.kind));
        Some(if mine.iter().all(|(_, stand)| matches!(stand, Stand::Done { .. })) {
            Self::Done {
                proved: any(|kind| matches!(kind, ActionKind::Verify { .. })),
                memory: any(|kind| matches!(kind, ActionKind::StayInMemory { .. })),
            }
        } else if mine.iter().any(|(_, stand)| matches!(stand, Stand::Failed { .. })) {
            let failed = mine.iter().filter(|(_, stand)| matches!(stand, Stand::Failed { .. }));
            Self::Failed {
                checks_only: failed
                    .clone()
                    .all(|(action, _)| matches!(action.kind, ActionKind::Verify { .. })),
            }
        } else {
            Self::GivenUp(match last {
                Stand::Skipped { reason } => Some(reason.clone()),
                _ => None,
            })
        })
    }
}

/// The actions of each node of a run and how they stand.
fn of_nodes(run: &Run) -> BTreeMap<NodeId, Vec<(&Action, &Stand)>> {
    let mut nodes: BTreeMap<NodeId, Vec<(&Action, &Stand)>> = BTreeMap::new();
    for action in &run.plan.actions {
        if let (Some(node), Some(stand)) = (action.node, run.actions.get(&action.id)) {
            nodes.entry(node).or_default().push((action, stand));
        }
    }
    nodes
}

impl Inner {
    /// An action of a node will not change any more.
    pub(super) fn settled(&self, book: &mut Book, run: RunId, node: NodeId, action: &Action, stand: &Stand) {
        let well = matches!(stand, Stand::Done { .. });
        self.hands.settled(node, run, &action.kind, well);
        self.failed(book, node, action, stand);
        let Some(live) = book.live.get(&run) else { return };
        let mine: Vec<(&Action, &Stand)> = live.of_node(node).collect();
        if let Some(end) = NodeEnd::of(&mine, stand) {
            self.conclude(book, run, node, end);
        }
    }

    /// An action of a node failed for good, if it did.
    fn failed(&self, book: &Book, node: NodeId, action: &Action, stand: &Stand) {
        let Stand::Failed { reason, advice, .. } = stand else {
            return;
        };
        let ready = book.work.get(&node).is_some_and(|work| work.ready.is_some());
        // A check that fails on a machine that was ready is drift, not a failed installation.
        if ready && matches!(action.kind, ActionKind::Verify { .. }) {
            return;
        }
        let during = state_during(action)
            .unwrap_or(NodeState::Provisioning)
            .name()
            .to_owned();
        let reason = format!("{}: {reason}; {advice}", action.id);
        let failure = FailedIn {
            during,
            reason: reason.clone(),
            retry: None,
        };
        self.rack.hold(node, NodeState::Failed(failure), &reason);
    }

    /// Nothing of a run will change any more on a node.
    fn conclude(&self, book: &mut Book, run: RunId, node: NodeId, end: NodeEnd) {
        match end {
            NodeEnd::Done { proved, memory } => self.all_done(book, run, node, proved, memory),
            // What failed held it where it is shown. Checks that fail on a machine that was ready are drift: it is no longer
            // worked on, and shows what differs.
            NodeEnd::Failed { checks_only } => {
                let was_ready = book.work.get(&node).is_some_and(|work| work.ready.is_some());
                let shown = self.rack.node_by_id(node).map(|node| node.state.clone());
                let in_work = matches!(shown, Some(NodeState::Configuring | NodeState::Provisioning));
                if checks_only && was_ready && in_work {
                    self.back(book, node, &format!("its checks failed, run {run}"));
                }
            }
            NodeEnd::GivenUp(reason) => {
                let reason = reason.unwrap_or_else(|| format!("run {run} ended before it was ready"));
                self.back(book, node, &reason);
            }
        }
        book.work(node, |work| work.concluded = Some(run));
    }

    /// What the ends of runs mean for their nodes, where a power cut came between an end's record and that.
    pub(super) fn catch_up(&self, book: &mut Book) {
        let live = book.live.values_mut().map(super::shown);
        let runs: BTreeMap<RunId, Arc<Run>> = live.map(|run| (run.id, run)).chain(book.ended.clone()).collect();
        let mut newest = BTreeMap::new();
        for (id, run) in &runs {
            for (node, mine) in of_nodes(run) {
                if let Some(end) = NodeEnd::of(&mine, &Stand::Waiting) {
                    newest.insert(node, (*id, mine, end));
                }
            }
        }
        for (node, (run, mine, end)) in newest {
            let concluded = book.work.get(&node).and_then(|work| work.concluded);
            // Without a mark its last run was an older program's, and that one said what it came to.
            if concluded.is_none_or(|last| last >= run) || book.busy(node).is_some() {
                continue;
            }
            for (action, stand) in mine {
                self.failed(book, node, action, stand);
            }
            self.conclude(book, run, node, end);
        }
    }

    /// Machines that do not stand where what is written of them puts them: the power went before that was shown.
    pub(super) fn stand_again(&self, book: &Book) {
        for (node, work) in &book.work {
            let Some(shown) = self.rack.node_by_id(*node).filter(|shown| shown.id == *node) else {
                continue;
            };
            let off = shown.state == NodeState::Maintenance;
            let hands = work.maintenance.is_some() != off && shown.state != NodeState::HandedOver;
            let before = matches!(
                shown.state,
                NodeState::Enrolled | NodeState::Inspecting | NodeState::Discovered | NodeState::Available
            );
            let adopted = before && work.adopted.is_some() && work.ready.is_some() && book.busy(*node).is_none();
            if hands || adopted {
                self.back(book, *node, "so it was left before the appliance started anew");
            }
        }
    }

    /// Everything of the run is done on a node.
    fn all_done(&self, book: &mut Book, run: RunId, node: NodeId, proved: bool, memory: bool) {
        if book.taken_out(run, node) {
            self.back(book, node, &format!("run {run} is done, and nobody waits for it"));
        } else if let Some(reason) = book.work.get(&node).and_then(NodeWork::did_not_bear) {
            let failure = FailedIn {
                during: NodeState::Configuring.name().to_owned(),
                reason: reason.clone(),
                retry: None,
            };
            book.work(node, |work| work.ready = None);
            self.rack.hold(node, NodeState::Failed(failure), &reason);
        } else if proved || memory {
            let mark = self.rack.node_by_id(node).map(|node| hardware(&node, now()));
            book.work(node, |work| work.ready = mark);
            let reason = if proved {
                "its checks passed"
            } else {
                "it stays in memory, as its role wants"
            };
            self.rack.hold(node, NodeState::Ready, &format!("{reason}, run {run}"));
        } else {
            self.back(book, node, &format!("run {run} is done"));
        }
    }

    /// A node that nobody works on any more goes back to where it stands without that.
    pub(super) fn back(&self, book: &Book, node: NodeId, reason: &str) {
        let work = book.work.get(&node);
        let Some(shown) = self.rack.node_by_id(node) else {
            return;
        };
        let state = if work.is_some_and(|work| work.maintenance.is_some()) {
            NodeState::Maintenance
        } else if work.is_some_and(|work| self.is_back(book, &shown, work)) {
            NodeState::Ready
        } else if shown.inventory.is_some() {
            NodeState::Discovered
        } else {
            NodeState::Enrolled
        };
        self.rack.hold(node, state, reason);
    }

    /// True when a node that was ready is what it was then: one that was to run its own system, and is in our agent for
    /// something that was given up, is not.
    fn is_back(&self, book: &Book, shown: &Node, work: &NodeWork) -> bool {
        let in_agent = stays_in_memory(book, shown.role.as_deref());
        let has_system = work.installed.is_some() || work.adopted.is_some();
        work.ready.is_some() && (!has_system || work.boots_disk || in_agent)
    }
}

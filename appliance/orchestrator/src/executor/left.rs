//! Runs of the store that are not gone on with: all that a state had open which was put in from an export, and those of
//! which a record cannot be read.
//!
//! The consent to the first was given for what the machines were when the state was saved, and the appliance that saved it
//! may still walk the same run. Of the second nobody knows what was done: what cannot be read may be the end of an erase.
//! Both are ended before anything of them is acted on, and say why.

use std::collections::BTreeSet;

use rackbar_model::{Digest, EventKind, NodeId, NodeState, Severity, Timestamp};
use rackbar_plan::site::RunLimits;
use rackbar_plan::{Action, ActionId, ActionKind, Inputs, Layer, Limits, Plan, PlanId, RunId, Scope, Stand, Target};

use super::driver::Live;
use super::memory::{self, Loaded, Saved};
use super::{Book, Engine, Inner, Parts, plans};
use crate::Rack;

/// Why a run of a state that was put in is ended.
const PUT_IN: &str = "this state was put in from an export; plan again";

/// What to do about a run that cannot be read.
const ADVICE: &str = "nothing of this run is carried out any more: see what its machines are (`rackbar node show`), then plan and \
                      commit again; a store that a newer Rackbar wrote is read by that one";

/// A run that was ended, for those who watch.
pub(super) struct Left {
    run: RunId,
    state: &'static str,
    reason: String,
    nodes: BTreeSet<NodeId>,
}

/// The book of what the store holds, and the runs that are not gone on with. That they ended is among what is to be written.
pub(super) fn open(loaded: Loaded, parts: &Parts, rack: &Rack, now: Timestamp) -> (Book, Vec<Left>) {
    let mut book = Book {
        work: loaded.work,
        unwritten: loaded.old,
        last_run: loaded.last_run,
        ..Book::default()
    };
    if let Some(saved) = loaded.site {
        book.site = plans::restore(saved, &parts.services, rack);
    }
    let mut left = Vec::new();
    for mut saved in loaded.runs {
        let id = saved.run.id;
        if saved.run.ended.is_none() && saved.unreadable.is_empty() && !parts.put_in {
            match Engine::within(saved.run.clone(), parts.bounds.clone(), book.room.clone()) {
                Ok(engine) => {
                    book.live.insert(id, Live::new(engine, saved.request));
                    continue;
                }
                Err(error) => saved.unreadable.push(format!("plan: {error}")),
            }
        }
        left.extend(end(&mut book, &mut saved, now));
        book.ended.insert(id, std::sync::Arc::new(saved.run));
    }
    (book, left)
}

/// Ends a run that is not gone on with; `None` when it had ended before.
fn end(book: &mut Book, saved: &mut Saved, now: Timestamp) -> Option<Left> {
    let run = &mut saved.run;
    let reason = match saved.unreadable.as_slice() {
        [] => PUT_IN.to_owned(),
        unreadable => format!("it cannot be read any more how it stands ({})", unreadable.join(", ")),
    };
    let hidden = saved.unreadable.iter().map(|what| match what.strip_prefix("do/") {
        Some(action) => ActionId(action.to_owned()),
        None => unknown(run.id),
    });
    for action in hidden {
        if let Some(stand) = run.actions.get_mut(&action) {
            *stand = Stand::Failed {
                reason: "how this stands cannot be read in the store; it may have been done".into(),
                advice: ADVICE.into(),
                tries: 0,
                at: now,
            };
            book.unwritten.push(memory::stand_entry(run.id, &action, stand));
        }
    }
    if run.ended.is_some() {
        return None;
    }
    for action in run.leave_off(now, &reason) {
        let stand = run.actions.get(&action)?;
        book.unwritten.push(memory::stand_entry(run.id, &action, stand));
    }
    book.unwritten.push(memory::head_entry(run, None));
    Some(Left {
        run: run.id,
        state: run.state.name(),
        nodes: run.plan.actions.iter().filter_map(|action| action.node).collect(),
        reason,
    })
}

impl Inner {
    /// False of a node that another run has something under way on, which says where it stands, or that is its owner's.
    fn stands_by_itself(&self, book: &Book, node: NodeId) -> bool {
        let begun = |live: &Live| {
            let stands = || live.of_node(node).map(|(_, stand)| stand);
            live.open(node) && stands().any(|stand| *stand != Stand::Waiting)
        };
        let shown = self.rack.node_by_id(node);
        !book.live.values().any(begun) && shown.is_some_and(|node| node.state != NodeState::HandedOver)
    }

    /// Tells of the runs that were ended; their machines stand where they stand without them.
    pub(super) fn tell_left(&self, book: &mut Book, left: Vec<Left>) {
        for Left {
            run,
            state,
            reason,
            nodes,
        } in left
        {
            // Of a plan that cannot be read its machines are known by what they show.
            let shown = self.rack.nodes();
            let shown = shown.iter().filter(|node| node.run == Some(run.0));
            let nodes: BTreeSet<NodeId> = nodes.into_iter().chain(shown.map(|node| node.id)).collect();
            for node in nodes {
                book.work(node, |work| work.concluded = Some(run));
                if !self.stands_by_itself(book, node) {
                    continue;
                }
                let reason = format!("run {run} is not gone on with: {reason}");
                self.rack
                    .show(node, false, |node| (node.doing, node.percent) = (None, None));
                self.back(book, node, &reason);
            }
            let kind = EventKind::RunChanged {
                run: run.0,
                state: state.into(),
                reason,
                severity: Severity::Error,
            };
            self.rack.tell(None, kind);
        }
    }
}

/// The one action of a plan that cannot be read.
fn unknown(run: RunId) -> ActionId {
    ActionId(format!("run-{run}/record"))
}

/// Stands for a plan that cannot be read: a place for what is said of that.
pub(super) fn unknown_plan(run: RunId) -> Plan {
    let record = Action {
        id: unknown(run),
        node: None,
        target: Target::Rack,
        layer: Layer::System,
        kind: ActionKind::Barrier { name: "record".into() },
        changes: Vec::new(),
        needs: Vec::new(),
        destroys: None,
        reboots: false,
        estimate_seconds: 0,
        reason: "it stands for a plan that cannot be read".into(),
        limits: Limits { seconds: 1, tries: 1 },
    };
    Plan {
        id: PlanId("unreadable".into()),
        made: Timestamp::default(),
        inputs: Inputs::of(Digest([0; 32])),
        actions: vec![record],
        refused: Vec::new(),
        unchanged: Vec::new(),
        left_out: Vec::new(),
        scope: Scope::default(),
        limits: RunLimits::default(),
    }
}

//! What the executor changes on nodes: it works on them, the mind only watches. The part of [`Rack`] for it.

use std::net::IpAddr;

use rackbar_model::{Event, EventKind, Inventory, Node, NodeId, NodeState};
use rackbar_store::{StoreError, Table};

use crate::Rack;
use crate::mind::Mind;
use crate::rack::{locked, now};
use crate::record::{Boots, Standing};

/// The node that a machine was taken into.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Taken {
    pub(crate) node: NodeId,
    /// It was made for it, and no other turned out to be the same.
    pub(crate) new: bool,
}

impl Rack {
    /// Tells of something that happened.
    pub(crate) fn tell(&self, node: Option<NodeId>, kind: EventKind) {
        self.with(|mind, now| {
            let node = node.map(|node| mind.resolve(node));
            mind.emit(now, node, None, kind);
        });
    }

    /// Writes records of runs and tells of them, in one commit: a power cut leaves neither without the other.
    ///
    /// # Errors
    /// When the disk refuses. Nothing is told then.
    pub(crate) fn write_and_tell(
        &self,
        entries: &[(&[u8], Option<&[u8]>)],
        told: Vec<(Option<NodeId>, EventKind)>,
    ) -> Result<(), StoreError> {
        let at = now();
        let event = |mind: &Mind, (node, kind): (Option<NodeId>, EventKind)| Event {
            seq: 0,
            at,
            node: node.map(|node| mind.resolve(node)),
            mac: None,
            kind,
        };
        let events: Vec<Event> = self.look(|mind| told.into_iter().map(|one| event(mind, one)).collect());
        self.inner.store.put_all_telling(Table::Work, entries, events.clone())?;
        self.with(|mind, _| events.iter().for_each(|event| mind.note(event)));
        Ok(())
    }

    /// Moves a node to a state; nothing when it is in it.
    pub(crate) fn hold(&self, node: NodeId, state: NodeState, reason: &str) {
        self.with(|mind, now| {
            let node = mind.resolve(node);
            if mind.records.get(&node).is_some_and(|record| record.node.state != state) {
                mind.enter(now, node, state, reason.to_owned());
            }
        });
    }

    /// Changes what a node shows. With `keep` the change is written to the store.
    pub(crate) fn show(&self, node: NodeId, keep: bool, change: impl FnOnce(&mut Node)) {
        self.with(|mind, _| {
            let node = mind.resolve(node);
            let Some(record) = mind.records.get_mut(&node) else {
                return;
            };
            change(record.edit());
            // Work on a machine is reason enough to keep it.
            record.stand(Standing::Firm);
            record.dirty |= keep;
            mind.out.changed = true;
        });
    }

    /// Says what a node boots when it asks the network.
    pub(crate) fn set_boots(&self, node: NodeId, boots: Boots) {
        self.with(|mind, _| {
            if let Some(record) = mind.record(node) {
                record.boots = boots;
            }
        });
        self.installer_settled(node);
    }

    /// Has a node's agent look at its machine again. False when none is connected.
    pub(crate) fn ask_facts(&self, node: NodeId) -> bool {
        let asked = self.with(|mind, _| mind.record(node).map(|record| record.ask_facts()));
        asked.unwrap_or_default()
    }

    /// Takes a machine in that was looked at from outside; `None` when there are too many.
    pub(crate) fn take_machine(&self, known: Option<NodeId>, inventory: Inventory, address: IpAddr) -> Option<Taken> {
        let taken = self.with(|mind, now| Some((mind.take_in(now, known, inventory, address)?, now)));
        let ((taken, history), at) = taken?;
        if let Some(inventory) = history {
            self.store().save_inventory(taken.node, at, &inventory);
        }
        Some(taken)
    }

    /// Forgets a node. Its events stay.
    pub(crate) fn forget(&self, node: NodeId) {
        locked(&self.inner.tokens).forget(node);
        self.with(|mind, _| {
            let node = mind.resolve(node);
            mind.forget(node);
        });
    }

    /// The node by its id, also by one that was merged into it.
    pub(crate) fn node_by_id(&self, node: NodeId) -> Option<std::sync::Arc<Node>> {
        self.look(|mind| mind.node(node))
    }
}

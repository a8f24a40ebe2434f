//! The records of all nodes, and which of them were touched since they were last settled. Almost every change is of one
//! node; looking at all of them each time would make the work of a rack grow with the square of its size.

use std::collections::{BTreeSet, HashMap};
use std::ops::Deref;

use rackbar_model::NodeId;

use crate::record::Record;

/// All records by identity. Read like the map it holds; whoever may change a record has touched it.
#[derive(Default)]
pub(crate) struct Records {
    all: HashMap<NodeId, Record>,
    touched: BTreeSet<NodeId>,
}

impl Deref for Records {
    type Target = HashMap<NodeId, Record>;

    fn deref(&self) -> &Self::Target {
        &self.all
    }
}

impl Records {
    pub(crate) fn get_mut(&mut self, id: &NodeId) -> Option<&mut Record> {
        let record = self.all.get_mut(id)?;
        self.touched.insert(*id);
        Some(record)
    }

    pub(crate) fn insert(&mut self, id: NodeId, record: Record) {
        self.touched.insert(id);
        self.all.insert(id, record);
    }

    pub(crate) fn remove(&mut self, id: &NodeId) -> Option<Record> {
        self.all.remove(id)
    }

    /// What was touched since the last call.
    pub(crate) fn take_touched(&mut self) -> BTreeSet<NodeId> {
        std::mem::take(&mut self.touched)
    }

    /// Like [`Self::get_mut`] for who settles what was touched: touches nothing.
    pub(crate) fn settle(&mut self, id: &NodeId) -> Option<&mut Record> {
        self.all.get_mut(id)
    }
}

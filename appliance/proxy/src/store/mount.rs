//! Answers that lie in data packs: looked up like our own, never written, evicted or counted against the budget.

use std::collections::HashMap;
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rackbar_model::Digest;

use super::{Entry, Object, Place, Record, State, Store};

impl Store {
    /// Takes the answers of a pack in; each comes with the place in `file` where its content begins. What a pack of this
    /// name had before is gone.
    pub fn mount(&self, pack: &str, file: &Arc<File>, answers: impl IntoIterator<Item = (Record, u64)>) {
        let name: Arc<str> = pack.into();
        let mut objects: HashMap<Digest, Arc<Object>> = HashMap::new();
        let now = crate::now();
        let mut entries = Vec::new();
        for (mut record, offset) in answers {
            // Where the clock was ahead when the pack was made, nothing newer would ever win.
            record.response_time = record.response_time.min(now);
            record.request_time = record.request_time.min(record.response_time);
            let make = || {
                let file = file.clone();
                Arc::new(Object::new(record.digest, record.size, Place::Pack { file, offset }))
            };
            let object = objects.entry(record.digest).or_insert_with(make).clone();
            let used = record.response_time.saturating_mul(1000);
            let entry = Entry::new(record, object, Some(name.clone()));
            // That it was mounted is no use of it.
            entry.used.store(used, Ordering::Relaxed);
            entries.push(Arc::new(entry));
        }
        unmount(&mut self.state(), pack);
        self.packs.fetch_or(!entries.is_empty(), Ordering::Relaxed);
        entries.into_iter().for_each(|entry| self.put(entry));
    }

    /// Takes a pack's answers out; how many there were. A client that is being served from it is served to the end.
    pub fn unmount(&self, pack: &str) -> usize {
        unmount(&mut self.state(), pack)
    }

    /// There are answers that lie in packs.
    pub fn has_packs(&self) -> bool {
        self.packs.load(Ordering::Relaxed)
    }

    /// Puts in the place of an answer of a pack the same with other fields, until the pack is mounted anew: what lies in
    /// a pack is not ours to write.
    pub(crate) fn freshen(&self, entry: &Entry, record: Record) -> Arc<Entry> {
        let new = Arc::new(Entry::new(record, entry.object.clone(), entry.pack.clone()));
        self.put(new.clone());
        new
    }
}

fn unmount(state: &mut State, pack: &str) -> usize {
    let mut gone = 0;
    state.entries.retain(|_, all| {
        let before = all.len();
        all.retain(|entry| entry.pack.as_deref() != Some(pack));
        gone += before - all.len();
        !all.is_empty()
    });
    gone
}

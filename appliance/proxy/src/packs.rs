//! Data packs under the proxy: answers that are read where they lie, and answers picked to go into a pack.
//!
//! A pack names what it holds by URL, since another site calls its mirrors as it likes. So what is asked of a mirror is
//! looked for under the mirror's own key and under the URLs of its upstreams.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry as Slot;
use std::fs::File;
use std::sync::Arc;

use http::HeaderMap;
use rackbar_upstream::Sum;

use crate::Proxy;
use crate::fetch::Ask;
use crate::held::of_held;
use crate::proxy::mirrored;
use crate::rules::target::{Url, mirror_key, mirror_of};
use crate::rules::vary::Selecting;
use crate::settings::Settings;
use crate::store::{Entry, Object, Record};

/// Which stored answers are meant.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Pick {
    /// Keys that begin with one of these; all when there is none.
    pub only: Vec<String>,
    /// Only what is pinned, as what was served in the recording mode is.
    pub pinned: bool,
    /// Only what was used since then, in milliseconds since 1970.
    pub used_since: u64,
}

/// An answer that was picked, its key a URL.
#[derive(Clone)]
pub struct Picked {
    /// What it answers and how.
    pub record: Record,
    /// Its content.
    pub object: Arc<Object>,
}

impl Pick {
    fn wants(&self, entry: &Entry) -> bool {
        let named = self.only.is_empty() || self.only.iter().any(|start| entry.record.key.starts_with(start));
        named && (!self.pinned || entry.pinned()) && entry.used() >= self.used_since
    }
}

impl Proxy {
    /// Serves the answers of a pack, each with the place in `file` where its content begins. [`Self::learn_all`] is to
    /// follow.
    pub fn mount(&self, pack: &str, file: &Arc<File>, answers: impl IntoIterator<Item = (Record, u64)>) {
        self.store.mount(pack, file, answers);
    }

    /// Serves a pack's answers no longer; how many there were.
    pub fn unmount(&self, pack: &str) -> usize {
        self.store.unmount(pack)
    }

    /// The stored answers that are wanted, in the order of their URLs; of two for the same requests the newer one. Blocks
    /// while it writes down what was served in the recording mode.
    pub fn pick(&self, wanted: &Pick) -> Vec<Picked> {
        self.pin_noted();
        let settings = self.settings();
        let mut all: BTreeMap<(String, Selecting), Picked> = BTreeMap::new();
        for entry in self.store.entries().iter().filter(|entry| wanted.wants(entry)) {
            for url in self.urls(&settings, &entry.record.key) {
                let record = Record {
                    key: url.clone(),
                    ..entry.record.clone()
                };
                let object = entry.object.clone();
                let picked = Picked { record, object };
                match all.entry((url, entry.record.selecting.clone())) {
                    Slot::Vacant(slot) => drop(slot.insert(picked)),
                    Slot::Occupied(mut slot) if slot.get().record.response_time < picked.record.response_time => {
                        slot.insert(picked);
                    }
                    Slot::Occupied(_) => {}
                }
            }
        }
        all.into_values().collect()
    }

    /// The stored answer for what is asked, of our own or of a pack, and whether there are any; the newest counts.
    pub(crate) fn stored(&self, ask: &Ask, request: &HeaderMap) -> (Option<Arc<Entry>>, bool) {
        let (mut best, mut any) = self.store.find(&ask.key, request);
        if ask.mirror.is_some() && self.store.has_packs() {
            for upstream in &ask.upstreams {
                let (found, there) = self.store.find(&upstream.url.to_string(), request);
                any |= there;
                let newer = |entry: &Arc<Entry>| {
                    best.as_ref()
                        .is_none_or(|best| best.record.response_time < entry.record.response_time)
                };
                if let Some(found) = found.filter(newer) {
                    best = Some(found);
                }
            }
        }
        let right = |entry: &Arc<Entry>| ask.expected.is_some_and(|sum| entry.object.has(&sum));
        if let Some(key) = ask.held.as_ref().filter(|_| !best.as_ref().is_some_and(right)) {
            let kept = self.store.find(key, request).0.filter(right);
            any |= kept.is_some();
            best = kept.or(best);
        }
        (best, any)
    }

    /// A stored answer with the content whose digest is promised, whichever requests it came for.
    pub(crate) fn proved(&self, ask: &Ask) -> Option<Arc<Entry>> {
        let sum = ask.expected?;
        keys(ask).find_map(|key| self.store.find_proved(&key, &sum))
    }

    /// Finds out whether what is stored for an ask is what a SHA-512 promises, as far as that is not known: [`Self::stored`] and
    /// [`Self::proved`] take what nobody compared for something else.
    pub(crate) async fn compare(&self, ask: &Ask) {
        let Some(Sum::Sha512(_)) = ask.expected else { return };
        for key in keys(ask).chain(ask.held.clone()) {
            for object in self.store.unknown_of(&key) {
                // What is damaged is gone by then; what cannot be read is asked of the origin. The store tells of both.
                let _ = self.store.know(&object).await;
            }
        }
    }

    /// The URLs that a key stands for: of a mirror's key one for each upstream; none for a mirror or a lock that is no more.
    fn urls(&self, settings: &Settings, key: &str) -> Vec<String> {
        if of_held(key).is_some() {
            return self.held_url(key).into_iter().collect();
        }
        let Some((name, path)) = mirror_of(key) else {
            return vec![key.to_owned()];
        };
        let mirror = settings.mirrors.iter().find(|mirror| mirror.name == name);
        let upstreams = mirror.map(|mirror| mirror.upstreams.as_slice()).unwrap_or_default();
        upstreams.iter().map(|base| base.join(path).to_string()).collect()
    }

    /// The key under which this appliance asks for what a key names: that of a mirror for a URL that belongs to one.
    pub(crate) fn key_here(&self, key: &str) -> String {
        let settings = self.settings();
        let url = Url::parse(key);
        let of_mirror = url.as_ref().and_then(|url| mirrored(&settings, url));
        of_mirror.map_or_else(|| key.to_owned(), |(name, path, _)| mirror_key(name, path))
    }
}

/// Under which an answer to what is asked may be stored.
fn keys(ask: &Ask) -> impl Iterator<Item = String> {
    let urls = ask.upstreams.iter().filter(|_| ask.mirror.is_some());
    let urls = urls.map(|upstream| upstream.url.to_string());
    std::iter::once(ask.key.clone()).chain(urls)
}

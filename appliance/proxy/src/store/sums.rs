//! Whether a stored content is what a SHA-512 promises. Contents are named by their SHA-256, so that takes reading one through:
//! once, when somebody first asks. The answer is kept in memory beside the content it is of, and goes with it.

use std::sync::Arc;

use rackbar_trust::Sha512;
use rackbar_upstream::Sum;

use super::{Object, Store, StoreError};

impl Object {
    /// Whether it is known to have this digest. Of a SHA-512 that nobody computed yet it is not; see [`Store::know`].
    pub(crate) fn has(&self, sum: &Sum) -> bool {
        match sum {
            Sum::Sha256(sum) => *sum == self.digest.0,
            Sum::Sha512(sum) => self.sha512.get().is_some_and(|known| **known == *sum),
        }
    }

    /// Whether nobody could say yet if it has this digest.
    pub(crate) fn is_unknown(&self, sum: &Sum) -> bool {
        matches!(sum, Sum::Sha512(_)) && self.sha512.get().is_none()
    }
}

impl Store {
    /// Has the SHA-512 of a content computed, unless it is known: [`Object::has`] goes by it from then on. However many wait, it is
    /// read once.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub(crate) async fn know(self: &Arc<Self>, object: &Arc<Object>) -> Result<(), StoreError> {
        let known = object.sha512.get_or_try_init(|| async {
            let (store, object) = (self.clone(), object.clone());
            let computed = tokio::task::spawn_blocking(move || store.computed(&object)).await;
            computed.unwrap_or_else(|error| Err(StoreError::io("check objects in", &self.folder)(error.into())))
        });
        known.await.map(drop)
    }

    /// The SHA-512 of a content. Blocks while it is read, unless it is known.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub(crate) fn sha512(&self, object: &Arc<Object>) -> Result<[u8; 64], StoreError> {
        match object.sha512.get() {
            Some(known) => Ok(**known),
            None => self.computed(object).map(|computed| *computed),
        }
    }

    /// Whether a content has this digest. Blocks as [`Self::sha512`] does.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub(crate) fn is(&self, object: &Arc<Object>, sum: &Sum) -> Result<bool, StoreError> {
        match sum {
            Sum::Sha256(_) => Ok(object.has(sum)),
            Sum::Sha512(sum) => Ok(self.sha512(object)? == *sum),
        }
    }

    /// Contents of answers under a key of which nobody knows the SHA-512 yet.
    pub(crate) fn unknown_of(&self, key: &str) -> Vec<Arc<Object>> {
        let state = self.state();
        let all = state.entries.get(key).into_iter().flatten();
        let unknown = all.filter(|entry| entry.record.status == 200 && entry.object.sha512.get().is_none());
        unknown.map(|entry| entry.object.clone()).collect()
    }

    fn computed(&self, object: &Arc<Object>) -> Result<Box<[u8; 64]>, StoreError> {
        let mut hash = Sha512::new();
        let found = object.read_through(&mut |piece| hash.update(piece));
        // What was read says nothing of the content that is named so unless it is that.
        self.judged(object, found)?;
        let computed = Box::new(hash.finish());
        // Whoever waits for it notes the same; where he went away meanwhile, nobody reads it again.
        let _ = object.sha512.set(computed.clone());
        Ok(computed)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{sealed, store};
    use super::super::{Held, Record, Spool};
    use super::*;
    use proptest::prelude::*;

    const KEY: &str = "http://a/p";

    fn long(bytes: &[u8]) -> Sum {
        let mut hash = Sha512::new();
        hash.update(bytes);
        Sum::Sha512(hash.finish())
    }

    fn put(store: &Arc<Store>, content: &[u8]) -> Arc<Object> {
        let (record, held): (Record, Held) = sealed(store, KEY, content);
        store.insert(record, held.object.clone()).unwrap();
        held.object.clone()
    }

    fn found(store: &Store) -> Option<Arc<Object>> {
        store
            .find(KEY, &http::HeaderMap::new())
            .0
            .map(|entry| entry.object.clone())
    }

    #[tokio::test]
    async fn a_content_is_read_once_and_the_answer_is_kept_until_the_program_ends() {
        let folder = tempfile::tempdir().unwrap();
        let (right, wrong) = (long(b"content"), long(b"another"));
        {
            let store = store(folder.path());
            let object = put(&store, b"content");
            assert!(!object.has(&right), "nobody computed it yet");
            assert_eq!(store.unknown_of(KEY).len(), 1);
            store.know(&object).await.unwrap();
            assert!(object.has(&right) && !object.has(&wrong));
            assert!(store.unknown_of(KEY).is_empty());
            // There is nothing to be read any more.
            std::fs::write(store.object_path(&object.digest), b"").unwrap();
            assert!(store.is(&object, &right).unwrap() && !store.is(&object, &wrong).unwrap());
            store.know(&object).await.unwrap();
            std::fs::write(store.object_path(&object.digest), b"content").unwrap();
        }
        let store = store(folder.path());
        let object = found(&store).unwrap();
        assert!(!object.has(&right) && !object.known());
        assert!(store.is(&object, &right).unwrap());
        assert!(object.has(&right) && object.known(), "it was found whole on the way");
    }

    #[test]
    fn what_came_for_a_promise_is_known_without_being_read() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path());
        let mut spool = Spool::begin(&store, Some(7)).unwrap().promised(Some(&long(b"")));
        spool.write(b"con").unwrap();
        spool.write(b"tent").unwrap();
        assert_eq!(spool.sum(), long(b"content"));
        let digest = spool.digest();
        let held = spool.seal(digest).unwrap();
        assert!(held.object.has(&long(b"content")) && held.object.has(&Sum::Sha256(digest.0)));
        // The same content again, of which nothing was promised: it is the same object.
        let (_, again) = sealed(&store, KEY, b"content");
        assert!(again.object.has(&long(b"content")));
        let short = Spool::begin(&store, Some(0))
            .unwrap()
            .promised(Some(&Sum::Sha256([0; 32])));
        assert_eq!(short.sum().kind(), "SHA-256");
    }

    #[tokio::test]
    async fn a_file_that_is_another_by_now_is_not_taken_for_what_it_has_become() {
        let folder = tempfile::tempdir().unwrap();
        let digest = put(&store(folder.path()), b"content").digest;
        for wait in [false, true] {
            // Of the same length, and just what is promised.
            let store = store(folder.path());
            put(&store, b"content");
            let path = store.object_path(&digest);
            drop(store);
            std::fs::write(path, b"changed").unwrap();
            let store = self::store(folder.path());
            let object = found(&store).unwrap();
            let failed = match wait {
                true => store.know(&object).await.is_err(),
                false => store.is(&object, &long(b"changed")).is_err(),
            };
            assert!(failed && !object.has(&long(b"changed")));
            assert!(found(&store).is_none(), "it is gone, as whatever is damaged");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn a_content_is_what_its_own_digests_say_and_nothing_else(
            content in prop::collection::vec(any::<u8>(), 0..100), bit in 0_usize..512,
        ) {
            let folder = tempfile::tempdir().unwrap();
            let store = store(folder.path());
            let object = put(&store, &content);
            let Sum::Sha512(mut other) = long(&content) else { unreachable!("it is one") };
            prop_assert!(store.is(&object, &Sum::Sha512(other)).unwrap());
            other[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(!store.is(&object, &Sum::Sha512(other)).unwrap());
            let mut short = object.digest.0;
            prop_assert!(store.is(&object, &Sum::Sha256(short)).unwrap());
            short[bit / 16] ^= 1 << (bit % 8);
            prop_assert!(!store.is(&object, &Sum::Sha256(short)).unwrap());
        }
    }
}

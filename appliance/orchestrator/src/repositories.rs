//! Records of locked repositories: the lock, the signed list it was made of, and the lists of packages that list names.
//!
//! `Table::Repositories` holds `NAME` (JSON) and `NAME/SHA256` (a list as it came). All of a lock is written in one commit.

use std::collections::{BTreeMap, BTreeSet};

use rackbar_model::{Digest, RepositoryLock};
use rackbar_store::{Store, StoreError, Table};
use rackbar_trust::sha256;
use serde::{Deserialize, Serialize};

/// A locked repository with all that is kept of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Kept {
    /// The lock.
    pub lock: RepositoryLock,
    /// Its `InRelease` or `repomd.xml` as it came.
    pub release: String,
    /// What of an `InRelease` is signed, as it was judged when it was locked; of a `repomd.xml` that is all of it, and this is empty.
    pub text: String,
    /// The signature beside a `repomd.xml`.
    pub signature: Option<String>,
    /// Lists of packages by their paths below the suite; those of the lock that are not here could not be read.
    pub lists: BTreeMap<String, Vec<u8>>,
}

#[derive(Serialize, Deserialize)]
struct Record {
    lock: RepositoryLock,
    release: String,
    text: String,
    #[serde(default)]
    signature: Option<String>,
}

/// Gives the list that is kept under a key.
type Lists<'a> = dyn Fn(&str) -> Result<Option<Vec<u8>>, StoreError> + 'a;

impl Record {
    fn read(name: &str, value: &[u8]) -> Option<Self> {
        let record = serde_json::from_slice::<Self>(value).ok();
        let record = record.filter(|record| sha256(record.release.as_bytes()) == record.lock.release.0);
        if record.is_none() {
            tracing::warn!(repository = name, "a lock in the store makes no sense; lock it again");
        }
        record
    }

    /// With its lists.
    fn kept(self, list: &Lists<'_>) -> Result<Kept, StoreError> {
        let mut lists = BTreeMap::new();
        for index in &self.lock.indexes {
            let Some(bytes) = list(&format!("{}/{}", self.lock.name, index.sha256))? else {
                continue;
            };
            if Digest(sha256(&bytes)) == index.sha256 {
                lists.insert(index.path.clone(), bytes);
            } else {
                tracing::warn!(repository = self.lock.name, path = index.path, "a kept list is damaged");
            }
        }
        Ok(Kept {
            lists,
            lock: self.lock,
            release: self.release,
            text: self.text,
            signature: self.signature,
        })
    }
}

/// All that are locked. What is damaged is left out, and the log says so.
///
/// # Errors
/// When the store cannot be read.
pub fn load(store: &Store) -> Result<Vec<Kept>, StoreError> {
    let (mut records, mut lists) = (Vec::new(), BTreeMap::new());
    for (key, value) in store.list(Table::Repositories)? {
        let key = String::from_utf8_lossy(&key).into_owned();
        if key.contains('/') {
            lists.insert(key, value);
            continue;
        }
        records.extend(Record::read(&key, &value));
    }
    let list = |key: &str| Ok(lists.get(key).cloned());
    records.into_iter().map(|record| record.kept(&list)).collect()
}

/// What is kept of one repository, if it is locked. What is damaged is left out, and the log says so.
///
/// # Errors
/// When the store cannot be read.
pub fn load_one(store: &Store, name: &str) -> Result<Option<Kept>, StoreError> {
    let get = |key: &str| store.get(Table::Repositories, key.as_bytes());
    let record = get(name)?.and_then(|value| Record::read(name, &value));
    record.map(|record| record.kept(&get)).transpose()
}

/// Writes a lock down in the place of the one of its name.
///
/// # Errors
/// When the store cannot be written.
pub fn keep(store: &Store, kept: &Kept) -> Result<(), StoreError> {
    let name = &kept.lock.name;
    let record = Record {
        lock: kept.lock.clone(),
        release: kept.release.clone(),
        text: kept.text.clone(),
        signature: kept.signature.clone(),
    };
    let record = serde_json::to_vec(&record).map_err(|error| StoreError::Failed(error.to_string()))?;
    let list = |bytes: &Vec<u8>| format!("{name}/{}", Digest(sha256(bytes)));
    let lists: Vec<(String, &[u8])> = kept
        .lists
        .values()
        .map(|bytes| (list(bytes), bytes.as_slice()))
        .collect();
    let new: BTreeSet<&str> = lists.iter().map(|(key, _)| key.as_str()).collect();
    let old = keys(store, name)?;
    let gone = old.iter().filter(|key| !new.contains(key.as_str()) && *key != name);
    let mut all: Vec<(&[u8], Option<&[u8]>)> = vec![(name.as_bytes(), Some(record.as_slice()))];
    all.extend(gone.map(|key| (key.as_bytes(), None)));
    all.extend(lists.iter().map(|(key, bytes)| (key.as_bytes(), Some(*bytes))));
    store.put_all(Table::Repositories, &all)
}

/// Takes a lock back, with all that is kept of it.
///
/// # Errors
/// When the store cannot be written.
pub fn forget(store: &Store, name: &str) -> Result<(), StoreError> {
    let old = keys(store, name)?;
    let all: Vec<(&[u8], Option<&[u8]>)> = old.iter().map(|key| (key.as_bytes(), None)).collect();
    store.put_all(Table::Repositories, &all)
}

/// Keys of all that is kept of a repository.
fn keys(store: &Store, name: &str) -> Result<Vec<String>, StoreError> {
    let all = store.list(Table::Repositories)?.into_iter();
    let all = all.map(|(key, _)| String::from_utf8_lossy(&key).into_owned());
    Ok(all
        .filter(|key| key == name || key.strip_prefix(name).is_some_and(|rest| rest.starts_with('/')))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rackbar_model::{LockedIndex, RepositoryKind, Timestamp};
    use rackbar_store::Options;

    fn kept(name: &str, release: &str, list: &[u8]) -> Kept {
        let path = "main/binary-amd64/Packages".to_owned();
        Kept {
            lock: RepositoryLock {
                name: name.into(),
                kind: RepositoryKind::Deb,
                url: "http://a.example/debian".into(),
                suite: "stable".into(),
                revision: None,
                reference: None,
                components: vec!["main".into()],
                architectures: vec!["amd64".into()],
                keys: Digest([1; 32]),
                date: 7,
                release: Digest(sha256(release.as_bytes())),
                signer: "AB".into(),
                indexes: vec![LockedIndex {
                    path: path.clone(),
                    bytes: list.len() as u64,
                    sha256: Digest(sha256(list)),
                }],
                packages: 1,
                locked: Timestamp(9),
                by: "ada".into(),
            },
            release: release.into(),
            text: release.into(),
            signature: Some("signed".into()),
            lists: [(path, list.to_vec())].into(),
        }
    }

    #[test]
    fn a_lock_is_what_was_written_last_and_leaves_nothing_when_it_goes() {
        let store = Store::in_memory(Options::default()).unwrap();
        let (one, two, other) = (kept("a", "one", b"1"), kept("a", "two", b"2"), kept("a.b", "x", b"1"));
        for lock in [&one, &other, &two] {
            keep(&store, lock).unwrap();
        }
        assert_eq!(load_one(&store, "a").unwrap().as_ref(), Some(&two));
        assert_eq!(load_one(&store, "a.b").unwrap().as_ref(), Some(&other));
        assert_eq!(load_one(&store, "b").unwrap(), None);
        assert_eq!(load(&store).unwrap(), [two, other.clone()]);
        assert_eq!(
            store.list(Table::Repositories).unwrap().len(),
            4,
            "the list of the first is gone"
        );
        forget(&store, "a").unwrap();
        assert_eq!(load(&store).unwrap(), [other]);
        assert_eq!(store.list(Table::Repositories).unwrap().len(), 2);
    }

    /// As written before RPM's lists had SHA-512 too. A lock has no digest of any package: its signed list has, and that is read
    /// anew. Never to be edited.
    const OLD: &str = concat!(
        r#"{"lock":{"name":"ours-rpm","kind":"rpm","url":"http://a.example/el9","suite":"","revision":"1700000000","reference":null,"components":[],"architectures":[]"#,
        r#","keys":"0101010101010101010101010101010101010101010101010101010101010101","date":1700000050"#,
        r#","release":"50095c0dd3ea786b68ccdfc6eaf4a30f893ab83aa88d29bdd787e957b888cb48""#,
        r#","signer":"AB","indexes":[{"path":"repodata/p.xml","bytes":1,"sha256":"6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b"}]"#,
        r#","packages":1,"locked":"1970-01-01T00:00:00.009Z","by":"ada"}"#,
        r#","release":"<repomd/>","text":"","signature":"signed"}"#,
    );

    #[test]
    fn a_lock_of_before_is_read_and_written_as_it_was() {
        let store = Store::in_memory(Options::default()).unwrap();
        let list = Digest(sha256(b"1"));
        store.put(Table::Repositories, b"ours-rpm", OLD.as_bytes()).unwrap();
        store
            .put(Table::Repositories, format!("ours-rpm/{list}").as_bytes(), b"1")
            .unwrap();
        let all = load(&store).unwrap();
        let kept = all.first().expect("it is read");
        assert_eq!((kept.lock.kind, kept.lock.date), (RepositoryKind::Rpm, 1_700_000_050));
        assert_eq!(kept.lists["repodata/p.xml"], b"1");
        keep(&store, kept).unwrap();
        let again = store.get(Table::Repositories, b"ours-rpm").unwrap().unwrap();
        assert_eq!(String::from_utf8(again).unwrap(), OLD);
    }

    #[test]
    fn what_is_damaged_is_left_out() {
        let store = Store::in_memory(Options::default()).unwrap();
        let one = kept("a", "one", b"1");
        keep(&store, &one).unwrap();
        let key = format!("a/{}", one.lock.indexes[0].sha256);
        store.put(Table::Repositories, key.as_bytes(), b"other").unwrap();
        assert!(load(&store).unwrap()[0].lists.is_empty());
        assert!(load_one(&store, "a").unwrap().unwrap().lists.is_empty());
        store.put(Table::Repositories, b"a", b"{}").unwrap();
        assert_eq!((load(&store).unwrap(), load_one(&store, "a").unwrap()), (vec![], None));
    }
}

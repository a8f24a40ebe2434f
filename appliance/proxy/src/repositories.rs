//! Repositories whose state was locked, under `/repository/NAME/`: what a lock names and nothing else, whatever the origin has.
//!
//! The signed list and the lists of packages are kept by whoever locked and given to us; packages come from cache, data pack
//! or origin, and each must have the digest that the lock's own list promises.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use http::HeaderMap;
use rackbar_upstream::Sum;

use crate::Proxy;
use crate::fetch::{Ask, Upstream};
use crate::held::held_key;
use crate::operate::CacheError;
use crate::rules::cache_control::CacheControl;
use crate::rules::target::{Url, mirror_key, mirror_of, plain};
use crate::settings::Mode;
use crate::store::Entry;

/// A locked repository as it is served.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Locked {
    /// Its name in `/repository/NAME/`.
    pub name: String,
    /// URL of the folder that is locked.
    pub url: String,
    /// The origin serves lists by their digests too.
    pub by_hash: bool,
    /// Files that are kept, by their paths below the URL.
    pub documents: BTreeMap<String, Arc<[u8]>>,
    /// Digests of all other files of the locked state, by their paths below the URL.
    pub promises: HashMap<String, Sum>,
    /// Other names of files: `.../by-hash/SHA256/HEX` and the like, each with the path it stands for.
    pub aliases: HashMap<String, String>,
}

/// What a path of a locked repository is.
pub(crate) enum Found {
    /// A file that is kept.
    Document(Arc<[u8]>),
    /// A file of the locked state that has to be had.
    Ask(Box<Ask>),
    /// Nothing of it; in words.
    Nothing(String),
}

/// Those that are served.
#[derive(Default)]
pub(crate) struct Repositories(RwLock<HashMap<String, Arc<Locked>>>);

/// A document of an origin.
pub struct Document {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// The origin gave none just now: this is what was stored at that time, in seconds since 1970.
    pub stored: Option<u64>,
}

impl Proxy {
    /// Serves these repositories from now on, and no others.
    pub fn set_repositories(&self, all: impl IntoIterator<Item = Locked>) {
        let all = all.into_iter().map(|one| (one.name.clone(), Arc::new(one)));
        *self.repositories.0.write().unwrap_or_else(PoisonError::into_inner) = all.collect();
    }

    /// What a path of a repository is.
    pub(crate) fn of_repository(&self, name: &str, path: &str) -> Found {
        let all = self.repositories.0.read().unwrap_or_else(PoisonError::into_inner);
        let Some(locked) = all.get(name).cloned() else {
            return Found::Nothing(format!(
                "no repository {name:?} is locked here: `rackbar repository list` shows which are, and `rackbar repository \
                 lock NAME` locks one"
            ));
        };
        drop(all);
        let key = mirror_key(name, path);
        let path = plain(mirror_of(&key).map_or("", |(_, path)| path));
        let path = locked.aliases.get(&path).unwrap_or(&path);
        if let Some(bytes) = locked.documents.get(path) {
            return Found::Document(bytes.clone());
        }
        let (Some(sum), Some(base)) = (locked.promises.get(path), Url::parse(&locked.url)) else {
            return Found::Nothing(format!(
                "{path} is no part of the state that repository {name} is locked to; `rackbar repository check {name}` says \
                 what a new lock would bring"
            ));
        };
        let mut places = vec![base.join(path)];
        if let Some(hashed) = hashed(path, sum).filter(|_| locked.by_hash) {
            places.insert(0, base.join(&hashed));
        }
        let key = base.join(path).to_string();
        let held = Some(held_key(name, path));
        Found::Ask(Box::new(Ask {
            held,
            ..self.strict(key, name, places, Some(*sum))
        }))
    }

    /// URL of the folder that a repository of this name is locked to.
    pub(crate) fn locked_url(&self, name: &str) -> Option<String> {
        let all = self.repositories.0.read().unwrap_or_else(PoisonError::into_inner);
        all.get(name).map(|locked| locked.url.clone())
    }

    fn strict(&self, key: String, name: &str, places: Vec<Url>, expected: Option<Sum>) -> Ask {
        let upstream = |(index, url)| Upstream {
            url,
            trusted: true,
            index,
            named: true,
        };
        Ask {
            key,
            // No mirror has a name with a space: redirections are followed as for one, and no ranking is kept.
            mirror: Some(format!("repository {name}")),
            upstreams: places.into_iter().enumerate().map(upstream).collect(),
            // Nothing of a client goes to the origin, and what has the right digest needs no asking, whatever a client says.
            headers: Ask::forwarded(&HeaderMap::new(), &self.via),
            wanted: CacheControl::default(),
            expected,
            strict: true,
            held: None,
        }
    }

    /// A file below a URL that the operator wrote down: what the origin has now, or what is stored where it cannot be asked.
    /// With a digest only the content that has it, and from the place that is named by the digest where `by_hash` says so.
    ///
    /// # Errors
    /// When it is not to be had, or has more than `most` bytes.
    pub async fn document(
        self: &Arc<Self>,
        folder: &str,
        path: &str,
        expected: Option<(Sum, bool)>,
        most: u64,
    ) -> Result<Document, CacheError> {
        let (entry, stale) = self.had(folder, path, expected, most).await?;
        let (key, stored) = (entry.record.key.clone(), stale.then_some(entry.record.response_time));
        let bytes = tokio::task::spawn_blocking(move || {
            let mut bytes = Vec::new();
            std::io::Read::read_to_end(&mut entry.object.reader()?, &mut bytes)
                .map_err(|error| CacheError::Fetch(format!("{}: {error}", entry.record.key)))?;
            Ok::<_, CacheError>(bytes)
        });
        let bytes = bytes.await.map_err(|error| CacheError::Fetch(error.to_string()))??;
        // Read from a disk, perhaps out of a pack.
        if expected.is_some_and(|(wanted, _)| !wanted.is_of(&bytes)) {
            return Err(CacheError::Fetch(format!(
                "{key} is damaged where it is stored; `rackbar cache verify` takes it out"
            )));
        }
        Ok(Document { bytes, stored })
    }

    /// Has a file below a URL that the operator wrote down in the cache, or in a data pack, with the content of this digest; gives
    /// its length in bytes. It is in memory at no time.
    ///
    /// # Errors
    /// When it is not to be had, or has more than `most` bytes.
    pub async fn fetched(
        self: &Arc<Self>,
        folder: &str,
        path: &str,
        expected: Sum,
        most: u64,
    ) -> Result<u64, CacheError> {
        let (entry, _) = self.had(folder, path, Some((expected, false)), most).await?;
        Ok(entry.record.size)
    }

    /// The stored answer, and whether the origin gave none just now.
    pub(crate) async fn had(
        self: &Arc<Self>,
        folder: &str,
        path: &str,
        expected: Option<(Sum, bool)>,
        most: u64,
    ) -> Result<(Arc<Entry>, bool), CacheError> {
        let base = Url::parse(folder).ok_or_else(|| CacheError::Key(folder.to_owned()))?;
        let mut places = vec![base.join(path)];
        let key = base.join(path).to_string();
        if let Some(hashed) = expected.and_then(|(sum, by_hash)| hashed(path, &sum).filter(|_| by_hash)) {
            places.insert(0, base.join(&hashed));
        }
        let sum = expected.map(|(sum, _)| sum);
        let ask = self.strict(key.clone(), "", places, sum);
        let right = |entry: &Arc<Entry>| sum.is_none_or(|wanted| entry.object.has(&wanted));
        let offline = self.settings().mode == Mode::Offline;
        self.compare(&ask).await;
        let here = self.stored(&ask, &ask.headers).0;
        let here = here.filter(|entry| entry.record.status == 200 && right(entry));
        let (entry, stale) = match here {
            Some(entry) if sum.is_some() => (Some(entry), false),
            Some(entry) if offline => (Some(entry), true),
            None if offline => {
                return Err(CacheError::Fetch(format!(
                    "{key} is in neither the cache nor a data pack, and the proxy is offline; `rackbar cache mode online` lets \
                     it ask"
                )));
            }
            _ => {
                let stale = self.fetch(ask.clone()).await?.is_some();
                // Somebody else may have had it fetched meanwhile, and not compared.
                self.compare(&ask).await;
                let found = self.stored(&ask, &ask.headers).0;
                // That there is none is kept for a while too.
                if let Some(status) = found
                    .as_ref()
                    .map(|entry| entry.record.status)
                    .filter(|status| *status != 200)
                {
                    return Err(CacheError::Fetch(format!("{key}: the origin answers {status}")));
                }
                (found.filter(right), stale)
            }
        };
        let entry = entry.ok_or_else(|| {
            CacheError::Fetch(format!(
                "{key}: what the origin gave was not kept; it is too large for the cache, or not what its digest says"
            ))
        })?;
        if entry.record.size > most {
            return Err(CacheError::Fetch(format!("{key} is longer than {most} bytes")));
        }
        Ok((entry, stale))
    }
}

/// The place of a list by its digest, beside its name: Debian's alone have one, and promise SHA-256.
fn hashed(path: &str, sum: &Sum) -> Option<String> {
    let Sum::Sha256(_) = sum else { return None };
    let (folder, _) = path.rsplit_once('/')?;
    path.starts_with("dists/")
        .then(|| format!("{folder}/by-hash/SHA256/{sum}"))
}

//! The state of a Debian repository as its origin has it: fetched, its signature judged, its lists against their digests.

use std::collections::BTreeMap;
use std::sync::Arc;

use rackbar_model::suite_folder;
use rackbar_orchestrator::repositories::Kept;
use rackbar_proxy::Proxy;
use rackbar_proxy::index::read_packages;
use rackbar_upstream::{
    Keyring, MAX_SIGNATURE, MAX_TEXT, PackageList, Release, ReleaseError, Signed, Sum, cleartext, detached,
};

use super::fetch::{Found, MOST, Order, Packages, add, blocking, counted, seconds};

impl Order {
    /// Fetches and judges.
    ///
    /// # Errors
    /// What was wrong, with its URL and what to do.
    pub(super) async fn of_debian(self, proxy: &Arc<Proxy>) -> Result<Found, String> {
        let wanted = &self.wanted;
        let head = self.head(proxy).await?;
        let (at, stored) = (head.at.clone(), head.stored);
        let (keys, suite) = (wanted.keys().to_owned(), wanted.suite().to_owned());
        let judged = blocking(move || judge(head, &keys, &suite));
        let judged = judged.await.map_err(|error| format!("{at}: {error}"))?;
        let Judged {
            text,
            signature,
            signed,
            release,
        } = judged;
        self.not_older(&at, release.date)?;
        let lists = release.package_lists(&wanted.components(), &wanted.architectures());
        let lists = lists.map_err(|error| {
            format!(
                "{at}: {error}; correct components and architectures of repository.{} in the site file",
                self.name
            )
        })?;
        let mut kept = BTreeMap::new();
        let mut left = MOST;
        for list in lists {
            self.list(proxy, &release, list, &mut kept, &mut left).await?;
        }
        let lock = self.lock(release.date, None, &signed.signer, text.as_bytes(), &kept);
        let found = Found {
            kept: Kept {
                lock,
                release: text,
                text: signed.text,
                signature,
                lists: kept,
            },
            stored,
        };
        blocking(move || counted(found)).await
    }

    /// Fetches what is signed: `InRelease`, and where there is none, `Release` and the signature beside it.
    async fn head(&self, proxy: &Arc<Proxy>) -> Result<Head, String> {
        let (url, folder) = (&self.wanted.url, suite_folder(self.wanted.suite()));
        let at = |path: &str| format!("{}/{path}", url.trim_end_matches('/'));
        let path = format!("{folder}InRelease");
        let first = match proxy.document(url, &path, None, MAX_TEXT as u64).await {
            Ok(file) => {
                return Ok(Head {
                    at: at(&path),
                    text: file.bytes,
                    signature: None,
                    stored: file.stored,
                });
            }
            Err(error) => error,
        };
        let path = format!("{folder}Release");
        let beside = format!("{path}.gpg");
        let found = async {
            let file = proxy.document(url, &path, None, MAX_TEXT as u64).await?;
            let beside = proxy.document(url, &beside, None, MAX_SIGNATURE as u64).await?;
            Ok::<_, rackbar_proxy::CacheError>((file, beside))
        };
        let (file, beside) = found.await.map_err(|error| {
            format!(
                "{first}, and {error}; look whether repository.{} of the site file has the right URL and suite, and whether the \
                 repository is signed",
                self.name
            )
        })?;
        Ok(Head {
            at: at(&path),
            text: file.bytes,
            signature: Some(beside.bytes),
            stored: file.stored.or(beside.stored),
        })
    }

    /// Fetches a list in every form that the origin has of it.
    async fn list(
        &self,
        proxy: &Arc<Proxy>,
        release: &Release,
        list: PackageList,
        kept: &mut BTreeMap<String, Vec<u8>>,
        left: &mut u64,
    ) -> Result<(), String> {
        let (mut any, mut last) = (false, String::new());
        let forms = list.packed.into_iter().chain(list.plain);
        for (path, bytes, sum) in forms {
            // The plain form is most often not there, and not wanted where there is another.
            if any && path == list.path {
                break;
            }
            if bytes > *left {
                return Err(format!(
                    "repository {}: its lists of packages have more than {} MiB, and a lock keeps no more; name fewer components \
                     or architectures in the site file",
                    self.name,
                    MOST >> 20
                ));
            }
            let below = format!("{}{path}", suite_folder(self.wanted.suite()));
            let expected = Some((Sum::Sha256(sum), release.by_hash));
            match proxy.document(&self.wanted.url, &below, expected, bytes).await {
                Ok(document) if document.bytes.len() as u64 == bytes => {
                    *left = left.saturating_sub(bytes);
                    any = true;
                    kept.insert(path, document.bytes);
                }
                Ok(document) => {
                    last = format!(
                        "{below} has {} bytes, and its Release says {bytes}",
                        document.bytes.len()
                    );
                }
                Err(error) => last = error.to_string(),
            }
        }
        match any {
            true => Ok(()),
            false => Err(format!(
                "{last}; the repository is being changed right now, or is not whole: try again later"
            )),
        }
    }
}

/// What is signed, as it came.
struct Head {
    /// Its URL.
    at: String,
    text: Vec<u8>,
    /// The signature beside it, where it is not in it.
    signature: Option<Vec<u8>>,
    stored: Option<u64>,
}

/// The file as text, its signature, what of it is signed, and that read.
struct Judged {
    text: String,
    signature: Option<String>,
    signed: Signed,
    release: Release,
}

/// By a trusted key, of this suite, and still counting.
fn judge(head: Head, keys: &str, suite: &str) -> Result<Judged, String> {
    let keys = Keyring::read(keys.as_bytes()).map_err(|error| format!("the keys: {error}"))?;
    let signed = match &head.signature {
        None => cleartext(&head.text, &keys, seconds()),
        Some(signature) => detached(&head.text, signature, &keys, seconds()),
    };
    let signed =
        signed.map_err(|error| format!("{error}; if its publisher has a new key, write that into the site file"))?;
    let release = Release::read(&signed.text).map_err(|error| error.to_string())?;
    of_suite(&release, suite).map_err(|error| error.to_string())?;
    let armored = "the signature beside it is not in ASCII armor; `gpg --armor --detach-sign` makes one";
    let signature = head.signature.map(String::from_utf8).transpose();
    Ok(Judged {
        text: String::from_utf8(head.text).map_err(|_| "it is no UTF-8 text".to_owned())?,
        signature: signature.map_err(|_| armored.to_owned())?,
        signed,
        release,
    })
}

fn of_suite(release: &Release, suite: &str) -> Result<(), ReleaseError> {
    // A flat one need not have a name.
    if suite.ends_with('/') {
        return release.still_counts(seconds());
    }
    // A suite in a folder of its own is often called by that folder's name.
    let names = [suite, suite.split('/').next().unwrap_or(suite)];
    let judged = names.map(|name| release.judge(name, seconds()));
    let [first, second] = judged;
    match (first, second) {
        (Err(ReleaseError::Suite { .. }), Ok(())) | (Ok(()), _) => Ok(()),
        (Err(error), _) => Err(error),
    }
}

/// A package's path below the URL: flat repositories often write a dot before it.
pub(super) fn location(path: &str) -> &str {
    path.trim_start_matches("./")
}

/// The packages of all lists that are kept.
///
/// # Errors
/// When one cannot be read.
pub(super) fn packages(kept: &Kept, all: &mut Packages) -> Result<(), String> {
    for (path, bytes) in each_list(kept) {
        let read = read_packages(bytes.as_slice(), &mut |one| {
            add(
                all,
                (one.name, one.architecture),
                (one.version, one.digest.map(|digest| Sum::Sha256(digest.0))),
            );
        });
        read.map_err(|error| {
            format!(
                "the list {path} of repository {} cannot be read: {error}",
                kept.lock.name
            )
        })?;
    }
    Ok(())
}

/// One form of every list.
pub(super) fn each_list(kept: &Kept) -> impl Iterator<Item = (&String, &Vec<u8>)> {
    let bare = |path: &str| path.rsplit_once("Packages").map(|(folder, _)| folder.to_owned());
    let mut seen = std::collections::BTreeSet::new();
    kept.lists.iter().filter(move |(path, _)| seen.insert(bare(path)))
}

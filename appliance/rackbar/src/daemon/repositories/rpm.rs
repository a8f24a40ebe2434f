//! The state of a repository of RPM packages as its origin has it: `repomd.xml` with the signature beside it judged, its data
//! files against their digests, its list of packages read to the end.

use std::collections::BTreeMap;
use std::io::{self, BufReader, Read as _};
use std::sync::Arc;

use rackbar_orchestrator::repositories::Kept;
use rackbar_proxy::Proxy;
use rackbar_proxy::index::{UNPACKED_MOST, unpacked};
use rackbar_upstream::{
    Keyring, MAX_SIGNATURE, MAX_TEXT, RepoData, Repomd, RpmPackage, Signed, detached, read_primary,
};

use super::fetch::{Found, MOST, Order, Packages, add, blocking, counted, seconds};

/// The signed head, and its signature.
pub(super) const HEAD: &str = "repodata/repomd.xml";
pub(super) const SIGNATURE: &str = "repodata/repomd.xml.asc";
/// Bytes of a data file that the lock does not keep: it lies in the cache alone, and is in memory at no time. Fedora's largest has
/// a tenth of it.
const MOST_CACHED: u64 = 1 << 30;
/// Bytes of a data file of which nothing says how many it has.
const MOST_UNSAID: u64 = 16 << 20;

impl Order {
    /// Fetches and judges one of RPM packages.
    pub(super) async fn of_rpm(self, proxy: &Arc<Proxy>) -> Result<Found, String> {
        let at = format!("{}/{HEAD}", self.wanted.url.trim_end_matches('/'));
        let head = proxy.document(&self.wanted.url, HEAD, None, MAX_TEXT as u64).await;
        let head = head.map_err(|error| {
            format!(
                "{error}; look whether repository.{} of the site file has the URL of the folder that has repodata in it",
                self.name
            )
        })?;
        let beside = proxy
            .document(&self.wanted.url, SIGNATURE, None, MAX_SIGNATURE as u64)
            .await;
        let beside = beside.map_err(|error| {
            format!(
                "{error}; a repository is locked by its publisher's signature alone: `gpg --armor --detach-sign repomd.xml` \
                 makes one"
            )
        })?;
        let (stored, keys) = (head.stored.or(beside.stored), self.wanted.keys().to_owned());
        let judged = blocking(move || judge(head.bytes, beside.bytes, &keys)).await;
        let Judged {
            signed,
            signature,
            repomd,
        } = judged.map_err(|error| format!("{at}: {error}"))?;
        self.not_older(&at, repomd.date)?;
        let mut kept = BTreeMap::new();
        let mut left = MOST;
        for data in in_order(&repomd) {
            self.data(proxy, data, &mut kept, &mut left).await?;
        }
        let text = signed.text.as_bytes();
        let lock = self.lock(repomd.date, repomd.revision, &signed.signer, text, &kept);
        let found = Found {
            kept: Kept {
                lock,
                release: signed.text,
                text: String::new(),
                signature: Some(signature),
                lists: kept,
            },
            stored,
        };
        blocking(move || counted(found)).await
    }

    /// Fetches a data file, and keeps it as long as there is room in the lock. The list of packages must have room.
    async fn data(
        &self,
        proxy: &Arc<Proxy>,
        data: &RepoData,
        kept: &mut BTreeMap<String, Vec<u8>>,
        left: &mut u64,
    ) -> Result<(), String> {
        let (url, path, sum) = (&self.wanted.url, &data.path, data.sum);
        let torn = |error: String| {
            format!("{error}; the repository is being changed right now, or is not whole: try again later")
        };
        let room = data.bytes.unwrap_or(MOST_UNSAID) <= *left;
        if data.kind == "primary" && !room {
            return Err(format!(
                "repository {}: its list of packages, {path}, has more than {} MiB, and a lock keeps no more",
                self.name,
                MOST >> 20
            ));
        }
        let found = if room {
            let most = data.bytes.unwrap_or(MOST_UNSAID);
            let document = proxy.document(url, path, Some((sum, false)), most).await;
            let document = document.map_err(|error| torn(error.to_string()))?;
            let found = document.bytes.len() as u64;
            *left = left.saturating_sub(found);
            kept.insert(path.clone(), document.bytes);
            found
        } else {
            let most = data.bytes.unwrap_or(MOST_CACHED).min(MOST_CACHED);
            let fetched = proxy.fetched(url, path, sum, most).await;
            fetched.map_err(|error| torn(error.to_string()))?
        };
        match data.bytes.filter(|said| *said != found) {
            Some(said) => Err(torn(format!("{path} has {found} bytes, and repomd.xml says {said}"))),
            None => Ok(()),
        }
    }
}

/// Data files in the order in which they get room in the lock: the list of packages, then the smallest, so that most of them
/// are there whatever becomes of the origin.
fn in_order(repomd: &Repomd) -> Vec<&RepoData> {
    let mut all: Vec<&RepoData> = repomd.data.iter().collect();
    all.sort_by_key(|data| (data.kind != "primary", data.bytes.unwrap_or(MOST_UNSAID)));
    all
}

struct Judged {
    signed: Signed,
    signature: String,
    repomd: Repomd,
}

/// What is signed by a trusted key, and that read.
fn judge(head: Vec<u8>, signature: Vec<u8>, keys: &str) -> Result<Judged, String> {
    let keys = Keyring::read(keys.as_bytes()).map_err(|error| format!("the keys: {error}"))?;
    let signed = detached(&head, &signature, &keys, seconds()).map_err(|error| {
        format!(
            "{error}; if its publisher has a new key, write that into the site file, and if it is publishing right now, try again \
             later"
        )
    })?;
    let repomd = Repomd::read(&signed.text, seconds()).map_err(|error| error.to_string())?;
    let signature = String::from_utf8(signature).map_err(|_| {
        "the signature beside it is not in ASCII armor; `gpg --armor --detach-sign` makes one".to_owned()
    })?;
    Ok(Judged {
        signed,
        signature,
        repomd,
    })
}

/// Reads the list of packages that a lock keeps.
///
/// # Errors
/// When it is not there or cannot be read.
pub(super) fn each_package(kept: &Kept, found: &mut dyn FnMut(RpmPackage)) -> Result<(), String> {
    let repomd = Repomd::read(&kept.release, u64::MAX).map_err(|error| error.to_string())?;
    let primary = repomd.primary().map(|data| data.path.as_str()).unwrap_or_default();
    let bytes = kept
        .lists
        .get(primary)
        .ok_or_else(|| format!("the list {primary} is not kept"))?;
    let read = unpacked(bytes.as_slice(), &mut |input| {
        let mut input = BufReader::with_capacity(64 << 10, input.take(UNPACKED_MOST));
        let read = read_primary(&mut input, found);
        let long = input.get_ref().limit() == 0;
        read.map(drop).map_err(|error| match long {
            true => io::Error::other(format!("it has more than {} MiB unpacked", UNPACKED_MOST >> 20)),
            false => io::Error::other(error),
        })
    });
    read.map_err(|error| format!("the list {primary} cannot be read: {error}"))
}

/// The packages of a lock.
///
/// # Errors
/// When its list cannot be read.
pub(super) fn packages(kept: &Kept, all: &mut Packages) -> Result<(), String> {
    let read = each_package(kept, &mut |one| {
        add(all, (one.name, one.architecture), (one.version, Some(one.sum)));
    });
    read.map_err(|error| format!("repository {}: {error}", kept.lock.name))
}

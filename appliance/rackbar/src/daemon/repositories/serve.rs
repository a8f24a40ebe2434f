//! A lock as the proxy serves it: what is kept, what its lists promise, and by which other names clients ask.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use rackbar_model::Digest;
use rackbar_orchestrator::repositories::Kept;
use rackbar_proxy::Locked;
use rackbar_proxy::index::read_packages;
use rackbar_upstream::Release;

use super::fetch::each_list;

/// What the proxy is given. The text was judged when it was locked, and its digest when it was read from the store.
///
/// # Errors
/// When a list cannot be read.
pub(super) fn served(kept: &Kept) -> Result<Locked, String> {
    let lock = &kept.lock;
    let release = Release::read(&kept.text).map_err(|error| error.to_string())?;
    let suite = format!("dists/{}", lock.suite);
    let mut documents: BTreeMap<String, Arc<[u8]>> = BTreeMap::new();
    documents.insert(format!("{suite}/InRelease"), kept.release.as_bytes().into());
    documents.extend(
        kept.lists
            .iter()
            .map(|(path, bytes)| (format!("{suite}/{path}"), bytes.as_slice().into())),
    );
    let (mut promises, mut aliases) = (HashMap::new(), HashMap::new());
    let hashed = |path: &str, algorithm: &str, digest: &str| {
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        format!("{suite}/{folder}/by-hash/{algorithm}/{digest}")
    };
    for (path, _, sum) in release.files() {
        let (at, digest) = (format!("{suite}/{path}"), Digest(sum));
        aliases.insert(hashed(path, "SHA256", &digest.to_string()), at.clone());
        promises.insert(at, digest);
    }
    for (path, digest) in release.long_digests() {
        aliases.insert(hashed(path, "SHA512", digest), format!("{suite}/{path}"));
    }
    for (path, bytes) in each_list(kept) {
        let read = read_packages(bytes.as_slice(), &mut |package| {
            promises.extend(package.digest.map(|digest| (package.path, digest)));
        });
        read.map_err(|error| format!("the list {path} cannot be read: {error}"))?;
    }
    Ok(Locked {
        name: lock.name.clone(),
        url: lock.url.clone(),
        by_hash: release.by_hash,
        documents,
        promises,
        aliases,
    })
}

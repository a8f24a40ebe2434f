//! A lock as the proxy serves it: what is kept, what its lists promise, and by which other names clients ask.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use rackbar_model::{Digest, RepositoryKind, suite_folder};
use rackbar_orchestrator::repositories::Kept;
use rackbar_proxy::Locked;
use rackbar_proxy::index::read_packages;
use rackbar_upstream::{Release, Repomd};

use super::deb::{each_list, location};
use super::rpm::{HEAD, SIGNATURE, each_package};

/// What the proxy is given. The text was judged when it was locked, and its digest when it was read from the store.
///
/// # Errors
/// When a list cannot be read.
pub(super) fn served(kept: &Kept) -> Result<Locked, String> {
    match kept.lock.kind {
        RepositoryKind::Deb => of_debian(kept),
        RepositoryKind::Rpm => of_rpm(kept),
        RepositoryKind::Git => of_git(kept),
    }
}

/// What dumb clients of Git ask for (gitprotocol-http(5)), all of it kept.
fn of_git(kept: &Kept) -> Result<Locked, String> {
    let lock = &kept.lock;
    if let Some(index) = lock.indexes.iter().find(|index| !kept.lists.contains_key(&index.path)) {
        return Err(format!("{} is not kept", index.path));
    }
    let names = kept.release.trim_end_matches('\n');
    let (refs, head) = match names.rfind('\n') {
        Some(end) => names.split_at(end.saturating_add(1)),
        None => ("", names),
    };
    let packs = kept.lists.keys().filter_map(|path| path.strip_prefix("objects/pack/"));
    let packs: Vec<&str> = packs.filter(|name| name.ends_with(".pack")).collect();
    let mut documents: BTreeMap<String, Arc<[u8]>> = BTreeMap::new();
    let mut add = |path: &str, text: String| documents.insert(path.to_owned(), text.into_bytes().into());
    add("info/refs", refs.to_owned());
    add("HEAD", format!("{head}\n"));
    add(
        "objects/info/packs",
        format!("P {}\n\n", packs.first().ok_or("its pack is not kept")?),
    );
    documents.extend(
        kept.lists
            .iter()
            .map(|(path, bytes)| (path.clone(), bytes.as_slice().into())),
    );
    Ok(Locked {
        name: lock.name.clone(),
        url: lock.url.clone(),
        documents,
        // As git asks: whether the server is a dumb one, it sees from the answer.
        aliases: HashMap::from([("info/refs?service=git-upload-pack".to_owned(), "info/refs".to_owned())]),
        ..Locked::default()
    })
}

fn of_rpm(kept: &Kept) -> Result<Locked, String> {
    let lock = &kept.lock;
    let repomd = Repomd::read(&kept.release, u64::MAX).map_err(|error| error.to_string())?;
    let mut documents: BTreeMap<String, Arc<[u8]>> = BTreeMap::new();
    documents.insert(HEAD.to_owned(), kept.release.as_bytes().into());
    let signature = kept.signature.as_deref().ok_or("its signature is not kept")?;
    documents.insert(SIGNATURE.to_owned(), signature.as_bytes().into());
    let lists = kept
        .lists
        .iter()
        .map(|(path, bytes)| (path.clone(), bytes.as_slice().into()));
    documents.extend(lists);
    let mut promises: HashMap<String, Digest> = HashMap::new();
    promises.extend(repomd.data.into_iter().map(|data| (data.path, Digest(data.sha256))));
    let mut torn = None;
    each_package(kept, &mut |package| {
        let digest = Digest(package.sha256);
        if promises.get(&package.path).is_some_and(|known| *known != digest) {
            torn.get_or_insert_with(|| format!("{} is listed with two different digests", package.path));
        }
        promises.insert(package.path, digest);
    })?;
    match torn {
        Some(torn) => Err(torn),
        None => Ok(Locked {
            name: lock.name.clone(),
            url: lock.url.clone(),
            by_hash: false,
            documents,
            promises,
            aliases: HashMap::new(),
        }),
    }
}

fn of_debian(kept: &Kept) -> Result<Locked, String> {
    let lock = &kept.lock;
    let release = Release::read(&kept.text).map_err(|error| error.to_string())?;
    let suite = suite_folder(&lock.suite);
    let mut documents: BTreeMap<String, Arc<[u8]>> = BTreeMap::new();
    let head = match &kept.signature {
        None => "InRelease",
        Some(signature) => {
            documents.insert(format!("{suite}Release.gpg"), signature.as_bytes().into());
            "Release"
        }
    };
    documents.insert(format!("{suite}{head}"), kept.release.as_bytes().into());
    documents.extend(
        kept.lists
            .iter()
            .map(|(path, bytes)| (format!("{suite}{path}"), bytes.as_slice().into())),
    );
    let (mut promises, mut aliases) = (HashMap::new(), HashMap::new());
    let hashed = |path: &str, algorithm: &str, digest: &str| {
        let folder = path.rfind('/').and_then(|end| path.get(..=end)).unwrap_or_default();
        format!("{suite}{folder}by-hash/{algorithm}/{digest}")
    };
    for (path, _, sum) in release.files() {
        let (at, digest) = (format!("{suite}{path}"), Digest(sum));
        aliases.insert(hashed(path, "SHA256", &digest.to_string()), at.clone());
        promises.insert(at, digest);
    }
    for (path, digest) in release.long_digests() {
        aliases.insert(hashed(path, "SHA512", digest), format!("{suite}{path}"));
    }
    for (path, bytes) in each_list(kept) {
        let read = read_packages(bytes.as_slice(), &mut |package| {
            promises.extend(
                package
                    .digest
                    .map(|digest| (location(&package.path).to_owned(), digest)),
            );
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

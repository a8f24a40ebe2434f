//! A lock as the proxy serves it: what is kept, what its lists promise, and by which other names clients ask.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use rackbar_model::{RepositoryKind, suite_folder};
use rackbar_orchestrator::repositories::Kept;
use rackbar_proxy::Locked;
use rackbar_proxy::index::read_packages;
use rackbar_upstream::{Release, Repomd, Sum};

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
    let mut promises: HashMap<String, Sum> = HashMap::new();
    promises.extend(repomd.data.into_iter().map(|data| (data.path, data.sum)));
    let mut torn = None;
    each_package(kept, &mut |package| {
        // Of two kinds too: that both are of one file is what nobody here could know.
        if promises.get(&package.path).is_some_and(|known| *known != package.sum) {
            torn.get_or_insert_with(|| format!("{} is listed with two different digests", package.path));
        }
        promises.insert(package.path, package.sum);
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
        let (at, sum) = (format!("{suite}{path}"), Sum::Sha256(sum));
        aliases.insert(hashed(path, "SHA256", &sum.to_string()), at.clone());
        promises.insert(at, sum);
    }
    for (path, digest) in release.long_digests() {
        aliases.insert(hashed(path, "SHA512", digest), format!("{suite}{path}"));
    }
    for (path, bytes) in each_list(kept) {
        let read = read_packages(bytes.as_slice(), &mut |package| {
            let sum = package.digest.map(|digest| Sum::Sha256(digest.0));
            promises.extend(sum.map(|sum| (location(&package.path).to_owned(), sum)));
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

#[cfg(test)]
mod tests {
    use super::super::hold::Files;
    use super::*;
    use proptest::prelude::*;
    use rackbar_model::{Digest, RepositoryLock, Timestamp};

    fn sum(byte: u8, long: bool) -> Sum {
        match long {
            true => Sum::Sha512([byte; 64]),
            false => Sum::Sha256([byte; 32]),
        }
    }

    fn checksum(sum: Sum) -> String {
        let kind = sum.kind().to_lowercase().replace('-', "");
        format!("<checksum type='{kind}'>{sum}</checksum>")
    }

    /// A lock whose signed list names a list of packages and a file that the lock has no room for, by these digests.
    fn rpm(data: &[(&str, Sum)], packages: &[(&str, Sum)]) -> Kept {
        let data = data.iter().map(|(path, sum)| {
            let kind = if *path == "repodata/p.xml" { "primary" } else { "other" };
            format!("<data type='{kind}'>{}<location href='{path}'/></data>", checksum(*sum))
        });
        let release = format!(
            "<repomd><revision>1700000000</revision>{}</repomd>",
            data.collect::<String>()
        );
        let packages = packages.iter().map(|(path, sum)| {
            format!(
                "<package><name>a</name><arch>noarch</arch><version ver='1' rel='1'/>{}<location href='{path}'/></package>",
                checksum(*sum)
            )
        });
        let primary = format!("<metadata>{}</metadata>", packages.collect::<String>());
        Kept {
            lock: RepositoryLock {
                name: "ours".into(),
                kind: RepositoryKind::Rpm,
                url: "http://a.example/el9".into(),
                suite: String::new(),
                revision: None,
                reference: None,
                components: Vec::new(),
                architectures: Vec::new(),
                keys: Digest([0; 32]),
                date: 0,
                release: Digest([0; 32]),
                signer: String::new(),
                indexes: Vec::new(),
                packages: 0,
                locked: Timestamp(0),
                by: String::new(),
            },
            release,
            text: String::new(),
            signature: Some("signed".into()),
            lists: [("repodata/p.xml".to_owned(), primary.into_bytes())].into(),
        }
    }

    proptest! {
        #[test]
        fn what_a_lock_of_rpm_packages_promises_is_what_its_lists_say_by_either_digest(
            kinds in any::<[bool; 4]>(), twice in any::<bool>(),
        ) {
            let [primary, large, one, two] = [0, 1, 2, 3].map(|at| sum(u8::try_from(at).unwrap(), kinds[at]));
            let data = [("repodata/p.xml", primary), ("repodata/l.bin", large)];
            let packages = [("Packages/1.rpm", one), (if twice { "Packages/1.rpm" } else { "Packages/2.rpm" }, two)];
            let kept = rpm(&data, &packages);
            let served = served(&kept);
            if twice {
                let error = served.unwrap_err();
                prop_assert!(error.contains("Packages/1.rpm is listed with two different digests"), "{}", error);
                return Ok(());
            }
            let promises = served.unwrap().promises;
            let all = data.iter().chain(&packages).map(|(path, sum)| ((*path).to_owned(), *sum));
            prop_assert_eq!(promises, all.collect::<HashMap<_, _>>());
            let files = Files::of(&kept).unwrap();
            let kept = |files: &[rackbar_proxy::Promised]| {
                files.iter().map(|file| (file.path.clone(), file.sum)).collect::<Vec<_>>()
            };
            prop_assert_eq!(kept(&files.always), [(data[1].0.to_owned(), large)]);
            prop_assert_eq!(kept(&files.packages), packages.map(|(path, sum)| (path.to_owned(), sum)));
        }
    }
}

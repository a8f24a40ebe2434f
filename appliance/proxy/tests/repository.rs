//! A locked repository: what its lock names is served, by whatever name clients use for it, and nothing else is.
#![allow(clippy::unwrap_used, reason = "these are tests")]

mod common;
#[path = "common/sums.rs"]
mod sums;

use std::sync::atomic::Ordering;

use common::apt::hex;
use common::*;
use rackbar_model::Digest;
use rackbar_proxy::{Locked, Mode, Pick, Promised, Settings};
use rackbar_upstream::Sum;
use sums::{long, short};

const LIST: &str = "dists/stable/main/binary-amd64/Packages.gz";
const DEB: &str = "pool/a_1_all.deb";

fn digest(bytes: &[u8]) -> Digest {
    Digest(rackbar_trust::sha256(bytes))
}

/// A promise of a content.
type Kind = fn(&[u8]) -> Sum;

/// By each kind of digest, as locks of RPM packages have both.
const KINDS: [Kind; 2] = [short, long];

/// A lock that keeps `InRelease` alone, and promises a list, and a package by a digest of this kind.
fn locked(origin: &Origin, list: &[u8], deb: &[u8], kind: Kind) -> Locked {
    let alias = format!("dists/stable/main/binary-amd64/by-hash/SHA512/{}", "ab".repeat(64));
    Locked {
        name: "ours".into(),
        url: origin.url("/own/"),
        by_hash: true,
        documents: [("dists/stable/InRelease".to_owned(), b"signed".as_slice().into())].into(),
        promises: [(LIST.to_owned(), short(list)), (DEB.to_owned(), kind(deb))].into(),
        aliases: [(alias, LIST.to_owned())].into(),
    }
}

/// Without the proxy in between: as apt asks for what is marked DIRECT.
fn direct(under: &Under, at: &str) -> (u16, Vec<u8>) {
    let target = format!("/repository/ours/{at}");
    let all = under.raw(&format!(
        "GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    ));
    let text = String::from_utf8_lossy(&all).into_owned();
    let status = text.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
    (status, under.get(&target))
}

#[test]
fn a_lock_is_served_as_it_was_made_and_nothing_beside_it() {
    let (origin, folder) = (Origin::start(), tempfile::tempdir().unwrap());
    let (list, deb) = (bytes(5_000, 3), bytes(200_000, 5));
    let under = under(folder.path(), settings(&[&origin]));
    let proxy = under.handle.proxy();
    assert_eq!(direct(&under, DEB).0, 404, "nothing is locked yet");
    proxy.set_repositories([locked(&origin, &list, &deb, short)]);
    // The origin has moved on, and still has the old list under its digest.
    origin.put("/own/dists/stable/InRelease", doc(b"newer".to_vec()));
    origin.put(&format!("/own/{LIST}"), doc(b"newer".to_vec()));
    let hashed = format!("/own/dists/stable/main/binary-amd64/by-hash/SHA256/{}", hex(&list));
    origin.put(&hashed, doc(list.clone()));
    origin.put(&format!("/own/{DEB}"), doc(deb.clone()));
    origin.put("/own/pool/b_1_all.deb", doc(deb.clone()));

    assert_eq!(direct(&under, "dists/stable/InRelease"), (200, b"signed".to_vec()));
    assert!(direct(&under, LIST) == (200, list.clone()));
    let long = format!("dists/stable/main/binary-amd64/by-hash/SHA512/{}", "ab".repeat(64));
    assert!(direct(&under, &long) == (200, list));
    assert!(direct(&under, DEB) == (200, deb.clone()));
    assert!(direct(&under, "pool/../pool/a%5f1_all.deb") == (200, deb));
    for other in [
        "pool/b_1_all.deb",
        "dists/stable/Release",
        "",
        "../../etc/passwd",
        "dists/stable/InRelease?x",
    ] {
        assert_eq!(direct(&under, other).0, 404, "{other}");
    }
    assert_eq!(origin.requests("/own/pool/b_1_all.deb"), 0);
    assert_eq!(origin.requests("/own/dists/stable/InRelease"), 0);
    // As a system asks that has us as its proxy for everything; the rest of us is reached by nobody this way.
    let (status, head, body) = under.curl(&[], &format!("http://{}/repository/ours/{DEB}", under.address));
    assert_eq!((status, body), (200, bytes(200_000, 5)), "{head}");
    let (status, head, _) = under.curl(&[], &format!("http://{}/x", under.address));
    assert_eq!(status, 403, "{head}");
    let posted =
        under.raw("POST /repository/ours/x HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
    assert!(posted.starts_with(b"HTTP/1.1 405"));
    let head =
        under.raw("HEAD /repository/ours/dists/stable/InRelease HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let head = String::from_utf8(head).unwrap();
    assert!(
        head.contains("content-length: 6") && head.ends_with("\r\n\r\n"),
        "{head}"
    );
    proxy.set_repositories([]);
    assert_eq!(direct(&under, "dists/stable/InRelease").0, 404);
}

#[test]
fn another_content_than_was_locked_is_given_to_nobody_not_even_offline() {
    KINDS.into_iter().for_each(given_to_nobody);
}

fn given_to_nobody(kind: Kind) {
    let (origin, folder) = (Origin::start(), tempfile::tempdir().unwrap());
    let (deb, wrong) = (bytes(200_000, 5), bytes(200_000, 7));
    let under = under(folder.path(), settings(&[&origin]));
    let proxy = under.handle.proxy();
    proxy.set_repositories([locked(&origin, b"", &deb, kind)]);
    origin.put(&format!("/own/{DEB}"), doc(wrong.clone()));
    let body = under.get(&format!("/repository/ours/{DEB}"));
    assert!(body.len() < wrong.len(), "never the whole of it");
    let words = format!(
        "has {} {} where {} was promised",
        kind(b"").kind(),
        kind(&wrong),
        kind(&deb)
    );
    wait("it is fetched once more, and refused again", || {
        under.told.lock().unwrap().join("\n").matches(&words).count() == 2
    });
    assert_eq!(origin.requests(&format!("/own/{DEB}")), 2);
    // Others may have it: the repository's own URL is no locked one, and what they got is stored under it.
    let url = origin.url(&format!("/own/{DEB}"));
    assert!(under.get(&url) == wrong);
    wait("it is stored", || under.stored(&url));
    proxy.set_mode(Mode::Offline);
    assert_eq!(direct(&under, DEB).0, 504);
    proxy.set_mode(Mode::Online);
    // Nor is its origin asked whether that still holds.
    assert!(direct(&under, DEB).1.len() < wrong.len());
    origin.put(&format!("/own/{DEB}"), doc(deb.clone()));
    // Whoever comes while the second try ends gets what became of that.
    wait("the right one comes", || direct(&under, DEB) == (200, deb.clone()));
    wait("the right one is stored", || {
        let all = proxy.list();
        all.iter().any(|item| item.key == url && item.digest == digest(&deb))
    });
    proxy.set_mode(Mode::Offline);
    origin.down.store(true, Ordering::SeqCst);
    assert!(direct(&under, DEB) == (200, deb));
}

#[test]
fn another_content_than_was_promised_is_refused_also_where_nothing_can_be_stored() {
    KINDS.into_iter().for_each(refused_unstored);
}

fn refused_unstored(kind: Kind) {
    let (origin, folder) = (Origin::start(), tempfile::tempdir().unwrap());
    let (deb, list) = (bytes(200_000, 5), bytes(5_000, 3));
    let (wrong, short) = (bytes(200_000, 7), bytes(5_000, 9));
    // Neither fits into the cache.
    let full = Settings {
        budget: 1_000,
        ..settings(&[&origin])
    };
    let under = under(folder.path(), full);
    under
        .handle
        .proxy()
        .set_repositories([locked(&origin, &list, &deb, kind)]);
    let hashed = format!("/own/dists/stable/main/binary-amd64/by-hash/SHA256/{}", hex(&list));
    let mirrored = format!("/debian/by-hash/SHA256/{}", hex(&deb));
    let put = |deb: &[u8], list: &[u8], chunked| {
        for (path, body) in [
            (format!("/own/{DEB}"), deb),
            (hashed.clone(), list),
            (mirrored.clone(), deb),
        ] {
            let body = doc(body.to_vec());
            origin.put(&path, Doc { chunked, ..body });
        }
    };
    let ways: [&[&str]; 3] = [&[], &["-X", "GET", "-d", "body"], &["-r", "0-99"]];
    let place = |path: &str| format!("http://{}/repository/ours/{path}", under.address);
    let (own, list_at, mirror) = (place(DEB), place(LIST), origin.url(&mirrored));
    for way in ways {
        let ask = |url: &str| {
            let (status, _, body) = match url.contains("/repository/") {
                true => under.curl(&[&["--noproxy", "*"], way].concat(), url),
                false => under.curl(way, url),
            };
            (status, body)
        };
        for chunked in [false, true] {
            put(&wrong, &short, chunked);
            for (url, size) in [(&own, deb.len()), (&mirror, deb.len())] {
                let (status, body) = ask(url);
                assert!(status == 0 && body.len() < size, "{way:?} {url}: {status}");
            }
            let (status, text) = ask(&list_at);
            let text = String::from_utf8_lossy(&text).into_owned();
            assert!(status == 502 && text.contains("promised"), "{way:?}: {status} {text}");
            put(&deb, &list, chunked);
            for (url, right) in [(&own, &deb), (&mirror, &deb), (&list_at, &list)] {
                let (status, body) = ask(url);
                assert!(status == 200 && body == *right, "{way:?} {url}: {status}");
            }
        }
    }
    let told = under.told.lock().unwrap();
    let words = format!(
        "has {} {} where {} was promised: it is refused",
        kind(b"").kind(),
        kind(&wrong),
        kind(&deb)
    );
    assert!(told.iter().any(|text| text.ends_with(&words)), "{told:?}");
}

fn promised(content: &[u8], kind: Kind) -> Promised {
    Promised {
        path: DEB.into(),
        sum: kind(content),
        bytes: Some(content.len() as u64),
    }
}

#[test]
fn what_a_lock_keeps_outlives_its_origin_the_budget_and_a_restart() {
    KINDS.into_iter().for_each(outlives);
}

fn outlives(kind: Kind) {
    let (origin, folder) = (Origin::start(), tempfile::tempdir().unwrap());
    let (deb, list) = (bytes(200_000, 5), bytes(5_000, 3));
    let small = || Settings {
        budget: 500_000,
        ..settings(&[&origin])
    };
    let threads = tokio::runtime::Runtime::new().unwrap();
    let url = origin.url(&format!("/own/{DEB}"));
    {
        let under = under(folder.path(), small());
        let proxy = under.handle.proxy();
        proxy.set_repositories([locked(&origin, &list, &deb, kind)]);
        origin.put(&format!("/own/{DEB}"), doc(deb.clone()));
        let need = proxy.need("ours", &[promised(&deb, kind), promised(&deb, kind)]);
        assert_eq!(
            (need.missing.len(), need.bytes, need.room),
            (2, 200_000, 500_000),
            "one content"
        );
        proxy.pin_held("ours").unwrap();
        let folder = origin.url("/own/");
        let kept = threads.block_on(proxy.hold("ours", &folder, &promised(&deb, kind)));
        assert_eq!(kept.unwrap(), 200_000);
        let need = proxy.need("ours", &[promised(&deb, kind)]);
        assert_eq!((need.missing.len(), need.bytes, need.room), (0, 0, 300_000));
        // Another content under the same URL, fetched by others, and more than the rest of the budget.
        let other = bytes(200_000, 7);
        origin.put(&format!("/own/{DEB}"), doc(other.clone()));
        for (number, path) in ["/own/one", "/own/two", "/own/three"].into_iter().enumerate() {
            origin.put(path, doc(bytes(140_000, 21 + 2 * number as u64)));
            under.get(&origin.url(path));
            wait("it is stored", || under.stored(&origin.url(path)));
        }
        assert!(!under.stored(&origin.url("/own/one")), "it had to go");
        threads.block_on(proxy.refresh(&url)).unwrap();
        assert!(
            under.get(&url) == other,
            "who asks for the URL itself gets what is there"
        );
        assert!(direct(&under, DEB) == (200, deb.clone()));
    }
    without_its_origin(&origin, &list, &deb, &under(folder.path(), small()), kind);
}

/// After the restart of a proxy that keeps it.
fn without_its_origin(origin: &Origin, list: &[u8], deb: &[u8], under: &Under, kind: Kind) {
    origin.down.store(true, Ordering::SeqCst);
    let proxy = under.handle.proxy();
    proxy.set_repositories([locked(origin, list, deb, kind)]);
    assert!(direct(under, DEB) == (200, deb.to_vec()));
    // A pack gets it under its URL, with the newer one that others asked for in its place where there is one.
    let picked = proxy.pick(&Pick {
        pinned: true,
        ..Pick::default()
    });
    let picked: Vec<_> = picked
        .iter()
        .map(|one| (one.record.key.clone(), one.object.digest))
        .collect();
    assert_eq!(picked, [(origin.url(&format!("/own/{DEB}")), digest(deb))]);
    let wanted = [(DEB.to_owned(), kind(deb))].into();
    proxy.let_go("ours", &wanted).unwrap();
    assert!(proxy.need("ours", &[promised(deb, kind)]).missing.is_empty());
    proxy.let_go("ours", &Default::default()).unwrap();
    assert_eq!(proxy.need("ours", &[promised(deb, kind)]).missing.len(), 1);
    assert_eq!((proxy.pins(), direct(under, DEB).0), (Vec::<String>::new(), 502));
}

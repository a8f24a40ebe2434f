//! What the store takes of its disk and of memory, and what it does when its disk gives errors.
#![allow(clippy::unwrap_used, reason = "these are tests")]

mod common;

use std::path::Path;

use common::*;
use rackbar_proxy::Settings;

/// Files below `folder` that this program has open although they are gone.
fn gone_but_open(folder: &Path) -> Vec<String> {
    let open = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    open.filter_map(|one| std::fs::read_link(one.path()).ok())
        .map(|at| at.display().to_string())
        .filter(|at| at.starts_with(&folder.display().to_string()) && at.ends_with("(deleted)"))
        .collect()
}

#[test]
fn what_is_evicted_or_replaced_gives_its_disk_back() {
    let (origin, folder) = (Origin::start(), tempfile::tempdir().unwrap());
    let body = |number: u64| bytes(1_000_000, 301 + 2 * number);
    (0..6).for_each(|number| origin.put(&format!("/debian/{number}"), doc(body(number))));
    let settings = Settings {
        budget: 2_500_000,
        ..settings(&[&origin])
    };
    let under = under(folder.path(), settings);
    for number in 0..6 {
        // The second time it comes from the store, which keeps its file open.
        for _ in 0..2 {
            assert!(under.get(&origin.url(&format!("/debian/{number}"))) == body(number));
            wait("it is stored", || under.stored(&format!("mirror:debian/{number}")));
        }
    }
    assert_eq!(under.handle.proxy().list().len(), 2);
    wait("no descriptor keeps what is gone", || {
        gone_but_open(folder.path()).is_empty()
    });
    // The same content comes again: the file that was open is another now.
    let again = origin.url("/debian/again");
    origin.put("/debian/again", doc(body(5)));
    assert!(under.get(&again) == body(5));
    wait("it is stored", || under.stored("mirror:debian/again"));
    wait("no descriptor keeps what is gone", || {
        gone_but_open(folder.path()).is_empty()
    });
    assert!(under.get(&again) == body(5));
}

#[test]
fn answers_without_content_do_not_grow_without_bound_and_pinned_ones_stay() {
    let (origin, folder) = (Origin::start(), tempfile::tempdir().unwrap());
    let bounded = || Settings {
        entries_memory: 100_000,
        ..settings(&[&origin])
    };
    let first = under(folder.path(), bounded());
    let proxy = first.handle.proxy();
    let url = |number: u64| origin.url(&format!("/debian/same?n={number}"));
    let count = 120;
    for number in 0..count {
        origin.put(&format!("/debian/same?n={number}"), doc(b"same".to_vec()));
        assert_eq!(first.get(&url(number)), b"same");
        let key = format!("mirror:debian/same?n={number}");
        wait("it is stored", || first.stored(&key));
        if number == 0 {
            assert_eq!(first.handle.block_on(proxy.pin(&key)).unwrap(), 1);
        }
    }
    let kept: Vec<String> = proxy.list().into_iter().map(|item| item.key).collect();
    assert!((20..80).contains(&kept.len()), "{}", kept.len());
    for key in [
        "mirror:debian/same?n=0".to_owned(),
        format!("mirror:debian/same?n={}", count - 1),
    ] {
        assert!(kept.contains(&key), "{key}");
    }
    assert!(!first.stored("mirror:debian/same?n=1"), "the oldest go");
    let told = first.told.lock().unwrap().clone();
    assert_eq!(
        told.iter()
            .filter(|text| text.contains("not used for longest go"))
            .count(),
        1
    );
    assert_eq!(proxy.usage().0, 4, "the content they share is there once");
    first.handle.stop();
    let files = count_files(&folder.path().join("entries"));
    assert_eq!(files, kept.len());
    // Less memory at the next start: it is kept to at once, and what is left is served.
    let second = under(
        folder.path(),
        Settings {
            entries_memory: 10_000,
            ..bounded()
        },
    );
    let left = second.handle.proxy().list();
    assert!(left.len() < 10 && left.iter().any(|item| item.pinned), "{}", left.len());
    let before = origin.seen.lock().unwrap().len();
    assert_eq!(second.get(&url(0)), b"same");
    assert_eq!(origin.seen.lock().unwrap().len(), before);
}

fn count_files(folder: &Path) -> usize {
    let below = |path: &Path| std::fs::read_dir(path).unwrap().flatten();
    below(folder).map(|one| below(&one.path()).count()).sum()
}

#[test]
fn what_shares_its_content_with_a_pinned_answer_frees_nothing_and_is_left() {
    let (origin, folder) = (Origin::start(), tempfile::tempdir().unwrap());
    let shared = bytes(1_000_000, 401);
    for path in ["/debian/a", "/debian/b"] {
        origin.put(path, doc(shared.clone()));
    }
    origin.put("/debian/large", doc(bytes(1_200_000, 403)));
    let small = Settings {
        budget: 2_000_000,
        ..settings(&[&origin])
    };
    let under = under(folder.path(), small);
    for name in ["a", "b"] {
        assert!(under.get(&origin.url(&format!("/debian/{name}"))) == shared);
        wait("it is stored", || under.stored(&format!("mirror:debian/{name}")));
    }
    let proxy = under.handle.proxy();
    assert_eq!(under.handle.block_on(proxy.pin("mirror:debian/a")).unwrap(), 1);
    assert_eq!(under.get(&origin.url("/debian/large")).len(), 1_200_000);
    assert!(under.stored("mirror:debian/b") && !under.stored("mirror:debian/large"));
}

/// What is in a folder, with how long it is.
fn content(folder: &Path) -> Vec<(String, u64)> {
    let mut out = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(at) = folders.pop() {
        for one in std::fs::read_dir(at).unwrap().flatten() {
            let meta = std::fs::symlink_metadata(one.path()).unwrap();
            if meta.is_dir() {
                folders.push(one.path());
            }
            out.push((one.path().display().to_string(), meta.len()));
        }
    }
    out.sort();
    out
}

/// `name`: what of the folder cannot be read.
fn passes_through_and_touches_nothing(folder: &Path, origin: &Origin, name: &str, body: &[u8]) {
    let before = content(folder);
    let shut = under(folder, settings(&[origin]));
    let trouble = shut.handle.proxy().trouble().unwrap();
    assert!(
        trouble.contains(name) && trouble.contains("passes through"),
        "{trouble}"
    );
    assert_eq!(*shut.told.lock().unwrap(), [trouble]);
    assert!(shut.get(&origin.url("/debian/a")) == body, "{name}: it passes through");
    assert!(shut.handle.proxy().list().is_empty());
    assert!(shut.handle.proxy().unpin("mirror:debian/a").is_err());
    shut.handle.stop();
    assert_eq!(content(folder), before, "{name}: nothing was touched");
}

#[test]
fn a_disk_that_gives_errors_at_the_start_costs_nothing_that_is_stored_or_pinned() {
    let (origin, folder) = (Origin::start(), tempfile::tempdir().unwrap());
    let body = bytes(50_000, 501);
    origin.put("/debian/a", doc(body.clone()));
    let url = origin.url("/debian/a");
    let first = under(folder.path(), settings(&[&origin]));
    assert!(first.get(&url) == body);
    wait("it is stored", || first.stored("mirror:debian/a"));
    assert_eq!(
        first
            .handle
            .block_on(first.handle.proxy().pin("mirror:debian/a"))
            .unwrap(),
        1
    );
    first.handle.stop();
    let pins = folder.path().join("pins");
    let kept = std::fs::read(&pins).unwrap();
    // Reading these fails for anybody: a link to itself, in place of a folder and of an entry, and a folder in place of pins.
    type Step<'a> = &'a dyn Fn();
    let folder_of = |name: &str| folder.path().join(name);
    let link = |path: std::path::PathBuf| std::os::unix::fs::symlink(&path, &path).unwrap();
    let remove = |path: std::path::PathBuf| std::fs::remove_file(path).unwrap();
    let inside = std::fs::read_dir(folder_of("entries"))
        .unwrap()
        .flatten()
        .next()
        .unwrap()
        .path();
    let cases: [(&str, Step<'_>, Step<'_>); 4] = [
        ("entries/zz", &|| link(folder_of("entries/zz")), &|| {
            remove(folder_of("entries/zz"))
        }),
        ("objects/zz", &|| link(folder_of("objects/zz")), &|| {
            remove(folder_of("objects/zz"))
        }),
        ("/link", &|| link(inside.join("link")), &|| remove(inside.join("link"))),
        (
            "pins",
            &|| {
                remove(pins.clone());
                std::fs::create_dir(&pins).unwrap();
            },
            &|| {
                std::fs::remove_dir(&pins).unwrap();
                std::fs::write(&pins, &kept).unwrap();
            },
        ),
    ];
    for (name, spoil, heal) in cases {
        spoil();
        passes_through_and_touches_nothing(folder.path(), &origin, name, &body);
        heal();
    }
    origin.down.store(true, std::sync::atomic::Ordering::SeqCst);
    let again = under(folder.path(), settings(&[&origin]));
    assert_eq!(again.handle.proxy().trouble(), None);
    assert_eq!(again.handle.proxy().pins(), ["mirror:debian/a"]);
    assert!(again.get(&url) == body);
}

#[test]
fn what_cannot_be_read_just_now_is_passed_by_and_kept() {
    let (origin, folder) = (Origin::start(), tempfile::tempdir().unwrap());
    let body = bytes(500_000, 71);
    origin.put("/debian/a", doc(body.clone()));
    let (url, key) = (origin.url("/debian/a"), "mirror:debian/a");
    let first = under(folder.path(), settings(&[&origin]));
    assert!(first.get(&url) == body);
    wait("it is stored", || first.stored(key));
    let proxy = first.handle.proxy().clone();
    first.handle.block_on(proxy.pin(key)).unwrap();
    let digest = proxy.list()[0].digest.to_string();
    // A folder that leads to itself: an error of the disk that says nothing of what is in it.
    let (at, aside) = (
        folder.path().join("objects").join(&digest[..2]),
        folder.path().join("aside"),
    );
    let spoil = || {
        std::fs::rename(&at, &aside).unwrap();
        std::os::unix::fs::symlink(&at, &at).unwrap();
    };
    let heal = || {
        std::fs::remove_file(&at).unwrap();
        std::fs::rename(&aside, &at).unwrap();
    };
    // It came just now, and nobody read it from the store so far.
    spoil();
    assert!(first.get(&url) == body, "the origin has it");
    heal();
    assert_eq!(origin.requests("/debian/a"), 2);
    assert!(first.get(&url) == body && proxy.list()[0].pinned);
    assert_eq!(origin.requests("/debian/a"), 2);
    drop(proxy);
    first.handle.stop();
    // Nor was it looked at since a start.
    let second = under(folder.path(), settings(&[&origin]));
    spoil();
    let proxy = second.handle.proxy().clone();
    assert!(second.get(&url) == body, "the origin has it");
    assert_eq!(origin.requests("/debian/a"), 3);
    let found = proxy.verify();
    assert_eq!((found.whole, found.damaged, found.unreadable), (0, 0, 1));
    proxy.set_mode(rackbar_proxy::Mode::Offline);
    let (status, _, text) = second.curl(&[], &url);
    let text = String::from_utf8(text).unwrap();
    assert!(
        status == 503 && text.contains("cannot open") && text.contains("nothing was removed"),
        "{status} {text}"
    );
    heal();
    assert!(second.get(&url) == body, "it is read again");
    assert_eq!(origin.requests("/debian/a"), 3);
    assert!(proxy.list()[0].pinned && proxy.verify().whole == 1);
}

#[test]
fn an_index_that_rotted_on_disk_promises_nothing_after_a_restart() {
    let (origin, folder) = (Origin::start(), tempfile::tempdir().unwrap());
    let deb = bytes(1000, 73);
    let hex = rackbar_model::Digest(rackbar_trust::sha256(&deb)).to_string();
    let index = format!("Filename: a.deb\nSHA256: {hex}\n");
    origin.put("/debian/flat/Packages", doc(index.clone().into_bytes()));
    origin.put("/debian/flat/a.deb", doc(deb.clone()));
    let first = under(folder.path(), settings(&[&origin]));
    assert_eq!(first.get(&origin.url("/debian/flat/Packages")), index.as_bytes());
    wait("it is stored", || first.stored("mirror:debian/flat/Packages"));
    let digest = first.handle.proxy().list()[0].digest.to_string();
    first.handle.stop();
    let other = if hex.starts_with('0') { "1" } else { "0" };
    let rotten = index.replace(&hex, &format!("{other}{}", &hex[1..]));
    std::fs::write(folder.path().join("objects").join(&digest[..2]).join(&digest), rotten).unwrap();
    let second = under(folder.path(), settings(&[&origin]));
    wait("it is found to be damaged", || {
        second
            .told
            .lock()
            .unwrap()
            .iter()
            .any(|text| text.contains("is damaged on disk"))
    });
    assert!(
        second.get(&origin.url("/debian/flat/a.deb")) == deb,
        "it was held to what no index says"
    );
    assert!(!second.stored("mirror:debian/flat/Packages"));
}

#[test]
fn what_an_origin_only_announces_costs_nothing_that_is_stored() {
    let (origin, folder) = (Origin::start(), tempfile::tempdir().unwrap());
    let body = |number: u64| bytes(10_000_000, 401 + 2 * number);
    (0..6).for_each(|number| origin.put(&format!("/debian/{number}"), doc(body(number))));
    let head = "HTTP/1.1 200 OK\r\nETag: \"x\"\r\nCache-Control: max-age=60\r\nContent-Length: 50000000\r\n\r\nbegun";
    let announced = Doc {
        raw: Some((head.to_owned(), true)),
        ..Doc::default()
    };
    origin.put("/debian/announced", announced);
    let settings = Settings {
        budget: 64_000_000,
        ..settings(&[&origin])
    };
    let under = under(folder.path(), settings);
    for number in 0..6 {
        assert!(under.get(&origin.url(&format!("/debian/{number}"))) == body(number));
        wait("it is stored", || under.stored(&format!("mirror:debian/{number}")));
    }
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(under.address).unwrap();
    write!(
        stream,
        "GET {} HTTP/1.1\r\nHost: x\r\n\r\n",
        origin.url("/debian/announced")
    )
    .unwrap();
    let mut got = Vec::new();
    while !got.ends_with(b"begun") {
        let mut some = [0; 1000];
        let count = stream.read(&mut some).unwrap();
        assert!(count > 0, "{}", String::from_utf8_lossy(&got));
        got.extend_from_slice(&some[..count]);
    }
    let kept = under.handle.proxy().list().len();
    assert!(kept >= 5, "{kept} of 6 are left for five bytes that came");
}

#[test]
fn what_came_and_could_not_be_kept_is_not_called_pinned() {
    let (origin, folder) = (Origin::start(), tempfile::tempdir().unwrap());
    let body = bytes(500_000, 75);
    origin.put("/debian/a", doc(body.clone()));
    let under = under(folder.path(), settings(&[&origin]));
    let proxy = under.handle.proxy();
    let digest = rackbar_model::Digest(rackbar_trust::sha256(&body)).to_string();
    let place = folder.path().join("objects").join(&digest[..2]);
    std::fs::write(&place, b"").unwrap();
    let pinned = under.handle.block_on(proxy.pin("mirror:debian/a"));
    assert!(pinned.is_err() && proxy.list().is_empty(), "{pinned:?}");
    std::fs::remove_file(&place).unwrap();
    assert_eq!(under.handle.block_on(proxy.pin("mirror:debian/a")).unwrap(), 1);
    assert!(under.stored("mirror:debian/a"));
}

//! What an answer says of itself: `Cache-Status` (RFC 9211), `Age`, `Accept-Ranges`; and what is told of it to others.
#![allow(clippy::unwrap_used, reason = "these are tests")]

mod common;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::Ordering;

use common::apt::hex;
use common::*;
use rackbar_proxy::{Locked, Mode, Settings};

fn with(body: &[u8], headers: &[(&str, &str)]) -> Doc {
    let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    Doc {
        body: body.to_vec(),
        headers: headers.iter().map(pair).collect(),
        ..Doc::default()
    }
}

/// A field of an answer, as it came.
fn field(head: &str, name: &str) -> String {
    let all: Vec<&str> = head
        .lines()
        .filter_map(|line| line.strip_prefix(&format!("{name}: ")))
        .collect();
    all.join(" | ")
}

/// What is said before the content: it may never come to its end.
fn head_of(under: &Under, url: &str) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(under.address).unwrap();
    write!(stream, "GET {url} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut one = [0];
        stream.read_exact(&mut one).unwrap();
        head.push(one[0]);
    }
    (stream, String::from_utf8(head).unwrap())
}

#[test]
fn each_answer_says_where_it_is_from_and_why() {
    let (origin, folder) = (Origin::start(), tempfile::tempdir().unwrap());
    let under = under(folder.path(), settings(&[&origin]));
    let said = |arguments: &[&str], path: &str| field(&under.curl(arguments, &origin.url(path)).1, "cache-status");
    origin.put(
        "/debian/a",
        with(b"a", &[("Cache-Control", "max-age=600"), ("Vary", "Accept-Language")]),
    );
    let english = ["-H", "Accept-Language: en"];
    assert_eq!(
        said(&english, "/debian/a"),
        "rackbar; fwd=uri-miss; fwd-status=200; stored"
    );
    wait("it is stored", || under.stored("mirror:debian/a"));
    let hit = said(&english, "/debian/a");
    let left = hit
        .strip_prefix("rackbar; hit; ttl=")
        .and_then(|left| left.parse::<i64>().ok());
    assert!(left.is_some_and(|left| (1..=600).contains(&left)), "{hit}");
    let german = ["-H", "Accept-Language: de"];
    assert_eq!(
        said(&german, "/debian/a"),
        "rackbar; fwd=vary-miss; fwd-status=200; stored"
    );
    origin.put(
        "/debian/b",
        with(b"b", &[("Cache-Control", "max-age=0"), ("ETag", "\"b\"")]),
    );
    assert_eq!(said(&[], "/debian/b"), "rackbar; fwd=uri-miss; fwd-status=200; stored");
    wait("it is stored", || under.stored("mirror:debian/b"));
    assert_eq!(said(&[], "/debian/b"), "rackbar; fwd=stale; fwd-status=304; stored");
    origin.put("/debian/c", with(b"c", &[("Cache-Control", "no-store")]));
    assert_eq!(
        said(&[], "/debian/c"),
        "rackbar; fwd=bypass; fwd-status=200; detail=no-store"
    );
    assert_eq!(
        said(&["-X", "POST"], "/debian/c"),
        "rackbar; fwd=method; fwd-status=200"
    );
    origin.down.store(true, Ordering::SeqCst);
    assert_eq!(said(&[], "/debian/b"), "rackbar; hit; detail=stale-if-error");
    under.handle.proxy().set_mode(Mode::Offline);
    assert_eq!(said(&[], "/debian/b"), "rackbar; hit; detail=offline");
}

#[test]
fn whoever_joins_a_fetch_is_told_so() {
    let (origin, folder) = (Origin::start(), tempfile::tempdir().unwrap());
    let head = "HTTP/1.1 200 OK\r\nETag: \"x\"\r\nCache-Control: max-age=60\r\nAge: 7\r\nCache-Status: far; hit\r\n";
    let begun = Doc {
        raw: Some((format!("{head}Content-Length: 1000\r\n\r\nbegun"), true)),
        ..Doc::default()
    };
    origin.put("/debian/begun", begun);
    let under = under(folder.path(), settings(&[&origin]));
    let url = origin.url("/debian/begun");
    let (_first, head) = head_of(&under, &url);
    assert_eq!(
        field(&head, "cache-status"),
        "far; hit, rackbar; fwd=uri-miss; fwd-status=200; stored"
    );
    let (_second, head) = head_of(&under, &url);
    assert_eq!(
        field(&head, "cache-status"),
        "far; hit, rackbar; fwd=uri-miss; fwd-status=200; stored; collapsed"
    );
    let age: u64 = field(&head, "age").parse().unwrap();
    assert!((7..300).contains(&age), "{head}");
    wait("who joins later gets what is older", || {
        let (_later, head) = head_of(&under, &url);
        field(&head, "age").parse::<u64>().unwrap() > 7
    });
    assert_eq!(origin.requests("/debian/begun"), 1);
}

#[test]
fn what_is_passed_on_keeps_its_age_and_says_of_parts_what_its_origin_does() {
    let (origin, folder) = (Origin::start(), tempfile::tempdir().unwrap());
    let under = under(folder.path(), settings(&[&origin]));
    let far = [
        ("Cache-Control", "private"),
        ("Age", "11"),
        ("Cache-Status", "far; hit"),
    ];
    origin.put("/debian/silent", with(b"a", &far));
    origin.put(
        "/debian/none",
        with(b"a", &[&far[..], &[("Accept-Ranges", "none")]].concat()),
    );
    for (path, ranges) in [("/debian/silent", ""), ("/debian/none", "none")] {
        let (_, head, _) = under.curl(&[], &origin.url(path));
        assert_eq!(field(&head, "age"), "11", "{head}");
        assert_eq!(field(&head, "accept-ranges"), ranges, "{head}");
        let said = field(&head, "cache-status");
        assert_eq!(said, "far; hit, rackbar; fwd=bypass; fwd-status=200; detail=private");
    }
    origin.put("/debian/kept", doc(b"kept".to_vec()));
    for _ in 0..2 {
        let (_, head, _) = under.curl(&[], &origin.url("/debian/kept"));
        assert_eq!(field(&head, "accept-ranges"), "bytes", "{head}");
        wait("it is stored", || under.stored("mirror:debian/kept"));
    }
    let (_, head, _) = under.curl(&[], &origin.url("/debian/missing"));
    assert_eq!(field(&head, "accept-ranges"), "", "{head}");
    let refused = "HTTP/1.1 403 Forbidden\r\nAge: 11\r\nCache-Status: far; hit\r\nContent-Length: 2\r\n\r\nno";
    origin.put("/debian/refused", raw(refused));
    let (_, head, _) = under.curl(&[], &origin.url("/debian/refused"));
    assert_eq!(field(&head, "age"), "11", "{head}");
    assert_eq!(
        field(&head, "cache-status"),
        "far; hit, rackbar; fwd=uri-miss; fwd-status=403"
    );
}

#[test]
fn a_content_that_proves_right_answers_whatever_its_origin_chooses_by() {
    let (origin, folder) = (Origin::start(), tempfile::tempdir().unwrap());
    let deb = bytes(5000, 81);
    let index = format!("Filename: a.deb\nSHA256: {}\n", hex(&deb));
    let chosen = [("Cache-Control", "max-age=600"), ("Vary", "User-Agent")];
    origin.put("/debian/flat/Packages", doc(index.into_bytes()));
    origin.put("/debian/flat/a.deb", with(&deb, &chosen));
    origin.put("/debian/flat/b.txt", with(b"b", &chosen));
    let under = under(folder.path(), settings(&[&origin]));
    let get = |agent: &str, path: &str| under.curl(&["-A", agent], &origin.url(path));
    for path in ["/debian/flat/Packages", "/debian/flat/a.deb", "/debian/flat/b.txt"] {
        assert_eq!(get("apt/2.6", path).0, 200);
        wait("it is stored", || {
            under.stored(&path.replacen("/debian/", "mirror:debian/", 1))
        });
    }
    // The index is read in the background.
    let mut version = 0;
    wait("the promise is known", || {
        version += 1;
        field(
            &get(&format!("apt/2.{version}x"), "/debian/flat/a.deb").1,
            "cache-status",
        )
        .contains("; hit")
    });
    under.handle.proxy().set_mode(Mode::Offline);
    let (status, _, got) = get("apt/3.0", "/debian/flat/a.deb");
    assert!(status == 200 && got == deb);
    let (status, _, text) = get("apt/3.0", "/debian/flat/b.txt");
    let text = String::from_utf8(text).unwrap();
    assert!(status == 504 && text.contains("Vary"), "{text}");
}

#[test]
fn a_head_offline_is_answered_as_a_get_would_be() {
    let (origin, folder) = (Origin::start(), tempfile::tempdir().unwrap());
    let under = under(folder.path(), settings(&[&origin]));
    let (old, new) = (bytes(100, 83), bytes(200, 85));
    origin.put("/own/a.deb", doc(old));
    assert_eq!(under.curl(&[], &origin.url("/own/a.deb")).0, 200);
    wait("it is stored", || under.stored(&origin.url("/own/a.deb")));
    let sum = rackbar_upstream::Sum::Sha256(rackbar_trust::sha256(&new));
    under.handle.proxy().set_repositories([Locked {
        name: "ours".into(),
        url: origin.url("/own/"),
        promises: [("a.deb".to_owned(), sum)].into(),
        ..Locked::default()
    }]);
    under.handle.proxy().set_mode(Mode::Offline);
    for method in ["GET", "HEAD"] {
        let answer = under.raw(&format!(
            "{method} /repository/ours/a.deb HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        ));
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.starts_with("HTTP/1.1 504"), "{method}: {answer}");
    }
    let head = under.curl(&["-I"], &origin.url("/own/a.deb"));
    assert!(head.0 == 200 && head.1.contains("content-length: 100"), "{}", head.1);
}

/// Nobody can store a content with this digest.
fn block(folder: &std::path::Path, content: &[u8]) {
    let name = &hex(content)[..2];
    std::fs::write(folder.join("objects").join(name), b"").unwrap();
}

#[test]
fn no_query_of_a_url_is_told() {
    let (origin, folder) = (Origin::start(), tempfile::tempdir().unwrap());
    let small = Settings {
        budget: 1 << 20,
        ..settings(&[&origin])
    };
    let under = under(folder.path(), small);
    let get = |arguments: &[&str], path: &str| under.curl(arguments, &origin.url(path)).0;
    let told = |what: &str| {
        let told = under.told.lock().unwrap();
        told.iter().filter(|text| text.contains(what)).count()
    };
    origin.put("/debian/large?sig=secret", doc(bytes(3 << 20, 87)));
    assert_eq!(get(&[], "/debian/large?sig=secret"), 200);
    assert_eq!(told("without being stored"), 1);
    let lost = bytes(1000, 89);
    block(folder.path(), &lost);
    origin.put("/debian/lost?sig=secret", doc(lost));
    assert_eq!(get(&[], "/debian/lost?sig=secret"), 200);
    wait("that it is lost is told", || told("served but not stored") == 1);
    origin.put("/debian/x/Packages.bz2?sig=secret", doc(b"BZh".to_vec()));
    assert_eq!(get(&[], "/debian/x/Packages.bz2?sig=secret"), 200);
    wait("that it is no index is told", || {
        told("cannot be read as an index") == 1
    });
    // What has another content than was promised: fetched for all, and for one client alone.
    let hash = "ab".repeat(32);
    let index = format!("Filename: a.deb?sig=secret\nSHA256: {hash}\n");
    origin.put("/debian/flat/Packages", doc(index.into_bytes()));
    let wrong = "/debian/flat/a.deb?sig=secret";
    origin.put(wrong, with(b"other", &[("Cache-Control", "no-store")]));
    assert_eq!(get(&[], "/debian/flat/Packages"), 200);
    wait("one that was not to be stored is refused", || get(&[], wrong) == 502);
    assert!(told("was promised: it is refused") > 0);
    let before = told("fetched once more");
    origin.put(wrong, doc(b"other".to_vec()));
    assert_eq!(get(&[], wrong), 502);
    assert_eq!((before, told("fetched once more")), (0, 1));
    let told = under.told.lock().unwrap();
    assert!(told.iter().all(|text| !text.contains("secret")), "{told:?}");
}

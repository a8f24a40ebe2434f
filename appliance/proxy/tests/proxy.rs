//! The proxy with curl and plain sockets before it, and an origin behind it that misbehaves on request.
#![allow(clippy::unwrap_used, reason = "these are tests")]

mod common;

use std::sync::atomic::Ordering;

use common::*;
use rackbar_proxy::{Mode, Settings};

#[test]
fn curl_gets_a_miss_then_a_hit_ranges_and_conditions() {
    let (origin, folder) = (Origin::start(), tempfile::tempdir().unwrap());
    let body = bytes(300_000, 1);
    origin.put("/debian/pool/a.deb", doc(body.clone()));
    let under = under(folder.path(), settings(&[&origin]));
    let url = origin.url("/debian/pool/a.deb");
    let (status, head, got) = under.curl(&[], &url);
    assert_eq!((status, got == body), (200, true), "{head}");
    assert!(head.contains("fwd=uri-miss") && head.contains("stored"), "{head}");
    wait("it is stored", || under.stored("mirror:debian/pool/a.deb"));
    let (status, head, got) = under.curl(&[], &url);
    assert_eq!((status, got == body), (200, true));
    assert!(
        head.contains("cache-status: rackbar; hit") && head.contains("age: "),
        "{head}"
    );
    // The mirror and the forward proxy share what they store.
    let (status, _, got) = under.curl(
        &["--noproxy", "*"],
        &format!("http://{}/mirror/debian/pool/a.deb", under.address),
    );
    assert_eq!((status, got == body), (200, true));
    let (status, head, got) = under.curl(&["-r", "100-199"], &url);
    assert_eq!((status, got.as_slice()), (206, &body[100..200]));
    assert!(head.contains("content-range: bytes 100-199/300000"), "{head}");
    let (status, head, _) = under.curl(&["-r", "300000-"], &url);
    assert_eq!(status, 416);
    assert!(head.contains("content-range: bytes */300000"), "{head}");
    let tag = &doc(body).headers[0].1;
    let (status, _, got) = under.curl(&["-H", &format!("If-None-Match: {tag}")], &url);
    assert_eq!((status, got.len()), (304, 0));
    let (status, head, _) = under.curl(&["-I"], &url);
    assert!(status == 200 && head.contains("content-length: 300000"), "{head}");
    // Of a HEAD no part can be asked for.
    let (status, head, _) = under.curl(&["-I", "-r", "100-199"], &url);
    assert!(status == 200 && head.contains("content-length: 300000"), "{head}");
    assert_eq!(origin.requests("/debian/pool/a.deb"), 1);
    under.handle.stop();
}

#[test]
fn every_answer_is_told_to_who_watches_with_client_target_and_status() {
    let (origin, folder) = (Origin::start(), tempfile::tempdir().unwrap());
    origin.put("/debian/a.deb", doc(bytes(5000, 1)));
    let under = under(folder.path(), settings(&[&origin]));
    let heard: std::sync::Arc<std::sync::Mutex<Vec<_>>> = std::sync::Arc::default();
    let sink = heard.clone();
    let watch = move |client: std::net::IpAddr, target: &str, status| {
        sink.lock()
            .unwrap()
            .push((client.to_string(), target.to_owned(), status));
    };
    under.handle.proxy().set_watch(std::sync::Arc::new(watch));
    for (path, status) in [("a.deb", 200), ("a.deb", 200), ("missing.udeb", 404)] {
        let at = format!("http://{}/mirror/debian/{path}", under.address);
        assert_eq!(under.curl(&["--noproxy", "*"], &at).0, status);
    }
    wait("all three are told", || heard.lock().unwrap().len() == 3);
    let told = |path: &str, status| ("127.0.0.1".to_owned(), format!("/mirror/debian/{path}"), status);
    let wanted = [told("a.deb", 200), told("a.deb", 200), told("missing.udeb", 404)];
    assert_eq!(*heard.lock().unwrap(), wanted);
}

#[test]
fn a_hundred_clients_on_a_cold_object_make_one_fetch_and_one_that_leaves_stops_nobody() {
    let (origin, folder) = (Origin::start(), tempfile::tempdir().unwrap());
    let body = bytes(60 << 20, 2);
    origin.put(
        "/debian/big",
        Doc {
            slow: Some(200 << 20),
            ..doc(body.clone())
        },
    );
    let under = under(folder.path(), settings(&[&origin]));
    let url = origin.url("/debian/big");
    let (under, url, body) = (&under, &url, &body);
    std::thread::scope(|scope| {
        // The first begins the fetch and leaves.
        let gone = scope.spawn(move || {
            use std::io::{Read as _, Write as _};
            let mut stream = std::net::TcpStream::connect(under.address).unwrap();
            write!(stream, "GET {url} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
            stream.read_exact(&mut [0; 1000]).unwrap();
        });
        gone.join().unwrap();
        let all: Vec<_> = (0..100).map(|_| scope.spawn(move || under.get(url) == *body)).collect();
        assert!(all.into_iter().all(|one| one.join().unwrap()));
    });
    assert_eq!(origin.requests("/debian/big"), 1);
    assert_eq!(origin.sent.load(Ordering::SeqCst), 60 << 20);
}

#[test]
fn clients_are_fed_while_it_arrives() {
    let (origin, folder) = (Origin::start(), tempfile::tempdir().unwrap());
    let body = bytes(4 << 20, 3);
    origin.put(
        "/debian/slow",
        Doc {
            slow: Some(2 << 20),
            ..doc(body)
        },
    );
    let under = under(folder.path(), settings(&[&origin]));
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(under.address).unwrap();
    write!(stream, "GET {} HTTP/1.1\r\nHost: x\r\n\r\n", origin.url("/debian/slow")).unwrap();
    stream.read_exact(&mut [0; 100_000]).unwrap();
    assert!(
        origin.sent.load(Ordering::SeqCst) < 4 << 20,
        "the client had to wait for the whole"
    );
}

#[test]
fn a_fetch_that_breaks_goes_on_where_it_broke() {
    let (origin, folder) = (Origin::start(), tempfile::tempdir().unwrap());
    let body = bytes(3 << 20, 4);
    origin.put(
        "/debian/breaks",
        Doc {
            breaks_at: Some(1 << 20),
            ..doc(body.clone())
        },
    );
    let under = under(folder.path(), settings(&[&origin]));
    let (status, _, got) = under.curl(&[], &origin.url("/debian/breaks"));
    assert_eq!((status, got == body), (200, true));
    let heads = origin.heads("/debian/breaks");
    assert_eq!(heads.len(), 2, "{heads:?}");
    let second = heads[1].to_ascii_lowercase();
    assert!(
        second.contains("range: bytes=") && second.contains("if-range: \""),
        "{second}"
    );
}

#[test]
fn a_fetch_that_cannot_go_on_is_never_called_whole() {
    let (origin, folder) = (Origin::start(), tempfile::tempdir().unwrap());
    let body = bytes(3 << 20, 5);
    for (path, chunked) in [("/debian/known", false), ("/debian/chunked", true)] {
        let headers = vec![("Cache-Control".into(), "max-age=60".into())];
        origin.put(
            path,
            Doc {
                headers,
                breaks_at: Some(1 << 20),
                chunked,
                ..doc(body.clone())
            },
        );
    }
    let under = under(folder.path(), settings(&[&origin]));
    for path in ["/debian/known", "/debian/chunked"] {
        let (status, _, got) = under.curl(&[], &origin.url(path));
        assert_eq!(status, 0, "{path}: curl took {} bytes as whole", got.len());
        // A client of HTTP/1.0 has no chunks to count: it must see a reset.
        let url = origin.url(path);
        let mut stream = std::net::TcpStream::connect(under.address).unwrap();
        use std::io::{Read as _, Write as _};
        write!(stream, "GET {url} HTTP/1.0\r\n\r\n").unwrap();
        let mut all = Vec::new();
        let end = stream.read_to_end(&mut all);
        let short =
            String::from_utf8_lossy(&all[..all.len().min(400)]).contains(&format!("content-length: {}", body.len()));
        assert!(end.is_err() || short || all.starts_with(b"HTTP/1.1 502"), "{path}");
        assert!(!under.stored(&format!("mirror:{}", path.trim_start_matches('/'))));
    }
}

#[test]
fn an_upstream_that_is_down_is_passed_over() {
    let (dead, alive, folder) = (Origin::start(), Origin::start(), tempfile::tempdir().unwrap());
    dead.down.store(true, Ordering::SeqCst);
    let body = bytes(100_000, 6);
    (0..3).for_each(|number| alive.put(&format!("/debian/{number}"), doc(body.clone())));
    let under = under(folder.path(), settings(&[&dead, &alive]));
    for number in 0..3 {
        let url = format!("http://{}/mirror/debian/{number}", under.address);
        let (status, _, got) = under.curl(&["--noproxy", "*"], &url);
        assert_eq!((status, got == body), (200, true));
    }
}

#[test]
fn bit_rot_is_found_after_a_restart_and_healed() {
    let (origin, folder) = (Origin::start(), tempfile::tempdir().unwrap());
    let body = bytes(500_000, 7);
    origin.put("/debian/a", doc(body.clone()));
    let url = origin.url("/debian/a");
    let first = under(folder.path(), settings(&[&origin]));
    assert!(first.get(&url) == body);
    wait("it is stored", || first.stored("mirror:debian/a"));
    let digest = first.handle.proxy().list()[0].digest.to_string();
    first.handle.stop();
    let path = folder.path().join("objects").join(&digest[..2]).join(&digest);
    let mut rotten = std::fs::read(&path).unwrap();
    rotten[250_000] ^= 1;
    std::fs::write(&path, &rotten).unwrap();
    let second = under(folder.path(), settings(&[&origin]));
    assert!(second.get(&url) == body, "damaged bytes were served");
    assert_eq!(origin.requests("/debian/a"), 2);
    assert!(
        second
            .told
            .lock()
            .unwrap()
            .iter()
            .any(|text| text.contains("is damaged on disk"))
    );
    wait("it is stored again", || second.stored("mirror:debian/a"));
    assert!(second.get(&url) == body);
    assert_eq!(origin.requests("/debian/a"), 2);
}

#[test]
fn a_full_cache_evicts_what_is_oldest_but_nothing_pinned_and_then_serves_through() {
    let (origin, folder) = (Origin::start(), tempfile::tempdir().unwrap());
    let body = |number: u64| bytes(1_000_000, 101 + 2 * number);
    (0..6).for_each(|number| origin.put(&format!("/debian/{number}"), doc(body(number))));
    let under = under(
        folder.path(),
        Settings {
            budget: 3_500_000,
            ..settings(&[&origin])
        },
    );
    let key = |number: u64| format!("mirror:debian/{number}");
    let get = |number: u64| under.get(&origin.url(&format!("/debian/{number}"))) == body(number);
    assert!(get(0));
    wait("0 is stored", || under.stored(&key(0)));
    let proxy = under.handle.proxy().clone();
    assert_eq!(under.handle.block_on(proxy.pin(&key(0))).unwrap(), 1);
    for number in 1..5 {
        assert!(get(number));
        wait("it is stored", || under.stored(&key(number)));
    }
    let keys: Vec<String> = proxy.list().into_iter().map(|item| item.key).collect();
    assert_eq!(keys, [key(0), key(3), key(4)], "{:?}", proxy.usage());
    for number in 3..5 {
        assert_eq!(under.handle.block_on(proxy.pin(&key(number))).unwrap(), 1);
    }
    // All that is there is pinned now: the next passes through.
    assert!(get(5) && get(5));
    assert!(!under.stored(&key(5)));
    assert_eq!(origin.requests("/debian/5"), 2);
    assert!(
        under
            .told
            .lock()
            .unwrap()
            .iter()
            .any(|text| text.contains("passed on without being stored"))
    );
}

#[test]
fn offline_serves_what_is_stored_and_names_what_to_pin() {
    let (origin, folder) = (Origin::start(), tempfile::tempdir().unwrap());
    let body = bytes(1000, 8);
    let headers = vec![
        ("ETag".into(), "\"x\"".into()),
        ("Cache-Control".into(), "max-age=0".into()),
    ];
    origin.put(
        "/debian/a",
        Doc {
            headers,
            ..doc(body.clone())
        },
    );
    let under = under(folder.path(), settings(&[&origin]));
    assert!(under.get(&origin.url("/debian/a")) == body);
    wait("it is stored", || under.stored("mirror:debian/a"));
    under.handle.proxy().set_mode(Mode::Offline);
    origin.down.store(true, Ordering::SeqCst);
    let (status, _, got) = under.curl(&["-H", "Cache-Control: no-cache"], &origin.url("/debian/a"));
    assert_eq!((status, got), (200, body));
    let (status, _, got) = under.curl(&[], &origin.url("/debian/b"));
    let text = String::from_utf8(got).unwrap();
    assert!(
        status == 504 && text.contains("rackbar cache pin mirror:debian/b"),
        "{text}"
    );
}

#[test]
fn recording_pins_all_that_was_served_once_by_many_at_the_same_time_and_keeps_it() {
    let (origin, folder) = (Origin::start(), tempfile::tempdir().unwrap());
    let pieces = 40;
    for number in 0..pieces {
        origin.put(&format!("/debian/{number}"), doc(bytes(20_000, number)));
    }
    let mut wanted: Vec<String> = (0..pieces).map(|number| format!("mirror:debian/{number}")).collect();
    wanted.push("mirror:debian/missing".into());
    wanted.sort();
    {
        let under = under(folder.path(), settings(&[&origin]));
        under.handle.proxy().set_mode(Mode::Recording);
        let (under, origin) = (&under, &origin);
        std::thread::scope(|scope| {
            for number in 0..pieces {
                scope.spawn(move || assert_eq!(under.get(&origin.url(&format!("/debian/{number}"))).len(), 20_000));
            }
            scope.spawn(move || assert_eq!(under.curl(&[], &origin.url("/debian/missing")).0, 404));
        });
        wait("all is pinned", || under.handle.proxy().pins() == wanted);
    }
    let again = under(folder.path(), settings(&[&origin]));
    assert_eq!(again.handle.proxy().pins(), wanted);
}

#[test]
fn a_stale_answer_is_validated_and_used_when_the_origin_is_gone() {
    let (origin, folder) = (Origin::start(), tempfile::tempdir().unwrap());
    let body = bytes(1000, 9);
    let headers = vec![
        ("ETag".into(), "\"x\"".into()),
        ("Cache-Control".into(), "max-age=0".into()),
    ];
    origin.put(
        "/debian/a",
        Doc {
            headers,
            ..doc(body.clone())
        },
    );
    let under = under(folder.path(), settings(&[&origin]));
    let url = origin.url("/debian/a");
    assert!(under.get(&url) == body);
    wait("it is stored", || under.stored("mirror:debian/a"));
    let (status, head, got) = under.curl(&[], &url);
    assert_eq!((status, got), (200, body.clone()));
    assert!(head.contains("fwd=stale; fwd-status=304"), "{head}");
    origin.down.store(true, Ordering::SeqCst);
    let (status, head, got) = under.curl(&[], &url);
    assert_eq!((status, got), (200, body));
    assert!(head.contains("detail=stale-if-error"), "{head}");
}

#[test]
fn what_is_pinned_is_used_however_old_it_is_when_the_origin_is_gone() {
    let (origin, folder) = (Origin::start(), tempfile::tempdir().unwrap());
    let old = |rest: &str| Doc {
        headers: vec![
            ("Cache-Control".into(), format!("max-age=60{rest}")),
            ("Age".into(), "5000".into()),
            ("ETag".into(), "\"x\"".into()),
        ],
        ..doc(b"content".to_vec())
    };
    for (name, rest) in [("pinned", ""), ("not", ""), ("strict", ", must-revalidate")] {
        origin.put(&format!("/debian/{name}"), old(rest));
    }
    let settings = Settings {
        stale_if_unreachable: 100,
        ..settings(&[&origin])
    };
    let under = under(folder.path(), settings);
    for name in ["pinned", "not", "strict"] {
        under.get(&origin.url(&format!("/debian/{name}")));
        let key = format!("mirror:debian/{name}");
        wait("it is stored", || under.stored(&key));
        if name != "not" {
            under.handle.block_on(under.handle.proxy().pin(&key)).unwrap();
        }
    }
    origin.down.store(true, Ordering::SeqCst);
    let status = |name: &str| under.curl(&[], &origin.url(&format!("/debian/{name}"))).0;
    assert_eq!(["pinned", "not", "strict"].map(status), [200, 502, 502]);
}

#[test]
fn nobody_is_led_to_the_appliance_itself() {
    let (origin, folder) = (Origin::start(), tempfile::tempdir().unwrap());
    origin.put("/secret", doc(b"secret".to_vec()));
    let mut strict = settings(&[]);
    strict.mirrors.clear();
    strict.rule.allowed.clear();
    strict.rule.ports = vec![origin.address.port()];
    strict.rule.connect_ports = vec![origin.address.port()];
    let under = under(folder.path(), strict);
    let port = origin.address.port();
    for host in ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0"] {
        let (status, _, got) = under.curl(&[], &format!("http://{host}:{port}/secret"));
        assert_eq!(status, 403, "{host}: {}", String::from_utf8_lossy(&got));
        let answer = under.raw(&format!(
            "CONNECT {host}:{port} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        ));
        assert!(
            answer.starts_with(b"HTTP/1.1 403"),
            "{host}: {}",
            String::from_utf8_lossy(&answer)
        );
    }
    assert_eq!(origin.requests("/secret"), 0);
}

#[test]
fn a_tunnel_carries_both_ways_and_only_to_allowed_ports() {
    let (origin, folder) = (Origin::start(), tempfile::tempdir().unwrap());
    origin.put("/x", doc(b"through".to_vec()));
    let mut open = settings(&[&origin]);
    open.rule.connect_ports = vec![origin.address.port()];
    let under = under(folder.path(), open);
    let (status, _, got) = under.curl(&["-p"], &origin.url("/x"));
    assert_eq!((status, got.as_slice()), (200, b"through".as_slice()));
    let answer = under.raw("CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert!(
        answer.starts_with(b"HTTP/1.1 403"),
        "{}",
        String::from_utf8_lossy(&answer)
    );
}

#[test]
fn answers_for_one_user_and_other_methods_pass_through_and_are_not_kept() {
    let (origin, folder) = (Origin::start(), tempfile::tempdir().unwrap());
    let headers = vec![("Cache-Control".into(), "private, max-age=60".into())];
    origin.put(
        "/debian/private",
        Doc {
            headers,
            ..doc(b"mine".to_vec())
        },
    );
    let under = under(folder.path(), settings(&[&origin]));
    for _ in 0..2 {
        assert_eq!(under.get(&origin.url("/debian/private")), b"mine");
    }
    assert_eq!(origin.requests("/debian/private"), 2);
    assert!(under.handle.proxy().list().is_empty());
}

#[test]
fn a_mode_that_was_ordered_stays_until_the_settings_have_another() {
    let (origin, folder) = (Origin::start(), tempfile::tempdir().unwrap());
    let under = under(folder.path(), settings(&[&origin]));
    let proxy = under.handle.proxy();
    let mode = || (proxy.settings().mode, proxy.ordered_mode());
    assert_eq!(mode(), (Mode::Online, None));
    proxy.set_mode(Mode::Offline);
    let other = Settings {
        budget: 1 << 20,
        listen: vec![under.address],
        ..settings(&[&origin])
    };
    under.handle.reconfigure(other.clone()).unwrap();
    assert_eq!(mode(), (Mode::Offline, Some(Mode::Offline)));
    assert_eq!(proxy.usage().1, 1 << 20, "the rest of the settings is in force");
    assert!(under.told.lock().unwrap().is_empty());
    let recording = Settings {
        mode: Mode::Recording,
        ..other.clone()
    };
    under.handle.reconfigure(recording).unwrap();
    assert_eq!(mode(), (Mode::Recording, None));
    let told = under.told.lock().unwrap().clone();
    assert_eq!(
        told,
        ["the proxy was ordered to be offline; its settings now make it recording"]
    );
    under.handle.reconfigure(other).unwrap();
    assert_eq!(mode(), (Mode::Online, None));
    assert_eq!(under.told.lock().unwrap().len(), 1);
}

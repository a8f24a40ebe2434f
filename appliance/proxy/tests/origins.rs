//! Origins that break their word, and requests that change something: what clients get then, and what stays stored.
#![allow(clippy::unwrap_used, reason = "these are tests")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::*;
use rackbar_proxy::Mirror;
use rackbar_proxy::rules::target::Url;

#[test]
fn an_error_that_stops_in_the_middle_holds_nobody_and_is_not_called_whole() {
    let (origin, folder) = (Origin::start(), tempfile::tempdir().unwrap());
    let head = "HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\n\r\n";
    origin.put("/debian/broken", raw(&format!("{head}no")));
    let silent = Doc {
        raw: Some((head.to_owned(), true)),
        ..Doc::default()
    };
    origin.put("/debian/silent", silent);
    let under = under(folder.path(), settings(&[&origin]));
    let (status, _, text) = under.curl(&[], &origin.url("/debian/broken"));
    let text = String::from_utf8(text).unwrap();
    assert!(status == 502 && text.contains("broke off"), "{status} {text}");
    let began = Instant::now();
    let (under, origin) = (&under, &origin);
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..3)
            .map(|_| scope.spawn(move || under.curl(&[], &origin.url("/debian/silent"))))
            .collect();
        for one in all {
            let (status, _, text) = one.join().unwrap();
            let text = String::from_utf8(text).unwrap();
            assert!(status == 504 && text.contains("not whole within"), "{status} {text}");
        }
    });
    assert!(began.elapsed() < Duration::from_secs(25));
    assert_eq!(origin.requests("/debian/silent"), 1, "they wait for one fetch");
}

#[test]
fn a_request_that_changes_something_invalidates_and_spares_what_is_pinned_or_a_mirrors() {
    let (origin, folder) = (Origin::start(), tempfile::tempdir().unwrap());
    let under = under(folder.path(), settings(&[&origin]));
    let proxy = under.handle.proxy().clone();
    let paths = ["/own/plain", "/own/pinned", "/debian/mirrored"];
    let key = |path: &str| match path.strip_prefix("/debian/") {
        Some(rest) => format!("mirror:debian/{rest}"),
        None => origin.url(path),
    };
    for path in paths {
        origin.put(path, doc(path.into()));
        assert_eq!(under.get(&origin.url(path)), path.as_bytes());
        wait("it is stored", || under.stored(&key(path)));
    }
    let pinned = under.handle.block_on(proxy.pin(&origin.url("/own/pinned")));
    assert_eq!(pinned.unwrap(), 1);
    for path in paths {
        for method in ["DELETE", "POST"] {
            let (status, head, _) = under.curl(&["-X", method], &origin.url(path));
            assert!(status == 200 && head.contains("fwd=method"), "{head}");
            let there = origin.seen.lock().unwrap();
            assert!(there.iter().any(|head| head.starts_with(&format!("{method} {path} "))));
        }
    }
    let kept: Vec<bool> = paths.iter().map(|path| under.stored(&key(path))).collect();
    assert_eq!(kept, [false, true, true]);
    for path in paths {
        // Fresh for an hour, but for what was asked in between: the origin has the word once, and not again after it.
        let before = origin.requests(path);
        for _ in 0..2 {
            assert_eq!(under.get(&origin.url(path)), path.as_bytes());
            wait("it is stored", || under.stored(&key(path)));
        }
        assert_eq!(origin.requests(path), before + 1, "{path}");
    }
    // An origin that refuses has changed nothing.
    let refuses = raw("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n");
    origin.put("/own/plain", refuses);
    assert_eq!(under.curl(&["-X", "DELETE"], &origin.url("/own/plain")).0, 403);
    assert_eq!(under.get(&origin.url("/own/plain")), b"/own/plain");
}

#[test]
fn what_a_client_proves_itself_with_goes_to_the_origin_it_named_alone() {
    let (first, second, third) = (Origin::start(), Origin::start(), Origin::start());
    let folder = tempfile::tempdir().unwrap();
    let origins = [&first, &second, &third];
    let mut two = settings(&origins);
    let upstream = |origin: &Origin| Url::parse(&origin.url("/debian")).unwrap();
    two.mirrors = vec![Mirror {
        name: "debian".into(),
        upstreams: vec![upstream(&first), upstream(&second)],
    }];
    let under = under(folder.path(), two);
    let elsewhere = third.url("/elsewhere");
    let leads = format!("HTTP/1.1 302 Found\r\nLocation: {elsewhere}\r\nContent-Length: 0\r\n\r\n");
    first.put("/debian/led", raw(&leads));
    third.put("/elsewhere", doc(b"public".to_vec()));
    second.put("/debian/late", doc(b"here".to_vec()));
    second.put("/debian/form", doc(b"done".to_vec()));
    let secrets = ["-H", "Authorization: Basic c2VjcmV0", "-H", "Cookie: id=secret"];
    let told = |origin: &Origin, path: &str| -> Vec<bool> {
        let secret = |head: &String| {
            let head = head.to_ascii_lowercase();
            let count = ["authorization:", "cookie:"]
                .iter()
                .filter(|name| head.contains(**name))
                .count();
            assert_ne!(count, 1, "{head}");
            count == 2
        };
        let seen = origin.seen.lock().unwrap();
        let here = |head: &&String| head.split(' ').nth(1) == Some(path);
        seen.iter().filter(here).map(secret).collect()
    };
    let (status, _, got) = under.curl(&secrets, &first.url("/debian/led"));
    assert_eq!((status, got.as_slice()), (200, b"public".as_slice()));
    assert_eq!(told(&first, "/debian/led"), [true]);
    assert_eq!(told(&third, "/elsewhere"), [false]);
    // The first upstream of the mirror does not have it, and the second is another's.
    let (status, _, got) = under.curl(&secrets, &first.url("/debian/late"));
    assert_eq!((status, got.as_slice()), (200, b"here".as_slice()));
    assert_eq!(told(&first, "/debian/late"), [true]);
    assert_eq!(told(&second, "/debian/late"), [false]);
    // Of what changes something only the origin that was named hears.
    let post = [&secrets[..], &["-X", "POST"]].concat();
    let (status, _, got) = under.curl(&post, &second.url("/debian/form"));
    assert_eq!((status, got.as_slice()), (200, b"done".as_slice()));
    assert_eq!(told(&second, "/debian/form"), [true]);
    assert!(told(&first, "/debian/form").is_empty());
}

#[test]
fn a_fetch_is_not_gone_on_with_by_another_version() {
    let (origin, folder) = (Origin::start(), tempfile::tempdir().unwrap());
    let (old, new) = ("Sun, 06 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 09:49:37 GMT");
    let date = "Mon, 07 Nov 1994 08:49:37 GMT";
    let body = bytes(1 << 20, 61);
    let cut = 400_000;
    // However far it came when it broke: the part begins there.
    let broke = Doc {
        headers: vec![("Last-Modified".into(), old.into()), ("Date".into(), date.into())],
        breaks_at: Some(cut),
        slow: Some(cut * 50),
        ..doc(body.clone())
    };
    let rest = |modified: &str| {
        let head = format!(
            "HTTP/1.1 206 Partial Content\r\nLast-Modified: {modified}\r\nDate: {date}\r\nContent-Length: {}\r\nContent-Range: \
             bytes {cut}-{}/{}\r\nConnection: close\r\n\r\n",
            body.len() - cut,
            body.len() - 1,
            body.len()
        );
        let content = if modified == old {
            body[cut..].to_vec()
        } else {
            bytes(body.len() - cut, 62)
        };
        Some([head.into_bytes(), content].concat())
    };
    origin.put(
        "/debian/same",
        Doc {
            rest: rest(old),
            ..broke.clone()
        },
    );
    origin.put(
        "/debian/other",
        Doc {
            rest: rest(new),
            ..broke
        },
    );
    let under = under(folder.path(), settings(&[&origin]));
    let (status, _, got) = under.curl(&[], &origin.url("/debian/same"));
    assert_eq!((status, got == body), (200, true));
    let (status, _, got) = under.curl(&[], &origin.url("/debian/other"));
    assert_eq!(status, 0, "{} bytes of two versions were called whole", got.len());
    let asked = origin.heads("/debian/other");
    assert!(
        asked[1]
            .to_ascii_lowercase()
            .contains("if-range: sun, 06 nov 1994 08:49:37"),
        "{asked:?}"
    );
    assert!(!under.stored("mirror:debian/other"));
}

#[test]
fn what_one_client_wants_not_stored_keeps_no_others_waiting() {
    let (origin, folder) = (Origin::start(), tempfile::tempdir().unwrap());
    let body = bytes(50_000, 63);
    let gate = Arc::new(AtomicBool::new(false));
    let gated = Doc {
        gate: Some(gate.clone()),
        ..doc(body.clone())
    };
    origin.put("/debian/a", gated);
    let under = under(folder.path(), settings(&[&origin]));
    let (under, origin, body) = (&under, &origin, &body);
    let url = &origin.url("/debian/a");
    // But for that word they ask as the others do.
    let words = "HTTP/1.1\r\nHost: x\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n";
    let request = &format!("GET {url} {words}");
    std::thread::scope(|scope| {
        let own: Vec<_> = (0..2).map(|_| scope.spawn(move || under.raw(request))).collect();
        wait("each asks for itself", || origin.requests("/debian/a") == 2);
        let all: Vec<_> = (0..20).map(|_| scope.spawn(move || under.get(url) == *body)).collect();
        wait("the others have a fetch of their own", || {
            origin.requests("/debian/a") == 3
        });
        gate.store(true, Ordering::SeqCst);
        assert!(all.into_iter().all(|one| one.join().unwrap()));
        for own in own {
            let got = own.join().unwrap();
            let head = String::from_utf8_lossy(&got[..got.len() - body.len()]).into_owned();
            assert!(
                head.starts_with("HTTP/1.1 200") && got.ends_with(body) && head.contains("detail=no-store"),
                "{head}"
            );
        }
    });
    assert_eq!(origin.requests("/debian/a"), 3);
}

#[test]
fn a_large_error_is_passed_on_whole() {
    let (origin, folder) = (Origin::start(), tempfile::tempdir().unwrap());
    let text = "x".repeat(200_000);
    let head = "HTTP/1.1 403 Forbidden\r\nConnection: close\r\n";
    let chunk = format!("{:x}\r\n{text}\r\n0\r\n\r\n", text.len());
    origin.put(
        "/debian/chunked",
        raw(&format!("{head}Transfer-Encoding: chunked\r\n\r\n{chunk}")),
    );
    origin.put(
        "/debian/known",
        raw(&format!("{head}Content-Length: {}\r\n\r\n{text}", text.len())),
    );
    let under = under(folder.path(), settings(&[&origin]));
    for path in ["/debian/known", "/debian/chunked"] {
        let (status, head, got) = under.curl(&[], &origin.url(path));
        assert_eq!((status, got.len()), (403, text.len()), "{path}: {head}");
    }
}

#[test]
fn a_change_is_known_although_its_client_hung_up() {
    let (origin, folder) = (Origin::start(), tempfile::tempdir().unwrap());
    let under = under(folder.path(), settings(&[&origin]));
    let url = origin.url("/own/a");
    origin.put("/own/a", doc(b"a".to_vec()));
    assert_eq!(under.get(&url), b"a");
    wait("it is stored", || under.stored(&url));
    let gate = Arc::new(AtomicBool::new(false));
    let gated = Doc {
        gate: Some(gate.clone()),
        ..doc(bytes(1 << 20, 3))
    };
    origin.put("/own/a", gated);
    {
        use std::io::Write as _;
        let mut stream = std::net::TcpStream::connect(under.address).unwrap();
        write!(stream, "DELETE {url} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let asked = |head: &String| head.starts_with("DELETE ");
        wait("the origin is asked", || origin.seen.lock().unwrap().iter().any(asked));
        socket2::SockRef::from(&stream)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
    }
    gate.store(true, Ordering::SeqCst);
    wait("what was stored is gone", || !under.stored(&url));
}

#[test]
fn what_is_pinned_is_not_given_up_when_its_origin_has_it_no_more() {
    let (origin, folder) = (Origin::start(), tempfile::tempdir().unwrap());
    let under = under(folder.path(), settings(&[&origin]));
    let proxy = under.handle.proxy().clone();
    let at = |path: &str| origin.url(path);
    let stale = |body: &[u8]| Doc {
        headers: vec![
            ("ETag".into(), "\"1\"".into()),
            ("Cache-Control".into(), "max-age=0".into()),
        ],
        ..doc(body.to_vec())
    };
    for path in ["/own/pinned", "/own/plain"] {
        origin.put(path, stale(b"content"));
        assert_eq!(under.get(&at(path)), b"content");
        wait("it is stored", || under.stored(&at(path)));
    }
    under.handle.block_on(proxy.pin(&at("/own/pinned"))).unwrap();
    let says = |status: &str| {
        raw(&format!(
            "HTTP/1.1 {status}\r\nCache-Control: max-age=600\r\nContent-Length: 4\r\n\r\ngone"
        ))
    };
    for (status, said) in [(404, "404 Not Found"), (302, "302 Found\r\nLocation: /login")] {
        for path in ["/own/pinned", "/own/plain"] {
            origin.put(path, says(said));
            // Who asks is told all the same.
            let (got, head, text) = under.curl(&["-H", "Cache-Control: no-cache"], &at(path));
            assert_eq!((got, text.as_slice()), (status, b"gone".as_slice()), "{head}");
        }
    }
    wait("what is not pinned is as the origin says", || {
        proxy
            .list()
            .iter()
            .any(|item| item.key == at("/own/plain") && item.size == 4)
    });
    proxy.set_mode(rackbar_proxy::Mode::Offline);
    assert_eq!(under.get(&at("/own/pinned")), b"content");
    // A newer content is another thing: it takes its place, pinned too.
    proxy.set_mode(rackbar_proxy::Mode::Online);
    origin.put("/own/pinned", doc(b"newer".to_vec()));
    assert_eq!(under.get(&at("/own/pinned")), b"newer");
    wait("the newer one is pinned", || {
        proxy.list().iter().any(|item| item.size == 5 && item.pinned)
    });
}

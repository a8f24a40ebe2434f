//! When what is stored may stand in for its origin's word, and what a word of the origin is about.
#![allow(clippy::unwrap_used, reason = "these are tests")]

mod common;

use std::sync::atomic::Ordering;

use common::*;

#[test]
fn what_a_request_changed_is_not_served_for_an_origins_error_and_unpinned_not_without_it() {
    let (origin, folder) = (Origin::start(), tempfile::tempdir().unwrap());
    let under = under(folder.path(), settings(&[&origin]));
    let proxy = under.handle.proxy().clone();
    let paths = ["/debian/plain", "/debian/pinned"];
    let busy = || raw("HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy");
    let get = |path: &str| under.curl(&[], &origin.url(path)).0;
    for path in paths {
        origin.put(path, doc(path.into()));
        assert_eq!(get(path), 200);
        let key = path.replacen("/debian/", "mirror:debian/", 1);
        wait("it is stored", || under.stored(&key));
    }
    under.handle.block_on(proxy.pin("mirror:debian/pinned")).unwrap();
    // Fresh for an hour: no word of its origin is needed, and an error is none.
    let strict = ["-H", "Cache-Control: max-age=0, stale-if-error=60"];
    for path in paths {
        origin.put(path, busy());
        assert_eq!(get(path), 200);
        origin.put(path, doc(path.into()));
        assert_eq!(under.curl(&["-X", "POST"], &origin.url(path)).0, 200);
        origin.put(path, busy());
        assert_eq!(
            (get(path), under.curl(&strict, &origin.url(path)).0),
            (503, 503),
            "{path}"
        );
    }
    origin.down.store(true, Ordering::SeqCst);
    assert_eq!(paths.map(get), [502, 200]);
    // Once its origin said that it holds it is as it was.
    origin.down.store(false, Ordering::SeqCst);
    for path in paths {
        origin.put(path, doc(path.into()));
        assert_eq!(get(path), 200);
        origin.put(path, busy());
        assert_eq!(get(path), 200, "{path}");
    }
}

#[test]
fn a_304_with_the_tag_of_another_version_is_none_and_that_version_is_fetched() {
    let (origin, folder) = (Origin::start(), tempfile::tempdir().unwrap());
    let under = under(folder.path(), settings(&[&origin]));
    let url = origin.url("/debian/a");
    let old = "HTTP/1.1 200 OK\r\nETag: \"1\"\r\nCache-Control: max-age=0\r\nContent-Length: 3\r\n\r\nold";
    origin.put("/debian/a", raw(old));
    assert_eq!(under.get(&url), b"old");
    wait("it is stored", || under.stored("mirror:debian/a"));
    // To whoever asks with a condition, and to all others, it says the same: nothing can be made of that.
    let not_modified = |tag: &str| {
        raw(&format!(
            "HTTP/1.1 304 Not Modified\r\nETag: {tag}\r\nCache-Control: max-age=600\r\n\r\n"
        ))
    };
    origin.put("/debian/a", not_modified("\"2\""));
    let (status, head, got) = under.curl(&[], &url);
    assert_eq!((status, got.as_slice()), (200, b"old".as_slice()));
    assert!(head.contains("detail=stale-if-error"), "{head}");
    let asked = origin.heads("/debian/a");
    let conditional = |head: &&String| head.to_ascii_lowercase().contains("if-none-match");
    assert!(conditional(&&asked[1]) && !conditional(&&asked[2]), "{asked:?}");
    // The stored answer was not made fresh by it.
    origin.put("/debian/a", not_modified("\"1\""));
    let (_, head, got) = under.curl(&[], &url);
    assert!(got == b"old" && head.contains("fwd-status=304"), "{head}");
    let before = origin.requests("/debian/a");
    assert_eq!(under.get(&url), b"old");
    assert_eq!(origin.requests("/debian/a"), before, "fresh by the word about it");
}

#[test]
fn an_answer_without_a_date_gets_the_time_when_it_came() {
    let (origin, folder) = (Origin::start(), tempfile::tempdir().unwrap());
    let under = under(folder.path(), settings(&[&origin]));
    let said = |arguments: &[&str], path: &str| {
        let (status, head, _) = under.curl(arguments, &origin.url(path));
        let dates: Vec<_> = head
            .lines()
            .filter_map(|line| line.strip_prefix("date: "))
            .map(str::to_owned)
            .collect();
        assert_eq!(dates.len(), 1, "{head}");
        (status, dates[0].clone())
    };
    let is_now = |date: &str| {
        // What curl gives here is all in lower case.
        let large = |word: &str| word.get(..1).unwrap_or_default().to_uppercase() + word.get(1..).unwrap_or_default();
        let spelt = date
            .split(' ')
            .map(large)
            .collect::<Vec<_>>()
            .join(" ")
            .replace("Gmt", "GMT");
        let at = httpdate::parse_http_date(&spelt).unwrap();
        let age = std::time::SystemTime::now().duration_since(at).unwrap();
        assert!(age < std::time::Duration::from_secs(600), "{date}");
    };
    origin.put("/debian/a", doc(b"a".to_vec()));
    let first = said(&[], "/debian/a");
    is_now(&first.1);
    wait("it is stored", || under.stored("mirror:debian/a"));
    assert_eq!(said(&[], "/debian/a"), first, "it stays");
    // What is passed on alone, an origin's error, and what is ours.
    let private = [("Cache-Control".to_owned(), "private".to_owned())];
    origin.put(
        "/debian/own",
        Doc {
            headers: private.to_vec(),
            ..doc(b"a".to_vec())
        },
    );
    origin.put("/debian/busy", raw("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"));
    for (arguments, path, status) in [
        (&[][..], "/debian/own", 200),
        (&["-X", "POST"], "/debian/own", 200),
        (&[], "/debian/busy", 503),
        (&["-r", "9-"], "/debian/a", 416),
    ] {
        let (got, date) = said(arguments, path);
        assert_eq!(got, status, "{path}");
        is_now(&date);
    }
    let dated = "HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Length: 0\r\n\r\n";
    origin.put("/debian/old", raw(dated));
    assert_eq!(said(&[], "/debian/old").1, "sun, 06 nov 1994 08:49:37 gmt");
}

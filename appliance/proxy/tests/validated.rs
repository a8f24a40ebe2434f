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
        assert_eq!((get(path), under.curl(&strict, &origin.url(path)).0), (503, 503), "{path}");
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

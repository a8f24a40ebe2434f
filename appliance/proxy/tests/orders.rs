//! What an operator orders of the cache, and what the answer says of what was done.
#![allow(clippy::unwrap_used, reason = "these are tests")]

mod common;

use std::sync::atomic::Ordering;

use common::*;

#[test]
fn a_refresh_that_the_origin_gave_nothing_for_is_refused_and_what_is_stored_stays() {
    let (origin, folder) = (Origin::start(), tempfile::tempdir().unwrap());
    let under = under(folder.path(), settings(&[&origin]));
    let proxy = under.handle.proxy().clone();
    let (path, key) = ("/debian/a", "mirror:debian/a");
    let refresh = || {
        under
            .handle
            .block_on(proxy.refresh(key))
            .map_err(|error| error.to_string())
    };
    origin.put(path, doc(b"one".to_vec()));
    refresh().unwrap();
    assert!(under.stored(key));
    let stored = rackbar_model::Timestamp(proxy.list()[0].stored * 1000).to_string();
    let stands = |refused: String| {
        assert!(
            refused.starts_with(&format!("{key}: the origin gave nothing")) && refused.contains(&stored),
            "{refused}"
        );
        assert_eq!(under.get(&origin.url(path)), b"one");
    };
    origin.put(path, raw("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"));
    stands(refresh().unwrap_err());
    origin.down.store(true, Ordering::SeqCst);
    stands(refresh().unwrap_err());
    origin.down.store(false, Ordering::SeqCst);
    origin.put(path, doc(b"other".to_vec()));
    refresh().unwrap();
    assert_eq!(under.get(&origin.url(path)), b"other");
}

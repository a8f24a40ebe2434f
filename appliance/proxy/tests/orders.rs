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

#[test]
fn a_pin_by_prefix_of_urls_keeps_what_is_a_mirrors_and_none_is_taken_that_can_keep_nothing() {
    let (origin, folder) = (Origin::start(), tempfile::tempdir().unwrap());
    for path in ["/debian/pool/a", "/own/b"] {
        origin.put(path, doc(path.into()));
    }
    // As an earlier version wrote them, and a mirror that is gone by now.
    let old = [origin.url("/debian/*"), "locked:ours/*".into(), "mirror:gone/*".into()];
    std::fs::write(folder.path().join("pins"), old.join("\n") + "\n").unwrap();
    let under = under(folder.path(), settings(&[&origin]));
    let proxy = under.handle.proxy().clone();
    let pin = |pattern: &str| under.handle.block_on(proxy.pin(pattern));
    let pinned = || -> Vec<String> {
        let all = proxy.list().into_iter().filter(|item| item.pinned);
        all.map(|item| item.key).collect()
    };
    let has = |pattern: &str| proxy.pins().iter().any(|pin| pin == pattern);
    for (path, key) in [
        ("/debian/pool/a", "mirror:debian/pool/a".to_owned()),
        ("/own/b", origin.url("/own/b")),
    ] {
        assert_eq!(under.get(&origin.url(path)), path.as_bytes());
        wait("it is stored", || under.stored(&key));
    }
    assert!(pinned().is_empty());
    assert_eq!(pin(&origin.url("/debian/pool/*")).unwrap(), 1);
    assert_eq!(pinned(), ["mirror:debian/pool/a"]);
    assert!(has("mirror:debian/pool/*"));
    assert_eq!(proxy.unpin(&origin.url("/debian/pool/*")).unwrap(), 1);
    assert!(pinned().is_empty() && !has("mirror:debian/pool/*"));
    // All of an origin but what is a mirror's, which is said.
    assert_eq!(pin(&origin.url("/*")).unwrap(), 1);
    assert_eq!(
        (pinned(), proxy.pin_leaves_out(&origin.url("/*"))),
        (vec![origin.url("/own/b")], vec!["debian".into()])
    );
    assert_eq!(proxy.unpin(&origin.url("/*")).unwrap(), 1);
    for wrong in ["mirror:debain/*", "mirror:debain/a"] {
        let refused = pin(wrong).unwrap_err().to_string();
        assert!(
            refused.contains("no mirror \"debain\"") && refused.contains("there are debian"),
            "{refused}"
        );
    }
    // What an earlier version took stays, and can be taken back.
    assert!(
        pinned().is_empty() && old.iter().all(|pattern| has(pattern)),
        "{:?}",
        proxy.pins()
    );
    for pattern in [&old[0], &old[2]] {
        assert_eq!(proxy.unpin(pattern).unwrap(), usize::from(pattern == &old[0]));
    }
    assert_eq!(proxy.pins(), ["locked:ours/*"]);
}

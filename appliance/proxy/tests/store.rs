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

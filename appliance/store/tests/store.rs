//! The store as its users see it: what was acknowledged is there, whatever happened in between.
#![allow(clippy::unwrap_used, reason = "a test may unwrap")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use rackbar_model::{Event, EventKind, Inventory, Lease, LeaseState, MacAddr, NodeId, Severity, Timestamp};
use rackbar_store::{Options, Store, StoreError, Table};

fn lease(n: u32) -> Lease {
    Lease {
        address: (0x0a0a_0000 + n).into(),
        network: "rack".into(),
        mac: MacAddr([0x52, 0x54, 0, 0, (n >> 8) as u8, n as u8]),
        client_id: vec![],
        hostname: None,
        state: LeaseState::Bound,
        expires: Timestamp(u64::from(n)),
    }
}

fn event(n: u64, node: Option<NodeId>) -> Event {
    let kind = EventKind::Note {
        text: format!("number {n}"),
        severity: Severity::Info,
    };
    Event {
        seq: 0,
        at: Timestamp(n),
        node,
        mac: None,
        kind,
    }
}

#[test]
fn what_is_written_is_read_after_opening_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    let node = NodeId([7; 16]);
    {
        let store = Store::open(&path).unwrap();
        store.commit_leases(&[lease(1), lease(2)]).unwrap();
        store
            .commit_leases(&[Lease {
                expires: Timestamp(99),
                ..lease(1)
            }])
            .unwrap();
        store.append(event(1, None));
        store.append(event(2, Some(node)));
        store.save_node(node, b"{}".to_vec());
        store.save_inventory(node, Timestamp(5), &Inventory::default());
        store.put(Table::Secrets, b"ca", b"key").unwrap();
    }
    let store = Store::open(&path).unwrap();
    let leases = store.leases().unwrap();
    assert_eq!(leases.len(), 2);
    assert_eq!(
        leases[0].expires,
        Timestamp(99),
        "the later lease of an address replaces the earlier"
    );
    assert_eq!(store.last_seq(), 2);
    assert_eq!(store.events(0, 10).unwrap().len(), 2);
    assert_eq!(store.events(1, 10).unwrap()[0].seq, 2);
    assert_eq!(store.timeline(node, 10).unwrap().len(), 1);
    assert_eq!(store.nodes().unwrap(), vec![(node, b"{}".to_vec())]);
    assert_eq!(store.newest_inventory(node).unwrap().unwrap().0, Timestamp(5));
    assert_eq!(store.get(Table::Secrets, b"ca").unwrap().as_deref(), Some(&b"key"[..]));
    assert_eq!(store.get(Table::Tokens, b"ca").unwrap(), None);
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "the file holds secrets");
}

#[test]
fn no_event_can_be_read_before_its_number_is_the_newest() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().join("store.redb")).unwrap();
    let writer = store.clone();
    let writing = std::thread::spawn(move || {
        for n in 1..=400 {
            writer.append(event(n, None));
            writer.flush().unwrap();
        }
    });
    let mut after = 0;
    while after < 400 {
        let events = store.events(after, 1_000).unwrap();
        let newest = store.last_seq();
        after = events.last().map_or(after, |event| event.seq);
        assert!(
            newest >= after,
            "event {after} is there and {newest} is called the newest"
        );
    }
    writing.join().unwrap();
}

#[test]
fn refusals_are_words() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    let store = Store::open(&path).unwrap();
    assert!(matches!(Store::open(&path), Err(StoreError::InUse(_))));
    store.close();
    assert_eq!(store.commit_leases(&[lease(1)]), Err(StoreError::Closed));
    assert_eq!(store.leases(), Err(StoreError::Closed));
    {
        let db = redb::Database::open(&path).unwrap();
        let tx = db.begin_write().unwrap();
        let meta = redb::TableDefinition::<&str, u64>::new("meta");
        tx.open_table(meta)
            .unwrap()
            .insert("schema", rackbar_store::SCHEMA + 1)
            .unwrap();
        tx.commit().unwrap();
    }
    let error = Store::open(&path).err().unwrap();
    assert!(matches!(error, StoreError::Newer { .. }), "{error}");
    assert!(error.to_string().contains("newer Rackbar"), "{error}");
    std::fs::write(&path, b"this is not a database, it is a sentence").unwrap();
    let error = Store::open(&path).err().unwrap();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error:?}");
}

#[test]
fn a_half_made_file_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("store.new"), b"power went here").unwrap();
    let store = Store::open(dir.path().join("store.redb")).unwrap();
    store.commit_leases(&[lease(1)]).unwrap();
    assert_eq!(store.leases().unwrap().len(), 1);
}

fn change(by: &str, n: u64) -> Event {
    let kind = EventKind::Changed {
        by: by.into(),
        what: format!("change {n}"),
        outcome: "done".into(),
        ok: true,
    };
    Event { kind, ..event(n, None) }
}

/// Trimming happens when the writer is idle, so it is waited for.
fn until_trimmed(store: &Store, to: usize) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while store.events(0, 2_000).unwrap().len() > to {
        assert!(std::time::Instant::now() < deadline, "the journal was not trimmed");
        store.flush().unwrap();
        std::thread::yield_now();
    }
}

#[test]
fn who_changed_what_outlives_the_journal_up_to_its_own_bound() {
    let options = Options {
        max_events: 10,
        max_changes: 20,
        ..Options::default()
    };
    let store = Store::in_memory(options).unwrap();
    for n in 1..=30 {
        // Changes have the even numbers.
        store.append(event(n, None));
        store.append(change(if n % 2 == 0 { "anna" } else { "ben" }, n));
    }
    store.flush().unwrap();
    until_trimmed(&store, 10);
    let numbers = |before, limit, by| -> Vec<u64> {
        let found = store.changes(before, limit, by).unwrap();
        found.iter().map(|event| event.seq).collect()
    };
    let all: Vec<u64> = (11..=30).rev().map(|n| 2 * n).collect();
    assert_eq!(
        numbers(u64::MAX, 99, None),
        all,
        "the newest twenty, most of them gone from the journal"
    );
    assert_eq!(numbers(58, 2, None), [56, 54]);
    assert_eq!(numbers(u64::MAX, 2, Some("ben")), [58, 54]);
    assert_eq!(numbers(22, 99, None), [0; 0]);
    assert_eq!(numbers(0, 99, None), [0; 0]);
    let newest = store.changes(u64::MAX, 1, None).unwrap();
    assert!(matches!(&newest[0].kind, EventKind::Changed { what, .. } if what == "change 30"));
}

#[test]
fn the_journal_keeps_its_newest_events_and_numbers_without_gaps() {
    let options = Options {
        max_events: 100,
        max_inventories: 3,
        ..Options::default()
    };
    let store = Store::in_memory(options).unwrap();
    let told = Arc::new(Mutex::new(Vec::new()));
    let sink = told.clone();
    store.set_listener(Arc::new(move |event| sink.lock().unwrap().push(event.seq)));
    let node = NodeId([1; 16]);
    for n in 0..1_000u64 {
        store.append(event(n, (n % 2 == 0).then_some(node)));
        store.save_inventory(node, Timestamp(n), &Inventory::default());
        if n % 50 == 0 {
            store.flush().unwrap();
        }
    }
    store.flush().unwrap();
    until_trimmed(&store, 100);
    let kept: Vec<u64> = store.events(0, 2_000).unwrap().iter().map(|event| event.seq).collect();
    assert_eq!(kept, (901..=1_000).collect::<Vec<_>>());
    assert_eq!(
        store.timeline(node, 2_000).unwrap().len(),
        50,
        "the index is trimmed with the journal"
    );
    assert_eq!(store.inventories(node).unwrap().len(), 3);
    assert_eq!(*told.lock().unwrap(), (1..=1_000).collect::<Vec<_>>());
}

#[test]
fn many_threads_commit_leases_together() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    let store = Store::open(&path).unwrap();
    std::thread::scope(|scope| {
        for t in 0..8u32 {
            let store = &store;
            scope.spawn(move || (0..50).for_each(|n| store.commit_leases(&[lease(t * 50 + n)]).unwrap()));
        }
    });
    drop(store);
    assert_eq!(Store::open(&path).unwrap().leases().unwrap().len(), 400);
}

#[test]
fn what_is_told_with_a_record_is_told_when_that_is_safe_and_not_at_all_when_it_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    let store = Store::open(&path).unwrap();
    let told = Arc::new(Mutex::new(Vec::new()));
    let sink = told.clone();
    store.set_listener(Arc::new(move |event| sink.lock().unwrap().push(event.at.0)));
    let write = |n: u64| {
        let key = n.to_be_bytes();
        store.put_all_telling(Table::Work, &[(&key, Some(b"done"))], vec![event(n, None)])
    };
    write(1).unwrap();
    store.cut_power_after(0);
    assert!(matches!(write(2), Err(StoreError::Failed(_))));
    // Others are told whatever the disk does, and kept for when it works again.
    store.append(event(3, None));
    assert!(store.flush().is_err());
    store.cut_power_after(u64::MAX);
    write(4).unwrap();
    store.close();
    assert_eq!(*told.lock().unwrap(), [1, 3, 4]);
    let store = Store::open(&path).unwrap();
    let kept: Vec<u64> = store.events(0, 10).unwrap().iter().map(|event| event.at.0).collect();
    assert_eq!(kept, [1, 3, 4]);
    let values: Vec<_> = store
        .list(Table::Work)
        .unwrap()
        .into_iter()
        .map(|(key, _)| key)
        .collect();
    assert_eq!(values, [1_u64, 4].map(|n| n.to_be_bytes().to_vec()));
}

/// Not a test of its own: the program that `killed_at_any_moment` kills.
#[test]
fn child_writes() {
    let Some(path) = std::env::var_os("RACKBAR_STORE_CHILD") else {
        return;
    };
    let store = Store::open(path).unwrap();
    let mut n = store.leases().unwrap().len() as u32;
    let mut out = std::io::stdout();
    loop {
        store.append(event(u64::from(n), None));
        store.commit_leases(&[lease(n)]).unwrap();
        n += 1;
        writeln!(out, "acknowledged {n}").unwrap();
        out.flush().unwrap();
    }
}

#[test]
fn killed_at_any_moment_it_opens_and_holds_what_was_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    for round in 0..12usize {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_writes", "--nocapture"])
            .env("RACKBAR_STORE_CHILD", &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut acknowledged = 0u32;
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut seen = 0;
        // In round 0 it dies as early as it can be seen to live; later at other counts.
        for line in lines.by_ref() {
            if let Some(n) = line.unwrap().strip_prefix("acknowledged ") {
                acknowledged = n.parse().unwrap();
                seen += 1;
            }
            if seen > round * 7 {
                break;
            }
        }
        child.kill().unwrap();
        // What it said before the kill arrived counts as acknowledged too; a torn last line does not.
        for line in lines.map_while(Result::ok) {
            if let Some(n) = line.strip_prefix("acknowledged ").and_then(|n| n.parse().ok()) {
                acknowledged = acknowledged.max(n);
            }
        }
        child.wait().unwrap();
        assert!(acknowledged > 0, "the child wrote nothing in round {round}");
        let store = Store::open(&path).unwrap_or_else(|error| panic!("round {round}: {error}"));
        let leases = store.leases().unwrap();
        assert!(leases.len() as u32 >= acknowledged, "round {round}: a lease is lost");
        for (n, found) in leases.iter().enumerate() {
            assert_eq!(*found, lease(n as u32), "round {round}");
        }
        let events = store.events(0, usize::MAX).unwrap();
        assert_eq!(
            events.len() as u64,
            store.last_seq(),
            "round {round}: the journal has gaps"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn leases_are_what_a_map_would_hold(batches in prop::collection::vec(prop::collection::vec((0u32..20, 0u64..1000), 0..6), 0..12)) {
        let store = Store::in_memory(Options::default()).unwrap();
        let mut expected = std::collections::BTreeMap::new();
        for batch in batches {
            let batch: Vec<Lease> = batch
                .into_iter()
                .map(|(n, at)| Lease { expires: Timestamp(at), ..lease(n) })
                .collect();
            store.commit_leases(&batch).unwrap();
            expected.extend(batch.into_iter().map(|lease| (lease.address, lease)));
        }
        prop_assert_eq!(store.leases().unwrap(), expected.into_values().collect::<Vec<_>>());
    }
}

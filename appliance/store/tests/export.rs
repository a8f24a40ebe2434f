//! Exports: everything comes back, or nothing does.
#![allow(clippy::unwrap_used, reason = "a test may unwrap")]

use proptest::prelude::*;
use rackbar_model::{Event, EventKind, Inventory, Lease, LeaseState, MacAddr, NodeId, SecretText, Severity, Timestamp};
use rackbar_store::{BmcLogin, LockState, Options, Store, StoreError, Table, read_bmc_logins};

const WORDS: &str = "an export's passphrase";
const TABLES: [Table; 5] = [Table::Secrets, Table::Config, Table::Tokens, Table::Bmcs, Table::Work];

/// What somebody did to a store.
#[derive(Clone, Debug)]
enum Deed {
    Put(usize, Vec<u8>, Vec<u8>),
    Node(u8, Vec<u8>),
    Inventory(u8, u64),
    Lease(u8, u64),
    Event(Option<u8>, String),
    Change(String),
}

fn deed() -> impl Strategy<Value = Deed> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..40);
    prop_oneof![
        (0usize..5, bytes(), bytes()).prop_map(|(t, k, v)| Deed::Put(t, k, v)),
        (any::<u8>(), bytes()).prop_map(|(n, v)| Deed::Node(n, v)),
        (0u8..3, 0u64..9).prop_map(|(n, at)| Deed::Inventory(n, at)),
        (any::<u8>(), any::<u64>()).prop_map(|(n, at)| Deed::Lease(n, at)),
        (prop::option::of(0u8..3), "[a-z]{0,9}").prop_map(|(n, text)| Deed::Event(n, text)),
        "[a-z]{0,9}".prop_map(Deed::Change),
    ]
}

fn carry_out(store: &Store, deed: &Deed) {
    let node = |n: &u8| NodeId([*n; 16]);
    match deed {
        Deed::Put(table, key, value) => store.put(TABLES[*table], key, value).unwrap(),
        Deed::Node(n, json) => store.save_node(node(n), json.clone()),
        Deed::Inventory(n, at) => store.save_inventory(node(n), Timestamp(*at), &Inventory::default()),
        Deed::Lease(n, at) => store
            .commit_leases(&[Lease {
                address: [10, 0, 0, *n].into(),
                network: "rack".into(),
                mac: MacAddr([2, 0, 0, 0, 0, *n]),
                client_id: vec![*n],
                hostname: None,
                state: LeaseState::Bound,
                expires: Timestamp(*at),
            }])
            .unwrap(),
        Deed::Event(n, text) => tell(
            store,
            n.as_ref().map(node),
            EventKind::Note {
                text: text.clone(),
                severity: Severity::Info,
            },
        ),
        Deed::Change(by) => tell(
            store,
            None,
            EventKind::Changed {
                by: by.clone(),
                what: "site".into(),
                outcome: "done".into(),
                ok: true,
            },
        ),
    }
}

fn tell(store: &Store, node: Option<NodeId>, kind: EventKind) {
    assert!(store.append(Event {
        seq: 0,
        at: Timestamp(1),
        node,
        mac: None,
        kind,
    }));
}

/// Everything a store tells.
fn content(store: &Store) -> String {
    store.flush().unwrap();
    let lists: Vec<_> = TABLES.iter().map(|table| store.list(*table).unwrap()).collect();
    let of = |n: u8| {
        let node = NodeId([n; 16]);
        (store.inventories(node).unwrap(), store.timeline(node, 99).unwrap())
    };
    format!(
        "{lists:?} {:?} {:?} {:?} {:?} {:?} {}",
        store.nodes().unwrap(),
        store.leases().unwrap(),
        store.events(0, 999).unwrap(),
        store.changes(u64::MAX, 999, None).unwrap(),
        [of(0), of(1), of(2)],
        store.last_seq()
    )
}

proptest! {
    // Each case stretches passphrases, which is slow on purpose.
    #![proptest_config(ProptestConfig::with_cases(3))]

    #[test]
    fn an_export_opens_elsewhere_with_equal_content(deeds in prop::collection::vec(deed(), 0..40)) {
        let dir = tempfile::tempdir().unwrap();
        let first = Store::open(dir.path().join("first.redb")).unwrap();
        deeds.iter().for_each(|deed| carry_out(&first, deed));
        let mut file = Vec::new();
        let info = first.export(&mut file, WORDS, "0.1.0", Timestamp(7), Vec::new()).unwrap();
        let path = dir.path().join("second.redb");
        prop_assert_eq!(Store::import(&path, &mut &file[..], WORDS, false).unwrap(), info);
        let second = Store::open(&path).unwrap();
        prop_assert_eq!(second.lock_state(), LockState::KeyFile);
        prop_assert_eq!(content(&second), content(&first));
    }
}

fn sample() -> Vec<u8> {
    let store = Store::in_memory(Options::default()).unwrap();
    store.put(Table::Secrets, b"ca", b"the site's own key").unwrap();
    store.put(Table::Config, b"c", b"config").unwrap();
    store.save_node(NodeId([1; 16]), b"{}".to_vec());
    let mut file = Vec::new();
    store
        .export(&mut file, WORDS, "0.1.0", Timestamp(7), Vec::new())
        .unwrap();
    file
}

#[test]
fn a_damaged_or_newer_export_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    let good = sample();
    assert!(
        !good.windows(8).any(|part| part == b"the site"),
        "secrets are sealed in it"
    );
    Store::open(&path).unwrap().put(Table::Config, b"old", b"here").unwrap();
    let import = |file: &[u8], words: &str| Store::import(&path, &mut &*file, words, true);

    assert_eq!(import(&good, "another passphrase"), Err(StoreError::WrongPassphrase));
    let start = good.iter().position(|byte| *byte == b'{').unwrap();
    // Of what comes after the lengths only samples: each stretches the passphrase anew.
    let places = (0..start)
        .chain((start..good.len()).step_by(71))
        .chain(good.len() - 3..good.len());
    for at in places {
        let mut file = good.clone();
        file[at] ^= 1;
        assert!(import(&file, WORDS).is_err(), "byte {at}");
    }
    for length in [0, 1, 15, start, good.len() / 2, good.len() - 1] {
        assert!(import(&good[..length], WORDS).is_err(), "{length} bytes");
    }
    assert!(import(&[good.as_slice(), b"x"].concat(), WORDS).is_err());
    let mut newer = good.clone();
    newer[15] = 3;
    let error = import(&newer, WORDS).unwrap_err();
    assert!(error.to_string().contains("newer Rackbar"), "{error}");

    let refused = Store::import(&path, &mut &good[..], WORDS, false).unwrap_err();
    assert!(refused.to_string().contains("there already"), "{refused}");
    let store = Store::open(&path).unwrap();
    assert_eq!(store.get(Table::Config, b"old").unwrap().unwrap(), b"here");
    assert_eq!(store.get(Table::Secrets, b"ca").unwrap(), None);
    drop(store);
    let left: Vec<_> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left.len(), 2, "only the store and its key: {left:?}");

    import(&good, WORDS).unwrap();
    let store = Store::open(&path).unwrap();
    assert_eq!(
        store.get(Table::Secrets, b"ca").unwrap().unwrap(),
        b"the site's own key"
    );
    assert_eq!(store.get(Table::Config, b"old").unwrap(), None);
}

#[test]
fn bmc_passwords_leave_only_under_a_passphrase_of_their_own() {
    let store = Store::in_memory(Options::default()).unwrap();
    let node = NodeId([4; 16]);
    store
        .save_bmc_login(node, &BmcLogin::told("admin", &SecretText("s3cret-pass".into())))
        .unwrap();
    assert!(store.export_bmc_logins("short").is_err());
    let file = store.export_bmc_logins(WORDS).unwrap();
    assert!(!String::from_utf8(file.clone()).unwrap().contains("admin"));
    let read = read_bmc_logins(&file, WORDS).unwrap();
    assert_eq!(read, [(node.to_string(), store.bmc_login(node).unwrap().unwrap())]);
    assert_eq!(
        read_bmc_logins(&file, "another passphrase"),
        Err(StoreError::WrongPassphrase)
    );
    assert!(matches!(read_bmc_logins(b"{}", WORDS), Err(StoreError::BadExport(_))));
}

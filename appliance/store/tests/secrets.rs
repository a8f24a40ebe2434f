//! Secrets at rest: what lies on the disk, what opens it, and passwords that change without being lost.
#![allow(clippy::unwrap_used, reason = "a test may unwrap")]

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rackbar_model::{NodeId, SecretText, Timestamp};
use rackbar_store::{BmcLogin, LockState, Options, Store, StoreError, Table};
use redb::{ReadableDatabase as _, TableDefinition};

const PLAIN: &[u8] = b"this text must not be found on the disk";
const SECRETS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("secrets");

fn place() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    (dir, path)
}

fn lies_open(path: &Path) -> bool {
    std::fs::read(path)
        .unwrap()
        .windows(PLAIN.len())
        .any(|part| part == PLAIN)
}

#[test]
fn secrets_are_sealed_on_disk_and_open_with_the_key_file() {
    let (_dir, path) = place();
    let key = path.with_extension("key");
    let store = Store::open(&path).unwrap();
    store.put(Table::Secrets, b"ca", PLAIN).unwrap();
    store.put(Table::Config, b"open", b"config").unwrap();
    store.close();
    assert!(!lies_open(&path));
    assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);

    let store = Store::open(&path).unwrap();
    assert_eq!(store.lock_state(), LockState::KeyFile);
    assert_eq!(store.get(Table::Secrets, b"ca").unwrap().unwrap(), PLAIN);
    assert_eq!(store.list(Table::Secrets).unwrap(), [(b"ca".to_vec(), PLAIN.to_vec())]);
    store.close();

    // Without its key file the store opens, and says what is missing.
    std::fs::rename(&key, key.with_extension("away")).unwrap();
    let store = Store::open(&path).unwrap();
    assert!(!store.lock_state().is_open());
    let error = store.get(Table::Secrets, b"ca").unwrap_err();
    assert!(error.to_string().contains("store.key"), "{error}");
    assert!(store.put(Table::Secrets, b"ca", b"new").is_err());
    assert_eq!(store.get(Table::Config, b"open").unwrap().unwrap(), b"config");
    store.close();
    std::fs::rename(key.with_extension("away"), &key).unwrap();
    assert_eq!(
        Store::open(&path).unwrap().get(Table::Secrets, b"ca").unwrap().unwrap(),
        PLAIN
    );
}

#[test]
fn a_store_behind_a_passphrase_starts_locked_and_works_but_for_secrets() {
    let (_dir, path) = place();
    let store = Store::open(&path).unwrap();
    store.put(Table::Secrets, b"ca", PLAIN).unwrap();
    assert!(store.set_passphrase("short").is_err());
    store.set_passphrase("correct horse battery").unwrap();
    assert_eq!(store.get(Table::Secrets, b"ca").unwrap().unwrap(), PLAIN);
    store.close();
    assert!(!path.with_extension("key").exists() && !lies_open(&path));

    let store = Store::open(&path).unwrap();
    assert_eq!(store.lock_state(), LockState::NeedsPassphrase);
    assert!(matches!(store.list(Table::Secrets), Err(StoreError::Locked(_))));
    store.save_node(NodeId([1; 16]), b"{}".to_vec());
    store.flush().unwrap();
    assert_eq!(store.nodes().unwrap().len(), 1);
    assert_eq!(store.unlock("wrong horse battery"), Err(StoreError::WrongPassphrase));
    assert!(!store.lock_state().is_open());
    store.unlock("correct horse battery").unwrap();
    assert_eq!(store.get(Table::Secrets, b"ca").unwrap().unwrap(), PLAIN);

    // Back to a key file: the passphrase opens nothing any more.
    store.set_key_file().unwrap();
    store.close();
    let store = Store::open(&path).unwrap();
    assert_eq!(store.lock_state(), LockState::KeyFile);
    assert_eq!(store.get(Table::Secrets, b"ca").unwrap().unwrap(), PLAIN);
    assert!(store.unlock("correct horse battery").is_err());
}

#[test]
fn a_store_of_version_1_is_sealed_when_it_is_opened() {
    let (_dir, path) = place();
    {
        let db = redb::Database::create(&path).unwrap();
        let tx = db.begin_write().unwrap();
        tx.open_table(TableDefinition::<&str, u64>::new("meta"))
            .unwrap()
            .insert("schema", 1)
            .unwrap();
        tx.open_table(TableDefinition::<u64, &[u8]>::new("events")).unwrap();
        tx.open_table(TableDefinition::<&[u8], ()>::new("node_events")).unwrap();
        for name in ["leases", "nodes", "inventories", "config", "tokens"] {
            tx.open_table(TableDefinition::<&[u8], &[u8]>::new(name)).unwrap();
        }
        tx.open_table(SECRETS).unwrap().insert(&b"ca"[..], PLAIN).unwrap();
        tx.commit().unwrap();
    }
    let store = Store::open(&path).unwrap();
    assert_eq!(store.get(Table::Secrets, b"ca").unwrap().unwrap(), PLAIN);
    assert_eq!(store.list(Table::Bmcs).unwrap(), []);
    store.close();
    let db = redb::Database::open(&path).unwrap();
    let table = db.begin_read().unwrap().open_table(SECRETS).unwrap();
    let sealed = table.get(&b"ca"[..]).unwrap().unwrap();
    assert!(sealed.value().starts_with(b"RBS1"));
    drop((sealed, table, db));
    assert_eq!(
        Store::open(&path).unwrap().get(Table::Secrets, b"ca").unwrap().unwrap(),
        PLAIN
    );
}

#[test]
fn a_secret_moved_to_another_name_does_not_open() {
    let (_dir, path) = place();
    let store = Store::open(&path).unwrap();
    store.put(Table::Secrets, b"ca", PLAIN).unwrap();
    store.close();
    {
        let db = redb::Database::open(&path).unwrap();
        let tx = db.begin_write().unwrap();
        let mut table = tx.open_table(SECRETS).unwrap();
        let sealed = table.remove(&b"ca"[..]).unwrap().unwrap().value().to_vec();
        table.insert(&b"signer"[..], &*sealed).unwrap();
        drop(table);
        tx.commit().unwrap();
    }
    let error = Store::open(&path).unwrap().get(Table::Secrets, b"signer").unwrap_err();
    assert!(error.to_string().contains("moved from another place"), "{error}");
}

/// A BMC that takes or refuses a password, and an appliance that dies after each step in turn.
#[test]
fn a_password_change_interrupted_anywhere_never_locks_out() {
    let node = NodeId([3; 16]);
    let (old, at) = (SecretText("old".into()), Timestamp(9));
    for takes in [true, false] {
        for dies_after in 0..4 {
            let (_dir, path) = place();
            let mut bmc = old.clone();
            let store = Store::open(&path).unwrap();
            store.save_bmc_login(node, &BmcLogin::told("admin", &old)).unwrap();
            let step = |n| n < dies_after;
            if step(0) {
                let pending = store.begin_bmc_password(node, 16).unwrap().pending.unwrap();
                if step(1) && takes {
                    bmc = pending;
                }
            }
            if step(2) {
                match takes {
                    true => store.prove_bmc_password(node, at).unwrap(),
                    false => store.drop_bmc_password(node, at).unwrap(),
                };
            }
            drop(store);

            let store = Store::open(&path).unwrap();
            let login = store.bmc_login(node).unwrap().unwrap();
            let tried: Vec<_> = login.candidates().collect();
            assert!(
                tried.len() <= 2 && tried.contains(&&bmc),
                "takes {takes}, died after {dies_after}"
            );
            // Taken up again, the step gives the same new password, not a third.
            if let Some(pending) = &login.pending {
                assert_eq!(
                    store.begin_bmc_password(node, 16).unwrap().pending.as_ref(),
                    Some(pending)
                );
            }
            assert!(!format!("{login:?}").contains("old"));
        }
    }
}

#[test]
fn a_store_in_memory_keeps_secrets_too() {
    let store = Store::in_memory(Options::default()).unwrap();
    store.put(Table::Secrets, b"ca", PLAIN).unwrap();
    assert_eq!(store.lock_state(), LockState::Memory);
    assert_eq!(store.get(Table::Secrets, b"ca").unwrap().unwrap(), PLAIN);
    let node = NodeId([3; 16]);
    assert!(
        store.begin_bmc_password(node, 16).is_err(),
        "there is no account to change"
    );
    store
        .save_bmc_login(node, &BmcLogin::told("admin", &SecretText("x".into())))
        .unwrap();
    store.begin_bmc_password(node, 20).unwrap();
    let proven = store.prove_bmc_password(node, Timestamp(4)).unwrap();
    assert!(proven.own && proven.pending.is_none() && proven.current.0.len() == 20);
    assert_eq!(store.bmc_logins().unwrap(), [(node.to_string(), proven)]);
}

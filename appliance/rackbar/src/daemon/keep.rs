//! The state as a whole: taken out as one sealed file, another put in its place, and the lock of the stored secrets.
//!
//! A state file that is put in becomes the store's file at once, and the daemon then starts anew from it: nothing of the
//! old state is left in any part's memory. What was there before stays beside it under another name.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rackbar_control::operations::{Refused, SecretsLock, StorageOrder};
use rackbar_model::{EventKind, Severity, Timestamp};
use rackbar_orchestrator::Rack;
use rackbar_store::{LockState, Store, StoreError};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::services::status;
use super::setup::STORE;
use super::storage::Storage;

/// Who put the present state in, told to the journal of that state at the next start.
const IMPORTED: &str = "imported.json";

/// The store, where it lies, and how the daemon is asked to start anew.
#[derive(Clone)]
pub(super) struct Keep {
    pub(super) store: Store,
    /// Folder of the store.
    pub(super) folder: PathBuf,
    /// The configuration's file.
    pub(super) config: PathBuf,
    /// The run folder.
    pub(super) run: PathBuf,
    pub(super) restart: Arc<Notify>,
    pub(super) storage: Storage,
}

#[derive(Serialize, Deserialize)]
struct Imported {
    by: String,
    taken: String,
}

fn refused(error: StoreError) -> Refused {
    match error {
        StoreError::WrongPassphrase | StoreError::BadExport(_) => Refused::Invalid(error.to_string()),
        StoreError::Locked(_) => Refused::Conflict(error.to_string()),
        _ => Refused::Internal(error.to_string()),
    }
}

pub(super) fn now() -> Timestamp {
    status("", String::new(), Severity::Info).since
}

impl Keep {
    pub(super) fn export(&self, passphrase: &str) -> Result<Vec<u8>, Refused> {
        let mut file = Vec::new();
        let version = env!("CARGO_PKG_VERSION");
        let written = self.store.export(&mut file, passphrase, version, now());
        written.map(|_| file).map_err(refused)
    }

    /// Puts a state file in the place of the store, and asks for the new start.
    pub(super) fn import(&self, file: &[u8], passphrase: &str, by: &str) -> Result<String, Refused> {
        if self.store.lock_state() == LockState::Memory {
            let words = "this appliance works from memory, so a state that is put in would be lost at once: give it a \
                         disk first (`rackbar storage use`)";
            return Err(Refused::Conflict(words.into()));
        }
        let path = self.folder.join(STORE);
        let before = path.with_extension("before-import");
        let internal = |error: std::io::Error| Refused::Internal(format!("{}: {error}", before.display()));
        match std::fs::remove_file(&before) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(internal(error)),
            _ => {}
        }
        // A second name for the same file: the import takes the first one away.
        std::fs::hard_link(&path, &before).map_err(internal)?;
        let info = match Store::import(&path, &mut &file[..], passphrase, true) {
            Ok(info) => info,
            Err(error) => {
                let _ = std::fs::remove_file(&before);
                return Err(refused(error));
            }
        };
        let taken = format!(
            "the state that Rackbar {} saved at {} is in place, and the appliance starts anew with it; what was there \
             before is kept as {}",
            info.appliance,
            info.at,
            before.display()
        );
        self.leave_word(by, &taken);
        self.restart.notify_one();
        Ok(taken)
    }

    /// The journal that is open now goes away; the next one shall know who did it.
    fn leave_word(&self, by: &str, taken: &str) {
        let word = Imported {
            by: by.to_owned(),
            taken: taken.to_owned(),
        };
        let written = serde_json::to_vec(&word)
            .map_err(std::io::Error::other)
            .and_then(|json| std::fs::write(self.folder.join(IMPORTED), json));
        if let Err(error) = written {
            tracing::error!(%error, "who put the state in cannot be told to its journal");
        }
    }

    pub(super) fn lock(&self) -> Result<SecretsLock, Refused> {
        let (lock, words) = match self.store.lock_state() {
            LockState::KeyFile => ("key_file", rackbar_store::KEY_FILE_WARNING.to_owned()),
            LockState::Memory => (
                "memory",
                "the store is in memory: secrets are lost with the power".to_owned(),
            ),
            LockState::Passphrase => (
                "passphrase",
                "behind a passphrase: after every start the appliance waits for it, on its console or from `rackbar \
                 unlock`, and serves nothing until then"
                    .to_owned(),
            ),
            LockState::NeedsPassphrase => ("locked", "locked: `rackbar unlock` opens them".to_owned()),
            LockState::KeyFileLost(why) => ("locked", why),
        };
        Ok(SecretsLock {
            lock: lock.into(),
            words,
        })
    }

    pub(super) fn lock_with(&self, passphrase: Option<&str>) -> Result<SecretsLock, Refused> {
        if self.store.lock_state() == LockState::Memory {
            let words = "the store is in memory and gone with the power: there is nothing to lock";
            return Err(Refused::Conflict(words.into()));
        }
        match passphrase {
            Some(passphrase) => self.store.set_passphrase(passphrase),
            None => self.store.set_key_file(),
        }
        .map_err(refused)?;
        self.lock()
    }

    /// Prepares a disk for the state, and asks for the new start, before which the state moves there.
    pub(super) fn use_disk(&self, order: &StorageOrder, by: &str, rack: &Rack) -> Result<String, Refused> {
        let words = self.storage.use_disk(order, by, &self.store, rack)?;
        self.restart.notify_one();
        Ok(words)
    }

    pub(super) fn bmc_logins(&self, passphrase: &str) -> Result<Vec<u8>, Refused> {
        self.store.export_bmc_logins(passphrase).map_err(refused)
    }
}

/// Who put the present state in, when that was just done.
pub(super) fn imported(folder: &Path) -> Option<EventKind> {
    let path = folder.join(IMPORTED);
    let word: Imported = serde_json::from_slice(&std::fs::read(&path).ok()?).ok()?;
    std::fs::remove_file(&path).ok()?;
    Some(EventKind::Changed {
        by: word.by,
        what: "put a state file in".into(),
        outcome: word.taken,
        ok: true,
    })
}

//! The state as a whole: taken out as one sealed file, another put in its place, and the lock of the stored secrets.
//!
//! After a state file was put in (`carry`), the daemon starts anew from it: nothing of the old state is left in any part's
//! memory. What was there before stays beside it under another name.

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rackbar_control::operations::{Refused, SecretsLock, StorageOrder};
use rackbar_model::{EventKind, Severity, Timestamp};
use rackbar_orchestrator::Rack;
use rackbar_store::{LockState, Store, StoreError};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::carry::{Importing, hold};
use super::services::status;
use super::storage::Storage;

/// Who put the present state in, told to the journal of that state at the next start.
pub(super) const IMPORTED: &str = "imported.json";

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
    pub(super) importing: Importing,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Imported {
    pub(super) by: String,
    pub(super) taken: String,
}

pub(super) fn refused(error: StoreError) -> Refused {
    match error {
        StoreError::WrongPassphrase | StoreError::BadExport(_) => Refused::Invalid(error.to_string()),
        StoreError::Locked(_) | StoreError::NoRoom(_) => Refused::Conflict(error.to_string()),
        _ => Refused::Internal(error.to_string()),
    }
}

pub(super) fn now() -> Timestamp {
    status("", String::new(), Severity::Info).since
}

impl Keep {
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
        let _alone = hold(self)?;
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

/// Who put the present state in, when that was just done. It is known until [`forget_import`]: a start that is cut off
/// before the runs of that state are ended must not have the next one go on with them.
pub(super) fn imported(folder: &Path) -> Option<EventKind> {
    let path = folder.join(IMPORTED);
    let word: Imported = serde_json::from_slice(&std::fs::read(&path).ok()?).ok()?;
    Some(EventKind::Changed {
        by: word.by,
        what: "put a state file in".into(),
        outcome: word.taken,
        ok: true,
    })
}

/// The runs of the state that was put in are ended: from now on it is as any other.
pub(super) fn forget_import(folder: &Path) {
    let forgotten = std::fs::remove_file(folder.join(IMPORTED)).and_then(|()| File::open(folder)?.sync_all());
    match forgotten {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            tracing::error!(%error, "{IMPORTED} stays in {}: the next start ends the runs that are open then", folder.display());
        }
        _ => {}
    }
}

//! Where the state lies, and its move from memory to a disk of this machine.
//!
//! `use_disk` prepares the disk and copies while everything runs; the daemon then stops as for any restart, the rest is
//! copied, the disk takes the place of the memory ([`Storage::settle`]), and the daemon starts anew. Whatever fails before
//! the disk has its name leaves the state in memory, where the daemon then starts again.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use rackbar_control::operations::{Refused, StorageDisk, StorageOrder, StorageState};
use rackbar_hardware::Root;
use rackbar_model::{EventKind, Severity};
use rackbar_orchestrator::Rack;
use rackbar_services::EventSink as _;
use rackbar_storage::{OwnDisk, Prepared, Refusal, StorageError, choose, copy, prepare, survey};
use rackbar_store::{LockState, Store};
use serde::{Deserialize, Serialize};

/// Init's note that the data folder is memory, with the reason.
const VOLATILE: &str = "volatile";

/// Why the last move failed; gone with the power, as the state then is.
const FAILED: &str = "move-failed";

/// What became of a move, told to the journal at the next start.
const MOVED: &str = "moved.json";

/// A disk that waits for the daemon to stop.
struct Ready {
    prepared: Prepared,
    /// When the first copy began.
    began: SystemTime,
    by: String,
    disk: String,
}

#[derive(Default)]
enum Move {
    #[default]
    None,
    Preparing,
    Ready(Box<Ready>),
}

/// The state's place.
#[derive(Clone)]
pub(super) struct Storage {
    data: PathBuf,
    run: PathBuf,
    under_way: Arc<Mutex<Move>>,
}

#[derive(Serialize, Deserialize)]
struct Moved {
    by: String,
    outcome: String,
    ok: bool,
}

/// The device and kind of file system mounted at a folder, by the last line of the kernel's list that says so.
fn mounted_at(folder: &Path, mounts: &str) -> Option<(String, String)> {
    let folder = folder.to_str()?;
    let line = mounts.lines().rfind(|line| line.split(' ').nth(1) == Some(folder))?;
    let mut words = line.split(' ');
    Some((words.next()?.to_owned(), words.nth(1)?.to_owned()))
}

fn mounts() -> String {
    std::fs::read_to_string("/proc/self/mounts").unwrap_or_default()
}

fn refused(refusal: Refusal) -> Refused {
    match refusal {
        Refusal::Unknown { .. } => Refused::NotFound(refusal.to_string()),
        Refusal::Ambiguous { .. } | Refusal::Unfit(_) | Refusal::Consent { .. } => {
            Refused::Conflict(refusal.to_string())
        }
    }
}

/// A disk, and what would come of choosing it.
fn shown(own: &OwnDisk, all: &[OwnDisk]) -> StorageDisk {
    let verdict = choose(all, &own.disk.name, None);
    StorageDisk {
        name: own.disk.name.clone(),
        model: own.disk.model.clone(),
        serial: own.disk.serial.clone(),
        wwn: own.disk.wwn.clone(),
        by_path: own.disk.by_path.clone(),
        size_bytes: own.disk.size_bytes,
        holds: own.holds.clone(),
        users: own.users.clone(),
        needs_consent: matches!(verdict, Err(Refusal::Consent { .. })),
        refusal: match verdict {
            Ok(_) | Err(Refusal::Consent { .. }) => None,
            Err(refusal) => Some(refusal.to_string()),
        },
    }
}

impl Storage {
    pub(super) fn new(data: &Path, run: &Path) -> Self {
        Self {
            data: data.to_owned(),
            run: run.to_owned(),
            under_way: Arc::default(),
        }
    }

    /// Why the state is in memory; `None` when it is on a disk.
    fn volatile(&self) -> Option<String> {
        let why = std::fs::read_to_string(self.run.join(VOLATILE)).ok()?;
        Some(why.trim().to_owned())
    }

    pub(super) fn state(&self) -> StorageState {
        let why = self.volatile();
        let words = match (&why, mounted_at(&self.data, &mounts())) {
            (Some(why), _) => format!("in memory and lost with the power: {why}"),
            (None, Some((device, kind))) => format!("on {device} ({kind})"),
            (None, None) => format!("in the folder {}", self.data.display()),
        };
        let all = survey(&Root::default());
        StorageState {
            volatile: why.is_some(),
            words,
            failed: std::fs::read_to_string(self.run.join(FAILED)).ok(),
            disks: all.iter().map(|own| shown(own, &all)).collect(),
        }
    }

    /// Prepares the disk and copies what there is; [`Storage::settle`] does the rest when the daemon has stopped.
    pub(super) fn use_disk(
        &self,
        order: &StorageOrder,
        by: &str,
        store: &Store,
        rack: &Rack,
    ) -> Result<String, Refused> {
        self.may_move(store)?;
        {
            let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
            if !matches!(*under_way, Move::None) {
                return Err(Refused::Conflict("the state is being moved already".into()));
            }
            *under_way = Move::Preparing;
        }
        let made = self.make_ready(order, by, store, rack);
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        let (next, answer) = match made {
            Ok((ready, words)) => (Move::Ready(Box::new(ready)), Ok(words)),
            Err(refused) => (Move::None, Err(refused)),
        };
        *under_way = next;
        answer
    }

    fn may_move(&self, store: &Store) -> Result<(), Refused> {
        if self.volatile().is_none() {
            let words = format!(
                "the state is kept already: it is {}. To move it to another appliance or disk use `rackbar export` and \
                 `rackbar import`",
                self.state().words
            );
            return Err(Refused::Conflict(words));
        }
        let is_memory = mounted_at(&self.data, &mounts()).is_some_and(|(_, kind)| kind == "tmpfs");
        if !is_memory || store.lock_state() == LockState::Memory {
            let words = format!(
                "{} is not the memory that an appliance's init mounts there, so a disk cannot take its place: restart \
                 the appliance",
                self.data.display()
            );
            return Err(Refused::Conflict(words));
        }
        Ok(())
    }

    fn make_ready(
        &self,
        order: &StorageOrder,
        by: &str,
        store: &Store,
        rack: &Rack,
    ) -> Result<(Ready, String), Refused> {
        let all = survey(&Root::default());
        let own = choose(&all, &order.disk, order.destroy.as_deref()).map_err(refused)?;
        let serial = own.disk.serial.as_deref().unwrap_or("none");
        let disk = format!("{} (serial {serial})", own.disk.name);
        let _ = std::fs::remove_file(self.run.join(FAILED));
        rack.event(
            None,
            EventKind::Note {
                text: format!("the disk {disk} is prepared for the appliance's state"),
                severity: Severity::Info,
            },
        );
        let failed = |error: StorageError| {
            Refused::Internal(format!(
                "{error}; the state stays in memory, and {disk} may be half prepared"
            ))
        };
        let prepared = prepare(&Root::default(), own, &self.run.join("new-data")).map_err(failed)?;
        prepared.has_room_for(&self.data).map_err(failed)?;
        let began = SystemTime::now();
        let copied = copy(&self.data, prepared.path(), None).map_err(failed)?;
        prepared.sync().map_err(failed)?;
        let words = format!(
            "{disk} is prepared and {} MiB in {} files are copied; the appliance starts anew on it now{}",
            copied.bytes >> 20,
            copied.files,
            if store.lock_state() == LockState::Passphrase {
                ", and then waits for the passphrase of its secrets (`rackbar unlock`)"
            } else {
                ""
            }
        );
        let ready = Ready {
            prepared,
            began,
            by: by.to_owned(),
            disk,
        };
        Ok((ready, words))
    }

    /// When everything has stopped: copies what changed, and lets the disk that is ready take the place of the memory.
    pub(super) fn settle(&self) {
        let under_way = std::mem::take(&mut *self.under_way.lock().unwrap_or_else(PoisonError::into_inner));
        let Move::Ready(ready) = under_way else { return };
        let Ready {
            prepared,
            began,
            by,
            disk,
        } = *ready;
        let word = |ok, outcome| Moved {
            by: by.clone(),
            outcome,
            ok,
        };
        let moved = copy(&self.data, prepared.path(), Some(began)).and_then(|_| {
            leave_word(prepared.path(), &word(true, format!("the state is on {disk} now")));
            prepared.settle(&self.data, &self.run.join("old-data"))
        });
        match moved {
            Ok(()) => {
                if let Err(error) = std::fs::remove_file(self.run.join(VOLATILE)) {
                    tracing::error!(%error, "init's note that the state is in memory is still there");
                }
            }
            Err(error) => {
                tracing::error!(%error, "the state stays in memory");
                leave_word(&self.data, &word(false, format!("the state stays in memory: {error}")));
                // Shown to whoever asked; the journal has it too.
                let _ = std::fs::write(self.run.join(FAILED), error.to_string());
            }
        }
    }
}

fn leave_word(folder: &Path, word: &Moved) {
    let json = serde_json::to_vec(word).unwrap_or_default();
    if let Err(error) = std::fs::write(folder.join(MOVED), json) {
        tracing::error!(%error, "what became of the move cannot be told to the journal");
    }
}

/// What became of a move, when that was just done.
pub(super) fn moved(data: &Path) -> Option<EventKind> {
    let path = data.join(MOVED);
    let word: Moved = serde_json::from_slice(&std::fs::read(&path).ok()?).ok()?;
    std::fs::remove_file(&path).ok()?;
    Some(EventKind::Changed {
        by: word.by,
        what: "move the state to a disk".into(),
        outcome: word.outcome,
        ok: word.ok,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_mount_at_a_folder_counts() {
        let mounts = "tmpfs /data tmpfs rw 0 0\n/dev/sda1 /data ext4 rw 0 0\ntmpfs /database tmpfs rw 0 0\n";
        let found = |folder: &str| mounted_at(Path::new(folder), mounts);
        assert_eq!(found("/data"), Some(("/dev/sda1".into(), "ext4".into())));
        assert_eq!(found("/dat"), None);
    }

    #[test]
    fn what_became_of_a_move_is_told_once() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(moved(folder.path()), None);
        let word = Moved {
            by: "anna".into(),
            outcome: "the state is on sda (serial 1) now".into(),
            ok: true,
        };
        leave_word(folder.path(), &word);
        assert!(matches!(moved(folder.path()), Some(EventKind::Changed { by, ok: true, .. }) if by == "anna"));
        assert_eq!(moved(folder.path()), None);
    }
}

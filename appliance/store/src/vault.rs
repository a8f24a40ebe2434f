//! The lock on the secrets table: a random key seals every value, and that key lies in the file sealed by another,
//! which comes from a key file beside the store or from a passphrase.
//!
//! ```text
//!   key file or passphrase ──opens──▶ lock record ──holds──▶ sealing key ──opens──▶ secrets
//! ```
//! Two steps, so that what the passphrase gives never seals more than one record. A new passphrase or key file brings a
//! new sealing key with it, and every secret is sealed again in the same commit.
//!
//! A store behind a passphrase opens locked: leases, nodes, events and configuration work, secrets answer
//! [`StoreError::Locked`] until [`Store::unlock`]. A key file opens at once; it protects a copied store file or an old
//! backup, but not a stolen disk, which [`KEY_FILE_WARNING`] says.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use rackbar_trust::Secret;
use rackbar_trust::seal::{SealError, SealKey, Stretch};
use serde::{Deserialize, Serialize};

use crate::queue::Op;
use crate::tables::{self, Home};
use crate::{Store, StoreError, Table};

/// What an operator is told while the key of the secrets lies beside them.
pub const KEY_FILE_WARNING: &str = "the key of the stored secrets lies in a file on the same disk: who takes the disk reads \
     BMC passwords and site keys. Set a passphrase with `rackbar secrets passphrase` when that matters";

/// Context of the lock record; secrets have the context `["secrets", key]`.
const LOCK_CONTEXT: &[&[u8]] = &[b"lock"];

/// How the secrets are locked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LockState {
    /// Open; the key comes from a file beside the store ([`KEY_FILE_WARNING`]).
    KeyFile,
    /// Open; the store is in memory and dies with it.
    Memory,
    /// Open; a passphrase was given.
    Passphrase,
    /// Locked: a passphrase is needed.
    NeedsPassphrase,
    /// Locked: the key file is missing or another one; says which and why.
    KeyFileLost(String),
}

impl LockState {
    /// True when secrets can be read and written.
    pub const fn is_open(&self) -> bool {
        matches!(self, Self::KeyFile | Self::Memory | Self::Passphrase)
    }
}

/// The record that holds the sealing key. JSON, so that later versions can add to it.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Lock {
    version: u32,
    /// `None`: the key file.
    passphrase: Option<(/* salt */ [u8; 16], /* iterations */ u32)>,
    /// The sealing key, sealed.
    sealed: Vec<u8>,
}

const LOCK_VERSION: u32 = 1;

/// The sealing key and what is known of the lock.
pub(crate) struct Vault {
    pub(crate) state: LockState,
    pub(crate) key: Option<SealKey>,
}

pub(crate) fn failed(error: SealError) -> StoreError {
    StoreError::Failed(format!("the secrets: {error}"))
}

impl Vault {
    /// Opens the lock of a store; makes one, and seals what lies open, where there is none.
    pub(crate) fn open(db: &redb::Database, home: &Home) -> Result<Self, StoreError> {
        let Some(record) = tables::lock(db)? else {
            return Self::make(db, home);
        };
        let lock = Lock::read(&record)?;
        if lock.passphrase.is_some() {
            return Ok(Self::locked(LockState::NeedsPassphrase));
        }
        let Home::File(path) = home else {
            return Err(StoreError::Failed("a store in memory has no key file".into()));
        };
        let opened = read_key_file(&key_path(path)).and_then(|outer| lock.unseal(&outer).map_err(|e| e.to_string()));
        Ok(match opened {
            Ok(key) => Self {
                state: LockState::KeyFile,
                key: Some(key),
            },
            Err(why) => Self::locked(LockState::KeyFileLost(why)),
        })
    }

    fn locked(state: LockState) -> Self {
        Self { state, key: None }
    }

    fn make(db: &redb::Database, home: &Home) -> Result<Self, StoreError> {
        let (outer, state) = match home {
            Home::Memory => (new_key()?.1, LockState::Memory),
            Home::File(path) => (make_key_file(&key_path(path))?, LockState::KeyFile),
        };
        let (inner, key) = new_key()?;
        let lock = Lock::make(None, &outer, &inner)?;
        tables::reseal(db, &lock.write()?, |name, plain| seal(&key, name, plain))?;
        Ok(Self { state, key: Some(key) })
    }

    pub(crate) fn seal(&self, name: &[u8], plain: &[u8]) -> Result<Vec<u8>, StoreError> {
        seal(self.key()?, name, plain)
    }

    pub(crate) fn unseal(&self, name: &[u8], sealed: &[u8]) -> Result<Vec<u8>, StoreError> {
        unseal(self.key()?, name, sealed)
    }

    pub(crate) fn key(&self) -> Result<&SealKey, StoreError> {
        self.key.as_ref().ok_or_else(|| {
            StoreError::Locked(match &self.state {
                LockState::KeyFileLost(why) => why.clone(),
                _ => "they are behind a passphrase: give it with `rackbar unlock`".into(),
            })
        })
    }
}

pub(crate) fn seal(key: &SealKey, name: &[u8], plain: &[u8]) -> Result<Vec<u8>, StoreError> {
    key.seal(&[b"secrets", name], plain).map_err(failed)
}

pub(crate) fn unseal(key: &SealKey, name: &[u8], sealed: &[u8]) -> Result<Vec<u8>, StoreError> {
    let plain = key.open(&[b"secrets", name], sealed).map_err(|error| {
        let name = String::from_utf8_lossy(name);
        StoreError::Failed(format!("the secret {name} cannot be read: {error}"))
    })?;
    Ok(plain.to_vec())
}

impl Lock {
    fn make(passphrase: Option<Stretch>, outer: &SealKey, inner: &Secret<32>) -> Result<Self, StoreError> {
        Ok(Self {
            version: LOCK_VERSION,
            passphrase: passphrase.map(|stretch| (stretch.salt, stretch.iterations)),
            sealed: outer.seal(LOCK_CONTEXT, inner.expose()).map_err(failed)?,
        })
    }

    fn read(record: &[u8]) -> Result<Self, StoreError> {
        let lock: Self = serde_json::from_slice(record)
            .map_err(|error| StoreError::Failed(format!("the lock of the secrets cannot be read: {error}")))?;
        match lock.version {
            LOCK_VERSION => Ok(lock),
            newer => Err(StoreError::Failed(format!(
                "the lock of the secrets is of version {newer}, which this program does not know"
            ))),
        }
    }

    fn write(&self) -> Result<Vec<u8>, StoreError> {
        serde_json::to_vec(self).map_err(|error| StoreError::Failed(error.to_string()))
    }

    fn unseal(&self, outer: &SealKey) -> Result<SealKey, SealError> {
        SealKey::new(&self.inner(outer)?)
    }

    fn inner(&self, outer: &SealKey) -> Result<Secret<32>, SealError> {
        let bytes = outer.open(LOCK_CONTEXT, &self.sealed)?;
        let bytes: [u8; 32] = bytes.as_slice().try_into().map_err(|_| SealError::Damaged)?;
        Ok(Secret::new(bytes))
    }

    /// The key outside, from the passphrase.
    fn outer(&self, passphrase: &str) -> Result<SealKey, StoreError> {
        let (salt, iterations) = self
            .passphrase
            .ok_or_else(|| StoreError::Failed("the secrets are not behind a passphrase".into()))?;
        SealKey::from_passphrase(passphrase, &Stretch { salt, iterations }).map_err(failed)
    }
}

/// Refuses what anybody guesses.
pub(crate) fn check_passphrase(passphrase: &str) -> Result<(), StoreError> {
    match passphrase.chars().count() {
        12.. => Ok(()),
        _ => Err(StoreError::Failed("a passphrase has at least 12 characters".into())),
    }
}

fn new_key() -> Result<(Secret<32>, SealKey), StoreError> {
    let secret = Secret::random().map_err(|error| failed(error.into()))?;
    let key = SealKey::new(&secret).map_err(failed)?;
    Ok((secret, key))
}

/// Where the key file of the store at `path` is.
fn key_path(path: &Path) -> PathBuf {
    path.with_extension("key")
}

fn read_key_file(path: &Path) -> Result<SealKey, String> {
    let lost = |why: String| {
        format!(
            "{} {why}: put the right file back, or restore an export (`rackbar import`)",
            path.display()
        )
    };
    let mut text = zeroize::Zeroizing::new(String::new());
    let file = File::open(path).map_err(|error| lost(format!("cannot be read ({error})")))?;
    file.take(4096)
        .read_to_string(&mut text)
        .map_err(|error| lost(format!("cannot be read ({error})")))?;
    let secret: Secret<32> = text
        .trim()
        .parse()
        .map_err(|error| lost(format!("is no key ({error})")))?;
    SealKey::new(&secret).map_err(|error| lost(error.to_string()))
}

/// Makes the key file. One that is there and whole already is taken: a power cut may have come between the file and the
/// record that needs it, and another store's record may still need it.
fn make_key_file(path: &Path) -> Result<SealKey, StoreError> {
    if let Ok(key) = read_key_file(path) {
        return Ok(key);
    }
    let (secret, key) = new_key()?;
    let draft = path.with_extension("key-new");
    let written = (|| {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&draft)?;
        file.write_all(secret.expose_hex().as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&draft, path)?;
        tables::sync_folder(path)
    })();
    written.map_err(|error: std::io::Error| {
        StoreError::Failed(format!("the key file {} could not be written: {error}", path.display()))
    })?;
    Ok(key)
}

impl Store {
    /// How the secrets are locked.
    pub fn lock_state(&self) -> LockState {
        self.vault().state.clone()
    }

    /// Opens the secrets with their passphrase.
    ///
    /// # Errors
    /// [`StoreError::WrongPassphrase`]; or when the file cannot be read.
    pub fn unlock(&self, passphrase: &str) -> Result<(), StoreError> {
        let lock = self.read_lock()?;
        let key = open_with(&lock, passphrase, |outer| lock.unseal(outer))?;
        let mut vault = self.vault_mut();
        vault.key = Some(key);
        vault.state = LockState::Passphrase;
        Ok(())
    }

    /// Puts the secrets behind a passphrase, or behind a new one. The key file goes.
    ///
    /// # Errors
    /// [`StoreError::Locked`] while they are locked; or when it could not be written, and then the old lock holds.
    pub fn set_passphrase(&self, passphrase: &str) -> Result<(), StoreError> {
        check_passphrase(passphrase)?;
        let stretch = Stretch::new().map_err(failed)?;
        let outer = SealKey::from_passphrase(passphrase, &stretch).map_err(failed)?;
        self.replace_key(Some(stretch), &outer, LockState::Passphrase)?;
        if let Home::File(path) = &self.shared.home
            && let Err(error) = std::fs::remove_file(key_path(path))
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(%error, "the old key file could not be removed; it opens nothing any more");
        }
        Ok(())
    }

    /// Takes the passphrase away: the key lies in a file again ([`KEY_FILE_WARNING`]).
    ///
    /// # Errors
    /// As [`set_passphrase`](Self::set_passphrase).
    pub fn set_key_file(&self) -> Result<(), StoreError> {
        let Home::File(path) = &self.shared.home else {
            return Err(StoreError::Failed("a store in memory has no key file".into()));
        };
        let outer = make_key_file(&key_path(path))?;
        self.replace_key(None, &outer, LockState::KeyFile)
    }

    /// Makes a new sealing key behind `outer`, seals every secret again and records both in one commit. The old inner
    /// key goes with the old lock: who once read it reads nothing that is sealed from now on.
    fn replace_key(&self, stretch: Option<Stretch>, outer: &SealKey, state: LockState) -> Result<(), StoreError> {
        let mut vault = self.vault_mut();
        let old = vault.key()?;
        let (inner, key) = new_key()?;
        let record = Lock::make(stretch, outer, &inner)?.write()?;
        // What was queued without waiting is sealed with the old key; it must be in the table before the table is read.
        self.shared.queue.push_and_wait(Vec::new())?;
        let mut ops = vec![Op::Lock(record)];
        for (name, sealed) in self.read(|tx| tables::values(tx, Table::Secrets))? {
            let plain = zeroize::Zeroizing::new(unseal(old, &name, &sealed)?);
            ops.push(Op::Value {
                table: Table::Secrets,
                value: Some(seal(&key, &name, &plain)?),
                key: name,
            });
        }
        self.shared.queue.push_and_wait(ops)?;
        vault.key = Some(key);
        vault.state = state;
        Ok(())
    }

    fn read_lock(&self) -> Result<Lock, StoreError> {
        let record = self.read(tables::lock_record)?;
        Lock::read(&record.ok_or_else(|| StoreError::Failed("the secrets have no lock".into()))?)
    }

    pub(crate) fn vault(&self) -> std::sync::RwLockReadGuard<'_, Vault> {
        self.shared.vault.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn vault_mut(&self) -> std::sync::RwLockWriteGuard<'_, Vault> {
        self.shared.vault.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn open_with<T>(
    lock: &Lock,
    passphrase: &str,
    open: impl Fn(&SealKey) -> Result<T, SealError>,
) -> Result<T, StoreError> {
    open(&lock.outer(passphrase)?).map_err(|error| match error {
        SealError::OtherKey => StoreError::WrongPassphrase,
        other => failed(other),
    })
}

//! The whole state as one file, and back: to move an appliance to other hardware, and to keep a copy elsewhere.
//!
//! ```text
//! "RACKBAR-EXPORT\n"  version u32  length u32  header (JSON)
//! { table u8  key length u32  value length u32  key  value } ...  0xff
//! length u32  seal over the SHA-256 of everything before
//! ```
//! Numbers are little-endian. Secrets are sealed under the export's own passphrase, and so is the digest at the end: who
//! does not know the passphrase can neither read secrets nor change anything unnoticed. Everything else (events, leases,
//! inventories, configuration) can be read by who has the file. An import is written beside its place and moved there
//! only when the digest is right: all or nothing.

use std::io::{Read, Write};
use std::path::Path;

use rackbar_model::Timestamp;
use rackbar_trust::Sha256;
use rackbar_trust::seal::{SealError, SealKey, Stretch};
use serde::{Deserialize, Serialize};

use crate::tables::{self, Home, SCHEMA};
use crate::vault::{self, Vault};
use crate::{BmcLogin, Store, StoreError};

const MAGIC: &[u8; 15] = b"RACKBAR-EXPORT\n";
const VERSION: u32 = 1;
const END: u8 = 0xff;

/// Longest key, and longest value: an inventory has some hundred kilobytes.
const MAX_KEY: u32 = 64 << 10;
const MAX_VALUE: u32 = 64 << 20;

/// What an export says of itself; nothing of it is secret.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ExportInfo {
    /// When it was made.
    pub at: Timestamp,
    /// Version of Rackbar that made it.
    pub appliance: String,
    /// Schema of the store it came from.
    pub schema: u64,
    salt: [u8; 16],
    iterations: u32,
}

impl ExportInfo {
    fn key(&self, passphrase: &str) -> Result<SealKey, StoreError> {
        let stretch = Stretch {
            salt: self.salt,
            iterations: self.iterations,
        };
        SealKey::from_passphrase(passphrase, &stretch).map_err(|error| bad(error.to_string()))
    }
}

fn bad(reason: impl Into<String>) -> StoreError {
    StoreError::BadExport(reason.into())
}

/// Writes and hashes.
struct Hashing<'a> {
    out: &'a mut dyn Write,
    hash: Sha256,
}

impl Hashing<'_> {
    fn put(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.hash.update(bytes);
        let written = self.out.write_all(bytes);
        written.map_err(|error| StoreError::Failed(format!("the export could not be written: {error}")))
    }

    fn record(&mut self, table: u8, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        let length = |bytes: &[u8], max: u32| {
            let length = u32::try_from(bytes.len()).ok().filter(|length| *length <= max);
            length.ok_or_else(|| StoreError::Failed("a record is too long to be exported".into()))
        };
        let lengths = (length(key, MAX_KEY)?, length(value, MAX_VALUE)?);
        self.put(&[table])?;
        self.put(&lengths.0.to_le_bytes())?;
        self.put(&lengths.1.to_le_bytes())?;
        self.put(key)?;
        self.put(value)
    }
}

/// Reads and hashes.
struct Checking<'a> {
    input: &'a mut dyn Read,
    hash: Sha256,
}

impl Checking<'_> {
    fn exact<const N: usize>(&mut self) -> Result<[u8; N], StoreError> {
        let bytes = self.take(N as u32)?;
        bytes.try_into().map_err(|_| bad("it ends too early"))
    }

    /// Grows as bytes come: a length in a damaged file must not take the memory.
    fn take(&mut self, length: u32) -> Result<Vec<u8>, StoreError> {
        let mut bytes = Vec::new();
        let read = (&mut *self.input).take(u64::from(length)).read_to_end(&mut bytes);
        read.map_err(|error| StoreError::Failed(format!("the export could not be read: {error}")))?;
        if bytes.len() != length as usize {
            return Err(bad("it ends too early"));
        }
        self.hash.update(&bytes);
        Ok(bytes)
    }

    fn sized(&mut self, max: u32) -> Result<Vec<u8>, StoreError> {
        let length = u32::from_le_bytes(self.exact()?);
        if length > max {
            return Err(bad("a length in it is impossible"));
        }
        self.take(length)
    }

    fn header(&mut self) -> Result<ExportInfo, StoreError> {
        if &self.exact::<15>()? != MAGIC {
            return Err(bad("it is no export of Rackbar"));
        }
        match u32::from_le_bytes(self.exact()?) {
            VERSION => {}
            newer => return Err(bad(format!("its version is {newer}; import it with a newer Rackbar"))),
        }
        let header = self.sized(MAX_KEY)?;
        let info: ExportInfo = serde_json::from_slice(&header).map_err(|error| bad(error.to_string()))?;
        if info.schema > SCHEMA {
            return Err(bad(format!(
                "it was made by Rackbar {} with schema {}, this program knows up to {SCHEMA}; import it with a newer one",
                info.appliance, info.schema
            )));
        }
        Ok(info)
    }
}

impl Store {
    /// Writes everything to `out`, secrets sealed under `passphrase`. What is recorded meanwhile is not in it.
    ///
    /// # Errors
    /// [`StoreError::Locked`] while secrets are locked; when reading or writing fails.
    pub fn export(
        &self,
        out: &mut dyn Write,
        passphrase: &str,
        appliance: &str,
        at: Timestamp,
    ) -> Result<ExportInfo, StoreError> {
        vault::check_passphrase(passphrase)?;
        self.flush()?;
        let stretch = Stretch::new().map_err(vault::failed)?;
        let info = ExportInfo {
            at,
            appliance: appliance.into(),
            schema: SCHEMA,
            salt: stretch.salt,
            iterations: stretch.iterations,
        };
        let outer = info.key(passphrase)?;
        let vault = self.vault();
        let inner = vault.key()?;
        let header = serde_json::to_vec(&info).map_err(|error| StoreError::Failed(error.to_string()))?;
        let mut to = Hashing {
            out,
            hash: Sha256::new(),
        };
        to.put(MAGIC)?;
        to.put(&VERSION.to_le_bytes())?;
        to.put(&(header.len() as u32).to_le_bytes())?;
        to.put(&header)?;
        self.read(|tx| {
            tables::each(tx, &mut |table, key, value| match table {
                tables::SECRETS_NUMBER => {
                    let plain = zeroize::Zeroizing::new(vault::unseal(inner, key, value)?);
                    let sealed = outer.seal(&[b"export", key], &plain).map_err(vault::failed)?;
                    to.record(table, key, &sealed)
                }
                _ => to.record(table, key, value),
            })
        })?;
        to.put(&[END])?;
        let digest = to.hash.clone().finish();
        let seal = outer.seal(&[b"export digest"], &digest).map_err(vault::failed)?;
        to.put(&(seal.len() as u32).to_le_bytes())?;
        to.put(&seal)?;
        to.out
            .flush()
            .map_err(|error| StoreError::Failed(format!("the export could not be written: {error}")))?;
        Ok(info)
    }

    /// Makes a store at `path` of an export. One that is there is replaced only with `replace`; a program that has it
    /// open must be restarted. The new store's secrets are locked by a key file.
    ///
    /// # Errors
    /// [`StoreError::BadExport`], [`StoreError::WrongPassphrase`]; when reading or writing fails. Nothing is changed then.
    pub fn import(
        path: impl AsRef<Path>,
        input: &mut dyn Read,
        passphrase: &str,
        replace: bool,
    ) -> Result<ExportInfo, StoreError> {
        let path = path.as_ref();
        if path.exists() && !replace {
            return Err(StoreError::Failed(format!(
                "{} is there already: say that it is to be replaced, or move it away",
                path.display()
            )));
        }
        let draft = path.with_extension("import");
        let made = fill(path, &draft, input, passphrase).and_then(|info| {
            std::fs::rename(&draft, path)
                .and_then(|()| tables::sync_folder(path))
                .map_err(|error| {
                    StoreError::Failed(format!("{} could not be put in place: {error}", path.display()))
                })?;
            Ok(info)
        });
        if made.is_err() {
            // It may not have come to be.
            let _ = std::fs::remove_file(&draft);
        }
        made
    }
}

/// Records in one commit: enough to be quick, few enough for a small appliance's memory.
const BATCH: usize = 4_096;

fn fill(path: &Path, draft: &Path, input: &mut dyn Read, passphrase: &str) -> Result<ExportInfo, StoreError> {
    let mut from = Checking {
        input,
        hash: Sha256::new(),
    };
    let info = from.header()?;
    let outer = info.key(passphrase)?;
    let db = tables::draft(draft)?;
    let inner = Vault::open(&db, &Home::File(path.to_path_buf()))?;
    let mut batch = Vec::new();
    loop {
        let [table] = from.exact()?;
        if table == END {
            break;
        }
        if !tables::is_exported(table) {
            return Err(bad("it holds a table this program does not know"));
        }
        let lengths = [u32::from_le_bytes(from.exact()?), u32::from_le_bytes(from.exact()?)];
        if lengths[0] > MAX_KEY || lengths[1] > MAX_VALUE {
            return Err(bad("a length in it is impossible"));
        }
        let (key, mut value) = (from.take(lengths[0])?, from.take(lengths[1])?);
        if table == tables::SECRETS_NUMBER {
            let plain = outer.open(&[b"export", &key], &value).map_err(unsealed)?;
            value = inner.seal(&key, &plain)?;
        }
        batch.push((table, key, value));
        if batch.len() >= BATCH {
            tables::insert(&db, &std::mem::take(&mut batch))?;
        }
    }
    tables::insert(&db, &batch)?;
    let digest = from.hash.clone().finish();
    let seal = from.sized(MAX_KEY)?;
    let sealed = outer.open(&[b"export digest"], &seal).map_err(unsealed)?;
    if sealed.as_slice() != digest {
        return Err(bad("it is damaged: its digest does not fit"));
    }
    if !from.rest_is_empty()? {
        return Err(bad("something follows its end"));
    }
    Ok(info)
}

impl Checking<'_> {
    fn rest_is_empty(&mut self) -> Result<bool, StoreError> {
        let mut one = [0];
        let read = self.input.read(&mut one);
        Ok(read.map_err(|error| StoreError::Failed(format!("the export could not be read: {error}")))? == 0)
    }
}

fn unsealed(error: SealError) -> StoreError {
    match error {
        SealError::OtherKey => StoreError::WrongPassphrase,
        other => bad(other.to_string()),
    }
}

/// The break-glass file: BMC accounts under a passphrase of their own, as text that survives a printer.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct BreakGlass {
    format: String,
    salt: [u8; 16],
    iterations: u32,
    sealed: Vec<u8>,
}

const BREAK_GLASS: &str = "rackbar-bmc-passwords-1";

impl Store {
    /// Every BMC account with its passwords, sealed under `passphrase`: for the day the appliance is lost.
    ///
    /// # Errors
    /// [`StoreError::Locked`] while secrets are locked; when reading fails.
    pub fn export_bmc_logins(&self, passphrase: &str) -> Result<Vec<u8>, StoreError> {
        vault::check_passphrase(passphrase)?;
        let failed = |error: serde_json::Error| StoreError::Failed(error.to_string());
        let plain = zeroize::Zeroizing::new(serde_json::to_vec(&self.bmc_logins()?).map_err(failed)?);
        let stretch = Stretch::new().map_err(vault::failed)?;
        let key = SealKey::from_passphrase(passphrase, &stretch).map_err(vault::failed)?;
        serde_json::to_vec(&BreakGlass {
            format: BREAK_GLASS.into(),
            salt: stretch.salt,
            iterations: stretch.iterations,
            sealed: key.seal(&[BREAK_GLASS.as_bytes()], &plain).map_err(vault::failed)?,
        })
        .map_err(failed)
    }
}

/// Reads what [`Store::export_bmc_logins`] wrote: node ids and accounts. Needs no store.
///
/// # Errors
/// [`StoreError::BadExport`], [`StoreError::WrongPassphrase`].
pub fn read_bmc_logins(file: &[u8], passphrase: &str) -> Result<Vec<(String, BmcLogin)>, StoreError> {
    let file: BreakGlass = serde_json::from_slice(file).map_err(|error| bad(error.to_string()))?;
    if file.format != BREAK_GLASS {
        return Err(bad("it is no file of BMC passwords of this version"));
    }
    let stretch = Stretch {
        salt: file.salt,
        iterations: file.iterations,
    };
    let key = SealKey::from_passphrase(passphrase, &stretch).map_err(|error| bad(error.to_string()))?;
    let plain = key.open(&[BREAK_GLASS.as_bytes()], &file.sealed).map_err(unsealed)?;
    serde_json::from_slice(&plain).map_err(|_| bad("its content is of a form that is not known"))
}

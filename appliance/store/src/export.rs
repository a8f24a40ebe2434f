//! The whole state as one file, and back: to move an appliance to other hardware, and to keep a copy elsewhere.
//!
//! ```text
//! "RACKBAR-EXPORT\n"  version u32  length u32  header (JSON)
//! length u32  seal over the SHA-256 of everything before          (since version 2)
//! { table u8  key length u32  value length u32  key  value } ...  0xff
//! length u32  seal over the SHA-256 of everything before
//! files, one behind the other, as the header lists them           (since version 2)
//! ```
//! Numbers are little-endian. Secrets are sealed under the export's own passphrase, and so are the digests of header and
//! records: who does not know the passphrase can neither read secrets nor change anything unnoticed. The header has name,
//! size and SHA-256 of every file that travels along, so that what comes is known, and proven, before any of it is kept;
//! whose files these are this room does not know ([`Attachments`]). Everything else (events, leases, inventories,
//! configuration, the files) can be read by who has the export. An import is written beside its place and moved there only
//! when all is right: all or nothing.

use std::io::{Read, Write};
use std::path::Path;

use rackbar_model::{Digest, Timestamp};
use rackbar_trust::Sha256;
use rackbar_trust::seal::{SealError, SealKey, Stretch};
use serde::{Deserialize, Serialize};

use crate::tables::{self, Home, SCHEMA};
use crate::vault::{self, Vault};
use crate::{Attached, Attachments, Outgoing, Store, StoreError};

const MAGIC: &[u8; 15] = b"RACKBAR-EXPORT\n";
const VERSION: u32 = 2;
/// The version that had no files, and whose header was sealed with the records alone.
const WITHOUT_FILES: u32 = 1;
const END: u8 = 0xff;

/// Longest header: the names of 300,000 files, since each content that the proxy stored is one.
const MAX_HEADER: u32 = 64 << 20;

/// All records together: more than the state of any rack, whose journal of 200,000 events is about 60 MB.
const MAX_RECORDS: u64 = 512 << 20;

/// Bytes of a file that are read and written at once.
const PIECE: usize = 256 << 10;

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
    /// Files that travel with it, in their order.
    #[serde(default)]
    pub files: Vec<Attached>,
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

pub(crate) fn bad(reason: impl Into<String>) -> StoreError {
    StoreError::BadExport(reason.into())
}

/// Writes and hashes.
struct Hashing<'a> {
    out: &'a mut dyn Write,
    hash: Sha256,
    /// Bytes that header and records may still have.
    left: u64,
}

impl Hashing<'_> {
    fn put(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        let left = self.left.checked_sub(bytes.len() as u64);
        self.left = left.ok_or_else(|| {
            StoreError::Failed(format!(
                "its records have more than {} MiB, and no import would take them: locks of repositories are the large ones, so \
                 unlock what is not needed (`rackbar repository list`)",
                MAX_RECORDS >> 20
            ))
        })?;
        self.hash.update(bytes);
        let written = self.out.write_all(bytes);
        written.map_err(|error| StoreError::Failed(format!("the export could not be written: {error}")))
    }

    /// Seals what was written so far.
    fn seal(&mut self, outer: &SealKey, what: &[u8]) -> Result<(), StoreError> {
        let digest = self.hash.clone().finish();
        let seal = outer.seal(&[what], &digest).map_err(vault::failed)?;
        self.put(&(seal.len() as u32).to_le_bytes())?;
        self.put(&seal)
    }

    /// Copies a file's content, and compares it with what the header says.
    fn file(&mut self, mut outgoing: Outgoing) -> Result<(), StoreError> {
        let Outgoing { file, content } = &mut outgoing;
        let changed = || {
            let name = &file.name;
            StoreError::Failed(format!(
                "{name} is not what it was: its content is damaged or was cut; put it in again, or what the proxy stored in \
                 order with `rackbar cache verify`"
            ))
        };
        let (mut hash, mut left, mut buffer) = (Sha256::new(), file.bytes, vec![0; PIECE]);
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
            let room = buffer.get_mut(..most).unwrap_or_default();
            let count = match content.read(room) {
                Ok(0) => return Err(changed()),
                Ok(count) => count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(StoreError::Failed(format!("{} cannot be read: {error}", file.name))),
            };
            let piece = buffer.get(..count).unwrap_or_default();
            hash.update(piece);
            let written = self.out.write_all(piece);
            written.map_err(|error| StoreError::Failed(format!("the export could not be written: {error}")))?;
            left = left.saturating_sub(count as u64);
        }
        if Digest(hash.finish()) == file.sha256 {
            Ok(())
        } else {
            Err(changed())
        }
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
    /// Bytes of the header and records, counted against the most that they may have.
    taken: u64,
}

impl<'a> Checking<'a> {
    fn new(input: &'a mut dyn Read) -> Self {
        Self {
            input,
            hash: Sha256::new(),
            taken: 0,
        }
    }

    fn exact<const N: usize>(&mut self) -> Result<[u8; N], StoreError> {
        let bytes = self.take(N as u32)?;
        bytes.try_into().map_err(|_| bad("it ends too early"))
    }

    /// Grows as bytes come: a length in a damaged file must not take the memory.
    fn take(&mut self, length: u32) -> Result<Vec<u8>, StoreError> {
        self.taken = self.taken.saturating_add(u64::from(length));
        if self.taken > MAX_RECORDS {
            return Err(bad(format!("its records have more than {} MiB", MAX_RECORDS >> 20)));
        }
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

    /// Compares the seal that comes next with what was read so far.
    fn sealed(&mut self, outer: &SealKey, what: &[u8]) -> Result<(), StoreError> {
        let digest = self.hash.clone().finish();
        let seal = self.sized(MAX_KEY)?;
        let sealed = outer.open(&[what], &seal).map_err(unsealed)?;
        if sealed.as_slice() == digest {
            Ok(())
        } else {
            Err(bad("it is damaged: its digest does not fit"))
        }
    }

    /// The header as it stands there, and the file's version.
    fn header(&mut self) -> Result<(ExportInfo, u32), StoreError> {
        if &self.exact::<15>()? != MAGIC {
            return Err(bad("it is no export of Rackbar"));
        }
        let version = u32::from_le_bytes(self.exact()?);
        if !(WITHOUT_FILES..=VERSION).contains(&version) {
            return Err(bad(format!("its version is {version}; import it with a newer Rackbar")));
        }
        let header = self.sized(MAX_HEADER)?;
        let info: ExportInfo = serde_json::from_slice(&header).map_err(|error| bad(error.to_string()))?;
        if info.schema > SCHEMA {
            return Err(bad(format!(
                "it was made by Rackbar {} with schema {}, this program knows up to {SCHEMA}; import it with a newer one",
                info.appliance, info.schema
            )));
        }
        if version == WITHOUT_FILES && !info.files.is_empty() {
            return Err(bad("it lists files, and its version has none"));
        }
        Ok((info, version))
    }

    /// The header, proven where the version can; and the key of the rest.
    fn proven_header(&mut self, passphrase: &str) -> Result<(ExportInfo, SealKey), StoreError> {
        let (info, version) = self.header()?;
        let outer = info.key(passphrase)?;
        if version > WITHOUT_FILES {
            self.sealed(&outer, HEADER)?;
        }
        Ok((info, outer))
    }

    /// Hands a file on as it comes, and compares it with what the header says.
    fn file(&mut self, file: &Attached, to: &mut dyn Attachments) -> Result<(), StoreError> {
        let (mut hash, mut left, mut buffer) = (Sha256::new(), file.bytes, vec![0; PIECE]);
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
            let count = match self.input.read(buffer.get_mut(..most).unwrap_or_default()) {
                Ok(0) => return Err(bad(format!("it ends too early, within {}", file.name))),
                Ok(count) => count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(StoreError::Failed(format!("the export could not be read: {error}"))),
            };
            let piece = buffer.get(..count).unwrap_or_default();
            hash.update(piece);
            to.take(file, piece)?;
            left = left.saturating_sub(count as u64);
        }
        if Digest(hash.finish()) == file.sha256 {
            to.whole(file)
        } else {
            Err(bad(format!("{} in it is damaged: its digest does not fit", file.name)))
        }
    }
}

/// What header and records are sealed as.
const HEADER: &[u8] = b"export header";
const RECORDS: &[u8] = b"export digest";

/// What an export says of itself; proves nothing, and needs no passphrase.
///
/// # Errors
/// [`StoreError::BadExport`]; when reading fails.
pub fn look_at_export(input: &mut dyn Read) -> Result<ExportInfo, StoreError> {
    Checking::new(input).header().map(|(info, _)| info)
}

impl Store {
    /// Writes everything to `out`, secrets sealed under `passphrase`, and `files` behind it. What is recorded meanwhile is
    /// not in it.
    ///
    /// # Errors
    /// [`StoreError::Locked`] while secrets are locked; when reading or writing fails, or a file is not what it was said to
    /// be.
    pub fn export(
        &self,
        out: &mut dyn Write,
        passphrase: &str,
        appliance: &str,
        at: Timestamp,
        files: Vec<Outgoing>,
    ) -> Result<ExportInfo, StoreError> {
        vault::check_passphrase(passphrase)?;
        self.flush()?;
        let stretch = Stretch::new().map_err(vault::failed)?;
        let info = ExportInfo {
            at,
            appliance: appliance.into(),
            schema: SCHEMA,
            files: files.iter().map(|outgoing| outgoing.file.clone()).collect(),
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
            left: MAX_RECORDS,
        };
        to.put(MAGIC)?;
        to.put(&VERSION.to_le_bytes())?;
        let length = u32::try_from(header.len()).ok().filter(|length| *length <= MAX_HEADER);
        let length = length.ok_or_else(|| StoreError::Failed("there are too many files for one export".into()))?;
        to.put(&length.to_le_bytes())?;
        to.put(&header)?;
        to.seal(&outer, HEADER)?;
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
        to.seal(&outer, RECORDS)?;
        for file in files {
            to.file(file)?;
        }
        to.out
            .flush()
            .map_err(|error| StoreError::Failed(format!("the export could not be written: {error}")))?;
        Ok(info)
    }

    /// Makes a store at `path` of an export without files. One that is there is replaced only with `replace`; a program that
    /// has it open must be restarted. The new store's secrets are locked by a key file.
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
        let info = Self::stage(path, &draft, input, passphrase, &mut ())?;
        let placed = std::fs::rename(&draft, path).and_then(|()| tables::sync_folder(path));
        placed.map_err(|error| {
            // Where it was moved already there is nothing to remove.
            let _ = std::fs::remove_file(&draft);
            StoreError::Failed(format!("{} could not be put in place: {error}", path.display()))
        })?;
        Ok(info)
    }

    /// Makes a store at `draft`, to be moved to `path` by the caller, whose key file it uses; what travels along goes to
    /// `files`. When this returns, all of the export was right and the draft is on the disk.
    ///
    /// # Errors
    /// As [`Self::import`], and what `files` refuses. The draft is removed then.
    pub fn stage(
        path: &Path,
        draft: &Path,
        input: &mut dyn Read,
        passphrase: &str,
        files: &mut dyn Attachments,
    ) -> Result<ExportInfo, StoreError> {
        let made = fill(path, draft, input, passphrase, files);
        if made.is_err() {
            // It may not have come to be.
            let _ = std::fs::remove_file(draft);
        }
        made
    }
}

/// Records in one commit, and their bytes: enough to be quick, few enough for a small appliance's memory.
const BATCH: usize = 4_096;
const BATCH_BYTES: usize = 16 << 20;

/// Whether so many records of so many bytes are enough for a commit.
const fn is_full(records: usize, bytes: usize) -> bool {
    records >= BATCH || bytes >= BATCH_BYTES
}

fn fill(
    path: &Path,
    draft: &Path,
    input: &mut dyn Read,
    passphrase: &str,
    files: &mut dyn Attachments,
) -> Result<ExportInfo, StoreError> {
    let mut from = Checking::new(input);
    let (info, outer) = from.proven_header(passphrase)?;
    files.expect(&info.files)?;
    let db = tables::draft(draft)?;
    let inner = Vault::open(&db, &Home::File(path.to_path_buf()))?;
    records(&mut from, &outer, &inner, &db)?;
    for file in &info.files {
        from.file(file, files)?;
    }
    if !from.rest_is_empty()? {
        return Err(bad("something follows its end"));
    }
    Ok(info)
}

/// Reads the records into the new store, up to their seal.
fn records(from: &mut Checking<'_>, outer: &SealKey, inner: &Vault, db: &redb::Database) -> Result<(), StoreError> {
    let (mut batch, mut bytes) = (Vec::new(), 0_usize);
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
        bytes = bytes.saturating_add(key.len()).saturating_add(value.len());
        batch.push((table, key, value));
        if is_full(batch.len(), bytes) {
            tables::insert(db, &std::mem::take(&mut batch))?;
            bytes = 0;
        }
    }
    tables::insert(db, &batch)?;
    from.sealed(outer, RECORDS)
}

impl Checking<'_> {
    fn rest_is_empty(&mut self) -> Result<bool, StoreError> {
        let mut one = [0];
        let read = self.input.read(&mut one);
        Ok(read.map_err(|error| StoreError::Failed(format!("the export could not be read: {error}")))? == 0)
    }
}

pub(crate) fn unsealed(error: SealError) -> StoreError {
    match error {
        SealError::OtherKey => StoreError::WrongPassphrase,
        other => bad(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_export_that_no_import_would_take_is_not_made() {
        let (mut out, hash) = (Vec::new(), Sha256::new());
        let mut to = Hashing {
            out: &mut out,
            hash,
            left: 100,
        };
        to.record(1, b"key", &[0; 80]).unwrap();
        let refused = to.record(1, b"key", &[0; 80]).unwrap_err().to_string();
        assert!(refused.contains("512 MiB") && refused.contains("unlock"), "{refused}");
    }

    #[test]
    fn records_are_written_by_their_number_and_by_their_bytes() {
        assert!(!is_full(BATCH - 1, BATCH_BYTES - 1));
        assert!(is_full(BATCH, 0) && is_full(1, BATCH_BYTES));
    }
}

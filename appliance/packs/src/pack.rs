//! A pack where it lies: a file, a partition, or a whole stick.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rackbar_model::Digest;

use crate::head::{HEAD_BYTES, Head};
use crate::index::{Content, Index};
use crate::intake::{Checked, Intake};
use crate::{Key, PackError, Trust};

/// Bytes read at once.
const PIECE: usize = 1 << 20;

/// A pack whose head and index were found good. Its contents are checked by who reads them, or by [`Self::verify`].
///
/// The file stays open: what is read later is of the file whose index was checked, also when its name is given to another.
#[derive(Clone, Debug)]
pub struct Pack {
    /// Where it lies.
    pub path: PathBuf,
    /// What it is read from.
    pub file: Arc<File>,
    /// Who signed.
    pub key: Key,
    /// What is in it.
    pub index: Index,
    /// Its bytes.
    pub total: u64,
    places: HashMap<Digest, u64>,
}

impl Pack {
    /// Opens the pack at `path`: reads its head and index and looks at its size.
    ///
    /// # Errors
    /// When it is none, cut off, changed, or of somebody who is not trusted.
    pub fn open(path: &Path, trust: &Trust) -> Result<Self, PackError> {
        Self::read(path, Some(trust))
    }

    /// As [`Self::open`], whoever signed: for looking at one.
    ///
    /// # Errors
    /// As there, but for the last.
    pub fn look(path: &Path) -> Result<Self, PackError> {
        Self::read(path, None)
    }

    fn read(path: &Path, trust: Option<&Trust>) -> Result<Self, PackError> {
        let mut file = File::open(path)?;
        let mut start = [0; HEAD_BYTES];
        let length = fill(&file, &mut start)?;
        let head = Head::parse(start.get(..length).unwrap_or_default())?;
        trust.map_or(Ok(()), |trust| trust.check(head.key))?;
        // The size of a block device is where its end is; a partition may be larger than the pack that is on it.
        let found = file.seek(SeekFrom::End(0))?;
        let regular = file.metadata()?.is_file();
        if found < head.total || regular && found != head.total {
            let expected = head.total;
            return Err(PackError::Size { expected, found });
        }
        let mut index = vec![0; head.index_bytes];
        file.read_exact_at(&mut index, HEAD_BYTES as u64)?;
        let index = head.open(&index)?;
        let places = index.places(head.contents_begin())?.0;
        let places = index
            .contents
            .iter()
            .map(|content| content.sha256)
            .zip(places)
            .collect();
        Ok(Self {
            path: path.to_owned(),
            file: Arc::new(file),
            key: head.key,
            index,
            total: head.total,
            places,
        })
    }

    /// Where a content begins.
    pub fn place(&self, content: &Content) -> u64 {
        self.places.get(&content.sha256).copied().unwrap_or(u64::MAX)
    }

    /// Reads everything again, from head to end, and compares; `seen` is told how many bytes were read.
    ///
    /// # Errors
    /// At the first thing that is not as it should be.
    pub fn verify(&self, mut seen: impl FnMut(u64)) -> Result<(), PackError> {
        let checked = check(&self.file, Some(Trust::nobody().and(self.key, "")), &mut seen)?;
        if checked.index == self.index {
            Ok(())
        } else {
            Err(PackError::Index("it was written over with another pack".into()))
        }
    }

    /// Reads a pack through, whoever signed it.
    ///
    /// # Errors
    /// As [`Self::verify`].
    pub fn verify_any(path: &Path, mut seen: impl FnMut(u64)) -> Result<Checked, PackError> {
        check(&File::open(path)?, None, &mut seen)
    }
}

fn check(file: &File, trust: Option<Trust>, seen: &mut dyn FnMut(u64)) -> Result<Checked, PackError> {
    let regular = file.metadata()?.is_file();
    let (mut intake, mut piece, mut read) = (Intake::new(trust), vec![0; PIECE], 0u64);
    loop {
        // The head comes alone, since it says where the pack ends: behind one in a partition there may be anything.
        let end = match intake.total() {
            None => HEAD_BYTES as u64,
            Some(total) if !regular => total,
            Some(_) => u64::MAX,
        };
        let want = usize::try_from(end.saturating_sub(read)).unwrap_or(PIECE).min(PIECE);
        let count = match file.read_at(piece.get_mut(..want).unwrap_or_default(), read) {
            Ok(0) => return intake.finish(),
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error.into()),
        };
        intake.push(piece.get(..count).unwrap_or_default())?;
        read = read.saturating_add(count as u64);
        seen(read);
    }
}

/// Reads from the beginning until the buffer is full or the file ends; how many bytes.
fn fill(file: &File, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match file.read_at(buffer.get_mut(done..).unwrap_or_default(), done as u64) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

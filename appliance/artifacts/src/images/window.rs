//! A content where it lies: a whole file, or a part of one, such as of a data pack.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt as _;

use rackbar_boot_media::tree::ReadAt;

/// A content in a file. What lies before and behind it is never read.
#[derive(Clone, Debug)]
pub(crate) struct Window<'a> {
    file: &'a File,
    begin: u64,
    bytes: u64,
    at: u64,
}

impl<'a> Window<'a> {
    /// The first so many bytes of a file.
    pub(crate) const fn whole(file: &'a File, bytes: u64) -> Self {
        Self::of(file, 0, bytes)
    }

    /// So many bytes of a file from `begin` on.
    pub(crate) const fn of(file: &'a File, begin: u64, bytes: u64) -> Self {
        Self {
            file,
            begin,
            bytes,
            at: 0,
        }
    }

    /// Bytes it has.
    pub(crate) const fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl ReadAt for Window<'_> {
    fn fill_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let end = offset.checked_add(buffer.len() as u64);
        if end.is_none_or(|end| end > self.bytes) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.file.read_exact_at(buffer, self.begin.saturating_add(offset))
    }
}

impl Read for Window<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.bytes.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let most = left.min(buffer.len());
        let part = buffer.get_mut(..most).unwrap_or_default();
        let count = self.file.read_at(part, self.begin.saturating_add(self.at))?;
        self.at = self.at.saturating_add(count as u64);
        Ok(count)
    }
}

impl Seek for Window<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.bytes.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = at.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

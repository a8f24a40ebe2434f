//! The `newc` cpio format, as the kernel's initramfs unpacker reads it (Documentation/driver-api/early-userspace/
//! buffer-format.rst). The writer is deterministic: owner 0:0, one time stamp, inode numbers in order of arrival.
//! The kernel does not create missing parents, so the writer adds each folder before the first file in it.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail, ensure};

use crate::epoch::SOURCE_DATE_EPOCH;

const MAGIC: &[u8] = b"070701";
const HEADER: usize = 110;
const TRAILER: &str = "TRAILER!!!";
const TYPE_MASK: u32 = 0o170_000;
const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;

/// An archive being written.
#[derive(Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
    directories: BTreeSet<String>,
    inode: u32,
}

impl Writer {
    /// An empty archive.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a folder, and those above it; adding one twice is fine. `path` is relative, with `/` between names.
    pub fn directory(&mut self, path: &str) {
        for (at, _) in path.match_indices('/').chain([(path.len(), "")]) {
            let Some(parent) = path.get(..at).filter(|parent| !parent.is_empty()) else {
                continue;
            };
            if self.directories.insert(parent.to_owned()) {
                self.entry(parent, DIRECTORY | 0o755, 2, &[]);
            }
        }
    }

    /// Adds a regular file with permission bits `mode`, and the folders above it.
    pub fn file(&mut self, path: &str, mode: u32, content: &[u8]) {
        if let Some((parent, _)) = path.rsplit_once('/') {
            self.directory(parent);
        }
        self.entry(path, REGULAR | (mode & 0o7777), 1, content);
    }

    /// Ends the archive. Its length is a multiple of four, so that another one can follow.
    pub fn finish(mut self) -> Vec<u8> {
        self.header(0, 0, 1, 0, 0, TRAILER.len() + 1);
        self.name(TRAILER);
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, links: u32, content: &[u8]) {
        self.inode += 1;
        // The format holds sizes in 32 bits; nothing on our media comes near.
        let size = u32::try_from(content.len()).unwrap_or(u32::MAX);
        self.header(self.inode, mode, links, SOURCE_DATE_EPOCH as u32, size, path.len() + 1);
        self.name(path);
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn header(&mut self, inode: u32, mode: u32, links: u32, time: u32, size: u32, name: usize) {
        let fields = [inode, mode, 0, 0, links, time, size, 0, 0, 0, 0, name as u32, 0];
        self.bytes.extend_from_slice(MAGIC);
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
    }

    fn name(&mut self, name: &str) {
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// One entry of an archive that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Path as written, without a leading slash.
    pub path: &'a str,
    /// File type and permission bits, as in `stat`.
    pub mode: u32,
    /// Content of a regular file.
    pub content: &'a [u8],
}

impl Entry<'_> {
    /// Whether this is a folder.
    pub fn is_directory(&self) -> bool {
        self.mode & TYPE_MASK == DIRECTORY
    }
}

/// Reads an uncompressed archive up to its trailer. Fails, and never panics, on anything else.
pub fn read(archive: &[u8]) -> Result<Vec<Entry<'_>>> {
    let mut entries = Vec::new();
    let mut at = 0;
    loop {
        let header = archive
            .get(at..)
            .and_then(|rest| rest.get(..HEADER))
            .context("cpio archive ends in a header")?;
        ensure!(header.starts_with(MAGIC), "no cpio header at offset {at:#x}");
        let field = |index: usize| -> Result<u32> {
            let digits = header
                .get(6 + index * 8..14 + index * 8)
                .context("cpio header is short")?;
            let digits = std::str::from_utf8(digits).context("cpio header is not text")?;
            u32::from_str_radix(digits, 16).with_context(|| format!("cpio header at {at:#x} holds {digits:?}"))
        };
        let (mode, size, length) = (field(1)?, field(6)? as usize, field(11)? as usize);
        let name = slice(archive, at + HEADER, length)?;
        let Some((0, name)) = name.split_last() else {
            bail!("cpio name at {at:#x} does not end in a zero byte")
        };
        let path = std::str::from_utf8(name).with_context(|| format!("cpio name at {at:#x} is not UTF-8"))?;
        if path == TRAILER {
            return Ok(entries);
        }
        let data = (at + HEADER + length).next_multiple_of(4);
        entries.push(Entry {
            path,
            mode,
            content: slice(archive, data, size)?,
        });
        at = (data + size).next_multiple_of(4);
    }
}

fn slice(archive: &[u8], at: usize, length: usize) -> Result<&[u8]> {
    let end = at.checked_add(length).context("cpio sizes overflow")?;
    archive
        .get(at..end)
        .with_context(|| format!("cpio archive ends inside an entry at {at:#x}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn folders_come_before_what_is_in_them_and_only_once() {
        let mut writer = Writer::new();
        writer.file("lib/modules/a.ko", 0o644, b"a");
        writer.file("lib/modules/b.ko", 0o600, b"bcdef");
        let archive = writer.finish();
        let entries = read(&archive).unwrap();
        let paths: Vec<_> = entries.iter().map(|entry| entry.path).collect();
        assert_eq!(paths, ["lib", "lib/modules", "lib/modules/a.ko", "lib/modules/b.ko"]);
        assert!(entries[0].is_directory());
        assert_eq!(entries[3].mode, 0o100_600);
        assert_eq!(entries[3].content, b"bcdef");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(files in proptest::collection::btree_map("[a-z]{1,9}(\\.[a-z]{1,3})?", any::<Vec<u8>>(), 0..8)) {
            let mut writer = Writer::new();
            for (path, content) in &files {
                writer.file(path, 0o644, content);
            }
            let archive = writer.finish();
            prop_assert_eq!(archive.len() % 4, 0);
            let entries = read(&archive).unwrap();
            prop_assert_eq!(entries.len(), files.len());
            for (entry, (path, content)) in entries.iter().zip(&files) {
                prop_assert_eq!(entry.path, path);
                prop_assert_eq!(entry.content, &content[..]);
            }
        }

        #[test]
        fn reading_damaged_archives_never_panics(cut in 0usize..500, at in 0usize..500, byte: u8) {
            let mut writer = Writer::new();
            writer.file("bin/init", 0o755, &[7; 40]);
            let mut archive = writer.finish();
            if let Some(target) = archive.get_mut(at) {
                *target = byte;
            }
            archive.truncate(cut);
            let _ = read(&archive);
        }
    }
}

//! Where the running system's files are read from: `/`, or a folder that stands for it in a test.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Longest attribute read as text. sysfs attributes fit in one page; the limit keeps a device file given by mistake
/// from filling the memory.
const TEXT_LIMIT: u64 = 64 << 10;

/// Longest table read as bytes. The largest SMBIOS tables seen are about 40 KiB.
const BYTES_LIMIT: u64 = 4 << 20;

/// A file tree with `sys`, `proc`, `dev` and `lib` in it.
#[derive(Clone, Debug)]
pub struct Root(PathBuf);

impl Default for Root {
    fn default() -> Self {
        Self(PathBuf::from("/"))
    }
}

impl Root {
    /// A tree below `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The path of `relative` in this tree; a leading `/` is allowed.
    pub fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        let relative = relative.as_ref();
        self.0.join(relative.strip_prefix("/").unwrap_or(relative))
    }

    /// The text of a file, without trailing white space and NULs; `None` when it cannot be read or is empty.
    /// Bytes that are no UTF-8 are replaced: a disk may call itself anything.
    pub fn text(&self, relative: impl AsRef<Path>) -> Option<String> {
        let mut bytes = Vec::new();
        fs::File::open(self.path(relative))
            .ok()?
            .take(TEXT_LIMIT)
            .read_to_end(&mut bytes)
            .ok()?;
        let text = String::from_utf8_lossy(&bytes);
        let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\0');
        (!text.is_empty()).then(|| text.to_owned())
    }

    /// The text of a file parsed as a number or the like.
    pub fn number<T: FromStr>(&self, relative: impl AsRef<Path>) -> Option<T> {
        self.text(relative)?.parse().ok()
    }

    /// A hexadecimal number, with or without `0x`.
    pub fn hex(&self, relative: impl AsRef<Path>) -> Option<u32> {
        let text = self.text(relative)?;
        u32::from_str_radix(text.strip_prefix("0x").unwrap_or(&text), 16).ok()
    }

    /// The bytes of a file.
    pub fn bytes(&self, relative: impl AsRef<Path>) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        fs::File::open(self.path(relative))
            .ok()?
            .take(BYTES_LIMIT)
            .read_to_end(&mut bytes)
            .ok()?;
        Some(bytes)
    }

    /// The names in a folder, sorted; empty when there is no such folder.
    pub fn names(&self, relative: impl AsRef<Path>) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.path(relative)) else {
            return Vec::new();
        };
        let mut names: Vec<String> = entries
            .flatten()
            .filter_map(|e| e.file_name().into_string().ok())
            .collect();
        names.sort();
        names
    }

    /// True when the path exists.
    pub fn exists(&self, relative: impl AsRef<Path>) -> bool {
        self.path(relative).exists()
    }

    /// The last part of where a symbolic link points: the name of a driver, of a bus, of a parent device.
    pub fn link_name(&self, relative: impl AsRef<Path>) -> Option<String> {
        let target = fs::read_link(self.path(relative)).ok()?;
        Some(target.file_name()?.to_str()?.to_owned())
    }

    /// The device folder a link leads to, resolved, such as `/sys/devices/pci0000:00/0000:00:03.0/virtio0`.
    pub fn resolve(&self, relative: impl AsRef<Path>) -> Option<PathBuf> {
        fs::canonicalize(self.path(relative)).ok()
    }
}

//! Writing cpio entries of the "newc" kind, as the kernel's initramfs reads them
//! (Documentation/driver-api/early-userspace/buffer-format.rst).
//!
//! The loader puts files of its own in front of the archives it hands over. Only the heads and the padding are made;
//! contents stay where they are in memory.

use alloc::format;
use alloc::vec::Vec;

/// Every head, content and archive begins at a multiple of this.
pub const ALIGNMENT: usize = 4;

/// File type and permission bits of a regular file everyone may read.
const FILE: u32 = 0o100_644;
/// The same of a directory.
const DIRECTORY: u32 = 0o040_755;

/// Zero bytes that bring `length` to the next multiple of [`ALIGNMENT`].
pub fn padding(length: usize) -> &'static [u8] {
    const ZEROES: &[u8] = &[0; ALIGNMENT];
    ZEROES.get(..length.wrapping_neg() % ALIGNMENT).unwrap_or_default()
}

/// The head of a regular file; `size` bytes of content and [`padding`] follow. `None` when the format cannot say so
/// many: its size field has 32 bits.
pub fn file(path: &str, size: usize) -> Option<Vec<u8>> {
    Some(head(path, FILE, u32::try_from(size).ok()?))
}

/// A directory. Must stand before the files in it: the kernel makes no missing parents.
pub fn directory(path: &str) -> Vec<u8> {
    head(path, DIRECTORY, 0)
}

/// The end of an archive. Another may follow.
pub fn end() -> Vec<u8> {
    head("TRAILER!!!", 0, 0)
}

fn head(path: &str, mode: u32, size: u32) -> Vec<u8> {
    let links = if mode == DIRECTORY { 2 } else { 1 };
    // Magic, then inode, mode, uid, gid, links, time, size, device (2), special device (2), name length with its zero
    // byte, checksum. Inode 0 with one link is never taken for a hard link.
    let mut out = format!(
        "070701{:08x}{mode:08x}{:08x}{:08x}{links:08x}{:08x}{size:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{path}\0",
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        path.len() + 1,
        0
    )
    .into_bytes();
    out.extend_from_slice(padding(out.len()));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_110_bytes_a_name_and_padding() {
        let head = file("boot/vmlinuz", 0x1234).unwrap();
        assert_eq!(head.len(), 124, "110 + 13 to the next multiple of four");
        assert_eq!(&head[..6], b"070701");
        assert_eq!(&head[54..62], b"00001234", "size is the seventh field");
        assert_eq!(
            &head[94..102],
            b"0000000d",
            "name length with the zero byte is the twelfth"
        );
        assert_eq!(&head[110..123], b"boot/vmlinuz\0");
    }

    #[test]
    fn everything_is_aligned() {
        assert_eq!(directory("boot").len() % ALIGNMENT, 0);
        assert_eq!(end().len() % ALIGNMENT, 0);
        for length in 0..9 {
            assert_eq!((length + padding(length).len()) % ALIGNMENT, 0);
            assert!(padding(length).len() < ALIGNMENT);
        }
    }

    #[test]
    fn a_file_too_long_for_the_format_is_refused() {
        assert!(file("x", 1 << 32).is_none());
    }
}

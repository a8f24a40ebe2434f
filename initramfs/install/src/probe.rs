//! What lies on a partition, by the magic numbers of its superblocks, and how large its file system is.

use std::fs::File;
use std::os::unix::fs::FileExt;

/// What a partition holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Content {
    /// ext2, ext3 or ext4.
    Ext,
    /// XFS.
    Xfs,
    /// Something with a name only.
    Other(&'static str),
}

impl Content {
    /// Its name as blkid writes it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ext => "ext4",
            Self::Xfs => "xfs",
            Self::Other(name) => name,
        }
    }
}

/// A magic number: where (from the front), what, whose.
pub(crate) struct Magic {
    pub(crate) offset: u64,
    pub(crate) bytes: &'static [u8],
    pub(crate) name: &'static str,
}

const fn magic(offset: u64, bytes: &'static [u8], name: &'static str) -> Magic {
    Magic { offset, bytes, name }
}

/// Magic numbers at fixed places from the front, the ones that hide others first. ext's is last but for FAT's: it is
/// two bytes only. Offsets are those of libblkid's tables.
pub(crate) const MAGICS: [Magic; 21] = [
    magic(4096, b"\xfc\x4e\x2b\xa9", "linux_raid_member"),
    magic(0, b"\xfc\x4e\x2b\xa9", "linux_raid_member"),
    magic(0, b"LUKS\xba\xbe", "crypto_LUKS"),
    magic(512, b"LABELONE", "LVM2_member"),
    magic(0, b"LABELONE", "LVM2_member"),
    magic(1024, b"LABELONE", "LVM2_member"),
    magic(1536, b"LABELONE", "LVM2_member"),
    magic(0, b"XFSB", "xfs"),
    magic(65_600, b"_BHRfS_M", "btrfs"),
    magic(4086, b"SWAPSPACE2", "swap"),
    magic(4086, b"SWAP-SPACE", "swap"),
    magic(1024, b"\x10\x20\xf5\xf2", "f2fs"),
    magic(
        4120,
        b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81",
        "bcache",
    ),
    magic(
        4096,
        b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81",
        "bcache",
    ),
    magic(0, b"hsqs", "squashfs"),
    magic(3, b"NTFS    ", "ntfs"),
    magic(0, b"bluestore block device", "ceph_bluestore"),
    magic(32_769, b"CD001", "iso9660"),
    magic(82, b"FAT32   ", "vfat"),
    magic(54, b"FAT1", "vfat"),
    magic(1080, b"\x53\xef", "ext4"),
];

/// Magic of md superblocks, little-endian.
pub(crate) const MD_MAGIC: [u8; 4] = [0xfc, 0x4e, 0x2b, 0xa9];

/// Where md keeps a superblock at the end of `bytes`: version 1.0 (8 KiB from the end, on 4 KiB) and 0.90 (the last
/// whole 64 KiB but one).
pub(crate) fn md_at_end(bytes: u64) -> [u64; 2] {
    let sectors = bytes / 512;
    let one = sectors.saturating_sub(16) & !7;
    let old = (bytes & !0xffff).saturating_sub(0x1_0000);
    [one * 512, old]
}

/// What a partition or disk of `bytes` holds; `None` when nothing is known of it.
pub(crate) fn content(device: &File, bytes: u64) -> Option<Content> {
    let is = |offset: u64, wanted: &[u8]| {
        let mut found = [0; 32];
        let room = found.get_mut(..wanted.len());
        room.is_some_and(|room| device.read_exact_at(room, offset).is_ok() && room == wanted)
    };
    if md_at_end(bytes).into_iter().any(|offset| is(offset, &MD_MAGIC)) {
        return Some(Content::Other("linux_raid_member"));
    }
    let found = MAGICS.iter().find(|magic| is(magic.offset, magic.bytes))?;
    Some(match found.name {
        "ext4" => Content::Ext,
        "xfs" => Content::Xfs,
        other => Content::Other(other),
    })
}

/// The same, but what an md superblock at the end hides is seen: each half of a mirror with metadata 1.0 is a plain
/// file system too.
pub(crate) fn file_system(device: &File) -> Option<Content> {
    content(device, 0)
}

/// The size of a file system.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Size {
    pub(crate) blocks: u64,
    pub(crate) block: u64,
    /// xfs only: the share of inodes, which growing would set.
    pub(crate) inode_percent: u8,
}

impl Size {
    /// In bytes.
    pub(crate) fn bytes(self) -> u64 {
        self.blocks.saturating_mul(self.block)
    }
}

/// Blocks and block size from the superblock.
pub(crate) fn size(device: &File, content: Content) -> Option<Size> {
    let mut superblock = [0; 1024];
    match content {
        Content::Ext => {
            device.read_exact_at(&mut superblock, 1024).ok()?;
            ext(&superblock)
        }
        Content::Xfs => {
            device.read_exact_at(&mut superblock, 0).ok()?;
            xfs(&superblock)
        }
        Content::Other(_) => None,
    }
}

/// Documentation/filesystems/ext4 in the kernel's source.
fn ext(superblock: &[u8; 1024]) -> Option<Size> {
    let at = |offset: usize| Some(u32::from_le_bytes(superblock.get(offset..offset + 4)?.try_into().ok()?));
    if superblock.get(56..58)? != [0x53, 0xef] {
        return None;
    }
    const INCOMPAT_64BIT: u32 = 0x80;
    let high = if at(96)? & INCOMPAT_64BIT != 0 { at(0x150)? } else { 0 };
    let block = 1024u64
        .checked_shl(at(24)?)
        .filter(|size| (1024..=65_536).contains(size))?;
    Some(Size {
        blocks: u64::from(high) << 32 | u64::from(at(4)?),
        block,
        inode_percent: 0,
    })
}

/// XFS Algorithms & Data Structures, chapter 13: sb_blocksize, sb_dblocks, sb_imax_pct.
fn xfs(superblock: &[u8; 1024]) -> Option<Size> {
    if !superblock.starts_with(b"XFSB") {
        return None;
    }
    let block = u64::from(u32::from_be_bytes(superblock.get(4..8)?.try_into().ok()?));
    Some(Size {
        blocks: u64::from_be_bytes(superblock.get(8..16)?.try_into().ok()?),
        block: Some(block).filter(|size| (512..=65_536).contains(size))?,
        inode_percent: *superblock.get(127)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::process::Command;

    #[test]
    fn what_mkfs_makes_is_known() {
        for (program, arguments, name, bytes) in [
            ("mkfs.ext4", &["-q", "-F"][..], "ext4", 32u64 << 20),
            ("mkfs.xfs", &["-q", "-f"], "xfs", 320 << 20),
            ("mkfs.vfat", &["-F", "32"], "vfat", 64 << 20),
            ("mkswap", &["-q"], "swap", 1 << 20),
        ] {
            let file = tempfile::NamedTempFile::new().unwrap();
            file.as_file().set_len(bytes).unwrap();
            let output = Command::new(program).args(arguments).arg(file.path()).output();
            let output =
                output.unwrap_or_else(|error| panic!("{program}: {error}; `cargo xtask setup test` installs it"));
            assert!(output.status.success(), "{program}: {output:?}");
            let found = content(file.as_file(), bytes).unwrap();
            assert_eq!(found.name(), name);
            if let Some(size) = size(file.as_file(), found) {
                assert_eq!(size.bytes(), bytes, "{program}");
            }
        }
    }

    proptest! {
        #[test]
        fn any_superblock_is_read(bytes in prop::collection::vec(any::<u8>(), 1024), bits in any::<[u8; 4]>()) {
            let mut block: [u8; 1024] = bytes.try_into().unwrap();
            block[..4].copy_from_slice(b"XFSB");
            block[56..58].copy_from_slice(&[0x53, 0xef]);
            block[24..28].copy_from_slice(&bits);
            let _ = (ext(&block).map(Size::bytes), xfs(&block).map(Size::bytes), md_at_end(u64::from(bits[0])));
        }
    }
}

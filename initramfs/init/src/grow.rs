//! Growing the data partition to the end of its disk, and its ext4 with it.
//!
//! An image is written to a medium of any size; at the first boot, and after a move to a larger disk, the last
//! partition is enlarged. Each step looks before it acts and may be cut off by a power failure: table (one whole copy
//! at any moment), kernel's view, file system (the kernel's own online resize, journalled). Never on a disk that does
//! not carry both of our partitions.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;

use rackbar_hardware::block;
use rackbar_hardware::gpt::{Found, find};

use crate::medium::{DATA, Medium};
use crate::report::say;

/// A gap smaller than this is left: alignment, not space.
const WORTH_WHILE: u64 = 8 << 20;

/// Enlarges the data partition of `medium` when there is room behind it.
pub(crate) fn partition(medium: &Medium) -> Result<(), String> {
    let words = |what: &'static str| move |error: io::Error| format!("{what}: {error}");
    let disk = OpenOptions::new()
        .read(true)
        .write(true)
        .open(format!("/dev/{}", medium.disk));
    let disk = disk.map_err(words("the disk cannot be written"))?;
    let Some(Found { table, .. }) = find(&disk, medium.sector, medium.sectors) else {
        return Err("its partition table is not readable any more".to_owned());
    };
    if table.disk_guid() != medium.guid.as_slice() {
        return Err("its identity has changed since it was found".to_owned());
    }
    let partitions = table.partitions();
    let data = partitions
        .iter()
        .find(|p| p.name == DATA)
        .ok_or("it has no data partition")?;
    let end = table.last_usable(medium.sectors);
    let is_last = partitions.iter().all(|other| other.last <= data.last);
    let gap = end.saturating_sub(data.last).saturating_mul(medium.sector);
    if !is_last || gap < WORTH_WHILE {
        return Ok(());
    }
    // Whole mebibytes, so that the file system ends on a boundary every disk likes.
    let align = (1u64 << 20) / medium.sector;
    let last = (end + 1) / align * align - 1;
    table
        .grown(medium.sectors, data.number, last)
        .write(&disk, medium.sectors)
        .map_err(words("writing its table"))?;
    let (start, length) = (data.first * medium.sector, (last + 1 - data.first) * medium.sector);
    let told = block::resize_partition(&disk, data.number, start, length).or_else(|_| block::reread_partitions(&disk));
    told.map_err(words("the kernel does not take the new size before the next boot"))?;
    say!("{}: the data partition now has {} MiB", medium.disk, length >> 20);
    Ok(())
}

/// Enlarges the mounted ext4 at `/data` to its partition.
pub(crate) fn file_system(medium: &Medium) -> Result<(), String> {
    let device = File::open(format!("/dev/{}", medium.data)).map_err(|e| e.to_string())?;
    let (have, block) = ext4_size(&device).ok_or("its superblock is not readable")?;
    let bytes = medium.partition_bytes().ok_or("its size is not known")?;
    let want = bytes / block;
    if want.saturating_sub(have).saturating_mul(block) < WORTH_WHILE {
        return Ok(());
    }
    let folder = File::open("/data").map_err(|e| e.to_string())?;
    block::resize_ext4(&folder, want).map_err(|e| e.to_string())?;
    say!(
        "/data grew from {} to {} MiB",
        have.saturating_mul(block) >> 20,
        want.saturating_mul(block) >> 20
    );
    Ok(())
}

/// Blocks and block size from an ext4 superblock, which is at byte 1024 (Documentation/filesystems/ext4).
fn ext4_size(device: &File) -> Option<(u64, u64)> {
    let mut superblock = [0u8; 1024];
    device.read_exact_at(&mut superblock, 1024).ok()?;
    let at = |offset: usize| Some(u32::from_le_bytes(superblock.get(offset..offset + 4)?.try_into().ok()?));
    if superblock.get(56..58)? != [0x53, 0xef] {
        return None;
    }
    const INCOMPAT_64BIT: u32 = 0x80;
    let high = if at(96)? & INCOMPAT_64BIT != 0 { at(0x150)? } else { 0 };
    let block = 1024u64
        .checked_shl(at(24)?)
        .filter(|size| *size <= 65_536 && *size >= 1024)?;
    Some((u64::from(high) << 32 | u64::from(at(4)?), block))
}

//! Wiping what names a disk's content: partition tables at both ends, and file system, RAID, LVM and encryption
//! signatures on the disk and inside its old partitions.

use std::fs::File;
use std::os::unix::fs::FileExt;

use rackbar_hardware::gpt;

use crate::Result;
use crate::control::{io, refuse};
use crate::disk::{Disk, MIB};
use crate::layout::mbr;
use crate::probe::{self, Content};

/// Bytes wiped at both ends of the disk and of each old partition. Both ZFS labels of each end (256 KiB each), md
/// superblocks of all versions, btrfs' first copy at 64 KiB, ISO 9660 and GPT arrays lie within.
const END: u64 = MIB;

/// Further copies of btrfs' superblock.
const BTRFS_COPIES: [u64; 2] = [64 * MIB, 256 << 30];

/// Logical partitions followed before a chain of extended records counts as a loop.
const LOGICAL: usize = 60;

/// Wipes; gives what was found and done.
pub(crate) fn wipe(disk: &Disk, name: &str) -> Result<Vec<String>> {
    let file = disk.to_read().map_err(io(format_args!("opening {name}")))?;
    let mut steps = Vec::new();
    if let Some(found) = probe::content(&file, disk.bytes()) {
        steps.push(format!("{name}: held {}", found.name()));
    }
    let parts = old_partitions(&file, disk);
    drop(file);
    for (number, start, bytes, content) in &parts {
        wipe_range(disk, *start, *bytes)?;
        steps.push(format!(
            "{name}: signatures of old partition {number} ({content}) wiped"
        ));
    }
    wipe_range(disk, 0, disk.bytes())?;
    steps.push(format!("{name}: first and last MiB zeroed, with the partition tables"));
    Ok(steps)
}

/// What names the disk's content, in words; empty when nothing does and both ends are zero.
pub(crate) fn found(disk: &Disk) -> std::io::Result<Vec<String>> {
    let file = disk.to_read()?;
    let mut found = Vec::new();
    if let Some(content) = probe::content(&file, disk.bytes()) {
        found.push(format!("{} on the whole disk", content.name()));
    }
    let sector = u64::from(disk.sector());
    let table = gpt::find(&file, sector, disk.bytes() / sector);
    let names = table.as_ref().map(|one| one.table.partitions()).unwrap_or_default();
    for (number, _, bytes, content) in old_partitions(&file, disk) {
        let name = names
            .iter()
            .find(|part| part.number == number)
            .map(|part| part.name.as_str());
        let name = name.filter(|name| !name.is_empty()).map(|name| format!(" {name:?}"));
        found.push(format!(
            "partition {number}{} ({content}, {} MiB)",
            name.unwrap_or_default(),
            bytes / MIB
        ));
    }
    if found.is_empty() && table.is_some() {
        found.push("an empty partition table".into());
    }
    if found.is_empty() && !ends_are_zero(&file, disk.bytes())? {
        found.push("data of a kind that is not known".into());
    }
    Ok(found)
}

/// A file system that nobody here knows, or a database on the raw disk, still begins or ends with something.
fn ends_are_zero(file: &File, bytes: u64) -> std::io::Result<bool> {
    let length = END.min(bytes);
    let mut end = vec![0; usize::try_from(length).unwrap_or(0)];
    for at in [0, bytes.saturating_sub(length)] {
        file.read_exact_at(&mut end, at)?;
        if !crate::disk::is_zero(&end) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Both ends of a range, and btrfs' other copies in it.
fn wipe_range(disk: &Disk, start: u64, bytes: u64) -> Result<()> {
    let end = start.saturating_add(bytes).min(disk.bytes());
    let zero = |from: u64, length: u64| disk.zero(from, length.min(end.saturating_sub(from)), &mut |_| Ok(()));
    zero(start, END)?;
    // O_DIRECT and BLKZEROOUT want whole sectors of the largest kind.
    let tail = end.saturating_sub(END).max(start) & !4095;
    zero(tail.max(start), end.saturating_sub(tail))?;
    for copy in BTRFS_COPIES {
        let at = start.saturating_add(copy);
        if at < end {
            zero(at, 4096)?;
        }
    }
    Ok(())
}

/// Old partitions: number, first byte, bytes, content.
fn old_partitions(file: &File, disk: &Disk) -> Vec<(u32, u64, u64, String)> {
    let sector = u64::from(disk.sector());
    let mut parts: Vec<(u32, u64, u64)> = Vec::new();
    if let Some(found) = gpt::find(file, sector, disk.bytes() / sector) {
        parts.extend(found.table.partitions().iter().map(|part| {
            let sectors = part.last.saturating_add(1).saturating_sub(part.first);
            (
                part.number,
                part.first.saturating_mul(sector),
                sectors.saturating_mul(sector),
            )
        }));
    }
    parts.extend(mbr_partitions(file));
    let inside = |(_, start, bytes): &(u32, u64, u64)| {
        *start >= sector && start.checked_add(*bytes).is_some_and(|end| end <= disk.bytes()) && start % sector == 0
    };
    let named = |(number, start, bytes): (u32, u64, u64)| {
        let content = content_at(file, start, bytes).map_or("unknown", Content::name);
        (number, start, bytes, content.to_owned())
    };
    parts.into_iter().filter(inside).map(named).collect()
}

/// What lies in a range of a disk whose partitions the kernel may not show.
fn content_at(file: &File, start: u64, bytes: u64) -> Option<Content> {
    let is = |offset: u64, wanted: &[u8]| {
        let mut found = [0; 32];
        let room = found.get_mut(..wanted.len());
        room.is_some_and(|room| file.read_exact_at(room, start.saturating_add(offset)).is_ok() && room == wanted)
    };
    if probe::md_at_end(bytes)
        .into_iter()
        .any(|offset| is(offset, &probe::MD_MAGIC))
    {
        return Some(Content::Other("linux_raid_member"));
    }
    let found = probe::MAGICS.iter().find(|magic| is(magic.offset, magic.bytes))?;
    Some(Content::Other(found.name))
}

/// Primary and logical partitions of a master boot record.
pub(crate) fn mbr_partitions(file: &File) -> Vec<(u32, u64, u64)> {
    const EXTENDED: [u8; 3] = [0x05, 0x0f, 0x85];
    let mut sector = [0; 512];
    if file.read_exact_at(&mut sector, 0).is_err() {
        return Vec::new();
    }
    let mut parts = mbr(&sector);
    let kind = |sector: &[u8; 512], number: u32| sector.get(450 + 16 * (number as usize - 1)).copied().unwrap_or(0);
    let extended = parts
        .iter()
        .find(|(number, ..)| EXTENDED.contains(&kind(&sector, *number)))
        .copied();
    let Some((_, base, _)) = extended else {
        return parts;
    };
    // Each record names one partition relative to itself and the next record relative to the first.
    let mut at = base;
    for number in 5..5 + LOGICAL as u32 {
        let mut record = [0; 512];
        if file.read_exact_at(&mut record, at).is_err() {
            break;
        }
        let entries = mbr(&record);
        let mut next = None;
        for (index, start, bytes) in entries {
            if EXTENDED.contains(&kind(&record, index)) {
                next = base.checked_add(start);
            } else if let Some(start) = at.checked_add(start) {
                parts.push((number, start, bytes));
            }
        }
        match next {
            Some(next) if next != at => at = next,
            _ => break,
        }
    }
    parts
}

/// Looks whether anything that names content is left.
pub(crate) fn verify(disk: &Disk, name: &str) -> Result<String> {
    let file = disk.to_read().map_err(io(format_args!("opening {name}")))?;
    let sector = u64::from(disk.sector());
    let table = gpt::find(&file, sector, disk.bytes() / sector).is_some() || !mbr_partitions(&file).is_empty();
    let content = probe::content(&file, disk.bytes());
    match (table, content) {
        (false, None) => Ok(format!(
            "{name}: read back, no partition table and no known signature is left"
        )),
        (_, content) => Err(refuse(
            format!(
                "{name} still has {} after it was emptied",
                content.map_or("a partition table", Content::name)
            ),
            "the disk does not keep what it is told; it may be write-protected or failing",
        )),
    }
}

//! Linux md RAID1 with metadata 1.0 (kernel: include/uapi/linux/raid/md_p.h): superblocks at the end of both halves, so
//! that each half is a plain file system for firmware and boot programs; and arrays put together and stopped.
//!
//! Both halves were written with the same bytes, so the array begins in sync and nothing is copied. A write-intent bitmap
//! (drivers/md/md-bitmap.h) stands before each superblock: after a power cut only what was being written is compared
//! again, and not whole disks for hours.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;

use crate::control::{fault, io as failed};
use crate::{Machine, Result};

/// Sectors before the superblock for the write-intent bitmap; mdadm leaves as many.
const RESERVED: u64 = 256;

/// Bytes of the bitmap's own head.
const BITMAP_HEAD: u64 = 256;

/// Least bytes of disk behind one bit, as mdadm has it: fewer mean more writes of the bitmap.
const BITMAP_CHUNK: u64 = 64 << 20;

/// Bytes of a superblock with its table of 128 roles, as mdadm makes it.
const SUPERBLOCK: usize = 512;

/// The array's number. Above those that are given out by counting up.
const NUMBER: u32 = 127;

/// What the two superblocks have in common.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Array {
    /// Its identity.
    pub(crate) uuid: [u8; 16],
    /// `host:name`, at most 32 bytes.
    pub(crate) name: String,
    /// Seconds since 1970.
    pub(crate) created: u64,
    /// Usable sectors of 512 bytes, the same for both halves.
    pub(crate) sectors: u64,
}

/// The superblock's sector on a partition of `bytes` (drivers/md/md.c, super_1_load, minor version 0).
pub(crate) fn superblock_sector(bytes: u64) -> u64 {
    (bytes / 512).saturating_sub(16) & !7
}

/// Sectors that an array of two partitions can use.
pub(crate) fn usable(bytes: [u64; 2]) -> u64 {
    let of = |bytes: u64| superblock_sector(bytes).saturating_sub(RESERVED);
    // Whole MiB, so that file systems end where disks like it.
    of(bytes[0]).min(of(bytes[1])) & !2047
}

impl Array {
    /// The superblock of member 0 or 1, whose partition has `bytes`.
    pub(crate) fn superblock(&self, member: u16, bytes: u64) -> [u8; SUPERBLOCK] {
        let place = superblock_sector(bytes);
        let mut block = [0; SUPERBLOCK];
        let mut put = |offset: usize, value: &[u8]| {
            if let Some(room) = block.get_mut(offset..offset + value.len()) {
                room.copy_from_slice(value);
            }
        };
        let name = self.name.as_bytes();
        let mut device = self.uuid;
        device[15] ^= member as u8 + 1;
        put(0, &0xa92b_4efcu32.to_le_bytes());
        put(4, &1u32.to_le_bytes());
        // There is a bitmap (MD_FEATURE_BITMAP_OFFSET), this many sectors after the superblock.
        put(8, &1u32.to_le_bytes());
        put(96, &(-(RESERVED as i32)).to_le_bytes());
        put(16, &self.uuid);
        put(32, name.get(..name.len().min(32)).unwrap_or_default());
        put(64, &(self.created & 0xff_ffff_ffff).to_le_bytes());
        // Level 1, layout 0, size of each half, no chunks, two disks.
        put(72, &1u32.to_le_bytes());
        put(80, &self.sectors.to_le_bytes());
        put(92, &2u32.to_le_bytes());
        // Data from sector 0 on, as many as there are; the superblock's own place; nothing left to recover.
        put(136, &self.sectors.to_le_bytes());
        put(144, &place.to_le_bytes());
        put(160, &u32::from(member).to_le_bytes());
        put(168, &device);
        put(192, &(self.created & 0xff_ffff_ffff).to_le_bytes());
        put(200, &1u64.to_le_bytes());
        // In sync to the end: nothing to copy.
        put(208, &u64::MAX.to_le_bytes());
        put(220, &128u32.to_le_bytes());
        // Roles by device number: active 0 and 1, all others spare places that nobody has.
        for role in 0..128usize {
            let value = if role < 2 { role as u16 } else { 0xffff };
            put(256 + 2 * role, &value.to_le_bytes());
        }
        let sum = checksum(&block);
        if let Some(room) = block.get_mut(216..220) {
            room.copy_from_slice(&sum.to_le_bytes());
        }
        block
    }
}

/// Sector of the bitmap on a partition of `bytes`.
pub(crate) fn bitmap_sector(bytes: u64) -> u64 {
    superblock_sector(bytes).saturating_sub(RESERVED)
}

impl Array {
    /// The bitmap in which nothing waits to be compared, with all the room that it has.
    pub(crate) fn bitmap(&self) -> Vec<u8> {
        let room = RESERVED * 512;
        let mut chunk = BITMAP_CHUNK;
        // The kernel takes powers of two that fit an u32; two GiB to a bit are enough for two PiB.
        while (self.sectors * 512).div_ceil(chunk) > (room - BITMAP_HEAD) * 8 && chunk < 1 << 31 {
            chunk *= 2;
        }
        // Magic, version 4: little-endian.
        let mut bytes = [*b"bitm", 4u32.to_le_bytes()].concat();
        bytes.extend(self.uuid);
        // As many events as the superblock has, and as many when a bit was last cleared.
        bytes.extend([1, 1, self.sectors].map(u64::to_le_bytes).concat());
        // No state; size of a chunk; seconds between two clearings; no write-behind; sectors there are.
        let numbers = [0, chunk as u32, 5, 0, RESERVED as u32];
        bytes.extend(numbers.map(u32::to_le_bytes).concat());
        bytes.resize(room as usize, 0);
        bytes
    }
}

/// calc_sb_1_csum: the sum of all words, the carry added once.
fn checksum(block: &[u8; SUPERBLOCK]) -> u32 {
    let words = block
        .chunks_exact(4)
        .map(|word| u64::from(u32::from_le_bytes([word[0], word[1], word[2], word[3]])));
    let sum: u64 = words.sum();
    ((sum & 0xffff_ffff) + (sum >> 32)) as u32
}

/// `mdu_array_info_t` of md_u.h, as words.
const ARRAY_INFO_WORDS: usize = 18;

/// `mdu_disk_info_t` of md_u.h: number, major, minor, raid_disk, state.
type DiskInfo = [libc::c_int; 5];

fn call<T>(array: &File, request: libc::c_ulong, argument: *const T) -> io::Result<()> {
    // SAFETY: every request of this module reads at most a T, which its caller keeps until the call returns.
    Errno::result(unsafe { libc::ioctl(array.as_raw_fd(), request as _, argument) })?;
    Ok(())
}

/// Stops an array; its disks keep their superblocks.
pub(crate) fn stop(array: &Path) -> io::Result<()> {
    // _IO(MD_MAJOR = 9, 0x32)
    const STOP_ARRAY: libc::c_ulong = 0x0932;
    let file = OpenOptions::new().read(true).write(true).open(array)?;
    call(&file, STOP_ARRAY, std::ptr::null::<u8>())
}

/// A running array; stopped when this is dropped.
#[derive(Debug)]
pub(crate) struct Running(PathBuf);

impl Running {
    /// Puts the array of two partitions together. The kernel reads their superblocks and refuses what does not fit.
    pub(crate) fn assemble(machine: &Machine, halves: [&Path; 2]) -> Result<Self> {
        let path = node(machine)?;
        let name = path.display().to_string();
        let array = OpenOptions::new().read(true).write(true).open(&path);
        let array = array.map_err(failed(format_args!("opening {name}")))?;
        // _IOW(9, 0x23, mdu_array_info_t), _IOW(9, 0x21, mdu_disk_info_t), _IOW(9, 0x30, mdu_param_t)
        const SET_ARRAY_INFO: libc::c_ulong = 0x4048_0923;
        const ADD_NEW_DISK: libc::c_ulong = 0x4014_0921;
        const RUN_ARRAY: libc::c_ulong = 0x400c_0930;
        // Only the metadata's version: all else comes from the superblocks.
        let mut info = [0 as libc::c_int; ARRAY_INFO_WORDS];
        info[0] = 1;
        call(&array, SET_ARRAY_INFO, &info).map_err(failed(format_args!("setting up {name}")))?;
        let running = Self(path);
        for half in halves {
            let device = std::fs::metadata(half).map_err(failed(half.display()))?.rdev();
            let disk: DiskInfo = [
                0,
                libc::major(device) as libc::c_int,
                libc::minor(device) as libc::c_int,
                0,
                0,
            ];
            call(&array, ADD_NEW_DISK, &disk).map_err(failed(format_args!("adding {} to {name}", half.display())))?;
        }
        call(&array, RUN_ARRAY, std::ptr::null::<u8>()).map_err(failed(format_args!("starting {name}")))?;
        Ok(running)
    }

    /// Its device file.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// How the kernel sees it, such as `clean` or `active`, and how many of its halves are missing.
    pub(crate) fn state(&self, machine: &Machine) -> String {
        let folder = format!("sys/block/md{NUMBER}/md");
        let state = machine.root.text(format!("{folder}/array_state")).unwrap_or_default();
        let degraded = machine.root.text(format!("{folder}/degraded")).unwrap_or_default();
        let sync = machine.root.text(format!("{folder}/sync_action")).unwrap_or_default();
        format!("{state}, {degraded} halves missing, {sync}")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = stop(&self.0);
    }
}

/// The device file of our array, which the md driver makes when it is asked to.
fn node(machine: &Machine) -> Result<PathBuf> {
    let path = machine.root.path(format!("dev/md{NUMBER}"));
    for module in ["md-mod", "raid1"] {
        machine.load_module(module);
    }
    if !path.exists() {
        let asked = machine.root.path("sys/module/md_mod/parameters/new_array");
        std::fs::write(&asked, format!("md{NUMBER}")).map_err(failed("asking the kernel for an md array"))?;
    }
    let deadline = Instant::now() + Duration::from_secs(10);
    while !path.exists() {
        if Instant::now() > deadline {
            return Err(fault(
                format!("{} did not appear", path.display()),
                "the kernel has no md driver (raid1)",
            ));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;
    use std::process::Command;

    fn array(bytes: u64) -> Array {
        Array {
            uuid: *b"0123456789abcdef",
            name: "node-001:root".to_owned(),
            created: 1_800_000_000,
            sectors: usable([bytes, bytes]),
        }
    }

    #[test]
    fn the_place_is_where_the_kernel_looks() {
        assert_eq!(superblock_sector(64 << 20), 131_072 - 16);
        assert_eq!(superblock_sector((64 << 20) + 512), 131_072 - 16);
        assert!(usable([64 << 20, 65 << 20]) * 512 <= 63 << 20);
        assert_eq!(usable([0, 5]), 0);
    }

    #[test]
    fn mdadm_accepts_both_superblocks() {
        let bytes = 64 << 20;
        for member in 0..2u16 {
            let file = tempfile::NamedTempFile::new().unwrap();
            file.as_file().set_len(bytes).unwrap();
            let block = array(bytes).superblock(member, bytes);
            file.as_file()
                .write_all_at(&block, superblock_sector(bytes) * 512)
                .unwrap();
            file.as_file()
                .write_all_at(&array(bytes).bitmap(), bitmap_sector(bytes) * 512)
                .unwrap();
            let output = Command::new("mdadm").arg("--examine").arg(file.path()).output();
            let output = output.expect("mdadm: `cargo xtask setup test` installs it");
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            for wanted in [
                "Version : 1.0",
                "Raid Level : raid1",
                "Raid Devices : 2",
                "State : clean",
                "- correct",
                "Name : node-001:root",
                "Array State : AA",
                "Internal Bitmap : -256 sectors from superblock",
                &format!("Device Role : Active device {member}"),
            ] {
                assert!(text.contains(wanted), "{wanted} is not in: {text}");
            }
            // Of a file mdadm thinks that it holds nothing but a bitmap.
            std::fs::write(file.path(), array(bytes).bitmap()).unwrap();
            let output = Command::new("mdadm").arg("--examine-bitmap").arg(file.path()).output();
            let text = String::from_utf8_lossy(&output.unwrap().stdout).into_owned();
            for wanted in [
                "Version : 4",
                "Events : 1",
                "Chunksize : 64 MB",
                "1 bits (chunks), 0 dirty (0.0%)",
            ] {
                assert!(text.contains(wanted), "{wanted} is not in: {text}");
            }
        }
    }

    #[test]
    fn the_bitmap_fits_its_room_on_every_disk() {
        for bytes in [64 << 20, 4 << 40, 64 << 40, 200 << 40, 1 << 50] {
            let bitmap = array(bytes).bitmap();
            assert_eq!(bitmap.len() as u64, RESERVED * 512);
            let chunk = u64::from(u32::from_le_bytes(bitmap[52..56].try_into().unwrap()));
            assert!(chunk.is_power_of_two());
            assert!(bytes.div_ceil(chunk) <= (RESERVED * 512 - BITMAP_HEAD) * 8, "{bytes}");
        }
    }
}

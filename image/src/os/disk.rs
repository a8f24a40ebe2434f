//! The disk of an operating-system image, bootable by BIOS and UEFI firmware.
//!
//! | partition | content |
//! | --- | --- |
//! | 1 `bios-boot`, 1 MiB | GRUB's core image, for BIOS firmware |
//! | 2 `esp`, FAT32, 64 MiB | Debian's signed shim and GRUB, for UEFI firmware with and without Secure Boot |
//! | 3 `root`, ext4 | everything else; last, so that it can be grown to the disk's end |

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::grub;
use crate::digest::serial;
use crate::fat::Volume;
use crate::gpt::{self, BACKUP_SECTORS, Partition, SECTOR};

const MIB: u64 = 1 << 20;
const BIOS_START: u64 = MIB;
const ESP_START: u64 = 2 * MIB;
/// With clusters of one sector the least that is still FAT32 is 33 MiB; firmware updates and a second GRUB need room.
const ESP_SIZE: u64 = 64 * MIB;
const ROOT_START: u64 = ESP_START + ESP_SIZE;

/// What a disk is made of.
#[derive(Debug)]
pub struct OsDisk<'a> {
    /// What its identifiers are derived from.
    pub identity: &'a str,
    /// GRUB's `boot.img`.
    pub boot_img: &'a [u8],
    /// GRUB's core image for BIOS firmware.
    pub core_img: &'a [u8],
    /// Signed shim, started by the firmware.
    pub shim: &'a [u8],
    /// Signed GRUB, started by shim.
    pub grub_efi: &'a [u8],
    /// UUID of the root file system.
    pub root_uuid: &'a str,
    /// File with the root file system; its size is a multiple of 4096.
    pub root: &'a Path,
}

/// Volume serial number of the EFI partition of an image with this identity.
pub fn esp_serial(identity: &str) -> u32 {
    serial(&format!("{identity} esp"))
}

/// Writes the disk to `path`, sparse.
///
/// # Errors
/// When a part is not what it should be, or writing fails.
pub fn write(disk: &OsDisk<'_>, path: &Path) -> Result<()> {
    create(disk, path).with_context(|| format!("writing disk image {}", path.display()))
}

fn create(disk: &OsDisk<'_>, path: &Path) -> Result<()> {
    let root_size = std::fs::metadata(disk.root)?.len();
    ensure!(
        root_size.is_multiple_of(4096),
        "a root file system of {root_size} bytes"
    );
    let core_sector = BIOS_START / SECTOR;
    let code = grub::boot_code(disk.boot_img, core_sector)?;
    let core = grub::place_core(disk.core_img, core_sector)?;
    ensure!(
        core.len() as u64 <= ESP_START - BIOS_START,
        "GRUB's core image does not fit its partition"
    );
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)?;
    file.set_len((ROOT_START + root_size + BACKUP_SECTORS * SECTOR).next_multiple_of(MIB))?;
    let partition = |name, kind, from: u64, size: u64| Partition {
        name,
        kind,
        start: from / SECTOR,
        sectors: size / SECTOR,
    };
    let partitions = [
        partition("bios-boot", gpt::BIOS_BOOT, BIOS_START, ESP_START - BIOS_START),
        partition("esp", gpt::ESP, ESP_START, ESP_SIZE),
        partition("root", gpt::LINUX_DATA, ROOT_START, root_size),
    ];
    gpt::write(&mut file, disk.identity, &partitions)?;
    // Into the protective MBR, in front of its partition table.
    file.write_all_at(&code, 0)?;
    file.write_all_at(&core, BIOS_START)?;
    write_esp(disk, &file)?;
    copy_sparse(disk.root, &file, ROOT_START)
}

/// Shim starts `grubx64.efi` beside itself; Debian's signed GRUB reads `EFI/debian/grub.cfg`, wherever it was started.
fn write_esp(disk: &OsDisk<'_>, file: &File) -> Result<()> {
    let config = grub::embedded_config(disk.root_uuid) + "configfile $prefix/grub.cfg\n";
    let volume = Volume {
        size: ESP_SIZE,
        cluster: 512,
        align: 512,
        label: "ESP",
        serial: esp_serial(disk.identity),
        hidden_sectors: (ESP_START / SECTOR) as u32,
        files: vec![
            ("EFI/BOOT/BOOTX64.EFI", disk.shim),
            ("EFI/BOOT/grubx64.efi", disk.grub_efi),
            ("EFI/debian/grub.cfg", config.as_bytes()),
        ],
    };
    volume.write(file, ESP_START).map(|_| ())
}

/// Copies a file to an offset of another one that reads as zeros there; what is zero is left out.
fn copy_sparse(from: &Path, to: &File, offset: u64) -> Result<()> {
    let mut source = File::open(from).with_context(|| format!("opening {}", from.display()))?;
    let (mut piece, mut at) = (vec![0; 64 << 10], offset);
    loop {
        let count = source.read(&mut piece)?;
        let bytes = &piece[..count];
        if bytes.is_empty() {
            return Ok(());
        }
        if bytes.iter().any(|byte| *byte != 0) {
            to.write_all_at(bytes, at)?;
        }
        at += count as u64;
    }
}

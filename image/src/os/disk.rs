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
    volume.write(file, ESP_START)?;
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    fn read(file: &File, at: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, at).unwrap();
        bytes
    }

    #[test]
    fn a_disk_has_boot_code_partitions_and_the_root_last() {
        let folder = tempfile::tempdir().unwrap();
        let (root, out) = (folder.path().join("root"), folder.path().join("disk"));
        let mut content = vec![0; 3 << 20];
        content[1_080..1_082].copy_from_slice(&[0x53, 0xEF]);
        std::fs::write(&root, &content).unwrap();
        let mut boot_img = [0x11; 512];
        boot_img[0x66] = 0xEB;
        boot_img[510..].copy_from_slice(&[0x55, 0xAA]);
        let mut core_img = vec![0x22; 4096];
        core_img[508..512].copy_from_slice(&[7, 0, 0x20, 0x08]);
        let disk = OsDisk {
            identity: "test",
            boot_img: &boot_img,
            core_img: &core_img,
            shim: b"shim",
            grub_efi: b"grub",
            root_uuid: "0-1-2",
            root: &root,
        };
        write(&disk, &out).unwrap();
        let file = File::open(&out).unwrap();
        let first = read(&file, 0, 512);
        assert_eq!(
            (first[0], first[0x5C], first[0x5D]),
            (0x11, 0, 8),
            "boot code that loads sector 2048"
        );
        assert_eq!(first[446 + 4], 0xEE, "the protective partition survived");
        assert_eq!(read(&file, BIOS_START + 500, 8), 2049u64.to_le_bytes());
        assert_eq!(read(&file, ROOT_START, content.len()), content);
        let table = gptman::GPT::find_from(&mut File::open(&out).unwrap()).unwrap();
        let used = table.iter().filter(|(_, entry)| entry.is_used());
        let names: Vec<_> = used.map(|(_, entry)| entry.partition_name.to_string()).collect();
        assert_eq!(names, ["bios-boot", "esp", "root"]);
        let esp = read(&file, ESP_START, ESP_SIZE as usize);
        let config = b"search.fs_uuid 0-1-2 root --no-floppy";
        assert!(esp.windows(config.len()).any(|part| part == config));
    }

    #[test]
    fn a_root_file_system_that_is_no_multiple_of_its_blocks_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        std::fs::write(&root, vec![0; 5000]).unwrap();
        let disk = OsDisk {
            identity: "test",
            boot_img: &[0; 512],
            core_img: &[],
            shim: b"",
            grub_efi: b"",
            root_uuid: "",
            root: &root,
        };
        let error = write(&disk, &folder.path().join("disk")).unwrap_err();
        assert!(format!("{error:#}").contains("5000 bytes"), "{error:#}");
    }
}

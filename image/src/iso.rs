//! `rackbar.iso`: one file that UEFI firmware boots as a CD and as a disk.
//!
//! As a CD: ISO 9660 (ECMA-119) with an El Torito boot catalogue (1.0, and UEFI 2.10 section 13.3.2.1) that points at
//! a FAT image. As a disk: a partition table whose one partition is the same FAT image. The files in the ISO's own
//! tree are the very blocks inside the FAT image, so nothing is stored twice, and an operating system that can only
//! mount the CD finds `rackbar.toml` there too.
//!
//! ```text
//! 0      protective MBR and GPT (512-byte sectors 0 to 33)      the ISO's system area
//! 16     primary volume descriptor, boot record, terminator     2048-byte sectors from here
//! 19     boot catalogue
//! 20     path tables, folders
//! 512    FAT image                                              1 MiB from the start
//! end    backup GPT
//! ```

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result};

use crate::digest::serial;
use crate::disk::{BOOT_PATH, CONFIG_NAME, ESP_NAME};
use crate::epoch::STAMP;
use crate::fat::Volume;
use crate::gpt::{self, BACKUP_SECTORS, Partition};

const SECTOR: u64 = 2048;
const MIB: u64 = 1 << 20;
/// Where the FAT image starts.
const ESP_START: u64 = MIB;
/// FAT32 needs 65,525 clusters, which at 512 bytes are 32 MiB; the image is never smaller than this.
const ESP_LEAST: u64 = 34 * MIB;
const VOLUME_ID: &str = "RACKBAR";

const DESCRIPTORS: u64 = 16;
const CATALOGUE: u64 = 19;
const PATH_TABLE_LITTLE: u64 = 20;
const PATH_TABLE_BIG: u64 = 21;
const FOLDERS: u64 = 22;

/// An ISO to write.
#[derive(Debug, Clone, Copy)]
pub struct IsoSpec<'a> {
    /// The appliance's UKI, `rackbar.efi`.
    pub efi: &'a [u8],
    /// The configuration to put beside it; without one the appliance starts with safe defaults.
    pub config: Option<&'a str>,
}

/// Writes an ISO image to `path`, replacing what is there.
pub fn write(spec: &IsoSpec<'_>, path: &Path) -> Result<()> {
    create(spec, path).with_context(|| format!("writing ISO image {}", path.display()))
}

fn create(spec: &IsoSpec<'_>, path: &Path) -> Result<()> {
    let mut files = vec![(BOOT_PATH, spec.efi)];
    files.extend(spec.config.map(|config| (CONFIG_NAME, config.as_bytes())));
    let content: u64 = files.iter().map(|(_, content)| content.len() as u64 + SECTOR).sum();
    // A fortieth for the allocation tables (2 x 4 bytes per 512), and room for folders.
    let esp_size = (content + content / 40 + MIB).max(ESP_LEAST).next_multiple_of(MIB);
    let size = (ESP_START + esp_size + BACKUP_SECTORS * gpt::SECTOR).next_multiple_of(32 * SECTOR);

    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)?;
    file.set_len(size)?;
    let esp = Volume {
        size: esp_size,
        cluster: 512,
        // The ISO's tree points at these files, and it counts in 2048.
        align: SECTOR,
        label: VOLUME_ID,
        serial: serial("iso"),
        hidden_sectors: (ESP_START / gpt::SECTOR) as u32,
        files: files.clone(),
    };
    let placed = esp.write(&file, ESP_START)?;
    let sizes: BTreeMap<_, _> = files
        .iter()
        .map(|(path, content)| (*path, content.len() as u32))
        .collect();
    tree(&file, size, &placed, &sizes)?;
    let partition = Partition {
        name: ESP_NAME,
        kind: gpt::ESP,
        start: ESP_START / gpt::SECTOR,
        sectors: esp_size / gpt::SECTOR,
    };
    gpt::write(&mut file, "iso", &[partition])
}

/// Writes descriptors, boot catalogue, path tables and folders.
fn tree(file: &File, size: u64, placed: &BTreeMap<String, u64>, sizes: &BTreeMap<&str, u32>) -> Result<()> {
    let put = |sector: u64, bytes: &[u8]| file.write_all_at(bytes, sector * SECTOR).context("writing the ISO");
    let extent = |path: &str| -> Option<Extent> {
        let at = placed.get(path)?;
        Some(Extent {
            sector: ((ESP_START + at) / SECTOR) as u32,
            bytes: *sizes.get(path)?,
        })
    };
    let [root, efi, boot] = [0, 1, 2].map(|index| Extent {
        sector: (FOLDERS + index) as u32,
        bytes: SECTOR as u32,
    });

    put(DESCRIPTORS, &primary_descriptor((size / SECTOR) as u32, root))?;
    put(DESCRIPTORS + 1, &boot_record())?;
    put(DESCRIPTORS + 2, b"\xFFCD001\x01")?;
    put(CATALOGUE, &boot_catalogue())?;
    let folders = [("\0", root, 1), ("EFI", efi, 1), ("BOOT", boot, 2)];
    put(
        PATH_TABLE_LITTLE,
        &path_table(&folders, u32::to_le_bytes, u16::to_le_bytes),
    )?;
    put(
        PATH_TABLE_BIG,
        &path_table(&folders, u32::to_be_bytes, u16::to_be_bytes),
    )?;

    let mut entries = vec![record("EFI", efi, true)];
    entries.extend(extent(CONFIG_NAME).map(|extent| record("RACKBAR.TOML;1", extent, false)));
    put(FOLDERS, &folder(root, root, entries))?;
    put(FOLDERS + 1, &folder(efi, root, vec![record("BOOT", boot, true)]))?;
    let program = extent(BOOT_PATH).context("the boot program was not placed")?;
    put(
        FOLDERS + 2,
        &folder(boot, efi, vec![record("BOOTX64.EFI;1", program, false)]),
    )
}

/// Where something lies: first sector of 2048 bytes, and length in bytes.
#[derive(Debug, Clone, Copy)]
struct Extent {
    sector: u32,
    bytes: u32,
}

/// A number in both byte orders (7.3.3).
fn both32(value: u32) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&value.to_le_bytes());
    bytes[4..].copy_from_slice(&value.to_be_bytes());
    bytes
}

/// A short number in both byte orders (7.2.3).
fn both16(value: u16) -> [u8; 4] {
    let ([a, b], [c, d]) = (value.to_le_bytes(), value.to_be_bytes());
    [a, b, c, d]
}

/// A directory record (9.1).
fn record(name: &str, extent: Extent, folder: bool) -> Vec<u8> {
    let mut record = vec![0, 0];
    record.extend_from_slice(&both32(extent.sector));
    record.extend_from_slice(&both32(extent.bytes));
    record.extend_from_slice(&STAMP.iso_record());
    record.extend_from_slice(&[if folder { 2 } else { 0 }, 0, 0]);
    record.extend_from_slice(&both16(1));
    record.push(name.len() as u8);
    record.extend_from_slice(name.as_bytes());
    record.resize(record.len().next_multiple_of(2), 0);
    record[0] = record.len() as u8;
    record
}

/// A folder's one sector: itself, its parent, and what is in it, sorted by name as given.
fn folder(own: Extent, parent: Extent, entries: Vec<Vec<u8>>) -> Vec<u8> {
    let mut sector = [record("\0", own, true), record("\x01", parent, true)].concat();
    sector.extend(entries.concat());
    sector.resize(SECTOR as usize, 0);
    sector
}

/// A path table (9.4) in one byte order.
fn path_table(folders: &[(&str, Extent, u16)], long: fn(u32) -> [u8; 4], short: fn(u16) -> [u8; 2]) -> Vec<u8> {
    let mut table = Vec::new();
    for (name, extent, parent) in folders {
        table.extend_from_slice(&[name.len() as u8, 0]);
        table.extend_from_slice(&long(extent.sector));
        table.extend_from_slice(&short(*parent));
        table.extend_from_slice(name.as_bytes());
        table.resize(table.len().next_multiple_of(2), 0);
    }
    table
}

/// Length of the path table for the three folders: 8 bytes each, and their names padded to even.
const PATH_TABLE_BYTES: u32 = 10 + 12 + 12;

/// The primary volume descriptor (8.4).
fn primary_descriptor(sectors: u32, root: Extent) -> Vec<u8> {
    let mut descriptor = vec![b' '; SECTOR as usize];
    let mut put = |at: usize, bytes: &[u8]| descriptor[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"\x01CD001\x01\0");
    put(40, VOLUME_ID.as_bytes());
    put(72, &[0; 8]);
    put(80, &both32(sectors));
    put(88, &[0; 32]);
    put(120, &both16(1));
    put(124, &both16(1));
    put(128, &both16(SECTOR as u16));
    put(132, &both32(PATH_TABLE_BYTES));
    put(140, &(PATH_TABLE_LITTLE as u32).to_le_bytes());
    put(144, &[0; 4]);
    put(148, &(PATH_TABLE_BIG as u32).to_be_bytes());
    put(152, &[0; 4]);
    put(156, &record("\0", root, true));
    put(318, b"RACKBAR"); // publisher
    put(574, b"RACKBAR"); // application
    for at in [813, 830, 864] {
        put(at, &STAMP.iso_volume()); // created, modified, effective
    }
    put(847, b"0000000000000000\0"); // never expires
    put(881, &[1, 0]);
    put(883, &[0; 1165]);
    descriptor
}

/// The El Torito boot record volume descriptor.
fn boot_record() -> Vec<u8> {
    let mut descriptor = vec![0; SECTOR as usize];
    descriptor[..30].copy_from_slice(b"\0CD001\x01EL TORITO SPECIFICATION");
    descriptor[71..75].copy_from_slice(&(CATALOGUE as u32).to_le_bytes());
    descriptor
}

/// The boot catalogue: one entry, for UEFI, without emulation.
fn boot_catalogue() -> Vec<u8> {
    let mut catalogue = vec![0; SECTOR as usize];
    catalogue[..2].copy_from_slice(&[1, 0xEF]); // validation entry, platform UEFI
    catalogue[30..32].copy_from_slice(&[0x55, 0xAA]);
    // All 16-bit words of the validation entry add up to zero.
    let sum = catalogue[..32].chunks(2).fold(0u16, |sum, word| {
        sum.wrapping_add(u16::from_le_bytes([word[0], word[1]]))
    });
    catalogue[28..30].copy_from_slice(&sum.wrapping_neg().to_le_bytes());
    catalogue[32] = 0x88; // bootable; the sector count stays 0: in UEFI that means up to the end of the medium, and the
    // field's 16 bits could not hold an image above 32 MiB
    catalogue[40..44].copy_from_slice(&((ESP_START / SECTOR) as u32).to_le_bytes());
    catalogue
}

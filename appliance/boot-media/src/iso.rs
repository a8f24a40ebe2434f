//! A disc that UEFI firmware boots: one file with a boot program, and a text beside it.
//!
//! As a CD: ISO 9660 (ECMA-119) with an El Torito boot catalogue (1.0, and UEFI 2.10 section 13.3.2.1) that points at
//! a FAT image. Room is left in front and behind for a partition table whose one
//! partition is the same FAT image, which makes it a disk, too. The files in the ISO's own
//! tree are the very blocks inside the FAT image, so nothing is stored twice, and an operating system that can only
//! mount the CD finds them there too.
//!
//! ```text
//! 0      room for an MBR and a GPT (512-byte sectors 0 to 33)   the ISO's system area
//! 16     primary volume descriptor, boot record, terminator     2048-byte sectors from here
//! 19     boot catalogue
//! 20     path tables, folders
//! 512    FAT image                                              1 MiB from the start
//!        files behind it, when there are any                    each from a whole MiB on
//! end    room for the backup GPT
//! ```

use std::collections::BTreeMap;
use std::io::{Cursor, Seek, SeekFrom, Write};

use crate::epoch::STAMP;
use crate::fat::Volume;
use crate::{BOOT_PATH, Error, Result, ensure};

const SECTOR: u64 = 2048;
const MIB: u64 = 1 << 20;
/// Where the FAT image starts.
const ESP_START: u64 = MIB;
/// Sectors of 512 bytes at the end that a backup partition table takes.
const BACKUP_SECTORS: u64 = 33;
const VOLUME_ID: &str = "RACKBAR";

const DESCRIPTORS: u64 = 16;
const CATALOGUE: u64 = 19;
const PATH_TABLE_LITTLE: u64 = 20;
const PATH_TABLE_BIG: u64 = 21;
const FOLDERS: u64 = 22;

/// A disc to write.
#[derive(Debug, Clone, Copy)]
pub struct Disc<'a> {
    /// The boot program, an EFI application.
    pub efi: &'a [u8],
    /// Name and content of a file beside it in the root folder, such as `rackbar.toml`: lower case, 8.3.
    pub beside: Option<(&'a str, &'a [u8])>,
    /// Files behind the FAT image, whose bytes the caller writes.
    pub behind: &'a [Behind<'a>],
    /// Serial number of the FAT volume.
    pub serial: u32,
    /// The FAT image is at least so large, in bytes: [`FAT32`] or [`FAT16`].
    pub least: u64,
}

/// A large file behind the FAT image: only in the ISO's tree, below [`SHELF`].
#[derive(Debug, Clone, Copy)]
pub struct Behind<'a> {
    /// Its name there, in upper case.
    pub name: &'a str,
    /// Its bytes.
    pub bytes: u64,
}

/// Folder of the files behind the FAT image.
pub const SHELF: &str = "PACKS";

/// What one record can say: 32 bits of bytes, in whole sectors.
const EXTENT_MOST: u64 = 0xFFFF_F800;

/// FAT32 needs 65,525 clusters, which at 512 bytes are 32 MiB.
pub const FAT32: u64 = 34 * MIB;
/// FAT16 needs 4,085 clusters. A disc that a BMC fetches is to be small.
pub const FAT16: u64 = 3 * MIB;

/// Where things lie on a disc, in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// Where the FAT image starts.
    pub esp_start: u64,
    /// Its size.
    pub esp_size: u64,
    /// Where each file behind it starts: on a whole MiB, so that a partition may, too.
    pub behind: Vec<u64>,
    /// Size of the whole disc, room for a backup partition table included.
    pub size: u64,
}

/// The disc as bytes.
///
/// # Errors
/// As [`write()`].
pub fn bytes(disc: &Disc<'_>) -> Result<Vec<u8>> {
    let mut out = Cursor::new(Vec::new());
    let places = write(disc, &mut out)?;
    let mut bytes = out.into_inner();
    bytes.resize(places.size as usize, 0);
    Ok(bytes)
}

/// Writes the disc to `out`, which must be empty; the caller brings it to [`Places::size`] with zeros.
///
/// # Errors
/// When a name is none of FAT's, the program is too large, or `out` cannot be written.
pub fn write(disc: &Disc<'_>, mut out: impl Write + Seek) -> Result<Places> {
    let mut files = vec![(BOOT_PATH, disc.efi)];
    files.extend(disc.beside);
    let content: u64 = files.iter().map(|(_, content)| content.len() as u64 + SECTOR).sum();
    // A fortieth for the allocation tables (2 x 4 bytes per 512), and room for folders.
    let esp_size = (content + content / 40 + MIB).max(disc.least).next_multiple_of(MIB);
    let (mut end, mut behind) = (ESP_START + esp_size, Vec::new());
    for file in disc.behind {
        behind.push(end);
        end = end.saturating_add(file.bytes).next_multiple_of(MIB);
    }
    let size = (end + BACKUP_SECTORS * 512).next_multiple_of(32 * SECTOR);
    let esp = Volume {
        size: esp_size,
        cluster: 512,
        // The ISO's tree points at these files, and it counts in 2048.
        align: SECTOR,
        label: VOLUME_ID,
        serial: disc.serial,
        hidden_sectors: (ESP_START / 512) as u32,
        files,
    };
    let placed = esp.write(&mut out, ESP_START)?;
    let places = Places {
        esp_start: ESP_START,
        esp_size,
        behind,
        size,
    };
    tree(disc, &mut out, &places, &placed)?;
    Ok(places)
}

/// Writes descriptors, boot catalogue, path tables and folders.
fn tree(disc: &Disc<'_>, out: &mut (impl Write + Seek), places: &Places, placed: &BTreeMap<String, u64>) -> Result<()> {
    let extent = |path: &str, content: &[u8]| -> Option<Extent> {
        Some(Extent {
            sector: ((ESP_START + placed.get(path)?) / SECTOR) as u32,
            bytes: content.len() as u32,
        })
    };
    let [root, efi, boot, shelf] = [0, 1, 2, 3].map(|index| Extent {
        sector: (FOLDERS + index) as u32,
        bytes: SECTOR as u32,
    });
    let mut entries = vec![record("EFI", efi, true)];
    // Level by level, and by name (6.9.1).
    let mut folders = vec![("\0", root, 1), ("EFI", efi, 1)];
    if !disc.behind.is_empty() {
        entries.push(record(SHELF, shelf, true));
        folders.push((SHELF, shelf, 1));
    }
    folders.push(("BOOT", boot, 2));
    if let Some((name, content)) = disc.beside
        && let Some(extent) = extent(name, content)
    {
        entries.push(record(&format!("{};1", name.to_ascii_uppercase()), extent, false));
    }
    let program = extent(BOOT_PATH, disc.efi).ok_or_else(|| Error::Wrong("the boot program is empty".into()))?;
    let little = path_table(&folders, u32::to_le_bytes, u16::to_le_bytes);
    let sectors_in_all = u32::try_from(places.size / SECTOR)
        .map_err(|_| Error::Wrong("the disc is larger than ISO 9660 can say".into()))?;
    let mut sectors = vec![
        (
            DESCRIPTORS,
            primary_descriptor(sectors_in_all, root, little.len() as u32),
        ),
        (DESCRIPTORS + 1, boot_record()),
        (DESCRIPTORS + 2, b"\xFFCD001\x01".to_vec()),
        (CATALOGUE, boot_catalogue(places.esp_size)),
        (PATH_TABLE_LITTLE, little),
        (PATH_TABLE_BIG, path_table(&folders, u32::to_be_bytes, u16::to_be_bytes)),
        (FOLDERS, folder(root, root, entries)),
        (FOLDERS + 1, folder(efi, root, vec![record("BOOT", boot, true)])),
        (
            FOLDERS + 2,
            folder(boot, efi, vec![record("BOOTX64.EFI;1", program, false)]),
        ),
    ];
    if !disc.behind.is_empty() {
        sectors.push((FOLDERS + 3, shelf_of(disc, places, shelf, root)?));
    }
    for (sector, bytes) in sectors {
        out.seek(SeekFrom::Start(sector * SECTOR))?;
        out.write_all(&bytes)?;
    }
    Ok(())
}

/// The folder of the files behind: one record each, or more for one larger than a record can say (6.4.2).
fn shelf_of(disc: &Disc<'_>, places: &Places, own: Extent, root: Extent) -> Result<Vec<u8>> {
    let mut named: Vec<_> = disc.behind.iter().zip(&places.behind).collect();
    named.sort_by_key(|(file, _)| file.name);
    let mut entries = Vec::new();
    for (file, start) in named {
        let name = format!("{};1", file.name);
        ensure!(name.len() <= 200, "{}: the name is too long for a disc", file.name);
        let (mut at, mut left) = (*start, file.bytes);
        while left > 0 {
            let bytes = left.min(EXTENT_MOST);
            let extent = Extent {
                // The size of the whole disc was found to fit.
                sector: (at / SECTOR) as u32,
                bytes: bytes as u32,
            };
            let mut entry = record(&name, extent, false);
            (at, left) = (at + bytes, left - bytes);
            if left > 0 {
                // Another record goes on with this file (9.1.6).
                entry[25] |= 0x80;
            }
            entries.push(entry);
        }
    }
    let sector = folder(own, root, entries);
    // A record never crosses the end of a sector (6.8.1.1), and ours have one.
    ensure!(sector.len() == SECTOR as usize, "too many files for one disc");
    Ok(sector)
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
    sector.resize(sector.len().max(SECTOR as usize), 0);
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

/// The primary volume descriptor (8.4).
fn primary_descriptor(sectors: u32, root: Extent, path_table: u32) -> Vec<u8> {
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
    put(132, &both32(path_table));
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
fn boot_catalogue(esp_size: u64) -> Vec<u8> {
    let mut catalogue = vec![0; SECTOR as usize];
    catalogue[..2].copy_from_slice(&[1, 0xEF]); // validation entry, platform UEFI
    catalogue[30..32].copy_from_slice(&[0x55, 0xAA]);
    // All 16-bit words of the validation entry add up to zero.
    let sum = catalogue[..32].chunks(2).fold(0u16, |sum, word| {
        sum.wrapping_add(u16::from_le_bytes([word[0], word[1]]))
    });
    catalogue[28..30].copy_from_slice(&sum.wrapping_neg().to_le_bytes());
    catalogue[32] = 0x88; // bootable
    // In sectors of 512 bytes. The field cannot hold an image above 32 MiB: in UEFI 0 means up to the end of the medium.
    let sectors = u16::try_from(esp_size / 512).unwrap_or(0);
    catalogue[38..40].copy_from_slice(&sectors.to_le_bytes());
    catalogue[40..44].copy_from_slice(&((ESP_START / SECTOR) as u32).to_le_bytes());
    catalogue
}

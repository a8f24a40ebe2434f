//! Writing FAT volumes (Microsoft FAT specification, 2000; UEFI 2.10 section 13.3): a file tree goes in, every file
//! lies in one piece, and the same tree gives the same bytes. A volume too small for FAT32 becomes FAT16. Space that no file uses is not written, so the file
//! that holds the volume stays sparse.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Seek, SeekFrom, Write};

use crate::epoch::STAMP;
use crate::{Error, Result, ensure};

const SECTOR: u64 = 512;
const FATS: u64 = 2;
const ENTRY: usize = 32;
/// Fewer clusters than this, and a reader takes the volume for FAT16.
const LEAST_CLUSTERS: u64 = 65_525;
/// Fewer than this, and it takes it for FAT12, which we do not write.
const LEAST_CLUSTERS_16: u64 = 4_085;
/// Entries of the root folder of FAT16, which has a place of its own.
const ROOT_ENTRIES: u64 = 512;
const END_OF_CHAIN: u32 = 0x0FFF_FFFF;
const DIRECTORY: u8 = 0x10;
const ARCHIVE: u8 = 0x20;
const VOLUME_LABEL: u8 = 0x08;
const LONG_NAME: u8 = 0x0F;

/// A volume to write.
#[derive(Debug, Clone)]
pub struct Volume<'a> {
    /// Size in bytes, a multiple of 512.
    pub size: u64,
    /// Cluster size in bytes: a power of two from 512 to 32768.
    pub cluster: u64,
    /// Files start on multiples of this many bytes from the volume's start; at least the cluster size.
    pub align: u64,
    /// Up to eleven upper-case characters.
    pub label: &'a str,
    /// Volume serial number.
    pub serial: u32,
    /// Sectors of 512 bytes in front of the volume on its disk.
    pub hidden_sectors: u32,
    /// Paths with `/` between names, and contents.
    pub files: Vec<(&'a str, &'a [u8])>,
}

/// A folder while the tree is being built.
#[derive(Debug, Default)]
struct Folder<'a> {
    folders: BTreeMap<&'a str, Folder<'a>>,
    files: BTreeMap<&'a str, &'a [u8]>,
}

/// Sizes that follow from the volume's.
#[derive(Debug, Clone, Copy)]
struct Geometry {
    reserved: u64,
    fat_sectors: u64,
    /// Sectors of the root folder; 0 in FAT32, where it is a folder like others.
    root_sectors: u64,
    clusters: u64,
    cluster: u64,
}

impl Geometry {
    const fn is_fat16(&self) -> bool {
        self.root_sectors > 0
    }

    /// Where the tables end, in sectors.
    const fn behind_tables(&self) -> u64 {
        self.reserved + FATS * self.fat_sectors
    }
}

/// A volume being laid out: the allocation table, and what is to be written where.
struct Layout<'v, 'a> {
    volume: &'v Volume<'a>,
    geometry: Geometry,
    table: Vec<u32>,
    pieces: Vec<(u64, Vec<u8>)>,
    extents: Vec<(String, u64)>,
}

impl Volume<'_> {
    /// Writes the volume at `offset` of `out`, which must read as zeros there. Returns where in the volume each
    /// file's content lies, in bytes, by path.
    ///
    /// # Errors
    /// When a name, a size or an alignment is none that FAT has, the files do not fit, or `out` cannot be written.
    pub fn write(&self, mut out: impl Write + Seek, offset: u64) -> Result<BTreeMap<String, u64>> {
        let geometry = self.geometry()?;
        let mut root = Folder::default();
        for (path, content) in &self.files {
            root.insert(path, content)?;
        }
        let mut layout = Layout {
            volume: self,
            geometry,
            table: vec![0x0FFF_FFF8, END_OF_CHAIN],
            pieces: Vec::new(),
            extents: Vec::new(),
        };
        if geometry.is_fat16() {
            ensure!(
                root.entries(true) <= ROOT_ENTRIES,
                "a FAT16 volume has room for {ROOT_ENTRIES} entries in its root folder"
            );
            layout.folder(&root, (0, geometry.behind_tables() * SECTOR), None, "")?;
        } else {
            let first = layout.allocate(root.entries(true) * ENTRY as u64)?;
            layout.folder(&root, (first, layout.position(first)), None, "")?;
        }

        let mut write = |at: u64, bytes: &[u8]| -> Result<()> {
            out.seek(SeekFrom::Start(offset + at))?;
            Ok(out.write_all(bytes)?)
        };
        let table: Vec<u8> = if geometry.is_fat16() {
            write(0, &self.boot_sector_16(geometry))?;
            // The marks keep their meaning when their upper half is cut off.
            layout
                .table
                .iter()
                .flat_map(|entry| (*entry as u16).to_le_bytes())
                .collect()
        } else {
            let (boot, info) = (self.boot_sector(geometry), self.info_sector(geometry, &layout.table));
            for copy in [0, 6 * SECTOR] {
                write(copy, &boot)?;
                write(copy + SECTOR, &info)?;
            }
            layout.table.iter().flat_map(|entry| entry.to_le_bytes()).collect()
        };
        for copy in 0..FATS {
            write((geometry.reserved + copy * geometry.fat_sectors) * SECTOR, &table)?;
        }
        for (at, bytes) in &layout.pieces {
            write(*at, bytes)?;
        }
        for (path, content) in &self.files {
            if let Some((_, at)) = layout.extents.iter().find(|(name, _)| name == path) {
                write(*at, content)?;
            }
        }
        Ok(layout.extents.into_iter().collect())
    }

    fn geometry(&self) -> Result<Geometry> {
        let sectors = self.size / SECTOR;
        ensure!(
            self.size.is_multiple_of(SECTOR) && u32::try_from(sectors).is_ok(),
            "FAT volume of {} bytes",
            self.size
        );
        ensure!(
            self.cluster.is_power_of_two() && (SECTOR..=32768).contains(&self.cluster),
            "FAT cluster size"
        );
        ensure!(
            self.align.is_power_of_two() && self.align >= self.cluster,
            "FAT alignment {}",
            self.align
        );
        let per_cluster = self.cluster / SECTOR;
        // The table must describe every cluster behind it: count with no table first, then take its size off. Data
        // starts on a multiple of the alignment, which the reserved sectors make up for.
        let fat_sectors = ((sectors / per_cluster + 2) * 4).div_ceil(SECTOR);
        let data = (32 + FATS * fat_sectors).next_multiple_of(self.align / SECTOR);
        let reserved = data - FATS * fat_sectors;
        let clusters = sectors.saturating_sub(data) / per_cluster;
        if clusters < LEAST_CLUSTERS {
            return self.geometry_16(sectors);
        }
        Ok(Geometry {
            reserved,
            fat_sectors,
            root_sectors: 0,
            clusters,
            cluster: self.cluster,
        })
    }

    fn geometry_16(&self, sectors: u64) -> Result<Geometry> {
        let per_cluster = self.cluster / SECTOR;
        let fat_sectors = ((sectors / per_cluster + 2) * 2).div_ceil(SECTOR);
        let root_sectors = ROOT_ENTRIES * ENTRY as u64 / SECTOR;
        let tables = FATS * fat_sectors + root_sectors;
        let data = (1 + tables).next_multiple_of(self.align / SECTOR);
        let clusters = sectors.saturating_sub(data) / per_cluster;
        // Sizes between the two kinds are none: the smaller tables of FAT16 leave room for too many clusters.
        ensure!(
            (LEAST_CLUSTERS_16..LEAST_CLUSTERS).contains(&clusters),
            "a FAT volume needs at least {LEAST_CLUSTERS_16} clusters, or {LEAST_CLUSTERS} beside the tables of FAT32; {} \
             bytes in clusters of {} give {clusters}",
            self.size,
            self.cluster
        );
        Ok(Geometry {
            reserved: data - tables,
            fat_sectors,
            root_sectors,
            clusters,
            cluster: self.cluster,
        })
    }

    /// The first sector: BIOS parameter block for FAT16.
    fn boot_sector_16(&self, geometry: Geometry) -> Vec<u8> {
        let mut sector = vec![0; SECTOR as usize];
        let mut put = |at: usize, bytes: &[u8]| sector[at..at + bytes.len()].copy_from_slice(bytes);
        let sectors = self.size / SECTOR;
        put(0, &[0xEB, 0x3C, 0x90]);
        put(3, b"RACKBAR ");
        put(11, &(SECTOR as u16).to_le_bytes());
        put(13, &[(geometry.cluster / SECTOR) as u8]);
        put(14, &(geometry.reserved as u16).to_le_bytes());
        put(16, &[FATS as u8]);
        put(17, &(ROOT_ENTRIES as u16).to_le_bytes());
        match u16::try_from(sectors) {
            Ok(few) => put(19, &few.to_le_bytes()),
            Err(_) => put(32, &(sectors as u32).to_le_bytes()),
        }
        put(21, &[0xF8]); // fixed disk
        put(22, &(geometry.fat_sectors as u16).to_le_bytes());
        put(24, &63u16.to_le_bytes()); // geometry nobody uses any more
        put(26, &255u16.to_le_bytes());
        put(28, &self.hidden_sectors.to_le_bytes());
        put(36, &[0x80, 0, 0x29]);
        put(39, &self.serial.to_le_bytes());
        put(43, &padded(self.label));
        put(54, b"FAT16   ");
        put(510, &[0x55, 0xAA]);
        sector
    }

    /// The first sector: BIOS parameter block for FAT32.
    fn boot_sector(&self, geometry: Geometry) -> Vec<u8> {
        let mut sector = vec![0; SECTOR as usize];
        let mut put = |at: usize, bytes: &[u8]| sector[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &[0xEB, 0x58, 0x90]);
        put(3, b"RACKBAR ");
        put(11, &(SECTOR as u16).to_le_bytes());
        put(13, &[(geometry.cluster / SECTOR) as u8]);
        put(14, &(geometry.reserved as u16).to_le_bytes());
        put(16, &[FATS as u8]);
        put(21, &[0xF8]); // fixed disk
        put(24, &63u16.to_le_bytes()); // geometry nobody uses any more
        put(26, &255u16.to_le_bytes());
        put(28, &self.hidden_sectors.to_le_bytes());
        put(32, &((self.size / SECTOR) as u32).to_le_bytes());
        put(36, &(geometry.fat_sectors as u32).to_le_bytes());
        put(44, &2u32.to_le_bytes()); // the root folder's first cluster
        put(48, &1u16.to_le_bytes()); // information sector
        put(50, &6u16.to_le_bytes()); // backup of the boot sector
        put(64, &[0x80, 0, 0x29]);
        put(67, &self.serial.to_le_bytes());
        put(71, &padded(self.label));
        put(82, b"FAT32   ");
        put(510, &[0x55, 0xAA]);
        sector
    }

    /// The second sector: how much is free.
    fn info_sector(&self, geometry: Geometry, table: &[u32]) -> Vec<u8> {
        let used = table.iter().skip(2).filter(|entry| **entry != 0).count() as u64;
        let mut sector = vec![0; SECTOR as usize];
        let mut put = |at: usize, value: u32| sector[at..at + 4].copy_from_slice(&value.to_le_bytes());
        put(0, 0x4161_5252);
        put(484, 0x6141_7272);
        put(488, (geometry.clusters - used) as u32);
        put(492, table.len() as u32);
        put(508, 0xAA55_0000);
        sector
    }
}

impl<'a> Folder<'a> {
    fn insert(&mut self, path: &'a str, content: &'a [u8]) -> Result<()> {
        match path.split_once('/') {
            Some((folder, rest)) => self.folders.entry(folder).or_default().insert(rest, content),
            None => {
                check_name(path)?;
                ensure!(
                    self.files.insert(path, content).is_none(),
                    "two files are called {path}"
                );
                Ok(())
            }
        }
    }

    /// Number of 32-byte entries this folder takes.
    fn entries(&self, root: bool) -> u64 {
        let names = self.folders.keys().chain(self.files.keys());
        let own = if root { 1 } else { 2 };
        own + names.map(|name| 1 + long_entries(name) as u64).sum::<u64>()
    }
}

impl<'a> Layout<'_, 'a> {
    /// Takes clusters for `bytes` bytes in one piece and returns the first.
    fn allocate(&mut self, bytes: u64) -> Result<u32> {
        let first = self.table.len() as u32;
        let count = bytes.div_ceil(self.geometry.cluster).max(1);
        ensure!(
            self.table.len() as u64 + count <= self.geometry.clusters + 2,
            "the files do not fit the FAT volume"
        );
        self.table.extend((1..count).map(|next| first + next as u32));
        self.table.push(END_OF_CHAIN);
        Ok(first)
    }

    /// Skips to the next cluster that starts on the volume's alignment.
    fn align(&mut self) {
        while !self.position(self.table.len() as u32).is_multiple_of(self.volume.align) {
            self.table.push(0);
        }
    }

    /// Byte offset of a cluster in the volume.
    fn position(&self, cluster: u32) -> u64 {
        let data = (self.geometry.behind_tables() + self.geometry.root_sectors) * SECTOR;
        data + (u64::from(cluster) - 2) * self.geometry.cluster
    }

    /// Lays out a folder that was given a cluster and lies at that offset, then what is in it.
    fn folder(
        &mut self,
        folder: &Folder<'a>,
        (cluster, at): (u32, u64),
        parent: Option<u32>,
        path: &str,
    ) -> Result<()> {
        let mut bytes = Vec::new();
        match parent {
            None => bytes.extend_from_slice(&entry(padded(self.volume.label), VOLUME_LABEL, 0, 0)),
            Some(parent) => {
                bytes.extend_from_slice(&entry(padded("."), DIRECTORY, cluster, 0));
                bytes.extend_from_slice(&entry(padded(".."), DIRECTORY, parent, 0));
            }
        }
        let mut taken = BTreeSet::new();
        for (name, inner) in &folder.folders {
            check_name(name)?;
            let first = self.allocate(inner.entries(false) * ENTRY as u64)?;
            named(&mut bytes, name, &mut taken, DIRECTORY, first, 0)?;
            // The root folder is called cluster 0 in its children's `..` entries.
            self.folder(
                inner,
                (first, self.position(first)),
                Some(if parent.is_none() { 0 } else { cluster }),
                &format!("{path}{name}/"),
            )?;
        }
        for (name, content) in &folder.files {
            let size = u32::try_from(content.len());
            let size = size.map_err(|_| Error::Wrong(format!("{name} is too large for FAT")))?;
            let first = match size {
                0 => 0,
                _ => {
                    self.align();
                    let first = self.allocate(u64::from(size))?;
                    self.extents.push((format!("{path}{name}"), self.position(first)));
                    first
                }
            };
            named(&mut bytes, name, &mut taken, ARCHIVE, first, size)?;
        }
        self.pieces.push((at, bytes));
        Ok(())
    }
}

/// An 8.3 name field: `text` and spaces.
fn padded(text: &str) -> [u8; 11] {
    let mut field = [b' '; 11];
    field.iter_mut().zip(text.bytes()).for_each(|(to, from)| *to = from);
    field
}

/// A short directory entry.
fn entry(name: [u8; 11], attributes: u8, cluster: u32, size: u32) -> [u8; ENTRY] {
    let (date, time) = STAMP.fat();
    let mut entry = [0; ENTRY];
    entry[..11].copy_from_slice(&name);
    entry[11] = attributes;
    for (at, value) in [
        (14, time),
        (16, date),
        (18, date),
        (20, (cluster >> 16) as u16),
        (22, time),
        (24, date),
        (26, cluster as u16),
    ] {
        entry[at..at + 2].copy_from_slice(&value.to_le_bytes());
    }
    entry[28..].copy_from_slice(&size.to_le_bytes());
    entry
}

/// Appends the entries of a file or folder: its long name when it needs one, then the short entry.
fn named(
    bytes: &mut Vec<u8>,
    name: &str,
    taken: &mut BTreeSet<[u8; 11]>,
    attributes: u8,
    cluster: u32,
    size: u32,
) -> Result<()> {
    let short = short_name(name, taken)?;
    let sum = short
        .iter()
        .fold(0u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte));
    let mut units: Vec<u16> = name.encode_utf16().collect();
    let count = long_entries(name);
    if units.len() < count * 13 {
        units.push(0);
        units.resize(count * 13, 0xFFFF);
    }
    for (index, chunk) in units.chunks(13).take(count).enumerate().rev() {
        let mut long = [0; ENTRY];
        long[0] = (index as u8 + 1) | if index + 1 == count { 0x40 } else { 0 };
        long[11] = LONG_NAME;
        long[13] = sum;
        for (at, unit) in [1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30].into_iter().zip(chunk) {
            long[at..at + 2].copy_from_slice(&unit.to_le_bytes());
        }
        bytes.extend_from_slice(&long);
    }
    bytes.extend_from_slice(&entry(short, attributes, cluster, size));
    Ok(())
}

/// How many long-name entries a name needs: none when it is a plain upper-case 8.3 name.
fn long_entries(name: &str) -> usize {
    if plain(name).is_some() {
        0
    } else {
        name.encode_utf16().count().div_ceil(13)
    }
}

/// The 8.3 field of a name that is one already.
fn plain(name: &str) -> Option<[u8; 11]> {
    let (base, extension) = name.split_once('.').unwrap_or((name, ""));
    let fits = |part: &str, most| {
        part.len() <= most
            && part
                .bytes()
                .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_')
    };
    let valid = !base.is_empty() && fits(base, 8) && fits(extension, 3) && name.contains('.') != extension.is_empty();
    valid.then(|| padded(&format!("{base:8}{extension}")))
}

/// The short name: the name itself when it is plain, else a numbered abbreviation as Windows makes them.
fn short_name(name: &str, taken: &mut BTreeSet<[u8; 11]>) -> Result<[u8; 11]> {
    if let Some(field) = plain(name) {
        ensure!(taken.insert(field), "two names abbreviate to {name}");
        return Ok(field);
    }
    let (base, extension) = name.rsplit_once('.').unwrap_or((name, ""));
    let clean = |text: &str, most| -> String {
        text.chars()
            .filter(char::is_ascii_alphanumeric)
            .take(most)
            .collect::<String>()
            .to_ascii_uppercase()
    };
    let (base, extension) = (clean(base, 6), clean(extension, 3));
    for number in 1..100_000 {
        let tail = format!("~{number}");
        let head = base.get(..base.len().min(8 - tail.len())).unwrap_or_default();
        let field = padded(&format!("{:8}{extension}", format!("{head}{tail}")));
        if taken.insert(field) {
            return Ok(field);
        }
    }
    Err(Error::Wrong(format!(
        "too many names in one folder abbreviate to {base}~N"
    )))
}

fn check_name(name: &str) -> Result<()> {
    let valid = !name.is_empty()
        && name.len() <= 255
        && !name.ends_with([' ', '.'])
        && name
            .chars()
            .all(|character| character.is_ascii_graphic() || character == ' ')
        && !name.contains(['"', '*', '/', ':', '<', '>', '?', '\\', '|']);
    ensure!(valid, "{name:?} is not a name for FAT");
    Ok(())
}

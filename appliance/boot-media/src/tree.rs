//! A reader of ISO 9660 discs: which files are on one, and where in it they lie.
//!
//! Sections in comments are those of ECMA-119, 3rd edition, whose fields count from 1; ours from 0. Names are those of
//! Rock Ridge (RRIP 1.12 over SUSP 1.12) where the disc has them, else the disc's own, as Linux shows them: in lower case and
//! without a version. A disc comes from outside: depth, count and bytes that are read are bounded, a folder is read once, and
//! what is not sound is an error with words. Nothing is read but descriptors and folders.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Bytes in a logical sector (6.1.2), and in a logical block of every disc that is taken.
const SECTOR: usize = 2048;
/// Where the descriptors begin (6.2.1).
const DESCRIPTORS: u64 = 16;
/// Descriptors that are looked at.
const MOST_DESCRIPTORS: u64 = 64;
/// Records of folders, and continuations of them, that are looked at: a distribution's disc has some ten thousand.
const MOST_RECORDS: usize = 262_144;
/// Bytes of one folder.
const MOST_FOLDER: u64 = 16 << 20;
/// Bytes of all folders.
const MOST_FOLDERS: u64 = 128 << 20;
/// Folders inside each other.
const MOST_DEPTH: usize = 32;
/// Bytes of a path.
const MOST_PATH: usize = 1024;
/// Bytes of a record before its name.
const RECORD: usize = 33;

/// Why a disc is not taken.
#[derive(Debug, thiserror::Error)]
pub enum DiscError {
    /// It has no ISO 9660 volume.
    #[error("it is no ISO 9660 disc")]
    NoDisc,
    /// It ends before what it speaks of.
    #[error("it is cut off: it has {have} bytes, and {what} ends at {end}")]
    CutOff {
        /// What lies beyond the end.
        what: String,
        /// Where that would end, in bytes.
        end: u64,
        /// Bytes of the disc.
        have: u64,
    },
    /// Something on it makes no sense, or is of a kind that we do not read.
    #[error("{place}: {reason}")]
    Wrong {
        /// Path of the folder or file; `/` for the disc itself.
        place: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// Reading failed.
    #[error("it cannot be read: {0}")]
    Read(#[from] io::Error),
}

/// Bytes that can be read at any place.
pub trait ReadAt {
    /// Fills `buffer` from `offset`.
    ///
    /// # Errors
    /// When there are fewer bytes, or reading fails.
    fn fill_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
}

impl ReadAt for File {
    fn fill_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.read_exact_at(buffer, offset)
    }
}

impl ReadAt for [u8] {
    fn fill_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let part = from.checked_add(buffer.len()).and_then(|end| self.get(from..end));
        buffer.copy_from_slice(part.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

/// Where a file lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// Its first byte on the disc.
    pub offset: u64,
    /// Its size in bytes.
    pub bytes: u64,
}

/// The files of a disc. Links and devices are not among them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tree {
    label: String,
    files: BTreeMap<String, Place>,
}

impl Tree {
    /// Reads the tree of a disc that has `bytes` bytes.
    ///
    /// # Errors
    /// When it is no disc, is cut off, has something that makes no sense, is of a kind that is not read (blocks of another
    /// size, interleaved, compressed or scattered files), goes beyond the bounds, or cannot be read.
    pub fn read(disc: &(impl ReadAt + ?Sized), bytes: u64) -> Result<Self, DiscError> {
        let volume = primary(disc, bytes)?;
        let label = String::from_utf8_lossy(part(&volume, 40, 32)).trim().to_owned();
        let mut walk = Walk {
            disc,
            bytes,
            skip: None,
            records: 0,
            folders: 0,
            seen: HashSet::new(),
            files: BTreeMap::new(),
        };
        if number16(&volume, 128) as usize != SECTOR {
            return Err(wrong("", "its blocks have another size than 2048 bytes"));
        }
        let root = Record::read(part(&volume, 156, 34)).ok_or_else(|| wrong("", "it names no root folder"))?;
        walk.run(&root)?;
        let files = walk.files;
        Ok(Self { label, files })
    }

    /// The volume's name.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Where the file of this path lies; `images/install.img`, without a leading `/`.
    pub fn get(&self, path: &str) -> Option<Place> {
        self.files.get(path).copied()
    }

    /// All files, sorted by path.
    pub fn files(&self) -> impl Iterator<Item = (&str, Place)> {
        self.files.iter().map(|(path, place)| (path.as_str(), *place))
    }
}

fn wrong(place: &str, reason: &'static str) -> DiscError {
    let place = format!("/{place}");
    DiscError::Wrong { place, reason }
}

/// Bytes of a field; too few where the record is too short.
fn part(bytes: &[u8], at: usize, length: usize) -> &[u8] {
    bytes.get(at..).map_or(&[], |rest| rest.get(..length).unwrap_or(rest))
}

fn number16(bytes: &[u8], at: usize) -> u16 {
    part(bytes, at, 2).try_into().map_or(0, u16::from_le_bytes)
}

/// The little-endian half of a number in both orders (7.3.3).
fn number32(bytes: &[u8], at: usize) -> u32 {
    part(bytes, at, 4).try_into().map_or(0, u32::from_le_bytes)
}

/// The primary volume descriptor (8.4).
fn primary(disc: &(impl ReadAt + ?Sized), bytes: u64) -> Result<[u8; SECTOR], DiscError> {
    let mut sector = [0; SECTOR];
    for number in DESCRIPTORS..DESCRIPTORS + MOST_DESCRIPTORS {
        let at = number * SECTOR as u64;
        if at + SECTOR as u64 > bytes {
            break;
        }
        disc.fill_at(&mut sector, at)?;
        match (sector[0], part(&sector, 1, 5)) {
            (_, magic) if magic != b"CD001" => break,
            (1, _) => return Ok(sector),
            (255, _) => break,
            _ => {}
        }
    }
    Err(DiscError::NoDisc)
}

/// A record of a folder (9.1).
struct Record<'a> {
    sector: u32,
    bytes: u32,
    flags: u8,
    interleaved: bool,
    /// Sectors of an extended attribute record in front of the content.
    attributes: u8,
    name: &'a [u8],
    system: &'a [u8],
}

impl<'a> Record<'a> {
    fn read(bytes: &'a [u8]) -> Option<Self> {
        let name_length = usize::from(*bytes.get(32)?);
        let name = bytes.get(RECORD..RECORD + name_length)?;
        let padded = RECORD + name_length + usize::from(name_length.is_multiple_of(2));
        Some(Self {
            sector: number32(bytes, 2),
            bytes: number32(bytes, 10),
            flags: bytes[25],
            interleaved: bytes[26] != 0 || bytes[27] != 0,
            attributes: bytes[1],
            name,
            system: bytes.get(padded..).unwrap_or_default(),
        })
    }

    const fn is_folder(&self) -> bool {
        self.flags & 0x02 != 0
    }

    const fn goes_on(&self) -> bool {
        self.flags & 0x80 != 0
    }

    /// Itself or its parent (6.8.2.2).
    fn is_dot(&self) -> bool {
        matches!(self.name, [0 | 1])
    }

    fn start(&self) -> u64 {
        (u64::from(self.sector) + u64::from(self.attributes)) * SECTOR as u64
    }

    /// Its name without Rock Ridge, as Linux shows it (`map=normal`).
    fn plain_name(&self) -> Vec<u8> {
        let end = self.name.iter().position(|b| *b == b';').unwrap_or(self.name.len());
        let name = self.name.get(..end).unwrap_or_default();
        name.strip_suffix(b".").unwrap_or(name).to_ascii_lowercase()
    }
}

/// What Rock Ridge says of a record.
#[derive(Default)]
struct Rock {
    name: Vec<u8>,
    named: bool,
    /// Neither a file nor a folder.
    other: bool,
    compressed: bool,
    /// The folder that this stands for was moved there.
    moved_to: Option<u32>,
    /// This folder was moved here, and is named where it came from.
    moved_here: bool,
}

/// A folder that is still to be read.
struct Folder {
    sector: u32,
    start: u64,
    bytes: u64,
    path: String,
    depth: usize,
}

struct Walk<'d, D: ?Sized> {
    disc: &'d D,
    bytes: u64,
    /// Bytes in front of what SUSP puts into each record; `None` without SUSP.
    skip: Option<usize>,
    records: usize,
    folders: u64,
    seen: HashSet<u32>,
    files: BTreeMap<String, Place>,
}

impl<D: ReadAt + ?Sized> Walk<'_, D> {
    fn run(&mut self, root: &Record<'_>) -> Result<(), DiscError> {
        let mut first = [0; SECTOR];
        self.fill(&mut first, root.start(), "")?;
        let length = usize::from(first[0]);
        // SUSP announces itself in the root folder's own record (SUSP section 5.3).
        let own = Record::read(part(&first, 0, length)).ok_or_else(|| wrong("", "its root folder makes no sense"))?;
        if let [b'S', b'P', 7, _, 0xBE, 0xEF, skip, ..] = own.system {
            self.skip = Some(usize::from(*skip));
        }
        let mut open = vec![Folder {
            sector: root.sector,
            start: root.start(),
            bytes: root.bytes.into(),
            path: String::new(),
            depth: 0,
        }];
        while let Some(folder) = open.pop() {
            self.folder(&folder, &mut open)?;
        }
        Ok(())
    }

    fn fill(&self, buffer: &mut [u8], offset: u64, place: &str) -> Result<(), DiscError> {
        self.within(offset, buffer.len() as u64, place)?;
        Ok(self.disc.fill_at(buffer, offset)?)
    }

    fn within(&self, offset: u64, bytes: u64, place: &str) -> Result<(), DiscError> {
        let (end, have) = (offset.saturating_add(bytes), self.bytes);
        if end > have {
            let what = format!("/{place}");
            return Err(DiscError::CutOff { what, end, have });
        }
        Ok(())
    }

    /// Counts one more record or continuation.
    fn count(&mut self, place: &str) -> Result<(), DiscError> {
        self.records += 1;
        if self.records > MOST_RECORDS {
            return Err(wrong(place, "the disc has more files than are taken (262,144)"));
        }
        Ok(())
    }

    fn folder(&mut self, folder: &Folder, open: &mut Vec<Folder>) -> Result<(), DiscError> {
        let path = &folder.path;
        if !self.seen.insert(folder.sector) {
            return Err(wrong(path, "the folder is in the tree twice, or in itself"));
        }
        self.folders = self.folders.saturating_add(folder.bytes);
        if folder.bytes > MOST_FOLDER || self.folders > MOST_FOLDERS {
            return Err(wrong(path, "the folder is larger than is taken"));
        }
        self.within(folder.start, folder.bytes, path)?;
        let mut content = vec![0; usize::try_from(folder.bytes).unwrap_or_default()];
        self.fill(&mut content, folder.start, path)?;
        // A file that its next record goes on with: its name on the disc, and what of it was found.
        let mut begun: Option<(Vec<u8>, Place)> = None;
        for sector in content.chunks(SECTOR) {
            let mut rest = sector;
            while let [length @ 1..=255, ..] = *rest {
                let (bytes, behind) = rest
                    .split_at_checked(length.into())
                    .ok_or_else(|| wrong(path, "a record crosses a sector's end"))?;
                rest = behind;
                let record = Record::read(bytes).ok_or_else(|| wrong(path, "a record is too short"))?;
                self.count(path)?;
                if !record.is_dot() {
                    self.record(folder, &record, &mut begun, open)?;
                }
            }
        }
        match begun {
            Some(_) => Err(wrong(path, "the last file's end is missing")),
            None => Ok(()),
        }
    }

    fn record(
        &mut self,
        folder: &Folder,
        record: &Record<'_>,
        begun: &mut Option<(Vec<u8>, Place)>,
        open: &mut Vec<Folder>,
    ) -> Result<(), DiscError> {
        let rock = self.rock(record, &folder.path)?;
        // An associated file (9.1.6) is another file's resource fork.
        if rock.moved_here || rock.other || record.flags & 0x04 != 0 {
            return Ok(());
        }
        let path = path_of(&folder.path, record, &rock)?;
        if record.is_folder() || rock.moved_to.is_some() {
            if folder.depth >= MOST_DEPTH {
                return Err(wrong(&path, "folders lie deeper in each other than is taken"));
            }
            let (sector, start, bytes) = match rock.moved_to {
                Some(sector) => self.moved(sector, &path)?,
                None => (record.sector, record.start(), record.bytes.into()),
            };
            let depth = folder.depth + 1;
            open.push(Folder {
                sector,
                start,
                bytes,
                path,
                depth,
            });
            return Ok(());
        }
        if record.interleaved || rock.compressed {
            return Err(wrong(
                &path,
                "the file is interleaved or compressed, and such files are not read",
            ));
        }
        let mut place = Place {
            offset: record.start(),
            bytes: record.bytes.into(),
        };
        if place.bytes == 0 {
            // An empty file lies nowhere.
            place.offset = 0;
        }
        self.within(place.offset, place.bytes, &path)?;
        if let Some((name, before)) = begun.take() {
            if name != record.name || before.offset + before.bytes != place.offset {
                return Err(wrong(
                    &path,
                    "the file does not lie in one piece, and such files are not read",
                ));
            }
            place = Place {
                offset: before.offset,
                bytes: before.bytes + place.bytes,
            };
        }
        if record.goes_on() {
            *begun = Some((record.name.to_vec(), place));
            return Ok(());
        }
        match self.files.insert(path.clone(), place) {
            Some(_) => Err(wrong(&path, "two files have this name")),
            None => Ok(()),
        }
    }

    /// A moved folder's own record says how large it is (RRIP section 4.1.5).
    fn moved(&self, sector: u32, path: &str) -> Result<(u32, u64, u64), DiscError> {
        let mut first = [0; SECTOR];
        let start = u64::from(sector) * SECTOR as u64;
        self.fill(&mut first, start, path)?;
        let own = Record::read(part(&first, 0, first[0].into())).filter(|own| own.name == [0] && own.sector == sector);
        let own = own.ok_or_else(|| wrong(path, "the folder was moved to where none is"))?;
        Ok((sector, own.start(), own.bytes.into()))
    }

    /// Reads a record's system use area, and what it goes on with elsewhere (SUSP section 5.1).
    fn rock(&mut self, record: &Record<'_>, place: &str) -> Result<Rock, DiscError> {
        let mut rock = Rock::default();
        let Some(skip) = self.skip else { return Ok(rock) };
        let mut area = record.system.get(skip..).unwrap_or_default().to_vec();
        loop {
            let Some((block, offset, length)) = rock.take(&area, place)? else {
                return Ok(rock);
            };
            self.count(place)?;
            if offset as usize >= SECTOR || length as usize > SECTOR {
                return Err(wrong(place, "a record goes on where it cannot"));
            }
            area = vec![0; length as usize];
            self.fill(&mut area, u64::from(block) * SECTOR as u64 + u64::from(offset), place)?;
        }
    }
}

impl Rock {
    /// Reads one area; where it goes on.
    fn take(&mut self, mut area: &[u8], place: &str) -> Result<Option<(u32, u32, u32)>, DiscError> {
        let mut next = None;
        // What is shorter than a field is padding.
        while let [a, b, length @ 4..=255, _, ..] = *area {
            let (field, rest) = area
                .split_at_checked(length.into())
                .ok_or_else(|| wrong(place, "a field of a record is longer than the record"))?;
            area = rest;
            match &[a, b] {
                b"CE" => next = Some((number32(field, 4), number32(field, 12), number32(field, 20))),
                b"ST" => break,
                // Bits 1 and 2 stand for the folder itself and its parent (RRIP section 4.1.4).
                b"NM" if field.get(4).is_some_and(|flags| flags & 0x06 == 0) => {
                    self.named = true;
                    self.name.extend(field.get(5..).unwrap_or_default());
                    if self.name.len() > MOST_PATH {
                        return Err(wrong(place, "a name is longer than is taken"));
                    }
                }
                b"PX" => self.other |= !matches!(number32(field, 4) & 0o170_000, 0o100_000 | 0o040_000),
                b"SL" => self.other = true,
                b"ZF" => self.compressed = true,
                b"CL" => self.moved_to = Some(number32(field, 4)),
                b"RE" => self.moved_here = true,
                _ => {}
            }
        }
        Ok(next)
    }
}

/// The path of a record in `folder`.
fn path_of(folder: &str, record: &Record<'_>, rock: &Rock) -> Result<String, DiscError> {
    let name = if rock.named {
        rock.name.clone()
    } else {
        record.plain_name()
    };
    let name = String::from_utf8(name).ok().filter(|name| {
        let parts_path = |c: char| c == '/' || c.is_control();
        !matches!(name.as_str(), "" | "." | "..") && !name.contains(parts_path)
    });
    let name = name.ok_or_else(|| wrong(folder, "a name in this folder is none of a file"))?;
    let path = if folder.is_empty() {
        name
    } else {
        format!("{folder}/{name}")
    };
    if path.len() > MOST_PATH {
        return Err(wrong(folder, "a path is longer than is taken (1024 bytes)"));
    }
    Ok(path)
}

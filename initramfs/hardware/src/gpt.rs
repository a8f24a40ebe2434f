//! The GUID partition table (UEFI 2.10, chapter 5), as much as is needed to know a disk, to grow its last partition, and to
//! give an empty disk a single one. Own code, because PID 1 may not panic and the library at hand asserts what a table on disk says.
//! It writes only where its caller says.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

const SIGNATURE: &[u8; 8] = b"EFI PART";

/// Largest entry array read: 128 entries of 128 bytes is the rule, some tools write 256.
const ARRAY_LIMIT: usize = 256 << 10;

/// A table that was read and whose checksums are right.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Table {
    header: Vec<u8>,
    array: Vec<u8>,
    entry_size: usize,
    sector: u64,
}

/// One used entry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Partition {
    /// Number, from 1, as in the device's name.
    pub number: u32,
    /// Its name.
    pub name: String,
    /// What it is for: the type GUID, as stored.
    pub kind: [u8; 16],
    /// Its own GUID, as stored.
    pub guid: [u8; 16],
    /// First sector.
    pub first: u64,
    /// Last sector.
    pub last: u64,
}

fn number(bytes: &[u8], at: usize) -> u64 {
    bytes
        .get(at..at + 8)
        .and_then(|b| b.try_into().ok())
        .map_or(0, u64::from_le_bytes)
}

fn number32(bytes: &[u8], at: usize) -> u32 {
    bytes
        .get(at..at + 4)
        .and_then(|b| b.try_into().ok())
        .map_or(0, u32::from_le_bytes)
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(room) = bytes.get_mut(at..at + value.len()) {
        room.copy_from_slice(value);
    }
}

/// CRC-32 of ISO 3309, as the table uses it.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |c, _| {
            c >> 1 ^ 0xedb8_8320 & (c & 1).wrapping_neg()
        })
    };
    !bytes.iter().fold(!0, step)
}

impl Table {
    /// Reads the table whose header is at sector `at`; `None` when there is none or it is damaged.
    pub fn read(disk: &File, sector: u64, at: u64) -> Option<Self> {
        let mut header = vec![0; usize::try_from(sector).ok()?];
        disk.read_exact_at(&mut header, at.checked_mul(sector)?).ok()?;
        let size = number32(&header, 12) as usize;
        if !header.starts_with(SIGNATURE) || !(92..=header.len()).contains(&size) || number(&header, 24) != at {
            return None;
        }
        header.truncate(size);
        let told = number32(&header, 16);
        let mut unsigned = header.clone();
        put(&mut unsigned, 16, &[0; 4]);
        let entry_size = number32(&header, 84) as usize;
        let length = entry_size.checked_mul(number32(&header, 80) as usize)?;
        if crc32(&unsigned) != told || entry_size < 128 || length > ARRAY_LIMIT {
            return None;
        }
        let mut array = vec![0; length];
        disk.read_exact_at(&mut array, number(&header, 72).checked_mul(sector)?)
            .ok()?;
        (crc32(&array) == number32(&header, 88)).then_some(Self {
            header,
            array,
            entry_size,
            sector,
        })
    }

    /// A table of 128 entries with one partition on a disk of `sectors` sectors of `sector` bytes; `None` when the partition
    /// does not fit between the two copies.
    pub fn with_one(sector: u64, sectors: u64, disk_guid: [u8; 16], partition: &Partition) -> Option<Self> {
        const ENTRIES: usize = 128;
        let mut table = Self {
            header: vec![0; 92],
            array: vec![0; ENTRIES * 128],
            entry_size: 128,
            sector,
        };
        let first_usable = table.array_sectors().checked_add(2)?;
        let fits = first_usable <= partition.first && partition.first <= partition.last;
        if sector < 512 || !fits || partition.last > table.last_usable(sectors) {
            return None;
        }
        put(&mut table.header, 0, SIGNATURE);
        put(&mut table.header, 8, &[0, 0, 1, 0, 92]);
        put(&mut table.header, 40, &first_usable.to_le_bytes());
        put(&mut table.header, 56, &disk_guid);
        put(&mut table.header, 80, &(ENTRIES as u32).to_le_bytes());
        put(&mut table.header, 84, &128u32.to_le_bytes());
        put(&mut table.array, 0, &partition.kind);
        put(&mut table.array, 16, &partition.guid);
        put(&mut table.array, 32, &partition.first.to_le_bytes());
        Some(table.renamed(1, &partition.name).grown(sectors, 1, partition.last))
    }

    /// This table with another name for partition `number`; 36 UTF-16 units of it.
    pub fn renamed(&self, number: u32, name: &str) -> Self {
        let mut renamed = self.clone();
        let mut field = [0u8; 72];
        for (room, unit) in field.chunks_exact_mut(2).zip(name.encode_utf16()) {
            room.copy_from_slice(&unit.to_le_bytes());
        }
        let at = (number as usize)
            .saturating_sub(1)
            .saturating_mul(self.entry_size)
            .saturating_add(56);
        put(&mut renamed.array, at, &field);
        renamed
    }

    /// The disk's own GUID, as stored.
    pub fn disk_guid(&self) -> &[u8] {
        self.header.get(56..72).unwrap_or_default()
    }

    /// The used entries.
    pub fn partitions(&self) -> Vec<Partition> {
        let entry = |(index, entry): (usize, &[u8])| {
            let used = entry.get(..16)?.iter().any(|b| *b != 0);
            let units: Vec<u16> = entry
                .get(56..128)?
                .chunks_exact(2)
                .map(|u| u16::from_le_bytes([u[0], u[1]]))
                .take_while(|u| *u != 0)
                .collect();
            used.then_some(Partition {
                number: u32::try_from(index).ok()? + 1,
                name: String::from_utf16_lossy(&units),
                kind: entry.get(..16)?.try_into().ok()?,
                guid: entry.get(16..32)?.try_into().ok()?,
                first: number(entry, 32),
                last: number(entry, 40),
            })
        };
        self.array
            .chunks_exact(self.entry_size)
            .enumerate()
            .filter_map(entry)
            .collect()
    }

    /// Sectors one entry array takes.
    fn array_sectors(&self) -> u64 {
        (self.array.len() as u64).div_ceil(self.sector)
    }

    /// The last sector a partition may use on a disk of `sectors`.
    pub fn last_usable(&self, sectors: u64) -> u64 {
        sectors.saturating_sub(self.array_sectors() + 2)
    }

    /// This table for a disk of `sectors`, with partition `number` reaching to `last`.
    pub fn grown(&self, sectors: u64, number: u32, last: u64) -> Self {
        let mut grown = self.clone();
        let at = (number as usize)
            .saturating_sub(1)
            .saturating_mul(self.entry_size)
            .saturating_add(40);
        put(&mut grown.array, at, &last.to_le_bytes());
        put(&mut grown.header, 32, &sectors.saturating_sub(1).to_le_bytes());
        put(&mut grown.header, 48, &self.last_usable(sectors).to_le_bytes());
        grown
    }

    /// Header bytes for one copy, checksums included.
    fn header_at(&self, own: u64, other: u64, array: u64) -> Vec<u8> {
        let mut header = self.header.clone();
        put(&mut header, 24, &own.to_le_bytes());
        put(&mut header, 32, &other.to_le_bytes());
        put(&mut header, 72, &array.to_le_bytes());
        put(&mut header, 88, &crc32(&self.array).to_le_bytes());
        put(&mut header, 16, &[0; 4]);
        let crc = crc32(&header);
        put(&mut header, 16, &crc.to_le_bytes());
        header
    }

    /// Writes both copies, the one at the end first, each on the disk before the next begins: whenever the power
    /// fails, one copy is whole, and [`find`] reads that one.
    pub fn write(&self, disk: &File, sectors: u64) -> io::Result<()> {
        let end = sectors.saturating_sub(1);
        let backup_array = end.saturating_sub(self.array_sectors());
        for (own, other, array) in [(end, 1, backup_array), (1, end, 2)] {
            disk.write_all_at(&self.array, array.saturating_mul(self.sector))?;
            disk.sync_data()?;
            disk.write_all_at(&self.header_at(own, other, array), own.saturating_mul(self.sector))?;
            disk.sync_data()?;
        }
        Ok(())
    }
}

/// The master boot record in front of a table, which tells old programs that the disk is taken (UEFI 2.10, section 5.2.3).
pub fn protective_mbr(sectors: u64) -> [u8; 512] {
    let mut record = [0u8; 512];
    let last = u32::try_from(sectors.saturating_sub(1)).unwrap_or(u32::MAX);
    put(&mut record, 446, &[0, 0, 2, 0, 0xee, 0xff, 0xff, 0xff, 1, 0, 0, 0]);
    put(&mut record, 458, &last.to_le_bytes());
    put(&mut record, 510, &[0x55, 0xaa]);
    record
}

/// What was found at the two places of a table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    /// The table.
    pub table: Table,
    /// False when only the copy at the end was whole: a power cut met the rewriting of the first one.
    pub primary: bool,
}

/// The table of a disk, its first copy or else the one in the last sector.
pub fn find(disk: &File, sector: u64, sectors: u64) -> Option<Found> {
    let primary = Table::read(disk, sector, 1);
    let is_primary = primary.is_some();
    let table = primary.or_else(|| Table::read(disk, sector, sectors.checked_sub(1)?))?;
    Some(Found {
        table,
        primary: is_primary,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A table of two partitions, the second one ending at sector 2000, on a disk of 2048 sectors.
    fn sample() -> Table {
        let mut header = vec![0u8; 92];
        put(&mut header, 0, SIGNATURE);
        put(&mut header, 8, &[0, 0, 1, 0, 92]);
        put(&mut header, 40, &34u64.to_le_bytes());
        put(&mut header, 56, &[7; 16]);
        put(&mut header, 80, &128u32.to_le_bytes());
        put(&mut header, 84, &128u32.to_le_bytes());
        let mut array = vec![0u8; 128 * 128];
        for (index, name, first, last) in [(0usize, "rackbar-esp", 34u64, 99u64), (1, "rackbar-data", 100, 2000)] {
            let at = index * 128;
            put(&mut array, at, &[index as u8 + 1; 32]);
            put(&mut array, at + 32, &first.to_le_bytes());
            put(&mut array, at + 40, &last.to_le_bytes());
            let units: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
            put(&mut array, at + 56, &units);
        }
        Table {
            header,
            array,
            entry_size: 128,
            sector: 512,
        }
        .grown(2048, 2, 2000)
    }

    fn disk(sectors: u64) -> File {
        let file = tempfile::tempfile().unwrap();
        file.set_len(sectors * 512).unwrap();
        file
    }

    #[test]
    fn a_written_table_is_read_back_from_both_ends() {
        let disk = disk(2048);
        sample().write(&disk, 2048).unwrap();
        let found = find(&disk, 512, 2048).unwrap();
        assert!(found.primary);
        assert_eq!(found.table.partitions()[1].name, "rackbar-data");
        assert_eq!(number(&found.table.header, 32), 2047);
        let backup = Table::read(&disk, 512, 2047).unwrap();
        assert_eq!(backup.partitions(), found.table.partitions());
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn an_empty_disk_gets_one_partition_whose_name_is_changed_in_place() {
        for (sector, sectors) in [(512u64, 8192u64), (4096, 1024)] {
            let file = tempfile::tempfile().unwrap();
            file.set_len(sector * sectors).unwrap();
            let part = |last: u64| Partition {
                number: 1,
                name: "one".into(),
                kind: [3; 16],
                guid: [4; 16],
                first: (1 << 20) / sector,
                last,
            };
            assert_eq!(Table::with_one(sector, sectors, [5; 16], &part(sectors - 2)), None);
            let last = (2 << 20) / sector - 1;
            let table = Table::with_one(sector, sectors, [5; 16], &part(last)).unwrap();
            table.write(&file, sectors).unwrap();
            let found = find(&file, sector, sectors).unwrap().table;
            assert_eq!(
                (found.disk_guid(), found.partitions()),
                (&[5u8; 16][..], vec![part(last)])
            );
            found.renamed(1, "another name").write(&file, sectors).unwrap();
            let found = find(&file, sector, sectors).unwrap().table;
            assert_eq!(found.partitions()[0].name, "another name");
            assert_eq!(found.partitions()[0].last, last);
        }
        let record = protective_mbr(8192);
        assert_eq!(
            (record[450], &record[454..462]),
            (0xee, &[1, 0, 0, 0, 0xff, 0x1f, 0, 0][..])
        );
    }

    #[test]
    fn a_power_cut_between_any_two_writes_leaves_a_whole_table() {
        // The disk was 2048 sectors and is now 8192. Every prefix of the four writes must leave a readable table.
        let old = sample();
        let new = old.grown(8192, 2, old.last_usable(8192));
        for cut in 0..=4 {
            let file = disk(8192);
            old.write(&file, 2048).unwrap();
            let end = 8191;
            let array = end - new.array_sectors();
            let writes = [
                (array * 512, new.array.clone()),
                (end * 512, new.header_at(end, 1, array)),
                (1024, new.array.clone()),
                (512, new.header_at(1, end, 2)),
            ];
            for (offset, bytes) in writes.iter().take(cut) {
                file.write_all_at(bytes, *offset).unwrap();
            }
            let found = find(&file, 512, 8192).unwrap();
            let last = found.table.partitions()[1].last;
            assert_eq!(
                last,
                if cut < 3 { 2000 } else { new.last_usable(8192) },
                "cut after {cut} writes"
            );
            assert_eq!(found.primary, cut != 3);
        }
    }

    proptest! {
        #[test]
        fn a_damaged_table_is_refused_or_read(at in 0usize..(34 * 512), byte: u8) {
            let file = disk(2048);
            sample().write(&file, 2048).unwrap();
            file.write_all_at(&[byte], at as u64).unwrap();
            if let Some(table) = Table::read(&file, 512, 1) {
                let _ = (table.partitions(), table.last_usable(0), table.grown(0, 0, 0));
            }
        }
    }
}

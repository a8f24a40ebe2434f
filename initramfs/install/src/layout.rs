//! What is on the disks, for the report `Work::Layout`.

use rackbar_hardware::disks;
use rackbar_messages::DiskLayout;
use rackbar_model::{Disk as DiskInfo, DiskRef};

use crate::Machine;
use crate::disk::{Disk, partition_name};
use crate::probe::{self, Content};
use crate::table::Layout;

/// How a disk is named lastingly.
fn reference(info: &DiskInfo) -> DiskRef {
    DiskRef {
        serial: info.serial.clone(),
        wwn: info.wwn.clone(),
        by_path: info.by_path.clone(),
        size_bytes: Some(info.size_bytes),
    }
}

/// All disks; one that cannot be read has no table.
pub(crate) fn read(machine: &Machine) -> Vec<DiskLayout> {
    disks::read(&machine.root)
        .iter()
        .map(|info| read_one(machine, info))
        .collect()
}

fn read_one(machine: &Machine, info: &DiskInfo) -> DiskLayout {
    let (table, partitions) = read_table(machine, info).unwrap_or_default();
    DiskLayout {
        disk: reference(info),
        name: info.name.clone(),
        table,
        partitions,
    }
}

type Partitions = Vec<(String, u64, u64, String)>;

fn read_table(machine: &Machine, info: &DiskInfo) -> Option<(String, Partitions)> {
    let disk = Disk::open_to_read(&machine.root.path(format!("dev/{}", info.name))).ok()?;
    let whole = disk.to_read().ok()?;
    if let Some(layout) = Layout::read(machine, &info.name, &disk).ok()? {
        let parts = layout.parts().into_iter().map(|part| {
            let found = std::fs::File::open(&part.path).ok();
            let found = found
                .and_then(|file| probe::content(&file, part.bytes))
                .map_or("", Content::name);
            (
                partition_name(&info.name, part.number),
                part.start,
                part.bytes,
                found.to_owned(),
            )
        });
        return Some(("gpt".to_owned(), parts.collect()));
    }
    let found = probe::content(&whole, info.size_bytes).map_or("", Content::name);
    let mut sector = [0; 512];
    std::os::unix::fs::FileExt::read_exact_at(&whole, &mut sector, 0).ok()?;
    let parts = mbr(&sector).into_iter().map(|(number, start, bytes)| {
        let name = partition_name(&info.name, number);
        let file = std::fs::File::open(machine.root.path(format!("dev/{name}"))).ok();
        let found = file
            .and_then(|file| probe::content(&file, bytes))
            .map_or("", Content::name);
        (name, start, bytes, found.to_owned())
    });
    let parts: Partitions = parts.collect();
    match (parts.is_empty(), found.is_empty()) {
        (false, true) => Some(("mbr".to_owned(), parts)),
        // A file system on the whole disk is told as one partition that is the disk.
        (_, false) => Some((
            String::new(),
            vec![(info.name.clone(), 0, info.size_bytes, found.to_owned())],
        )),
        (true, true) => Some((String::new(), Vec::new())),
    }
}

/// The four primary entries of a master boot record: number, first byte, bytes. Empty when it is none, or only protects
/// a GPT.
pub(crate) fn mbr(sector: &[u8; 512]) -> Vec<(u32, u64, u64)> {
    const PROTECTIVE: u8 = 0xee;
    if sector.get(510..) != Some(&[0x55, 0xaa]) {
        return Vec::new();
    }
    let entries = sector.get(446..510).unwrap_or_default().chunks_exact(16);
    let word = |entry: &[u8], at: usize| {
        let found = entry.get(at..at + 4).and_then(|bytes| bytes.first_chunk::<4>());
        found.map_or(0, |bytes| u64::from(u32::from_le_bytes(*bytes)))
    };
    let entry = |(index, entry): (usize, &[u8])| {
        let (start, sectors) = (word(entry, 8), word(entry, 12));
        let used = entry.get(4).is_some_and(|kind| *kind != 0 && *kind != PROTECTIVE) && sectors > 0;
        used.then_some((index as u32 + 1, start * 512, sectors * 512))
    };
    entries.enumerate().filter_map(entry).collect()
}

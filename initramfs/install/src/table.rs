//! Partition tables after an image was written: the GPT's backup moved to the disk's end, the root partition grown, and
//! the kernel told.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use rackbar_hardware::block;
use rackbar_hardware::gpt::{Partition, Table, find};

use crate::control::{fault, io, refuse};
use crate::disk::{Disk, MIB, partition_name};
use crate::{Machine, Result};

/// Time the kernel gets to show partitions.
const PATIENCE: Duration = Duration::from_secs(10);

/// Linux root partition for x86-64, 4f68bce3-e8cd-4db1-96e7-fbcaf984b709 (UAPI group, Discoverable Partitions), as
/// stored: the first three fields are little-endian.
const ROOT_X86_64: [u8; 16] = [
    0xe3, 0xbc, 0x68, 0x4f, 0xcd, 0xe8, 0xb1, 0x4d, 0x96, 0xe7, 0xfb, 0xca, 0xf9, 0x84, 0xb7, 0x09,
];

/// EFI system partition, c12a7328-f81f-11d2-ba4b-00a0c93ec93b (UEFI 2.10, table 5.7), as stored.
const ESP: [u8; 16] = [
    0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b,
];

/// A partition of a disk, as device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Part {
    pub(crate) number: u32,
    pub(crate) guid: [u8; 16],
    /// First byte.
    pub(crate) start: u64,
    pub(crate) bytes: u64,
    /// Its device file.
    pub(crate) path: PathBuf,
    pub(crate) is_esp: bool,
}

/// A disk's table with the disk it is on.
pub(crate) struct Layout<'a> {
    machine: &'a Machine,
    disk: &'a Disk,
    name: String,
    table: Table,
}

/// The root partition: the one whose type says so, else the last one on the disk, which is where images have it.
fn root_of(partitions: &[Partition]) -> Option<&Partition> {
    let typed: Vec<&Partition> = partitions.iter().filter(|part| part.kind == ROOT_X86_64).collect();
    match typed.as_slice() {
        [one] => Some(one),
        _ => partitions
            .iter()
            .filter(|part| part.kind != ESP)
            .max_by_key(|part| part.first),
    }
}

impl<'a> Layout<'a> {
    /// Reads the table; `None` when there is no GPT.
    pub(crate) fn read(machine: &'a Machine, name: &str, disk: &'a Disk) -> Result<Option<Self>> {
        let sector = u64::from(disk.sector());
        let file = disk.to_read().map_err(io(format_args!("opening {name}")))?;
        let found = find(&file, sector, disk.bytes() / sector);
        Ok(found.map(|found| Self {
            machine,
            disk,
            name: name.to_owned(),
            table: found.table,
        }))
    }

    fn sector(&self) -> u64 {
        u64::from(self.disk.sector())
    }

    fn part(&self, partition: &Partition) -> Part {
        let sectors = (partition.last + 1).saturating_sub(partition.first);
        let name = partition_name(&self.name, partition.number);
        Part {
            number: partition.number,
            guid: partition.guid,
            start: partition.first.saturating_mul(self.sector()),
            bytes: sectors.saturating_mul(self.sector()),
            path: self.machine.root.path(format!("dev/{name}")),
            is_esp: partition.kind == ESP,
        }
    }

    /// All partitions by place.
    pub(crate) fn parts(&self) -> Vec<Part> {
        let mut parts: Vec<Part> = self
            .table
            .partitions()
            .iter()
            .map(|partition| self.part(partition))
            .collect();
        parts.sort_by_key(|part| part.start);
        parts
    }

    /// The root partition.
    pub(crate) fn root(&self) -> Result<Part> {
        let partitions = self.table.partitions();
        let root = root_of(&partitions);
        root.map(|root| self.part(root)).ok_or_else(|| {
            refuse(
                format!("the partition table of {} has no root partition", self.name),
                "the image must have its root as last partition, or of the type Linux root (x86-64)",
            )
        })
    }

    /// The EFI system partition.
    pub(crate) fn esp(&self) -> Option<Part> {
        self.parts().into_iter().find(|part| part.is_esp)
    }

    /// Moves the backup table to the disk's end and lets the root partition reach there. Gives what was done.
    pub(crate) fn grow(&mut self) -> Result<Vec<String>> {
        let sectors = self.disk.bytes() / self.sector();
        let partitions = self.table.partitions();
        let root = root_of(&partitions).ok_or_else(|| refuse("there is no root partition", ""))?;
        let end = self.table.last_usable(sectors);
        let is_last = partitions.iter().all(|other| other.last <= root.last);
        let align = MIB / self.sector();
        // Whole mebibytes, so that the file system ends on a boundary every disk likes.
        let wanted = ((end + 1) / align * align).saturating_sub(1);
        let last = if is_last && wanted > root.last {
            wanted
        } else {
            root.last
        };
        if partitions.iter().any(|part| part.last > end) {
            return Err(refuse(
                format!("a partition of the image ends behind the end of {}", self.name),
                "choose a larger disk",
            ));
        }
        let file = self.disk.cached().map_err(io(format_args!("opening {}", self.name)))?;
        self.table = self.table.grown(sectors, root.number, last);
        self.table
            .write(&file, sectors)
            .map_err(io(format_args!("writing the partition table of {}", self.name)))?;
        let mut steps = vec![format!("{}: GPT backup moved to the disk's end", self.name)];
        steps.push(match (is_last, last > root.last) {
            (true, true) => format!(
                "{}: root partition {} grown from {} to {} MiB",
                self.name,
                root.number,
                (root.last + 1 - root.first) * self.sector() / MIB,
                (last + 1 - root.first) * self.sector() / MIB
            ),
            (true, false) => format!("{}: root partition {} fills the disk already", self.name, root.number),
            (false, _) => format!(
                "{}: root partition {} is not the last one and was not grown",
                self.name, root.number
            ),
        });
        self.tell_kernel()?;
        Ok(steps)
    }

    /// Makes the kernel show the partitions as the table has them, and waits for their device files.
    pub(crate) fn tell_kernel(&self) -> Result<()> {
        if !self.disk.is_block() {
            return Ok(());
        }
        let file = self.disk.cached().map_err(io(format_args!("opening {}", self.name)))?;
        let reread = block::reread_partitions(&file);
        for part in self.parts() {
            if self.kernel_bytes(part.number) == Some(part.bytes) {
                continue;
            }
            // A kernel without the GPT parser, or one where something holds the disk, is told each partition.
            let resized = block::resize_partition(&file, part.number, part.start, part.bytes);
            resized
                .or_else(|_| block::add_partition(&file, part.number, part.start, part.bytes))
                .map_err(|error| {
                    let first = reread.as_ref().err().map_or(String::new(), |e| format!(" ({e})"));
                    let name = partition_name(&self.name, part.number);
                    fault(
                        format!("the kernel does not take the partition {name}: {error}{first}"),
                        "",
                    )
                })?;
        }
        let deadline = Instant::now() + PATIENCE;
        for part in self.parts() {
            while !part.path.exists() {
                if Instant::now() > deadline {
                    return Err(fault(format!("{} did not appear", part.path.display()), ""));
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        Ok(())
    }

    /// The size of a partition as the kernel sees it.
    fn kernel_bytes(&self, number: u32) -> Option<u64> {
        let part = partition_name(&self.name, number);
        let sectors: u64 = self
            .machine
            .root
            .number(format!("sys/block/{}/{part}/size", self.name))?;
        Some(sectors.saturating_mul(512))
    }
}

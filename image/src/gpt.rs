//! GUID partition tables (UEFI 2.10 chapter 5) with identifiers derived from names, so that the same image has the
//! same ones everywhere.

use std::fs::File;

use anyhow::{Context, Result};
use gptman::{GPT, GPTPartitionEntry};

use crate::digest::guid;

/// Sector size of the tables: what USB sticks, virtual disks and nearly all server boot disks show.
pub(crate) const SECTOR: u64 = 512;

/// Sectors at the end of the disk that the backup table takes.
pub(crate) const BACKUP_SECTORS: u64 = 33;

/// EFI system partition, C12A7328-F81F-11D2-BA4B-00A0C93EC93B.
pub(crate) const ESP: [u8; 16] = [
    0x28, 0x73, 0x2A, 0xC1, 0x1F, 0xF8, 0xD2, 0x11, 0xBA, 0x4B, 0x00, 0xA0, 0xC9, 0x3E, 0xC9, 0x3B,
];

/// Linux filesystem data, 0FC63DAF-8483-4772-8E79-3D69D8477DE4.
pub(crate) const LINUX_DATA: [u8; 16] = [
    0xAF, 0x3D, 0xC6, 0x0F, 0x83, 0x84, 0x72, 0x47, 0x8E, 0x79, 0x3D, 0x69, 0xD8, 0x47, 0x7D, 0xE4,
];

/// BIOS boot partition, 21686148-6449-6E6F-744E-656564454649: GRUB's name for where its core image lies.
pub(crate) const BIOS_BOOT: [u8; 16] = *b"Hah!IdontNeedEFI";

/// One partition, in sectors.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Partition<'a> {
    pub(crate) name: &'a str,
    pub(crate) kind: [u8; 16],
    pub(crate) start: u64,
    pub(crate) sectors: u64,
}

/// Writes protective MBR, primary and backup table onto `disk`, which has its final size already. `identity` is what
/// the disk's identifiers are derived from.
pub(crate) fn write(disk: &mut File, identity: &str, partitions: &[Partition<'_>]) -> Result<()> {
    let mut table = GPT::new_from(disk, SECTOR, guid(identity)).context("laying out the partition table")?;
    for (number, partition) in (1u32..).zip(partitions) {
        table[number] = GPTPartitionEntry {
            partition_type_guid: partition.kind,
            unique_partition_guid: guid(&format!("{identity} {}", partition.name)),
            starting_lba: partition.start,
            ending_lba: partition.start + partition.sectors - 1,
            attribute_bits: 0,
            partition_name: partition.name.into(),
        };
    }
    table.write_into(disk).context("writing the partition table")?;
    GPT::write_protective_mbr_into(disk, SECTOR).context("writing the protective MBR")
}

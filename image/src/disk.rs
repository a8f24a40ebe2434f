//! `rackbar.img`: the appliance as a disk or USB stick.
//!
//! | partition | content |
//! | --- | --- |
//! | `rackbar-esp`, FAT32, 256 MiB | `EFI/BOOT/BOOTX64.EFI`: the running version; `EFI/RACKBAR/`: the second slot, where an update is put under a name of its own before it takes the first one's place; `rackbar.toml`: the site's configuration |
//! | `rackbar-pack-1` and so on | data packs, when there are any |
//! | `rackbar-data`, ext4 | what the appliance remembers; grown to the disk's end by the appliance itself |

use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result};

use rackbar_boot_media::BOOT_PATH;

use crate::digest::serial;
use crate::ext4;
use crate::fat::Volume;
use crate::gpt::{self, BACKUP_SECTORS, Partition, SECTOR};
use crate::packs::{self, MediumPack};

/// Name of the boot partition.
pub const ESP_NAME: &str = "rackbar-esp";
/// The configuration file's name in the boot partition.
pub const CONFIG_NAME: &str = "rackbar.toml";
/// Keeps the second slot's folder in place; FAT tools drop nothing, people do.
const SLOT_NOTE: (&str, &str) = (
    "EFI/RACKBAR/README.TXT",
    "The second slot: an update is written here first, checked, and then takes the place of EFI/BOOT/BOOTX64.EFI.\r\n",
);

const MIB: u64 = 1 << 20;
/// Two slots of twice today's size each, with room to spare: a deployed disk cannot be repartitioned.
const ESP_SIZE: u64 = 256 * MIB;
/// Partitions start on whole MiB: every flash and RAID stripe size divides that.
const START: u64 = MIB;

/// A disk to write.
#[derive(Debug, Clone, Copy)]
pub struct DiskSpec<'a> {
    /// The appliance's UKI, `rackbar.efi`.
    pub efi: &'a [u8],
    /// The configuration to put beside it; without one the appliance starts with safe defaults.
    pub config: Option<&'a str>,
    /// Data packs, each in a partition of its own before the data partition.
    pub packs: &'a [MediumPack<'a>],
    /// Size of the data partition in MiB; 0 leaves it out, and the appliance then keeps everything in RAM.
    pub data_mib: u64,
}

/// Writes a disk image to `path`, replacing what is there. The file is sparse.
pub fn write(spec: &DiskSpec<'_>, path: &Path) -> Result<()> {
    create(spec, path).with_context(|| format!("writing disk image {}", path.display()))
}

fn create(spec: &DiskSpec<'_>, path: &Path) -> Result<()> {
    let data_size = spec.data_mib * MIB;
    let mut packs = packs::place(spec.packs, START + ESP_SIZE)?;
    let data_start = packs::end(&packs, START + ESP_SIZE);
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)?;
    // The backup table takes the last 33 sectors; a whole MiB keeps the image's size round.
    file.set_len((data_start + data_size + BACKUP_SECTORS * SECTOR).next_multiple_of(MIB))?;

    let mut files = vec![(BOOT_PATH, spec.efi), (SLOT_NOTE.0, SLOT_NOTE.1.as_bytes())];
    files.extend(spec.config.map(|config| (CONFIG_NAME, config.as_bytes())));
    let esp = Volume {
        size: ESP_SIZE,
        cluster: 2048,
        align: 4096,
        label: "RACKBAR",
        serial: serial(ESP_NAME),
        hidden_sectors: (START / SECTOR) as u32,
        files,
    };
    esp.write(&file, START)?;

    let sectors = |bytes: u64| bytes / SECTOR;
    let mut partitions = vec![Partition {
        name: ESP_NAME,
        kind: gpt::ESP,
        start: sectors(START),
        sectors: sectors(ESP_SIZE),
    }];
    for pack in &mut packs {
        pack.copy(&mut file)?;
    }
    partitions.extend(packs.iter().map(packs::Placed::partition));
    if data_size > 0 {
        ext4::write(&file, data_start, data_size)?;
        partitions.push(Partition {
            name: ext4::LABEL,
            kind: gpt::LINUX_DATA,
            start: sectors(data_start),
            sectors: sectors(data_size),
        });
    }
    gpt::write(&mut file, "disk", &partitions)
}

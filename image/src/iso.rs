//! `rackbar.iso`: one file that UEFI firmware boots as a CD and as a disk. The disc is [`rackbar_boot_media::iso`]'s; a
//! partition table whose one partition is its FAT image makes it a disk.

use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result};
use rackbar_boot_media::iso::{self, Disc};

use crate::digest::serial;
use crate::disk::{CONFIG_NAME, ESP_NAME};
use crate::gpt::{self, Partition};

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
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)?;
    let disc = Disc {
        efi: spec.efi,
        beside: spec.config.map(|config| (CONFIG_NAME, config.as_bytes())),
        serial: serial("iso"),
        least: iso::FAT32,
    };
    let places = iso::write(&disc, &file)?;
    file.set_len(places.size)?;
    let partition = Partition {
        name: ESP_NAME,
        kind: gpt::ESP,
        start: places.esp_start / gpt::SECTOR,
        sectors: places.esp_size / gpt::SECTOR,
    };
    gpt::write(&mut file, "iso", &[partition])
}

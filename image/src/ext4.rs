//! The `rackbar-data` filesystem: an empty ext4 of template size that the kernel grows online (`EXT4_IOC_RESIZE_FS`)
//! at the appliance's first boot. It has no reserved descriptor blocks; the kernel then adds groups with `meta_bg`,
//! which has no upper bound short of ext4's own.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result};
use mkext4::{FsBuilder, Options};

use crate::digest::uuid;
use crate::epoch::SOURCE_DATE_EPOCH;

/// Label of the filesystem, and name of its partition.
pub const LABEL: &str = "rackbar-data";

/// Puts the image at an offset of a larger file; what is zero is left out.
struct At<'a> {
    file: &'a File,
    offset: u64,
}

impl mkext4::RegionSink for At<'_> {
    fn data(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, self.offset + offset)
    }

    fn zeros(&mut self, _offset: u64, _length: u64) -> io::Result<()> {
        Ok(())
    }
}

/// Writes an empty filesystem of `size` bytes (a multiple of 4096) at `offset` of `out`, which must read as zeros
/// there.
pub fn write(out: &File, offset: u64, size: u64) -> Result<()> {
    let mut options = Options::new(size, uuid(LABEL), SOURCE_DATE_EPOCH as i64);
    options.label = Some(LABEL.to_owned());
    // Nobody but the appliance writes here; blocks kept back for root would only be lost.
    options.reserved_percent = 0;
    let layout = FsBuilder::new(options)
        .and_then(FsBuilder::seal)
        .with_context(|| format!("laying out an ext4 filesystem of {size} bytes"))?;
    let mut sink = At { file: out, offset };
    layout
        .writer(&mut sink)
        .and_then(|writer| writer.finish())
        .context("writing the ext4 filesystem")?;
    Ok(())
}

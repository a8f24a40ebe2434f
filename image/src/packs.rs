//! Data packs on boot media: copied as they are, each where a partition may begin.
//!
//! On a disk each pack fills a partition named `rackbar-pack-N`. On an ISO the same bytes are such a partition and a file
//! below `PACKS`, for a machine that sees the medium as a CD and no partitions on it.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Seek as _, SeekFrom};
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use crate::gpt::{self, Partition};

/// Partitions start on whole MiB.
const START: u64 = 1 << 20;

/// A pack that goes onto a medium.
#[derive(Debug, Clone, Copy)]
pub struct MediumPack<'a> {
    /// Its name, as its index says it.
    pub name: &'a str,
    /// The file.
    pub path: &'a Path,
}

/// A pack that has its place.
pub(crate) struct Placed {
    pub(crate) name: String,
    /// Its partition's name.
    pub(crate) partition: String,
    file: File,
    pub(crate) start: u64,
    pub(crate) bytes: u64,
}

/// Opens all, none of them placed yet.
pub(crate) fn open(packs: &[MediumPack<'_>]) -> Result<Vec<Placed>> {
    let (mut placed, mut names) = (Vec::new(), BTreeSet::new());
    for (number, pack) in (1u32..).zip(packs) {
        let what = || format!("data pack {}", pack.path.display());
        let file = File::open(pack.path).with_context(what)?;
        let bytes = file.metadata().with_context(what)?.len();
        ensure!(bytes > 0, "{} is empty", what());
        ensure!(
            names.insert(file_name(pack.name)),
            "{}: another data pack on this medium would be the file {}, too; give one of them another name",
            what(),
            file_name(pack.name)
        );
        placed.push(Placed {
            name: pack.name.to_owned(),
            partition: format!("rackbar-pack-{number}"),
            file,
            start: 0,
            bytes,
        });
    }
    Ok(placed)
}

/// A pack's file name as ISO 9660 has it, but for its version.
pub(crate) fn file_name(name: &str) -> String {
    format!("{}.PACK", name.replace('.', "_").to_ascii_uppercase())
}

/// Opens all and gives each a place, the first at or behind `from`.
pub(crate) fn place(packs: &[MediumPack<'_>], from: u64) -> Result<Vec<Placed>> {
    let mut placed = open(packs)?;
    let mut at = from;
    for pack in &mut placed {
        pack.start = at.next_multiple_of(START);
        at = pack.start + pack.bytes;
    }
    Ok(placed)
}

/// Where the last of them ends, or `from` when there is none.
pub(crate) fn end(placed: &[Placed], from: u64) -> u64 {
    placed
        .last()
        .map_or(from, |last| (last.start + last.bytes).next_multiple_of(START))
}

impl Placed {
    pub(crate) fn copy(&mut self, out: &mut File) -> Result<()> {
        out.seek(SeekFrom::Start(self.start))?;
        let copied = std::io::copy(&mut self.file, out).with_context(|| format!("copying data pack {}", self.name))?;
        ensure!(
            copied == self.bytes,
            "data pack {} changed while it was copied",
            self.name
        );
        Ok(())
    }

    pub(crate) fn partition(&self) -> Partition<'_> {
        Partition {
            name: &self.partition,
            kind: gpt::LINUX_DATA,
            start: self.start / gpt::SECTOR,
            sectors: self.bytes.div_ceil(gpt::SECTOR),
        }
    }
}

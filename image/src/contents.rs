//! What is in the running image besides kernel modules, from `data/contents.toml`, and the cpio archives made of it.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::cpio;

/// The table that ships with this crate.
pub const SHIPPED: &str = include_str!("../data/contents.toml");

/// Both archives' files.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contents {
    /// What every machine runs from: init and agent.
    pub base: Archive,
    /// What the appliance has on top.
    pub appliance: Archive,
}

/// Folders and files of one archive.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Archive {
    /// Folders that must exist even when empty.
    pub directories: Vec<String>,
    /// The files.
    pub file: Vec<File>,
}

/// One file and where it comes from.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Path in the image, without a leading slash.
    pub path: String,
    /// Source, as the head of the table explains.
    pub from: String,
    /// Permission bits.
    pub mode: u32,
}

/// One of our own programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Program<'a> {
    /// As the table names it.
    pub from: &'a str,
    /// The Cargo package that has it.
    pub package: &'a str,
    /// The file Cargo makes.
    pub name: &'a str,
}

/// What sources give: the bytes behind each `from` of the table.
pub type Sources = BTreeMap<String, Vec<u8>>;

impl Contents {
    /// The table this crate ships.
    pub fn shipped() -> Result<Self> {
        toml::from_str(SHIPPED).context("reading contents.toml")
    }

    /// Every `from` that either archive names.
    pub fn sources(&self) -> impl Iterator<Item = &str> {
        self.base.sources().chain(self.appliance.sources())
    }

    /// Paths of the files wanted out of the ipxe package.
    pub fn ipxe_files(&self) -> Vec<&str> {
        self.sources().filter_map(|from| from.strip_prefix("ipxe:")).collect()
    }
}

impl Archive {
    /// Every `from` of this archive.
    pub fn sources(&self) -> impl Iterator<Item = &str> {
        self.file.iter().map(|file| file.from.as_str())
    }

    /// Our own programs, each with its Cargo package.
    pub fn programs(&self) -> impl Iterator<Item = Program<'_>> {
        self.sources().filter_map(|from| {
            let program = from.strip_prefix("program:")?;
            let (package, name) = program.split_once('/').unwrap_or((program, program));
            Some(Program { from, package, name })
        })
    }

    /// The archive as uncompressed cpio.
    pub fn cpio(&self, sources: &Sources) -> Result<Vec<u8>> {
        let mut writer = cpio::Writer::new();
        for directory in &self.directories {
            writer.directory(directory);
        }
        for file in &self.file {
            let Some(content) = sources.get(&file.from) else {
                bail!(
                    "contents.toml wants {} from {:?}, which this build does not provide",
                    file.path,
                    file.from
                )
            };
            writer.file(&file.path, file.mode, content);
        }
        Ok(writer.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_table_names_each_path_once() {
        let contents = Contents::shipped().unwrap();
        let mut paths: Vec<_> = contents
            .base
            .file
            .iter()
            .chain(&contents.appliance.file)
            .map(|file| file.path.as_str())
            .collect();
        let count = paths.len();
        paths.sort_unstable();
        paths.dedup();
        assert_eq!(paths.len(), count);
        assert!(paths.contains(&"init"));
    }

    #[test]
    fn a_source_that_is_not_provided_is_an_error() {
        let contents = Contents::shipped().unwrap();
        let error = contents.base.cpio(&Sources::new()).unwrap_err().to_string();
        assert!(error.contains("program:rackbar-init/init"), "{error}");
    }
}

//! Looks into finished archives: is everything in them on a list? The image's promise is that it holds our own
//! programs, listed drivers and nothing else; this reads the promise back out of the bytes that ship.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};
use ruzstd::decoding::StreamingDecoder;

use crate::contents::{Archive, Contents};
use crate::cpio;
use crate::modinfo::canonical;
use crate::modules::List;

/// An archive unpacked: files by path. Folders are left out.
pub type Files = BTreeMap<String, Vec<u8>>;

/// Unpacks a `.cpio.zst` of one or more frames with one archive each, as the kernel does.
pub fn unpack(mut compressed: &[u8]) -> Result<Files> {
    let mut files = Files::new();
    while !compressed.is_empty() {
        let mut archive = Vec::new();
        let mut decoder = StreamingDecoder::new(&mut compressed).map_err(|error| anyhow!("reading zstd: {error}"))?;
        decoder.read_to_end(&mut archive).context("reading zstd")?;
        for entry in cpio::read(&archive)? {
            if !entry.is_directory() {
                let old = files.insert(entry.path.to_owned(), entry.content.to_vec());
                ensure!(old.is_none(), "the archive holds {} twice", entry.path);
            }
        }
    }
    Ok(files)
}

/// Checks the archives in a finished `target/image`.
///
/// # Errors
/// Names the first file that is on no list, or that a list wants and the archive lacks.
pub fn folder(folder: &Path, list: &List) -> Result<()> {
    let contents = Contents::shipped()?;
    let read = |name: &str| -> Result<Files> {
        let path = folder.join(name);
        let bytes = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        unpack(&bytes).with_context(|| format!("unpacking {}", path.display()))
    };
    let mut base = read("base.cpio.zst")?;
    modules(&mut base, list).context("base.cpio.zst")?;
    exactly(&base, &contents.base).context("base.cpio.zst")?;
    exactly(&read("appliance.cpio.zst")?, &contents.appliance).context("appliance.cpio.zst")
}

/// The archive holds the listed files and no others.
fn exactly(files: &Files, archive: &Archive) -> Result<()> {
    let listed: BTreeSet<_> = archive.file.iter().map(|file| file.path.as_str()).collect();
    for path in files.keys() {
        ensure!(
            listed.contains(path.as_str()),
            "holds {path}, which contents.toml does not list"
        );
    }
    for path in listed {
        ensure!(files.contains_key(path), "lacks {path}, which contents.toml lists");
    }
    Ok(())
}

/// Takes modules and their tables out of `files`, and checks that each module is listed or needed by a listed one.
fn modules(files: &mut Files, list: &List) -> Result<()> {
    let inside: Vec<_> = files
        .keys()
        .filter(|path| path.starts_with("lib/modules/"))
        .cloned()
        .collect();
    let mut present = BTreeMap::new();
    let mut tables = Files::new();
    for path in inside {
        let content = files.remove(&path).unwrap_or_default();
        let Some((_, below)) = path.trim_start_matches("lib/modules/").split_once('/') else {
            bail!("holds {path}, which is neither a module nor a table")
        };
        match below {
            "modules.alias" | "modules.dep" | "modules.softdep" => drop(tables.insert(below.to_owned(), content)),
            _ => match below.strip_prefix("kernel/").and_then(|path| path.strip_suffix(".ko")) {
                Some(module) => {
                    drop(present.insert(canonical(module.rsplit('/').next().unwrap_or(module)), below.to_owned()))
                }
                None => bail!("holds {path}, which is neither a module nor a table"),
            },
        }
    }
    let table = |name: &str| -> Result<&str> {
        let bytes = tables.get(name).with_context(|| format!("lacks {name}"))?;
        std::str::from_utf8(bytes).with_context(|| format!("{name} is not text"))
    };
    let needed = needs(table("modules.dep")?, table("modules.softdep")?);
    let mut open: Vec<String> = list.names().map(canonical).collect();
    let mut reached = BTreeSet::new();
    while let Some(name) = open.pop() {
        if reached.insert(name.clone()) {
            open.extend(needed.get(&name).into_iter().flatten().cloned());
        }
    }
    for (name, path) in &present {
        ensure!(
            reached.contains(name),
            "holds {path}, which modules.toml neither lists nor needs"
        );
    }
    Ok(())
}

/// What each module needs, by name, from the two tables.
fn needs(dep: &str, softdep: &str) -> BTreeMap<String, Vec<String>> {
    let name = |path: &str| canonical(path.rsplit('/').next().unwrap_or(path).trim_end_matches(".ko"));
    let mut needed: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (module, others) in dep.lines().filter_map(|line| line.split_once(':')) {
        needed
            .entry(name(module))
            .or_default()
            .extend(others.split_whitespace().map(name));
    }
    for line in softdep.lines().filter_map(|line| line.strip_prefix("softdep ")) {
        let mut words = line.split_whitespace();
        let Some(module) = words.next() else { continue };
        needed
            .entry(canonical(module))
            .or_default()
            .extend(words.filter(|word| !word.ends_with(':')).map(canonical));
    }
    needed
}

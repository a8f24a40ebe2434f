//! Reading Debian packages: an `ar` archive whose `data.tar.xz` member holds the files (deb(5)). Only reading, only
//! xz: that is what bookworm's packages use.

use std::io::{BufReader, Read};
use std::path::Path;

use anyhow::{Context, Result, bail};
use lzma_rust2::XzReader;

/// Calls `visit` with the path (no leading `./`) and a reader of each regular file in the package, in package order.
pub fn for_each_file(package: &Path, mut visit: impl FnMut(&str, &mut dyn Read) -> Result<()>) -> Result<()> {
    let file = std::fs::File::open(package).with_context(|| format!("opening {}", package.display()))?;
    let mut archive = ar::Archive::new(BufReader::new(file));
    while let Some(member) = archive.next_entry() {
        let member = member.with_context(|| format!("reading {}", package.display()))?;
        match member.header().identifier() {
            b"data.tar.xz" => {
                let mut tar = tar::Archive::new(XzReader::new(BufReader::with_capacity(1 << 20, member), true));
                return walk(&mut tar, &mut visit).with_context(|| format!("unpacking {}", package.display()));
            }
            name if name.starts_with(b"data.tar") => bail!(
                "{} holds {}; only data.tar.xz is understood",
                package.display(),
                String::from_utf8_lossy(name)
            ),
            _ => {}
        }
    }
    bail!("{} is no Debian package: it holds no data.tar.xz", package.display())
}

fn walk<R: Read>(tar: &mut tar::Archive<R>, visit: &mut impl FnMut(&str, &mut dyn Read) -> Result<()>) -> Result<()> {
    for entry in tar.entries()? {
        let mut entry = entry?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let path = entry.path()?.to_string_lossy().into_owned();
        let path = path.strip_prefix("./").unwrap_or(&path);
        visit(path, &mut entry).with_context(|| path.to_owned())?;
    }
    Ok(())
}

/// Reads the named files out of a package, in the order asked; fails when one is missing.
pub fn read_files(package: &Path, wanted: &[&str]) -> Result<Vec<Vec<u8>>> {
    let mut found: Vec<Option<Vec<u8>>> = vec![None; wanted.len()];
    for_each_file(package, |path, reader| {
        for (_, slot) in wanted.iter().zip(&mut found).filter(|(name, _)| **name == path) {
            let mut content = Vec::new();
            reader.read_to_end(&mut content)?;
            *slot = Some(content);
        }
        Ok(())
    })?;
    let files = wanted.iter().zip(found);
    files
        .map(|(name, slot)| slot.with_context(|| format!("{} does not hold {name}", package.display())))
        .collect()
}

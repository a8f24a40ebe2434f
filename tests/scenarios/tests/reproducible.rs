//! The same source gives the same bytes, wherever it lies and whoever builds it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use rackbar_scenarios::media;
use rackbar_scenarios::times::Told;

use crate::rack_verb;

/// Builds the media once more from a copy of the source in another folder, with nothing kept from the first build, and
/// compares every file's SHA-256.
#[test]
fn two_checkouts_give_the_same_media() -> Result<()> {
    let _time = Told::begin();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize()?;
    let folder = tempfile::tempdir()?;
    let copy = folder.path().join("another place");
    for file in source_files(&source)? {
        let to = copy.join(&file);
        fs::create_dir_all(to.parent().context("a file lies in a folder")?)?;
        fs::copy(source.join(&file), &to).with_context(|| file.display().to_string())?;
    }
    let target = folder.path().join("built");
    // The builder finds its checkout by the folder it runs in and keeps no path of its own: the same program serves. All that
    // goes onto the media is compiled anew.
    let output = Command::new(rack_verb::program()?)
        .arg("image")
        .current_dir(&copy)
        .env("CARGO_TARGET_DIR", &target)
        .output()?;
    ensure!(
        output.status.success(),
        "the second build failed:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let (first, second) = (sums(&media()?)?, sums(&target.join("image"))?);
    ensure!(
        first.len() >= 9,
        "the first build has only {} files: {first:?}",
        first.len()
    );
    let differ: Vec<_> = first
        .iter()
        .filter(|(name, sum)| second.get(*name) != Some(sum))
        .map(|(name, _)| name)
        .collect();
    ensure!(
        differ.is_empty() && first.len() == second.len(),
        "these differ between two builds: {differ:?}"
    );
    Ok(())
}

/// What git knows or would take, as it lies there now.
fn source_files(source: &Path) -> Result<Vec<PathBuf>> {
    let list = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
    let output = Command::new("git")
        .arg("-C")
        .arg(source)
        .args(list)
        .output()
        .context("running git")?;
    ensure!(
        output.status.success(),
        "git: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let names = output.stdout.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    let files = names.map(|name| PathBuf::from(String::from_utf8_lossy(name).into_owned()));
    Ok(files.filter(|file| source.join(file).is_file()).collect())
}

/// Names and sums of `SHA256SUMS`.
pub(crate) fn sums(folder: &Path) -> Result<BTreeMap<String, String>> {
    let path = folder.join("SHA256SUMS");
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    Ok(text
        .lines()
        .filter_map(|line| line.split_once("  "))
        .map(|(sum, name)| (name.into(), sum.into()))
        .collect())
}

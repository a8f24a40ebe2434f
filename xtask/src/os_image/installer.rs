//! Debian's installer for the catalogue: what boots it, out of Debian's own package, in an archive laid out like the
//! `netboot.tar.gz` that Debian publishes.

use std::path::Path;

use anyhow::{Context, Result};
use rackbar_image::deb;
use rackbar_image::digest::{sha256, sha256_file};
use rackbar_image::epoch::SOURCE_DATE_EPOCH;
use rackbar_model::{ImageEntry, ImageFormat, Timestamp};

use super::OsImage;
use crate::project::Project;
use crate::setup::debian::{self, Deb};

/// The package.
const PACKAGE: &str = "debian-installer-12-netboot-amd64";

/// Where the package has its files.
const FOLDER: &str = "usr/lib/debian-installer/images/12/amd64/text/";

/// What of them is taken, by its place in the archive.
const FILES: [&str; 3] = [
    "version.info",
    "debian-installer/amd64/linux",
    "debian-installer/amd64/initrd.gz",
];

/// Gives the archive, making it when it is not that of the package's present version.
pub(super) fn ensure(project: &Project, name: &str) -> Result<OsImage> {
    let deb = debian::fetch(PACKAGE, &project.cache())?;
    let folder = project.target.join("os");
    std::fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    let (path, record) = (folder.join(format!("{name}.tar")), folder.join(format!("{name}.json")));
    if let Some(entry) = present(&path, &record, &deb) {
        return Ok(OsImage { path, entry });
    }
    let wanted = FILES.map(|file| format!("{FOLDER}{file}"));
    let content = deb::read_files(&deb.path, &wanted.each_ref().map(String::as_str))?;
    let archive = archive(&content)?;
    std::fs::write(&path, &archive).with_context(|| format!("writing {}", path.display()))?;
    let entry = ImageEntry {
        name: name.to_owned(),
        format: ImageFormat::Raw,
        sha256: sha256(&archive).parse().context("our own digest")?,
        bytes: archive.len() as u64,
        disk_bytes: None,
        arch: "x86_64".to_owned(),
        source: source(&deb),
        licence: "Debian main: GPL-2+ and others; sources in the same archive".to_owned(),
        user: "root".to_owned(),
        added: Timestamp(SOURCE_DATE_EPOCH * 1000),
        // The appliance finds it in the archive, whoever sends that.
        installer: None,
    };
    std::fs::write(&record, serde_json::to_string_pretty(&entry)? + "\n").context("writing the installer's record")?;
    Ok(OsImage { path, entry })
}

fn source(deb: &Deb) -> String {
    format!("Debian's package {} {}, SHA-256 {}", deb.name, deb.version, deb.sha256)
}

/// What was made before of the same package.
fn present(path: &Path, record: &Path, deb: &Deb) -> Option<ImageEntry> {
    let text = std::fs::read_to_string(record).ok()?;
    let entry: ImageEntry = serde_json::from_str(&text).ok()?;
    let (found, _) = sha256_file(path).ok()?;
    (entry.source == source(deb) && found == entry.sha256.to_string()).then_some(entry)
}

fn archive(content: &[Vec<u8>]) -> Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    for (path, content) in FILES.iter().zip(content) {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(SOURCE_DATE_EPOCH);
        archive.append_data(&mut header, format!("./{path}"), content.as_slice())?;
    }
    archive.into_inner().context("ending the archive")
}

//! An installer among the images: a tar archive laid out like Debian's `netboot.tar.gz`, unpacked once, or a disc
//! ([`super::disc`]). Its kernel and its initial RAM file system are found and hashed where they lie, and served from there.
//! The bytes come from outside: nothing is trusted.

use std::io::{self, Read, Seek as _, SeekFrom};

use rackbar_model::{Digest, ImageEntry, Installer, InstallerFile, InstallerSystem};
use rackbar_trust::Sha256;

use super::detect::DetectError;
use super::disc;
use super::window::Window;

/// Names of an installer's kernel and of its initial RAM file system as they are served: the last of their paths in the
/// archive or on the disc.
pub const fn boot_names(system: InstallerSystem) -> [&'static str; 2] {
    match system {
        InstallerSystem::Debian => ["linux", "initrd.gz"],
        InstallerSystem::Rhel
        | InstallerSystem::Rocky
        | InstallerSystem::Alma
        | InstallerSystem::CentosStream
        | InstallerSystem::Fedora => ["vmlinuz", "initrd.img"],
        InstallerSystem::Ubuntu => ["vmlinuz", "initrd"],
    }
}

/// What of an entry is served besides the whole of it: its name there, and where it lies.
pub(super) fn parts(entry: &ImageEntry) -> impl Iterator<Item = (&'static str, InstallerFile)> {
    let installer = entry.installer.iter();
    installer.flat_map(|installer| {
        let [kernel, initrd] = boot_names(installer.system);
        [(kernel, installer.kernel), (initrd, installer.initrd)]
    })
}

/// Digests under which an entry is served.
pub(super) fn digests(entry: &ImageEntry) -> impl Iterator<Item = Digest> {
    std::iter::once(entry.sha256).chain(parts(entry).map(|(_, part)| part.sha256))
}

/// Where the magic of a tar archive's header begins (POSIX.1-1988, `ustar`).
const MAGIC_AT: u64 = 257;
/// Debian's own folder, for the one architecture that we serve.
const FOLDER: &str = "debian-installer/amd64/";
/// Says which release it is, beside that folder.
const VERSION: &str = "version.info";
/// Members that are looked at.
const MOST: usize = 4096;
/// The text that names a release is a few lines.
const LONGEST_VERSION: u64 = 4096;

/// The installer in an archive or on a disc; `None` when the file is neither.
///
/// # Errors
/// When it is one that is not usable, with what is wrong.
pub(super) fn find(content: &Window<'_>) -> Result<Option<Installer>, DetectError> {
    let mut head = Vec::with_capacity(512);
    content.clone().take(512).read_to_end(&mut head)?;
    if is_tar(&head) {
        return read(content).map(Some);
    }
    if let Some(found) = disc::find(content)? {
        return Ok(Some(found));
    }
    if head.starts_with(&[0x1F, 0x8B]) && packed_tar(content) {
        return Err(DetectError::Unusable(
            "it is a packed archive: unpack an installer's netboot.tar.gz once (`gunzip netboot.tar.gz`) and add the .tar",
        ));
    }
    Ok(None)
}

fn is_tar(head: &[u8]) -> bool {
    let at = usize::try_from(MAGIC_AT).unwrap_or_default();
    head.get(at..).is_some_and(|magic| magic.starts_with(b"ustar"))
}

/// Whether what is packed with gzip is an archive. Only its first block is unpacked.
fn packed_tar(content: &Window<'_>) -> bool {
    let mut head = Vec::with_capacity(512);
    // What cannot be unpacked is no archive; whoever takes it for a disk image says so.
    let _ = flate2::read::GzDecoder::new(content.clone())
        .take(512)
        .read_to_end(&mut head);
    is_tar(&head)
}

fn read(content: &Window<'_>) -> Result<Installer, DetectError> {
    let odd = |_| DetectError::Unusable("it is a tar archive whose headers make no sense");
    let (mut kernel, mut initrd, mut release) = (None, None, None);
    let mut archive = tar::Archive::new(content.clone());
    for member in archive.entries_with_seek().map_err(odd)?.take(MOST) {
        let mut member = member.map_err(odd)?;
        if !member.header().entry_type().is_file() {
            continue;
        }
        let path = member.path().map_err(odd)?.to_string_lossy().into_owned();
        let place = || (member.raw_file_position(), member.size());
        match path.trim_start_matches("./") {
            path if path.strip_prefix(FOLDER) == Some("linux") => kernel = Some(place()),
            path if path.strip_prefix(FOLDER) == Some("initrd.gz") => initrd = Some(place()),
            VERSION => {
                let mut text = String::new();
                let _ = (&mut member).take(LONGEST_VERSION).read_to_string(&mut text);
                release = release_in(&text);
            }
            _ => {}
        }
    }
    let (Some(kernel), Some(initrd)) = (kernel, initrd) else {
        return Err(DetectError::Unusable(
            "it is a tar archive without debian-installer/amd64/linux and debian-installer/amd64/initrd.gz: of archives \
             only Debian's netboot.tar for amd64 is taken",
        ));
    };
    let release = release.ok_or(DetectError::Unusable(
        "its version.info names neither Debian 12 (bookworm) nor 13 (trixie), for which there are answers",
    ))?;
    Ok(Installer {
        system: InstallerSystem::Debian,
        release: release.to_owned(),
        kernel: part(content, kernel)?,
        initrd: part(content, initrd)?,
        disc: None,
    })
}

/// `Debian version:  12 (bookworm)`.
fn release_in(text: &str) -> Option<&'static str> {
    let line = text.lines().find(|line| line.starts_with("Debian version:"))?;
    ["bookworm", "trixie"]
        .into_iter()
        .find(|name| line.contains(&format!("({name})")))
}

/// A member with its digest.
pub(super) fn part(content: &Window<'_>, (offset, length): (u64, u64)) -> Result<InstallerFile, DetectError> {
    const CUT: DetectError = DetectError::CutOff("the archive ends within a member");
    if length == 0 || offset.checked_add(length).is_none_or(|end| end > content.bytes()) {
        return Err(CUT);
    }
    let mut file = content.clone();
    file.seek(SeekFrom::Start(offset))?;
    let (mut hash, mut buffer, mut left) = (Sha256::new(), vec![0; 256 << 10], length);
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        match file.read(buffer.get_mut(..most).unwrap_or_default()) {
            Ok(0) => return Err(CUT),
            Ok(count) => {
                hash.update(buffer.get(..count).unwrap_or_default());
                left = left.saturating_sub(count as u64);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(InstallerFile {
        sha256: Digest(hash.finish()),
        offset,
        bytes: length,
    })
}

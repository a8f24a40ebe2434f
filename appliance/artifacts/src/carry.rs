//! Images and programs as files of a saved state: what goes along, and how it gets to its place elsewhere.
//!
//! A carried file's name is its folder here and its name in it, such as `images/debian-12.image`. Content and records are
//! carried as they are; where they come from and go to, every name is looked at by [`is_carried`].

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Cursor, Read};
use std::path::Path;

use nix::sys::statfs::statfs;
use rackbar_model::Digest;
use rackbar_trust::sha256;

use crate::budget::RESERVE;
use crate::keep::{is_name, remove, sync_folder};

/// The folder of images, beside the store.
pub const IMAGES: &str = "images";

/// The folder of the users' programs, beside the store.
pub const PROGRAMS: &str = "programs";

/// A file on its way out, open: it can be read to its end also when it is removed meanwhile.
pub struct Carried {
    /// Folder and name.
    pub name: String,
    /// Size in bytes.
    pub bytes: u64,
    /// SHA-256 that its content must have.
    pub sha256: Digest,
    /// The content.
    pub content: Box<dyn Read + Send>,
}

impl Carried {
    /// A large content whose digest is known.
    pub(crate) fn content(folder: &str, path: &Path, bytes: u64, sha256: Digest) -> io::Result<Self> {
        Ok(Self {
            name: named(folder, path),
            bytes,
            sha256,
            content: Box::new(File::open(path)?),
        })
    }

    /// A record, as it is now; `None` when there is none.
    pub(crate) fn record(folder: &str, path: &Path) -> io::Result<Option<Self>> {
        let text = match std::fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read?,
        };
        Ok(Some(Self {
            name: named(folder, path),
            bytes: text.len() as u64,
            sha256: Digest(sha256(&text)),
            content: Box::new(Cursor::new(text)),
        }))
    }
}

fn named(folder: &str, path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    format!("{folder}/{name}")
}

/// True for a name that a carried file may have. `sha256` is the file's: a program's content is named by it.
pub fn is_carried(name: &str, sha256: &Digest) -> bool {
    let Some((folder, file)) = name.split_once('/') else {
        return false;
    };
    let Some((stem, ending)) = file.rsplit_once('.') else {
        return false;
    };
    let swapped = |stem: &str| {
        stem.split_once('@')
            .is_some_and(|(name, digest)| is_name(name) && digest.parse::<Digest>().is_ok() && is_lower(digest))
    };
    match (folder, ending) {
        (IMAGES, "image") => is_name(stem) || swapped(stem),
        (IMAGES, "held") => swapped(stem),
        (IMAGES, "json" | "standing" | "upkeep") | (PROGRAMS, "json") => is_name(stem),
        (PROGRAMS, "program") => stem == sha256.to_string(),
        _ => false,
    }
}

fn is_lower(text: &str) -> bool {
    !text.bytes().any(|byte| byte.is_ascii_uppercase())
}

/// Bytes that carried files may take in `folder`'s file system: its free space but what the journal and others need.
pub fn room(folder: &Path) -> u64 {
    let Ok(at) = statfs(folder) else { return 0 };
    let block = u64::try_from(at.block_size()).unwrap_or(0);
    at.blocks_available().saturating_mul(block).saturating_sub(RESERVE)
}

/// Moves what lies in `from` into `to`, two folders of one file system. What has the same name there loses it; the rest
/// stays. Done again after a power cut it goes on where it was. To be called while nobody has `to` open.
///
/// # Errors
/// When something cannot be read or moved; what was moved by then is in its place.
pub fn settle(from: &Path, to: &Path) -> io::Result<()> {
    let found = match std::fs::read_dir(from) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found?,
    };
    let names: Vec<_> = found.map(|entry| Ok(entry?.file_name())).collect::<io::Result<_>>()?;
    std::fs::create_dir_all(to)?;
    let is_record = |name: &&std::ffi::OsString| Path::new(name).extension().is_some_and(|ending| ending == "json");
    let known: HashSet<_> = names.iter().collect();
    // Records first, and with each goes what was said of another image of its name: as long as a record is still to be moved,
    // all that came with it is, too, so this also tells one from the other when it is done again.
    for record in names.iter().filter(is_record) {
        for ending in ["standing", "upkeep"] {
            let beside = Path::new(record).with_extension(ending);
            if !known.contains(&beside.as_os_str().to_owned()) {
                remove(&to.join(beside))?;
            }
        }
        std::fs::rename(from.join(record), to.join(record))?;
    }
    for name in names.iter().filter(|name| !is_record(name)) {
        std::fs::rename(from.join(name), to.join(name))?;
    }
    sync_folder(to)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_names_that_images_and_programs_have_are_carried() {
        let digest = Digest([0xab; 32]);
        let yes = |name: &str| is_carried(name, &digest);
        for name in [
            "images/debian-12.image",
            "images/debian-12.json",
            "images/debian-12.standing",
            "images/a.upkeep",
            "programs/tool.json",
        ] {
            assert!(yes(name), "{name}");
        }
        assert!(yes(&format!("programs/{digest}.program")));
        assert!(yes(&format!("images/debian-12@{digest}.image")));
        assert!(yes(&format!("images/debian-12@{digest}.held")));
        assert!(
            !yes(&format!("programs/{}.program", Digest([1; 32]))),
            "named by another content"
        );
        for name in [
            "rackbar.redb",
            "images/../rackbar.image",
            "images/a/b.json",
            "images/.json",
            "images/x.part",
            "images/x@y.image",
            "/images/x.json",
            "packs/x.json",
            "programs/x.image",
            "programs/..json",
            "images/X.json",
            "images/x\0.json",
            "",
        ] {
            assert!(!yes(name), "{name:?}");
        }
    }

    proptest! {
        #[test]
        fn a_carried_name_never_leaves_its_folder(name in "[a-z./@\\\\0-9A-F-]{0,90}|(images|programs)/.{0,20}") {
            if is_carried(&name, &Digest([7; 32])) {
                let path = Path::new(&name);
                let plain = path.components().all(|part| matches!(part, std::path::Component::Normal(_)));
                prop_assert!(plain && path.components().count() == 2, "{name:?}");
            }
        }
    }

    #[test]
    fn what_is_moved_takes_the_place_of_its_name_and_leaves_the_rest() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        settle(&from, &to).unwrap();
        assert!(!to.exists(), "nothing to move makes nothing");
        let put = |place: &Path, name: &str, text: &str| {
            std::fs::create_dir_all(place).unwrap();
            std::fs::write(place.join(name), text).unwrap();
        };
        let all = [
            (&to, "a.image", "old"),
            (&to, "a.json", "old"),
            (&to, "a.upkeep", "old"),
            (&to, "a.standing", "old"),
            (&to, "b.json", "other"),
            (&to, "b.upkeep", "other"),
            (&from, "a.image", "new"),
            (&from, "a.json", "new"),
            (&from, "a.standing", "new"),
        ];
        for (place, name, text) in all {
            put(place, name, text);
        }
        settle(&from, &to).unwrap();
        let text = |name: &str| std::fs::read_to_string(to.join(name)).ok();
        for name in ["a.image", "a.json", "a.standing"] {
            assert_eq!(text(name).as_deref(), Some("new"), "{name}");
        }
        assert_eq!(
            text("a.upkeep"),
            None,
            "where the old image was had from says nothing of the new one"
        );
        assert_eq!(
            (text("b.json").as_deref(), text("b.upkeep").as_deref()),
            (Some("other"), Some("other"))
        );
        assert_eq!(std::fs::read_dir(&from).unwrap().count(), 0);
    }
}

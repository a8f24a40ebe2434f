//! What goes along with the state: programs, images, data packs of our own, and what the proxy stored.

use std::fs::File;
use std::io::{self, Read, Seek as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rackbar_artifacts::Programs;
use rackbar_artifacts::carry::{self, Carried};
use rackbar_artifacts::images::Images;
use rackbar_control::operations::{ExportParts, ExportSizes, PackEntry, Refused};
use rackbar_model::Digest;
use rackbar_packs::check_name;
use rackbar_proxy::store::carry::{self as stored, Leaving, Left};
use rackbar_trust::Sha256;

use super::super::keep::Keep;
use super::super::packs::{self, Packs};
use super::super::refusals::{of_image, of_program};
use super::super::setup::STORE;
use super::{CACHE, PACKS};

/// Where all of it is asked for.
#[derive(Clone)]
pub(in crate::daemon) struct Along {
    pub(in crate::daemon) images: Option<Arc<Images>>,
    pub(in crate::daemon) programs: Option<Programs>,
    pub(in crate::daemon) packs: Packs,
}

/// Files on their way out. What holds the proxy's in their places is kept for as long as they are read.
pub(super) struct Files {
    pub(super) all: Vec<Carried>,
    pub(super) held: Leaving,
}

impl Along {
    /// Everything that is wanted, each with its digest: a data pack is read through for that.
    pub(super) fn files(&self, data: &Path, parts: ExportParts) -> Result<Files, Refused> {
        let mut all = self.programs()?;
        if parts.images {
            all.extend(self.images()?);
            for (name, path) in own_packs(&data.join(PACKS)) {
                let pack = pack(&name, &path);
                all.push(pack.map_err(|error| unread(&path, &error))?);
            }
        }
        let held =
            stored::leave(&data.join(CACHE), parts.cache).map_err(|error| Refused::Internal(error.to_string()))?;
        all.extend(held.files.iter().map(later));
        Ok(Files { all, held })
    }

    fn programs(&self) -> Result<Vec<Carried>, Refused> {
        let programs = self.programs.as_ref();
        programs.map_or(Ok(Vec::new()), |programs| {
            programs.carried().map_err(|error| of_program(&error))
        })
    }

    fn images(&self) -> Result<Vec<Carried>, Refused> {
        let images = self.images.as_ref();
        images.map_or(Ok(Vec::new()), |images| {
            images.carried().map_err(|error| of_image(&error))
        })
    }

    /// What an export would hold.
    pub(in crate::daemon) fn sizes(&self, keep: &Keep) -> Result<ExportSizes, Refused> {
        let of = |all: &[Carried], ending: &str| {
            let some = all.iter().filter(|file| file.name.ends_with(ending));
            some.fold((0u64, 0u64), |(count, sum), file| {
                (count + 1, sum.saturating_add(file.bytes))
            })
        };
        let (programs, program_bytes) = of(&self.programs()?, ".program");
        let (images, image_bytes) = of(&self.images()?, ".image");
        let packs = own_packs(&keep.folder.join(PACKS));
        let length = |(_, path): &(String, PathBuf)| path.metadata().map_or(0, |meta| meta.len());
        let stored = stored::stored(&keep.folder.join(CACHE));
        let (answers, answer_bytes) = stored.map_err(|error| Refused::Internal(error.to_string()))?;
        let elsewhere = |pack: &PackEntry| pack.in_use && !pack.removable;
        let mut packs_elsewhere: Vec<_> = self.packs.entries();
        packs_elsewhere.retain(elsewhere);
        Ok(ExportSizes {
            // One in memory has no file.
            store_bytes: std::fs::metadata(keep.folder.join(STORE)).map_or(0, |meta| meta.len()),
            programs,
            program_bytes,
            images,
            image_bytes,
            packs: packs.len() as u64,
            pack_bytes: packs.iter().map(length).fold(0, u64::saturating_add),
            packs_elsewhere: packs_elsewhere.into_iter().map(|pack| pack.name).collect(),
            answers,
            answer_bytes,
        })
    }
}

/// Data packs that were put in here, by the name that their file has in a saved state.
fn own_packs(folder: &Path) -> Vec<(String, PathBuf)> {
    let found = packs::in_folder(folder).into_iter();
    let named = |path: PathBuf| {
        let name = path.file_name()?.to_str()?.to_owned();
        is_pack(&name).then(|| (format!("{PACKS}/{name}"), path.clone()))
    };
    found.filter_map(named).collect()
}

/// True for the name of a file that a pack has which was put in here.
fn is_pack(file: &str) -> bool {
    file.strip_suffix(".pack").is_some_and(|stem| check_name(stem).is_ok())
}

/// True for a name that a file of a saved state may have.
pub(super) fn is_carried(name: &str, sha256: &Digest) -> bool {
    let pack = name.strip_prefix(PACKS).and_then(|rest| rest.strip_prefix('/'));
    carry::is_carried(name, sha256) || stored::is_carried(name, sha256) || pack.is_some_and(is_pack)
}

fn unread(path: &Path, error: &io::Error) -> Refused {
    Refused::Internal(format!("{} cannot be read: {error}", path.display()))
}

/// A pack, open, so that it can be read to its end also when it is removed meanwhile.
fn pack(name: &str, path: &Path) -> io::Result<Carried> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let (mut bytes, mut buffer) = (0u64, vec![0; super::PIECE]);
    loop {
        let count = match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        hash.update(buffer.get(..count).unwrap_or_default());
        bytes = bytes.saturating_add(count as u64);
    }
    file.rewind()?;
    Ok(Carried {
        name: name.to_owned(),
        bytes,
        sha256: Digest(hash.finish()),
        content: Box::new(file),
    })
}

/// A file that is opened when its turn comes: there are more of them than descriptors.
fn later(left: &Left) -> Carried {
    Carried {
        name: left.name.clone(),
        bytes: left.bytes,
        sha256: left.sha256,
        content: Box::new(Later {
            path: left.path.clone(),
            file: None,
        }),
    }
}

struct Later {
    path: PathBuf,
    file: Option<File>,
}

impl Read for Later {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match &mut self.file {
            Some(file) => file.read(into),
            none => none.insert(File::open(&self.path)?).read(into),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_packs_images_programs_and_answers_are_carried_and_no_others() {
        let digest = Digest([0xab; 32]);
        for name in ["packs/debian-12.pack", "images/a.json", "cache/pins.list"] {
            assert!(is_carried(name, &digest), "{name}");
        }
        for name in [
            "packs/../rackbar.pack",
            "packs/a/b.pack",
            "packs/.pack",
            "packs/a.1.part",
            "packs/A.pack",
            "packs/a.pack.json",
            "packsa.pack",
            "images/a.pack",
            "rackbar.redb",
        ] {
            assert!(!is_carried(name, &digest), "{name}");
        }
    }

    #[test]
    fn packs_are_those_that_lie_here_with_a_name_that_one_could_be_given() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b.pack", "a.pack", "a.3.part", "UPPER.PACK"] {
            std::fs::write(folder.path().join(name), name).unwrap();
        }
        let names: Vec<_> = own_packs(folder.path()).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["packs/a.pack", "packs/b.pack"]);
        let mut one = pack("packs/a.pack", &folder.path().join("a.pack")).unwrap();
        let mut text = String::new();
        one.content.read_to_string(&mut text).unwrap();
        assert_eq!((text.as_str(), one.bytes), ("a.pack", 6));
        assert_eq!(one.sha256, Digest(rackbar_trust::sha256(b"a.pack")));
    }
}

//! Boot files, known by their SHA-256 digest, the catalogue of operating-system images ([`images`]), and the store of
//! users' programs ([`programs`]); both travel with a saved state ([`carry`]). And what a downloaded release of our own is
//! held against ([`release`]).
//!
//! A file is opened once, hashed while it is read, and from then on served from its open descriptor (large files, by
//! sendfile) or from memory (small ones). A path is only ever given by the appliance itself: what a client on the network
//! asks for is looked up among digests and names, and never reaches a filesystem.

mod budget;
pub mod carry;
mod disc;
pub mod images;
mod keep;
pub mod programs;
pub mod release;

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use rackbar_boot::{KeySlotError, fill_key_slot, is_site_name};
use rackbar_model::Digest;
use rackbar_trust::{Sha256, sha256};

use disc::Disc;
pub use images::{ImageError, ImageMeta, Images, Upload};
pub use programs::{ProgramError, Programs};

/// Files up to this size are held in memory: every program a firmware fetches by TFTP, but no kernel or initrd.
pub const IN_MEMORY_LIMIT: u64 = 1 << 20;

/// Why a boot file could not be taken or is no longer what it was.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// Opening or reading failed.
    #[error("boot file {name}: cannot read {}: {source}", path.display())]
    Read {
        /// The name it was to have.
        name: String,
        /// Where it lies.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The content is not the one asked for.
    #[error(
        "boot file {name}: {} has SHA-256 {found}, expected {expected}; build or copy the image again",
        path.display()
    )]
    Digest {
        /// Its name.
        name: String,
        /// Where it lies.
        path: PathBuf,
        /// The digest it should have.
        expected: Digest,
        /// The digest it has.
        found: Digest,
    },
    /// The loader has no place for the site's key.
    #[error("boot file {name}: {} is not a loader we can bind to this site: {source}", path.display())]
    KeySlot {
        /// Its name.
        name: String,
        /// Where it lies.
        path: PathBuf,
        /// What is wrong with it.
        source: KeySlotError,
    },
    /// The name would not be a single path segment.
    #[error("boot file name {0:?}: use 1 to 128 characters of A-Z a-z 0-9 . _ - and no leading dot")]
    Name(String),
}

/// Where the bytes are.
#[derive(Debug)]
pub enum Content {
    /// Held in memory.
    Memory(Arc<[u8]>),
    /// Read from this descriptor, which stays open: the file may be renamed or removed, its content stays reachable.
    File {
        /// The file.
        file: Arc<File>,
        /// Where in it the content begins: more than zero in a data pack.
        offset: u64,
    },
}

/// One boot file.
#[derive(Debug)]
pub struct Artifact {
    name: String,
    digest: Digest,
    etag: String,
    size: u64,
    modified: SystemTime,
    path: Option<PathBuf>,
    content: Content,
}

impl Artifact {
    /// A file whose digest and size are known already, served from `file`.
    fn of_file(name: String, digest: Digest, size: u64, path: PathBuf, file: File) -> io::Result<Self> {
        Self::of_part(name, digest, size, path, Arc::new(file), 0)
    }

    /// As [`Self::of_file`], a part of the file that begins at `offset`.
    fn of_part(
        name: String,
        digest: Digest,
        size: u64,
        path: PathBuf,
        file: Arc<File>,
        offset: u64,
    ) -> io::Result<Self> {
        let modified = file.metadata()?.modified().unwrap_or_else(|_| SystemTime::now());
        Ok(Self {
            name,
            digest,
            etag: format!("\"{digest}\""),
            size,
            modified,
            path: Some(path),
            content: Content::File { file, offset },
        })
    }

    /// The name it was added under.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// SHA-256 of the whole content; of a file on a disc that of the disc.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// A strong entity tag with its quotes (RFC 9110 section 8.8.3): the digest.
    pub fn etag(&self) -> &str {
        &self.etag
    }

    /// Size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// When the file was last written, or when the content was made.
    pub fn modified(&self) -> SystemTime {
        self.modified
    }

    /// Where the bytes are.
    pub fn content(&self) -> &Content {
        &self.content
    }

    /// Fills `buffer` from `offset` and returns how many bytes that was: fewer than asked only at the end.
    ///
    /// # Errors
    /// When the file cannot be read, which for a file in RAM or on a healthy disk does not happen.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        match &self.content {
            Content::Memory(bytes) => {
                let from = usize::try_from(offset).unwrap_or(usize::MAX);
                let rest = bytes.get(from..).unwrap_or_default();
                let count = rest.len().min(buffer.len());
                buffer[..count].copy_from_slice(&rest[..count]);
                Ok(count)
            }
            Content::File { file, offset: begin } => {
                let mut done = 0;
                // What lies behind it in a pack is not its own.
                let most = usize::try_from(self.size.saturating_sub(offset)).unwrap_or(usize::MAX);
                let wanted = most.min(buffer.len());
                while done < wanted {
                    let at = begin.saturating_add(offset).saturating_add(done as u64);
                    match file.read_at(&mut buffer[done..wanted], at) {
                        Ok(0) => break,
                        Ok(count) => done += count,
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                        Err(error) => return Err(error),
                    }
                }
                Ok(done)
            }
        }
    }

    /// Hashes the content again.
    ///
    /// # Errors
    /// When it cannot be read or is no longer what was taken in: somebody wrote into the file in place.
    pub fn verify(&self) -> Result<(), ArtifactError> {
        let path = || self.path.clone().unwrap_or_default();
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 256 << 10];
        let mut offset = 0;
        loop {
            let count = self
                .read_at(offset, &mut buffer)
                .map_err(|source| ArtifactError::Read {
                    name: self.name.clone(),
                    path: path(),
                    source,
                })?;
            if count == 0 {
                break;
            }
            hash.update(&buffer[..count]);
            offset += count as u64;
        }
        let found = Digest(hash.finish());
        if found == self.digest {
            Ok(())
        } else {
            Err(ArtifactError::Digest {
                name: self.name.clone(),
                path: path(),
                expected: self.digest,
                found,
            })
        }
    }
}

#[derive(Default)]
struct Maps {
    by_digest: HashMap<Digest, Arc<Artifact>>,
    by_name: HashMap<String, Arc<Artifact>>,
    /// The site's own, apart from ours: no name of theirs can hide one of ours.
    of_site: HashMap<String, Arc<Artifact>>,
    /// Discs by the digest of the whole.
    discs: HashMap<Digest, Arc<Disc>>,
}

/// All boot files of the appliance. Shared between the services; files can be added while they run.
#[derive(Default)]
pub struct Artifacts {
    maps: RwLock<Maps>,
}

impl Artifacts {
    /// No files.
    pub fn new() -> Self {
        Self::default()
    }

    /// Opens and hashes the file at `path` and serves it as `name`. A file of that name added before is replaced for
    /// [`Self::by_name`] and stays reachable by its digest, so that a transfer under way can finish.
    ///
    /// # Errors
    /// When the name is no plain file name or the file cannot be read.
    pub fn add_file(&self, name: &str, path: &Path) -> Result<Arc<Artifact>, ArtifactError> {
        Ok(self.insert(load_named(name, path)?))
    }

    /// Like [`Self::add_file`], and refuses a file whose digest is not `expected`.
    ///
    /// # Errors
    /// As [`Self::add_file`], and when the digest differs.
    pub fn add_verified(&self, name: &str, path: &Path, expected: Digest) -> Result<Arc<Artifact>, ArtifactError> {
        let artifact = load_named(name, path)?;
        if artifact.digest != expected {
            return Err(ArtifactError::Digest {
                name: name.to_owned(),
                path: path.to_owned(),
                expected,
                found: artifact.digest,
            });
        }
        Ok(self.insert(artifact))
    }

    /// Serves `content` as `name`.
    ///
    /// # Errors
    /// When the name is no plain file name.
    pub fn add_bytes(&self, name: &str, content: impl Into<Arc<[u8]>>) -> Result<Arc<Artifact>, ArtifactError> {
        check_name(name)?;
        Ok(self.insert(in_memory(name, content.into(), SystemTime::now(), None)))
    }

    /// Reads our UEFI loader from `path`, writes `key` (this site's Ed25519 public key) into its key slot, and serves
    /// the result, which exists only in memory, as `name`.
    ///
    /// # Errors
    /// When the file cannot be read or is not our loader.
    pub fn add_loader(&self, name: &str, path: &Path, key: &[u8; 32]) -> Result<Arc<Artifact>, ArtifactError> {
        check_name(name)?;
        let mut image = std::fs::read(path).map_err(|source| ArtifactError::Read {
            name: name.to_owned(),
            path: path.to_owned(),
            source,
        })?;
        fill_key_slot(&mut image, key).map_err(|source| ArtifactError::KeySlot {
            name: name.to_owned(),
            path: path.to_owned(),
            source,
        })?;
        Ok(self.insert(in_memory(name, image.into(), SystemTime::now(), Some(path.to_owned()))))
    }

    /// The file with this content.
    pub fn get(&self, digest: &Digest) -> Option<Arc<Artifact>> {
        let maps = self.maps.read().unwrap_or_else(PoisonError::into_inner);
        maps.by_digest.get(digest).cloned()
    }

    /// The file last added under this name.
    pub fn by_name(&self, name: &str) -> Option<Arc<Artifact>> {
        let maps = self.maps.read().unwrap_or_else(PoisonError::into_inner);
        maps.by_name.get(name).cloned()
    }

    /// Replaces the site's own boot files: name and content. They are found by [`Self::site_file`] alone. A transfer
    /// under way holds the content that it began with.
    ///
    /// # Errors
    /// When a name is not one of [`is_site_name`]; nothing is changed then.
    pub fn set_site_files<'n>(
        &self,
        files: impl IntoIterator<Item = (&'n str, Arc<[u8]>)>,
    ) -> Result<(), ArtifactError> {
        let mut of_site = HashMap::new();
        for (name, content) in files {
            if !is_site_name(name) {
                return Err(ArtifactError::Name(name.to_owned()));
            }
            let new = in_memory(name, content, SystemTime::now(), None);
            // What is as it was keeps its date, by which clients ask whether it changed.
            let old = self.site_file(name).filter(|old| old.digest == new.digest);
            of_site.insert(name.to_owned(), old.unwrap_or_else(|| Arc::new(new)));
        }
        let mut maps = self.maps.write().unwrap_or_else(PoisonError::into_inner);
        maps.of_site = of_site;
        Ok(())
    }

    /// A boot file of the site's own.
    pub fn site_file(&self, name: &str) -> Option<Arc<Artifact>> {
        let maps = self.maps.read().unwrap_or_else(PoisonError::into_inner);
        maps.of_site.get(name).cloned()
    }

    /// All files reachable by name, sorted by name.
    pub fn list(&self) -> Vec<Arc<Artifact>> {
        let maps = self.maps.read().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = maps.by_name.values().cloned().collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// Makes a file reachable by its digest only: names are for boot files.
    fn serve(&self, artifact: Artifact) {
        let mut maps = self.maps.write().unwrap_or_else(PoisonError::into_inner);
        maps.by_digest.insert(artifact.digest, Arc::new(artifact));
    }

    /// Makes the files of a disc reachable by its digest and their paths.
    fn serve_disc(&self, disc: Disc) {
        let mut maps = self.maps.write().unwrap_or_else(PoisonError::into_inner);
        maps.discs.insert(disc.digest(), Arc::new(disc));
    }

    /// The file at `path` of the disc with this digest, served from where it lies there. The path is looked up among those
    /// that the disc itself has. Of such a file no digest is known: [`Artifact::digest`] is the disc's.
    pub fn on_disc(&self, disc: &Digest, path: &str) -> Option<Arc<Artifact>> {
        let maps = self.maps.read().unwrap_or_else(PoisonError::into_inner);
        let disc = maps.discs.get(disc).cloned()?;
        drop(maps);
        disc.file(path).map(Arc::new)
    }

    /// Takes back what [`Self::serve`] and [`Self::serve_disc`] did. A transfer under way holds the file and finishes.
    fn withdraw(&self, digest: &Digest) {
        let mut maps = self.maps.write().unwrap_or_else(PoisonError::into_inner);
        maps.by_digest.remove(digest);
        maps.discs.remove(digest);
    }

    fn insert(&self, artifact: Artifact) -> Arc<Artifact> {
        let artifact = Arc::new(artifact);
        let mut maps = self.maps.write().unwrap_or_else(PoisonError::into_inner);
        maps.by_digest.insert(artifact.digest, Arc::clone(&artifact));
        maps.by_name.insert(artifact.name.clone(), Arc::clone(&artifact));
        artifact
    }
}

fn check_name(name: &str) -> Result<(), ArtifactError> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    if (1..=128).contains(&name.len()) && !name.starts_with('.') && name.bytes().all(plain) {
        Ok(())
    } else {
        Err(ArtifactError::Name(name.to_owned()))
    }
}

fn load_named(name: &str, path: &Path) -> Result<Artifact, ArtifactError> {
    check_name(name)?;
    load(name, path).map_err(|source| ArtifactError::Read {
        name: name.to_owned(),
        path: path.to_owned(),
        source,
    })
}

fn load(name: &str, path: &Path) -> io::Result<Artifact> {
    let mut file = File::open(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let modified = meta.modified().unwrap_or_else(|_| SystemTime::now());
    if meta.len() <= IN_MEMORY_LIMIT {
        let mut content = Vec::with_capacity(usize::try_from(meta.len()).unwrap_or(0));
        file.read_to_end(&mut content)?;
        return Ok(in_memory(name, content.into(), modified, Some(path.to_owned())));
    }
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 256 << 10];
    let mut size = 0;
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => {
                hash.update(&buffer[..count]);
                size += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Artifact::of_file(name.to_owned(), Digest(hash.finish()), size, path.to_owned(), file)
}

fn in_memory(name: &str, content: Arc<[u8]>, modified: SystemTime, path: Option<PathBuf>) -> Artifact {
    let digest = Digest(sha256(&content));
    Artifact {
        name: name.to_owned(),
        digest,
        etag: format!("\"{digest}\""),
        size: content.len() as u64,
        modified,
        path,
        content: Content::Memory(content),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Seek, Write};

    fn file(content: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(content).unwrap();
        file
    }

    #[test]
    fn finds_by_digest_and_by_name() {
        let artifacts = Artifacts::new();
        let added = artifacts.add_file("vmlinuz", file(b"abc").path()).unwrap();
        // FIPS 180-4's example for "abc".
        let digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(added.digest().to_string(), digest);
        assert_eq!(added.etag(), format!("\"{digest}\""));
        assert_eq!(artifacts.get(&digest.parse().unwrap()).unwrap().name(), "vmlinuz");
        assert_eq!(artifacts.by_name("vmlinuz").unwrap().size(), 3);
        assert!(artifacts.by_name("../vmlinuz").is_none());
    }

    #[test]
    fn files_of_the_site_have_names_of_their_own() {
        let artifacts = Artifacts::new();
        artifacts.add_bytes("vmlinuz", &b"ours"[..]).unwrap();
        let set = |files: &[(&'static str, &'static [u8])]| {
            artifacts.set_site_files(files.iter().map(|(name, content)| (*name, Arc::from(*content))))
        };
        set(&[("vmlinuz", b"theirs"), ("grub/grub.cfg", b"set")]).unwrap();
        let content = |name: &str| artifacts.site_file(name).map(|file| file.digest());
        assert_eq!(content("vmlinuz"), Some(Digest(sha256(b"theirs"))));
        assert_eq!(artifacts.by_name("vmlinuz").unwrap().digest(), Digest(sha256(b"ours")));
        assert!(artifacts.by_name("grub/grub.cfg").is_none());
        let before = artifacts.site_file("grub/grub.cfg").unwrap();
        assert!(set(&[("../x", b"")]).is_err());
        set(&[("grub/grub.cfg", b"set")]).unwrap();
        assert!(Arc::ptr_eq(&before, &artifacts.site_file("grub/grub.cfg").unwrap()));
        assert_eq!(content("vmlinuz"), None, "the whole list is replaced");
    }

    #[test]
    fn large_files_stay_on_disk_and_outlive_their_name() {
        let content: Vec<u8> = (0..IN_MEMORY_LIMIT as usize + 10).map(|i| (i * 7) as u8).collect();
        let artifacts = Artifacts::new();
        let on_disk = file(&content);
        let added = artifacts.add_file("base.cpio.zst", on_disk.path()).unwrap();
        drop(on_disk);
        assert!(matches!(added.content(), Content::File { .. }));
        let mut tail = [0; 64];
        assert_eq!(added.read_at(content.len() as u64 - 5, &mut tail).unwrap(), 5);
        assert_eq!(tail[..5], content[content.len() - 5..]);
        assert_eq!(added.read_at(u64::MAX - 3, &mut tail).unwrap_or(0), 0);
        added.verify().unwrap();
    }

    #[test]
    fn notices_a_file_that_changed_in_place() {
        let mut on_disk = file(&vec![1; IN_MEMORY_LIMIT as usize + 1]);
        let artifacts = Artifacts::new();
        let added = artifacts.add_file("vmlinuz", on_disk.path()).unwrap();
        on_disk.rewind().unwrap();
        on_disk.write_all(b"other").unwrap();
        let error = added.verify().unwrap_err().to_string();
        assert!(error.contains("expected"), "{error}");
    }

    #[test]
    fn refuses_another_digest_and_other_names() {
        let artifacts = Artifacts::new();
        let on_disk = file(b"abc");
        assert!(matches!(
            artifacts.add_verified("a", on_disk.path(), Digest([0; 32])),
            Err(ArtifactError::Digest { .. })
        ));
        for bad in ["", ".", "..", "../a", "a/b", ".hidden", "a b", "\0", &"x".repeat(129)] {
            assert!(
                matches!(artifacts.add_file(bad, on_disk.path()), Err(ArtifactError::Name(_))),
                "{bad}"
            );
        }
        assert!(artifacts.list().is_empty());
    }

    #[test]
    fn says_which_file_is_missing() {
        let error = Artifacts::new()
            .add_file("loader.efi", Path::new("/nonexistent/loader.efi"))
            .unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("loader.efi: cannot read /nonexistent/loader.efi"),
            "{text}"
        );
    }

    #[test]
    fn a_replaced_file_stays_reachable_by_digest() {
        let artifacts = Artifacts::new();
        let old = artifacts.add_bytes("loader.efi", &b"old"[..]).unwrap();
        let new = artifacts.add_bytes("loader.efi", &b"new"[..]).unwrap();
        assert_eq!(artifacts.by_name("loader.efi").unwrap().digest(), new.digest());
        assert!(artifacts.get(&old.digest()).is_some());
        assert_eq!(artifacts.list().len(), 1);
    }
}

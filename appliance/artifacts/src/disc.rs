//! Discs whose files are served one by one: an index of paths, made from the disc when it is opened, and the open file.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rackbar_boot_media::tree::Tree;
use rackbar_model::Digest;

use crate::images::Window;
use crate::{Artifact, Content};

/// A disc that is served.
pub(crate) struct Disc {
    digest: Digest,
    tree: Tree,
    file: Arc<File>,
    /// Where in the file the disc begins.
    begin: u64,
    path: PathBuf,
    modified: SystemTime,
}

impl Disc {
    /// Reads the index of a disc of so many bytes that begins at `begin` of `file`.
    pub(crate) fn open(digest: Digest, bytes: u64, path: &Path, file: Arc<File>, begin: u64) -> io::Result<Self> {
        let tree = Tree::read(&Window::of(&file, begin, bytes), bytes).map_err(io::Error::other)?;
        let modified = file.metadata()?.modified().unwrap_or_else(|_| SystemTime::now());
        Ok(Self {
            digest,
            tree,
            file,
            begin,
            path: path.to_owned(),
            modified,
        })
    }

    pub(crate) const fn digest(&self) -> Digest {
        self.digest
    }

    pub(crate) fn file(&self, path: &str) -> Option<Artifact> {
        let place = self.tree.get(path)?;
        Some(Artifact {
            name: path.rsplit('/').next().unwrap_or(path).to_owned(),
            digest: self.digest,
            // Where it lies on a disc of this digest says what it is.
            etag: format!("\"{}-{}-{}\"", self.digest, place.offset, place.bytes),
            size: place.bytes,
            modified: self.modified,
            path: Some(self.path.clone()),
            content: Content::File {
                file: Arc::clone(&self.file),
                offset: self.begin.saturating_add(place.offset),
            },
        })
    }
}

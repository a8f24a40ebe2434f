//! The files of a commit, folder by folder.

use crate::object::{FOLDER, LINK, OTHER, entries, tree_of};
use crate::pack::Pack;
use crate::{GitError, Id};

/// Files and folders of a commit: a few folders that name each other can stand for more than any disk has.
const MOST: u64 = 500_000;
/// Folders within each other.
const DEEP: usize = 100;
/// Bytes of a path.
const LONG: usize = 4096;

/// A file of a commit.
pub enum TreeFile {
    /// A folder.
    Folder,
    /// A file, and whether it can be run.
    File(Vec<u8>, bool),
    /// A symbolic link, and where it leads.
    Link(Vec<u8>),
}

/// Takes a file with its path.
type Take<'a> = dyn FnMut(&[u8], TreeFile) -> Result<(), GitError> + 'a;

/// Why a walk ends.
enum Ended {
    Torn(&'static str),
    Because(GitError),
}

impl From<&'static str> for Ended {
    fn from(why: &'static str) -> Self {
        Self::Torn(why)
    }
}

impl Pack<'_> {
    /// Gives every file, link and folder of a commit, folders before what is in them, in Git's order; commits of other
    /// repositories (submodules) are passed over. `most`: bytes of all files together.
    ///
    /// # Errors
    /// When it has too many of them, or `found` says so.
    pub fn files(&self, commit: Id, most: u64, found: &mut Take<'_>) -> Result<(), GitError> {
        let why = "a commit without a tree";
        let tree = tree_of(&self.data(self.object(commit)?)?).ok_or(GitError::Object { id: commit, why })?;
        let mut walk = Walk {
            pack: self,
            most,
            left: most,
            count: 0,
            found,
        };
        walk.folder(tree, &mut Vec::new(), 0)
    }
}

struct Walk<'a> {
    pack: &'a Pack<'a>,
    most: u64,
    left: u64,
    count: u64,
    found: &'a mut Take<'a>,
}

impl Walk<'_> {
    fn folder(&mut self, id: Id, path: &mut Vec<u8>, depth: usize) -> Result<(), GitError> {
        if depth > DEEP {
            let (what, most) = ("folders within each other", DEEP as u64);
            return Err(GitError::Large { what, most });
        }
        let data = self.pack.data(self.pack.object(id)?)?;
        let read = entries(&data, &mut |entry| {
            let before = path.len();
            if before > 0 {
                path.push(b'/');
            }
            path.extend_from_slice(entry.name);
            let done = self.entry(entry.mode, entry.id, path, depth);
            path.truncate(before);
            done.map_err(Ended::Because)
        });
        read.map_err(|ended| match ended {
            Ended::Torn(why) => GitError::Object { id, why },
            Ended::Because(error) => error,
        })
    }

    fn entry(&mut self, mode: u32, id: Id, path: &mut Vec<u8>, depth: usize) -> Result<(), GitError> {
        self.count = self.count.saturating_add(1);
        let large = |what, most| Err(GitError::Large { what, most });
        if self.count > MOST {
            return large("files", MOST);
        }
        if path.len() > LONG {
            return large("bytes in a path", LONG as u64);
        }
        if mode == OTHER {
            return Ok(());
        }
        if mode == FOLDER {
            (self.found)(path, TreeFile::Folder)?;
            return self.folder(id, path, depth.saturating_add(1));
        }
        let data = self.pack.data(self.pack.object(id)?)?;
        let Some(left) = self.left.checked_sub(data.len() as u64) else {
            return large("bytes in files", self.most);
        };
        self.left = left;
        let file = match mode {
            LINK => TreeFile::Link(data),
            _ => TreeFile::File(data, mode & 0o100 != 0),
        };
        (self.found)(path, file)
    }
}

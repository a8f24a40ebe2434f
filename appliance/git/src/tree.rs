//! The files of a commit, folder by folder.

use crate::object::{FOLDER, LINK, OTHER, entries};
use crate::pack::{Limits, Pack};
use crate::unpack::{Base, Inflater, apply, head};
use crate::{GitError, Id};

/// What the unpacking of an object costs beside its bytes.
const EACH: u64 = 4096;
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
        let mut walk = Walk {
            unpacker: Unpacker::new(self),
            most,
            left: most,
            count: 0,
            held: 0,
            found,
        };
        walk.folder(self.history.tree(commit)?, &mut Vec::new(), 0)
    }
}

struct Walk<'a> {
    unpacker: Unpacker<'a>,
    most: u64,
    left: u64,
    count: u64,
    /// Bytes of the folders that the walk is in.
    held: u64,
    found: &'a mut Take<'a>,
}

impl Walk<'_> {
    fn folder(&mut self, id: Id, path: &mut Vec<u8>, depth: usize) -> Result<(), GitError> {
        if depth > DEEP {
            let (what, most) = ("folders within each other", DEEP as u64);
            return Err(GitError::Large { what, most });
        }
        let data = self.unpacker.data(id)?;
        let (bytes, most) = (data.len() as u64, self.unpacker.limits().held);
        self.held = self.held.saturating_add(bytes);
        if self.held > most {
            let what = "bytes in folders within each other";
            return Err(GitError::Large { what, most });
        }
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
        self.held = self.held.saturating_sub(bytes);
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
        let data = self.unpacker.data(id)?;
        let Some(left) = self.left.checked_sub(data.len() as u64) else {
            return large("bytes in files", self.most);
        };
        self.left = left;
        let file = match mode {
            // No system can make another, and in an archive it would lead somewhere else.
            LINK if data.is_empty() || data.contains(&0) || data.len() >= LONG => {
                let why = "a symbolic link that leads nowhere";
                return Err(GitError::Object { id, why });
            }
            LINK => TreeFile::Link(data),
            _ => TreeFile::File(data, mode & 0o100 != 0),
        };
        (self.found)(path, file)
    }
}

/// Unpacks objects of a proven pack, each with all that it is a delta to, and no more than [`Limits::work`] in all.
struct Unpacker<'a> {
    pack: &'a Pack<'a>,
    inflater: Inflater,
    delta: Vec<u8>,
    left: u64,
}

impl<'a> Unpacker<'a> {
    fn new(pack: &'a Pack<'a>) -> Self {
        Self {
            pack,
            inflater: Inflater::new(),
            delta: Vec::new(),
            left: pack.limits.work,
        }
    }

    fn limits(&self) -> Limits {
        self.pack.limits
    }

    /// The content of an object.
    fn data(&mut self, id: Id) -> Result<Vec<u8>, GitError> {
        let (mut chain, mut at) = (Vec::new(), self.pack.object(id)?.at);
        let mut data = Vec::new();
        let own = loop {
            let here = usize::try_from(at).unwrap_or(usize::MAX);
            let head = head(self.pack.bytes, here)?;
            at = match head.base {
                Base::None(_) => break head,
                Base::At(base) => base,
                Base::Of(id) => self.pack.object(id)?.at,
            };
            chain.push(head);
        };
        self.costs(id, own.size)?;
        self.inflater.inflate(self.pack.bytes, own.data, own.size, &mut data)?;
        for head in chain.into_iter().rev() {
            self.costs(id, head.size)?;
            self.inflater
                .inflate(self.pack.bytes, head.data, head.size, &mut self.delta)?;
            let made = apply(&data, &self.delta, self.pack.limits.object);
            data = made.map_err(|why| GitError::Pack {
                at: head.data as u64,
                why,
            })?;
            self.costs(id, data.len() as u64)?;
        }
        Ok(data)
    }

    fn costs(&mut self, id: Id, bytes: u64) -> Result<(), GitError> {
        let most = self.pack.limits.work;
        let left = self.left.checked_sub(bytes.saturating_add(EACH));
        self.left = left.ok_or(GitError::Work { id, most })?;
        Ok(())
    }
}

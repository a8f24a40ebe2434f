//! The files of a commit as a tar archive, for machines that have no git.

use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use rackbar_git::{GitError, Id, Pack, TreeFile};
use tar::{Builder, EntryType, Header};

/// Its path below the URL.
pub(super) const ARCHIVE: &str = "tree.tar.gz";
/// Bytes of all files of a commit.
const MOST_FILES: u64 = 512 << 20;

/// Takes so many bytes and no more.
struct Room {
    bytes: Vec<u8>,
    most: usize,
}

impl Write for Room {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if self.bytes.len().saturating_add(data.len()) > self.most {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.bytes.extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Packs all files of a commit, the same bytes each time; `None` when they have more than `most` bytes packed, or are more than an
/// archive is made of. Commits of other repositories are not in it.
///
/// # Errors
/// When the commit makes no sense.
pub(super) fn archive(pack: &Pack<'_>, commit: Id, date: u64, most: u64) -> Result<Option<Vec<u8>>, GitError> {
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let room = Room {
        bytes: Vec::new(),
        most,
    };
    let mut tar = Builder::new(GzEncoder::new(room, Compression::fast()));
    let mut failed = false;
    let walked = pack.files(commit, MOST_FILES, &mut |path, file| {
        let done = entry(&mut tar, Path::new(OsStr::from_bytes(path)), date, file);
        done.map_err(|_| {
            failed = true;
            GitError::Answer("files that no archive has room for")
        })
    });
    match walked {
        Ok(()) => {}
        Err(_) if failed => return Ok(None),
        Err(GitError::Large { .. }) => return Ok(None),
        Err(error) => return Err(error),
    }
    Ok(tar.into_inner().and_then(GzEncoder::finish).ok().map(|room| room.bytes))
}

fn entry(tar: &mut Builder<GzEncoder<Room>>, path: &Path, date: u64, file: TreeFile) -> io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_mtime(date);
    let mut mode = |mode, kind, bytes: &[u8]| {
        header.set_mode(mode);
        header.set_entry_type(kind);
        header.set_size(bytes.len() as u64);
    };
    match file {
        TreeFile::Folder => {
            mode(0o755, EntryType::Directory, &[]);
            tar.append_data(&mut header, path, io::empty())
        }
        TreeFile::File(bytes, run) => {
            mode(if run { 0o755 } else { 0o644 }, EntryType::Regular, &bytes);
            tar.append_data(&mut header, path, bytes.as_slice())
        }
        TreeFile::Link(to) => {
            mode(0o777, EntryType::Symlink, &[]);
            tar.append_link(&mut header, path, Path::new(OsStr::from_bytes(&to)))
        }
    }
}

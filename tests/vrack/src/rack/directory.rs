//! The folder a rack lives in: sockets, logs, disks, captures.

use std::io;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// A unix socket's path has 108 bytes with its closing zero (unix(7)); the longest name put behind the folder's is a
/// node's with `.tpm.sock`.
const LONGEST: usize = 107 - 32;

/// A run directory; removed with everything in it when dropped, unless it is to be kept.
#[derive(Debug)]
pub struct RunDirectory {
    directory: Option<TempDir>,
    path: PathBuf,
}

impl RunDirectory {
    /// Makes a folder for a rack in `parent`, or in the system's folder for temporary files.
    ///
    /// # Errors
    /// When it cannot be made, or its path is too long for sockets in it.
    pub fn create(rack: &str, parent: Option<&Path>, keep: bool) -> io::Result<Self> {
        let prefix = format!("rackbar-{rack}-");
        let mut builder = tempfile::Builder::new();
        builder.prefix(&prefix).rand_bytes(5);
        let made = match parent {
            Some(parent) => builder.tempdir_in(parent)?,
            None => builder.tempdir()?,
        };
        let length = made.path().as_os_str().len();
        if length > LONGEST {
            return Err(io::Error::other(format!(
                "{} is too long a path for sockets ({length} bytes, {LONGEST} possible): set TMPDIR to a shorter one",
                made.path().display()
            )));
        }
        let path = made.path().to_path_buf();
        let directory = if keep {
            // Disowned: it stays.
            let _ = made.keep();
            None
        } else {
            Some(made)
        };
        Ok(Self { directory, path })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// True when it will stay.
    pub fn kept(&self) -> bool {
        self.directory.is_none()
    }
}

//! The file tree of the installed system, written so that no path and no link in it leads out: every lookup is done by
//! the kernel with the system's root as `/` (openat2, RESOLVE_IN_ROOT).

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat2, renameat};
use nix::sys::stat::{Mode, SFlag, fchmod, fstatat, mkdirat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, symlinkat, unlinkat};

use crate::Result;
use crate::control::{fault, io, refuse};

/// Longest file that is read; /etc/passwd of a large site is below it.
const READ_LIMIT: u64 = 4 << 20;

/// Links in the middle of a path that are followed by the kernel at most; our own loop only makes folders.
const DEPTH: usize = 32;

/// The root of an installed system.
pub(crate) struct Tree {
    root: OwnedFd,
    written: Vec<String>,
}

/// Whose a file is and what may be done with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Rights {
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl Rights {
    /// Of root, with these permission bits.
    pub(crate) const fn root(mode: u32) -> Self {
        Self { mode, uid: 0, gid: 0 }
    }
}

/// The parts of an absolute path: none empty, `.` or `..`.
fn parts(path: &str) -> Result<Vec<&str>> {
    let wrong = || {
        refuse(
            format!("{path:?} is no absolute path of a file"),
            "correct the path in the role's files",
        )
    };
    let inner = path.strip_prefix('/').ok_or_else(wrong)?;
    let parts: Vec<&str> = inner.split('/').filter(|part| !part.is_empty()).collect();
    let bad = |part: &&str| *part == "." || *part == ".." || part.contains('\0') || part.len() > 255;
    if parts.is_empty() || parts.len() > DEPTH || path.ends_with('/') || parts.iter().any(bad) {
        return Err(wrong());
    }
    Ok(parts)
}

impl Tree {
    /// The tree below a mounted file system.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let root = File::open(path).map_err(io(path.display()))?;
        Ok(Self {
            root: root.into(),
            written: Vec::new(),
        })
    }

    /// The paths that were written.
    pub(crate) fn written(&self) -> &[String] {
        &self.written
    }

    fn lookup(&self, path: &str, flags: OFlag) -> std::result::Result<OwnedFd, Errno> {
        let how = OpenHow::new()
            .flags(flags | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        openat2(self.root.as_fd(), path, how)
    }

    /// True when there is something at `path`, links followed within the tree.
    pub(crate) fn exists(&self, path: &str) -> bool {
        self.lookup(path, OFlag::O_PATH).is_ok()
    }

    /// The text of a file.
    pub(crate) fn read(&self, path: &str) -> Option<String> {
        let file = File::from(self.lookup(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK).ok()?);
        let mut text = Vec::new();
        file.take(READ_LIMIT).read_to_end(&mut text).ok()?;
        Some(String::from_utf8_lossy(&text).into_owned())
    }

    /// The names in a folder, sorted.
    pub(crate) fn names(&self, path: &str) -> Vec<String> {
        let Ok(folder) = self.lookup(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY) else {
            return Vec::new();
        };
        // The open folder by its number: the path again might lead elsewhere by now.
        let Ok(entries) = std::fs::read_dir(format!("/proc/self/fd/{}", folder.as_raw_fd())) else {
            return Vec::new();
        };
        let names = entries.flatten().map(|entry| entry.file_name());
        let mut names: Vec<String> = names.filter_map(|name| name.into_string().ok()).collect();
        names.sort();
        names
    }

    /// Opens a file of the tree for reading.
    pub(crate) fn file(&self, path: &str) -> Option<File> {
        self.lookup(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK)
            .ok()
            .map(File::from)
    }

    /// The folder that `path` lies in, made with what is missing on the way, and the last part of the path.
    fn parent<'p>(&self, path: &'p str, rights: Rights) -> Result<(OwnedFd, &'p str)> {
        let all = parts(path)?;
        let (name, folders) = all.split_last().ok_or_else(|| refuse("an empty path", ""))?;
        let flags = OFlag::O_DIRECTORY | OFlag::O_RDONLY;
        let mut so_far = String::from(".");
        let mut folder = self.lookup(".", flags).map_err(io("/"))?;
        for part in folders {
            so_far.push('/');
            so_far.push_str(part);
            folder = match self.lookup(&so_far, flags) {
                Err(Errno::ENOENT) => {
                    mkdirat(&folder, *part, Mode::from_bits_truncate(0o755))
                        .map_err(io(format_args!("making the folder of {path}")))?;
                    let made = self.lookup(&so_far, flags).map_err(io(path))?;
                    self.give(&made, rights, rights.mode, path)?;
                    made
                }
                other => other.map_err(io(format_args!("the folder of {path}")))?,
            };
        }
        Ok((folder, name))
    }

    fn give(&self, file: &impl AsFd, rights: Rights, mode: u32, path: &str) -> Result<()> {
        fchown(file, Some(Uid::from_raw(rights.uid)), Some(Gid::from_raw(rights.gid)))
            .map_err(io(format_args!("giving {path} to its owner")))?;
        fchmod(file, Mode::from_bits_truncate(mode & 0o7777)).map_err(io(format_args!("setting the mode of {path}")))
    }

    /// Writes a file in place of what is at `path`; a link there is replaced, not followed. Folders that are missing are
    /// made for the same owner, private ones for a private file.
    pub(crate) fn write(&mut self, path: &str, content: &str, rights: Rights) -> Result<()> {
        let private = rights.mode & 0o077 == 0;
        let folders = Rights {
            mode: if private { 0o700 } else { 0o755 },
            ..rights
        };
        let (folder, name) = self.parent(path, folders)?;
        let temporary = ".rackbar-new";
        let _ = unlinkat(&folder, temporary, UnlinkatFlags::NoRemoveDir);
        let how = OpenHow::new()
            .flags(OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC)
            .mode(Mode::from_bits_truncate(0o600))
            .resolve(ResolveFlag::RESOLVE_BENEATH);
        let file = openat2(&folder, temporary, how).map_err(io(format_args!("making {path}")))?;
        let mut file = File::from(file);
        file.write_all(content.as_bytes())
            .map_err(io(format_args!("writing {path}")))?;
        self.give(&file, rights, rights.mode, path)?;
        file.sync_all().map_err(io(format_args!("writing {path} out")))?;
        renameat(&folder, temporary, &folder, name).map_err(|error| {
            let _ = unlinkat(&folder, temporary, UnlinkatFlags::NoRemoveDir);
            fault(format!("putting {path} in its place: {error}"), "")
        })?;
        self.written.push(path.to_owned());
        Ok(())
    }

    /// Makes a symbolic link in place of what is at `path`, unless that is a folder.
    pub(crate) fn link(&mut self, path: &str, target: &str) -> Result<()> {
        let (folder, name) = self.parent(path, Rights::root(0o755))?;
        let _ = unlinkat(&folder, name, UnlinkatFlags::NoRemoveDir);
        symlinkat(target, &folder, name).map_err(io(format_args!("linking {path}")))?;
        self.written.push(path.to_owned());
        Ok(())
    }

    /// Removes a file or link; a folder stays. True when there was one.
    pub(crate) fn remove(&mut self, path: &str) -> Result<bool> {
        let Some((above, name)) = path.rsplit_once('/') else {
            return Ok(false);
        };
        let above = if above.is_empty() { "/" } else { above };
        let Ok(folder) = self.lookup(above, OFlag::O_DIRECTORY | OFlag::O_RDONLY) else {
            return Ok(false);
        };
        let status = fstatat(&folder, name, AtFlags::AT_SYMLINK_NOFOLLOW);
        let is_folder = |mode: u32| SFlag::from_bits_truncate(mode) & SFlag::S_IFMT == SFlag::S_IFDIR;
        if status.is_err() || status.is_ok_and(|status| is_folder(status.st_mode)) {
            return Ok(false);
        }
        unlinkat(&folder, name, UnlinkatFlags::NoRemoveDir).map_err(io(format_args!("removing {path}")))?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    fn rights(mode: u32) -> Rights {
        // Tests run as whoever; files are given to the same.
        Rights {
            mode,
            uid: nix::unistd::geteuid().as_raw(),
            gid: nix::unistd::getegid().as_raw(),
        }
    }

    #[test]
    fn links_do_not_lead_out_of_the_tree() {
        let outside = tempfile::tempdir().unwrap();
        let inside = tempfile::tempdir().unwrap();
        let root = inside.path();
        std::fs::create_dir_all(root.join("etc")).unwrap();
        symlink(outside.path(), root.join("absolute")).unwrap();
        symlink(
            format!("../../../../../..{}", outside.path().display()),
            root.join("relative"),
        )
        .unwrap();
        symlink(outside.path().join("victim"), root.join("etc/link")).unwrap();
        let mut tree = Tree::open(root).unwrap();
        for path in ["/absolute/x", "/relative/x", "/etc/link", "/etc/new/deep/file"] {
            let _ = tree.write(path, "text", rights(0o640));
        }
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
        assert!(!root.join("etc/link").is_symlink(), "the link was replaced by the file");
        assert_eq!(std::fs::read_to_string(root.join("etc/link")).unwrap(), "text");
        let mode = std::fs::metadata(root.join("etc/new/deep/file"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o7777, 0o640);
        assert!(!tree.exists("/absolute") && tree.read("/relative/../etc/passwd").is_none());
    }

    #[test]
    fn paths_that_are_no_files_are_refused() {
        let inside = tempfile::tempdir().unwrap();
        let mut tree = Tree::open(inside.path()).unwrap();
        for path in ["etc/x", "/", "", "/etc/", "/../etc/x", "/a/./b", "/a/../../b", "/a\0b"] {
            assert!(tree.write(path, "", rights(0o644)).is_err(), "{path:?}");
        }
        assert!(tree.written().is_empty());
    }

    #[test]
    fn what_is_there_is_replaced_whole() {
        let inside = tempfile::tempdir().unwrap();
        let mut tree = Tree::open(inside.path()).unwrap();
        tree.write("/a/b", "one", rights(0o600)).unwrap();
        tree.write("/a/b", "2", rights(0o644)).unwrap();
        assert_eq!(tree.read("/a/b").unwrap(), "2");
        assert_eq!(
            std::fs::metadata(inside.path().join("a/b")).unwrap().mode() & 0o777,
            0o644
        );
        assert_eq!(tree.names("/a"), ["b"]);
        tree.link("/a/c", "b").unwrap();
        assert_eq!(tree.read("/a/c").unwrap(), "2");
        assert!(tree.remove("/a/c").unwrap() && !tree.remove("/a/c").unwrap() && !tree.remove("/a").unwrap());
    }
}

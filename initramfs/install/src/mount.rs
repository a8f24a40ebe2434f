//! File systems of the installed system, mounted for as long as they are worked on.

use std::fs::File;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use rackbar_hardware::block;

use crate::control::{io, refuse};
use crate::disk::MIB;
use crate::probe::{self, Content};
use crate::{Machine, Result};

/// Growth that is worth the trouble.
const WORTH_WHILE: u64 = 8 * MIB;

/// A mounted file system; unmounted, and so written out, when this is dropped.
#[derive(Debug)]
pub(crate) struct Mounted {
    path: PathBuf,
    is_mounted: bool,
}

impl Mounted {
    /// Mounts the ext4 or xfs of `device` below `/run/rackbar`.
    pub(crate) fn new(machine: &Machine, device: &Path) -> Result<Self> {
        Self::with(machine, device, &["ext4", "xfs"], MsFlags::empty())
    }

    /// As [`Mounted::new`], with programs that can be started: the operator wants them to run.
    pub(crate) fn with_programs(machine: &Machine, device: &Path) -> Result<Self> {
        Self::at_its_place(machine, device, &["ext4", "xfs"], MsFlags::MS_NODEV)
    }

    /// Mounts the FAT of an EFI system partition, read-only.
    pub(crate) fn esp(machine: &Machine, device: &Path) -> Result<Self> {
        Self::with(machine, device, &["vfat"], MsFlags::MS_RDONLY)
    }

    fn with(machine: &Machine, device: &Path, kinds: &[&str], flags: MsFlags) -> Result<Self> {
        // Nothing of the installed system is started from here, and its device files are not ours.
        let flags = flags | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        Self::at_its_place(machine, device, kinds, flags)
    }

    fn at_its_place(machine: &Machine, device: &Path, kinds: &[&str], flags: MsFlags) -> Result<Self> {
        let file = File::open(device).map_err(io(device.display()))?;
        let found = probe::file_system(&file).map_or("nothing that is known", Content::name);
        if !kinds.contains(&found) {
            return Err(refuse(
                format!(
                    "{} holds {found}; what can be worked on there is {}",
                    device.display(),
                    kinds.join(" or ")
                ),
                "use an image whose root is ext4 or xfs",
            ));
        }
        let name = device.file_name().and_then(|name| name.to_str()).unwrap_or("root");
        let path = machine.root.path(format!("run/rackbar/mnt-{name}"));
        std::fs::create_dir_all(&path).map_err(io(path.display()))?;
        // nouuid: both halves of a mirror, and a disk beside the one it was copied from, carry the same xfs identity.
        let options = if found == "xfs" { Some("nouuid") } else { None };
        machine.load_module(found);
        mount(Some(device), &path, Some(found), flags, options)
            .map_err(io(format_args!("mounting the {found} of {}", device.display())))?;
        Ok(Self { path, is_mounted: true })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes everything out and unmounts; what could not be written is an error here, and lost in a drop.
    pub(crate) fn unmount(mut self) -> Result<()> {
        let folder = File::open(&self.path).map_err(io(self.path.display()))?;
        nix::unistd::syncfs(&folder).map_err(io("writing the file system out"))?;
        drop(folder);
        self.is_mounted = false;
        umount2(&self.path, MntFlags::empty()).map_err(io(format_args!("unmounting {}", self.path.display())))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if self.is_mounted {
            let _ = umount2(&self.path, MntFlags::MNT_DETACH);
        }
    }
}

/// Lets the file system of `device` fill its `bytes`; gives what was done, in words.
pub(crate) fn grow(machine: &Machine, device: &Path, bytes: u64) -> Result<String> {
    let name = device.display();
    let file = File::open(device).map_err(io(&name))?;
    let Some(content) = probe::file_system(&file) else {
        return Ok(format!("{name} holds no known file system and was not grown"));
    };
    let Some(size) = probe::size(&file, content) else {
        return Ok(format!(
            "{name} holds {}, which is not grown from outside",
            content.name()
        ));
    };
    if bytes.saturating_sub(size.bytes()) < WORTH_WHILE {
        return Ok(format!("the {} of {name} has its full size already", content.name()));
    }
    drop(file);
    let mounted = Mounted::new(machine, device)?;
    let folder = File::open(mounted.path()).map_err(io(mounted.path().display()))?;
    let blocks = bytes / size.block;
    let grown = match content {
        Content::Xfs => block::grow_xfs(&folder, blocks, u32::from(size.inode_percent)),
        _ => block::resize_ext4(&folder, blocks),
    };
    grown.map_err(io(format_args!("growing the {} of {name}", content.name())))?;
    drop(folder);
    mounted.unmount()?;
    Ok(format!(
        "the {} of {name} grew from {} to {} MiB",
        content.name(),
        size.bytes() / MIB,
        bytes / MIB
    ))
}

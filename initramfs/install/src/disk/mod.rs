//! A disk that is written: past the page cache, which is five times as fast on a node and leaves its memory alone.
//! A plain file stands for a disk in tests.

mod buffer;
pub(crate) mod ioctl;
mod resolve;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::libc;

pub(crate) use buffer::{ALIGN, Buffer};
pub(crate) use resolve::{Chosen, partition_name, release, resolve, users};

/// One MiB.
pub(crate) const MIB: u64 = 1 << 20;

/// Most bytes that one call makes zero: between two calls the job can be given up.
const ZERO_STEP: u64 = 256 * MIB;

/// An open disk.
#[derive(Debug)]
pub(crate) struct Disk {
    file: File,
    path: PathBuf,
    bytes: u64,
    sector: u32,
    is_block: bool,
    is_direct: bool,
}

impl Disk {
    /// Opens a disk for writing. Fails with EBUSY when the kernel uses it: O_EXCL on a block device is the kernel's own
    /// word on that.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Self::open_with(path, true)
    }

    /// Opens a disk for reading, used or not.
    pub(crate) fn open_to_read(path: &Path) -> io::Result<Self> {
        Self::open_with(path, false)
    }

    fn open_with(path: &Path, write: bool) -> io::Result<Self> {
        let kind = std::fs::metadata(path)?.file_type();
        let is_block = kind.is_block_device();
        let exclusive = if is_block && write { libc::O_EXCL } else { 0 };
        let open = |flags: libc::c_int| {
            let mut options = OpenOptions::new();
            options
                .read(true)
                .write(write)
                .custom_flags(flags | exclusive)
                .open(path)
        };
        // tmpfs and some network file systems know no O_DIRECT; disks do.
        let direct = open(libc::O_DIRECT);
        let is_direct = direct.is_ok();
        let file = match direct {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) && !is_block => open(0)?,
            other => other?,
        };
        let (bytes, sector) = if is_block {
            (ioctl::size(&file)?, ioctl::sector(&file)?)
        } else {
            (file.metadata()?.len(), 512)
        };
        Ok(Self {
            file,
            path: path.to_owned(),
            bytes,
            sector,
            is_block,
            is_direct,
        })
    }

    /// Size in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Logical sector size in bytes.
    pub(crate) fn sector(&self) -> u32 {
        self.sector
    }

    /// Its path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The open file, for ioctls.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// True for a block device.
    pub(crate) fn is_block(&self) -> bool {
        self.is_block
    }

    /// The same disk through the page cache, for small reads and writes at any offset.
    pub(crate) fn cached(&self) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).open(&self.path)
    }

    /// The same disk through the page cache, for reading.
    pub(crate) fn to_read(&self) -> io::Result<File> {
        File::open(&self.path)
    }

    /// Writes whole sectors from an aligned buffer.
    pub(crate) fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        debug_assert!(!self.is_direct || bytes.as_ptr().align_offset(512) == 0);
        self.file.write_all_at(bytes, offset)
    }

    /// Reads whole sectors into an aligned buffer.
    pub(crate) fn read(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(bytes, offset)
    }

    /// Makes a range zero, `progress` being asked between steps.
    pub(crate) fn zero(
        &self,
        offset: u64,
        length: u64,
        progress: &mut dyn FnMut(u64) -> crate::Result<()>,
    ) -> crate::Result<()> {
        let end = offset.saturating_add(length).min(self.bytes);
        let mut at = offset;
        while at < end {
            let step = (end - at).min(ZERO_STEP);
            self.zero_step(at, step).map_err(crate::control::io(format_args!(
                "making {} zero at byte {at}",
                self.path.display()
            )))?;
            at += step;
            progress(step)?;
        }
        Ok(())
    }

    /// Writes zeros over all of it as data: what they are told to make zero ([`Self::zero`]), many disks only forget.
    pub(crate) fn overwrite(&self, progress: &mut dyn FnMut(u64) -> crate::Result<()>) -> crate::Result<()> {
        let mut at = 0;
        while at < self.bytes {
            let step = (self.bytes - at).min(ZERO_STEP);
            self.write_zeros(at, step).map_err(crate::control::io(format_args!(
                "overwriting {} at byte {at}",
                self.path.display()
            )))?;
            at += step;
            progress(step)?;
        }
        Ok(())
    }

    fn zero_step(&self, offset: u64, length: u64) -> io::Result<()> {
        if self.is_block {
            return ioctl::zero(&self.file, offset, length);
        }
        self.write_zeros(offset, length)
    }

    fn write_zeros(&self, offset: u64, length: u64) -> io::Result<()> {
        let zeros = Buffer::new(usize::try_from(length.min(4 * MIB)).unwrap_or(ALIGN));
        let mut at = offset;
        while at < offset + length {
            let step = (offset + length - at).min(zeros.len() as u64);
            let part = zeros.get(..step as usize).unwrap_or_default();
            self.file.write_all_at(part, at)?;
            at += step;
        }
        Ok(())
    }

    /// Puts everything on the medium, and drops what the kernel has cached of it.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file.sync_all()?;
        if self.is_block {
            ioctl::flush(&self.file)?;
        }
        Ok(())
    }
}

/// True when every byte is zero. Reads words: this runs over every byte of an image.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    // SAFETY: any bytes are valid u64, and align_to gives only whole, aligned ones in the middle.
    let (head, middle, tail) = unsafe { bytes.align_to::<u64>() };
    head.iter().chain(tail).all(|b| *b == 0) && middle.chunks(64).all(|c| c.iter().fold(0, |all, word| all | word) == 0)
}

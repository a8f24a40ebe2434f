//! The block device calls no library offers. `unsafe` for the ioctls alone.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::libc;

/// _IO(0x12, 127): zeros, by the device itself where it can, else written by the kernel. Reads give zeros afterwards.
const BLKZEROOUT: libc::c_ulong = 0x127f;
/// _IO(0x12, 119): the device may forget the range.
const BLKDISCARD: libc::c_ulong = 0x1277;
/// _IO(0x12, 104): logical sector size.
const BLKSSZGET: libc::c_ulong = 0x1268;
/// _IOR(0x12, 114, size_t): size in bytes.
const BLKGETSIZE64: libc::c_ulong = 0x8008_1272;
/// _IO(0x12, 97): write out and forget what is cached.
const BLKFLSBUF: libc::c_ulong = 0x1261;

fn range(disk: &File, request: libc::c_ulong, offset: u64, length: u64) -> io::Result<()> {
    let range = [offset, length];
    // SAFETY: both calls read two u64, which live until the call returns.
    Errno::result(unsafe { libc::ioctl(disk.as_raw_fd(), request as _, &range) })?;
    Ok(())
}

/// Makes a range zero.
pub(crate) fn zero(disk: &File, offset: u64, length: u64) -> io::Result<()> {
    range(disk, BLKZEROOUT, offset, length)
}

/// Lets the device forget a range.
pub(crate) fn discard(disk: &File, offset: u64, length: u64) -> io::Result<()> {
    range(disk, BLKDISCARD, offset, length)
}

/// Logical sector size of a block device.
pub(crate) fn sector(disk: &File) -> io::Result<u32> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the call writes one int, which lives until it returns.
    Errno::result(unsafe { libc::ioctl(disk.as_raw_fd(), BLKSSZGET as _, &mut bytes) })?;
    u32::try_from(bytes).map_err(io::Error::other)
}

/// Size of a block device in bytes.
pub(crate) fn size(disk: &File) -> io::Result<u64> {
    let mut bytes = 0u64;
    // SAFETY: the call writes one u64, which lives until it returns.
    Errno::result(unsafe { libc::ioctl(disk.as_raw_fd(), BLKGETSIZE64 as _, &mut bytes) })?;
    Ok(bytes)
}

/// Writes out and drops what the kernel has cached of a block device, so that what O_DIRECT wrote is what is read.
pub(crate) fn flush(disk: &File) -> io::Result<()> {
    // SAFETY: the call takes no argument.
    Errno::result(unsafe { libc::ioctl(disk.as_raw_fd(), BLKFLSBUF as _, 0) })?;
    Ok(())
}

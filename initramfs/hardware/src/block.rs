//! What the kernel is told of a disk whose partitions or file systems change. `unsafe` because no library offers these
//! ioctls.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::libc;

/// `struct blkpg_partition` of linux/blkpg.h.
#[repr(C)]
struct BlkpgPartition {
    start: libc::c_longlong,
    length: libc::c_longlong,
    number: libc::c_int,
    devname: [u8; 64],
    volname: [u8; 64],
}

/// `struct blkpg_ioctl_arg` of linux/blkpg.h.
#[repr(C)]
struct BlkpgArgument {
    op: libc::c_int,
    flags: libc::c_int,
    length: libc::c_int,
    data: *mut BlkpgPartition,
}

fn partition(disk: &File, op: libc::c_int, number: u32, start: u64, length: u64) -> io::Result<()> {
    const BLKPG: libc::c_ulong = 0x1269;
    let too_big = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let mut partition = BlkpgPartition {
        start: start.try_into().map_err(too_big)?,
        length: length.try_into().map_err(too_big)?,
        number: number.try_into().map_err(too_big)?,
        devname: [0; 64],
        volname: [0; 64],
    };
    let argument = BlkpgArgument {
        op,
        flags: 0,
        length: size_of::<BlkpgPartition>() as libc::c_int,
        data: &mut partition,
    };
    // SAFETY: BLKPG reads one blkpg_ioctl_arg and the partition it points to; both live until the call returns.
    Errno::result(unsafe { libc::ioctl(disk.as_raw_fd(), BLKPG as _, &argument) })?;
    Ok(())
}

/// Tells the kernel the new size of a partition of `disk`, in bytes. Unlike BLKRRPART this works while another
/// partition of the disk is mounted.
pub fn resize_partition(disk: &File, number: u32, start: u64, length: u64) -> io::Result<()> {
    const BLKPG_RESIZE_PARTITION: libc::c_int = 3;
    partition(disk, BLKPG_RESIZE_PARTITION, number, start, length)
}

/// Tells the kernel of a partition that it has not found by itself, in bytes.
pub fn add_partition(disk: &File, number: u32, start: u64, length: u64) -> io::Result<()> {
    const BLKPG_ADD_PARTITION: libc::c_int = 1;
    partition(disk, BLKPG_ADD_PARTITION, number, start, length)
}

/// Makes the kernel forget a partition.
pub fn remove_partition(disk: &File, number: u32) -> io::Result<()> {
    const BLKPG_DEL_PARTITION: libc::c_int = 2;
    partition(disk, BLKPG_DEL_PARTITION, number, 0, 0)
}

/// Makes the kernel read the partition table of `disk` again (BLKRRPART); fails while a partition is in use.
pub fn reread_partitions(disk: &File) -> io::Result<()> {
    const BLKRRPART: libc::c_ulong = 0x125f;
    // SAFETY: BLKRRPART takes no argument.
    Errno::result(unsafe { libc::ioctl(disk.as_raw_fd(), BLKRRPART as _, 0) })?;
    Ok(())
}

/// Grows the mounted ext4 file system that `folder` is on to `blocks` of its own blocks (EXT4_IOC_RESIZE_FS).
pub fn resize_ext4(folder: &File, blocks: u64) -> io::Result<()> {
    // _IOW('f', 16, __u64)
    const EXT4_IOC_RESIZE_FS: libc::c_ulong = 0x4008_6610;
    // SAFETY: the call reads one u64, which lives until it returns.
    Errno::result(unsafe { libc::ioctl(folder.as_raw_fd(), EXT4_IOC_RESIZE_FS as _, &blocks) })?;
    Ok(())
}

/// Grows the mounted xfs file system that `folder` is on to `blocks` of its own blocks (XFS_IOC_FSGROWFSDATA);
/// `inode_percent` is what its superblock says, which the call would set too.
pub fn grow_xfs(folder: &File, blocks: u64, inode_percent: u32) -> io::Result<()> {
    /// `struct xfs_growfs_data` of xfs_fs.h.
    #[repr(C)]
    struct Growth {
        blocks: u64,
        inode_percent: u32,
    }
    // _IOW('X', 110, struct xfs_growfs_data)
    const XFS_IOC_FSGROWFSDATA: libc::c_ulong = 0x4010_586e;
    let growth = Growth { blocks, inode_percent };
    // SAFETY: the call reads one xfs_growfs_data, which lives until it returns.
    Errno::result(unsafe { libc::ioctl(folder.as_raw_fd(), XFS_IOC_FSGROWFSDATA as _, &growth) })?;
    Ok(())
}

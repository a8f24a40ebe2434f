//! The few system calls no library offers. All `unsafe` code of init is here.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::SigSet;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// Brings the loopback interface up with 127.0.0.1; the kernel adds ::1 by itself.
pub(crate) fn loopback_up() -> io::Result<()> {
    let fd = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    // SAFETY: ifreq is plain data and all zero is a valid value of it.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    let mut address = [0u8; 16];
    address[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
    address[4..8].copy_from_slice(&[127, 0, 0, 1]);
    // SAFETY: sockaddr and [u8; 16] have the same size and any bytes are a valid sockaddr.
    request.ifr_ifru.ifru_addr = unsafe { std::mem::transmute::<[u8; 16], libc::sockaddr>(address) };
    // SAFETY: SIOCSIFADDR reads one ifreq, which lives until the call returns.
    Errno::result(unsafe { libc::ioctl(fd.as_raw_fd(), libc::SIOCSIFADDR as _, &request) })?;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads one ifreq, which lives until the call returns.
    Errno::result(unsafe { libc::ioctl(fd.as_raw_fd(), libc::SIOCSIFFLAGS as _, &request) })?;
    Ok(())
}

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

/// Tells the kernel the new size of a partition of `disk`, in bytes. Unlike BLKRRPART this works while another
/// partition of the disk is mounted.
pub(crate) fn resize_partition(disk: &File, number: u32, start: u64, length: u64) -> io::Result<()> {
    const BLKPG: libc::c_ulong = 0x1269;
    const BLKPG_RESIZE_PARTITION: libc::c_int = 3;
    let too_big = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let mut partition = BlkpgPartition {
        start: start.try_into().map_err(too_big)?,
        length: length.try_into().map_err(too_big)?,
        number: number.try_into().map_err(too_big)?,
        devname: [0; 64],
        volname: [0; 64],
    };
    let argument = BlkpgArgument {
        op: BLKPG_RESIZE_PARTITION,
        flags: 0,
        length: size_of::<BlkpgPartition>() as libc::c_int,
        data: &mut partition,
    };
    // SAFETY: BLKPG reads one blkpg_ioctl_arg and the partition it points to; both live until the call returns.
    Errno::result(unsafe { libc::ioctl(disk.as_raw_fd(), BLKPG as _, &argument) })?;
    Ok(())
}

/// Makes the kernel read the partition table of `disk` again (BLKRRPART); fails while a partition is in use.
pub(crate) fn reread_partitions(disk: &File) -> io::Result<()> {
    const BLKRRPART: libc::c_ulong = 0x125f;
    // SAFETY: BLKRRPART takes no argument.
    Errno::result(unsafe { libc::ioctl(disk.as_raw_fd(), BLKRRPART as _, 0) })?;
    Ok(())
}

/// Grows the mounted ext4 file system that `folder` is on to `blocks` of its own blocks (EXT4_IOC_RESIZE_FS).
pub(crate) fn resize_ext4(folder: &File, blocks: u64) -> io::Result<()> {
    // _IOW('f', 16, __u64)
    const EXT4_IOC_RESIZE_FS: libc::c_ulong = 0x4008_6610;
    // SAFETY: the call reads one u64, which lives until it returns.
    Errno::result(unsafe { libc::ioctl(folder.as_raw_fd(), EXT4_IOC_RESIZE_FS as _, &blocks) })?;
    Ok(())
}

/// Lets the command start with no signal blocked. Init blocks the ones it reads, a child inherits that, and a service
/// that cannot be asked to stop would be killed instead.
pub(crate) fn unblock_signals(command: &mut Command) {
    // SAFETY: between fork and exec only pthread_sigmask is called, which is async-signal-safe and allocates nothing.
    unsafe {
        command.pre_exec(|| SigSet::all().thread_unblock().map_err(io::Error::from));
    }
}

/// Sets a watchdog's time-out in seconds; the driver may choose another, which is returned (WDIOC_SETTIMEOUT).
pub(crate) fn watchdog_timeout(watchdog: &File, seconds: u32) -> io::Result<u32> {
    // _IOWR('W', 6, int)
    const WDIOC_SETTIMEOUT: libc::c_ulong = 0xc004_5706;
    let mut value = seconds as libc::c_int;
    // SAFETY: the call reads and writes one int, which lives until it returns.
    Errno::result(unsafe { libc::ioctl(watchdog.as_raw_fd(), WDIOC_SETTIMEOUT as _, &mut value) })?;
    Ok(value.try_into().unwrap_or(seconds))
}

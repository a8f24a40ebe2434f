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

/// Lets the command start with no signal blocked. Init blocks the ones it reads, a child inherits that, and a service
/// that cannot be asked to stop would be killed instead.
pub(crate) fn unblock_signals(command: &mut Command) {
    // SAFETY: between fork and exec only pthread_sigmask is called, which is async-signal-safe and allocates nothing.
    unsafe {
        command.pre_exec(|| SigSet::all().thread_unblock().map_err(io::Error::from));
    }
}

/// Lets the command start without these capabilities in its bounding set, so that it never has them, and with
/// `no_new_privs` set (prctl(2)).
pub(crate) fn drop_capabilities(command: &mut Command, dropped: Vec<u8>) {
    // SAFETY: between fork and exec only prctl is called, which is a bare system call and allocates nothing; the list was
    // made before and is only read.
    unsafe {
        command.pre_exec(move || {
            for number in &dropped {
                let number = libc::c_ulong::from(*number);
                Errno::result(libc::prctl(libc::PR_CAPBSET_DROP, number, 0, 0, 0))?;
            }
            Errno::result(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
            Ok(())
        });
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

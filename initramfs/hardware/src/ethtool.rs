//! Two questions of ethtool's ioctl (linux/ethtool.h). `unsafe` because the libraries know this ioctl only by number.

use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use rackbar_model::MacAddr;

const SIOCETHTOOL: libc::c_ulong = 0x8946;
const ETHTOOL_GDRVINFO: u32 = 0x03;
const ETHTOOL_GPERMADDR: u32 = 0x20;

/// What a driver tells about its interface.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) firmware: Option<String>,
    pub(crate) permanent_mac: Option<MacAddr>,
}

/// `struct ethtool_drvinfo`.
#[repr(C)]
struct DriverInfo {
    command: u32,
    driver: [u8; 32],
    version: [u8; 32],
    firmware: [u8; 32],
    bus: [u8; 32],
    rom: [u8; 32],
    reserved: [u8; 12],
    counts: [u32; 5],
}

/// `struct ethtool_perm_addr` with room for MAX_ADDR_LEN bytes.
#[repr(C)]
struct PermanentAddress {
    command: u32,
    size: u32,
    data: [u8; 32],
}

/// Asks the driver of interface `name`. What it does not answer stays `None`.
pub(crate) fn ask(name: &str) -> Told {
    let mut info = DriverInfo {
        command: ETHTOOL_GDRVINFO,
        driver: [0; 32],
        version: [0; 32],
        firmware: [0; 32],
        bus: [0; 32],
        rom: [0; 32],
        reserved: [0; 12],
        counts: [0; 5],
    };
    let mut address = PermanentAddress {
        command: ETHTOOL_GPERMADDR,
        size: 32,
        data: [0; 32],
    };
    let mut told = Told::default();
    if call(name, (&raw mut info).cast()).is_ok() {
        told.firmware = text(&info.firmware);
    }
    if call(name, (&raw mut address).cast()).is_ok() && address.size == 6 {
        let mac = address.data.first_chunk().map(|octets| MacAddr(*octets));
        told.permanent_mac = mac.filter(MacAddr::is_unicast);
    }
    told
}

/// Some drivers leave the field empty, some write `N/A`.
fn text(bytes: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(bytes.split(|b| *b == 0).next()?)
        .trim()
        .to_owned();
    (!text.is_empty() && text != "N/A").then_some(text)
}

fn call(name: &str, data: *mut libc::c_char) -> nix::Result<()> {
    let fd = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    // SAFETY: ifreq is plain data and all zero is a valid value of it.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.len() >= request.ifr_name.len() {
        return Err(Errno::ENAMETOOLONG);
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_data = data;
    // SAFETY: `data` points to a live structure of the caller, of the size its command field stands for.
    Errno::result(unsafe { libc::ioctl(fd.as_raw_fd(), SIOCETHTOOL as _, &request) }).map(drop)
}

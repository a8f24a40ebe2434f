//! The packet sockets that hear switches on all interfaces. `unsafe` for the two calls no library offers safely: naming an
//! EtherType to bind to, and joining a link-layer multicast group.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, LinkAddr, SockFlag, SockType, recvfrom, socket};

use super::{Heard, Protocol};

/// LLDP's nearest bridge, nearest non-TPMR bridge and nearest customer bridge (802.1AB table 7-1), the last of which is
/// also spanning tree's; slow protocols; Cisco's per-VLAN spanning tree. Bridges forward none of the first.
const GROUPS: [[u8; 6]; 5] = [
    [0x01, 0x80, 0xc2, 0x00, 0x00, 0x0e],
    [0x01, 0x80, 0xc2, 0x00, 0x00, 0x03],
    [0x01, 0x80, 0xc2, 0x00, 0x00, 0x00],
    [0x01, 0x80, 0xc2, 0x00, 0x00, 0x02],
    [0x01, 0x00, 0x0c, 0xcc, 0xcc, 0xcd],
];

/// Hears switches on every interface that was joined.
pub struct Listener(Vec<(Protocol, OwnedFd)>);

impl Listener {
    /// Opens a socket for each protocol; they hear nothing before [`Listener::join`].
    pub fn open() -> io::Result<Self> {
        let open = |protocol| Ok((protocol, bound(protocol)?));
        Protocol::ALL.into_iter().map(open).collect::<io::Result<_>>().map(Self)
    }

    /// Lets interface `index` receive the multicast groups; without this most adapters drop them.
    pub fn join(&self, index: u32) -> io::Result<()> {
        let index = i32::try_from(index).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        // Memberships are the interface's: one socket's are enough for all.
        self.0.first().map_or(Ok(()), |(_, fd)| join(fd, index))
    }

    /// Waits at most `timeout` for something to be said; gives the index of the interface it came in on.
    pub fn wait(&self, timeout: Duration) -> io::Result<Option<(u32, Heard)>> {
        let millis = u16::try_from(timeout.as_millis()).unwrap_or(u16::MAX);
        let mut fds: Vec<_> = self
            .0
            .iter()
            .map(|(_, fd)| PollFd::new(fd.as_fd(), PollFlags::POLLIN))
            .collect();
        match poll(&mut fds, PollTimeout::from(millis)) {
            Ok(0) | Err(Errno::EINTR) => return Ok(None),
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        let ready = self.0.iter().zip(&fds).find(|(_, fd)| fd.any().unwrap_or(false));
        ready.map_or(Ok(None), |((protocol, fd), _)| receive(*protocol, fd))
    }
}

/// A socket that hears one protocol.
fn bound(protocol: Protocol) -> io::Result<OwnedFd> {
    // Datagram mode: the kernel takes the Ethernet header off. Protocol 0 receives nothing until it is bound.
    let fd = socket(AddressFamily::Packet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    // SAFETY: sockaddr_ll is plain data and all zero is a valid value of it.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = protocol.number().to_be();
    let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: the address lives until the call returns and the length is its own.
    Errno::result(unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), length) })?;
    Ok(fd)
}

fn join(fd: &OwnedFd, index: i32) -> io::Result<()> {
    for group in GROUPS {
        let mut address = [0u8; 8];
        address[..6].copy_from_slice(&group);
        let request = libc::packet_mreq {
            mr_ifindex: index,
            mr_type: libc::PACKET_MR_MULTICAST as u16,
            mr_alen: 6,
            mr_address: address,
        };
        let length = size_of::<libc::packet_mreq>() as libc::socklen_t;
        let (level, option) = (libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP);
        // SAFETY: the request lives until the call returns and the length is its own.
        let result = unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, (&raw const request).cast(), length) };
        Errno::result(result)?;
    }
    Ok(())
}

fn receive(protocol: Protocol, fd: &OwnedFd) -> io::Result<Option<(u32, Heard)>> {
    let mut frame = [0u8; 2048];
    match recvfrom::<LinkAddr>(fd.as_raw_fd(), &mut frame) {
        Ok((length, Some(from))) => {
            let heard = frame.get(..length).and_then(|payload| protocol.read(payload));
            Ok(heard.and_then(|heard| Some((u32::try_from(from.ifindex()).ok()?, heard))))
        }
        // An interface that went down reports it here once.
        Ok((_, None)) | Err(Errno::ENETDOWN | Errno::EINTR | Errno::EAGAIN) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

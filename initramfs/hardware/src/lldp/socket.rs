//! The packet socket that hears LLDP on all interfaces. `unsafe` for the two calls no library offers safely: naming an
//! EtherType to bind to, and joining a link-layer multicast group.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, LinkAddr, SockFlag, SockType, recvfrom, socket};

use super::tlv::{Announcement, parse};

const ETHERTYPE: u16 = 0x88cc;

/// Nearest bridge, nearest non-TPMR bridge, nearest customer bridge (table 7-1). Bridges forward none of the first.
const GROUPS: [[u8; 6]; 3] = [
    [0x01, 0x80, 0xc2, 0x00, 0x00, 0x0e],
    [0x01, 0x80, 0xc2, 0x00, 0x00, 0x03],
    [0x01, 0x80, 0xc2, 0x00, 0x00, 0x00],
];

/// Hears announcements on every interface that was joined.
pub struct LldpListener(OwnedFd);

impl LldpListener {
    /// Opens the socket; it hears nothing before [`LldpListener::join`].
    pub fn open() -> io::Result<Self> {
        // Datagram mode: the kernel takes the Ethernet header off. Protocol 0 receives nothing until it is bound.
        let fd = socket(AddressFamily::Packet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
        // SAFETY: sockaddr_ll is plain data and all zero is a valid value of it.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = ETHERTYPE.to_be();
        let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        // SAFETY: the address lives until the call returns and the length is its own.
        Errno::result(unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), length) })?;
        Ok(Self(fd))
    }

    /// Lets interface `index` receive LLDP's multicast groups; without this most adapters drop them.
    pub fn join(&self, index: u32) -> io::Result<()> {
        let index = i32::try_from(index).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
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
            let result =
                unsafe { libc::setsockopt(self.0.as_raw_fd(), level, option, (&raw const request).cast(), length) };
            Errno::result(result)?;
        }
        Ok(())
    }

    /// Waits at most `timeout` for an announcement; gives the index of the interface it came in on.
    pub fn wait(&self, timeout: Duration) -> io::Result<Option<(u32, Announcement)>> {
        let millis = u16::try_from(timeout.as_millis()).unwrap_or(u16::MAX);
        match poll(
            &mut [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)],
            PollTimeout::from(millis),
        ) {
            Ok(0) | Err(Errno::EINTR) => return Ok(None),
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        let mut frame = [0u8; 2048];
        match recvfrom::<LinkAddr>(self.0.as_raw_fd(), &mut frame) {
            Ok((length, Some(from))) => {
                let announcement = frame.get(..length).and_then(parse);
                Ok(announcement.and_then(|found| Some((u32::try_from(from.ifindex()).ok()?, found))))
            }
            // An interface that went down reports it here once.
            Ok((_, None)) | Err(Errno::ENETDOWN | Errno::EINTR | Errno::EAGAIN) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

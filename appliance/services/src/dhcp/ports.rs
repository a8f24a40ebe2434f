//! The sockets of one interface.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};

use nix::libc;
use socket2::{SockFilter, Socket};

use super::SERVICE;
use crate::bind::{self, StartError};
use crate::link::{FrameSocket, Link, filter};

/// One interface. Shared by the engine's and the committer's thread, which both send.
pub(crate) struct Port {
    pub(crate) link: Link,
    /// Port 67.
    pub(crate) server: Socket,
    /// Port 4011, the PXE boot server.
    pub(crate) pxe: Socket,
    /// Overhears replies to clients, ours among other servers' excluded by the kernel; sends frames.
    pub(crate) replies: FrameSocket,
    /// ARP.
    pub(crate) arp: FrameSocket,
}

/// Which of a port's sockets an epoll token means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Part {
    Server,
    Pxe,
    Replies,
    Arp,
}

impl Port {
    fn open(name: &str) -> Result<Self, StartError> {
        let link = Link::find(SERVICE, name)?;
        let frames = |ethertype: i32, filter: &[SockFilter]| {
            FrameSocket::open(&link, ethertype as u16, filter).map_err(|source| StartError::Interface {
                service: SERVICE,
                interface: name.to_owned(),
                source,
                hint: "whole frames need root or CAP_NET_RAW".to_owned(),
            })
        };
        Ok(Self {
            server: datagrams(name, 67)?,
            pxe: datagrams(name, 4011)?,
            replies: frames(libc::ETH_P_IP, &filter::DHCP_REPLIES)?,
            arp: frames(libc::ETH_P_ARP, &filter::ALL)?,
            link,
        })
    }

    /// Descriptor and meaning of each socket.
    pub(crate) fn parts(&self) -> [(Part, BorrowedFd<'_>); 4] {
        [
            (Part::Server, self.server.as_fd()),
            (Part::Pxe, self.pxe.as_fd()),
            (Part::Replies, self.replies.as_fd()),
            (Part::Arp, self.arp.as_fd()),
        ]
    }

    /// Requests the kernel threw away because a receive buffer was full, since the sockets were opened.
    pub(crate) fn drops(&self) -> u64 {
        [&self.server, &self.pxe]
            .into_iter()
            .filter_map(|socket| drops(socket.as_fd()))
            .map(u64::from)
            .sum()
    }
}

/// Not bound to one address: requests are broadcast, and the interface may get its address later.
fn datagrams(name: &str, port: u16) -> Result<Socket, StartError> {
    let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    let socket = bind::udp(SERVICE, address, Some(name))?;
    socket.set_broadcast(true).map_err(|source| StartError::System {
        service: SERVICE,
        source,
    })?;
    Ok(socket)
}

/// `SK_MEMINFO_DROPS` of SO_MEMINFO (linux/sock_diag.h), the ninth of nine counters.
fn drops(socket: BorrowedFd<'_>) -> Option<u32> {
    use std::os::fd::AsRawFd;
    let mut counters = [0u32; 9];
    let mut length = size_of_val(&counters) as libc::socklen_t;
    // SAFETY: pointer and length describe a live array; the kernel writes at most that much.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            counters.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    (result == 0).then(|| counters[8])
}

/// Opens the sockets of all these interfaces, or none.
pub(crate) fn open(names: &[String]) -> Result<Vec<Port>, StartError> {
    names.iter().map(|name| Port::open(name)).collect()
}

/// The kernel's index of an interface.
pub(crate) fn index_of(name: &str) -> Option<u32> {
    nix::net::if_::if_nametoindex(name).ok()
}

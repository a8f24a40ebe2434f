//! A network interface as the services use it, and a socket for whole frames on it.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::libc;
use rackbar_model::MacAddr;
use socket2::{Domain, Protocol, SockAddr, SockFilter, Socket, Type};

use crate::bind::StartError;

/// An Ethernet interface.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// The kernel's index.
    pub index: u32,
    /// Its hardware address.
    pub mac: MacAddr,
    /// Its IPv4 addresses.
    pub addresses: Vec<Ipv4Addr>,
}

impl Link {
    /// Looks an interface up by name.
    ///
    /// # Errors
    /// When there is none of that name or it is no Ethernet interface; `service` is named in the text.
    pub fn find(service: &'static str, name: &str) -> Result<Self, StartError> {
        let fail = |source: io::Error, hint: &str| StartError::Interface {
            service,
            interface: name.to_owned(),
            source,
            hint: hint.to_owned(),
        };
        let all =
            nix::ifaddrs::getifaddrs().map_err(|errno| fail(errno.into(), "the kernel does not list interfaces"))?;
        let mut found = None;
        let mut addresses = Vec::new();
        for entry in all.filter(|entry| entry.interface_name == name) {
            let Some(address) = entry.address else { continue };
            if let Some(link) = address.as_link_addr() {
                let index = u32::try_from(link.ifindex()).unwrap_or(0);
                found = link.addr().map(|mac| (index, MacAddr(mac)));
            } else if let Some(ip) = address.as_sockaddr_in() {
                addresses.push(ip.ip());
            }
        }
        match found {
            Some((index, mac)) if mac.is_unicast() => Ok(Self {
                name: name.to_owned(),
                index,
                mac,
                addresses,
            }),
            Some(_) => Err(fail(
                io::ErrorKind::InvalidInput.into(),
                "it has no Ethernet address: serve another interface",
            )),
            None => Err(fail(
                io::ErrorKind::NotFound.into(),
                "check its name and that its driver is loaded",
            )),
        }
    }
}

/// A socket that sends whole frames on one interface and receives those of one Ethernet type that pass a filter.
pub(crate) struct FrameSocket {
    socket: Socket,
}

impl FrameSocket {
    /// Opens it. The filter is attached before the socket is bound, so nothing else is ever queued.
    ///
    /// One Ethernet type per socket: a tap for all types would make the kernel clone every frame we send, boot files
    /// included.
    pub(crate) fn open(link: &Link, ethertype: u16, filter: &[SockFilter]) -> io::Result<Self> {
        let socket = Socket::new(Domain::PACKET, Type::RAW.nonblocking(), Some(Protocol::from(0)))?;
        socket.attach_filter(filter)?;
        socket.set_recv_buffer_size(1 << 20)?;
        socket.bind(&packet_address(link.index, ethertype)?)?;
        Ok(Self { socket })
    }

    pub(crate) fn send(&self, frame: &[u8]) -> io::Result<()> {
        self.socket.send(frame).map(drop)
    }

    /// The next frame in `buffer`; `None` when there is none now.
    pub(crate) fn receive<'b>(&self, buffer: &'b mut [u8]) -> io::Result<Option<&'b [u8]>> {
        match io::Read::read(&mut &self.socket, buffer) {
            Ok(count) => Ok(buffer.get(..count)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn raw(&self) -> i32 {
        self.socket.as_raw_fd()
    }
}

impl AsFd for FrameSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// packet(7): the address of an interface and an Ethernet type.
pub(crate) fn packet_address(index: u32, ethertype: u16) -> io::Result<SockAddr> {
    let wanted = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: ethertype.to_be(),
        sll_ifindex: i32::try_from(index).map_err(io::Error::other)?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    // SAFETY: the storage is large enough for any address and aligned for it, and the length set is that of what was
    // written.
    let ((), address) = unsafe {
        SockAddr::try_init(|storage, length| {
            storage.cast::<libc::sockaddr_ll>().write(wanted);
            *length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
            Ok(())
        })
    }?;
    Ok(address)
}

/// Has the interface take frames to a group, which its NIC filters out unless somebody asks for them (packet(7)).
pub(crate) fn join_group(socket: i32, index: u32, [a, b, c, d, e, f]: [u8; 6]) -> io::Result<()> {
    let group = libc::packet_mreq {
        mr_ifindex: i32::try_from(index).map_err(io::Error::other)?,
        mr_type: libc::PACKET_MR_MULTICAST as u16,
        mr_alen: 6,
        mr_address: [a, b, c, d, e, f, 0, 0],
    };
    // SAFETY: the pointer and length are those of a live value of the type this option takes.
    let result = unsafe {
        libc::setsockopt(
            socket,
            libc::SOL_PACKET,
            libc::PACKET_ADD_MEMBERSHIP,
            (&raw const group).cast(),
            size_of::<libc::packet_mreq>() as libc::socklen_t,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Classic BPF for the three things we listen to. Offsets count from the Ethernet header.
pub(crate) mod filter {
    use super::libc;
    use socket2::SockFilter;

    const LOAD_BYTE: u32 = libc::BPF_LD | libc::BPF_B | libc::BPF_ABS;
    const LOAD_HALF: u32 = libc::BPF_LD | libc::BPF_H | libc::BPF_ABS;
    const LOAD_HALF_X: u32 = libc::BPF_LD | libc::BPF_H | libc::BPF_IND;
    /// X = 4 * (byte & 15): the length of an IPv4 header.
    const LOAD_IHL: u32 = libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH;
    const EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    const ANY_BIT: u32 = libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K;
    const RETURN: u32 = libc::BPF_RET | libc::BPF_K;

    const fn op(code: u32, jt: u8, jf: u8, k: u32) -> SockFilter {
        SockFilter::new(code as u16, jt, jf, k)
    }

    /// IPv4 UDP to port 68, not a later fragment: what DHCP servers tell clients.
    pub(crate) const DHCP_REPLIES: [SockFilter; 9] = [
        op(LOAD_BYTE, 0, 0, 23),
        op(EQUAL, 0, 6, 17),
        op(LOAD_HALF, 0, 0, 20),
        op(ANY_BIT, 4, 0, 0x1fff),
        op(LOAD_IHL, 0, 0, 14),
        op(LOAD_HALF_X, 0, 0, 16),
        op(EQUAL, 0, 1, 68),
        op(RETURN, 0, 0, 0x4_0000),
        op(RETURN, 0, 0, 0),
    ];

    /// Every ARP packet.
    pub(crate) const ALL: [SockFilter; 1] = [op(RETURN, 0, 0, 0x4_0000)];

    /// ICMPv6 router solicitations (type 133) directly behind the IPv6 header.
    pub(crate) const SOLICITATIONS: [SockFilter; 6] = [
        op(LOAD_BYTE, 0, 0, 20),
        op(EQUAL, 0, 3, 58),
        op(LOAD_BYTE, 0, 0, 54),
        op(EQUAL, 0, 1, 133),
        op(RETURN, 0, 0, 0x4_0000),
        op(RETURN, 0, 0, 0),
    ];
}

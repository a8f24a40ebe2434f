//! Opening listening sockets, and saying in words why that failed: which address, who holds the port, what to do.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;

use socket2::{Domain, Protocol, Socket, Type};

/// A rack that powers on sends more requests in one moment than the default 208 KiB hold; each one lost costs its
/// client a timeout of seconds.
pub(crate) const RECEIVE_BUFFER: usize = 8 << 20;

/// Why a service could not start. Read by an operator.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address and port cannot be used.
    #[error("{service}: cannot listen on {address}{}: {source}; {hint}", interface.as_ref().map(|i| format!(" of {i}")).unwrap_or_default())]
    Bind {
        /// `TFTP`, `boot HTTP`, ...
        service: &'static str,
        /// Where.
        address: SocketAddr,
        /// On which interface, when bound to one.
        interface: Option<String>,
        /// What the system said.
        source: io::Error,
        /// What to do.
        hint: String,
    },
    /// The interface cannot be used.
    #[error("{service}: cannot use interface {interface}: {source}; {hint}")]
    Interface {
        /// The service.
        service: &'static str,
        /// Its name.
        interface: String,
        /// What the system said.
        source: io::Error,
        /// What to do.
        hint: String,
    },
    /// Leases could not be read.
    #[error("DHCP: cannot read the leases given so far: {0}; not starting, since addresses would be given twice")]
    Leases(#[from] crate::LeaseLogError),
    /// The system refused something basic.
    #[error("{service}: cannot start: {source}")]
    System {
        /// The service.
        service: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// Transport of a port.
#[derive(Clone, Copy)]
pub(crate) enum Transport {
    Udp,
    Tcp,
}

/// Opens a UDP socket on `address`, on one interface only when named.
pub(crate) fn udp(service: &'static str, address: SocketAddr, interface: Option<&str>) -> Result<Socket, StartError> {
    let open = || -> io::Result<Socket> {
        let socket = Socket::new(
            Domain::for_address(address),
            Type::DGRAM.nonblocking(),
            Some(Protocol::UDP),
        )?;
        if let Some(name) = interface {
            socket.bind_device(Some(name.as_bytes()))?;
            // Sockets of other interfaces on the same port: each is bound to its own device.
            socket.set_reuse_address(true)?;
        }
        grow_receive_buffer(&socket);
        socket.bind(&address.into())?;
        Ok(socket)
    };
    open().map_err(|source| explain(service, Transport::Udp, address, interface, source))
}

/// Opens a listening TCP socket on `address`, one of several on the same port when `shared`.
pub(crate) fn tcp(service: &'static str, address: SocketAddr) -> Result<Socket, StartError> {
    let open = || -> io::Result<Socket> {
        let socket = Socket::new(
            Domain::for_address(address),
            Type::STREAM.nonblocking(),
            Some(Protocol::TCP),
        )?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.bind(&address.into())?;
        // A rack that powers on connects in one moment.
        socket.listen(4096)?;
        Ok(socket)
    };
    open().map_err(|source| explain(service, Transport::Tcp, address, None, source))
}

/// Makes room for a rack's worth of requests; beyond `net.core.rmem_max` only root may.
pub(crate) fn grow_receive_buffer(socket: &Socket) {
    use nix::sys::socket::{setsockopt, sockopt::RcvBufForce};
    if setsockopt(socket, RcvBufForce, &RECEIVE_BUFFER).is_err() && socket.set_recv_buffer_size(RECEIVE_BUFFER).is_err()
    {
        tracing::debug!("receive buffer keeps its default size");
    }
}

fn explain(
    service: &'static str,
    transport: Transport,
    address: SocketAddr,
    interface: Option<&str>,
    source: io::Error,
) -> StartError {
    let hint = match source.kind() {
        io::ErrorKind::AddrInUse => match holder(transport, address.port()) {
            Some(who) => format!("{who} holds port {}: stop it or give it another port", address.port()),
            None => format!("another program holds port {}: stop it", address.port()),
        },
        io::ErrorKind::AddrNotAvailable => {
            format!(
                "no interface here has the address {}: check the configured address",
                address.ip()
            )
        }
        io::ErrorKind::PermissionDenied => "ports below 1024 need root or CAP_NET_BIND_SERVICE".to_owned(),
        io::ErrorKind::NotFound => "check the interface's name".to_owned(),
        _ if source.raw_os_error() == Some(nix::libc::ENODEV) => {
            "there is no such interface: check its name".to_owned()
        }
        _ => "check the network configuration".to_owned(),
    };
    StartError::Bind {
        service,
        address,
        interface: interface.map(str::to_owned),
        source,
        hint,
    }
}

/// Names a process that holds `port`, for the error text. Sees other users' processes only as root.
fn holder(transport: Transport, port: u16) -> Option<String> {
    let tables = match transport {
        Transport::Udp => ["/proc/thread-self/net/udp", "/proc/net/udp6"],
        Transport::Tcp => ["/proc/thread-self/net/tcp", "/proc/net/tcp6"],
    };
    let inodes: Vec<String> = tables
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|text| {
            text.lines()
                .skip(1)
                .filter_map(|line| inode_of(line, transport, port))
                .collect::<Vec<_>>()
        })
        .collect();
    let links: Vec<String> = inodes.iter().map(|inode| format!("socket:[{inode}]")).collect();
    fs::read_dir("/proc").ok()?.flatten().find_map(|process| {
        let pid: u32 = process.file_name().to_str()?.parse().ok()?;
        let holds = fs::read_dir(process.path().join("fd"))
            .ok()?
            .flatten()
            .any(|fd| fs::read_link(fd.path()).is_ok_and(|link| links.iter().any(|wanted| Path::new(wanted) == link)));
        let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
        holds.then(|| format!("{} (process {pid})", name.trim()))
    })
}

/// The inode in a line of `/proc/thread-self/net/{udp,tcp}` that is about `port`: fields sl, local, remote, state, ..., inode (9).
fn inode_of(line: &str, transport: Transport, port: u16) -> Option<String> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let local = fields.get(1)?.rsplit_once(':')?.1;
    let listening = match transport {
        Transport::Udp => true,
        Transport::Tcp => *fields.get(3)? == "0A",
    };
    let matches = listening && u16::from_str_radix(local, 16) == Ok(port);
    matches.then(|| fields.get(9).map(|&inode| inode.to_owned()))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_program_that_holds_the_port() {
        let first = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let error = udp("TFTP", first.local_addr().unwrap(), None).unwrap_err().to_string();
        let me = format!("(process {})", std::process::id());
        assert!(error.starts_with("TFTP: cannot listen on 127.0.0.1:"), "{error}");
        assert!(error.contains(&me), "{error}");
    }

    #[test]
    fn says_that_an_address_is_not_ours() {
        let error = tcp("boot HTTP", "192.0.2.1:0".parse().unwrap())
            .unwrap_err()
            .to_string();
        assert!(error.contains("no interface here has the address 192.0.2.1"), "{error}");
    }

    #[test]
    fn says_that_an_interface_does_not_exist() {
        let error = udp("DHCP", "0.0.0.0:0".parse().unwrap(), Some("nosuch0"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("nosuch0"), "{error}");
    }
}

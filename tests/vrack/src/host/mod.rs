//! A simulated host: smoltcp on a switch port, offered as ordinary async Rust. [`TcpStream`] implements tokio's
//! `AsyncRead` and `AsyncWrite`, so rustls, an HTTP server or a relay runs on it unchanged.
//!
//! ```no_run
//! use rackbar_model::MacAddr;
//! use rackbar_vrack::host::{Host, HostConfig, Ipv4};
//! use rackbar_vrack::switch::{PortConfig, Switch};
//!
//! async fn serve(switch: Switch) -> std::io::Result<()> {
//!     let port = switch.port(PortConfig::access("Ethernet1/9", "bmc of n1", 20));
//!     let host = Host::new(port, HostConfig::new(MacAddr([2, 0, 0, 0, 0, 9]), Ipv4::dhcp("bmc-n1")));
//!     let bound = host.address().await;
//!     let mut listener = host.listen(443, 8)?;
//!     let (stream, peer) = listener.accept().await?;
//!     // `stream` is AsyncRead + AsyncWrite: hand it to rustls or an HTTP server.
//!     drop((bound, stream, peer));
//!     Ok(())
//! }
//! ```

mod relay;
mod stack;
mod tcp;
mod udp;

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;

use rackbar_model::MacAddr;
use tokio::sync::watch;

pub use relay::{Relay, relay};
pub use tcp::{TcpListener, TcpStream};
pub use udp::UdpSocket;

use crate::switch::{Port, PortId, Tasks};
use stack::Shared;

/// How a host comes to its IPv4 address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ipv4 {
    /// Written down.
    Static {
        /// The host's address.
        address: Ipv4Addr,
        /// Prefix length, 0 to 32.
        prefix: u8,
        /// Default router.
        gateway: Option<Ipv4Addr>,
    },
    /// From a DHCP server.
    Dhcp {
        /// Sent as option 12; BMCs send such names.
        hostname: String,
    },
}

impl Ipv4 {
    /// A written-down address without a router.
    pub fn fixed(address: Ipv4Addr, prefix: u8) -> Self {
        Self::Static {
            address,
            prefix,
            gateway: None,
        }
    }

    /// The configuration in force from the start, if it does not come by DHCP.
    fn written_down(&self) -> Option<Bound> {
        match *self {
            Self::Static {
                address,
                prefix,
                gateway,
            } => Some(Bound {
                address,
                prefix,
                gateway,
                server: None,
            }),
            Self::Dhcp { .. } => None,
        }
    }

    /// An address by DHCP.
    pub fn dhcp(hostname: impl Into<String>) -> Self {
        Self::Dhcp {
            hostname: hostname.into(),
        }
    }
}

/// What a host is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HostConfig {
    /// Its hardware address.
    pub mac: MacAddr,
    /// Its IPv4 configuration.
    pub ipv4: Ipv4,
}

impl HostConfig {
    /// A host with one interface.
    pub fn new(mac: MacAddr, ipv4: Ipv4) -> Self {
        Self { mac, ipv4 }
    }
}

/// An IPv4 configuration in force.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bound {
    /// The host's address.
    pub address: Ipv4Addr,
    /// Prefix length.
    pub prefix: u8,
    /// Default router.
    pub gateway: Option<Ipv4Addr>,
    /// The DHCP server it came from; `None` when written down.
    pub server: Option<Ipv4Addr>,
}

/// A simulated host. Clones share it; it leaves the network when the last clone is gone, and its sockets then end.
#[derive(Clone)]
pub struct Host {
    shared: Arc<Shared>,
    mac: MacAddr,
    port: PortId,
    bound: watch::Receiver<Option<Bound>>,
    _tasks: Arc<Tasks>,
}

impl Host {
    /// Puts a host on a switch port. Must be called inside a tokio runtime.
    pub fn new(port: Port, config: HostConfig) -> Self {
        let tasks = Arc::new(Tasks::default());
        let (report, bound) = watch::channel(config.ipv4.written_down());
        let (mac, id) = (config.mac, port.id());
        let shared = Arc::new(Shared::new(&config));
        tasks.spawn(stack::run(Arc::clone(&shared), port, report));
        Self {
            shared,
            mac,
            port: id,
            bound,
            _tasks: tasks,
        }
    }

    /// Its hardware address.
    pub fn mac(&self) -> MacAddr {
        self.mac
    }

    /// The switch port it sits on.
    pub fn port(&self) -> PortId {
        self.port
    }

    /// Its present configuration, `None` while it has no address.
    pub fn bound(&self) -> Option<Bound> {
        *self.bound.borrow()
    }

    /// Waits until the host has an address.
    pub async fn address(&self) -> Bound {
        let mut bound = self.bound.clone();
        let now = bound.wait_for(Option::is_some).await.ok().and_then(|bound| *bound);
        match now {
            Some(bound) => bound,
            None => std::future::pending().await,
        }
    }

    /// Follows the configuration as DHCP gives and takes it.
    pub fn watch_address(&self) -> watch::Receiver<Option<Bound>> {
        self.bound.clone()
    }

    /// Gives it another IPv4 configuration, as a person does who types it in.
    pub fn set_ipv4(&self, ipv4: &Ipv4) {
        self.shared.set_ipv4(ipv4);
    }

    /// Accepts TCP connections on a port of this host.
    ///
    /// # Errors
    /// When `port` is 0.
    pub fn listen(&self, port: u16, backlog: usize) -> io::Result<TcpListener> {
        TcpListener::bind(self.clone(), port, backlog)
    }

    /// Opens a TCP connection from this host.
    ///
    /// # Errors
    /// When the peer refuses or does not answer within 10 s, or the host has no address.
    pub async fn connect(&self, to: SocketAddrV4) -> io::Result<TcpStream> {
        TcpStream::connect(self.clone(), to).await
    }

    /// Binds a UDP port; 0 takes a free one.
    ///
    /// # Errors
    /// When the port is taken on this host.
    pub fn udp(&self, port: u16) -> io::Result<UdpSocket> {
        UdpSocket::bind(self.clone(), port)
    }
}

//! A DHCP client: smoltcp's state machine over a raw socket of our own.
//!
//! The kernel cannot receive a reply sent to an address it does not have yet, so the exchange runs on raw frames. The
//! client's identifier is its MAC address (RFC 2132 option 61, type 1).

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use rackbar_model::MacAddr;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::socket::dhcpv4::{Event, RetryConfig, Socket};
use smoltcp::time::{Duration as SmolDuration, Instant as SmolInstant};
use smoltcp::wire::{DhcpOption, EthernetAddress, HardwareAddress, IpCidr};

use crate::packet::PacketDevice;
use crate::{Error, Link, Prefix};

/// Who asks for an address. The appliance's own DHCP server gives these an address only, no boot file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// The agent of a node.
    Agent,
    /// The appliance's uplink.
    Appliance,
}

/// Option 77, user class, as plain text: the form of iPXE and of most servers, not the counted one of RFC 3004.
const USER_CLASS: u8 = 77;
static AGENT: [DhcpOption<'static>; 1] = [DhcpOption {
    kind: USER_CLASS,
    data: b"rackbar-agent",
}];
static APPLIANCE: [DhcpOption<'static>; 1] = [DhcpOption {
    kind: USER_CLASS,
    data: b"rackbar-appliance",
}];

/// What a server gave us.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lease {
    /// Our address.
    pub address: Ipv4Addr,
    /// Prefix length of its network.
    pub prefix_length: u8,
    /// Default router.
    pub router: Option<Ipv4Addr>,
    /// Name servers.
    pub dns: Vec<Ipv4Addr>,
    /// The server's identifier (option 54).
    pub server: Ipv4Addr,
}

impl Lease {
    /// Address and prefix length together.
    pub fn prefix(&self) -> Prefix {
        Prefix {
            address: self.address.into(),
            length: self.prefix_length,
        }
    }
}

/// A change of our lease.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DhcpEvent {
    /// A lease is in force; also sent when a renewal changed it.
    Bound(Lease),
    /// The lease ran out or was taken back: remove its address. The client goes on asking.
    Lost,
}

/// A client on one interface. It works while [`DhcpClient::next_event`] is being called; renewals happen there too,
/// so call it all the time.
pub struct DhcpClient {
    device: PacketDevice,
    interface: Interface,
    sockets: SocketSet<'static>,
    handle: SocketHandle,
    started: Instant,
    lease: Option<Lease>,
}

impl DhcpClient {
    /// Opens the raw socket on `link`, which must be up to be of use.
    pub fn open(link: &Link, purpose: Purpose) -> Result<Self, Error> {
        let what = || format!("starting DHCP on {}", link.name);
        let mac = link.mac.filter(MacAddr::is_unicast).ok_or_else(|| {
            // smoltcp panics when given another address.
            Error::new(
                format!("{}: it has no usable MAC address", what()),
                nix::errno::Errno::EADDRNOTAVAIL,
            )
        })?;
        let mut device = PacketDevice::open(link.index).map_err(|e| Error::new(what(), e))?;
        let hardware = HardwareAddress::Ethernet(EthernetAddress(mac.0));
        let mut config = Config::new(hardware);
        config.random_seed = seed(mac);
        let interface = Interface::new(config, &mut device, SmolInstant::ZERO);
        let mut socket = Socket::new();
        socket.set_outgoing_options(match purpose {
            Purpose::Agent => &AGENT,
            Purpose::Appliance => &APPLIANCE,
        });
        socket.set_retry_config(retries());
        let mut sockets = SocketSet::new(Vec::new());
        let handle = sockets.add(socket);
        Ok(Self {
            device,
            interface,
            sockets,
            handle,
            started: Instant::now(),
            lease: None,
        })
    }

    /// The lease in force.
    pub fn lease(&self) -> Option<&Lease> {
        self.lease.as_ref()
    }

    /// Works for at most `timeout`; returns early with the next event.
    pub fn next_event(&mut self, timeout: Duration) -> Result<Option<DhcpEvent>, Error> {
        let deadline = Instant::now() + timeout;
        loop {
            self.interface.poll(self.now(), &mut self.device, &mut self.sockets);
            if let Some(event) = self.take_event() {
                return Ok(Some(event));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            let delay = self
                .interface
                .poll_delay(self.now(), &self.sockets)
                .map_or(left, Duration::from);
            self.device
                .wait(delay.min(left))
                .map_err(|e| Error::new("waiting for a DHCP reply", e))?;
        }
    }

    fn now(&self) -> SmolInstant {
        SmolInstant::from_micros(i64::try_from(self.started.elapsed().as_micros()).unwrap_or(i64::MAX))
    }

    fn take_event(&mut self) -> Option<DhcpEvent> {
        let socket = self.sockets.get_mut::<Socket>(self.handle);
        match socket.poll()? {
            Event::Configured(config) => {
                let (address, router) = (config.address, config.router);
                let lease = Lease {
                    address: address.address(),
                    prefix_length: address.prefix_len(),
                    router,
                    dns: config.dns_servers.iter().copied().collect(),
                    server: config.server.identifier,
                };
                // Renewals go to the server as unicast: this stack needs the address and the way there.
                self.interface.update_ip_addrs(|addresses| {
                    addresses.clear();
                    let _ = addresses.push(IpCidr::Ipv4(address));
                });
                self.interface.routes_mut().remove_default_ipv4_route();
                if let Some(router) = router {
                    let _ = self.interface.routes_mut().add_default_ipv4_route(router);
                }
                let changed = self.lease.as_ref() != Some(&lease);
                self.lease = Some(lease.clone());
                changed.then_some(DhcpEvent::Bound(lease))
            }
            Event::Deconfigured => {
                self.interface.update_ip_addrs(|addresses| addresses.clear());
                self.interface.routes_mut().remove_default_ipv4_route();
                // smoltcp reports this once at the start as well, when there is nothing to lose.
                self.lease.take().map(|_| DhcpEvent::Lost)
            }
        }
    }
}

/// smoltcp first waits 10 s before it asks again. In a rack that is powered on all at once the first discover is
/// often lost to a link or a switch port that is not ready, and the server is one hop away.
fn retries() -> RetryConfig {
    let mut retries = RetryConfig::default();
    retries.discover_timeout = SmolDuration::from_millis(2_000);
    retries.initial_request_timeout = SmolDuration::from_millis(1_500);
    retries.request_retries = 4;
    retries.min_renew_timeout = SmolDuration::from_secs(30);
    retries.max_renew_timeout = SmolDuration::from_secs(600);
    retries
}

/// Transaction numbers must differ between machines and boots; the MAC address and the moment see to that.
fn seed(mac: MacAddr) -> u64 {
    let [a, b, c, d, e, f] = mac.0;
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    u64::from_be_bytes([0, 0, a, b, c, d, e, f]).rotate_left(17) ^ now.as_nanos() as u64
}

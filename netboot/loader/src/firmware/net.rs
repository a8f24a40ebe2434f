//! Our own IPv4 and TCP over one interface: the firmware's is slow, and different on every machine.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use core::net::Ipv4Addr;

use rackbar_loader::fetch::Transport;
use rackbar_loader::packet::BootPacket;
use rackbar_loader::server::Server;
use smoltcp::iface::{Config, Interface, PollIngressSingleResult, SocketHandle, SocketSet};
use smoltcp::socket::{dhcpv4, tcp};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{DhcpOption, EthernetAddress, HardwareAddress, IpCidr, Ipv4Cidr};

use super::clock::Clock;
use super::nic::Nic;
use super::random::Random;

/// Receive window: fills 10 Gbit/s at 0.4 ms, and gives 50 MB/s through a relay 10 ms away. Very large ones are said to
/// make senders retransmit (smoltcp #949); with this one, 65 MB came without a single retransmission.
const RECEIVE_WINDOW: usize = 512 << 10;
const SEND_WINDOW: usize = 8 << 10;
/// Frames taken in before acknowledgements go out.
const BURST: usize = 16;
const CONNECT_MILLIS: u64 = 5_000;

/// An interface's addresses.
#[derive(Clone, Copy)]
pub(super) struct Addresses {
    pub(super) address: Ipv4Addr,
    pub(super) prefix: u8,
    pub(super) router: Option<Ipv4Addr>,
}

/// IPv4 over one interface, with one TCP connection at a time.
pub(super) struct Stack {
    nic: Nic,
    interface: Interface,
    sockets: SocketSet<'static>,
    tcp: SocketHandle,
    clock: Clock,
    random: Random,
    server: Option<Server>,
    /// How long the server may be silent, in milliseconds.
    pub(super) patience_millis: u64,
}

impl Stack {
    pub(super) fn new(mut nic: Nic, clock: Clock, mut random: Random) -> Self {
        let mut config = Config::new(HardwareAddress::Ethernet(EthernetAddress(nic.mac().0)));
        config.random_seed = random.number();
        let interface = Interface::new(config, &mut nic, now(clock));
        let buffer = |size| tcp::SocketBuffer::new(vec![0; size]);
        let mut sockets = SocketSet::new(vec![]);
        let tcp = sockets.add(tcp::Socket::new(buffer(RECEIVE_WINDOW), buffer(SEND_WINDOW)));
        Self {
            nic,
            interface,
            sockets,
            tcp,
            clock,
            random,
            server: None,
            patience_millis: 15_000,
        }
    }

    pub(super) fn nic(&mut self) -> &mut Nic {
        &mut self.nic
    }

    /// Uses `addresses` from now on.
    pub(super) fn configure(&mut self, addresses: Addresses) {
        self.interface.update_ip_addrs(|list| {
            list.clear();
            let _ = list.push(IpCidr::new(addresses.address.into(), addresses.prefix));
        });
        let routes = self.interface.routes_mut();
        routes.remove_default_ipv4_route();
        if let Some(router) = addresses.router {
            let _ = routes.add_default_ipv4_route(router);
        }
    }

    /// Connects to `server` from the next request on.
    pub(super) fn use_server(&mut self, server: Server) {
        self.server = Some(server);
    }

    /// Asks for an address as `rackbar-loader` for so long; uses it and gives the server's words.
    pub(super) fn ask_for_address(&mut self, millis: u64) -> Result<(Addresses, BootPacket), String> {
        const OPTIONS: &[DhcpOption<'static>] = &[DhcpOption {
            kind: 77,
            data: b"rackbar-loader",
        }];
        let mut packet = vec![0u8; 1500];
        let mut socket = dhcpv4::Socket::new();
        // smoltcp waits 10 s before it asks again: too long when the first packet met a port that did not forward yet.
        let mut retry = dhcpv4::RetryConfig::default();
        retry.discover_timeout = Duration::from_millis(1500);
        retry.initial_request_timeout = Duration::from_millis(1500);
        socket.set_retry_config(retry);
        socket.set_outgoing_options(OPTIONS);
        socket.set_parameter_request_list(&[1, 3, 6, 51, 54, 67]);
        socket.set_receive_packet_buffer(&mut packet);
        let mut sockets = SocketSet::new(vec![]);
        let dhcp = sockets.add(socket);
        let deadline = self.clock.millis() + millis;
        while self.clock.millis() < deadline {
            let now = now(self.clock);
            self.interface.poll(now, &mut self.nic, &mut sockets);
            let Some(dhcpv4::Event::Configured(found)) = sockets.get_mut::<dhcpv4::Socket>(dhcp).poll() else {
                continue;
            };
            let addresses = Addresses {
                address: found.address.address(),
                prefix: found.address.prefix_len(),
                router: found.router,
            };
            let words = found.packet.and_then(|packet| BootPacket::parse(packet.into_inner()));
            self.configure(addresses);
            return Ok((addresses, words.unwrap_or_default()));
        }
        Err(format!(
            "no DHCP server answered {} within {} s",
            self.nic.mac(),
            millis / 1000
        ))
    }

    /// Lets packets in and out once.
    fn step(&mut self) {
        let now = now(self.clock);
        for _ in 0..BURST {
            let result = self
                .interface
                .poll_ingress_single(now, &mut self.nic, &mut self.sockets);
            if matches!(result, PollIngressSingleResult::None) {
                break;
            }
        }
        self.interface.poll_maintenance(now);
        self.interface.poll_egress(now, &mut self.nic, &mut self.sockets);
    }

    fn socket(&mut self) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(self.tcp)
    }

    /// Says goodbye so that the server does not keep a dead connection.
    pub(super) fn close(&mut self) {
        self.socket().close();
        let deadline = self.clock.millis() + 200;
        while self.socket().is_open() && self.clock.millis() < deadline {
            self.step();
        }
        self.socket().abort();
        self.step();
    }

    /// The words for a server that does not answer.
    fn unreachable(&self) -> String {
        let server = self.server.map(|server| server.to_string()).unwrap_or_default();
        match self.interface.ipv4_addr() {
            Some(address) => format!("no connection from {address} to the boot server {server}"),
            None => format!("no address to reach the boot server {server} from"),
        }
    }
}

impl Transport for Stack {
    fn connect(&mut self) -> Result<(), String> {
        let server = self.server.ok_or("no boot server is known")?;
        self.socket().abort();
        self.step();
        // A port not used just before: the server may still wait for the end of an earlier connection.
        let local = 49152 + (self.random.number() % 16384) as u16;
        let context = self.interface.context();
        let socket = self.sockets.get_mut::<tcp::Socket>(self.tcp);
        socket.set_nagle_enabled(false);
        socket.set_keep_alive(Some(Duration::from_secs(5)));
        socket
            .connect(context, (server.address, server.port), local)
            .map_err(|error| format!("cannot connect to {server}: {error}"))?;
        let deadline = self.clock.millis() + CONNECT_MILLIS;
        while !self.socket().may_send() {
            if !self.socket().is_open() || self.clock.millis() > deadline {
                let refused = !self.socket().is_open();
                self.socket().abort();
                self.step();
                let how = if refused { ": refused" } else { "" };
                return Err(format!("{}{how}", self.unreachable()));
            }
            self.step();
        }
        Ok(())
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), String> {
        let mut rest = bytes;
        let deadline = self.clock.millis() + self.patience_millis;
        while !rest.is_empty() {
            let sent = self
                .socket()
                .send_slice(rest)
                .map_err(|_| "the boot server closed the connection")?;
            rest = rest.get(sent..).unwrap_or_default();
            self.step();
            if self.clock.millis() > deadline {
                return Err("the boot server takes no more".to_string());
            }
        }
        Ok(())
    }

    fn receive(&mut self, take: &mut dyn FnMut(&[u8]) -> usize) -> Result<bool, String> {
        let deadline = self.clock.millis() + self.patience_millis;
        loop {
            self.step();
            let socket = self.socket();
            if socket.can_recv() {
                return socket
                    .recv(|bytes| (take(bytes), true))
                    .map_err(|error| format!("the connection broke: {error}"));
            }
            if !socket.may_recv() {
                return match socket.state() {
                    tcp::State::Closed => Err("the connection to the boot server was reset".into()),
                    _ => Ok(false),
                };
            }
            if self.clock.millis() > deadline {
                return Err(format!(
                    "the boot server was silent for {} s",
                    self.patience_millis / 1000
                ));
            }
        }
    }
}

fn now(clock: Clock) -> Instant {
    Instant::from_micros(clock.micros() as i64)
}

/// An address and a prefix as DHCP people write it.
impl core::fmt::Display for Addresses {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        Ipv4Cidr::new(self.address, self.prefix).fmt(f)
    }
}

//! The words of the stories: a network, clients as they really speak, and traces that read like a capture.

#![allow(
    unreachable_pub,
    dead_code,
    clippy::unwrap_used,
    reason = "each test file uses a part; a test's words may unwrap"
)]

use std::net::{Ipv4Addr, SocketAddrV4};

use rackbar_dhcp::packet::{DhcpOption as Opt, Message, MessageType, Packet, Text, code};
use rackbar_dhcp::{Config, Destination, Engine, Input, Interface, InterfaceId, Mode, Network, Output, Range};
use rackbar_model::{EventKind, Lease, LeaseState, MacAddr, Timestamp};

pub const PORT: InterfaceId = InterfaceId(2);
pub const OWN_MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0xaa, 0, 1]);
pub const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
pub const FOREIGN: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 254);
pub const NOWHERE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 68);
/// 2026-11-20, so that no test lives at the epoch.
pub const START: u64 = 1_795_000_000_000;

pub fn mac(n: u16) -> MacAddr {
    let [a, b] = n.to_be_bytes();
    MacAddr([0x52, 0x54, 0, 0, a, b])
}

pub fn ip(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, last)
}

/// Network `rack`, 10.0.0.0/24, pool .100 to .109.
pub fn rack(mode: Mode) -> Network {
    let interface = Interface { id: PORT, mac: OWN_MAC };
    let pool = Range {
        first: ip(100),
        last: ip(109),
    };
    let mut network = Network::new("rack", Some(interface), SERVER, 24, pool);
    network.mode = mode;
    network.gateways = vec![ip(254)];
    network.dns = vec![ip(1)];
    network.lease_seconds = 600;
    network
}

pub fn config(network: Network) -> Config {
    Config {
        networks: vec![network],
        ..Config::default()
    }
}

/// An engine under a clock, with everything it said.
pub struct Rig {
    pub engine: Engine,
    pub now: Timestamp,
    pub out: Vec<Output>,
}

impl Rig {
    pub fn new(config: Config) -> Self {
        Self::with_leases(config, [])
    }

    pub fn with_leases(config: Config, leases: impl IntoIterator<Item = Lease>) -> Self {
        let engine = Engine::new(config, leases);
        let mut rig = Self {
            engine,
            now: Timestamp(START),
            out: Vec::new(),
        };
        rig.tick();
        rig.out.clear();
        rig
    }

    /// A server on `rack` that probes nothing: for stories about something else.
    pub fn own() -> Self {
        let mut config = config(rack(Mode::Own));
        config.limits.probes = 0;
        Self::new(config)
    }

    pub fn tick(&mut self) {
        self.engine.handle(self.now, Input::Tick, &mut self.out);
    }

    /// Lets time pass, waking the engine at each of its deadlines.
    pub fn wait(&mut self, millis: u64) {
        let until = self.now.plus(millis);
        while let Some(due) = self.engine.deadline().filter(|due| *due <= until) {
            self.now = self.now.max(due);
            self.tick();
        }
        self.now = until;
        self.tick();
    }

    pub fn packet(&mut self, local_port: u16, source: SocketAddrV4, bytes: &[u8]) {
        let input = Input::Packet {
            interface: PORT,
            source,
            local_port,
            bytes,
        };
        self.engine.handle(self.now, input, &mut self.out);
    }

    /// A client without an address speaks.
    pub fn hear(&mut self, bytes: &[u8]) {
        self.packet(67, NOWHERE, bytes);
    }

    /// What was said since the last look, one line each, without events.
    pub fn said(&mut self) -> Vec<String> {
        self.out.drain(..).filter_map(|output| line(&output)).collect()
    }

    /// The events since the last look; forgets everything else.
    pub fn told(&mut self) -> Vec<EventKind> {
        let event = |output| {
            if let Output::Event { kind, .. } = output {
                Some(kind)
            } else {
                None
            }
        };
        self.out.drain(..).filter_map(event).collect()
    }

    /// The one datagram sent since the last look.
    pub fn sent(&mut self) -> Sent {
        let mut sent: Vec<_> = self.out.drain(..).filter_map(Sent::of).collect();
        assert_eq!(sent.len(), 1, "one datagram expected");
        sent.remove(0)
    }

    /// DISCOVER, OFFER, REQUEST, ACK of a client that asks as `client` says; the address it got.
    pub fn lease(&mut self, client: &Client<'_>) -> Ipv4Addr {
        self.out.clear();
        self.hear(&client.discover());
        self.wait(1000);
        let offered = self.sent().packet().yiaddr();
        self.hear(&client.request(offered, SERVER));
        let ack = self.sent();
        assert_eq!(ack.packet().message_type(), Some(MessageType::Ack));
        ack.packet().yiaddr()
    }
}

/// A datagram we sent.
#[derive(Debug)]
pub struct Sent {
    pub source: SocketAddrV4,
    pub destination: Destination,
    pub bytes: Vec<u8>,
}

impl Sent {
    fn of(output: Output) -> Option<Self> {
        match output {
            Output::Send {
                source,
                destination,
                bytes,
                ..
            } => Some(Self {
                source,
                destination,
                bytes,
            }),
            Output::Commit(_) | Output::Probe { .. } | Output::Event { .. } | Output::Learnt { .. } => None,
        }
    }

    pub fn packet(&self) -> Packet<'_> {
        Packet::new(&self.bytes).unwrap()
    }

    pub fn text(&self, code: u8) -> String {
        self.packet()
            .option(code)
            .map(|value| Text(&value).to_string())
            .unwrap_or_default()
    }

    pub fn has(&self, code: u8) -> bool {
        self.packet().first(code).is_some()
    }
}

/// One output as a line of a trace.
fn line(output: &Output) -> Option<String> {
    Some(match output {
        Output::Commit(lease) => {
            let state = match lease.state {
                LeaseState::Bound => "bound",
                LeaseState::Released => "released",
                LeaseState::Abandoned => "abandoned",
            };
            format!("commit {} {state}", lease.address)
        }
        Output::Probe { address, .. } => format!("probe {address}"),
        Output::Send { destination, bytes, .. } => {
            let packet = Packet::new(bytes).unwrap();
            let to = match destination {
                Destination::RawTo { mac, .. } => format!("raw {mac}"),
                Destination::Broadcast => "all".to_owned(),
                Destination::Unicast(to) => to.to_string(),
            };
            let kind = packet
                .message_type()
                .map(|kind| format!("{kind:?}").to_lowercase())
                .unwrap_or_default();
            format!("{kind} {} to {to}", packet.yiaddr())
        }
        Output::Event { .. } | Output::Learnt { .. } => return None,
    })
}

/// A client program with the options it sends.
#[derive(Clone)]
pub struct Client<'a> {
    pub mac: MacAddr,
    pub xid: u32,
    pub broadcast: bool,
    pub options: Vec<Opt<'a>>,
}

const UUID: [u8; 17] = [
    0, 0x44, 0x45, 0x4c, 0x4c, 0x51, 0, 0x10, 0x36, 0x80, 0x52, 0xb8, 0xc0, 0x4f, 0x35, 0x4a, 0x32,
];
const EDK2_WANTS: [u8; 35] = [
    1, 2, 3, 4, 5, 6, 12, 13, 15, 17, 18, 22, 23, 28, 40, 41, 42, 43, 50, 51, 54, 58, 59, 60, 66, 67, 97, 128, 129,
    130, 131, 132, 133, 134, 135,
];

impl<'a> Client<'a> {
    fn new(mac: MacAddr, xid: u32, options: Vec<Opt<'a>>) -> Self {
        Self {
            mac,
            xid,
            broadcast: false,
            options,
        }
    }

    /// EDK2's PXE (OVMF): client identifier is the UUID, broadcast flag set.
    pub fn edk2(mac: MacAddr) -> Self {
        let options = vec![
            Opt::MaxSize(1472),
            Opt::Other(code::PARAMETERS, &EDK2_WANTS),
            Opt::Other(code::MACHINE_ID, &UUID),
            Opt::Other(code::INTERFACE_ID, &[1, 3, 0]),
            Opt::Arch(7),
            Opt::VendorClass("PXEClient:Arch:00007:UNDI:003000"),
            Opt::Other(code::CLIENT_ID, &UUID),
        ];
        Self {
            broadcast: true,
            ..Self::new(mac, 0xed20_0001, options)
        }
    }

    /// EDK2's HTTP Boot.
    pub fn edk2_http(mac: MacAddr) -> Self {
        let options = vec![
            Opt::MaxSize(1472),
            Opt::Other(code::PARAMETERS, &[1, 3, 6, 12, 15, 43, 54, 60, 66, 67, 97]),
            Opt::Other(code::MACHINE_ID, &UUID),
            Opt::Other(code::INTERFACE_ID, &[1, 3, 0]),
            Opt::Arch(16),
            Opt::VendorClass("HTTPClient:Arch:00016:UNDI:003000"),
        ];
        Self {
            broadcast: true,
            ..Self::new(mac, 0xed20_0002, options)
        }
    }

    /// iPXE as a BIOS ROM.
    pub fn ipxe(mac: MacAddr) -> Self {
        let options = vec![
            Opt::MaxSize(1472),
            Opt::Arch(0),
            Opt::Other(code::INTERFACE_ID, &[1, 2, 1]),
            Opt::VendorClass("PXEClient:Arch:00000:UNDI:002001"),
            Opt::Other(code::USER_CLASS, b"iPXE"),
            Opt::Other(
                code::PARAMETERS,
                &[1, 3, 6, 7, 12, 15, 17, 26, 43, 60, 66, 67, 119, 128, 175, 203],
            ),
            Opt::Other(
                code::IPXE,
                &[0xb1, 5, 1, 0x80, 0x86, 0x10, 0x0e, 0xeb, 3, 1, 0, 0, 23, 1, 1, 19, 1, 1],
            ),
            Opt::Other(code::MACHINE_ID, &UUID),
        ];
        Self::new(mac, 0x1e_0001, options)
    }

    /// An old BIOS ROM (Intel Boot Agent).
    pub fn old_rom(mac: MacAddr) -> Self {
        let options = vec![
            Opt::Other(
                code::PARAMETERS,
                &[1, 3, 43, 54, 60, 66, 67, 128, 129, 130, 131, 132, 133, 134, 135],
            ),
            Opt::MaxSize(1260),
            Opt::Other(code::MACHINE_ID, &UUID),
            Opt::Arch(0),
            Opt::Other(code::INTERFACE_ID, &[1, 2, 1]),
            Opt::VendorClass("PXEClient:Arch:00000:UNDI:002001"),
        ];
        Self {
            broadcast: true,
            ..Self::new(mac, 0x4949_0001, options)
        }
    }

    /// isc-dhclient of Debian: no identifier unless told to.
    pub fn dhclient(mac: MacAddr) -> Self {
        let wants = Opt::Other(code::PARAMETERS, &[1, 28, 2, 3, 15, 6, 119, 12, 44, 47, 26, 121, 42]);
        Self::new(mac, 0xd4c1_0001, vec![Opt::HostName("debian"), wants])
    }

    /// An operating system that shows an RFC 4361 identifier.
    pub fn with_duid(mac: MacAddr, id: &'a [u8]) -> Self {
        Self::new(mac, 0x5d5d_0001, vec![Opt::Other(code::CLIENT_ID, id)])
    }

    /// BusyBox udhcpc: identifier spells the MAC.
    pub fn udhcpc(mac: MacAddr, id: &'a [u8; 7]) -> Self {
        let options = vec![
            Opt::Other(code::CLIENT_ID, id),
            Opt::MaxSize(576),
            Opt::Other(code::PARAMETERS, &[1, 3, 6, 12, 15, 28, 42]),
            Opt::VendorClass("udhcp 1.35.0"),
        ];
        Self::new(mac, 0x0d4c_0001, options)
    }

    /// Our own programs.
    pub fn rackbar(mac: MacAddr, class: &'a [u8]) -> Self {
        Self::new(mac, 0xac_0001, vec![Opt::Other(code::USER_CLASS, class)])
    }

    pub fn xid(self, xid: u32) -> Self {
        Self { xid, ..self }
    }

    pub fn message(&self, kind: MessageType, more: &[Opt<'a>]) -> Message<'a> {
        let mut message = Message::request(self.xid, self.mac);
        message.broadcast = self.broadcast;
        message.options.push(Opt::MessageType(kind));
        message.options.extend(more);
        message.options.extend(&self.options);
        message
    }

    pub fn discover(&self) -> Vec<u8> {
        encoded(&self.message(MessageType::Discover, &[]))
    }

    /// DISCOVER of a client that says how long it has been asking.
    pub fn discover_after(&self, seconds: u16) -> Vec<u8> {
        let mut message = self.message(MessageType::Discover, &[]);
        message.secs = seconds;
        encoded(&message)
    }

    /// SELECTING.
    pub fn request(&self, address: Ipv4Addr, server: Ipv4Addr) -> Vec<u8> {
        let more = [Opt::RequestedAddress(address), Opt::ServerId(server)];
        encoded(&self.message(MessageType::Request, &more))
    }

    /// INIT-REBOOT.
    pub fn reboot(&self, address: Ipv4Addr) -> Vec<u8> {
        encoded(&self.message(MessageType::Request, &[Opt::RequestedAddress(address)]))
    }

    /// RENEWING, REBINDING, and with other kinds RELEASE and INFORM.
    pub fn speaking_from(&self, kind: MessageType, address: Ipv4Addr) -> Vec<u8> {
        encoded(&Message {
            ciaddr: address,
            ..self.message(kind, &[])
        })
    }
}

pub fn encoded(message: &Message<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    message.encode(rackbar_dhcp::packet::MAX_MESSAGE, &mut out);
    out
}

/// What another server sends to everybody.
pub fn foreign_offer(to: MacAddr, address: Ipv4Addr) -> Vec<u8> {
    let mut message = Message::request(9, to);
    message.op = rackbar_dhcp::packet::Op::Reply;
    message.yiaddr = address;
    message.options = vec![Opt::MessageType(MessageType::Offer), Opt::ServerId(FOREIGN)];
    encoded(&message)
}

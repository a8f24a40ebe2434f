//! What goes into the engine and what comes out. The shell owns sockets, clocks and the store; it decides nothing.

use std::net::{Ipv4Addr, SocketAddrV4};

use rackbar_model::{EventKind, FirmwareHabit, Lease, MacAddr};

/// A network interface of the appliance, by its kernel index. The engine only compares it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct InterfaceId(pub u32);

/// Something the engine is told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Input<'a> {
    /// A datagram. The shell gives every one that arrives on 67 and 4011, and on 68 when it can: BOOTREPLYs of other
    /// servers (the answer to our own probe DISCOVER, or overheard broadcasts) show the engine who else serves here.
    Packet {
        /// Where it arrived.
        interface: InterfaceId,
        /// Who sent it, as in the IP and UDP headers.
        source: SocketAddrV4,
        /// The UDP port it arrived on: 67, 68 or 4011.
        local_port: u16,
        /// UDP payload.
        bytes: &'a [u8],
    },
    /// The outcome of an [`Output::Probe`]. Silence need not be reported: the engine's own deadline stands for it.
    ProbeResult {
        /// Where the probe was sent.
        interface: InterfaceId,
        /// The probed address.
        address: Ipv4Addr,
        /// The station that answered; `None` when nobody did.
        owner: Option<MacAddr>,
    },
    /// A boot file of ours was asked for by this machine over TFTP or HTTP: its firmware understood our answer.
    BootFileFetched {
        /// The machine's boot interface.
        mac: MacAddr,
    },
    /// This machine broke off TLS with us because it does not trust our certificate: HTTPS boot will not do.
    TlsRefused {
        /// The machine's boot interface.
        mac: MacAddr,
    },
    /// A person wants what was learnt of this machine's firmware forgotten: it was replaced, updated or set up anew.
    ForgetFirmware {
        /// The machine's boot interface.
        mac: MacAddr,
    },
    /// Nothing but time passed. Give it at the engine's deadline, and once at start.
    Tick,
}

/// Something the shell is to do. Outputs are carried out in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Output {
    /// Make this binding durable. Every [`Output::Send`] after it waits until it is.
    Commit(Lease),
    /// Send a datagram.
    Send {
        /// Where.
        interface: InterfaceId,
        /// Source address and port. Port 68 with address 0.0.0.0 is our own probe for other servers: send it as a raw
        /// frame or from a socket bound to port 68 of that interface, and give replies to port 68 back as packets.
        source: SocketAddrV4,
        /// To whom.
        destination: Destination,
        /// UDP payload. Give the buffer back with `Engine::recycle` to save an allocation.
        bytes: Vec<u8>,
    },
    /// Ask by ARP (RFC 5227 probe: sender address 0) whether somebody uses the address. Answer with
    /// [`Input::ProbeResult`] as soon as somebody does.
    Probe {
        /// Where to ask.
        interface: InterfaceId,
        /// The address in question.
        address: Ipv4Addr,
    },
    /// Record what was learnt of a machine's firmware, or that nothing is (`None`). Give it back with `Engine::recall`
    /// at the next start. Nothing waits for it: what a power cut loses is learnt again.
    Learnt {
        /// The machine's boot interface.
        mac: MacAddr,
        /// What replaces all that was recorded of it.
        habit: Option<FirmwareHabit>,
    },
    /// Tell what happened.
    Event {
        /// The client it is about.
        mac: Option<MacAddr>,
        /// What happened.
        kind: EventKind,
    },
}

/// Where a datagram goes (RFC 2131 section 4.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Destination {
    /// To a client that has no address yet and so cannot answer ARP: a raw Ethernet frame to `mac`, IP destination
    /// `ip`, UDP port 68.
    RawTo {
        /// Ethernet destination.
        mac: MacAddr,
        /// IP destination: the address being given.
        ip: Ipv4Addr,
    },
    /// 255.255.255.255, Ethernet broadcast; port 68, or 67 for our own probe.
    Broadcast,
    /// An ordinary datagram: a relay (port 67) or a client that has its address.
    Unicast(SocketAddrV4),
}

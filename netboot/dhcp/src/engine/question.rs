//! What a client's message says about the client.

use std::borrow::Cow;
use std::net::{Ipv4Addr, SocketAddrV4};

use rackbar_model::{ClientArch, MacAddr};

use crate::InterfaceId;
use crate::leases::Key;
use crate::packet::{Packet, Text, code, relay};

/// Longest text taken from a packet into an event or a lease, in octets: strangers write these.
const TEXT_LIMIT: usize = 128;

/// Which program of the boot chain speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Speaker {
    /// Nothing says it boots: an operating system, a BMC, a printer.
    Plain,
    /// A PXE ROM (option 60 `PXEClient`).
    Rom,
    /// UEFI HTTP Boot (option 60 `HTTPClient` and an HTTP architecture).
    HttpRom,
    /// iPXE or gPXE: user class, or Etherboot's option 175.
    Ipxe,
    /// Our UEFI loader.
    Loader,
    /// Our agent on a node.
    Agent,
}

impl Speaker {
    fn of(packet: &Packet<'_>, http_arch: bool) -> Self {
        // iPXE also sends option 60 `PXEClient`, so its own marks come first.
        if packet.has_user_class("rackbar-agent") {
            return Self::Agent;
        }
        if packet.has_user_class("rackbar-loader") {
            return Self::Loader;
        }
        let etherboot = packet.first(code::IPXE).is_some();
        if etherboot || packet.has_user_class("iPXE") || packet.has_user_class("gPXE") {
            return Self::Ipxe;
        }
        match packet.vendor_class() {
            Some(class) if class.starts_with(b"HTTPClient") && http_arch => Self::HttpRom,
            Some(class) if class.starts_with(b"PXEClient") && !http_arch => Self::Rom,
            _ => Self::Plain,
        }
    }
}

/// A client's message with where it came from.
#[derive(Clone, Debug)]
pub(super) struct Question<'a> {
    pub(super) packet: Packet<'a>,
    pub(super) interface: InterfaceId,
    pub(super) source: SocketAddrV4,
    pub(super) local_port: u16,
    pub(super) mac: MacAddr,
    pub(super) speaker: Speaker,
    /// The first architecture of option 93.
    pub(super) arch: Option<ClientArch>,
    sent_id: Option<Cow<'a, [u8]>>,
    id_counts: bool,
}

impl<'a> Question<'a> {
    /// Reads a message; `None` when it has no Ethernet address to answer to.
    pub(super) fn new(
        packet: Packet<'a>,
        interface: InterfaceId,
        source: SocketAddrV4,
        local_port: u16,
    ) -> Option<Self> {
        let mac = packet.mac()?;
        let arch = packet.archs().next();
        let speaker = Speaker::of(&packet, packet.archs().any(ClientArch::is_http));
        let boots = speaker != Speaker::Plain || arch.is_some() || packet.first(code::MACHINE_ID).is_some();
        let sent_id = packet.client_id();
        let spells_mac = sent_id
            .as_ref()
            .is_some_and(|id| id.len() == 7 && id[0] == 1 && id[1..] == mac.0);
        let id_counts = sent_id.is_some() && !boots && !spells_mac;
        Some(Self {
            packet,
            interface,
            source,
            local_port,
            mac,
            speaker,
            arch,
            sent_id,
            id_counts,
        })
    }

    /// The key of this client's binding.
    pub(super) fn key(&self) -> Key<'_> {
        let sent_id = self.sent_id.as_deref();
        Key {
            mac: self.mac,
            id: sent_id.filter(|_| self.id_counts),
            sent_id,
        }
    }

    /// The relay it came through.
    pub(super) fn relay(&self) -> Option<Ipv4Addr> {
        Some(self.packet.giaddr()).filter(|ip| !ip.is_unspecified())
    }

    /// An address of the subnet its relay passes it on from.
    pub(super) fn relayed_from(&self) -> Option<Ipv4Addr> {
        let relay = self.relay()?;
        let info = self.packet.sub_options(code::RELAY_INFO);
        let link: Option<[u8; 4]> = info.get(relay::LINK_SELECTION).and_then(|b| b.try_into().ok());
        Some(link.map_or(relay, Ipv4Addr::from))
    }

    /// The address the client has, as far as it says so.
    pub(super) fn ciaddr(&self) -> Option<Ipv4Addr> {
        Some(self.packet.ciaddr()).filter(|ip| !ip.is_unspecified())
    }

    /// The address in the IP header, when the client has one.
    pub(super) fn source_address(&self) -> Option<Ipv4Addr> {
        Some(*self.source.ip()).filter(|ip| !ip.is_unspecified())
    }

    /// An option as text for people.
    pub(super) fn text(&self, code: u8) -> Option<String> {
        let value = self.packet.option(code)?;
        // RFC 3004 counts its strings; the count is not part of the text.
        let text = match value.split_first() {
            Some((len, rest)) if code == code::USER_CLASS && usize::from(*len) == rest.len() => rest,
            _ => &value,
        };
        words(text)
    }
}

/// What a relay says of where a request came from: text as it is, and octets that are none (MAC addresses, numbers of
/// slots and ports) in hexadecimal, which a reader can compare with the switch's own display.
pub(super) fn relay_id(bytes: &[u8]) -> Option<String> {
    let bytes = bytes.get(..TEXT_LIMIT).unwrap_or(bytes);
    if bytes.iter().all(|b| b.is_ascii_graphic() || *b == b' ') {
        return words(bytes);
    }
    Some(bytes.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(":"))
}

/// Text for people out of an option's octets; `None` when nothing is in it.
pub(super) fn words(bytes: &[u8]) -> Option<String> {
    let text = Text(bytes.get(..TEXT_LIMIT).unwrap_or(bytes)).to_string();
    Some(text).filter(|text| !text.is_empty())
}

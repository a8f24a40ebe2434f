//! Building answers.

use std::net::{Ipv4Addr, SocketAddrV4};

use super::boot::BootAnswer;
use super::question::Question;
use crate::packet::{DhcpOption as Opt, Message, MessageType, code, ipxe, pxe};
use crate::{Destination, Network, Output};

/// An answer being put together.
pub(super) struct Reply<'a> {
    pub(super) network: &'a Network,
    pub(super) question: &'a Question<'a>,
    pub(super) kind: MessageType,
    /// The address given.
    pub(super) address: Option<Ipv4Addr>,
    /// Lease time in seconds; none for INFORM and proxy answers.
    pub(super) lease_seconds: Option<u32>,
    pub(super) boot: Option<&'a BootAnswer>,
    pub(super) hostname: Option<&'a str>,
    /// Option 56, why a NAK.
    pub(super) reason: Option<&'a str>,
}

impl Reply<'_> {
    /// Encodes it into `buffer` and says where it goes.
    pub(super) fn send(&self, mut buffer: Vec<u8>) -> Output {
        let packet = &self.question.packet;
        let sname = self.boot.and_then(|b| b.tftp_server).map(|ip| ip.to_string());
        let item = boot_item(self.question);
        let client_id = packet.option(code::CLIENT_ID);
        let machine_id = packet.option(code::MACHINE_ID);
        let relay_info = packet.option(code::RELAY_INFO);

        let mut message = Message::reply_to(packet);
        message.yiaddr = self.address.unwrap_or(Ipv4Addr::UNSPECIFIED);
        if self.kind != MessageType::Nak {
            message.ciaddr = packet.ciaddr();
        }
        // A NAK that travels through a relay is broadcast there: the client may believe in an address of another net.
        message.broadcast |= self.kind == MessageType::Nak && self.question.relay().is_some();
        let options = &mut message.options;
        options.extend([Opt::MessageType(self.kind), Opt::ServerId(self.network.server)]);
        if self.kind != MessageType::Nak {
            self.lease_options(options);
            if let Some(boot) = self.boot {
                boot_options(options, boot, &item);
            }
            self.network_options(options);
        }
        options.extend(self.reason.map(Opt::Message));
        if self.boot.is_some()
            && let Some(id) = &machine_id
        {
            options.push(Opt::Other(code::MACHINE_ID, id));
        }
        // RFC 6842: the client identifier comes back.
        if let Some(id) = &client_id {
            options.push(Opt::Other(code::CLIENT_ID, id));
        }
        if let Some(info) = &relay_info {
            options.push(Opt::Other(code::RELAY_INFO, info));
        }
        if let Some(boot) = self.boot {
            message.file = &boot.file;
            message.siaddr = boot.tftp_server.unwrap_or(self.network.server);
        }
        if let Some(name) = &sname {
            message.sname = name;
            message.options.insert(2, Opt::TftpServerName(name));
        }
        message.encode(packet.size_limit(), &mut buffer);
        Output::Send {
            interface: self.question.interface,
            source: SocketAddrV4::new(self.network.server, self.source_port()),
            destination: self.destination(),
            bytes: buffer,
        }
    }

    fn source_port(&self) -> u16 {
        if self.question.local_port == 4011 { 4011 } else { 67 }
    }

    /// RFC 2131 section 4.1, and PXE 2.1 section 2.2 for port 4011.
    fn destination(&self) -> Destination {
        let question = self.question;
        let nak = self.kind == MessageType::Nak;
        if question.local_port == 4011 && !question.source.ip().is_unspecified() {
            return Destination::Unicast(question.source);
        }
        if let Some(relay) = question.relay() {
            return Destination::Unicast(SocketAddrV4::new(relay, 67));
        }
        match (question.ciaddr(), self.address) {
            _ if nak => Destination::Broadcast,
            (Some(ip), _) => Destination::Unicast(SocketAddrV4::new(ip, 68)),
            _ if question.packet.broadcast() => Destination::Broadcast,
            (None, Some(ip)) => Destination::RawTo { mac: question.mac, ip },
            (None, None) => Destination::Broadcast,
        }
    }

    fn lease_options<'o>(&'o self, options: &mut Vec<Opt<'o>>) {
        let Some(seconds) = self.lease_seconds else { return };
        options.push(Opt::LeaseTime(seconds));
        // A client that asked for a shorter lease must not be told to renew after its end.
        options.extend(
            self.network
                .renew_seconds
                .filter(|t| *t < seconds)
                .map(Opt::RenewalTime),
        );
        options.extend(
            self.network
                .rebind_seconds
                .filter(|t| *t < seconds)
                .map(Opt::RebindingTime),
        );
    }

    /// Mask and gateway always; the rest when the client asks for it, or does not say what it wants. Proxy answers
    /// have none: the network is the other server's business.
    fn network_options<'o>(&'o self, options: &mut Vec<Opt<'o>>) {
        if self.address.is_none() && self.question.packet.message_type() != Some(MessageType::Inform) {
            return;
        }
        let wanted = self.question.packet.option(code::PARAMETERS);
        let wants = |code: u8| wanted.as_ref().is_none_or(|list| list.contains(&code));
        let network = self.network;
        options.extend([Opt::SubnetMask(network.mask()), Opt::Routers(&network.gateways)]);
        if wants(code::BROADCAST_ADDRESS) && network.prefix_len < 31 {
            options.push(Opt::BroadcastAddress(network.broadcast()));
        }
        if wants(code::DNS) {
            options.push(Opt::Dns(&network.dns));
        }
        if wants(code::DOMAIN_NAME) {
            options.extend(network.domain.as_deref().map(Opt::DomainName));
        }
        if wants(code::NTP) {
            options.push(Opt::Ntp(&network.ntp));
        }
        if wants(code::LOG) {
            options.push(Opt::Log(&network.log));
        }
        options.extend(self.hostname.map(Opt::HostName));
    }
}

fn boot_options<'o>(options: &mut Vec<Opt<'o>>, boot: &'o BootAnswer, item: &'o [u8]) {
    options.extend(boot.vendor_class.map(Opt::VendorClass));
    if boot.use_boot_file {
        options.push(Opt::Other(
            code::VENDOR_SPECIFIC,
            if item.is_empty() { pxe::USE_BOOT_FILE } else { item },
        ));
    }
    if boot.no_pxedhcp {
        options.push(Opt::Other(code::IPXE, ipxe::NO_PXEDHCP));
    }
    options.push(Opt::BootFile(&boot.file));
}

/// A client that asks port 4011 for a boot server type wants that type back (PXE 2.1 section 2.2.5: PXE_BOOT_ITEM).
fn boot_item(question: &Question<'_>) -> Vec<u8> {
    match question.packet.sub_options(code::VENDOR_SPECIFIC).get(pxe::BOOT_ITEM) {
        Some(item) if item.len() == 4 && question.local_port == 4011 => {
            [&[pxe::BOOT_ITEM, 4], item, pxe::USE_BOOT_FILE].concat()
        }
        _ => Vec::new(),
    }
}

//! Our links, addresses and routes in rtnetlink's messages, and back.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::RouteNetlinkMessage as Message;
use netlink_packet_route::address::{AddressAttribute, AddressMessage, AddressScope};
use netlink_packet_route::link::{InfoData, InfoVlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use rackbar_model::MacAddr;

use super::{Link, Prefix, Route};

/// Reads the messages of one datagram; true when the answer is complete. A message that cannot be read (a newer
/// kernel's attribute) is left out: one odd interface must not hide the others.
pub(super) fn read_datagram(mut bytes: &[u8], sequence: u32, replies: &mut Vec<Message>) -> std::io::Result<bool> {
    while let Some((length, number)) = frame(bytes) {
        let (message, rest) = bytes.split_at(length);
        // Messages are padded to four bytes; the last one of a datagram need not be.
        bytes = rest.get(length.next_multiple_of(4) - length..).unwrap_or_default();
        let Ok(message) = NetlinkMessage::<Message>::deserialize(message) else {
            continue;
        };
        if number != sequence {
            continue;
        }
        match message.payload {
            NetlinkPayload::InnerMessage(inner) => replies.push(inner),
            NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
            NetlinkPayload::Error(_) | NetlinkPayload::Done(_) => return Ok(true),
            _ => {}
        }
    }
    Ok(false)
}

/// Length and sequence number of the message at the front (struct nlmsghdr), when it is there in full.
fn frame(bytes: &[u8]) -> Option<(usize, u32)> {
    let length = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
    let number = u32::from_ne_bytes(bytes.get(8..12)?.try_into().ok()?);
    (16..=bytes.len()).contains(&length).then_some((length, number))
}

pub(super) fn read_link(message: &LinkMessage) -> Option<Link> {
    let flags = message.header.flags;
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        mac: None,
        up: flags.contains(LinkFlags::Up),
        carrier: flags.contains(LinkFlags::LowerUp),
        mtu: 0,
        max_mtu: None,
        parent: None,
        vlan: None,
        loopback: flags.contains(LinkFlags::Loopback),
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Address(bytes) if !link.loopback => {
                link.mac = <[u8; 6]>::try_from(bytes.as_slice()).ok().map(MacAddr);
            }
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::MaxMtu(mtu) => link.max_mtu = Some(*mtu).filter(|mtu| *mtu > 0),
            LinkAttribute::Link(parent) => link.parent = Some(*parent),
            LinkAttribute::LinkInfo(infos) => link.vlan = vlan_of(infos),
            _ => {}
        }
    }
    (!link.name.is_empty()).then_some(link)
}

fn vlan_of(infos: &[LinkInfo]) -> Option<u16> {
    infos.iter().find_map(|info| match info {
        LinkInfo::Data(InfoData::Vlan(vlan)) => vlan
            .iter()
            .find_map(|v| if let InfoVlan::Id(id) = v { Some(*id) } else { None }),
        _ => None,
    })
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    }
}

pub(super) fn read_address(message: &AddressMessage) -> Option<(u32, Prefix)> {
    // On a point-to-point link `Address` is the other end and `Local` ours; elsewhere IPv6 has only `Address`.
    let local = message.attributes.iter().find_map(|a| {
        if let AddressAttribute::Local(ip) = a {
            Some(*ip)
        } else {
            None
        }
    });
    let any = message.attributes.iter().find_map(|a| {
        if let AddressAttribute::Address(ip) = a {
            Some(*ip)
        } else {
            None
        }
    });
    let address = local.or(any)?;
    Some((
        message.header.index,
        Prefix {
            address,
            length: message.header.prefix_len,
        },
    ))
}

pub(super) fn address_message(index: u32, prefix: Prefix) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.index = index;
    message.header.family = family(prefix.address);
    message.header.prefix_len = prefix.length;
    message.header.scope = AddressScope::Universe;
    message.attributes = vec![
        AddressAttribute::Local(prefix.address),
        AddressAttribute::Address(prefix.address),
    ];
    if let Some(broadcast) = broadcast(prefix) {
        message.attributes.push(AddressAttribute::Broadcast(broadcast));
    }
    message
}

/// The broadcast address of an IPv4 network; /31 and /32 have none (RFC 3021).
fn broadcast(prefix: Prefix) -> Option<Ipv4Addr> {
    match prefix.address {
        IpAddr::V4(address) if prefix.length < 31 => {
            let host = u32::MAX.checked_shr(prefix.length.into()).unwrap_or(0);
            Some(Ipv4Addr::from_bits(address.to_bits() | host))
        }
        _ => None,
    }
}

pub(super) fn route_message(route: &Route) -> RouteMessage {
    let any = route
        .to
        .map(|to| to.address)
        .or(route.via)
        .unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let mut message = RouteMessage::default();
    message.header.address_family = family(any);
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Static;
    message.header.kind = RouteType::Unicast;
    message.header.scope = if route.via.is_some() {
        RouteScope::Universe
    } else {
        RouteScope::Link
    };
    message.attributes = vec![RouteAttribute::Oif(route.index), RouteAttribute::Priority(route.metric)];
    if let Some(to) = route.to {
        message.header.destination_prefix_length = to.length;
        message.attributes.push(RouteAttribute::Destination(to.address.into()));
    }
    if let Some(via) = route.via {
        message.attributes.push(RouteAttribute::Gateway(via.into()));
    }
    message
}

pub(super) fn read_route(message: &RouteMessage) -> Option<Route> {
    if message.header.table != RouteHeader::RT_TABLE_MAIN || message.header.kind != RouteType::Unicast {
        return None;
    }
    let mut route = Route {
        to: None,
        via: None,
        index: 0,
        metric: 0,
    };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(to) => {
                let length = message.header.destination_prefix_length;
                route.to = ip(to).map(|address| Prefix { address, length });
            }
            RouteAttribute::Gateway(via) => route.via = ip(via),
            RouteAttribute::Oif(index) => route.index = *index,
            RouteAttribute::Priority(metric) => route.metric = *metric,
            _ => {}
        }
    }
    Some(route)
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some(IpAddr::V4(*v4)),
        RouteAddress::Inet6(v6) => Some(IpAddr::V6(Ipv6Addr::from(v6.octets()))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn broadcast_addresses() {
        let of = |address: [u8; 4], length| {
            broadcast(Prefix {
                address: IpAddr::from(address),
                length,
            })
        };
        assert_eq!(of([10, 1, 2, 3], 24), Some(Ipv4Addr::new(10, 1, 2, 255)));
        assert_eq!(of([10, 1, 2, 3], 0), Some(Ipv4Addr::BROADCAST));
        assert_eq!(of([10, 1, 2, 3], 31), None);
    }

    proptest! {
        #[test]
        fn any_datagram_is_read(bytes: Vec<u8>, sequence: u32) {
            let _ = read_datagram(&bytes, sequence, &mut Vec::new());
        }
    }
}

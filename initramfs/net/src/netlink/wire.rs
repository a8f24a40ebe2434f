//! rtnetlink's bytes (rtnetlink(7)): the requests we make, and links, addresses and routes from the answers.
//!
//! Written by hand, because the crates that know every message of rtnetlink made up a seventh of the agent.
//! All numbers are in the machine's byte order. A message is
//!
//! ```text
//! 0 length, header included   u32    struct nlmsghdr
//! 4 kind, one of RTM_*        u16
//! 6 flags, NLM_F_*            u16
//! 8 sequence, ours            u32
//! 12 port, 0 is the kernel    u32
//! 16 struct ifinfomsg, ifaddrmsg or rtmsg, then attributes
//!      0 length, header included   u16    struct rtattr
//!      2 kind                      u16
//!      4 value, padded to four bytes
//! ```

use std::net::{IpAddr, Ipv4Addr};

use nix::libc::{self, RTM_NEWADDR, RTM_NEWLINK, RTM_NEWROUTE};
use rackbar_model::MacAddr;

use super::{Link, Prefix, Route};

/// Bytes of struct nlmsghdr.
const HEADER: usize = 16;
/// Bytes of struct ifinfomsg.
const LINK_HEADER: usize = 16;
/// Bytes of struct ifaddrmsg.
const ADDRESS_HEADER: usize = 8;
/// Bytes of struct rtmsg.
const ROUTE_HEADER: usize = 12;

// The kernel's ends of a message stream; `libc` has them as numbers of another width.
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// The highest MTU of a driver; `libc` does not know it for musl.
const IFLA_MAX_MTU: u16 = 51;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_VLAN_ID: u16 = 1;
/// The bits of an attribute's kind that are not flags (NLA_TYPE_MASK).
const KIND_MASK: u16 = 0x3fff;
/// The wire is live at both ends (IFF_LOWER_UP).
const LOWER_UP: u32 = 1 << 16;
const UP: u32 = libc::IFF_UP as u32;
const LOOPBACK: u32 = libc::IFF_LOOPBACK as u32;

/// A request in the making.
pub(super) struct Request(Vec<u8>);

impl Request {
    fn new(kind: u16, fixed: &[u8]) -> Self {
        let mut bytes = vec![0; HEADER];
        bytes.splice(4..6, kind.to_ne_bytes());
        bytes.extend_from_slice(fixed);
        Self(bytes)
    }

    /// About one interface (struct ifinfomsg); index 0 is all of them, or the one an attribute names.
    pub(super) fn link(kind: u16, index: u32) -> Self {
        Self::link_state(kind, index, false, false)
    }

    /// Makes interface `index` go up or down.
    pub(super) fn set_up(index: u32, up: bool) -> Self {
        Self::link_state(libc::RTM_SETLINK, index, up, true)
    }

    fn link_state(kind: u16, index: u32, up: bool, change: bool) -> Self {
        let mut fixed = [0; LINK_HEADER];
        fixed[4..8].copy_from_slice(&index.to_ne_bytes());
        fixed[8..12].copy_from_slice(&(if up { UP } else { 0 }).to_ne_bytes());
        fixed[12..].copy_from_slice(&(if change { UP } else { 0 }).to_ne_bytes());
        Self::new(kind, &fixed)
    }

    /// About all addresses (struct ifaddrmsg).
    pub(super) fn addresses() -> Self {
        Self::new(libc::RTM_GETADDR, &[0; ADDRESS_HEADER])
    }

    /// About one address of an interface.
    pub(super) fn address(kind: u16, index: u32, prefix: Prefix) -> Self {
        let mut fixed = [0; ADDRESS_HEADER];
        fixed[0] = family(prefix.address);
        fixed[1] = prefix.length;
        fixed[3] = libc::RT_SCOPE_UNIVERSE;
        fixed[4..].copy_from_slice(&index.to_ne_bytes());
        let request = Self::new(kind, &fixed)
            .ip(libc::IFA_LOCAL, prefix.address)
            .ip(libc::IFA_ADDRESS, prefix.address);
        match broadcast(prefix) {
            Some(broadcast) => request.ip(libc::IFA_BROADCAST, broadcast.into()),
            None => request,
        }
    }

    /// About all routes of an address family (struct rtmsg).
    pub(super) fn routes(family: i32) -> Self {
        let mut fixed = [0; ROUTE_HEADER];
        fixed[0] = family as u8;
        Self::new(libc::RTM_GETROUTE, &fixed)
    }

    /// About one route of the main table.
    pub(super) fn route(kind: u16, route: &Route) -> Self {
        let any = route.to.map(|to| to.address).or(route.via);
        let mut fixed = [0; ROUTE_HEADER];
        fixed[0] = family(any.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)));
        fixed[1] = route.to.map_or(0, |to| to.length);
        fixed[4] = libc::RT_TABLE_MAIN;
        fixed[5] = libc::RTPROT_STATIC;
        fixed[6] = if route.via.is_some() {
            libc::RT_SCOPE_UNIVERSE
        } else {
            libc::RT_SCOPE_LINK
        };
        fixed[7] = libc::RTN_UNICAST;
        let mut request = Self::new(kind, &fixed)
            .number(libc::RTA_OIF, route.index)
            .number(libc::RTA_PRIORITY, route.metric);
        if let Some(to) = route.to {
            request = request.ip(libc::RTA_DST, to.address);
        }
        if let Some(via) = route.via {
            request = request.ip(libc::RTA_GATEWAY, via);
        }
        request
    }

    /// Adds the name of an interface.
    pub(super) fn name(self, name: &str) -> Self {
        self.attribute(libc::IFLA_IFNAME, &[name.as_bytes(), b"\0"].concat())
    }

    /// Adds a number.
    pub(super) fn number(self, kind: u16, number: u32) -> Self {
        self.attribute(kind, &number.to_ne_bytes())
    }

    /// Adds what makes a new interface VLAN `id`.
    pub(super) fn vlan(self, id: u16) -> Self {
        let data = attribute(IFLA_VLAN_ID, &id.to_ne_bytes());
        let info = [attribute(IFLA_INFO_KIND, b"vlan"), attribute(IFLA_INFO_DATA, &data)];
        self.attribute(libc::IFLA_LINKINFO, &info.concat())
    }

    fn ip(self, kind: u16, address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => self.attribute(kind, &v4.octets()),
            IpAddr::V6(v6) => self.attribute(kind, &v6.octets()),
        }
    }

    fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        self.0.extend(attribute(kind, value));
        self
    }

    /// The bytes to send.
    pub(super) fn finish(mut self, flags: i32, sequence: u32) -> Vec<u8> {
        let length = self.0.len() as u32;
        self.0.splice(..4, length.to_ne_bytes());
        self.0.splice(6..8, (flags as u16).to_ne_bytes());
        self.0.splice(8..12, sequence.to_ne_bytes());
        self.0
    }
}

/// One attribute with its padding. What we send is far shorter than the 64 KiB that its length can say.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = (4 + value.len()) as u16;
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend_from_slice(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() {
        libc::AF_INET as u8
    } else {
        libc::AF_INET6 as u8
    }
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

/// A message of an answer: its kind and what follows the header.
pub(super) struct Reply {
    kind: u16,
    body: Vec<u8>,
}

/// Reads the messages of one datagram; true when the answer is complete, an error when the kernel refused.
pub(super) fn read_datagram(mut bytes: &[u8], sequence: u32, replies: &mut Vec<Reply>) -> std::io::Result<bool> {
    while let Some(length) = number(bytes, 0).map(|length| length as usize)
        && let Some(message) = bytes.get(..length)
        && let (Some(kind), Some(of), Some(body)) = (half(message, 4), number(message, 8), message.get(HEADER..))
    {
        // Messages are padded to four bytes; the last one of a datagram need not be.
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        if of != sequence {
            continue;
        }
        match kind {
            NLMSG_ERROR | NLMSG_DONE => {
                // Zero is the acknowledgement, a negative number the error; a dump ends with one of them too.
                let code = number(body, 0).map_or(0, u32::cast_signed);
                return match code.checked_neg() {
                    Some(errno @ 1..) => Err(std::io::Error::from_raw_os_error(errno)),
                    _ => Ok(true),
                };
            }
            _ => replies.push(Reply {
                kind,
                body: body.to_vec(),
            }),
        }
    }
    Ok(false)
}

/// The attributes that start at `offset`; what is cut short ends them.
fn attributes(bytes: &[u8], offset: usize) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes.get(offset..).unwrap_or_default();
    std::iter::from_fn(move || {
        let length = usize::from(half(rest, 0)?);
        let attribute = (half(rest, 2)? & KIND_MASK, rest.get(4..length)?);
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(attribute)
    })
}

fn half(bytes: &[u8], offset: usize) -> Option<u16> {
    let bytes = bytes.get(offset..)?.first_chunk()?;
    Some(u16::from_ne_bytes(*bytes))
}

fn number(bytes: &[u8], offset: usize) -> Option<u32> {
    let bytes = bytes.get(offset..)?.first_chunk()?;
    Some(u32::from_ne_bytes(*bytes))
}

/// Text up to its NUL.
fn text(bytes: &[u8]) -> String {
    let bytes = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(bytes).into_owned()
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

/// The interface a message describes; `None` for other messages, and for one without a name.
pub(super) fn read_link(reply: &Reply) -> Option<Link> {
    let body = (reply.kind == RTM_NEWLINK).then_some(&reply.body)?;
    let flags = number(body, 8)?;
    let mut link = Link {
        index: number(body, 4)?,
        name: String::new(),
        mac: None,
        up: flags & UP != 0,
        carrier: flags & LOWER_UP != 0,
        mtu: 0,
        max_mtu: None,
        parent: None,
        vlan: None,
        loopback: flags & LOOPBACK != 0,
    };
    for (kind, value) in attributes(body, LINK_HEADER) {
        match kind {
            libc::IFLA_IFNAME => link.name = text(value),
            libc::IFLA_ADDRESS if !link.loopback => link.mac = value.try_into().ok().map(MacAddr),
            libc::IFLA_MTU => link.mtu = number(value, 0).unwrap_or(0),
            IFLA_MAX_MTU => link.max_mtu = number(value, 0).filter(|mtu| *mtu > 0),
            libc::IFLA_LINK => link.parent = number(value, 0),
            libc::IFLA_LINKINFO => link.vlan = vlan_of(value),
            _ => {}
        }
    }
    (!link.name.is_empty()).then_some(link)
}

fn vlan_of(info: &[u8]) -> Option<u16> {
    let find = |wanted| attributes(info, 0).find(|(kind, _)| *kind == wanted);
    let (_, kind) = find(IFLA_INFO_KIND)?;
    let (_, data) = find(IFLA_INFO_DATA).filter(|_| text(kind) == "vlan")?;
    let (_, id) = attributes(data, 0).find(|(kind, _)| *kind == IFLA_VLAN_ID)?;
    half(id, 0)
}

/// An address and the index of its interface.
pub(super) fn read_address(reply: &Reply) -> Option<(u32, Prefix)> {
    let body = (reply.kind == RTM_NEWADDR).then_some(&reply.body)?;
    // On a point-to-point link `ADDRESS` is the other end and `LOCAL` ours; elsewhere IPv6 has only `ADDRESS`.
    let find = |wanted| {
        let mut all = attributes(body, ADDRESS_HEADER);
        all.find_map(|(kind, value)| ip(value).filter(|_| kind == wanted))
    };
    let address = find(libc::IFA_LOCAL).or_else(|| find(libc::IFA_ADDRESS))?;
    let length = *body.get(1)?;
    Some((number(body, 4)?, Prefix { address, length }))
}

/// A unicast route of the main table; `None` for all others.
pub(super) fn read_route(reply: &Reply) -> Option<Route> {
    let body = (reply.kind == RTM_NEWROUTE).then_some(&reply.body)?;
    if *body.get(4)? != libc::RT_TABLE_MAIN || *body.get(7)? != libc::RTN_UNICAST {
        return None;
    }
    let length = *body.get(1)?;
    let mut route = Route {
        to: None,
        via: None,
        index: 0,
        metric: 0,
    };
    for (kind, value) in attributes(body, ROUTE_HEADER) {
        match kind {
            libc::RTA_DST => route.to = ip(value).map(|address| Prefix { address, length }),
            libc::RTA_GATEWAY => route.via = ip(value),
            libc::RTA_OIF => route.index = number(value, 0)?,
            libc::RTA_PRIORITY => route.metric = number(value, 0)?,
            _ => {}
        }
    }
    Some(route)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn prefix(address: impl Into<IpAddr>, length: u8) -> Prefix {
        let address = address.into();
        Prefix { address, length }
    }

    /// What the kernel would say of what a request asks for.
    fn echoed(request: Request) -> Reply {
        let mut replies = Vec::new();
        assert!(!read_datagram(&request.finish(0, 7), 7, &mut replies).unwrap());
        replies.pop().unwrap()
    }

    #[test]
    fn broadcast_addresses() {
        assert_eq!(broadcast(prefix([10, 1, 2, 3], 24)), Some(Ipv4Addr::new(10, 1, 2, 255)));
        assert_eq!(broadcast(prefix([10, 1, 2, 3], 0)), Some(Ipv4Addr::BROADCAST));
        assert_eq!(broadcast(prefix([10, 1, 2, 3], 31)), None);
    }

    #[test]
    fn a_vlan_is_asked_for_as_the_kernel_reads_it() {
        let request = Request::link(RTM_NEWLINK, 0)
            .name("vlan5")
            .number(libc::IFLA_LINK, 3)
            .vlan(5);
        let link = read_link(&echoed(request)).unwrap();
        assert_eq!((&*link.name, link.parent, link.vlan), ("vlan5", Some(3), Some(5)));
    }

    #[test]
    fn an_error_ends_the_answer_and_other_peoples_messages_do_not() {
        let message = |sequence, code: i32| Request::new(NLMSG_ERROR, &code.to_ne_bytes()).finish(0, sequence);
        let mut replies = Vec::new();
        assert!(!read_datagram(&message(1, -libc::EPERM), 2, &mut replies).unwrap());
        assert!(read_datagram(&message(2, 0), 2, &mut replies).unwrap());
        let error = read_datagram(&message(2, -libc::EPERM), 2, &mut replies).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EPERM));
        assert!(read_datagram(&message(2, i32::MIN), 2, &mut replies).unwrap());
    }

    proptest! {
        #[test]
        fn an_address_comes_back(octets: [u8; 16], v4: bool, length: u8, index: u32) {
            let address = if v4 { IpAddr::from([octets[0], octets[1], octets[2], octets[3]]) } else { octets.into() };
            let prefix = prefix(address, length);
            let reply = echoed(Request::address(RTM_NEWADDR, index, prefix));
            prop_assert_eq!(read_address(&reply), Some((index, prefix)));
        }

        #[test]
        fn a_route_comes_back(to: Option<([u8; 4], u8)>, via: Option<[u8; 4]>, index: u32, metric: u32) {
            let to = to.map(|(address, length)| prefix(address, length));
            let route = Route { to, via: via.map(IpAddr::from), index, metric };
            prop_assert_eq!(read_route(&echoed(Request::route(RTM_NEWROUTE, &route))), Some(route));
        }

        #[test]
        fn any_datagram_is_read(bytes: Vec<u8>, sequence: u32) {
            let _ = read_datagram(&bytes, sequence, &mut Vec::new());
        }

        #[test]
        fn any_message_is_read(kind in prop::sample::select(vec![RTM_NEWLINK, RTM_NEWADDR, RTM_NEWROUTE]), body: Vec<u8>) {
            let reply = Reply { kind, body };
            let _ = (read_link(&reply), read_address(&reply), read_route(&reply));
        }
    }
}

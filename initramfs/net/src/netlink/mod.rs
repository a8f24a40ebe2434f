//! Links, addresses, routes and VLANs over rtnetlink. The one module that knows the netlink crates, whose interface
//! changes every few months.

mod wire;

use std::net::IpAddr;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::RouteNetlinkMessage as Message;
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::{InfoData, InfoKind, InfoVlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use netlink_packet_route::route::RouteMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use rackbar_model::MacAddr;

use crate::{Error, Lease};
use wire::{address_message, read_address, read_datagram, read_link, read_route, route_message};

/// Larger than the largest datagram of a dump (32 KiB on kernels since 4.9).
const RECEIVE_BUFFER: usize = 64 << 10;

/// A network interface.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Link {
    /// Kernel index: stable while the interface exists.
    pub index: u32,
    /// Kernel name.
    pub name: String,
    /// Current MAC address; `None` for interfaces that are not Ethernet.
    pub mac: Option<MacAddr>,
    /// Administratively up.
    pub up: bool,
    /// A cable with a live other end; false while the interface is down.
    pub carrier: bool,
    /// MTU in bytes.
    pub mtu: u32,
    /// Highest MTU the driver allows, in bytes.
    pub max_mtu: Option<u32>,
    /// Interface this one is stacked on, such as the parent of a VLAN.
    pub parent: Option<u32>,
    /// VLAN ID of a VLAN interface.
    pub vlan: Option<u16>,
    /// True for `lo`.
    pub loopback: bool,
}

/// An address and the length of its network's prefix.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Prefix {
    /// The address.
    pub address: IpAddr,
    /// Prefix length in bits.
    pub length: u8,
}

/// A route of the main table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Route {
    /// Network; `None` is the default route.
    pub to: Option<Prefix>,
    /// Next hop; `None` when the network is on the link.
    pub via: Option<IpAddr>,
    /// Interface index.
    pub index: u32,
    /// Metric: of two routes to the same network the lower one is used.
    pub metric: u32,
}

/// A connection to the kernel.
pub struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    /// Opens a connection.
    pub fn open() -> Result<Self, Error> {
        let connect = || {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            Ok(socket)
        };
        let socket = connect().map_err(|e: std::io::Error| Error::new("opening a netlink socket", e))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// All interfaces.
    pub fn links(&mut self) -> Result<Vec<Link>, Error> {
        let replies = self.ask(
            "listing interfaces",
            Message::GetLink(LinkMessage::default()),
            NLM_F_DUMP,
        )?;
        Ok(replies
            .into_iter()
            .filter_map(|reply| {
                if let Message::NewLink(link) = reply {
                    read_link(&link)
                } else {
                    None
                }
            })
            .collect())
    }

    /// The interface called `name`.
    pub fn link(&mut self, name: &str) -> Result<Link, Error> {
        let found = self.links()?.into_iter().find(|link| link.name == name);
        found.ok_or_else(|| Error::new(format!("looking for interface {name}"), nix::errno::Errno::ENODEV))
    }

    /// Brings an interface up or down.
    pub fn set_up(&mut self, index: u32, up: bool) -> Result<(), Error> {
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.header.flags = if up { LinkFlags::Up } else { LinkFlags::empty() };
        link.header.change_mask = LinkFlags::Up;
        self.tell(
            format!("bringing interface {index} {}", if up { "up" } else { "down" }),
            Message::SetLink(link),
            0,
        )
    }

    /// Sets an interface's MTU in bytes.
    pub fn set_mtu(&mut self, index: u32, mtu: u32) -> Result<(), Error> {
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.attributes = vec![LinkAttribute::Mtu(mtu)];
        self.tell(
            format!("setting the MTU of interface {index} to {mtu}"),
            Message::SetLink(link),
            0,
        )
    }

    /// Makes VLAN interface `name` with ID `vlan` on top of interface `parent`; the new interface is down.
    pub fn create_vlan(&mut self, parent: u32, vlan: u16, name: &str) -> Result<Link, Error> {
        let what = format!("making VLAN {vlan} as {name} on interface {parent}");
        if vlan == 0 || vlan > 4094 {
            return Err(Error::new(
                format!("{what} (IDs go from 1 to 4094)"),
                nix::errno::Errno::EINVAL,
            ));
        }
        let mut link = LinkMessage::default();
        link.attributes = vec![
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::Link(parent),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Vlan),
                LinkInfo::Data(InfoData::Vlan(vec![InfoVlan::Id(vlan)])),
            ]),
        ];
        self.tell(what, Message::NewLink(link), NLM_F_CREATE | NLM_F_EXCL)?;
        self.link(name)
    }

    /// Removes a virtual interface.
    pub fn delete_link(&mut self, index: u32) -> Result<(), Error> {
        let mut link = LinkMessage::default();
        link.header.index = index;
        self.tell(format!("removing interface {index}"), Message::DelLink(link), 0)
    }

    /// All addresses, with the index of their interface.
    pub fn addresses(&mut self) -> Result<Vec<(u32, Prefix)>, Error> {
        let replies = self.ask(
            "listing addresses",
            Message::GetAddress(AddressMessage::default()),
            NLM_F_DUMP,
        )?;
        Ok(replies
            .into_iter()
            .filter_map(|reply| {
                if let Message::NewAddress(a) = reply {
                    read_address(&a)
                } else {
                    None
                }
            })
            .collect())
    }

    /// Gives an interface an address; one it has already is left as it is.
    pub fn add_address(&mut self, index: u32, prefix: Prefix) -> Result<(), Error> {
        let what = format!("adding address {} to interface {index}", prefix.address);
        self.tell(
            what,
            Message::NewAddress(address_message(index, prefix)),
            NLM_F_CREATE | NLM_F_REPLACE,
        )
    }

    /// Takes an address from an interface.
    pub fn remove_address(&mut self, index: u32, prefix: Prefix) -> Result<(), Error> {
        let what = format!("removing address {} from interface {index}", prefix.address);
        self.tell(what, Message::DelAddress(address_message(index, prefix)), 0)
    }

    /// The routes of the main table.
    pub fn routes(&mut self) -> Result<Vec<Route>, Error> {
        let mut all = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut request = RouteMessage::default();
            request.header.address_family = family;
            let replies = self.ask("listing routes", Message::GetRoute(request), NLM_F_DUMP)?;
            all.extend(replies.iter().filter_map(|reply| {
                if let Message::NewRoute(r) = reply {
                    read_route(r)
                } else {
                    None
                }
            }));
        }
        Ok(all)
    }

    /// Adds a route, replacing one to the same network with the same metric.
    pub fn add_route(&mut self, route: &Route) -> Result<(), Error> {
        let what = format!("adding a route through interface {}", route.index);
        self.tell(
            what,
            Message::NewRoute(route_message(route)),
            NLM_F_CREATE | NLM_F_REPLACE,
        )
    }

    /// Removes a route.
    pub fn remove_route(&mut self, route: &Route) -> Result<(), Error> {
        let what = format!("removing a route through interface {}", route.index);
        self.tell(what, Message::DelRoute(route_message(route)), 0)
    }

    /// Puts a DHCP lease into force: the address, and the default route with `metric` when the lease names a router.
    pub fn apply(&mut self, index: u32, lease: &Lease, metric: u32) -> Result<(), Error> {
        self.add_address(index, lease.prefix())?;
        match lease.router {
            Some(router) => self.add_route(&Route {
                to: None,
                via: Some(router.into()),
                index,
                metric,
            }),
            None => Ok(()),
        }
    }

    /// Takes a DHCP lease back. What is gone already is no failure.
    pub fn withdraw(&mut self, index: u32, lease: &Lease, metric: u32) -> Result<(), Error> {
        if let Some(router) = lease.router {
            settled(self.remove_route(&Route {
                to: None,
                via: Some(router.into()),
                index,
                metric,
            }))?;
        }
        settled(self.remove_address(index, lease.prefix()))
    }

    fn tell(&mut self, what: String, message: Message, flags: u16) -> Result<(), Error> {
        self.ask(&what, message, flags | NLM_F_ACK).map(drop)
    }

    /// Sends one request and collects the answers up to the acknowledgement or the end of the dump.
    fn ask(&mut self, what: &str, message: Message, flags: u16) -> Result<Vec<Message>, Error> {
        let fail = |e: std::io::Error| Error::new(what, e);
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut request = NetlinkMessage::new(header, NetlinkPayload::from(message));
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.socket.send(&bytes, 0).map_err(fail)?;
        let mut replies = Vec::new();
        let mut buffer = vec![0u8; RECEIVE_BUFFER];
        loop {
            let length = self.socket.recv(&mut &mut buffer[..], 0).map_err(fail)?;
            let datagram = buffer.get(..length).unwrap_or_default();
            if read_datagram(datagram, self.sequence, &mut replies).map_err(fail)? {
                return Ok(replies);
            }
        }
    }
}

fn settled(result: Result<(), Error>) -> Result<(), Error> {
    result.or_else(|error| if error.is_settled() { Ok(()) } else { Err(error) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_interface_is_listed() {
        let mut netlink = Netlink::open().unwrap();
        let lo = netlink.links().unwrap().into_iter().find(|link| link.loopback).unwrap();
        assert_eq!(netlink.link(&lo.name).unwrap(), lo);
        assert!(lo.mac.is_none() && lo.vlan.is_none());
        assert_eq!(
            netlink.link("no-such-link").unwrap_err().code(),
            Some(nix::libc::ENODEV)
        );
    }

    #[test]
    fn a_vlan_id_out_of_range_is_refused_before_the_kernel_sees_it() {
        let error = Netlink::open().unwrap().create_vlan(1, 4095, "x").unwrap_err();
        assert!(error.to_string().contains("1 to 4094"), "{error}");
    }
}

//! Links, addresses, routes and VLANs over rtnetlink.

mod wire;

use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::libc::{self, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, connect, recv, send, socket,
};
use rackbar_model::MacAddr;

use crate::{Error, Lease};
use wire::{Reply, Request, read_address, read_datagram, read_link, read_route};

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
    socket: OwnedFd,
    sequence: u32,
}

impl Netlink {
    /// Opens a connection.
    pub fn open() -> Result<Self, Error> {
        let connected = || {
            let (kind, flags) = (SockType::Raw, SockFlag::SOCK_CLOEXEC);
            let socket = socket(AddressFamily::Netlink, kind, flags, SockProtocol::NetlinkRoute)?;
            // Connected to the kernel (port 0): nobody else can answer.
            connect(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
            Ok(socket)
        };
        let socket = connected().map_err(|e: nix::Error| Error::new("opening a netlink socket", e))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// All interfaces.
    pub fn links(&mut self) -> Result<Vec<Link>, Error> {
        let replies = self.ask("listing interfaces", Request::link(libc::RTM_GETLINK, 0), NLM_F_DUMP)?;
        Ok(replies.iter().filter_map(read_link).collect())
    }

    /// The interface called `name`.
    pub fn link(&mut self, name: &str) -> Result<Link, Error> {
        let found = self.links()?.into_iter().find(|link| link.name == name);
        found.ok_or_else(|| Error::new(format!("looking for interface {name}"), nix::errno::Errno::ENODEV))
    }

    /// Brings an interface up or down.
    pub fn set_up(&mut self, index: u32, up: bool) -> Result<(), Error> {
        let what = format!("bringing interface {index} {}", if up { "up" } else { "down" });
        self.tell(what, Request::set_up(index, up), 0)
    }

    /// Sets an interface's MTU in bytes.
    pub fn set_mtu(&mut self, index: u32, mtu: u32) -> Result<(), Error> {
        let what = format!("setting the MTU of interface {index} to {mtu}");
        let request = Request::link(libc::RTM_SETLINK, index).number(libc::IFLA_MTU, mtu);
        self.tell(what, request, 0)
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
        let request = Request::link(libc::RTM_NEWLINK, 0)
            .name(name)
            .number(libc::IFLA_LINK, parent)
            .vlan(vlan);
        self.tell(what, request, NLM_F_CREATE | NLM_F_EXCL)?;
        self.link(name)
    }

    /// Removes a virtual interface.
    pub fn delete_link(&mut self, index: u32) -> Result<(), Error> {
        let what = format!("removing interface {index}");
        self.tell(what, Request::link(libc::RTM_DELLINK, index), 0)
    }

    /// All addresses, with the index of their interface.
    pub fn addresses(&mut self) -> Result<Vec<(u32, Prefix)>, Error> {
        let replies = self.ask("listing addresses", Request::addresses(), NLM_F_DUMP)?;
        Ok(replies.iter().filter_map(read_address).collect())
    }

    /// Gives an interface an address; one it has already is left as it is.
    pub fn add_address(&mut self, index: u32, prefix: Prefix) -> Result<(), Error> {
        let what = format!("adding address {} to interface {index}", prefix.address);
        let request = Request::address(libc::RTM_NEWADDR, index, prefix);
        self.tell(what, request, NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// Takes an address from an interface.
    pub fn remove_address(&mut self, index: u32, prefix: Prefix) -> Result<(), Error> {
        let what = format!("removing address {} from interface {index}", prefix.address);
        self.tell(what, Request::address(libc::RTM_DELADDR, index, prefix), 0)
    }

    /// The routes of the main table.
    pub fn routes(&mut self) -> Result<Vec<Route>, Error> {
        let mut all = Vec::new();
        for family in [libc::AF_INET, libc::AF_INET6] {
            let replies = self.ask("listing routes", Request::routes(family), NLM_F_DUMP)?;
            all.extend(replies.iter().filter_map(read_route));
        }
        Ok(all)
    }

    /// Adds a route, replacing one to the same network with the same metric.
    pub fn add_route(&mut self, route: &Route) -> Result<(), Error> {
        let what = format!("adding a route through interface {}", route.index);
        let request = Request::route(libc::RTM_NEWROUTE, route);
        self.tell(what, request, NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// Removes a route.
    pub fn remove_route(&mut self, route: &Route) -> Result<(), Error> {
        let what = format!("removing a route through interface {}", route.index);
        self.tell(what, Request::route(libc::RTM_DELROUTE, route), 0)
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

    fn tell(&mut self, what: String, request: Request, flags: i32) -> Result<(), Error> {
        self.ask(&what, request, flags | NLM_F_ACK).map(drop)
    }

    /// Sends one request and collects the answers up to the acknowledgement or the end of the dump.
    fn ask(&mut self, what: &str, request: Request, flags: i32) -> Result<Vec<Reply>, Error> {
        self.sequence = self.sequence.wrapping_add(1);
        let bytes = request.finish(NLM_F_REQUEST | flags, self.sequence);
        let socket = self.socket.as_raw_fd();
        send(socket, &bytes, MsgFlags::empty()).map_err(|e| Error::new(what, e))?;
        let mut replies = Vec::new();
        let mut buffer = vec![0; RECEIVE_BUFFER];
        loop {
            let length = recv(socket, &mut buffer, MsgFlags::empty()).map_err(|e| Error::new(what, e))?;
            let datagram = buffer.get(..length).unwrap_or_default();
            if read_datagram(datagram, self.sequence, &mut replies).map_err(|e| Error::new(what, e))? {
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

    #[test]
    fn the_kernel_takes_and_gives_back_addresses_and_routes() {
        // A network of this thread's own; making one is the superuser's right, and so is all that follows.
        if nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).is_err() {
            eprintln!("not tried: making a network namespace is not allowed here");
            return;
        }
        let mut netlink = Netlink::open().unwrap();
        let lo = netlink.link("lo").unwrap();
        assert!(!lo.up);
        netlink.set_up(lo.index, true).unwrap();
        netlink.set_mtu(lo.index, 9000).unwrap();
        let lo = netlink.link("lo").unwrap();
        assert!(lo.up && lo.mtu == 9000, "{lo:?}");
        // Over `lo` the kernel takes a next hop of IPv4 only.
        for (own, length, to, via) in [
            ("192.0.2.1", 24, None, Some("192.0.2.9")),
            ("2001:db8::1", 64, Some("2001:db8:1::"), None),
        ] {
            let ip = |text: &str| text.parse::<IpAddr>().unwrap();
            let prefix = |text| Prefix {
                address: ip(text),
                length,
            };
            let index = lo.index;
            netlink.add_address(index, prefix(own)).unwrap();
            assert!(netlink.addresses().unwrap().contains(&(index, prefix(own))));
            let route = Route {
                to: to.map(prefix),
                via: via.map(ip),
                index,
                metric: 7,
            };
            netlink.add_route(&route).unwrap();
            assert!(netlink.routes().unwrap().contains(&route));
            netlink.remove_route(&route).unwrap();
            assert!(!netlink.routes().unwrap().contains(&route));
            netlink.remove_address(index, prefix(own)).unwrap();
            assert!(netlink.remove_address(index, prefix(own)).unwrap_err().is_settled());
        }
    }
}

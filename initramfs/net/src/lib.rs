//! The kernel's network from our side: links, addresses, routes and VLANs by netlink, and a DHCP client.
//!
//! Everything here blocks and needs no runtime: the agent calls it from threads, the appliance from
//! `tokio::task::spawn_blocking`. Opening sockets needs CAP_NET_ADMIN and CAP_NET_RAW.
//!
//! ```no_run
//! use rackbar_net::{DhcpClient, DhcpEvent, Netlink, Purpose};
//! # fn main() -> Result<(), rackbar_net::Error> {
//! let mut netlink = Netlink::open()?;
//! let link = netlink.link("eth0")?;
//! netlink.set_up(link.index, true)?;
//! let mut client = DhcpClient::open(&link, Purpose::Appliance)?;
//! if let Some(DhcpEvent::Bound(lease)) = client.next_event(std::time::Duration::from_secs(10))? {
//!     netlink.apply(link.index, &lease, 100)?;
//! }
//! # Ok(()) }
//! ```

mod dhcp;
mod error;
mod frame;
mod netlink;
mod packet;

pub use dhcp::{DhcpClient, DhcpEvent, Lease, Purpose};
pub use error::Error;
pub use netlink::{Link, Netlink, Prefix, Route};

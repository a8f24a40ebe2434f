//! The interface on the way to the appliance: which one, its address by DHCP, kept for as long as it is in use.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rackbar_hardware::{Root, nics};
use rackbar_model::{MacAddr, Nic};
use rackbar_net::{DhcpClient, DhcpEvent, Lease, Link, Netlink, Purpose};

use crate::report::say;

/// For a link to come up: autonegotiation takes two to four seconds, a switch port in spanning tree far longer, which
/// the next round will see.
const LINK_PATIENCE: Duration = Duration::from_secs(6);

/// For an address: several discovers, two seconds apart.
const LEASE_PATIENCE: Duration = Duration::from_secs(12);

/// Metric of our default route.
const METRIC: u32 = 100;

/// Which interface next: the one the machine booted from, then the others with a link, round and round.
pub(crate) struct Choice {
    boot_mac: Option<MacAddr>,
    queue: Vec<String>,
}

/// Names in the order to try: the boot interface first, link or not, then the others with a link.
fn order(nics: &[Nic], boot_mac: Option<MacAddr>) -> Vec<String> {
    let is_boot = |nic: &&Nic| boot_mac == Some(nic.mac);
    let boot = nics.iter().filter(is_boot);
    let others = nics.iter().filter(|nic| !is_boot(nic) && nic.link);
    boot.chain(others).map(|nic| nic.name.clone()).collect()
}

impl Choice {
    pub(crate) fn new(boot_mac: Option<MacAddr>) -> Self {
        Self {
            boot_mac,
            queue: Vec::new(),
        }
    }

    /// True when there is no other interface to go to by now: links come up at their own time.
    pub(crate) fn is_only(&self) -> bool {
        order(&nics::read(&Root::default()), self.boot_mac).len() <= 1
    }

    /// The next interface that got an address; `None` when this one did not.
    pub(crate) fn next_uplink(&mut self) -> Option<Uplink> {
        if self.queue.is_empty() {
            self.queue = order(&nics::read(&Root::default()), self.boot_mac);
            self.queue.reverse();
        }
        let name = self.queue.pop()?;
        Uplink::start(&name)
    }
}

/// An interface with a lease. Dropping it takes the address away again.
pub(crate) struct Uplink {
    name: String,
    lease: Arc<Mutex<Option<Lease>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Uplink {
    /// Waits for link and lease on `name`.
    fn start(name: &str) -> Option<Self> {
        let link = match bring_up(name) {
            Ok(link) => link,
            Err(why) => {
                say!("{name}: {why}");
                return None;
            }
        };
        let client = match DhcpClient::open(&link, Purpose::Agent) {
            Ok(client) => client,
            Err(error) => {
                say!("{error}");
                return None;
            }
        };
        let mut uplink = Self {
            name: name.to_owned(),
            lease: Arc::default(),
            stop: Arc::default(),
            thread: None,
        };
        let (lease, stop) = (Arc::clone(&uplink.lease), Arc::clone(&uplink.stop));
        let keep = move || keep_lease(client, &link, &lease, &stop);
        uplink.thread = thread::Builder::new().name("dhcp".to_owned()).spawn(keep).ok();
        let deadline = Instant::now() + LEASE_PATIENCE;
        while Instant::now() < deadline {
            if uplink.has_lease() {
                return Some(uplink);
            }
            thread::sleep(Duration::from_millis(5));
        }
        say!(
            "{name}: no DHCP server gave an address within {} s",
            LEASE_PATIENCE.as_secs()
        );
        None
    }

    /// Its interface.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// True while it has an address.
    pub(crate) fn has_lease(&self) -> bool {
        self.lease.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }
}

impl Drop for Uplink {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Brings the interface up and waits for its carrier.
fn bring_up(name: &str) -> Result<Link, String> {
    let mut netlink = Netlink::open().map_err(|e| e.to_string())?;
    let link = netlink.link(name).map_err(|e| e.to_string())?;
    netlink.set_up(link.index, true).map_err(|e| e.to_string())?;
    let deadline = Instant::now() + LINK_PATIENCE;
    while Instant::now() < deadline {
        let link = netlink.link(name).map_err(|e| e.to_string())?;
        if link.carrier {
            return Ok(link);
        }
        thread::sleep(Duration::from_millis(20));
    }
    Err("no link; is the cable in, is the switch port on?".to_owned())
}

/// Runs the DHCP client until told to stop, keeping the kernel's addresses in step with the lease.
fn keep_lease(mut client: DhcpClient, link: &Link, shared: &Mutex<Option<Lease>>, stop: &AtomicBool) {
    let set =
        |lease: Option<Lease>| std::mem::replace(&mut *shared.lock().unwrap_or_else(PoisonError::into_inner), lease);
    let withdraw = |lease: Option<Lease>| {
        if let Some(lease) = lease
            && let Err(error) = Netlink::open().and_then(|mut n| n.withdraw(link.index, &lease, METRIC))
        {
            say!("{error}");
        }
    };
    while !stop.load(Ordering::Relaxed) {
        match client.next_event(Duration::from_millis(500)) {
            Ok(Some(DhcpEvent::Bound(lease))) => {
                // The old address goes first: two addresses of one network would confuse the choice of source.
                withdraw(set(None));
                let applied = Netlink::open().and_then(|mut n| n.apply(link.index, &lease, METRIC));
                if let Err(error) = applied {
                    say!("{error}");
                    continue;
                }
                let (address, length, server) = (lease.address, lease.prefix_length, lease.server);
                say!("{}: address {address}/{length} from {server}", link.name);
                set(Some(lease));
            }
            Ok(Some(DhcpEvent::Lost)) => {
                say!("{}: the address was lost; asking for a new one", link.name);
                withdraw(set(None));
            }
            Ok(None) => {}
            Err(error) => {
                say!("{error}");
                thread::sleep(Duration::from_secs(1));
            }
        }
    }
    withdraw(set(None));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_interface_comes_first_and_dead_links_are_left_out() {
        let nic = |name: &str, last, link| Nic {
            name: name.into(),
            mac: MacAddr([2, 0, 0, 0, 0, last]),
            link,
            ..Nic::default()
        };
        let nics = [nic("eth0", 1, true), nic("eth1", 2, false), nic("eth2", 3, true)];
        assert_eq!(order(&nics, Some(nics[1].mac)), ["eth1", "eth0", "eth2"]);
        assert_eq!(order(&nics, None), ["eth0", "eth2"]);
        assert_eq!(order(&[], None), Vec::<String>::new());
    }
}

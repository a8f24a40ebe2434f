//! Which machine is behind an address, and which machine fetched a boot file.
//!
//! TFTP and HTTP see an IP address, the timeline of a machine goes by MAC. Three sources, best first: a lease of ours,
//! a boot URL that named its MAC, and the kernel's neighbour table, which knows every client on a directly attached
//! network even when another server gave it its address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Mutex, PoisonError, RwLock};

use rackbar_model::MacAddr;

use crate::running::lock;

/// Addresses learnt beyond this many are forgotten all at once: a stranger must not fill our memory by sending
/// requests with invented MACs from many addresses.
const LIMIT: usize = 65_536;

#[derive(Clone, Copy)]
struct Known {
    mac: MacAddr,
    leased: bool,
}

/// What DHCP is told of a machine's firmware.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Heard {
    /// It fetched a boot file: it understood the DHCP answer.
    Fetched(MacAddr),
    /// It broke off TLS with us.
    RefusedTls(MacAddr),
    /// What was learnt of it is to be forgotten.
    Forget(MacAddr),
}

type Listener = Box<dyn Fn(Heard) + Send>;

/// IP address to MAC, shared by the services; the way by which TFTP and HTTP tell DHCP that a boot file was fetched.
#[derive(Default)]
pub struct ClientTable {
    known: RwLock<HashMap<Ipv4Addr, Known>>,
    listener: Mutex<Option<Listener>>,
}

impl ClientTable {
    /// Nothing known.
    pub fn new() -> Self {
        Self::default()
    }

    /// `mac` holds a lease on `address`.
    pub fn leased(&self, address: Ipv4Addr, mac: MacAddr) {
        self.insert(address, Known { mac, leased: true });
    }

    /// Somebody at `address` says it is `mac`. Believed as long as no lease says otherwise; only the timeline uses it.
    pub fn claims(&self, address: IpAddr, mac: MacAddr) {
        if let IpAddr::V4(address) = address
            && self
                .lookup(address)
                .is_none_or(|known| !known.leased && known.mac != mac)
        {
            self.insert(address, Known { mac, leased: false });
        }
    }

    /// Nobody has `address` any more.
    pub fn forget(&self, address: Ipv4Addr) {
        self.known
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&address);
    }

    /// The interface behind `client`, if anything knows it.
    pub fn mac_of(&self, client: IpAddr) -> Option<MacAddr> {
        let IpAddr::V4(address) = client else { return None };
        let known = self.lookup(address).map(|known| known.mac);
        known.or_else(|| neighbour(&std::fs::read_to_string("/proc/thread-self/net/arp").ok()?, address))
    }

    /// A boot file went to `mac`: its firmware understood the DHCP answer.
    pub(crate) fn fetched(&self, mac: MacAddr) {
        self.tell(Heard::Fetched(mac));
    }

    /// `mac` broke off TLS with us.
    pub(crate) fn refused_tls(&self, mac: MacAddr) {
        self.tell(Heard::RefusedTls(mac));
    }

    /// What DHCP learnt of the firmware of `mac` is to be forgotten. False when DHCP does not run: then only the record
    /// has to go.
    pub fn forget_firmware(&self, mac: MacAddr) -> bool {
        self.tell(Heard::Forget(mac))
    }

    /// Has `listener` called for everything DHCP should know.
    pub(crate) fn listen(&self, listener: Option<Listener>) {
        *lock(&self.listener) = listener;
    }

    /// False when nobody listens.
    fn tell(&self, heard: Heard) -> bool {
        lock(&self.listener).as_ref().map(|listener| listener(heard)).is_some()
    }

    fn lookup(&self, address: Ipv4Addr) -> Option<Known> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.get(&address).copied()
    }

    fn insert(&self, address: Ipv4Addr, entry: Known) {
        if !entry.mac.is_unicast() || address.is_unspecified() {
            return;
        }
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= LIMIT && !known.contains_key(&address) {
            known.clear();
        }
        known.insert(address, entry);
    }
}

/// Finds a complete entry in the text of `/proc/thread-self/net/arp` (proc(5)): address, type, flags, MAC, mask, device.
fn neighbour(table: &str, address: Ipv4Addr) -> Option<MacAddr> {
    let wanted = address.to_string();
    table.lines().skip(1).find_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let [ip, _type, flags, mac] = [fields.next()?, fields.next()?, fields.next()?, fields.next()?];
        let flags = u32::from_str_radix(flags.strip_prefix("0x")?, 16).ok()?;
        // ATF_COM: the entry is complete.
        (ip == wanted && flags & 2 != 0).then_some(())?;
        mac.parse().ok().filter(MacAddr::is_unicast)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    const ADDRESS: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);
    const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
    const OTHER: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);

    #[test]
    fn reads_the_neighbour_table() {
        let table = "IP address       HW type     Flags       HW address            Mask     Device\n\
            10.0.0.5         0x1         0x2         52:54:00:00:00:05     *        eth0\n\
            10.0.0.6         0x1         0x0         00:00:00:00:00:00     *        eth0\n";
        assert_eq!(
            neighbour(table, [10, 0, 0, 5].into()),
            Some(MacAddr([0x52, 0x54, 0, 0, 0, 5]))
        );
        assert_eq!(neighbour(table, [10, 0, 0, 6].into()), None);
        assert_eq!(neighbour(table, [10, 0, 0, 7].into()), None);
    }

    #[test]
    fn a_lease_counts_more_than_a_claim() {
        let clients = ClientTable::new();
        clients.claims(ADDRESS.into(), MacAddr::BROADCAST);
        assert_eq!(clients.mac_of(ADDRESS.into()), None);
        clients.claims(ADDRESS.into(), OTHER);
        assert_eq!(clients.mac_of(ADDRESS.into()), Some(OTHER));
        clients.leased(ADDRESS, MAC);
        clients.claims(ADDRESS.into(), OTHER);
        assert_eq!(clients.mac_of(ADDRESS.into()), Some(MAC));
        clients.forget(ADDRESS);
        assert_eq!(clients.mac_of(ADDRESS.into()), None);
    }

    #[test]
    fn a_flood_of_addresses_stays_bounded() {
        let clients = ClientTable::new();
        for n in 1..=LIMIT as u32 + 10 {
            clients.leased(Ipv4Addr::from_bits(n), MAC);
        }
        assert!(clients.known.read().unwrap().len() <= LIMIT);
    }

    #[test]
    fn tells_what_it_heard() {
        let clients = ClientTable::new();
        clients.fetched(MAC);
        let (sender, receiver) = mpsc::channel();
        assert!(!clients.forget_firmware(MAC));
        clients.listen(Some(Box::new(move |heard| {
            let _ = sender.send(heard);
        })));
        clients.fetched(OTHER);
        clients.refused_tls(MAC);
        assert!(clients.forget_firmware(MAC));
        let heard = [Heard::Fetched(OTHER), Heard::RefusedTls(MAC), Heard::Forget(MAC)];
        assert_eq!(receiver.try_iter().collect::<Vec<_>>(), heard);
    }
}

//! Watching for change: what switches say on every interface, cables, and devices that come and go.

use std::collections::HashMap;
use std::sync::mpsc::Sender;
use std::sync::{Arc, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rackbar_hardware::lldp::Announcement;
use rackbar_hardware::neighbours::{Heard, Listener};
use rackbar_hardware::{Root, nics};
use rackbar_model::MacAddr;
use rackbar_net::Netlink;

use crate::facts::{Facts, Neighbours, Trigger};
use crate::report::say;

/// How often cables and devices are looked at. The kernel tells a link's operational state only after a second of its
/// own; reading the carrier is quicker and costs a few system calls.
const INTERVAL: Duration = Duration::from_secs(1);

/// Starts the watching thread; it sends one trigger for each change.
pub(crate) fn start(triggers: Sender<Trigger>, neighbours: Arc<Neighbours>, facts: Arc<Facts>) {
    let listener = Listener::open();
    if let Err(error) = &listener {
        say!("switches cannot be heard, their ports stay unknown: {error}");
    }
    let started = thread::Builder::new().name("watch".to_owned()).spawn(move || {
        Watch {
            listener: listener.ok(),
            neighbours,
            facts,
            macs: HashMap::new(),
            ends: HashMap::new(),
            seen: Vec::new(),
        }
        .run(&triggers)
    });
    if let Err(error) = started {
        say!("changes of cables and devices will not be noticed: {error}");
    }
}

struct Watch {
    listener: Option<Listener>,
    neighbours: Arc<Neighbours>,
    facts: Arc<Facts>,
    /// Physical interfaces by their index.
    macs: HashMap<u32, MacAddr>,
    /// When each neighbour's announcement runs out.
    ends: HashMap<u32, Instant>,
    /// Interfaces with their carrier and addresses, and disks, as last seen.
    seen: Vec<String>,
}

impl Watch {
    fn run(mut self, triggers: &Sender<Trigger>) {
        let mut next_look = Instant::now();
        loop {
            let mut changed = false;
            if next_look <= Instant::now() {
                next_look = Instant::now() + INTERVAL;
                changed |= self.look();
                changed |= self.forget();
            }
            changed |= self.listen(next_look.saturating_duration_since(Instant::now()));
            if changed && triggers.send(Trigger::Changed).is_err() {
                return;
            }
        }
    }

    /// Compares cables and devices with the last look; new interfaces are brought up and listened on.
    fn look(&mut self) -> bool {
        let root = Root::default();
        let mut now = Vec::new();
        if let Ok(mut netlink) = Netlink::open() {
            let links = netlink.links().unwrap_or_default();
            now.extend(
                links
                    .iter()
                    .map(|link| format!("{} {} {}", link.index, link.name, link.carrier)),
            );
            let addresses = netlink.addresses().unwrap_or_default();
            now.extend(
                addresses
                    .iter()
                    .map(|(index, prefix)| format!("{index} {}", prefix.address)),
            );
        }
        now.extend(root.names("sys/block"));
        if now == self.seen {
            return false;
        }
        self.prepare(&root);
        self.seen = now;
        true
    }

    /// All interfaces up: a cable is seen and LLDP heard only on one that is. Doing it again does no harm.
    fn prepare(&mut self, root: &Root) {
        let Ok(mut netlink) = Netlink::open() else { return };
        for nic in nics::read(root) {
            let Ok(link) = netlink.link(&nic.name) else { continue };
            if !link.up
                && let Err(error) = netlink.set_up(link.index, true)
            {
                say!("{} cannot be brought up: {error}", nic.name);
            }
            self.macs.insert(link.index, nic.mac);
            if let Some(listener) = &self.listener {
                let _ = listener.join(link.index);
            }
        }
    }

    fn listen(&mut self, timeout: Duration) -> bool {
        let Some(listener) = &self.listener else {
            thread::sleep(timeout);
            return false;
        };
        match listener.wait(timeout) {
            Ok(Some((index, Heard::Lldp(announcement)))) => self.announced(index, announcement),
            Ok(Some((index, Heard::Port(says)))) => {
                if let Some(mac) = self.macs.get(&index) {
                    self.facts.port_says(*mac, says);
                }
                // Told by itself; an inventory does not hold it.
                false
            }
            Ok(None) | Err(_) => false,
        }
    }

    /// Takes a neighbour's announcement; true when it is another than before.
    fn announced(&mut self, index: u32, announcement: Announcement) -> bool {
        let mut neighbours = self.neighbours.lock().unwrap_or_else(PoisonError::into_inner);
        if announcement.ttl == 0 {
            self.ends.remove(&index);
            return neighbours.remove(&index).is_some();
        }
        self.ends
            .insert(index, Instant::now() + Duration::from_secs(announcement.ttl.into()));
        neighbours.insert(index, announcement.neighbour.clone()) != Some(announcement.neighbour)
    }

    /// Drops neighbours that fell silent.
    fn forget(&mut self) -> bool {
        let now = Instant::now();
        let mut neighbours = self.neighbours.lock().unwrap_or_else(PoisonError::into_inner);
        let before = neighbours.len();
        neighbours.retain(|index, _| self.ends.get(index).is_some_and(|end| *end > now));
        neighbours.len() != before
    }
}

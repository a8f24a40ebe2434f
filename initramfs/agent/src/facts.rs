//! The inventory: taken at once, again when something changed, shared with the session.
//!
//! The first one is sent without waiting for anything but the way to the appliance: LLDP speaks every 30 seconds, and
//! an operator looks at the page now. While links settle, addresses come and switches speak, the machine changes every
//! second; the next inventory follows when that is over.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::eventfd::{EfdFlags, EventFd};
use rackbar_hardware::Root;
use rackbar_model::{Inventory, LldpNeighbour, MacAddr, PortSays};
use rackbar_net::Netlink;

use crate::report::say;
use crate::watch;

/// Without a sign of change the machine is looked at again this often: health and the BMC's
/// settings change without any event.
const SELDOM: Duration = Duration::from_secs(600);

/// Changes come in bursts (links settle, a switch restarts, a shelf of disks appears); one look after the burst is
/// enough. It is over when nothing has changed for this long.
const QUIET: Duration = Duration::from_secs(2);

/// A burst that goes on is reported all the same.
const LONGEST_BURST: Duration = Duration::from_secs(10);

/// Most news of switch ports in one boot: a port that changes its mind all the time is told of no more.
const MOST_PORT_NEWS: usize = 64;

/// Why to look at the machine again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Trigger {
    /// Something is different; more of it may follow.
    Changed,
    /// The appliance wants to know now.
    Asked,
}

/// The newest inventory, and a bell that rings when there is a newer one.
pub struct Facts {
    latest: Mutex<Option<(u64, Arc<Inventory>)>>,
    /// What switch ports said that was new, oldest first.
    ports: Mutex<Vec<(MacAddr, PortSays)>>,
    bell: Option<EventFd>,
    triggers: Mutex<Option<Sender<Trigger>>>,
}

impl Default for Facts {
    fn default() -> Self {
        let bell = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK);
        Self {
            latest: Mutex::default(),
            ports: Mutex::default(),
            bell: bell.ok(),
            triggers: Mutex::default(),
        }
    }
}

impl Facts {
    /// The newest inventory and its number.
    pub fn latest(&self) -> Option<(u64, Arc<Inventory>)> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes `inventory` the newest and rings.
    pub fn publish(&self, inventory: Inventory) {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        let version = latest.as_ref().map_or(1, |(version, _)| version + 1);
        *latest = Some((version, Arc::new(inventory)));
        if let Some(bell) = &self.bell {
            let _ = bell.write(1);
        }
    }

    /// Takes what an interface's switch port says; rings when it is new.
    pub fn port_says(&self, mac: MacAddr, says: PortSays) {
        let mut ports = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
        let last = ports
            .iter()
            .rfind(|(at, before)| *at == mac && before.same_protocol(&says));
        if last.is_some_and(|(_, before)| *before == says) || ports.len() >= MOST_PORT_NEWS {
            return;
        }
        ports.push((mac, says));
        if let Some(bell) = &self.bell {
            let _ = bell.write(1);
        }
    }

    /// News of switch ports behind the first `known`.
    pub(crate) fn ports(&self, known: usize) -> Vec<(MacAddr, PortSays)> {
        let ports = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
        ports.get(known..).unwrap_or_default().to_vec()
    }

    /// Has the machine looked at again.
    pub(crate) fn look_again(&self) {
        if let Some(triggers) = self.triggers.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            let _ = triggers.send(Trigger::Asked);
        }
    }

    /// Readable when there is news. Without a bell (the system is out of files) news waits for the next heartbeat.
    pub(crate) fn news(&self) -> Option<BorrowedFd<'_>> {
        self.bell.as_ref().map(AsFd::as_fd)
    }

    /// Silences the bell.
    pub(crate) fn hear(&self) {
        if let Some(bell) = &self.bell {
            let _ = bell.read();
        }
    }
}

/// What was heard on each interface, by its index.
pub(crate) type Neighbours = Mutex<HashMap<u32, LldpNeighbour>>;

/// Starts the threads that look and watch.
pub(crate) fn start(root: Root, boot_mac: Option<MacAddr>, facts: &Arc<Facts>) {
    let (sender, receiver) = channel();
    *facts.triggers.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender.clone());
    let neighbours = Arc::new(Neighbours::default());
    watch::start(sender, Arc::clone(&neighbours), Arc::clone(facts));
    let facts = Arc::clone(facts);
    let started = thread::Builder::new()
        .name("facts".to_owned())
        .spawn(move || look(&root, boot_mac, &neighbours, &facts, &receiver));
    if let Err(error) = started {
        say!("no inventory can be taken: {error}");
    }
}

fn look(root: &Root, boot_mac: Option<MacAddr>, neighbours: &Neighbours, facts: &Facts, triggers: &Receiver<Trigger>) {
    let mut last: Option<Inventory> = None;
    let mut key: Option<Option<String>> = None;
    for looks in 1u64.. {
        let mut found = rackbar_hardware::inventory(root, boot_mac);
        add_network(&mut found, neighbours);
        if let Some(tpm) = &mut found.tpm {
            tpm.endorsement_key_sha256 = key.clone().flatten();
        }
        let has_tpm = found.tpm.is_some();
        let steady = Some(without_noise(&found));
        if last != steady {
            last = steady;
            facts.publish(found);
        }
        // Some TPMs need ten seconds for it, so the first two inventories, the second with the link to the appliance,
        // go out without it.
        if has_tpm && looks > 1 && key.is_none() {
            key = Some(endorsement_key(root));
        } else {
            wait(triggers, SELDOM, QUIET, LONGEST_BURST);
        }
    }
}

/// One look at a machine, with all that a look tells at once: neighbours on the cable speak too seldom for it.
pub(crate) fn look_once(root: &Root) -> Inventory {
    let mut found = rackbar_hardware::inventory(root, None);
    add_network(&mut found, &Neighbours::default());
    if let Some(tpm) = &mut found.tpm {
        tpm.endorsement_key_sha256 = endorsement_key(root);
    }
    found
}

/// SHA-256 of the TPM's endorsement key.
fn endorsement_key(root: &Root) -> Option<String> {
    match rackbar_hardware::tpm::endorsement_key(root) {
        Ok(key) => key.map(|key| {
            let digest = ring::digest::digest(&ring::digest::SHA256, &key);
            digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
        }),
        Err(error) => {
            say!("the TPM's endorsement key is not known: {error}");
            None
        }
    }
}

/// Waits for a reason to look again: `seldom` without one, and until a burst of changes is over.
fn wait(triggers: &Receiver<Trigger>, seldom: Duration, quiet: Duration, longest: Duration) {
    let mut trigger = triggers.recv_timeout(seldom);
    let begun = Instant::now();
    while trigger == Ok(Trigger::Changed) {
        let left = longest.saturating_sub(begun.elapsed());
        trigger = triggers.recv_timeout(quiet.min(left));
    }
    // One look answers all that came until now.
    while triggers.try_recv().is_ok() {}
}

/// The inventory without what changes by itself: temperatures, hours, and the clock of an idle processor.
fn without_noise(inventory: &Inventory) -> Inventory {
    let mut steady = inventory.clone();
    steady.cpu.max_mhz = None;
    for health in steady.disks.iter_mut().filter_map(|disk| disk.health.as_mut()) {
        health.celsius = None;
        health.power_on_hours = None;
    }
    steady
}

/// Adds addresses, the largest MTU and the neighbours to the interfaces.
fn add_network(inventory: &mut Inventory, neighbours: &Neighbours) {
    let Ok(mut netlink) = Netlink::open() else { return };
    let links = netlink.links().unwrap_or_default();
    let addresses = netlink.addresses().unwrap_or_default();
    let neighbours = neighbours.lock().unwrap_or_else(PoisonError::into_inner);
    for nic in &mut inventory.nics {
        let Some(link) = links.iter().find(|link| link.name == nic.name) else {
            continue;
        };
        nic.max_mtu = link.max_mtu;
        nic.lldp = neighbours.get(&link.index).cloned();
        nic.addresses = addresses
            .iter()
            .filter(|(index, _)| *index == link.index)
            .map(|(_, p)| p.address)
            .collect();
    }
}

/// The MAC addresses of all physical interfaces, when no inventory is there yet.
pub(crate) fn macs() -> Vec<MacAddr> {
    rackbar_hardware::nics::read(&Root::default())
        .into_iter()
        .map(|nic| nic.mac)
        .collect()
}

/// One line about a machine.
pub(crate) fn in_short(inventory: &Inventory) -> String {
    let up = inventory.nics.iter().filter(|nic| nic.link).count();
    let neighbours = inventory.nics.iter().filter(|nic| nic.lldp.is_some()).count();
    format!(
        "{} threads, {} MiB, {} disks, {} interfaces ({up} up, {neighbours} with a known switch port), {}",
        inventory.cpu.threads,
        inventory.memory.total_bytes >> 20,
        inventory.disks.len(),
        inventory.nics.len(),
        if inventory.bmc.is_some() { "a BMC" } else { "no BMC" }
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use rackbar_model::{Disk, DiskHealth};

    #[test]
    fn of_a_switch_port_only_news_is_told_and_not_for_ever() {
        let facts = Facts::default();
        let mac = |last| MacAddr([2, 0, 0, 0, 0, last]);
        let lacp = |forwards| PortSays::Lacp { forwards };
        let tree = PortSays::SpanningTree {
            rapid: false,
            forward_delay_millis: 15_000,
            forwards: None,
        };
        for says in [lacp(false), tree, lacp(false), tree, lacp(true)] {
            facts.port_says(mac(1), says);
        }
        facts.port_says(mac(2), lacp(true));
        let news = [
            (mac(1), lacp(false)),
            (mac(1), tree),
            (mac(1), lacp(true)),
            (mac(2), lacp(true)),
        ];
        assert_eq!(facts.ports(0), news);
        assert_eq!(facts.ports(3), news[3..]);
        (0..1000).for_each(|n| facts.port_says(mac(1), lacp(n % 2 == 0)));
        assert_eq!(facts.ports(0).len(), MOST_PORT_NEWS);
        assert_eq!(facts.ports(1000), []);
    }

    #[test]
    fn the_bell_rings_for_a_new_inventory_until_it_is_heard() {
        let facts = Facts::default();
        let rings = || {
            poll(
                &mut [PollFd::new(facts.news().unwrap(), PollFlags::POLLIN)],
                PollTimeout::ZERO,
            )
            .unwrap()
                > 0
        };
        assert!(!rings());
        facts.publish(Inventory::default());
        assert!(rings());
        facts.hear();
        assert!(!rings());
        assert_eq!(facts.latest().unwrap().0, 1);
    }

    /// Waits long enough to be told from not waiting, on a busy machine too.
    const LONG: Duration = Duration::from_secs(30);

    #[test]
    fn a_burst_ends_in_one_look_and_a_question_is_answered_at_once() {
        let (sender, receiver) = channel();
        let begun = Instant::now();
        let send = |triggers: &[Trigger]| triggers.iter().for_each(|trigger| sender.send(*trigger).unwrap());

        send(&[Trigger::Changed; 5]);
        wait(&receiver, LONG, Duration::from_millis(50), LONG);
        assert!(receiver.try_recv().is_err(), "the burst was not taken in whole");
        assert!(begun.elapsed() >= Duration::from_millis(50));

        send(&[Trigger::Changed, Trigger::Asked, Trigger::Changed]);
        wait(&receiver, LONG, LONG, LONG);
        assert!(receiver.try_recv().is_err());
        assert!(begun.elapsed() < LONG);
    }

    #[test]
    fn a_burst_that_goes_on_is_reported_all_the_same() {
        let (sender, receiver) = channel();
        let begun = Instant::now();
        sender.send(Trigger::Changed).unwrap();
        wait(&receiver, LONG, LONG, Duration::from_millis(50));
        assert!((Duration::from_millis(50)..LONG).contains(&begun.elapsed()));
    }

    #[test]
    fn a_warmer_disk_is_no_news_and_a_failing_one_is() {
        let with = |ok, celsius| {
            let health = DiskHealth {
                ok,
                celsius: Some(celsius),
                ..DiskHealth::default()
            };
            Inventory {
                disks: vec![Disk {
                    health: Some(health),
                    ..Disk::default()
                }],
                ..Inventory::default()
            }
        };
        assert_eq!(without_noise(&with(true, 30)), without_noise(&with(true, 41)));
        assert_ne!(without_noise(&with(true, 30)), without_noise(&with(false, 30)));
    }
}

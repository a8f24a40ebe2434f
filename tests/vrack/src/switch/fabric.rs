//! The forwarding path: a frame comes in at a port, is put into a VLAN, and leaves at one port or at all others.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, SystemTime};

use tokio::sync::Notify;
use tokio::time::Instant;

use super::capture::{CaptureFile, Direction};
use super::fault::{self, Fault, FaultState};
use super::fdb::Table;
use super::lacp::{Aggregator, LagConfig};
use super::lag::Lag;
use super::port::{Counters, PortState, read, write};
use super::queue::Frame;
use super::stories::Stories;
use super::stp::StpState;
use super::{PortConfig, PortMode, SwitchConfig, locked, neighbours};

/// Number of a port, counted from 0 in the order they were added.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PortId(pub u32);

/// Everything the ports share.
pub(super) struct Fabric {
    pub(super) config: SwitchConfig,
    ports: RwLock<Vec<Arc<PortState>>>,
    lags: RwLock<Vec<Arc<Lag>>>,
    table: Mutex<Table>,
    capture_all: Mutex<Option<CaptureFile>>,
    pub(super) stories: Stories,
    /// It is restarting: nothing passes and every port is down.
    dark: AtomicBool,
    /// It has lost its configuration: bundles are not known.
    forgot: AtomicBool,
    /// Something is to be said before its time.
    pub(super) wake: Notify,
}

impl Fabric {
    pub(super) fn new(config: SwitchConfig) -> Self {
        let table = Table::new(config.ageing, config.addresses);
        Self {
            config,
            ports: RwLock::default(),
            lags: RwLock::default(),
            table: Mutex::new(table),
            capture_all: Mutex::default(),
            stories: Stories::default(),
            dark: AtomicBool::new(false),
            forgot: AtomicBool::new(false),
            wake: Notify::new(),
        }
    }

    pub(super) fn add_port(&self, config: PortConfig) -> PortId {
        let tap = locked(&self.capture_all).as_ref().map(|file| file.tap(&config.name));
        let mut ports = write(&self.ports);
        let number = u16::try_from(ports.len() + 1).unwrap_or(u16::MAX);
        ports.push(Arc::new(PortState::new(number, config, self.config.stp, tap)));
        PortId(u32::from(number) - 1)
    }

    /// Joins ports to a bundle.
    pub(super) fn bundle(&self, members: &[PortId], config: LagConfig) {
        let numbers: Vec<_> = members.iter().map(|id| id.0).collect();
        let key = u16::try_from(numbers.first().copied().unwrap_or(0) + 1).unwrap_or(u16::MAX);
        let lag = Arc::new(Lag {
            members: members.to_vec(),
            engine: Mutex::new(Aggregator::new(&numbers, key, config)),
            active: RwLock::default(),
        });
        write(&self.lags).push(Arc::clone(&lag));
        for (at, id) in members.iter().enumerate() {
            if let Some(port) = self.port(*id) {
                *write(&port.lag) = Some((Arc::clone(&lag), at));
                self.relink(*id, &port);
            }
        }
    }

    pub(super) fn ports(&self) -> Vec<(PortId, Arc<PortState>)> {
        (0..)
            .map(PortId)
            .zip(read(&self.ports).iter().map(Arc::clone))
            .collect()
    }

    pub(super) fn port(&self, id: PortId) -> Option<Arc<PortState>> {
        read(&self.ports).get(id.0 as usize).map(Arc::clone)
    }

    /// The bundles that the switch knows of at present.
    pub(super) fn lags(&self) -> Vec<Arc<Lag>> {
        if self.forgot.load(Relaxed) {
            return Vec::new();
        }
        read(&self.lags).clone()
    }

    /// The bundle a port belongs to at present, and its place there.
    pub(super) fn bundle_of(&self, port: &PortState) -> Option<(Arc<Lag>, usize)> {
        read(&port.lag).clone().filter(|_| !self.forgot.load(Relaxed))
    }

    pub(super) fn config(&self, id: PortId) -> Option<PortConfig> {
        Some(read(&self.port(id)?.config).clone())
    }

    pub(super) fn reconfigure(&self, id: PortId, config: PortConfig) {
        if let Some(port) = self.port(id) {
            let mode = config.spanning_tree;
            self.tell(&port, || {
                format!("is set to {:?}, spanning tree {:?}", config.mode, config.spanning_tree)
            });
            *write(&port.config) = config;
            port.spanning_tree(|stp| stp.set_mode(mode, Instant::now()));
            self.forget_addresses(id, &port);
            self.announce(&port);
        }
    }

    fn forget_addresses(&self, id: PortId, port: &PortState) {
        let bundle = read(&port.lag)
            .as_ref()
            .and_then(|(lag, _)| lag.members.first().copied());
        let mut table = locked(&self.table);
        table.forget(id);
        if let Some(first) = bundle {
            table.forget(first);
        }
    }

    /// The device side connected or left.
    pub(super) fn set_up(&self, id: PortId, up: bool) {
        if let Some(port) = self.port(id) {
            port.connected.store(up, Relaxed);
            self.relink(id, &port);
        }
    }

    /// Tells everything that watches a link whether it is up.
    fn relink(&self, id: PortId, port: &PortState) {
        let up = port.is_up() && !self.is_dark();
        let now = Instant::now();
        let before = port.spanning_tree(|stp| {
            let before = stp.state();
            stp.link(up, now);
            before
        });
        if up == (before == StpState::Disabled) {
            self.tell(port, || format!("its link is {}", if up { "up" } else { "down" }));
        }
        if let Some((lag, member)) = self.bundle_of(port) {
            locked(&lag.engine).link(member, up, now);
        }
        if up {
            self.announce(port);
        } else {
            port.queue.clear();
            self.forget_addresses(id, port);
            self.wake.notify_one();
        }
    }

    pub(super) fn is_up(&self, id: PortId) -> bool {
        self.port(id).is_some_and(|port| port.is_up() && !self.is_dark())
    }

    pub(super) fn is_dark(&self) -> bool {
        self.dark.load(Relaxed)
    }

    /// Tells stories of a port.
    pub(super) fn tell(&self, port: &PortState, what: impl FnOnce() -> String) {
        if self.stories.are_heard() {
            let text = format!("{} {}", read(&port.config).name, what());
            self.stories.tell(SystemTime::now(), "switch", &text);
        }
    }

    /// Begins or ends a restart: every link goes down, or comes up again.
    pub(super) fn set_dark(&self, dark: bool) {
        let what = if dark { "goes down to restart" } else { "is up again" };
        self.stories.tell(SystemTime::now(), "switch", what);
        self.dark.store(dark, Relaxed);
        for (id, port) in self.ports() {
            self.relink(id, &port);
        }
    }

    /// Puts every port to what it has out of the box, and remembers what it was.
    pub(super) fn forget(&self) {
        // Bundles end first, while they are still known.
        for (_, port) in self.ports() {
            if let Some((lag, member)) = self.bundle_of(&port) {
                locked(&lag.engine).link(member, false, Instant::now());
            }
        }
        self.forgot.store(true, Relaxed);
        for (id, port) in self.ports() {
            let config = read(&port.config).clone();
            let blank = PortConfig::out_of_the_box(config.name.clone());
            locked(&port.kept).get_or_insert(config);
            self.reconfigure(id, blank);
        }
    }

    /// Gives back what [`Fabric::forget`] took.
    pub(super) fn recall(&self) {
        self.forgot.store(false, Relaxed);
        for (id, port) in self.ports() {
            let kept = locked(&port.kept).take();
            if let Some(config) = kept {
                self.reconfigure(id, config);
                self.relink(id, &port);
            }
        }
    }

    pub(super) fn stp_state(&self, id: PortId) -> StpState {
        self.port(id)
            .map_or(StpState::Disabled, |port| locked(&port.stp).state())
    }

    /// True while frames pass a port.
    pub(super) fn is_forwarding(&self, id: PortId) -> bool {
        self.port(id).is_some_and(|port| {
            let bundled = self.bundle_of(&port).is_none_or(|(lag, _)| lag.is_active(id));
            self.is_up(id) && port.forwards() && bundled
        })
    }

    pub(super) fn set_fault(&self, id: PortId, fault: Fault) {
        let Some(port) = self.port(id) else { return };
        self.tell(&port, || format!("has {}", fault.in_words()));
        let was_cut = std::mem::replace(&mut *locked(&port.fault), FaultState::new(fault))
            .fault
            .cut;
        port.faulty.store(fault != Fault::default(), Relaxed);
        if fault.cut != was_cut {
            self.relink(id, &port);
        }
    }

    pub(super) fn counters(&self, id: PortId) -> Counters {
        self.port(id).map(|port| port.tally.read()).unwrap_or_default()
    }

    pub(super) fn locate(&self, vlan: u16, mac: [u8; 6]) -> Option<PortId> {
        locked(&self.table).lookup(vlan, mac, Instant::now())
    }

    pub(super) fn capture(&self, id: PortId, file: &CaptureFile) {
        if let (Some(port), Some(config)) = (self.port(id), self.config(id)) {
            locked(&port.taps).push(file.tap(&config.name));
            port.tapped.store(true, Relaxed);
        }
    }

    pub(super) fn capture_all(&self, file: &CaptureFile) {
        *locked(&self.capture_all) = Some(file.clone());
        for (id, _) in self.ports() {
            self.capture(id, file);
        }
    }

    pub(super) fn stop_capture(&self, file: &CaptureFile) {
        locked(&self.capture_all).take_if(|all| all.is(file));
        self.stories.stop(file);
        for (_, port) in self.ports() {
            let mut taps = locked(&port.taps);
            taps.retain(|tap| !tap.leads_to(file));
            port.tapped.store(!taps.is_empty(), Relaxed);
        }
    }

    pub(super) fn announce(&self, port: &PortState) {
        port.announce.store(true, Relaxed);
        self.wake.notify_one();
    }

    /// A frame from the device at `from`.
    pub(super) fn ingress(&self, from: PortId, wire: &[u8]) {
        let Some(port) = self.port(from) else { return };
        if !port.connected.load(Relaxed) {
            return port.discard();
        }
        if self.is_dark() {
            return port.block();
        }
        let Some(delay) = port.suffer() else { return };
        // Neighbours' frames belong to the cable and to no VLAN (802.1Q-2018, 8.6.3).
        if is_link_local(wire) && !self.config.forward_link_local {
            port.tally.rx_frames.fetch_add(1, Relaxed);
            port.tally.rx_bytes.fetch_add(wire.len() as u64, Relaxed);
            port.record(Direction::In, None, 0, &Arc::from(wire));
            return neighbours::hear(self, &port, wire);
        }
        let classified = classify(&read(&port.config).mode, wire);
        let Some(inside) = classified else {
            return port.discard();
        };
        port.tally.rx_frames.fetch_add(1, Relaxed);
        port.tally.rx_bytes.fetch_add(wire.len() as u64, Relaxed);
        port.record(Direction::In, inside.wire_tag, inside.vlan, &inside.data);
        let bundle = self.bundle_of(&port).map(|(lag, _)| lag);
        let passes = port.forwards() && bundle.as_ref().is_none_or(|lag| lag.is_active(from));
        if !passes {
            port.block();
            if port.learns() && bundle.is_none() {
                self.learn(from, inside.vlan, &inside.data);
            }
            return;
        }
        // A bundle is one port to the table, and no frame goes back into it.
        let from = bundle.and_then(|lag| lag.members.first().copied()).unwrap_or(from);
        self.learn(from, inside.vlan, &inside.data);
        self.forward(from, inside.vlan, &inside.data, delay);
    }

    fn learn(&self, from: PortId, vlan: u16, data: &[u8]) {
        if let Some(source) = address(data, 6).filter(|source| source[0] & 1 == 0) {
            locked(&self.table).learn(vlan, source, from, Instant::now());
        }
    }

    fn forward(&self, from: PortId, vlan: u16, data: &Arc<[u8]>, delay: Duration) {
        let now = Instant::now();
        let Some(destination) = address(data, 0) else { return };
        let known = (destination[0] & 1 == 0)
            .then(|| locked(&self.table).lookup(vlan, destination, now))
            .flatten();
        match known {
            Some(to) if to == from => {}
            Some(to) => self.egress(to, vlan, data, delay, now),
            None => {
                let count = read(&self.ports).len();
                for to in (0..).map(PortId).take(count).filter(|to| *to != from) {
                    self.egress(to, vlan, data, delay, now);
                }
            }
        }
    }

    /// Sends a frame to a port; to a bundle, whose first member stands for all, to the member that its hash picks.
    fn egress(&self, to: PortId, vlan: u16, data: &Arc<[u8]>, delay: Duration, now: Instant) {
        let Some(port) = self.port(to) else { return };
        let Some((lag, place)) = self.bundle_of(&port) else {
            return deliver(&port, vlan, data, delay, now);
        };
        if place > 0 {
            return;
        }
        match lag.choose(data).and_then(|member| self.port(member)) {
            Some(member) => deliver(&member, vlan, data, delay, now),
            None => port.block(),
        }
    }

    /// Sends a frame of the switch's own to the device at `port`, untagged; blocked ports carry it too.
    pub(super) fn originate(&self, port: &PortState, frame: &[u8]) {
        if port.connected.load(Relaxed) && !self.is_dark() && port.suffer().is_some() {
            let data: Arc<[u8]> = Arc::from(frame);
            port.record(Direction::Out, None, 0, &data);
            send(port, Frame { tag: None, data }, None);
        }
    }
}

/// A frame that was given a VLAN and lost its tag.
struct Inside {
    vlan: u16,
    wire_tag: Option<u16>,
    data: Arc<[u8]>,
}

/// Decides the VLAN of a frame at a port; `None` when the port does not carry it.
fn classify(mode: &PortMode, wire: &[u8]) -> Option<Inside> {
    if wire.len() < 14 {
        return None;
    }
    let tagged = wire[12..14] == [0x81, 0x00];
    let tag = if tagged {
        Some(u16::from_be_bytes([*wire.get(14)?, *wire.get(15)?]) & 0x0fff)
    } else {
        None
    };
    let vlan = match (mode, tag) {
        // VID 0 is a priority tag: the frame counts as untagged (802.1Q-2018, 6.9.1).
        (PortMode::Access { vlan }, None | Some(0)) => *vlan,
        (PortMode::Access { .. }, Some(_)) => return None,
        (PortMode::Trunk { native, .. }, None | Some(0)) => (*native)?,
        (PortMode::Trunk { native, allowed }, Some(vlan)) => {
            if *native != Some(vlan) && !allowed.contains(&vlan) {
                return None;
            }
            vlan
        }
    };
    let data = if tagged {
        [&wire[..12], wire.get(16..)?].concat().into()
    } else {
        Arc::from(wire)
    };
    Some(Inside {
        vlan,
        wire_tag: tag,
        data,
    })
}

/// Puts a frame of a VLAN on a port's queue, if the port carries that VLAN.
fn deliver(port: &PortState, vlan: u16, data: &Arc<[u8]>, delay: Duration, now: Instant) {
    if !port.connected.load(Relaxed) {
        return;
    }
    let tag = {
        let config = read(&port.config);
        match &config.mode {
            PortMode::Access { vlan: own } if *own == vlan => None,
            PortMode::Trunk { native, .. } if *native == Some(vlan) => None,
            PortMode::Trunk { allowed, .. } if allowed.contains(&vlan) => Some(vlan),
            PortMode::Access { .. } | PortMode::Trunk { .. } => return,
        }
    };
    if !port.forwards() {
        return port.block();
    }
    let Some(held) = port.suffer() else { return };
    let Some(data) = arrives(port, data) else {
        port.tally.lost.fetch_add(1, Relaxed);
        return;
    };
    port.record(Direction::Out, tag, vlan, &data);
    let delay = delay + held;
    let due = (!delay.is_zero()).then(|| now + delay);
    send(port, Frame { tag, data }, due);
}

/// What arrives of a frame at the device, as far as that depends on what is in it; `None` when it does not.
fn arrives(port: &PortState, data: &Arc<[u8]>) -> Option<Arc<[u8]>> {
    if !port.faulty.load(Relaxed) {
        return Some(Arc::clone(data));
    }
    let mut state = locked(&port.fault);
    if state.fault.no_proxy_offers && fault::is_proxy_offer(data) {
        return None;
    }
    let Some(other) = state.garbles(data) else {
        return Some(Arc::clone(data));
    };
    port.tally.garbled.fetch_add(1, Relaxed);
    Some(other)
}

fn send(port: &PortState, frame: Frame, due: Option<Instant>) {
    let length = frame.wire_len() as u64;
    if port.queue.push(frame, due) {
        port.tally.tx_frames.fetch_add(1, Relaxed);
        port.tally.tx_bytes.fetch_add(length, Relaxed);
    } else {
        port.tally.overflowed.fetch_add(1, Relaxed);
    }
}

fn address(data: &[u8], at: usize) -> Option<[u8; 6]> {
    data.get(at..at + 6)?.try_into().ok()
}

/// Addresses a bridge keeps to itself: spanning tree, pause, LACP, LLDP (802.1Q-2018, table 8-1).
fn is_link_local(data: &[u8]) -> bool {
    data.starts_with(&[0x01, 0x80, 0xc2, 0x00, 0x00]) && data.get(5).is_some_and(|last| last & 0xf0 == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_frame_makes_it_panic_and_none_leaves_its_vlan(wire in prop::collection::vec(any::<u8>(), 0..80), tag: bool) {
            let fabric = Fabric::new(SwitchConfig::default());
            let trunk = fabric.add_port(PortConfig::trunk("t", "", Some(1), [10]));
            let inside = fabric.add_port(PortConfig::access("i", "", 10));
            let outside = fabric.add_port(PortConfig::access("o", "", 20));
            for port in [trunk, inside, outside] {
                fabric.set_up(port, true);
            }
            let mut wire = wire;
            if tag && wire.len() >= 16 {
                wire[12..16].copy_from_slice(&[0x81, 0x00, 0x00, 10]);
            }
            fabric.ingress(trunk, &wire);
            prop_assert_eq!(fabric.counters(outside).tx_frames, 0);
            let tagged_ten = wire.len() >= 16 && wire[12..14] == [0x81, 0x00] && wire[14] & 0x0f == 0 && wire[15] == 10;
            prop_assert!(tagged_ten || fabric.counters(inside).tx_frames == 0);
        }
    }
}

//! The forwarding path: a frame comes in at a port, is put into a VLAN, and leaves at one port or at all others.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::capture::{CaptureFile, Direction, Tap};
use super::fault::{self, Fault, FaultState};
use super::fdb::Table;
use super::queue::{Frame, Queue};
use super::{PortConfig, PortMode, SwitchConfig, lldp, locked};

/// Number of a port, counted from 0 in the order they were added.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PortId(pub u32);

/// What passed a port. `rx` is from the device into the switch.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Frames from the device.
    pub rx_frames: u64,
    /// Bytes from the device, without FCS.
    pub rx_bytes: u64,
    /// Frames to the device.
    pub tx_frames: u64,
    /// Bytes to the device, without FCS.
    pub tx_bytes: u64,
    /// Frames of a VLAN the port does not carry, runts, and frames to a port that is down.
    pub discarded: u64,
    /// Frames the port's queue had no room for.
    pub overflowed: u64,
    /// Frames a fault took.
    pub lost: u64,
}

#[derive(Default)]
struct Tally {
    rx_frames: AtomicU64,
    rx_bytes: AtomicU64,
    tx_frames: AtomicU64,
    tx_bytes: AtomicU64,
    discarded: AtomicU64,
    overflowed: AtomicU64,
    lost: AtomicU64,
}

pub(super) struct PortState {
    config: RwLock<PortConfig>,
    connected: AtomicBool,
    fault: Mutex<FaultState>,
    /// Set while `fault` is not the default one, so that healthy links do not pay for a lock.
    faulty: AtomicBool,
    pub(super) queue: Queue,
    tally: Tally,
    taps: Mutex<Vec<Tap>>,
    tapped: AtomicBool,
    /// LLDP is due now: the link came up, or a neighbour announced itself.
    pub(super) announce: AtomicBool,
}

impl PortState {
    /// Draws the fault's dice: `None` when the frame is gone, else how long it is held.
    fn suffer(&self) -> Option<Duration> {
        if !self.faulty.load(Relaxed) {
            return Some(Duration::ZERO);
        }
        let mut state = locked(&self.fault);
        if state.fault.cut || state.loses() {
            self.tally.lost.fetch_add(1, Relaxed);
            return None;
        }
        Some(state.fault.delay)
    }

    fn record(&self, direction: Direction, wire_tag: Option<u16>, vlan: u16, data: &Arc<[u8]>) {
        if self.tapped.load(Relaxed) {
            for tap in locked(&self.taps).iter() {
                tap.record(direction, wire_tag, vlan, data);
            }
        }
    }

    fn discard(&self) {
        self.tally.discarded.fetch_add(1, Relaxed);
    }
}

/// Everything the ports share.
pub(super) struct Fabric {
    pub(super) config: SwitchConfig,
    ports: RwLock<Vec<Arc<PortState>>>,
    table: Mutex<Table>,
    capture_all: Mutex<Option<CaptureFile>>,
    pub(super) announce: Notify,
}

impl Fabric {
    pub(super) fn new(config: SwitchConfig) -> Self {
        let table = Table::new(config.ageing, config.addresses);
        Self {
            config,
            ports: RwLock::default(),
            table: Mutex::new(table),
            capture_all: Mutex::default(),
            announce: Notify::new(),
        }
    }

    pub(super) fn add_port(&self, config: PortConfig) -> PortId {
        let tap = locked(&self.capture_all).as_ref().map(|file| file.tap(&config.name));
        let state = PortState {
            config: RwLock::new(config),
            connected: AtomicBool::new(false),
            fault: Mutex::default(),
            faulty: AtomicBool::new(false),
            queue: Queue::default(),
            tally: Tally::default(),
            tapped: AtomicBool::new(tap.is_some()),
            taps: Mutex::new(tap.into_iter().collect()),
            announce: AtomicBool::new(false),
        };
        let mut ports = self.ports.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        ports.push(Arc::new(state));
        PortId(u32::try_from(ports.len() - 1).unwrap_or(u32::MAX))
    }

    pub(super) fn ports(&self) -> Vec<(PortId, Arc<PortState>)> {
        let ports = self.ports.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        (0..).map(PortId).zip(ports.iter().map(Arc::clone)).collect()
    }

    pub(super) fn port(&self, id: PortId) -> Option<Arc<PortState>> {
        let ports = self.ports.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        ports.get(id.0 as usize).map(Arc::clone)
    }

    pub(super) fn config(&self, id: PortId) -> Option<PortConfig> {
        Some(
            self.port(id)?
                .config
                .read()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .clone(),
        )
    }

    pub(super) fn reconfigure(&self, id: PortId, config: PortConfig) {
        if let Some(port) = self.port(id) {
            *port.config.write().unwrap_or_else(std::sync::PoisonError::into_inner) = config;
            locked(&self.table).forget(id);
            self.announce(&port);
        }
    }

    /// The device side connected or left.
    pub(super) fn set_up(&self, id: PortId, up: bool) {
        let Some(port) = self.port(id) else { return };
        port.connected.store(up, Relaxed);
        if up {
            self.announce(&port);
        } else {
            port.queue.clear();
            locked(&self.table).forget(id);
        }
    }

    pub(super) fn is_up(&self, id: PortId) -> bool {
        self.port(id)
            .is_some_and(|port| port.connected.load(Relaxed) && !locked(&port.fault).fault.cut)
    }

    pub(super) fn set_fault(&self, id: PortId, fault: Fault) {
        let Some(port) = self.port(id) else { return };
        let was_cut = locked(&port.fault).fault.cut;
        *locked(&port.fault) = FaultState::new(fault);
        port.faulty.store(fault != Fault::default(), Relaxed);
        if fault.cut && !was_cut {
            port.queue.clear();
            locked(&self.table).forget(id);
        } else if was_cut && !fault.cut {
            self.announce(&port);
        }
    }

    pub(super) fn counters(&self, id: PortId) -> Counters {
        let Some(port) = self.port(id) else {
            return Counters::default();
        };
        let read = |counter: &AtomicU64| counter.load(Relaxed);
        let tally = &port.tally;
        Counters {
            rx_frames: read(&tally.rx_frames),
            rx_bytes: read(&tally.rx_bytes),
            tx_frames: read(&tally.tx_frames),
            tx_bytes: read(&tally.tx_bytes),
            discarded: read(&tally.discarded),
            overflowed: read(&tally.overflowed),
            lost: read(&tally.lost),
        }
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
        for (_, port) in self.ports() {
            let mut taps = locked(&port.taps);
            taps.retain(|tap| !tap.leads_to(file));
            port.tapped.store(!taps.is_empty(), Relaxed);
        }
    }

    fn announce(&self, port: &PortState) {
        port.announce.store(true, Relaxed);
        self.announce.notify_one();
    }

    /// A frame from the device at `from`.
    pub(super) fn ingress(&self, from: PortId, wire: &[u8]) {
        let Some(port) = self.port(from) else { return };
        if !port.connected.load(Relaxed) {
            return port.discard();
        }
        let Some(delay) = port.suffer() else { return };
        let classified = {
            let config = port.config.read().unwrap_or_else(std::sync::PoisonError::into_inner);
            classify(&config.mode, wire)
        };
        let Some(inside) = classified else {
            return port.discard();
        };
        port.tally.rx_frames.fetch_add(1, Relaxed);
        port.tally.rx_bytes.fetch_add(wire.len() as u64, Relaxed);
        port.record(Direction::In, inside.wire_tag, inside.vlan, &inside.data);
        if is_link_local(&inside.data) {
            if lldp::is_lldp(&inside.data) {
                self.announce(&port);
            }
            if !self.config.forward_link_local {
                return;
            }
        }
        self.forward(from, inside.vlan, &inside.data, delay);
    }

    fn forward(&self, from: PortId, vlan: u16, data: &Arc<[u8]>, delay: Duration) {
        let now = Instant::now();
        let (Some(destination), Some(source)) = (address(data, 0), address(data, 6)) else {
            return;
        };
        let known = {
            let mut table = locked(&self.table);
            if source[0] & 1 == 0 {
                table.learn(vlan, source, from, now);
            }
            (destination[0] & 1 == 0)
                .then(|| table.lookup(vlan, destination, now))
                .flatten()
        };
        match known {
            Some(to) if to == from => {}
            Some(to) => {
                if let Some(port) = self.port(to) {
                    deliver(&port, vlan, data, delay, now);
                }
            }
            None => {
                let ports = self.ports.read().unwrap_or_else(std::sync::PoisonError::into_inner);
                for (id, port) in (0..).map(PortId).zip(ports.iter()) {
                    if id != from {
                        deliver(port, vlan, data, delay, now);
                    }
                }
            }
        }
    }

    /// Sends a frame of the switch's own to the device at `port`, untagged.
    pub(super) fn originate(port: &PortState, frame: &[u8]) {
        if port.connected.load(Relaxed) && port.suffer().is_some() {
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
        let config = port.config.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        match &config.mode {
            PortMode::Access { vlan: own } if *own == vlan => None,
            PortMode::Trunk { native, .. } if *native == Some(vlan) => None,
            PortMode::Trunk { allowed, .. } if allowed.contains(&vlan) => Some(vlan),
            PortMode::Access { .. } | PortMode::Trunk { .. } => return,
        }
    };
    let Some(held) = port.suffer() else { return };
    if port.faulty.load(Relaxed) && locked(&port.fault).fault.no_proxy_offers && fault::is_proxy_offer(data) {
        port.tally.lost.fetch_add(1, Relaxed);
        return;
    }
    port.record(Direction::Out, tag, vlan, data);
    let delay = delay + held;
    let due = (!delay.is_zero()).then(|| now + delay);
    send(
        port,
        Frame {
            tag,
            data: Arc::clone(data),
        },
        due,
    );
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

//! One port: what it is set to, what it counts, what holds it up.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use super::capture::{Direction, Tap};
use super::fault::FaultState;
use super::lag::Lag;
use super::queue::Queue;
use super::stp::{StpPort, StpState, StpTimers};
use super::{PortConfig, locked};

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
    /// Frames spanning tree or LACP kept from passing, both directions; also those of a switch that is restarting.
    pub blocked: u64,
    /// Frames the port's queue had no room for.
    pub overflowed: u64,
    /// Frames a fault took.
    pub lost: u64,
    /// Frames to the device of which a fault made others.
    pub garbled: u64,
}

#[derive(Default)]
pub(super) struct Tally {
    pub(super) rx_frames: AtomicU64,
    pub(super) rx_bytes: AtomicU64,
    pub(super) tx_frames: AtomicU64,
    pub(super) tx_bytes: AtomicU64,
    pub(super) discarded: AtomicU64,
    pub(super) blocked: AtomicU64,
    pub(super) overflowed: AtomicU64,
    pub(super) lost: AtomicU64,
    pub(super) garbled: AtomicU64,
}

impl Tally {
    pub(super) fn read(&self) -> Counters {
        let read = |counter: &AtomicU64| counter.load(Relaxed);
        Counters {
            rx_frames: read(&self.rx_frames),
            rx_bytes: read(&self.rx_bytes),
            tx_frames: read(&self.tx_frames),
            tx_bytes: read(&self.tx_bytes),
            discarded: read(&self.discarded),
            blocked: read(&self.blocked),
            overflowed: read(&self.overflowed),
            lost: read(&self.lost),
            garbled: read(&self.garbled),
        }
    }
}

pub(super) struct PortState {
    pub(super) config: RwLock<PortConfig>,
    /// What a switch that forgot is to be given back.
    pub(super) kept: Mutex<Option<PortConfig>>,
    pub(super) connected: AtomicBool,
    pub(super) fault: Mutex<FaultState>,
    /// Set while `fault` is not the default one, so that healthy links do not pay for a lock.
    pub(super) faulty: AtomicBool,
    pub(super) stp: Mutex<StpPort>,
    /// What spanning tree allows, kept beside it so that frames do not wait for its lock.
    forwards: AtomicBool,
    learns: AtomicBool,
    /// The bundle it belongs to, and its place there.
    pub(super) lag: RwLock<Option<(Arc<Lag>, usize)>>,
    pub(super) queue: Queue,
    pub(super) tally: Tally,
    pub(super) taps: Mutex<Vec<Tap>>,
    pub(super) tapped: AtomicBool,
    /// LLDP is due now: the link came up, or a neighbour announced itself.
    pub(super) announce: AtomicBool,
}

impl PortState {
    /// A port that is down. `number` counts from 1.
    pub(super) fn new(number: u16, config: PortConfig, timers: StpTimers, tap: Option<Tap>) -> Self {
        Self {
            stp: Mutex::new(StpPort::new(number, config.spanning_tree, timers)),
            config: RwLock::new(config),
            kept: Mutex::default(),
            connected: AtomicBool::new(false),
            fault: Mutex::default(),
            faulty: AtomicBool::new(false),
            forwards: AtomicBool::new(false),
            learns: AtomicBool::new(false),
            lag: RwLock::default(),
            queue: Queue::default(),
            tally: Tally::default(),
            tapped: AtomicBool::new(tap.is_some()),
            taps: Mutex::new(tap.into_iter().collect()),
            announce: AtomicBool::new(false),
        }
    }

    /// Draws the fault's dice: `None` when the frame is gone, else how long it is held.
    pub(super) fn suffer(&self) -> Option<Duration> {
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

    pub(super) fn record(&self, direction: Direction, wire_tag: Option<u16>, vlan: u16, data: &Arc<[u8]>) {
        if self.tapped.load(Relaxed) {
            for tap in locked(&self.taps).iter() {
                tap.record(direction, wire_tag, vlan, data);
            }
        }
    }

    pub(super) fn discard(&self) {
        self.tally.discarded.fetch_add(1, Relaxed);
    }

    pub(super) fn block(&self) {
        self.tally.blocked.fetch_add(1, Relaxed);
    }

    /// Its cable leads somewhere and is not cut.
    pub(super) fn is_up(&self) -> bool {
        self.connected.load(Relaxed) && !locked(&self.fault).fault.cut
    }

    /// Does something with spanning tree, and lets frames see what came of it.
    pub(super) fn spanning_tree<T>(&self, act: impl FnOnce(&mut StpPort) -> T) -> T {
        let mut stp = locked(&self.stp);
        let done = act(&mut stp);
        let state = stp.state();
        self.forwards.store(state == StpState::Forwarding, Relaxed);
        let learns = matches!(state, StpState::Learning | StpState::Forwarding);
        self.learns.store(learns, Relaxed);
        done
    }

    /// Spanning tree lets frames through.
    pub(super) fn forwards(&self) -> bool {
        self.forwards.load(Relaxed)
    }

    /// Spanning tree lets addresses be learned.
    pub(super) fn learns(&self) -> bool {
        self.learns.load(Relaxed)
    }
}

/// Reads a lock whose data stays sound after a panic elsewhere, as [`locked`] does.
pub(super) fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

/// As [`read`], to write.
pub(super) fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

//! What the switch says to whoever is at the other end of a cable, and when: LLDP, BPDUs, LACPDUs. One task asks the
//! engines what is due and sleeps until the next of it.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tokio::time::Instant;

use super::fabric::{Fabric, PortId};
use super::port::{PortState, read, write};
use super::{lacp, lldp, locked};

/// Runs the engines for ever.
pub(super) async fn run(fabric: Arc<Fabric>) {
    let interval = fabric.config.lldp_interval;
    let mut next_lldp = Instant::now();
    loop {
        let now = Instant::now();
        let all = next_lldp <= now;
        if all {
            next_lldp = now + interval;
        }
        let mut due = Some(next_lldp);
        if !fabric.is_dark() {
            for (id, port) in fabric.ports() {
                say_lldp(&fabric, id, &port, all);
                let next = spanning_tree(&fabric, &port, now);
                due = due.into_iter().chain(next).min();
            }
            for lag in fabric.lags() {
                let next = bundle(&fabric, &lag, now);
                due = due.into_iter().chain(next).min();
            }
        }
        tokio::select! {
            () = tokio::time::sleep_until(due.unwrap_or(next_lldp)) => {}
            () = fabric.wake.notified() => {}
        }
    }
}

/// Says LLDP on a port at the interval, and at once on one whose link came up or whose neighbour spoke: a machine that
/// boots should not wait for a timer to learn where it is plugged in (the standard's fast start, 802.1AB 9.2.5.5).
fn say_lldp(fabric: &Fabric, id: PortId, port: &PortState, all: bool) {
    let asked = port.announce.swap(false, Relaxed);
    if all || asked {
        let config = read(&port.config).clone();
        let frame = lldp::frame(&fabric.config.name, id, &config, fabric.config.lldp_interval);
        fabric.originate(port, &frame);
    }
}

/// Runs a port's spanning tree; gives when it next wants to be run.
fn spanning_tree(fabric: &Fabric, port: &PortState, now: Instant) -> Option<Instant> {
    let (bpdu, before, after, next) = port.spanning_tree(|stp| {
        let before = stp.state();
        (stp.poll(now), before, stp.state(), stp.deadline())
    });
    if before != after {
        fabric.tell(port, || format!("is {after:?} (spanning tree)"));
    }
    if let Some(bpdu) = bpdu {
        fabric.originate(port, &bpdu);
    }
    next
}

/// Runs a bundle's engine; gives when it next wants to be run.
fn bundle(fabric: &Fabric, lag: &super::lag::Lag, now: Instant) -> Option<Instant> {
    let mut out = Vec::new();
    let (active, next) = {
        let mut engine = locked(&lag.engine);
        engine.poll(now, &mut out);
        (engine.active(), engine.deadline())
    };
    let active: Vec<_> = active
        .into_iter()
        .filter_map(|at| lag.members.get(at).copied())
        .collect();
    if *read(&lag.active) != active {
        if let Some(port) = lag.members.first().and_then(|first| fabric.port(*first)) {
            let of = lag.members.len();
            fabric.tell(&port, || {
                format!("is in a bundle: {} of {of} links carry traffic", active.len())
            });
        }
        *write(&lag.active) = active;
    }
    for (member, frame) in out {
        if let Some(port) = lag.members.get(member).and_then(|id| fabric.port(*id)) {
            fabric.originate(&port, &frame);
        }
    }
    next
}

/// Takes a frame to one of the addresses a bridge keeps to itself (802.1Q-2018, table 8-1).
pub(super) fn hear(fabric: &Fabric, port: &PortState, frame: &[u8]) {
    let now = Instant::now();
    if lldp::is_lldp(frame) {
        fabric.announce(port);
    } else if lacp::is_lacp(frame) {
        if let Some((lag, member)) = fabric.bundle_of(port) {
            locked(&lag.engine).receive(member, frame, now);
            fabric.wake.notify_one();
        }
    } else {
        port.spanning_tree(|stp| stp.receive(frame, now));
        fabric.wake.notify_one();
    }
}

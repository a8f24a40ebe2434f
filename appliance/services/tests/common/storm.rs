//! Storms of malformed packets, reproducible by their seed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Blows until it is dropped, also by a test that fails.
#[derive(Default)]
pub(crate) struct Storm(Arc<AtomicBool>);

pub(crate) struct Blows(Arc<AtomicBool>);

impl Storm {
    pub(crate) fn blows(&self) -> Blows {
        Blows(Arc::clone(&self.0))
    }
}

impl Blows {
    pub(crate) fn go_on(&self) -> bool {
        !self.0.load(Ordering::Relaxed)
    }
}

impl Drop for Storm {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Changes up to `most` random octets of a real packet, at least `least`, and cuts every fourth.
pub(crate) fn mutate(seed: &mut u64, template: &[u8], most: u64, least: u64) -> Vec<u8> {
    let mut next = || {
        // xorshift64
        *seed ^= *seed << 13;
        *seed ^= *seed >> 7;
        *seed ^= *seed << 17;
        *seed
    };
    let mut packet = template.to_vec();
    for _ in 0..least + next() % (most - least + 1) {
        let at = next() as usize % packet.len();
        packet[at] = next() as u8;
    }
    if next() % 4 == 0 {
        packet.truncate(next() as usize % packet.len());
    }
    packet
}

/// Memory of this program in RAM.
pub(crate) fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse().unwrap()
}

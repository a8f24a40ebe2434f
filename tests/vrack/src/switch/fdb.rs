//! The table of addresses: which port leads to which station, per VLAN (802.1Q-2018, 8.8).

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::PortId;

/// Independent learning: the VLAN is part of the key.
type Key = (u16, [u8; 6]);

pub(super) struct Table {
    entries: HashMap<Key, (PortId, Instant)>,
    ageing: Duration,
    limit: usize,
    swept: Option<Instant>,
}

impl Table {
    pub(super) fn new(ageing: Duration, limit: usize) -> Self {
        Self {
            entries: HashMap::new(),
            ageing,
            limit,
            swept: None,
        }
    }

    /// Remembers where a frame came from. A full table learns nothing new; old entries are looked for at most once a
    /// second, so a flood of forged addresses costs no more than that.
    pub(super) fn learn(&mut self, vlan: u16, mac: [u8; 6], port: PortId, now: Instant) {
        if let Some(entry) = self.entries.get_mut(&(vlan, mac)) {
            *entry = (port, now);
            return;
        }
        if self.entries.len() >= self.limit {
            if self
                .swept
                .is_some_and(|swept| now.duration_since(swept) < Duration::from_secs(1))
            {
                return;
            }
            self.swept = Some(now);
            let ageing = self.ageing;
            self.entries.retain(|_, (_, seen)| now.duration_since(*seen) < ageing);
        }
        if self.entries.len() < self.limit {
            self.entries.insert((vlan, mac), (port, now));
        }
    }

    pub(super) fn lookup(&self, vlan: u16, mac: [u8; 6], now: Instant) -> Option<PortId> {
        let (port, seen) = self.entries.get(&(vlan, mac))?;
        (now.duration_since(*seen) < self.ageing).then_some(*port)
    }

    /// Forgets everything learned on a port, when its link went down or its VLANs changed.
    pub(super) fn forget(&mut self, port: PortId) {
        self.entries.retain(|_, (at, _)| *at != port);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: [u8; 6] = [2, 0, 0, 0, 0, 1];
    const B: [u8; 6] = [2, 0, 0, 0, 0, 2];

    #[test]
    fn learns_per_vlan_moves_and_ages() {
        let start = Instant::now();
        let mut table = Table::new(Duration::from_secs(10), 8);
        table.learn(10, A, PortId(1), start);
        assert_eq!(table.lookup(10, A, start), Some(PortId(1)));
        assert_eq!(table.lookup(20, A, start), None);
        table.learn(10, A, PortId(2), start);
        assert_eq!(table.lookup(10, A, start), Some(PortId(2)));
        assert_eq!(table.lookup(10, A, start + Duration::from_secs(10)), None);
        table.forget(PortId(2));
        assert_eq!(table.lookup(10, A, start), None);
    }

    #[test]
    fn a_full_table_keeps_what_it_has_until_that_is_old() {
        let start = Instant::now();
        let mut table = Table::new(Duration::from_secs(10), 1);
        table.learn(10, A, PortId(1), start);
        table.learn(10, B, PortId(2), start);
        assert_eq!(table.lookup(10, B, start), None);
        let later = start + Duration::from_secs(11);
        table.learn(10, B, PortId(2), later);
        assert_eq!(table.lookup(10, B, later), Some(PortId(2)));
    }
}

//! What switch ports say of themselves, heard by the agents behind them.

use rackbar_model::{EventKind, MacAddr, NodeId, PortSays, Timestamp};

use crate::mind::Mind;

/// Most such events in one boot: a port that changes its mind all the time is told of no more.
const MOST: usize = 16;

impl Mind {
    /// Takes what an interface's switch port says; told again after a reconnection, it is no news.
    pub(crate) fn port_says(&mut self, now: Timestamp, node: NodeId, mac: MacAddr, says: PortSays) {
        let node = self.resolve(node);
        let Some(record) = self.records.get(&node) else { return };
        let own = record.node.macs.contains(&mac);
        // An agent asks for its address when it starts: what was told before that is another boot's.
        let this_boot = record.recent.iter().rev();
        let this_boot = this_boot.take_while(|event| !matches!(event.kind, EventKind::DhcpDiscover { .. }));
        let told = this_boot.filter_map(|event| match event.kind {
            EventKind::PortSays(before) => Some((event.mac, before)),
            _ => None,
        });
        let told: Vec<_> = told.collect();
        let known = told
            .iter()
            .find(|(at, before)| *at == Some(mac) && before.same_protocol(&says))
            .is_some_and(|(_, before)| *before == says);
        if own && !known && told.len() < MOST {
            self.emit(now, Some(node), Some(mac), EventKind::PortSays(says));
        }
    }
}

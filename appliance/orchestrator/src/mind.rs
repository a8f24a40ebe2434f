//! The live view: what happens goes in, nodes change, and what is to be written or done comes out. Synchronous, without
//! a clock, a socket or a disk; [`crate::rack`] carries out what it leaves in its [`Outbox`].
//!
//! Anyone on the wire can claim any MAC address, so a node that only its packets speak for is provisional: at most
//! [`MAX_PROVISIONAL`] of them exist, they are not written to the disk, and they are forgotten when they fall silent.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use rackbar_model::{BootStage, Event, EventKind, MacAddr, Node, NodeId, NodeState, Severity, Timestamp, WitnessKind};

use crate::floods::Floods;
use crate::identity;
use crate::record::{Record, Standing};
use crate::records::Records;
use crate::settings::{Role, Settings};
use crate::state::{self, Happening, Next};

/// Nodes that only their packets speak for.
pub(crate) const MAX_PROVISIONAL: usize = 1_024;

/// All nodes. Leases bound the firm ones; this bounds what a forger of leases can do in proxy mode.
const MAX_NODES: usize = 16_384;

/// Milliseconds of silence after which a node that was only heard of is forgotten.
const FORGET_PACKETS: u64 = 10 * 60 * 1_000;

/// The same for one that fetched boot files: long enough to ask in the morning why it failed at night.
const FORGET_BOOTING: u64 = 24 * 60 * 60 * 1_000;

/// Milliseconds after the last sign of life in which a verdict may still change by silence alone.
const VERDICT_LASTS: u64 = 15 * 60 * 1_000;

/// A provisional node may be displaced by another after this much silence.
const DISPLACE: u64 = 60 * 1_000;

/// Clients of BMC networks that are remembered.
const MAX_BMC_CLIENTS: usize = 4_096;

/// Events of strangers: this many at once, then so many a second. A rack of a thousand machines switched on at once
/// stays below; a flood of forged addresses does not push a week of history out of the journal.
const STRANGER_BURST: u64 = 6_000;
const STRANGER_RATE: u64 = 100;

/// What is to be done outside.
#[derive(Default)]
pub(crate) struct Outbox {
    pub(crate) events: Vec<Event>,
    /// Events that the journal does not keep: subscribers hear of them without a number.
    pub(crate) unkept: Vec<Event>,
    /// Nodes to write.
    pub(crate) dirty: BTreeSet<NodeId>,
    /// Nodes to remove from the store.
    pub(crate) removed: Vec<NodeId>,
    /// Addresses where a BMC may be, with its MAC when known.
    pub(crate) probe: Vec<crate::rack::ProbeTarget>,
    /// Something visible changed.
    pub(crate) changed: bool,
}

pub(crate) struct Mind {
    pub(crate) settings: Settings,
    pub(crate) records: Records,
    pub(crate) by_mac: HashMap<MacAddr, NodeId>,
    /// Identities that went away in a merge.
    pub(crate) alias_of: HashMap<NodeId, NodeId>,
    bmc_clients: HashMap<MacAddr, Timestamp>,
    pub(crate) out: Outbox,
    new_id: fn(Timestamp) -> NodeId,
    bucket: Bucket,
    floods: Floods,
}

/// A token bucket for events of strangers.
struct Bucket {
    level: u64,
    at: Timestamp,
    suppressed: u64,
}

impl Bucket {
    fn refill(&mut self, now: Timestamp) {
        let earned = now.since(self.at).saturating_mul(STRANGER_RATE) / 1_000;
        if earned > 0 {
            self.level = self.level.saturating_add(earned).min(STRANGER_BURST);
            self.at = now;
        }
    }
}

impl Mind {
    pub(crate) fn new(settings: Settings, new_id: fn(Timestamp) -> NodeId) -> Self {
        Self {
            settings,
            records: Records::default(),
            by_mac: HashMap::new(),
            alias_of: HashMap::new(),
            bmc_clients: HashMap::new(),
            out: Outbox::default(),
            new_id,
            bucket: Bucket {
                level: STRANGER_BURST,
                at: Timestamp(0),
                suppressed: 0,
            },
            floods: Floods::default(),
        }
    }

    /// Takes a node of an earlier run.
    pub(crate) fn adopt(&mut self, record: Record) {
        let id = record.node.id;
        for mac in &record.node.macs {
            self.by_mac.insert(*mac, id);
        }
        for alias in &record.aliases {
            self.alias_of.insert(*alias, id);
        }
        self.records.insert(id, record);
    }

    /// The record of a node, also by an identity that was merged into it.
    pub(crate) fn record(&mut self, id: NodeId) -> Option<&mut Record> {
        let id = self.resolve(id);
        self.records.get_mut(&id)
    }

    pub(crate) fn resolve(&self, id: NodeId) -> NodeId {
        self.alias_of.get(&id).copied().unwrap_or(id)
    }

    pub(crate) fn node(&self, id: NodeId) -> Option<Arc<Node>> {
        self.records.get(&self.resolve(id)).map(|record| record.node.clone())
    }

    /// Takes something a service saw about the interface `mac`.
    pub(crate) fn observe(&mut self, now: Timestamp, mac: Option<MacAddr>, kind: EventKind) {
        let Some(mac) = mac.filter(MacAddr::is_unicast) else {
            self.emit(now, None, mac, kind);
            return;
        };
        if self.is_bmc_client(now, mac, &kind) {
            let node = self.owner_of_bmc(mac);
            self.emit(now, node, Some(mac), kind);
            return;
        }
        let known = self.by_mac.get(&mac).copied();
        let provisional = known
            .and_then(|id| self.records.get(&id))
            .is_none_or(|one| one.standing == Standing::Packets);
        if provisional && !self.stranger_may_speak(now) {
            return;
        }
        let node = known.or_else(|| self.enrol_by_packet(now, mac, &kind));
        let happening = happening_of(&kind);
        let standing = standing_of(&kind);
        let lease = match &kind {
            EventKind::DhcpAck {
                address: Some(address), ..
            } => Some(*address),
            _ => None,
        };
        self.emit(now, node, Some(mac), kind);
        let Some(record) = node.and_then(|id| self.records.get_mut(&id)) else {
            return;
        };
        record.stand(standing);
        if let Some(address) = lease
            && !record.node.agent_connected
        {
            record.edit().address = Some(address.into());
        }
        if let (Some(id), Some(happening)) = (node, happening) {
            self.happen(now, id, &happening);
        }
    }

    /// A stranger becomes a node when it netboots; a printer that asks for an address is a lease.
    fn enrol_by_packet(&mut self, now: Timestamp, mac: MacAddr, kind: &EventKind) -> Option<NodeId> {
        let netboots = match kind {
            EventKind::DhcpDiscover {
                arch,
                vendor_class,
                user_class,
                ..
            } => {
                let class = vendor_class.as_deref().unwrap_or_default();
                arch.is_some()
                    || class.starts_with("PXEClient")
                    || class.starts_with("HTTPClient")
                    || user_class
                        .as_deref()
                        .is_some_and(|class| matches!(class, "iPXE" | "rackbar-loader" | "rackbar-agent"))
            }
            EventKind::TftpRequest { .. } | EventKind::Boot(_) => true,
            EventKind::HttpSent { status, .. } => *status < 400,
            _ => false,
        };
        (netboots && self.settings.admits(mac))
            .then(|| self.enrol(now, "dhcp", &[mac], Standing::Packets))
            .flatten()
    }

    /// Makes a node. `None` when there are too many.
    pub(crate) fn enrol(&mut self, now: Timestamp, by: &str, macs: &[MacAddr], standing: Standing) -> Option<NodeId> {
        if self.records.len() >= MAX_NODES || (standing < Standing::Firm && !self.make_room(now)) {
            return None;
        }
        let id = (self.new_id)(now);
        let name = self.free_name();
        let mut record = Record::new(id, name.clone(), now);
        record.standing = standing;
        let node = record.edit();
        node.macs = macs.to_vec();
        node.witnesses = macs
            .iter()
            .filter_map(|mac| identity::mac_witness(WitnessKind::NicMac, *mac))
            .collect();
        for mac in macs {
            self.by_mac.insert(*mac, id);
        }
        self.records.insert(id, record);
        self.emit(
            now,
            Some(id),
            macs.first().copied(),
            EventKind::NodeEnrolled { name, by: by.into() },
        );
        Some(id)
    }

    /// Names follow the order of first sight; one that was forgotten leaves its number to the next.
    fn free_name(&self) -> String {
        let number = |record: &Record| record.node.name.strip_prefix("node-")?.parse::<u32>().ok();
        let taken: BTreeSet<u32> = self.records.values().filter_map(number).collect();
        let free = (1..=u32::MAX).find(|number| !taken.contains(number));
        format!("node-{:03}", free.unwrap_or(u32::MAX))
    }

    /// True when another provisional node may be made, if need be in place of the one silent for longest.
    fn make_room(&mut self, now: Timestamp) -> bool {
        let provisional = || self.records.values().filter(|record| record.standing < Standing::Firm);
        if provisional().count() < MAX_PROVISIONAL {
            return true;
        }
        let oldest = provisional().min_by_key(|record| (record.standing, record.node.last_seen));
        let Some(node) = oldest.map(|record| record.node.clone()) else {
            return true;
        };
        if now.since(node.last_seen) < DISPLACE {
            return false;
        }
        self.forget(node.id);
        true
    }

    pub(crate) fn forget(&mut self, id: NodeId) {
        if self.records.remove(&id).is_some() {
            self.by_mac.retain(|_, owner| *owner != id);
            self.alias_of.retain(|_, owner| *owner != id);
            self.out.removed.push(id);
            self.out.changed = true;
        }
    }

    /// Records an event and what every event of a node means: a sign of life.
    pub(crate) fn emit(&mut self, now: Timestamp, node: Option<NodeId>, mac: Option<MacAddr>, kind: EventKind) {
        let event = Event {
            seq: 0,
            at: now,
            node,
            mac,
            kind,
        };
        let record = node.and_then(|id| self.records.get(&id));
        let stranger = record.is_none_or(|record| record.standing < Standing::Firm);
        self.note(&event);
        if self.floods.keep(&event, stranger) {
            self.out.events.push(event);
        } else {
            self.out.unkept.push(event);
        }
    }

    /// Takes up what an event means that is in the journal by another way.
    pub(crate) fn note(&mut self, event: &Event) {
        if let Some(record) = event.node.and_then(|id| self.records.get_mut(&id)) {
            record.remember(event);
            record.edit().last_seen = event.at;
        }
        self.out.changed = true;
    }

    /// Moves a node's state as [`state::next`] says.
    pub(crate) fn happen(&mut self, now: Timestamp, id: NodeId, happening: &Happening) {
        let Some(record) = self.records.get_mut(&id) else {
            return;
        };
        if !matches!(happening, Happening::Tick { .. }) {
            record.progress = now;
        }
        match state::next(&record.node.state, now, happening) {
            Next::Stay => {}
            Next::AskFacts => {
                record.progress = now;
                record.ask_facts();
            }
            Next::Go(to, reason) => self.enter(now, id, to, reason),
        }
    }

    pub(crate) fn enter(&mut self, now: Timestamp, id: NodeId, to: NodeState, reason: String) {
        let Some(record) = self.records.get_mut(&id) else {
            return;
        };
        let node = record.edit();
        let from = node.state.name().to_owned();
        let kind = EventKind::StateChanged {
            from,
            to: to.name().into(),
            reason,
        };
        node.state = to;
        node.state_since = now;
        record.progress = now;
        record.dirty = true;
        self.emit(now, Some(id), None, kind);
    }

    fn is_bmc_client(&mut self, now: Timestamp, mac: MacAddr, kind: &EventKind) -> bool {
        if let EventKind::DhcpDiscover { network, .. } = kind {
            match self.settings.role(network) {
                Some(Role::Bmc) => self.note_bmc_client(now, mac),
                Some(Role::Rack | Role::Uplink) | None => drop(self.bmc_clients.remove(&mac)),
            }
        }
        self.bmc_clients.contains_key(&mac)
    }

    pub(crate) fn note_bmc_client(&mut self, now: Timestamp, mac: MacAddr) {
        if self.bmc_clients.len() >= MAX_BMC_CLIENTS && !self.bmc_clients.contains_key(&mac) {
            let oldest = self.bmc_clients.iter().min_by_key(|(_, at)| **at).map(|(mac, _)| *mac);
            oldest.map(|mac| self.bmc_clients.remove(&mac));
        }
        self.bmc_clients.insert(mac, now);
    }

    /// The node whose BMC has this MAC address.
    pub(crate) fn owner_of_bmc(&self, mac: MacAddr) -> Option<NodeId> {
        let witness = identity::mac_witness(WitnessKind::BmcMac, mac)?;
        self.records
            .values()
            .find(|one| one.node.witnesses.contains(&witness))
            .map(|one| one.node.id)
    }

    /// The node whose BMC is known to answer at `address`, by what the BMC itself said.
    pub(crate) fn owner_of_bmc_at(&self, address: IpAddr) -> Option<NodeId> {
        let record = self
            .records
            .values()
            .find(|one| one.node.bmc_address == Some(address))?;
        record.bmc_asked.then_some(record.node.id)
    }

    /// False when strangers said too much lately.
    pub(crate) fn stranger_may_speak(&mut self, now: Timestamp) -> bool {
        let bucket = &mut self.bucket;
        bucket.refill(now);
        if bucket.level == 0 {
            bucket.suppressed += 1;
            return false;
        }
        bucket.level -= 1;
        true
    }

    /// Time passes: limits of states, forgetting, and what was held back.
    pub(crate) fn tick(&mut self, now: Timestamp) {
        let ids: Vec<NodeId> = self.records.keys().copied().collect();
        for id in ids {
            let Some(record) = self.records.get_mut(&id) else {
                continue;
            };
            let silence = now.since(record.node.last_seen);
            let forgotten = match record.standing {
                Standing::Packets => silence >= FORGET_PACKETS,
                Standing::Booting => silence >= FORGET_BOOTING,
                Standing::Firm => false,
            };
            if forgotten {
                self.forget(id);
                continue;
            }
            // Silence is part of a verdict: what was well a minute ago is late now. Later nothing more is to be said.
            if silence < VERDICT_LASTS {
                self.out.changed |= record.judge(now);
            }
            let tick = Happening::Tick {
                idle: now.since(record.progress),
                connected: record.agent.is_some(),
            };
            self.happen(now, id, &tick);
        }
        // Straight to the journal: that we tell of it is no sign of life.
        let records = &self.records;
        let name = |id| records.get(&id).map(|record| record.node.name.clone());
        self.out.events.extend(self.floods.tick(now, name));
        self.bucket.refill(now);
        if self.bucket.suppressed > 0 && self.bucket.level > 0 {
            let suppressed = std::mem::take(&mut self.bucket.suppressed);
            let text = format!(
                "{suppressed} events of unknown machines were not recorded: more came than a rack can cause. Somebody may \
                 be flooding the network with made-up addresses."
            );
            self.emit(
                now,
                None,
                None,
                EventKind::Note {
                    text,
                    severity: Severity::Warning,
                },
            );
        }
    }

    /// Names the nodes to write, of which only firm ones are worth a disk.
    pub(crate) fn take_out(&mut self, now: Timestamp) -> Outbox {
        for id in self.records.take_touched() {
            let Some(record) = self.records.settle(&id) else {
                continue;
            };
            if std::mem::take(&mut record.verdict_due) {
                self.out.changed |= record.judge(now);
            }
            if record.dirty && record.standing == Standing::Firm {
                record.dirty = false;
                self.out.dirty.insert(id);
            }
        }
        std::mem::take(&mut self.out)
    }
}

/// What an event means for the state of its node.
fn happening_of(kind: &EventKind) -> Option<Happening> {
    match kind {
        EventKind::Boot(BootStage::LoaderStarted { .. }) => Some(Happening::BootStarted),
        EventKind::Boot(BootStage::Failed { reason }) => Some(Happening::BootFailed(reason.clone())),
        EventKind::Boot(_) => Some(Happening::BootProgress),
        EventKind::HttpSent { what, status, .. } if *status < 400 => Some(match what.as_str() {
            "script" | "manifest" => Happening::BootStarted,
            _ => Happening::BootProgress,
        }),
        EventKind::TftpRequest { .. } | EventKind::TftpDone { .. } => Some(Happening::BootProgress),
        _ => None,
    }
}

/// How much an event speaks for a machine being there.
fn standing_of(kind: &EventKind) -> Standing {
    match kind {
        EventKind::DhcpAck { address: Some(_), .. } => Standing::Firm,
        EventKind::TftpDone { .. } | EventKind::HttpSent { .. } | EventKind::Boot(_) => Standing::Booting,
        _ => Standing::Packets,
    }
}

//! What the templates show: the model's types turned into the words and numbers of a page.

use rackbar_model::{
    Adopted, Event, Installed, Inventory, Lease, LeaseState, Node, NodeState, PowerState, Severity, Timestamp,
};
use rackbar_orchestrator::Rack;
use serde::Serialize;

/// Time between two events above which the page draws attention to the gap.
const GAP_MILLIS: u64 = 2_000;

/// A node in the rack view.
#[derive(Serialize)]
pub(super) struct NodeRow {
    name: String,
    id: String,
    state: &'static str,
    power: String,
    connected: bool,
    address: String,
    hardware: String,
    verdict: String,
    collision: bool,
    retry: bool,
    role: Option<String>,
    doing: Option<String>,
    percent: Option<u8>,
    drifted: bool,
    /// Somebody else installed its system.
    adopted: bool,
}

impl From<&Node> for NodeRow {
    fn from(node: &Node) -> Self {
        Self {
            name: node.name.clone(),
            id: node.id.to_string(),
            state: node.state.name(),
            power: node.power.to_string(),
            connected: node.agent_connected,
            address: node.address.map(|a| a.to_string()).unwrap_or_default(),
            hardware: node.inventory.as_ref().map(summary).unwrap_or_default(),
            verdict: node.verdict.clone(),
            collision: !node.collisions.is_empty(),
            role: node.role.clone(),
            doing: node.doing.clone(),
            percent: node.percent,
            drifted: !node.drift.is_empty(),
            adopted: node.adopted.is_some(),
            retry: matches!(&node.state, NodeState::Failed(failed) if failed.retry.is_some()),
        }
    }
}

/// `2 x 32 cores, 512 GiB, 4 disks 7.7 TB`.
pub(crate) fn summary(inventory: &Inventory) -> String {
    let disks: u64 = inventory.disks.iter().map(|d| d.size_bytes).sum();
    format!(
        "{} {}, {}, {} {} {}",
        inventory.cpu.threads,
        plural(inventory.cpu.threads.into(), "thread", "threads"),
        memory(inventory.memory.total_bytes),
        inventory.disks.len(),
        plural(inventory.disks.len(), "disk", "disks"),
        size(disks)
    )
}

/// `Debian GNU/Linux 12 (bookworm), kernel 6.1.0-18-amd64, as db-1, by anna on ...`.
fn adopted(adopted: &Adopted) -> String {
    let system = &adopted.system;
    let name = if system.name.is_empty() {
        "a system without a name"
    } else {
        &system.name
    };
    let disks: Vec<String> = system.in_use.iter().map(|one| one.disk.to_string()).collect();
    let disks = if disks.is_empty() {
        "no disk".into()
    } else {
        disks.join(" and ")
    };
    format!(
        "{name}, kernel {}, as {}, on {disks}; taken in by {} at {}",
        system.kernel, system.hostname, adopted.by, adopted.at
    )
}

fn plural(count: usize, one: &'static str, many: &'static str) -> &'static str {
    if count == 1 { one } else { many }
}

/// Memory is counted in powers of two.
fn memory(bytes: u64) -> String {
    match bytes >> 20 {
        mib @ 0..=2047 => format!("{mib} MiB"),
        mib => format!("{} GiB", (mib + 512) >> 10),
    }
}

/// Disks are sold in powers of ten.
pub(super) fn size(bytes: u64) -> String {
    match bytes {
        0..=999_999 => format!("{} kB", bytes.div_ceil(1000)),
        1_000_000..=999_999_999 => format!("{} MB", bytes / 1_000_000),
        1_000_000_000..=999_999_999_999 => format!("{}.{} GB", bytes / 1_000_000_000, bytes / 100_000_000 % 10),
        _ => format!("{}.{} TB", bytes / 1_000_000_000_000, bytes / 100_000_000_000 % 10),
    }
}

/// How many nodes are in each state, in the order of a node's life.
pub(super) fn state_counts(nodes: &[std::sync::Arc<Node>]) -> Vec<(&'static str, usize)> {
    let mut counts: Vec<(&'static str, usize)> = Vec::new();
    for node in nodes {
        let name = node.state.name();
        match counts.iter_mut().find(|(state, _)| *state == name) {
            Some((_, count)) => *count += 1,
            None => counts.push((name, 1)),
        }
    }
    counts
}

/// An event in a list.
#[derive(Serialize)]
pub(super) struct EventRow {
    seq: u64,
    time: String,
    date: String,
    severity: Severity,
    node: Option<String>,
    mac: Option<String>,
    text: String,
}

impl EventRow {
    pub(super) fn new(event: &Event, rack: &Rack) -> Self {
        let node = event.node.map(|id| {
            rack.node(&id.to_string())
                .map_or_else(|| id.to_string(), |n| n.name.clone())
        });
        let (date, time) = halves(event.at);
        Self {
            seq: event.seq,
            time,
            date,
            severity: event.kind.severity(),
            node,
            mac: event.mac.map(|mac| mac.to_string()),
            text: event.kind.to_string(),
        }
    }
}

/// Date and time of day of a timestamp, UTC.
fn halves(at: Timestamp) -> (String, String) {
    let text = at.to_string();
    let (date, time) = text.split_once('T').unwrap_or((&text, ""));
    (date.to_owned(), time.trim_end_matches('Z').to_owned())
}

/// A line of a node's timeline: the event, and how long after the first and the one before.
#[derive(Serialize)]
pub(super) struct TimelineRow {
    #[serde(flatten)]
    event: EventRow,
    since_start: String,
    gap: Option<String>,
}

/// The timeline, newest boot last.
pub(super) fn timeline(events: &[Event], rack: &Rack) -> Vec<TimelineRow> {
    let mut before: Option<Timestamp> = None;
    let start = events.first().map(|e| e.at).unwrap_or_default();
    let mut rows = Vec::with_capacity(events.len());
    for event in events {
        let gap = before.map_or(0, |before| event.at.since(before));
        rows.push(TimelineRow {
            event: EventRow::new(event, rack),
            since_start: seconds(event.at.since(start)),
            gap: (gap >= GAP_MILLIS).then(|| seconds(gap)),
        });
        before = Some(event.at);
    }
    rows
}

fn seconds(millis: u64) -> String {
    format!("{}.{:03} s", millis / 1_000, millis % 1_000)
}

/// A node's own page.
#[derive(Serialize)]
pub(super) struct NodeDetail {
    #[serde(flatten)]
    row: NodeRow,
    state_since: String,
    first_seen: String,
    last_seen: String,
    bmc: String,
    can_power: bool,
    is_on: bool,
    failure: Option<String>,
    run: Option<u64>,
    drift: Vec<String>,
    installed: Option<Installed>,
    /// What was adopted, in words.
    system: Option<String>,
    macs: Vec<String>,
    witnesses: Vec<(String, String)>,
    collisions: Vec<(String, String, String)>,
    inventory: Option<Inventory>,
    inventory_at: Option<String>,
    disk_sizes: Vec<String>,
    memory: String,
}

impl NodeDetail {
    pub(super) fn new(node: &Node, rack: &Rack) -> Self {
        let other = |id: rackbar_model::NodeId| {
            rack.node(&id.to_string())
                .map_or_else(|| id.to_string(), |node| node.name.clone())
        };
        let inventory = node.inventory.as_ref();
        Self {
            row: NodeRow::from(node),
            state_since: node.state_since.to_string(),
            first_seen: node.first_seen.to_string(),
            last_seen: node.last_seen.to_string(),
            bmc: node.bmc_address.map(|a| a.to_string()).unwrap_or_default(),
            can_power: node.bmc_address.is_some(),
            is_on: node.power == PowerState::On,
            failure: match &node.state {
                NodeState::Failed(failed) => Some(format!("while {}: {}", failed.during, failed.reason)),
                _ => None,
            },
            run: node.run,
            drift: node.drift.clone(),
            installed: node.installed.clone(),
            system: node.adopted.as_ref().map(adopted),
            macs: node.macs.iter().map(ToString::to_string).collect(),
            witnesses: node
                .witnesses
                .iter()
                .map(|w| (w.kind.to_string(), w.value.clone()))
                .collect(),
            collisions: node
                .collisions
                .iter()
                .map(|c| (c.witness.kind.to_string(), c.witness.value.clone(), other(c.other)))
                .collect(),
            inventory: node.inventory.clone(),
            inventory_at: node.inventory_at.map(|at| at.to_string()),
            disk_sizes: inventory
                .map(|i| i.disks.iter().map(|d| size(d.size_bytes)).collect())
                .unwrap_or_default(),
            memory: inventory.map(|i| memory(i.memory.total_bytes)).unwrap_or_default(),
        }
    }
}

/// A lease in the list.
#[derive(Serialize)]
pub(super) struct LeaseRow {
    address: String,
    network: String,
    mac: String,
    node: Option<String>,
    hostname: String,
    state: &'static str,
    expires: String,
}

impl LeaseRow {
    pub(super) fn new(lease: &Lease, rack: &Rack) -> Self {
        Self {
            address: lease.address.to_string(),
            network: lease.network.clone(),
            mac: lease.mac.to_string(),
            node: rack.node(&lease.mac.to_string()).map(|node| node.name.clone()),
            hostname: lease.hostname.clone().unwrap_or_default(),
            state: match lease.state {
                LeaseState::Bound => "bound",
                LeaseState::Released => "released",
                LeaseState::Abandoned => "abandoned",
            },
            expires: lease.expires.to_string(),
        }
    }
}

/// A service in the list.
#[derive(Serialize)]
pub(super) struct ServiceRow {
    name: String,
    state: String,
    severity: Severity,
    since: String,
}

/// The services by name; with `only_troubled`, those that ask for attention.
pub(super) fn service_rows(rack: &Rack, only_troubled: bool) -> Vec<ServiceRow> {
    let mut services = rack.services();
    services.retain(|service| !only_troubled || service.severity > Severity::Info);
    services.sort_by(|a, b| a.name.cmp(&b.name));
    let row = |s: rackbar_model::ServiceStatus| ServiceRow {
        name: s.name,
        state: s.state,
        severity: s.severity,
        since: s.since.to_string(),
    };
    services.into_iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_and_disks_read_as_they_are_sold() {
        assert_eq!(memory(512 << 20), "512 MiB");
        assert_eq!(memory(540_000_000_000), "503 GiB");
        assert_eq!(size(960_197_124_096), "960.1 GB");
        assert_eq!(size(7_681_501_126_656), "7.6 TB");
    }
}

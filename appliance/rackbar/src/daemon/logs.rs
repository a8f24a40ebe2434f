//! The logs of machines: where they are kept, and whose they are.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rackbar_control::operations::{LogLine, LogPage, LogQuery, Refused};
use rackbar_model::{EventKind, LeaseState, Node, NodeId, Severity, Timestamp};
use rackbar_orchestrator::{Executor, Rack};
use rackbar_services::EventSink as _;
use rackbar_services::syslog::{LogStore, Start};
use rackbar_syslog::{Filter, Record};

use crate::config::Config;

/// The folder beside the store.
const FOLDER: &str = "log";

/// Opens the logs. Without them everything else still serves.
pub(super) fn open(rack: &Rack, data: &Path, config: &Config) -> Option<Arc<LogStore>> {
    let folder = data.join(FOLDER);
    match LogStore::open(&folder, config.log.bytes) {
        Ok(store) => Some(Arc::new(store)),
        Err(error) => {
            let text = format!("logs of machines cannot be kept: {}: {error}", folder.display());
            let severity = Severity::Error;
            rack.event(None, EventKind::Note { text, severity });
            None
        }
    }
}

/// Answers a question. Waits for the disk.
pub(super) fn search(store: &LogStore, executor: &Executor, rack: &Rack, query: &LogQuery) -> Result<LogPage, Refused> {
    let owners = owners(executor, rack);
    let sources = match &query.node {
        None => None,
        Some(name) => {
            let found = rack.node(name);
            let node = found.ok_or_else(|| Refused::NotFound(format!("there is no machine {name:?}")))?;
            let mine = owners.iter().filter(|(_, owner)| owner.id == node.id);
            Some(mine.map(|(address, _)| *address).collect())
        }
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let ago = |seconds: u64| {
        u64::try_from(now.as_millis())
            .unwrap_or(u64::MAX)
            .saturating_sub(seconds.saturating_mul(1000))
    };
    let filter = Filter {
        sources,
        level: query
            .severity
            .as_deref()
            .map(str::parse)
            .transpose()
            .map_err(Refused::Invalid)?,
        since: query.since_seconds.map(ago),
        grep: query.grep.clone(),
    };
    let limit = usize::from(query.limit.unwrap_or(100).clamp(1, 10_000));
    let start = match (query.after, query.before) {
        (Some(_), Some(_)) => {
            let words = "after and before go in different directions: give one of them";
            return Err(Refused::Invalid(words.into()));
        }
        (Some(after), None) => Start::After(after),
        (None, before) => Start::Before(before),
    };
    let found = store.search(&filter, start, limit);
    let found = found.map_err(|error| Refused::Internal(format!("the logs cannot be read: {error}")))?;
    Ok(LogPage {
        items: found.records.into_iter().map(|record| line(record, &owners)).collect(),
        position: found.position,
        more: found.more,
        newest: found.newest,
    })
}

fn line(record: Record, owners: &HashMap<IpAddr, Arc<Node>>) -> LogLine {
    LogLine {
        seq: record.seq,
        at: Timestamp(record.at),
        node: owners.get(&record.source).map(|node| node.name.clone()),
        source: record.source.to_string(),
        severity: record.level.to_string(),
        facility: record.facility.to_string(),
        host: record.host,
        program: record.program,
        text: record.text,
    }
}

/// Which node has which address: leased, given for good, its agent's, its BMC's.
fn owners(executor: &Executor, rack: &Rack) -> HashMap<IpAddr, Arc<Node>> {
    let given: HashMap<NodeId, Vec<IpAddr>> = executor.given_addresses().into_iter().collect();
    let leases = rack.leases();
    let mut out = HashMap::new();
    for node in rack.nodes() {
        let bound = leases
            .iter()
            .filter(|one| one.state == LeaseState::Bound && node.macs.contains(&one.mac));
        let leased = bound.map(|lease| IpAddr::from(lease.address));
        let known = node.address.into_iter().chain(node.bmc_address).chain(leased);
        let mine: Vec<IpAddr> = known
            .chain(given.get(&node.id).into_iter().flatten().copied())
            .collect();
        out.extend(mine.into_iter().map(|address| (address, node.clone())));
    }
    out
}

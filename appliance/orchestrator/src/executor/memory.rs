//! What the executor keeps in the store: the site, runs with the standing of every action, and what is known of the
//! system on each node. Everything of one step is one durable commit.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use rackbar_model::{Adopted, CheckResult, CheckStatus, EraseEvidence, EventKind, NodeId, OsSetup, Timestamp};
use rackbar_plan::{ActionId, Plan, Run, RunId, RunState, Stand};
use rackbar_store::{Store, StoreError, Table};
use rackbar_verify::NodeReport;
use serde::{Deserialize, Serialize};

use super::types::{PlanRequest, SavedSite};
use crate::Rack;

/// Ended runs that are kept.
pub(super) const RUNS_KEPT: usize = 32;

/// What we know of a node beyond what it shows itself.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct NodeWork {
    /// Role bound by hand.
    pub(super) role: Option<String>,
    /// Firmware attributes as last read.
    pub(super) bios: Option<BTreeMap<String, String>>,
    /// What we installed, as the planner compares it.
    pub(super) installed: Option<rackbar_plan::Installed>,
    /// The system on it that somebody else installed.
    pub(super) adopted: Option<Adopted>,
    /// What we installed, as people see it.
    pub(super) shown: Option<rackbar_model::Installed>,
    /// The identity it was given, without its secret host key.
    pub(super) setup: Option<OsSetup>,
    /// Static addresses given to it, by name of the site's network; its BMC's by [`rackbar_plan::bmc_holder`].
    pub(super) addresses: BTreeMap<String, IpAddr>,
    /// Its BMC account has a password of its own.
    pub(super) password_rotated: bool,
    /// The account of ours on its BMC with which we logged in.
    pub(super) bmc_account: Option<String>,
    /// It boots its disk when it asks the network.
    pub(super) boots_disk: bool,
    /// Firmware attributes that it was given for its role.
    pub(super) wanted_bios: BTreeMap<String, String>,
    /// Ids of the checks its role wanted.
    pub(super) checks: Vec<String>,
    /// Its checks passed, and how its disks looked then.
    pub(super) ready: Option<Ready>,
    /// Hands off.
    pub(super) maintenance: Option<String>,
    /// What its checks came to when they were last run.
    pub(super) report: Option<NodeReport>,
    /// What shows that its disks were emptied before the last installation.
    pub(super) erased: Vec<EraseEvidence>,
    /// What its hardware bore, or did not, when it was last burnt in.
    pub(super) burned_in: Vec<CheckResult>,
    /// The last run of which it stands where its end left it; `None` before its first.
    pub(super) concluded: Option<RunId>,
}

impl NodeWork {
    /// Why its hardware is not to be trusted: what it did not bear when it was last burnt in.
    pub(super) fn did_not_bear(&self) -> Option<String> {
        let failed = |one: &&CheckResult| one.status == CheckStatus::Failed;
        let bad = self.burned_in.iter().find(failed)?;
        Some(format!(
            "its hardware did not bear the last burn-in: {}: {}; {}, then exercise it again (`rackbar burn-in`)",
            bad.id, bad.observed, bad.advice
        ))
    }
}

/// What a node was when its checks passed.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Ready {
    pub(super) at: Timestamp,
    /// Serial and size of each disk.
    pub(super) disks: Vec<(String, u64)>,
    /// Bytes of memory.
    pub(super) memory: u64,
    /// MAC addresses of physical interfaces.
    pub(super) macs: Vec<String>,
}

/// A run without its plan and its actions, which are kept apart.
#[derive(Serialize, Deserialize)]
struct Head {
    by: String,
    began: Timestamp,
    ended: Option<Timestamp>,
    state: RunState,
    cancelled: Option<String>,
    excluded: BTreeMap<NodeId, String>,
    #[serde(default)]
    takes: BTreeMap<NodeId, RunId>,
    #[serde(default)]
    superseded: BTreeMap<NodeId, RunId>,
    #[serde(default)]
    held: bool,
    /// What a run that waits was planned for: it may have to be planned anew.
    #[serde(default)]
    request: Option<PlanRequest>,
}

/// A change to be written.
pub(super) type Entry = (Vec<u8>, Option<Vec<u8>>);

/// What is said of such changes: of which node, and what.
pub(super) type Told = (Option<NodeId>, EventKind);

pub(super) fn entry<T: Serialize>(key: Vec<u8>, value: &T) -> Entry {
    let json = serde_json::to_vec(value);
    // Plain data with text keys always has a JSON form.
    let json = json.inspect_err(|error| tracing::error!(%error, "a record could not be written as JSON"));
    (key, json.ok())
}

pub(super) fn node_entry(node: NodeId, work: &NodeWork) -> Entry {
    entry(format!("node/{node}").into_bytes(), work)
}

/// Forgets what was known of a node.
pub(super) fn no_node_entry(node: NodeId) -> Entry {
    (format!("node/{node}").into_bytes(), None)
}

pub(super) fn site_entry(site: &SavedSite) -> Entry {
    entry(b"site".to_vec(), site)
}

fn run_key(run: RunId, what: &str) -> Vec<u8> {
    format!("run/{:016x}/{what}", run.0).into_bytes()
}

pub(super) fn plan_entry(run: RunId, plan: &Plan) -> Entry {
    entry(run_key(run, "plan"), plan)
}

pub(super) fn head_entry(run: &Run, request: Option<&PlanRequest>) -> Entry {
    let head = Head {
        takes: run.takes.clone(),
        superseded: run.superseded.clone(),
        held: run.held,
        request: request.cloned(),
        by: run.by.clone(),
        began: run.began,
        ended: run.ended,
        state: run.state,
        cancelled: run.cancelled.clone(),
        excluded: run.excluded.clone(),
    };
    entry(run_key(run.id, "head"), &head)
}

/// Forgets a run: all that is kept of it.
pub(super) fn no_run_entries(run: &Run) -> impl Iterator<Item = Entry> {
    let actions = run.actions.keys().map(|action| format!("do/{action}"));
    let parts = ["plan", "head"].into_iter().map(str::to_owned).chain(actions);
    parts.map(|what| (run_key(run.id, &what), None))
}

/// Forgets how an action stood.
pub(super) fn no_stand_entry(run: RunId, action: &ActionId) -> Entry {
    (run_key(run, &format!("do/{action}")), None)
}

pub(super) fn stand_entry(run: RunId, action: &ActionId, stand: &Stand) -> Entry {
    entry(run_key(run, &format!("do/{action}")), stand)
}

pub(super) fn write(store: &Store, entries: &[Entry]) -> Result<(), StoreError> {
    store.put_all(Table::Work, &borrowed(entries))
}

/// Writes and tells of it in one commit.
pub(super) fn write_and_tell(rack: &Rack, entries: &[Entry], told: Vec<Told>) -> Result<(), StoreError> {
    rack.write_and_tell(&borrowed(entries), told)
}

fn borrowed(entries: &[Entry]) -> Vec<(&[u8], Option<&[u8]>)> {
    let each = entries.iter();
    each.map(|(key, value)| (key.as_slice(), value.as_deref())).collect()
}

/// Everything there was.
#[derive(Default)]
pub(super) struct Loaded {
    pub(super) site: Option<SavedSite>,
    pub(super) runs: Vec<Saved>,
    /// The highest number that a run ever had, also one of which nothing else can be read.
    pub(super) last_run: u64,
    pub(super) work: HashMap<NodeId, NodeWork>,
    /// Keys of runs too old to keep, and of marks that are of no use any more.
    pub(super) old: Vec<Entry>,
}

/// A run as it was written down.
pub(super) struct Saved {
    pub(super) run: Run,
    /// What one that waits was planned for.
    pub(super) request: Option<PlanRequest>,
    /// Its records that cannot be read. Such a run must not be walked: an action whose end cannot be read would be begun
    /// a second time.
    pub(super) unreadable: Vec<String>,
}

#[derive(Default)]
struct Parts {
    plan: Option<Plan>,
    head: Option<Head>,
    stands: BTreeMap<ActionId, Stand>,
    keys: Vec<Vec<u8>>,
    unreadable: Vec<String>,
}

/// Reads all of it. A record of a form this program does not know is told and left alone.
pub(super) fn load(store: &Store) -> Result<Loaded, StoreError> {
    let mut loaded = Loaded::default();
    let mut runs: BTreeMap<RunId, Parts> = BTreeMap::new();
    let mut begun: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for (key, value) in store.list(Table::Work)? {
        let name = String::from_utf8_lossy(&key).into_owned();
        let taken = match name.split_once('/') {
            None if name == "site" => read(&value).map(|site| loaded.site = Some(site)),
            Some(("node", id)) => take_node(&mut loaded, id, &value),
            Some(("run", rest)) => take_part(&mut runs, rest, key, &value),
            Some(("begun", job)) => {
                begun.insert(job.to_owned(), key);
                Some(())
            }
            _ => None,
        };
        if taken.is_none() {
            tracing::warn!(
                key = name,
                "a record of the executor is of a form this program does not know; skipped"
            );
        }
    }
    let ended = runs
        .values()
        .filter(|one| one.head.as_ref().is_some_and(|head| head.ended.is_some()));
    let mut too_many = ended.count().saturating_sub(RUNS_KEPT);
    loaded.last_run = runs.keys().last().map_or(0, |id| id.0);
    for (id, parts) in runs {
        let over = parts.head.as_ref().is_none_or(|head| head.ended.is_some());
        if over && too_many > 0 {
            too_many -= 1;
            loaded.old.extend(parts.keys.into_iter().map(|key| (key, None)));
            continue;
        }
        loaded.runs.push(whole(id, parts));
    }
    // Marks of attempts whose end was written down before the mark went.
    for stand in loaded.runs.iter().flat_map(|saved| saved.run.actions.values()) {
        if let Stand::Running(attempt) = stand {
            begun.remove(&attempt.job);
        }
    }
    loaded.old.extend(begun.into_values().map(|key| (key, None)));
    Ok(loaded)
}

/// What is on the disk of nodes; `None` when a record of one, or the disk, cannot be read.
pub(super) fn nodes(store: &Store) -> Option<Vec<NodeWork>> {
    let records = store.list(Table::Work).ok()?;
    let nodes = records.iter().filter(|(key, _)| key.starts_with(b"node/"));
    nodes.map(|(_, value)| read(value)).collect()
}

fn read<T: for<'a> Deserialize<'a>>(value: &[u8]) -> Option<T> {
    serde_json::from_slice(value).ok()
}

fn take_node(loaded: &mut Loaded, id: &str, value: &[u8]) -> Option<()> {
    loaded.work.insert(id.parse().ok()?, read(value)?);
    Some(())
}

fn take_part(runs: &mut BTreeMap<RunId, Parts>, rest: &str, key: Vec<u8>, value: &[u8]) -> Option<()> {
    let (number, what) = rest.split_once('/')?;
    let parts = runs.entry(RunId(u64::from_str_radix(number, 16).ok()?)).or_default();
    parts.keys.push(key);
    let taken = match what.split_once('/') {
        None if what == "plan" => read(value).map(|plan| parts.plan = Some(plan)),
        None if what == "head" => read(value).map(|head| parts.head = Some(head)),
        Some(("do", action)) => {
            let stand = read(value);
            stand.map(|stand| drop(parts.stands.insert(ActionId(action.to_owned()), stand)))
        }
        _ => return None,
    };
    if taken.is_none() {
        parts.unreadable.push(what.to_owned());
    }
    taken
}

/// Puts a run together. What cannot be read is neither guessed nor left out: its place is taken by something that failed.
fn whole(id: RunId, parts: Parts) -> Saved {
    let mut unreadable = parts.unreadable;
    for (what, missing) in [("plan", parts.plan.is_none()), ("head", parts.head.is_none())] {
        if missing && !unreadable.iter().any(|one| one == what) {
            unreadable.push(what.to_owned());
        }
    }
    let plan = parts.plan.unwrap_or_else(|| super::left::unknown_plan(id));
    let mut run = Run::new(id, Arc::new(plan), "somebody", Timestamp::default());
    let mut request = None;
    if let Some(head) = parts.head {
        (run.by, run.began, run.ended, run.state) = (head.by, head.began, head.ended, head.state);
        (run.cancelled, run.excluded, run.takes) = (head.cancelled, head.excluded, head.takes);
        (run.superseded, run.held, request) = (head.superseded, head.held, head.request);
    }
    run.actions.extend(parts.stands);
    Saved {
        run,
        request,
        unreadable,
    }
}

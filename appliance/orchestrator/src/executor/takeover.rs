//! A commit that names nodes in work: its run waits until the earlier runs have let go of them, and is planned anew when
//! what was under way has changed what is there. How runs hand over is in `rackbar_plan::engine`, pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rackbar_model::{EventKind, NodeId, ProgramEntry, Severity, Timestamp};
use rackbar_plan::engine::{Engine, Input, may_begin};
use rackbar_plan::{ActionKind, Plan, Refusal, Run, RunId, RunState, Scope, Stand};

use super::driver::Live;
use super::{Book, Inner, memory, orders, plans};
use crate::rack::now;

/// Time that agents and BMCs get to come back before a waiting run that needs them is dropped.
const COMES_BACK: Duration = Duration::from_secs(120);

/// Why a run that is free to begin does not.
enum NotBegun {
    /// That may pass.
    Yet(String),
    /// It will not.
    Never(String),
}

/// Nodes of a plan that are in work, and by which run: the newest that has something open on them.
pub(super) fn taken(book: &Book, plan: &Plan) -> BTreeMap<NodeId, RunId> {
    let nodes: BTreeSet<NodeId> = plan.actions.iter().filter_map(|action| action.node).collect();
    let newest = |node: NodeId| book.runs_of(node).into_iter().next_back();
    nodes
        .into_iter()
        .filter_map(|node| Some((node, newest(node)?)))
        .collect()
}

/// The plan as if it did not rest on what was seen of these nodes.
pub(super) fn without(plan: &Plan, nodes: &BTreeMap<NodeId, RunId>) -> Plan {
    let mut rest = plan.clone();
    rest.inputs.nodes.retain(|node, _| !nodes.contains_key(node));
    rest
}

/// Nodes whose run leads where the plan leads, and that said.
pub(super) fn on_the_way(book: &Book, plan: &Plan) -> BTreeMap<NodeId, Refusal> {
    let mut found = BTreeMap::new();
    for view in plan.by_node() {
        let Some(live) = book.runs_of(view.node).pop().and_then(|run| book.live.get(&run)) else {
            continue;
        };
        let run = live.engine.run();
        let fails = |stand: &Stand| matches!(stand, Stand::Failed { .. } | Stand::Skipped { .. });
        let gives_up = run.cancelled.is_some() || run.excluded.contains_key(&view.node);
        if gives_up || live.of_node(view.node).any(|(_, stand)| fails(stand)) {
            continue;
        }
        // Whether the agent has to be fetched first changes from minute to minute.
        let counts = |kind: &&ActionKind| !matches!(kind, ActionKind::Agent { .. });
        let mut wanted = view.actions.iter().map(|action| &action.kind).filter(counts);
        if wanted.all(|kind| live.of_node(view.node).any(|(action, _)| action.kind == *kind)) {
            let reason = format!("run {} is under way to the same end", run.id);
            let (node, name) = (view.node, view.name.to_owned());
            found.insert(node, Refusal { node, name, reason });
        }
    }
    found
}

/// What a run waits for, in words to go behind others; empty when it waits for nothing.
pub(super) fn waits_for(run: &Run) -> String {
    let runs: BTreeSet<String> = run.takes.values().map(ToString::to_string).collect();
    if runs.is_empty() {
        return String::new();
    }
    let runs = runs.into_iter().collect::<Vec<_>>().join(", ");
    format!(
        "; it takes {} nodes over and begins when run {runs} has let go of them",
        run.takes.len()
    )
}

/// Tells the runs before a waiting one which nodes it takes.
pub(super) fn tell(book: &mut Book, by: RunId, now: Timestamp) {
    let waiting = book
        .live
        .get(&by)
        .map(|live| live.engine.run())
        .filter(|run| run.state == RunState::Waiting);
    let Some(nodes) = waiting.map(|run| run.takes.keys().copied().collect::<BTreeSet<NodeId>>()) else {
        return;
    };
    for (_, live) in book.live.range_mut(..by) {
        if nodes.iter().any(|node| live.open(*node)) {
            let nodes = nodes.clone();
            live.note(now, Input::Supersede { nodes, by });
        }
    }
}

/// Tells it once more at a start: the kill may have come before it was told.
pub(super) fn tell_again(book: &mut Book, now: Timestamp) {
    let runs: Vec<RunId> = book.live.keys().copied().collect();
    runs.into_iter().for_each(|run| tell(book, run, now));
}

impl Inner {
    /// Lets runs begin whose nodes are free by now. True when something is to be written.
    pub(super) fn begin_waiting(&self, book: &mut Book, now: Timestamp) -> bool {
        let free = |(id, live): (&RunId, &Live)| {
            let busy = |node| book.runs_of(node).iter().any(|other| other != id);
            may_begin(live.engine.run(), busy).then_some(*id)
        };
        let free: Vec<RunId> = book.live.iter().filter_map(free).collect();
        let mut any = false;
        for id in &free {
            let input = match self.renew(book, *id) {
                Ok(()) => Input::Begin,
                Err(NotBegun::Yet(_)) if self.may_wait(book, *id) => continue,
                Err(NotBegun::Yet(reason) | NotBegun::Never(reason)) => Input::Drop {
                    reason: format!("not begun: {reason}; make a plan again"),
                },
            };
            any = true;
            let Some(live) = book.live.get(id) else { continue };
            self.read_roles(book, live.nodes().filter(|node| live.open(*node)));
            if let Some(live) = book.live.get_mut(id) {
                live.note(now, input);
            }
        }
        any
    }

    /// False when a run that is free to begin has waited long enough for what else it needs.
    fn may_wait(&self, book: &mut Book, id: RunId) -> bool {
        let now = Instant::now();
        let since = book.live.get_mut(&id).map(|live| *live.free_since.get_or_insert(now));
        since.is_some_and(|since| now.duration_since(since) < COMES_BACK)
    }

    /// Makes the plan of a waiting run anew where what is there has changed. The consent that was given covers it only
    /// when it destroys nothing more.
    fn renew(&self, book: &mut Book, id: RunId) -> Result<(), NotBegun> {
        let Some(live) = book.live.get(&id) else { return Ok(()) };
        let (run, request) = (live.engine.run().clone(), live.request.clone().unwrap_or_default());
        let open: Vec<NodeId> = live.nodes().filter(|node| live.open(*node)).collect();
        let (site, mut facts) = self
            .basis(book, &request)
            .map_err(|error| NotBegun::Never(error.to_string()))?;
        // What was retired since this run was committed is for later ones.
        facts
            .retired
            .retain(|name, _| !run.plan.inputs.images.contains_key(name));
        // It runs the programs that it was committed with, which are kept for it.
        for program in run.plan.actions.iter().filter_map(|action| action.kind.program()) {
            let pinned = ProgramEntry {
                name: program.name.clone(),
                sha256: program.sha256,
                bytes: program.bytes,
                added: run.began,
            };
            facts.programs.insert(program.name.clone(), pinned);
        }
        let mut before = (*run.plan).clone();
        before.inputs.nodes.retain(|node, _| open.contains(node));
        let changed = rackbar_plan::stale(&before, &site, &facts);
        if changed.is_empty() {
            return Ok(());
        }
        let nodes = Some(open);
        let fresh = rackbar_plan::plan(
            &site,
            &facts,
            &Scope {
                nodes,
                ..plans::scope(&request)
            },
            now(),
        );
        let other_image = |(name, digest)| run.plan.inputs.images.get(name).is_some_and(|before| before != digest);
        if fresh.inputs.site != run.plan.inputs.site || fresh.inputs.images.iter().any(other_image) {
            return Err(NotBegun::Never(changed.join("; ")));
        }
        let more = rackbar_plan::destroys_more(&run.plan, &fresh);
        if !more.is_empty() {
            return Err(NotBegun::Never(format!(
                "by now it would destroy what nobody consented to: {}",
                more.join("; ")
            )));
        }
        if fresh.actions.is_empty() {
            // Refused may pass, as when our agent comes back after a restart of this appliance.
            return Err(match fresh.refused.first() {
                Some(refusal) => NotBegun::Yet(format!("{}: {}", refusal.name, refusal.reason)),
                None => NotBegun::Never(changed.join("; ")),
            });
        }
        for (node, given) in orders::addresses(&fresh, &site) {
            book.work(node, |work| work.addresses.extend(given));
        }
        self.replace(book, &run, Arc::new(fresh)).map_err(NotBegun::Never)?;
        let text = format!(
            "run {id} is planned anew and destroys no more than was agreed: {}",
            changed.join("; ")
        );
        let severity = Severity::Info;
        self.rack.tell(None, EventKind::Note { text, severity });
        Ok(())
    }

    /// Gives a waiting run another plan; it is written with its first step.
    fn replace(&self, book: &mut Book, run: &Run, plan: Arc<Plan>) -> Result<(), String> {
        let mut fresh = Run::new(run.id, plan, &run.by, run.began);
        fresh.state = RunState::Waiting;
        fresh.takes.clone_from(&run.takes);
        fresh.excluded.clone_from(&run.excluded);
        fresh.superseded.clone_from(&run.superseded);
        fresh.held = run.held;
        let engine =
            Engine::within(fresh, self.bounds.clone(), book.room.clone()).map_err(|error| error.to_string())?;
        let request = book.live.get_mut(&run.id).and_then(|live| live.request.take());
        let mut live = Live::new(engine, request);
        let settled = run.actions.iter().filter(|(_, stand)| **stand != Stand::Waiting);
        live.unwritten
            .extend(settled.map(|(action, _)| memory::no_stand_entry(run.id, action)));
        let run = live.engine.run();
        let head = memory::head_entry(run, live.request.as_ref());
        live.unwritten.extend([memory::plan_entry(run.id, &run.plan), head]);
        book.live.insert(run.id, live);
        Ok(())
    }
}

//! What people order: commit, pause, resume, cancel, bind, recover, hands off, check.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use rackbar_model::{Digest, EventKind, NodeId, NodeState, PowerAction, Severity};
use rackbar_plan::engine::{Engine, Input};
use rackbar_plan::{
    Action, ActionId, ActionKind, Inputs, Layer, Limits, Plan, PlanId, Refusal, Run, RunId, RunState, Scope, Site,
    Target, bmc_holder,
};

use super::driver::Live;
use super::memory::{Entry, NodeWork, Told};
use super::types::{CommitError, NodeError, OrderError, PlanRequest, Recovered, RunOrder, VerifyError};
use super::{Book, Executor, Inner, consent, memory, takeover};
use crate::hands::end_in_order;
use crate::rack::{locked, now};

/// Between two looks at whether a machine has shut down.
const LOOK: Duration = Duration::from_secs(2);

/// Seconds the checks of a node may take, and how often they are tried.
const VERIFY: Limits = Limits { seconds: 900, tries: 2 };

impl Executor {
    /// Commits a plan: from now on it is carried out. `consent` names the nodes whose data may be destroyed. Nodes that
    /// an earlier run works on are taken over from it: the run waits until that has let go of them.
    ///
    /// # Errors
    /// When it is not known, out of date, or lacks consent. Nothing is begun.
    pub fn commit(&self, id: &PlanId, consent: &[String], by: &str) -> Result<RunId, CommitError> {
        let inner = &self.inner;
        let mut book = locked(&inner.book);
        let made = book.plans.iter().find(|made| made.plan.id == *id);
        let (plan, request) = made
            .map(|made| (made.plan.clone(), made.request.clone()))
            .ok_or_else(|| CommitError::Unknown(id.to_string()))?;
        let (site, facts) = inner
            .basis(&book, &request)
            .map_err(|error| CommitError::Stale(vec![error.to_string()]))?;
        let taken = takeover::taken(&book, &plan);
        // What is under way changes what was seen of its nodes: they are looked at when they are free.
        let mut changed = rackbar_plan::stale(&takeover::without(&plan, &taken), &site, &facts);
        changed.extend(rackbar_plan::held_up(&plan, &site, &facts));
        if !changed.is_empty() {
            return Err(CommitError::Stale(changed));
        }
        if plan.actions.is_empty() {
            return Err(CommitError::Nothing);
        }
        consent::check(&plan, &facts.nodes, consent)?;
        let before = Before::of(&book, &plan);
        for (node, given) in addresses(&plan, &site) {
            book.work(node, |work| work.addresses.extend(given));
        }
        let run = inner.begin_run(&mut book, plan, by, taken, Some(request));
        let run = run.inspect_err(|_| before.restore(&mut book))?;
        book.plans.retain(|made| made.plan.id != *id);
        Ok(run)
    }

    /// Pauses, resumes or cancels a run.
    ///
    /// # Errors
    /// When there is no such run, it has ended, or the order could not be written down, which is tried again.
    pub fn order(&self, id: RunId, order: RunOrder, by: &str) -> Result<Arc<Run>, OrderError> {
        {
            let mut book = locked(&self.inner.book);
            let ended = book.ended.contains_key(&id);
            let live = book.live.get_mut(&id).ok_or(if ended {
                OrderError::Ended(id)
            } else {
                OrderError::Unknown(id)
            })?;
            let input = match order {
                RunOrder::Pause => Input::Pause,
                RunOrder::Resume => Input::Resume,
                RunOrder::Cancel => Input::Cancel { by: by.to_owned() },
            };
            live.note(now(), input);
            self.inner.at_once(&mut book).map_err(OrderError::Unwritten)?;
        }
        self.inner.wake();
        self.run(id).ok_or(OrderError::Unknown(id))
    }

    /// Binds a node to a role by hand, which goes before rules; `None` leaves it to the rules again.
    ///
    /// # Errors
    /// When there is no such node, or the site in force has no such role.
    pub fn bind(&self, node: NodeId, role: Option<String>, by: &str) -> Result<(), NodeError> {
        let node = self.inner.rack.node_by_id(node).ok_or(NodeError::NoSuchNode(node))?.id;
        let mut book = locked(&self.inner.book);
        if let Some(role) = &role {
            let known: Vec<String> = book
                .site
                .iter()
                .flat_map(|site| site.site.role.keys().cloned())
                .collect();
            if !known.contains(role) {
                let role = role.clone();
                return Err(NodeError::NoSuchRole { role, known });
            }
        }
        let before = book.work.get(&node).and_then(|work| work.role.clone());
        book.work(node, |work| work.role.clone_from(&role));
        let by = by.to_owned();
        let told = vec![(Some(node), EventKind::RoleBound { role, by })];
        self.inner.keep_and_tell(&mut book, told).inspect_err(|_| {
            book.work(node, |work| work.role = before);
        })?;
        book.looked_at = 0;
        self.inner.wake();
        Ok(())
    }

    /// Takes a node back to a known state from anywhere: its part of a run is given up, it is Discovered (when it was
    /// never looked at: Inspecting while its agent is connected, else Enrolled), and it boots our agent when it next asks
    /// the network. An agent that is connected is asked to look again. The node's history stays, and so does what is on
    /// its disks.
    ///
    /// # Errors
    /// When there is no such node, it was handed over to another owner, it is in maintenance, or it could not be written down.
    pub fn recover(&self, node: NodeId, by: &str) -> Result<Recovered, NodeError> {
        let inner = &self.inner;
        let shown = inner.rack.node_by_id(node).ok_or(NodeError::NoSuchNode(node))?;
        let node = shown.id;
        if shown.state == NodeState::HandedOver {
            return Err(NodeError::HandedOver(shown.name.clone()));
        }
        let reason = format!("recovered by {by}");
        let under_way = {
            let mut book = locked(&inner.book);
            if let Some(reason) = book.work.get(&node).and_then(|work| work.maintenance.clone()) {
                let name = shown.name.clone();
                return Err(NodeError::Maintenance { name, reason });
            }
            let runs = book.runs_of(node);
            take_out(&mut book, node, &reason);
            book.work(node, |work| {
                // What somebody else installed is not ours to take down: it boots its disk, and is what it was.
                work.boots_disk = work.adopted.is_some();
                if work.adopted.is_none() {
                    work.ready = None;
                }
            });
            inner.at_once(&mut book).map_err(NodeError::Unwritten)?;
            if book.work.get(&node).is_some_and(|work| work.adopted.is_some()) {
                inner.back(&book, node, &reason);
                inner.show_work(&book, node);
                drop(book);
                inner.wake();
                return Ok(inner.recovered_adopted(node));
            }
            let asked = inner.rack.ask_facts(node);
            let state = match (&shown.inventory, asked) {
                (Some(_), _) => NodeState::Discovered,
                (None, true) => NodeState::Inspecting,
                (None, false) => NodeState::Enrolled,
            };
            inner.rack.hold(node, state, &reason);
            inner.rack.show(node, true, |node| {
                (node.doing, node.percent) = (None, None);
                node.drift.clear();
            });
            inner.show_work(&book, node);
            runs.into_iter().find(|_| book.busy(node).is_some())
        };
        inner.wake();
        let state = inner
            .rack
            .node_by_id(node)
            .map_or("enrolled", |node| node.state.name())
            .to_owned();
        let next = self.after_recovery(&shown, by);
        let next = match under_way {
            Some(run) => format!("{next}; what run {run} had under way on it ends within a minute"),
            None => next,
        };
        Ok(Recovered { state, next })
    }

    /// Gets a recovered machine into our agent where that can be done from here.
    fn after_recovery(&self, node: &rackbar_model::Node, by: &str) -> String {
        if node.agent_connected && node.inventory.is_none() {
            return "its agent is asked to look at it again: wait until it is discovered".into();
        }
        if node.agent_connected {
            return "its agent is connected: plan and commit again".into();
        }
        if node.bmc_address.is_none() {
            return "it has no BMC that we know: restart it by hand, it then boots our agent".into();
        }
        let (rack, id, by) = (self.inner.rack.clone(), node.id, by.to_owned());
        let runs_its_own = node.installed.is_some();
        self.inner.runtime.spawn(async move {
            if runs_its_own {
                end_in_order(&rack, id, &by, LOOK, || ()).await;
            }
            if let Err(error) = rack.power(id, PowerAction::Netboot, &by).await {
                let text = format!("it could not be restarted into our agent: {error}");
                let severity = Severity::Error;
                rack.tell(Some(id), EventKind::Note { text, severity });
            }
        });
        if runs_its_own {
            return "its BMC is asked to end its system in order, for two minutes at most, and then to restart it into our agent".into();
        }
        "its BMC is asked to restart it into our agent".into()
    }

    /// Switches maintenance on: hands off. Its part of a run is given up, its BMC is not asked, nothing is planned for
    /// it. Off, it goes back to where it stood.
    ///
    /// # Errors
    /// When there is no such node or it could not be written down; hands are off in that case, too, as long as the power
    /// stays on.
    pub fn maintenance(&self, node: NodeId, on: bool, reason: &str, by: &str) -> Result<(), NodeError> {
        let inner = &self.inner;
        let node = inner.rack.node_by_id(node).ok_or(NodeError::NoSuchNode(node))?.id;
        let mut book = locked(&inner.book);
        let words = if reason.is_empty() {
            format!("by {by}")
        } else {
            format!("by {by}: {reason}")
        };
        if on {
            book.work(node, |work| work.maintenance = Some(words.clone()));
            take_out(&mut book, node, &format!("hands off, {words}"));
            let written = inner.at_once(&mut book);
            // Hands are off from here on, whatever the disk says.
            inner
                .rack
                .hold(node, NodeState::Maintenance, &format!("hands off, {words}"));
            inner
                .rack
                .show(node, false, |node| (node.doing, node.percent) = (None, None));
            written.map_err(NodeError::Unwritten)?;
        } else {
            let before = book.work.get(&node).and_then(|work| work.maintenance.clone());
            book.work(node, |work| work.maintenance = None);
            inner.keep(&mut book).inspect_err(|_| {
                book.work(node, |work| work.maintenance = before);
            })?;
            inner.back(&book, node, &format!("maintenance is over, {words}"));
        }
        drop(book);
        inner.wake();
        Ok(())
    }

    /// Runs the checks of these nodes, or of all that have a system or stay in memory; the run it begins ends when they are done.
    /// Of all, those that a run works on are left out and told of: they would hold up the others.
    ///
    /// # Errors
    /// When there is nothing to check, or a node is being worked on.
    pub fn verify(&self, nodes: Option<Vec<NodeId>>, by: &str) -> Result<RunId, VerifyError> {
        let inner = &self.inner;
        let mut book = locked(&inner.book);
        let Checks {
            actions,
            names,
            left_out,
        } = inner.checks(&book, nodes)?;
        let site = book.site.as_ref();
        let plan = Arc::new(Plan {
            id: PlanId(format!("verify-{}", book.last_run + 1)),
            made: now(),
            inputs: Inputs::of(site.map_or(Digest([0; 32]), |site| site.digest)),
            actions,
            refused: Vec::new(),
            unchanged: Vec::new(),
            left_out: left_out.clone(),
            scope: Scope::default(),
            limits: site.map(|site| site.site.limits.clone()).unwrap_or_default(),
        });
        inner.refuse_busy(&book, &plan, &names)?;
        let run = inner.begin_run(&mut book, plan, by, BTreeMap::new(), None)?;
        drop(book);
        for left in left_out {
            let text = format!("left out of the checks of run {run}: {}", left.reason);
            let severity = Severity::Warning;
            inner.rack.tell(Some(left.node), EventKind::Note { text, severity });
        }
        Ok(run)
    }
}

/// What a commit changes in the book before it is written down: a commit that fails leaves nothing of it, and loses nothing
/// that waits for the disk.
struct Before {
    unwritten: Vec<Entry>,
    work: Vec<(NodeId, Option<NodeWork>)>,
}

impl Before {
    fn of(book: &Book, plan: &Plan) -> Self {
        let nodes: BTreeSet<NodeId> = plan.actions.iter().filter_map(|action| action.node).collect();
        Self {
            unwritten: book.unwritten.clone(),
            work: nodes
                .into_iter()
                .map(|node| (node, book.work.get(&node).cloned()))
                .collect(),
        }
    }

    fn restore(self, book: &mut Book) {
        book.unwritten = self.unwritten;
        for (node, work) in self.work {
            match work {
                Some(work) => drop(book.work.insert(node, work)),
                None => drop(book.work.remove(&node)),
            }
        }
    }
}

/// The checks of some machines.
struct Checks {
    actions: Vec<Action>,
    names: BTreeMap<NodeId, String>,
    /// Machines that another run works on.
    left_out: Vec<Refusal>,
}

impl Inner {
    /// Where a recovered machine stands whose system was adopted: it is not restarted.
    fn recovered_adopted(&self, node: NodeId) -> Recovered {
        let shown = self.rack.node_by_id(node);
        let in_agent = shown.as_ref().is_some_and(|node| node.agent_connected);
        let next = match in_agent {
            true => "restart it: it boots the system that was adopted",
            false => "its system was adopted and goes on as it is: check it (`rackbar verify`), or forget it",
        };
        Recovered {
            state: shown.map_or("enrolled", |node| node.state.name()).to_owned(),
            next: next.into(),
        }
    }

    /// The checks of these nodes, or of all that have any.
    fn checks(&self, book: &Book, nodes: Option<Vec<NodeId>>) -> Result<Checks, VerifyError> {
        let asked = nodes.is_some();
        let (mut actions, mut names, mut left_out) = (Vec::new(), BTreeMap::new(), Vec::new());
        let mut works = None;
        let all = || self.rack.nodes().iter().map(|node| node.id).collect();
        let nodes: Vec<NodeId> = nodes.unwrap_or_else(all);
        self.read_roles(book, nodes.iter().copied().filter(|node| book.busy(*node).is_none()));
        for id in nodes {
            let node = self.rack.node_by_id(id).ok_or(VerifyError::NoSuchNode(id))?;
            let in_memory = super::nodes::stays_in_memory(book, node.role.as_deref());
            let has_system = |work: &NodeWork| work.installed.is_some() || work.adopted.is_some();
            let has_checks = |work: &&NodeWork| has_system(work) || in_memory && work.ready.is_some();
            let work = book.work.get(&node.id);
            let work = work.filter(|work| work.maintenance.is_none()).filter(has_checks);
            let Some(work) = work else {
                if asked {
                    return Err(VerifyError::Nothing(node.name.clone()));
                }
                continue;
            };
            if let Some(run) = book.busy(node.id).filter(|_| !asked) {
                works.get_or_insert(run);
                left_out.push(Refusal {
                    node: node.id,
                    name: node.name.clone(),
                    reason: format!("run {run} works on it; check it when that has ended"),
                });
                continue;
            }
            names.insert(node.id, node.name.clone());
            actions.push(check(node.id, &node.name, work.checks.clone()));
        }
        match (actions.is_empty(), works) {
            (false, _) => Ok(Checks {
                actions,
                names,
                left_out,
            }),
            (true, None) => Err(VerifyError::Nothing("any node".into())),
            (true, Some(run)) => {
                let nodes = left_out.into_iter().map(|left| left.name).collect();
                Err(VerifyError::Commit(CommitError::Busy { run, nodes }))
            }
        }
    }
}

/// Takes a node out of every run that has something open on it.
fn take_out(book: &mut Book, node: NodeId, reason: &str) {
    for run in book.runs_of(node) {
        if let Some(live) = book.live.get_mut(&run) {
            let reason = reason.to_owned();
            live.note(now(), Input::Exclude { node, reason });
        }
    }
}

/// The action that runs a node's checks.
fn check(node: NodeId, name: &str, checks: Vec<String>) -> Action {
    Action {
        id: ActionId(format!("{name}/verify")),
        node: Some(node),
        target: Target::Node(node),
        layer: Layer::System,
        kind: ActionKind::Verify { checks },
        changes: Vec::new(),
        needs: Vec::new(),
        destroys: None,
        reboots: false,
        estimate_seconds: 60,
        reason: "asked for".into(),
        limits: VERIFY,
    }
}

/// Static addresses a plan gives, by node and by name of the site's network.
pub(super) fn addresses(plan: &Plan, site: &Site) -> BTreeMap<NodeId, BTreeMap<String, IpAddr>> {
    let mut found: BTreeMap<NodeId, BTreeMap<String, IpAddr>> = BTreeMap::new();
    for action in &plan.actions {
        let Some(node) = action.node else { continue };
        if let ActionKind::BmcSetUp {
            network: Some(network), ..
        } = &action.kind
        {
            let fixed = network
                .address
                .map(|fixed| (bmc_holder(&network.name), fixed.address.into()));
            found.entry(node).or_default().extend(fixed);
        }
        let Some(setup) = action.kind.setup() else { continue };
        let given = setup.networks.iter().flat_map(|network| &network.addresses);
        for address in given.filter_map(|text| text.split('/').next()?.parse::<IpAddr>().ok()) {
            let home = site
                .network
                .iter()
                .find(|(_, network)| network.subnet.contains(&address));
            if let Some((name, _)) = home {
                found.entry(node).or_default().insert(name.clone(), address);
            }
        }
    }
    found
}

impl Inner {
    fn refuse_busy(&self, book: &Book, plan: &Plan, names: &BTreeMap<NodeId, String>) -> Result<(), CommitError> {
        let nodes: BTreeSet<NodeId> = plan.actions.iter().filter_map(|action| action.node).collect();
        let mut busy: BTreeMap<RunId, Vec<String>> = BTreeMap::new();
        for node in nodes {
            if let Some(run) = book.busy(node) {
                let name = names.get(&node).cloned().unwrap_or_else(|| node.to_string());
                busy.entry(run).or_default().push(name);
            }
        }
        match busy.into_iter().next() {
            Some((run, nodes)) => Err(CommitError::Busy { run, nodes }),
            None => Ok(()),
        }
    }

    /// Begins a run once it is written down. One that takes nodes over waits until they are free.
    pub(super) fn begin_run(
        &self,
        book: &mut Book,
        plan: Arc<Plan>,
        by: &str,
        takes: BTreeMap<NodeId, RunId>,
        request: Option<PlanRequest>,
    ) -> Result<RunId, CommitError> {
        let id = RunId(book.last_run + 1);
        let at = now();
        let mut run = Run::new(id, plan.clone(), by, at);
        run.takes = takes;
        let begins = run.takes.is_empty();
        let going = if begins { "going" } else { "waiting" };
        if !begins {
            run.state = RunState::Waiting;
        }
        let waits = takeover::waits_for(&run);
        let mut entries = vec![
            memory::plan_entry(id, &plan),
            memory::head_entry(&run, request.as_ref()),
        ];
        entries.extend(book.unwritten.iter().cloned());
        let engine = Engine::within(run, self.bounds.clone(), book.room.clone());
        let engine = engine.map_err(|error| CommitError::Bad(error.to_string()))?;
        let (run, state) = (id.0, going.to_owned());
        let reason = format!(
            "plan {} committed by {by}, {} actions{waits}",
            plan.id,
            plan.actions.len()
        );
        let severity = Severity::Info;
        let kind = EventKind::RunChanged {
            run,
            state,
            reason,
            severity,
        };
        let written = memory::write_and_tell(&self.rack, &entries, vec![(None, kind)]);
        written.map_err(|error| CommitError::Store(error.to_string()))?;
        book.unwritten.clear();
        book.last_run = id.0;
        let nodes: BTreeSet<NodeId> = plan.actions.iter().filter_map(|action| action.node).collect();
        if begins {
            self.read_roles(book, nodes.iter().copied());
        }
        for node in nodes {
            self.rack.show(node, true, |shown| shown.run = Some(id.0));
        }
        let mut live = Live::new(engine, request);
        live.note(at, Input::Tick);
        book.live.insert(id, live);
        takeover::tell(book, id, at);
        self.settle(book, at);
        self.wake();
        Ok(id)
    }

    /// Writes what is known of nodes and what was ordered of their runs in one commit: cut off between the two, a machine that
    /// is to be left alone would be worked on. In words why the disk does not take it; that is tried again.
    fn at_once(&self, book: &mut Book) -> Result<(), String> {
        if self.settle(book, now()) {
            return Ok(());
        }
        Err(self.store.trouble().map(|error| error.to_string()).unwrap_or_default())
    }

    /// Writes what is known of nodes.
    pub(super) fn keep(&self, book: &mut Book) -> Result<(), NodeError> {
        self.keep_and_tell(book, Vec::new())
    }

    /// The same, and tells of it.
    fn keep_and_tell(&self, book: &mut Book, told: Vec<Told>) -> Result<(), NodeError> {
        let entries = std::mem::take(&mut book.unwritten);
        if entries.is_empty() && told.is_empty() {
            return Ok(());
        }
        memory::write_and_tell(&self.rack, &entries, told).map_err(|error| {
            book.unwritten = entries;
            NodeError::Store(error.to_string())
        })
    }
}

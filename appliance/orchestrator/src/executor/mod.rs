//! From a site to ready machines: the site in force, plans, commits, and runs that go on across a kill.
//!
//! ```text
//!   site.toml ──▶ plan ──commit, consent──▶ Run ──▶ engine (rackbar-plan) ──Start──▶ hands ──▶ agent, BMC, SSH
//!                  ▲                         │         │  ▲                            │
//!               facts ◀── Rack, store ◀──────┴─journal─┘  └────────Ended, Progress─────┘
//! ```
//!
//! [`Executor`] is the handle. What it decides is in `rackbar-plan`, pure; what is done to machines is in
//! [`hands`](crate::hands). Here everything is written down before it begins and after it ended: see `driver`.

mod adopted;
mod answers;
pub(crate) mod around;
mod consent;
mod driver;
mod ends;
mod facts;
mod forget;
mod left;
mod memory;
mod nodes;
mod orders;
mod plans;
mod proof;
mod repositories;
mod settings;
mod takeover;
#[cfg(test)]
mod tests;
mod types;
mod watch;
mod words;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex};

use rackbar_artifacts::images::Images;
use rackbar_artifacts::programs::{InUse, Programs};
use rackbar_model::{NodeId, Timestamp};
use rackbar_plan::engine::{Bounds, Engine, Room};
use rackbar_plan::{Action, ActionId, OwnService, Plan, PlanId, Run, RunId, ServiceSeen, Stand};
use rackbar_store::{Store, StoreError};
use rackbar_trust::Signer;
use tokio::runtime::Handle;

pub(crate) use answers::Fresh;
pub use around::ServedNames;
pub use proof::Expected;
pub use repositories::Locks;
pub use settings::SETTINGS_LOOK;
pub use types::{
    CommitError, Install, NodeError, OrderError, PlanError, PlanRequest, Recovered, RunOrder, SiteInForce, VerifyError,
};

use crate::Rack;
use crate::hands::Hands;
use crate::rack::{locked, now};
use driver::{Live, Message};
use memory::{Entry, NodeWork};
use types::Made;

/// What the executor works with.
pub struct Parts {
    /// Who carries actions out.
    pub hands: Arc<dyn Hands>,
    /// The catalogue; `None` when the appliance has no place for images.
    pub images: Option<Arc<Images>>,
    /// The users' programs; `None` when the appliance has no place for them.
    pub programs: Option<Programs>,
    /// Services of our own that installed systems may use.
    pub services: BTreeSet<OwnService>,
    /// How much runs at once.
    pub bounds: Bounds,
    /// Between two looks at the firmware attributes of a ready machine: [`SETTINGS_LOOK`].
    pub settings_look: std::time::Duration,
    /// Signs reports.
    pub signer: Arc<dyn Signer + Send + Sync>,
    /// The rack's name in reports.
    pub site_name: String,
    /// The store was put in from an export, and nobody has begun anything with it yet: its open runs are ended, and
    /// nothing of them is acted on.
    pub put_in: bool,
}

/// The handle on the executor; clones share it. When the last one goes, everything under way is dropped, as in a power
/// cut, and is taken up by the next start.
#[derive(Clone)]
pub struct Executor {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    rack: Rack,
    store: Store,
    hands: Arc<dyn Hands>,
    images: Option<Arc<Images>>,
    programs: Option<Programs>,
    services: BTreeSet<OwnService>,
    bounds: Bounds,
    signer: Arc<dyn Signer + Send + Sync>,
    site_name: String,
    book: Mutex<Book>,
    settings: Mutex<settings::Watch>,
    /// When attempts began, for the times that events tell.
    clocks: Mutex<HashMap<(u64, String), Timestamp>>,
    repositories: Mutex<Locks>,
    /// Images that cannot be installed now, each with what is missing.
    out_of_reach: Mutex<BTreeMap<String, String>>,
    messages: Sender<Message>,
    runtime: Handle,
}

/// Everything that is known.
#[derive(Default)]
struct Book {
    site: Option<Arc<SiteInForce>>,
    plans: VecDeque<Made>,
    /// What the plans made so far found to be as wanted.
    as_wanted: rackbar_plan::Memory,
    live: BTreeMap<RunId, Live>,
    /// How much they have under way together.
    room: Room,
    ended: BTreeMap<RunId, Arc<Run>>,
    last_run: u64,
    work: HashMap<NodeId, NodeWork>,
    /// What was seen of services that are not ours, since the site is in force.
    seen: BTreeMap<(OwnService, Vec<String>), ServiceSeen>,
    /// What our DNS serves.
    served: ServedNames,
    /// Of no run: what was learned of nodes.
    unwritten: Vec<Entry>,
    /// Keys that adopted systems let in which are about to be emptied, by fingerprint: forgotten once that is written down.
    unneeded_keys: BTreeSet<String>,
    /// It was said that the disk refuses.
    complained: bool,
    /// The view's revision at the last look.
    looked_at: u64,
}

impl Book {
    fn action(&self, run: RunId, action: &ActionId) -> Option<Action> {
        let live = self.live.get(&run)?;
        live.engine.run().plan.actions.get(live.position(action)?).cloned()
    }

    /// Lets go of the oldest ended runs beyond those that are kept, here and in the store: an appliance whose machines are
    /// checked daily for years would grow with each.
    fn forget_old_runs(&mut self) {
        while self.ended.len() > memory::RUNS_KEPT {
            let Some((_, run)) = self.ended.pop_first() else { break };
            self.unwritten.extend(memory::no_run_entries(&run));
        }
    }

    /// The run that works on a node.
    fn busy(&self, node: NodeId) -> Option<RunId> {
        let works = |live: &&Live| live.open(node);
        self.live.values().find(works).map(|live| live.engine.run().id)
    }

    /// All runs that have something open on a node: one that works on it, and one that waits to take it over.
    fn runs_of(&self, node: NodeId) -> Vec<RunId> {
        let open = self.live.iter().filter(|(_, live)| live.open(node));
        open.map(|(id, _)| *id).collect()
    }
}

impl Executor {
    /// Starts from what the store holds: attempts that were under way are taken up, except those of a run that
    /// is not gone on with (a state that was put in, a record that cannot be read). To be called within a tokio
    /// runtime, which the hands use; before nodes are served, so that installed ones are sent to their disks.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn start(rack: Rack, store: Store, parts: Parts) -> Result<Self, StoreError> {
        let (executor, inbox) = Self::open(rack, store, parts)?;
        let weak = Arc::downgrade(&executor.inner);
        std::thread::Builder::new()
            .name("executor".into())
            .spawn(move || driver::run(&weak, &inbox))
            .map_err(|error| StoreError::Failed(format!("the executor's thread could not be started: {error}")))?;
        Ok(executor)
    }

    /// The same, without the thread that drives it.
    fn open(rack: Rack, store: Store, parts: Parts) -> Result<(Self, Receiver<Message>), StoreError> {
        let loaded = memory::load(&store)?;
        let locks = crate::repositories::load(&store)?.into_iter();
        let locks = locks.map(|kept| (kept.lock.name.clone(), kept.lock));
        let (messages, inbox) = std::sync::mpsc::channel();
        let (book, left) = left::open(loaded, &parts, &rack, now());
        let inner = Arc::new(Inner {
            rack,
            store,
            hands: parts.hands,
            images: parts.images,
            programs: parts.programs,
            services: parts.services,
            bounds: parts.bounds,
            signer: parts.signer,
            site_name: parts.site_name,
            book: Mutex::new(book),
            settings: Mutex::new(settings::Watch::new(parts.settings_look)),
            clocks: Mutex::default(),
            repositories: Mutex::new(Arc::new(locks.collect())),
            out_of_reach: Mutex::default(),
            messages,
            runtime: Handle::current(),
        });
        {
            let mut book = locked(&inner.book);
            let nodes: Vec<NodeId> = book.work.keys().copied().collect();
            nodes.into_iter().for_each(|node| inner.show_work(&book, node));
            let at = now();
            // All of it is under way, and takes its room, before anything else begins.
            book.live.values_mut().for_each(|live| live.take_up(at));
            for live in book.live.values_mut() {
                live.note(at, rackbar_plan::engine::Input::Tick);
            }
            takeover::tell_again(&mut book, at);
            inner.tell_left(&mut book, left);
            inner.catch_up(&mut book);
            inner.stand_again(&book);
            adopted::sweep_keys(&book, &inner.store);
            inner.settle(&mut book, at);
            inner.tell_settled(&book);
        }
        Ok((Self { inner }, inbox))
    }

    /// False while something is not written down yet, as on a full disk. Asked after [`Self::start`] it says whether the
    /// runs that [`Parts::put_in`] ends have ended for good.
    pub fn is_written(&self) -> bool {
        locked(&self.inner.book).unwritten.is_empty()
    }

    /// A plan that was made, by its name.
    pub fn plan_by_id(&self, id: &PlanId) -> Option<Arc<Plan>> {
        let book = locked(&self.inner.book);
        let made = book.plans.iter().find(|made| made.plan.id == *id);
        made.map(|made| made.plan.clone())
    }

    /// All runs that are kept, oldest first.
    pub fn runs(&self) -> Vec<Arc<Run>> {
        let mut book = locked(&self.inner.book);
        let live: Vec<Arc<Run>> = book.live.values_mut().map(shown).collect();
        let mut runs: Vec<Arc<Run>> = book.ended.values().cloned().chain(live).collect();
        runs.sort_by_key(|run| run.id);
        runs
    }

    /// A run.
    pub fn run(&self, id: RunId) -> Option<Arc<Run>> {
        let mut book = locked(&self.inner.book);
        let live = book.live.get_mut(&id).map(shown);
        live.or_else(|| book.ended.get(&id).cloned())
    }

    /// Digests of images that runs which have not ended still need.
    pub fn images_in_use(&self) -> std::collections::HashSet<rackbar_model::Digest> {
        let book = locked(&self.inner.book);
        let actions = book.live.values().flat_map(|live| &live.engine.run().plan.actions);
        let digests = actions.filter_map(|action| Some(action.kind.installs()?.1));
        digests.collect()
    }

    /// Programs that runs which have not ended name, with the digests that their plans pinned.
    pub fn programs_in_use(&self) -> InUse {
        let book = locked(&self.inner.book);
        let actions = book.live.values().flat_map(|live| &live.engine.run().plan.actions);
        let programs = actions.filter_map(|action| action.kind.program());
        programs.map(|program| (program.name.clone(), program.sha256)).collect()
    }
}

/// A run as it stands, shared with who asked last when nothing has changed since.
fn shown(live: &mut Live) -> Arc<Run> {
    let run = live.shown.take().unwrap_or_else(|| Arc::new(live.engine.run().clone()));
    live.shown = Some(run.clone());
    run
}

impl Inner {
    /// Says again what of the kept runs will not change any more: the end of an action is in the journal before the hands
    /// hear of it.
    fn tell_settled(&self, book: &Book) {
        let live = book.live.values().map(|live| live.engine.run());
        for run in book.ended.values().map(|run| &**run).chain(live) {
            for action in &run.plan.actions {
                let stand = run.actions.get(&action.id).filter(|stand| stand.settled());
                if let (Some(node), Some(stand)) = (action.node, stand) {
                    let well = matches!(stand, Stand::Done { .. });
                    self.hands.settled(node, run.id, &action.kind, well);
                }
            }
        }
    }

    fn begin_clock(&self, action: &str, run: u64, at: Timestamp) {
        locked(&self.clocks).insert((run, action.to_owned()), at);
    }

    fn begun(&self, action: &str, run: u64) -> Timestamp {
        let clocks = locked(&self.clocks);
        clocks.get(&(run, action.to_owned())).copied().unwrap_or_else(now)
    }

    fn clocks_of(&self, run: u64) {
        locked(&self.clocks).retain(|(of, _), _| *of != run);
    }

    /// Has the driver look at once.
    fn wake(&self) {
        let _ = self.messages.send(Message::Wake);
    }
}

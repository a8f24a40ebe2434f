//! What runs mean for nodes: the state each is in, what is known of the system on it, and what the page shows.

use std::collections::BTreeMap;

use rackbar_model::{Inventory, Node, NodeId, NodeState, OsSetup, Timestamp};
use rackbar_plan::planner::step_digest;
use rackbar_plan::{Action, ActionId, ActionKind, Attempt, Layer, Progress, RunId, SetupDigest, Stand};

use super::around::Leased;
use super::driver::Live;
use super::memory::{self, NodeWork, Ready};
use super::{Book, Inner, around, settings};
use crate::hands::{Done, Learned, System};
use crate::record::Boots;

/// Before the first run of a node.
const NO_RUN: RunId = RunId(0);

/// What hands are told of the system on a node; of its neighbours where it is to try them: who has which leased address, and
/// who is switched off.
pub(super) fn system(
    book: &Book,
    node: NodeId,
    role: Option<&str>,
    around: Option<(&Leased, &dyn Fn(NodeId) -> bool)>,
) -> System {
    let work = book.work.get(&node);
    // One that boots its disk was installed since, whatever the role said that the rules bind it to.
    let own_system = work.is_some_and(|work| work.boots_disk && work.installed.is_some());
    let in_memory = stays_in_memory(book, role) && !own_system;
    let Some(work) = work else {
        return System {
            in_memory,
            site: book.site.clone(),
            ..System::default()
        };
    };
    let near = around.map(|(leased, off)| around::peers(book, node, work, leased, off));
    let near = near.unwrap_or_default();
    System {
        names: around::names(book, work, &near.fixed),
        peers: near.peers,
        peers_known: near.known,
        erased: work.erased.clone(),
        burned_in: work.burned_in.clone(),
        installed: work.shown.clone(),
        adopted: work.adopted.clone(),
        setup: work.setup.clone(),
        role: work.role.clone(),
        bios: settings::wanted(book, role, work),
        in_memory,
        memory: work.ready.as_ref().map(|ready| ready.memory),
        site: book.site.clone(),
    }
}

/// True when a role keeps its nodes in our agent.
pub(super) fn stays_in_memory(book: &Book, role: Option<&str>) -> bool {
    let site = book.site.as_ref();
    let role = site.and_then(|site| site.site.role.get(role?));
    role.is_some_and(|role| role.memory.is_some())
}

/// What is being done, for a person who looks at the node.
fn doing(kind: &ActionKind) -> String {
    match kind {
        ActionKind::RotatePassword => "giving its BMC a password of its own".into(),
        ActionKind::BiosSettings { .. } => "setting firmware attributes".into(),
        ActionKind::Agent { fresh: true } => "restarting into our agent".into(),
        ActionKind::Agent { fresh: false } => "waiting for our agent".into(),
        ActionKind::BiosVerify { .. } => "reading firmware attributes back".into(),
        ActionKind::BurnIn(_) => "exercising the hardware".into(),
        ActionKind::Erase { .. } => "emptying disks".into(),
        ActionKind::WriteImage { image, .. } => format!("writing {image}"),
        ActionKind::Setup { .. } => "giving the system its identity".into(),
        ActionKind::BootOrder { .. } => "setting the boot order".into(),
        ActionKind::Restart { .. } => "restarting into the installed system".into(),
        ActionKind::Reachable { .. } => "waiting for the installed system".into(),
        ActionKind::Step(step) => format!("running the step {}", step.name),
        ActionKind::Rescue { step, .. } => format!("running the rescue step {}", step.name),
        ActionKind::Verify { .. } => "checking".into(),
        ActionKind::Barrier { name } => format!("waiting for {name}"),
        ActionKind::StayInMemory { .. } => "staying in memory".into(),
        ActionKind::BmcSetUp { .. } => "setting its BMC up from inside".into(),
        ActionKind::Installer { image, .. } => format!("installing with {image}"),
        ActionKind::Service(spec) => format!("seeing that {} is there", spec.service.name()),
    }
}

/// The state a node is in while an action of this kind is under way; `None` when that changes nothing.
pub(super) fn state_during(action: &Action) -> Option<NodeState> {
    match (&action.kind, action.layer) {
        (ActionKind::Barrier { .. } | ActionKind::Verify { .. }, _) => None,
        (_, Layer::Infrastructure | Layer::Firmware) => Some(NodeState::Configuring),
        (_, Layer::System | Layer::Clients | Layer::Applications) => Some(NodeState::Provisioning),
        (_, Layer::Management | Layer::Coordination) => None,
    }
}

/// How a ready node's hardware looked.
pub(super) fn hardware(node: &Node, at: Timestamp) -> Ready {
    let nothing = Inventory::default();
    let inventory = node.inventory.as_ref().unwrap_or(&nothing);
    let disk = |disk: &rackbar_model::Disk| {
        let name = disk.serial.clone().or_else(|| disk.wwn.clone());
        (name.unwrap_or_else(|| disk.name.clone()), disk.size_bytes)
    };
    let mut disks: Vec<_> = inventory
        .disks
        .iter()
        .filter(|disk| !disk.removable)
        .map(disk)
        .collect();
    disks.sort();
    let mut macs: Vec<String> = inventory.nics.iter().map(|nic| nic.mac.to_string()).collect();
    macs.sort();
    Ready {
        at,
        disks,
        memory: inventory.memory.total_bytes,
        macs,
    }
}

/// What differs, a sentence each.
pub(super) fn drift(before: &Ready, now: &Ready) -> Vec<String> {
    let mut found = Vec::new();
    for (name, bytes) in before.disks.iter().filter(|disk| !now.disks.contains(disk)) {
        found.push(format!("the disk {name} of {} GB is gone", bytes / 1_000_000_000));
    }
    for (name, bytes) in now.disks.iter().filter(|disk| !before.disks.contains(disk)) {
        found.push(format!("the disk {name} of {} GB is new", bytes / 1_000_000_000));
    }
    if now.memory != before.memory {
        let mib = |bytes: u64| bytes / (1 << 20);
        found.push(format!(
            "memory was {} MiB and is {} MiB",
            mib(before.memory),
            mib(now.memory)
        ));
    }
    for mac in before.macs.iter().filter(|mac| !now.macs.contains(mac)) {
        found.push(format!("the network interface {mac} is gone"));
    }
    for mac in now.macs.iter().filter(|mac| !before.macs.contains(mac)) {
        found.push(format!("the network interface {mac} is new"));
    }
    found
}

impl Book {
    /// True when people took the node out of the run: it was recovered, or hands are off. What still ends there, and be it
    /// well, changes nothing about what they ordered. A run that took the node over is another matter.
    pub(super) fn taken_out(&self, run: RunId, node: NodeId) -> bool {
        let live = self.live.get(&run).map(|live| live.engine.run());
        let run = live.or_else(|| self.ended.get(&run).map(|run| &**run));
        run.is_some_and(|run| run.excluded.contains_key(&node) && !run.superseded.contains_key(&node))
    }

    /// Changes what is known of a node, and has it written.
    pub(super) fn work(&mut self, node: NodeId, change: impl FnOnce(&mut NodeWork)) {
        let work = self.work.entry(node).or_default();
        let before = work.clone();
        change(work);
        if *work != before {
            self.unwritten.push(memory::node_entry(node, work));
        }
    }
}

impl Inner {
    /// Takes what an attempt taught us; it goes into the same commit as the attempt's end. What comes too late, after
    /// the attempt was given up for lost, teaches nothing: another may have begun.
    pub(super) fn learn(&self, book: &mut Book, run: RunId, action: &Action, job: &str, done: &Done, now: Timestamp) {
        if !Self::is_under_way(book, run, &action.id, job) {
            return;
        }
        if let ActionKind::Service(spec) = &action.kind {
            for learned in &done.learned {
                if let Learned::Service(seen) = learned {
                    book.seen.insert((spec.service, spec.at.clone()), seen.clone());
                }
            }
        }
        let Some(node) = action.node else { return };
        for learned in done.learned.clone() {
            if let Learned::Proved(address) = learned {
                // A static address is told by no lease: the one of the agent's is nobody's any more.
                self.rack.show(node, true, |node| node.address = Some(address));
            }
            book.work(node, |work| take(work, learned, run, now));
        }
        let well = done.result.is_ok();
        let taken_out = book.taken_out(run, node);
        book.work(node, |work| match &action.kind {
            // A machine that was recovered meanwhile is to boot our agent.
            ActionKind::BootOrder { .. } | ActionKind::Installer { .. } if well && !taken_out => {
                work.boots_disk = work.installed.is_some();
            }
            // What its hardware did not bear is not ready, whatever its checks said before.
            ActionKind::BurnIn(_) if work.did_not_bear().is_some() => work.ready = None,
            ActionKind::BiosSettings { attributes } | ActionKind::BiosVerify { attributes } => {
                let new = attributes.iter().map(|(name, value)| (name.clone(), value.clone()));
                work.wanted_bios.extend(new);
            }
            ActionKind::Step(step) | ActionKind::Rescue { step, .. } => {
                if let Some(installed) = work.installed.as_mut().filter(|_| well) {
                    installed.steps.insert(step.name.clone(), step_digest(step));
                }
            }
            ActionKind::Verify { checks } => {
                work.checks.clone_from(checks);
                if let Some(installed) = work.installed.as_mut() {
                    installed.checked = well.then(|| checks.clone());
                }
            }
            _ => {}
        });
    }

    /// Shows how an action stands, now that it is written down.
    pub(super) fn told(&self, book: &mut Book, run: RunId, action: &ActionId, stand: &Stand) {
        let Some(action) = book.action(run, action) else { return };
        let Some(node) = action.node else { return };
        match stand {
            Stand::Running(_) => self.began(run, node, &action),
            Stand::Again { reason, .. } => {
                let text = format!("{}: {reason}; it is tried again", doing(&action.kind));
                self.rack
                    .show(node, false, |node| (node.doing, node.percent) = (Some(text), None));
            }
            Stand::Waiting => {}
            Stand::Done { .. } | Stand::Failed { .. } | Stand::Skipped { .. } => {
                self.rack
                    .show(node, false, |node| (node.doing, node.percent) = (None, None));
                self.settled(book, run, node, &action, stand);
            }
        }
        self.show_work(book, node);
    }

    /// Something that an earlier life of this program had under way goes on. That it began was told then; what it means for its
    /// node may not have been shown.
    pub(super) fn taken_up(&self, book: &Book, run: RunId, action: &ActionId, attempt: &Attempt) {
        self.begin_clock(action.0.as_str(), run.0, attempt.began);
        let Some(action) = book.action(run, action) else { return };
        let Some(node) = action.node.and_then(|node| self.rack.node_by_id(node)) else {
            return;
        };
        let elsewhere = matches!(
            node.state,
            NodeState::Failed(_) | NodeState::Maintenance | NodeState::HandedOver
        );
        if !(elsewhere || book.taken_out(run, node.id)) {
            self.began(run, node.id, &action);
        }
        self.show_work(book, node.id);
    }

    /// An action of a node has begun.
    fn began(&self, run: RunId, node: NodeId, action: &Action) {
        let text = doing(&action.kind);
        self.rack.show(node, true, |shown| {
            (shown.doing, shown.percent, shown.run) = (Some(text), None, Some(run.0));
        });
        if let Some(state) = state_during(action) {
            self.rack.hold(node, state, &format!("{} of run {run}", action.id));
        }
    }

    pub(super) fn show_progress(&self, book: &Book, run: RunId, action: &ActionId, progress: &Progress) {
        let Some(node) = book.action(run, action).and_then(|action| action.node) else {
            return;
        };
        let percent = (progress.total > 0).then(|| {
            let percent = u128::from(progress.done) * 100 / u128::from(progress.total);
            u8::try_from(percent.min(100)).unwrap_or(100)
        });
        let doing = progress.doing.clone();
        self.rack
            .show(node, false, |node| (node.doing, node.percent) = (Some(doing), percent));
    }

    /// Shows what is known of the system on a node, and what it boots.
    pub(super) fn show_work(&self, book: &Book, node: NodeId) {
        let work = book.work.get(&node).cloned().unwrap_or_default();
        let boots = if work.boots_disk { Boots::Disk } else { Boots::Agent };
        self.rack.set_boots(node, boots);
        let differs = self
            .rack
            .node_by_id(node)
            .is_some_and(|shown| shown.installed != work.shown || shown.adopted != work.adopted);
        if differs {
            self.rack.show(node, true, |node| {
                (node.installed, node.adopted) = (work.shown, work.adopted);
            });
        }
    }

    /// A run is over: what nobody works on any more.
    pub(super) fn run_ended(&self, book: &Book, live: &Live) {
        live.nodes().for_each(|node| self.show_work(book, node));
        self.clocks_of(live.engine.run().id.0);
    }
}

/// What must be true of a node, and written down, before this touches its machine.
pub(super) fn before(work: &mut NodeWork, kind: &ActionKind) {
    work.concluded.get_or_insert(NO_RUN);
    match kind {
        ActionKind::Agent { .. } | ActionKind::StayInMemory { .. } => work.boots_disk = false,
        ActionKind::Erase { .. } | ActionKind::WriteImage { .. } | ActionKind::Installer { .. } => {
            (work.boots_disk, work.adopted) = (false, None);
            (work.installed, work.shown, work.setup, work.ready) = (None, None, None, None);
            // What was proved was proved of what is emptied now.
            work.report = None;
        }
        // The machine must find its disk, whatever its firmware's boot order has in front.
        ActionKind::Restart { .. } => work.boots_disk = work.installed.is_some(),
        _ => {}
    }
}

fn take(work: &mut NodeWork, learned: Learned, run: RunId, now: Timestamp) {
    match learned {
        Learned::Bios(attributes) => work.bios = Some(attributes),
        Learned::PasswordRotated => work.password_rotated = true,
        Learned::BmcAccount(user) => (work.bmc_account, work.password_rotated) = (Some(user), true),
        Learned::Written { image, sha256, target } => {
            work.installed = Some(rackbar_plan::Installed {
                image: image.clone(),
                sha256,
                target: target.clone(),
                setup: SetupDigest::default(),
                files: Vec::new(),
                at: now,
                steps: BTreeMap::new(),
                checked: None,
            });
            work.shown = Some(rackbar_model::Installed {
                image,
                sha256,
                target,
                hostname: String::new(),
                user: String::new(),
                host_key: String::new(),
                proved: false,
                at: now,
                run: run.0,
            });
        }
        Learned::SetUp { setup, host_key } => {
            given(work, &setup);
            if let Some(shown) = &mut work.shown {
                shown.hostname.clone_from(&setup.hostname);
                shown.user = account(&setup);
                shown.host_key = host_key;
                shown.proved = false;
            }
            work.setup = Some(*setup);
        }
        Learned::Adjusted(setup) => {
            given(work, &setup);
            work.setup = Some(*setup);
        }
        Learned::Proved(_) => {
            if let Some(shown) = &mut work.shown {
                shown.proved = true;
            }
        }
        Learned::Erased(evidence) => work.erased = evidence,
        Learned::BurnedIn(results) => {
            // What was proved before is told together with it.
            if let Some(report) = &mut work.report {
                report.burned_in.clone_from(&results);
            }
            work.burned_in = results;
        }
        Learned::Checked(report) => work.report = Some(*report),
        // Of no node: it is taken where the attempt's end is.
        Learned::Service(_) => {}
    }
}

/// Notes what a system was given.
fn given(work: &mut NodeWork, setup: &OsSetup) {
    if let Some(installed) = &mut work.installed {
        installed.setup = SetupDigest::of(setup);
        installed.files = setup.files.iter().map(|file| file.path.clone()).collect();
    }
}

/// The account that an identity's keys are for.
fn account(setup: &OsSetup) -> String {
    if setup.user.is_empty() {
        "root".into()
    } else {
        setup.user.clone()
    }
}

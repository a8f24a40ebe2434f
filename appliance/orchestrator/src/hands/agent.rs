//! What our agent on the machine does: disks, images, identity, boot entries, burn-in. And getting it there, and leaving
//! it again.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use rackbar_messages::{Ask, BUSY_PAUSE, CONNECTING, JobReport, Work};
use rackbar_model::{
    BurnIn, CheckResult, CheckStatus, Digest, DiskRef, EraseMethod, NodeId, OsSetup, PowerAction, PowerState,
    RootTarget, SecretText,
};
use rackbar_plan::site::Enrol;
use rackbar_plan::{Again, Progress, StepSpec};
use rackbar_ssh::HostKeyPair;
use rackbar_store::Table;
use tokio::sync::watch;
use tokio::time::Instant;

use super::enrol::Installing;
use super::ssh::judged_step;
use super::{Appliance, Done, Learned, Task};
use crate::Rack;
use crate::jobs::AskError;
use crate::power::power_now;

/// Time an agent whose connection broke needs to come back in the same boot.
pub(super) const COMES_BACK: Duration = Duration::from_secs(30);

/// Time an agent with a job needs to come back after an outage of ours, in which it may have waited longest between two
/// tries: that pause and two tries, as the first may meet an appliance that has only begun to listen.
const BACK_TO_ITS_JOB: Duration = BUSY_PAUSE.saturating_add(CONNECTING.saturating_mul(2));

/// Time between two orders to boot from the network: firmware with much memory takes minutes to its first packet.
const NETBOOT_AGAIN: Duration = Duration::from_secs(8 * 60);

/// Time a machine takes to shut our agent down.
pub(super) const GOES_DOWN: Duration = Duration::from_secs(120);

/// What to do where nobody can switch a machine on but a person.
pub(super) const BY_HAND: &str = "switch it on or press its reset button, and let it boot from the network";

/// Has a machine that runs shut down, and waits until it has, looking so often; `say` is called when that begins. One that
/// does not end in time is left to whoever asked.
pub(crate) async fn end_in_order(rack: &Rack, node: NodeId, by: &str, look: Duration, say: impl FnOnce()) {
    if power_now(rack, node).await != Some(PowerState::On) {
        return;
    }
    say();
    if rack.power(node, PowerAction::Shutdown, by).await.is_err() {
        return;
    }
    let deadline = Instant::now() + GOES_DOWN;
    while Instant::now() < deadline && power_now(rack, node).await == Some(PowerState::On) {
        tokio::time::sleep(look).await;
    }
}

/// What a machine bore that started anew under its load.
fn fell_over() -> CheckResult {
    CheckResult {
        id: "burnin.machine".into(),
        status: CheckStatus::Failed,
        wanted: "it runs until the end".into(),
        observed: "it started anew in the middle of it".into(),
        advice: "look at its event log for what restarted it".into(),
        at: Appliance::now(),
        millis: 0,
    }
}

impl Appliance {
    /// Has the agent do `work`, and makes words of what it says.
    pub(super) async fn job(&self, task: &mut Task, node: NodeId, work: Work) -> Result<JobReport, Done> {
        let progress = task.progress.clone();
        let mut give_up = task.give_up.clone();
        let moves = matches!(work, Work::Write { .. });
        let (tell, told) = watch::channel(Progress::default());
        let follow = move |one: Progress| {
            // The words change with what the agent makes of a stillness; the numbers do not.
            tell.send_if_modified(|last| {
                let moved = (last.done, last.total) != (one.done, one.total);
                last.clone_from(&one);
                moved
            });
            progress(one);
        };
        let job = self.rack.job(node, task.job, work, follow, &mut give_up);
        let report = tokio::select! {
            report = job => report,
            never = self.keep_agent(task, node) => match never {},
            doing = self.stuck(node, told), if moves => return Err(self.unstick(task, node, &doing).await),
        };
        report.map_err(|failure| Done::failed(failure.reason, failure.advice, failure.again))
    }

    /// Ends when the numbers of a job's progress have not changed for long under one agent, with what it was doing.
    async fn stuck(&self, node: NodeId, mut told: watch::Receiver<Progress>) -> String {
        let mut since = Instant::now();
        while since.elapsed() < self.reach.stuck {
            tokio::time::sleep(self.reach.look).await;
            // A machine that is being booted again is not one that stands still.
            if told.has_changed().unwrap_or(true) || self.rack.agent(node).is_none() {
                since = Instant::now();
                told.mark_unchanged();
            }
        }
        told.borrow().doing.clone()
    }

    /// Ends a job that cannot be told to end: a thread that waits for a disk inside the kernel hears nobody, and goes with
    /// its machine's restart only.
    async fn unstick(&self, task: &Task, node: NodeId, doing: &str) -> Done {
        let reason = format!("it stood still for {} s: {doing}", self.reach.stuck.as_secs());
        match self.to_network(task, node, true).await {
            Ok(()) => Done::failed(
                format!("{reason}; the machine was restarted"),
                "when it happens again, look at the disk's health, its controller and its cabling",
                true,
            ),
            Err(error) => Done::failed(
                format!("{reason}, and it could not be restarted: {error}"),
                BY_HAND,
                true,
            ),
        }
    }

    /// Gets our agent back when the machine lost its power or hangs: whoever waits for its work would wait for ever.
    async fn keep_agent(&self, task: &Task, node: NodeId) -> Infallible {
        let mut gone: Option<Instant> = None;
        let mut patience = BACK_TO_ITS_JOB;
        loop {
            tokio::time::sleep(self.reach.look).await;
            if self.rack.agent(node).is_some_and(|link| !link.send.is_closed()) {
                (gone, patience) = (None, BACK_TO_ITS_JOB);
                continue;
            }
            if gone.get_or_insert_with(Instant::now).elapsed() < patience {
                continue;
            }
            (gone, patience) = (Some(Instant::now()), NETBOOT_AGAIN);
            let doing = match self.to_network(task, node, false).await {
                Ok(()) => "its agent is gone: booting the machine from the network again".to_owned(),
                Err(reason) => format!("its agent is gone, and it could not be booted again: {reason}; {BY_HAND}"),
            };
            (task.progress)(Progress {
                doing,
                ..Progress::default()
            });
        }
    }

    /// Makes sure our agent runs.
    pub(super) async fn agent(&self, task: &mut Task, node: NodeId, fresh: bool) -> Done {
        let began = self.rack.agent(node).map(|link| link.boot);
        if let Some(link) = self.rack.agent(node)
            && !fresh
        {
            return if link.send.is_closed() {
                Done::failed("its agent's connection just ended", "", true)
            } else {
                Done::well("our agent is connected").unchanged()
            };
        }
        // Taken up after a kill: the restart may have happened already, and once more costs some minutes and no harm.
        let say = |doing: &str| {
            (task.progress)(Progress {
                doing: doing.into(),
                ..Progress::default()
            });
        };
        if let Err(reason) = self.to_network(task, node, began.is_some()).await {
            return Done::failed(reason, BY_HAND, true);
        }
        say("waiting until our agent connects");
        let mut ordered = Instant::now();
        loop {
            if let Some(link) = self.rack.agent(node)
                && Some(link.boot) != began
            {
                return Done::well("our agent runs, freshly booted");
            }
            tokio::select! {
                () = tokio::time::sleep(self.reach.look) => {}
                Ok(_) = task.give_up.wait_for(|give_up| *give_up) => {
                    let reason = "our agent did not connect: the machine did not boot from the network";
                    return Done::failed(reason, "its timeline says how far it came; look at its console", true);
                }
            }
            if ordered.elapsed() >= NETBOOT_AGAIN {
                ordered = Instant::now();
                // A machine may take the one-time boot device and lose it in a second restart of its own.
                let _ = self.to_network(task, node, false).await;
            }
        }
    }

    /// Has the machine boot from the network: by its BMC, else by its own agent's restart.
    pub(super) async fn to_network(&self, task: &Task, node: NodeId, connected: bool) -> Result<(), String> {
        let by = format!("run {}", task.run);
        let known = task.node.as_ref().is_some_and(|node| node.bmc_address.is_some());
        let by_bmc = if known {
            if !connected {
                self.end_in_order(task, node, &by).await;
            }
            let done = self.rack.power(node, PowerAction::Netboot, &by).await;
            done.map_err(|error| error.to_string())
        } else {
            Err("it has no BMC that we know".into())
        };
        match by_bmc {
            Ok(()) => Ok(()),
            // What it was booted with last time is what its firmware boots now.
            Err(reason) if connected => match self.rack.agent(node) {
                Some(link) => link.try_ask(Ask::Reboot).await.map_err(|error| match error {
                    AskError::Gone => format!("{reason}, and its agent does not answer"),
                    AskError::Refused(why) => format!("{reason}, and its agent could not restart it: {why}"),
                }),
                None => Err(reason),
            },
            // A person may press the button; the wait for the agent begins all the same.
            Err(reason) if !known => {
                (task.progress)(Progress {
                    doing: format!("waiting for a person: {reason}; {BY_HAND}"),
                    ..Progress::default()
                });
                Ok(())
            }
            Err(reason) => Err(reason),
        }
    }

    /// Lets a system that runs end in order before its machine is restarted, whoever installed it: what it has in memory only
    /// would be lost. One that does not end in time is restarted all the same.
    async fn end_in_order(&self, task: &Task, node: NodeId, by: &str) {
        if task.system.installed.is_none() && task.system.adopted.is_none() {
            return;
        }
        let say = || {
            (task.progress)(Progress {
                doing: "letting the installed system end in order".into(),
                ..Progress::default()
            });
        };
        end_in_order(&self.rack, node, by, self.reach.look, say).await;
    }

    pub(super) async fn burn_in(&self, task: &mut Task, node: NodeId, burn_in: BurnIn) -> Done {
        match self.job(task, node, Work::BurnIn(burn_in)).await {
            Ok(JobReport::BurnedIn(results)) => {
                let line = |one: &CheckResult| format!("{}: {}", one.id, one.observed);
                let details: Vec<String> = results.iter().map(line).collect();
                let done = match results.iter().find(|one| one.status == CheckStatus::Failed) {
                    Some(bad) => Done::failed(format!("{}: {}", bad.id, bad.observed), bad.advice.clone(), false),
                    None => Done::well("the hardware bore it").with_details(details),
                };
                done.and(Learned::BurnedIn(results))
            }
            Err(done) if self.rack.lost(node, task.job) => done.and(Learned::BurnedIn(vec![fell_over()])),
            other => unexpected(other),
        }
    }

    pub(super) async fn erase(&self, task: &mut Task, node: NodeId, disks: Vec<DiskRef>, method: EraseMethod) -> Done {
        match self.job(task, node, Work::Erase { disks, method }).await {
            Ok(JobReport::Erased(evidence)) => {
                let mut details = Vec::new();
                for one in &evidence {
                    let model = one.model.as_deref().unwrap_or("model not known");
                    details.push(format!(
                        "{} ({model}): {}, {} to {}",
                        one.disk,
                        one.asked.name(),
                        one.began,
                        one.ended
                    ));
                    details.extend(one.steps.iter().map(|step| format!("{}: {step}", one.disk)));
                }
                let disks = match evidence.len() {
                    1 => "1 disk".to_owned(),
                    count => format!("{count} disks"),
                };
                let summary = format!("{disks} emptied by {}", method.name());
                Done::well(summary).with_details(details).and(Learned::Erased(evidence))
            }
            other => unexpected(other),
        }
    }

    pub(super) async fn write_image(
        &self,
        task: &mut Task,
        node: NodeId,
        target: &RootTarget,
        image: &str,
        sha256: Digest,
    ) -> Done {
        // Waited for first: the URL depends on where the agent is.
        let mut give_up = task.give_up.clone();
        let client = tokio::select! {
            _ = self.rack.await_agent(node) => self.rack.node_by_id(node).and_then(|node| node.address),
            never = self.keep_agent(task, node) => match never {},
            Ok(_) = give_up.wait_for(|give_up| *give_up) => None,
        };
        let source = match self.source(image, sha256, client.unwrap_or(Ipv4Addr::UNSPECIFIED.into())) {
            Ok(source) => source,
            Err(done) => return done,
        };
        let work = Work::Write {
            target: target.clone(),
            image: source,
        };
        match self.job(task, node, work).await {
            Ok(JobReport::Written {
                sha256: seen,
                fetched,
                disk_bytes,
                millis,
                steps,
                ..
            }) => {
                if seen != sha256 {
                    let reason = format!("the agent wrote a file with SHA-256 {seen} instead of {sha256}");
                    return Done::failed(reason, "look for what changes data on the way to the machine", false);
                }
                let seconds = millis.div_ceil(1_000).max(1);
                let mib = |bytes: u64| bytes / (1 << 20);
                let summary = format!(
                    "{image} written and verified: {} MiB fetched, {} MiB on disk, {seconds} s",
                    mib(fetched),
                    mib(disk_bytes)
                );
                let (image, target) = (image.to_owned(), target.clone());
                Done::well(summary)
                    .with_details(steps)
                    .and(Learned::Written { image, sha256, target })
            }
            other => unexpected(other),
        }
    }

    pub(super) async fn setup(
        &self,
        task: &mut Task,
        node: NodeId,
        target: &RootTarget,
        setup: &OsSetup,
        enrol: &[Enrol],
    ) -> Done {
        let pair = match self.host_key(node, task.run.0, &setup.hostname) {
            Ok(pair) => pair,
            Err(reason) => return Done::failed(reason, "look at the state of the store", true),
        };
        let mut whole = setup.clone();
        whole.ssh_host_key = pair.private.clone();
        match self.key.public_openssh() {
            // Ours, for the checks. Not part of the plan, which is the operator's.
            Ok(own) => whole.ssh_keys.push(own),
            Err(error) => return Done::failed(error.to_string(), "", false),
        }
        let written = task.system.installed.as_ref();
        let installing = Installing {
            target,
            image: written.map_or("", |written| written.image.as_str()),
            sha256: written.map_or(Digest([0; 32]), |written| written.sha256),
        };
        match self.enrolment_files(task, node, (enrol, setup), installing).await {
            // The role's own files come after them, and win.
            Ok(files) => drop(whole.files.splice(0..0, files)),
            Err(done) => return done,
        }
        let work = Work::Setup {
            target: target.clone(),
            setup: whole,
        };
        match self.job(task, node, work).await {
            Ok(JobReport::SetUp(paths)) => {
                let summary = format!("it is {}, {} files written", setup.hostname, paths.len());
                let learned = Learned::SetUp {
                    setup: Box::new(setup.clone()),
                    host_key: pair.public,
                };
                Done::well(summary).with_details(paths).and(learned)
            }
            other => unexpected(other),
        }
    }

    /// Another identity in the place of the one that the system has, whose host key stays.
    pub(super) async fn adjust(
        &self,
        task: &mut Task,
        node: NodeId,
        target: &RootTarget,
        setup: &OsSetup,
        again: &Again,
    ) -> Done {
        let mut whole = setup.clone();
        match self.key.public_openssh() {
            Ok(own) => whole.ssh_keys.push(own),
            Err(error) => return Done::failed(error.to_string(), "", false),
        }
        let work = Work::Adjust {
            target: target.clone(),
            setup: whole,
            gone: again.gone.clone(),
        };
        match self.job(task, node, work).await {
            Ok(JobReport::SetUp(paths)) => {
                let summary = format!("{} files written or taken away", paths.len());
                let learned = Learned::Adjusted(Box::new(setup.clone()));
                Done::well(summary).with_details(paths).and(learned)
            }
            other => unexpected(other),
        }
    }

    /// A step of the user's, inside the system on the disk of a node that is in rescue.
    pub(super) async fn rescue(&self, task: &mut Task, node: NodeId, target: &RootTarget, step: &StepSpec) -> Done {
        let seconds = task.action().map_or(0, |action| action.limits.seconds);
        let work = Work::Rescue {
            target: target.clone(),
            script: SecretText(step.script.clone()),
            seconds,
        };
        match self.job(task, node, work).await {
            Ok(JobReport::Rescued { status, output }) => {
                judged_step(step, Some(status), &format!("ended with status {status}"), &output)
            }
            other => unexpected(other),
        }
    }

    /// The host key a run gives a node: made once per run, so that an attempt that is repeated gives the same.
    pub(super) fn host_key(&self, node: NodeId, run: u64, hostname: &str) -> Result<HostKeyPair, String> {
        let key = format!("ssh-host/{node}").into_bytes();
        let words = |error: &dyn std::fmt::Display| format!("the host key cannot be kept: {error}");
        let kept = self.store.get(Table::Secrets, &key).map_err(|error| words(&error))?;
        let kept = kept.and_then(|json| serde_json::from_slice::<(u64, String, String)>(&json).ok());
        if let Some((of, private, public)) = kept
            && of == run
        {
            let private = SecretText(private);
            return Ok(HostKeyPair { private, public });
        }
        let pair = HostKeyPair::generate(hostname).map_err(|error| error.to_string())?;
        let json = serde_json::to_vec(&(run, &pair.private.0, &pair.public)).map_err(|error| words(&error))?;
        self.store
            .put(Table::Secrets, &key, &json)
            .map_err(|error| words(&error))?;
        Ok(pair)
    }

    /// The firmware's own boot order by the agent, and the BMC's where there is one.
    pub(super) async fn boot_order(&self, task: &mut Task, node: NodeId, target: &RootTarget) -> Done {
        let work = Work::BootOrder {
            target: target.clone(),
            label: label(task),
        };
        let entries = match self.job(task, node, work).await {
            Ok(JobReport::BootOrder(entries)) => entries,
            other => return unexpected(other),
        };
        let mut details: Vec<String> = entries
            .iter()
            .map(|one| format!("Boot{:04X} {} ({})", one.number, one.description, one.kind))
            .collect();
        let uefi = !entries.is_empty();
        let by_bmc = self.boot_first_by_bmc(node, uefi).await;
        let summary = match (&by_bmc, uefi) {
            (Ok(true), _) => "the disk boots first, in the firmware and by its BMC",
            (_, true) => "the disk boots first in the firmware's order",
            // Under BIOS only the BMC could say so; whoever boots from the network in front of it is sent on to the disk.
            (_, false) => "no firmware boot entries: the network boot sends it on to its disk",
        };
        if let Err(reason) = by_bmc {
            details.push(format!("its BMC did not take the boot order: {reason}"));
        }
        Done::well(summary).with_details(details)
    }

    /// Addresses at which the installed system may be, the likeliest first.
    pub(super) fn addresses(&self, task: &Task, node: NodeId) -> Vec<IpAddr> {
        let given = task.system.setup.iter().flat_map(|setup| &setup.networks);
        let given = given.flat_map(|network| &network.addresses);
        let mut found: Vec<IpAddr> = given.filter_map(|text| text.split('/').next()?.parse().ok()).collect();
        if let Some(node) = self.rack.node_by_id(node) {
            let mut leases = self.rack.leases();
            leases.retain(|lease| node.macs.contains(&lease.mac));
            // The newest first: the installed system asks after our agent did, often with another client id.
            leases.sort_by_key(|lease| std::cmp::Reverse(lease.expires));
            found.extend(leases.iter().map(|lease| IpAddr::from(lease.address)));
            found.extend(node.address);
        }
        let mut seen = std::collections::HashSet::new();
        found.retain(|address| seen.insert(*address));
        found
    }
}

/// Description of the firmware's boot entry.
fn label(task: &Task) -> String {
    let image = task.system.installed.as_ref().map(|installed| installed.image.clone());
    image.unwrap_or_else(|| "installed system".into())
}

/// What a job gave that it should not, or its failure.
pub(super) fn unexpected(report: Result<JobReport, Done>) -> Done {
    match report {
        Err(done) => done,
        Ok(_) => Done::failed(
            "the agent reported something else than it was asked for",
            "the agent on the machine is of another version: restart the machine",
            true,
        ),
    }
}

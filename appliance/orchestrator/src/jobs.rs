//! Jobs of agents: asked for under a number, waited for across lost connections and restarts of either side.
//!
//! An agent answers for one number once per boot, so asking again after a reconnection is harmless. A machine that
//! booted anew has a new agent that knows nothing: the job is gone with the old one, and is begun again, unless it is one
//! that is not to be done twice ([`begun`]).

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;
use std::time::Duration;

use rackbar_messages::{Ask, JobFailure, JobId, JobReport, ToAgent, Work};
use rackbar_model::NodeId;
use rackbar_plan::Progress;
use rackbar_store::StoreError;
use tokio::sync::watch;

use crate::rack::locked;
use crate::record::AgentLink;
use crate::{Rack, begun};

/// Ends of jobs that nobody waits for yet: told right after a restart, before their action is taken up.
const MAX_EARLY: usize = 4_096;

/// Between two looks whether an agent is there. Looking costs a lock.
const LOOK: Duration = Duration::from_millis(200);

/// Time an agent that refused a job because it has another gets before it is asked again.
const BUSY: Duration = Duration::from_secs(2);

/// What became of a job so far.
#[derive(Clone, Default)]
struct Told {
    progress: Option<Progress>,
    ended: Option<Result<JobReport, JobFailure>>,
}

/// All jobs that somebody waits for.
#[derive(Default)]
pub(crate) struct Jobs {
    waiting: Mutex<HashMap<JobId, watch::Sender<Told>>>,
    early: Mutex<BTreeMap<JobId, Result<JobReport, JobFailure>>>,
}

impl Jobs {
    /// An agent told how far it is. False when nobody waits for that job.
    pub(crate) fn progress(&self, job: JobId, progress: Progress) -> bool {
        let waiting = locked(&self.waiting);
        let Some(sender) = waiting.get(&job) else { return false };
        sender.send_modify(|told| told.progress = Some(progress));
        true
    }

    /// An agent told how a job ended.
    pub(crate) fn ended(&self, job: JobId, result: Result<JobReport, JobFailure>) {
        let waiting = locked(&self.waiting);
        if let Some(sender) = waiting.get(&job) {
            sender.send_modify(|told| told.ended = Some(result));
            return;
        }
        drop(waiting);
        let mut early = locked(&self.early);
        if early.len() >= MAX_EARLY {
            // The agent says it again at its next connection.
            early.clear();
        }
        early.insert(job, result);
    }
}

/// Ends the waiting when the waiter goes away.
struct Waiter<'a> {
    jobs: &'a Jobs,
    job: JobId,
    told: watch::Receiver<Told>,
}

impl<'a> Waiter<'a> {
    fn new(jobs: &'a Jobs, job: JobId) -> Self {
        let ended = locked(&jobs.early).remove(&job);
        let (send, told) = watch::channel(Told { progress: None, ended });
        locked(&jobs.waiting).insert(job, send);
        Self { jobs, job, told }
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        locked(&self.jobs.waiting).remove(&self.job);
    }
}

impl Rack {
    /// The connection of a node's agent.
    pub(crate) fn agent(&self, node: NodeId) -> Option<AgentLink> {
        self.look(|mind| {
            mind.records
                .get(&mind.resolve(node))
                .and_then(|record| record.agent.clone())
        })
    }

    /// Waits until the node's agent is connected.
    pub(crate) async fn await_agent(&self, node: NodeId) -> AgentLink {
        loop {
            if let Some(link) = self.agent(node) {
                return link;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Has the node's agent do `work` as job `job`, and waits for its end: across reconnections, restarts of this
    /// appliance, and boots of the machine, but for work that is not to be done twice. `progress` is called with how far
    /// it is. When `give_up` turns true the agent is told to end at the next safe point; where no agent is connected, the
    /// waiting ends.
    ///
    /// # Errors
    /// What the agent said, or why it could not be asked.
    pub async fn job(
        &self,
        node: NodeId,
        job: JobId,
        work: Work,
        progress: impl Fn(Progress) + Send,
        give_up: &mut watch::Receiver<bool>,
    ) -> Result<JobReport, JobFailure> {
        let mut waiter = Waiter::new(&self.inner.jobs, job);
        loop {
            let ended = waiter.told.borrow_and_update().ended.clone();
            if let Some(result) = ended {
                return result;
            }
            let link = tokio::select! {
                link = self.await_agent(node) => link,
                Ok(_) = give_up.wait_for(|give_up| *give_up) => return Err(no_agent()),
            };
            if once(&work) {
                match begun::begin(self.store(), job, link.boot).await {
                    Ok(before) if before.is_none_or(|boot| boot == link.boot) => {}
                    Ok(_) => return Err(started_anew()),
                    Err(error) => return Err(unmarked(&error)),
                }
            }
            let work = Box::new(work.clone());
            match link.try_ask(Ask::Begin { job, work }).await {
                Ok(()) => {}
                Err(AskError::Gone) => {
                    tokio::time::sleep(LOOK).await;
                    continue;
                }
                Err(AskError::Refused(reason)) => {
                    if *give_up.borrow() {
                        return Err(refused(reason));
                    }
                    // One that we lost sight of may still be at its end.
                    tokio::time::sleep(BUSY).await;
                    return Err(refused(reason));
                }
            }
            if let Some(result) = self.follow(node, job, &link, &mut waiter, &progress, give_up).await {
                return result;
            }
        }
    }

    /// True when the node's agent is of another boot than the one that this job was begun in.
    pub(crate) fn lost(&self, node: NodeId, job: JobId) -> bool {
        let begun = begun::place(self.store(), job).ok().flatten();
        begun.is_some_and(|boot| self.agent(node).is_some_and(|link| link.boot != boot))
    }

    /// Follows a job that was begun until it ends or the connection does (`None`).
    async fn follow(
        &self,
        node: NodeId,
        job: JobId,
        link: &AgentLink,
        waiter: &mut Waiter<'_>,
        progress: &(impl Fn(Progress) + Send),
        give_up: &mut watch::Receiver<bool>,
    ) -> Option<Result<JobReport, JobFailure>> {
        let mut told_to_end = false;
        let mut look = tokio::time::interval(LOOK);
        loop {
            let told = waiter.told.borrow_and_update().clone();
            if let Some(result) = told.ended {
                return Some(result);
            }
            told.progress.into_iter().for_each(progress);
            if *give_up.borrow() && !told_to_end {
                told_to_end = true;
                let _ = link.try_ask(Ask::GiveUp(job)).await;
                continue;
            }
            tokio::select! {
                _ = waiter.told.changed() => {}
                _ = give_up.changed(), if !told_to_end => {}
                _ = look.tick() => {
                    let same = self.agent(node).is_some_and(|now| now.connection == link.connection);
                    if !same {
                        return None;
                    }
                }
            }
        }
    }

    /// Tells the agent that the end of a job was written down.
    pub(crate) fn noted(&self, node: NodeId, job: JobId) {
        if let Some(link) = self.agent(node) {
            // A full channel, or a connection that just ends: the agent then says the end again at each connection, which does no
            // harm, and one that was to jump into another kernel is restarted by who waits for its system.
            let _ = link.send.try_send(ToAgent::Noted(job));
        }
    }
}

/// Why an agent was not asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum AskError {
    /// Its connection ended before it answered, or it is silent.
    Gone,
    /// It said no.
    Refused(String),
}

/// Work that a machine which started anew in the middle of it is not given once more by itself: a rescue script may have done half
/// of what it does, and hardware that fell over under a load has not borne it.
const fn once(work: &Work) -> bool {
    matches!(work, Work::BurnIn(_) | Work::Rescue { .. })
}

fn started_anew() -> JobFailure {
    JobFailure {
        reason: "the machine started anew in the middle of it".into(),
        advice: "look at its event log and its console for what restarted it".into(),
        again: true,
    }
}

fn unmarked(error: &StoreError) -> JobFailure {
    JobFailure {
        reason: format!("that it begins could not be written down: {error}"),
        advice: "look at the appliance's disk".into(),
        again: true,
    }
}

fn no_agent() -> JobFailure {
    JobFailure {
        reason: "the machine's agent is not connected".into(),
        advice: "look at the machine's console: is it on, and does it boot from the network?".into(),
        again: true,
    }
}

fn refused(reason: String) -> JobFailure {
    JobFailure {
        reason: format!("the agent did not begin: {reason}"),
        advice: String::new(),
        again: true,
    }
}

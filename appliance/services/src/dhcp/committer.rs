//! Makes leases durable, then lets go what waited for them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex};

use rackbar_model::{EventKind, FirmwareHabit, Lease, LeaseState, MacAddr, Severity};

use super::ports::Port;
use crate::Common;
use crate::doors::{LeaseLog, LeaseLogError};
use crate::mmsg::{self, Outbound};
use crate::poll::Waker;
use crate::running::{Running, lock};

/// Jobs that may wait. With a disk that hangs for seconds further answers are dropped, and clients ask again.
const QUEUE: usize = 1024;

/// Leases, and what may happen only once they are durable, in order.
#[derive(Default)]
pub(crate) struct Job {
    pub(crate) leases: Vec<Lease>,
    pub(crate) sends: Vec<Addressed>,
    pub(crate) events: Vec<(Option<MacAddr>, EventKind)>,
}

/// A datagram or frame and the sockets of the interface it leaves by.
pub(crate) struct Addressed {
    pub(crate) port: Arc<Port>,
    pub(crate) way: Way,
    pub(crate) out: Outbound,
}

/// Which of a port's sockets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Way {
    Frame,
    Server,
    Pxe,
}

/// The engine thread's end.
pub(crate) struct Committer {
    jobs: SyncSender<Job>,
    log: Arc<dyn LeaseLog>,
    failure: Arc<Failure>,
}

/// The last failure of the log, until a commit works again.
#[derive(Default)]
pub(crate) struct Failure {
    pub(crate) error: Mutex<Option<LeaseLogError>>,
    pub(crate) changed: AtomicBool,
}

impl Committer {
    /// `waker` is that of the engine's thread, which shows a failure in its status.
    pub(crate) fn start(
        running: &mut Running,
        log: Arc<dyn LeaseLog>,
        common: Common,
        waker: Waker,
    ) -> std::io::Result<Self> {
        let (jobs, receiver) = sync_channel(QUEUE);
        let failure = Arc::new(Failure::default());
        let worker = Worker {
            log: Arc::clone(&log),
            common,
            failure: Arc::clone(&failure),
            waker,
        };
        // Ends when the engine thread drops its end, after committing what is queued.
        running.spawn("dhcp-leases", None, move || worker.run(&receiver))?;
        Ok(Self { jobs, log, failure })
    }

    /// Hands a job over; `false` when too many wait and this one is dropped.
    pub(crate) fn submit(&self, job: Job) -> bool {
        !matches!(self.jobs.try_send(job), Err(TrySendError::Full(_)))
    }

    /// Records what was learnt of a machine's firmware; nothing waits for it.
    pub(crate) fn learnt(&self, mac: MacAddr, habit: Option<FirmwareHabit>) {
        self.log.learnt(mac, habit.as_ref());
    }

    /// The state of the log when it changed since the last call.
    pub(crate) fn news(&self) -> bool {
        self.failure.changed.swap(false, Ordering::AcqRel)
    }

    pub(crate) fn failure(&self) -> Option<LeaseLogError> {
        lock(&self.failure.error)
            .as_ref()
            .map(|error| LeaseLogError(error.0.clone()))
    }
}

struct Worker {
    log: Arc<dyn LeaseLog>,
    common: Common,
    failure: Arc<Failure>,
    waker: Waker,
}

impl Worker {
    fn run(self, jobs: &Receiver<Job>) {
        while let Ok(mut group) = jobs.recv() {
            // All that gathered while the last group was synced shares one sync.
            while let Ok(job) = jobs.try_recv() {
                group.leases.extend(job.leases);
                group.sends.extend(job.sends);
                group.events.extend(job.events);
            }
            self.commit(group);
        }
    }

    fn commit(&self, group: Job) {
        let metrics = &self.common.metrics;
        let result = self.log.commit(&group.leases);
        metrics.dhcp_commits.inc();
        self.tell(result.as_ref().err());
        if result.is_err() {
            metrics.dhcp_commit_failures.inc();
            return;
        }
        metrics.dhcp_leases_committed.add(group.leases.len() as u64);
        for lease in &group.leases {
            match lease.state {
                LeaseState::Bound => self.common.clients.leased(lease.address, lease.mac),
                LeaseState::Released | LeaseState::Abandoned => self.common.clients.forget(lease.address),
            }
        }
        send(group.sends, &self.common);
        for (mac, kind) in group.events {
            self.common.events.event(mac, kind);
        }
    }

    /// Tells of the first failure and of the end of it, not of each.
    fn tell(&self, error: Option<&LeaseLogError>) {
        let mut last = lock(&self.failure.error);
        if last.is_some() == error.is_some() {
            return;
        }
        let (state, severity) = match error {
            Some(error) => (format!("not acknowledging anybody: {error}"), Severity::Error),
            None => ("leases are recorded again".to_owned(), Severity::Info),
        };
        *last = error.map(|error| LeaseLogError(error.0.clone()));
        self.failure.changed.store(true, Ordering::Release);
        self.waker.wake();
        self.common.events.event(
            None,
            EventKind::Service {
                name: "dhcp".to_owned(),
                state,
                severity,
            },
        );
    }
}

/// Sends everything, in order per socket, neighbours with the same socket in one call. Gives the buffers back.
pub(crate) fn send(sends: Vec<Addressed>, common: &Common) -> Vec<Vec<u8>> {
    let metrics = &common.metrics;
    let mut buffers = Vec::with_capacity(sends.len());
    let mut batch: Vec<Outbound> = Vec::new();
    let mut pending = sends.into_iter().peekable();
    while let Some(Addressed { port, way, out }) = pending.next() {
        batch.push(out);
        let more = pending
            .peek()
            .is_some_and(|next| next.way == way && Arc::ptr_eq(&next.port, &port));
        if more {
            continue;
        }
        let parts = port.parts();
        let [(_, server), (_, pxe), (_, frames), _] = parts;
        let socket = match way {
            Way::Frame => frames,
            Way::Server => server,
            Way::Pxe => pxe,
        };
        let (refused, reason) = mmsg::send(socket, &batch);
        metrics.dhcp_sent.add(batch.len() as u64 - refused);
        metrics.dhcp_send_errors.add(refused);
        if let Some(error) = reason {
            tracing::debug!(interface = %port.link.name, refused, %error, "DHCP: packets not sent");
        }
        buffers.extend(batch.drain(..).map(|out| out.bytes));
    }
    buffers
}

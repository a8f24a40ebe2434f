//! What every service has in common: its threads, how they are told to stop, and its state in words.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{SystemTime, UNIX_EPOCH};

use rackbar_model::{ServiceStatus, Severity, Timestamp};

use crate::poll::Waker;

/// The wall clock.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Locks, also after another holder panicked: the shared values here are whole after every statement.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A service's state in words, set by its threads and read by anybody.
#[derive(Clone)]
pub(crate) struct StatusCell(Arc<Mutex<ServiceStatus>>);

impl StatusCell {
    pub(crate) fn new(name: &str) -> Self {
        Self(Arc::new(Mutex::new(ServiceStatus {
            name: name.to_owned(),
            state: "starting".to_owned(),
            severity: Severity::Info,
            since: now(),
        })))
    }

    pub(crate) fn set(&self, severity: Severity, state: impl Into<String>) {
        let state = state.into();
        let mut status = lock(&self.0);
        if status.state != state || status.severity != severity {
            status.state = state;
            status.severity = severity;
            status.since = now();
        }
    }

    pub(crate) fn get(&self) -> ServiceStatus {
        lock(&self.0).clone()
    }
}

/// Threads that run until told to stop.
pub(crate) struct Running {
    pub(crate) status: StatusCell,
    stop: Arc<AtomicBool>,
    wakers: Vec<Waker>,
    threads: Vec<JoinHandle<()>>,
}

/// What a thread looks at to know that it should end.
#[derive(Clone)]
pub(crate) struct StopFlag(Arc<AtomicBool>);

impl StopFlag {
    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

impl Running {
    pub(crate) fn new(status: StatusCell) -> Self {
        Self {
            status,
            stop: Arc::new(AtomicBool::new(false)),
            wakers: Vec::new(),
            threads: Vec::new(),
        }
    }

    pub(crate) fn stop_flag(&self) -> StopFlag {
        StopFlag(Arc::clone(&self.stop))
    }

    /// Starts `body` on a thread called `name`, which `waker` wakes.
    pub(crate) fn spawn(
        &mut self,
        name: &str,
        waker: Option<Waker>,
        body: impl FnOnce() + Send + 'static,
    ) -> std::io::Result<()> {
        self.threads
            .push(std::thread::Builder::new().name(name.to_owned()).spawn(body)?);
        self.wakers.extend(waker);
        Ok(())
    }

    /// Wakes every thread, so that it looks for new orders.
    pub(crate) fn wake(&self) {
        self.wakers.iter().for_each(Waker::wake);
    }

    /// Tells the threads to end and waits until they have.
    pub(crate) fn stop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.wake();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!(service = %self.status.get().name, "a thread of the service panicked");
            }
        }
        self.status.set(Severity::Info, "stopped");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.threads.is_empty() {
            self.stop();
        }
    }
}

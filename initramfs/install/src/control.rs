//! A job seen from both sides: the worker says how far it is and asks whether to go on; the one who watches reads that
//! and may give the job up.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use rackbar_messages::JobFailure;

/// The result of a step of a job.
pub type Result<T> = std::result::Result<T, JobFailure>;

/// How far a job is.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Progress {
    /// What it does now, in words.
    pub doing: String,
    /// Units done.
    pub done: u64,
    /// Units in all; 0 when not known.
    pub total: u64,
}

/// Shared by the thread that works and those that watch it.
#[derive(Debug, Default)]
pub struct Control {
    given_up: AtomicBool,
    done: AtomicU64,
    step: Mutex<(String, u64)>,
}

impl Control {
    /// Asks the job to end at its next safe point.
    pub fn give_up(&self) {
        self.given_up.store(true, Ordering::Relaxed);
    }

    /// True when the job was given up.
    pub fn is_given_up(&self) -> bool {
        self.given_up.load(Ordering::Relaxed)
    }

    /// How far the job is.
    pub fn progress(&self) -> Progress {
        let step = self.step.lock().unwrap_or_else(PoisonError::into_inner);
        Progress {
            doing: step.0.clone(),
            done: self.done.load(Ordering::Relaxed),
            total: step.1,
        }
    }

    /// Says what is done from now on, and how many units it has (0: not known).
    pub fn begin(&self, doing: impl Into<String>, total: u64) {
        let mut step = self.step.lock().unwrap_or_else(PoisonError::into_inner);
        *step = (doing.into(), total);
        self.done.store(0, Ordering::Relaxed);
    }

    /// Says how many units are done.
    pub fn at(&self, done: u64) {
        self.done.store(done, Ordering::Relaxed);
    }

    /// Says that `more` units are done.
    pub fn add(&self, more: u64) {
        self.done.fetch_add(more, Ordering::Relaxed);
    }

    /// A safe point: fails when the job was given up.
    ///
    /// # Errors
    /// A failure that says so.
    pub fn check(&self) -> Result<()> {
        if self.is_given_up() {
            return Err(JobFailure {
                reason: "the job was given up because the appliance asked for it".to_owned(),
                advice: String::new(),
                again: true,
            });
        }
        Ok(())
    }
}

/// A request that cannot be met, whoever tries again.
pub(crate) fn refuse(reason: impl Into<String>, advice: impl Into<String>) -> JobFailure {
    JobFailure {
        reason: reason.into(),
        advice: advice.into(),
        again: false,
    }
}

/// Something that failed and may work the next time.
pub(crate) fn fault(reason: impl Into<String>, advice: impl Into<String>) -> JobFailure {
    JobFailure {
        again: true,
        ..refuse(reason, advice)
    }
}

/// Puts words before an error of the system, for `map_err`.
pub(crate) fn io<E: std::fmt::Display>(what: impl std::fmt::Display) -> impl FnOnce(E) -> JobFailure {
    move |error| fault(format!("{what}: {error}"), "")
}

//! One line per step, to `/run/log/init` and, while no screen is drawn there, to the console.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use nix::time::{ClockId, clock_gettime};

use crate::capture::BoundedLog;

/// Set once `/run` is there.
static LOG: Mutex<Option<BoundedLog>> = Mutex::new(None);

/// Set while a screen service draws on the console our lines go to.
static COVERED: AtomicBool = AtomicBool::new(false);

/// Keeps lines off the console: a screen is drawn there now.
pub(crate) fn hide() {
    COVERED.store(true, Ordering::Relaxed);
}

/// Shows lines on the console again.
pub(crate) fn show() {
    COVERED.store(false, Ordering::Relaxed);
}

/// Seconds since the kernel started, with the milliseconds.
pub(crate) fn uptime() -> f64 {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(0.0, |t| t.tv_sec() as f64 + t.tv_nsec() as f64 / 1e9)
}

/// Keeps all further lines in a log too.
pub(crate) fn keep(log: BoundedLog) {
    *LOG.lock().unwrap_or_else(PoisonError::into_inner) = Some(log);
}

/// Writes one line. A console that is gone or blocks nobody reads costs the line and nothing else.
pub(crate) fn line(text: &str) {
    let line = format!("rackbar-init: [{:9.3}] {text}\n", uptime());
    if !COVERED.load(Ordering::Relaxed) {
        let _ = std::io::stdout().lock().write_all(line.as_bytes());
    }
    // The panic hook speaks through here as well and may hold the lock already.
    if let Ok(mut log) = LOG.try_lock()
        && let Some(log) = log.as_mut()
    {
        log.write(line.as_bytes());
    }
}

/// Says one line of what init does, formatted like `println!`.
macro_rules! say {
    ($($words:tt)*) => { $crate::report::line(&format!($($words)*)) };
}
pub(crate) use say;

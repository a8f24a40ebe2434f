//! The hardware watchdog: resets the machine when PID 1 no longer comes round.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::time::{Duration, Instant};

use crate::report::say;
use crate::sys;

const DEVICE: &str = "/dev/watchdog";

/// Time-out we ask for. Longer than the slowest orderly stop: the watchdog keeps running through it, so a stop that
/// hangs ends in a reset.
const TIMEOUT: u32 = 60;

/// A quarter of the shortest time-out drivers round to (i6300esb and iTCO take seconds exactly; IPMI tenths).
const INTERVAL: Duration = Duration::from_secs(10);

/// The watchdog, opened when its driver is there.
pub(crate) struct Watchdog {
    file: Option<File>,
    wanted: bool,
    next: Instant,
}

impl Watchdog {
    /// `wanted` is false under `rackbar.watchdog=off`, for hardware whose watchdog misbehaves.
    pub(crate) fn new(wanted: bool) -> Self {
        Self {
            file: None,
            wanted,
            next: Instant::now(),
        }
    }

    /// Pets it when due; opens it first when it has appeared.
    pub(crate) fn turn(&mut self, now: Instant) {
        if !self.wanted || now < self.next {
            return;
        }
        self.next = now + INTERVAL;
        if self.file.is_none() {
            self.open();
        }
        if let Some(file) = &mut self.file
            && let Err(error) = file.write_all(b".")
        {
            say!("the watchdog no longer answers: {error}");
            self.file = None;
            self.wanted = false;
        }
    }

    fn open(&mut self) {
        let Ok(file) = OpenOptions::new().write(true).open(DEVICE) else {
            return;
        };
        match sys::watchdog_timeout(&file, TIMEOUT) {
            Ok(seconds) => say!("watchdog armed: the machine is reset when init is silent for {seconds} s"),
            Err(error) => say!("watchdog armed with its own time-out, which cannot be set: {error}"),
        }
        self.file = Some(file);
    }

    /// Disarms it before power-off ("magic close"); a driver built with `nowayout` goes on regardless.
    pub(crate) fn disarm(&mut self) {
        if let Some(mut file) = self.file.take() {
            let _ = file.write_all(b"V");
        }
        self.wanted = false;
    }
}

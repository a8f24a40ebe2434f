//! The hardware watchdog: resets the machine when PID 1 no longer comes round.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::time::{Duration, Instant};

use rackbar_hardware::Root;

use crate::report::say;
use crate::sys;

const DEVICE: &str = "/dev/watchdog";

/// Time-out we ask for where nobody says another, in seconds.
const TIMEOUT: u32 = 60;

/// The shortest time-out taken from the kernel's arguments: an emulated or an overloaded machine may be away for seconds.
const SHORTEST: u32 = 10;

/// Longer than the slowest orderly stop: the watchdog keeps running through it, so a stop that hangs ends in a reset.
const TIMEOUT_OF_STOP: u32 = 60;

/// What is wanted of a watchdog: the kernel argument `rackbar.watchdog`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wanted {
    /// It is left alone (`off`), for hardware whose watchdog misbehaves.
    Off,
    /// A reset after so many seconds of silence.
    Seconds(u32),
}

impl Wanted {
    /// Reads the argument's value. What makes no sense is as if it was not there: a watchdog is better than none.
    pub(crate) fn of(value: Option<&str>) -> Self {
        match value {
            Some("off") => Self::Off,
            Some(text) => Self::Seconds(text.parse().map_or(TIMEOUT, |seconds: u32| seconds.max(SHORTEST))),
            None => Self::Seconds(TIMEOUT),
        }
    }
}

/// The watchdog, opened when its driver is there.
pub(crate) struct Watchdog {
    file: Option<File>,
    wanted: Wanted,
    next: Instant,
}

impl Watchdog {
    /// None yet; [`Watchdog::turn`] looks for it.
    pub(crate) fn new(wanted: Wanted) -> Self {
        Self {
            file: None,
            wanted,
            next: Instant::now(),
        }
    }

    /// Pets it when due; opens it first when it has appeared.
    pub(crate) fn turn(&mut self, now: Instant) {
        let Wanted::Seconds(seconds) = self.wanted else {
            return;
        };
        if now < self.next {
            return;
        }
        // A quarter, for drivers that round (i6300esb and iTCO take seconds exactly; IPMI tenths).
        self.next = now + Duration::from_millis(u64::from(seconds) * 250).min(Duration::from_secs(10));
        if self.file.is_none() {
            self.open(seconds);
        }
        self.pet();
    }

    fn pet(&mut self) {
        if let Some(file) = &mut self.file
            && let Err(error) = file.write_all(b".")
        {
            say!("the watchdog no longer answers: {error}");
            self.file = None;
            self.wanted = Wanted::Off;
        }
    }

    fn open(&mut self, seconds: u32) {
        let Ok(file) = OpenOptions::new().write(true).open(DEVICE) else {
            return;
        };
        let name = Root::default().text("sys/class/watchdog/watchdog0/identity");
        let name = name.unwrap_or_else(|| "of an unknown kind".into());
        match sys::watchdog_timeout(&file, seconds) {
            Ok(seconds) => {
                say!("watchdog armed ({name}): the machine is reset when init is silent for {seconds} s")
            }
            Err(error) => say!("watchdog armed ({name}) with its own time-out, which cannot be set: {error}"),
        }
        self.file = Some(file);
    }

    /// The last sign of life before the machine goes down, with time for an orderly stop.
    pub(crate) fn last_turn(&mut self) {
        if let (Some(file), Wanted::Seconds(seconds)) = (&self.file, self.wanted)
            && seconds < TIMEOUT_OF_STOP
        {
            // One that keeps its own time-out has been fed as often as that needs; nothing more can be done.
            let _ = sys::watchdog_timeout(file, TIMEOUT_OF_STOP);
        }
        self.pet();
    }

    /// Disarms it before power-off ("magic close"); a driver built with `nowayout` goes on regardless.
    pub(crate) fn disarm(&mut self) {
        if let Some(mut file) = self.file.take() {
            let _ = file.write_all(b"V");
        }
        self.wanted = Wanted::Off;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_argument_that_makes_no_sense_leaves_a_watchdog() {
        for (value, wanted) in [
            (None, Wanted::Seconds(60)),
            (Some("off"), Wanted::Off),
            (Some("300"), Wanted::Seconds(300)),
            (Some("1"), Wanted::Seconds(10)),
            (Some("soon"), Wanted::Seconds(60)),
            (Some(""), Wanted::Seconds(60)),
        ] {
            assert_eq!(Wanted::of(value), wanted, "{value:?}");
        }
    }
}

//! The clock of this machine, and one for tests.

use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use nix::libc;
use rackbar_ntp::{Adjust, Leap};

use super::Clock;

fn system_time() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// The kernel's clock, by `clock_adjtime(2)`. Small corrections go through its phase-locked loop, which also learns how
/// fast this machine's oscillator runs. While it is told that the clock is synchronised (no `STA_UNSYNC`), it writes the
/// RTC, at once and then every eleven minutes; programs ask it whether it is, too.
#[derive(Debug, Default)]
pub struct SystemClock(());

impl Clock for SystemClock {
    fn unix(&self) -> u64 {
        system_time()
    }

    fn adjust(&mut self, how: Adjust, leap: Leap, bound: u64) -> io::Result<()> {
        let mut order = nothing();
        let micros = libc::c_long::try_from(bound / 1000).unwrap_or(libc::c_long::MAX);
        (order.maxerror, order.esterror) = (micros, micros);
        order.status = match leap {
            Leap::Insert => libc::STA_INS,
            Leap::Delete => libc::STA_DEL,
            Leap::None | Leap::Unsynchronised => 0,
        } | libc::STA_PLL
            | libc::STA_NANO;
        order.modes = libc::ADJ_STATUS | libc::ADJ_MAXERROR | libc::ADJ_ESTERROR | libc::ADJ_NANO;
        match how {
            Adjust::Step(by) => {
                order.modes |= libc::ADJ_SETOFFSET;
                order.time.tv_sec = by.div_euclid(1_000_000_000) as _;
                // With ADJ_NANO these are nanoseconds, and not negative.
                order.time.tv_usec = by.rem_euclid(1_000_000_000) as _;
            }
            Adjust::Slew(by) => {
                order.modes |= libc::ADJ_OFFSET | libc::ADJ_TIMECONST;
                order.offset = by as libc::c_long;
                // Follows an offset within minutes at our shortest interval of 64 s.
                order.constant = 2;
            }
        }
        carry_out(&mut order)
    }

    fn lost(&mut self) -> io::Result<()> {
        let mut order = nothing();
        order.modes = libc::ADJ_STATUS;
        order.status = libc::STA_UNSYNC | libc::STA_PLL;
        carry_out(&mut order)
    }
}

/// An order that changes nothing.
fn nothing() -> libc::timex {
    // SAFETY: all-zero bytes are a valid timex, which is plain numbers.
    unsafe { std::mem::zeroed() }
}

fn carry_out(order: &mut libc::timex) -> io::Result<()> {
    // SAFETY: the pointer is to a live timex.
    let state = unsafe { libc::clock_adjtime(libc::CLOCK_REALTIME, &raw mut *order) };
    if state < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// A clock beside the machine's, that is wrong by a given amount and can be corrected without anybody noticing.
#[derive(Debug, Default)]
pub struct FreeClock(std::sync::Arc<std::sync::atomic::AtomicI64>);

impl FreeClock {
    /// Wrong by `nanos`; the second value shows by how much it is wrong now.
    pub fn new(nanos: i64) -> (Self, std::sync::Arc<std::sync::atomic::AtomicI64>) {
        let error = std::sync::Arc::new(std::sync::atomic::AtomicI64::new(nanos));
        (Self(error.clone()), error)
    }
}

impl Clock for FreeClock {
    fn unix(&self) -> u64 {
        system_time().saturating_add_signed(self.0.load(std::sync::atomic::Ordering::SeqCst))
    }

    fn adjust(&mut self, how: Adjust, _: Leap, _: u64) -> io::Result<()> {
        let (Adjust::Step(by) | Adjust::Slew(by)) = how;
        self.0.fetch_add(by, std::sync::atomic::Ordering::SeqCst);
        Ok(())
    }

    fn lost(&mut self) -> io::Result<()> {
        Ok(())
    }
}

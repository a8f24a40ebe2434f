//! The agent of a node.
//!
//! ```text
//!  facts thread ── inventory ──┐
//!  watch thread ── LLDP, links ┤
//!                              ▼
//!  main: interface ─▶ DHCP ─▶ time ─▶ TLS, pinned ─▶ Hello ─▶ Welcome ─▶ serve ─┐
//!          ▲            (lease kept by a thread)                                 │
//!          └────────────── back-off, next interface ◀── connection ended ────────┘
//! ```
//! Jobs (erase, write, set up, ...) run in a thread of their own, whatever becomes of the connection.
//!
//! On a machine whose system is to be adopted it is brought over SSH to look once ([`report_once`]), and does nothing else.
//!
//! It trusts one appliance, the one whose certificate authority the kernel arguments pin, and keeps nothing on disk.
//! It never ends: whatever fails is said on the console in words and tried again.

mod arguments;
mod backoff;
mod clock;
pub mod facts;
mod jobs;
mod once;
mod pin;
mod report;
mod session;
mod still;
mod uplink;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use rackbar_hardware::Root;
use rackbar_hardware::cmdline::Arguments;

pub use arguments::{ArgumentError, Enrolment};
pub use backoff::Backoff;
pub use jobs::Jobs;
pub use once::report_once;
pub use pin::{Pinned, client_config};
pub use session::{Credentials, End, Session};

use facts::Facts;
use report::say;
use uplink::Choice;

/// Failed connections on one interface before the next one is tried.
const TRIES_PER_INTERFACE: u32 = 4;

/// Runs the agent; never returns.
pub fn run() -> ! {
    let text = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let enrolment = match Enrolment::read(&Arguments::parse(&text)) {
        Ok(enrolment) => enrolment,
        Err(error) => loop {
            // The arguments cannot change while this kernel runs; the line is repeated for whoever comes to look.
            say!("this machine cannot enrol: {error}. Boot it again from its appliance");
            std::thread::sleep(Duration::from_secs(300));
        },
    };
    say!("looking for the appliance at {}", enrolment.server);
    let facts = Arc::new(Facts::default());
    facts::start(Root::default(), enrolment.boot_mac, &facts);
    let (config, pinned) = pin::client_config(enrolment.pin);
    let mut credentials = Credentials::new(&enrolment);
    let jobs = start_jobs(&facts);
    let mut choice = Choice::new(enrolment.boot_mac);
    let mut backoff = Backoff::default();
    loop {
        let Some(uplink) = choice.next_uplink() else {
            std::thread::sleep(Duration::from_millis(500));
            continue;
        };
        // The first look was before any link was up; this one is done when the appliance has welcomed us.
        facts.look_again();
        clock::ask(&clock::Machine, enrolment.server.ip());
        let mut tries = 0;
        while uplink.has_lease() && (tries < TRIES_PER_INTERFACE || choice.is_only()) {
            let opened = Session::open(enrolment.server, Arc::clone(&config), &mut credentials, &facts, &pinned);
            let end = opened.map_or_else(|end| end, |session| session.serve(&facts, &jobs));
            tries = if end.was_welcome() { 0 } else { tries + 1 };
            let delay = backoff.after(&end, jobs.busy());
            say!("{end}; trying again in {:.1} s", delay.as_secs_f64());
            std::thread::sleep(delay);
        }
        say!("{} does not lead to the appliance", uplink.name());
    }
}

/// Jobs on this machine. After each one the machine is looked at again: disks and BMC are not what they were.
fn start_jobs(facts: &Arc<Facts>) -> Jobs {
    let facts = Arc::clone(facts);
    let machine = rackbar_install::Machine::default();
    Jobs::new(move |work, control| {
        let outcome = rackbar_install::perform(&machine, work, control);
        facts.look_again();
        outcome
    })
}

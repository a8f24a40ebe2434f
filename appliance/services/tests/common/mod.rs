//! What the tests of the services share: a sink that remembers, a desk, waiting for a condition, network namespaces.
#![allow(dead_code, reason = "each test program uses a part")]
#![allow(clippy::unwrap_used, reason = "clippy sees no test in a helper module")]

pub(crate) mod netns;
pub(crate) mod storm;

use std::net::IpAddr;
use std::process::{Command, Output};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use rackbar_messages::BootReport;
use rackbar_model::{EventKind, FirmwareHabit, Lease, MacAddr};
use rackbar_services::{BootDesk, BootReply, Common, EventSink, LeaseLog, LeaseLogError};

pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// Remembers events and wakes who waits for one.
#[derive(Default)]
pub(crate) struct Sink {
    /// Set where there are more events than a test may remember.
    pub(crate) forgets: std::sync::atomic::AtomicBool,
    seen: Mutex<Vec<(Option<MacAddr>, EventKind)>>,
    changed: Condvar,
}

impl EventSink for Sink {
    fn event(&self, mac: Option<MacAddr>, kind: EventKind) {
        if self.forgets.load(std::sync::atomic::Ordering::Relaxed) {
            return;
        }
        self.seen.lock().unwrap().push((mac, kind));
        self.changed.notify_all();
    }
}

impl Sink {
    pub(crate) fn new() -> (Arc<Self>, Common) {
        let sink = Arc::new(Self::default());
        (Arc::clone(&sink), Common::new(sink))
    }

    /// Waits until an event satisfies `wanted`.
    pub(crate) fn wait_for<T>(
        &self,
        what: &str,
        mut wanted: impl FnMut(Option<MacAddr>, &EventKind) -> Option<T>,
    ) -> T {
        let end = Instant::now() + DEADLINE;
        let mut seen = self.seen.lock().unwrap();
        loop {
            if let Some(found) = seen.iter().find_map(|(mac, kind)| wanted(*mac, kind)) {
                return found;
            }
            let left = end.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "no event: {what}; seen {seen:#?}");
            seen = self.changed.wait_timeout(seen, left).unwrap().0;
        }
    }

    pub(crate) fn count(&self, wanted: impl Fn(&EventKind) -> bool) -> usize {
        self.seen
            .lock()
            .unwrap()
            .iter()
            .filter(|(_, kind)| wanted(kind))
            .count()
    }
}

/// Renders a script that names the machine.
#[derive(Default)]
pub(crate) struct Desk {
    pub(crate) reports: Mutex<Vec<BootReport>>,
}

impl BootDesk for Desk {
    fn script(&self, mac: MacAddr, client: IpAddr) -> BootReply {
        BootReply::Bytes {
            content_type: "text/plain",
            body: format!("#!ipxe\necho {mac} {client}\n").into(),
        }
    }
    fn manifest(&self, _: MacAddr, nonce: [u8; 16], _: IpAddr) -> BootReply {
        BootReply::Bytes {
            content_type: "application/octet-stream",
            body: nonce.to_vec().into(),
        }
    }
    fn report(&self, report: BootReport, _: IpAddr) {
        self.reports.lock().unwrap().push(report);
    }
}

/// Leases in memory, in the order they were committed; fails on request.
#[derive(Default)]
pub(crate) struct Leases {
    pub(crate) committed: Mutex<Vec<Lease>>,
    pub(crate) habits: Mutex<std::collections::BTreeMap<MacAddr, FirmwareHabit>>,
    pub(crate) broken: std::sync::atomic::AtomicBool,
}

impl LeaseLog for Leases {
    fn load(&self) -> Result<Vec<Lease>, LeaseLogError> {
        Ok(self.committed.lock().unwrap().clone())
    }
    fn commit(&self, batch: &[Lease]) -> Result<(), LeaseLogError> {
        if self.broken.load(std::sync::atomic::Ordering::SeqCst) {
            return Err(LeaseLogError("the test says the disk is full".into()));
        }
        self.committed.lock().unwrap().extend_from_slice(batch);
        Ok(())
    }
    fn habits(&self) -> Result<Vec<FirmwareHabit>, LeaseLogError> {
        Ok(self.habits.lock().unwrap().values().cloned().collect())
    }
    fn learnt(&self, mac: MacAddr, habit: Option<&FirmwareHabit>) {
        let mut habits = self.habits.lock().unwrap();
        match habit {
            Some(habit) => _ = habits.insert(mac, habit.clone()),
            None => _ = habits.remove(&mac),
        }
    }
}

/// Waits until `condition` holds.
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < end, "not within {DEADLINE:?}: {what}");
        std::thread::yield_now();
    }
}

/// Runs a program to its end and returns its output; the test fails when the program does.
pub(crate) fn run(program: &str, args: &[&str]) -> Output {
    let output = Command::new(program).args(args).output().unwrap_or_else(|error| {
        panic!("cannot run {program}: {error}; install it with `cargo xtask setup`");
    });
    assert!(output.status.success(), "{program} {args:?}: {output:#?}");
    output
}

/// The tests with real clients make network namespaces.
pub(crate) fn need_root() {
    let euid = nix::unistd::geteuid();
    assert!(
        euid.is_root(),
        "this test makes network namespaces and needs root: run `sudo -E env PATH=\"$PATH\" cargo test -p rackbar-services`"
    );
}

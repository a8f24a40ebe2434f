//! Finding BMCs, learning which machine each belongs to, and watching their power.
//!
//! A BMC shows itself by a lease on a network of role `bmc` or by its host's agent. It is looked at, tied to a node, and
//! asked for power from time to time: often while it answers, ever more rarely while it does not. At most [`AT_ONCE`]
//! conversations run at a time: management networks are slow, and so are BMCs.
//!
//! A BMC that takes none of our credentials is left alone much longer ([`LOGIN_RETRY`]): many lock an account after three
//! or five wrong passwords within some minutes. New credentials end that wait; a renewed lease does not. Two wrong passwords
//! of an account are the most that is tried in ten minutes, also by runs and people ([`crate::Devices`]).

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rackbar_devices::{
    AccountChange, BmcAccount, BootOverride, BootTarget, Interface, LogLine, MediaDrive, Sensor, SolStream,
};
use rackbar_model::{
    EventKind, FirmwareMode, MacAddr, Node, NodeId, NodeState, PowerAction, PowerState, SecretText, Severity,
    Timestamp, WitnessKind,
};
use rackbar_store::Whose;
use rackbar_verify::BootFirst;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::bmc_clock;
use crate::bmc_login::{end_change, replace_password};
use crate::{BmcSight, Rack};

/// Conversations with BMCs at a time.
const AT_ONCE: usize = 32;

/// Between two looks at the power of a BMC that answers.
const POLL: Duration = Duration::from_secs(30);

/// The longest between two tries of one that does not.
const SLOWEST: Duration = Duration::from_secs(15 * 60);

/// Between the first tries of a BMC that has just got its address: most start their network before their web server.
const FIRST_RETRY: Duration = Duration::from_secs(5);

/// The same after a refused login, doubled each time up to [`LOGIN_SLOWEST`]. The usual lock-out counts failures within
/// one to five minutes.
const LOGIN_RETRY: Duration = Duration::from_secs(10 * 60);

/// The longest between two tries with a password that was wrong.
const LOGIN_SLOWEST: Duration = Duration::from_secs(60 * 60);

/// Between two looks whether the credentials changed.
const CREDENTIALS_LOOK: Duration = Duration::from_secs(2);

/// Why a BMC did not do what it was asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BmcError {
    /// Nothing that speaks a protocol of ours answers there.
    Silent(String),
    /// It took none of our credentials, or is not the one it was: trying again soon would only lock the account.
    Login(String),
    /// It understood and said no.
    Refused(String),
    /// It was not asked, because of what it says of itself: it would refuse, or nobody could undo it.
    NotSent(String),
    /// It answered and failed.
    Failed(String),
}

impl BmcError {
    /// It is a no for good, from it or on its behalf.
    pub(crate) const fn is_no(&self) -> bool {
        matches!(self, Self::Refused(_) | Self::NotSent(_))
    }

    /// What a person can do about it.
    pub const fn advice(&self) -> &'static str {
        match self {
            Self::Silent(_) => "look at the BMC's network and power",
            Self::Login(_) => "give its login in rackbar.toml; a wrong one is not tried again soon",
            Self::Refused(_) => "the BMC says no for good: change what is asked, or look at its own event log",
            Self::NotSent(_) => "nothing was changed: ask for something else",
            Self::Failed(_) => "look at the BMC's own event log",
        }
    }
}

impl std::fmt::Display for BmcError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Silent(reason)
            | Self::Login(reason)
            | Self::Refused(reason)
            | Self::NotSent(reason)
            | Self::Failed(reason) => f.write_str(reason),
        }
    }
}

/// A future of a [`BmcDoor`].
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, BmcError>> + Send + 'a>>;

/// The way to BMCs: `rackbar-devices` in the appliance, a table in tests.
pub trait BmcDoor: Send + Sync + 'static {
    /// Says which MAC address the BMC at `address` has, before it is looked at: its certificate is known by that.
    fn introduce(&self, _address: IpAddr, _mac: MacAddr) {}

    /// Grows with every change of the credentials.
    fn credentials_version(&self) -> u64 {
        0
    }

    /// It took our login when it was asked last, and wants another password of it before anything else.
    fn wants_another_password(&self, _address: IpAddr) -> bool {
        false
    }

    /// Asks who is at `address`.
    fn look(&self, address: IpAddr) -> Answer<'_, BmcSight>;

    /// Asks for the power state.
    fn power(&self, address: IpAddr) -> Answer<'_, PowerState>;

    /// Changes power.
    fn act(&self, address: IpAddr, action: PowerAction) -> Answer<'_, ()>;

    /// Has the machine boot from the network once, now. `mode` is that of its firmware, where it is known.
    fn netboot(&self, address: IpAddr, _mode: Option<FirmwareMode>) -> Answer<'_, ()> {
        self.act(address, PowerAction::Netboot)
    }

    /// Opens the serial console. One that another session has is taken over.
    fn console(&self, _address: IpAddr) -> Answer<'_, SolStream> {
        cannot("serial consoles")
    }

    /// The BMC's own clock; `None` when nobody set it since the BMC started.
    fn clock(&self, _address: IpAddr) -> Answer<'_, Option<Timestamp>> {
        cannot("clocks")
    }

    /// Sets the BMC's own clock.
    fn set_clock(&self, _address: IpAddr, _now: Timestamp) -> Answer<'_, ()> {
        cannot("clocks")
    }

    /// What the sensors read.
    fn sensors(&self, _address: IpAddr) -> Answer<'_, Told<Vec<Sensor>>> {
        cannot("sensors")
    }

    /// The newest `limit` lines of the hardware's event log, newest first.
    fn event_log(&self, _address: IpAddr, _limit: usize) -> Answer<'_, Told<Vec<LogLine>>> {
        cannot("event log")
    }

    /// The virtual drives, and what is in them.
    fn media(&self, _address: IpAddr) -> Answer<'_, Vec<MediaDrive>> {
        cannot("virtual media")
    }

    /// Puts the image at a URL into the virtual CD drive in the place of another, or takes out what is in.
    fn set_media<'a>(&'a self, _address: IpAddr, _image: Option<&'a str>) -> Answer<'a, ()> {
        cannot("virtual media")
    }

    /// The boot override in force.
    fn boot_override(&self, _address: IpAddr) -> Answer<'_, BootOverride> {
        cannot("boot override")
    }

    /// Has the next boot come from elsewhere, once.
    fn boot_once<'a>(&'a self, _address: IpAddr, _from: &'a BootFrom) -> Answer<'a, ()> {
        cannot("boot override")
    }

    /// Reads the firmware attributes in force.
    fn bios(&self, _address: IpAddr) -> Answer<'_, BTreeMap<String, String>> {
        cannot("firmware attributes")
    }

    /// Sets firmware attributes, to take effect at the next restart. Gives those that were sent: the ones that differed.
    fn stage_bios<'a>(
        &'a self,
        _address: IpAddr,
        _wanted: &'a BTreeMap<String, String>,
    ) -> Answer<'a, BTreeMap<String, String>> {
        cannot("firmware attributes")
    }

    /// What the machine boots first, enabled entries alone; `None` where the BMC shows no boot order, or not what kind its
    /// first entry is.
    fn boots_first(&self, _address: IpAddr) -> Answer<'_, Option<BootFirst>> {
        cannot("a boot order")
    }

    /// Boots from the disk first from now on, and reads that back.
    fn boot_disk_first(&self, _address: IpAddr, _uefi: bool) -> Answer<'_, ()> {
        cannot("a lasting boot order")
    }

    /// The user and password that it takes from us now.
    fn login(&self, _address: IpAddr) -> Answer<'_, (String, SecretText)> {
        cannot("accounts")
    }

    /// Logs in with this user and password alone, whatever else is known, and asks who is there. When that works they are
    /// used from now on.
    fn open_with<'a>(&'a self, _address: IpAddr, _user: &'a str, _password: &'a SecretText) -> Answer<'a, BmcSight> {
        cannot("accounts")
    }

    /// Logs in once with this user and password; when that works they are used from now on.
    fn verify_login<'a>(&'a self, _address: IpAddr, _user: &'a str, _password: &'a SecretText) -> Answer<'a, ()> {
        cannot("accounts")
    }

    /// The accounts of the BMC.
    fn accounts(&self, _address: IpAddr) -> Answer<'_, Told<Vec<BmcAccount>>> {
        cannot("accounts")
    }

    /// Makes, enables, disables or removes an account, and reads that back; one that was made has proven its password.
    fn change_account<'a>(&'a self, _address: IpAddr, _change: &'a AccountChange) -> Answer<'a, ()> {
        cannot("accounts")
    }

    /// Sets a user's password. Only a login shows whether it took.
    fn change_password<'a>(&'a self, _address: IpAddr, _user: &'a str, _new: &'a SecretText) -> Answer<'a, ()> {
        cannot("accounts")
    }
}

/// Where one boot is to come from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BootFrom {
    /// From where; [`BootTarget::Default`] takes an override back.
    pub target: BootTarget,
    /// What UEFI HTTP boot is to fetch; without one the network tells the firmware.
    pub url: Option<String>,
    /// The firmware mode of the machine, where it is known.
    pub mode: Option<FirmwareMode>,
}

/// What a BMC told, and how.
#[derive(Clone, PartialEq, Debug)]
pub struct Told<T> {
    /// The way it was asked by.
    pub way: Interface,
    /// Why by that one.
    pub why: String,
    /// What it told.
    pub what: T,
}

/// The answer of a door that lacks something.
fn cannot<T: Send + 'static>(what: &'static str) -> Answer<'static, T> {
    Box::pin(async move { Err(BmcError::Refused(format!("this way to BMCs knows no {what}"))) })
}

pub(crate) type Door = OnceLock<Arc<dyn BmcDoor>>;

/// How a visit ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Outcome {
    Good,
    Failed,
    LoginRefused,
}

/// A BMC as the watcher sees it.
struct Watched {
    mac: Option<MacAddr>,
    due: Instant,
    failures: u32,
    /// The last visit ended with a refused login.
    refused: bool,
    busy: bool,
    /// Said once per silence, not with every try.
    complained: bool,
    /// When its clock is looked at next; `None` until it has said who it is.
    clock_due: Option<Instant>,
}

impl Watched {
    fn new(mac: Option<MacAddr>) -> Self {
        Self {
            mac,
            due: Instant::now(),
            failures: 0,
            refused: false,
            busy: false,
            complained: false,
            clock_due: None,
        }
    }

    fn done(&mut self, outcome: Outcome, poll: Duration) {
        // Whoever answers after a silence may have another clock.
        self.clock_due = (outcome == Outcome::Good).then(|| self.clock_due.unwrap_or_else(Instant::now));
        self.busy = false;
        let refused = outcome == Outcome::LoginRefused;
        // Another kind of trouble begins its own count, and is said.
        let same = self.refused == refused;
        self.complained = outcome != Outcome::Good && (refused || self.complained && same);
        self.failures = match outcome {
            Outcome::Good => 0,
            Outcome::Failed | Outcome::LoginRefused => if same { self.failures } else { 0 }.saturating_add(1),
        };
        self.refused = refused;
        self.due = Instant::now() + pause(outcome, self.failures, poll);
    }

    fn visit(&mut self, rack: &Rack, door: &Arc<dyn BmcDoor>, address: IpAddr) -> Visit {
        self.busy = true;
        let visit = Visit {
            rack: rack.clone(),
            door: door.clone(),
            address,
            mac: self.mac,
            third: self.failures == 2,
            complained: self.complained,
            clock: self.clock_due.is_some_and(|due| due <= Instant::now()),
        };
        if visit.clock {
            self.clock_due = Some(Instant::now() + bmc_clock::LOOK);
        }
        self.complained |= visit.third;
        visit
    }

    /// A new lease ends the back-off of one that was silent, and has one that nobody owns asked who it is; it is no new
    /// password.
    fn showed_itself(&mut self, mac: Option<MacAddr>, owned: bool) {
        let another = mac.is_some() && self.mac.is_some() && mac != self.mac;
        self.mac = mac.or(self.mac);
        if another {
            self.failures = 0;
            self.refused = false;
        }
        if !self.busy && (another || (self.failures > 0 || !owned) && !self.refused) {
            self.due = Instant::now();
        }
    }
}

/// Time to the next visit.
fn pause(outcome: Outcome, failures: u32, poll: Duration) -> Duration {
    let doublings = 1 << failures.saturating_sub(1).min(10);
    match outcome {
        Outcome::Good => poll,
        Outcome::Failed => FIRST_RETRY.saturating_mul(doublings).min(SLOWEST),
        Outcome::LoginRefused => LOGIN_RETRY.saturating_mul(doublings).min(LOGIN_SLOWEST),
    }
}

/// Watches BMCs through `door` until `stop` is true or its sender is gone. The first call on a rack counts; a second
/// one returns at once.
pub async fn run(rack: Rack, door: Arc<dyn BmcDoor>, stop: watch::Receiver<bool>) {
    run_every(POLL, rack, door, stop).await;
}

/// As [`run`], with `poll` between two looks at a BMC that answers.
pub async fn run_every(poll: Duration, rack: Rack, door: Arc<dyn BmcDoor>, mut stop: watch::Receiver<bool>) {
    let Some(mut probes) = rack.take_probes() else { return };
    let _ = rack.inner.door.set(door.clone());
    let mut watched: HashMap<IpAddr, Watched> = rack
        .nodes()
        .iter()
        .filter_map(|node| Some((node.bmc_address?, Watched::new(bmc_mac(node)))))
        .collect();
    let mut version = door.credentials_version();
    let permits = Arc::new(Semaphore::new(AT_ONCE));
    let (done, mut finished) = tokio::sync::mpsc::channel::<(IpAddr, Outcome)>(AT_ONCE);
    let mut visits = JoinSet::new();
    loop {
        let due = watched.values().filter(|one| !one.busy).map(|one| one.due).min();
        let look = Instant::now() + CREDENTIALS_LOOK;
        tokio::select! {
            // A visit that goes on would speak for a watcher that is over.
            _ = stop.wait_for(|stop| *stop) => break,
            Some(_) = visits.join_next() => {}
            Some(target) = probes.recv() => {
                let owned = rack.look(|mind| mind.owner_of_bmc_at(target.address).is_some());
                let one = watched.entry(target.address).or_insert_with(|| Watched::new(target.mac));
                // What was refused there was another login.
                one.refused &= !target.opened;
                one.showed_itself(target.mac, owned);
            }
            Some((address, outcome)) = finished.recv() => {
                if let Some(one) = watched.get_mut(&address) {
                    one.done(outcome, poll);
                }
            }
            () = tokio::time::sleep_until(due.map_or(look, |due| due.min(look))) => {
                let now = door.credentials_version();
                if now != version {
                    version = now;
                    watched.values_mut().filter(|one| one.refused).for_each(|one| one.due = Instant::now());
                }
                for (address, one) in watched.iter_mut().filter(|(_, one)| !one.busy && one.due <= Instant::now()) {
                    let Ok(permit) = permits.clone().try_acquire_owned() else {
                        one.due = Instant::now() + Duration::from_millis(100);
                        continue;
                    };
                    let visit = one.visit(&rack, &door, *address);
                    let done = done.clone();
                    visits.spawn(async move {
                        let outcome = (visit.address, visit.run().await);
                        drop(permit);
                        let _ = done.send(outcome).await;
                    });
                }
            }
        }
    }
    visits.shutdown().await;
}

/// The MAC address of a node's BMC, when there is no doubt about it.
pub(crate) fn bmc_mac(node: &Node) -> Option<MacAddr> {
    let mut macs = node.witnesses.iter().filter(|one| one.kind == WitnessKind::BmcMac);
    let first = macs.next()?.value.parse().ok();
    first.filter(|_| macs.next().is_none())
}

/// One look: who is there when that is not known yet, else only its power.
struct Visit {
    rack: Rack,
    door: Arc<dyn BmcDoor>,
    address: IpAddr,
    mac: Option<MacAddr>,
    /// It failed twice before.
    third: bool,
    complained: bool,
    /// Its clock is to be looked at.
    clock: bool,
}

impl Visit {
    async fn run(self) -> Outcome {
        let address = self.address;
        let owner = self.rack.with(|mind, _| mind.owner_of_bmc_at(address));
        let held = owner.and_then(|id| self.rack.node_by_id(id));
        // What it told of itself counts for more than what it asked for its lease with.
        if let Some(mac) = held.as_deref().and_then(bmc_mac).or(self.mac) {
            self.door.introduce(address, mac);
        }
        // Hands off means its BMC too: whoever works on the machine may have logged in there.
        if held.is_some_and(|node| node.state == NodeState::Maintenance) {
            return Outcome::Good;
        }
        let mut result = self.ask(owner).await;
        if let Err(BmcError::Login(_)) = result
            && let Some(whose) = self.may_replace(owner)
        {
            result = match replace_password(&self.rack, self.door.as_ref(), address, whose).await {
                Ok(()) => {
                    self.tell_replaced(owner);
                    self.ask(owner).await
                }
                Err(error) => Err(error),
            };
        }
        let Err(error) = result else { return Outcome::Good };
        if let Some(id) = owner {
            // Another BMC may have this address by now: whoever answers next is asked who it is.
            self.rack
                .with(|mind, _| mind.record(id).map(|record| record.bmc_asked = false));
        }
        let refused = matches!(error, BmcError::Login(_));
        if !self.complained && (self.third || refused) {
            self.complain(owner, &error);
        }
        if refused {
            Outcome::LoginRefused
        } else {
            Outcome::Failed
        }
    }

    /// What there is to ask: of a machine's BMC its power, of another one who it is.
    async fn ask(&self, owner: Option<NodeId>) -> Result<(), BmcError> {
        let Some(id) = owner else { return self.look().await };
        let power = self.door.power(self.address).await;
        if self.clock && power.is_ok() {
            bmc_clock::look(&self.rack, self.door.as_ref(), self.address, id).await;
        }
        power.map(|power| self.rack.with(|mind, now| mind.power_seen(now, id, power)))
    }

    /// Whose password is to be another one, where the BMC wants that and the site too. One without a MAC address could not
    /// be known again.
    fn may_replace(&self, owner: Option<NodeId>) -> Option<Whose> {
        let wanted = self.rack.look(|mind| mind.settings.replace_initial_passwords);
        let whose = owner.map(Whose::Node).or(self.mac.map(Whose::Bmc));
        whose.filter(|_| wanted && self.door.wants_another_password(self.address))
    }

    fn tell_replaced(&self, owner: Option<NodeId>) {
        let text = format!(
            "the BMC at {} wanted another password before anything else: it has one of its own now, and we logged in with it",
            self.address
        );
        let severity = Severity::Info;
        let mac = self.mac;
        self.rack
            .with(|mind, now| mind.emit(now, owner, mac, EventKind::Note { text, severity }));
    }

    async fn look(&self) -> Result<(), BmcError> {
        let sight = self.door.look(self.address).await?;
        let sight = BmcSight {
            mac: sight.mac.or(self.mac),
            ..sight
        };
        let node = self.rack.with(|mind, now| mind.bmc_seen(now, self.address, &sight));
        if let Some((node, login)) = self.rack.adopt_bmc(node, sight.mac) {
            end_change(&self.rack, self.door.as_ref(), self.address, node, login).await?;
        }
        wake(&self.rack, node, sight.power).await;
        Ok(())
    }

    fn complain(&self, owner: Option<NodeId>, error: &BmcError) {
        let (address, mac) = (self.address, self.mac);
        let reason = match error {
            BmcError::Login(reason) => format!(
                "{reason}. It is left alone for {} minutes, then longer, so that its account is not locked; new \
                 credentials in rackbar.toml are tried at once, two of a user in ten minutes",
                LOGIN_RETRY.as_secs() / 60
            ),
            other => format!("it was asked three times who it is and for its power: {other}"),
        };
        self.rack
            .with(|mind, now| mind.emit(now, owner, mac, EventKind::BmcFailed { address, reason }));
    }
}

/// Switches a machine on to be discovered, where the site wants that: one that is off and was never looked at.
async fn wake(rack: &Rack, node: Option<NodeId>, power: PowerState) {
    let wanted = rack.with(|mind, _| {
        let node = node
            .and_then(|id| mind.node(id))
            .filter(|node| node.state == NodeState::Enrolled);
        node.filter(|_| mind.settings.power_on_discovered && power == PowerState::Off)
    });
    if let Some(node) = wanted
        && let Err(error) = rack
            .power(node.id, PowerAction::Netboot, "bmc.power_on_discovered")
            .await
    {
        tracing::warn!(node = %node.name, %error, "a machine could not be switched on to be discovered");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_password_is_tried_less_often_than_any_usual_lock_out_counts() {
        let minutes = |n| pause(Outcome::LoginRefused, n, POLL).as_secs() / 60;
        assert_eq!([1, 2, 3, 4, 40].map(minutes), [10, 20, 40, 60, 60]);
        assert_eq!(pause(Outcome::Failed, 1, POLL), FIRST_RETRY);
        assert_eq!(pause(Outcome::Failed, 40, POLL), SLOWEST);
    }

    #[test]
    fn a_renewed_lease_hurries_a_silent_bmc_but_not_one_that_refused_us() {
        let mac = |n| Some(MacAddr([2, 0, 0, 0, 0, n]));
        let mut one = Watched::new(mac(1));
        one.done(Outcome::LoginRefused, POLL);
        one.showed_itself(mac(1), false);
        assert!(one.due > Instant::now() + LOGIN_RETRY / 2);
        one.showed_itself(mac(2), false);
        assert!(one.due <= Instant::now(), "another BMC has the address");
        one.done(Outcome::Failed, POLL);
        assert!(one.due > Instant::now());
        one.showed_itself(mac(2), false);
        assert!(one.due <= Instant::now());
    }
}

//! The one state of a simulated BMC. IPMI over LAN, KCS and Redfish are faces of it and keep nothing of their own but
//! their sessions.

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime};

use rackbar_ipmi::{Completion, Privilege, Secret, server};
use rackbar_model::MacAddr;
use serde_json::{Map, Value, json};
use tokio::sync::watch;

use super::faults::Faults;
use super::media::Drive;
use crate::console::Console;
use crate::seat::{BootDevice, BootOverride, Identity, MachinePower, PowerAction};
use crate::switch::locked;

/// User slots. Number 1 is IPMI's anonymous user and stays closed.
pub(super) const SLOTS: u8 = 10;

/// Failed logins in a row that lock an account.
pub(super) const LOCK_AFTER: u32 = 5;
/// How long it stays locked.
pub(super) const LOCK_FOR: Duration = Duration::from_secs(30);
/// Shortest password taken.
pub(super) const SHORTEST: usize = 6;

/// An account. Passwords are simulated ones and kept as they are: IPMI needs them in the clear.
#[derive(Clone, Debug)]
pub struct Account {
    /// Name.
    pub name: String,
    /// Password.
    pub password: Secret,
    /// May log in.
    pub enabled: bool,
    /// Highest privilege.
    pub privilege: Privilege,
}

impl Account {
    /// What an empty slot shows.
    pub(super) fn nobody() -> Self {
        Self {
            name: String::new(),
            password: Secret::from_padded(&[]),
            enabled: false,
            privilege: Privilege::User,
        }
    }
}

/// The BMC's network settings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lan {
    /// Its own MAC address.
    pub mac: MacAddr,
    /// Address.
    pub address: Ipv4Addr,
    /// Prefix length.
    pub prefix: u8,
    /// Default gateway.
    pub gateway: Option<Ipv4Addr>,
    /// The address comes from DHCP.
    pub dhcp: bool,
    /// VLAN, when tagging is on.
    pub vlan: Option<u16>,
}

/// A line of the event log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogEntry {
    /// Seconds since 1970.
    pub time: u64,
    /// What happened.
    pub message: String,
}

/// What is remembered of a boot override besides what the machine holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct BootWords {
    /// Redfish's word for the target.
    pub(super) target: String,
    /// UEFI; else PC BIOS.
    pub(super) uefi: bool,
    /// `UefiTargetBootSourceOverride`.
    pub(super) uefi_target: Option<String>,
    /// `HttpBootUri`.
    pub(super) http_uri: Option<String>,
}

pub(super) struct Inner {
    pub(super) accounts: BTreeMap<u8, Account>,
    pub(super) lan: Lan,
    pub(super) boot: BootWords,
    pub(super) bios: Map<String, Value>,
    pub(super) bios_pending: Map<String, Value>,
    /// How often the machine had started when the pending settings were sent.
    pending_since: u64,
    /// Failed logins in a row by account name, and when the last was.
    failures: BTreeMap<String, (u32, Instant)>,
    /// Readings that a test put in, by sensor.
    pub(super) readings: BTreeMap<String, u8>,
    /// Seconds its clock is ahead of this machine's.
    pub(super) clock_ahead: i64,
    /// It follows NTP servers of its own, and takes no time from anybody else.
    pub(super) follows_ntp: bool,
    /// URL of the image in the virtual drive.
    pub(super) media_url: Option<String>,
    /// Tasks: when each is done.
    pub(super) tasks: BTreeMap<u32, Instant>,
    pub(super) log: Vec<LogEntry>,
    pub(super) asset_tag: String,
    /// Redfish sessions: token to user.
    pub(super) sessions: BTreeMap<String, (u32, u8)>,
    pub(super) next_session: u32,
    pub(super) faults: Faults,
    /// Redfish requests by method and path, for tests that count.
    pub(super) requests: Vec<String>,
    pub(super) busiest: u32,
    pub(super) busy: u32,
}

/// The state.
pub struct BmcState {
    /// The machine.
    pub power: Arc<dyn MachinePower>,
    /// Its serial console.
    pub console: Console,
    /// What it says it is.
    pub identity: Identity,
    /// Its NICs.
    pub nics: Vec<MacAddr>,
    /// Its virtual CD drive; without one it remembers URLs and fetches nothing.
    pub(super) drive: Option<Drive>,
    inner: Mutex<Inner>,
    ordered: watch::Sender<Lan>,
}

impl BmcState {
    /// A BMC as it leaves the factory, with one administrator as user 2.
    ///
    /// # Errors
    /// When the password is longer than IPMI's 20 bytes.
    pub fn new(
        power: Arc<dyn MachinePower>,
        console: Console,
        identity: Identity,
        nics: Vec<MacAddr>,
        lan: Lan,
        (user, password): (&str, &str),
    ) -> io::Result<Self> {
        let password = Secret::new(password.as_bytes())
            .ok_or_else(|| io::Error::other("a BMC password has at most 20 bytes (IPMI 2.0 section 22.30)"))?;
        let admin = Account {
            name: user.to_owned(),
            password,
            enabled: true,
            privilege: Privilege::Administrator,
        };
        let bios = json!({"BootMode": "Uefi", "PxeDev1EnDis": "Enabled", "SriovGlobalEnable": "Disabled",
            "ProcVirtualization": "Enabled", "NumLock": "On", "SetupBanner": "", "BootRetries": 3, "QuietBoot": false});
        let inner = Inner {
            accounts: BTreeMap::from([(2, admin)]),
            lan,
            boot: BootWords {
                target: "None".to_owned(),
                uefi: true,
                uefi_target: None,
                http_uri: None,
            },
            bios: bios.as_object().cloned().unwrap_or_default(),
            bios_pending: Map::new(),
            pending_since: 0,
            failures: BTreeMap::new(),
            readings: BTreeMap::new(),
            clock_ahead: 0,
            follows_ntp: false,
            media_url: None,
            tasks: BTreeMap::new(),
            log: Vec::new(),
            asset_tag: identity.asset_tag.clone(),
            sessions: BTreeMap::new(),
            next_session: 1,
            faults: Faults::default(),
            requests: Vec::new(),
            busiest: 0,
            busy: 0,
        };
        let state = Self {
            power,
            console,
            identity,
            nics,
            drive: None,
            inner: Mutex::new(inner),
            ordered: watch::Sender::new(lan),
        };
        state.log("BMC started");
        Ok(state)
    }

    /// With a virtual drive that fetches its images.
    pub(super) fn with_drive(mut self, drive: Drive) -> Self {
        self.drive = Some(drive);
        self
    }

    pub(super) fn inner(&self) -> MutexGuard<'_, Inner> {
        locked(&self.inner)
    }

    /// Sets the faults in force.
    pub fn set_faults(&self, faults: Faults) {
        self.inner().faults = faults;
    }

    /// The faults in force.
    pub fn faults(&self) -> Faults {
        self.inner().faults
    }

    /// Redfish requests so far, as `GET /redfish/v1`.
    pub fn requests(&self) -> Vec<String> {
        self.inner().requests.clone()
    }

    /// The highest number of Redfish requests that were in work at the same time.
    pub fn busiest(&self) -> u32 {
        self.inner().busiest
    }

    /// Open Redfish sessions.
    pub fn sessions(&self) -> usize {
        self.inner().sessions.len()
    }

    /// Adds or replaces an account.
    pub fn set_account(&self, slot: u8, account: Account) {
        self.inner().accounts.insert(slot, account);
    }

    /// An account, by its slot.
    pub fn account(&self, slot: u8) -> Option<Account> {
        self.inner().accounts.get(&slot).cloned()
    }

    /// The password that is kept of one that was set.
    pub(super) fn kept(&self, secret: Secret) -> Secret {
        if self.faults().spoils_passwords {
            Secret::from_padded(b"spoilt")
        } else {
            secret
        }
    }

    /// The network settings.
    pub fn lan(&self) -> Lan {
        self.inner().lan
    }

    /// The address changed, by DHCP or by hand.
    pub fn set_lan(&self, lan: Lan) {
        self.inner().lan = lan;
    }

    /// Somebody set the network up; whoever follows [`Self::ordered`] puts it in force.
    pub(super) fn order_lan(&self, lan: Lan) {
        self.set_lan(lan);
        self.ordered.send_replace(lan);
    }

    /// Network settings as they are ordered.
    pub(super) fn ordered(&self) -> watch::Receiver<Lan> {
        self.ordered.subscribe()
    }

    /// A BIOS attribute in force.
    pub fn bios(&self, attribute: &str) -> Option<Value> {
        self.settings().0.get(attribute).cloned()
    }

    /// Settings in force and pending. The firmware takes pending ones over when the machine starts, whoever started it;
    /// that is found out when somebody looks.
    pub(super) fn settings(&self) -> (Map<String, Value>, Map<String, Value>) {
        let starts = self.power.boots();
        let mut inner = self.inner();
        if starts > inner.pending_since {
            let pending = std::mem::take(&mut inner.bios_pending);
            inner.bios.extend(pending);
        }
        (inner.bios.clone(), inner.bios_pending.clone())
    }

    /// Lets settings wait for the next start.
    pub(super) fn stage(&self, wanted: Map<String, Value>) {
        self.settings();
        let starts = self.power.boots();
        let mut inner = self.inner();
        inner.pending_since = starts;
        inner.bios_pending.extend(wanted);
    }

    /// Failed logins in a row of an account.
    pub fn failures(&self, user: &str) -> u32 {
        self.inner().failures.get(user).map_or(0, |(count, _)| *count)
    }

    /// True while an account is locked for its failed logins.
    pub(super) fn is_locked(&self, user: &str) -> bool {
        let inner = self.inner();
        inner
            .failures
            .get(user)
            .is_some_and(|(count, last)| *count >= LOCK_AFTER && last.elapsed() < LOCK_FOR)
    }

    /// Lets a sensor read something of its own.
    pub fn set_reading(&self, sensor: &str, raw: u8) {
        self.inner().readings.insert(sensor.to_owned(), raw);
    }

    /// The boot override that was set last asked for UEFI, and not for PC BIOS.
    pub fn asked_for_uefi(&self) -> bool {
        self.inner().boot.uefi
    }

    /// Its clock, in seconds since 1970.
    pub fn clock(&self) -> u64 {
        now().saturating_add_signed(self.inner().clock_ahead)
    }

    /// Sets its clock.
    pub fn set_clock(&self, seconds: u64) {
        let ahead = i128::from(seconds) - i128::from(now());
        self.inner().clock_ahead = i64::try_from(ahead).unwrap_or(0);
    }

    /// Somebody sets the clock, as Set SEL Time has it (section 31.11).
    pub(super) fn order_clock(&self, data: &[u8]) -> Result<(), Completion> {
        if self.inner().follows_ntp {
            return Err(Completion::STATE);
        }
        let seconds = data.first_chunk().copied().map(u32::from_le_bytes);
        self.set_clock(u64::from(seconds.ok_or(Completion::LENGTH)?));
        Ok(())
    }

    /// Has it follow NTP servers of its own, or not.
    pub fn set_follows_ntp(&self, follows: bool) {
        self.inner().follows_ntp = follows;
    }

    /// Adds a line to the event log.
    pub fn add_entry(&self, message: &str) {
        self.log(message);
    }

    /// The event log.
    pub fn entries(&self) -> Vec<LogEntry> {
        self.inner().log.clone()
    }

    pub(super) fn log(&self, message: impl Into<String>) {
        let time = self.clock();
        self.inner().log.push(LogEntry {
            time,
            message: message.into(),
        });
    }

    /// Does something to the machine.
    pub(super) async fn act(&self, action: PowerAction) -> io::Result<()> {
        self.log(format!("Power: {action:?}"));
        self.power.act(action).await
    }

    /// The boot override in force: the machine forgets a used one, and with it our words for it.
    pub(super) fn boot(&self) -> (Option<BootOverride>, BootWords) {
        let now = self.power.boot_override();
        let mut inner = self.inner();
        if now.is_none() {
            inner.boot.target = "None".to_owned();
        }
        (now, inner.boot.clone())
    }

    /// Sets the override in Redfish's word; `false` when it is none that this machine knows.
    pub(super) async fn set_boot(&self, word: &str, once: bool, uefi: bool) -> io::Result<bool> {
        let device = match word {
            "None" => None,
            "Pxe" | "UefiHttp" => Some(BootDevice::Network),
            "Hdd" => Some(BootDevice::Disk),
            "Cd" => Some(BootDevice::Cdrom),
            _ => return Ok(false),
        };
        let url = self.inner().boot.http_uri.clone().filter(|_| word == "UefiHttp");
        self.power.set_boot_url(url)?;
        self.power
            .set_boot_override(device.map(|device| BootOverride { device, once }))
            .await?;
        self.log(format!("Boot override: {word}{}", if once { ", once" } else { "" }));
        let mut inner = self.inner();
        inner.boot.target = word.to_owned();
        inner.boot.uefi = uefi;
        Ok(true)
    }

    /// The user slot that this name and password open. A wrong password counts towards the lock-out; a locked account
    /// takes no password at all.
    pub(super) fn check(&self, name: &str, password: &str) -> Option<u8> {
        if self.is_locked(name) {
            return None;
        }
        let mut inner = self.inner();
        let mut fitting = inner
            .accounts
            .iter()
            .filter(|(_, account)| account.enabled && account.name == name);
        let found = fitting
            .find(|(_, account)| account.password.matches(password.as_bytes()))
            .map(|(slot, _)| *slot);
        match found {
            Some(_) => drop(inner.failures.remove(name)),
            None => {
                let failed = inner.failures.entry(name.to_owned()).or_insert((0, Instant::now()));
                *failed = (failed.0 + 1, Instant::now());
            }
        }
        found
    }

    /// The UUID as bytes in text order; zero when the rack file holds none.
    pub(super) fn uuid(&self) -> [u8; 16] {
        self.identity
            .uuid
            .parse()
            .map_or([0; 16], |rackbar_model::NodeId(bytes)| bytes)
    }
}

impl server::Accounts for BmcState {
    fn guid(&self) -> [u8; 16] {
        rackbar_ipmi::command::device::encode_guid(self.uuid())
    }

    fn account(&self, user: &[u8]) -> Option<server::Account> {
        if core::str::from_utf8(user).is_ok_and(|user| self.is_locked(user)) {
            return None;
        }
        let inner = self.inner();
        let account = inner
            .accounts
            .values()
            .find(|account| account.enabled && account.name.as_bytes() == user)?;
        Some(server::Account {
            password: account.password.clone(),
            privilege: account.privilege,
        })
    }
}

pub(super) fn now() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

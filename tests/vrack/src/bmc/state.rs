//! The one state of a simulated BMC. IPMI over LAN, KCS and Redfish are faces of it and keep nothing of their own but
//! their sessions.

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::SystemTime;

use rackbar_ipmi::{Privilege, Secret, server};
use rackbar_model::MacAddr;
use serde_json::{Map, Value, json};

use super::faults::Faults;
use crate::console::Console;
use crate::seat::{BootDevice, BootOverride, Identity, MachinePower, PowerAction, PowerState};
use crate::switch::locked;

/// User slots. Number 1 is IPMI's anonymous user and stays closed.
pub(super) const SLOTS: u8 = 10;

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
    inner: Mutex<Inner>,
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
            "ProcVirtualization": "Enabled", "NumLock": "On", "SetupBanner": ""});
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
            inner: Mutex::new(inner),
        };
        state.log("BMC started");
        Ok(state)
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

    /// The network settings.
    pub fn lan(&self) -> Lan {
        self.inner().lan
    }

    /// The address changed, by DHCP or by hand.
    pub fn set_lan(&self, lan: Lan) {
        self.inner().lan = lan;
    }

    /// A BIOS attribute in force.
    pub fn bios(&self, attribute: &str) -> Option<Value> {
        self.inner().bios.get(attribute).cloned()
    }

    /// The event log.
    pub fn entries(&self) -> Vec<LogEntry> {
        self.inner().log.clone()
    }

    pub(super) fn log(&self, message: impl Into<String>) {
        let time = now();
        self.inner().log.push(LogEntry {
            time,
            message: message.into(),
        });
    }

    /// Does something to the machine. A start makes pending BIOS attributes count.
    pub(super) async fn act(&self, action: PowerAction) -> io::Result<()> {
        self.log(format!("Power: {action:?}"));
        let starts = match action {
            PowerAction::On => self.power.state() == PowerState::Off,
            PowerAction::Reset | PowerAction::PowerCycle => true,
            PowerAction::ForceOff | PowerAction::GracefulShutdown => false,
        };
        if starts {
            let mut inner = self.inner();
            let pending = std::mem::take(&mut inner.bios_pending);
            inner.bios.extend(pending);
        }
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
        self.power
            .set_boot_override(device.map(|device| BootOverride { device, once }))
            .await?;
        self.log(format!("Boot override: {word}{}", if once { ", once" } else { "" }));
        let mut inner = self.inner();
        inner.boot.target = word.to_owned();
        inner.boot.uefi = uefi;
        Ok(true)
    }

    /// The user slot that this name and password open.
    pub(super) fn check(&self, name: &str, password: &str) -> Option<u8> {
        let inner = self.inner();
        let mut fitting = inner
            .accounts
            .iter()
            .filter(|(_, account)| account.enabled && account.name == name);
        fitting
            .find(|(_, account)| account.password.matches(password.as_bytes()))
            .map(|(slot, _)| *slot)
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

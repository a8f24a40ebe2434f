//! The way to real BMCs: `rackbar-devices`, with the site's credentials tried in order and the one that works kept.
//!
//! Each credential is tried once per visit, at most two wrong passwords of an account within ten minutes, and none where
//! the certificate is not the one seen first: a password is not shown to a stranger.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use rackbar_devices::{
    AccountChange, Bmc, BmcAccount, BmcAddress, BmcIdentity, BootOverride, BootTarget, Capability, Cause, Credentials,
    Error, Fingerprint, Interface, LogLine, MediaDrive, Profiles, Sensor, SolStream, Timing, probe,
};
use rackbar_model::{
    EventKind, FirmwareMode, MacAddr, NodeId, PowerAction, PowerState, SecretText, Severity, Timestamp,
};
use rackbar_store::{BmcLogin, Store};
use rackbar_verify::BootFirst;

use crate::bmc::{Answer, BmcDoor, BmcError, BootFrom, Told};
use crate::pins::{self, Pins};
use crate::rack::{Inner, locked};
use crate::wrong::Wrong;
use crate::{BmcSight, Rack};

/// BMCs that are kept open; the table is emptied beyond that, which costs each one login.
const MAX_OPEN: usize = 4_096;

/// The longest rest of a BMC after a failure that whoever asks next waits for without a word.
const REST: Duration = Duration::from_secs(5);

/// A BMC as logins are counted: its address, and its MAC address where that is known.
type Place = (IpAddr, Option<MacAddr>);

/// BMCs reached over Redfish and IPMI.
pub struct Devices {
    logins: Mutex<Logins>,
    profiles: Arc<Profiles>,
    timing: Timing,
    ports: Option<(u16, u16)>,
    pins: Pins,
    macs: Mutex<HashMap<IpAddr, MacAddr>>,
    open: Mutex<HashMap<IpAddr, Arc<Bmc>>>,
    /// The credentials that each took.
    used: Mutex<HashMap<IpAddr, Credentials>>,
    /// What each did not take. Another BMC at the address counts by itself.
    wrong: Mutex<HashMap<Place, Arc<Wrong>>>,
    store: Store,
    /// Says whose BMC is at an address. Weak: the rack holds us.
    rack: Mutex<Weak<Inner>>,
}

/// What the site says about its BMCs.
#[derive(Default)]
struct Logins {
    credentials: Vec<Credentials>,
    /// Certificates that may take the place of one seen before.
    accepted: Vec<Fingerprint>,
    version: u64,
}

impl Devices {
    /// BMCs that take one of `credentials`; their certificates are kept in `store`.
    pub fn new(credentials: Vec<Credentials>, profiles: Profiles, store: Store) -> Self {
        Self {
            logins: Mutex::new(Logins {
                credentials,
                ..Logins::default()
            }),
            profiles: Arc::new(profiles),
            timing: Timing::default(),
            ports: None,
            pins: Pins::new(store.clone()),
            macs: Mutex::default(),
            open: Mutex::default(),
            used: Mutex::default(),
            wrong: Mutex::default(),
            store,
            rack: Mutex::new(Weak::new()),
        }
    }

    /// The same on other ports than 443 (Redfish) and 623 (IPMI).
    #[must_use]
    pub fn on_ports(mut self, https: u16, ipmi: u16) -> Self {
        self.ports = Some((https, ipmi));
        self
    }

    /// The same with other patience.
    #[must_use]
    pub fn with_timing(mut self, timing: Timing) -> Self {
        self.timing = timing;
        self
    }

    /// Replaces the credentials, and the certificates that are taken although they are not those seen before. Every BMC
    /// logs in anew.
    pub fn set_credentials(&self, credentials: Vec<Credentials>, accepted: Vec<Fingerprint>) {
        {
            let mut logins = locked(&self.logins);
            logins.credentials = credentials;
            logins.accepted = accepted;
            logins.version += 1;
        }
        locked(&self.open).clear();
    }

    /// Lets BMCs that were given a password of their own be known by the machines they belong to.
    #[must_use]
    pub fn of(self, rack: &Rack) -> Self {
        *locked(&self.rack) = Arc::downgrade(&rack.inner);
        self
    }

    /// The account of this machine's own, when its BMC was given one: then nothing else is tried there. A wrong password
    /// more would bring the account nearer to its lock-out.
    fn own_login(&self, address: IpAddr, mac: Option<MacAddr>) -> Option<Vec<Credentials>> {
        let login = self.login_of_its_node(address, mac).filter(BmcLogin::is_ours);
        let login = login.or_else(|| {
            let kept = self.store.bmc_login(mac?);
            let kept = kept.inspect_err(|error| tracing::error!(%address, %error, "a BMC's account cannot be read"));
            kept.ok().flatten().filter(BmcLogin::is_ours)
        })?;
        let each = login
            .candidates()
            .map(|password| Credentials::new(&login.user, &password.0));
        Some(each.collect())
    }

    fn login_of_its_node(&self, address: IpAddr, mac: Option<MacAddr>) -> Option<BmcLogin> {
        let rack = Rack {
            inner: locked(&self.rack).upgrade()?,
        };
        let node = node_at(&rack, address, mac)?;
        let login = self.store.bmc_login(node);
        let login = login.inspect_err(|error| tracing::error!(%node, %error, "a BMC's account cannot be read"));
        login.ok().flatten()
    }

    fn place(&self, address: IpAddr) -> BmcAddress {
        let standard = BmcAddress::from(address);
        self.ports.map_or(standard, |(https, ipmi)| BmcAddress {
            https,
            ipmi,
            ..standard
        })
    }

    fn opened(&self, address: IpAddr) -> Option<Arc<Bmc>> {
        locked(&self.open).get(&address).cloned()
    }

    /// What the BMC at `address` was shown and did not take.
    fn wrong(&self, address: IpAddr) -> Arc<Wrong> {
        let mac = locked(&self.macs).get(&address).copied();
        let mut wrong = locked(&self.wrong);
        if wrong.len() >= MAX_OPEN && !wrong.contains_key(&(address, mac)) {
            // Those that nobody asks for any more, and of the others the count goes on.
            wrong.retain(|_, one| Arc::strong_count(one) > 1 || one.counts());
        }
        let fresh = || {
            let key = format!("wrong {}", pins::key(address, mac));
            Arc::new(Wrong::kept(self.timing.wrong_passwords, &self.store, key))
        };
        wrong.entry((address, mac)).or_insert_with(fresh).clone()
    }

    /// The BMC at `address` with a credential it takes, identified.
    async fn identify(&self, address: IpAddr) -> Result<(Arc<Bmc>, BmcIdentity), BmcError> {
        if let Some(bmc) = self.opened(address) {
            match bmc.identify().await {
                Ok(identity) => return Ok((bmc, identity)),
                // Another BMC may have got this address, or its password changed: begin again.
                Err(error) => {
                    locked(&self.open).remove(&address);
                    tracing::debug!(%address, %error, "a BMC does not answer as before");
                }
            }
        }
        let wrong = self.wrong(address);
        // One at a time: watcher, runs and people would each try them all.
        let _turn = wrong.turn.lock().await;
        if let Some(bmc) = self.opened(address)
            && let Ok(identity) = bmc.identify().await
        {
            return Ok((bmc, identity));
        }
        let (credentials, accepted) = {
            let logins = locked(&self.logins);
            (logins.credentials.clone(), logins.accepted.clone())
        };
        let mac = locked(&self.macs).get(&address).copied();
        let mut credentials = self.own_login(address, mac).unwrap_or(credentials);
        wrong.untried_first(&mut credentials);
        let mut last = BmcError::Login("no credential is configured: add a [[bmc.credential]] to rackbar.toml".into());
        let mut held: Vec<String> = Vec::new();
        for credential in credentials {
            // Of this account none is tried any more, also if its wait has just ended: the others were tried before.
            if held.contains(&credential.user) {
                continue;
            }
            let user = credential.user.clone();
            match self.try_one(address, mac, credential, &accepted).await {
                Ok(opened) => return Ok(opened),
                // Only another login is worth trying with the next credential; anything else would fail again.
                Err(error) => {
                    let go_on = matches!(error.cause, Cause::Unauthorized(_) | Cause::HeldBack { .. });
                    if matches!(error.cause, Cause::HeldBack { .. }) {
                        held.push(user);
                    }
                    last = error.into();
                    if !go_on {
                        break;
                    }
                }
            }
        }
        Err(last)
    }

    /// Tries one credential, and keeps open what it opens.
    async fn try_one(
        &self,
        address: IpAddr,
        mac: Option<MacAddr>,
        credential: Credentials,
        accepted: &[Fingerprint],
    ) -> Result<(Arc<Bmc>, BmcIdentity), Error> {
        let pinned = self.pins.get(address, mac);
        let mut tried = self.log_in(address, credential.clone(), pinned).await;
        if let Err(Error {
            cause: Cause::CertificateChanged { seen, .. },
            ..
        }) = &tried
            && accepted.contains(seen)
        {
            tried = self.log_in(address, credential.clone(), Some(*seen)).await;
        }
        if let Err(error) = &tried
            && matches!(error.cause, Cause::Unauthorized(_))
        {
            self.wrong(address).refused(&credential);
        }
        let (bmc, identity) = tried?;
        if let Some(certificate) = bmc.fingerprint() {
            let told = identity.as_ref().ok().and_then(|identity| identity.mac);
            self.pins.put(address, mac.or(told), certificate);
            if mac.is_none() {
                self.pins.put(address, None, certificate);
            }
        }
        locked(&self.used).insert(address, credential);
        {
            let mut open = locked(&self.open);
            if open.len() >= MAX_OPEN {
                open.clear();
            }
            open.insert(address, bmc.clone());
        }
        Ok((bmc, identity?))
    }

    /// A BMC that takes this login, and who it says it is. One that first wants another password is there to be given
    /// one, and says nothing else.
    async fn log_in(
        &self,
        address: IpAddr,
        credential: Credentials,
        pinned: Option<Fingerprint>,
    ) -> Result<(Arc<Bmc>, Result<BmcIdentity, Error>), Error> {
        let place = self.place(address);
        let mac = locked(&self.macs).get(&address).copied();
        let bmc = Bmc::new(place, credential, pinned, self.profiles.clone(), self.timing)
            .known_by(mac)
            .counted_in(&self.wrong(address).attempts);
        match bmc.identify().await {
            Err(error) if !bmc.wants_another_password() => Err(error),
            identity => Ok((Arc::new(bmc), identity)),
        }
    }

    /// What the BMC at `address` speaks.
    async fn speaks(&self, address: IpAddr) -> Result<Vec<String>, BmcError> {
        let report = probe(self.place(address), self.timing).await;
        if report.found() {
            return Ok(report.speaks());
        }
        let reason = report.redfish_reason.unwrap_or_default();
        Err(BmcError::Silent(format!(
            "neither Redfish nor IPMI answers at {address}: {reason}"
        )))
    }

    /// The BMC at `address`, rested: one that is left in peace for a moment more is waited for, a longer rest is told.
    async fn known(&self, address: IpAddr) -> Result<Arc<Bmc>, BmcError> {
        let bmc = match self.opened(address) {
            Some(bmc) => bmc,
            None => self.identify(address).await.map(|(bmc, _)| bmc)?,
        };
        let peace = bmc.budget().peace;
        if peace <= REST {
            tokio::time::sleep(peace).await;
        }
        // Those of the request before: every BMC is asked for its power again and again.
        self.tell_turns(address, &bmc);
        Ok(bmc)
    }

    /// The same also where all that is to be had there is another password.
    async fn to_be_changed(&self, address: IpAddr) -> Result<Arc<Bmc>, BmcError> {
        let known = self.known(address).await;
        known.or_else(|error| {
            let opened = self.opened(address);
            opened.filter(|bmc| bmc.wants_another_password()).ok_or(error)
        })
    }

    /// Tells the machine's timeline of changes between Redfish and IPMI. Before it is known whose BMC this is, they wait.
    fn tell_turns(&self, address: IpAddr, bmc: &Bmc) {
        let Some(inner) = locked(&self.rack).upgrade() else {
            return;
        };
        let rack = Rack { inner };
        let mac = locked(&self.macs).get(&address).copied();
        let Some(node) = node_at(&rack, address, mac) else {
            return;
        };
        for turn in bmc.take_turns() {
            let severity = match turn.to.interface {
                Interface::Redfish => Severity::Info,
                Interface::Ipmi => Severity::Warning,
            };
            let text = turn.to_string();
            rack.tell(Some(node), EventKind::Note { text, severity });
        }
    }
}

/// The machine whose BMC has a MAC address, or is at an address.
fn node_at(rack: &Rack, address: IpAddr, mac: Option<MacAddr>) -> Option<NodeId> {
    rack.look(|mind| {
        let by_mac = mac.and_then(|mac| mind.owner_of_bmc(mac));
        let at = || {
            let mut records = mind.records.values();
            let found = records.find(|one| one.node.bmc_address == Some(address))?;
            Some(found.node.id)
        };
        by_mac.or_else(at)
    })
}

/// What a BMC says of itself and its machine.
fn sight(speaks: Vec<String>, identity: BmcIdentity) -> BmcSight {
    BmcSight {
        speaks,
        mac: identity.mac,
        serial: identity.system_serial,
        board_serial: None,
        uuid: identity.uuid,
        nic_macs: identity.nic_macs,
        power: identity.power,
    }
}

/// With the way that this was asked by. Another caller may have gone another way since: then that one is told.
fn told<T>(bmc: &Bmc, capability: Capability, what: T) -> Told<T> {
    let choice = bmc.choices().remove(&capability);
    let (way, why) = choice.map_or((Interface::Redfish, String::new()), |one| (one.interface, one.reason));
    Told { way, why, what }
}

impl From<Error> for BmcError {
    fn from(error: Error) -> Self {
        let text = error.to_string();
        match error.cause {
            // The one that was meant is not to be had there; whoever answers is asked who it is at the next look.
            Cause::Unreachable(_) | Cause::BackingOff { .. } | Cause::AnotherBmc { .. } => Self::Silent(text),
            Cause::Unauthorized(_) | Cause::HeldBack { .. } | Cause::PasswordChangeRequired { .. } => Self::Login(text),
            Cause::CertificateChanged { seen, .. } => Self::Login(format!(
                "{text}. Nothing is sent to it. If the BMC was replaced or reset, or got a new certificate, write \
                 bmc.accept_certificates = [\"{seen}\"] into rackbar.toml; if not, somebody is between it and us: look \
                 at the management network"
            )),
            // Busy, as firmware says it while it starts: in HTTP, and as an IPMI completion code.
            Cause::Refused {
                code: 429 | 503 | 0xc0, ..
            } => Self::Failed(text),
            Cause::Refused { .. } | Cause::Forbidden(_) => Self::Refused(text),
            Cause::NotAllowed(_) => Self::NotSent(text),
            // It answered up to here, and another way to do it once more would do it twice.
            Cause::Unanswered(_) | Cause::Unsupported(_) => Self::Failed(text),
            Cause::Elsewhere(_) | Cause::Malformed(_) | Cause::NotSeen { .. } => Self::Failed(text),
        }
    }
}

impl BmcDoor for Devices {
    fn introduce(&self, address: IpAddr, mac: MacAddr) {
        let mut macs = locked(&self.macs);
        if macs.len() >= MAX_OPEN && !macs.contains_key(&address) {
            macs.clear();
        }
        if macs.insert(address, mac).is_some_and(|before| before != mac) {
            locked(&self.open).remove(&address);
        }
    }

    fn credentials_version(&self) -> u64 {
        locked(&self.logins).version
    }

    fn wants_another_password(&self, address: IpAddr) -> bool {
        self.opened(address).is_some_and(|bmc| bmc.wants_another_password())
    }

    fn look(&self, address: IpAddr) -> Answer<'_, BmcSight> {
        Box::pin(async move {
            let speaks = self.speaks(address).await?;
            let (_, identity) = self.identify(address).await?;
            Ok(sight(speaks, identity))
        })
    }

    fn open_with<'a>(&'a self, address: IpAddr, user: &'a str, password: &'a SecretText) -> Answer<'a, BmcSight> {
        Box::pin(async move {
            let speaks = self.speaks(address).await?;
            let accepted = locked(&self.logins).accepted.clone();
            let mac = locked(&self.macs).get(&address).copied();
            let credential = Credentials::new(user, &password.0);
            let wrong = self.wrong(address);
            let _turn = wrong.turn.lock().await;
            let (_, identity) = self.try_one(address, mac, credential, &accepted).await?;
            Ok(sight(speaks, identity))
        })
    }

    fn power(&self, address: IpAddr) -> Answer<'_, PowerState> {
        Box::pin(async move { Ok(self.known(address).await?.power_state().await?) })
    }

    fn act(&self, address: IpAddr, action: PowerAction) -> Answer<'_, ()> {
        Box::pin(async move { Ok(self.known(address).await?.power(action).await?) })
    }

    fn netboot(&self, address: IpAddr, mode: Option<FirmwareMode>) -> Answer<'_, ()> {
        Box::pin(async move { Ok(self.known(address).await?.netboot(mode).await?) })
    }

    fn console(&self, address: IpAddr) -> Answer<'_, SolStream> {
        Box::pin(async move { Ok(self.known(address).await?.console().await?) })
    }

    fn clock(&self, address: IpAddr) -> Answer<'_, Option<Timestamp>> {
        Box::pin(async move { Ok(self.known(address).await?.clock().await?) })
    }

    fn set_clock(&self, address: IpAddr, now: Timestamp) -> Answer<'_, ()> {
        Box::pin(async move { Ok(self.known(address).await?.set_clock(now).await?) })
    }

    fn sensors(&self, address: IpAddr) -> Answer<'_, Told<Vec<Sensor>>> {
        Box::pin(async move {
            let bmc = self.known(address).await?;
            let what = bmc.sensors().await?;
            Ok(told(&bmc, Capability::Sensors, what))
        })
    }

    fn event_log(&self, address: IpAddr, limit: usize) -> Answer<'_, Told<Vec<LogLine>>> {
        Box::pin(async move {
            let bmc = self.known(address).await?;
            let what = bmc.event_log(limit).await?;
            Ok(told(&bmc, Capability::EventLog, what))
        })
    }

    fn accounts(&self, address: IpAddr) -> Answer<'_, Told<Vec<BmcAccount>>> {
        Box::pin(async move {
            let bmc = self.known(address).await?;
            let what = bmc.accounts().await?;
            Ok(told(&bmc, Capability::Accounts, what))
        })
    }

    fn change_account<'a>(&'a self, address: IpAddr, change: &'a AccountChange) -> Answer<'a, ()> {
        Box::pin(async move { Ok(self.known(address).await?.change_account(change).await?) })
    }

    fn media(&self, address: IpAddr) -> Answer<'_, Vec<MediaDrive>> {
        Box::pin(async move { Ok(self.known(address).await?.media().await?) })
    }

    fn set_media<'a>(&'a self, address: IpAddr, image: Option<&'a str>) -> Answer<'a, ()> {
        Box::pin(async move {
            let bmc = self.known(address).await?;
            match image {
                Some(url) => Ok(bmc.insert_media(url).await?),
                None => Ok(bmc.eject_media().await?),
            }
        })
    }

    fn boot_override(&self, address: IpAddr) -> Answer<'_, BootOverride> {
        Box::pin(async move { Ok(self.known(address).await?.get_boot().await?) })
    }

    fn boot_once<'a>(&'a self, address: IpAddr, from: &'a BootFrom) -> Answer<'a, ()> {
        Box::pin(async move {
            let bmc = self.known(address).await?;
            match &from.url {
                Some(url) => Ok(bmc.set_boot_url(url).await?),
                None => Ok(bmc.set_boot_once(from.target.clone(), from.mode).await?),
            }
        })
    }

    fn bios(&self, address: IpAddr) -> Answer<'_, BTreeMap<String, String>> {
        Box::pin(async move {
            let seen = self.known(address).await?.bios_attributes().await?;
            let values = seen.attributes.into_iter().map(|(name, one)| (name, one.value));
            Ok(values.collect())
        })
    }

    fn stage_bios<'a>(
        &'a self,
        address: IpAddr,
        wanted: &'a BTreeMap<String, String>,
    ) -> Answer<'a, BTreeMap<String, String>> {
        Box::pin(async move { Ok(self.known(address).await?.stage_bios(wanted).await?.sent) })
    }

    fn boots_first(&self, address: IpAddr) -> Answer<'_, Option<BootFirst>> {
        Box::pin(async move {
            let bmc = self.known(address).await?;
            // A lasting override goes before the order, and is all that some BMCs take.
            let set = bmc.get_boot().await?;
            if !set.once && set.target == BootTarget::Disk {
                return Ok(Some(BootFirst::Disk("lasting override".into())));
            }
            let first = match bmc.boot_order().await {
                Ok(order) => order.into_iter().find(|option| option.enabled),
                Err(Error {
                    cause: Cause::Unsupported(_),
                    ..
                }) => None,
                Err(error) => return Err(error.into()),
            };
            // A kind that was only guessed to be something else proves nothing.
            Ok(first.and_then(|option| match option.target {
                BootTarget::Disk => Some(BootFirst::Disk(option.name)),
                BootTarget::Network | BootTarget::Http => Some(BootFirst::Network(option.name)),
                BootTarget::Cd | BootTarget::Setup => Some(BootFirst::Other(option.name)),
                BootTarget::Default | BootTarget::Other(_) => None,
            }))
        })
    }

    fn boot_disk_first(&self, address: IpAddr, uefi: bool) -> Answer<'_, ()> {
        Box::pin(async move {
            let mode = if uefi { FirmwareMode::Uefi } else { FirmwareMode::Bios };
            let bmc = self.known(address).await?;
            Ok(bmc.set_boot_first(BootTarget::Disk, Some(mode)).await?)
        })
    }

    fn login(&self, address: IpAddr) -> Answer<'_, (String, SecretText)> {
        Box::pin(async move {
            self.to_be_changed(address).await?;
            let used = locked(&self.used).get(&address).cloned();
            let used = used.ok_or_else(|| BmcError::Failed("its login is not known any more".into()))?;
            Ok((used.user.clone(), SecretText(used.password().to_owned())))
        })
    }

    fn verify_login<'a>(&'a self, address: IpAddr, user: &'a str, password: &'a SecretText) -> Answer<'a, ()> {
        Box::pin(async move {
            let bmc = self.to_be_changed(address).await?;
            bmc.verify_login(user, &password.0).await?;
            locked(&self.used).insert(address, Credentials::new(user, &password.0));
            Ok(())
        })
    }

    fn change_password<'a>(&'a self, address: IpAddr, user: &'a str, new: &'a SecretText) -> Answer<'a, ()> {
        Box::pin(async move { Ok(self.to_be_changed(address).await?.change_password(user, &new.0).await?) })
    }
}

//! What is asked of a BMC, the same for every way, and how each way does it.

use core::fmt;
use std::collections::BTreeMap;

use rackbar_ipmi::command::chassis::ChassisControl;
use rackbar_model::{FirmwareMode, PowerState, Timestamp};
use tokio::time::Instant;
use zeroize::Zeroizing;

use crate::error::{Error, Interface};
use crate::ipmi::Ipmi;
use crate::redfish::Redfish;
use crate::{
    AccountChange, BiosAttributes, BmcAccount, BmcIdentity, BootOption, BootOverride, BootTarget, Health, LanSettings,
    LogLine, MediaDrive, Sensor, Staged,
};

/// What a BMC can be asked for, as far as the choice of a way goes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Capability {
    /// Who it is.
    Identity,
    /// Power.
    Power,
    /// Boot device of the next boot.
    BootOnce,
    /// Lasting boot order.
    BootOrder,
    /// Firmware settings.
    Bios,
    /// Users and passwords.
    Accounts,
    /// Virtual media.
    Media,
    /// Sensors and health.
    Sensors,
    /// Event log.
    EventLog,
    /// Network settings of the BMC.
    Lan,
    /// The BMC's own clock.
    Clock,
}

impl Capability {
    /// What it is called where people read of it.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Power => "power",
            Self::BootOnce => "next boot",
            Self::BootOrder => "boot order",
            Self::Bios => "firmware settings",
            Self::Accounts => "accounts",
            Self::Media => "virtual media",
            Self::Sensors => "sensors",
            Self::EventLog => "event log",
            Self::Lan => "network settings of the BMC",
            Self::Clock => "clock of the BMC",
        }
    }
}

/// What is asked.
#[derive(Clone)]
pub(super) enum Ask {
    Identify,
    PowerState,
    GetBoot,
    SetBoot(BootTarget, Option<FirmwareMode>),
    Power(Button),
    Bios,
    StageBios(BTreeMap<String, String>),
    StagedBios,
    BootOrder,
    BootFirst(BootTarget, Option<FirmwareMode>),
    BootUrl(String),
    Password(String, Zeroizing<String>),
    Media,
    InsertMedia(String),
    EjectMedia,
    Sensors,
    EventLog(usize),
    Health,
    Accounts,
    Account(AccountChange),
    Lan,
    SetLan(LanSettings),
    Clock,
    SetClock(Timestamp),
}

impl fmt::Debug for Ask {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Power(button) => write!(f, "power: {button:?}"),
            Self::Password(user, _) => write!(f, "password of {user}"),
            Self::Account(change) => write!(f, "account {}", change.name()),
            other => write!(f, "{:?}", other.capability()),
        }
    }
}

impl Ask {
    pub(super) const fn capability(&self) -> Capability {
        match self {
            Self::Identify => Capability::Identity,
            Self::PowerState | Self::Power(_) => Capability::Power,
            Self::GetBoot | Self::SetBoot(..) | Self::BootUrl(_) => Capability::BootOnce,
            Self::BootOrder | Self::BootFirst(..) => Capability::BootOrder,
            Self::Bios | Self::StageBios(_) | Self::StagedBios => Capability::Bios,
            Self::Password(..) | Self::Accounts | Self::Account(_) => Capability::Accounts,
            Self::Media | Self::InsertMedia(_) | Self::EjectMedia => Capability::Media,
            Self::Sensors | Self::Health => Capability::Sensors,
            Self::EventLog(_) => Capability::EventLog,
            Self::Lan | Self::SetLan(_) => Capability::Lan,
            Self::Clock | Self::SetClock(_) => Capability::Clock,
        }
    }

    /// IPMI has no words for it.
    pub(super) const fn redfish_alone(&self) -> bool {
        matches!(
            self,
            Self::Bios
                | Self::StageBios(_)
                | Self::StagedBios
                | Self::BootOrder
                | Self::BootUrl(_)
                | Self::Media
                | Self::InsertMedia(_)
                | Self::EjectMedia
        )
    }

    /// Done twice it is as done once. A machine that is reset twice is not; who set a password and asks again with the
    /// old one is a stranger; and an account that was made is refused the second time.
    pub(super) const fn may_be_repeated(&self) -> bool {
        !matches!(
            self,
            Self::Power(Button::Shutdown | Button::Cycle | Button::Reset)
                | Self::Password(..)
                | Self::Account(AccountChange::Add(_) | AccountChange::Remove(_))
        )
    }

    /// It changes something, or reads what makers place differently.
    pub(super) const fn needs_quirks(&self) -> bool {
        !matches!(
            self,
            Self::PowerState | Self::GetBoot | Self::Accounts | Self::Lan | Self::SetLan(_)
        )
    }
}

/// What a way can do to power in one request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Button {
    On,
    Off,
    Shutdown,
    Cycle,
    Reset,
}

#[derive(Debug)]
pub(super) enum Answer {
    Identity(BmcIdentity),
    Power(PowerState),
    Boot(BootOverride),
    /// Done; `false` when this BMC has no such button.
    Done(bool),
    Bios(BiosAttributes),
    Staged(Staged),
    Waiting(BTreeMap<String, String>),
    Order(Vec<BootOption>),
    Media(Vec<MediaDrive>),
    Sensors(Vec<Sensor>),
    Log(Vec<LogLine>),
    Health(Health),
    Accounts(Vec<BmcAccount>),
    Lan(LanSettings),
    /// `None`: nobody set it since the BMC started.
    Clock(Option<Timestamp>),
}

/// The ways to a BMC, best first.
pub(super) struct Ways {
    pub(super) redfish: Redfish,
    pub(super) ipmi: Ipmi,
    pub(super) chosen: Option<Interface>,
    /// When Redfish, which worked and fell silent, is tried again.
    pub(super) redfish_again: Option<Instant>,
    pub(super) judged: bool,
}

impl Ways {
    pub(super) async fn redfish_answer(&mut self, ask: &Ask) -> Result<Answer, Error> {
        let way = &mut self.redfish;
        let done = Answer::Done(true);
        Ok(match ask {
            Ask::Identify => Answer::Identity(way.identify().await?),
            Ask::PowerState => Answer::Power(way.power_state().await?),
            Ask::GetBoot => Answer::Boot(way.get_boot().await?),
            Ask::SetBoot(target, mode) => way.set_boot_once(target, *mode).await.map(|()| done)?,
            Ask::Power(button) => Answer::Done(way.reset(resets(*button)).await?),
            Ask::Bios => Answer::Bios(way.bios_attributes().await?),
            Ask::StageBios(wanted) => Answer::Staged(way.stage_bios(wanted).await?),
            Ask::StagedBios => Answer::Waiting(way.staged_bios().await?),
            Ask::BootOrder => Answer::Order(way.boot_order().await?),
            Ask::BootFirst(target, mode) => way.set_boot_first(target, *mode).await.map(|()| done)?,
            Ask::BootUrl(url) => way.set_boot_url(url).await.map(|()| done)?,
            Ask::Password(user, new) => way.change_password(user, new).await.map(|()| done)?,
            Ask::Media => Answer::Media(way.media().await?),
            Ask::InsertMedia(url) => way.insert_media(url).await.map(|()| done)?,
            Ask::EjectMedia => way.eject_media().await.map(|()| done)?,
            Ask::Sensors => Answer::Sensors(way.sensors().await?),
            Ask::EventLog(limit) => Answer::Log(way.event_log(*limit).await?),
            Ask::Health => Answer::Health(way.health().await?),
            Ask::Clock => Answer::Clock(way.clock().await?),
            Ask::SetClock(now) => way.set_clock(*now).await.map(|()| done)?,
            Ask::Accounts => Answer::Accounts(way.accounts().await?),
            Ask::Account(change) => way.change_account(change).await.map(|()| done)?,
            // Through the oldest interface, which all of them still have.
            Ask::Lan | Ask::SetLan(_) => return Err(way.leaves_to_ipmi(&format!("{ask:?}"))),
        })
    }

    pub(super) async fn ipmi_answer(&mut self, ask: &Ask) -> Result<Answer, Error> {
        let way = &mut self.ipmi;
        let done = Answer::Done(true);
        match ask {
            Ask::Identify => {}
            ask if ask.redfish_alone() => {}
            Ask::Lan | Ask::SetLan(_) => way.is_the_one().await?,
            // Redfish has just answered that it lacks this, with the right certificate. A BMC with two ports may have a MAC
            // address for each.
            _ if self.chosen == Some(Interface::Redfish) => way.is_vouched_for().await?,
            _ => way.is_the_one().await?,
        }
        Ok(match ask {
            Ask::Identify => Answer::Identity(way.identify().await?),
            Ask::PowerState => Answer::Power(way.power_state().await?),
            Ask::GetBoot => Answer::Boot(way.get_boot().await?),
            Ask::SetBoot(target, mode) => way.set_boot_once(target, *mode).await.map(|()| done)?,
            Ask::Power(button) => way.control(control(*button)).await.map(|()| done)?,
            Ask::BootFirst(target, mode) => way.set_boot_first(target, *mode).await.map(|()| done)?,
            Ask::Password(user, new) => way.change_password(user, new).await.map(|()| done)?,
            Ask::Sensors => Answer::Sensors(way.sensors().await?),
            Ask::EventLog(limit) => Answer::Log(way.event_log(*limit).await?),
            Ask::Health => Answer::Health(way.health().await?),
            Ask::Accounts => Answer::Accounts(way.accounts().await?),
            Ask::Account(change) => way.change_account(change).await.map(|()| done)?,
            Ask::Lan => Answer::Lan(way.lan().await?),
            Ask::SetLan(wanted) => way.set_lan(wanted).await.map(|()| done)?,
            Ask::Clock => Answer::Clock(way.clock().await?),
            Ask::SetClock(now) => way.set_clock(*now).await.map(|()| done)?,
            Ask::Bios
            | Ask::StageBios(_)
            | Ask::StagedBios
            | Ask::BootOrder
            | Ask::BootUrl(_)
            | Ask::Media
            | Ask::InsertMedia(_)
            | Ask::EjectMedia => return Err(way.lacks(&format!("{ask:?}"))),
        })
    }
}

/// Reset types (DSP0268, `ComputerSystem.Reset`), best first.
const fn resets(button: Button) -> &'static [&'static str] {
    match button {
        Button::On => &["On", "ForceOn", "PushPowerButton"],
        Button::Off => &["ForceOff"],
        Button::Shutdown => &["GracefulShutdown", "PushPowerButton"],
        Button::Cycle => &["PowerCycle"],
        Button::Reset => &["ForceRestart"],
    }
}

const fn control(button: Button) -> ChassisControl {
    match button {
        Button::On => ChassisControl::PowerUp,
        Button::Off => ChassisControl::PowerDown,
        Button::Shutdown => ChassisControl::SoftShutdown,
        Button::Cycle => ChassisControl::PowerCycle,
        Button::Reset => ChassisControl::HardReset,
    }
}

//! Firmware settings, boot order, accounts, media, sensors, logs and the console of a BMC.

use std::collections::BTreeMap;
use std::sync::Arc;

use rackbar_model::{FirmwareMode, Timestamp};
use zeroize::Zeroizing;

use super::Bmc;
use super::ask::{Answer, Ask};
use crate::error::{Cause, Error, Interface};
use crate::ipmi::Ipmi;
use crate::redfish::Redfish;
use crate::{
    AccountChange, BiosAttributes, BmcAccount, BootOption, BootTarget, Credentials, Health, LanSettings, LogLine,
    MediaDrive, Sensor, SolStream, Staged,
};

/// Takes the one answer that fits, or says that another came.
macro_rules! expect {
    ($self:ident, $ask:expr, $answer:path) => {
        match $self.ask($ask).await? {
            (_, $answer(value)) => Ok(value),
            (interface, _) => Err($self.mixed_up(interface)),
        }
    };
}

impl Bmc {
    /// All firmware settings with their present values, and what the attribute registry says of them. Redfish alone.
    ///
    /// # Errors
    /// As [`Self::identify`], or [`Cause::Unsupported`] where the BMC shows no settings.
    pub async fn bios_attributes(&self) -> Result<BiosAttributes, Error> {
        expect!(self, Ask::Bios, Answer::Bios)
    }

    /// Sends firmware settings that take effect with the next reset; those that are so already are left out. Names and
    /// values are checked first against what the machine has and its registry allows.
    ///
    /// # Errors
    /// As [`Self::bios_attributes`]; [`Cause::NotAllowed`] with a sentence per setting, and nothing sent, where one does
    /// not exist or may not have its value.
    pub async fn stage_bios(&self, wanted: &BTreeMap<String, String>) -> Result<Staged, Error> {
        expect!(self, Ask::StageBios(wanted.clone()), Answer::Staged)
    }

    /// The settings that wait for the next reset, with the values they will have.
    ///
    /// # Errors
    /// As [`Self::bios_attributes`].
    pub async fn staged_bios(&self) -> Result<BTreeMap<String, String>, Error> {
        expect!(self, Ask::StagedBios, Answer::Waiting)
    }

    /// The firmware's own boot order. Redfish alone.
    ///
    /// # Errors
    /// As [`Self::identify`], or [`Cause::Unsupported`] where the BMC shows none; it may still take
    /// [`Self::set_boot_first`].
    pub async fn boot_order(&self) -> Result<Vec<BootOption>, Error> {
        expect!(self, Ask::BootOrder, Answer::Order)
    }

    /// Boots from `target` first from now on, and reads that back: the boot order where the BMC shows one, else a lasting
    /// override, over Redfish or IPMI. It may wait for the next reset.
    ///
    /// # Errors
    /// As [`Self::identify`]; [`Cause::NotSeen`] when the BMC took it but does not show it.
    pub async fn set_boot_first(&self, target: BootTarget, mode: Option<FirmwareMode>) -> Result<(), Error> {
        self.ask(Ask::BootFirst(target, mode)).await.map(drop)
    }

    /// The next boot fetches this URL by UEFI HTTP boot. Redfish alone.
    ///
    /// # Errors
    /// As [`Self::identify`], or [`Cause::Unsupported`].
    pub async fn set_boot_url(&self, url: &str) -> Result<(), Error> {
        self.ask(Ask::BootUrl(url.to_owned())).await.map(drop)
    }

    /// Sets a user's password, and nothing else: this BMC goes on with the credentials it was given. Only
    /// [`Self::verify_login`] shows whether it took. Between the two a caller writes down that both may be true.
    ///
    /// # Errors
    /// As [`Self::identify`]; [`Cause::NotAllowed`] where the BMC's rules forbid the password, [`Cause::Refused`] with
    /// its words where it says so itself. After [`Cause::Unanswered`] it may have been carried out.
    pub async fn change_password(&self, user: &str, new: &str) -> Result<(), Error> {
        let new = Zeroizing::new(new.to_owned());
        self.ask(Ask::Password(user.to_owned(), new)).await.map(drop)
    }

    /// Logs in anew with this user and password, with one attempt, through the way in use; the session is given back.
    /// When it works and the user is the one this BMC is spoken to as, the password counts from now on.
    ///
    /// # Errors
    /// [`Cause::Unauthorized`] when it does not work; else as [`Self::identify`].
    pub async fn verify_login(&self, user: &str, password: &str) -> Result<(), Error> {
        let credentials = Credentials::new(user, password);
        let waiting = self.keeper.queue();
        let mut ways = self.ways.lock().await;
        drop(waiting);
        self.in_peace("login")?;
        let in_flight = self.keeper.begin();
        let mut redfish = Redfish::new(
            self.address,
            self.timing,
            credentials.clone(),
            Arc::clone(&self.pin),
            Arc::clone(&self.pace),
        );
        redfish.treat(self.verdict().quirks);
        redfish.count_in(Arc::clone(&self.attempts));
        let mut proven = match ways.chosen {
            Some(Interface::Ipmi) => Err(redfish.leaves_to_ipmi("login")),
            _ => redfish.prove().await,
        };
        // Where Redfish got as far as a refusal, the attempt is spent.
        if proven.as_ref().is_err_and(|error| error.cause.another_way_may_help()) {
            let mut ipmi = Ipmi::new(self.address, self.timing, credentials.clone(), Arc::clone(&self.pace));
            ipmi.count_in(Arc::clone(&self.attempts));
            proven = ipmi.prove().await;
        }
        drop(in_flight);
        match &proven {
            Err(Error {
                cause: Cause::Unreachable(_) | Cause::Unanswered(_),
                ..
            }) => self.keeper.overworked(),
            proven => self.keeper.answered(proven.is_ok()),
        }
        if proven.is_ok() {
            ways.adopt(&credentials).await;
        }
        proven
    }

    /// The drives whose images the BMC fetches, and what is in them. Redfish alone.
    ///
    /// # Errors
    /// As [`Self::identify`], or [`Cause::Unsupported`] where there is none.
    pub async fn media(&self) -> Result<Vec<MediaDrive>, Error> {
        expect!(self, Ask::Media, Answer::Media)
    }

    /// Puts the image at a URL, which the BMC fetches, into the virtual CD drive. Redfish alone.
    ///
    /// # Errors
    /// As [`Self::identify`], or [`Cause::Unsupported`] where there is no drive.
    pub async fn insert_media(&self, url: &str) -> Result<(), Error> {
        self.ask(Ask::InsertMedia(url.to_owned())).await.map(drop)
    }

    /// Takes the image out of the virtual CD drive. Redfish alone.
    ///
    /// # Errors
    /// As [`Self::insert_media`].
    pub async fn eject_media(&self) -> Result<(), Error> {
        self.ask(Ask::EjectMedia).await.map(drop)
    }

    /// What all sensors read.
    ///
    /// # Errors
    /// As [`Self::identify`].
    pub async fn sensors(&self) -> Result<Vec<Sensor>, Error> {
        expect!(self, Ask::Sensors, Answer::Sensors)
    }

    /// The latest `limit` lines of the hardware's event log, newest first.
    ///
    /// # Errors
    /// As [`Self::identify`].
    pub async fn event_log(&self, limit: usize) -> Result<Vec<LogLine>, Error> {
        expect!(self, Ask::EventLog(limit), Answer::Log)
    }

    /// How the machine is, in the BMC's judgement.
    ///
    /// # Errors
    /// As [`Self::identify`].
    pub async fn health(&self) -> Result<Health, Error> {
        expect!(self, Ask::Health, Answer::Health)
    }

    /// The BMC's own clock; `None` when nobody set it since the BMC started.
    ///
    /// # Errors
    /// As [`Self::identify`], or [`Cause::Unsupported`] where it tells no time.
    pub async fn clock(&self) -> Result<Option<Timestamp>, Error> {
        expect!(self, Ask::Clock, Answer::Clock)
    }

    /// Sets the BMC's own clock, to the second.
    ///
    /// # Errors
    /// As [`Self::clock`]; [`Cause::NotAllowed`] where the BMC follows NTP servers of its own: those are to be looked at.
    pub async fn set_clock(&self, now: Timestamp) -> Result<(), Error> {
        self.ask(Ask::SetClock(now)).await.map(drop)
    }

    /// The accounts, by their numbers in the BMC; empty slots are left out.
    ///
    /// # Errors
    /// As [`Self::identify`], or [`Cause::Unsupported`] where neither way tells them.
    pub async fn accounts(&self) -> Result<Vec<BmcAccount>, Error> {
        expect!(self, Ask::Accounts, Answer::Accounts)
    }

    /// Makes, enables, disables or removes an account, and reads that back. An account that was made has also proven
    /// its password; one that does not is taken away again. Over Redfish (DSP0268 `ManagerAccount`) or IPMI (sections
    /// 22.26 to 22.30). What is so already is no change.
    ///
    /// # Errors
    /// As [`Self::accounts`]; [`Cause::NotAllowed`], and nothing sent, where the account is the one that this BMC is
    /// spoken to with or the last administrator that can log in, or where it cannot be made; [`Cause::NotSeen`] when the
    /// BMC took the change but does not show it. After [`Cause::Unanswered`] it may have been carried out.
    pub async fn change_account(&self, change: &AccountChange) -> Result<(), Error> {
        self.ask(Ask::Account(change.clone())).await.map(drop)
    }

    /// The BMC's own network settings. IPMI alone.
    ///
    /// # Errors
    /// As [`Self::identify`].
    pub async fn lan(&self) -> Result<LanSettings, Error> {
        expect!(self, Ask::Lan, Answer::Lan)
    }

    /// Sets the BMC's own network settings; afterwards it may be elsewhere. IPMI alone.
    ///
    /// # Errors
    /// As [`Self::identify`].
    pub async fn set_lan(&self, wanted: &LanSettings) -> Result<(), Error> {
        self.ask(Ask::SetLan(wanted.clone())).await.map(drop)
    }

    /// The machine's serial console, live, over IPMI in a session of its own: requests go on beside it.
    ///
    /// # Errors
    /// As [`Self::identify`], or when the BMC has serial over LAN switched off.
    pub async fn console(&self) -> Result<SolStream, Error> {
        let twin = self.ways.lock().await.ipmi.twin();
        crate::console::open(twin).await
    }
}

impl super::Ways {
    /// These credentials count from now on, if they are of the user we are.
    async fn adopt(&mut self, credentials: &Credentials) {
        if credentials.user == self.ipmi.credentials().user {
            self.redfish.be(credentials.clone()).await;
            self.ipmi.be(credentials.clone()).await;
        }
    }
}

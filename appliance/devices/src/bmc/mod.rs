//! One BMC, spoken to through the best way it offers.
//!
//! Ways ("hammers") are ranked: Redfish, then IPMI. The first that works is kept; which and why is there to be read.
//! When it stops working the choice is made anew, and Redfish that worked before is tried again after a rest. A wrong password or a changed certificate never leads to another way:
//! the first would lock the account, the second may be somebody in between.

//!
//! ```text
//!  mod    power, boot, the queue and the choice of a way      ask    what is asked, through either way
//!  more   settings, boot order, accounts, media, sensors, logs, console
//! ```

mod ask;
mod more;

use core::fmt;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use rackbar_hw_profiles::{Profiles, Subject, Verdict};
use rackbar_model::{FirmwareMode, MacAddr, PowerAction, PowerState};
use tokio::time::{Instant, sleep};

use crate::budget::Keeper;
use crate::error::{Cause, Error, Interface};
use crate::ipmi::Ipmi;
use crate::pace::Pace;
use crate::redfish::Redfish;
use crate::tls::Pin;
use crate::{Attempts, BmcAddress, BmcIdentity, BootOverride, BootTarget, Budget, Credentials, Fingerprint, Timing};
pub use ask::Capability;
use ask::{Answer, Ask, Button, Ways};

/// Changes of the way that are kept for who tells them.
const TURNS_KEPT: usize = 16;

/// Which way was chosen, and why.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Choice {
    /// The way.
    pub interface: Interface,
    /// Why, in words.
    pub reason: String,
}

/// A change from one way to the other.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Turn {
    /// What goes the other way now; `None` for all that can.
    pub capability: Option<Capability>,
    /// The way it goes now, and why.
    pub to: Choice,
}

impl fmt::Display for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.capability {
            Some(capability) => write!(f, "BMC: {}", capability.words())?,
            None => f.write_str("BMC: everything that can")?,
        }
        write!(f, " goes through {} from now on: {}", self.to.interface, self.to.reason)
    }
}

/// A BMC. Requests queue up; one is on its way at a time.
pub struct Bmc {
    address: BmcAddress,
    timing: Timing,
    profiles: Arc<Profiles>,
    pin: Arc<Pin>,
    pace: Arc<Pace>,
    attempts: Arc<Attempts>,
    keeper: Keeper,
    told: Mutex<Told>,
    ways: tokio::sync::Mutex<Ways>,
}

/// What can be read without waiting for the queue.
#[derive(Default)]
struct Told {
    choice: Option<Choice>,
    by_capability: BTreeMap<Capability, Choice>,
    verdict: Verdict,
    wants_another_password: bool,
    /// Changes that nobody took yet, oldest first.
    turns: Vec<Turn>,
}

impl Told {
    /// Keeps a change until somebody takes it. Of a BMC that nobody asks about, the oldest are of no use any more.
    fn turn(&mut self, capability: Option<Capability>, to: &Choice) {
        if self.turns.len() >= TURNS_KEPT {
            self.turns.remove(0);
        }
        let to = to.clone();
        self.turns.push(Turn { capability, to });
    }
}

impl Bmc {
    /// A BMC at an address. `pinned` is the certificate it showed before; without one the first seen is pinned.
    pub fn new(
        address: BmcAddress,
        credentials: Credentials,
        pinned: Option<Fingerprint>,
        profiles: Arc<Profiles>,
        timing: Timing,
    ) -> Self {
        let pin = Pin::new(pinned);
        let pace = Arc::new(Pace::default());
        let ways = Ways {
            redfish: Redfish::new(
                address,
                timing,
                credentials.clone(),
                Arc::clone(&pin),
                Arc::clone(&pace),
            ),
            ipmi: Ipmi::new(address, timing, credentials, Arc::clone(&pace)),
            chosen: None,
            redfish_again: None,
            judged: false,
        };
        let (keeper, told) = (Keeper::default(), Mutex::default());
        let attempts = Arc::new(Attempts::new(timing.wrong_passwords));
        Self {
            address,
            timing,
            profiles,
            pin,
            pace,
            attempts: Arc::clone(&attempts),
            keeper,
            told,
            ways: tokio::sync::Mutex::new(ways),
        }
        .counted_in(&attempts)
    }

    /// The same, known by the MAC address of its LAN interface. IPMI shows no certificate: over it, whoever answers with
    /// another MAC address is asked nothing but who it is.
    #[must_use]
    pub fn known_by(mut self, mac: Option<MacAddr>) -> Self {
        self.ways.get_mut().ipmi.mean(mac);
        self
    }

    /// The same, with its wrong passwords counted in `attempts`, beside those of others who log in to this BMC.
    #[must_use]
    pub fn counted_in(mut self, attempts: &Arc<Attempts>) -> Self {
        let ways = self.ways.get_mut();
        ways.redfish.count_in(Arc::clone(attempts));
        ways.ipmi.count_in(Arc::clone(attempts));
        self.attempts = Arc::clone(attempts);
        self
    }

    /// It took the login, and does nothing for it but change its password.
    pub fn wants_another_password(&self) -> bool {
        self.with_told(|told| told.wants_another_password)
    }

    /// Its address.
    pub const fn address(&self) -> BmcAddress {
        self.address
    }

    /// The certificate it is known by, to be kept and given to [`Self::new`] next time.
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        self.pin.known().pinned
    }

    /// The way chosen last, and why.
    pub fn choice(&self) -> Option<Choice> {
        self.with_told(|told| told.choice.clone())
    }

    /// The way each capability went last, and why: a single thing that Redfish lacks goes through IPMI while the rest
    /// stays.
    pub fn choices(&self) -> BTreeMap<Capability, Choice> {
        self.with_told(|told| told.by_capability.clone())
    }

    /// Changes from one way to the other since this was asked last, oldest first. Which way is taken at first is none,
    /// unless that is IPMI.
    pub fn take_turns(&self) -> Vec<Turn> {
        self.with_told(|told| std::mem::take(&mut told.turns))
    }

    /// The quirks in force and the profiles they come from; known after [`Self::identify`].
    pub fn verdict(&self) -> Verdict {
        self.with_told(|told| told.verdict.clone())
    }

    /// What it was asked so far.
    pub fn budget(&self) -> Budget {
        self.keeper.budget()
    }

    fn with_told<T>(&self, act: impl FnOnce(&mut Told) -> T) -> T {
        act(&mut self.told.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Who it is and what it manages.
    ///
    /// # Errors
    /// When no way leads there, the login is refused, or the certificate changed.
    pub async fn identify(&self) -> Result<BmcIdentity, Error> {
        match self.ask(Ask::Identify).await? {
            (_, Answer::Identity(identity)) => Ok(identity),
            (interface, _) => Err(self.mixed_up(interface)),
        }
    }

    /// The machine's power.
    ///
    /// # Errors
    /// As [`Self::identify`].
    pub async fn power_state(&self) -> Result<PowerState, Error> {
        match self.ask(Ask::PowerState).await? {
            (_, Answer::Power(state)) => Ok(state),
            (interface, _) => Err(self.mixed_up(interface)),
        }
    }

    /// The boot override in force.
    ///
    /// # Errors
    /// As [`Self::identify`].
    pub async fn get_boot(&self) -> Result<BootOverride, Error> {
        match self.ask(Ask::GetBoot).await? {
            (_, Answer::Boot(boot)) => Ok(boot),
            (interface, _) => Err(self.mixed_up(interface)),
        }
    }

    /// Sets where the next boot comes from. `mode` names the firmware mode when it is known; `None` leaves it to the
    /// BMC (Redfish) or asks for UEFI (IPMI, which cannot leave it open).
    ///
    /// # Errors
    /// As [`Self::identify`], or when the BMC does not offer the target.
    pub async fn set_boot_once(&self, target: BootTarget, mode: Option<FirmwareMode>) -> Result<(), Error> {
        self.ask(Ask::SetBoot(target, mode)).await.map(drop)
    }

    /// Does something to the machine's power. `On`, `Off` and `Shutdown` do nothing when the machine is there already;
    /// `Cycle` and `Netboot` switch a machine on that is off. Returns when the BMC took it, after waiting for "off" in
    /// between where the action needs it.
    ///
    /// # Errors
    /// As [`Self::identify`], or when the BMC refuses.
    pub async fn power(&self, action: PowerAction) -> Result<(), Error> {
        let state = self.power_state().await?;
        let off = state == PowerState::Off;
        match action {
            PowerAction::On if state == PowerState::On => Ok(()),
            PowerAction::On => self.press(Button::On).await,
            PowerAction::Off | PowerAction::Shutdown if off => Ok(()),
            PowerAction::Off => self.press(Button::Off).await,
            PowerAction::Shutdown => self.press(Button::Shutdown).await,
            PowerAction::Cycle if off => self.press(Button::On).await,
            PowerAction::Cycle => self.cycle().await,
            PowerAction::Reset if off => {
                let cause = Cause::Refused {
                    code: 409,
                    message: "the machine is off; switch it on instead".to_owned(),
                };
                Err(self.error(self.interface(), "reset", cause))
            }
            PowerAction::Reset => self.restart().await,
            PowerAction::Netboot => self.to_network(off, None).await,
        }
    }

    /// As [`Self::power`] with `Netboot`, for firmware whose mode is known: over IPMI a machine in BIOS mode takes no
    /// request for UEFI, or changes its mode for it (table 28-14, data 1 bit 5).
    ///
    /// # Errors
    /// As [`Self::power`].
    pub async fn netboot(&self, mode: Option<FirmwareMode>) -> Result<(), Error> {
        let off = self.power_state().await? == PowerState::Off;
        self.to_network(off, mode).await
    }

    async fn to_network(&self, off: bool, mode: Option<FirmwareMode>) -> Result<(), Error> {
        self.set_boot_once(BootTarget::Network, mode).await?;
        if off {
            self.press(Button::On).await
        } else {
            self.restart().await
        }
    }

    /// Ends the session, so that the BMC gets its slot back.
    pub async fn close(&self) {
        let mut ways = self.ways.lock().await;
        ways.redfish.log_out().await;
        ways.ipmi.close().await;
    }

    /// Reset, or off and on where the machine needs that.
    async fn restart(&self) -> Result<(), Error> {
        if self.with_told(|told| told.verdict.quirks.reset_needs_force_off) || !self.try_press(Button::Reset).await? {
            return self.cycle().await;
        }
        Ok(())
    }

    async fn cycle(&self) -> Result<(), Error> {
        if !self.with_told(|told| told.verdict.quirks.reset_needs_force_off) && self.try_press(Button::Cycle).await? {
            return Ok(());
        }
        self.press(Button::Off).await?;
        self.wait_for(PowerState::Off).await?;
        self.press(Button::On).await
    }

    async fn wait_for(&self, wanted: PowerState) -> Result<(), Error> {
        let start = Instant::now();
        while self.power_state().await? != wanted {
            if start.elapsed() >= self.timing.settle {
                let cause = Cause::NotSeen {
                    what: format!("power {wanted:?}"),
                    after: self.timing.settle,
                };
                return Err(self.error(self.interface(), "power", cause));
            }
            sleep(self.timing.look).await;
        }
        Ok(())
    }

    async fn press(&self, button: Button) -> Result<(), Error> {
        if self.try_press(button).await? {
            return Ok(());
        }
        let cause = Cause::Unsupported(format!("the BMC offers no {button:?}"));
        Err(self.error(self.interface(), "reset", cause))
    }

    async fn try_press(&self, button: Button) -> Result<bool, Error> {
        match self.ask(Ask::Power(button)).await? {
            (_, Answer::Done(done)) => Ok(done),
            (interface, _) => Err(self.mixed_up(interface)),
        }
    }

    fn interface(&self) -> Interface {
        self.choice().map_or(Interface::Redfish, |choice| choice.interface)
    }

    fn error(&self, interface: Interface, request: &str, cause: Cause) -> Error {
        Error {
            address: self.address.ip,
            interface,
            request: request.to_owned(),
            cause,
        }
    }

    fn mixed_up(&self, interface: Interface) -> Error {
        self.error(
            interface,
            "answer",
            Cause::Malformed("answer of another request".to_owned()),
        )
    }

    /// Refuses while the BMC is left in peace.
    fn in_peace(&self, request: &str) -> Result<(), Error> {
        let budget = self.keeper.budget();
        if budget.peace.is_zero() {
            return Ok(());
        }
        let cause = Cause::BackingOff {
            wait: budget.peace,
            failures: budget.failures_in_a_row,
        };
        Err(self.error(self.interface(), request, cause))
    }

    /// Waits for its turn, then asks through the chosen way, choosing it first if need be.
    async fn ask(&self, ask: Ask) -> Result<(Interface, Answer), Error> {
        let waiting = self.keeper.queue();
        let mut ways = self.ways.lock().await;
        drop(waiting);
        self.in_peace(&format!("{ask:?}"))?;
        let in_flight = self.keeper.begin();
        let result = self.ask_ranked(&mut ways, &ask).await;
        if self.with_told(|told| told.verdict.quirks.session_given_back) {
            ways.redfish.log_out().await;
        }
        drop(in_flight);
        let wants = |error: &Error| matches!(error.cause, Cause::PasswordChangeRequired { .. });
        self.with_told(|told| told.wants_another_password = result.as_ref().is_err_and(wants));
        match &result {
            Ok(_) => self.keeper.answered(true),
            Err(Error {
                cause:
                    Cause::Unreachable(_)
                    | Cause::Unanswered(_)
                    | Cause::Refused {
                        code: 429 | 503 | 0xc0, ..
                    },
                ..
            }) => {
                ways.chosen = None;
                self.keeper.overworked();
            }
            Err(_) => self.keeper.answered(false),
        }
        result
    }

    async fn ask_ranked(&self, ways: &mut Ways, ask: &Ask) -> Result<(Interface, Answer), Error> {
        // What only Redfish can do is asked there even when everything else goes through IPMI: it may be back.
        // So is everything once the rest is over that a silent Redfish service was given, if it ever worked.
        let rested = ways.redfish_again.is_some_and(|again| again <= Instant::now());
        if ways.chosen == Some(Interface::Ipmi) && !ask.redfish_alone() && !rested {
            let answer = ways.ipmi_answer(ask).await?;
            self.note(ask, Interface::Ipmi, || {
                self.choice().map_or_else(String::new, |choice| choice.reason)
            });
            return Ok((Interface::Ipmi, answer));
        }
        let refused = match self.ask_redfish(ways, ask).await {
            Ok(answer) => {
                if ways.chosen.is_none() || rested {
                    self.choose(ways, Interface::Redfish, "it ranks first and works".to_owned());
                }
                self.note(ask, Interface::Redfish, || "it ranks first and works".to_owned());
                return Ok((Interface::Redfish, answer));
            }
            Err(error) if error.cause.another_way_may_help() => error,
            Err(error) if matches!(error.cause, Cause::Unanswered(_)) && ask.may_be_repeated() => error,
            Err(error) => return Err(error),
        };
        if ask.redfish_alone() {
            return Err(refused);
        }
        // A single thing Redfish lacks is done by IPMI without giving Redfish up.
        let single = matches!(refused.cause, Cause::Unsupported(_)) && ways.chosen.is_some();
        if !single {
            // Whoever answers over IPMI has to say who it is.
            ways.chosen = None;
        }
        match ways.ipmi_answer(ask).await {
            Ok(answer) => {
                let suite = ways.ipmi.suite().map_or(0, |suite| suite.id());
                let reason = format!("suite {suite}; Redfish: {}", refused.cause);
                if !single {
                    self.choose(ways, Interface::Ipmi, reason.clone());
                }
                self.note(ask, Interface::Ipmi, || reason.clone());
                Ok((Interface::Ipmi, answer))
            }
            // Neither way: the first reason is the better one, unless IPMI got further.
            Err(Error {
                cause: Cause::Unreachable(_) | Cause::Unsupported(_),
                ..
            }) => Err(refused),
            Err(error) => Err(error),
        }
    }

    fn note(&self, ask: &Ask, interface: Interface, reason: impl Fn() -> String) {
        // Before the lock: the reason may be one that is told.
        let choice = Choice {
            interface,
            reason: reason(),
        };
        let capability = ask.capability();
        self.with_told(|told| {
            let before = told.by_capability.insert(capability, choice.clone());
            let other = told.choice.as_ref().is_some_and(|all| all.interface != interface);
            // With the others it changes when they do, which is told of all of them.
            if other && before.is_none_or(|before| before.interface != interface) {
                told.turn(Some(capability), &choice);
            }
        });
    }

    fn choose(&self, ways: &mut Ways, interface: Interface, reason: String) {
        tracing::debug!(bmc = %self.address.ip, %interface, reason, "way to the BMC chosen");
        ways.chosen = Some(interface);
        let silent = interface == Interface::Ipmi && ways.judged;
        ways.redfish_again = silent.then(|| Instant::now() + self.timing.settle);
        let choice = Choice { interface, reason };
        self.with_told(|told| {
            let before = told.choice.replace(choice.clone());
            if before.map_or(Interface::Redfish, |before| before.interface) != interface {
                told.turn(None, &choice);
            }
        });
    }

    /// Asks through Redfish. Quirks must be known before the first change: whoever changes something without having
    /// identified the machine pays for one look at it.
    async fn ask_redfish(&self, ways: &mut Ways, ask: &Ask) -> Result<Answer, Error> {
        if ways.judged || !ask.needs_quirks() {
            return ways.redfish_answer(ask).await;
        }
        let identity = match ways.redfish.identify().await {
            // Nothing else is to be had until the password is another one, so that goes first.
            Err(Error {
                cause: Cause::PasswordChangeRequired { .. },
                ..
            }) if matches!(ask, Ask::Password(..)) => return ways.redfish_answer(ask).await,
            identity => identity?,
        };
        let subject = Subject {
            manufacturer: identity.manufacturer.clone().unwrap_or_default(),
            model: identity.model.clone().unwrap_or_default(),
            board: ways.redfish.board().await?.unwrap_or_default(),
            firmware: identity.firmware.clone().unwrap_or_default(),
        };
        let verdict = self.profiles.judge(&subject);
        ways.redfish.treat(verdict.quirks.clone());
        ways.ipmi.treat(&verdict.quirks);
        self.pace.treat(&verdict.quirks);
        ways.judged = true;
        self.with_told(|told| told.verdict = verdict);
        match ask {
            Ask::Identify => Ok(Answer::Identity(identity)),
            ask => ways.redfish_answer(ask).await,
        }
    }
}

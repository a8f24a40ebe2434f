//! Accounts and passwords (sections 22.26 to 22.30). IPMI has numbered slots, and no words for making or removing: an
//! account is a slot with a name, a password and rights; without a name the slot is empty.

use std::sync::Arc;

use rackbar_ipmi::command::user::{self, PasswordAction, THIS_CHANNEL, UserAccess};
use rackbar_ipmi::{CipherSuite, Privilege, Request, Secret};

use super::Ipmi;
use crate::account::{may_add, may_take_away, named};
use crate::error::{Cause, Error};
use crate::{AccountChange, AccountRole, BmcAccount, Credentials, NewAccount};

/// Longest password of the 16-byte form, the only one that BMCs without the 20-byte form take.
const OLD_MAX: usize = 16;

const SET_PASSWORD: &str = "Set User Password";
const SET_NAME: &str = "Set User Name";
const SET_ACCESS: &str = "Set User Access";

/// A slot. Its rights are those on the channel that we come through.
struct Slot {
    number: u8,
    name: String,
    access: UserAccess,
}

impl Ipmi {
    /// The accounts, without empty slots.
    pub(crate) async fn accounts(&mut self) -> Result<Vec<BmcAccount>, Error> {
        let slots = self.slots().await?;
        Ok(self.accounts_in(&slots))
    }

    /// Makes, enables, disables or removes an account, and reads that back. Of one that was made the password is tested.
    pub(crate) async fn change_account(&mut self, change: &AccountChange) -> Result<(), Error> {
        let slots = self.slots().await?;
        let accounts = self.accounts_in(&slots);
        let own = self.credentials.user.clone();
        match change {
            AccountChange::Add(new) => {
                may_add(&accounts, new).map_err(|cause| self.error(SET_NAME, cause))?;
                self.add_account(&slots, new).await
            }
            AccountChange::Enable { name, on } => {
                let found = named(&accounts, name).map_err(|cause| self.error(SET_PASSWORD, cause))?;
                if found.enabled == *on {
                    return Ok(());
                }
                if !on {
                    may_take_away(&accounts, name, &own).map_err(|cause| self.error(SET_PASSWORD, cause))?;
                }
                let slot = number_of(&slots, name);
                self.let_in(slot, *on).await?;
                self.shows(slot, name, |shown| shown.enabled == *on).await
            }
            AccountChange::Remove(name) => {
                may_take_away(&accounts, name, &own).map_err(|cause| self.error(SET_NAME, cause))?;
                self.empty(number_of(&slots, name)).await
            }
        }
    }

    /// Sets a user's password. Whether it took shows a login only.
    pub(crate) async fn change_password(&mut self, user: &str, new: &str) -> Result<(), Error> {
        let secret = self.secret(new)?;
        let slots = self.slots().await?;
        let accounts = self.accounts_in(&slots);
        named(&accounts, user).map_err(|cause| self.error(SET_PASSWORD, cause))?;
        self.with_password(number_of(&slots, user), PasswordAction::Set, &secret)
            .await
    }

    fn secret(&self, password: &str) -> Result<Secret, Error> {
        let most = self.password_bytes.min(Secret::MAX);
        let secret = Secret::new(password.as_bytes()).filter(|_| password.len() <= most);
        secret.ok_or_else(|| {
            let words = format!("IPMI passwords have at most {most} bytes on this BMC");
            self.error(SET_PASSWORD, Cause::NotAllowed(words))
        })
    }

    fn accounts_in(&self, slots: &[Slot]) -> Vec<BmcAccount> {
        let with_name = slots.iter().filter(|slot| !slot.name.is_empty());
        with_name.map(|slot| told(slot, &self.credentials.user)).collect()
    }

    /// Every slot. The BMC says how many there are, in six bits.
    async fn slots(&mut self) -> Result<Vec<Slot>, Error> {
        let mut slots = Vec::new();
        let (mut number, mut last) = (1, 1);
        while number <= last {
            let slot = self.slot(number).await?;
            last = last.max(slot.access.max_users);
            slots.push(slot);
            number += 1;
        }
        if slots.iter().all(|slot| slot.name.is_empty()) {
            let words = "this BMC tells no users over IPMI".to_owned();
            return Err(self.error("Get User Access", Cause::Unsupported(words)));
        }
        Ok(slots)
    }

    async fn slot(&mut self, number: u8) -> Result<Slot, Error> {
        let request = UserAccess::get(THIS_CHANNEL, number);
        let data = self.optional("Get User Access", request).await?;
        // Many BMCs answer "parameter out of range" for the name of an empty slot.
        let field = self.optional("Get User Name", user::get_name(number)).await?;
        Ok(Slot {
            number,
            name: user::decode_name(&field.unwrap_or_default()),
            access: data.and_then(|data| UserAccess::decode(&data).ok()).unwrap_or_default(),
        })
    }

    async fn add_account(&mut self, slots: &[Slot], new: &NewAccount) -> Result<(), Error> {
        let secret = self.secret(new.password())?;
        let Some(privilege) = privilege(new.role()) else {
            let words = format!("IPMI has no privilege {}", new.role());
            return Err(self.error(SET_ACCESS, Cause::NotAllowed(words)));
        };
        // Slot 1 is nobody's, and the names of the first so many are fixed (table 22-32).
        let fixed = slots
            .iter()
            .map(|slot| slot.access.fixed_names)
            .max()
            .unwrap_or(1)
            .max(1);
        let free = slots.iter().find(|slot| slot.number > fixed && slot.name.is_empty());
        let Some(slot) = free.map(|slot| slot.number) else {
            let words = "every account of this BMC is in use: remove one first".to_owned();
            return Err(self.error(SET_NAME, Cause::NotAllowed(words)));
        };
        match self.fill(slot, new, &secret, privilege).await {
            Ok(()) => Ok(()),
            Err(error) => {
                let undone = match self.empty(slot).await {
                    Ok(()) => "its slot is empty again".to_owned(),
                    // Silent then and now: whoever looks later finds what was made, with the error that counts.
                    Err(_) if matches!(error.cause, Cause::Unanswered(_) | Cause::Unreachable(_)) => return Err(error),
                    Err(error) => format!("slot {slot} could not be emptied again ({}), so do that", error.cause),
                };
                let message = format!("the account could not be made: {}; {undone}", error.cause);
                Err(self.error(&error.request, Cause::Refused { code: 409, message }))
            }
        }
    }

    /// Fills a slot. It may log in last of all, when everything else about it is as wanted.
    async fn fill(&mut self, slot: u8, new: &NewAccount, secret: &Secret, privilege: Privilege) -> Result<(), Error> {
        // An empty slot may be enabled from before. BMCs that have nothing to disable there say no.
        match self.let_in(slot, false).await {
            Ok(())
            | Err(Error {
                cause: Cause::Refused { .. } | Cause::Unsupported(_),
                ..
            }) => {}
            Err(error) => return Err(error),
        }
        self.command(SET_NAME, user::set_name(slot, new.name()), false).await?;
        self.with_password(slot, PasswordAction::Set, secret).await?;
        let access = UserAccess {
            messaging: true,
            privilege: Some(privilege),
            ..UserAccess::default()
        };
        self.command(SET_ACCESS, access.set(THIS_CHANNEL, slot), false).await?;
        self.let_in(slot, true).await?;
        self.shows(slot, new.name(), |shown| new.is(shown)).await?;
        self.proves(slot, new, secret, privilege).await
    }

    /// Tests the password of a new account (22.30, operation 11b); a BMC that knows no such test is logged in to.
    async fn proves(&mut self, slot: u8, new: &NewAccount, secret: &Secret, privilege: Privilege) -> Result<(), Error> {
        let name = "Set User Password, test";
        match self.with_password(slot, PasswordAction::Test, secret).await {
            Ok(()) => Ok(()),
            // 80h: it is not the one; 81h: it is, in the other form (table 22-35).
            Err(Error {
                cause: Cause::Refused { code: 0x80, .. },
                ..
            }) => {
                let words = "the BMC keeps another password than it was given".to_owned();
                Err(self.error(name, Cause::NotAllowed(words)))
            }
            Err(Error {
                cause: Cause::Refused { code: 0x81, .. },
                ..
            }) => self
                .command(name, short(slot, PasswordAction::Test, secret), false)
                .await
                .map(drop),
            Err(Error {
                cause: Cause::Refused { .. } | Cause::Unsupported(_) | Cause::NotAllowed(_),
                ..
            }) => {
                let credentials = Credentials::new(new.name(), new.password());
                let mut twin = Self::new(self.address, self.timing, credentials, Arc::clone(&self.pace));
                twin.count_in(Arc::clone(&self.attempts));
                // What an earlier account of this name was shown does not count for this one.
                self.attempts.right(new.name());
                let suite = self.agreed.map_or(CipherSuite::Seventeen, |(suite, _)| suite);
                let proven = twin.log_in_with(suite, privilege).await;
                twin.close().await;
                proven.map_err(|failed| self.login_error(failed.cause))
            }
            Err(error) => Err(error),
        }
    }

    /// Empties a slot: nobody logs in there, nothing is allowed, nobody is named.
    async fn empty(&mut self, slot: u8) -> Result<(), Error> {
        self.let_in(slot, false).await?;
        let none = UserAccess::default();
        self.command(SET_ACCESS, none.set(THIS_CHANNEL, slot), false).await?;
        if let Err(error) = self.command(SET_NAME, user::set_name(slot, ""), false).await {
            let Cause::Refused { code, message } = error.cause else {
                return Err(error);
            };
            let message =
                format!("it is disabled and may do nothing, but this BMC does not give its name up: {message}");
            return Err(self.error(SET_NAME, Cause::Refused { code, message }));
        }
        let left = self.slot(slot).await?;
        if left.name.is_empty() {
            return Ok(());
        }
        let what = format!("an empty slot {slot} (it shows {})", left.name);
        let after = self.timing.repeat;
        Err(self.error(SET_NAME, Cause::NotSeen { what, after }))
    }

    /// Lets the account of a slot log in, or not.
    async fn let_in(&mut self, slot: u8, on: bool) -> Result<(), Error> {
        let action = if on {
            PasswordAction::Enable
        } else {
            PasswordAction::Disable
        };
        let request = user::set_password(slot, action, None);
        match self.command(SET_PASSWORD, request.clone(), false).await {
            // Firmware that wants the password's field also where it means nothing.
            Err(Error {
                cause: Cause::Refused { code: 0xc7, .. },
                ..
            }) => {
                let mut request = request;
                request.data.resize(2 + OLD_MAX, 0);
                if let Some(first) = request.data.first_mut() {
                    *first = slot & 0x3f;
                }
                self.command(SET_PASSWORD, request, false).await.map(drop)
            }
            other => other.map(drop),
        }
    }

    /// Sets or tests a password, in the 20-byte form and, where the BMC does not know that, in the old one.
    async fn with_password(&mut self, slot: u8, action: PasswordAction, secret: &Secret) -> Result<(), Error> {
        let fits = secret.padded().iter().skip(OLD_MAX).all(|byte| *byte == 0);
        let request = user::set_password(slot, action, Some(secret));
        match self.command(SET_PASSWORD, request, false).await {
            // A BMC from before the 20-byte form: C7h, or CCh, for a request of that length.
            Err(Error {
                cause: Cause::Refused { code: 0xc7 | 0xcc, .. },
                ..
            }) if fits => self
                .command(SET_PASSWORD, short(slot, action, secret), false)
                .await
                .map(drop),
            Err(Error {
                cause: Cause::Refused { code: 0xc7 | 0xcc, .. },
                ..
            }) => {
                let words = "this BMC takes passwords of at most 16 bytes over IPMI".to_owned();
                Err(self.error(SET_PASSWORD, Cause::NotAllowed(words)))
            }
            other => other.map(drop),
        }
    }

    /// Reads an account back.
    async fn shows(&mut self, slot: u8, name: &str, fits: impl Fn(&BmcAccount) -> bool) -> Result<(), Error> {
        let found = self.slot(slot).await?;
        let shown = told(&found, &self.credentials.user);
        if shown.name == name && fits(&shown) {
            return Ok(());
        }
        let enabled = if shown.enabled { "enabled" } else { "disabled" };
        let what = format!(
            "account {name} (slot {slot} shows {:?} as {}, {enabled})",
            shown.name, shown.role
        );
        let after = self.timing.repeat;
        Err(self.error("Get User Access", Cause::NotSeen { what, after }))
    }
}

/// The slot of a name that is there once.
fn number_of(slots: &[Slot], name: &str) -> u8 {
    slots
        .iter()
        .find(|slot| slot.name == name)
        .map_or(0, |slot| slot.number)
}

fn told(slot: &Slot, own: &str) -> BmcAccount {
    BmcAccount {
        id: slot.number.to_string(),
        name: slot.name.clone(),
        role: match slot.access.privilege {
            Some(Privilege::Administrator) => AccountRole::Administrator,
            Some(Privilege::Operator) => AccountRole::Operator,
            Some(Privilege::User) => AccountRole::ReadOnly,
            Some(Privilege::Callback) => AccountRole::Other("Callback".to_owned()),
            None => AccountRole::Other("none over IPMI".to_owned()),
        },
        enabled: slot.access.enabled,
        locked: None,
        ours: slot.name == own,
    }
}

const fn privilege(role: &AccountRole) -> Option<Privilege> {
    match role {
        AccountRole::Administrator => Some(Privilege::Administrator),
        AccountRole::Operator => Some(Privilege::Operator),
        AccountRole::ReadOnly => Some(Privilege::User),
        AccountRole::Other(_) => None,
    }
}

/// Set User Password in its 16-byte form.
fn short(slot: u8, action: PasswordAction, secret: &Secret) -> Request {
    let mut request = user::set_password(slot, action, Some(secret));
    request.data.truncate(2 + OLD_MAX);
    if let Some(first) = request.data.first_mut() {
        *first = slot & 0x3f;
    }
    request
}

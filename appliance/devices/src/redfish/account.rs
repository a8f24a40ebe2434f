//! Accounts (DSP0266 section 13.2, DSP0268 `AccountService` and `ManagerAccount`): listing, making, enabling, removing
//! them, and passwords.
//!
//! There are two shapes of a collection of accounts. Where members come and go, one is made by POST and removed by DELETE.
//! Where they are fixed slots, as in IPMI, an empty slot is a member without a name: it is filled and emptied by PATCH.

use std::time::Duration;

use hyper::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{Redfish, location_path, view};
use crate::account::{MOST, may_add, may_take_away, named, short};
use crate::error::{Cause, Error};
use crate::{AccountChange, AccountRole, BmcAccount, Credentials, NewAccount};

/// Pages of the collection that are read; small BMCs give all accounts on one.
const PAGES: usize = 8;

/// How long a BMC may take to show what it took; none was seen to need more.
const SHOWN: Duration = Duration::from_secs(5);

/// Logins with a new account that are tried: some BMCs know it a moment later than they say.
const PROOFS: u32 = 2;

/// A member of the collection.
struct Slot {
    path: String,
    /// `None`: an empty slot that may be filled.
    account: Option<BmcAccount>,
}

/// The collection of accounts.
struct Slots {
    service: Value,
    path: String,
    /// False where the BMC says that nothing can be posted here.
    posts: bool,
    all: Vec<Slot>,
}

impl Slots {
    fn accounts(&self) -> Vec<BmcAccount> {
        self.all.iter().filter_map(|slot| slot.account.clone()).collect()
    }

    fn path_of(&self, account: &BmcAccount) -> Option<&str> {
        let holds = |slot: &&Slot| slot.account.as_ref() == Some(account);
        self.all.iter().find(holds).map(|slot| slot.path.as_str())
    }

    /// The empty slot to fill. The first is often reserved (slot 1 is IPMI's nameless user), so it comes last.
    fn empty(&self) -> Option<&str> {
        let mut free = self.all.iter().enumerate().filter(|(_, slot)| slot.account.is_none());
        let first = free.clone().next();
        let found = free.find(|(at, _)| *at > 0).or(first);
        found.map(|(_, slot)| slot.path.as_str())
    }
}

impl Redfish {
    /// The accounts, without empty slots.
    pub(crate) async fn accounts(&mut self) -> Result<Vec<BmcAccount>, Error> {
        Ok(self.slots().await?.accounts())
    }

    /// Makes, enables, disables or removes an account, and reads that back. One that was made has also logged in.
    pub(crate) async fn change_account(&mut self, change: &AccountChange) -> Result<(), Error> {
        let slots = self.slots().await?;
        match change {
            AccountChange::Add(new) => self.add_account(&slots, new).await,
            AccountChange::Enable { name, on } => self.enable_account(&slots, name, *on).await,
            AccountChange::Remove(name) => self.remove_account(&slots, name).await,
        }
    }

    /// Sets a user's password. Whether it took shows a login only.
    pub(crate) async fn change_password(&mut self, user: &str, new: &str) -> Result<(), Error> {
        match self.path_for_password(user, new).await {
            Ok(path) => self.patch(&path, &json!({"Password": new})).await,
            // Nothing but our own account is to be had until then, not even the way to it.
            Err(Error {
                cause: Cause::PasswordChangeRequired { account: Some(path) },
                ..
            }) if user == self.credentials.user => self.patch(&path, &json!({"Password": new})).await,
            Err(error) => Err(error),
        }
    }

    async fn path_for_password(&mut self, user: &str, new: &str) -> Result<String, Error> {
        let service = self.account_service().await?;
        self.check_length(&service, "change of password", new)?;
        self.account_of(&service, user).await
    }

    async fn account_service(&mut self) -> Result<Value, Error> {
        let root = self.root().await?;
        let service = view::link(&root, "/AccountService").unwrap_or_else(|| "/redfish/v1/AccountService".to_owned());
        self.get(&service).await
    }

    /// Refuses a password that is shorter or longer than the BMC says it takes.
    fn check_length(&self, service: &Value, request: &str, password: &str) -> Result<(), Error> {
        let length = password.chars().count() as u64;
        let bound = |key: &str| service.get(key).and_then(Value::as_u64);
        let (least, most) = (
            bound("MinPasswordLength"),
            bound("MaxPasswordLength").filter(|most| *most > 0),
        );
        if least.is_none_or(|least| length >= least) && most.is_none_or(|most| length <= most) {
            return Ok(());
        }
        let words = |bound: Option<u64>| bound.map_or("any".to_owned(), |bound| bound.to_string());
        let cause = Cause::NotAllowed(format!(
            "this BMC wants passwords of {} to {} characters, and the new one has {length}",
            words(least),
            words(most)
        ));
        Err(self.error(request, cause))
    }

    async fn account_of(&mut self, service: &Value, user: &str) -> Result<String, Error> {
        let path = accounts_path(service);
        let members = view::members(&self.get(&path).await?);
        for path in members.into_iter().take(MOST) {
            // Empty slots are accounts without a name, or members that cannot be read.
            let account = self.get_if_there(&path).await?.unwrap_or_default();
            if account.get("UserName").and_then(Value::as_str) == Some(user) {
                return Ok(path);
            }
        }
        let words = format!("the BMC has no user {user}");
        Err(self.error(format!("GET {path}"), Cause::NotAllowed(words)))
    }

    /// Reads the whole collection: whether an administrator stays is judged by it, so a part of it is an error.
    async fn slots(&mut self) -> Result<Slots, Error> {
        let service = self.account_service().await?;
        let path = accounts_path(&service);
        let (mut members, mut posts, mut next, mut pages) = (Vec::new(), true, Some(path.clone()), 0);
        while let Some(page) = next {
            let reply = self.request(&Method::GET, &page, None, None).await?;
            if pages == 0 {
                posts = reply.header("allow").is_none_or(|allowed| allowed.contains("POST"));
            }
            pages += 1;
            members.extend(view::members(&reply.json));
            if members.len() > MOST || pages > PAGES {
                let words = format!("more than {MOST} accounts, which no BMC has");
                return Err(self.error(format!("GET {path}"), Cause::Malformed(words)));
            }
            next = view::next_page(&reply.json);
        }
        let mut all = Vec::new();
        for path in members {
            let Some(resource) = self.get_if_there(&path).await? else {
                continue;
            };
            let account = account(&resource, &path, &self.credentials.user);
            // A nameless one that may log in is no empty slot.
            if account.is_some() || resource.get("Enabled").and_then(Value::as_bool) != Some(true) {
                all.push(Slot { path, account });
            }
        }
        Ok(Slots {
            service,
            path,
            posts,
            all,
        })
    }

    async fn add_account(&mut self, slots: &Slots, new: &NewAccount) -> Result<(), Error> {
        let request = format!("new account {}", new.name());
        may_add(&slots.accounts(), new).map_err(|cause| self.error(&request, cause))?;
        self.check_length(&slots.service, &request, new.password())?;
        let made = match self.make(slots, new).await {
            Ok(path) => path,
            Err(error) if matches!(error.cause, Cause::Unanswered(_)) => {
                // It may have been made: whoever is there now is taken for it, and has to prove it.
                match self.slots().await {
                    Ok(now) if named(&now.accounts(), new.name()).is_ok() => None,
                    _ => return Err(error),
                }
            }
            Err(error) => return Err(error),
        };
        let path = match made {
            Some(path) => path,
            None => {
                let now = self.slots().await?;
                let accounts = now.accounts();
                let found = named(&accounts, new.name()).map_err(|cause| self.error(&request, cause))?;
                now.path_of(found).unwrap_or_default().to_owned()
            }
        };
        let mut proven = self
            .until(&path, &request, |shown| shown.is_some_and(|one| new.is(one)))
            .await;
        if proven.is_ok() {
            proven = self.proves(new).await;
        }
        match proven {
            Ok(()) => Ok(()),
            Err(error) => Err(self.undone(new.name(), &path, error).await),
        }
    }

    /// Makes it: by POST, or in an empty slot where that is not how this BMC does it. Gives its path where that is known.
    async fn make(&mut self, slots: &Slots, new: &NewAccount) -> Result<Option<String>, Error> {
        let body =
            json!({"UserName": new.name(), "Password": new.password(), "RoleId": new.role().word(), "Enabled": true});
        let mut refused = None;
        if slots.posts {
            match self.request(&Method::POST, &slots.path, None, Some(&body)).await {
                Ok(reply) => {
                    let header = reply.header("location").and_then(location_path);
                    let path = header.or_else(|| view::link(&reply.json, ""));
                    let path = path.filter(|_| reply.status == 201);
                    self.follow(&format!("POST {}", slots.path), reply).await?;
                    return Ok(path);
                }
                Err(error) if matches!(error.cause, Cause::Unsupported(_)) => refused = Some(error),
                Err(error) => return Err(error),
            }
        }
        match (slots.empty(), refused) {
            (Some(slot), _) => {
                let slot = slot.to_owned();
                self.patch(&slot, &body).await.map(|()| Some(slot))
            }
            (None, Some(refused)) => Err(refused),
            (None, None) => {
                let words = "every account of this BMC is in use: remove one first".to_owned();
                Err(self.error(format!("PATCH {}", slots.path), Cause::NotAllowed(words)))
            }
        }
    }

    async fn enable_account(&mut self, slots: &Slots, name: &str, on: bool) -> Result<(), Error> {
        let request = format!("{} account {name}", if on { "enabled" } else { "disabled" });
        let accounts = slots.accounts();
        let found = named(&accounts, name).map_err(|cause| self.error(&request, cause))?;
        if found.enabled == on {
            return Ok(());
        }
        if !on {
            let judged = may_take_away(&accounts, name, &self.credentials.user);
            judged.map_err(|cause| self.error(&request, cause))?;
        }
        let path = slots.path_of(found).unwrap_or_default();
        self.patch(path, &json!({"Enabled": on})).await?;
        let wanted = |shown: Option<&BmcAccount>| shown.is_some_and(|one| one.name == name && one.enabled == on);
        self.until(path, &request, wanted).await
    }

    async fn remove_account(&mut self, slots: &Slots, name: &str) -> Result<(), Error> {
        let request = format!("removed account {name}");
        let accounts = slots.accounts();
        let judged = may_take_away(&accounts, name, &self.credentials.user);
        let found = judged.map_err(|cause| self.error(&request, cause))?;
        let path = slots.path_of(found).unwrap_or_default();
        self.clear(path).await?;
        let gone = |shown: Option<&BmcAccount>| shown.is_none_or(|one| one.name != name);
        self.until(path, &request, gone).await
    }

    /// Removes what is at a path, or empties its slot.
    async fn clear(&mut self, path: &str) -> Result<(), Error> {
        match self.guarded(&Method::DELETE, path, None).await {
            Ok(reply) => return self.follow(&format!("DELETE {path}"), reply).await,
            Err(error) if matches!(error.cause, Cause::Unsupported(_)) => {}
            Err(error) => return Err(error),
        }
        match self.patch(path, &json!({"Enabled": false, "UserName": ""})).await {
            // Firmware that takes no name away from an account that it has to disable in the same breath.
            Err(Error {
                cause: Cause::Refused { code: 400, .. },
                ..
            }) => {
                self.patch(path, &json!({"Enabled": false})).await?;
                self.patch(path, &json!({"UserName": ""})).await
            }
            other => other,
        }
    }

    /// Looks at an account until it is as wanted, for as long as a BMC may take to show a change.
    async fn until(&mut self, path: &str, what: &str, fits: impl Fn(Option<&BmcAccount>) -> bool) -> Result<(), Error> {
        let (start, patience) = (Instant::now(), SHOWN.min(self.timing.settle));
        loop {
            let resource = self.get_if_there(path).await?;
            let shown = resource.and_then(|resource| account(&resource, path, &self.credentials.user));
            if fits(shown.as_ref()) {
                return Ok(());
            }
            if start.elapsed() >= patience {
                let seen = shown.map_or("no account".to_owned(), |one| {
                    let enabled = if one.enabled { "enabled" } else { "disabled" };
                    format!("{} as {}, {enabled}", one.name, one.role)
                });
                let what = format!("{what} (it took that, and shows {seen})");
                return Err(self.error(format!("GET {path}"), Cause::NotSeen { what, after: patience }));
            }
            sleep(self.timing.look).await;
        }
    }

    /// Logs in with a new account, beside our own session.
    async fn proves(&mut self, new: &NewAccount) -> Result<(), Error> {
        let mut tries = 1;
        // What an earlier account of this name was shown does not count for this one.
        self.attempts.right(new.name());
        loop {
            let mut twin = self.twin(Credentials::new(new.name(), new.password()));
            match twin.prove().await {
                Err(error) if matches!(error.cause, Cause::Unauthorized(_)) && tries < PROOFS => {
                    tries += 1;
                    sleep(self.timing.look).await;
                }
                proven => return proven,
            }
        }
    }

    /// Takes a new account away that is not as it should be, and says so: one that nobody can vouch for must not stay.
    async fn undone(&mut self, name: &str, path: &str, error: Error) -> Error {
        // Whoever else filled the slot at the same time stays.
        let there = self.get_if_there(path).await.ok().flatten();
        let there = there.and_then(|resource| account(&resource, path, ""));
        let undone = match there.filter(|one| one.name == name) {
            None => "it is not there any more".to_owned(),
            Some(_) => match self.clear(path).await {
                Ok(()) => "it is taken away again".to_owned(),
                Err(error) => format!("it could not be taken away again ({}), so remove it", error.cause),
            },
        };
        let message = format!(
            "the account was made and did not prove itself: {}; {undone}",
            error.cause
        );
        self.error(format!("new account {name}"), Cause::Refused { code: 409, message })
    }
}

fn accounts_path(service: &Value) -> String {
    view::link(service, "/Accounts").unwrap_or_else(|| "/redfish/v1/AccountService/Accounts".to_owned())
}

/// An account as a resource shows it; `None` for an empty slot.
fn account(resource: &Value, path: &str, own: &str) -> Option<BmcAccount> {
    let name = resource.get("UserName").and_then(Value::as_str).unwrap_or_default();
    if name.trim().is_empty() {
        return None;
    }
    let last = |path: &str| {
        path.trim_end_matches('/')
            .rsplit('/')
            .next()
            .unwrap_or_default()
            .to_owned()
    };
    let role = view::text(resource, "/RoleId").or_else(|| view::link(resource, "/Links/Role").map(|path| last(&path)));
    Some(BmcAccount {
        id: short(&view::text(resource, "/Id").unwrap_or_else(|| last(path))),
        name: short(name),
        role: AccountRole::of_word(role.as_deref().unwrap_or("none told")),
        enabled: resource.get("Enabled").and_then(Value::as_bool) != Some(false),
        locked: resource.get("Locked").and_then(Value::as_bool),
        ours: name == own,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_read_in_whatever_shape_it_comes() {
        let read = |resource: &Value| account(resource, "/redfish/v1/AccountService/Accounts/7/", "admin");
        let full = json!({"Id": "7", "UserName": "admin", "RoleId": "admin", "Enabled": true, "Locked": true});
        let shown = read(&full).unwrap();
        assert_eq!(
            (shown.role, shown.locked, shown.ours),
            (AccountRole::Administrator, Some(true), true)
        );
        let linked =
            json!({"UserName": "anna", "Links": {"Role": {"@odata.id": "/redfish/v1/AccountService/Roles/ReadOnly"}}});
        let shown = read(&linked).unwrap();
        assert_eq!(
            (shown.id.as_str(), shown.role, shown.locked),
            ("7", AccountRole::ReadOnly, None)
        );
        for empty in [
            json!({"UserName": ""}),
            json!({"UserName": null, "RoleId": "None"}),
            json!([1]),
            Value::Null,
        ] {
            assert_eq!(read(&empty), None, "{empty}");
        }
        let endless =
            json!({"UserName": "x".repeat(100_000), "RoleId": "y".repeat(100_000), "Id": "z".repeat(100_000)});
        let shown = read(&endless).unwrap();
        assert!(shown.name.len() + shown.id.len() + shown.role.word().len() < 300);
    }
}

//! Accounts: changing a password (DSP0268, `AccountService` and `ManagerAccount`).

use serde_json::{Value, json};

use super::{Redfish, view};
use crate::error::{Cause, Error};

impl Redfish {
    /// Sets a user's password. Whether it took shows a login only.
    pub(crate) async fn change_password(&mut self, user: &str, new: &str) -> Result<(), Error> {
        let root = self.root().await?;
        let service = view::link(&root, "/AccountService").unwrap_or_else(|| "/redfish/v1/AccountService".to_owned());
        let service = self.get(&service).await?;
        let length = new.chars().count() as u64;
        let bound = |key: &str| service.get(key).and_then(Value::as_u64);
        let (least, most) = (
            bound("MinPasswordLength"),
            bound("MaxPasswordLength").filter(|most| *most > 0),
        );
        if least.is_some_and(|least| length < least) || most.is_some_and(|most| length > most) {
            let words = |bound: Option<u64>| bound.map_or("any".to_owned(), |bound| bound.to_string());
            let cause = Cause::NotAllowed(format!(
                "this BMC wants passwords of {} to {} characters, and the new one has {length}",
                words(least),
                words(most)
            ));
            return Err(self.error("change of password", cause));
        }
        let path = self.account_of(&service, user).await?;
        self.patch(&path, &json!({"Password": new})).await
    }

    async fn account_of(&mut self, service: &Value, user: &str) -> Result<String, Error> {
        let path = view::link(service, "/Accounts").unwrap_or_else(|| "/redfish/v1/AccountService/Accounts".to_owned());
        let members = view::members(&self.get(&path).await?);
        for path in members {
            // Empty slots are accounts without a name, or members that cannot be read.
            let account = self.get_if_there(&path).await?.unwrap_or_default();
            if account.get("UserName").and_then(Value::as_str) == Some(user) {
                return Ok(path);
            }
        }
        let words = format!("the BMC has no user {user}");
        Err(self.error(format!("GET {path}"), Cause::NotAllowed(words)))
    }
}

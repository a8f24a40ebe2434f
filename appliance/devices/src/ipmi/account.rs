//! Users and passwords (sections 22.26 to 22.30).

use rackbar_ipmi::command::user::{self, PasswordAction, THIS_CHANNEL, UserAccess};
use rackbar_ipmi::{Privilege, Request, Secret};

use super::Ipmi;
use crate::BmcUser;
use crate::error::{Cause, Error};

/// Longest password of the 16-byte form, the only one that BMCs without the 20-byte form take.
const OLD_MAX: usize = 16;

impl Ipmi {
    /// The users, without empty slots.
    pub(crate) async fn users(&mut self) -> Result<Vec<BmcUser>, Error> {
        let name = "Get User Access";
        let mut users = Vec::new();
        let (mut slot, mut last) = (1, 1);
        while slot <= last {
            let data = self.optional(name, UserAccess::get(THIS_CHANNEL, slot)).await?;
            let access = data.and_then(|data| UserAccess::decode(&data).ok()).unwrap_or_default();
            last = last.max(access.max_users);
            // Many BMCs answer "parameter out of range" for the name of an empty slot.
            let field = self
                .optional("Get User Name", user::get_name(slot))
                .await?
                .unwrap_or_default();
            let user = user::decode_name(&field);
            if !user.is_empty() {
                users.push(BmcUser {
                    slot,
                    name: user,
                    enabled: access.enabled,
                    administrator: access.privilege == Some(Privilege::Administrator),
                });
            }
            slot += 1;
        }
        if users.is_empty() {
            return Err(self.error(name, Cause::Unsupported("this BMC tells no users over IPMI".to_owned())));
        }
        Ok(users)
    }

    /// Sets a user's password. Whether it took shows a login only.
    pub(crate) async fn change_password(&mut self, user: &str, new: &str) -> Result<(), Error> {
        let name = "Set User Password";
        let most = self.password_bytes.min(Secret::MAX);
        let Some(secret) = Secret::new(new.as_bytes()).filter(|_| new.len() <= most) else {
            let words = format!("IPMI passwords have at most {most} bytes on this BMC");
            return Err(self.error(name, Cause::NotAllowed(words)));
        };
        let users = self.users().await?;
        let Some(found) = users.iter().find(|known| known.name == user) else {
            return Err(self.error(name, Cause::NotAllowed(format!("the BMC has no user {user}"))));
        };
        let slot = found.slot;
        let request = user::set_password(slot, PasswordAction::Set, Some(&secret));
        match self.command(name, request, false).await {
            // A BMC from before the 20-byte form: C7h, or CCh, for a request of that length.
            Err(Error {
                cause: Cause::Refused { code: 0xc7 | 0xcc, .. },
                ..
            }) if new.len() <= OLD_MAX => self.command(name, short(slot, &secret), false).await.map(drop),
            Err(Error {
                cause: Cause::Refused { code: 0xc7 | 0xcc, .. },
                ..
            }) => {
                let words = "this BMC takes passwords of at most 16 bytes over IPMI".to_owned();
                Err(self.error(name, Cause::NotAllowed(words)))
            }
            other => other.map(drop),
        }
    }
}

/// Set User Password in its 16-byte form.
fn short(slot: u8, secret: &Secret) -> Request {
    let mut request = user::set_password(slot, PasswordAction::Set, Some(secret));
    request.data.truncate(2 + OLD_MAX);
    if let Some(first) = request.data.first_mut() {
        *first = slot & 0x3f;
    }
    request
}

//! The account of a machine's BMC, and the steps by which its password changes without ever being lost.
//!
//! ```text
//!   current ──begin: new one written down──▶ current + pending ──BMC changed, login with the new one──▶ proven: current
//!                                                   └──BMC refused, login with the old one──▶ dropped: current
//! ```
//! The new password is safe on disk before the BMC hears of it, and the old one is kept until a login with the new one
//! has succeeded. After a crash at any point one of the two works: [`BmcLogin::candidates`] says in which order to try,
//! at most two logins, which no BMC's lock-out counts as an attack.

use rackbar_model::{NodeId, SecretText, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{Store, StoreError, Table};

const PREFIX: &[u8] = b"bmc-login/";

/// An account on one BMC. `Debug` does not show its passwords.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BmcLogin {
    /// Account name.
    pub user: String,
    /// The password that was last known to work.
    pub current: SecretText,
    /// The password the BMC is being given; `None` when no change is under way.
    pub pending: Option<SecretText>,
    /// When a login with `current` last succeeded; `None` when it was only told to us.
    pub proven_at: Option<Timestamp>,
    /// True when `current` was made by us for this machine, false when it is the site's or the maker's.
    pub own: bool,
}

impl BmcLogin {
    /// An account as the operator or the site file tells it.
    pub fn told(user: &str, password: &SecretText) -> Self {
        Self {
            user: user.into(),
            current: password.clone(),
            pending: None,
            proven_at: None,
            own: false,
        }
    }

    /// The passwords to try, best first. With a change under way the new one is first: the BMC has it already, or it
    /// refuses once and the old one works.
    pub fn candidates(&self) -> impl Iterator<Item = &SecretText> {
        self.pending.iter().chain([&self.current])
    }

    fn proven(mut self, at: Timestamp) -> Self {
        if let Some(pending) = self.pending.take() {
            self.current = pending;
            self.own = true;
        }
        self.proven_at = Some(at);
        self
    }

    fn dropped(mut self, at: Timestamp) -> Self {
        self.pending = None;
        self.proven_at = Some(at);
        self
    }
}

fn name(node: NodeId) -> Vec<u8> {
    [PREFIX, node.to_string().as_bytes()].concat()
}

impl Store {
    /// What is known of the account on a node's BMC.
    ///
    /// # Errors
    /// When the secrets are locked or cannot be read.
    pub fn bmc_login(&self, node: NodeId) -> Result<Option<BmcLogin>, StoreError> {
        let json = self.get(Table::Secrets, &name(node))?;
        json.map(|json| read(&json)).transpose()
    }

    /// Records an account, replacing what was known. Not for a change of password: that has its own steps.
    ///
    /// # Errors
    /// When it is not safe on disk.
    pub fn save_bmc_login(&self, node: NodeId, login: &BmcLogin) -> Result<(), StoreError> {
        let json = serde_json::to_vec(login).map_err(|error| StoreError::Failed(error.to_string()))?;
        self.put(Table::Secrets, &name(node), &json)
    }

    /// Step 1 of a change: makes a password of `length` characters (see [`rackbar_trust::password`]) and writes it down
    /// beside the one that works. Gives the same one again while a change is under way, so that a step that is repeated
    /// does not make a third password. Only then tell the BMC.
    ///
    /// # Errors
    /// When the node has no account yet, or the new password is not safe on disk: then leave the BMC alone.
    pub fn begin_bmc_password(&self, node: NodeId, length: usize) -> Result<BmcLogin, StoreError> {
        let mut login = self.known_login(node)?;
        if login.pending.is_none() {
            let password = rackbar_trust::password(length).map_err(|error| StoreError::Failed(error.to_string()))?;
            login.pending = Some(SecretText(password.as_str().to_owned()));
            self.save_bmc_login(node, &login)?;
        }
        Ok(login)
    }

    /// Step 2, after a login with the pending password has succeeded: it is the current one, the old one goes. Without
    /// a change under way it records that the current one works.
    ///
    /// # Errors
    /// When it is not safe on disk; both passwords are then still kept.
    pub fn prove_bmc_password(&self, node: NodeId, at: Timestamp) -> Result<BmcLogin, StoreError> {
        let login = self.known_login(node)?.proven(at);
        self.save_bmc_login(node, &login).map(|()| login)
    }

    /// The other step 2, after the BMC refused the change **and** a login with the current password has succeeded.
    ///
    /// # Errors
    /// When it is not safe on disk; both passwords are then still kept.
    pub fn drop_bmc_password(&self, node: NodeId, at: Timestamp) -> Result<BmcLogin, StoreError> {
        let login = self.known_login(node)?.dropped(at);
        self.save_bmc_login(node, &login).map(|()| login)
    }

    /// Every account, for the break-glass export.
    ///
    /// # Errors
    /// When the secrets are locked or cannot be read.
    pub fn bmc_logins(&self) -> Result<Vec<(String, BmcLogin)>, StoreError> {
        let secrets = self.list(Table::Secrets)?;
        let logins = secrets.iter().filter_map(|(key, json)| {
            let node = String::from_utf8_lossy(key.strip_prefix(PREFIX)?).into_owned();
            Some(read(json).map(|login| (node, login)))
        });
        logins.collect()
    }

    fn known_login(&self, node: NodeId) -> Result<BmcLogin, StoreError> {
        self.bmc_login(node)?
            .ok_or_else(|| StoreError::Failed(format!("no account is known of the BMC of node {node}")))
    }
}

fn read(json: &[u8]) -> Result<BmcLogin, StoreError> {
    // serde_json's text may quote what it stumbled on, which is a password.
    serde_json::from_slice(json).map_err(|_| StoreError::Failed("a BMC account is of a form that is not known".into()))
}

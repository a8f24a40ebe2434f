//! The account of a machine's BMC, and the steps by which its password changes without ever being lost.
//!
//! ```text
//!   current ──begin: new one written down──▶ current + pending ──BMC changed, login with the new one──▶ proven: current
//!                                                   └──BMC refused, login with the old one──▶ dropped: current
//! ```
//! The new password is safe on disk before the BMC hears of it, and the old one is kept until a login with the new one
//! has succeeded. After a crash at any point one of the two works: [`BmcLogin::candidates`] says in which order to try,
//! at most two logins, which no BMC's lock-out counts as an attack.
//!
//! An account that we make ourselves has its own record until a login with it has succeeded; until then the one that is
//! known stays in use.

use rackbar_model::{MacAddr, NodeId, SecretText, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{Store, StoreError, Table};

const PREFIX: &[u8] = b"bmc-login/";

/// Accounts that BMCs are being given, and that nobody has logged in with yet.
const NEW: &[u8] = b"bmc-account/";

/// Whose BMC an account is on: a machine's, or that of none that is known, by the BMC's own MAC address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Whose {
    /// A machine's.
    Node(NodeId),
    /// A BMC whose machine is not known yet, or was forgotten.
    Bmc(MacAddr),
}

impl From<NodeId> for Whose {
    fn from(node: NodeId) -> Self {
        Self::Node(node)
    }
}

impl From<MacAddr> for Whose {
    fn from(mac: MacAddr) -> Self {
        Self::Bmc(mac)
    }
}

impl std::fmt::Display for Whose {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Node(node) => write!(f, "the BMC of node {node}"),
            Self::Bmc(mac) => write!(f, "the BMC with the MAC address {mac}"),
        }
    }
}

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
    /// When `current` came into force; `None` when it was not made by us, or by an earlier program.
    #[serde(default)]
    pub changed_at: Option<Timestamp>,
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
            changed_at: None,
        }
    }

    /// The passwords to try, best first. With a change under way the new one is first: the BMC has it already, or it
    /// refuses once and the old one works.
    pub fn candidates(&self) -> impl Iterator<Item = &SecretText> {
        self.pending.iter().chain([&self.current])
    }

    /// True when a password of it was made by us: nobody else has it.
    pub const fn is_ours(&self) -> bool {
        self.own || self.pending.is_some()
    }

    fn proven(mut self, at: Timestamp) -> Self {
        if let Some(pending) = self.pending.take() {
            self.current = pending;
            self.own = true;
            self.changed_at = Some(at);
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

fn name(whose: impl Into<Whose>) -> Vec<u8> {
    let below = match whose.into() {
        Whose::Node(node) => node.to_string(),
        Whose::Bmc(mac) => format!("mac/{mac}"),
    };
    [PREFIX, below.as_bytes()].concat()
}

fn new_name(node: NodeId) -> Vec<u8> {
    [NEW, node.to_string().as_bytes()].concat()
}

impl Store {
    /// What is known of the account on a BMC: a node's, or one that is kept by its MAC address.
    ///
    /// # Errors
    /// When the secrets are locked or cannot be read.
    pub fn bmc_login(&self, whose: impl Into<Whose>) -> Result<Option<BmcLogin>, StoreError> {
        let json = self.get(Table::Secrets, &name(whose))?;
        json.map(|json| read(&json)).transpose()
    }

    /// Records an account, replacing what was known. Not for a change of password: that has its own steps.
    ///
    /// # Errors
    /// When it is not safe on disk.
    pub fn save_bmc_login(&self, whose: impl Into<Whose>, login: &BmcLogin) -> Result<(), StoreError> {
        self.put(Table::Secrets, &name(whose), &written(login)?)
    }

    /// Step 1 of a change: makes a password of `length` characters (see [`rackbar_trust::password`]) and writes it down
    /// beside the one that works. Gives the same one again while a change is under way, so that a step that is repeated
    /// does not make a third password. Only then tell the BMC.
    ///
    /// # Errors
    /// When no account is known there yet, or the new password is not safe on disk: then leave the BMC alone.
    pub fn begin_bmc_password(&self, whose: impl Into<Whose>, length: usize) -> Result<BmcLogin, StoreError> {
        let whose = whose.into();
        let mut login = self.known_login(whose)?;
        if login.pending.is_none() {
            let password = rackbar_trust::password(length).map_err(|error| StoreError::Failed(error.to_string()))?;
            login.pending = Some(SecretText(password.as_str().to_owned()));
            self.save_bmc_login(whose, &login)?;
        }
        Ok(login)
    }

    /// Step 2, after a login with the pending password has succeeded: it is the current one, the old one goes. Without
    /// a change under way it records that the current one works.
    ///
    /// # Errors
    /// When it is not safe on disk; both passwords are then still kept.
    pub fn prove_bmc_password(&self, whose: impl Into<Whose>, at: Timestamp) -> Result<BmcLogin, StoreError> {
        let whose = whose.into();
        let login = self.known_login(whose)?.proven(at);
        self.save_bmc_login(whose, &login).map(|()| login)
    }

    /// The other step 2, after the BMC refused the change **and** a login with the current password has succeeded.
    ///
    /// # Errors
    /// When it is not safe on disk; both passwords are then still kept.
    pub fn drop_bmc_password(&self, whose: impl Into<Whose>, at: Timestamp) -> Result<BmcLogin, StoreError> {
        let whose = whose.into();
        let login = self.known_login(whose)?.dropped(at);
        self.save_bmc_login(whose, &login).map(|()| login)
    }

    /// Step 1 of an account of our own: makes its password and writes both down. Gives the same ones again until they are
    /// proven, and those of an account of ours that is in use already. Only then tell the BMC.
    ///
    /// # Errors
    /// When it is not safe on disk: then leave the BMC alone.
    pub fn begin_bmc_account(&self, node: NodeId, user: &str, length: usize) -> Result<BmcLogin, StoreError> {
        let begun = self.get(Table::Secrets, &new_name(node))?;
        let begun = begun.map(|json| read(&json)).transpose()?;
        if let Some(begun) = begun.filter(|begun| begun.user == user) {
            return Ok(begun);
        }
        let used = self.bmc_login(node)?.filter(|used| used.user == user);
        // Of a change under way the new one: it is the one that is kept in the end.
        let known = used.filter(BmcLogin::is_ours);
        let password = match known.as_ref().and_then(|used| used.candidates().next()) {
            Some(password) => password.clone(),
            None => {
                let made = rackbar_trust::password(length).map_err(|error| StoreError::Failed(error.to_string()))?;
                SecretText(made.as_str().to_owned())
            }
        };
        let account = BmcLogin {
            own: true,
            ..BmcLogin::told(user, &password)
        };
        self.put(Table::Secrets, &new_name(node), &written(&account)?)?;
        Ok(account)
    }

    /// Step 2, after a login with that account has succeeded: it is the one in use. A password that was made for another
    /// account of the same BMC is kept beside it.
    ///
    /// # Errors
    /// When none was begun, or it is not safe on disk; what was known is then still kept.
    pub fn prove_bmc_account(&self, node: NodeId, at: Timestamp) -> Result<BmcLogin, StoreError> {
        let begun = self.get(Table::Secrets, &new_name(node))?;
        let begun =
            begun.ok_or_else(|| StoreError::Failed(format!("no account was begun on the BMC of node {node}")))?;
        let proven = read(&begun)?.proven(at);
        let before = self.bmc_login(node)?;
        let before = before.filter(|before| before.user != proven.user && before.is_ours());
        let aside = match &before {
            Some(before) => Some((
                [&name(node), b"/".as_slice(), before.user.as_bytes()].concat(),
                written(before)?,
            )),
            None => None,
        };
        let (key, new_key, json) = (name(node), new_name(node), written(&proven)?);
        let mut entries = vec![(key.as_slice(), Some(json.as_slice())), (new_key.as_slice(), None)];
        entries.extend(
            aside
                .as_ref()
                .map(|(key, json)| (key.as_slice(), Some(json.as_slice()))),
        );
        self.put_all(Table::Secrets, &entries)?;
        Ok(proven)
    }

    /// A machine is forgotten: the account of its BMC is kept by the BMC's own MAC address, when its password was made by
    /// us. Nobody else knows it.
    ///
    /// # Errors
    /// When it is not safe on disk; then it is where it was.
    pub fn keep_bmc_login(&self, node: NodeId, mac: MacAddr) -> Result<(), StoreError> {
        let Some(login) = self.bmc_login(node)?.filter(BmcLogin::is_ours) else {
            return Ok(());
        };
        let (from, to, json) = (name(node), name(mac), written(&login)?);
        self.put_all(Table::Secrets, &[(&to, Some(&json)), (&from, None)])
    }

    /// The BMC belongs to this node now: what is kept of it is the node's. True when there was something.
    ///
    /// # Errors
    /// When it is not safe on disk; then it is still kept.
    pub fn adopt_bmc_login(&self, mac: MacAddr, node: NodeId) -> Result<bool, StoreError> {
        let Some(login) = self.bmc_login(mac)? else {
            return Ok(false);
        };
        // An account that the node has already stays, and so does what is kept: one of them may be wrong.
        if self.bmc_login(node)?.is_some_and(|has| has.is_ours()) {
            return Ok(false);
        }
        let (from, to, json) = (name(mac), name(node), written(&login)?);
        self.put_all(Table::Secrets, &[(&to, Some(&json)), (&from, None)])?;
        Ok(true)
    }

    /// Every account, for the break-glass export: those in use, those kept beside them as `node/user`, those of
    /// forgotten machines as `mac/` and the BMC's MAC address, and those that a BMC may have been given already.
    ///
    /// # Errors
    /// When the secrets are locked or cannot be read.
    pub fn bmc_logins(&self) -> Result<Vec<(String, BmcLogin)>, StoreError> {
        let secrets = self.list(Table::Secrets)?;
        let logins = secrets.iter().filter_map(|(key, json)| {
            let node = key.strip_prefix(PREFIX).or_else(|| key.strip_prefix(NEW))?;
            let node = String::from_utf8_lossy(node).into_owned();
            Some(read(json).map(|login| (node, login)))
        });
        logins.collect()
    }

    fn known_login(&self, whose: Whose) -> Result<BmcLogin, StoreError> {
        self.bmc_login(whose)?
            .ok_or_else(|| StoreError::Failed(format!("no account is known of {whose}")))
    }
}

fn written(login: &BmcLogin) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(login).map_err(|error| StoreError::Failed(error.to_string()))
}

fn read(json: &[u8]) -> Result<BmcLogin, StoreError> {
    // serde_json's text may quote what it stumbled on, which is a password.
    serde_json::from_slice(json).map_err(|_| StoreError::Failed("a BMC account is of a form that is not known".into()))
}

//! What the API says of the accounts on a machine's BMC.

use core::fmt;

use rackbar_model::SecretText;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What an account on a BMC may do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AccountRole {
    /// Everything, accounts among it.
    Administrator,
    /// Power, boot device, logs.
    Operator,
    /// Looking.
    ReadOnly,
}

impl AccountRole {
    /// As the API and the command line write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Administrator => "administrator",
            Self::Operator => "operator",
            Self::ReadOnly => "read_only",
        }
    }
}

impl fmt::Display for AccountRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The accounts on a machine's BMC.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct AccountList {
    /// The machine's name.
    pub node: String,
    /// Address of its BMC.
    pub bmc: String,
    /// How the BMC was asked: `Redfish` or `IPMI`.
    pub way: String,
    /// Why that way.
    pub why: String,
    /// The accounts, in the BMC's order, without empty slots.
    pub items: Vec<AccountEntry>,
}

/// An account on a BMC.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct AccountEntry {
    /// Its number or name in the BMC: the `Id` of Redfish, the slot of IPMI.
    pub id: String,
    /// The name it logs in with.
    pub name: String,
    /// What it may do: an [`AccountRole`], or another word of the BMC's.
    pub role: String,
    /// It may log in.
    pub enabled: bool,
    /// It is locked after failed logins; absent where the BMC does not say (IPMI).
    pub locked: Option<bool>,
    /// Rackbar itself logs in with it: it can be neither disabled nor removed.
    pub ours: bool,
}

/// An account that is to be made on a BMC.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewAccount {
    /// The name it will log in with: 1 to 16 letters, digits, `.`, `_` and `-`.
    pub name: String,
    /// What it may do.
    pub role: AccountRole,
    /// Its password; left out, one is made and told in the answer.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub password: Option<SecretText>,
}

/// What an account on a BMC is to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AccountSwitch {
    /// It may log in.
    pub enabled: bool,
}

/// A change of the accounts on a BMC.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AccountOrder {
    /// Make one.
    Add(NewAccount),
    /// Let one log in, or not.
    Enable(String, bool),
    /// Take one away.
    Remove(String),
}

impl AccountOrder {
    /// In the words of the audit trail; a password is not among them.
    pub fn deed(&self, node: &str) -> String {
        match self {
            Self::Add(new) => format!("make the account {} ({}) on the BMC of {node}", new.name, new.role),
            Self::Enable(name, true) => format!("enable the account {name} on the BMC of {node}"),
            Self::Enable(name, false) => format!("disable the account {name} on the BMC of {node}"),
            Self::Remove(name) => format!("remove the account {name} from the BMC of {node}"),
        }
    }
}

/// What came of a change of the accounts on a BMC.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct AccountsChanged {
    /// The accounts as they are now.
    #[serde(flatten)]
    pub list: AccountList,
    /// The password of a new account that was made for it. It is told this once and kept nowhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub password: Option<SecretText>,
}

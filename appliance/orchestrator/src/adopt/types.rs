//! What is asked when a machine is to be adopted, what is answered, and the refusals.

use std::net::IpAddr;

use rackbar_model::{Adopted, NodeId, SecretText};
use rackbar_ssh::SshError;
use serde::{Deserialize, Serialize};

/// A machine whose system is to be taken in as it is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct AdoptRequest {
    /// The node that it is, by name, id or MAC address; left out for a machine that may never have been seen.
    #[serde(default)]
    pub node: Option<String>,
    /// The name that a machine never seen before gets.
    #[serde(default)]
    pub name: Option<String>,
    /// Where its SSH server is.
    #[cfg_attr(feature = "utoipa", schema(value_type = String))]
    pub address: IpAddr,
    /// TCP port of it.
    #[serde(default = "ssh_port")]
    pub port: u16,
    /// The account that logs in. Serial numbers are readable by root alone on most systems.
    #[serde(default = "root")]
    pub user: String,
    /// Private Ed25519 key in OpenSSH's format, without a passphrase, that the machine lets in; the appliance's own when
    /// left out.
    #[serde(default)]
    #[cfg_attr(feature = "utoipa", schema(value_type = Option<String>))]
    pub key: Option<SecretText>,
    /// Fingerprint of its Ed25519 host key (`SHA256:...`).
    #[serde(default)]
    pub host_key: Option<String>,
    /// Take whatever host key it shows. Needed where `host_key` is left out.
    #[serde(default)]
    pub trust_first_use: bool,
    /// Only say what would be recorded.
    #[serde(default)]
    pub dry_run: bool,
}

const fn ssh_port() -> u16 {
    22
}

fn root() -> String {
    "root".into()
}

/// What came of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
pub struct Adoption {
    /// Name of the node that it is, or would be; `None` for a new one of a dry run that gives no name.
    pub node: Option<String>,
    /// Its id; `None` for a new one of a dry run.
    #[cfg_attr(feature = "utoipa", schema(value_type = Option<String>))]
    pub id: Option<NodeId>,
    /// The machine was not known before.
    pub new: bool,
    /// It was recorded; false in a dry run.
    pub recorded: bool,
    /// What is recorded of its system.
    pub adopted: Adopted,
    /// The machine in a few words.
    pub machine: String,
    /// What a person should know of it, a sentence each.
    pub notes: Vec<String>,
}

/// The key by which the appliance logs in.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
pub struct LoginKey {
    /// Its public line, for `authorized_keys` of the machine.
    pub public_key: String,
}

/// Why nothing was adopted. Nothing is recorded then of a machine that was not known. Of one that was, its inventory and address
/// are taken over where the last step failed: its record could not be written ([`AdoptError::Store`]), or somebody else took
/// its name or gave it work in that very moment ([`AdoptError::InTheWay`]).
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// The request makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// There is no such node.
    #[error("there is no node `{0}`")]
    NoSuchNode(String),
    /// The machine or the node does not go together with it.
    #[error("{0}")]
    InTheWay(String),
    /// The machine cannot be reached, is another, or lets nobody in.
    #[error("{0}")]
    Machine(String),
    /// The appliance lacks what it looks at machines with.
    #[error("{0}")]
    Unavailable(String),
    /// It could not be written down.
    #[error("that its system was adopted could not be written down, so it is not: {0}")]
    Store(String),
}

impl From<SshError> for AdoptError {
    fn from(error: SshError) -> Self {
        match error {
            SshError::BadFingerprint(_) | SshError::BadKey { .. } => Self::Invalid(error.to_string()),
            other => Self::Machine(other.to_string()),
        }
    }
}

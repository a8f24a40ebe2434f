//! Refusals a person can read.

use std::net::IpAddr;

use rackbar_model::NodeId;

use crate::bmc::BmcError;

/// Why a machine's BMC did not do what it was asked: which machine, what was asked, what it said, what to do.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PowerError {
    /// There is no such node.
    #[error("there is no node {0}")]
    NoSuchNode(NodeId),
    /// We do not know its BMC.
    #[error("{0} has no BMC that we know: give its BMC an address on a network of role `bmc`, or boot it once")]
    NoBmc(String),
    /// An account of its BMC that must stay as it is.
    #[error("account {account} on the BMC of {name} stays as it is: {why}")]
    Kept {
        /// The node.
        name: String,
        /// The account.
        account: String,
        /// Why, and what to do.
        why: &'static str,
    },
    /// No credential that is configured was taken by its BMC.
    #[error("the BMC of {name} at {address} refused, asked for {action}: {reason}; {advice}")]
    Refused {
        /// The node.
        name: String,
        /// Its BMC.
        address: IpAddr,
        /// What it was asked for.
        action: String,
        /// What it said.
        reason: String,
        /// What to do.
        advice: &'static str,
    },
    /// Its BMC was not asked: it would refuse, or nobody could undo it.
    #[error("the BMC of {name} at {address} was not asked for {action}: {reason}; {advice}")]
    NotSent {
        /// The node.
        name: String,
        /// Its BMC.
        address: IpAddr,
        /// What was wanted.
        action: String,
        /// Why it was not asked.
        reason: String,
        /// What to do.
        advice: &'static str,
    },
    /// There is no BMC to ask, and the agent on the machine did not do it.
    #[error("{name} has no BMC that answers, and its agent did not do it either: {reason}")]
    Agent {
        /// The node.
        name: String,
        /// What it said.
        reason: String,
    },
    /// The BMC did not answer or failed.
    #[error("the BMC of {name} at {address} failed, asked for {action}: {reason}; {advice}")]
    Failed {
        /// The node.
        name: String,
        /// Its BMC.
        address: IpAddr,
        /// What it was asked for.
        action: String,
        /// What happened.
        reason: String,
        /// What to do.
        advice: &'static str,
    },
}

impl PowerError {
    /// What the BMC of `name` said when it was asked for `action`.
    pub(crate) fn of(name: &str, address: IpAddr, action: impl Into<String>, error: BmcError) -> Self {
        let (name, action, advice) = (name.to_owned(), action.into(), error.advice());
        match error {
            BmcError::Login(reason) | BmcError::Refused(reason) => Self::Refused {
                name,
                address,
                action,
                reason,
                advice,
            },
            BmcError::NotSent(reason) => Self::NotSent {
                name,
                address,
                action,
                reason,
                advice,
            },
            BmcError::Silent(reason) | BmcError::Failed(reason) => Self::Failed {
                name,
                address,
                action,
                reason,
                advice,
            },
        }
    }
}

/// Why a node was not renamed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RenameError {
    /// It is not as its caller saw it.
    #[error("{0} changed since you read it; read it again")]
    Changed(String),
    /// There is no such node.
    #[error("there is no node {0}")]
    NoSuchNode(NodeId),
    /// The name would not do as a host name.
    #[error(
        "{0:?} is no host name: use 1 to 63 lower-case letters, digits and hyphens, a letter or digit first and last"
    )]
    BadName(String),
    /// Another node has it.
    #[error("{name} is the name of another node, {other}")]
    Taken {
        /// The name.
        name: String,
        /// Who has it.
        other: NodeId,
    },
}

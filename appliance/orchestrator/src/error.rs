//! Refusals a person can read.

use std::net::IpAddr;

use rackbar_model::NodeId;

/// Why a power action was not carried out.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PowerError {
    /// There is no such node.
    #[error("there is no node {0}")]
    NoSuchNode(NodeId),
    /// We do not know its BMC.
    #[error("{0} has no BMC that we know: give its BMC an address on a network of role `bmc`, or boot it once")]
    NoBmc(String),
    /// No credential that is configured was taken by its BMC.
    #[error("the BMC of {name} at {address} refused: {reason}")]
    Refused {
        /// The node.
        name: String,
        /// Its BMC.
        address: IpAddr,
        /// What it said.
        reason: String,
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
    #[error("the BMC of {name} at {address} failed: {reason}")]
    Failed {
        /// The node.
        name: String,
        /// Its BMC.
        address: IpAddr,
        /// What happened.
        reason: String,
    },
}

/// Why a node was not renamed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RenameError {
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

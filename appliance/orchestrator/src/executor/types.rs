//! What is asked of the executor, and its refusals.

use std::sync::Arc;

use rackbar_model::{BurnIn, Digest, DiskIntent, NodeId, Timestamp};
use rackbar_plan::{RunId, Site, SiteProblem};
use serde::{Deserialize, Serialize};

/// The site that plans are made from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SiteInForce {
    /// The file's text.
    pub text: String,
    /// SHA-256 of the text.
    pub digest: Digest,
    /// When it was set.
    pub since: Timestamp,
    /// Who set it.
    pub by: String,
    /// The file as read.
    pub site: Site,
}

/// The same in the store.
#[derive(Serialize, Deserialize)]
pub(super) struct SavedSite {
    pub(super) text: String,
    pub(super) since: Timestamp,
    pub(super) by: String,
}

/// What a plan is to be made for.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct PlanRequest {
    /// Only these nodes; all when not given.
    #[cfg_attr(feature = "utoipa", schema(value_type = Option<Vec<String>>))]
    pub nodes: Option<Vec<NodeId>>,
    /// Install anew also where everything is as wanted.
    pub reinstall: bool,
    /// Give BMCs new passwords of their machines' own, also those that have one.
    pub rotate_passwords: bool,
    /// Install this without a role; `nodes` must then be given.
    pub install: Option<Install>,
    /// Exercise the hardware of `nodes`, which must then be given, and take them back to what they were. Nothing else is
    /// planned then.
    pub burn_in: Option<BurnIn>,
}

/// Simple mode: an operating system on a machine, without any site file.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Install {
    /// Name of the image in the catalogue.
    pub os: String,
    /// Which disk.
    pub disk: DiskIntent,
    /// On two such disks, as a mirror.
    pub mirror: bool,
    /// OpenSSH public keys that may log in, besides the site's.
    pub ssh_keys: Vec<String>,
}

/// Why no plan was made.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PlanError {
    /// There is nothing to plan from.
    #[error(
        "no site is in force: set one (`rackbar site set FILE`), or install without roles (`rackbar install --os NAME NODE`)"
    )]
    NoSite,
    /// Simple mode names no nodes.
    #[error("an install without roles, and a burn-in, need the nodes they are for: name them")]
    NoNodes,
    /// A burn-in together with something else.
    #[error(
        "a burn-in is a plan of its own: leave reinstall, new passwords and installs out, and plan them afterwards"
    )]
    BurnInAlone,
    /// A burn-in of no part.
    #[error("a burn-in of 0 seconds exercises nothing: give processors, memory or disks some time")]
    BurnsNothing,
    /// There is no such node.
    #[error("there is no node {0}")]
    NoSuchNode(NodeId),
    /// What simple mode asks for makes no site.
    #[error("what is to be installed cannot be used: {}", problems(.0))]
    Install(Vec<SiteProblem>),
}

fn problems(problems: &[SiteProblem]) -> String {
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    lines.join("; ")
}

/// Why a plan was not committed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CommitError {
    /// There is no such plan.
    #[error(
        "there is no plan {0}: plans are kept until the appliance restarts or {PLANS_KEPT} newer ones were made; make it again"
    )]
    Unknown(String),
    /// What it rests on has changed.
    #[error("the plan is out of date: {}; make it again", .0.join("; "))]
    Stale(Vec<String>),
    /// It destroys data and nobody said yes to that.
    #[error("it destroys data on {}: say so by name (`--yes-destroy {}`)", .missing.join(", "), .missing.join(" "))]
    Consent {
        /// Names of the nodes.
        missing: Vec<String>,
    },
    /// What was said to that names more than one machine.
    #[error(
        "a name in the consent is what one machine is called now and another is to be called, so it says yes to neither: consent by \
         id or MAC address, for {}",
        .0.join(", ")
    )]
    Ambiguous(Vec<String>),
    /// Some of its nodes are being worked on.
    #[error("run {run} works on {}: wait for it, cancel it (`rackbar run cancel {run}`), or recover the nodes", .nodes.join(", "))]
    Busy {
        /// The run.
        run: RunId,
        /// Names of the nodes.
        nodes: Vec<String>,
    },
    /// There is nothing to do.
    #[error("the plan has no actions: everything is as wanted, or nothing can be done; `rackbar plan` says which")]
    Nothing,
    /// The plan cannot be walked.
    #[error("{0}")]
    Bad(String),
    /// It could not be written down.
    #[error("the run could not be written down, so nothing was begun: {0}")]
    Store(String),
}

/// Plans that are kept for a commit.
pub(super) const PLANS_KEPT: usize = 32;

/// What may be ordered of a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum RunOrder {
    /// Begin nothing new.
    Pause,
    /// Go on.
    Resume,
    /// Give up.
    Cancel,
}

/// Why an order was not followed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum OrderError {
    /// There is no such run.
    #[error("there is no run {0}")]
    Unknown(RunId),
    /// It has ended.
    #[error("run {0} has ended")]
    Ended(RunId),
    /// It could not be written down yet.
    #[error(
        "it could not be written down: {0}; it is carried out as soon as that is mended, unless the power goes before"
    )]
    Unwritten(String),
}

/// Why a node was not changed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NodeError {
    /// There is no such node.
    #[error("there is no node {0}")]
    NoSuchNode(NodeId),
    /// The site has no such role.
    #[error("the site in force has no role {role:?}; it has {}", if .known.is_empty() { "none".to_owned() } else { .known.join(", ") })]
    NoSuchRole {
        /// What was asked for.
        role: String,
        /// What there is.
        known: Vec<String>,
    },
    /// It could not be written down.
    #[error("it could not be written down, so nothing was changed: {0}")]
    Store(String),
    /// It could not be written down yet.
    #[error(
        "it could not be written down: {0}; it is carried out as soon as that is mended, unless the power goes before"
    )]
    Unwritten(String),
    /// A run has it in work.
    #[error("run {run} works on {name}: wait for it, or recover the machine first")]
    Busy {
        /// Its name.
        name: String,
        /// The run.
        run: RunId,
    },
    /// It is there.
    #[error("the agent of {0} is connected, so it is not gone: switch it off or take it out first")]
    StillThere(String),
    /// Hands off.
    #[error(
        "{name} is in maintenance, {reason}: its system is not touched; end that with `rackbar node recover {name} --end-maintenance` when nobody has their hands in it"
    )]
    Maintenance {
        /// Its name.
        name: String,
        /// Who said so, and why.
        reason: String,
    },
    /// It belongs to somebody else.
    #[error("{0} was handed over to another owner, so it is not touched")]
    HandedOver(String),
}

/// What `recover` came to.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
pub struct Recovered {
    /// The node's state now, by name.
    pub state: String,
    /// What happens next, in words.
    pub next: String,
}

/// Why no checks are run.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum VerifyError {
    /// No node has anything to check.
    #[error(
        "nothing is installed on {0}, nothing was adopted there and it was never ready in memory, so there is nothing to check"
    )]
    Nothing(String),
    /// The run could not begin.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// There is no such node.
    #[error("there is no node {0}")]
    NoSuchNode(NodeId),
}

/// A plan and what it was asked for.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) plan: Arc<rackbar_plan::Plan>,
    pub(super) request: PlanRequest,
}

//! The hands of the executor: one attempt of one action in, what came of it out. Everything they do may be done again.
//!
//! [`Hands`] is the door. [`Appliance`] works real machines through their agents, their BMCs and SSH; tests and the
//! simulated rack put their own hands behind the same executor.

mod agent;
mod appliance;
mod bmc;
mod bmc_setup;
mod enrol;
mod installer;
mod password;
mod restart;
mod service;
mod ssh;

use std::collections::BTreeMap;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;

use rackbar_messages::JobId;
use rackbar_model::{Adopted, CheckResult, Digest, EraseEvidence, Installed, Node, NodeId, OsSetup, RootTarget};
use rackbar_plan::engine::Failure;
use rackbar_plan::{Action, ActionKind, Outcome, Plan, Progress, RunId, ServiceSeen};
use rackbar_verify::NodeReport;
use tokio::sync::watch;

use crate::executor::SiteInForce;

pub(crate) use agent::end_in_order;
pub(crate) use appliance::client_key;
pub use appliance::{Appliance, AppliancePartsError, Reach};
pub(crate) use installer::boots_from;
pub(crate) use password::LENGTH as PASSWORD_LENGTH;

/// One attempt of one action.
pub struct Task {
    /// The run.
    pub run: RunId,
    /// The plan it belongs to: what the same node is given elsewhere in it may be of use.
    pub plan: Arc<Plan>,
    /// Position of the action in the plan.
    pub position: usize,
    /// The node as it is now; `None` for an action without one.
    pub node: Option<Arc<Node>>,
    /// What we know of the system on it.
    pub system: System,
    /// The attempt's job number.
    pub job: JobId,
    /// 1 for the first attempt.
    pub attempt: u32,
    /// This attempt was under way before the appliance started: part of it may be done.
    pub taken_up: bool,
    /// Called with how far it is.
    pub progress: Arc<dyn Fn(Progress) + Send + Sync>,
    /// Turns true when the attempt is to end at the next safe point.
    pub give_up: watch::Receiver<bool>,
}

impl Task {
    /// The action.
    pub fn action(&self) -> Option<&Action> {
        self.plan.actions.get(self.position)
    }
}

/// What we know of the system on a node, by our own record.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct System {
    /// What was installed, when something was.
    pub installed: Option<Installed>,
    /// What was adopted, when something was.
    pub adopted: Option<Adopted>,
    /// The identity it was given, without its secret host key.
    pub setup: Option<OsSetup>,
    /// The role of the node.
    pub role: Option<String>,
    /// Firmware attributes the role wants.
    pub bios: BTreeMap<String, String>,
    /// Names that our DNS serves and it must be able to look up.
    pub names: Vec<rackbar_verify::WantedName>,
    /// Other installed nodes on the same networks that its checks try.
    pub peers: Vec<rackbar_verify::Peer>,
    /// How many there are, tried or not.
    pub peers_known: usize,
    /// What shows that its disks were emptied.
    pub erased: Vec<EraseEvidence>,
    /// What its hardware bore when it was last burnt in.
    pub burned_in: Vec<CheckResult>,
    /// Its role keeps it in our agent.
    pub in_memory: bool,
    /// Bytes of memory it had when its checks passed.
    pub memory: Option<u64>,
    /// The site in force, for a system that is to enrol itself at its tools.
    pub site: Option<Arc<SiteInForce>>,
}

/// What an attempt came to, and what is known because of it.
#[derive(Clone, Debug)]
pub struct Done {
    /// What came of it.
    pub result: Result<Outcome, Failure>,
    /// What was learned, in order. Kept also when the attempt failed.
    pub learned: Vec<Learned>,
}

impl Done {
    /// It went well.
    pub fn well(summary: impl Into<String>) -> Self {
        Self {
            result: Ok(Outcome {
                summary: summary.into(),
                ..Outcome::default()
            }),
            learned: Vec::new(),
        }
    }

    /// It failed; `again` when trying again may help.
    pub fn failed(reason: impl Into<String>, advice: impl Into<String>, again: bool) -> Self {
        Self {
            result: Err(Failure {
                reason: reason.into(),
                advice: advice.into(),
                again,
            }),
            learned: Vec::new(),
        }
    }

    /// The same with lines of detail.
    #[must_use]
    pub fn with_details(mut self, details: Vec<String>) -> Self {
        if let Ok(outcome) = &mut self.result {
            outcome.details = details;
        }
        self
    }

    /// The same with something learned.
    #[must_use]
    pub fn and(mut self, learned: Learned) -> Self {
        self.learned.push(learned);
        self
    }

    /// The same as "it was as wanted already".
    #[must_use]
    pub fn unchanged(mut self) -> Self {
        if let Ok(outcome) = &mut self.result {
            outcome.nothing_to_do = true;
        }
        self
    }
}

/// Something that is known from now on: of a node, or of a service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Learned {
    /// Its firmware attributes, as read.
    Bios(BTreeMap<String, String>),
    /// Its BMC account has a password of its own.
    PasswordRotated,
    /// Its BMC has this account of ours, with a password of this machine's own, and we logged in with it.
    BmcAccount(String),
    /// Its disks were emptied.
    Erased(Vec<EraseEvidence>),
    /// Its hardware was burnt in, and bore it or did not.
    BurnedIn(Vec<CheckResult>),
    /// An image was written.
    Written {
        /// Name in the catalogue.
        image: String,
        /// SHA-256 of the file.
        sha256: Digest,
        /// Where it lies.
        target: RootTarget,
    },
    /// The system was given its identity.
    SetUp {
        /// Without the secret host key.
        setup: Box<OsSetup>,
        /// Public part of the host key.
        host_key: String,
    },
    /// What the system was given is another now; its host key is as it was.
    Adjusted(Box<OsSetup>),
    /// The installed system answered at this address, with its host key.
    Proved(IpAddr),
    /// Its checks were run.
    Checked(Box<NodeReport>),
    /// What was seen of a service that was asked.
    Service(ServiceSeen),
}

/// A future of [`Hands`].
pub type Working<'a> = Pin<Box<dyn Future<Output = Done> + Send + 'a>>;

/// Who carries actions out.
pub trait Hands: Send + Sync + 'static {
    /// Carries out one attempt. The future may be dropped at any point: when the appliance ends, or when the attempt is
    /// lost.
    fn carry_out(&self, task: Task) -> Working<'_>;

    /// The end of an attempt was written down.
    fn noted(&self, _node: NodeId, _job: JobId) {}

    /// An action of a node will not change any more, and that is written down. After a restart it is said again of every run
    /// that is kept.
    fn settled(&self, _node: NodeId, _run: RunId, _kind: &ActionKind, _well: bool) {}
}

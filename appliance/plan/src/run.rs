//! A plan under way: what each action has come to.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use rackbar_model::{NodeId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{ActionId, Plan};

/// The number of a run, from 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
#[serde(transparent)]
pub struct RunId(pub u64);

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A plan that was committed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
pub struct Run {
    /// Its number.
    pub id: RunId,
    /// The plan.
    #[cfg_attr(feature = "utoipa", schema(value_type = Plan))]
    pub plan: Arc<Plan>,
    /// Who committed it.
    pub by: String,
    /// When it began.
    pub began: Timestamp,
    /// When it ended.
    pub ended: Option<Timestamp>,
    /// How it stands.
    pub state: RunState,
    /// Each action's standing.
    pub actions: BTreeMap<ActionId, Stand>,
    /// Who cancelled it.
    #[serde(default)]
    pub cancelled: Option<String>,
    /// Nodes that were taken out of it, and why. What was under way there was given up, the rest is not begun.
    #[serde(default)]
    #[cfg_attr(feature = "utoipa", schema(value_type = BTreeMap<String, String>))]
    pub excluded: BTreeMap<NodeId, String>,
    /// Nodes that it takes over from earlier runs, and from which. It begins when these have let go of them.
    #[serde(default)]
    #[cfg_attr(feature = "utoipa", schema(value_type = BTreeMap<String, u64>))]
    pub takes: BTreeMap<NodeId, RunId>,
    /// Nodes that a later run took over, and which. They are among `excluded`.
    #[serde(default)]
    #[cfg_attr(feature = "utoipa", schema(value_type = BTreeMap<String, u64>))]
    pub superseded: BTreeMap<NodeId, RunId>,
    /// It was paused while it waited for earlier runs: it begins paused.
    #[serde(default)]
    pub held: bool,
}

impl Run {
    /// A plan that is committed now: every action waits.
    pub fn new(id: RunId, plan: Arc<Plan>, by: &str, now: Timestamp) -> Self {
        let actions = plan.actions.iter().map(|action| (action.id.clone(), Stand::Waiting));
        Self {
            id,
            by: by.into(),
            began: now,
            ended: None,
            state: RunState::Going,
            actions: actions.collect(),
            cancelled: None,
            excluded: BTreeMap::new(),
            takes: BTreeMap::new(),
            superseded: BTreeMap::new(),
            held: false,
            plan,
        }
    }

    /// Ends it where it stands: nothing of it is begun or taken up any more, and what was open says `reason`. Gives what
    /// changed.
    pub fn leave_off(&mut self, now: Timestamp, reason: &str) -> Vec<ActionId> {
        let mut changed = Vec::new();
        for (id, stand) in self.actions.iter_mut().filter(|(_, stand)| !stand.settled()) {
            let reason = match stand {
                Stand::Running(_) => format!("{reason}; it was under way, and how far it came is not known"),
                _ => reason.to_owned(),
            };
            *stand = Stand::Skipped { reason };
            changed.push(id.clone());
        }
        self.ended = Some(now);
        self.state = match self.cancelled {
            Some(_) => RunState::Cancelled,
            None => RunState::Failed,
        };
        changed
    }
}

impl RunState {
    /// True when nothing will happen any more.
    pub const fn ended(self) -> bool {
        match self {
            Self::Done | Self::Failed | Self::Cancelled | Self::Superseded => true,
            Self::Going | Self::Paused | Self::Waiting => false,
        }
    }

    /// The state's name as the API and the CLI write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Going => "going",
            Self::Paused => "paused",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Waiting => "waiting",
            Self::Superseded => "superseded",
        }
    }
}

/// How a run stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// Actions are carried out.
    Going,
    /// No new action is begun; what runs goes on.
    Paused,
    /// Every action ended well.
    Done,
    /// Some ended badly, or could not be begun for that; nothing runs any more.
    Failed,
    /// Given up by a person; nothing runs any more.
    Cancelled,
    /// Nothing is begun yet: it waits until earlier runs have let go of the nodes it takes over.
    Waiting,
    /// Later runs took over what was left of it; nothing runs any more.
    Superseded,
}

/// How an action stands.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Stand {
    /// Its needs are not met, or there is no room for it yet.
    Waiting,
    /// An attempt is under way. Written down before the attempt begins.
    Running(Attempt),
    /// An attempt failed; the next is due.
    Again {
        /// Attempts so far.
        tries: u32,
        /// Why the last failed.
        reason: String,
        /// When the next begins.
        due: Timestamp,
    },
    /// It ended well.
    Done {
        /// What came of it.
        outcome: Outcome,
        /// Attempts it took.
        tries: u32,
        /// When.
        at: Timestamp,
    },
    /// It ended badly.
    Failed {
        /// What failed, where, why.
        reason: String,
        /// What to do next.
        advice: String,
        /// Attempts it took.
        tries: u32,
        /// When.
        at: Timestamp,
    },
    /// It was not begun: an action it needs failed, or the run was cancelled.
    Skipped {
        /// Why.
        reason: String,
    },
}

impl Stand {
    /// True when nothing will come of it any more but what it says.
    pub const fn settled(&self) -> bool {
        match self {
            Self::Done { .. } | Self::Failed { .. } | Self::Skipped { .. } => true,
            Self::Waiting | Self::Running(_) | Self::Again { .. } => false,
        }
    }
}

/// One attempt of an action.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
pub struct Attempt {
    /// 1 for the first.
    pub number: u32,
    /// The number its agent's job has: 32 hexadecimal digits, made before the attempt began. An attempt that is taken up
    /// again after a restart of the appliance keeps it.
    pub job: String,
    /// When it began.
    pub began: Timestamp,
    /// How far it is. Not written down.
    #[serde(default)]
    pub progress: Option<Progress>,
}

/// How far something is.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
pub struct Progress {
    /// What it does now.
    pub doing: String,
    /// Units done.
    pub done: u64,
    /// Units in all; 0 when not known.
    pub total: u64,
}

/// What came of an action.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
pub struct Outcome {
    /// In one sentence.
    pub summary: String,
    /// Line by line, where there is more to say: evidence of an erase, boot order as read back.
    pub details: Vec<String>,
    /// It was as wanted already.
    pub nothing_to_do: bool,
}

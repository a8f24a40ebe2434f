//! What is wanted, and the way there: site files and rules, the planner, and the engine that walks a plan.
//!
//! Pure: no clock, no file, no socket, no log. [`Plan`] is what the planner makes from a site and what was observed;
//! [`Run`] is a plan under way.

mod action;
mod digest;
pub mod engine;
mod facts;
pub mod planner;
pub mod rules;
mod run;
mod service;
pub mod site;

pub use action::{
    Action, ActionId, ActionKind, Again, BmcAddress, BmcNetwork, Change, Inputs, Layer, Limits, Plan, PlanId, Refusal,
    RestartWay, Scope, StepProgram, StepSpec, Target,
};
pub use facts::{Facts, Installed, NodeFacts, OwnService, SetupDigest, bmc_holder, is_of_system};
pub use planner::{Memory, destroys_more, held_up, plan, replan, stale};
pub use rules::{RuleTrace, bind};
pub use run::{Attempt, Outcome, Progress, Run, RunId, RunState, Stand};
pub use service::{ServiceSeen, ServiceSpec};
pub use site::{Site, SiteProblem};

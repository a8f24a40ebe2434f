//! What is wanted, and the way there: site files and rules, the planner, and the engine that walks a plan.
//!
//! Pure: no clock, no file, no socket, no log. [`Plan`] is what the planner makes from a site and what was observed;
//! [`Run`] is a plan under way.

mod action;
pub mod engine;
mod run;

pub use action::{
    Action, ActionId, ActionKind, Change, Inputs, Layer, Limits, Plan, PlanId, Refusal, RestartWay, StepSpec, Target,
};
pub use run::{Attempt, Outcome, Progress, Run, RunId, RunState, Stand};

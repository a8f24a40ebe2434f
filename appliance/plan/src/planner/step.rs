//! The user's own steps in a node's chain.

use std::collections::BTreeMap;

use rackbar_model::{Digest, RootTarget};

use super::chain::{Because, Chain};
use crate::digest;
use crate::site::{Role, Step};
use crate::{ActionId, ActionKind, Limits, StepSpec};

/// The digest a step is remembered by: a step whose script changed is a step that was not run.
pub fn step_digest(step: &StepSpec) -> Digest {
    // The account is left out: it follows from the image when the site file does not say it.
    digest::of(&(&step.name, &step.script, step.expect_status, &step.expect_output))
}

fn spec(step: &Step, account: &str) -> StepSpec {
    StepSpec {
        name: step.name.clone(),
        script: step.script.clone(),
        user: step.user.clone().unwrap_or_else(|| account.to_owned()),
        expect_status: step.expect_status,
        expect_output: step.expect_output.clone(),
    }
}

/// Names of the steps that were not run as they are now written.
pub(super) fn left(role: &Role, done: &BTreeMap<String, Digest>) -> Vec<String> {
    let is_left = |step: &&Step| done.get(&step.name) != Some(&step_digest(&spec(step, "")));
    role.step.iter().filter(is_left).map(|step| step.name.clone()).collect()
}

/// Adds the role's steps, or only those named, and makes the last action of the chain one that needs them all.
pub(super) fn push(role: &Role, only: Option<&[String]>, account: &str, chain: &mut Chain<'_>) {
    add(role, only, chain, "step", |step| ActionKind::Step(spec(step, account)));
}

/// The same for a node in rescue: our agent runs them, as root inside the system that lies on `target`.
pub(super) fn push_rescue(role: &Role, only: &[String], target: &RootTarget, chain: &mut Chain<'_>) {
    add(role, Some(only), chain, "rescue", |step| ActionKind::Rescue {
        target: target.clone(),
        step: spec(step, "root"),
    });
}

fn add(role: &Role, only: Option<&[String]>, chain: &mut Chain<'_>, word: &str, kind: impl Fn(&Step) -> ActionKind) {
    let first = chain.actions.last().map(|action| action.id.clone());
    let mut before: Option<&Step> = None;
    let mut added: Vec<&str> = Vec::new();
    for step in &role.step {
        let above = before.replace(step);
        if only.is_some_and(|only| !only.contains(&step.name)) {
            continue;
        }
        let wanted: Vec<&str> = match &step.needs {
            Some(names) => names.iter().map(String::as_str).collect(),
            None => above.map(|step| step.name.as_str()).into_iter().collect(),
        };
        let mut needs: Vec<ActionId> = first.iter().cloned().collect();
        needs.extend(
            wanted
                .iter()
                .filter(|name| added.contains(name))
                .map(|name| chain.id(&format!("{word}.{name}"))),
        );
        let id = chain.id(&format!("{word}.{}", step.name));
        let limits = Limits {
            seconds: step.timeout,
            tries: step.tries,
        };
        let because = Because::reason(format!("step {} of the role", step.name));
        chain.add(id, kind(step), needs, limits, because);
        added.push(&step.name);
    }
}

//! The user's own steps in a node's chain.

use std::borrow::Cow;
use std::collections::BTreeMap;

use rackbar_model::{Digest, ProgramEntry, RootTarget};

use super::chain::{Because, Chain};
use super::node::Case;
use super::packages;
use crate::digest;
use crate::site::Step;
use crate::site::problem::did_you_mean;
use crate::site::steps::PACKAGES;
use crate::{ActionId, ActionKind, Limits, StepProgram, StepSpec};

/// The digest a step is remembered by: a step whose script or program changed is a step that was not run.
pub fn step_digest(step: &StepSpec) -> Digest {
    // The account is left out: it follows from the image when the site file does not say it.
    match &step.program {
        None => digest::of(&(&step.name, &step.script, step.expect_status, &step.expect_output)),
        Some(StepProgram { sha256, arguments, .. }) => digest::of(&(
            &step.name,
            ("program", sha256, arguments),
            step.expect_status,
            &step.expect_output,
        )),
    }
}

/// A role's steps, and the programs that there are for them.
pub(super) struct Steps<'a> {
    role_name: &'a str,
    all: Vec<Cow<'a, Step>>,
    /// What the first of them installs, where the role has packages.
    packages: Option<&'a [String]>,
    programs: &'a BTreeMap<String, ProgramEntry>,
}

impl Case<'_> {
    /// The role's packages and then its own steps.
    pub(super) fn steps(&self) -> Steps<'_> {
        let packages = packages::step(self.role).map(Cow::Owned);
        Steps {
            role_name: self.role_name,
            packages: packages.is_some().then_some(self.role.packages.as_slice()),
            all: packages
                .into_iter()
                .chain(self.role.step.iter().map(Cow::Borrowed))
                .collect(),
            programs: &self.facts.programs,
        }
    }
}

impl Steps<'_> {
    fn spec(&self, step: &Step, account: &str) -> Result<StepSpec, String> {
        let program = step.program.as_ref().map(|name| self.program(step, name)).transpose()?;
        Ok(StepSpec {
            name: step.name.clone(),
            script: step.script.clone().unwrap_or_default(),
            program,
            user: step.user.clone().unwrap_or_else(|| account.to_owned()),
            expect_status: step.expect_status,
            expect_output: step.expect_output.clone(),
        })
    }

    /// The program as it is in the store now.
    fn program(&self, step: &Step, name: &str) -> Result<StepProgram, String> {
        let Some(entry) = self.programs.get(name) else {
            let hint = did_you_mean(name, self.programs.keys().map(String::as_str));
            let hint = hint.map_or_else(String::new, |hint| format!(" {hint}"));
            return Err(format!(
                "step {} of role {} runs the program {name}, and no program of that name is here:{hint} put it in with \
                 `rackbar program add FILE --name {name}`",
                step.name, self.role_name
            ));
        };
        Ok(StepProgram {
            name: entry.name.clone(),
            sha256: entry.sha256,
            bytes: entry.bytes,
            arguments: step.arguments.clone(),
        })
    }

    /// Names of the steps that were not run as they are now written.
    ///
    /// # Errors
    /// When a program is missing: what the step would be is not known then.
    pub(super) fn left(&self, done: &BTreeMap<String, Digest>) -> Result<Vec<String>, String> {
        let mut left = Vec::new();
        for step in &self.all {
            if done.get(&step.name) != Some(&step_digest(&self.spec(step, "")?)) {
                left.push(step.name.clone());
            }
        }
        Ok(left)
    }

    /// Adds the role's steps, or only those named, and makes the last action of the chain one that needs them all.
    ///
    /// # Errors
    /// When a program is missing.
    pub(super) fn push(&self, only: Option<&[String]>, account: &str, chain: &mut Chain<'_>) -> Result<(), String> {
        self.add(only, chain, "step", |step| {
            Ok(ActionKind::Step(self.spec(step, account)?))
        })
    }

    /// The same for a node in rescue: our agent runs them, as root inside the system that lies on `target`.
    ///
    /// # Errors
    /// As [`Self::push`].
    pub(super) fn push_rescue(
        &self,
        only: &[String],
        target: &RootTarget,
        chain: &mut Chain<'_>,
    ) -> Result<(), String> {
        self.add(Some(only), chain, "rescue", |step| {
            Ok(ActionKind::Rescue {
                target: target.clone(),
                step: self.spec(step, "root")?,
            })
        })
    }

    fn add(
        &self,
        only: Option<&[String]>,
        chain: &mut Chain<'_>,
        word: &str,
        kind: impl Fn(&Step) -> Result<ActionKind, String>,
    ) -> Result<(), String> {
        let first = chain.actions.last().map(|action| action.id.clone());
        let mut before: Option<&Step> = None;
        let mut added: Vec<&str> = Vec::new();
        for step in self.all.iter().map(AsRef::as_ref) {
            let above = before.replace(step);
            if only.is_some_and(|only| !only.contains(&step.name)) {
                continue;
            }
            let mut wanted: Vec<&str> = match &step.needs {
                Some(names) => names.iter().map(String::as_str).collect(),
                None => above.map(|step| step.name.as_str()).into_iter().collect(),
            };
            if self.packages.is_some() {
                // What needs other steps, or none, finds them there too.
                wanted.push(PACKAGES);
            }
            let mut needs: Vec<ActionId> = first.iter().cloned().collect();
            let wanted = added.iter().filter(|name| wanted.contains(name));
            needs.extend(wanted.map(|name| chain.id(&format!("{word}.{name}"))));
            let id = chain.id(&format!("{word}.{}", step.name));
            let limits = Limits {
                seconds: step.timeout,
                tries: step.tries,
            };
            let kind = kind(step)?;
            let runs = kind.program().map_or_else(String::new, |program| {
                let short: String = program.sha256.to_string().chars().take(12).collect();
                format!(": the program {}, SHA-256 {short}", program.name)
            });
            let because = match self.packages {
                Some(packages) if step.name == PACKAGES => format!("packages of the role: {}", packages.join(", ")),
                _ => format!("step {} of the role{runs}", step.name),
            };
            let because = Because::reason(because);
            chain.add(id, kind, needs, limits, because);
            added.push(&step.name);
        }
        Ok(())
    }
}

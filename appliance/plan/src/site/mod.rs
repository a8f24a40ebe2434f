//! The site file: what is wanted of a rack. Parsed with every problem at once, each with its line, field and remedy.

mod diff;
pub(crate) mod formats;
mod handoff;
pub(crate) mod problem;
mod profiles;
mod reference;
mod repository;
mod semantics;
pub(crate) mod steps;
mod tree;
mod types;
mod validate;
mod values;

use std::collections::BTreeSet;
use std::sync::OnceLock;

use serde::Deserialize;
use serde_json::Value;

pub use diff::{Difference, diff};
pub use handoff::{
    Ceph, CephDaemon, ChefServer, Consul, Enrol, Handoff, HandoffRole, KubernetesGroup, PackstackHost, PuppetServer,
    SaltMaster,
};
pub use problem::SiteProblem;
pub use profiles::profiles;
pub use reference::reference;
pub use types::{
    Bmc, EraseDisks, File, Machine, Materials, MemoryRole, Network, Repository, Role, RoleNetwork, Root, Rule,
    RunLimits, Site, Step, WantedSystem,
};
pub use values::{Addresses, Attribute, Service};

use crate::OwnService;
use problem::{Problems, did_you_mean, known};
use tree::{Kind, Tree};
use validate::Validator;

impl Site {
    /// Reads a site file for an appliance that offers all services of its own, as one of this version does.
    ///
    /// # Errors
    /// Every problem of the file, in order of its lines.
    pub fn parse(text: &str) -> Result<Self, Vec<SiteProblem>> {
        Self::parse_for(text, &OwnService::ALL.into())
    }

    /// Reads a site file for an appliance that offers these services.
    ///
    /// # Errors
    /// Every problem of the file, in order of its lines.
    pub fn parse_for(text: &str, services: &BTreeSet<OwnService>) -> Result<Self, Vec<SiteProblem>> {
        let (tree, errors) = Tree::parse(text);
        let mut problems = Problems::new(text);
        for error in &errors {
            problems.add(error.span(), "", error.message().trim().to_owned(), None);
        }
        // After a syntax error the tree has holes: what it says of missing fields would mislead.
        if errors.is_empty()
            && let Some(site) = check(tree, services, &mut problems)
            && problems.list.is_empty()
        {
            return Ok(site);
        }
        problems.list.sort();
        problems.list.dedup();
        Err(problems.list)
    }

    /// The JSON Schema of site files.
    pub fn schema() -> Value {
        schema().clone()
    }
}

fn schema() -> &'static Value {
    static SCHEMA: OnceLock<Value> = OnceLock::new();
    SCHEMA.get_or_init(|| {
        let mut schema = schemars::schema_for!(Site).to_value();
        if let Some(object) = schema.as_object_mut() {
            object.insert("title".to_owned(), Value::from("Rackbar site file"));
        }
        schema
    })
}

fn check(tree: Tree, services: &BTreeSet<OwnService>, problems: &mut Problems<'_>) -> Option<Site> {
    let tree = overlay(tree, problems)?;
    let schema = schema();
    let mut validator = Validator {
        schema,
        problems,
        shifted: false,
    };
    let sound = validator.run(&tree)?;
    let shifted = validator.shifted;
    let site = match Site::deserialize(sound) {
        Ok(site) => site,
        Err(error) => {
            // The schema let something pass that the types do not.
            problems.add(None, "", error.to_string(), None);
            return None;
        }
    };
    if !shifted {
        semantics::check(&site, &tree, services, problems);
    }
    Some(site)
}

/// Lays the file over the profile it extends.
fn overlay(tree: Tree, problems: &mut Problems<'_>) -> Option<Tree> {
    let Some(name) = tree.get("extends").and_then(Tree::text) else {
        return Some(tree);
    };
    let Some(profile) = profiles().iter().find(|profile| profile.name == name) else {
        let names = || profiles().iter().map(|profile| profile.name);
        let message = format!("there is no profile `{name}`; {}", known(names()));
        problems.add(
            tree.place(&["extends"]),
            "extends",
            message,
            did_you_mean(name, names()),
        );
        return None;
    };
    let (lower, _) = Tree::parse(profile.text);
    let mut tree = tree.over(lower);
    // What stands nowhere in the text is reported where the profile is named.
    if let Kind::Table(table) = &tree.kind {
        tree.span = table.get("extends").and_then(|entry| entry.value.span.clone());
    }
    Some(tree)
}

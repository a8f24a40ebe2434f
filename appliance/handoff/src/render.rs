//! Every export by its tool and name.

use serde_json::Value;

use crate::member::Rack;
use crate::{answers, chef, facts, puppet, salt};

/// An export that can be asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Export {
    /// The tool, such as `puppet`.
    pub tool: &'static str,
    /// What of it, such as `enc`.
    pub what: &'static str,
    /// True when it is of one machine.
    pub of_node: bool,
    /// What it is, in words.
    pub words: &'static str,
}

const fn export(tool: &'static str, what: &'static str, of_node: bool, words: &'static str) -> Export {
    Export {
        tool,
        what,
        of_node,
        words,
    }
}

/// Every export there is.
pub const EXPORTS: &[Export] = &[
    export(
        "puppet",
        "enc",
        true,
        "classification of a node, for an external node classifier",
    ),
    export("puppet", "facts", true, "external facts of a node"),
    export("salt", "roster", false, "roster for salt-ssh"),
    export("salt", "pillar", true, "pillar of a minion"),
    export("chef", "node", true, "node object"),
    export(
        "chef",
        "first-boot",
        true,
        "attributes of the first run (chef-client -j)",
    ),
    export("packstack", "answers", false, "hosts of an answer file"),
    export("kubespray", "inventory", false, "inventory in Kubespray's groups"),
    export(
        "cephadm",
        "spec",
        false,
        "hosts, services and disks for `ceph orch apply`",
    ),
    export("facter", "facts", true, "inventory in Facter's shape"),
    export("ohai", "attributes", true, "inventory in Ohai's shape"),
];

/// Why an export cannot be given.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ExportError {
    /// There is none of that name.
    #[error("there is no export {0}/{1}; `rackbar handoff list` shows them")]
    Unknown(String, String),
    /// It is of one machine, and none was named.
    #[error("{0}/{1} is of one node: name it")]
    NoNode(String, String),
    /// There is no such machine.
    #[error("there is no node {0:?}")]
    NoSuchNode(String),
    /// Something is missing without which the tool would do harm or nothing.
    #[error("{0}")]
    Missing(String),
}

/// The text of an export.
///
/// # Errors
/// See [`ExportError`]. What a tool asks for at every run of its own (ENC, facts, pillar, Chef attributes) is empty and no
/// error for a machine that is not known.
pub fn render(rack: &Rack<'_>, tool: &str, what: &str, node: Option<&str>) -> Result<String, ExportError> {
    let unknown = || ExportError::Unknown(tool.into(), what.into());
    let export = EXPORTS
        .iter()
        .find(|one| one.tool == tool && one.what == what)
        .ok_or_else(unknown)?;
    let node = match node {
        None if export.of_node => return Err(ExportError::NoNode(tool.into(), what.into())),
        node => node.unwrap_or_default(),
    };
    let json = |value: &Value| format!("{value:#}\n");
    Ok(match (tool, what) {
        ("puppet", "enc") => puppet::enc(rack, node),
        ("puppet", "facts") => json(&puppet::external_facts(rack, node)),
        ("salt", "roster") => salt::roster(rack),
        ("salt", "pillar") => salt::pillar(rack, node),
        ("chef", "node") => json(&chef::node(rack, node)),
        ("chef", "first-boot") => json(&chef::first_boot(rack, node)),
        ("packstack", "answers") => answers::packstack(rack)?,
        ("kubespray", "inventory") => answers::kubespray(rack)?,
        ("cephadm", "spec") => answers::cephadm(rack)?,
        ("facter", "facts") => json(&of_any(rack, node, facts::facter)?),
        ("ohai", "attributes") => json(&of_any(rack, node, facts::ohai)?),
        _ => return Err(unknown()),
    })
}

/// Facts of any machine, also of one that has no system yet.
fn of_any(rack: &Rack<'_>, name: &str, shape: fn(&rackbar_model::Node, &str) -> Value) -> Result<Value, ExportError> {
    if let Some(member) = rack.find(name) {
        return Ok(shape(member.node, &member.fqdn));
    }
    let known = |node: &&std::sync::Arc<rackbar_model::Node>| {
        node.name.eq_ignore_ascii_case(name)
            || node.id.to_string() == name
            || node.macs.iter().any(|mac| mac.to_string() == name.to_ascii_lowercase())
    };
    let node = rack.nodes.iter().find(known);
    node.map(|node| shape(node, &node.name))
        .ok_or_else(|| ExportError::NoSuchNode(name.into()))
}

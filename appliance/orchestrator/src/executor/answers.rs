//! What an install from an empty disk on would make of a node, whatever the catalogue has: the planner's own decision, of which
//! nothing is recorded.

use std::sync::Arc;

use rackbar_model::{
    Digest, FirmwareMode, ImageEntry, ImageFormat, MacAddr, Node, NodeId, OsSetup, RootTarget, Timestamp,
};
use rackbar_plan::rules::Rules;
use rackbar_plan::site::Role;
use rackbar_plan::{ActionKind, NodeFacts, Plan, Scope, Site};

use super::{Executor, PlanError, PlanRequest};
use crate::answers::AnswersError;
use crate::hands::boots_from;
use crate::rack::{locked, now};

/// A node as an install would make it.
pub(crate) struct Fresh {
    pub(crate) node: Arc<Node>,
    pub(crate) role: String,
    /// Without host key and machine ID.
    pub(crate) setup: OsSetup,
    pub(crate) target: RootTarget,
    pub(crate) firmware: FirmwareMode,
    pub(crate) boot_mac: MacAddr,
    pub(crate) kernel_arguments: String,
    /// The role's packages.
    pub(crate) packages: Vec<String>,
    /// Static addresses that no commit has given to the node yet.
    pub(crate) not_kept: Vec<String>,
    /// What an install by us does besides, in words.
    pub(crate) besides: Vec<String>,
}

impl Executor {
    /// The node as an install of `system` by its role would make it. `files`: with the role's files and repositories.
    ///
    /// # Errors
    /// When there is no site or role, or the node could not be installed, in the planner's words.
    pub(crate) fn fresh(&self, id: NodeId, system: &str, files: bool) -> Result<Fresh, AnswersError> {
        let request = PlanRequest {
            nodes: Some(vec![id]),
            reinstall: true,
            ..PlanRequest::default()
        };
        let (mut site, mut facts) = {
            let book = locked(&self.inner.book);
            let none = |error: PlanError| AnswersError::InTheWay(error.to_string());
            self.inner.basis(&book, &request).map_err(none)?
        };
        let found = facts.nodes.iter_mut().find(|node| node.node.id == id);
        let found = found.ok_or_else(|| AnswersError::NoSuchNode(id.to_string()))?;
        // Somebody else starts the installer: neither our agent nor the BMC is needed.
        found.bmc = true;
        let (node, held) = (found.node.clone(), found.addresses.clone());
        let (role, wanted) = role_of(&site, found)?;
        let enrols = site.handoff.role.get(&role).is_some_and(|role| !role.enrol.is_empty());
        let besides = besides(&wanted, enrols);
        site.os.remove(system);
        site.role.insert(role.clone(), bare(&wanted, system, files));
        facts.retired.remove(system);
        facts.images.insert(system.to_owned(), stand_in(system));
        let scope = Scope {
            nodes: Some([id].into()),
            reinstall: true,
            ..Scope::default()
        };
        let (setup, target) = decided(&rackbar_plan::plan(&site, &facts, &scope, now()))?;
        let given = setup.networks.iter().flat_map(|network| &network.addresses);
        let is_held = |address: &str| {
            held.values()
                .any(|held| address.split('/').next() == Some(&held.to_string()))
        };
        let not_kept = given.filter(|address| !is_held(address)).cloned().collect();
        let unknown = |what| AnswersError::InTheWay(unknown(&node.name, what));
        let firmware = node.inventory.as_ref().and_then(|inventory| inventory.firmware.mode);
        Ok(Fresh {
            firmware: firmware.ok_or_else(|| unknown("whether its firmware is BIOS or UEFI"))?,
            boot_mac: boots_from(&node).ok_or_else(|| unknown("which network interface it boots from"))?,
            kernel_arguments: self.inner.rack.look(|mind| mind.settings.kernel_arguments.clone()),
            packages: wanted.packages,
            node,
            role,
            setup,
            target,
            not_kept,
            besides,
        })
    }
}

fn unknown(name: &str, what: &str) -> String {
    format!("the inventory of {name} does not say {what}: let it boot our agent from the network once more")
}

/// The role that a node is bound to, which must be one that installs.
fn role_of(site: &Site, node: &NodeFacts) -> Result<(String, Role), AnswersError> {
    let name = &node.node.name;
    let role = Rules::new(site).trace(node).role.ok_or_else(|| {
        AnswersError::InTheWay(format!(
            "{name} has no role: bind it to one (`rackbar node bind {name} ROLE`), or write a rule that fits it"
        ))
    })?;
    let wanted = site.role.get(&role).cloned().ok_or_else(|| {
        AnswersError::InTheWay(format!(
            "{name} is bound to role {role}, which the site file does not have"
        ))
    })?;
    if wanted.memory.is_some() {
        let text = format!("role {role} of {name} runs in memory and installs nothing: bind it to another role");
        return Err(AnswersError::InTheWay(text));
    }
    Ok((role, wanted))
}

/// Of a role what decides on identity and disks.
fn bare(role: &Role, system: &str, files: bool) -> Role {
    let mut bare = Role {
        os: Some(system.to_owned()),
        root: role.root.clone(),
        network: role.network.clone(),
        ssh_keys: role.ssh_keys.clone(),
        user: role.user.clone(),
        timezone: role.timezone.clone(),
        ..Role::default()
    };
    if files {
        bare.file.clone_from(&role.file);
        bare.repositories.clone_from(&role.repositories);
    }
    bare
}

/// What the planner takes for the system: it fits every disk and has root for its account.
fn stand_in(system: &str) -> ImageEntry {
    ImageEntry {
        name: system.to_owned(),
        format: ImageFormat::Raw,
        sha256: Digest([0; 32]),
        bytes: 0,
        disk_bytes: None,
        arch: "x86_64".to_owned(),
        source: String::new(),
        licence: String::new(),
        user: String::new(),
        added: Timestamp(0),
        installer: None,
    }
}

/// Identity and disks, out of the plan.
fn decided(plan: &Plan) -> Result<(OsSetup, RootTarget), AnswersError> {
    if let Some(refusal) = plan.refused.first().or_else(|| plan.left_out.first()) {
        return Err(AnswersError::InTheWay(format!("{}: {}", refusal.name, refusal.reason)));
    }
    let found = plan.actions.iter().find_map(|action| match &action.kind {
        ActionKind::Setup { target, setup, .. } => Some(((**setup).clone(), target.clone())),
        _ => None,
    });
    let (mut setup, target) =
        found.ok_or_else(|| AnswersError::InTheWay("the planner would install nothing on this node".to_owned()))?;
    setup.machine_id.clear();
    Ok((setup, target))
}

/// What of a role only an install by us does.
fn besides(role: &Role, enrols: bool) -> Vec<String> {
    let count = |number: usize, what: &str| match number {
        0 => None,
        1 => Some(format!("its {what}")),
        more => Some(format!("its {more} {what}s")),
    };
    let all = [
        count(role.step.len(), "step"),
        count(role.bios.len(), "firmware setting"),
        enrols.then(|| "its enrolment at other tools".to_owned()),
    ];
    all.into_iter().flatten().collect()
}

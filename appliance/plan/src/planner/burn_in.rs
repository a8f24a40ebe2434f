//! Burn-in by command: the named nodes are taken into our agent, exercised, and taken back to what they were.

use std::collections::HashMap;

use rackbar_model::{BurnIn, NodeState};

use super::chain::{Because, Chain};
use super::outside::Outside;
use super::{Planner, hands_off, said, seen};
use crate::rules::Rules;
use crate::site::Role;
use crate::{Action, ActionId, ActionKind, NodeFacts, SetupDigest};

impl<'a> Planner<'a> {
    /// Plans nothing but the burn-in `wanted` for the nodes of the scope. It needs no role and destroys nothing: disks are
    /// read only. Installed machines leave our agent again for their own system, and their checks prove that they are back.
    /// Of a role with a batch never more than so many are away from their work at once.
    pub(super) fn exercise(&mut self, rules: &Rules<'a>, wanted: BurnIn) {
        let scoped = self.facts.nodes.iter().filter(|node| self.scope.holds(node.node.id));
        let bound: Vec<_> = scoped.map(|node| (node, rules.bind(node))).collect();
        let roles = bound.iter().filter_map(|(_, binding)| binding.role.as_deref());
        self.outside = Outside::new(self.site, self.facts, self.scope, rules, roles);
        let mut ends: HashMap<String, Vec<ActionId>> = HashMap::new();
        for (node, binding) in bound {
            if let Some(reason) = hands_off(node) {
                self.left_out.push(said(node, reason.to_owned()));
                continue;
            }
            let name = binding.role.as_deref().unwrap_or_default();
            let role = self.site.role.get(name);
            let room = role.map_or(Ok(None), |role| self.outside.room(name, role));
            match room.and_then(|room| Ok((room, chain(node, role, wanted)?))) {
                Ok((room, mut actions)) => {
                    let ends = ends.entry(name.to_owned()).or_default();
                    // Rolling: the node that is so many places ahead in its role is back at work first.
                    let ahead = room.and_then(|room| ends.get(ends.len().checked_sub(room)?));
                    if let (Some(ahead), Some(first)) = (ahead, actions.first_mut()) {
                        first.needs.push(ahead.clone());
                    }
                    ends.extend(actions.last().map(|action| action.id.clone()));
                    let hostname = binding.hostname.as_deref().unwrap_or_default();
                    self.inputs.insert(node.node.id, seen(node, name, role, hostname));
                    self.actions.append(&mut actions);
                }
                Err(reason) => self.refused.push(said(node, reason)),
            }
        }
    }
}

/// Why an adopted machine is not exercised.
const ADOPTED: &str = "its system was adopted, and a burn-in would end it: nothing is known here of how it is brought back. \
                       Exercise it before it is adopted, or forget it first (`rackbar node forget`)";

fn chain(node: &NodeFacts, role: Option<&Role>, wanted: BurnIn) -> Result<Vec<Action>, String> {
    let shown = &node.node;
    if shown.inventory.is_none() {
        return Err("it has not been inspected yet: let it boot from the network until it is discovered".to_owned());
    }
    if node.adopted {
        return Err(ADOPTED.to_owned());
    }
    if shown.state == NodeState::Cleaning {
        return Err("it is being erased; plan again when that has ended".to_owned());
    }
    if !shown.agent_connected && !node.bmc {
        return Err(
            "its agent is not connected and there is no BMC to restart it: boot it from the network by hand, or make its \
             BMC reachable, and plan again"
                .to_owned(),
        );
    }
    // What was written and never given an identity is nobody's system to go back to.
    let installed = node.installed.as_ref();
    let installed = installed.filter(|installed| installed.setup != SetupDigest::default());
    let in_memory = role.is_some_and(|role| role.memory.is_some()) && shown.agent_connected;
    let system = installed.filter(|_| !in_memory);
    let mut chain = Chain::new(&shown.name, shown.id);
    // A system that runs is ended for this, which the plan must show as the restart that it is.
    let fresh = system.is_some() && !shown.agent_connected;
    chain.push(
        ActionKind::Agent { fresh },
        Because::reason("our agent exercises the hardware"),
    );
    let reason = "it was asked for; disks are read, and nothing is written to them";
    chain.push(ActionKind::BurnIn(wanted), Because::reason(reason));
    let checks = role.and_then(|role| role.checks.clone());
    if let Some(system) = system {
        let kind = ActionKind::Restart {
            way: role.map(|role| role.restart).unwrap_or_default(),
            target: system.target.clone(),
        };
        chain.push(
            kind,
            Because::reason("back to the installed system, which stays as it is"),
        );
        let user = shown.installed.as_ref().map(|installed| installed.user.clone());
        let kind = ActionKind::Reachable {
            user: user.unwrap_or_default(),
        };
        let reason = "the installed system must answer with the host key it was given";
        chain.push(kind, Because::reason(reason));
        let checked = role.is_none().then(|| system.checked.clone()).flatten();
        let checks = checks.or(checked).unwrap_or_default();
        let reason = "a node is ready again when its checks pass";
        chain.push(ActionKind::Verify { checks }, Because::reason(reason));
    } else if in_memory && shown.state == NodeState::Ready {
        let checks = checks.unwrap_or_default();
        let reason = "it stays in memory, and is ready again when its checks pass";
        chain.push(ActionKind::Verify { checks }, Because::reason(reason));
    }
    Ok(chain.actions)
}

//! Which node a machine is that was looked at, and whether it may be taken in. Pure.

use std::sync::Arc;

use rackbar_model::{Inventory, MachineReport, Node, NodeId, NodeState, Witness};

use crate::identity;
use crate::record::is_automatic;

/// Which node it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Recognised {
    /// The node; `None` when it was never seen.
    pub(super) known: Option<NodeId>,
    /// The name that the node is to get; `None` when it keeps what it has or gets a name by order.
    pub(super) name: Option<String>,
}

/// What a machine's inventory says of its identity.
pub(super) fn witnesses(inventory: &Inventory) -> Vec<Witness> {
    identity::witnesses_of(inventory)
}

/// Finds the node that a machine is, as discovery does: by the weight of its witnesses.
pub(super) fn recognise(
    inventory: &Inventory,
    named: Option<&Node>,
    name: Option<&str>,
    nodes: &[Arc<Node>],
) -> Result<Recognised, String> {
    let own = witnesses(inventory);
    if !inventory.nics.iter().any(|nic| nic.mac.is_unicast()) {
        return Err(
            "it has no network interface with a MAC address of its own, so it could not be told from another machine: a \
             container, or a virtual machine without one, is not adopted"
                .into(),
        );
    }
    let others = nodes.iter().map(|node| (node.id, node.witnesses.as_slice()));
    let partner = identity::partner(&own, others).map(|(id, _)| id);
    let partner = partner.and_then(|id| nodes.iter().find(|node| node.id == id));
    if let Some(named) = named {
        return match partner {
            Some(partner) if partner.id == named.id => Ok(Recognised {
                known: Some(named.id),
                name: None,
            }),
            Some(partner) => Err(format!(
                "the machine that answers there is {}, and not {}: name the right one, or correct the address",
                partner.name, named.name
            )),
            None if identity::weigh(&own, &named.witnesses).is_same() => Ok(Recognised {
                known: Some(named.id),
                name: None,
            }),
            None => Err(format!(
                "the machine that answers there is not {}: {}. Correct the address, or leave the node out to take it in as \
                 a new one",
                named.name,
                differs(&own, &named.witnesses)
            )),
        };
    }
    match (partner, name) {
        (Some(node), Some(name)) if node.name != name && !is_automatic(&node.name) => Err(format!(
            "the machine that answers there is known as {}: adopt it by that name (`rackbar adopt {}`), or rename it first",
            node.name, node.name
        )),
        (node, name) => {
            let name = name.filter(|name| node.is_none_or(|node| node.name != *name));
            let taken = name.and_then(|name| nodes.iter().find(|other| other.name == name));
            if let Some(other) = taken {
                let id = other.id;
                return Err(format!("{} is the name of another machine already ({id})", other.name));
            }
            Ok(Recognised {
                known: node.map(|node| node.id),
                name: name.map(str::to_owned),
            })
        }
    }
}

/// What two machines show of the same kind that is not the same.
fn differs(seen: &[Witness], known: &[Witness]) -> String {
    let list = |set: &[Witness], kind| {
        let values = set.iter().filter(|one| one.kind == kind);
        values.map(|one| one.value.as_str()).collect::<Vec<_>>().join(", ")
    };
    let kind = seen
        .iter()
        .map(|one| one.kind)
        .find(|kind| known.iter().any(|one| one.kind == *kind));
    match kind {
        Some(kind) => format!("its {kind} is {}, known is {}", list(seen, kind), list(known, kind)),
        None => "nothing that it shows is known of that node".into(),
    }
}

/// Why a node that is known cannot be adopted now.
pub(crate) fn in_the_way(node: &Node, installed: bool, maintenance: bool) -> Option<String> {
    let name = &node.name;
    if node.state == NodeState::HandedOver {
        return Some(format!("{name} was handed over to another owner, so it is not touched"));
    }
    if maintenance {
        return Some(format!("{name} is in maintenance: end that first"));
    }
    if node.agent_connected {
        return Some(format!(
            "Rackbar's agent runs on {name}, and not a system of its own: let it boot its disk, then adopt it"
        ));
    }
    if installed {
        return Some(format!(
            "Rackbar installed the system on {name}; when somebody else installed it anew, forget it first (`rackbar node \
             forget {name}`)"
        ));
    }
    None
}

/// What a person should know of the machine.
pub(super) fn notes(report: &MachineReport, first_use: bool, host_key: &str) -> Vec<String> {
    let mut notes = Vec::new();
    let inventory = &report.inventory;
    if first_use {
        let print = rackbar_ssh::fingerprint(host_key).unwrap_or_default();
        notes.push(format!(
            "its host key was taken as it was shown, {print}: compare it with the machine's own console"
        ));
    }
    if inventory.system.serial.is_none() && inventory.board.serial.is_none() {
        notes.push(
            "no serial number of it could be read (its firmware tells none, or the account is not root): it is known by its \
             MAC addresses alone"
                .into(),
        );
    }
    if report.system.name.is_empty() {
        notes.push("its system does not say what it is: it has no os-release(5)".into());
    }
    if report.system.in_use.is_empty() {
        notes.push("no disk of it is in use: its system runs from elsewhere".into());
    }
    notes
}

/// A machine in a few words.
pub(super) fn in_short(inventory: &Inventory) -> String {
    let system = &inventory.system;
    let words = [&system.manufacturer, &system.product];
    let what: Vec<&str> = words.into_iter().flatten().map(String::as_str).collect();
    let what = if what.is_empty() {
        "machine".to_owned()
    } else {
        what.join(" ")
    };
    let serial = system.serial.as_ref().map(|serial| format!(", serial {serial}"));
    let mib = inventory.memory.total_bytes >> 20;
    format!(
        "{what}{}, {} threads, {mib} MiB, {} disks, {} interfaces",
        serial.unwrap_or_default(),
        inventory.cpu.threads,
        inventory.disks.len(),
        inventory.nics.len()
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rackbar_model::{MacAddr, Nic, Timestamp};

    use super::super::report::read;
    use super::*;
    use crate::record::Record;

    fn machine(mac: u8, serial: &str) -> Inventory {
        let mut inventory = Inventory::default();
        inventory.system.serial = (!serial.is_empty()).then(|| serial.into());
        inventory.nics.push(Nic {
            mac: MacAddr([0x52, 0x54, 0, 0, 0, mac]),
            ..Nic::default()
        });
        inventory
    }

    fn node(number: u8, name: &str, inventory: &Inventory) -> Arc<Node> {
        let mut record = Record::new(NodeId([number; 16]), name.into(), Timestamp(0));
        record.edit().witnesses = witnesses(inventory);
        record.node.clone()
    }

    #[test]
    fn one_machine_is_one_node() {
        let (first, second) = (machine(1, "A"), machine(2, "B"));
        let nodes = [node(1, "node-001", &first), node(2, "db-1", &second)];
        let is = |inventory: &Inventory, named: Option<&Node>, name| recognise(inventory, named, name, &nodes);
        let known = |node: &Arc<Node>, name: Option<&str>| {
            Ok(Recognised {
                known: Some(node.id),
                name: name.map(str::to_owned),
            })
        };
        // By its card, though the system hides its serial number.
        assert_eq!(is(&machine(1, ""), None, None), known(&nodes[0], None));
        assert_eq!(is(&first, Some(&nodes[0]), None), known(&nodes[0], None));
        // A name that was given by order gives way, one that a person gave does not.
        assert_eq!(is(&first, None, Some("web-1")), known(&nodes[0], Some("web-1")));
        assert_eq!(is(&second, None, Some("db-1")), known(&nodes[1], None));
        let refused = is(&second, None, Some("web-1")).unwrap_err();
        assert!(refused.contains("known as db-1"), "{refused}");
        // Never seen.
        let new = is(&machine(3, "C"), None, Some("web-1")).unwrap();
        assert_eq!((new.known, new.name.as_deref()), (None, Some("web-1")));
        let refused = is(&machine(3, "C"), None, Some("db-1")).unwrap_err();
        assert!(refused.contains("the name of another machine"), "{refused}");
    }

    #[test]
    fn another_machine_than_the_named_one_is_refused_by_what_it_shows() {
        let (first, second) = (machine(1, "A"), machine(2, "B"));
        let nodes = [node(1, "node-001", &first), node(2, "db-1", &second)];
        let refused = recognise(&second, Some(&nodes[0]), None, &nodes).unwrap_err();
        assert!(refused.contains("is db-1, and not node-001"), "{refused}");
        let refused = recognise(&machine(3, "C"), Some(&nodes[0]), None, &nodes).unwrap_err();
        assert!(
            refused.contains("is not node-001") && refused.contains("52:54:00:00:00:03"),
            "{refused}"
        );
        let refused = recognise(&Inventory::default(), None, None, &nodes).unwrap_err();
        assert!(refused.contains("could not be told from another"), "{refused}");
    }

    #[test]
    fn what_is_worked_on_or_ours_is_not_adopted() {
        let free = node(1, "node-001", &machine(1, "A"));
        assert_eq!(in_the_way(&free, false, false), None);
        let with = |change: fn(&mut Node)| {
            let mut node = Node::clone(&free);
            change(&mut node);
            in_the_way(&node, false, false).unwrap_or_default()
        };
        assert!(with(|node| node.agent_connected = true).contains("agent runs on node-001"));
        assert!(with(|node| node.state = NodeState::HandedOver).contains("another owner"));
        assert!(
            in_the_way(&free, true, false)
                .unwrap_or_default()
                .contains("Rackbar installed")
        );
        assert!(
            in_the_way(&free, false, true)
                .unwrap_or_default()
                .contains("maintenance")
        );
    }

    #[test]
    fn the_report_is_the_last_line() {
        let report = MachineReport {
            inventory: machine(1, "A"),
            ..MachineReport::default()
        };
        let json = serde_json::to_string(&report).unwrap();
        let said = format!("rackbar-agent: the TPM's endorsement key is not known\n{json}\n");
        assert_eq!(read(&said), Ok(report));
        assert!(read("").is_err() && read("{}\n").is_err() && read(&json[..json.len() - 1]).is_err());
    }

    proptest! {
        #[test]
        fn any_output_is_read(text in "\\PC{0,200}|[{}\\[\\]\":,a-z0-9\n]{0,200}") {
            let _ = read(&text);
        }
    }
}

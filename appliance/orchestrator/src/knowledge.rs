//! What agents and BMCs tell about machines: facts, identity, merging, collisions. The part of [`Mind`] that learns.

use std::net::IpAddr;

use rackbar_model::{Collision, EventKind, Inventory, MacAddr, NodeId, PowerState, Timestamp, Witness, WitnessKind};

use crate::bmc::bmc_mac;
use crate::held::Taken;
use crate::mind::Mind;
use crate::rack::ProbeTarget;
use crate::record::{AgentLink, Record, Standing};
use crate::state::Happening;
use crate::{facts, identity};

/// What a BMC says about itself and its machine.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct BmcSight {
    /// What it speaks: `redfish`, `ipmi`.
    pub speaks: Vec<String>,
    /// MAC address of its LAN channel.
    pub mac: Option<MacAddr>,
    /// Serial number of the system.
    pub serial: Option<String>,
    /// Serial number of the board.
    pub board_serial: Option<String>,
    /// SMBIOS UUID.
    pub uuid: Option<String>,
    /// MAC addresses of the machine's NICs.
    pub nic_macs: Vec<MacAddr>,
    /// Power.
    pub power: PowerState,
}

impl BmcSight {
    fn witnesses(&self) -> Vec<Witness> {
        let text = |kind, value: &Option<String>| value.as_deref().and_then(|value| identity::witness(kind, value));
        let mut found: Vec<Witness> = [
            self.mac.and_then(|mac| identity::mac_witness(WitnessKind::BmcMac, mac)),
            text(WitnessKind::SystemSerial, &self.serial),
            text(WitnessKind::BoardSerial, &self.board_serial),
            text(WitnessKind::SystemUuid, &self.uuid),
        ]
        .into_iter()
        .flatten()
        .chain(
            self.nic_macs
                .iter()
                .filter_map(|mac| identity::mac_witness(WitnessKind::NicMac, *mac)),
        )
        .collect();
        found.sort();
        found.dedup();
        found
    }
}

/// What an agent's inventory says of a machine's identity, and of what was known before what it cannot say.
fn told_by_agent(inventory: &Inventory, before: &[Witness], boot_mac: MacAddr) -> Vec<Witness> {
    let mut witnesses = identity::witnesses_of(inventory);
    // What only the BMC can tell stays when the host cannot see its BMC.
    let missing: Vec<WitnessKind> = [WitnessKind::BmcMac, WitnessKind::SystemSerial, WitnessKind::BoardSerial]
        .into_iter()
        .filter(|kind| !witnesses.iter().any(|witness| witness.kind == *kind))
        .collect();
    witnesses.extend(before.iter().filter(|one| missing.contains(&one.kind)).cloned());
    witnesses.extend(identity::mac_witness(WitnessKind::NicMac, boot_mac));
    witnesses.sort();
    witnesses.dedup();
    witnesses
}

impl Mind {
    /// The node of a machine whose agent shows a good boot token for `mac`: the one that has it, or a new one.
    pub(crate) fn node_of_mac(&mut self, now: Timestamp, mac: MacAddr) -> Option<NodeId> {
        let known = self.by_mac.get(&mac).copied();
        known.or_else(|| self.enrol(now, "agent", &[mac], Standing::Firm))
    }

    /// An agent proved itself.
    pub(crate) fn agent_up(&mut self, now: Timestamp, id: NodeId, address: IpAddr, again: bool, link: AgentLink) {
        let id = self.resolve(id);
        let Some(record) = self.records.get_mut(&id) else {
            return;
        };
        record.agent = Some(link);
        record.stand(Standing::Firm);
        let node = record.edit();
        node.agent_connected = true;
        node.address = Some(address);
        record.dirty = true;
        self.emit(now, Some(id), None, EventKind::AgentUp { address, again });
        self.happen(now, id, &Happening::AgentUp { again });
    }

    /// A connection ended; nothing when a newer one has taken its place.
    pub(crate) fn agent_lost(&mut self, now: Timestamp, id: NodeId, connection: u64, reason: String) {
        let id = self.resolve(id);
        let Some(record) = self.records.get_mut(&id) else {
            return;
        };
        if record.agent.as_ref().is_none_or(|agent| agent.connection != connection) {
            return;
        }
        record.agent = None;
        record.edit().agent_connected = false;
        self.emit(now, Some(id), None, EventKind::AgentLost { reason });
    }

    /// A sign of life of an agent.
    pub(crate) fn heartbeat(&mut self, now: Timestamp, id: NodeId) {
        if let Some(record) = self.record(id) {
            record.edit().last_seen = now;
            self.out.changed = true;
        }
    }

    /// Takes an inventory. Gives it back, with names filled in, when it is to go into the history.
    pub(crate) fn facts(
        &mut self,
        now: Timestamp,
        id: NodeId,
        mut inventory: Inventory,
        boot_mac: MacAddr,
    ) -> Option<Inventory> {
        let id = self.resolve(id);
        facts::name_pci(&mut inventory);
        let record = self.records.get_mut(&id)?;
        let first = record.node.inventory.is_none();
        let changed = record
            .node
            .inventory
            .as_ref()
            .map(|old| facts::diff(old, &inventory))
            .unwrap_or_default();
        let history = (first || !changed.is_empty()).then(|| inventory.clone());
        let witnesses = told_by_agent(&inventory, &record.node.witnesses, boot_mac);
        let mut macs = vec![boot_mac];
        macs.extend(
            inventory
                .nics
                .iter()
                .map(|nic| nic.mac)
                .filter(|mac| mac.is_unicast() && *mac != boot_mac),
        );
        let bmc = inventory
            .bmc
            .as_ref()
            .and_then(|bmc| bmc.address.map(|address| (address, bmc.mac)));
        let known_by = bmc_mac(&record.node);
        let node = record.edit();
        node.inventory = Some(inventory);
        node.inventory_at = Some(now);
        node.witnesses = witnesses;
        let told = bmc.map(|(address, _)| address);
        let moved = told.is_some_and(|told| node.bmc_address != Some(told)) || bmc_mac(node) != known_by;
        node.bmc_address = told.or(node.bmc_address);
        record.dirty = true;
        record.bmc_asked &= !moved;
        if let Some(address) = told {
            self.take_bmc_address(address, id);
        }
        self.out.probe.extend(bmc.map(|(address, mac)| ProbeTarget {
            address,
            mac,
            opened: false,
        }));
        self.take_macs(id, macs);
        self.emit(now, Some(id), None, EventKind::Facts { changed });
        self.happen(now, id, &Happening::Facts);
        self.settle_identity(now, id);
        history
    }

    /// Takes a machine in that was looked at from outside, with the inventory that was brought back: into the node that it is,
    /// or into a new one. `None` when there are too many. The inventory comes back when it is to go into the history.
    pub(crate) fn take_in(
        &mut self,
        now: Timestamp,
        known: Option<NodeId>,
        inventory: Inventory,
        address: IpAddr,
    ) -> Option<(Taken, Option<Inventory>)> {
        let macs = || inventory.nics.iter().map(|nic| nic.mac).filter(|mac| mac.is_unicast());
        let near = inventory.nics.iter().find(|nic| nic.addresses.contains(&address));
        let first = near
            .map(|nic| nic.mac)
            .filter(MacAddr::is_unicast)
            .or_else(|| macs().next())?;
        let id = match known {
            Some(id) => self.resolve(id),
            None => self.enrol(now, "adoption", &[first], Standing::Firm)?,
        };
        let history = self.facts(now, id, inventory, first);
        let node = self.resolve(id);
        let record = self.records.get_mut(&node)?;
        record.stand(Standing::Firm);
        record.edit().address = Some(address);
        record.dirty = true;
        let new = known.is_none() && node == id && record.aliases.is_empty();
        Some((Taken { node, new }, history))
    }

    /// The agent's word on the MAC addresses of its machine is whole: it replaces what was known.
    fn take_macs(&mut self, id: NodeId, macs: Vec<MacAddr>) {
        self.by_mac.retain(|mac, owner| *owner != id || macs.contains(mac));
        for mac in &macs {
            // A card that moved belongs to the machine that showed it last.
            self.by_mac.insert(*mac, id);
        }
        if let Some(record) = self.records.get_mut(&id) {
            record.edit().macs = macs;
        }
    }

    /// A BMC answered at `address` and said who it is. Gives the node it belongs to.
    pub(crate) fn bmc_seen(&mut self, now: Timestamp, address: IpAddr, sight: &BmcSight) -> Option<NodeId> {
        let witnesses = sight.witnesses();
        let known = self.node_of_bmc(address, sight, &witnesses);
        let id = match known {
            Some(id) => id,
            None => self.enrol(now, "bmc", &[], Standing::Firm)?,
        };
        self.take_bmc_address(address, id);
        let record = self.records.get_mut(&id)?;
        record.stand(Standing::Firm);
        let found = record.node.bmc_address != Some(address) || known.is_none();
        let whole = record.node.inventory.is_some();
        let node = record.edit();
        node.bmc_address = Some(address);
        node.witnesses.extend(witnesses);
        node.witnesses.sort();
        node.witnesses.dedup();
        record.dirty = true;
        record.bmc_asked = true;
        for mac in sight.nic_macs.iter().filter(|mac| mac.is_unicast()) {
            // A machine's own agent knows better than its BMC which cards it has.
            if !whole && !self.by_mac.contains_key(mac) {
                self.by_mac.insert(*mac, id);
                if let Some(record) = self.records.get_mut(&id) {
                    record.add_mac(*mac);
                }
            }
        }
        if found {
            let kind = EventKind::BmcFound {
                address,
                speaks: sight.speaks.clone(),
            };
            self.emit(now, Some(id), sight.mac, kind);
        }
        self.power_seen(now, id, sight.power);
        self.settle_identity(now, id);
        Some(self.resolve(id))
    }

    /// The node whose BMC this is.
    fn node_of_bmc(&self, address: IpAddr, sight: &BmcSight, witnesses: &[Witness]) -> Option<NodeId> {
        let by_nic = sight.nic_macs.iter().find_map(|mac| self.by_mac.get(mac).copied());
        let by_bmc = sight.mac.and_then(|mac| self.owner_of_bmc(mac));
        let by_address = || {
            self.records
                .values()
                .find(|one| one.node.bmc_address == Some(address))
                .map(|one| one.node.id)
        };
        let others = self
            .records
            .values()
            .map(|one| (one.node.id, one.node.witnesses.as_slice()));
        let by_weight = || identity::partner(witnesses, others).map(|(id, _)| id);
        // The address speaks last: BMCs on DHCP swap addresses.
        by_bmc.or(by_nic).or_else(by_weight).or_else(|| {
            let telling = sight.mac.is_some() || !sight.nic_macs.is_empty() || sight.serial.is_some();
            (!telling).then(by_address).flatten()
        })
    }

    /// A BMC with this MAC address got the address: it does not lead to another one any more, and who is there is asked
    /// anew before anything else is.
    pub(crate) fn bmc_moved_in(&mut self, address: IpAddr, mac: MacAddr) {
        let at = |one: &&Record| one.node.bmc_address == Some(address);
        let another = |one: &&Record| bmc_mac(&one.node).is_some_and(|known| known != mac);
        let others = self.records.values().filter(at).filter(another);
        let others: Vec<NodeId> = others.map(|one| one.node.id).collect();
        for other in others {
            self.lose_bmc_address(other);
        }
    }

    fn lose_bmc_address(&mut self, id: NodeId) {
        if let Some(record) = self.records.get_mut(&id) {
            record.edit().bmc_address = None;
            record.bmc_asked = false;
            record.dirty = true;
            self.out.changed = true;
        }
    }

    /// An address leads to one BMC; who had it before has another now.
    fn take_bmc_address(&mut self, address: IpAddr, id: NodeId) {
        let had = |one: &&Record| one.node.bmc_address == Some(address) && one.node.id != id;
        let others: Vec<NodeId> = self.records.values().filter(had).map(|one| one.node.id).collect();
        for other in others {
            self.lose_bmc_address(other);
        }
    }

    /// Power as a BMC reports it.
    pub(crate) fn power_seen(&mut self, now: Timestamp, id: NodeId, power: PowerState) {
        let id = self.resolve(id);
        let Some(record) = self.records.get_mut(&id) else {
            return;
        };
        let from = record.node.power;
        if power == from || power == PowerState::Unknown {
            return;
        }
        record.edit().power = power;
        // The first look is no change of the machine, only of our knowledge.
        if from != PowerState::Unknown {
            self.emit(now, Some(id), None, EventKind::PowerChanged { from, to: power });
        }
        self.out.changed = true;
    }

    /// Joins `id` with other records of the same machine and finds what it shares with different ones.
    pub(crate) fn settle_identity(&mut self, now: Timestamp, id: NodeId) {
        let mut id = self.resolve(id);
        while let Some((other, witness)) = self.partner_of(id) {
            id = self.merge(now, id, other, witness);
        }
        self.settle_collisions(now, id);
    }

    fn partner_of(&self, id: NodeId) -> Option<(NodeId, Witness)> {
        let own = &self.records.get(&id)?.node.witnesses;
        let others = self.records.values().filter(|one| one.node.id != id);
        identity::partner(own, others.map(|one| (one.node.id, one.node.witnesses.as_slice())))
    }

    /// The one seen first keeps its identity.
    fn merge(&mut self, now: Timestamp, a: NodeId, b: NodeId, witness: Witness) -> NodeId {
        let age = |id: &NodeId| self.records.get(id).map(|record| (record.node.first_seen, *id));
        let (kept, gone) = if age(&a) <= age(&b) { (a, b) } else { (b, a) };
        let Some(old) = self.records.remove(&gone) else {
            return kept;
        };
        // The agent that was just heard stays the one that is asked; an older connection ends by itself.
        if let Some(record) = self.records.get_mut(&kept) {
            record.absorb(old);
        }
        self.by_mac
            .values_mut()
            .filter(|owner| **owner == gone)
            .for_each(|owner| *owner = kept);
        self.alias_of
            .values_mut()
            .filter(|owner| **owner == gone)
            .for_each(|owner| *owner = kept);
        self.alias_of.insert(gone, kept);
        self.out.removed.push(gone);
        let of_gone = |one: &&Record| one.node.collisions.iter().any(|collision| collision.other == gone);
        let ids: Vec<NodeId> = self.records.values().filter(of_gone).map(|one| one.node.id).collect();
        for id in ids {
            if let Some(record) = self.records.get_mut(&id) {
                record.edit().collisions.retain(|collision| collision.other != gone);
            }
        }
        self.emit(now, Some(kept), None, EventKind::NodesMerged { gone, witness });
        kept
    }

    /// Collisions show on both sides, and go away on both.
    fn settle_collisions(&mut self, now: Timestamp, id: NodeId) {
        let Some(record) = self.records.get(&id) else { return };
        let others = self.records.values().filter(|one| one.node.id != id);
        let found = identity::collisions(
            &record.node.witnesses,
            others.map(|one| (one.node.id, one.node.witnesses.as_slice())),
        );
        let before = record.node.collisions.clone();
        for gone in before.iter().filter(|collision| !found.contains(collision)) {
            if let Some(other) = self.records.get_mut(&gone.other) {
                other
                    .edit()
                    .collisions
                    .retain(|back| back.other != id || back.witness != gone.witness);
                other.dirty = true;
            }
        }
        for new in found.iter().filter(|collision| !before.contains(collision)) {
            let back = Collision {
                witness: new.witness.clone(),
                other: id,
            };
            if let Some(other) = self.records.get_mut(&new.other)
                && !other.node.collisions.contains(&back)
            {
                other.edit().collisions.push(back);
                other.dirty = true;
            }
            for (node, other) in [(id, new.other), (new.other, id)] {
                let kind = EventKind::IdentityCollision {
                    other,
                    witness: new.witness.clone(),
                };
                self.emit(now, Some(node), None, kind);
            }
        }
        if before != found
            && let Some(record) = self.records.get_mut(&id)
        {
            record.edit().collisions = found;
            record.dirty = true;
        }
    }
}

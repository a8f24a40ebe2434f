//! Which machine is this? Pure: witnesses in, an answer out.
//!
//! No single value a machine shows is to be trusted: boards come with the serial "To be filled by O.E.M.", whole series
//! with one SMBIOS UUID, network cards move between machines. So each kind of witness has a weight for agreeing and one
//! for disagreeing; two records are one machine when the sum reaches [`SAME`].
//!
//! | witness | agrees | disagrees | why |
//! | --- | --- | --- | --- |
//! | TPM endorsement key | 100 | -40 | made in the chip; but a TPM module can be replaced |
//! | BMC MAC | 80 | -60 | soldered to the board |
//! | NIC MAC | 60 | -70 | unique, but cards move: two disagreeing serials outweigh it |
//! | system serial | 50 | -50 | decides between two records of which one has no MACs |
//! | board serial | 50 | -50 | same |
//! | switch port | 10 | 0 | cables move; it only tips a balance |
//! | SMBIOS UUID | 0 | 0 | duplicated in the field: recorded, shown as a collision, never counted |
//!
//! Equal system and board serials with different NIC MACs come to 50 + 50 - 70: two machines with cloned SMBIOS tables
//! stay two.

use rackbar_model::{Collision, Inventory, MacAddr, NodeId, Witness, WitnessKind};

/// The sum at which two records are one machine.
pub const SAME: i32 = 50;

const KINDS: [WitnessKind; 7] = [
    WitnessKind::TpmEndorsementKey,
    WitnessKind::BmcMac,
    WitnessKind::NicMac,
    WitnessKind::SystemSerial,
    WitnessKind::BoardSerial,
    WitnessKind::SwitchPort,
    WitnessKind::SystemUuid,
];

const fn weights(kind: WitnessKind) -> (i32, i32) {
    match kind {
        WitnessKind::TpmEndorsementKey => (100, -40),
        WitnessKind::BmcMac => (80, -60),
        WitnessKind::NicMac => (60, -70),
        WitnessKind::SystemSerial | WitnessKind::BoardSerial => (50, -50),
        WitnessKind::SwitchPort => (10, 0),
        WitnessKind::SystemUuid => (0, 0),
    }
}

/// The outcome of comparing two sets of witnesses.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Weight {
    /// The sum of agreements and disagreements.
    pub score: i32,
    /// The strongest witness both show.
    pub proof: Option<Witness>,
}

impl Weight {
    /// True when the two are one machine.
    pub fn is_same(&self) -> bool {
        self.score >= SAME
    }

    /// True when nothing harder than a serial number speaks for it.
    fn is_soft(&self) -> bool {
        self.proof
            .as_ref()
            .is_none_or(|proof| proof.kind >= WitnessKind::SystemSerial)
    }
}

/// Compares two sets of witnesses. Symmetric.
pub fn weigh(a: &[Witness], b: &[Witness]) -> Weight {
    let mut score = 0;
    let mut proof = None;
    for kind in KINDS {
        let of_kind = |set: &'_ [Witness]| set.iter().any(|witness| witness.kind == kind);
        if !of_kind(a) || !of_kind(b) {
            continue;
        }
        let (agree, disagree) = weights(kind);
        let shared = a
            .iter()
            .filter(|witness| witness.kind == kind && b.contains(witness))
            .min();
        score += if shared.is_some() { agree } else { disagree };
        if agree > 0 && proof.is_none() {
            proof = shared.cloned();
        }
    }
    Weight { score, proof }
}

/// The other record that is the same machine as `witnesses`, with the proof. `None` when there is none, or when only
/// serial numbers speak and they speak for several: then a person must look.
pub fn partner<'a>(
    witnesses: &[Witness],
    others: impl Iterator<Item = (NodeId, &'a [Witness])>,
) -> Option<(NodeId, Witness)> {
    let mut same: Vec<(NodeId, Weight)> = others
        .map(|(id, other)| (id, weigh(witnesses, other)))
        .filter(|(_, weight)| weight.is_same())
        .collect();
    same.sort_by_key(|(id, weight)| (std::cmp::Reverse(weight.score), *id));
    let several = same.len() > 1;
    let (id, weight) = same.into_iter().next()?;
    if several && weight.is_soft() {
        return None;
    }
    weight.proof.map(|proof| (id, proof))
}

/// What two different machines both show although it should be unique.
pub fn collisions<'a>(witnesses: &[Witness], others: impl Iterator<Item = (NodeId, &'a [Witness])>) -> Vec<Collision> {
    let mut found = Vec::new();
    for (other, theirs) in others {
        for witness in witnesses {
            // One switch port with two machines is a cable that moved, or a small switch in between.
            if witness.kind != WitnessKind::SwitchPort && theirs.contains(witness) {
                found.push(Collision {
                    witness: witness.clone(),
                    other,
                });
            }
        }
    }
    found
}

/// A witness with its value normalised; `None` when the value says nothing.
pub fn witness(kind: WitnessKind, value: &str) -> Option<Witness> {
    let value = value.trim().to_lowercase();
    let telling = match kind {
        WitnessKind::SystemSerial | WitnessKind::BoardSerial => !is_placeholder(&value),
        WitnessKind::SystemUuid => {
            value.bytes().any(|b| !matches!(b, b'0' | b'-')) && value.bytes().any(|b| !matches!(b, b'f' | b'-'))
        }
        _ => !value.is_empty(),
    };
    telling.then_some(Witness { kind, value })
}

/// The witness of a MAC address; `None` for one no station owns.
pub fn mac_witness(kind: WitnessKind, mac: MacAddr) -> Option<Witness> {
    mac.is_unicast().then(|| Witness {
        kind,
        value: mac.to_string(),
    })
}

/// Serial numbers that makers ship in place of one, and such as have no two different characters.
fn is_placeholder(value: &str) -> bool {
    const KNOWN: [&str; 16] = [
        "to be filled by o.e.m.",
        "default string",
        "not specified",
        "not available",
        "not applicable",
        "none",
        "n/a",
        "system serial number",
        "base board serial number",
        "chassis serial number",
        "serial number",
        "unknown",
        "123456789",
        "0123456789",
        "1234567890",
        "empty",
    ];
    let mut bytes = value.bytes();
    let first = bytes.next();
    KNOWN.contains(&value) || bytes.all(|b| Some(b) == first)
}

/// The witnesses an inventory holds, sorted.
pub fn witnesses_of(inventory: &Inventory) -> Vec<Witness> {
    let text = |kind, value: &Option<String>| value.as_deref().and_then(|value| witness(kind, value));
    let tpm = inventory
        .tpm
        .as_ref()
        .and_then(|tpm| tpm.endorsement_key_sha256.as_deref());
    let bmc = inventory.bmc.as_ref().and_then(|bmc| bmc.mac);
    let ports = inventory.nics.iter().filter_map(|nic| {
        let port = nic.lldp.as_ref().filter(|_| nic.boot)?;
        witness(
            WitnessKind::SwitchPort,
            &format!("{} {}", port.chassis_id, port.port_id),
        )
    });
    let mut found: Vec<Witness> = [
        tpm.and_then(|key| witness(WitnessKind::TpmEndorsementKey, key)),
        bmc.and_then(|mac| mac_witness(WitnessKind::BmcMac, mac)),
        text(WitnessKind::SystemSerial, &inventory.system.serial),
        text(WitnessKind::BoardSerial, &inventory.board.serial),
        text(WitnessKind::SystemUuid, &inventory.system.uuid),
    ]
    .into_iter()
    .flatten()
    .chain(
        inventory
            .nics
            .iter()
            .filter_map(|nic| mac_witness(WitnessKind::NicMac, nic.mac)),
    )
    .chain(ports)
    .collect();
    found.sort();
    found.dedup();
    found
}

#[cfg(test)]
#[path = "identity_tests.rs"]
mod tests;

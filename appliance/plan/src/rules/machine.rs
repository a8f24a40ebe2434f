//! Expected machines: finding the one a node is, and holding its bill of materials against what was found.

use std::collections::HashMap;

use rackbar_model::{Inventory, MacAddr, Node};

use super::memory_gib;
use crate::site::Machine;

/// Expected machines by each of their witnesses.
pub(crate) struct Expected<'s> {
    by_serial: HashMap<&'s str, Vec<&'s Machine>>,
    by_mac: HashMap<MacAddr, Vec<&'s Machine>>,
    by_bmc: HashMap<MacAddr, Vec<&'s Machine>>,
}

impl<'s> Expected<'s> {
    pub(crate) fn new(machines: &'s [Machine]) -> Self {
        let mut new = Self {
            by_serial: HashMap::new(),
            by_mac: HashMap::new(),
            by_bmc: HashMap::new(),
        };
        for machine in machines {
            if let Some(serial) = &machine.serial {
                new.by_serial.entry(serial).or_default().push(machine);
            }
            if let Some(mac) = mac(machine.mac.as_deref()) {
                new.by_mac.entry(mac).or_default().push(machine);
            }
            if let Some(mac) = mac(machine.bmc_mac.as_deref()) {
                new.by_bmc.entry(mac).or_default().push(machine);
            }
        }
        new
    }

    /// The machine a node is: every witness that the entry gives must fit. More than one is an error.
    pub(crate) fn find(&self, node: &Node) -> Result<Option<&'s Machine>, String> {
        if self.by_serial.is_empty() && self.by_mac.is_empty() && self.by_bmc.is_empty() {
            return Ok(None);
        }
        let inventory = node.inventory.as_ref();
        let serial = inventory.and_then(|inventory| inventory.system.serial.as_deref());
        let bmc = inventory
            .and_then(|inventory| inventory.bmc.as_ref())
            .and_then(|bmc| bmc.mac);
        let mut found: Vec<&'s Machine> = Vec::new();
        let by_mac = node.macs.iter().filter_map(|mac| self.by_mac.get(mac)).flatten();
        let candidates = serial
            .and_then(|serial| self.by_serial.get(serial))
            .into_iter()
            .flatten();
        let by_bmc = bmc.and_then(|mac| self.by_bmc.get(&mac)).into_iter().flatten();
        for &machine in candidates.chain(by_mac).chain(by_bmc) {
            let fits = machine.serial.as_deref().is_none_or(|wanted| serial == Some(wanted))
                && mac(machine.mac.as_deref()).is_none_or(|mac| node.macs.contains(&mac))
                && mac(machine.bmc_mac.as_deref()).is_none_or(|mac| bmc == Some(mac));
            if fits && !found.iter().any(|other| std::ptr::eq(*other, machine)) {
                found.push(machine);
            }
        }
        match found.as_slice() {
            [] => Ok(None),
            [one] => Ok(Some(one)),
            several => {
                let names: Vec<&str> = several.iter().map(|machine| machine.name.as_str()).collect();
                Err(format!(
                    "it fits several expected machines: {}; give each its serial number",
                    names.join(", ")
                ))
            }
        }
    }
}

fn mac(text: Option<&str>) -> Option<MacAddr> {
    text?.parse().ok()
}

/// What a machine lacks of its bill of materials.
pub fn shortfall(machine: &Machine, inventory: &Inventory) -> Vec<String> {
    let expect = &machine.expect;
    let disks = inventory.disks.iter().filter(|disk| !disk.removable).count() as u64;
    let counts = [
        ("GiB of memory", expect.memory_gib, memory_gib(inventory)),
        (
            "processor cores",
            expect.cores.map(u64::from),
            u64::from(inventory.cpu.cores),
        ),
        ("disks", expect.disks.map(u64::from), disks),
        ("NICs", expect.nics.map(u64::from), inventory.nics.len() as u64),
    ];
    let short = counts.into_iter().filter_map(|(what, wanted, found)| {
        let wanted = wanted.filter(|wanted| *wanted > found)?;
        Some(format!("{wanted} {what} expected, {found} found"))
    });
    let product = inventory.system.product.as_deref().unwrap_or("none");
    let other = expect.product.as_deref().filter(|wanted| *wanted != product);
    short
        .chain(other.map(|wanted| format!("product {wanted} expected, {product} found")))
        .collect()
}

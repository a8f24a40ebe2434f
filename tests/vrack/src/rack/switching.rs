//! What a rack file says of its switch, and what can be done to it while the rack runs.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use serde::Deserialize;

use super::{NicFile, NodeFile, Rack};
use crate::machine::{Machine, Wire};
use crate::switch::{LagConfig, PortConfig, PortId, SpanningTree, StpTimers, SwitchConfig, Version};

/// A switch that restarts is dark for so long: carriers of guests must be seen to drop.
const DARK: Duration = Duration::from_millis(1500);

/// The switch.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SwitchFile {
    /// Which BPDUs it sends: `stp` or `rstp`.
    pub spanning_tree: Version,
    /// Time between BPDUs in ms; 1000 to 10000.
    pub hello_ms: u64,
    /// Time in Listening and again in Learning in ms; 15000 is the standard's, a story may want less.
    pub forward_delay_ms: u64,
}

impl Default for SwitchFile {
    fn default() -> Self {
        let timers = StpTimers::default();
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Self {
            spanning_tree: timers.version,
            hello_ms: ms(timers.hello),
            forward_delay_ms: ms(timers.forward_delay),
        }
    }
}

impl SwitchFile {
    /// How a switch of this rack is set up.
    pub(super) fn config(&self, rack: &str) -> SwitchConfig {
        SwitchConfig {
            name: format!("{rack}-sw1"),
            stp: StpTimers {
                version: self.spanning_tree,
                hello: Duration::from_millis(self.hello_ms),
                forward_delay: Duration::from_millis(self.forward_delay_ms),
                ..StpTimers::default()
            },
            ..SwitchConfig::default()
        }
    }

    pub(super) fn check(&self) -> Result<(), String> {
        if !(1_000..=10_000).contains(&self.hello_ms) {
            return Err(format!(
                "`switch.hello_ms`: {} is not 1000 to 10000 (802.1D-2004, table 17-1)",
                self.hello_ms
            ));
        }
        if !(100..=30_000).contains(&self.forward_delay_ms) {
            return Err(format!(
                "`switch.forward_delay_ms`: {} is not 100 to 30000 (the standard allows 4000 to 30000)",
                self.forward_delay_ms
            ));
        }
        Ok(())
    }
}

/// Bundles of a node's NICs by name, each with the NICs' numbers.
pub(super) fn bundles(node: &NodeFile) -> BTreeMap<&str, Vec<usize>> {
    let mut bundles: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (number, nic) in node.nics.iter().enumerate() {
        if let Some(name) = &nic.lag {
            bundles.entry(name.as_str()).or_default().push(number);
        }
    }
    bundles
}

/// Checks what a node says of its ports' bundles and spanning tree.
pub(super) fn check(node: &NodeFile) -> Result<(), String> {
    let bundles = bundles(node);
    for (name, members) in &bundles {
        let nics: Vec<_> = members.iter().filter_map(|at| node.nics.get(*at)).collect();
        if nics
            .windows(2)
            .any(|pair| (&pair[0].vlan, &pair[0].trunk) != (&pair[1].vlan, &pair[1].trunk))
        {
            return Err(format!("the NICs of `lag = \"{name}\"` do not carry the same VLANs"));
        }
        if nics.iter().any(|nic| nic.stp == SpanningTree::Stp) {
            return Err(format!(
                "`lag = \"{name}\"` with `stp = \"stp\"`: spanning tree on a bundle is not simulated; use \"edge\" or \"off\""
            ));
        }
    }
    if bundles.is_empty() && (node.lacp_fallback || node.lacp_fast) {
        return Err("`lacp_fallback` and `lacp_fast` need NICs with `lag = \"NAME\"`".into());
    }
    Ok(())
}

/// Joins a node's ports to its bundles.
pub(super) fn join(rack: &Rack, node: &NodeFile, ports: &[PortId]) {
    let config = LagConfig {
        fallback: node.lacp_fallback,
        fast: node.lacp_fast,
    };
    for members in bundles(node).values() {
        let members: Vec<_> = members.iter().filter_map(|at| ports.get(*at).copied()).collect();
        rack.switch().bundle(&members, config);
    }
}

/// The port of a NIC.
pub(super) fn port(rack: &Rack, name: String, description: String, nic: &NicFile) -> PortConfig {
    let untagged = rack.file.vlan(&nic.vlan);
    let config = if nic.trunk.is_empty() {
        PortConfig::access(name, description, untagged)
    } else {
        let allowed: Vec<_> = nic.trunk.iter().map(|vlan| rack.file.vlan(vlan)).collect();
        PortConfig::trunk(name, description, Some(untagged), allowed)
    };
    config.spanning_tree(nic.stp)
}

impl Rack {
    /// Restarts the switch: every link drops for a moment, guests' carriers too, and comes up again with every port as
    /// out of the box, because nobody had saved its configuration. [`Rack::restore_switch`] gives it back.
    ///
    /// # Errors
    /// When QEMU refuses to drop or raise a carrier.
    pub async fn forget_switch(&self) -> io::Result<()> {
        self.done("the switch restarts, its configuration lost");
        let lit = self.lit();
        for (machine, nic) in &lit {
            machine.set_link(*nic, false).await?;
        }
        self.switch.go_dark();
        tokio::time::sleep(DARK).await;
        self.switch.start_again(true);
        for (machine, nic) in &lit {
            machine.set_link(*nic, true).await?;
        }
        Ok(())
    }

    /// Gives a switch that forgot its configuration back.
    pub fn restore_switch(&self) {
        self.done("the switch gets its configuration back");
        self.switch.restore();
    }

    /// NICs with a carrier from the switch. A cable that is cut keeps none when the switch is back.
    fn lit(&self) -> Vec<(Machine, usize)> {
        let mut lit = Vec::new();
        for node in &self.nodes {
            for (nic, port) in node.ports.iter().enumerate() {
                if self.switch.is_up(*port) {
                    lit.push((node.machine.clone(), nic));
                }
            }
        }
        if let Some(appliance) = self.appliance() {
            let machine = &appliance.machine;
            let wires = machine.config().nics.iter().enumerate();
            let here = wires.filter(|(_, nic)| matches!(nic.wire, Wire::Switch(_)));
            lit.extend(here.map(|(nic, _)| (machine.clone(), nic)));
        }
        lit
    }
}

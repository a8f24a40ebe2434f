//! netplan's files for the installed system, rendered by systemd-networkd. NICs come first, in a file of their own: netplan
//! reads what speaks of devices that it does not know yet twice, and doubles its name servers.

use rackbar_model::{BondMode, OsNetwork, OsSetup};
use rackbar_os_files::network::Base;
use serde_json::{Map, Value, json};

use crate::document;

/// Names below `/etc/netplan`, and contents.
pub(super) fn files(setup: &OsSetup, bases: &[Base]) -> Vec<(&'static str, String)> {
    let (mut ethernets, mut bonds, mut vlans) = (Map::new(), Map::new(), Map::new());
    for base in bases {
        for port in &base.ports {
            let mut device = json!({"match": {"macaddress": port.mac.to_string()}, "set-name": port.name});
            if base.bond.is_none() {
                addresses(&mut device, setup, base.untagged.as_ref(), base.mtu);
            }
            ethernets.insert(port.name.clone(), device);
        }
        if let Some(mode) = base.bond {
            let ports: Vec<&str> = base.ports.iter().map(|port| port.name.as_str()).collect();
            let parameters = match mode {
                BondMode::Lacp => json!({"mode": "802.3ad", "lacp-rate": "fast",
                    "transmit-hash-policy": "layer3+4", "mii-monitor-interval": 100}),
                BondMode::ActiveBackup => json!({"mode": "active-backup", "mii-monitor-interval": 100}),
            };
            let mut device = json!({"interfaces": ports, "parameters": parameters});
            addresses(&mut device, setup, base.untagged.as_ref(), base.mtu);
            bonds.insert(base.name.clone(), device);
        }
        for network in &base.tagged {
            let mut device = json!({"id": network.vlan.unwrap_or_default(), "link": base.name});
            addresses(&mut device, setup, Some(network), network.mtu);
            vlans.insert(network.name.clone(), device);
        }
    }
    let kinds = |kinds: [(&str, Map<String, Value>); 2]| {
        let mut network = json!({"version": 2, "renderer": "networkd"});
        for (kind, devices) in kinds.into_iter().filter(|(_, devices)| !devices.is_empty()) {
            network[kind] = devices.into();
        }
        document::yaml(json!({"network": network}))
    };
    let mut files = vec![(
        "90-rackbar-nics.yaml",
        kinds([("ethernets", ethernets), ("bonds", Map::new())]),
    )];
    if !bonds.is_empty() || !vlans.is_empty() {
        files.push(("91-rackbar.yaml", kinds([("bonds", bonds), ("vlans", vlans)])));
    }
    files
}

fn addresses(device: &mut Value, setup: &OsSetup, network: Option<&OsNetwork>, mtu: Option<u16>) {
    if let Some(mtu) = mtu {
        device["mtu"] = mtu.into();
    }
    let Some(network) = network else {
        // It only carries others.
        device["link-local"] = json!([]);
        return;
    };
    if network.addresses.is_empty() {
        // The lease follows the machine, not the install.
        device["dhcp4"] = true.into();
        device["dhcp6"] = true.into();
        device["dhcp-identifier"] = "mac".into();
    } else {
        device["addresses"] = network.addresses.clone().into();
    }
    if let Some(gateway) = network.gateway {
        device["routes"] = json!([{"to": "default", "via": gateway.to_string()}]);
    }
    let mut servers = json!({});
    if !setup.dns.is_empty() {
        servers["addresses"] = setup.dns.iter().map(ToString::to_string).collect::<Vec<_>>().into();
    }
    if let Some(domain) = &setup.domain {
        servers["search"] = json!([domain]);
    }
    if servers.as_object().is_some_and(|object| !object.is_empty()) {
        device["nameservers"] = servers;
    }
}

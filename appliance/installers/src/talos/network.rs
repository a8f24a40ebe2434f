//! `machine.network`. Interfaces are selected by MAC address. What is bonded has the name of its network; a NIC alone keeps
//! the kernel's name and a VLAN gets Talos' (`lan.20`), because it has no words for others here.

use rackbar_model::{BondMode, OsNetwork, OsSetup};
use rackbar_os_files::network::Base;
use serde_json::{Value, json};

pub(super) fn network(setup: &OsSetup, bases: &[Base]) -> Value {
    let name = match &setup.domain {
        Some(domain) => format!("{}.{domain}", setup.hostname),
        None => setup.hostname.clone(),
    };
    let mut all = json!({"hostname": name, "interfaces": bases.iter().map(interface).collect::<Vec<_>>()});
    if !setup.dns.is_empty() {
        all["nameservers"] = setup.dns.iter().map(ToString::to_string).collect::<Vec<_>>().into();
    }
    if let Some(domain) = &setup.domain {
        all["searchDomains"] = json!([domain]);
    }
    all
}

fn interface(base: &Base) -> Value {
    // The permanent one: a bond gives all its members the same.
    let selectors: Vec<Value> = base
        .ports
        .iter()
        .map(|port| json!({"permanentAddr": port.mac.to_string()}))
        .collect();
    let mut device = match base.bond {
        None => json!({"deviceSelector": selectors.first()}),
        Some(mode) => {
            let mut bond = match mode {
                BondMode::Lacp => json!({"mode": "802.3ad", "lacpRate": "fast", "xmitHashPolicy": "layer3+4"}),
                BondMode::ActiveBackup => json!({"mode": "active-backup"}),
            };
            bond["miimon"] = 100.into();
            bond["deviceSelectors"] = selectors.into();
            json!({"interface": base.name, "bond": bond})
        }
    };
    addresses(&mut device, base.untagged.as_ref(), base.mtu);
    let vlans = base.tagged.iter().map(|network| {
        let mut vlan = json!({"vlanId": network.vlan});
        addresses(&mut vlan, Some(network), network.mtu);
        vlan
    });
    if !base.tagged.is_empty() {
        device["vlans"] = vlans.collect();
    }
    device
}

fn addresses(device: &mut Value, network: Option<&OsNetwork>, mtu: Option<u16>) {
    if let Some(mtu) = mtu {
        device["mtu"] = mtu.into();
    }
    let Some(network) = network else {
        device["dhcp"] = false.into();
        return;
    };
    device["dhcp"] = network.addresses.is_empty().into();
    if !network.addresses.is_empty() {
        device["addresses"] = network.addresses.clone().into();
    }
    if let Some(gateway) = network.gateway {
        let all = if gateway.is_ipv6() { "::/0" } else { "0.0.0.0/0" };
        device["routes"] = json!([{"network": all, "gateway": gateway.to_string()}]);
    }
}

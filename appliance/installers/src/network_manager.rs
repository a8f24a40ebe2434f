//! Connections of NetworkManager (nm-settings-keyfile(5)), which match what is physical by its MAC address.

use std::net::IpAddr;

use rackbar_model::{BondMode, OsNetwork, OsSetup};
use rackbar_os_files::network::{Base, Port};
use sha2::{Digest as _, Sha256};

/// Name and content of each file.
pub(crate) fn keyfiles(setup: &OsSetup, bases: &[Base]) -> Vec<(String, String)> {
    let mut files = Vec::new();
    let mut add = |name: &str, content: String| files.push((format!("{name}.nmconnection"), content));
    for base in bases {
        match (base.bond, base.ports.first()) {
            (Some(mode), _) => {
                let mode = match mode {
                    BondMode::Lacp => "mode=802.3ad\nlacp_rate=fast\nxmit_hash_policy=layer3+4\nmiimon=100",
                    BondMode::ActiveBackup => "mode=active-backup\nmiimon=100",
                };
                let kind = format!("type=bond\ninterface-name={}\n\n[bond]\n{mode}\n", base.name);
                let ethernet = mtu(base.mtu).map_or(String::new(), |mtu| format!("\n[ethernet]\n{mtu}"));
                let ip = addresses(setup, base.untagged.as_ref());
                add(&base.name, head(setup, &base.name) + &kind + &ethernet + &ip);
                for port in &base.ports {
                    let kind = format!("type=ethernet\nmaster={}\nslave-type=bond\n", uuid(setup, &base.name));
                    add(&port.name, head(setup, &port.name) + &kind + &ethernet_of(port, None));
                }
            }
            (None, Some(port)) => {
                let kind = format!("type=ethernet\n{}", ethernet_of(port, base.mtu));
                let ip = addresses(setup, base.untagged.as_ref());
                add(&base.name, head(setup, &base.name) + &kind + &ip);
            }
            (None, None) => {}
        }
        for network in &base.tagged {
            let kind = format!(
                "type=vlan\ninterface-name={}\n\n[vlan]\nid={}\nparent={}\nflags=1\n",
                network.name,
                network.vlan.unwrap_or_default(),
                uuid(setup, &base.name)
            );
            let ethernet = mtu(network.mtu).map_or(String::new(), |mtu| format!("\n[ethernet]\n{mtu}"));
            let ip = addresses(setup, Some(network));
            add(&network.name, head(setup, &network.name) + &kind + &ethernet + &ip);
        }
    }
    files
}

fn head(setup: &OsSetup, name: &str) -> String {
    format!("[connection]\nid={name}\nuuid={}\n", uuid(setup, name))
}

/// A UUID of version 8 (RFC 9562 section 5.8) that is the same whenever the machine is rendered.
fn uuid(setup: &OsSetup, name: &str) -> String {
    let digest = Sha256::digest(format!("rackbar {} {} {name}", setup.hostname, setup.machine_id));
    let bits = digest
        .iter()
        .take(16)
        .fold(0u128, |bits, byte| bits << 8 | u128::from(*byte));
    let bits = bits & !(0xf << 76) & !(0b11 << 62) | 8 << 76 | 0b10 << 62;
    let hex = format!("{bits:032x}");
    let part = |range: std::ops::Range<usize>| hex.get(range).unwrap_or_default();
    [part(0..8), part(8..12), part(12..16), part(16..20), part(20..32)].join("-")
}

fn mtu(mtu: Option<u16>) -> Option<String> {
    mtu.map(|mtu| format!("mtu={mtu}\n"))
}

fn ethernet_of(port: &Port, bytes: Option<u16>) -> String {
    format!(
        "\n[ethernet]\nmac-address={}\n{}",
        port.mac,
        mtu(bytes).unwrap_or_default()
    )
}

fn addresses(setup: &OsSetup, network: Option<&OsNetwork>) -> String {
    let Some(network) = network else {
        return "\n[ipv4]\nmethod=disabled\n\n[ipv6]\nmethod=disabled\n".to_owned();
    };
    [false, true].map(|v6| family(setup, network, v6)).concat()
}

fn family(setup: &OsSetup, network: &OsNetwork, v6: bool) -> String {
    let mut text = format!("\n[{}]\n", if v6 { "ipv6" } else { "ipv4" });
    let own: Vec<&String> = network
        .addresses
        .iter()
        .filter(|address| address.contains(':') == v6)
        .collect();
    if network.addresses.is_empty() {
        text.push_str("method=auto\n");
        if !v6 {
            // The lease follows the machine, not the install.
            text.push_str("dhcp-client-id=mac\n");
        }
    } else if own.is_empty() {
        return text + "method=disabled\n";
    } else {
        text.push_str("method=manual\n");
        for (index, address) in own.iter().enumerate() {
            text.push_str(&format!("address{}={address}\n", index + 1));
        }
    }
    if let Some(gateway) = network.gateway.filter(|gateway| gateway.is_ipv6() == v6) {
        text.push_str(&format!("gateway={gateway}\n"));
    }
    let servers: Vec<&IpAddr> = setup.dns.iter().filter(|server| server.is_ipv6() == v6).collect();
    if !servers.is_empty() {
        let list: String = servers.iter().map(|server| format!("{server};")).collect();
        text.push_str(&format!("dns={list}\n"));
    }
    if let Some(domain) = &setup.domain {
        text.push_str(&format!("dns-search={domain};\n"));
    }
    text
}

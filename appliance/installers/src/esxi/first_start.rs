//! What `esxcli` is told at the first start, by the names that it has then.

use rackbar_os_files::network::Base;

use super::{management, v4};
use crate::check::root_keys;
use crate::input::Install;
use crate::quote::shell;

const HEAD: &str = "nic() { esxcli network nic list | grep -i \"$1\" | cut -d ' ' -f 1; }\n";

pub(super) fn script(install: &Install, bases: &[Base]) -> String {
    let mut lines = String::from(HEAD);
    let mut number = 0;
    for (index, base) in bases.iter().enumerate() {
        switch(&mut lines, index, base);
        let own = if index == 0 { management(base) } else { None };
        for network in base.untagged.iter().chain(&base.tagged) {
            let name = shell(&network.name);
            if own == Some(network) {
                interface(&mut lines, 0, network, false);
                continue;
            }
            number += 1;
            let mtu = network.mtu.unwrap_or(1500);
            let vlan = network.vlan.unwrap_or(0);
            lines.push_str(&format!(
                "esxcli network vswitch standard portgroup add --portgroup-name={name} --vswitch-name=vSwitch{index}\n\
                 esxcli network vswitch standard portgroup set --portgroup-name={name} --vlan-id={vlan}\n\
                 esxcli network ip interface add --interface-name=vmk{number} --portgroup-name={name} --mtu={mtu}\n"
            ));
            interface(&mut lines, number, network, true);
        }
    }
    services(&mut lines, install);
    lines
}

fn switch(lines: &mut String, index: usize, base: &Base) {
    let name = format!("vSwitch{index}");
    if index > 0 {
        lines.push_str(&format!("esxcli network vswitch standard add --vswitch-name={name}\n"));
    }
    // The first port of the first switch is there already.
    for port in base.ports.iter().skip(usize::from(index == 0)) {
        lines.push_str(&format!(
            "esxcli network vswitch standard uplink add --uplink-name=\"$(nic {})\" --vswitch-name={name}\n",
            port.mac
        ));
    }
    if let [first, others @ ..] = base.ports.as_slice()
        && !others.is_empty()
    {
        let others: Vec<String> = others.iter().map(|port| format!("$(nic {})", port.mac)).collect();
        lines.push_str(&format!(
            "esxcli network vswitch standard policy failover set --vswitch-name={name} --active-uplinks=\"$(nic {})\" \
             --standby-uplinks=\"{}\"\n",
            first.mac,
            others.join(",")
        ));
    }
    if let Some(mtu) = base.mtu {
        lines.push_str(&format!(
            "esxcli network vswitch standard set --vswitch-name={name} --mtu={mtu}\n"
        ));
    }
}

fn interface(lines: &mut String, number: usize, network: &rackbar_model::OsNetwork, new: bool) {
    let vmk = format!("vmk{number}");
    if new {
        let how = match v4(network) {
            Some((ip, mask)) => format!("--type=static --ipv4={ip} --netmask={mask}"),
            None if network.addresses.is_empty() => "--type=dhcp".to_owned(),
            None => "--type=none".to_owned(),
        };
        lines.push_str(&format!(
            "esxcli network ip interface ipv4 set --interface-name={vmk} {how}\n"
        ));
        if let Some(gateway) = network.gateway.filter(|gateway| gateway.is_ipv4()) {
            lines.push_str(&format!(
                "esxcli network ip route ipv4 add --network=default --gateway={gateway}\n"
            ));
        }
    } else if let Some(mtu) = network.mtu {
        lines.push_str(&format!(
            "esxcli network ip interface set --interface-name={vmk} --mtu={mtu}\n"
        ));
    }
    for address in network.addresses.iter().filter(|address| address.contains(':')) {
        lines.push_str(&format!(
            "esxcli network ip interface ipv6 address add --interface-name={vmk} --ipv6={address}\n"
        ));
    }
    if let Some(gateway) = network.gateway.filter(|gateway| gateway.is_ipv6()) {
        lines.push_str(&format!(
            "esxcli network ip route ipv6 add --network=::/0 --gateway={gateway}\n"
        ));
    }
}

fn services(lines: &mut String, install: &Install) {
    let setup = &install.setup;
    for server in &setup.dns {
        lines.push_str(&format!("esxcli network ip dns server add --server={server}\n"));
    }
    if let Some(domain) = &setup.domain {
        lines.push_str(&format!("esxcli network ip dns search add --domain={domain}\n"));
    }
    if !setup.ntp.is_empty() {
        let servers: String = setup
            .ntp
            .iter()
            .map(|server| format!(" --server={}", shell(server)))
            .collect();
        lines.push_str(&format!("esxcli system ntp set{servers} --enabled=true\n"));
    }
    if let Some(server) = &setup.syslog {
        let host = shell(&format!("udp://{server}"));
        lines.push_str(&format!(
            "esxcli system syslog config set --loghost={host}\nesxcli system syslog reload\n\
             esxcli network firewall ruleset set --ruleset-id=syslog --enabled=true\n"
        ));
    }
    let keys = root_keys(install);
    if !keys.is_empty() {
        for key in keys {
            lines.push_str(&format!(
                "printf '%s\\n' {} >> /etc/ssh/keys-root/authorized_keys\n",
                shell(key.trim())
            ));
        }
        lines.push_str("vim-cmd hostsvc/enable_ssh\nvim-cmd hostsvc/start_ssh\n");
    }
}

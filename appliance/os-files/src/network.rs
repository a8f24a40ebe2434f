//! The network of the installed system, from one model to the words of three programs: systemd-networkd, ifupdown and
//! cloud-init. Pure.
//!
//! ```text
//!  OsNetwork mgmt    nic A             ─▶ interface `mgmt` is nic A
//!  OsNetwork storage nics B C, bond,   ─▶ `port0` and `port1` are B and C, `bond0` is both,
//!                    vlan 20                `storage` is VLAN 20 on `bond0`
//! ```
//! Names are by function: what carries untagged frames has the network's name; what only carries others gets a plain
//! one. Networks that use the same interfaces share them.

use rackbar_model::{BondMode, MacAddr, OsNetwork, OsSetup};

use crate::{BadSetup, Result};

/// Longest interface name (IFNAMSIZ less one).
const NAME: usize = 15;

/// A physical interface and its name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Port {
    /// Its MAC address.
    pub mac: MacAddr,
    /// Its name in the installed system.
    pub name: String,
    /// The bond it is a member of.
    pub bond: Option<String>,
}

/// What stands on ports: one port, or a bond of several.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Base {
    /// Its name in the installed system.
    pub name: String,
    /// How its ports are one; a base without has one port.
    pub bond: Option<BondMode>,
    /// The physical interfaces.
    pub ports: Vec<Port>,
    /// Greatest MTU of what it carries.
    pub mtu: Option<u16>,
    /// The network that uses it untagged.
    pub untagged: Option<OsNetwork>,
    /// Networks that use it with a VLAN tag.
    pub tagged: Vec<OsNetwork>,
}

fn wrong(network: &OsNetwork, what: &str) -> BadSetup {
    BadSetup::new(
        format!("the network {} {what}", network.name),
        "correct the network in the site",
    )
}

fn check(network: &OsNetwork) -> Result<()> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_' || c == '.';
    if network.name.is_empty() || network.name.len() > NAME || !network.name.chars().all(is_name) {
        return Err(wrong(
            network,
            "has a name that is no interface name (15 letters, digits, - and _ at most)",
        ));
    }
    match (network.nics.len(), network.bond) {
        (0, _) => return Err(wrong(network, "has no interface")),
        (2.., None) => return Err(wrong(network, "has several interfaces and no bond")),
        _ => {}
    }
    if network.vlan.is_some_and(|vlan| !(1..=4094).contains(&vlan)) {
        return Err(wrong(network, "has a VLAN ID that is not between 1 and 4094"));
    }
    for address in &network.addresses {
        let good = address.split_once('/').and_then(|(ip, prefix)| {
            let ip: std::net::IpAddr = ip.parse().ok()?;
            let prefix: u8 = prefix.parse().ok()?;
            (prefix <= if ip.is_ipv4() { 32 } else { 128 }).then_some(())
        });
        good.ok_or_else(|| {
            wrong(
                network,
                &format!("has the address {address:?}, which is none with a prefix length"),
            )
        })?;
    }
    Ok(())
}

/// Sorts networks by what they stand on and names everything.
///
/// # Errors
/// Names the network that cannot be, and why.
pub fn arrange(setup: &OsSetup) -> Result<Vec<Base>> {
    let mut bases: Vec<Base> = Vec::new();
    let mut names: Vec<String> = Vec::new();
    for network in &setup.networks {
        check(network)?;
        if names.contains(&network.name) {
            return Err(wrong(network, "is there twice"));
        }
        names.push(network.name.clone());
        let mut macs = network.nics.clone();
        macs.sort();
        let same = |base: &Base| {
            let mut used: Vec<MacAddr> = base.ports.iter().map(|port| port.mac).collect();
            used.sort();
            used == macs
        };
        let at = match bases.iter().position(same) {
            Some(at) => at,
            None => {
                let shared = bases
                    .iter()
                    .flat_map(|base| &base.ports)
                    .any(|port| macs.contains(&port.mac));
                if shared {
                    return Err(wrong(
                        network,
                        "shares only some of its interfaces with another network",
                    ));
                }
                bases.push(Base {
                    name: String::new(),
                    bond: network.bond,
                    ports: network
                        .nics
                        .iter()
                        .map(|mac| Port {
                            mac: *mac,
                            name: String::new(),
                            bond: None,
                        })
                        .collect(),
                    mtu: None,
                    untagged: None,
                    tagged: Vec::new(),
                });
                bases.len() - 1
            }
        };
        if let Some(base) = bases.get_mut(at) {
            join(base, network)?;
        }
    }
    // A VLAN takes the MTU of what is below it where it is told none.
    for base in bases.iter_mut().filter(|base| base.mtu.is_some()) {
        for network in &mut base.tagged {
            network.mtu.get_or_insert(1500);
        }
    }
    name(&mut bases, names);
    Ok(bases)
}

fn join(base: &mut Base, network: &OsNetwork) -> Result<()> {
    if base.bond != network.bond {
        return Err(wrong(
            network,
            "bonds the same interfaces in another way than the network before",
        ));
    }
    base.mtu = base.mtu.max(network.mtu);
    match network.vlan {
        None if base.untagged.is_some() => {
            return Err(wrong(network, "is a second one without VLAN on its interfaces"));
        }
        None => base.untagged = Some(network.clone()),
        Some(vlan) if base.tagged.iter().any(|other| other.vlan == Some(vlan)) => {
            return Err(wrong(
                network,
                "uses a VLAN ID that another one has on the same interfaces",
            ));
        }
        Some(_) => base.tagged.push(network.clone()),
    }
    Ok(())
}

fn name(bases: &mut [Base], mut taken: Vec<String>) {
    let mut fresh = |kind: &str| {
        let free = (0..)
            .map(|number| format!("{kind}{number}"))
            .find(|name| !taken.contains(name));
        let name = free.unwrap_or_default();
        taken.push(name.clone());
        name
    };
    for base in bases {
        let own = base.untagged.as_ref().map(|network| network.name.clone());
        base.name = own.unwrap_or_else(|| fresh(if base.bond.is_some() { "bond" } else { "port" }));
        for port in &mut base.ports {
            if base.bond.is_some() {
                port.name = fresh("port");
                port.bond = Some(base.name.clone());
            } else {
                port.name = base.name.clone();
            }
        }
    }
}

/// Files of systemd-udevd and systemd-networkd: name and content.
pub fn networkd(setup: &OsSetup, bases: &[Base]) -> Vec<(String, String)> {
    let mut files = links(bases);
    for base in bases {
        if let Some(mode) = base.bond {
            files.push((format!("20-{}.netdev", base.name), bond_device(base, mode)));
            for port in &base.ports {
                // A bond with one cable pulled is online, and systemd-networkd-wait-online must not wait for the other.
                let text = format!(
                    "[Match]\nName={}\n\n[Link]\nRequiredForOnline=no\n\n[Network]\nBond={}\n",
                    port.name, base.name
                );
                files.push((format!("30-{}.network", port.name), text));
            }
        }
        let vlans: String = base
            .tagged
            .iter()
            .map(|network| format!("VLAN={}\n", network.name))
            .collect();
        let body = match &base.untagged {
            Some(network) => addresses(setup, network, &vlans),
            None => format!("[Network]\nLinkLocalAddressing=no\n{vlans}"),
        };
        // What has nothing but VLANs on it never has an address, which systemd-networkd-wait-online would wait for.
        let online = base.untagged.is_some();
        files.push((
            format!("40-{}.network", base.name),
            unit(&base.name, base.mtu, online, &body),
        ));
        for network in &base.tagged {
            let device = format!(
                "[NetDev]\nName={}\nKind=vlan\n\n[VLAN]\nId={}\n",
                network.name,
                network.vlan.unwrap_or_default()
            );
            files.push((format!("20-{}.netdev", network.name), device));
            let body = addresses(setup, network, "");
            files.push((
                format!("40-{}.network", network.name),
                unit(&network.name, network.mtu, true, &body),
            ));
        }
    }
    files
}

/// Names by MAC address, for udev: these also serve ifupdown. Bonds and VLANs bear the MAC address of a member, and
/// must not match.
pub fn links(bases: &[Base]) -> Vec<(String, String)> {
    let link = |port: &Port| {
        let text = format!(
            "[Match]\nMACAddress={}\nType=ether\n\n[Link]\nName={}\n",
            port.mac, port.name
        );
        (format!("10-{}.link", port.name), text)
    };
    bases.iter().flat_map(|base| &base.ports).map(link).collect()
}

fn bond_device(base: &Base, mode: BondMode) -> String {
    let details = match mode {
        BondMode::Lacp => "Mode=802.3ad\nLACPTransmitRate=fast\nTransmitHashPolicy=layer3+4\n",
        BondMode::ActiveBackup => "Mode=active-backup\n",
    };
    format!(
        "[NetDev]\nName={}\nKind=bond\n\n[Bond]\n{details}MIIMonitorSec=100ms\n",
        base.name
    )
}

fn unit(name: &str, mtu: Option<u16>, online: bool, body: &str) -> String {
    let mut link = mtu.map_or(String::new(), |mtu| format!("MTUBytes={mtu}\n"));
    if !online {
        link.push_str("RequiredForOnline=no\n");
    }
    if !link.is_empty() {
        link = format!("[Link]\n{link}\n");
    }
    format!("[Match]\nName={name}\n\n{link}{body}")
}

fn addresses(setup: &OsSetup, network: &OsNetwork, more: &str) -> String {
    let mut text = String::from("[Network]\n");
    if network.addresses.is_empty() {
        text.push_str("DHCP=yes\n");
    }
    for address in &network.addresses {
        text.push_str(&format!("Address={address}\n"));
    }
    if let Some(gateway) = network.gateway {
        text.push_str(&format!("Gateway={gateway}\n"));
    }
    for server in &setup.dns {
        text.push_str(&format!("DNS={server}\n"));
    }
    if let Some(domain) = &setup.domain {
        text.push_str(&format!("Domains={domain}\n"));
    }
    text.push_str(more);
    if network.addresses.is_empty() {
        // The lease follows the machine, not the install: the default client ID is made of the new machine-id.
        text.push_str("\n[DHCPv4]\nClientIdentifier=mac\n");
    }
    text
}

/// `/etc/network/interfaces` of ifupdown, with the bond and VLAN hooks of ifenslave and vlan.
pub fn interfaces(setup: &OsSetup, bases: &[Base]) -> String {
    let mut text = String::from("# Written by Rackbar at installation.\nauto lo\niface lo inet loopback\n");
    for base in bases {
        let mut extra = base.mtu.map_or(String::new(), |mtu| format!("    mtu {mtu}\n"));
        if let Some(mode) = base.bond {
            let ports: Vec<&str> = base.ports.iter().map(|port| port.name.as_str()).collect();
            let mode = match mode {
                BondMode::Lacp => "802.3ad\n    bond-lacp-rate fast\n    bond-xmit-hash-policy layer3+4",
                BondMode::ActiveBackup => "active-backup",
            };
            extra.push_str(&format!(
                "    bond-slaves {}\n    bond-mode {mode}\n    bond-miimon 100\n",
                ports.join(" ")
            ));
        }
        match &base.untagged {
            Some(network) => text.push_str(&stanza(setup, network, &extra)),
            None => text.push_str(&format!("\nauto {0}\niface {0} inet manual\n{extra}", base.name)),
        }
        for network in &base.tagged {
            let mtu = network.mtu.map_or(String::new(), |mtu| format!("    mtu {mtu}\n"));
            let vlan = network.vlan.unwrap_or_default();
            let extra = format!("    vlan-raw-device {}\n    vlan-id {vlan}\n{mtu}", base.name);
            text.push_str(&stanza(setup, network, &extra));
        }
    }
    text
}

fn stanza(setup: &OsSetup, network: &OsNetwork, extra: &str) -> String {
    let mut text = format!("\nauto {}\n", network.name);
    let mut extra = extra.to_owned();
    if !setup.dns.is_empty() {
        let servers: Vec<String> = setup.dns.iter().map(ToString::to_string).collect();
        extra.push_str(&format!("    dns-nameservers {}\n", servers.join(" ")));
    }
    if network.addresses.is_empty() {
        text.push_str(&format!("iface {} inet dhcp\n{extra}", network.name));
    }
    for (index, address) in network.addresses.iter().enumerate() {
        let is_v6 = address.contains(':');
        let family = if is_v6 { "inet6" } else { "inet" };
        text.push_str(&format!(
            "iface {} {family} static\n    address {address}\n",
            network.name
        ));
        if let Some(gateway) = network.gateway.filter(|gateway| gateway.is_ipv6() == is_v6) {
            text.push_str(&format!("    gateway {gateway}\n"));
        }
        if index == 0 {
            text.push_str(&extra);
        }
    }
    text
}

/// A YAML string: JSON's form of it, which is YAML too.
pub fn quote(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            c if c.is_control() => quoted.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// cloud-init's network-config, version 2.
pub fn cloud_init(setup: &OsSetup, bases: &[Base]) -> String {
    let (mut ethernets, mut bonds, mut vlans) = (String::new(), String::new(), String::new());
    for base in bases {
        for port in &base.ports {
            let mac = quote(&port.mac.to_string());
            ethernets.push_str(&format!(
                "  {0}:\n    match: {{macaddress: {mac}}}\n    set-name: {0}\n",
                port.name
            ));
            if base.bond.is_none() {
                ethernets.push_str(&cloud_addresses(setup, base.untagged.as_ref(), base.mtu));
            }
        }
        if let Some(mode) = base.bond {
            let ports: Vec<&str> = base.ports.iter().map(|port| port.name.as_str()).collect();
            let parameters = match mode {
                BondMode::Lacp => "mode: 802.3ad, lacp-rate: fast, transmit-hash-policy: layer3+4",
                BondMode::ActiveBackup => "mode: active-backup",
            };
            bonds.push_str(&format!(
                "  {}:\n    interfaces: [{}]\n    parameters: {{{parameters}, mii-monitor-interval: 100}}\n{}",
                base.name,
                ports.join(", "),
                cloud_addresses(setup, base.untagged.as_ref(), base.mtu)
            ));
        }
        for network in &base.tagged {
            vlans.push_str(&format!(
                "  {}:\n    id: {}\n    link: {}\n{}",
                network.name,
                network.vlan.unwrap_or_default(),
                base.name,
                cloud_addresses(setup, Some(network), network.mtu)
            ));
        }
    }
    let mut text = String::from("version: 2\n");
    for (kind, body) in [("ethernets", ethernets), ("bonds", bonds), ("vlans", vlans)] {
        if !body.is_empty() {
            text.push_str(&format!("{kind}:\n{body}"));
        }
    }
    text
}

fn cloud_addresses(setup: &OsSetup, network: Option<&OsNetwork>, mtu: Option<u16>) -> String {
    let mut text = mtu.map_or(String::new(), |mtu| format!("    mtu: {mtu}\n"));
    let Some(network) = network else {
        return text + "    dhcp4: false\n";
    };
    if network.addresses.is_empty() {
        text.push_str("    dhcp4: true\n    dhcp-identifier: mac\n");
    } else {
        let addresses: Vec<String> = network.addresses.iter().map(|address| quote(address)).collect();
        text.push_str(&format!("    addresses: [{}]\n", addresses.join(", ")));
    }
    if let Some(gateway) = network.gateway {
        // Deprecated in favour of `routes`, which older releases do not know; all read this.
        let key = if gateway.is_ipv4() { "gateway4" } else { "gateway6" };
        text.push_str(&format!("    {key}: {gateway}\n"));
    }
    if !setup.dns.is_empty() || setup.domain.is_some() {
        let servers: Vec<String> = setup.dns.iter().map(|server| quote(&server.to_string())).collect();
        let search = setup.domain.as_deref().map_or(String::new(), quote);
        text.push_str(&format!(
            "    nameservers: {{addresses: [{}], search: [{search}]}}\n",
            servers.join(", ")
        ));
    }
    text
}

#[cfg(test)]
mod tests;

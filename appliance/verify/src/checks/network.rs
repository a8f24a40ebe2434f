//! Addresses, links, and whether the other nodes answer. What the kernel shows in `/proc/net` and `/sys/class/net` is
//! read there; only for pings the system's own `ping` is needed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rackbar_model::{BondMode, OsNetwork};

use super::{Probed, Verdict, quoted};
use crate::{Context, Peer};

type Probe = Result<Option<String>, String>;

fn networks(context: &Context) -> &[OsNetwork] {
    &context.wanted.setup.networks
}

pub(super) fn addresses_probe(context: &Context) -> Probe {
    match networks(context).iter().any(|network| !network.addresses.is_empty()) {
        true => Ok(Some(
            "sed 's/^/fib=/' /proc/net/fib_trie\nsed 's/^/route=/' /proc/net/route\n\
             sed 's/^/inet6=/' /proc/net/if_inet6 2>/dev/null\n"
                .into(),
        )),
        false => Err("the role wants no static addresses".into()),
    }
}

/// The addresses that are the machine's own: `|-- ADDRESS`, then a line with `host LOCAL` (net/ipv4/fib_trie.c).
fn own_v4(probed: &Probed) -> Vec<Ipv4Addr> {
    let (mut last, mut own) = (None::<Ipv4Addr>, Vec::new());
    for line in probed.all("fib") {
        if let Some(address) = line.strip_prefix("|-- ") {
            last = address.trim().parse().ok();
        } else if line.contains("host LOCAL") {
            own.extend(last);
        }
    }
    own
}

/// A line of `/proc/net/route`: interface, destination, gateway, mask; addresses as the CPU stores them.
fn route(line: &str) -> Option<(&str, Ipv4Addr, Ipv4Addr, u32)> {
    let words: Vec<_> = line.split_whitespace().collect();
    let number = |at: usize| u32::from_str_radix(words.get(at)?, 16).ok();
    let address = |at: usize| Some(Ipv4Addr::from(number(at)?.swap_bytes()));
    Some((words.first()?, address(1)?, address(2)?, number(7)?.count_ones()))
}

/// A line of `/proc/net/if_inet6`: address, prefix length, interface.
fn inet6(line: &str) -> Option<(Ipv6Addr, u32, &str)> {
    let words: Vec<_> = line.split_whitespace().collect();
    let address = u128::from_str_radix(words.first().filter(|text| text.len() == 32)?, 16).ok()?;
    Some((
        address.into(),
        u32::from_str_radix(words.get(2)?, 16).ok()?,
        words.get(5)?,
    ))
}

pub(super) fn addresses(context: &Context, probed: &Probed) -> Verdict {
    let own = own_v4(probed);
    let routes: Vec<_> = probed.all("route").filter_map(route).collect();
    let sixes: Vec<_> = probed.all("inet6").filter_map(inet6).collect();
    let (mut faults, mut wanted) = (Vec::new(), Vec::new());
    for network in networks(context) {
        let name = network.name.as_str();
        for text in &network.addresses {
            wanted.push(format!("{name} {text}"));
            let Some((address, prefix)) = parse(text) else {
                faults.push(format!("{text} is no address with prefix length"));
                continue;
            };
            let there = match address {
                IpAddr::V4(v4) => {
                    let subnet = Ipv4Addr::from(u32::from(v4) & mask(prefix));
                    own.contains(&v4)
                        && (prefix == 32 || routes.iter().any(|r| (r.0, r.1, r.3) == (name, subnet, prefix)))
                }
                IpAddr::V6(v6) => sixes.contains(&(v6, prefix, name)),
            };
            if !there {
                faults.push(format!("{name} has not got {text}"));
            }
        }
        if let Some(IpAddr::V4(gateway)) = network.gateway {
            wanted.push(format!("default route by {gateway}"));
            if !routes.iter().any(|r| (r.0, r.2, r.3) == (name, gateway, 0)) {
                faults.push(format!("there is no default route by {gateway} on {name}"));
            }
        }
    }
    if !faults.is_empty() {
        let own: Vec<_> = own
            .iter()
            .filter(|own| !own.is_loopback())
            .map(Ipv4Addr::to_string)
            .collect();
        faults.push(format!(
            "found: {}",
            if own.is_empty() {
                "no address".into()
            } else {
                own.join(", ")
            }
        ));
    }
    Verdict::by(
        &faults,
        wanted.join(", "),
        "as wanted",
        "look at the system's network service (networkctl, journalctl -u systemd-networkd) and whether the interface has \
         the name the role gives it",
    )
}

fn parse(text: &str) -> Option<(IpAddr, u32)> {
    let (address, prefix) = text.split_once('/')?;
    let (address, prefix) = (address.parse().ok()?, prefix.parse().ok()?);
    let most = if matches!(address, IpAddr::V4(_)) { 32 } else { 128 };
    (prefix <= most).then_some((address, prefix))
}

fn mask(prefix: u32) -> u32 {
    u32::MAX.checked_shl(32u32.saturating_sub(prefix)).unwrap_or(0)
}

pub(super) fn link_probe(context: &Context) -> Probe {
    if networks(context).is_empty() {
        return Err("the role leaves its networks to the image".into());
    }
    // carrier cannot be read of an interface that is down: the error is the answer.
    Ok(Some(
        "for i in /sys/class/net/*; do n=${i##*/}\n\
         [ -d \"$i\" ] && echo \"link=$n $(cat $i/carrier 2>/dev/null || echo 0) $(cat $i/mtu) $(cat $i/address) \
         $(cat $i/speed 2>/dev/null || echo -1)\"\n\
         [ -d $i/bonding ] && echo \"bond=$n $(cat $i/bonding/mode) $(cat $i/bonding/slaves)\"\n\
         done\nsed 's/^/vlan=/' /proc/net/vlan/config 2>/dev/null\n"
            .into(),
    ))
}

pub(super) fn link(context: &Context, probed: &Probed) -> Verdict {
    let (mut faults, mut wanted, mut seen) = (Vec::new(), Vec::new(), Vec::new());
    let find = |name: &str| {
        let lines = probed
            .all("link")
            .map(|line| line.split_whitespace().collect::<Vec<_>>());
        lines.into_iter().find(|words| words.first() == Some(&name))
    };
    for network in networks(context) {
        let name = network.name.as_str();
        let mtu = network.mtu.unwrap_or(1500);
        wanted.push(format!("{name} up, MTU {mtu}"));
        let Some(words) = find(name) else {
            faults.push(format!("there is no interface {name}"));
            continue;
        };
        if words.get(1) != Some(&"1") {
            faults.push(format!("{name} has no link"));
        }
        if words.get(2).and_then(|mtu| mtu.parse().ok()) != Some(mtu) {
            faults.push(format!("{name} has MTU {}", words.get(2).unwrap_or(&"unknown")));
        }
        if let Some(speed) = words
            .get(4)
            .and_then(|speed| speed.parse::<i64>().ok())
            .filter(|speed| *speed > 0)
        {
            seen.push(format!("{name} at {speed} Mbit/s"));
        }
        if let Some(mode) = network.bond {
            faults.extend(bond_faults(network, mode, probed, &find));
        }
        faults.extend(vlan_fault(network, probed));
    }
    Verdict::by(
        &faults,
        wanted.join(", "),
        match seen.is_empty() {
            true => "as wanted".into(),
            false => format!("as wanted; {}", seen.join(", ")),
        },
        "look at cable, optics and switch port (MTU, VLAN, LACP); the inventory says to which port each NIC goes",
    )
}

fn bond_faults<'a>(
    network: &OsNetwork,
    mode: BondMode,
    probed: &'a Probed,
    find: &impl Fn(&str) -> Option<Vec<&'a str>>,
) -> Vec<String> {
    let bonds = probed
        .all("bond")
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    // With a VLAN on top the bond has a name of its own; then its number of members tells it.
    let bond = bonds
        .into_iter()
        .find(|words| words.first() == Some(&network.name.as_str()) || network.vlan.is_some());
    let Some(words) = bond else {
        return vec![format!("{} is no bond", network.name)];
    };
    let mut faults = Vec::new();
    let want = match mode {
        BondMode::Lacp => "802.3ad",
        BondMode::ActiveBackup => "active-backup",
    };
    if words.get(1) != Some(&want) {
        faults.push(format!(
            "the bond is {} instead of {want}",
            words.get(1).unwrap_or(&"unknown")
        ));
    }
    // The mode is written as a name and a number: "802.3ad 4".
    let members = words.get(3..).unwrap_or_default();
    if members.len() != network.nics.len() {
        faults.push(format!(
            "the bond has {} of {} members",
            members.len(),
            network.nics.len()
        ));
    }
    for member in members {
        if find(member).is_none_or(|words| words.get(1) != Some(&"1")) {
            faults.push(format!("its member {member} has no link"));
        }
    }
    faults
}

/// Lines of `/proc/net/vlan/config` are `name | id | parent`; the file is there once the kernel has any VLAN.
fn vlan_fault(network: &OsNetwork, probed: &Probed) -> Option<String> {
    let wanted = network.vlan?.to_string();
    let there = probed.all("vlan").any(|line| {
        let words: Vec<_> = line.split('|').map(str::trim).collect();
        words.first() == Some(&network.name.as_str()) && words.get(1) == Some(&wanted.as_str())
    });
    (!there).then(|| format!("{} does not carry VLAN {wanted}", network.name))
}

fn ping_script(peers: &[Peer], options: impl Fn(&Peer) -> String) -> String {
    let mut script = String::from(
        "command -v ping >/dev/null || { echo ping=missing; exit; }\nping -V 2>&1 | grep -q iputils && echo ping=iputils\n",
    );
    for (number, peer) in peers.iter().enumerate() {
        let address = quoted(&peer.address.to_string());
        // Two tries: the first packet of a pair may wait for neighbour discovery.
        script += &format!(
            "ping -n -c 2 -W 2 {} {address} >/dev/null 2>&1 </dev/null && echo \"good={number}\"\n",
            options(peer)
        );
    }
    script
}

pub(super) fn pairs_probe(context: &Context) -> Probe {
    match context.wanted.peers.as_slice() {
        [] => Err("no other installed node has a static address on its networks".into()),
        peers => Ok(Some(ping_script(peers, |_| String::new()))),
    }
}

fn silent<'a>(context: &'a Context, probed: &Probed) -> Vec<&'a Peer> {
    let good: Vec<usize> = probed.all("good").filter_map(|number| number.parse().ok()).collect();
    let peers = context.wanted.peers.iter().enumerate();
    peers
        .filter(|(number, _)| !good.contains(number))
        .map(|(_, peer)| peer)
        .collect()
}

/// How many were tried, of how many: each node tries those that follow it, and is tried by those before it.
fn tried(context: &Context) -> String {
    let count = context.wanted.peers.len();
    let known = context.wanted.peers_known.max(count);
    format!("{count} of {known} static addresses of other nodes")
}

pub(super) fn pairs(context: &Context, probed: &Probed) -> Verdict {
    if probed.one("ping") == Some("missing") {
        return Verdict::Skipped("the image has no ping".into());
    }
    let faults: Vec<String> = silent(context, probed)
        .iter()
        .map(|peer| format!("{} ({}) does not answer", peer.name, peer.address))
        .collect();
    let tried = tried(context);
    Verdict::by(
        &faults,
        format!("{tried} answer"),
        format!("{tried} answer"),
        "if one node is missing everywhere, it is that node; if all are, it is this one: look at VLAN, cabling and firewall",
    )
}

pub(super) fn mtu_probe(context: &Context) -> Probe {
    match context.wanted.peers.as_slice() {
        [] => Err("no other installed node has a static address on its networks".into()),
        peers => Ok(Some(ping_script(peers, |peer| {
            // Without the headers of IP (20, or 40 in version 6) and ICMP (8); never in pieces.
            let headers = if peer.address.is_ipv4() { 28 } else { 48 };
            format!("-M do -s {}", peer.mtu.unwrap_or(1500).saturating_sub(headers))
        }))),
    }
}

pub(super) fn mtu(context: &Context, probed: &Probed) -> Verdict {
    if probed.one("ping") != Some("iputils") {
        return Verdict::Skipped("the image has no ping that can forbid fragments (iputils)".into());
    }
    let faults: Vec<String> = silent(context, probed)
        .iter()
        .map(|peer| {
            format!(
                "{} bytes do not reach {} ({})",
                peer.mtu.unwrap_or(1500),
                peer.name,
                peer.address
            )
        })
        .collect();
    let largest = context
        .wanted
        .peers
        .iter()
        .map(|peer| peer.mtu.unwrap_or(1500))
        .max()
        .unwrap_or(1500);
    Verdict::by(
        &faults,
        format!("packets of up to {largest} bytes reach {} whole", tried(context)),
        "all arrive",
        "a switch port or a node between has a smaller MTU; small packets pass there (net.pairs), large ones are lost \
         silently",
    )
}

#[cfg(test)]
mod tests {
    use rackbar_model::Timestamp;

    use super::*;

    fn probed(text: &str) -> Probed {
        Probed::new(text.into(), Timestamp(0), Timestamp(0))
    }

    const GOOD: &str = "fib=Main:\nfib=  |-- 10.0.0.0\nfib=     /24 link UNICAST\nfib=  |-- 10.0.0.7\nfib=     /32 host LOCAL\n\
        route=Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n\
        route=mgmt\t0000000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n\
        route=mgmt\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
        inet6=fd000000000000000000000000000007 02 40 00 80     mgmt\n";

    #[test]
    fn addresses_are_read_from_proc() {
        let judge = |text: &str| addresses(&super::super::tests::wishes(), &probed(text));
        assert!(matches!(judge(GOOD), Verdict::Passed { .. }), "{:?}", judge(GOOD));
        for (from, to, says) in [
            ("10.0.0.7", "10.0.0.8", "has not got 10.0.0.7/24"),
            ("00FFFFFF", "0000FFFF", "has not got 10.0.0.7/24"),
            ("0100000A", "0200000A", "no default route by 10.0.0.1"),
            ("02 40", "02 30", "has not got fd00::7/64"),
        ] {
            let Verdict::Failed { observed, .. } = judge(&GOOD.replace(from, to)) else {
                panic!("{to} passed");
            };
            assert!(observed.contains(says), "{observed}");
        }
    }

    #[test]
    fn links_bonds_and_members_are_looked_at() {
        let mut context = super::super::tests::wishes();
        context.wanted.setup.networks[0]
            .nics
            .push(rackbar_model::MacAddr([2, 0, 0, 0, 0, 2]));
        let good = "link=mgmt 1 9000 02:00:00:00:00:01 25000\nlink=eth0 1 9000 x 25000\nlink=eth1 1 9000 x 25000\n\
                    bond=mgmt 802.3ad 4 eth0 eth1\n";
        let judge = |text: &str| link(&context, &probed(text));
        assert!(matches!(judge(good), Verdict::Passed { .. }), "{:?}", judge(good));
        for (from, to, says) in [
            ("mgmt 1 9000", "mgmt 1 1500", "MTU 1500"),
            ("mgmt 1 9000", "mgmt 0 9000", "mgmt has no link"),
            ("eth1 1", "eth1 0", "member eth1 has no link"),
            ("eth0 eth1", "eth0", "1 of 2 members"),
            ("802.3ad 4", "active-backup 1", "instead of 802.3ad"),
            ("link=mgmt", "link=eth9", "no interface mgmt"),
        ] {
            let Verdict::Failed { observed, .. } = judge(&good.replace(from, to)) else {
                panic!("{to} passed");
            };
            assert!(observed.contains(says), "{observed}");
        }
    }

    #[test]
    fn a_silent_peer_is_named_and_how_many_were_tried() {
        let mut context = super::super::tests::wishes();
        context.wanted.peers_known = 39;
        let Verdict::Passed { wanted, observed } = pairs(&context, &probed("ping=iputils\ngood=0\n")) else {
            panic!("failed");
        };
        assert_eq!(
            (wanted.as_str(), observed.as_str()),
            ("1 of 39 static addresses of other nodes answer", wanted.as_str())
        );
        assert!(matches!(
            pairs(&context, &probed("ping=iputils\ngood=0\n")),
            Verdict::Passed { .. }
        ));
        assert!(matches!(mtu(&context, &probed("good=0\n")), Verdict::Skipped(_)));
        let Verdict::Failed { observed, .. } = mtu(&context, &probed("ping=iputils\n")) else {
            panic!("passed");
        };
        assert_eq!(observed, "9000 bytes do not reach n2 (10.0.0.2)");
        assert!(
            mtu_probe(&context)
                .unwrap()
                .unwrap()
                .contains("-M do -s 8972 '10.0.0.2'")
        );
    }
}

//! Addresses, and whether the other nodes answer. What the kernel shows in `/proc/net` is read there; only for pings the
//! system's own `ping` is needed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rackbar_model::OsNetwork;

use super::{Probed, Verdict, quoted};
use crate::{Context, Peer};

pub(super) type Probe = Result<Option<String>, String>;

pub(super) fn networks(context: &Context) -> &[OsNetwork] {
    &context.wanted.setup.networks
}

pub(super) fn addresses_probe(context: &Context) -> Probe {
    match networks(context).iter().any(|network| !network.addresses.is_empty()) {
        true => Ok(Some(
            "sed 's/^/fib=/' /proc/net/fib_trie\nsed 's/^/route=/' /proc/net/route\n\
             sed 's/^/inet6=/' /proc/net/if_inet6 2>/dev/null\n\
             grep '^00000000000000000000000000000000 00 ' /proc/net/ipv6_route 2>/dev/null | sed 's/^/route6=/'\n"
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

/// A default route for all sources in a line of `/proc/net/ipv6_route`: interface and gateway. The line is destination, its
/// prefix length, source, its prefix length, gateway, metric, two counters, flags, interface; all numbers in base 16.
fn default6(line: &str) -> Option<(&str, Ipv6Addr)> {
    let words: Vec<_> = line.split_whitespace().collect();
    let address = |at: usize| u128::from_str_radix(words.get(at).filter(|text| text.len() == 32)?, 16).ok();
    let everything = address(0)? == 0 && words.get(1) == Some(&"00") && words.get(3) == Some(&"00");
    let gateway = address(4).filter(|_| everything)?;
    Some((words.get(9)?, gateway.into()))
}

pub(super) fn addresses(context: &Context, probed: &Probed) -> Verdict {
    let own = own_v4(probed);
    let routes: Vec<_> = probed.all("route").filter_map(route).collect();
    let sixes: Vec<_> = probed.all("inet6").filter_map(inet6).collect();
    let defaults6: Vec<_> = probed.all("route6").filter_map(default6).collect();
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
        if let Some(gateway) = network.gateway {
            wanted.push(format!("default route by {gateway}"));
            let there = match gateway {
                IpAddr::V4(v4) => routes.iter().any(|r| (r.0, r.2, r.3) == (name, v4, 0)),
                IpAddr::V6(v6) => defaults6.contains(&(name, v6)),
            };
            if !there {
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

/// Neighbours that are tried at the same time.
const AT_ONCE: usize = 16;

fn ping_script(peers: &[Peer], options: impl Fn(&Peer) -> String) -> String {
    let mut script = String::from(
        "command -v ping >/dev/null || { echo ping=missing; exit; }\nping -V 2>&1 | grep -q iputils && echo ping=iputils\n",
    );
    for (number, peer) in peers.iter().enumerate() {
        let address = quoted(&peer.address.to_string());
        // Two tries: the first packet of a pair may wait for neighbour discovery.
        script += &format!(
            "{{ ping -n -c 2 -W 2 {} {address} >/dev/null 2>&1 </dev/null && echo \"good={number}\"; }} &\n",
            options(peer)
        );
        // A rack that is dark takes seconds and not minutes, and no small machine runs a hundred programs at once.
        if number % AT_ONCE == AT_ONCE - 1 {
            script += "wait\n";
        }
    }
    script += "wait\n";
    script
}

pub(super) fn pairs_probe(context: &Context) -> Probe {
    match context.wanted.peers.as_slice() {
        [] => Err("no address of another installed node that is at work is known on its networks".into()),
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

/// How many were tried, of how many: in a hall with many a node tries those that follow it, and is tried by those before it.
fn tried(context: &Context) -> String {
    let count = context.wanted.peers.len();
    let known = context.wanted.peers_known.max(count);
    format!("{count} of {known} addresses of other nodes")
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
        [] => Err("no address of another installed node that is at work is known on its networks".into()),
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
        inet6=fd000000000000000000000000000007 02 40 00 80     mgmt\n\
        inet6=fd010000000000000000000000000007 03 40 00 80  storage\n\
        route6=00000000000000000000000000000000 00 00000000000000000000000000000000 00 fd010000000000000000000000000001 00000400 \
        00000001 00000000 00000003  storage\n\
        route6=00000000000000000000000000000000 00 00000000000000000000000000000000 00 00000000000000000000000000000000 ffffffff \
        00000001 00000000 00200200       lo\n";

    #[test]
    fn addresses_are_read_from_proc() {
        let judge = |text: &str| addresses(&super::super::tests::wishes(), &probed(text));
        assert!(matches!(judge(GOOD), Verdict::Passed { .. }), "{:?}", judge(GOOD));
        for (from, to, says) in [
            ("10.0.0.7", "10.0.0.8", "has not got 10.0.0.7/24"),
            ("00FFFFFF", "0000FFFF", "has not got 10.0.0.7/24"),
            ("0100000A", "0200000A", "no default route by 10.0.0.1"),
            ("02 40", "02 30", "has not got fd00::7/64"),
            (
                "0001 00000400",
                "0002 00000400",
                "no default route by fd01::1 on storage",
            ),
            (
                "00000003  storage",
                "00000003     mgmt",
                "no default route by fd01::1 on storage",
            ),
            ("00 fd01", "40 fd01", "no default route by fd01::1 on storage"),
            ("route6=0", "route6=2", "no default route by fd01::1 on storage"),
        ] {
            let Verdict::Failed { observed, .. } = judge(&GOOD.replace(from, to)) else {
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
            ("1 of 39 addresses of other nodes answer", wanted.as_str())
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

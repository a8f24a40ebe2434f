//! Links: whether interfaces are up with the wanted MTU, bonds are whole and agreed on with their switch, and VLANs stand
//! on what they belong on. All of it is read where the kernel shows it, in `/sys/class/net` and `/proc/net/vlan`.

use rackbar_model::{BondMode, OsNetwork};

use super::network::{Probe, networks};
use super::{Probed, Verdict};
use crate::Context;

/// What a bond shows as its partner while no switch has answered it (IEEE 802.1AX, 6.4.7: the default partner).
const NOBODY: &str = "00:00:00:00:00:00";

const ADVICE: &str =
    "look at cable, optics and switch port (MTU, VLAN, LACP); the inventory says to which port each NIC goes";

const NO_LACP: &str = "make these switch ports one bundle that speaks LACP (IEEE 802.1AX, on many switches `mode active`; a static \
                       bundle does not), or give the network `bond = \"active-backup\"`, which needs nothing of the switch; the \
                       inventory says to which port each NIC goes";

pub(super) fn link_probe(context: &Context) -> Probe {
    if networks(context).is_empty() {
        return Err("the role leaves its networks to the image".into());
    }
    // carrier cannot be read of an interface that is down: the error is the answer. A bond's partner is shown to root
    // alone, and in mode 802.3ad.
    Ok(Some(
        "for i in /sys/class/net/*; do n=${i##*/}\n\
         [ -d \"$i\" ] && echo \"link=$n $(cat $i/carrier 2>/dev/null || echo 0) $(cat $i/mtu) $(cat $i/address) \
         $(cat $i/speed 2>/dev/null || echo -1)\"\n\
         [ -d $i/bonding ] && echo \"bond=$n $(cat $i/bonding/mode) $(cat $i/bonding/slaves)\"\n\
         [ -f $i/bonding/ad_partner_mac ] && echo \"partner=$n $(cat $i/bonding/ad_partner_mac 2>/dev/null)\"\n\
         done\nsed 's/^/vlan=/' /proc/net/vlan/config 2>/dev/null\n"
            .into(),
    ))
}

/// The words of the first line of this kind that is of this interface, without its name.
fn line<'a>(probed: &'a Probed, kind: &'static str, name: &str) -> Option<Vec<&'a str>> {
    let mut lines = probed.all(kind).map(str::split_whitespace);
    lines.find_map(|mut words| (words.next() == Some(name)).then(|| words.collect()))
}

/// True when an interface is there and has a link.
fn is_up(probed: &Probed, name: &str) -> bool {
    line(probed, "link", name).is_some_and(|words| words.first() == Some(&"1"))
}

pub(super) fn link(context: &Context, probed: &Probed) -> Verdict {
    let (mut faults, mut wanted, mut seen) = (Vec::new(), Vec::new(), Vec::new());
    let mut unanswered = false;
    for network in networks(context) {
        let name = network.name.as_str();
        let mtu = network.mtu.unwrap_or(1500);
        wanted.push(format!("{name} up, MTU {mtu}"));
        let Some(words) = line(probed, "link", name) else {
            faults.push(format!("there is no interface {name}"));
            continue;
        };
        if !is_up(probed, name) {
            faults.push(format!("{name} has no link"));
        }
        if words.get(1).and_then(|mtu| mtu.parse().ok()) != Some(mtu) {
            faults.push(format!("{name} has MTU {}", words.get(1).unwrap_or(&"unknown")));
        }
        let speed = words.get(3).and_then(|speed| speed.parse::<i64>().ok());
        if let Some(speed) = speed.filter(|speed| *speed > 0) {
            seen.push(format!("{name} at {speed} Mbit/s"));
        }
        faults.extend(vlan_fault(network, probed));
        if let Some(mode) = network.bond {
            let (of_bond, silent) = bond_faults(network, mode, probed);
            unanswered |= silent.is_some();
            // Networks on one bond say the same of it.
            for fault in of_bond.into_iter().chain(silent) {
                if !faults.contains(&fault) {
                    faults.push(fault);
                }
            }
        }
    }
    Verdict::by(
        &faults,
        wanted.join(", "),
        match seen.is_empty() {
            true => "as wanted".into(),
            false => format!("as wanted; {}", seen.join(", ")),
        },
        if unanswered { NO_LACP } else { ADVICE },
    )
}

/// What is wrong with the bond of a network; and, apart, that its switch does not answer it.
fn bond_faults(network: &OsNetwork, mode: BondMode, probed: &Probed) -> (Vec<String>, Option<String>) {
    // Without the VLAN, of which is told elsewhere, nobody knows the bond.
    let Some(name) = base(network, probed) else {
        return (Vec::new(), None);
    };
    let Some(words) = line(probed, "bond", name) else {
        let below = if name == network.name {
            ""
        } else {
            ", which carries it,"
        };
        let fault = format!("{name}{below} is no bond");
        return (vec![fault], None);
    };
    let mut faults = Vec::new();
    let want = match mode {
        BondMode::Lacp => "802.3ad",
        BondMode::ActiveBackup => "active-backup",
    };
    // The mode is written as a name and a number: "802.3ad 4".
    let is = words.first().copied().unwrap_or("unknown");
    if is != want {
        faults.push(format!("the bond {name} is {is} instead of {want}"));
    }
    let members = words.get(2..).unwrap_or_default();
    if members.len() != network.nics.len() {
        let count = members.len();
        faults.push(format!("the bond {name} has {count} of {} members", network.nics.len()));
    }
    let (up, down): (Vec<&str>, Vec<&str>) = members.iter().partition(|member| is_up(probed, member));
    faults.extend(down.iter().map(|member| format!("its member {member} has no link")));
    let partner = line(probed, "partner", name).and_then(|words| words.first().copied());
    // Who has no link has no partner either.
    let silent = is == "802.3ad" && partner == Some(NOBODY) && !up.is_empty();
    let silent = silent.then(|| {
        let ports = up.join(", ");
        format!("the bond {name} has no partner: the switch does not speak LACP on the ports of {ports}")
    });
    (faults, silent)
}

/// The interface that carries a network's frames: its own, or the one that its VLAN stands on.
fn base<'a>(network: &'a OsNetwork, probed: &'a Probed) -> Option<&'a str> {
    match network.vlan {
        None => Some(&network.name),
        Some(_) => vlans(probed).find_map(|[name, _, parent]| (name == network.name).then_some(parent)),
    }
}

/// Lines of `/proc/net/vlan/config` are `name | id | parent`; the file is there once the kernel has any VLAN.
fn vlans(probed: &Probed) -> impl Iterator<Item = [&str; 3]> {
    probed.all("vlan").filter_map(|line| {
        let mut words = line.split('|').map(str::trim);
        Some([words.next()?, words.next()?, words.next()?])
    })
}

fn vlan_fault(network: &OsNetwork, probed: &Probed) -> Option<String> {
    let wanted = network.vlan?.to_string();
    let there = vlans(probed).any(|[name, id, _]| name == network.name && id == wanted);
    (!there).then(|| format!("{} does not carry VLAN {wanted}", network.name))
}

#[cfg(test)]
mod tests {
    use rackbar_model::{MacAddr, Timestamp};

    use super::*;
    use crate::checks::tests::wishes;

    fn judge(context: &Context, text: &str) -> Verdict {
        link(context, &Probed::new(text.into(), Timestamp(0), Timestamp(0)))
    }

    fn passes(context: &Context, text: &str) {
        let verdict = judge(context, text);
        assert!(matches!(verdict, Verdict::Passed { .. }), "{verdict:?}");
    }

    /// What is wrong, and what to do.
    fn fails(context: &Context, text: &str) -> (String, String) {
        match judge(context, text) {
            Verdict::Failed { observed, advice, .. } => (observed, advice),
            other => panic!("{other:?} of {text}"),
        }
    }

    fn mac(number: u8) -> MacAddr {
        MacAddr([2, 0, 0, 0, 0, number])
    }

    /// One bond of two members.
    fn bonded() -> Context {
        let mut context = wishes();
        context.wanted.setup.networks.truncate(1);
        context.wanted.setup.networks[0].nics.push(mac(2));
        context
    }

    const BONDED: &str = "link=mgmt 1 9000 02:00:00:00:00:01 25000\nlink=eth0 1 9000 x 25000\nlink=eth1 1 9000 x 25000\n\
                          bond=mgmt 802.3ad 4 eth0 eth1\npartner=mgmt 02:00:00:00:00:99\n";

    #[test]
    fn links_bonds_and_members_are_looked_at() {
        let context = bonded();
        passes(&context, BONDED);
        for (from, to, says) in [
            ("mgmt 1 9000", "mgmt 1 1500", "MTU 1500"),
            ("mgmt 1 9000", "mgmt 0 9000", "mgmt has no link"),
            ("eth1 1", "eth1 0", "member eth1 has no link"),
            ("eth0 eth1", "eth0", "1 of 2 members"),
            ("802.3ad 4", "active-backup 1", "instead of 802.3ad"),
            ("link=mgmt", "link=eth9", "no interface mgmt"),
            ("bond=mgmt", "bond=eth9", "mgmt is no bond"),
        ] {
            let (observed, _) = fails(&context, &BONDED.replace(from, to));
            assert!(observed.contains(says), "{observed}");
        }
    }

    #[test]
    fn a_bond_that_no_switch_answers_is_told_with_what_to_set_there() {
        let mut context = bonded();
        let alone = BONDED.replace("02:00:00:00:00:99", NOBODY);
        let (observed, advice) = fails(&context, &alone);
        let says = "the bond mgmt has no partner: the switch does not speak LACP on the ports of eth0, eth1";
        assert_eq!(observed, says);
        assert!(
            advice.contains("speaks LACP") && advice.contains("active-backup"),
            "{advice}"
        );
        // A second network on it says nothing twice.
        let mut storage = context.wanted.setup.networks[0].clone();
        (storage.name, storage.vlan) = ("storage".into(), Some(30));
        context.wanted.setup.networks.push(storage);
        let both = format!("{alone}link=storage 1 9000 x 25000\nvlan=storage | 30 | mgmt\n");
        assert_eq!(fails(&context, &both).0, says);
    }

    #[test]
    fn a_partner_is_looked_for_only_where_the_kernel_shows_one_and_a_link_is() {
        let mut context = bonded();
        let alone = BONDED.replace("02:00:00:00:00:99", NOBODY);
        passes(&context, &BONDED.replace(" 02:00:00:00:00:99", ""));
        passes(&context, &BONDED.replace("partner=", "other="));
        let down = alone.replace("eth0 1", "eth0 0").replace("eth1 1", "eth1 0");
        let (observed, advice) = fails(&context, &down);
        assert_eq!(observed, "its member eth0 has no link; its member eth1 has no link");
        assert_eq!(advice, ADVICE);
        context.wanted.setup.networks[0].bond = Some(BondMode::ActiveBackup);
        passes(&context, &alone.replace("802.3ad 4", "active-backup 1"));
    }

    /// Two bonds, each with a VLAN on it, as the kernel lists them: by name.
    #[test]
    fn a_vlan_s_bond_is_the_one_that_it_stands_on() {
        let mut context = bonded();
        let networks = &mut context.wanted.setup.networks;
        networks[0].vlan = Some(7);
        let mut storage = networks[0].clone();
        (storage.name, storage.vlan, storage.nics) = ("storage".into(), Some(30), vec![mac(3), mac(4), mac(5)]);
        storage.bond = Some(BondMode::ActiveBackup);
        networks.push(storage);
        let links: String = ["mgmt", "storage", "bond0", "bond1", "a0", "a1", "b0", "b1", "b2"]
            .map(|name| format!("link={name} 1 9000 x 25000\n"))
            .concat();
        let good = format!(
            "{links}bond=bond0 802.3ad 4 a0 a1\npartner=bond0 02:00:00:00:00:99\nbond=bond1 active-backup 1 b0 b1 b2\n\
             partner=bond1 \nvlan=VLAN Dev name    | VLAN ID\nvlan=Name-Type: VLAN_NAME_TYPE_RAW_PLUS_VID_NO_PAD\n\
             vlan=mgmt           | 7  | bond0\nvlan=storage        | 30  | bond1\n"
        );
        passes(&context, &good);
        for (from, to, says) in [
            ("b0 b1 b2", "b0 b1", "the bond bond1 has 2 of 3 members"),
            ("link=b2 1", "link=b2 0", "its member b2 has no link"),
            ("bond=bond1", "bond=bond9", "bond1, which carries it, is no bond"),
            ("30  | bond1", "31  | bond1", "storage does not carry VLAN 30"),
            ("vlan=storage", "vlan=other", "storage does not carry VLAN 30"),
        ] {
            let (observed, _) = fails(&context, &good.replace(from, to));
            assert_eq!(observed, says);
        }
    }
}

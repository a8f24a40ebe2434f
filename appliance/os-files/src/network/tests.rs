//! The same networks in the words of three programs.

use super::*;

fn network(name: &str, nics: &[u8], vlan: Option<u16>, addresses: &[&str]) -> OsNetwork {
    OsNetwork {
        name: name.to_owned(),
        nics: nics.iter().map(|last| MacAddr([2, 0, 0, 0, 0, *last])).collect(),
        bond: (nics.len() > 1).then_some(BondMode::Lacp),
        vlan,
        mtu: vlan.map(|_| 9000),
        addresses: addresses.iter().map(|a| (*a).to_owned()).collect(),
        gateway: addresses.first().map(|_| "10.0.0.1".parse().unwrap()),
    }
}

fn sample() -> OsSetup {
    OsSetup {
        hostname: "node-001".into(),
        domain: Some("rack.example".into()),
        networks: vec![
            network("mgmt", &[1], None, &["10.0.0.5/24"]),
            network("storage", &[2, 3], Some(20), &[]),
        ],
        dns: vec!["10.0.0.2".parse().unwrap()],
        ..OsSetup::default()
    }
}

#[test]
fn networkd_gets_names_bond_and_vlan() {
    let setup = sample();
    let files = networkd(&setup, &arrange(&setup).unwrap());
    let all: String = files.iter().map(|(name, text)| format!("# {name}\n{text}")).collect();
    let wanted = "\
# 10-mgmt.link\n[Match]\nMACAddress=02:00:00:00:00:01\nType=ether\n\n[Link]\nName=mgmt
# 10-port0.link\n[Match]\nMACAddress=02:00:00:00:00:02\nType=ether\n\n[Link]\nName=port0
# 10-port1.link\n[Match]\nMACAddress=02:00:00:00:00:03\nType=ether\n\n[Link]\nName=port1
# 40-mgmt.network\n[Match]\nName=mgmt\n\n[Network]\nAddress=10.0.0.5/24\nGateway=10.0.0.1\nDNS=10.0.0.2\nDomains=rack.example
# 20-bond0.netdev\n[NetDev]\nName=bond0\nKind=bond\n\n[Bond]\nMode=802.3ad\nLACPTransmitRate=fast\nTransmitHashPolicy=layer3+4\nMIIMonitorSec=100ms
# 30-port0.network\n[Match]\nName=port0\n\n[Link]\nRequiredForOnline=no\n\n[Network]\nBond=bond0
# 30-port1.network\n[Match]\nName=port1\n\n[Link]\nRequiredForOnline=no\n\n[Network]\nBond=bond0
# 40-bond0.network\n[Match]\nName=bond0\n\n[Link]\nMTUBytes=9000\nRequiredForOnline=no\n\n[Network]\nLinkLocalAddressing=no\nVLAN=storage
# 20-storage.netdev\n[NetDev]\nName=storage\nKind=vlan\n\n[VLAN]\nId=20
# 40-storage.network\n[Match]\nName=storage\n\n[Link]\nMTUBytes=9000\n\n[Network]\nDHCP=yes\nDNS=10.0.0.2\nDomains=rack.example\n\n[DHCPv4]\nClientIdentifier=mac
";
    assert_eq!(all, wanted);
}

#[test]
fn ifupdown_gets_the_same() {
    let setup = sample();
    let text = interfaces(&setup, &arrange(&setup).unwrap());
    let wanted = "# Written by Rackbar at installation.
auto lo\niface lo inet loopback

auto mgmt\niface mgmt inet static\n    address 10.0.0.5/24\n    gateway 10.0.0.1\n    dns-nameservers 10.0.0.2

auto bond0\niface bond0 inet manual\n    mtu 9000\n    bond-slaves port0 port1\n    bond-mode 802.3ad\n    bond-lacp-rate fast\n    bond-xmit-hash-policy layer3+4\n    bond-miimon 100

auto storage\niface storage inet dhcp\n    vlan-raw-device bond0\n    vlan-id 20\n    mtu 9000\n    dns-nameservers 10.0.0.2
";
    assert_eq!(text, wanted);
}

#[test]
fn cloud_init_gets_the_same() {
    let setup = sample();
    let text = cloud_init(&setup, &arrange(&setup).unwrap());
    let wanted = "version: 2
ethernets:
  mgmt:\n    match: {macaddress: \"02:00:00:00:00:01\"}\n    set-name: mgmt\n    addresses: [\"10.0.0.5/24\"]\n    gateway4: 10.0.0.1\n    nameservers: {addresses: [\"10.0.0.2\"], search: [\"rack.example\"]}
  port0:\n    match: {macaddress: \"02:00:00:00:00:02\"}\n    set-name: port0
  port1:\n    match: {macaddress: \"02:00:00:00:00:03\"}\n    set-name: port1
bonds:
  bond0:\n    interfaces: [port0, port1]\n    parameters: {mode: 802.3ad, lacp-rate: fast, transmit-hash-policy: layer3+4, mii-monitor-interval: 100}\n    mtu: 9000\n    dhcp4: false
vlans:
  storage:\n    id: 20\n    link: bond0\n    mtu: 9000\n    dhcp4: true\n    dhcp-identifier: mac\n    nameservers: {addresses: [\"10.0.0.2\"], search: [\"rack.example\"]}
";
    assert_eq!(text, wanted);
}

#[test]
fn a_bond_may_be_untagged_and_carry_vlans_too() {
    let mut setup = sample();
    setup.networks.push(network("lan", &[3, 2], None, &["10.1.0.5/24"]));
    let bases = arrange(&setup).unwrap();
    assert_eq!(bases.len(), 2);
    assert_eq!((bases[1].name.as_str(), bases[1].tagged.len()), ("lan", 1));
    assert_eq!(bases[1].ports[0].bond.as_deref(), Some("lan"));
}

#[test]
fn networks_that_cannot_be_are_refused() {
    let cases: [(OsNetwork, &str); 7] = [
        (network("much-too-long-name", &[9], None, &[]), "interface name"),
        (network("x\n[Link]", &[9], None, &[]), "interface name"),
        (network("x", &[], None, &[]), "no interface"),
        (network("x", &[9], Some(0), &[]), "VLAN"),
        (network("x", &[9], None, &["10.0.0.5"]), "prefix"),
        (network("x", &[1], None, &[]), "second one"),
        (network("x", &[1, 9], None, &[]), "some of its interfaces"),
    ];
    for (bad, word) in cases {
        let mut setup = sample();
        setup.networks.push(bad);
        let failure = arrange(&setup).unwrap_err();
        assert!(failure.reason.contains(word), "{failure:?}");
    }
    let mut setup = sample();
    setup.networks.push(OsNetwork {
        bond: None,
        ..network("x", &[8, 9], None, &[])
    });
    assert!(arrange(&setup).unwrap_err().reason.contains("no bond"));
}

/// A VLAN inherits the MTU of what is below it where it is told none.
#[test]
fn a_vlan_of_ordinary_frames_beside_one_of_large_ones_is_told_its_mtu() {
    let mut setup = sample();
    let mut ordinary = network("backup", &[2, 3], Some(30), &[]);
    ordinary.mtu = None;
    setup.networks.push(ordinary);
    let files = networkd(&setup, &arrange(&setup).unwrap());
    let text = |name: &str| files.iter().find(|(file, _)| file == name).unwrap().1.clone();
    assert!(text("40-backup.network").contains("MTUBytes=1500"));
    assert!(text("40-storage.network").contains("MTUBytes=9000"));
    assert!(!text("40-mgmt.network").contains("MTUBytes"));
}

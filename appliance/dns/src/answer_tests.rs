//! Answers to questions as clients send them, against zones made for the test.

use super::*;
use crate::{Data, Host, SiteNames, SiteRecord};

fn site() -> SiteNames {
    let domain = Name::parse("rack.example").unwrap();
    let host = |label: &str, address: [u8; 4]| Host {
        label: label.into(),
        domain: None,
        addresses: vec![address.into()],
    };
    let six = |address: &str| IpAddr::V6(address.parse().unwrap());
    SiteNames {
        server: "rackbar".into(),
        addresses: vec![[10, 10, 0, 1].into()],
        aliases: vec!["ntp".into()],
        networks: vec![
            ([10, 10, 0, 1].into(), 24),
            ([10, 20, 0, 65].into(), 26),
            (six("2001:db8:0:4::"), 62),
        ],
        hosts: vec![
            host("node-001", [10, 10, 0, 100]),
            host("node-001-bmc", [10, 20, 0, 70]),
            host("rackbar", [10, 10, 0, 66]),
            Host {
                addresses: vec![six("2001:db8:0:6::50"), six("2001:db8:0:8::50")],
                ..host("node-006", [0; 4])
            },
        ],
        records: vec![
            SiteRecord {
                name: Name::parse("_ldap._tcp.rack.example").unwrap(),
                data: Data::Srv(1, 2, 389, Name::parse("ldap.example").unwrap()),
            },
            SiteRecord {
                name: Name::parse("away.rack.example").unwrap(),
                data: Data::Cname(Name::parse("www.example.org").unwrap()),
            },
            SiteRecord {
                name: Name::parse("out.rack.example").unwrap(),
                data: Data::Cname(Name::parse("away.rack.example").unwrap()),
            },
            SiteRecord {
                name: Name::parse("virtual.rack.example").unwrap(),
                data: Data::Address(six("2001:db8:0:7::1")),
            },
            SiteRecord {
                name: Name::parse("second.rack.example").unwrap(),
                data: Data::Address([10, 10, 0, 100].into()),
            },
            SiteRecord {
                name: Name::parse("beside.example").unwrap(),
                data: Data::Address([10, 10, 0, 101].into()),
            },
            SiteRecord {
                name: Name::parse("long.rack.example").unwrap(),
                data: Data::Txt("x".repeat(900)),
            },
        ],
        domain,
    }
}

pub(crate) fn question(name: &str, rtype: u16, flags: u16, opt: Option<(u16, bool)>) -> Vec<u8> {
    let mut out = vec![0x12, 0x34];
    for value in [flags, 1, 0, 0, u16::from(opt.is_some())] {
        out.extend_from_slice(&value.to_be_bytes());
    }
    for label in name.split('.').filter(|label| !label.is_empty()) {
        out.push(label.len() as u8);
        out.extend_from_slice(label.as_bytes());
    }
    out.push(0);
    out.extend_from_slice(&rtype.to_be_bytes());
    out.extend_from_slice(&[0, 1]);
    if let Some((size, dnssec)) = opt {
        out.extend_from_slice(&[0, 0, 41]);
        out.extend_from_slice(&size.to_be_bytes());
        out.extend_from_slice(&[0, 0, if dnssec { 0x80 } else { 0 }, 0, 0, 0]);
    }
    out
}

const NEAR: Client = Client {
    address: IpAddr::V4(std::net::Ipv4Addr::new(10, 10, 0, 5)),
    transport: Transport::Udp,
    recursion: true,
};

/// Response code, flags, answers, authorities, and the whole reply.
fn ask(bytes: &[u8], client: &Client) -> (u8, u16, u16, u16, Vec<u8>) {
    let mut out = Vec::new();
    assert_eq!(decide(bytes, &site().zones(7), client, &mut out), Decision::Reply);
    let at = |n: usize| u16::from_be_bytes([out[n], out[n + 1]]);
    (out[3] & 15, at(2), at(6), at(8), out.clone())
}

#[test]
fn names_and_addresses_are_told_both_ways() {
    let (code, flags, answers, ..) = ask(&question("NODE-001.rack.example", rtype::A, 0x100, None), &NEAR);
    assert_eq!((code, flags & flag::AA, answers), (0, flag::AA, 1));
    let (.., out) = ask(&question("node-001.rack.example", rtype::A, 0x100, None), &NEAR);
    assert!(out.ends_with(&[0, 4, 10, 10, 0, 100]));
    let (.., out) = ask(&question("100.0.10.10.in-addr.arpa", rtype::PTR, 0x100, None), &NEAR);
    assert!(out.ends_with(b"\x08node-001\x04rack\x07example\0"));
    // An IPv6 network that ends inside a nibble.
    let (.., out) = ask(&question("node-006.rack.example", rtype::AAAA, 0x100, None), &NEAR);
    assert_eq!(out[7], 2);
    let name = reverse("2001:db8:0:6::50");
    let (code, flags, answers, _, out) = ask(&question(&name, rtype::PTR, 0x100, None), &NEAR);
    assert_eq!((code, flags & flag::AA, answers), (0, flag::AA, 1));
    assert!(out.ends_with(b"\x08node-006\x04rack\x07example\0"));
    // A network that ends inside an octet: its own addresses, by both names.
    for name in ["70.0.20.10.in-addr.arpa", "70.64/26.0.20.10.in-addr.arpa"] {
        let (code, _, answers, _, out) = ask(&question(name, rtype::PTR, 0x100, None), &NEAR);
        assert_eq!((code, answers), (0, 1), "{name}");
        assert!(out.ends_with(b"\x0cnode-001-bmc\x04rack\x07example\0"));
    }
}

/// The name of an IPv6 address's PTR record.
fn reverse(address: &str) -> String {
    Name::of_address(IpAddr::V6(address.parse().unwrap())).to_string()
}

#[test]
fn a_neighbours_addresses_are_not_denied() {
    let mut out = Vec::new();
    let zones = site().zones(7);
    // The last one is a machine's, in a network that is not ours to name: whoever has it is asked.
    for name in [
        "5.0.20.10.in-addr.arpa".to_owned(),
        reverse("2001:db8:0:3::50"),
        reverse("2001:db8:0:8::50"),
    ] {
        let bytes = question(&name, rtype::PTR, 0x100, None);
        assert!(
            matches!(decide(&bytes, &zones, &NEAR, &mut out), Decision::Forward(_)),
            "{name}"
        );
    }
}

#[test]
fn addresses_of_the_sites_records_lead_back_to_them_where_no_machine_has_them() {
    let name = reverse("2001:db8:0:7::1");
    let (code, _, answers, _, out) = ask(&question(&name, rtype::PTR, 0x100, None), &NEAR);
    assert_eq!((code, answers), (0, 1));
    assert!(out.ends_with(b"\x07virtual\x04rack\x07example\0"));
    let (_, _, answers, _, out) = ask(&question("100.0.10.10.in-addr.arpa", rtype::PTR, 0x100, None), &NEAR);
    assert_eq!(answers, 1);
    assert!(out.ends_with(b"\x08node-001\x04rack\x07example\0"));
    // A name that is not ours to tell leads nowhere, and nothing leads to it.
    let (code, ..) = ask(&question("101.0.10.10.in-addr.arpa", rtype::PTR, 0x100, None), &NEAR);
    assert_eq!(code, 3);
}

#[test]
fn an_ipv6_address_without_a_name_is_denied_and_names_above_others_exist() {
    let name = reverse("2001:db8:0:6::51");
    let (code, flags, answers, authorities, out) = ask(&question(&name, rtype::PTR, 0x100, None), &NEAR);
    assert_eq!((code, flags & flag::AA, answers, authorities), (3, flag::AA, 0, 1));
    // By the zone on the nibble's border.
    let apex = Name::parse("6.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa").unwrap();
    assert!(out.windows(apex.wire().len()).any(|bytes| bytes == apex.wire()));
    // Empty names between the zone and an address (RFC 8020): resolvers that hide what they ask for (RFC 9156) come by them.
    let between = format!("0.0.{apex}");
    let (code, _, answers, authorities, _) = ask(&question(&between, rtype::PTR, 0x100, None), &NEAR);
    assert_eq!((code, answers, authorities), (0, 0, 1));
}

#[test]
fn what_is_not_there_is_denied_in_the_right_way() {
    let (code, _, answers, authorities, out) = ask(&question("nobody.rack.example", rtype::A, 0x100, None), &NEAR);
    assert_eq!((code, answers, authorities), (3, 0, 1));
    // The serial and MINIMUM of the SOA record.
    assert!(out.ends_with(&[
        0, 0, 0, 7, 0, 0, 0x0e, 0x10, 0, 0, 2, 0x58, 0, 1, 0x51, 0x80, 0, 0, 0, 15
    ]));
    // The name is there, but not such records; and a name that is only above another.
    for (name, rtype) in [("node-001.rack.example", rtype::AAAA), ("_tcp.rack.example", rtype::A)] {
        let (code, _, answers, authorities, _) = ask(&question(name, rtype, 0x100, None), &NEAR);
        assert_eq!((code, answers, authorities), (0, 0, 1), "{name}");
    }
}

#[test]
fn aliases_lead_on_in_one_answer_and_no_machine_takes_our_name() {
    let (code, _, answers, _, out) = ask(&question("ntp.rack.example", rtype::A, 0x100, None), &NEAR);
    assert_eq!((code, answers), (0, 2));
    assert!(out.ends_with(&[0, 4, 10, 10, 0, 1]));
    let (_, _, answers, ..) = ask(&question("rackbar.rack.example", rtype::A, 0x100, None), &NEAR);
    assert_eq!(answers, 1);
    let (_, _, answers, ..) = ask(&question("_ldap._tcp.rack.example", rtype::SRV, 0x100, None), &NEAR);
    assert_eq!(answers, 1);
}

#[test]
fn what_an_alias_leads_to_out_of_our_zones_is_asked_for_where_the_client_wants_that_and_may() {
    let bytes = question("Out.rack.example", rtype::A, 0x100, None);
    let mut out = vec![1];
    let Decision::Chase(query, lead) = decide(&bytes, &site().zones(7), &NEAR, &mut out) else {
        panic!("not forwarded");
    };
    assert_eq!(
        (lead.target().to_string().as_str(), lead.count),
        ("www.example.org.", 2)
    );
    assert_eq!((query.name.to_string().as_str(), out.len()), ("out.rack.example.", 0));
    assert!(lead.records.ends_with(b"\x03www\x07example\x03org\0"));
    // Given alone to those who ask on by themselves, and for the alias itself.
    let stranger = Client {
        recursion: false,
        ..NEAR
    };
    for (rtype, flags, client) in [
        (rtype::A, 0, NEAR),
        (rtype::A, 0x100, stranger),
        (rtype::CNAME, 0x100, NEAR),
    ] {
        let (code, _, answers, _, out) = ask(&question("away.rack.example", rtype, flags, None), &client);
        assert_eq!((code, answers), (0, 1));
        assert!(out.ends_with(b"\x03www\x07example\x03org\0"));
    }
}

#[test]
fn strangers_get_no_recursion_and_nobody_a_transfer() {
    let stranger = Client {
        recursion: false,
        ..NEAR
    };
    let (code, flags, ..) = ask(&question("example.org", rtype::A, 0x100, None), &stranger);
    assert_eq!((code, flags & flag::RA), (5, 0));
    let (code, ..) = ask(&question("rack.example", rtype::AXFR, 0, None), &NEAR);
    assert_eq!(code, 5);
    // Without "recursion desired" nothing is forwarded.
    let (code, ..) = ask(&question("example.org", rtype::A, 0, None), &NEAR);
    assert_eq!(code, 5);
    let (code, _, answers, _, out) = ask(&question("node-001.rack.example", rtype::ANY, 0x100, None), &NEAR);
    assert_eq!((code, answers), (0, 1));
    assert!(out.ends_with(b"\x07RFC8482\0"));
}

#[test]
fn a_long_answer_is_cut_to_what_the_client_takes() {
    let name = "long.rack.example";
    let (_, flags, answers, _, out) = ask(&question(name, rtype::TXT, 0x100, None), &NEAR);
    assert_eq!((flags & flag::TC, answers), (flag::TC, 0));
    assert!(out.len() < 60);
    let (_, flags, answers, _, out) = ask(&question(name, rtype::TXT, 0x100, Some((4096, true))), &NEAR);
    assert_eq!((flags & flag::TC, answers), (0, 1));
    // DO comes back (RFC 3225 section 3).
    assert!(out.ends_with(&[0, 0, 41, 0x04, 0xd0, 0, 0, 0x80, 0, 0, 0]));
    let tcp = Client {
        transport: Transport::Tcp,
        ..NEAR
    };
    let (_, flags, answers, ..) = ask(&question(name, rtype::TXT, 0x100, None), &tcp);
    assert_eq!((flags & flag::TC, answers), (0, 1));
}

#[test]
fn unsound_messages_are_refused_or_passed_over() {
    let good = question("node-001.rack.example", rtype::A, 0x100, None);
    let mut out = Vec::new();
    let zones = site().zones(7);
    let mut answer = good.clone();
    answer[2] |= 0x80;
    assert_eq!(decide(&answer, &zones, &NEAR, &mut out), Decision::Drop);
    assert_eq!(decide(&good[..11], &zones, &NEAR, &mut out), Decision::Drop);
    let (code, ..) = ask(&good[..20], &NEAR);
    assert_eq!(code, 1);
    let mut update = good.clone();
    update[2] |= 5 << 3;
    assert_eq!(ask(&update, &NEAR).0, 4);
    let mut version = question("node-001.rack.example", rtype::A, 0x100, Some((1232, false)));
    let at = version.len() - 5;
    version[at] = 1;
    let (code, _, answers, _, out) = ask(&version, &NEAR);
    assert_eq!((code, answers, out[out.len() - 6]), (0, 0, 1));
}

proptest::proptest! {
    #[test]
    fn whatever_comes_the_reply_is_bounded_and_repeats_the_number(bytes in proptest::collection::vec(0u8.., 0..600)) {
        let mut out = Vec::new();
        if decide(&bytes, &site().zones(7), &NEAR, &mut out) == Decision::Reply {
            proptest::prop_assert!(out.len() <= 1232 && out[..2] == bytes[..2] && out[2] & 0x80 != 0);
        }
    }
}

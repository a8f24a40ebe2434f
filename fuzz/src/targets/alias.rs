//! What comes behind an alias of ours that leads out of our zones.

use std::net::{IpAddr, Ipv4Addr};

use rackbar_dns::{
    Client, Data, Decision, Forwarder, Limits, Name, Output, SiteNames, SiteRecord, Transport, Zones, decide,
};

use crate::pieces::pieces;

const NEAR: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 10, 0, 5));
/// For `mirror.rack.example`, with EDNS and DO.
const QUESTION: &[u8] = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x01\x06mirror\x04rack\x07example\x00\
    \x00\x01\x00\x01\x00\x00\x29\x04\xd0\x00\x00\x80\x00\x00\x00";
/// Where the question ends, and the alias begins.
const ANSWERS: usize = 37;
/// The alias for `www.example`, whose time is 60 seconds.
const ALIAS: &[u8] = b"\xc0\x0c\x00\x05\x00\x01\x00\x00\x00\x3c\x00\x0d\x03www\x07example\x00";

fn zones() -> Option<Zones> {
    let domain = Name::parse("rack.example").ok()?;
    let alias = SiteRecord {
        name: domain.child("mirror").ok()?,
        data: Data::Cname(Name::parse("www.example").ok()?),
    };
    let site = SiteNames {
        domain,
        server: "rackbar".into(),
        addresses: vec![Ipv4Addr::new(10, 10, 0, 1).into()],
        aliases: Vec::new(),
        networks: Vec::new(),
        hosts: Vec::new(),
        records: vec![alias],
    };
    Some(site.zones(7))
}

/// What claims to be the answers of an upstream about the alias's target, over both transports.
pub(super) fn dns_alias(data: &[u8]) {
    let Some(zones) = zones() else { return };
    for (transport, most) in [(Transport::Udp, 1232), (Transport::Tcp, 65_535)] {
        let client = Client {
            address: NEAR,
            transport,
            recursion: true,
        };
        follow(data, &zones, &client, most);
    }
}

fn follow(data: &[u8], zones: &Zones, client: &Client, most: usize) {
    let (mut forwarder, mut out) = (Forwarder::new(Limits::default(), Box::new(|| 0x1234)), Vec::new());
    forwarder.set_upstreams(&[([192, 0, 2, 1], 53).into(), ([192, 0, 2, 2], 53).into()]);
    let ask = |forwarder: &mut Forwarder<u8>, now, out: &mut Vec<_>| {
        let Decision::Chase(query, lead) = decide(QUESTION, zones, client, &mut Vec::new()) else {
            panic!("the alias leads nowhere");
        };
        forwarder.chase(now, &query, lead, client, 1, out);
    };
    ask(&mut forwarder, 0, &mut out);
    let mut now = 0;
    for piece in pieces(data) {
        let slots = out.iter().filter_map(|one| match one {
            Output::Send { slot, .. } => Some(*slot),
            _ => None,
        });
        let slots: Vec<u64> = slots.collect();
        out.clear();
        now += 100;
        for slot in slots {
            forwarder.answered(now, slot, piece, &mut out);
        }
        ask(&mut forwarder, now, &mut out);
        forwarder.expire(now, &mut out);
        for one in &out {
            if let Output::Reply { message, .. } = one {
                sound(message, most);
            }
        }
    }
}

/// It answers the client's question, and begins with the alias unless it says that it was cut.
fn sound(message: &[u8], most: usize) {
    assert!(message.len() <= most, "longer than the client takes: {message:02x?}");
    assert_eq!(message.get(..2), QUESTION.get(..2));
    assert_eq!(message.get(12..ANSWERS), QUESTION.get(12..ANSWERS));
    let cut = message.get(2).is_some_and(|flags| flags & 2 != 0);
    let begins = message.get(ANSWERS..).is_some_and(|rest| rest.starts_with(ALIAS));
    assert!(cut || begins, "the alias is not told: {message:02x?}");
}

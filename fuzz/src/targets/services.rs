//! What clients and other servers send to DNS, NTP and the log collector.

use std::net::{IpAddr, Ipv4Addr};

use rackbar_dns::{
    Client, Data, Decision, Forwarder, Host, Limits, Name, Output, SiteNames, SiteRecord, Transport, decide,
};
use rackbar_ntp::{Asker, Packet, Server, SystemState, measure};
use rackbar_syslog::{LONGEST, Splitter, decode, encode, parse};

use crate::pieces::pieces;

const NEAR: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 10, 0, 5));

fn client(transport: Transport) -> Client {
    Client {
        address: NEAR,
        transport,
        recursion: true,
    }
}

/// One query against a small site, over both transports.
pub(super) fn dns_query(data: &[u8]) {
    let Ok(domain) = Name::parse("rack.example") else {
        return;
    };
    let alias = Name::parse("wiki.rack.example");
    let site = SiteNames {
        records: alias
            .into_iter()
            .map(|name| SiteRecord {
                name,
                data: Data::Cname(domain.clone()),
            })
            .collect(),
        domain,
        server: "rackbar".into(),
        addresses: vec![Ipv4Addr::new(10, 10, 0, 1).into()],
        aliases: vec!["ntp".into()],
        networks: vec![(Ipv4Addr::new(10, 10, 0, 65).into(), 26)],
        hosts: vec![Host {
            label: "n1".into(),
            domain: None,
            addresses: vec![NEAR],
        }],
    };
    let (zones, mut out) = (site.zones(7), Vec::new());
    for (transport, most) in [(Transport::Udp, 1232), (Transport::Tcp, 65_535)] {
        if let Decision::Reply = decide(data, &zones, &client(transport), &mut out) {
            assert!(out.len() <= most && out.get(..2) == data.get(..2), "{out:02x?}");
        }
    }
}

/// A question of a client, then what claims to be the answers of an upstream.
pub(super) fn dns_answer(data: &[u8]) {
    let (mut forwarder, mut out) = (Forwarder::new(Limits::default(), Box::new(|| 0x1234)), Vec::new());
    forwarder.set_upstreams(&[([192, 0, 2, 1], 53).into(), ([192, 0, 2, 2], 53).into()]);
    let question = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x01\x03www\x07example\x00\x00\x01\x00\x01\
        \x00\x00\x29\x04\xd0\x00\x00\x80\x00\x00\x00";
    let Ok(query) = rackbar_dns::Query::read(question) else {
        return;
    };
    forwarder.ask(0, &query, &client(Transport::Udp), 1u8, &mut out);
    let mut now = 0;
    for piece in pieces(data) {
        let slots: Vec<u64> = out
            .iter()
            .filter_map(|one| {
                if let Output::Send { slot, .. } = one {
                    Some(*slot)
                } else {
                    None
                }
            })
            .collect();
        out.clear();
        now += 100;
        for slot in slots {
            forwarder.answered(now, slot, piece, &mut out);
            forwarder.answered(now, slot, data, &mut out);
        }
        forwarder.ask(now, &query, &client(Transport::Udp), 2, &mut out);
        forwarder.expire(now, &mut out);
        for one in &out {
            if let Output::Reply { message, .. } = one {
                assert!(
                    message.len() <= 1232 && message.get(..2) == Some(&[0x12, 0x34]),
                    "{message:02x?}"
                );
            }
        }
    }
}

/// A packet as a request and as an answer.
pub(super) fn ntp_packet(data: &[u8]) {
    const NOW: u64 = 1_790_000_000_000_000_000;
    let asker = Asker {
        client: NEAR,
        served: true,
        received: NOW,
        monotonic: 0,
    };
    let reply = Server::new(rackbar_ntp::Limits::default()).answer(data, asker, &SystemState::local(10, NOW), || NOW);
    assert!(reply.is_none_or(|reply| reply.len() <= data.len()));
    if let Some(packet) = Packet::read(data) {
        let _ = measure(data, packet.origin.0, NOW, NOW + 1_000_000);
    }
}

/// A stream of messages in any framing, cut in two ways, and each message kept and read back.
pub(super) fn syslog(data: &[u8]) {
    let split = |size: usize| {
        let (mut splitter, mut all) = (Splitter::default(), Vec::new());
        for part in data.chunks(size) {
            splitter.push(part, |message| all.push(message.to_vec()));
        }
        splitter.end(|message| all.push(message.to_vec()));
        all
    };
    let all = split(7);
    assert_eq!(all, split(data.len().max(1)));
    for bytes in all {
        assert!(bytes.len() <= LONGEST);
        let message = parse(&bytes);
        let fields = [&message.host, &message.program, &message.text];
        assert!(!fields.iter().any(|field| field.chars().any(char::is_control)));
        let record = rackbar_syslog::Record::new(1, 2, NEAR, message);
        let mut kept = Vec::new();
        encode(&record, &mut kept);
        assert_eq!(decode(&kept), Ok(Some((record, kept.len()))));
    }
    let _ = decode(data);
}

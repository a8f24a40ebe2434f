//! Forwarding with servers that answer, lie, are late or are silent.

use super::*;
use crate::answer::tests::question;

const CLIENT: Client = Client {
    address: IpAddr::V4(std::net::Ipv4Addr::new(10, 10, 0, 5)),
    transport: Transport::Udp,
    recursion: true,
};

fn forwarder() -> Forwarder<u32> {
    let mut next = 0x1000u16;
    let random = move || {
        next += 1;
        next
    };
    let mut forwarder = Forwarder::new(Limits::default(), Box::new(random));
    forwarder.set_upstreams(&["192.0.2.1:53".parse().unwrap(), "192.0.2.2:53".parse().unwrap()]);
    forwarder
}

fn ask(forwarder: &mut Forwarder<u32>, now: u64, bytes: &[u8], who: u32) -> Vec<Output<u32>> {
    let mut out = Vec::new();
    forwarder.ask(now, &Query::read(bytes).unwrap(), &CLIENT, who, &mut out);
    out
}

/// The answer of an upstream to the message that was sent: one A record of TTL 100, a signature of TTL 90, and OPT.
fn answer(sent: &[u8], code: u8) -> Vec<u8> {
    let end = question_end(sent).unwrap();
    let mut out = sent[..end].to_vec();
    (out[2], out[3]) = (0x81, 0xa0 | code);
    out[7] = 2;
    out[11] = 1;
    out.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 100, 0, 4, 198, 51, 100, 7]);
    out.extend_from_slice(&[0xc0, 12, 0, 46, 0, 1, 0, 0, 0, 90, 0, 3, 1, 2, 3]);
    out.extend_from_slice(&[0, 0, 41, 4, 0xd0, 0, 0, 0x80, 0, 0, 0]);
    out
}

fn sent(out: &[Output<u32>]) -> (u64, SocketAddr, Vec<u8>) {
    match out.last() {
        Some(Output::Send {
            slot,
            upstream,
            message,
            ..
        }) => (*slot, *upstream, message.clone()),
        other => panic!("{other:?}"),
    }
}

fn replies(out: &[Output<u32>]) -> Vec<(u32, Vec<u8>)> {
    let of = |one: &Output<u32>| match one {
        Output::Reply { who, message } => Some((*who, message.clone())),
        _ => None,
    };
    out.iter().filter_map(of).collect()
}

#[test]
fn one_question_serves_all_who_wait_and_then_the_cache_does() {
    let mut forwarder = forwarder();
    let bytes = question("Www.Example.org", 1, 0x120, Some((1232, true)));
    let (slot, upstream, message) = sent(&ask(&mut forwarder, 0, &bytes, 1));
    assert_eq!(upstream, "192.0.2.1:53".parse().unwrap());
    assert!(ask(&mut forwarder, 5, &bytes, 2).is_empty());
    let mut out = Vec::new();
    forwarder.answered(20, slot, &answer(&message, 0), &mut out);
    let got = replies(&out);
    assert_eq!(got.iter().map(|one| one.0).collect::<Vec<_>>(), [1, 2]);
    // The client's number, its upper case, the signature, AD, and its OPT with DO.
    let reply = &got[0].1;
    assert_eq!(reply[..4], [0x12, 0x34, 0x81, 0xa0]);
    assert_eq!(&reply[13..16], b"Www");
    assert!(reply.windows(2).any(|two| two == [0, 46]) && reply.ends_with(&[0, 0, 41, 4, 0xd0, 0, 0, 0x80, 0, 0, 0]));
    // Ten seconds later the TTLs are ten less.
    let got = replies(&ask(&mut forwarder, 10_020, &bytes, 3));
    assert!(got[0].1.windows(4).any(|ttl| ttl == [0, 0, 0, 90]) && got[0].1.windows(4).any(|ttl| ttl == [0, 0, 0, 80]));
    assert_eq!(forwarder.counters().hits, 1);
    // The smallest TTL rules.
    let out = ask(&mut forwarder, 90_020, &bytes, 4);
    assert!(matches!(out[..], [Output::Send { .. }]), "{out:?}");
}

#[test]
fn who_finds_no_place_among_those_who_wait_is_told_at_once() {
    let mut forwarder = forwarder();
    let bytes = question("www.example.org", 1, 0x100, None);
    let most = u32::try_from(Limits::default().waiters).unwrap();
    for who in 0..most + 2 {
        let client = Client {
            address: IpAddr::from([10, 10, 1, who as u8]),
            ..CLIENT
        };
        let mut out = Vec::new();
        forwarder.ask(0, &Query::read(&bytes).unwrap(), &client, who, &mut out);
        let told: Vec<_> = replies(&out).iter().map(|(who, reply)| (*who, reply[3] & 15)).collect();
        let wanted = if who < most { vec![] } else { vec![(who, 2)] };
        assert_eq!(told, wanted, "{who}");
    }
    assert_eq!(forwarder.counters().refused, 2);
}

#[test]
fn a_client_without_edns_gets_none_and_no_word_about_soundness() {
    let mut forwarder = forwarder();
    let (slot, _, message) = sent(&ask(&mut forwarder, 0, &question("www.example.org", 1, 0x100, None), 1));
    let mut out = Vec::new();
    forwarder.answered(20, slot, &answer(&message, 0), &mut out);
    let reply = &replies(&out)[0].1;
    assert_eq!((reply[3] & 0x20, reply[11]), (0, 0));
    assert!(reply.ends_with(&[1, 2, 3]));
}

#[test]
fn a_deaf_or_failing_upstream_is_passed_over_and_asked_last_for_a_while() {
    let mut forwarder = forwarder();
    let bytes = question("www.example.org", 1, 0x100, None);
    ask(&mut forwarder, 0, &bytes, 1);
    let mut out = Vec::new();
    assert_eq!(forwarder.deadline(), Some(800));
    forwarder.expire(800, &mut out);
    let (slot, upstream, message) = sent(&out);
    assert_eq!(upstream, "192.0.2.2:53".parse().unwrap());
    out.clear();
    forwarder.answered(810, slot, &answer(&message, 0), &mut out);
    assert_eq!(replies(&out).len(), 1);
    let (slot, upstream, message) = sent(&ask(&mut forwarder, 900, &question("b.example", 1, 0x100, None), 1));
    assert_eq!(upstream, "192.0.2.2:53".parse().unwrap());
    // SERVFAIL of one is a reason to ask the other; of all, our answer, which is kept for two seconds.
    let mut out = Vec::new();
    let (mut slot, mut message) = (slot, message);
    for _ in 0..3 {
        forwarder.answered(1000, slot, &answer(&message, 2), &mut out);
        (slot, _, message) = sent(&out);
    }
    forwarder.answered(1000, slot, &answer(&message, 2), &mut out);
    assert_eq!(replies(&out)[0].1[3] & 15, 2);
    let again = ask(&mut forwarder, 2999, &question("b.example", 1, 0x100, None), 1);
    assert_eq!(replies(&again)[0].1[3] & 15, 2);
    assert!(matches!(
        ask(&mut forwarder, 3001, &question("b.example", 1, 0x100, None), 1)[..],
        [Output::Send { .. }]
    ));
}

/// A question for `mirror.rack.example`, an alias of ours for `www.example.org`.
fn chase(forwarder: &mut Forwarder<u32>, now: u64, bytes: &[u8], who: u32) -> Vec<Output<u32>> {
    let target = crate::Name::parse("www.example.org").unwrap();
    let lead = Lead {
        records: [&b"\xc0\x0c\0\x05\0\x01\0\0\0\x3c\0\x11"[..], target.wire()].concat(),
        target,
        count: 1,
    };
    let mut out = Vec::new();
    forwarder.chase(now, &Query::read(bytes).unwrap(), lead, &CLIENT, who, &mut out);
    out
}

#[test]
fn behind_an_alias_of_ours_comes_what_the_upstream_or_the_cache_says_of_its_target() {
    let mut forwarder = forwarder();
    let bytes = question("Mirror.rack.example", 1, 0x120, Some((1232, true)));
    let (slot, _, message) = sent(&chase(&mut forwarder, 0, &bytes, 1));
    assert_eq!(
        message[12..],
        question("www.example.org", 1, 0x100, Some((1232, true)))[12..]
    );
    // Whoever asks for the target itself waits for the same answer.
    let direct = question("www.example.org", 1, 0x120, Some((1232, true)));
    assert!(ask(&mut forwarder, 5, &direct, 2).is_empty());
    let mut out = Vec::new();
    forwarder.answered(20, slot, &answer(&message, 0), &mut out);
    let got = replies(&out);
    assert_eq!(got.iter().map(|one| one.0).collect::<Vec<_>>(), [1, 2]);
    let alias = &got[0].1;
    // The client's number and question; AA, as the alias is ours, and no AD, as nobody signed it; CNAME, A, RRSIG.
    assert_eq!(alias[..8], [0x12, 0x34, 0x85, 0x80, 0, 1, 0, 3]);
    let question_end = bytes.len() - 11;
    assert_eq!(alias[12..question_end], bytes[12..question_end]);
    // What the A record points to is the target in the alias's data.
    let target = question_end + 12;
    assert_eq!(&alias[target..target + 17], b"\x03www\x07example\x03org\0");
    let address = &alias[target + 17..target + 33];
    assert_eq!(
        address,
        [0xc0, target as u8, 0, 1, 0, 1, 0, 0, 0, 100, 0, 4, 198, 51, 100, 7]
    );
    // The one who asked for the target sees nothing of that.
    assert_eq!(got[1].1[..8], [0x12, 0x34, 0x81, 0xa0, 0, 1, 0, 2]);
    // From the cache, ten seconds older; the alias's own time stays what it is.
    let got = replies(&chase(&mut forwarder, 10_020, &bytes, 3));
    assert_eq!(&got[0].1[question_end + 6..question_end + 10], [0, 0, 0, 60]);
    assert_eq!(got[0].1[target + 23..target + 27], [0, 0, 0, 90]);
    assert_eq!((forwarder.counters().hits, forwarder.counters().sent), (1, 1));
}

#[test]
fn an_alias_whose_target_nobody_tells_is_given_with_the_failure() {
    let mut forwarder = forwarder();
    let bytes = question("mirror.rack.example", 1, 0x100, None);
    let (mut slot, _, mut message) = sent(&chase(&mut forwarder, 0, &bytes, 1));
    let mut out = Vec::new();
    for _ in 0..3 {
        forwarder.answered(1000, slot, &answer(&message, 2), &mut out);
        (slot, _, message) = sent(&out);
    }
    forwarder.answered(1000, slot, &answer(&message, 2), &mut out);
    for got in [replies(&out), replies(&chase(&mut forwarder, 1001, &bytes, 2))] {
        assert_eq!(got[0].1[2..8], [0x85, 0x82, 0, 1, 0, 1]);
        assert!(got[0].1.ends_with(b"\x03www\x07example\x03org\0"));
    }
    // That there is no such name is said of the target, not of the alias (RFC 6604 section 2.1).
    let (slot, _, message) = sent(&chase(&mut forwarder, 4000, &bytes, 3));
    let mut none = answer(&message, 3);
    none.truncate(question_end(&none).unwrap());
    (none[7], none[11]) = (0, 0);
    out.clear();
    forwarder.answered(4010, slot, &none, &mut out);
    assert_eq!(replies(&out)[0].1[2..8], [0x85, 0x83, 0, 1, 0, 1]);
}

#[test]
fn an_alias_that_leads_out_and_back_is_asked_for_once() {
    let mut forwarder = forwarder();
    let bytes = question("mirror.rack.example", 1, 0x100, None);
    let (slot, _, message) = sent(&chase(&mut forwarder, 0, &bytes, 1));
    let mut back = message[..question_end(&message).unwrap()].to_vec();
    (back[2], back[3], back[7], back[11]) = (0x81, 0x80, 1, 0);
    let name = crate::Name::parse("mirror.rack.example").unwrap();
    back.extend_from_slice(&[0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 100, 0, name.wire().len() as u8]);
    back.extend_from_slice(name.wire());
    let mut out = Vec::new();
    forwarder.answered(20, slot, &back, &mut out);
    assert_eq!(replies(&out)[0].1[2..8], [0x85, 0x80, 0, 1, 0, 2]);
    assert_eq!((forwarder.counters().sent, forwarder.deadline()), (1, None));
}

#[test]
fn an_answer_behind_an_alias_is_cut_to_what_the_client_takes() {
    let mut forwarder = forwarder();
    let bytes = question("mirror.rack.example", 1, 0x100, None);
    let (slot, _, message) = sent(&chase(&mut forwarder, 0, &bytes, 1));
    let mut long = message[..question_end(&message).unwrap()].to_vec();
    (long[2], long[3], long[7], long[11]) = (0x81, 0x80, 28, 0);
    for _ in 0..28 {
        long.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 100, 0, 4, 198, 51, 100, 7]);
    }
    // It fits by itself, and no more behind the alias.
    assert!((480..512).contains(&long.len()), "{}", long.len());
    let mut out = Vec::new();
    forwarder.answered(20, slot, &long, &mut out);
    let reply = &replies(&out)[0].1;
    assert_eq!(
        (reply.len(), &reply[2..8]),
        (bytes.len(), &[0x87, 0x80, 0, 1, 0, 0][..])
    );
}

#[test]
fn what_does_not_answer_our_question_is_not_believed() {
    let mut forwarder = forwarder();
    let (slot, _, message) = sent(&ask(&mut forwarder, 0, &question("www.example.org", 1, 0x100, None), 1));
    let mut out = Vec::new();
    let good = answer(&message, 0);
    let mut number = good.clone();
    number[1] ^= 1;
    let mut name = good.clone();
    name[14] = b'x';
    let mut query = good.clone();
    query[2] &= 0x7f;
    for bad in [&number[..], &name, &query, &good[..good.len() - 1], &good[..13], &[]] {
        forwarder.answered(10, slot, bad, &mut out);
        assert!(out.is_empty());
    }
    assert_eq!(forwarder.counters().nonsense, 6);
    forwarder.answered(10, slot, &good, &mut out);
    assert_eq!(replies(&out).len(), 1);
    // Once more is once too often.
    out.clear();
    forwarder.answered(10, slot, &good, &mut out);
    assert!(out.is_empty());
}

#[test]
fn one_client_cannot_take_all_places() {
    let mut forwarder = forwarder();
    for n in 0..256 {
        ask(
            &mut forwarder,
            0,
            &question(&format!("n{n}.example"), 1, 0x100, None),
            n,
        );
    }
    let refused = ask(&mut forwarder, 0, &question("more.example", 1, 0x100, None), 999);
    assert_eq!(replies(&refused)[0].1[3] & 15, 2);
    assert_eq!(forwarder.counters().refused, 1);
}

proptest::proptest! {
    #[test]
    fn no_answer_breaks_the_forwarder(at in 2usize..90, with in 0u8.., cut in 0usize..100) {
        let mut forwarder = forwarder();
        let (slot, _, message) = sent(&ask(&mut forwarder, 0, &question("www.example.org", 1, 0x100, None), 1));
        let mut bytes = answer(&message, 0);
        if let Some(byte) = bytes.get_mut(at) {
            *byte = with;
        }
        bytes.truncate(bytes.len().saturating_sub(cut));
        let mut out = Vec::new();
        forwarder.answered(10, slot, &bytes, &mut out);
        for (_, reply) in replies(&out) {
            proptest::prop_assert!(reply.len() <= 512);
        }
    }
}

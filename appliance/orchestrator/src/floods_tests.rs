//! What the journal keeps of floods, and that nothing of people or of quiet machines is left out.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const START: u64 = 1_700_000_000_000;

fn node(n: u32) -> Option<NodeId> {
    let mut id = [0; 16];
    id[..4].copy_from_slice(&n.to_be_bytes());
    Some(NodeId(id))
}

fn mac(n: u32) -> Option<MacAddr> {
    let [a, b, c, d] = n.to_be_bytes();
    Some(MacAddr([2, 0, a, b, c, d]))
}

fn event(at: u64, node: Option<NodeId>, mac: Option<MacAddr>, kind: EventKind) -> Event {
    let at = Timestamp(START + at);
    Event {
        seq: 0,
        at,
        node,
        mac,
        kind,
    }
}

fn script(client: u8) -> EventKind {
    EventKind::HttpSent {
        what: "script".into(),
        client: [10, 0, 0, client].into(),
        status: 200,
        bytes: 1,
        millis: 1,
    }
}

fn request() -> EventKind {
    let (address, server) = (None, None);
    EventKind::DhcpRequest { address, server }
}

fn tftp(client: u8) -> EventKind {
    EventKind::TftpFailed {
        file: "f".into(),
        client: [10, 0, 0, client].into(),
        reason: "r".into(),
    }
}

/// A dozen kinds of a boot, in turn.
fn of_a_boot(n: usize) -> EventKind {
    let reason = || "r".to_owned();
    match n % 12 {
        0 => script(1),
        1 => request(),
        2 => tftp(1),
        3 => EventKind::AskedLate { seconds: 1 },
        4 => EventKind::DhcpNak { reason: reason() },
        5 => EventKind::ClientIgnored { reason: reason() },
        6 => EventKind::AgentLost { reason: reason() },
        7 => EventKind::Facts { changed: Vec::new() },
        8 => EventKind::DhcpRelease {
            address: [10, 0, 0, 1].into(),
        },
        9 => EventKind::DhcpDecline {
            address: [10, 0, 0, 1].into(),
        },
        10 => EventKind::AgentUp {
            address: [10, 0, 0, 1].into(),
            again: false,
        },
        _ => EventKind::DhcpAck {
            address: None,
            lease_seconds: None,
            boot_file: None,
        },
    }
}

fn texts(floods: &mut Floods, at: u64) -> Vec<String> {
    let name = |id| (Some(id) == node(1)).then(|| "node-001".to_owned());
    let text = |event: Event| match event.kind {
        EventKind::Note { text, .. } => text,
        other => panic!("{other:?}"),
    };
    let told = floods.tick(Timestamp(START + at), name);
    told.into_iter().map(text).collect()
}

/// How many of `count` events at once are kept.
fn kept(floods: &mut Floods, count: usize, stranger: bool, event: impl Fn(usize) -> Event) -> usize {
    (0..count).filter(|n| floods.keep(&event(*n), stranger)).count()
}

#[test]
fn a_flood_is_cut_and_told_once_and_spares_other_kinds_and_others() {
    let mut floods = Floods::default();
    assert_eq!(
        kept(&mut floods, 500, false, |_| event(0, node(1), mac(1), script(1))),
        120
    );
    assert!(
        floods.keep(&event(0, node(1), mac(1), request()), false),
        "of another kind"
    );
    assert!(
        floods.keep(&event(0, node(2), mac(2), script(1)), false),
        "of another machine"
    );
    assert_eq!(
        kept(&mut floods, 9, false, |_| event(2_999, node(1), mac(1), script(1))),
        2,
        "one a second"
    );
    assert_eq!(texts(&mut floods, 12_998), <[&str; 0]>::default(), "it may go on");
    let told = "387 more events of this kind (HTTP request) from node-001 in 3 s were not kept";
    assert_eq!(texts(&mut floods, 12_999), [told]);
    assert_eq!(texts(&mut floods, 90_000), <[&str; 0]>::default(), "told once");
}

#[test]
fn a_flood_that_goes_on_is_told_once_a_minute() {
    let mut floods = Floods::default();
    let mut told = Vec::new();
    for second in 0..600 {
        let at = second * 1_000;
        let kept = kept(&mut floods, 1_000, false, |_| event(at, node(1), mac(1), script(1)));
        assert!(second == 0 || kept == 1, "{kept} in second {second}");
        told.extend(texts(&mut floods, at));
    }
    assert_eq!(told.len(), 9, "{told:#?}");
    assert!(told.iter().all(|text| text.contains(" in 60 s ")), "{told:#?}");
}

#[test]
fn a_sender_is_its_machine_or_its_interface_or_its_address() {
    let mut floods = Floods::default();
    // Interfaces of one machine are one sender, addresses of one interface are.
    let one = kept(&mut floods, 500, false, |n| {
        event(0, node(1), mac(n as u32), script(n as u8))
    });
    let two = kept(&mut floods, 500, true, |n| event(0, None, mac(1), tftp(n as u8)));
    let three = kept(&mut floods, 500, true, |n| event(0, None, None, tftp(n as u8 % 2)));
    let four = kept(&mut floods, 500, true, |_| event(0, None, None, request()));
    assert_eq!([one, two, three, four], [120, 120, 240, 120]);
    let mut told = texts(&mut floods, 10_000);
    told.sort();
    let expected = [
        "130 more events of this kind (failed TFTP transfer) from 10.0.0.0 in 1 s were not kept",
        "130 more events of this kind (failed TFTP transfer) from 10.0.0.1 in 1 s were not kept",
        "380 more events of this kind (DHCPREQUEST) from an unknown sender in 1 s were not kept",
        "380 more events of this kind (HTTP request) from node-001 in 1 s were not kept",
        "380 more events of this kind (failed TFTP transfer) from 02:00:00:00:00:01 in 1 s were not kept",
    ];
    assert_eq!(told, expected);
}

#[test]
fn what_people_and_the_appliance_do_is_never_left_out() {
    let text = || "x".to_owned();
    let changed = || EventKind::Changed {
        by: text(),
        what: text(),
        outcome: text(),
        ok: false,
    };
    let run = || EventKind::RunChanged {
        run: 1,
        state: text(),
        reason: text(),
        severity: Severity::Info,
    };
    let state = || EventKind::StateChanged {
        from: text(),
        to: text(),
        reason: text(),
    };
    let note = || EventKind::Note {
        text: text(),
        severity: Severity::Info,
    };
    let mut floods = Floods::default();
    for kind in [&changed as &dyn Fn() -> EventKind, &run, &state, &note] {
        for (node, stranger) in [(None, true), (node(1), true), (node(1), false)] {
            let all = kept(&mut floods, 30_000, stranger, |_| event(0, node, None, kind()));
            assert_eq!(all, 30_000, "{:?}", kind());
        }
    }
    let wire = kept(&mut floods, 200, false, |_| event(0, node(1), mac(1), note()));
    assert_eq!(wire, 120, "a note about what a service saw is of outside");
}

#[test]
fn five_hundred_machines_that_boot_in_one_second_lose_nothing() {
    for stranger in [true, false] {
        let mut floods = Floods::default();
        let all = kept(&mut floods, 500 * 30, stranger, |n| {
            let (machine, at) = (n as u32 % 500, n as u64 / 15);
            event(at, node(machine), mac(machine), of_a_boot(n / 500))
        });
        assert_eq!(all, 500 * 30);
        assert!(texts(&mut floods, 20_000).is_empty());
    }
}

#[test]
fn a_machine_that_boots_twenty_times_an_hour_loses_nothing_in_a_day() {
    let mut floods = Floods::default();
    for boot in 0..20 * 24 {
        let at = boot * 180_000;
        // Of one kind, as if it fetched all it boots in pieces.
        let all = kept(&mut floods, 100, false, |n| {
            event(at + 20 * n as u64, node(1), mac(1), script(1))
        });
        assert_eq!(all, 100, "boot {boot}");
    }
}

#[test]
fn made_up_senders_take_neither_the_journal_nor_the_memory_nor_the_place_of_real_ones() {
    let mut floods = Floods::default();
    for (made_up, node, mac) in [(1u32 << 20, None, mac as fn(u32) -> _), (1 << 21, None, |_| None)] {
        let kept = kept(&mut floods, 100_000, true, |n| {
            event(0, node, mac(made_up + n as u32), tftp(n as u8))
        });
        assert!(kept <= 20_000, "{kept}");
        assert!(floods.keys.len() <= MAX_KEYS, "{}", floods.keys.len());
    }
    for machine in 0..1_000 {
        assert!(
            floods.keep(&event(0, node(machine), mac(machine), script(1)), false),
            "{machine}"
        );
    }
    let told = texts(&mut floods, 10_000);
    assert!(
        told.iter()
            .any(|text| text.contains("more events of machines that nothing proves to exist in 1 s")),
        "{told:#?}"
    );
    // One that is known goes on as before.
    let all = kept(&mut floods, 100, false, |_| event(11_000, node(1), mac(1), script(1)));
    assert_eq!(all, 100);
}

#[test]
fn whoever_finds_no_place_shares_one_with_all_others_until_idle_ones_have_gone() {
    let mut floods = Floods::default();
    let machines = MAX_KEYS + 30_000;
    let all = kept(&mut floods, machines, false, |n| {
        event(0, node(n as u32), None, script(1))
    });
    assert_eq!(all, MAX_KEYS + 20_000);
    assert_eq!(floods.keys.len(), MAX_KEYS);
    // Without a tick in between: those that are full again make room.
    assert!(floods.keep(&event(1_000, node(u32::MAX), None, script(1)), false));
    assert_eq!(floods.keys.len(), 1);
    let told = texts(&mut floods, 10_000);
    assert_eq!(
        told,
        ["10000 more events of more machines than are told apart in 1 s were not kept"]
    );
}

#[test]
fn what_is_full_again_is_forgotten_and_what_is_not_told_yet_is_not() {
    let mut floods = Floods::default();
    kept(&mut floods, 120, false, |_| event(0, node(1), None, script(1)));
    texts(&mut floods, 119_999);
    assert_eq!(floods.keys.len(), 1, "it still counts");
    texts(&mut floods, 120_000);
    assert_eq!(floods.keys.len(), 0);
}

#[test]
fn a_clock_that_is_set_stops_nothing() {
    let mut floods = Floods::default();
    let flood = |floods: &mut Floods, at| kept(floods, 200, false, |_| event(at, node(1), None, script(1)));
    let day = 24 * 60 * 60 * 1_000;
    assert_eq!(flood(&mut floods, 10 * day), 120);
    assert_eq!(flood(&mut floods, 0), 0, "set back by days");
    assert_eq!(flood(&mut floods, 60_000), 60, "and goes on from there");
    // An event that waited in its queue while a tick came is no clock that was set, and no time passes twice.
    texts(&mut floods, 61_000);
    for at in [60_000, 61_000, 60_500, 61_000] {
        assert!(flood(&mut floods, at) <= 1, "{at}");
    }
    assert_eq!(flood(&mut floods, 20_000 * day), 120, "set forward by years");
    assert!(texts(&mut floods, 20_000 * day + 60_000)[0].contains("from node-001"));
    assert_eq!(
        flood(&mut floods, 20_000 * day),
        60,
        "set back by a minute: what had passed by then"
    );
    assert_eq!(flood(&mut floods, 20_000 * day + 30_000), 30, "and on from there");
}

proptest! {
    #[test]
    fn every_event_is_kept_or_counted_and_none_beyond_the_rate(
        steps in prop::collection::vec((0u64..3_000, 0u32..3, 0usize..2, 1usize..200, any::<bool>()), 1..60),
    ) {
        let mut floods = Floods::default();
        let (mut at, mut sent, mut held) = (0, 0, 0);
        let mut passed: BTreeMap<(u32, usize), Vec<u64>> = BTreeMap::new();
        let mut came: BTreeMap<(u32, usize), usize> = BTreeMap::new();
        let count = |text: &String| text.split(' ').next().and_then(|n| n.parse::<usize>().ok()).unwrap_or_default();
        for (step, machine, kind, events, tick) in steps {
            at += step;
            sent += events;
            *came.entry((machine, kind)).or_default() += events;
            let kept = kept(&mut floods, events, false, |_| event(at, node(machine), None, of_a_boot(kind)));
            passed.entry((machine, kind)).or_default().extend(std::iter::repeat_n(at, kept));
            if tick {
                held += texts(&mut floods, at).iter().map(count).sum::<usize>();
            }
        }
        held += texts(&mut floods, at + 60_000).iter().map(count).sum::<usize>();
        let kept: usize = passed.values().map(Vec::len).sum();
        prop_assert_eq!(sent, kept + held);
        for (key, times) in passed {
            let few = came[&key] <= BURST as usize;
            prop_assert!(!few || times.len() == came[&key], "{:?} is no flood", key);
            for (first, from) in times.iter().enumerate() {
                for (last, to) in times.iter().enumerate().skip(first) {
                    prop_assert!((last - first + 1) as u64 <= BURST + (to - from) / EACH + 1);
                }
            }
        }
    }
}

//! The codec against itself and against damage.

use std::net::Ipv4Addr;

use proptest::prelude::*;
use rackbar_model::{ClientArch, MacAddr};

use super::*;

const MAC: MacAddr = MacAddr([0x52, 0x54, 0, 1, 2, 3]);

fn encoded(message: &Message<'_>, limit: usize) -> (Vec<u8>, Fit) {
    let mut out = Vec::new();
    let fit = message.encode(limit, &mut out);
    (out, fit)
}

fn with(options: Vec<DhcpOption<'_>>) -> Message<'_> {
    Message {
        options,
        ..Message::request(7, MAC)
    }
}

#[test]
fn a_short_message_is_padded_to_what_old_relays_take() {
    let (bytes, _) = encoded(
        &with(vec![DhcpOption::MessageType(MessageType::Discover)]),
        DEFAULT_LIMIT,
    );
    assert_eq!(bytes.len(), MIN_MESSAGE);
    let packet = Packet::new(&bytes).unwrap();
    assert_eq!(packet.message_type(), Some(MessageType::Discover));
    assert_eq!((packet.xid(), packet.mac()), (7, Some(MAC)));
}

#[test]
fn refuses_what_is_not_dhcp() {
    assert_eq!(Packet::new(&[1; 239]).err(), Some(PacketError::TooShort { len: 239 }));
    assert_eq!(Packet::new(&[3; 300]).err(), Some(PacketError::BadOp(3)));
    assert_eq!(Packet::new(&[1; 300]).err(), Some(PacketError::NoCookie));
}

#[test]
fn long_options_are_split_and_joined() {
    let long: Vec<u8> = (0..600u16).map(|i| i as u8).collect();
    let (bytes, fit) = encoded(&with(vec![DhcpOption::Other(200, &long)]), MAX_MESSAGE);
    assert_eq!(fit, Fit::default());
    let packet = Packet::new(&bytes).unwrap();
    assert_eq!(packet.options().count(), 3);
    assert_eq!(packet.option(200).as_deref(), Some(&long[..]));
}

#[test]
fn what_does_not_fit_moves_to_file_and_sname_and_then_goes() {
    let big = [1u8; 200];
    let (mid, small) = ([2u8; 90], [3u8; 50]);
    let message = with(vec![
        DhcpOption::Other(201, &big),
        DhcpOption::Other(202, &mid),
        DhcpOption::Other(203, &mid),
        DhcpOption::Other(204, &small),
        DhcpOption::Other(205, &mid),
        DhcpOption::Other(code::RELAY_INFO, &[1, 2, 9, 9]),
    ]);
    let (bytes, fit) = encoded(&message, 0);
    assert_eq!(
        fit,
        Fit {
            overloaded: 2,
            dropped: 1
        }
    );
    assert!(bytes.len() <= DEFAULT_LIMIT, "{}", bytes.len());
    let packet = Packet::new(&bytes).unwrap();
    assert_eq!(packet.first(code::OVERLOAD), Some(&[3][..]));
    for (code, value) in [
        (201, &big[..]),
        (202, &mid),
        (203, &mid),
        (204, &small),
        (82, &[1, 2, 9, 9]),
    ] {
        assert_eq!(packet.option(code).as_deref(), Some(value), "option {code}");
    }
    assert_eq!(packet.option(205), None);
    assert_eq!((packet.file(), packet.sname()), (&[][..], &[][..]));
}

#[test]
fn a_boot_file_longer_than_its_field_is_only_in_option_67() {
    let url = format!("http://10.0.0.1/{}", "x".repeat(120));
    let message = Message {
        file: &url,
        ..with(vec![DhcpOption::BootFile(&url)])
    };
    let (bytes, _) = encoded(&message, DEFAULT_LIMIT);
    let packet = Packet::new(&bytes).unwrap();
    assert_eq!(packet.file(), b"");
    assert_eq!(packet.option(code::BOOT_FILE).as_deref(), Some(url.as_bytes()));
}

#[test]
fn user_classes_are_read_in_both_spellings() {
    for data in [&b"iPXE"[..], b"\x04iPXE", b"\x03foo\x04iPXE", b"iPXE\0"] {
        let (bytes, _) = encoded(&with(vec![DhcpOption::Other(code::USER_CLASS, data)]), DEFAULT_LIMIT);
        let packet = Packet::new(&bytes).unwrap();
        assert!(packet.has_user_class("iPXE"), "{data:?}");
        assert!(!packet.has_user_class("PXE"), "{data:?}");
    }
}

#[test]
fn all_architectures_of_the_list_are_seen() {
    let (bytes, _) = encoded(
        &with(vec![DhcpOption::Other(code::ARCH, &[0, 7, 0, 0, 9])]),
        DEFAULT_LIMIT,
    );
    let archs: Vec<_> = Packet::new(&bytes).unwrap().archs().collect();
    assert_eq!(archs, [ClientArch::X64Uefi, ClientArch::X86Bios]);
}

#[test]
fn the_clients_size_is_taken_for_a_datagram_and_kept_within_sense() {
    for (asked, limit) in [(None, 548), (Some(100), 548), (Some(1260), 1232), (Some(65535), 1472)] {
        let (bytes, _) = encoded(
            &with(asked.map(DhcpOption::MaxSize).into_iter().collect()),
            DEFAULT_LIMIT,
        );
        assert_eq!(Packet::new(&bytes).unwrap().size_limit(), limit);
    }
}

/// Touches every accessor.
fn read_all(bytes: &[u8]) {
    let Ok(packet) = Packet::new(bytes) else { return };
    let _ = format!("{packet:?}");
    let _ = (
        packet.mac(),
        packet.client_id(),
        packet.lease_time(),
        packet.server_id(),
        packet.requested_address(),
    );
    let _ = (
        packet.size_limit(),
        packet.has_user_class("iPXE"),
        packet.archs().count(),
        packet.vendor_class(),
    );
    for code in 0..=255 {
        let joined = packet.option(code);
        assert_eq!(joined.is_some(), packet.first(code).is_some());
        let _ = packet.sub_options(code).get(code);
    }
}

fn address() -> impl Strategy<Value = Ipv4Addr> {
    any::<u32>().prop_map(Ipv4Addr::from_bits)
}

proptest! {
    #[test]
    fn arbitrary_octets_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..700)) {
        read_all(&bytes);
    }

    #[test]
    fn damaged_options_never_panic(
        tail in prop::collection::vec(any::<u8>(), 0..400),
        overload in 0u8..4,
        hlen in any::<u8>(),
        fields in prop::collection::vec(any::<u8>(), 192),
    ) {
        let mut bytes = vec![1, 1, hlen, 0];
        bytes.resize(44, 0);
        bytes.extend(fields);
        bytes.extend(COOKIE);
        bytes.extend([code::OVERLOAD, 1, overload]);
        bytes.extend(tail);
        read_all(&bytes);
    }

    #[test]
    fn what_is_written_is_read(
        xid in any::<u32>(),
        broadcast in any::<bool>(),
        addresses in (address(), address(), address(), address()),
        limit in 0usize..2000,
        lease in any::<u32>(),
        file in "[a-z/:.]{0,140}",
        sname in "[a-z.]{0,80}",
        extra in prop::collection::btree_map(100u8..250, prop::collection::vec(any::<u8>(), 1..300), 0..6),
        relay in prop::collection::vec(any::<u8>(), 1..60),
    ) {
        let mut options = vec![DhcpOption::MessageType(MessageType::Ack), DhcpOption::LeaseTime(lease)];
        options.push(DhcpOption::Other(code::RELAY_INFO, &relay));
        options.extend(extra.iter().map(|(code, value)| DhcpOption::Other(*code, value)));
        let count = options.len();
        let message = Message {
            op: Op::Reply, broadcast, ciaddr: addresses.0, yiaddr: addresses.1, siaddr: addresses.2,
            giaddr: addresses.3, file: &file, sname: &sname, options, ..Message::request(xid, MAC)
        };
        let (bytes, fit) = encoded(&message, limit);
        prop_assert!(bytes.len() >= MIN_MESSAGE);
        prop_assert!(bytes.len() <= limit.clamp(DEFAULT_LIMIT, MAX_MESSAGE));
        let packet = Packet::new(&bytes).unwrap();
        prop_assert_eq!((packet.op(), packet.xid(), packet.broadcast()), (Op::Reply, xid, broadcast));
        prop_assert_eq!((packet.ciaddr(), packet.yiaddr(), packet.siaddr(), packet.giaddr()), addresses);
        prop_assert_eq!(packet.message_type(), Some(MessageType::Ack));
        prop_assert_eq!(packet.lease_time(), Some(lease));
        let echoed = packet.option(code::RELAY_INFO);
        prop_assert_eq!(echoed.as_deref(), Some(&relay[..]));
        if !file.is_empty() && file.len() < 128 {
            prop_assert_eq!(packet.file(), file.as_bytes());
        }
        let found = extra.iter().filter(|(code, value)| packet.option(**code).as_deref() == Some(&value[..])).count();
        prop_assert_eq!(found + 3 + usize::from(fit.dropped), count);
    }
}

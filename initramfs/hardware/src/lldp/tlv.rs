//! The TLVs of an LLDP frame's payload (clause 8).

use std::net::{Ipv4Addr, Ipv6Addr};

use rackbar_model::LldpNeighbour;

/// What a neighbour announced.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Announcement {
    /// Who it is.
    pub neighbour: LldpNeighbour,
    /// Seconds this is good for; 0 means the neighbour says goodbye.
    pub ttl: u16,
}

/// Reads a payload, which begins behind the EtherType. `None` unless the three mandatory TLVs (chassis, port, time to
/// live) are there, in this order, as clause 8.2 demands; what cannot be read behind them is left out.
pub fn parse(payload: &[u8]) -> Option<Announcement> {
    let (first, chassis, rest) = take(payload)?;
    let (second, port, rest) = take(rest)?;
    let (third, ttl, mut rest) = take(rest)?;
    let (1, 2, 3) = (first, second, third) else {
        return None;
    };
    let mut announcement = Announcement {
        neighbour: LldpNeighbour {
            chassis_id: identifier(chassis, 4, 5)?,
            port_id: identifier(port, 3, 4)?,
            ..LldpNeighbour::default()
        },
        ttl: u16::from_be_bytes(*ttl.first_chunk()?),
    };
    while let Some((kind, value, tail)) = take(rest) {
        rest = tail;
        let found = &mut announcement.neighbour;
        match kind {
            0 => break,
            4 => found.port_description = text(value),
            5 => found.system_name = text(value),
            6 => found.system_description = text(value),
            // Annex D.2.1: organisation 00-80-c2, subtype 1, port VLAN ID; 0 means none.
            127 => {
                if let [0x00, 0x80, 0xc2, 1, high, low] = *value {
                    found.vlan = Some(u16::from_be_bytes([high, low])).filter(|vlan| *vlan != 0);
                }
            }
            _ => {}
        }
    }
    Some(announcement)
}

/// One TLV off the front: seven bits of type, nine of length.
fn take(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let header = u16::from_be_bytes(*bytes.first_chunk()?);
    let (value, rest) = bytes.get(2..)?.split_at_checked(usize::from(header & 0x1ff))?;
    Some(((header >> 9) as u8, value, rest))
}

/// Chassis and port identifiers: a subtype, then bytes whose meaning it tells (tables 8-2 and 8-3). MAC and network
/// address have different numbers in the two tables.
fn identifier(value: &[u8], mac: u8, network: u8) -> Option<String> {
    let (subtype, value) = value.split_first()?;
    match value {
        [] => None,
        [a, b, c, d, e, f] if *subtype == mac => Some(rackbar_model::MacAddr([*a, *b, *c, *d, *e, *f]).to_string()),
        // The address begins with its IANA family: 1 is IPv4, 2 IPv6.
        [1, a, b, c, d] if *subtype == network => Some(Ipv4Addr::new(*a, *b, *c, *d).to_string()),
        [2, rest @ ..] if *subtype == network => rest
            .first_chunk::<16>()
            .map(|octets| Ipv6Addr::from(*octets).to_string())
            .or_else(|| text(rest)),
        other => text(other),
    }
}

/// Printable text: control characters could play with an operator's terminal.
fn text(value: &[u8]) -> Option<String> {
    let text: String = String::from_utf8_lossy(value)
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
        let mut bytes = (u16::from(kind) << 9 | value.len() as u16).to_be_bytes().to_vec();
        bytes.extend_from_slice(value);
        bytes
    }

    #[test]
    fn a_switch_is_read() {
        let mut frame = tlv(1, b"\x04\x52\x54\x00\xaa\xbb\xcc");
        frame.extend(tlv(2, b"\x05Ethernet1/7"));
        frame.extend(tlv(3, &[0, 120]));
        frame.extend(tlv(4, b"to node-001"));
        frame.extend(tlv(5, b"tor-a"));
        frame.extend(tlv(6, b"Switch\nOS 1.0"));
        frame.extend(tlv(127, b"\x00\x80\xc2\x01\x00\x64"));
        frame.extend(tlv(0, b""));
        frame.extend([0xff; 9]);
        let found = parse(&frame).unwrap();
        assert_eq!(found.ttl, 120);
        assert_eq!(found.neighbour.chassis_id, "52:54:00:aa:bb:cc");
        assert_eq!(found.neighbour.port_id, "Ethernet1/7");
        assert_eq!(found.neighbour.system_description.as_deref(), Some("Switch OS 1.0"));
        assert_eq!(found.neighbour.vlan, Some(100));
    }

    #[test]
    fn a_frame_without_its_mandatory_parts_is_refused() {
        assert_eq!(parse(&tlv(1, b"\x07x")), None);
        let mut wrong_order = tlv(2, b"\x05p");
        wrong_order.extend(tlv(1, b"\x07x"));
        wrong_order.extend(tlv(3, &[0, 1]));
        assert_eq!(parse(&wrong_order), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes: Vec<u8>, tlvs in prop::collection::vec((0u8..128, prop::collection::vec(any::<u8>(), 0..20)), 0..6)) {
            let _ = parse(&bytes);
            let mut frame = tlv(1, b"\x07x");
            frame.extend(tlv(2, b"\x07y"));
            frame.extend(tlv(3, &[0, 1]));
            frame.extend(tlvs.iter().flat_map(|(kind, value)| tlv(*kind, value)));
            prop_assert!(parse(&frame).is_some());
        }
    }
}

//! BPDUs (IEEE 802.1D-2004, clause 9): does spanning tree run on the port, how long does it hold a link, does it now.

use rackbar_model::PortSays;

/// LLC of bridge protocols, and of Cisco's per-VLAN spanning tree behind SNAP, which trunks carry.
const HEADS: [&[u8]; 2] = [&[0x42, 0x42, 0x03], &[0xaa, 0xaa, 0x03, 0x00, 0x00, 0x0c, 0x01, 0x0b]];
/// Offsets from the protocol identifier (tables 9-1 and 9-3).
const FLAGS: usize = 4;
const FORWARD_DELAY: usize = 33;
const FORWARDING: u8 = 1 << 5;

/// Reads a payload, which begins with the LLC header. `None` for anything but a configuration or a rapid BPDU.
pub fn parse(payload: &[u8]) -> Option<PortSays> {
    let body = HEADS.iter().find_map(|head| payload.strip_prefix(*head))?;
    // Protocol 0; a configuration BPDU of any version, a rapid or multiple one.
    let rapid = match *body.first_chunk()? {
        [0, 0, _, 0x00] => false,
        [0, 0, 2..=u8::MAX, 0x02] => true,
        _ => return None,
    };
    let flags = *body.get(FLAGS)?;
    let delay = u16::from_be_bytes(*body.get(FORWARD_DELAY..)?.first_chunk()?);
    Some(PortSays::SpanningTree {
        rapid,
        // In 1/256 s (9.2.8).
        forward_delay_millis: u32::from(delay) * 1000 / 256,
        forwards: rapid.then_some(flags & FORWARDING != 0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bpdu(version: u8, kind: u8, flags: u8) -> Vec<u8> {
        let mut bytes = vec![0x42, 0x42, 0x03, 0, 0, version, kind, flags];
        let bridge = [0x80, 0, 2, 0, 0, 0, 0, 1];
        bytes.extend_from_slice(&bridge);
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&bridge);
        bytes.extend_from_slice(&[0x80, 1, 0, 0, 20, 0, 2, 0, 15, 0]);
        bytes.resize(46, 0);
        bytes
    }

    #[test]
    fn spanning_tree_is_told_with_its_delay_and_state() {
        let says = |rapid, forwards| {
            Some(PortSays::SpanningTree {
                rapid,
                forward_delay_millis: 15_000,
                forwards,
            })
        };
        assert_eq!(parse(&bpdu(0, 0, 0)), says(false, None));
        assert_eq!(parse(&bpdu(2, 2, 0x0e)), says(true, Some(false)));
        assert_eq!(parse(&bpdu(3, 2, 0x3c)), says(true, Some(true)));
        let mut cisco = HEADS[1].to_vec();
        cisco.extend_from_slice(&bpdu(2, 2, 0x3c)[3..]);
        assert_eq!(parse(&cisco), says(true, Some(true)));
        // A topology change notification, another protocol behind LLC, and what is cut short.
        assert_eq!(parse(&bpdu(0, 0x80, 0)), None);
        assert_eq!(parse(&[0xe0, 0xe0, 0x03, 0, 0]), None);
        assert!((0..38).all(|length| parse(&bpdu(0, 0, 0)[..length]).is_none()));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(head in 0usize..3, tail: Vec<u8>) {
            let head = HEADS.get(head).copied().unwrap_or_default();
            let _ = parse(&[head, &tail].concat());
        }
    }
}

//! LACPDUs (IEEE 802.1AX-2020, 6.4.2.3): is the port one of a bundle, and does it carry anything for us, who do not
//! answer.

use rackbar_model::PortSays;

/// Subtype LACP; the Actor Information TLV follows the version and has its length.
const LACP: u8 = 1;
const ACTOR: [u8; 2] = [1, 20];
const ACTOR_STATE: usize = 18;
const COLLECTING_AND_DISTRIBUTING: u8 = 0b11 << 4;

/// Reads a payload, which begins with the slow protocols' subtype. `None` for anything but an LACPDU.
pub fn parse(payload: &[u8]) -> Option<PortSays> {
    if *payload.first()? != LACP || payload.get(2..4)? != ACTOR {
        return None;
    }
    let state = *payload.get(ACTOR_STATE)?;
    Some(PortSays::Lacp {
        forwards: state & COLLECTING_AND_DISTRIBUTING == COLLECTING_AND_DISTRIBUTING,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_bundle_is_told_with_whether_it_falls_back() {
        let mut pdu = vec![1, 1, 1, 20, 0x80, 0, 2, 0, 0, 0, 0, 1, 0, 7, 0x80, 0, 0, 3, 0x45];
        assert_eq!(parse(&pdu), Some(PortSays::Lacp { forwards: false }));
        pdu[ACTOR_STATE] = 0x75;
        assert_eq!(parse(&pdu), Some(PortSays::Lacp { forwards: true }));
        assert!((0..ACTOR_STATE).all(|length| parse(&pdu[..length]).is_none()));
        // The marker protocol.
        pdu[0] = 2;
        assert_eq!(parse(&pdu), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(tail: Vec<u8>, head: bool) {
            let head: &[u8] = if head { &[1, 1, 1, 20] } else { &[] };
            let _ = parse(&[head, &tail].concat());
        }
    }
}

//! LACPDUs (IEEE 802.1AX-2020, 6.4.2.3): what two ends of a link tell each other of themselves and of what they know of
//! the other.

/// The slow protocols group address (802.1AX-2020, annex A).
pub(super) const DESTINATION: [u8; 6] = [0x01, 0x80, 0xc2, 0x00, 0x00, 0x02];
const ETHERTYPE: [u8; 2] = [0x88, 0x09];
/// Subtype LACP, version 1.
const LACP: [u8; 2] = [1, 1];
/// Length of the protocol data from the subtype on.
const LENGTH: usize = 110;

/// Bits of Actor_State and Partner_State (6.4.2.3 l).
pub(super) mod state {
    pub const ACTIVITY: u8 = 1 << 0;
    pub const TIMEOUT: u8 = 1 << 1;
    pub const AGGREGATION: u8 = 1 << 2;
    pub const SYNCHRONIZATION: u8 = 1 << 3;
    pub const COLLECTING: u8 = 1 << 4;
    pub const DISTRIBUTING: u8 = 1 << 5;
    pub const DEFAULTED: u8 = 1 << 6;
    pub const EXPIRED: u8 = 1 << 7;
}

/// One end of a link.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct End {
    pub(super) system_priority: u16,
    pub(super) system: [u8; 6],
    pub(super) key: u16,
    pub(super) port_priority: u16,
    pub(super) port: u16,
    pub(super) state: u8,
}

impl End {
    pub(super) fn has(&self, bit: u8) -> bool {
        self.state & bit != 0
    }

    /// Sets or clears a bit of the state.
    pub(super) fn set(&mut self, bit: u8, value: bool) {
        self.state = if value { self.state | bit } else { self.state & !bit };
    }

    /// What must be equal for two links to lead to the same aggregation (6.3.6).
    pub(super) fn aggregation(&self) -> (u16, [u8; 6], u16) {
        (self.system_priority, self.system, self.key)
    }

    fn parse(value: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u16::from_be_bytes(*value.get(at..)?.first_chunk()?));
        Some(Self {
            system_priority: word(0)?,
            system: *value.get(2..)?.first_chunk()?,
            key: word(8)?,
            port_priority: word(10)?,
            port: word(12)?,
            state: *value.get(14)?,
        })
    }

    /// The Actor (`kind` 1) or Partner (2) Information TLV.
    fn append(&self, out: &mut Vec<u8>, kind: u8) {
        out.extend_from_slice(&[kind, 20]);
        out.extend_from_slice(&self.system_priority.to_be_bytes());
        out.extend_from_slice(&self.system);
        for word in [self.key, self.port_priority, self.port] {
            out.extend_from_slice(&word.to_be_bytes());
        }
        out.extend_from_slice(&[self.state, 0, 0, 0]);
    }
}

/// An LACPDU.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Pdu {
    /// Who sends it.
    pub(super) actor: End,
    /// What they know of who reads it.
    pub(super) partner: End,
}

impl Pdu {
    /// Reads a frame; `None` for anything but an LACPDU. The version is not checked: a later one keeps these TLVs in
    /// their place (6.4.2.4).
    pub(super) fn parse(frame: &[u8]) -> Option<Self> {
        if frame.get(..6)? != DESTINATION || frame.get(12..14)? != ETHERTYPE {
            return None;
        }
        let body = frame.get(14..)?;
        if *body.first()? != LACP[0] || body.get(2..4)? != [1, 20] || body.get(22..24)? != [2, 20] {
            return None;
        }
        Some(Self {
            actor: End::parse(body.get(4..)?)?,
            partner: End::parse(body.get(24..)?)?,
        })
    }

    /// The frame from a port's own address.
    pub(super) fn frame(&self, source: [u8; 6], max_delay: u16) -> Vec<u8> {
        let mut out = [&DESTINATION[..], &source, &ETHERTYPE, &LACP].concat();
        self.actor.append(&mut out, 1);
        self.partner.append(&mut out, 2);
        // Collector Information: how long a frame may wait before the client gets it, in tens of microseconds.
        out.extend_from_slice(&[3, 16]);
        out.extend_from_slice(&max_delay.to_be_bytes());
        // Twelve reserved octets, the Terminator TLV, and fifty more.
        out.resize(14 + LENGTH, 0);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_pdu_is_what_the_standard_draws() {
        let end = |system: u8, port: u16, state: u8| End {
            system_priority: 0x8000,
            system: [2, 0, 0, 0, 0, system],
            key: 7,
            port_priority: 0xff,
            port,
            state,
        };
        let pdu = Pdu {
            actor: end(1, 3, 0x3d),
            partner: end(2, 4, 0x05),
        };
        let frame = pdu.frame([2, 0, 0, 0, 0, 9], 0);
        let mut expected = vec![1, 0x80, 0xc2, 0, 0, 2, 2, 0, 0, 0, 0, 9, 0x88, 0x09, 1, 1];
        expected.extend_from_slice(&[1, 20, 0x80, 0, 2, 0, 0, 0, 0, 1, 0, 7, 0, 0xff, 0, 3, 0x3d, 0, 0, 0]);
        expected.extend_from_slice(&[2, 20, 0x80, 0, 2, 0, 0, 0, 0, 2, 0, 7, 0, 0xff, 0, 4, 0x05, 0, 0, 0]);
        expected.extend_from_slice(&[3, 16]);
        expected.resize(124, 0);
        assert_eq!(frame, expected);
        assert_eq!(Pdu::parse(&frame), Some(pdu));
        assert!(
            (0..53).all(|length| Pdu::parse(&frame[..length]).is_none()),
            "cut short"
        );
        for (at, value) in [(5, 3), (12, 0), (14, 2), (16, 9), (36, 1)] {
            let mut other = frame.clone();
            other[at] = value;
            assert_eq!(Pdu::parse(&other), None, "octet {at}");
        }
    }

    proptest! {
        #[test]
        fn no_frame_makes_it_panic(tail in prop::collection::vec(any::<u8>(), 0..120)) {
            let _ = Pdu::parse(&tail);
            let _ = Pdu::parse(&[&DESTINATION[..], &[0; 6], &ETHERTYPE, &LACP, &[1, 20], &tail].concat());
        }
    }
}

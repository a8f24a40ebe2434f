//! The session header around every IPMI packet: the short one of IPMI 1.5, used before a session exists, and that of
//! RMCP+ with encryption and an integrity trailer (sections 13.6 and 13.28.4).

use crate::crypto::SessionKeys;
use crate::read::{Malformed, Reader};
use crate::rmcp::{self, Class};

const AUTH_NONE: u8 = 0x00;
const AUTH_RMCP_PLUS: u8 = 0x06;
const ENCRYPTED: u8 = 0x80;
const AUTHENTICATED: u8 = 0x40;
/// The "next header" byte that ends the integrity pad.
const NEXT_HEADER: u8 = 0x07;

/// Payload types (table 13-16).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PayloadType(pub u8);

impl PayloadType {
    /// An IPMI message.
    pub const IPMI: Self = Self(0x00);
    /// Serial over LAN.
    pub const SOL: Self = Self(0x01);
    /// Open session request.
    pub const OPEN_REQUEST: Self = Self(0x10);
    /// Open session response.
    pub const OPEN_RESPONSE: Self = Self(0x11);
    /// RAKP message 1.
    pub const RAKP1: Self = Self(0x12);
    /// RAKP message 2.
    pub const RAKP2: Self = Self(0x13);
    /// RAKP message 3.
    pub const RAKP3: Self = Self(0x14);
    /// RAKP message 4.
    pub const RAKP4: Self = Self(0x15);
}

/// A packet as it arrived.
#[derive(Clone, Debug)]
pub enum Packet<'a> {
    /// IPMI 1.5 format without authentication: discovery of what the BMC can do.
    V15 {
        /// The IPMI message.
        payload: &'a [u8],
    },
    /// RMCP+ outside any session: open session and RAKP.
    Plain {
        /// What the payload is.
        kind: PayloadType,
        /// The payload.
        payload: &'a [u8],
    },
    /// RMCP+ inside a session, not checked yet.
    Sealed(Sealed<'a>),
}

/// A packet of a session whose integrity is not checked yet.
#[derive(Clone, Debug)]
pub struct Sealed<'a> {
    /// The receiver's session ID.
    pub session: u32,
    flags: u8,
    kind: PayloadType,
    sequence: u32,
    payload: &'a [u8],
    /// From the authentication type to the end of the packet.
    whole: &'a [u8],
}

/// The content of a packet whose integrity was checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Opened {
    /// Session sequence number, still to be shown to a [`crate::Window`].
    pub sequence: u32,
    /// What the payload is.
    pub kind: PayloadType,
    /// The payload in the clear.
    pub payload: Vec<u8>,
}

impl<'a> Packet<'a> {
    /// Reads what follows the RMCP header.
    ///
    /// # Errors
    /// When it is neither unauthenticated IPMI 1.5 nor RMCP+, or cut short.
    pub fn parse(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new("IPMI session header (13.6)", body);
        match reader.u8()? {
            AUTH_NONE => {
                let _sequence = reader.u32()?;
                let _session = reader.u32()?;
                let length = reader.u8()?;
                Ok(Self::V15 {
                    payload: reader.bytes(usize::from(length))?,
                })
            }
            AUTH_RMCP_PLUS => {
                let kind = reader.u8()?;
                if kind & 0x3f == 0x02 {
                    return Err(reader.bad("OEM payload"));
                }
                let session = reader.u32()?;
                let sequence = reader.u32()?;
                let length = reader.u16()?;
                let payload = reader.bytes(usize::from(length))?;
                let (flags, kind) = (kind & (ENCRYPTED | AUTHENTICATED), PayloadType(kind & 0x3f));
                if session == 0 {
                    return if flags == 0 {
                        Ok(Self::Plain { kind, payload })
                    } else {
                        Err(reader.bad("no session"))
                    };
                }
                Ok(Self::Sealed(Sealed {
                    session,
                    flags,
                    kind,
                    sequence,
                    payload,
                    whole: body,
                }))
            }
            _ => Err(reader.bad("IPMI 1.5 authentication; only RMCP+ sessions are spoken")),
        }
    }
}

impl Sealed<'_> {
    /// Checks integrity, then decrypts.
    ///
    /// # Errors
    /// When the packet is not both authenticated and encrypted (both suites demand it), its code does not match, or
    /// the ciphertext is not sound.
    pub fn open(&self, keys: &SessionKeys) -> Result<Opened, Malformed> {
        let bad = |why| Malformed {
            what: "RMCP+ packet (13.28)",
            why,
        };
        if self.flags != ENCRYPTED | AUTHENTICATED {
            return Err(bad("not encrypted and authenticated"));
        }
        let split = self
            .whole
            .len()
            .checked_sub(keys.suite().code_len())
            .ok_or(bad("no room for its code"))?;
        let (signed, code) = self.whole.split_at_checked(split).ok_or(bad("no room for its code"))?;
        if signed.len() < 12 + self.payload.len() + 2 {
            return Err(bad("no integrity trailer"));
        }
        if !keys.check(signed, code) {
            return Err(bad("authentication code"));
        }
        let payload = keys.decrypt(self.payload).ok_or(bad("ciphertext"))?;
        Ok(Opened {
            sequence: self.sequence,
            kind: self.kind,
            payload,
        })
    }
}

/// A whole datagram in IPMI 1.5 format, outside any session.
pub fn seal_v15(payload: &[u8]) -> Vec<u8> {
    let mut out = rmcp::header(Class::Ipmi).to_vec();
    out.extend_from_slice(&[
        AUTH_NONE,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        u8::try_from(payload.len()).unwrap_or(u8::MAX),
    ]);
    out.extend(payload.iter().take(usize::from(u8::MAX)));
    out
}

/// A whole datagram of RMCP+ outside any session.
pub fn seal_plain(kind: PayloadType, payload: &[u8]) -> Vec<u8> {
    let mut out = rmcp::header(Class::Ipmi).to_vec();
    push_header(&mut out, kind.0, 0, 0, payload);
    out
}

fn push_header(out: &mut Vec<u8>, kind: u8, session: u32, sequence: u32, payload: &[u8]) {
    out.extend_from_slice(&[AUTH_RMCP_PLUS, kind]);
    out.extend_from_slice(&session.to_le_bytes());
    out.extend_from_slice(&sequence.to_le_bytes());
    out.extend_from_slice(&u16::try_from(payload.len()).unwrap_or(u16::MAX).to_le_bytes());
    out.extend(payload.iter().take(usize::from(u16::MAX)));
}

/// A whole datagram inside a session: encrypted with `iv`, which must never repeat under the same keys, and signed.
pub(crate) fn seal(
    keys: &SessionKeys,
    iv: [u8; 16],
    session: u32,
    sequence: u32,
    kind: PayloadType,
    payload: &[u8],
) -> Vec<u8> {
    let mut body = Vec::with_capacity(payload.len() + 80);
    let kind = kind.0 | ENCRYPTED | AUTHENTICATED;
    push_header(&mut body, kind, session, sequence, &keys.encrypt(iv, payload));
    // What is signed, from the authentication type to the next header, is a multiple of four bytes.
    let pad = (4 - (body.len() + 2) % 4) % 4;
    body.extend(core::iter::repeat_n(0xff, pad));
    body.extend_from_slice(&[pad as u8, NEXT_HEADER]);
    let code = keys.code(&body);
    let mut out = rmcp::header(Class::Ipmi).to_vec();
    out.extend_from_slice(&body);
    out.extend_from_slice(&code);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rakp::Role;
    use crate::{CipherSuite, Privilege, Secret};
    use proptest::prelude::*;

    fn keys(suite: CipherSuite) -> SessionKeys {
        let secret = Secret::new(b"password").unwrap();
        SessionKeys::derive(
            suite,
            &secret,
            &[1; 16],
            &[2; 16],
            Role::named(Privilege::Administrator),
            b"admin",
        )
    }

    fn open(datagram: &[u8], keys: &SessionKeys) -> Option<Opened> {
        let (_, body) = rmcp::open(datagram).ok()?;
        match Packet::parse(body).ok()? {
            Packet::Sealed(sealed) => sealed.open(keys).ok(),
            _ => None,
        }
    }

    #[test]
    fn any_flipped_bit_closes_it() {
        for suite in [CipherSuite::Three, CipherSuite::Seventeen] {
            let keys = keys(suite);
            let good = seal(&keys, [7; 16], 0x1122_3344, 5, PayloadType::IPMI, b"hello");
            assert_eq!(open(&good, &keys).unwrap().payload, b"hello");
            for bit in 32..good.len() * 8 {
                let mut bad = good.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(open(&bad, &keys), None, "bit {bit}");
            }
        }
    }

    #[test]
    fn plain_packets_do_not_pass_for_sealed_ones() {
        let keys = keys(CipherSuite::Seventeen);
        let mut plain = rmcp::header(Class::Ipmi).to_vec();
        push_header(&mut plain, 0, 77, 1, b"reset");
        assert_eq!(open(&plain, &keys), None);
    }

    proptest! {
        #[test]
        fn opens_what_it_seals(payload in proptest::collection::vec(any::<u8>(), 0..200), session in 1u32.., sequence: u32) {
            let keys = keys(CipherSuite::Seventeen);
            let packet = seal(&keys, [9; 16], session, sequence, PayloadType::SOL, &payload);
            prop_assert_eq!(open(&packet, &keys), Some(Opened { sequence, kind: PayloadType::SOL, payload }));
        }

        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..96)) {
            if let Ok(Packet::Sealed(sealed)) = Packet::parse(&bytes) {
                let _ = sealed.open(&keys(CipherSuite::Three));
            }
            let mut rmcp_plus = vec![6, 0xc0];
            rmcp_plus.extend(bytes);
            if let Ok(Packet::Sealed(sealed)) = Packet::parse(&rmcp_plus) {
                let _ = sealed.open(&keys(CipherSuite::Three));
            }
        }
    }
}

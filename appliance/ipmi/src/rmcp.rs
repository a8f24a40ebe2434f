//! RMCP headers and the ASF presence ping (DSP0136 sections 3.2.2 to 3.2.4; IPMI section 13.2).
//!
//! A presence ping finds management controllers without a password: every IPMI BMC on a LAN must answer it.

use crate::read::{Malformed, Reader};

/// RMCP version 1.0.
const VERSION: u8 = 0x06;
/// No RMCP acknowledge wanted; IPMI never uses them.
const NO_ACK: u8 = 0xff;
/// The IANA enterprise number of ASF, which pings carry.
const ASF_IANA: [u8; 4] = 4542u32.to_be_bytes();
const PING: u8 = 0x80;
const PONG: u8 = 0x40;

/// Message classes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// Alert Standard Format: ping and pong.
    Asf,
    /// IPMI.
    Ipmi,
}

/// Puts an RMCP header in front.
pub(crate) fn header(class: Class) -> [u8; 4] {
    [VERSION, 0, NO_ACK, if class == Class::Asf { 0x06 } else { 0x07 }]
}

/// Splits a datagram into its class and the rest.
///
/// # Errors
/// When it is not RMCP 1.0 or of a class nobody here speaks (acknowledges included).
pub fn open(datagram: &[u8]) -> Result<(Class, &[u8]), Malformed> {
    let mut reader = Reader::new("RMCP header (DSP0136 3.2.2)", datagram);
    let [version, _reserved, _sequence, class] = reader.array()?;
    if version != VERSION {
        return Err(reader.bad("version is not 1.0"));
    }
    match class {
        0x06 => Ok((Class::Asf, reader.rest())),
        0x07 => Ok((Class::Ipmi, reader.rest())),
        _ => Err(reader.bad("class is neither ASF nor IPMI")),
    }
}

/// A presence ping with this tag (0 to 254; 255 would say that no answer is wanted).
pub fn ping(tag: u8) -> Vec<u8> {
    let mut out = header(Class::Asf).to_vec();
    out.extend_from_slice(&ASF_IANA);
    out.extend_from_slice(&[PING, tag, 0, 0]);
    out
}

/// The answer to a ping: IPMI and ASF 1.0 are supported.
pub fn pong(tag: u8) -> Vec<u8> {
    let mut out = header(Class::Asf).to_vec();
    out.extend_from_slice(&ASF_IANA);
    out.extend_from_slice(&[PONG, tag, 0, 16]);
    out.extend_from_slice(&ASF_IANA);
    // OEM-defined, supported entities (bit 7: IPMI), supported interactions, reserved.
    out.extend_from_slice(&[0, 0, 0, 0, 0x81, 0, 0, 0, 0, 0, 0, 0]);
    out
}

/// What an ASF message says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Asf {
    /// A ping.
    Ping {
        /// To be repeated in the pong.
        tag: u8,
    },
    /// A pong.
    Pong {
        /// The tag of the ping.
        tag: u8,
        /// The controller speaks IPMI.
        ipmi: bool,
    },
}

/// Reads the body of an ASF message.
///
/// # Errors
/// When it is neither ping nor pong.
pub fn asf(body: &[u8]) -> Result<Asf, Malformed> {
    let mut reader = Reader::new("ASF message (DSP0136 3.2.4)", body);
    if reader.array()? != ASF_IANA {
        return Err(reader.bad("enterprise number is not ASF's"));
    }
    let [kind, tag, _reserved, length] = reader.array()?;
    match kind {
        PING => Ok(Asf::Ping { tag }),
        PONG => {
            let data = reader.bytes(usize::from(length))?;
            // Some controllers send a pong without data; they answered on the RMCP port, and that is the question.
            Ok(Asf::Pong {
                tag,
                ipmi: data.get(8).is_none_or(|b| b & 0x80 != 0),
            })
        }
        _ => Err(reader.bad("neither ping nor pong")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ping_and_pong_have_the_bytes_of_the_standard() {
        assert_eq!(ping(5), [6, 0, 0xff, 6, 0, 0, 0x11, 0xbe, 0x80, 5, 0, 0]);
        let (class, body) = open(&pong(5)).map(|(c, b)| (c, b.to_vec())).unwrap();
        assert_eq!((class, body.len()), (Class::Asf, 24));
        assert_eq!(asf(&body), Ok(Asf::Pong { tag: 5, ipmi: true }));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok((_, body)) = open(&bytes) {
                let _ = asf(body);
            }
        }
    }
}

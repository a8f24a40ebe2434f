//! IPMI messages: a network function, a command, data; and their IPMB-like wrapping on a LAN (section 13.8).

use core::fmt;

use crate::read::{Malformed, Reader};

/// The BMC's slave address, as it stands in LAN messages.
pub const BMC_ADDRESS: u8 = 0x20;
/// The software ID of a remote console (section 5.5: 81h to 8Dh).
pub const CONSOLE_ADDRESS: u8 = 0x81;

/// Network functions (section 5.1), as the even number of requests.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct NetFn(pub u8);

impl NetFn {
    /// Chassis.
    pub const CHASSIS: Self = Self(0x00);
    /// Sensors and events.
    pub const SENSOR: Self = Self(0x04);
    /// Application: device, sessions, users, channels.
    pub const APP: Self = Self(0x06);
    /// Non-volatile storage: FRU, SDR, SEL.
    pub const STORAGE: Self = Self(0x0a);
    /// LAN and serial configuration.
    pub const TRANSPORT: Self = Self(0x0c);
}

/// A request, as KCS and LAN carry it alike.
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    /// Network function (even).
    pub netfn: NetFn,
    /// Logical unit; nearly always 0.
    pub lun: u8,
    /// Command.
    pub command: u8,
    /// Data.
    pub data: Vec<u8>,
}

// The data of Set User Password is a password: bodies stay out of logs.
impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Request({:#04x}/{:#04x}, {} bytes)",
            self.netfn.0,
            self.command,
            self.data.len()
        )
    }
}

impl Request {
    /// A request to logical unit 0.
    pub fn new(netfn: NetFn, command: u8, data: impl Into<Vec<u8>>) -> Self {
        Self {
            netfn,
            lun: 0,
            command,
            data: data.into(),
        }
    }

    /// The body of a KCS write transfer (section 9.2).
    pub fn to_kcs(&self) -> Vec<u8> {
        let mut out = vec![self.netfn.0 << 2 | self.lun & 3, self.command];
        out.extend_from_slice(&self.data);
        out
    }

    /// Reads the body of a KCS write transfer.
    ///
    /// # Errors
    /// When it is shorter than two bytes or carries an odd (answer) network function.
    pub fn from_kcs(body: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new("KCS request (9.2)", body);
        let [first, command] = reader.array()?;
        if first >> 2 & 1 != 0 {
            return Err(reader.bad("network function of an answer"));
        }
        Ok(Self {
            netfn: NetFn(first >> 2),
            lun: first & 3,
            command,
            data: reader.rest().to_vec(),
        })
    }

    /// An answer to this request.
    pub fn answer(&self, completion: Completion, data: impl Into<Vec<u8>>) -> Response {
        Response {
            netfn: self.netfn,
            lun: self.lun,
            command: self.command,
            completion,
            data: data.into(),
        }
    }
}

/// An answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Response {
    /// Network function of the request (even).
    pub netfn: NetFn,
    /// Logical unit.
    pub lun: u8,
    /// Command.
    pub command: u8,
    /// Completion code.
    pub completion: Completion,
    /// Data; usually empty unless the code is [`Completion::OK`].
    pub data: Vec<u8>,
}

impl Response {
    /// The body of a KCS read transfer (section 9.3).
    pub fn to_kcs(&self) -> Vec<u8> {
        let mut out = vec![(self.netfn.0 | 1) << 2 | self.lun & 3, self.command, self.completion.0];
        out.extend_from_slice(&self.data);
        out
    }

    /// Reads the body of a KCS read transfer.
    ///
    /// # Errors
    /// When it is shorter than three bytes or carries an even (request) network function.
    pub fn from_kcs(body: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new("KCS answer (9.3)", body);
        let [first, command, code] = reader.array()?;
        if first >> 2 & 1 == 0 {
            return Err(reader.bad("network function of a request"));
        }
        Ok(Self {
            netfn: NetFn(first >> 2 & !1),
            lun: first & 3,
            command,
            completion: Completion(code),
            data: reader.rest().to_vec(),
        })
    }
}

/// Completion codes (section 5.2).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Completion(pub u8);

impl Completion {
    /// Done.
    pub const OK: Self = Self(0x00);
    /// Parameter not supported (Get/Set of LAN and boot parameters).
    pub const PARAMETER_UNSUPPORTED: Self = Self(0x80);
    /// Node busy: try again.
    pub const BUSY: Self = Self(0xc0);
    /// Unknown command.
    pub const INVALID_COMMAND: Self = Self(0xc1);
    /// Time-out while the command was carried out.
    pub const TIMEOUT: Self = Self(0xc3);
    /// Request data truncated or of the wrong length.
    pub const LENGTH: Self = Self(0xc7);
    /// Parameter out of range.
    pub const RANGE: Self = Self(0xc9);
    /// Requested sensor, data or record not present.
    pub const NOT_PRESENT: Self = Self(0xcb);
    /// Invalid data field.
    pub const INVALID_FIELD: Self = Self(0xcc);
    /// Insufficient privilege.
    pub const PRIVILEGE: Self = Self(0xd4);
    /// Not possible in the present state.
    pub const STATE: Self = Self(0xd5);
    /// Unspecified error.
    pub const UNSPECIFIED: Self = Self(0xff);

    /// What the code says (section 5.2, table 5-2); command-specific codes (80h to BEh) only by number.
    pub const fn meaning(self) -> &'static str {
        match self.0 {
            0x00 => "done",
            0x80..=0xbe => "command-specific error",
            0xc0 => "node busy",
            0xc1 => "unknown command",
            0xc2 => "command not supported for this logical unit",
            0xc3 => "time-out while carrying the command out",
            0xc4 => "out of space",
            0xc5 => "reservation cancelled",
            0xc6 => "request data truncated",
            0xc7 => "request data length invalid",
            0xc8 => "request data too long",
            0xc9 => "parameter out of range",
            0xca => "cannot return that many bytes",
            0xcb => "not present",
            0xcc => "invalid data field",
            0xcd => "command illegal for this sensor or record",
            0xce => "no answer could be given",
            0xcf => "duplicated request",
            0xd0 => "SDR repository is being updated",
            0xd1 => "firmware is being updated",
            0xd2 => "BMC initialisation in progress",
            0xd3 => "destination unavailable",
            0xd4 => "insufficient privilege, or disabled by a firewall",
            0xd5 => "not possible in the present state",
            0xd6 => "sub-function disabled",
            _ => "unspecified error",
        }
    }
}

impl fmt::Debug for Completion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#04x}", self.0)
    }
}

impl fmt::Display for Completion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (completion code {:#04x})", self.meaning(), self.0)
    }
}

/// A message on a LAN: request or answer with addresses, sequence number and two checksums.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LanMessage {
    /// From console to BMC.
    Request {
        /// Sequence number, 0 to 63.
        sequence: u8,
        /// Address of the console.
        from: u8,
        /// The request.
        request: Request,
    },
    /// From BMC to console.
    Response {
        /// Sequence number of the request.
        sequence: u8,
        /// Address of the console.
        to: u8,
        /// The answer.
        response: Response,
    },
}

impl LanMessage {
    /// The bytes on the wire.
    pub fn encode(&self) -> Vec<u8> {
        let (to, netfn, lun, from, sequence, command) = match self {
            Self::Request {
                sequence,
                from,
                request,
            } => (
                BMC_ADDRESS,
                request.netfn.0,
                request.lun,
                *from,
                *sequence,
                request.command,
            ),
            Self::Response { sequence, to, response } => (
                *to,
                response.netfn.0 | 1,
                response.lun,
                BMC_ADDRESS,
                *sequence,
                response.command,
            ),
        };
        let mut out = vec![to, netfn << 2 | lun & 3];
        out.push(checksum(&out));
        out.extend_from_slice(&[from, sequence << 2, command]);
        match self {
            Self::Request { request, .. } => out.extend_from_slice(&request.data),
            Self::Response { response, .. } => {
                out.push(response.completion.0);
                out.extend_from_slice(&response.data);
            }
        }
        out.push(checksum(out.get(3..).unwrap_or_default()));
        out
    }

    /// Reads a message.
    ///
    /// # Errors
    /// When it is short or a checksum is wrong.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new("LAN message (13.8)", bytes);
        let head: [u8; 3] = reader.array()?;
        let body = reader.rest();
        let [from, sequence, command] = reader.array()?;
        if sum(&head) != 0 || sum(body) != 0 {
            return Err(reader.bad("checksum"));
        }
        let (_, mut data) = reader.rest().split_last().ok_or(reader.bad("too short"))?;
        let [to, netfn, _] = head;
        let (netfn, lun, sequence) = (netfn >> 2, netfn & 3, sequence >> 2);
        if netfn & 1 == 0 {
            let request = Request {
                netfn: NetFn(netfn),
                lun,
                command,
                data: data.to_vec(),
            };
            return Ok(Self::Request {
                sequence,
                from,
                request,
            });
        }
        let code = data
            .split_off_first()
            .ok_or(reader.bad("answer without completion code"))?;
        let response = Response {
            netfn: NetFn(netfn & !1),
            lun,
            command,
            completion: Completion(*code),
            data: data.to_vec(),
        };
        Ok(Self::Response { sequence, to, response })
    }
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, &b| sum.wrapping_add(b))
}

/// The two's complement of the sum: all bytes with their checksum add up to zero.
fn checksum(bytes: &[u8]) -> u8 {
    sum(bytes).wrapping_neg()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn has_the_bytes_ipmitool_sends() {
        // Get Channel Authentication Capabilities, as ipmitool 1.8.19 writes it.
        let message = LanMessage::Request {
            sequence: 0,
            from: CONSOLE_ADDRESS,
            request: Request::new(NetFn::APP, 0x38, [0x8e, 0x04]),
        };
        assert_eq!(message.encode(), [0x20, 0x18, 0xc8, 0x81, 0x00, 0x38, 0x8e, 0x04, 0xb5]);
    }

    #[test]
    fn a_flipped_bit_is_noticed() {
        let message = LanMessage::Request {
            sequence: 9,
            from: 0x81,
            request: Request::new(NetFn::CHASSIS, 1, []),
        };
        let good = message.encode();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(LanMessage::decode(&bad).is_err(), "bit {bit}");
        }
    }

    proptest! {
        #[test]
        fn reads_what_it_writes(netfn in 0u8..32, lun in 0u8..4, command: u8, code: u8, sequence in 0u8..64,
                                data in proptest::collection::vec(any::<u8>(), 0..40)) {
            let request = Request { netfn: NetFn(netfn << 1 & 0x3e), lun, command, data };
            prop_assert_eq!(Request::from_kcs(&request.to_kcs()), Ok(request.clone()));
            let response = request.answer(Completion(code), request.data.clone());
            prop_assert_eq!(Response::from_kcs(&response.to_kcs()), Ok(response.clone()));
            for message in [
                LanMessage::Request { sequence, from: 0x81, request },
                LanMessage::Response { sequence, to: 0x81, response },
            ] {
                prop_assert_eq!(LanMessage::decode(&message.encode()), Ok(message));
            }
        }

        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = LanMessage::decode(&bytes);
            let _ = Request::from_kcs(&bytes);
            let _ = Response::from_kcs(&bytes);
        }
    }
}

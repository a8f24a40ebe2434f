//! How a session comes about: open session and the four messages of the Remote Authenticated Key-Exchange Protocol
//! (sections 13.17 to 13.24).
//!
//! ```text
//!  console                         BMC
//!     │── open session request ────▶│   algorithms wanted, the console's session ID
//!     │◀── open session response ───│   algorithms taken, the BMC's session ID
//!     │── RAKP 1: Rm, role, user ──▶│
//!     │◀── RAKP 2: Rc, GUID, code ──│   the BMC knows the password
//!     │── RAKP 3: code ────────────▶│   so does the console
//!     │◀── RAKP 4: code ────────────│   both hold the same session key
//! ```

use core::fmt;

use crate::Privilege;
use crate::read::{Malformed, Reader};

/// Longest user name, in bytes (section 13.20).
pub const USER_MAX: usize = 16;

/// Status codes of these messages (table 13-15).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Status(pub u8);

impl Status {
    /// Taken.
    pub const OK: Self = Self(0x00);
    /// No session slot left.
    pub const NO_RESOURCES: Self = Self(0x01);
    /// The session ID names no session being made.
    pub const INVALID_SESSION: Self = Self(0x02);
    /// The role or privilege is not allowed to this user.
    pub const UNAUTHORIZED_ROLE: Self = Self(0x09);
    /// No user of that name may log in.
    pub const UNAUTHORIZED_NAME: Self = Self(0x0d);
    /// The code does not fit: a wrong password.
    pub const INVALID_CODE: Self = Self(0x0f);
    /// No cipher suite fits.
    pub const NO_CIPHER_SUITE: Self = Self(0x11);
    /// A parameter is not allowed.
    pub const ILLEGAL_PARAMETER: Self = Self(0x12);

    /// What the code says.
    pub const fn meaning(self) -> &'static str {
        match self.0 {
            0x00 => "taken",
            0x01 => "the BMC has no session left",
            0x02 => "the BMC does not know the session ID",
            0x03 => "payload type refused",
            0x04 => "authentication algorithm refused",
            0x05 => "integrity algorithm refused",
            0x06 => "no matching authentication payload",
            0x07 => "no matching integrity payload",
            0x08 => "the session is not active",
            0x09 | 0x0a => "the user may not have this privilege",
            0x0b => "the BMC has no session left at this privilege",
            0x0c => "the user name's length is refused",
            0x0d => "no such user, or not allowed over LAN",
            0x0e => "the GUID is refused",
            0x0f => "wrong password",
            0x10 => "confidentiality algorithm refused",
            0x11 => "no cipher suite in common",
            0x12 => "parameter refused",
            _ => "unknown status",
        }
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#04x}", self.0)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (RAKP status {:#04x})", self.meaning(), self.0)
    }
}

/// The privilege asked for, and how the user is looked up (section 13.20, byte 25).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Role(u8);

impl Role {
    /// Look the user up by name alone. By name and privilege would fail on BMCs that hold the same name twice.
    pub const fn named(privilege: Privilege) -> Self {
        Self(0x10 | privilege as u8)
    }

    pub(crate) const fn byte(self) -> u8 {
        self.0
    }

    /// The highest privilege wanted; `None` for a reserved value.
    pub const fn privilege(self) -> Option<Privilege> {
        Privilege::from_nibble(self.0)
    }
}

/// Open session request (section 13.17).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OpenRequest {
    /// Message tag, repeated in the response.
    pub tag: u8,
    /// Highest privilege wanted; 0 asks for the highest the suite allows.
    pub privilege: u8,
    /// The console's session ID.
    pub console_id: u32,
    /// Authentication, integrity and confidentiality algorithm.
    pub algorithms: [u8; 3],
}

fn push_algorithms(out: &mut Vec<u8>, algorithms: [u8; 3]) {
    for (kind, algorithm) in (0u8..).zip(algorithms) {
        out.extend_from_slice(&[kind, 0, 0, 8, algorithm, 0, 0, 0]);
    }
}

fn read_algorithms(reader: &mut Reader<'_>) -> Result<[u8; 3], Malformed> {
    let mut algorithms = [0; 3];
    for (kind, slot) in (0u8..).zip(&mut algorithms) {
        let [found, _, _, length, algorithm, ..] = reader.array::<8>()?;
        if found != kind {
            return Err(reader.bad("payloads out of order"));
        }
        // A length of 0 is the wildcard of section 13.17: "you choose".
        *slot = if length == 0 { u8::MAX } else { algorithm & 0x3f };
    }
    Ok(algorithms)
}

impl OpenRequest {
    /// The payload's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![self.tag, self.privilege, 0, 0];
        out.extend_from_slice(&self.console_id.to_le_bytes());
        push_algorithms(&mut out, self.algorithms);
        out
    }

    /// Reads the payload.
    ///
    /// # Errors
    /// When it is cut short or its parts are out of order.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new("open session request (13.17)", bytes);
        let [tag, privilege, ..] = reader.array::<4>()?;
        let console_id = reader.u32()?;
        Ok(Self {
            tag,
            privilege: privilege & 0x0f,
            console_id,
            algorithms: read_algorithms(&mut reader)?,
        })
    }
}

/// Open session response (section 13.18).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OpenResponse {
    /// Tag of the request.
    pub tag: u8,
    /// Taken, or why not.
    pub status: Status,
    /// Highest privilege the BMC will allow.
    pub privilege: u8,
    /// The console's session ID.
    pub console_id: u32,
    /// The BMC's session ID.
    pub managed_id: u32,
    /// Algorithms taken.
    pub algorithms: [u8; 3],
}

impl OpenResponse {
    /// The payload's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![self.tag, self.status.0, self.privilege, 0];
        out.extend_from_slice(&self.console_id.to_le_bytes());
        if self.status == Status::OK {
            out.extend_from_slice(&self.managed_id.to_le_bytes());
            push_algorithms(&mut out, self.algorithms);
        }
        out
    }

    /// Reads the payload. A refusal may be as short as its status.
    ///
    /// # Errors
    /// When it is cut short or its parts are out of order.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new("open session response (13.18)", bytes);
        let [tag, status] = reader.array()?;
        let status = Status(status);
        if status != Status::OK {
            return Ok(Self {
                tag,
                status,
                privilege: 0,
                console_id: 0,
                managed_id: 0,
                algorithms: [0; 3],
            });
        }
        let [privilege, _] = reader.array()?;
        let (console_id, managed_id) = (reader.u32()?, reader.u32()?);
        Ok(Self {
            tag,
            status,
            privilege,
            console_id,
            managed_id,
            algorithms: read_algorithms(&mut reader)?,
        })
    }
}

/// RAKP message 1 (section 13.20).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rakp1 {
    /// Message tag.
    pub tag: u8,
    /// The BMC's session ID.
    pub managed_id: u32,
    /// The console's random number.
    pub random: [u8; 16],
    /// Privilege wanted.
    pub role: Role,
    /// User name, at most 16 bytes; empty is the anonymous user.
    pub user: Vec<u8>,
}

impl Rakp1 {
    pub(crate) fn user_len(&self) -> u8 {
        u8::try_from(self.user.len()).unwrap_or(u8::MAX)
    }

    /// The payload's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![self.tag, 0, 0, 0];
        out.extend_from_slice(&self.managed_id.to_le_bytes());
        out.extend_from_slice(&self.random);
        out.extend_from_slice(&[self.role.byte(), 0, 0, self.user_len()]);
        out.extend_from_slice(&self.user);
        out
    }

    /// Reads the payload.
    ///
    /// # Errors
    /// When it is cut short or the name is too long.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new("RAKP message 1 (13.20)", bytes);
        let [tag, ..] = reader.array::<4>()?;
        let managed_id = reader.u32()?;
        let random = reader.array()?;
        let [role, _, _, length] = reader.array()?;
        if usize::from(length) > USER_MAX {
            return Err(reader.bad("user name longer than 16 bytes"));
        }
        let user = reader.bytes(usize::from(length))?.to_vec();
        Ok(Self {
            tag,
            managed_id,
            random,
            role: Role(role & 0x1f),
            user,
        })
    }
}

/// RAKP message 2 (section 13.21).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rakp2 {
    /// Tag of message 1.
    pub tag: u8,
    /// Taken, or why not; then the rest is empty.
    pub status: Status,
    /// The console's session ID.
    pub console_id: u32,
    /// The BMC's random number.
    pub random: [u8; 16],
    /// The BMC's GUID.
    pub guid: [u8; 16],
    /// Key exchange authentication code.
    pub code: Vec<u8>,
}

impl Rakp2 {
    /// A refusal.
    pub const fn refused(tag: u8, status: Status, console_id: u32) -> Self {
        Self {
            tag,
            status,
            console_id,
            random: [0; 16],
            guid: [0; 16],
            code: Vec::new(),
        }
    }

    /// The payload's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![self.tag, self.status.0, 0, 0];
        out.extend_from_slice(&self.console_id.to_le_bytes());
        if self.status == Status::OK {
            out.extend_from_slice(&self.random);
            out.extend_from_slice(&self.guid);
            out.extend_from_slice(&self.code);
        }
        out
    }

    /// Reads the payload.
    ///
    /// # Errors
    /// When it is cut short.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new("RAKP message 2 (13.21)", bytes);
        let [tag, status] = reader.array()?;
        let status = Status(status);
        if status != Status::OK {
            return Ok(Self::refused(tag, status, 0));
        }
        let _reserved = reader.u16()?;
        let console_id = reader.u32()?;
        let (random, guid) = (reader.array()?, reader.array()?);
        Ok(Self {
            tag,
            status,
            console_id,
            random,
            guid,
            code: reader.rest().to_vec(),
        })
    }
}

/// RAKP messages 3 and 4 (sections 13.22 and 13.23): a status, the receiver's session ID, a code.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RakpProof {
    /// Message tag.
    pub tag: u8,
    /// Taken, or why not.
    pub status: Status,
    /// The receiver's session ID.
    pub session_id: u32,
    /// Authentication code (3) or integrity check value (4).
    pub code: Vec<u8>,
}

impl RakpProof {
    /// The payload's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![self.tag, self.status.0, 0, 0];
        out.extend_from_slice(&self.session_id.to_le_bytes());
        if self.status == Status::OK {
            out.extend_from_slice(&self.code);
        }
        out
    }

    /// Reads the payload.
    ///
    /// # Errors
    /// When it is cut short.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new("RAKP message 3 or 4 (13.22)", bytes);
        let [tag, status] = reader.array()?;
        let status = Status(status);
        if status != Status::OK {
            return Ok(Self {
                tag,
                status,
                session_id: 0,
                code: Vec::new(),
            });
        }
        let _reserved = reader.u16()?;
        Ok(Self {
            tag,
            status,
            session_id: reader.u32()?,
            code: reader.rest().to_vec(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn open_session_has_the_layout_of_the_table() {
        let request = OpenRequest {
            tag: 1,
            privilege: 4,
            console_id: 0xa4a3_a2a0,
            algorithms: [3, 4, 1],
        };
        let bytes = request.encode();
        assert_eq!(bytes[..8], [1, 4, 0, 0, 0xa0, 0xa2, 0xa3, 0xa4]);
        assert_eq!(bytes[8..16], [0, 0, 0, 8, 3, 0, 0, 0]);
        assert_eq!(bytes[24..], [2, 0, 0, 8, 1, 0, 0, 0]);
        assert_eq!(OpenRequest::decode(&bytes), Ok(request));
    }

    #[test]
    fn a_refusal_may_be_short() {
        // Several BMCs end the message right after the status.
        assert_eq!(
            OpenResponse::decode(&[0, 0x11]).unwrap().status,
            Status::NO_CIPHER_SUITE
        );
        assert_eq!(
            Rakp2::decode(&[0, 0x0d, 0, 0]).unwrap().status,
            Status::UNAUTHORIZED_NAME
        );
        assert_eq!(RakpProof::decode(&[0, 0x0f]).unwrap().status, Status::INVALID_CODE);
    }

    proptest! {
        #[test]
        fn reads_what_it_writes(tag: u8, id: u32, random: [u8; 16], guid: [u8; 16], user in "[a-z]{0,16}",
                                code in proptest::collection::vec(any::<u8>(), 0..40)) {
            let role = Role::named(Privilege::Operator);
            let one = Rakp1 { tag, managed_id: id, random, role, user: user.into_bytes() };
            prop_assert_eq!(Rakp1::decode(&one.encode()), Ok(one));
            let two = Rakp2 { tag, status: Status::OK, console_id: id, random, guid, code: code.clone() };
            prop_assert_eq!(Rakp2::decode(&two.encode()), Ok(two));
            let three = RakpProof { tag, status: Status::OK, session_id: id, code };
            prop_assert_eq!(RakpProof::decode(&three.encode()), Ok(three));
            let open = OpenResponse {
                tag, status: Status::OK, privilege: 4, console_id: id, managed_id: !id, algorithms: [1, 1, 1],
            };
            prop_assert_eq!(OpenResponse::decode(&open.encode()), Ok(open));
        }

        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = OpenRequest::decode(&bytes);
            let _ = OpenResponse::decode(&bytes);
            let _ = Rakp1::decode(&bytes);
            let _ = Rakp2::decode(&bytes);
            let _ = RakpProof::decode(&bytes);
        }
    }
}

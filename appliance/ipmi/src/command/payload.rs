//! Switching serial over LAN on and off: Activate and Deactivate Payload (sections 24.1 to 24.4), Close Session and Set
//! Session Privilege Level (22.18, 22.19).

use crate::command::number;
use crate::read::{Malformed, Reader};
use crate::{Completion, NetFn, PayloadType, Privilege, Request};

/// Activate Payload: another session has it.
pub const ALREADY_ACTIVE: Completion = Completion(0x80);
/// Deactivate Payload: it was not active.
pub const NOT_ACTIVE: Completion = Completion(0x80);

/// Asks for the serial console, encrypted and authenticated.
pub fn activate_sol() -> Request {
    let data = [PayloadType::SOL.0, 1, 0xc0, 0, 0, 0];
    Request::new(NetFn::APP, number::ACTIVATE_PAYLOAD, data)
}

/// Gives the serial console back.
pub fn deactivate_sol() -> Request {
    Request::new(
        NetFn::APP,
        number::DEACTIVATE_PAYLOAD,
        [PayloadType::SOL.0, 1, 0, 0, 0, 0],
    )
}

/// Raises the session's privilege.
pub fn set_privilege(privilege: Privilege) -> Request {
    Request::new(NetFn::APP, number::SET_SESSION_PRIVILEGE, [privilege as u8])
}

/// Ends a session by the BMC's ID of it.
pub fn close_session(managed_id: u32) -> Request {
    Request::new(NetFn::APP, number::CLOSE_SESSION, managed_id.to_le_bytes())
}

/// Answer to Activate Payload for SOL (table 24-3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SolActivated {
    /// Largest payload towards the BMC, in bytes, its four bytes of header included.
    pub inbound: u16,
    /// Largest payload from the BMC.
    pub outbound: u16,
    /// UDP port; nearly always that of the session.
    pub port: u16,
}

impl SolActivated {
    /// The answer's data.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![0; 4];
        for value in [self.inbound, self.outbound, self.port, 0xffff] {
            out.extend_from_slice(&value.to_le_bytes());
        }
        out
    }

    /// Reads the answer's data.
    ///
    /// # Errors
    /// When it is cut short.
    pub fn decode(data: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new("Activate Payload (24.1)", data);
        let _auxiliary = reader.u32()?;
        Ok(Self {
            inbound: reader.u16()?,
            outbound: reader.u16()?,
            port: reader.u16()?,
        })
    }

    /// Characters that fit in a packet towards the BMC. Firmware that reports nonsense gets the size every BMC takes.
    pub fn characters(&self) -> usize {
        let size = usize::from(self.inbound.min(259));
        if size > 8 { size - 4 } else { 64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn reads_what_it_writes(inbound: u16, outbound: u16, port: u16) {
            let activated = SolActivated { inbound, outbound, port };
            prop_assert!((1..=255).contains(&activated.characters()));
            prop_assert_eq!(SolActivated::decode(&activated.encode()), Ok(activated));
        }

        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..16)) {
            let _ = SolActivated::decode(&bytes);
        }
    }
}

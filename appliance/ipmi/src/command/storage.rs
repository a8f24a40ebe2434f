//! The event log and the sensor repository, as far as their size (sections 31.2 and 33.9).

use crate::command::number;
use crate::read::{Malformed, Reader};
use crate::{NetFn, Request};

/// Size of a repository: Get SEL Info and Get SDR Repository Info share their layout.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RepositoryInfo {
    /// Records held.
    pub entries: u16,
    /// Free space, in bytes.
    pub free: u16,
    /// Time of the last addition, in seconds since 1970.
    pub added: u32,
    /// Time of the last erasure.
    pub erased: u32,
    /// Bits of tables 31-2 and 33-4: overflow (7), delete (3), partial add (2), reserve (1), allocation info (0).
    pub support: u8,
}

impl RepositoryInfo {
    /// Asks for the event log's.
    pub fn sel() -> Request {
        Request::new(NetFn::STORAGE, number::GET_SEL_INFO, [])
    }

    /// Asks for the sensor repository's.
    pub fn sdr() -> Request {
        Request::new(NetFn::STORAGE, number::GET_SDR_INFO, [])
    }

    /// The answer's data.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![0x51];
        out.extend_from_slice(&self.entries.to_le_bytes());
        out.extend_from_slice(&self.free.to_le_bytes());
        out.extend_from_slice(&self.added.to_le_bytes());
        out.extend_from_slice(&self.erased.to_le_bytes());
        out.push(self.support);
        out
    }

    /// Reads the answer's data.
    ///
    /// # Errors
    /// When it is cut short.
    pub fn decode(data: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new("repository info (31.2, 33.9)", data);
        let _version = reader.u8()?;
        Ok(Self {
            entries: reader.u16()?,
            free: reader.u16()?,
            added: reader.u32()?,
            erased: reader.u32()?,
            support: reader.u8()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn reads_what_it_writes(entries: u16, free: u16, added: u32, erased: u32, support: u8) {
            let info = RepositoryInfo { entries, free, added, erased, support };
            prop_assert_eq!(RepositoryInfo::decode(&info.encode()), Ok(info));
        }

        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..20)) {
            let _ = RepositoryInfo::decode(&bytes);
        }
    }
}

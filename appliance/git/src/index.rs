//! The index of a pack, version 2.

use crate::id::digest;
use crate::pack::Object;
use crate::{GitError, Id};

/// Writes it. `objects` are in the order of their names.
///
/// # Errors
/// When the pack is longer than offsets of four bytes reach.
pub(crate) fn write(objects: &[Object], pack: Id) -> Result<Vec<u8>, GitError> {
    let mut out = b"\xfftOc\0\0\0\x02".to_vec();
    for first in 0..=255_u8 {
        let upto = objects.partition_point(|object| object.id.0.first().is_some_and(|byte| *byte <= first));
        out.extend_from_slice(&u32::try_from(upto).unwrap_or(u32::MAX).to_be_bytes());
    }
    objects.iter().for_each(|object| out.extend_from_slice(&object.id.0));
    objects
        .iter()
        .for_each(|object| out.extend_from_slice(&object.crc.to_be_bytes()));
    for object in objects {
        let offset = u32::try_from(object.at).ok().filter(|at| at >> 31 == 0);
        let most = 1 << 31;
        let offset = offset.ok_or(GitError::Large { what: "bytes", most })?;
        out.extend_from_slice(&offset.to_be_bytes());
    }
    out.extend_from_slice(&pack.0);
    let sum = digest(&[&out]).ok_or(GitError::Answer("digests that are made to collide"))?;
    out.extend_from_slice(&sum.0);
    Ok(out)
}

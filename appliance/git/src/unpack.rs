//! Entries of a pack: their heads, the zlib streams behind them, and deltas.

use flate2::{Decompress, FlushDecompress, Status};

use crate::object::Kind;
use crate::{GitError, Id};

/// zlib makes no more of a byte.
const MOST_OF_A_BYTE: u64 = 1040;

/// What an entry is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Base {
    /// Itself.
    None(Kind),
    /// A delta to the entry at this offset in the pack.
    At(u64),
    /// A delta to this object.
    Of(Id),
}

/// The head of an entry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    pub(crate) base: Base,
    /// Bytes of the object, or of the delta.
    pub(crate) size: u64,
    /// Where its zlib stream begins.
    pub(crate) data: usize,
}

/// Reads the head of the entry at an offset.
pub(crate) fn head(pack: &[u8], at: usize) -> Result<Head, GitError> {
    let wrong = |why| GitError::Pack { at: at as u64, why };
    let mut next = at;
    let mut byte = || {
        let byte = pack.get(next).copied().ok_or(GitError::Short);
        next = next.saturating_add(1);
        byte
    };
    let first = byte()?;
    let (kind, mut size, mut shift, mut more) = (first >> 4 & 7, u64::from(first & 15), 4_u32, first & 0x80 != 0);
    while more {
        let byte = byte()?;
        if shift > 53 {
            return Err(wrong("a size that no object has"));
        }
        size |= u64::from(byte & 0x7f) << shift;
        (shift, more) = (shift.saturating_add(7), byte & 0x80 != 0);
    }
    let base = match kind {
        1 => Base::None(Kind::Commit),
        2 => Base::None(Kind::Tree),
        3 => Base::None(Kind::Blob),
        4 => Base::None(Kind::Tag),
        6 => {
            let mut byte_of = byte()?;
            let mut back = u64::from(byte_of & 0x7f);
            while byte_of & 0x80 != 0 {
                byte_of = byte()?;
                if back > 1 << 40 {
                    return Err(wrong("a base that lies nowhere"));
                }
                back = (back.saturating_add(1) << 7) | u64::from(byte_of & 0x7f);
            }
            let base = (at as u64).checked_sub(back).filter(|_| back > 0);
            Base::At(base.ok_or(wrong("a base that does not lie before it"))?)
        }
        7 => {
            let id = pack.get(next..).and_then(<[u8]>::first_chunk).ok_or(GitError::Short)?;
            next = next.saturating_add(20);
            Base::Of(Id(*id))
        }
        _ => return Err(wrong("an object of an unknown kind")),
    };
    Ok(Head { base, size, data: next })
}

/// Unpacks zlib streams, one after the other with the same memory.
pub(crate) struct Inflater(Decompress);

impl Inflater {
    pub(crate) fn new() -> Self {
        Self(Decompress::new(true))
    }

    /// Unpacks the stream at an offset, which has this many bytes unpacked; gives where it ends.
    pub(crate) fn inflate(&mut self, pack: &[u8], at: usize, size: u64, out: &mut Vec<u8>) -> Result<usize, GitError> {
        let wrong = |why| GitError::Pack { at: at as u64, why };
        let input = pack.get(at..).ok_or(GitError::Short)?;
        if size > (input.len() as u64).saturating_mul(MOST_OF_A_BYTE) {
            return Err(wrong("fewer bytes than an object of that size has"));
        }
        let size = usize::try_from(size).map_err(|_| wrong("a size that no object has"))?;
        out.clear();
        // One more, so that a stream that is too long is noticed.
        out.reserve_exact(size.saturating_add(1));
        self.0.reset(true);
        loop {
            let (read, written) = (self.0.total_in(), out.len());
            let rest = usize::try_from(read).ok().and_then(|read| input.get(read..));
            let status = self
                .0
                .decompress_vec(rest.unwrap_or_default(), out, FlushDecompress::None);
            let status = status.map_err(|_| wrong("data that cannot be unpacked"))?;
            if out.len() > size {
                return Err(wrong("an object that is longer than its size"));
            }
            if status == Status::StreamEnd {
                break;
            }
            if self.0.total_in() == read && out.len() == written {
                return Err(GitError::Short);
            }
        }
        if out.len() != size {
            return Err(wrong("an object that is shorter than its size"));
        }
        let read = usize::try_from(self.0.total_in()).unwrap_or(usize::MAX);
        Ok(at.saturating_add(read))
    }
}

/// What a delta makes of its base, of `most` bytes or fewer; why not.
pub(crate) fn apply(base: &[u8], delta: &[u8], most: u64) -> Result<Vec<u8>, &'static str> {
    const TORN: &str = "a delta that is torn";
    let mut rest = delta;
    if length(&mut rest).ok_or(TORN)? != base.len() as u64 {
        return Err("a delta to another base");
    }
    let size = length(&mut rest).ok_or(TORN)?;
    if size > most {
        return Err("an object that is too large");
    }
    let size = usize::try_from(size).map_err(|_| TORN)?;
    let mut out = Vec::new();
    while let Some((op, after)) = rest.split_first() {
        rest = after;
        let piece = if op & 0x80 == 0 {
            let (piece, after) = rest.split_at_checked(usize::from(*op)).ok_or(TORN)?;
            if piece.is_empty() {
                return Err("a delta with an unknown instruction");
            }
            rest = after;
            piece
        } else {
            let (mut from, mut length) = (0_u64, 0_u64);
            for bit in 0..7_u32 {
                if op >> bit & 1 == 0 {
                    continue;
                }
                let (byte, after) = rest.split_first().ok_or(TORN)?;
                rest = after;
                match bit {
                    0..4 => from |= u64::from(*byte) << (bit * 8),
                    _ => length |= u64::from(*byte) << ((bit - 4) * 8),
                }
            }
            let length = if length == 0 { 0x1_0000 } else { length };
            let from = usize::try_from(from).map_err(|_| TORN)?;
            let end = usize::try_from(length).ok().and_then(|length| from.checked_add(length));
            end.and_then(|end| base.get(from..end))
                .ok_or("a delta that copies what its base has not")?
        };
        if out.len().saturating_add(piece.len()) > size {
            return Err("a delta that makes more than it says");
        }
        out.extend_from_slice(piece);
    }
    match out.len() == size {
        true => Ok(out),
        false => Err("a delta that makes less than it says"),
    }
}

fn length(rest: &mut &[u8]) -> Option<u64> {
    let (mut value, mut shift) = (0_u64, 0_u32);
    loop {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        value |= u64::from(byte & 0x7f).checked_shl(shift).filter(|_| shift < 57)?;
        shift += 7;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deltas_copy_and_insert_and_nothing_else() {
        let base = b"0123456789";
        // Ten bytes make eight: four from offset 2, then "abcd".
        let delta = [10, 8, 0x91, 2, 4, 4, b'a', b'b', b'c', b'd'];
        assert_eq!(apply(base, &delta, 100).as_deref(), Ok(&b"2345abcd"[..]));
        assert!(apply(b"short", &delta, 100).is_err() && apply(base, &delta, 7).is_err());
        for (place, byte) in [(1, 7), (1, 9), (3, 8), (5, 0), (5, 9)] {
            let mut bad = delta;
            bad[place] = byte;
            assert!(apply(base, &bad, 100).is_err(), "{place} {byte}");
        }
        for end in 0..delta.len() {
            assert!(apply(base, &delta[..end], 100).is_err(), "{end}");
        }
    }
}

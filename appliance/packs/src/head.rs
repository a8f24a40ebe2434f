//! The first 128 bytes: magic, version, sizes, who signed, and the signature.

use rackbar_trust::{SIGNATURE_LENGTH, Signer, sha256, verify};

use crate::index::Index;
use crate::{Key, PackError, aligned};

/// First bytes of every pack. The line end shows a copy that was treated as text.
pub const MAGIC: &[u8; 8] = b"RBPACK\r\n";

/// The one format there is.
pub const VERSION: u32 = 1;

/// Bytes of the head.
pub const HEAD_BYTES: usize = 128;

/// Bytes of it that are signed.
const SIGNED: usize = 64;

/// What a signature of a pack is over begins with this, so that nothing else we sign can be taken for a pack.
const DOMAIN: &[u8] = b"rackbar data pack, format 1\0";

/// More than a million answers take.
const INDEX_MOST: u32 = 256 << 20;

/// True when something that begins with these bytes is a pack, or means to be one.
pub fn looks_like_one(start: &[u8]) -> bool {
    start.starts_with(MAGIC)
}

/// A head that was read. Nothing in it is believed before [`Head::open`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Head {
    /// Who signed, as it says.
    pub key: Key,
    /// Bytes of the index.
    pub index_bytes: usize,
    /// Bytes of the whole pack.
    pub total: u64,
    signed: [u8; SIGNED],
    signature: [u8; SIGNATURE_LENGTH],
}

fn take<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

impl Head {
    /// Reads the first [`HEAD_BYTES`] bytes.
    ///
    /// # Errors
    /// When they are those of something else, of a newer format, or cannot be.
    pub fn parse(bytes: &[u8]) -> Result<Self, PackError> {
        if !looks_like_one(bytes) {
            return Err(PackError::NotAPack);
        }
        let short = || PackError::Head("it is cut off");
        let version = u32::from_le_bytes(take(bytes, 8).ok_or_else(short)?);
        if version > VERSION {
            return Err(PackError::Newer(version));
        }
        if version != VERSION {
            return Err(PackError::Head("there is no such format"));
        }
        let index = u32::from_le_bytes(take(bytes, 12).ok_or_else(short)?);
        if index == 0 || index > INDEX_MOST {
            return Err(PackError::Head("the size of its index"));
        }
        if take::<8>(bytes, 24).ok_or_else(short)? != [0; 8] {
            return Err(PackError::Head("a field that has no meaning yet"));
        }
        let head = Self {
            key: Key(take(bytes, 32).ok_or_else(short)?),
            index_bytes: usize::try_from(index).map_err(|_| short())?,
            total: u64::from_le_bytes(take(bytes, 16).ok_or_else(short)?),
            signed: take(bytes, 0).ok_or_else(short)?,
            signature: take(bytes, SIGNED).ok_or_else(short)?,
        };
        if head.total < head.contents_begin() {
            return Err(PackError::Head("its size"));
        }
        Ok(head)
    }

    /// Where the first content begins.
    pub(crate) fn contents_begin(&self) -> u64 {
        aligned(HEAD_BYTES as u64 + self.index_bytes as u64).unwrap_or(u64::MAX)
    }

    /// Checks the signature over head and index, and only then reads the index.
    ///
    /// # Errors
    /// When the signature is not good, or the index makes no sense or belongs to another size.
    pub fn open(&self, index: &[u8]) -> Result<Index, PackError> {
        let wrong = |_| PackError::Signature { key: self.key };
        verify(&self.key.0, &message(&self.signed, index), &self.signature).map_err(wrong)?;
        let index = Index::from_bytes(index)?;
        let end = index.places(self.contents_begin())?.1;
        if end != self.total {
            return Err(PackError::Index(format!(
                "its contents end at byte {end}, and the pack at {}",
                self.total
            )));
        }
        Ok(index)
    }

    /// Makes the head for an index, signed.
    pub(crate) fn seal(index: &[u8], total: u64, signer: &dyn Signer) -> Result<[u8; HEAD_BYTES], PackError> {
        let length = u32::try_from(index.len()).ok().filter(|length| *length <= INDEX_MOST);
        let length = length.ok_or_else(|| PackError::Index("it has too many entries for one pack".into()))?;
        let mut head = [0; HEAD_BYTES];
        let fields: [(usize, &[u8]); 5] = [
            (0, MAGIC),
            (8, &VERSION.to_le_bytes()),
            (12, &length.to_le_bytes()),
            (16, &total.to_le_bytes()),
            (32, &signer.public_key()),
        ];
        for (at, bytes) in fields {
            put(&mut head, at, bytes);
        }
        let signed: [u8; SIGNED] = take(&head, 0).unwrap_or([0; SIGNED]);
        put(&mut head, SIGNED, &signer.sign(&message(&signed, index)));
        Ok(head)
    }
}

fn put(head: &mut [u8; HEAD_BYTES], at: usize, bytes: &[u8]) {
    head.iter_mut().skip(at).zip(bytes).for_each(|(to, from)| *to = *from);
}

fn message(signed: &[u8; SIGNED], index: &[u8]) -> Vec<u8> {
    [DOMAIN, signed.as_slice(), &sha256(index)].concat()
}

//! Checking a pack that comes piece by piece, from a file or a network: sans-IO.

use rackbar_model::Digest;
use rackbar_trust::Sha256;

use crate::head::{HEAD_BYTES, Head};
use crate::index::Index;
use crate::{ALIGN, Key, PackError, Trust};

/// A pack on its way. [`Self::push`] refuses at the first byte that shows what is wrong; only [`Self::finish`] says that
/// it is whole.
pub struct Intake {
    trust: Option<Trust>,
    seen: u64,
    /// Head and index, until they are whole.
    start: Vec<u8>,
    head: Option<Head>,
    index: Option<Index>,
    /// Zeros come up to where the next content may begin.
    gap: bool,
    /// The content that comes, its bytes still to come, and its digest so far.
    content: usize,
    left: u64,
    hash: Sha256,
}

/// A pack that was read through to its end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Checked {
    /// Who signed.
    pub key: Key,
    /// What is in it.
    pub index: Index,
    /// Its bytes.
    pub total: u64,
}

impl Intake {
    /// Takes packs of those who are trusted; with `None` of anybody, for looking at one.
    pub fn new(trust: Option<Trust>) -> Self {
        Self {
            trust,
            seen: 0,
            start: Vec::new(),
            head: None,
            index: None,
            gap: true,
            content: 0,
            left: 0,
            hash: Sha256::new(),
        }
    }

    /// What is in it, once that came and its signature was found good.
    pub fn index(&self) -> Option<&Index> {
        self.index.as_ref()
    }

    /// Bytes of the whole pack, once the head came.
    pub fn total(&self) -> Option<u64> {
        self.head.as_ref().map(|head| head.total)
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// When they are not those of a whole pack that is trusted. Everything so far is then to be thrown away.
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<(), PackError> {
        while !bytes.is_empty() {
            let taken = if self.index.is_none() {
                self.start(bytes)?
            } else {
                self.rest(bytes)?
            };
            self.seen = self.seen.saturating_add(taken as u64);
            bytes = bytes.get(taken..).unwrap_or_default();
        }
        Ok(())
    }

    /// Takes bytes of head and index; how many.
    fn start(&mut self, bytes: &[u8]) -> Result<usize, PackError> {
        let wanted = HEAD_BYTES + self.head.as_ref().map_or(0, |head| head.index_bytes);
        let taken = wanted.saturating_sub(self.start.len()).min(bytes.len());
        self.start.extend_from_slice(bytes.get(..taken).unwrap_or_default());
        if self.start.len() < wanted {
            return Ok(taken);
        }
        let Some(head) = &self.head else {
            let head = Head::parse(&self.start)?;
            // Before the signature: an index of somebody who is not trusted is not even kept.
            self.trust.iter().try_for_each(|trust| trust.check(head.key))?;
            self.head = Some(head);
            return Ok(taken);
        };
        let index = head.open(self.start.get(HEAD_BYTES..).unwrap_or_default())?;
        self.left = index.contents.first().map_or(0, |content| content.bytes);
        self.index = Some(index);
        self.start = Vec::new();
        Ok(taken)
    }

    /// Takes bytes of contents and of the zeros between them; how many.
    fn rest(&mut self, bytes: &[u8]) -> Result<usize, PackError> {
        let (Some(head), Some(index)) = (&self.head, &self.index) else {
            return Ok(0);
        };
        if self.seen >= head.total {
            let found = self.seen.saturating_add(bytes.len() as u64);
            let expected = head.total;
            return Err(PackError::Size { expected, found });
        }
        if self.gap && !self.seen.is_multiple_of(ALIGN) {
            let gap = usize::try_from(ALIGN - self.seen % ALIGN).unwrap_or(usize::MAX);
            let zeros = bytes.get(..gap.min(bytes.len())).unwrap_or_default();
            return if zeros.iter().all(|byte| *byte == 0) {
                Ok(zeros.len())
            } else {
                Err(PackError::Padding)
            };
        }
        self.gap = false;
        let taken = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
        self.hash.update(bytes.get(..taken).unwrap_or_default());
        self.left = self.left.saturating_sub(taken as u64);
        if self.left == 0 {
            let hash = std::mem::take(&mut self.hash);
            settle(index, self.content, hash)?;
            self.content += 1;
            self.gap = true;
            self.left = index.contents.get(self.content).map_or(0, |content| content.bytes);
        }
        Ok(taken)
    }

    /// Ends it.
    ///
    /// # Errors
    /// When something is missing.
    pub fn finish(self) -> Result<Checked, PackError> {
        let (Some(head), Some(index)) = (self.head, self.index) else {
            return Err(if self.start.len() < 8 {
                PackError::NotAPack
            } else {
                PackError::Head("it is cut off")
            });
        };
        if self.seen != head.total {
            let (expected, found) = (head.total, self.seen);
            return Err(PackError::Size { expected, found });
        }
        Ok(Checked {
            key: head.key,
            index,
            total: head.total,
        })
    }
}

/// Compares the digest of a content that came.
fn settle(index: &Index, number: usize, hash: Sha256) -> Result<(), PackError> {
    let found = Digest(hash.finish());
    match index.contents.get(number) {
        Some(content) if content.sha256 != found => Err(PackError::Damaged {
            expected: content.sha256,
            found,
        }),
        _ => Ok(()),
    }
}

//! Making a pack: what goes in, its layout and signature, and writing it out.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use rackbar_model::{Digest, Timestamp};
use rackbar_trust::{Sha256, Signer};

use crate::head::{HEAD_BYTES, Head};
use crate::index::{Answer, Content, Index, PackImage};
use crate::{ALIGN, PackError, aligned};

/// Bytes read and written at once.
const PIECE: usize = 256 << 10;

/// An image that goes into a pack; [`PackImage::content`] is filled in when the pack is sealed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DraftImage {
    /// What is said of it.
    pub image: PackImage,
    /// Its content.
    pub content: Content,
}

/// An answer that goes into a pack; [`Answer::content`] is filled in when the pack is sealed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DraftAnswer {
    /// What is said of it.
    pub answer: Answer,
    /// Its content.
    pub content: Content,
}

/// A pack in the making.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Draft {
    /// Its name.
    pub name: String,
    /// When it is made.
    pub made: Timestamp,
    /// Who makes it.
    pub by: String,
    /// What it is for.
    pub note: String,
    /// Images.
    pub images: Vec<DraftImage>,
    /// Answers of the proxy.
    pub answers: Vec<DraftAnswer>,
}

/// A pack whose head and index are made and signed; only its contents are still to be written behind them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sealed {
    /// What is in it.
    pub index: Index,
    /// Bytes of the whole pack.
    pub total: u64,
    start: Vec<u8>,
}

/// Why a pack could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// A content cannot be read.
    #[error("the content {0} cannot be read: {1}")]
    Read(Digest, io::Error),
    /// A content is not what it was.
    #[error(
        "the content {0} is no longer what it was, so the pack was not finished; `rackbar cache verify` finds damage"
    )]
    Changed(Digest),
    /// The pack cannot be written.
    #[error("the pack cannot be written: {0}")]
    Write(io::Error),
}

impl Draft {
    /// Lays the pack out and signs it. The same draft and key give the same bytes.
    ///
    /// # Errors
    /// When a name or text in it is not allowed, or it holds nothing.
    pub fn seal(self, signer: &dyn Signer) -> Result<Sealed, PackError> {
        let images = self.images.iter().map(|one| one.content);
        let answers = self.answers.iter().map(|one| one.content);
        let sizes: BTreeMap<Digest, u64> = images.chain(answers).map(|one| (one.sha256, one.bytes)).collect();
        if sizes.is_empty() {
            return Err(PackError::Index("nothing is in it".into()));
        }
        let numbers: BTreeMap<Digest, u32> = sizes.keys().copied().zip(0..).collect();
        let number = |content: &Content| numbers.get(&content.sha256).copied().unwrap_or(u32::MAX);
        let image = |one: &DraftImage| PackImage {
            content: number(&one.content),
            ..one.image.clone()
        };
        let answer = |one: &DraftAnswer| Answer {
            content: number(&one.content),
            ..one.answer.clone()
        };
        let mut index = Index {
            images: self.images.iter().map(image).collect(),
            answers: self.answers.iter().map(answer).collect(),
            contents: sizes
                .into_iter()
                .map(|(sha256, bytes)| Content { sha256, bytes })
                .collect(),
            name: self.name,
            made: self.made,
            by: self.by,
            note: self.note,
        };
        index.images.sort_by(|a, b| a.name.cmp(&b.name));
        index
            .answers
            .sort_by(|a, b| (&a.key, &a.selecting).cmp(&(&b.key, &b.selecting)));
        index.check()?;
        let bytes = index.to_bytes();
        let too_large = || PackError::Index("it is too large".into());
        let begin = aligned(HEAD_BYTES as u64 + bytes.len() as u64).ok_or_else(too_large)?;
        let total = index.places(begin)?.1;
        let mut start = Head::seal(&bytes, total, signer)?.to_vec();
        start.extend(bytes);
        start.resize(usize::try_from(begin).map_err(|_| too_large())?, 0);
        Ok(Sealed { index, total, start })
    }
}

impl Sealed {
    /// Writes the pack; `open` gives each content, which is hashed on the way.
    ///
    /// # Errors
    /// When a content cannot be read or is another one, or writing fails. What was written is then no pack.
    pub fn write<R: Read>(
        &self,
        out: &mut impl Write,
        mut open: impl FnMut(&Digest) -> io::Result<R>,
    ) -> Result<(), WriteError> {
        out.write_all(&self.start).map_err(WriteError::Write)?;
        let mut piece = vec![0; PIECE];
        for content in &self.index.contents {
            let unread = |error| WriteError::Read(content.sha256, error);
            let mut from = open(&content.sha256)
                .map_err(unread)?
                .take(content.bytes.saturating_add(1));
            let (mut hash, mut written) = (Sha256::new(), 0u64);
            loop {
                let count = match from.read(&mut piece) {
                    Ok(0) => break,
                    Ok(count) => count,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => return Err(unread(error)),
                };
                let bytes = piece.get(..count).unwrap_or_default();
                written = written.saturating_add(count as u64);
                if written > content.bytes {
                    return Err(WriteError::Changed(content.sha256));
                }
                hash.update(bytes);
                out.write_all(bytes).map_err(WriteError::Write)?;
            }
            if written != content.bytes || Digest(hash.finish()) != content.sha256 {
                return Err(WriteError::Changed(content.sha256));
            }
            let gap = usize::try_from(written.wrapping_neg() % ALIGN).unwrap_or(0);
            let zeros = [0; ALIGN as usize];
            out.write_all(zeros.get(..gap).unwrap_or_default())
                .map_err(WriteError::Write)?;
        }
        out.flush().map_err(WriteError::Write)
    }
}

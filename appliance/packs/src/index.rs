//! What a pack holds. Read only after its signature was found good, and still checked: whoever signs may err.

use std::collections::HashSet;

use rackbar_model::{Digest, ImageFormat, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{PackError, aligned};

/// Longest text of a field that people read.
const TEXT_MOST: usize = 1024;
/// Longest key of an answer: longer URLs are not stored either.
const KEY_MOST: usize = 16 << 10;
/// Bytes that the header fields of an answer may have.
const FIELDS_MOST: usize = 64 << 10;

/// Everything that is said of a pack. Encoded by position: fields are added by a new format only.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Index {
    /// Its name: lower-case letters, digits, `.`, `_`, `-`.
    pub name: String,
    /// When it was made.
    pub made: Timestamp,
    /// Who made it: a site's name, or the builder's of boot media.
    pub by: String,
    /// What it is for, for people.
    pub note: String,
    /// Contents, by rising digest, each once.
    pub contents: Vec<Content>,
    /// Operating systems of the catalogue.
    pub images: Vec<PackImage>,
    /// Stored answers of the caching proxy.
    pub answers: Vec<Answer>,
}

/// One content.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Content {
    /// Its SHA-256.
    pub sha256: Digest,
    /// Its bytes.
    pub bytes: u64,
}

/// An operating system that can be installed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PackImage {
    /// Its name in the catalogue.
    pub name: String,
    /// Which content.
    pub content: u32,
    /// Packing.
    pub format: ImageFormat,
    /// Bytes of the unpacked disk, when known.
    pub disk_bytes: Option<u64>,
    /// Architecture as `uname -m` says it.
    pub arch: String,
    /// Where it came from.
    pub source: String,
    /// Licence note.
    pub licence: String,
    /// Account that logs in over SSH.
    pub user: String,
    /// When it was added to the catalogue it was taken from.
    pub added: Timestamp,
}

/// What the caching proxy answers to a request.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Answer {
    /// What it answers: a URL, or `mirror:NAME/PATH`.
    pub key: String,
    /// Request fields it depends on, with their values.
    pub selecting: Vec<(String, Option<String>)>,
    /// Status.
    pub status: u16,
    /// Header fields in their order.
    pub headers: Vec<(String, Vec<u8>)>,
    /// When it was asked for, in seconds since 1970.
    pub request_time: u64,
    /// When the answer's head came.
    pub response_time: u64,
    /// Which content.
    pub content: u32,
}

/// Refuses a name that is none for a pack or an image: it becomes part of paths and URLs.
///
/// # Errors
/// With the rule in words.
pub fn check_name(name: &str) -> Result<(), PackError> {
    let edge = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let plain = |b: u8| edge(&b) || matches!(b, b'.' | b'_' | b'-');
    if name.len() <= 64 && name.as_bytes().first().is_some_and(edge) && name.bytes().all(plain) {
        return Ok(());
    }
    Err(PackError::Index(format!(
        "{name:?} is no name: use 1 to 64 lower-case letters, digits, `.`, `_` and `-`, beginning with a letter or digit"
    )))
}

impl Index {
    /// Its bytes.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        // Plain data without maps or unsized parts: postcard has no way to fail on it.
        postcard::to_stdvec(self).unwrap_or_default()
    }

    /// Reads and checks it.
    ///
    /// # Errors
    /// When it is malformed, or says what cannot be.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, PackError> {
        let (index, rest): (Self, _) =
            postcard::take_from_bytes(bytes).map_err(|error| PackError::Index(error.to_string()))?;
        if !rest.is_empty() {
            return Err(PackError::Index("something follows its end".into()));
        }
        index.check()?;
        Ok(index)
    }

    /// Where each content begins, the first at `begin`, and where the pack ends.
    pub(crate) fn places(&self, begin: u64) -> Result<(Vec<u64>, u64), PackError> {
        let too_large = || PackError::Index("its contents are larger than any disk".into());
        let mut places = Vec::with_capacity(self.contents.len());
        let mut at = begin;
        for content in &self.contents {
            places.push(at);
            let end = at.checked_add(content.bytes).and_then(aligned);
            // What system calls take as an offset.
            at = end.filter(|end| i64::try_from(*end).is_ok()).ok_or_else(too_large)?;
        }
        Ok((places, at))
    }

    /// The content that something names.
    pub fn content(&self, number: u32) -> Option<&Content> {
        self.contents.get(usize::try_from(number).ok()?)
    }

    pub(crate) fn check(&self) -> Result<(), PackError> {
        let wrong = |what: String| Err(PackError::Index(what));
        check_name(&self.name)?;
        text("by", &self.by)?;
        text("note", &self.note)?;
        let rising = self.contents.windows(2).all(|two| match two {
            [one, other] => one.sha256 < other.sha256,
            _ => true,
        });
        if !rising {
            return wrong("its contents are not in order, or one is there twice".into());
        }
        let nothing = Digest(rackbar_trust::sha256(&[]));
        if self.contents.iter().any(|one| one.bytes == 0 && one.sha256 != nothing) {
            return wrong("a content without bytes has the digest of one with".into());
        }
        let mut used = vec![false; self.contents.len()];
        let mut names = HashSet::new();
        for image in &self.images {
            image.check()?;
            if !names.insert(image.name.as_str()) {
                return wrong(format!("two images are named {}", image.name));
            }
            use_up(&mut used, image.content)?;
        }
        let mut keys = HashSet::new();
        for answer in &self.answers {
            answer.check()?;
            if !keys.insert((&answer.key, &answer.selecting)) {
                return wrong(format!("two answers are for {:?}", answer.key));
            }
            use_up(&mut used, answer.content)?;
        }
        if used.iter().any(|used| !used) {
            return wrong("a content belongs to nothing".into());
        }
        Ok(())
    }
}

fn use_up(used: &mut [bool], content: u32) -> Result<(), PackError> {
    let used = usize::try_from(content).ok().and_then(|number| used.get_mut(number));
    *used.ok_or_else(|| PackError::Index("an entry names a content that is not there".into()))? = true;
    Ok(())
}

fn text(field: &str, text: &str) -> Result<(), PackError> {
    if text.len() > TEXT_MOST || text.chars().any(char::is_control) {
        return Err(PackError::Index(format!(
            "its field {field} is longer than {TEXT_MOST} bytes, or has control characters"
        )));
    }
    Ok(())
}

impl PackImage {
    fn check(&self) -> Result<(), PackError> {
        check_name(&self.name)?;
        text("arch", &self.arch)?;
        text("source", &self.source)?;
        text("licence", &self.licence)?;
        text("user", &self.user)
    }
}

impl Answer {
    fn check(&self) -> Result<(), PackError> {
        let wrong = |what: &str| {
            let start: String = self.key.chars().take(100).collect();
            Err(PackError::Index(format!("the answer for {start:?} {what}")))
        };
        if self.key.is_empty() || self.key.len() > KEY_MOST || self.key.chars().any(char::is_control) {
            return wrong("has no usable key");
        }
        if !(100..=599).contains(&self.status) {
            return wrong("has no usable status");
        }
        let selecting = self.selecting.iter();
        let asked: usize = selecting
            .map(|(name, value)| name.len() + value.as_ref().map_or(0, String::len))
            .sum();
        let told: usize = self.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        if asked > FIELDS_MOST || told > FIELDS_MOST {
            return wrong("has too many header fields");
        }
        // What would end a field and begin another one.
        let split = |bytes: &[u8]| bytes.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0));
        if self
            .headers
            .iter()
            .any(|(name, value)| split(name.as_bytes()) || split(value))
        {
            return wrong("has a header field with a line end");
        }
        Ok(())
    }
}

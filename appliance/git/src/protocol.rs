//! Smart HTTP, version 2: `GET info/refs` says what the server can do, `POST git-upload-pack` asks for names and for a pack.

use std::fmt;

use crate::packet::{Packet, Packets, line, said};
use crate::{GitError, Id};

/// What is wanted of a repository.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Wanted {
    /// What it has checked out when it is cloned.
    Head,
    /// A branch or a tag, whichever there is.
    Name(String),
    /// A name in full: `refs/...`.
    Full(String),
    /// A commit.
    Commit(Id),
}

impl Wanted {
    /// Reads a branch, a tag, a full name that begins with `refs/`, a commit's 40 hexadecimal digits, or `HEAD`; `None` for
    /// what git-check-ref-format(1) would not let be a name, or characters beyond letters, digits and `._-/+`.
    pub fn read(text: &str) -> Option<Self> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-/+".contains(&b);
        let part = |part: &str| !part.is_empty() && !part.starts_with(['.', '-']) && !part.ends_with(".lock");
        let sound = text.len() <= 200 && text.bytes().all(plain) && text.split('/').all(part);
        if !sound || text.contains("..") || text.ends_with('.') {
            return None;
        }
        Some(match Id::read(text.as_bytes()) {
            Some(id) => Self::Commit(id),
            None if text == "HEAD" => Self::Head,
            None if text.starts_with("refs/") => Self::Full(text.to_owned()),
            None => Self::Name(text.to_owned()),
        })
    }

    fn full(&self) -> Vec<String> {
        match self {
            Self::Head => vec!["HEAD".to_owned()],
            Self::Name(name) => vec![format!("refs/heads/{name}"), format!("refs/tags/{name}")],
            Self::Full(name) => vec![name.clone()],
            Self::Commit(_) => Vec::new(),
        }
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Head => out.write_str("HEAD"),
            Self::Name(name) => write!(out, "branch or tag {name}"),
            Self::Full(name) => out.write_str(name),
            Self::Commit(id) => write!(out, "commit {id}"),
        }
    }
}

/// What a name is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    /// In full, such as `refs/heads/main`; `HEAD` where that is no branch.
    pub name: String,
    /// The object.
    pub id: Id,
}

/// Reads what a server says that it can do (`GET info/refs?service=git-upload-pack` with `Git-Protocol: version=2`).
///
/// # Errors
/// When it is not what we need.
pub fn advertised(answer: &[u8]) -> Result<(), GitError> {
    let mut packets = Packets::new(answer);
    let mut first = packets.read()?;
    if matches!(first, Some(Packet::Data(data)) if data.starts_with(b"# service=git-upload-pack")) {
        while matches!(first, Some(Packet::Data(_))) {
            first = packets.read()?;
        }
        first = packets.read()?;
    }
    match first {
        Some(Packet::Data(data)) if data.trim_ascii_end() == b"version 2" => {}
        Some(Packet::Data(_)) => return Err(GitError::Version),
        Some(Packet::Flush | Packet::Delimiter) | None => return Err(GitError::Answer("it says nothing")),
    }
    let (mut refs, mut fetch) = (false, false);
    while let Some(Packet::Data(data)) = packets.read()? {
        let (name, value) = pair(data.trim_ascii_end(), b'=');
        match name {
            b"ls-refs" => refs = true,
            b"fetch" => fetch = true,
            b"object-format" if value != b"sha1" => return Err(GitError::Format(said(value))),
            _ => {}
        }
    }
    match refs && fetch {
        true => Ok(()),
        false => Err(GitError::Answer("it gives neither names nor packs")),
    }
}

fn pair(data: &[u8], at: u8) -> (&[u8], &[u8]) {
    let mut parts = data.splitn(2, |byte| *byte == at);
    (parts.next().unwrap_or_default(), parts.next().unwrap_or_default())
}

/// The question which objects names are; `None` where it need not be asked.
pub fn ask_refs(wanted: &Wanted) -> Option<Vec<u8>> {
    let names = wanted.full();
    if names.is_empty() {
        return None;
    }
    let mut out = Vec::new();
    line(&mut out, "command=ls-refs");
    out.extend_from_slice(b"0001");
    line(&mut out, "symrefs");
    for name in names {
        line(&mut out, &format!("ref-prefix {name}"));
    }
    out.extend_from_slice(b"0000");
    Some(out)
}

/// Reads the answer. A prefix gives longer names too; those are passed over.
///
/// # Errors
/// When it makes no sense, or the name is not there or not clear.
pub fn read_refs(answer: &[u8], wanted: &Wanted) -> Result<Found, GitError> {
    let names = wanted.full();
    let mut packets = Packets::new(answer);
    let mut found: Vec<Found> = Vec::new();
    loop {
        let data = match packets.read()? {
            Some(Packet::Data(data)) => data.trim_ascii_end(),
            Some(Packet::Flush) => break,
            Some(Packet::Delimiter) => return Err(GitError::Answer("a section where names belong")),
            None => return Err(GitError::Short),
        };
        let (id, rest) = pair(data, b' ');
        let (name, rest) = pair(rest, b' ');
        let id = Id::read(id).ok_or(GitError::Answer("a name without an object"))?;
        let Some(name) = names.iter().find(|wanted| wanted.as_bytes() == name) else {
            continue;
        };
        if found.iter().any(|known| known.name == *name) {
            return Err(GitError::Answer("a name that is there twice"));
        }
        let target = rest
            .split(|byte| *byte == b' ')
            .find_map(|word| word.strip_prefix(b"symref-target:"))
            .and_then(|target| std::str::from_utf8(target).ok());
        let target = target.filter(|target| target.starts_with("refs/") && Wanted::read(target).is_some());
        // Only what HEAD stands for is of interest; other names that stand for names are those.
        let name = target.filter(|_| *wanted == Wanted::Head).unwrap_or(name).to_owned();
        found.push(Found { name, id });
    }
    match (found.pop(), found.is_empty(), wanted) {
        (Some(one), true, _) => Ok(one),
        (Some(_), false, Wanted::Name(name)) => Err(GitError::Ambiguous(name.clone())),
        (Some(_), false, _) => Err(GitError::Answer("a name that is there twice")),
        (None, ..) => Err(GitError::Missing(wanted.to_string())),
    }
}

/// The question for a commit or tag with all of its history.
pub fn ask_pack(id: Id) -> Vec<u8> {
    let mut out = Vec::new();
    line(&mut out, "command=fetch");
    out.extend_from_slice(b"0001");
    for word in ["ofs-delta", "no-progress", &format!("want {id}"), "done"] {
        line(&mut out, word);
    }
    out.extend_from_slice(b"0000");
    out
}

/// The pack in the answer, in the same memory.
///
/// # Errors
/// When it makes no sense, is cut short, or the server says why it gives none.
pub fn read_pack(mut answer: Vec<u8>) -> Result<Vec<u8>, GitError> {
    let mut pieces: Vec<(usize, usize)> = Vec::new();
    let mut packets = Packets::new(&answer);
    match packets.read()? {
        Some(Packet::Data(data)) if data.trim_ascii_end() == b"packfile" => {}
        Some(_) => return Err(GitError::Answer("something else where a pack belongs")),
        None => return Err(GitError::Short),
    }
    loop {
        let at = packets.offset();
        match packets.read()? {
            Some(Packet::Data([1, piece @ ..])) => pieces.push((at.saturating_add(5), piece.len())),
            Some(Packet::Data([2, ..])) => {}
            Some(Packet::Data([3, words @ ..])) => return Err(GitError::Said(said(words))),
            Some(Packet::Flush) => break,
            Some(_) => return Err(GitError::Answer("something else within a pack")),
            None => return Err(GitError::Short),
        }
    }
    if packets.read()?.is_some() {
        return Err(GitError::Answer("something behind a pack"));
    }
    let mut to = 0_usize;
    for (from, length) in pieces {
        answer.copy_within(from..from.saturating_add(length), to);
        to = to.saturating_add(length);
    }
    answer.truncate(to);
    Ok(answer)
}

//! A release as it was downloaded: media, `SHA256SUMS` over them, and `SHA256SUMS.minisig` over that.
//!
//! The list is believed only under its signature, and read strictly: every line of it is a file of the same folder. What is
//! beside the list's files and not on the list is told too, as nobody vouches for it.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rackbar_model::Digest;
use rackbar_trust::Sha256;
use rackbar_upstream::{MAX_TEXT, MinisignError, MinisignKey, minisign};

/// The list of digests.
pub const SUMS: &str = "SHA256SUMS";
/// Its signature.
pub const SIGNATURE: &str = "SHA256SUMS.minisig";
/// The public key beside them: for convenience, and proof of nothing.
pub const KEY: &str = "rackbar-release.pub";

/// Why nothing of a release is believed.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// A file could not be read.
    #[error("reading {}: {source}{}", path.display(), hint(path, source))]
    Read {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The signature.
    #[error("{}: {source}; do not use these files, and get them anew from where you trust", path.display())]
    Signature {
        /// Of the signature.
        path: PathBuf,
        /// What is wrong with it.
        source: MinisignError,
    },
    /// The list.
    #[error("{}, line {line}: {what}", path.display())]
    List {
        /// Of the list.
        path: PathBuf,
        /// From one.
        line: usize,
        /// What is wrong.
        what: &'static str,
    },
    /// A file that was asked for alone.
    #[error("{SUMS} says nothing of {0}: it is no part of this release, or has another name than there")]
    NotListed(String),
}

fn hint(path: &Path, source: &io::Error) -> &'static str {
    let list = path.ends_with(SUMS) || path.ends_with(SIGNATURE);
    if list && source.kind() == io::ErrorKind::NotFound {
        "; SHA256SUMS and SHA256SUMS.minisig must lie beside the media, so download them too"
    } else {
        ""
    }
}

/// What is not as the list says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Difference {
    /// Another content.
    Differs {
        /// The file.
        name: String,
        /// What the list says.
        promised: Digest,
        /// What it has.
        found: Digest,
    },
    /// It is not there.
    Missing(String),
    /// It is there and not on the list.
    Unlisted(String),
    /// It cannot be read, or is no file.
    Unreadable {
        /// The file.
        name: String,
        /// What the system said.
        why: String,
    },
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Differs { name, promised, found } => {
                write!(f, "{name} differs: its SHA-256 is {found}, and {promised} was promised")
            }
            Self::Missing(name) => write!(f, "{name} is missing"),
            Self::Unlisted(name) => write!(f, "{name:?} is not on the list: nobody vouches for it"),
            Self::Unreadable { name, why } => write!(f, "{name} cannot be read: {why}"),
        }
    }
}

/// A release whose signature is good.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Checked {
    /// What the signer says of it: name and version.
    pub said: String,
    /// Files that were compared and are as promised.
    pub good: Vec<String>,
    /// What is not as promised. Only an empty list is a good release.
    pub differences: Vec<Difference>,
}

/// Checks a release by its maker's `key`: the whole folder, or one file of it with the list beside it.
///
/// # Errors
/// When nothing can be believed: no list, no good signature, or a file that the list does not name.
pub fn check(path: &Path, key: &MinisignKey) -> Result<Checked, ReleaseError> {
    let whole = fs::metadata(path).map_err(|source| unread(path, source))?.is_dir();
    let folder = match path.parent() {
        _ if whole => path,
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let sums = folder.join(SUMS);
    let (text, signature) = (text(&sums)?, text(&folder.join(SIGNATURE))?);
    let said = minisign(text.as_bytes(), &signature, key).map_err(|source| ReleaseError::Signature {
        path: folder.join(SIGNATURE),
        source,
    })?;
    let mut list = read_list(&text).map_err(|(line, what)| ReleaseError::List { path: sums, line, what })?;
    if !whole {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let digest = list.remove(&name).ok_or(ReleaseError::NotListed(name.clone()))?;
        list = BTreeMap::from([(name, digest)]);
    }
    let (good, mut differences) = compare(folder, &list);
    if whole {
        differences.extend(unlisted(folder, &list).map_err(|source| unread(folder, source))?);
    }
    Ok(Checked {
        said: said.to_owned(),
        good,
        differences,
    })
}

/// The files of a folder that has no signature yet, held against its list: what is not as it says.
///
/// # Errors
/// When list or folder cannot be read.
pub fn differences(folder: &Path) -> Result<Vec<Difference>, ReleaseError> {
    let path = folder.join(SUMS);
    let list = read_list(&text(&path)?).map_err(|(line, what)| ReleaseError::List { path, line, what })?;
    let (_, mut found) = compare(folder, &list);
    found.extend(unlisted(folder, &list).map_err(|source| unread(folder, source))?);
    Ok(found)
}

fn unread(path: &Path, source: io::Error) -> ReleaseError {
    ReleaseError::Read {
        path: path.to_owned(),
        source,
    }
}

/// A text of at most [`MAX_TEXT`] letters.
fn text(path: &Path) -> Result<String, ReleaseError> {
    let mut text = String::new();
    let file = File::open(path).map_err(|source| unread(path, source))?;
    file.take(MAX_TEXT as u64 + 1)
        .read_to_string(&mut text)
        .map_err(|source| unread(path, source))?;
    if text.len() > MAX_TEXT {
        return Err(unread(path, io::Error::other("it is longer than 1 MiB")));
    }
    Ok(text)
}

/// Reads a list as `sha256sum` writes it, of files of one folder: names and digests, or the line that is wrong, and why.
///
/// # Errors
/// At the first line that is no digest and name, is of another folder, or names a file again.
pub fn read_list(text: &str) -> Result<BTreeMap<String, Digest>, (usize, &'static str)> {
    let mut list = BTreeMap::new();
    for (at, line) in text.lines().enumerate() {
        let wrong = |what| (at + 1, what);
        let (digest, name) = line
            .split_once("  ")
            .ok_or_else(|| wrong("no digest and name with two blanks between them"))?;
        let digest = digest
            .parse()
            .map_err(|_| wrong("no SHA-256 of 64 hexadecimal digits"))?;
        if name.is_empty()
            || [".", ".."].contains(&name)
            || name.contains(['/', '\\'])
            || name.chars().any(char::is_control)
        {
            return Err(wrong("no name of a file in the same folder"));
        }
        if list.insert(name.to_owned(), digest).is_some() {
            return Err(wrong("this file stands on an earlier line too"));
        }
    }
    if list.is_empty() {
        return Err((1, "the list is empty"));
    }
    Ok(list)
}

/// Those that are as promised, and the others.
fn compare(folder: &Path, list: &BTreeMap<String, Digest>) -> (Vec<String>, Vec<Difference>) {
    let (mut good, mut differences) = (Vec::new(), Vec::new());
    for (name, promised) in list {
        let name = name.clone();
        match digest(&folder.join(&name)) {
            Ok(found) if found == *promised => good.push(name),
            Ok(found) => differences.push(Difference::Differs {
                name,
                promised: *promised,
                found,
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => differences.push(Difference::Missing(name)),
            Err(error) => differences.push(Difference::Unreadable {
                name,
                why: error.to_string(),
            }),
        }
    }
    (good, differences)
}

fn digest(path: &Path) -> io::Result<Digest> {
    // A pipe would keep whoever opens it waiting.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    let (mut file, mut hash, mut piece) = (File::open(path)?, Sha256::new(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut piece) {
            Ok(0) => return Ok(Digest(hash.finish())),
            Ok(read) => hash.update(piece.get(..read).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn unlisted(folder: &Path, list: &BTreeMap<String, Digest>) -> io::Result<Vec<Difference>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !list.contains_key(&name) && ![SUMS, SIGNATURE, KEY].contains(&name.as_str()) {
            names.push(name);
        }
    }
    names.sort();
    Ok(names.into_iter().map(Difference::Unlisted).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_list_is_read_strictly() {
        let (a, b) = ("0a".repeat(32), "0b".repeat(32));
        let list = read_list(&format!("{a}  rackbar.img\n{b}  rackbar.iso\n")).unwrap();
        assert_eq!(list.get("rackbar.iso"), Some(&Digest([0x0b; 32])));
        for (bad, line) in [
            (String::new(), 1),
            (format!("{a}  x\n\n"), 2),
            (format!("{a}  x\n{a} *y"), 2),
            (format!("{a}  x\n{b}  x"), 2),
            (format!("{a}  ../x"), 1),
            (format!("{a}  .."), 1),
            (format!("{a}  x\u{7}"), 1),
            (format!("{a}1  x"), 1),
        ] {
            assert_eq!(read_list(&bad).unwrap_err().0, line, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(?s).{0,300}") {
            let _ = read_list(&text);
        }
    }
}

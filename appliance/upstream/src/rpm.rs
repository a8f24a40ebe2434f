//! What the lists of RPM repositories say of a file, `repomd.xml` and `primary.xml` alike: its digest and where it lies.

use crate::release::in_words;
use crate::sums::Sum;
use crate::xml::{Tag, XmlError};

/// Bytes of a file's path at most.
const MAX_PATH: usize = 1024;

/// Why a list of an RPM repository is refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RpmError {
    /// It is no sound XML, or another document.
    #[error(transparent)]
    Xml(#[from] XmlError),
    /// Something is not said.
    #[error("{of} has no {what}")]
    Missing {
        /// Of which file or package.
        of: String,
        /// What is not said.
        what: &'static str,
    },
    /// Something is said twice.
    #[error("{of} has {what} twice")]
    Twice {
        /// Of which file or package.
        of: String,
        /// What it is.
        what: &'static str,
    },
    /// A value makes no sense.
    #[error("{of}: its {what} makes no sense: {value:?}")]
    Value {
        /// Of which file or package.
        of: String,
        /// What it is.
        what: &'static str,
        /// What it says.
        value: String,
    },
    /// A digest that does not count.
    #[error(
        "{of} has a checksum of the kind {kind:?}, and only SHA-256 (\"sha256\") and SHA-512 (\"sha512\") count; its publisher makes \
         such a list with `createrepo_c --checksum sha256`"
    )]
    Weak {
        /// Of which file or package.
        of: String,
        /// Which kind it is.
        kind: String,
    },
    /// A path that could lead elsewhere.
    #[error("{of} lies at {path:?}, {why}; such a list is not taken")]
    Path {
        /// Of which file or package.
        of: String,
        /// The path.
        path: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// One path with two digests.
    #[error("{0} is listed with two different digests")]
    Conflict(String),
    /// There is no list of packages.
    #[error("it names no list of packages (`primary`)")]
    NoPrimary,
    /// It does not say of when it is.
    #[error("it says no time, without which an old one cannot be told from a new one")]
    NoDate,
    /// It is from the future.
    #[error("it says that it is of {}, and the clock here says {}; see `rackbar status` for the clock", in_words(*.date), in_words(*.now))]
    Future {
        /// When it says that it was made.
        date: u64,
        /// The clock's time.
        now: u64,
    },
    /// It is too long.
    #[error("it lists more than {0}, and no more are taken")]
    Many(&'static str),
}

/// What is said of one file, as it is read.
#[derive(Default)]
pub(crate) struct Said {
    checksum: Option<(String, String)>,
    location: Option<(String, bool)>,
}

/// Puts a value in its place, in which there must be none.
pub(crate) fn once<T>(place: &mut Option<T>, value: T, of: &str, what: &'static str) -> Result<(), RpmError> {
    match place.replace(value) {
        Some(_) => Err(RpmError::Twice { of: of.into(), what }),
        None => Ok(()),
    }
}

/// A number in decimal digits.
pub(crate) fn number(text: &str, of: &str, what: &'static str) -> Result<u64, RpmError> {
    let sound = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|_| sound).ok_or_else(|| RpmError::Value {
        of: of.into(),
        what,
        value: text.chars().take(40).collect(),
    })
}

impl Said {
    /// The checksum's kind and digits.
    pub(crate) fn checksum(&mut self, tag: &Tag, digits: String, of: &str) -> Result<(), RpmError> {
        let kind = tag.get("type").unwrap_or_default().to_owned();
        once(&mut self.checksum, (kind, digits), of, "checksum")
    }

    /// Where it lies.
    pub(crate) fn location(&mut self, tag: &Tag, of: &str) -> Result<(), RpmError> {
        let path = tag.get("href").unwrap_or_default().to_owned();
        once(
            &mut self.location,
            (path, tag.get("xml:base").is_some()),
            of,
            "location",
        )
    }

    /// Path and digest, once all is read.
    pub(crate) fn judged(self, of: &str) -> Result<(String, Sum), RpmError> {
        let missing = |what| RpmError::Missing { of: of.into(), what };
        let (kind, hex) = self.checksum.ok_or_else(|| missing("checksum"))?;
        let (path, based) = self.location.ok_or_else(|| missing("location"))?;
        let sum = Sum::named(&kind, &hex).ok_or_else(|| RpmError::Weak {
            of: of.into(),
            kind: kind.chars().take(40).collect(),
        })?;
        let sum = sum.ok_or_else(|| RpmError::Value {
            of: of.into(),
            what: "checksum",
            value: hex.chars().take(80).collect(),
        })?;
        let why = match based {
            true => Some("with a base of its own (xml:base), so outside of the repository"),
            false => wrong(&path),
        };
        match why {
            Some(why) => {
                let path = path.chars().take(200).collect();
                let of = of.into();
                Err(RpmError::Path { of, path, why })
            }
            None => Ok((path.strip_prefix("./").unwrap_or(&path).to_owned(), sum)),
        }
    }
}

/// What is wrong with a path below a repository's URL. Escapes are not taken: who undoes them sees another path.
fn wrong(path: &str) -> Option<&'static str> {
    let plain = path.strip_prefix("./").unwrap_or(path);
    let strange = |b: u8| !b.is_ascii_graphic() || b"%?#\\\"<>`{}|".contains(&b);
    let parts = || plain.split('/');
    if plain.is_empty() {
        Some("which is nowhere")
    } else if plain.len() > MAX_PATH {
        Some("which is longer than 1024 bytes")
    } else if path.starts_with('/') {
        Some("which begins at the server's root, and not at the repository's")
    } else if plain.contains("://") || parts().next().is_some_and(|first| first.contains(':')) {
        Some("which is a URL and no path")
    } else if parts().any(|part| part == "..") {
        Some("which leads out of the repository")
    } else if parts().any(|part| part.is_empty() || part == ".") {
        Some("which has an empty part")
    } else if plain.bytes().any(strange) {
        Some("which has characters that are read differently by different programs")
    } else if matches!(plain, "repodata/repomd.xml" | "repodata/repomd.xml.asc") {
        Some("which is where the signed list itself lies")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_below_the_repository_or_refused() {
        for good in [
            "a.rpm",
            "./a.rpm",
            "Packages/g/gtk+-2.0~rc1^git1-1.noarch.rpm",
            "x/1:2-3.rpm",
            "..a/b..rpm",
        ] {
            assert_eq!(wrong(good), None, "{good}");
        }
        for bad in [
            "",
            "./",
            "/etc/passwd",
            "../a.rpm",
            "a/../../b",
            "a/..",
            "http://b.example/a.rpm",
            "file:a.rpm",
            "a://b",
            "a//b",
            "a/./b",
            "%2e%2e/a.rpm",
            "a.rpm?x",
            "a#b",
            "a\\b",
            "a b",
            "a\nb",
            "ä.rpm",
            "repodata/repomd.xml",
            ".//etc",
        ] {
            assert!(wrong(bad).is_some(), "{bad}");
        }
        assert!(wrong(&"a".repeat(1025)).is_some());
    }
}

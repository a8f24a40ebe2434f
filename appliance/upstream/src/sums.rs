//! Lists of digests: `sha256sum` and `sha512sum` of coreutils, BSD's `SHA256 (file) = digest`, Fedora's CHECKSUM, which has
//! comments around the second.

use std::fmt;

use rackbar_trust::{Sha256, Sha512};

/// Lines of a list that are read.
const MAX_LINES: usize = 20_000;

/// A digest of a file.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum Sum {
    /// SHA-256.
    Sha256([u8; 32]),
    /// SHA-512.
    Sha512([u8; 64]),
}

impl Sum {
    /// Reads 64 or 128 hexadecimal digits; `None` for anything else.
    pub fn read(hex: &str) -> Option<Self> {
        match hex.len() {
            64 => digits(hex).map(Self::Sha256),
            128 => digits(hex).map(Self::Sha512),
            _ => None,
        }
    }

    /// Reads the digits of a digest whose kind is named in lower case, as RPM's lists do; `None` when that is another kind, and
    /// `Some(None)` when these are no digits of one.
    pub(crate) fn named(kind: &str, hex: &str) -> Option<Option<Self>> {
        match kind {
            "sha256" => Some(digits(hex).map(Self::Sha256)),
            "sha512" => Some(digits(hex).map(Self::Sha512)),
            _ => None,
        }
    }

    /// What people call its kind.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Sha256(_) => "SHA-256",
            Self::Sha512(_) => "SHA-512",
        }
    }

    /// Whether it is that of these bytes.
    pub fn is_of(&self, bytes: &[u8]) -> bool {
        let mut summing = Summing::like(self);
        summing.update(bytes);
        summing.finish() == *self
    }
}

/// A digest in the making, of the kind that a promised one has.
#[derive(Clone)]
pub enum Summing {
    /// SHA-256.
    Sha256(Sha256),
    /// SHA-512.
    Sha512(Sha512),
}

impl Summing {
    /// Over nothing yet, of the kind of `sum`.
    pub fn like(sum: &Sum) -> Self {
        match sum {
            Sum::Sha256(_) => Self::Sha256(Sha256::new()),
            Sum::Sha512(_) => Self::Sha512(Sha512::new()),
        }
    }

    /// Adds the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hash) => hash.update(bytes),
            Self::Sha512(hash) => hash.update(bytes),
        }
    }

    /// The digest of all bytes added.
    pub fn finish(self) -> Sum {
        match self {
            Self::Sha256(hash) => Sum::Sha256(hash.finish()),
            Self::Sha512(hash) => Sum::Sha512(hash.finish()),
        }
    }
}

/// As the lists write it.
impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes: &[u8] = match self {
            Self::Sha256(bytes) => bytes,
            Self::Sha512(bytes) => bytes,
        };
        bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a list does not name the file.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SumsError {
    /// It is too long.
    #[error("it has more than {MAX_LINES} lines, and such a list is not read")]
    Long,
    /// The pattern is none.
    #[error("{0:?} is no file's name: one `*` may be in it, and no `/` at its beginning")]
    Pattern(String),
    /// No line is of it.
    #[error("no line of it has a SHA-256 or SHA-512 of {0:?}")]
    Missing(String),
    /// Several files fit.
    #[error("{pattern:?} fits several of its files ({first}, {second}); name one")]
    Several {
        /// What was asked for.
        pattern: String,
        /// One that fits.
        first: String,
        /// Another.
        second: String,
    },
    /// Two digests for one file.
    #[error("it has two different digests of {0:?}")]
    Conflict(String),
}

/// A list of digests.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Sums(Vec<(String, Sum)>);

impl Sums {
    /// Reads a list. Lines that are of no file, or of a kind of digest that does not count any more, are passed over: such
    /// lists have comments, and MD5 and SHA-1 beside.
    ///
    /// # Errors
    /// When it is too long.
    pub fn read(text: &str) -> Result<Self, SumsError> {
        if text.lines().nth(MAX_LINES).is_some() {
            return Err(SumsError::Long);
        }
        Ok(Self(text.lines().filter_map(line).collect()))
    }

    /// The file that a name or a pattern with one `*` fits, as the list writes it (without `./` in front), and its digest. `*`
    /// stands for any letters but `/`. Where a list has both digests of a file, SHA-512.
    ///
    /// # Errors
    /// When none or several files fit, or the list contradicts itself.
    pub fn find(&self, pattern: &str) -> Result<(&str, Sum), SumsError> {
        let parts: Vec<&str> = pattern.split('*').collect();
        if pattern.is_empty() || pattern.starts_with('/') || parts.len() > 2 || pattern.chars().any(char::is_control) {
            return Err(SumsError::Pattern(pattern.to_owned()));
        }
        let fits = |name: &str| match parts.as_slice() {
            [front, back] => {
                let middle = name.strip_prefix(front).and_then(|rest| rest.strip_suffix(back));
                middle.is_some_and(|middle| !middle.contains('/'))
            }
            _ => name == pattern,
        };
        let mut found: Option<(&str, Sum)> = None;
        for (name, sum) in self.0.iter().filter(|(name, _)| fits(name)) {
            found = Some(match found {
                None => (name, *sum),
                Some((first, _)) if first != name => {
                    return Err(SumsError::Several {
                        pattern: pattern.to_owned(),
                        first: first.to_owned(),
                        second: name.clone(),
                    });
                }
                Some((_, before)) => (name, stronger(name, before, *sum)?),
            });
        }
        found.ok_or_else(|| SumsError::Missing(pattern.to_owned()))
    }
}

fn stronger(name: &str, one: Sum, other: Sum) -> Result<Sum, SumsError> {
    match (one, other) {
        (Sum::Sha256(_), Sum::Sha512(_)) => Ok(other),
        (Sum::Sha512(_), Sum::Sha256(_)) => Ok(one),
        _ if one == other => Ok(one),
        _ => Err(SumsError::Conflict(name.to_owned())),
    }
}

fn line(line: &str) -> Option<(String, Sum)> {
    let (name, sum) = match line.strip_prefix("SHA256 (").or_else(|| line.strip_prefix("SHA512 (")) {
        Some(rest) => {
            let (name, sum) = rest.rsplit_once(") = ")?;
            // The digest must be of the kind that the line names.
            let digits = if line.starts_with("SHA256") { 64 } else { 128 };
            (name, Some(sum.trim_end()).filter(|sum| sum.len() == digits)?)
        }
        None => {
            let (sum, rest) = line.split_once(' ')?;
            // The second letter says how the file was opened: ` ` as text, `*` as bytes. Some write one blank alone.
            (rest.strip_prefix([' ', '*']).unwrap_or(rest), sum)
        }
    };
    let name = name.strip_prefix("./").unwrap_or(name);
    let plain = !name.is_empty() && !name.starts_with('/') && !name.chars().any(char::is_control);
    let climbs = name.split('/').any(|part| part == "..");
    (plain && !climbs).then_some(())?;
    Some((name.to_owned(), Sum::read(sum)?))
}

/// Exactly so many bytes of hexadecimal digits.
pub(crate) fn digits<const N: usize>(hex: &str) -> Option<[u8; N]> {
    let mut out = [0; N];
    let mut pairs = hex.as_bytes().chunks_exact(2);
    for byte in &mut out {
        let &[high, low] = pairs.next()? else { return None };
        let value = |digit: u8| char::from(digit).to_digit(16);
        *byte = u8::try_from(value(high)? << 4 | value(low)?).ok()?;
    }
    (pairs.next().is_none() && pairs.remainder().is_empty()).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hex(byte: u8, digits: usize) -> String {
        format!("{byte:02x}").repeat(digits / 2)
    }

    fn list(text: &str) -> Sums {
        Sums::read(text).unwrap()
    }

    #[test]
    fn lists_of_all_writers_are_read() {
        let (a, b, c) = (hex(1, 64), hex(2, 128), hex(0xab, 64).to_uppercase());
        let sums = list(&format!(
            "# a comment\n{a}  plain.img\n{a} *binary.img\n{a}  ./netboot/mini.iso\nSHA512 (bsd (1).img) = {b}\n\
             SHA256 (bsd.img) = {c}\nSHA256 (wrong.img) = {b}\nMD5 (old.img) = {a}\n{a}  /etc/passwd\n{a}  a/../b\n{a}x  long\n\
             d41d8cd98f00b204e9800998ecf8427e  md5.img\n"
        ));
        let find = |name: &str| sums.find(name).map(|(name, sum)| (name.to_owned(), sum));
        for name in ["plain.img", "binary.img", "netboot/mini.iso"] {
            assert_eq!(find(name).unwrap(), (name.to_owned(), Sum::Sha256([1; 32])));
        }
        assert_eq!(find("bsd (1).img").unwrap().1, Sum::Sha512([2; 64]));
        assert_eq!(find("bsd.img").unwrap().1, Sum::Sha256([0xab; 32]));
        for name in ["wrong.img", "old.img", "md5.img", "long", "a/../b", "etc/passwd"] {
            assert_eq!(find(name), Err(SumsError::Missing(name.into())), "{name}");
        }
        assert_eq!(Sum::Sha256([0xab; 32]).to_string(), hex(0xab, 64));
    }

    #[test]
    fn one_star_stands_for_one_file_and_no_slash() {
        let (a, b) = (hex(1, 64), hex(2, 64));
        let sums = list(&format!(
            "{a}  d-12.1-amd64.img\n{b}  d-12.1-arm64.img\n{b}  x/d-1-amd64.img\n{a}  ab\n"
        ));
        assert_eq!(sums.find("d-*-amd64.img").unwrap().0, "d-12.1-amd64.img");
        assert!(matches!(sums.find("d-*"), Err(SumsError::Several { .. })));
        assert!(matches!(sums.find("*-amd64.img"), Ok(("d-12.1-amd64.img", _))));
        assert_eq!(
            sums.find("ab*b"),
            Err(SumsError::Missing("ab*b".into())),
            "one letter is not counted twice"
        );
        for bad in ["", "/x", "a*b*c", "a\nb"] {
            assert!(matches!(sums.find(bad), Err(SumsError::Pattern(_))), "{bad:?}");
        }
    }

    #[test]
    fn the_stronger_digest_counts_and_contradictions_are_refused() {
        let (a, b, c) = (hex(1, 64), hex(2, 128), hex(3, 64));
        assert_eq!(
            list(&format!("{a}  f\n{b}  f\n{a}  f\n")).find("f").unwrap().1,
            Sum::Sha512([2; 64])
        );
        assert_eq!(
            list(&format!("{a}  f\n{c}  f\n")).find("f"),
            Err(SumsError::Conflict("f".into()))
        );
        assert_eq!(Sums::read(&"\n".repeat(MAX_LINES + 1)), Err(SumsError::Long));
    }

    #[test]
    fn the_digest_of_a_kind_is_read_from_its_own_number_of_digits_alone() {
        let (short, long) = (hex(1, 64), hex(2, 128));
        assert_eq!(Sum::named("sha256", &short), Some(Some(Sum::Sha256([1; 32]))));
        assert_eq!(Sum::named("sha512", &long), Some(Some(Sum::Sha512([2; 64]))));
        for (kind, digits) in [
            ("sha256", long.as_str()),
            ("sha512", short.as_str()),
            ("sha256", &short[1..]),
            ("sha512", &long[2..]),
            ("sha512", &format!("{long}00")),
            ("sha512", &long.replacen('0', "g", 1)),
            ("sha256", ""),
        ] {
            assert_eq!(Sum::named(kind, digits), Some(None), "{kind} {digits}");
        }
        for kind in [
            "sha", "sha1", "md5", "sha224", "sha384", "SHA256", "SHA512", "sha-512", "sha512 ", "",
        ] {
            assert_eq!(
                (Sum::named(kind, &short), Sum::named(kind, &long)),
                (None, None),
                "{kind}"
            );
        }
    }

    proptest! {
        #[test]
        fn a_digest_is_that_of_its_bytes_however_they_come_and_of_no_others(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..4),
            at in any::<prop::sample::Index>(), long in any::<bool>(),
        ) {
            let like = if long { Sum::Sha512([0; 64]) } else { Sum::Sha256([0; 32]) };
            let mut summing = Summing::like(&like);
            pieces.iter().for_each(|piece| summing.update(piece));
            let (sum, mut bytes) = (summing.finish(), pieces.concat());
            prop_assert_eq!(sum.kind(), like.kind());
            prop_assert!(sum.is_of(&bytes));
            prop_assert_eq!(Sum::read(&sum.to_string()), Some(sum));
            bytes.push(0);
            prop_assert!(!sum.is_of(&bytes));
            let at = at.index(bytes.len());
            bytes[at] ^= 1;
            bytes.pop();
            prop_assert!(at == bytes.len() || !sum.is_of(&bytes));
        }

        #[test]
        fn no_text_makes_it_panic(text in "(?s).{0,300}", pattern in "(?s).{0,20}") {
            if let Ok(sums) = Sums::read(&text) {
                let _ = sums.find(&pattern);
            }
            let _ = Sum::read(&text);
        }

        #[test]
        fn what_is_written_is_read(bytes in any::<[u8; 32]>(), name in "[a-z][a-z0-9./ -]{0,20}[a-z]") {
            prop_assume!(!name.contains(".."));
            let sums = list(&format!("{}  {name}\n", Sum::Sha256(bytes)));
            prop_assert_eq!(sums.find(&name).unwrap(), (name.as_str(), Sum::Sha256(bytes)));
        }
    }
}

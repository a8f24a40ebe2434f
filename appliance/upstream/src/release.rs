//! Debian's Release (repository format, `https://wiki.debian.org/DebianRepository/Format`), and what protects from an old one.

use std::time::{Duration, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::sums::{Sum, digits};

/// Lines that are read.
const MAX_LINES: usize = 50_000;

/// What a Release says that we look at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Release {
    /// `Suite`, when it is said.
    pub suite: Option<String>,
    /// `Codename`, when it is said.
    pub codename: Option<String>,
    /// When it was made, in seconds since 1970.
    pub date: u64,
    /// Until when it counts, in seconds since 1970.
    pub valid_until: Option<u64>,
    /// It says that its lists can be asked for by their digests too.
    pub by_hash: bool,
    /// Files by their paths below the suite, with their sizes in bytes.
    files: Vec<(String, u64, [u8; 32])>,
    /// The same files with their SHA-512, in hexadecimal digits: clients ask by this one where it is said.
    long: Vec<(String, String)>,
}

/// Why a Release is refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ReleaseError {
    /// It is too long.
    #[error("it has more than {MAX_LINES} lines, and such a Release is not read")]
    Long,
    /// It has no date.
    #[error("it has no Date, without which an old one cannot be told from a new one")]
    NoDate,
    /// A field makes no sense.
    #[error("its {field} makes no sense: {value:?}")]
    Field {
        /// Its name.
        field: &'static str,
        /// What it says.
        value: String,
    },
    /// A field is there twice.
    #[error("it has the field {0} twice")]
    Twice(&'static str),
    /// It is of another suite.
    #[error("it is of {found}, and {wanted} was asked for")]
    Suite {
        /// What was asked for.
        wanted: String,
        /// What it is of.
        found: String,
    },
    /// It does not count any more.
    #[error(
        "it was valid until {until}, and the clock here says {now}; the mirror is old, or this clock is wrong: see `rackbar status`"
    )]
    Expired {
        /// Its end.
        until: String,
        /// The clock's time.
        now: String,
    },
    /// A file is not on its list.
    #[error("its SHA256 list has no {0}")]
    Missing(String),
    /// A file is on its list with two digests.
    #[error("its SHA256 list has two different digests of {0}")]
    Conflict(String),
}

/// What was accepted last from a source, kept so that nothing older is accepted after it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Accepted {
    /// When the list was made or signed, in seconds since 1970.
    pub date: u64,
    /// SHA-256 of the signed text, in hexadecimal digits.
    pub text: String,
}

/// Why what is signed well is refused all the same.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ReplayError {
    /// It is older than what was accepted.
    #[error(
        "it is of {found}, and one of {known} was accepted before; an old one is being given out, by a mirror that is behind or by somebody"
    )]
    Older {
        /// Its date.
        found: String,
        /// The date of the one that was accepted.
        known: String,
    },
    /// It is of the same time and says something else.
    #[error("it is of {0}, as the one that was accepted before, and says something else")]
    Conflict(String),
}

impl Accepted {
    /// Whether this may follow `before`.
    ///
    /// # Errors
    /// When it is older, or of the same time and different.
    pub fn follows(&self, before: Option<&Self>) -> Result<(), ReplayError> {
        match before {
            Some(before) if self.date < before.date => Err(ReplayError::Older {
                found: in_words(self.date),
                known: in_words(before.date),
            }),
            Some(before) if self.date == before.date && self.text != before.text => {
                Err(ReplayError::Conflict(in_words(self.date)))
            }
            _ => Ok(()),
        }
    }
}

impl Release {
    /// Reads the text of a Release: what its signature covers, and nothing else.
    ///
    /// # Errors
    /// When it makes no sense.
    pub fn read(text: &str) -> Result<Self, ReleaseError> {
        let mut fields = Fields::default();
        let (mut in_list, mut in_long) = (false, false);
        for (count, line) in text.lines().enumerate() {
            if count >= MAX_LINES {
                return Err(ReleaseError::Long);
            }
            if line.starts_with([' ', '\t']) {
                if in_list {
                    fields.files.extend(entry(line));
                } else if in_long {
                    fields.long.extend(long_entry(line));
                }
                continue;
            }
            let Some((name, value)) = line.split_once(':') else {
                (in_list, in_long) = (false, false);
                continue;
            };
            in_list = name.eq_ignore_ascii_case("SHA256");
            in_long = name.eq_ignore_ascii_case("SHA512");
            fields.take(name, value.trim())?;
        }
        Ok(Self {
            suite: fields.suite,
            codename: fields.codename,
            date: fields.date.ok_or(ReleaseError::NoDate)?,
            valid_until: fields.valid_until,
            by_hash: fields.by_hash == Some(true),
            files: fields.files,
            long: fields.long,
        })
    }

    /// Every file of its list by its path below the suite, with its size in bytes and its SHA-256.
    pub fn files(&self) -> impl Iterator<Item = (&str, u64, [u8; 32])> {
        self.files
            .iter()
            .map(|(path, bytes, sum)| (path.as_str(), *bytes, *sum))
    }

    /// Every file of its list with its SHA-512 in hexadecimal digits, where it says that.
    pub fn long_digests(&self) -> impl Iterator<Item = (&str, &str)> {
        self.long.iter().map(|(path, digest)| (path.as_str(), digest.as_str()))
    }

    /// Whether it is of the suite that was asked for, and counts still. `now` is in seconds since 1970.
    ///
    /// # Errors
    /// When not.
    pub fn judge(&self, suite: &str, now: u64) -> Result<(), ReleaseError> {
        let names = [&self.suite, &self.codename];
        if !names.into_iter().flatten().any(|name| name == suite) {
            return Err(ReleaseError::Suite {
                wanted: suite.to_owned(),
                found: names.map(|name| name.as_deref().unwrap_or("no name")).join(" and "),
            });
        }
        self.still_counts(now)
    }

    /// Whether it counts still, of whatever suite it is: a flat one often has no name. `now` is in seconds since 1970.
    ///
    /// # Errors
    /// When not.
    pub fn still_counts(&self, now: u64) -> Result<(), ReleaseError> {
        match self.valid_until {
            Some(until) if until < now => Err(ReleaseError::Expired {
                until: in_words(until),
                now: in_words(now),
            }),
            _ => Ok(()),
        }
    }

    /// Size in bytes and digest of a file by its path below the suite.
    ///
    /// # Errors
    /// When it is not on the list, or twice with different digests.
    pub fn file(&self, path: &str) -> Result<(u64, Sum), ReleaseError> {
        let mut all = self.files.iter().filter(|(name, ..)| name == path);
        let (_, bytes, sum) = all.next().ok_or_else(|| ReleaseError::Missing(path.to_owned()))?;
        if all.any(|(_, other_bytes, other)| (other_bytes, other) != (bytes, sum)) {
            return Err(ReleaseError::Conflict(path.to_owned()));
        }
        Ok((*bytes, Sum::Sha256(*sum)))
    }
}

#[derive(Default)]
struct Fields {
    suite: Option<String>,
    codename: Option<String>,
    date: Option<u64>,
    valid_until: Option<u64>,
    listed: Option<()>,
    by_hash: Option<bool>,
    files: Vec<(String, u64, [u8; 32])>,
    long: Vec<(String, String)>,
}

impl Fields {
    fn take(&mut self, name: &str, value: &str) -> Result<(), ReleaseError> {
        fn once<T>(place: &mut Option<T>, name: &'static str, value: T) -> Result<(), ReleaseError> {
            match place.replace(value) {
                Some(_) => Err(ReleaseError::Twice(name)),
                None => Ok(()),
            }
        }
        // Names of fields are the same in upper and lower case (deb822).
        match name.to_ascii_lowercase().as_str() {
            "suite" => once(&mut self.suite, "Suite", value.to_owned()),
            "codename" => once(&mut self.codename, "Codename", value.to_owned()),
            "date" => once(&mut self.date, "Date", time("Date", value)?),
            "valid-until" => once(&mut self.valid_until, "Valid-Until", time("Valid-Until", value)?),
            "acquire-by-hash" => once(&mut self.by_hash, "Acquire-By-Hash", value == "yes"),
            "sha256" => once(&mut self.listed, "SHA256", ()),
            _ => Ok(()),
        }
    }
}

/// A line of a list: digest, size, path.
fn entry(line: &str) -> Option<(String, u64, [u8; 32])> {
    let mut words = line.split_ascii_whitespace();
    let (sum, bytes, path) = (words.next()?, words.next()?, words.next()?);
    words.next().is_none().then_some(())?;
    Some((path.to_owned(), bytes.parse().ok()?, digits(sum)?))
}

/// A line of a list of SHA-512: path and digest.
fn long_entry(line: &str) -> Option<(String, String)> {
    let mut words = line.split_ascii_whitespace();
    let (sum, _, path) = (words.next()?, words.next()?, words.next()?);
    let sound = words.next().is_none() && sum.len() == 128 && sum.bytes().all(|byte| byte.is_ascii_hexdigit());
    sound.then(|| (path.to_owned(), sum.to_ascii_lowercase()))
}

/// `Sat, 10 Jun 2023 08:53:33 UTC` in seconds since 1970. Days may have one digit; other zones than UTC are not written.
fn time(field: &'static str, value: &str) -> Result<u64, ReleaseError> {
    let wrong = || ReleaseError::Field {
        field,
        value: value.chars().take(80).collect(),
    };
    let words: Vec<&str> = value.split_ascii_whitespace().collect();
    let [weekday, day, month, year, clock, zone] = words.as_slice() else {
        return Err(wrong());
    };
    if !["UTC", "GMT", "+0000", "Z"].contains(zone) || !value.is_ascii() {
        return Err(wrong());
    }
    let text = format!("{weekday} {day:0>2} {month} {year} {clock} GMT");
    let time = httpdate::parse_http_date(&text).map_err(|_| wrong())?;
    time.duration_since(UNIX_EPOCH)
        .map(|since| since.as_secs())
        .map_err(|_| wrong())
}

/// A time in seconds since 1970, as it stands in sentences.
pub(crate) fn in_words(seconds: u64) -> String {
    // The year 9999, behind which a date is not written in four digits.
    let seconds = seconds.min(253_402_300_799);
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TEXT: &str = "Origin: Debian\nSuite: oldstable\nCodename: bookworm\nDate: Sat, 6 Sep 2025 09:15:22 UTC\n\
        Valid-Until: Sat, 13 Sep 2025 09:15:22 UTC\nMD5Sum:\n d41d8cd98f00b204e9800998ecf8427e 5 a/SHA256SUMS\nSHA256:\n \
        0101010101010101010101010101010101010101010101010101010101010101    77 a/SHA256SUMS\n short 1 b\nDescription: x\n \
        0202020202020202020202020202020202020202020202020202020202020202 1 c\n";
    const MADE: u64 = 1_757_150_122;

    #[test]
    fn a_release_gives_its_dates_and_files() {
        let release = Release::read(TEXT).unwrap();
        assert_eq!(release.date, MADE);
        assert_eq!(release.valid_until, Some(MADE + 7 * 86400));
        assert_eq!(release.file("a/SHA256SUMS").unwrap(), (77, Sum::Sha256([1; 32])));
        for path in ["b", "c", "SHA256SUMS"] {
            assert_eq!(release.file(path), Err(ReleaseError::Missing(path.into())));
        }
        for suite in ["bookworm", "oldstable"] {
            assert_eq!(release.judge(suite, MADE + 7 * 86400), Ok(()));
        }
        assert!(matches!(release.judge("trixie", MADE), Err(ReleaseError::Suite { .. })));
        let expired = release.judge("bookworm", MADE + 7 * 86400 + 1).unwrap_err();
        let words =
            "it was valid until Sat, 13 Sep 2025 09:15:22 GMT, and the clock here says Sat, 13 Sep 2025 09:15:23 GMT";
        assert!(expired.to_string().starts_with(words), "{expired}");
    }

    #[test]
    fn a_release_that_says_a_thing_twice_or_wrongly_is_refused() {
        let again = " 0303030303030303030303030303030303030303030303030303030303030303 77 a/SHA256SUMS\n short 1 b\n";
        let two = TEXT.replace(" short 1 b\n", again);
        let conflict = Release::read(&two).unwrap().file("a/SHA256SUMS");
        assert_eq!(conflict, Err(ReleaseError::Conflict("a/SHA256SUMS".into())));
        let read = |text: &str| Release::read(text).unwrap_err();
        assert_eq!(read(&TEXT.replace("Date:", "Data:")), ReleaseError::NoDate);
        assert_eq!(
            read(&format!("{TEXT}date: {}\n", "Sat, 6 Sep 2025 09:15:22 UTC")),
            ReleaseError::Twice("Date")
        );
        assert_eq!(read(&format!("{TEXT}Sha256:\n")), ReleaseError::Twice("SHA256"));
        for date in [
            "",
            "yesterday",
            "Sat, 6 Sep 2025 09:15:22 CET",
            "Sat, 66 Sep 2025 09:15:22 UTC",
            "Sat, 6 Sep 20255 09:15:22 UTC",
        ] {
            let text = TEXT.replace("Date: Sat, 6 Sep 2025 09:15:22 UTC", &format!("Date: {date}"));
            assert!(
                matches!(read(&text), ReleaseError::Field { field: "Date", .. }),
                "{date}"
            );
        }
        assert_eq!(read(&"\n".repeat(MAX_LINES + 1)), ReleaseError::Long);
    }

    #[test]
    fn nothing_older_follows_and_the_same_time_means_the_same_text() {
        let accepted = |date, text: &str| Accepted {
            date,
            text: text.into(),
        };
        let known = accepted(MADE, "a");
        assert_eq!(known.follows(None), Ok(()));
        assert_eq!(known.follows(Some(&known)), Ok(()));
        assert_eq!(accepted(MADE + 1, "b").follows(Some(&known)), Ok(()));
        assert!(matches!(
            accepted(MADE - 1, "a").follows(Some(&known)),
            Err(ReplayError::Older { .. })
        ));
        assert!(matches!(
            accepted(MADE, "b").follows(Some(&known)),
            Err(ReplayError::Conflict(_))
        ));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(?s).{0,300}", date in "[ -~]{0,40}", seconds in any::<u64>()) {
            let _ = Release::read(&text);
            let _ = Release::read(&TEXT.replace("Sat, 6 Sep 2025 09:15:22 UTC", &date));
            let _ = in_words(seconds);
        }
    }
}

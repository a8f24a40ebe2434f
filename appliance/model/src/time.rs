//! Points in time as data. Reading a clock is left to the programs.

use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Milliseconds since 1970-01-01T00:00:00Z, leap seconds not counted (POSIX time).
///
/// As text (and in JSON) it is RFC 3339 in UTC with milliseconds: `2026-11-20T17:24:28.123Z`. In postcard it is the number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// Milliseconds from `earlier` to `self`; 0 when the clock stepped back in between.
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// This point plus `millis` milliseconds.
    #[must_use]
    pub const fn plus(self, millis: u64) -> Self {
        Self(self.0.saturating_add(millis))
    }
}

/// Days of the Gregorian calendar in 400 years.
const DAYS_PER_ERA: u64 = 146_097;
/// Days from 0000-03-01 to 1970-01-01. Years that begin in March put the leap day last.
const EPOCH_DAYS: u64 = 719_468;
const MILLIS_PER_DAY: u64 = 86_400_000;

/// Year, month and day of a number of days since 1970-01-01.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + EPOCH_DAYS;
    let (era, of_era) = (days / DAYS_PER_ERA, days % DAYS_PER_ERA);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

/// Days since 1970-01-01 of a date; `None` before it.
fn days(year: u64, month: u64, day: u64) -> Option<u64> {
    let year = if month <= 2 { year.checked_sub(1)? } else { year };
    let shifted = if month > 2 { month - 3 } else { month + 9 };
    let of_era = (year % 400) * 365 + year % 400 / 4 - year % 400 / 100 + (153 * shifted + 2) / 5 + day - 1;
    (year / 400 * DAYS_PER_ERA + of_era).checked_sub(EPOCH_DAYS)
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = civil(self.0 / MILLIS_PER_DAY);
        let millis = self.0 % MILLIS_PER_DAY;
        let (hour, minute, second) = (millis / 3_600_000, millis / 60_000 % 60, millis / 1_000 % 60);
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z",
            millis % 1_000
        )
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text was not an RFC 3339 time in UTC of 1970 or later.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ParseTimestampError;

impl fmt::Display for ParseTimestampError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("expected a UTC time such as 2026-11-20T17:24:28.123Z")
    }
}

impl core::error::Error for ParseTimestampError {}

impl FromStr for Timestamp {
    type Err = ParseTimestampError;

    /// Reads what `Display` writes; the fraction may be missing or have one to nine digits.
    fn from_str(text: &str) -> Result<Self, ParseTimestampError> {
        let text = text.strip_suffix('Z').ok_or(ParseTimestampError)?.as_bytes();
        let number = |range: core::ops::Range<usize>| {
            text.get(range)
                .ok_or(ParseTimestampError)?
                .iter()
                .try_fold(0u64, |sum, &b| {
                    let digit = (b as char).to_digit(10).ok_or(ParseTimestampError)?;
                    Ok(sum * 10 + u64::from(digit))
                })
        };
        let marks = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
        if text.len() < 19 || marks.iter().any(|&(at, mark)| text[at] != mark) {
            return Err(ParseTimestampError);
        }
        let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
        let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
        let millis = match text.get(19) {
            None => 0,
            Some(b'.') if (21..=29).contains(&text.len()) => {
                number(20..text.len())?;
                let digits = number(20..text.len().min(23))?;
                digits * 10u64.pow(3 - (text.len().min(23) - 20) as u32)
            }
            Some(_) => return Err(ParseTimestampError),
        };
        // Second 60 is a leap second; POSIX time gives it the number of the next second.
        if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
            return Err(ParseTimestampError);
        }
        let days = days(year, month, day).ok_or(ParseTimestampError)?;
        if civil(days) != (year, month, day) {
            return Err(ParseTimestampError);
        }
        Ok(Self(
            days * MILLIS_PER_DAY + hour * 3_600_000 + minute * 60_000 + second * 1_000 + millis,
        ))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            self.0.serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            let text = alloc::borrow::Cow::<'de, str>::deserialize(deserializer)?;
            text.parse().map_err(serde::de::Error::custom)
        } else {
            u64::deserialize(deserializer).map(Self)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn known_times_read_and_write() {
        for (millis, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_795_195_468_123, "2026-11-20T17:24:28.123Z"),
            (4_107_542_399_999, "2100-02-28T23:59:59.999Z"),
        ] {
            assert_eq!(Timestamp(millis).to_string(), text);
            assert_eq!(text.parse(), Ok(Timestamp(millis)));
        }
        assert_eq!("2026-11-20T17:24:28Z".parse(), Ok(Timestamp(1_795_195_468_000)));
        assert_eq!("2026-11-20T17:24:28.5Z".parse(), Ok(Timestamp(1_795_195_468_500)));
    }

    #[test]
    fn other_text_is_refused() {
        for bad in [
            "",
            "2026-11-20",
            "2026-02-30T00:00:00Z",
            "1969-12-31T23:59:59Z",
            "2026-11-20T24:00:00Z",
            "2026-11-20T17:24:28.Z",
        ] {
            assert_eq!(bad.parse::<Timestamp>(), Err(ParseTimestampError), "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn every_time_of_four_digit_years_round_trips(millis in 0u64..253_402_300_800_000) {
            proptest::prop_assert_eq!(Timestamp(millis).to_string().parse(), Ok(Timestamp(millis)));
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,40}") {
            let _ = text.parse::<Timestamp>();
        }
    }
}

//! On which day a leap second that servers announce is due.
//!
//! A leap indicator speaks of the last minute of the current month (RFC 5905 section 7.3), and some servers, above all those
//! that have it from a satellite, pass it on months before. A kernel that is told of one acts at the end of the current UTC
//! day (adjtimex(2)), so it is to be told on that one day alone.

use crate::SECOND;
use crate::packet::Leap;

/// Days from 0000-03-01 to 1970-01-01. Years that begin in March put the leap day last.
const BEFORE_1970: u64 = 719_468;
/// Days of 400 years, after which the calendar repeats.
const CYCLE: u64 = 146_097;
/// Days of such a year before 30 June and 31 December.
const JUNE_30: u64 = 121;
const DECEMBER_31: u64 = 305;
/// Nanoseconds of a day.
const DAY: u64 = 86_400 * SECOND as u64;

/// The leap second at the end of the UTC day of `unix` (nanoseconds since 1970), of what servers announce.
///
/// It is due only at the end of June or December. ITU-R TF.460 would allow every month, but prefers these two, and all
/// since 1972 were there: a warning that is early by months, of which there were many, shall not act at the end of August.
pub(crate) const fn due_today(announced: Leap, unix: u64) -> Leap {
    match announced {
        Leap::Insert | Leap::Delete if is_last_of_half_year(unix / DAY) => announced,
        Leap::Insert | Leap::Delete | Leap::None | Leap::Unsynchronised => Leap::None,
    }
}

/// Whether a day, counted from 1970-01-01, is 30 June or 31 December.
const fn is_last_of_half_year(day: u64) -> bool {
    let day = (day + BEFORE_1970) % CYCLE;
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    day == JUNE_30 || day == DECEMBER_31
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn second(unix: u64) -> u64 {
        unix * SECOND as u64
    }

    #[test]
    fn a_leap_second_is_due_on_the_last_day_of_june_or_december_alone() {
        // (first second of the day, whether it is one)
        let days = [
            // 2015-06-29, 2015-06-30 (it had one), 2015-07-01
            (1_435_536_000, false),
            (1_435_622_400, true),
            (1_435_708_800, false),
            // 2016-12-30, 2016-12-31 (it had one), 2017-01-01
            (1_483_056_000, false),
            (1_483_142_400, true),
            (1_483_228_800, false),
            // The ends of other months: 2016-02-29, 2016-03-31, 2016-08-31, 2016-09-30
            (1_456_704_000, false),
            (1_459_382_400, false),
            (1_472_601_600, false),
            (1_475_193_600, false),
        ];
        for (day, due) in days {
            for at in [second(day), second(day + 43_200), second(day + 86_400) - 1] {
                for leap in [Leap::Insert, Leap::Delete] {
                    let expected = if due { leap } else { Leap::None };
                    assert_eq!(due_today(leap, at), expected, "{leap:?} at {at}");
                }
                for leap in [Leap::None, Leap::Unsynchronised] {
                    assert_eq!(due_today(leap, at), Leap::None);
                }
            }
        }
    }

    #[test]
    fn five_centuries_of_days_have_two_each_year_and_they_are_the_right_ones() {
        let mut day = 0;
        for year in 1970..2470_u32 {
            let leap = year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400);
            let months = [31, 28 + u64::from(leap), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
            for (month, length) in (1..).zip(months) {
                for date in 1..=length {
                    let expected = (month, date) == (6, 30) || (month, date) == (12, 31);
                    assert_eq!(is_last_of_half_year(day), expected, "{year}-{month}-{date}");
                    day += 1;
                }
            }
        }
    }

    #[test]
    fn the_last_moment_of_a_u64_has_a_day_too() {
        assert_eq!(due_today(Leap::Insert, u64::MAX), Leap::None);
    }
}

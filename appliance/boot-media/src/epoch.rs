//! The one moment that everything we write is stamped with, and its forms in FAT and ISO 9660.

/// Seconds since 1970: 2026-01-01 00:00:00 UTC. Fixed, so that the same inputs give the same bytes.
pub const SOURCE_DATE_EPOCH: u64 = 1_767_225_600;

/// A UTC calendar moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Calendar {
    pub(crate) year: u16,
    pub(crate) month: u8,
    pub(crate) day: u8,
    pub(crate) hour: u8,
    pub(crate) minute: u8,
    pub(crate) second: u8,
}

/// [`SOURCE_DATE_EPOCH`] as a calendar moment.
pub(crate) const STAMP: Calendar = Calendar {
    year: 2026,
    month: 1,
    day: 1,
    hour: 0,
    minute: 0,
    second: 0,
};

impl Calendar {
    /// Date and time words of a FAT directory entry (two-second steps).
    pub(crate) fn fat(self) -> (u16, u16) {
        let date = (self.year - 1980) << 9 | u16::from(self.month) << 5 | u16::from(self.day);
        let time = u16::from(self.hour) << 11 | u16::from(self.minute) << 5 | u16::from(self.second / 2);
        (date, time)
    }

    /// The 7 bytes of an ISO 9660 directory record (9.1.5), UTC.
    pub(crate) fn iso_record(self) -> [u8; 7] {
        [
            (self.year - 1900) as u8,
            self.month,
            self.day,
            self.hour,
            self.minute,
            self.second,
            0,
        ]
    }

    /// The 17 bytes of an ISO 9660 volume descriptor (8.4.26.1), UTC.
    pub(crate) fn iso_volume(self) -> [u8; 17] {
        let Calendar {
            year,
            month,
            day,
            hour,
            minute,
            second,
        } = self;
        let text = format!("{year:04}{month:02}{day:02}{hour:02}{minute:02}{second:02}00");
        let mut bytes = [0; 17];
        bytes.iter_mut().zip(text.bytes()).for_each(|(to, from)| *to = from);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_calendar_moment_is_the_epoch() {
        let days_in_leap_cycles = (1970..STAMP.year)
            .map(|year| if year % 4 == 0 { 366 } else { 365 })
            .sum::<u64>();
        assert_eq!(days_in_leap_cycles * 86_400, SOURCE_DATE_EPOCH);
        assert_eq!(STAMP.fat(), (0x5C21, 0));
        assert_eq!(&STAMP.iso_volume(), b"2026010100000000\0");
    }
}

//! The clock that runs while the machine is off (linux/rtc.h). `unsafe` because no library offers its ioctl.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use nix::errno::Errno;
use nix::libc;
use rackbar_model::Timestamp;

/// The first of them, which the kernel reads its time from when it starts.
pub const DEVICE: &str = "/dev/rtc0";

/// `struct rtc_time`: as `struct tm`, of which the last three are not looked at.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct RtcTime {
    sec: libc::c_int,
    min: libc::c_int,
    hour: libc::c_int,
    mday: libc::c_int,
    /// From 0.
    mon: libc::c_int,
    /// From 1900.
    year: libc::c_int,
    wday: libc::c_int,
    yday: libc::c_int,
    isdst: libc::c_int,
}

impl RtcTime {
    /// UTC, as servers keep it.
    fn of(at: Timestamp) -> Option<Self> {
        let text = at.to_string();
        let part = |range| {
            text.get(range)
                .and_then(|digits: &str| digits.parse::<libc::c_int>().ok())
        };
        Some(Self {
            year: part(0..4)? - 1900,
            mon: part(5..7)? - 1,
            mday: part(8..10)?,
            hour: part(11..13)?,
            min: part(14..16)?,
            sec: part(17..19)?,
            ..Self::default()
        })
    }
}

/// Sets the clock behind `device` to this time, in UTC and to the second.
///
/// # Errors
/// When there is no such clock, it cannot hold that year, or it refuses.
pub fn set(device: &Path, at: Timestamp) -> io::Result<()> {
    // _IOW('p', 0x0a, struct rtc_time)
    const RTC_SET_TIME: libc::c_ulong = 0x4024_700a;
    let time = RtcTime::of(at).ok_or(io::ErrorKind::InvalidInput)?;
    let device = File::open(device)?;
    // SAFETY: RTC_SET_TIME reads one rtc_time, which lives until the call returns.
    Errno::result(unsafe { libc::ioctl(device.as_raw_fd(), RTC_SET_TIME as _, &time) })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_the_kernel_wants_them() {
        let time = RtcTime::of("2026-02-28T23:59:58.900Z".parse().unwrap()).unwrap();
        assert_eq!((time.year, time.mon, time.mday), (126, 1, 28));
        assert_eq!((time.hour, time.min, time.sec), (23, 59, 58));
        assert_eq!(
            size_of::<RtcTime>(),
            0x24,
            "the size that the number of the ioctl holds"
        );
    }

    #[test]
    fn what_is_no_clock_is_refused() {
        assert!(set(Path::new("/nonexistent"), Timestamp(0)).is_err());
        assert!(set(Path::new("/dev/null"), Timestamp(0)).is_err());
    }
}

//! The 48 bytes of an NTP packet (RFC 5905 section 7.3) and its timestamps.

use crate::SECOND;

/// Length of the header, which is all we send.
pub const PACKET: usize = 48;

/// Seconds between 1900 and 1970.
const EPOCH: u64 = 2_208_988_800;

/// A timestamp in units of 2^-32 seconds, of an era that is understood (RFC 5905 section 6).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stamp(pub u64);

impl Stamp {
    /// Of unix time in nanoseconds.
    pub const fn of_unix(nanos: u64) -> Self {
        let (seconds, rest) = (nanos / SECOND as u64, nanos % SECOND as u64);
        let fraction = (rest << 32) / SECOND as u64;
        Self((seconds.wrapping_add(EPOCH) << 32) | fraction)
    }

    /// Nanoseconds from `before` to this, less than 68 years either way.
    pub const fn since(self, before: Self) -> i64 {
        let difference = self.0.wrapping_sub(before.0) as i64 as i128;
        ((difference * SECOND as i128) >> 32) as i64
    }

    const fn to_u32(self) -> (u32, u32) {
        ((self.0 >> 32) as u32, self.0 as u32)
    }
}

/// What a packet says of leap seconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Leap {
    /// No leap second is near.
    None,
    /// The last minute of this day has 61 seconds.
    Insert,
    /// The last minute of this day has 59 seconds.
    Delete,
    /// The clock is not synchronised.
    Unsynchronised,
}

/// Who speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// A client.
    Client,
    /// A server.
    Server,
    /// Anything else: peers, broadcast, control and private messages. None of them is answered.
    Other(u8),
}

/// A packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Packet {
    /// Leap indicator.
    pub leap: Leap,
    /// Version.
    pub version: u8,
    /// Mode.
    pub mode: Mode,
    /// Stratum; 0 for a kiss-o'-death.
    pub stratum: u8,
    /// Poll interval as a power of two of seconds.
    pub poll: i8,
    /// Precision as a power of two of seconds.
    pub precision: i8,
    /// Root delay in units of 2^-16 seconds.
    pub root_delay: u32,
    /// Root dispersion in units of 2^-16 seconds.
    pub root_dispersion: u32,
    /// Reference ID, or the kiss code.
    pub reference_id: [u8; 4],
    /// When the clock was last set.
    pub reference: Stamp,
    /// The request's transmit timestamp.
    pub origin: Stamp,
    /// When the request arrived.
    pub receive: Stamp,
    /// When this left.
    pub transmit: Stamp,
}

fn word(bytes: &[u8], at: usize) -> Option<[u8; 4]> {
    bytes.get(at..at + 4)?.try_into().ok()
}

fn stamp(bytes: &[u8], at: usize) -> Option<Stamp> {
    let part: [u8; 8] = bytes.get(at..at + 8)?.try_into().ok()?;
    Some(Stamp(u64::from_be_bytes(part)))
}

impl Packet {
    /// Reads the header of a packet; extension fields and authentication behind it are not looked at.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let [first, stratum, poll, precision] = word(bytes, 0)?;
        Some(Self {
            leap: match first >> 6 {
                0 => Leap::None,
                1 => Leap::Insert,
                2 => Leap::Delete,
                _ => Leap::Unsynchronised,
            },
            version: first >> 3 & 7,
            mode: match first & 7 {
                3 => Mode::Client,
                4 => Mode::Server,
                other => Mode::Other(other),
            },
            stratum,
            poll: poll as i8,
            precision: precision as i8,
            root_delay: u32::from_be_bytes(word(bytes, 4)?),
            root_dispersion: u32::from_be_bytes(word(bytes, 8)?),
            reference_id: word(bytes, 12)?,
            reference: stamp(bytes, 16)?,
            origin: stamp(bytes, 24)?,
            receive: stamp(bytes, 32)?,
            transmit: stamp(bytes, 40)?,
        })
    }

    /// The bytes of the packet.
    pub fn write(&self) -> [u8; PACKET] {
        let leap = match self.leap {
            Leap::None => 0,
            Leap::Insert => 1,
            Leap::Delete => 2,
            Leap::Unsynchronised => 3,
        };
        let mode = match self.mode {
            Mode::Client => 3,
            Mode::Server => 4,
            Mode::Other(other) => other & 7,
        };
        let head = [
            leap << 6 | (self.version & 7) << 3 | mode,
            self.stratum,
            self.poll as u8,
            self.precision as u8,
        ];
        let mut out = [0; PACKET];
        let mut words = vec![
            head,
            self.root_delay.to_be_bytes(),
            self.root_dispersion.to_be_bytes(),
            self.reference_id,
        ];
        for stamp in [self.reference, self.origin, self.receive, self.transmit] {
            let (high, low) = stamp.to_u32();
            words.extend([high.to_be_bytes(), low.to_be_bytes()]);
        }
        for (place, word) in out.chunks_exact_mut(4).zip(words) {
            place.copy_from_slice(&word);
        }
        out
    }
}

/// Nanoseconds as units of 2^-16 seconds, rounded up: an error bound must not shrink on its way.
pub(crate) fn short(nanos: u64) -> u32 {
    let units = (u128::from(nanos) << 16).div_ceil(SECOND as u128);
    u32::try_from(units).unwrap_or(u32::MAX)
}

/// Units of 2^-16 seconds as nanoseconds.
pub(crate) const fn nanos(short: u32) -> u64 {
    (short as u64 * SECOND as u64) >> 16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_count_across_eras() {
        // RFC 5905 figure 4: 1 Jan 1970, and the first day of era 1, 8 Feb 2036.
        assert_eq!(Stamp::of_unix(0).0 >> 32, 2_208_988_800);
        let before = Stamp::of_unix(2_085_978_495_000_000_000);
        let after = Stamp::of_unix(2_085_978_497_500_000_000);
        assert_eq!((before.0 >> 32, after.0 >> 32), (0xffff_ffff, 1));
        assert_eq!(after.since(before), 2_500_000_000);
        assert_eq!(before.since(after), -2_500_000_000);
    }

    proptest::proptest! {
        #[test]
        fn a_packet_reads_back_as_written(bytes in proptest::collection::vec(0u8.., PACKET..80)) {
            let packet = Packet::read(&bytes).unwrap();
            proptest::prop_assert_eq!(&packet.write()[..], &bytes[..PACKET]);
        }

        #[test]
        fn a_cut_packet_is_none(bytes in proptest::collection::vec(0u8.., 0..PACKET)) {
            proptest::prop_assert!(Packet::read(&bytes).is_none());
        }

        #[test]
        fn differences_of_timestamps_are_those_of_times(a in 0u64..4_000_000_000_000_000_000, d in -1_000_000_000_000i64..1_000_000_000_000) {
            let b = a.saturating_add_signed(d);
            let wanted = (i128::from(b) - i128::from(a)) as i64;
            let got = Stamp::of_unix(b).since(Stamp::of_unix(a));
            proptest::prop_assert!((got - wanted).abs() <= 2, "{} {}", got, wanted);
        }
    }
}

//! Entries of the system event log (sections 31.5, 32.1) and the words for them (tables 42-2 and 42-3).

use crate::command::number;
use crate::read::{Malformed, Reader};
use crate::{NetFn, Request};

/// Asks for an entry; 0 is the first, FFFFh the last.
pub fn get_entry(record: u16) -> Request {
    let [low, high] = record.to_le_bytes();
    Request::new(NetFn::STORAGE, number::GET_SEL_ENTRY, [0, 0, low, high, 0, 0xff])
}

/// Asks for the BMC's clock (section 31.10).
pub fn get_time() -> Request {
    Request::new(NetFn::STORAGE, number::GET_SEL_TIME, [])
}

/// Sets the BMC's clock (section 31.11), in seconds since 1970.
pub fn set_time(seconds: u32) -> Request {
    Request::new(NetFn::STORAGE, number::SET_SEL_TIME, seconds.to_le_bytes())
}

/// Reads the data of either: seconds since 1970; `None` for a clock that nobody has set since the BMC started (section
/// 37.1: up to 2000-0000h it counts from its start, and FFFF-FFFFh is "not specified").
///
/// # Errors
/// When it is cut short.
pub fn decode_time(data: &[u8]) -> Result<Option<u32>, Malformed> {
    let seconds = Reader::new("SEL time (31.10, 31.11)", data).u32()?;
    Ok(Some(seconds).filter(|seconds| (0x2000_0001..u32::MAX).contains(seconds)))
}

/// How bad an event is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Severity {
    /// Good, or good again.
    Ok,
    /// Needs a look.
    Warning,
    /// Needs a hand.
    Critical,
}

/// An entry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SelEntry {
    /// Its number.
    pub record: u16,
    /// The number that follows; FFFFh after the last.
    pub next: u16,
    /// Record type: 02h a system event, C0h and above a maker's own.
    pub form: u8,
    /// Seconds since 1970, by the BMC's clock; nothing for records without a time, and for events from before the
    /// clock was set.
    pub time: Option<u32>,
    /// Type of the sensor (table 42-3).
    pub sensor_kind: u8,
    /// Number of the sensor.
    pub sensor: u8,
    /// Direction (bit 7: it ended) and event type (table 42-1).
    pub event: u8,
    /// Event data.
    pub data: [u8; 3],
}

impl SelEntry {
    /// Reads the answer's data.
    ///
    /// # Errors
    /// When it is cut short.
    pub fn decode(data: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new("Get SEL Entry (31.5)", data);
        let next = reader.u16()?;
        let record = reader.u16()?;
        let form = reader.u8()?;
        let time = reader.u32()?;
        let [_generator, _lun, _revision, sensor_kind, sensor, event, a, b, c] = reader.array()?;
        // Up to 20000000h is "seconds since the start of the BMC", FFFFFFFFh is "not known" (section 37.1).
        let known = form < 0xe0 && time > 0x2000_0000 && time != u32::MAX;
        Ok(Self {
            record,
            next,
            form,
            time: known.then_some(time),
            sensor_kind,
            sensor,
            event,
            data: [a, b, c],
        })
    }

    /// True when the entry says that something ended.
    pub const fn ended(&self) -> bool {
        self.event & 0x80 != 0
    }

    /// How bad it is. Thresholds tell themselves; of the rest, what no machine shrugs off.
    pub fn severity(&self) -> Severity {
        let offset = self.data[0] & 0x0f;
        if self.form != 0x02 || self.ended() {
            return Severity::Ok;
        }
        match (self.event & 0x7f, self.sensor_kind, offset) {
            (0x01, _, 0 | 1 | 6 | 7) => Severity::Warning,
            (0x01, _, _) => Severity::Critical,
            // Uncorrectable memory, CPU internal errors, failed power supplies and drives, fatal bus errors.
            (0x6f, 0x0c, 1) | (0x6f, 0x07, 0..=2) | (0x6f, 0x08, 1 | 3) | (0x6f, 0x0d, 1) => Severity::Critical,
            (0x6f, 0x13, 4 | 5 | 8 | 10) => Severity::Critical,
            (0x6f, 0x0c, 0 | 5) | (0x6f, 0x13, 7) | (0x6f, 0x23, 0..=3) | (0x6f, 0x05, _) => Severity::Warning,
            _ => Severity::Ok,
        }
    }

    /// What happened, in words.
    pub fn words(&self) -> String {
        if self.form != 0x02 {
            let [a, b, c] = self.data;
            return format!(
                "record of the maker's own type {:#04x}, ending {a:02x} {b:02x} {c:02x}",
                self.form
            );
        }
        let offset = self.data[0] & 0x0f;
        let what = match (self.event & 0x7f, self.sensor_kind) {
            (0x01, _) => THRESHOLDS.get(usize::from(offset)).copied(),
            (0x6f, kind) => specific(kind, offset),
            (0x03, _) => ["state went off", "state went on"].get(usize::from(offset)).copied(),
            (0x08, _) => ["removed", "present"].get(usize::from(offset)).copied(),
            _ => None,
        };
        let what = what.map_or_else(
            || format!("event type {:#04x}, offset {offset}", self.event & 0x7f),
            str::to_owned,
        );
        let ended = if self.ended() { " (ended)" } else { "" };
        format!("{} #{:#04x}: {what}{ended}", sensor_kind(self.sensor_kind), self.sensor)
    }
}

const THRESHOLDS: [&str; 12] = [
    "below lower non-critical, falling",
    "back to lower non-critical, rising",
    "below lower critical, falling",
    "back to lower critical, rising",
    "below lower non-recoverable, falling",
    "back to lower non-recoverable, rising",
    "back to upper non-critical, falling",
    "above upper non-critical, rising",
    "back to upper critical, falling",
    "above upper critical, rising",
    "back to upper non-recoverable, falling",
    "above upper non-recoverable, rising",
];

/// A sensor type (table 42-3).
const fn sensor_kind(kind: u8) -> &'static str {
    match kind {
        0x01 => "Temperature",
        0x02 => "Voltage",
        0x03 => "Current",
        0x04 => "Fan",
        0x05 => "Physical security",
        0x07 => "Processor",
        0x08 => "Power supply",
        0x09 => "Power unit",
        0x0c => "Memory",
        0x0d => "Drive slot",
        0x0f => "Firmware progress",
        0x10 => "Event logging",
        0x12 => "System event",
        0x13 => "Critical interrupt",
        0x14 => "Button",
        0x1d => "System boot",
        0x1f => "Base OS boot",
        0x20 => "OS stop",
        0x22 => "ACPI power state",
        0x23 => "Watchdog",
        0x28 => "Management subsystem",
        0x29 => "Battery",
        0x2b => "Version change",
        _ => "Sensor",
    }
}

/// Sensor-specific offsets (table 42-3), those that servers log.
fn specific(kind: u8, offset: u8) -> Option<&'static str> {
    let words: &[&str] = match kind {
        0x05 => &[
            "chassis opened",
            "drive bay opened",
            "I/O card area opened",
            "processor area opened",
            "LAN cable pulled",
        ],
        0x07 => &[
            "internal error",
            "thermal trip",
            "built-in test failed",
            "hung in power-on self test",
            "start failed",
            "configuration error",
            "uncorrectable complex error",
            "present",
            "disabled",
            "terminator present",
            "throttled",
            "machine check exception",
            "correctable machine check",
        ],
        0x08 => &[
            "present",
            "failure",
            "failure predicted",
            "input lost",
            "input lost or out of range",
            "input out of range",
            "configuration error",
            "on standby",
        ],
        0x09 => &[
            "power off",
            "power cycle",
            "240 V power down",
            "interlock power down",
            "input lost",
            "soft power control failed",
            "failure",
            "failure predicted",
        ],
        0x0c => &[
            "correctable error",
            "uncorrectable error",
            "parity error",
            "scrub failed",
            "device disabled",
            "limit of correctable errors reached",
            "present",
            "configuration error",
            "spare",
            "throttled",
            "overheated",
        ],
        0x0d => &[
            "present",
            "fault",
            "failure predicted",
            "hot spare",
            "consistency check",
            "in a critical array",
            "in a failed array",
            "rebuilding",
            "rebuild aborted",
        ],
        0x0f => &["firmware error", "firmware hang", "firmware progress"],
        0x10 => &[
            "limit of correctable memory errors",
            "logging of an event type disabled",
            "log cleared",
            "all logging disabled",
            "log full",
            "log almost full",
        ],
        0x12 => &[
            "system reconfigured",
            "OEM system boot event",
            "undetermined hardware failure",
            "entry added to auxiliary log",
            "platform event filter action",
            "clock set",
        ],
        0x13 => &[
            "front panel NMI",
            "bus time-out",
            "I/O check NMI",
            "software NMI",
            "PCI parity error",
            "PCI system error",
            "EISA failsafe time-out",
            "bus correctable error",
            "bus uncorrectable error",
            "fatal NMI",
            "bus fatal error",
            "bus degraded",
        ],
        0x14 => &["power button", "sleep button", "reset button"],
        0x1d => &[
            "power up",
            "hard reset",
            "warm reset",
            "PXE boot requested",
            "automatic boot to diagnostics",
        ],
        0x23 => &["expired", "hard reset", "power down", "power cycle"],
        0x29 => &["low", "failed", "present"],
        _ => &[],
    };
    words.get(usize::from(offset)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(kind: u8, event: u8, data: u8) -> SelEntry {
        let bytes = [
            2, 0, 1, 0, 2, 0, 0, 0, 0x60, 0x20, 0, 4, kind, 0x30, event, data, 0xff, 0xff,
        ];
        SelEntry::decode(&bytes).unwrap()
    }

    #[test]
    fn events_are_told_in_words() {
        let hot = entry(0x01, 0x01, 0x59);
        assert_eq!(
            (hot.words().as_str(), hot.severity()),
            ("Temperature #0x30: above upper critical, rising", Severity::Critical)
        );
        assert_eq!(hot.time, Some(0x6000_0000));
        let cool = entry(0x01, 0x81, 0x57);
        assert_eq!(
            (cool.words().as_str(), cool.severity()),
            (
                "Temperature #0x30: above upper non-critical, rising (ended)",
                Severity::Ok
            )
        );
        assert_eq!(entry(0x0c, 0x6f, 0x01).words(), "Memory #0x30: uncorrectable error");
        assert_eq!(entry(0x0c, 0x6f, 0x01).severity(), Severity::Critical);
        assert_eq!(
            entry(0xc5, 0x70, 0x01).words(),
            "Sensor #0x30: event type 0x70, offset 1"
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..24)) {
            if let Ok(entry) = SelEntry::decode(&bytes) {
                let _ = (entry.words(), entry.severity());
            }
        }
    }
}

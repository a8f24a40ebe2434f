//! What the API says of a machine's hardware as its BMC sees it.

use core::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How well a part is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// The BMC does not say.
    Unknown,
    /// Well.
    Ok,
    /// Needs a look.
    Warning,
    /// Needs a hand.
    Critical,
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "unknown",
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Critical => "critical",
        })
    }
}

/// What a machine's sensors read, by its BMC.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct SensorList {
    /// The machine's name.
    pub node: String,
    /// Address of its BMC.
    pub bmc: String,
    /// How the BMC was asked: `Redfish` or `IPMI`.
    pub way: String,
    /// Why that way.
    pub why: String,
    /// The worst of all that say how they are.
    pub state: Condition,
    /// The sensors, in the BMC's order.
    pub items: Vec<SensorReading>,
}

/// A sensor and what it reads.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct SensorReading {
    /// Its name, as the BMC has it.
    pub name: String,
    /// Its reading; absent when the part is missing or off.
    pub reading: Option<f64>,
    /// Unit of the reading in UCUM, as Redfish writes it: `Cel`, `RPM`, `%`, `V`, `A`, `W`.
    pub unit: String,
    /// Whether the reading is as it should be.
    pub state: Condition,
}

impl SensorReading {
    /// The reading for people: `45 °C`, `12.06 V`, or nothing.
    pub fn shown(&self) -> String {
        let unit = match self.unit.as_str() {
            "Cel" => "°C",
            "[degF]" => "°F",
            other => other,
        };
        match self.reading {
            // Two places are more than sensors know; whole numbers go without.
            Some(reading) => format!("{} {unit}", (reading * 100.0).round() / 100.0)
                .trim_end()
                .to_owned(),
            None => String::new(),
        }
    }
}

/// Lines of the event log that a machine's BMC keeps.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct HardwareLog {
    /// The machine's name.
    pub node: String,
    /// Address of its BMC.
    pub bmc: String,
    /// How the BMC was asked: `Redfish` or `IPMI`.
    pub way: String,
    /// Why that way.
    pub why: String,
    /// The lines, newest first.
    pub items: Vec<HardwareLogLine>,
}

/// A line of that log.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct HardwareLogLine {
    /// When, by the BMC's own clock, which may be wrong; absent for what happened before its clock was set.
    pub time: Option<String>,
    /// How bad.
    pub severity: Condition,
    /// What happened, in the BMC's words.
    pub message: String,
    /// Its number in the log.
    pub id: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readings_are_shown_with_the_units_people_know() {
        let shown = |reading, unit: &str| {
            SensorReading {
                name: String::new(),
                reading,
                unit: unit.into(),
                state: Condition::Ok,
            }
            .shown()
        };
        assert_eq!(shown(Some(45.0), "Cel"), "45 °C");
        assert_eq!(shown(Some(12.059_999_9), "V"), "12.06 V");
        assert_eq!(shown(Some(3.0), ""), "3");
        assert_eq!(shown(None, "RPM"), "");
    }
}

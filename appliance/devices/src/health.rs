//! How a machine is: sensors, event log, and what both come to.

use core::fmt;

/// How well a part is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum HealthState {
    /// The BMC does not say.
    #[default]
    Unknown,
    /// Well.
    Ok,
    /// Needs a look.
    Warning,
    /// Needs a hand.
    Critical,
}

impl fmt::Display for HealthState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "unknown",
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Critical => "critical",
        })
    }
}

/// A sensor and what it reads.
#[derive(Clone, PartialEq, Debug)]
pub struct Sensor {
    /// Its name, as the BMC has it.
    pub name: String,
    /// Its reading; nothing when the part is absent or off.
    pub reading: Option<f64>,
    /// Unit of the reading: `Cel`, `RPM`, `%`, `V`, `A`, `W` (UCUM, as Redfish writes units).
    pub unit: String,
    /// Whether the reading is as it should be.
    pub state: HealthState,
}

/// A line of the event log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogLine {
    /// When, as ISO 8601 by the BMC's own clock, which may be wrong; nothing for what happened before its clock was set.
    pub time: Option<String>,
    /// How bad.
    pub severity: HealthState,
    /// What happened.
    pub message: String,
    /// Its number in its log.
    pub id: String,
}

/// How a machine is, in short.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Health {
    /// The worst of all.
    pub state: HealthState,
    /// What is not well, one sentence each.
    pub notes: Vec<String>,
}

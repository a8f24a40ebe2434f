//! What the API says of a machine's hardware as its BMC sees it, of virtual media and of the next boot.

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

/// The virtual drives of a machine's BMC.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct MediaList {
    /// The machine's name.
    pub node: String,
    /// Address of its BMC.
    pub bmc: String,
    /// The drives, as the BMC shows them now.
    pub items: Vec<MediaDrive>,
}

/// A virtual drive.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct MediaDrive {
    /// Its name in the BMC.
    pub id: String,
    /// What it can be: `CD`, `DVD`, `USBStick`, `Floppy`.
    pub kinds: Vec<String>,
    /// Whether something is in; absent where the BMC does not say.
    pub inserted: Option<bool>,
    /// URL of the image that is in.
    pub image: Option<String>,
    /// It is the one that images are put into.
    pub ours: bool,
}

/// Where a boot can be told to come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum BootSource {
    /// The firmware's own boot order: takes an override back.
    Default,
    /// Network by PXE.
    Network,
    /// Network by UEFI HTTP boot.
    Http,
    /// Hard disk.
    Disk,
    /// CD, real or virtual.
    Cd,
    /// Firmware set-up.
    Setup,
}

impl BootSource {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Default,
        Self::Network,
        Self::Http,
        Self::Disk,
        Self::Cd,
        Self::Setup,
    ];

    /// As the API and the command line write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Network => "network",
            Self::Http => "http",
            Self::Disk => "disk",
            Self::Cd => "cd",
            Self::Setup => "setup",
        }
    }
}

/// Where a machine's next boot is to come from.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BootRequest {
    /// From where.
    pub from: BootSource,
    /// What UEFI HTTP boot is to fetch; left out, the firmware asks the network. Only with `http`.
    #[serde(default)]
    pub url: Option<String>,
    /// Restart the machine at once, or switch it on.
    #[serde(default)]
    pub restart: bool,
}

impl BootRequest {
    /// Whether it makes sense.
    ///
    /// # Errors
    /// In a sentence.
    pub fn check(&self) -> Result<(), String> {
        match (&self.url, self.from) {
            (None, _) => Ok(()),
            (Some(url), BootSource::Http) => check_url(url),
            (Some(_), from) => Err(format!("a URL goes with `http`, not with `{}`", from.name())),
        }
    }
}

/// Where a machine's next boot comes from, as its BMC says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct BootState {
    /// The machine's name.
    pub node: String,
    /// Address of its BMC.
    pub bmc: String,
    /// From where: a [`BootSource`], or another word of the BMC's.
    pub from: String,
    /// Once; else each boot until it is changed.
    pub once: bool,
    /// What UEFI HTTP boot fetches, where that is told.
    pub url: Option<String>,
}

/// Whether a BMC or a firmware can be given this URL.
///
/// # Errors
/// In a sentence.
pub fn check_url(text: &str) -> Result<(), String> {
    let no = |why: &str| {
        Err(format!(
            "{why}: give a URL that the machine's BMC can fetch, such as http://10.20.0.1/rescue.iso"
        ))
    };
    let Ok(url) = text.parse::<axum::http::Uri>() else {
        return no("this is no URL");
    };
    if !matches!(url.scheme_str(), Some("http" | "https")) {
        return no("BMCs fetch by http and https");
    }
    match url.authority() {
        None => no("it names no host"),
        // BMCs show their image's URL to whoever may look, and it stands in the audit trail.
        Some(authority) if authority.as_str().contains('@') => no("no password may stand in a URL"),
        Some(authority) if authority.host().is_empty() => no("it names no host"),
        Some(_) => Ok(()),
    }
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

    #[test]
    fn a_url_is_one_that_a_bmc_can_fetch_and_carries_no_password() {
        for good in ["http://10.20.0.1/rescue.iso", "https://[fd00::1]:8443/a/b.efi?x=1"] {
            assert_eq!(check_url(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "rescue.iso",
            "/rescue.iso",
            "file:///etc/passwd",
            "ftp://10.0.0.1/x",
            "http:///x",
            "http://user:secret@10.0.0.1/x",
            "http://10.0.0.1/a b",
            "http://10.0.0.1/\u{7}",
        ] {
            let words = check_url(bad).unwrap_err();
            assert!(words.contains("such as") && !words.contains("secret"), "{bad}: {words}");
        }
        let request = BootRequest {
            from: BootSource::Cd,
            url: Some("http://10.20.0.1/x".into()),
            restart: false,
        };
        assert!(request.check().unwrap_err().contains("`cd`"));
    }
}

//! Hardware differences as data: which machines need which special treatment.
//!
//! A profile names the machines it is for (maker, model, firmware, with `*` for any text) and the quirks they have,
//! with the place where that was found out. All profiles that fit are laid over each other, the most exact last, so a
//! profile for a generation only says what differs from its maker's. There is no code per vendor here or elsewhere.

use serde::Deserialize;

/// What a machine says about itself; text as it says it, empty when it says nothing.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Subject {
    /// Maker of the system.
    pub manufacturer: String,
    /// Model of the system.
    pub model: String,
    /// Firmware version of the BMC.
    pub firmware: String,
}

/// How a BMC has to be treated. The default is what the standard says.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Quirks {
    /// A reset is not carried out reliably: switch off, wait, switch on.
    pub reset_needs_force_off: bool,
    /// A boot override must always name its mode.
    pub boot_override_mode_required: bool,
    /// A boot override goes to the settings object of the system, not to the system.
    pub boot_override_at_settings: bool,
    /// Entity tags that it gives it does not take: send none.
    pub etag_broken: bool,
    /// Logging in for a session fails or leaks sessions: send the password with each request.
    pub basic_auth_only: bool,
    /// `BootOrder` is shown but cannot be changed: use a lasting override.
    pub boot_order_refused: bool,
    /// `BootOrder` is changed at the settings object of the system alone.
    pub boot_order_at_settings: bool,
    /// Path of the BIOS attributes, where the system does not link to them.
    pub bios: Option<String>,
    /// Name of the settings resource below the BIOS attributes, where they do not link to it.
    pub bios_settings: Option<String>,
}

/// Quirks as a profile states them: only some.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Stated {
    reset_needs_force_off: Option<bool>,
    boot_override_mode_required: Option<bool>,
    boot_override_at_settings: Option<bool>,
    etag_broken: Option<bool>,
    basic_auth_only: Option<bool>,
    boot_order_refused: Option<bool>,
    boot_order_at_settings: Option<bool>,
    bios: Option<String>,
    bios_settings: Option<String>,
}

impl Quirks {
    fn lay(&mut self, stated: &Stated) {
        let lay = |field: &mut bool, said: Option<bool>| *field = said.unwrap_or(*field);
        lay(&mut self.reset_needs_force_off, stated.reset_needs_force_off);
        lay(
            &mut self.boot_override_mode_required,
            stated.boot_override_mode_required,
        );
        lay(&mut self.boot_override_at_settings, stated.boot_override_at_settings);
        lay(&mut self.etag_broken, stated.etag_broken);
        lay(&mut self.basic_auth_only, stated.basic_auth_only);
        lay(&mut self.boot_order_refused, stated.boot_order_refused);
        lay(&mut self.boot_order_at_settings, stated.boot_order_at_settings);
        let name = |field: &mut Option<String>, said: &Option<String>| *field = said.clone().or(field.take());
        name(&mut self.bios, &stated.bios);
        name(&mut self.bios_settings, &stated.bios_settings);
    }
}

/// Which machines a profile is for. What is absent fits any machine.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Match {
    manufacturer: Option<String>,
    model: Option<String>,
    firmware: Option<String>,
}

impl Match {
    /// How exactly it fits; `None` when it does not. A firmware outweighs a model, a model a maker; among equals the
    /// longer pattern wins.
    fn score(&self, subject: &Subject) -> Option<usize> {
        let mut score = 0;
        for (weight, pattern, text) in [
            (1 << 10, &self.manufacturer, &subject.manufacturer),
            (1 << 20, &self.model, &subject.model),
            (1 << 30, &self.firmware, &subject.firmware),
        ] {
            if let Some(pattern) = pattern {
                if !fits(&pattern.to_lowercase(), &text.trim().to_lowercase()) {
                    return None;
                }
                score += weight + pattern.len().min(255);
            }
        }
        Some(score)
    }
}

/// True when `text` fits `pattern`, where `*` stands for any text.
fn fits(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|head| text.strip_prefix(head)) else {
        return false;
    };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        let Some(at) = rest.find(part) else { return false };
        rest = rest.get(at + part.len()..).unwrap_or_default();
    }
    true
}

#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Profile {
    name: String,
    source: String,
    #[serde(rename = "match")]
    matches: Match,
    #[serde(default)]
    quirks: Stated,
}

/// A profile that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not TOML, or not of a profile's shape; says line and field.
    #[error("hardware profile {file}: {reason}")]
    Unreadable {
        /// Which file.
        file: String,
        /// Where and why.
        reason: String,
    },
    /// It says which machines it is for, but not one property of them.
    #[error("hardware profile {file}: [match] is empty, so it would change every machine; name a maker or model")]
    MatchesAll {
        /// Which file.
        file: String,
    },
}

/// The quirks of a machine and where they come from.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Verdict {
    /// The quirks.
    pub quirks: Quirks,
    /// Profiles laid over each other, the most exact last.
    pub profiles: Vec<Applied>,
}

/// A profile that fits.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Applied {
    /// Its name.
    pub name: String,
    /// Where its claim was found.
    pub source: String,
}

/// A set of profiles.
#[derive(Clone, Debug, Default)]
pub struct Profiles(Vec<Profile>);

#[derive(rust_embed::RustEmbed)]
#[folder = "profiles"]
struct Shipped;

impl Profiles {
    /// The profiles that come with Rackbar.
    ///
    /// # Errors
    /// Never in a build whose tests passed: they load every profile.
    pub fn shipped() -> Result<Self, Error> {
        let mut profiles = Self::default();
        for file in Shipped::iter() {
            if let Some(found) = Shipped::get(&file) {
                profiles.add(&file, &String::from_utf8_lossy(&found.data))?;
            }
        }
        Ok(profiles)
    }

    /// Adds a profile, for example one the operator wrote. Among equally exact ones the last added wins.
    ///
    /// # Errors
    /// When it cannot be read or would fit every machine.
    pub fn add(&mut self, file: &str, text: &str) -> Result<(), Error> {
        let unreadable = |error: toml::de::Error| Error::Unreadable {
            file: file.to_owned(),
            reason: error.to_string(),
        };
        let profile: Profile = toml::from_str(text).map_err(unreadable)?;
        if profile.matches == Match::default() {
            return Err(Error::MatchesAll { file: file.to_owned() });
        }
        self.0.push(profile);
        Ok(())
    }

    /// What applies to a machine.
    pub fn judge(&self, subject: &Subject) -> Verdict {
        let mut fitting: Vec<_> = self
            .0
            .iter()
            .filter_map(|p| p.matches.score(subject).map(|s| (s, p)))
            .collect();
        fitting.sort_by_key(|(score, _)| *score);
        let mut verdict = Verdict::default();
        for (_, profile) in fitting {
            verdict.quirks.lay(&profile.quirks);
            verdict.profiles.push(Applied {
                name: profile.name.clone(),
                source: profile.source.clone(),
            });
        }
        verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(manufacturer: &str, model: &str) -> Subject {
        Subject {
            manufacturer: manufacturer.into(),
            model: model.into(),
            firmware: "1.0".into(),
        }
    }

    #[test]
    fn every_shipped_profile_loads_and_names_its_source() {
        let profiles = Profiles::shipped().unwrap();
        assert!(profiles.0.len() >= 4);
        for profile in &profiles.0 {
            assert!(profile.source.starts_with("https://"), "{}", profile.name);
        }
    }

    #[test]
    fn the_more_exact_profile_wins() {
        let profiles = Profiles::shipped().unwrap();
        let maker = profiles.judge(&subject("Supermicro", "SYS-1029P"));
        assert!(maker.quirks.boot_override_mode_required);
        let generation = profiles.judge(&subject("Supermicro", "X10DRT-P"));
        assert!(!generation.quirks.boot_override_mode_required);
        assert_eq!(generation.profiles.len(), 2);
        assert_eq!(profiles.judge(&subject("Nobody", "Nothing")), Verdict::default());
    }

    #[test]
    fn an_operators_profile_goes_last() {
        let mut profiles = Profiles::shipped().unwrap();
        let text = "name='mine'\nsource='seen in rack 4'\n[match]\nmanufacturer='giga*'\n[quirks]\netag_broken=false\n";
        profiles.add("mine.toml", text).unwrap();
        assert!(!profiles.judge(&subject("GIGABYTE", "R182")).quirks.etag_broken);
    }

    #[test]
    fn refuses_what_would_surprise() {
        let mut profiles = Profiles::default();
        let all = "name='x'\nsource='y'\n[match]\n";
        assert!(matches!(profiles.add("x", all), Err(Error::MatchesAll { .. })));
        let typo = "name='x'\nsource='y'\n[match]\nmodel='z'\n[quirks]\netag_borken=true\n";
        let error = profiles.add("x.toml", typo).unwrap_err().to_string();
        assert!(error.contains("x.toml") && error.contains("etag_borken"), "{error}");
    }

    #[test]
    fn stars_stand_for_any_text() {
        for (pattern, text, expected) in [
            ("dell*", "dell inc.", true),
            ("dell", "dell inc.", false),
            ("*x10*", "super x10drt", true),
            ("a*b*c", "a-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("*", "", true),
            ("a*a", "a", false),
        ] {
            assert_eq!(fits(pattern, text), expected, "{pattern} {text}");
        }
    }
}

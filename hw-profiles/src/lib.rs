//! Hardware differences as data: which machines need which special treatment.
//!
//! A profile names the machines it is for (maker, product, board, firmware) and the quirks they have, with the place
//! where that was found out. All profiles that fit are laid over each other, the most exact last, so a profile for a
//! generation only says what differs from its maker's; a profile may also extend another by name. A site adds its own.
//! There is no code per vendor here or elsewhere.
//!
//! ```text
//!  profile    a profile as it is written      matching    how well it fits
//!  (here)     the set, its quirks, a site's own
//! ```

mod matching;
mod profile;

use profile::{Match, Profile, Stated};

/// What a machine says about itself; text as it says it, empty when it says nothing.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Subject {
    /// Maker of the system.
    pub manufacturer: String,
    /// Product.
    pub model: String,
    /// Board, as the chassis names it.
    pub board: String,
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
    /// `BootOrder` is shown but cannot be changed: use a lasting override.
    pub boot_order_refused: bool,
    /// `BootOrder` is changed at the settings object of the system alone.
    pub boot_order_at_settings: bool,
    /// Entity tags that it gives it does not take: send none.
    pub etag_broken: bool,
    /// Logging in for a session fails or leaks sessions: send the password with each request.
    pub basic_auth_only: bool,
    /// So few sessions that ours is given back after each operation.
    pub session_given_back: bool,
    /// Which member of `Systems` is the server, where there are several: the last part of its path.
    pub system: Option<String>,
    /// Path of the BIOS attributes, where the system does not link to them.
    pub bios: Option<String>,
    /// Name of the settings resource below the BIOS attributes, where they do not link to it.
    pub bios_settings: Option<String>,
    /// The BIOS attribute that takes the URL of HTTP boot, where `HttpBootUri` is shown but does nothing.
    pub http_boot_setting: Option<String>,
    /// The one IPMI cipher suite it takes.
    pub ipmi_suite: Option<u8>,
    /// Longest password that works over IPMI, in bytes, where that is not 20.
    pub ipmi_password_bytes: Option<u8>,
    /// Between two requests in the long run, in milliseconds, for a BMC that suffers from the usual pace.
    pub request_pause_ms: Option<u16>,
    /// Requests that may go at once after a rest.
    pub request_burst: Option<u8>,
}

/// Lays each stated field over the present one.
macro_rules! lay {
    ($quirks:ident, $stated:ident, flags: $($flag:ident),*; names: $($name:ident),*) => {
        $($quirks.$flag = $stated.$flag.unwrap_or($quirks.$flag);)*
        $(if $stated.$name.is_some() { $quirks.$name.clone_from(&$stated.$name); })*
    };
}

impl Quirks {
    fn lay(&mut self, stated: &Stated) {
        lay!(self, stated,
            flags: reset_needs_force_off, boot_override_mode_required, boot_override_at_settings, boot_order_refused,
                boot_order_at_settings, etag_broken, basic_auth_only, session_given_back;
            names: system, bios, bios_settings, http_boot_setting, ipmi_suite, ipmi_password_bytes, request_pause_ms, request_burst);
    }
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
    /// It extends a profile that is not there, or in the end itself.
    #[error("hardware profile {file}: extends {parent:?}, which {why}")]
    Extends {
        /// Which file.
        file: String,
        /// What it names.
        parent: String,
        /// Why that does not work.
        why: &'static str,
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

impl Applied {
    fn of(profile: &Profile) -> Self {
        Self {
            name: profile.name.clone(),
            source: profile.source.clone(),
        }
    }
}

fn read(file: &str, text: &str) -> Result<Profile, Error> {
    toml::from_str(text).map_err(|error| Error::Unreadable {
        file: file.to_owned(),
        reason: error.to_string(),
    })
}

/// Says whether a text is a profile as it is written; not whether what it extends is there.
///
/// # Errors
/// [`Error::Unreadable`] with line and field.
pub fn look(file: &str, text: &str) -> Result<Applied, Error> {
    read(file, text).map(|profile| Applied::of(&profile))
}

/// A set of profiles.
#[derive(Clone, Debug, Default)]
pub struct Profiles(Vec<Profile>);

const SHIPPED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/profiles.postcard"));

impl Profiles {
    /// The profiles that come with Rackbar.
    ///
    /// # Errors
    /// Never in a build whose tests passed: they load every profile.
    pub fn shipped() -> Result<Self, Error> {
        let unreadable = |reason: String| Error::Unreadable {
            file: "(shipped)".to_owned(),
            reason,
        };
        let shipped: Vec<Profile> = postcard::from_bytes(SHIPPED).map_err(|error| unreadable(error.to_string()))?;
        let mut profiles = Self::default();
        // Whatever their files are called: a profile comes after the one it extends.
        let mut waiting = shipped;
        while !waiting.is_empty() {
            let before = waiting.len();
            let (ready, later): (Vec<_>, Vec<_>) =
                waiting.into_iter().partition(|p| profiles.knows(p.extends.as_deref()));
            for profile in ready {
                let file = profile.name.clone();
                profiles.take(&file, profile)?;
            }
            if later.len() == before {
                let (file, parent) = later.first().map_or_else(Default::default, |p| {
                    (p.name.clone(), p.extends.clone().unwrap_or_default())
                });
                let why = "is not there, or extends it in turn";
                return Err(Error::Extends { file, parent, why });
            }
            waiting = later;
        }
        Ok(profiles)
    }

    fn knows(&self, name: Option<&str>) -> bool {
        name.is_none_or(|name| self.0.iter().any(|profile| profile.name == name))
    }

    /// Adds a profile, for example one the operator wrote. One with the name of a known profile is laid over that: what it
    /// does not state stays. Among equally exact ones the last added wins.
    ///
    /// # Errors
    /// When it cannot be read, would fit every machine, or extends what is not there.
    pub fn add(&mut self, file: &str, text: &str) -> Result<Applied, Error> {
        let profile = read(file, text)?;
        let applied = Applied::of(&profile);
        self.take(file, profile)?;
        Ok(applied)
    }

    /// All profiles, those that only stand for others to extend included, in the order in which they were added.
    pub fn list(&self) -> Vec<Applied> {
        self.0.iter().map(Applied::of).collect()
    }

    fn take(&mut self, file: &str, profile: Profile) -> Result<(), Error> {
        let known = self.0.iter().position(|known| known.name == profile.name);
        if profile.matches == Match::default() && !profile.base && known.is_none() {
            return Err(Error::MatchesAll { file: file.to_owned() });
        }
        if let Some(parent) = profile.extends.as_deref() {
            let why = if parent == profile.name {
                "is itself"
            } else if !self.knows(Some(parent)) {
                "is not there"
            } else if known.is_some() && self.line(parent).any(|ancestor| ancestor.name == profile.name) {
                "extends it in turn"
            } else {
                ""
            };
            if !why.is_empty() {
                let (file, parent) = (file.to_owned(), parent.to_owned());
                return Err(Error::Extends { file, parent, why });
            }
        }
        match known.map(|at| self.0.remove(at)) {
            Some(below) => self.0.push(over(below, profile)),
            None => self.0.push(profile),
        }
        Ok(())
    }

    /// A profile and what it extends, up to the first.
    fn line<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Profile> {
        let find = |name: &str| self.0.iter().find(|profile| profile.name == name);
        // `take` lets no circle in; the bound is for the reader's peace.
        std::iter::successors(find(name), move |profile| find(profile.extends.as_deref()?)).take(self.0.len())
    }

    /// What applies to a machine.
    pub fn judge(&self, subject: &Subject) -> Verdict {
        let fits = |profile: &&Profile| !profile.base && profile.matches != Match::default();
        let mut fitting: Vec<_> = self
            .0
            .iter()
            .filter(fits)
            .filter_map(|p| matching::score(&p.matches, subject).map(|s| (s, p)))
            .collect();
        fitting.sort_by_key(|(score, _)| *score);
        let mut verdict = Verdict::default();
        for (_, profile) in fitting {
            let mut line: Vec<_> = self.line(&profile.name).collect();
            line.reverse();
            for profile in line {
                verdict.quirks.lay(&profile.quirks);
            }
            verdict.profiles.push(Applied::of(profile));
        }
        verdict
    }
}

/// A profile laid over another of the same name: what it does not state stays.
fn over(below: Profile, above: Profile) -> Profile {
    let mut quirks = below.quirks;
    let stated = &above.quirks;
    macro_rules! keep {
        ($($field:ident),*) => { $(if stated.$field.is_some() { quirks.$field.clone_from(&stated.$field); })* };
    }
    keep!(
        reset_needs_force_off,
        boot_override_mode_required,
        boot_override_at_settings,
        boot_order_refused,
        boot_order_at_settings,
        etag_broken,
        basic_auth_only,
        session_given_back,
        system,
        bios,
        bios_settings,
        http_boot_setting,
        ipmi_suite,
        ipmi_password_bytes,
        request_pause_ms,
        request_burst
    );
    Profile {
        matches: if above.matches == Match::default() {
            below.matches
        } else {
            above.matches
        },
        extends: above.extends.or(below.extends),
        quirks,
        ..above
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(manufacturer: &str, model: &str) -> Subject {
        Subject {
            manufacturer: manufacturer.into(),
            model: model.into(),
            board: String::new(),
            firmware: "1.0".into(),
        }
    }

    #[test]
    fn every_shipped_profile_loads_and_names_its_source() {
        let profiles = Profiles::shipped().unwrap();
        let files = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/profiles"))
            .unwrap()
            .count();
        assert_eq!(profiles.0.len(), files, "each file is compiled in");
        for profile in &profiles.0 {
            assert!(profile.source.starts_with("https://"), "{}", profile.name);
            assert!(profile.quirks != Stated::default(), "{} says nothing", profile.name);
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
    fn a_profile_starts_from_what_it_extends() {
        let mut profiles = Profiles::default();
        let base = "name='board-family'\nsource='x'\nbase=true\n[quirks]\netag_broken=true\nipmi_suite=17\nrequest_pause_ms=250\nrequest_burst=4\n";
        let child = "name='mine'\nsource='x'\nextends='board-family'\n[match]\nboard='ab-*'\n[quirks]\netag_broken=false\nrequest_burst=1\n";
        profiles.add("base.toml", base).unwrap();
        profiles.add("child.toml", child).unwrap();
        let machine = Subject {
            board: "AB-12".into(),
            ..Subject::default()
        };
        let verdict = profiles.judge(&machine);
        assert_eq!(
            (verdict.quirks.etag_broken, verdict.quirks.ipmi_suite),
            (false, Some(17))
        );
        assert_eq!(
            (verdict.quirks.request_pause_ms, verdict.quirks.request_burst),
            (Some(250), Some(1))
        );
        assert_eq!(verdict.profiles.len(), 1, "a base fits nothing by itself");
        for (text, why) in [
            (
                "name='a'\nsource='x'\nextends='b'\n[match]\nmodel='m'\n",
                "is not there",
            ),
            ("name='a'\nsource='x'\nextends='a'\n[match]\nmodel='m'\n", "is itself"),
            ("name='board-family'\nsource='x'\nextends='mine'\n", "in turn"),
        ] {
            let error = profiles.clone().add("bad.toml", text).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn a_firmware_range_fits_what_is_in_it() {
        let mut profiles = Profiles::default();
        let text = "name='old'\nsource='x'\n[match]\nmanufacturer='dell*'\nfirmware_from='5.10'\nfirmware_before='7.0'\n[quirks]\netag_broken=true\n";
        profiles.add("old.toml", text).unwrap();
        for (firmware, expected) in [
            ("5.9.1", false),
            ("5.10", true),
            ("6.99.99", true),
            ("7.00.00", false),
            ("", false),
        ] {
            let machine = Subject {
                firmware: firmware.into(),
                ..subject("Dell Inc.", "R650")
            };
            assert_eq!(profiles.judge(&machine).quirks.etag_broken, expected, "{firmware}");
        }
    }

    #[test]
    fn an_operators_profile_goes_last() {
        let mut profiles = Profiles::shipped().unwrap();
        let text = "name='mine'\nsource='seen in rack 4'\n[match]\nmanufacturer='giga*'\n[quirks]\netag_broken=false\n";
        profiles.add("mine.toml", text).unwrap();
        assert!(!profiles.judge(&subject("GIGABYTE", "R182")).quirks.etag_broken);
        // Under the shipped one's name only what it states changes.
        let text = "name='supermicro'\nsource='seen in rack 4'\n[quirks]\nreset_needs_force_off=true\n";
        profiles.add("supermicro.toml", text).unwrap();
        let verdict = profiles.judge(&subject("Supermicro", "SYS-1029P"));
        assert!(verdict.quirks.reset_needs_force_off && verdict.quirks.boot_override_mode_required);
        assert_eq!(verdict.profiles[0].source, "seen in rack 4");
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
}

//! Languages, keyboards and time zones as Windows calls them.

/// Windows' time zones, each in a line of its own, with the IANA names below it.
const ZONES: &str = include_str!("zones.txt");

/// Layouts that XKB and Windows both have: language and layout as Windows' input locale has them.
const KEYBOARDS: &[(&str, &str)] = &[
    ("at", "0c07:00000407"),
    ("be", "080c:0000080c"),
    ("br", "0416:00000416"),
    ("ch", "0807:00000807"),
    ("cz", "0405:00000405"),
    ("de", "0407:00000407"),
    ("dk", "0406:00000406"),
    ("ee", "0425:00000425"),
    ("es", "040a:0000040a"),
    ("fi", "040b:0000040b"),
    ("fr", "040c:0000040c"),
    ("gb", "0809:00000809"),
    ("gr", "0408:00000408"),
    ("hr", "041a:0000041a"),
    ("hu", "040e:0000040e"),
    ("is", "040f:0000040f"),
    ("it", "0410:00000410"),
    ("nl", "0413:00000413"),
    ("no", "0414:00000414"),
    ("pl", "0415:00000415"),
    ("pt", "0816:00000816"),
    ("ru", "0419:00000419"),
    ("se", "041d:0000041d"),
    ("si", "0424:00000424"),
    ("sk", "041b:0000041b"),
    ("tr", "041f:0000041f"),
    ("ua", "0422:00000422"),
    ("us", "0409:00000409"),
];

/// Windows' name of an IANA time zone.
pub(super) fn zone(iana: &str) -> Option<&'static str> {
    let mut windows = None;
    for line in ZONES.lines().filter(|line| !line.starts_with('#')) {
        match line.strip_prefix("  ") {
            None => windows = Some(line),
            Some(names) if names.split(' ').any(|name| name == iana) => return windows,
            Some(_) => {}
        }
    }
    None
}

/// Windows' input locale of an XKB layout.
pub(super) fn keyboard(layout: &str) -> Option<&'static str> {
    let found = KEYBOARDS.iter().find(|(name, _)| *name == layout)?;
    Some(found.1)
}

/// A locale of POSIX, such as `en_GB.UTF-8`, as Windows writes it: `en-GB`. None where it has more than language and country.
pub(super) fn locale(posix: &str) -> Option<String> {
    let name = ["", ".UTF-8", ".utf8"]
        .iter()
        .find_map(|end| posix.strip_suffix(end).filter(|name| !name.contains('.')))?;
    if matches!(name, "C" | "POSIX") {
        return Some("en-US".into());
    }
    let (language, country) = name.split_once('_')?;
    let lower = (2..=3).contains(&language.len()) && language.bytes().all(|b| b.is_ascii_lowercase());
    let upper = country.len() == 2 && country.bytes().all(|b| b.is_ascii_uppercase());
    (lower && upper).then(|| format!("{language}-{country}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_are_called_as_windows_calls_them() {
        for (iana, windows) in [
            ("UTC", Some("UTC")),
            ("Etc/UTC", Some("UTC")),
            ("Europe/Berlin", Some("W. Europe Standard Time")),
            ("Europe/Kyiv", Some("FLE Standard Time")),
            ("Asia/Calcutta", Some("India Standard Time")),
            ("America/New_York", Some("Eastern Standard Time")),
            ("America/Whitehorse", None),
            ("Europe", None),
            ("Europe/Atlantis", None),
            ("", None),
            ("# Windows'", None),
        ] {
            assert_eq!(zone(iana), windows, "{iana}");
        }
        // Each IANA name stands once, below a name of Windows.
        let mut names: Vec<&str> = ZONES.lines().filter_map(|line| line.strip_prefix("  ")).collect();
        names = names.iter().flat_map(|line| line.split(' ')).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!((names.len(), all > 500), (all, true));
        assert!(names.iter().all(|name| zone(name).is_some()));
    }

    #[test]
    fn locales_and_keyboards_are_called_as_windows_calls_them() {
        for (posix, windows) in [
            ("C", Some("en-US")),
            ("C.UTF-8", Some("en-US")),
            ("de_AT.UTF-8", Some("de-AT")),
            ("fil_PH", Some("fil-PH")),
            ("de_DE@euro", None),
            ("sr_RS.UTF-8@latin", None),
            ("de_DE.ISO-8859-1", None),
            ("de", None),
            ("", None),
        ] {
            assert_eq!(locale(posix).as_deref(), windows, "{posix}");
        }
        assert_eq!(keyboard("gb"), Some("0809:00000809"));
        assert_eq!(keyboard("dvorak"), None);
    }
}

//! What a pin stands for: a URL below an upstream of a mirror is the mirror's, and so is a prefix of such URLs.

use crate::operate::CacheError;
use crate::proxy::mirrored;
use crate::rules::target::{Url, mirror_key};
use crate::settings::Settings;

/// What is said of a mirror that does not exist.
pub(crate) fn unknown_mirror(settings: &Settings, name: &str) -> String {
    let names: Vec<&str> = settings.mirrors.iter().map(|mirror| mirror.name.as_str()).collect();
    let there = if names.is_empty() {
        "there is none".into()
    } else {
        format!("there are {}", names.join(", "))
    };
    format!("there is no mirror {name:?} in the [proxy] section of rackbar.toml; {there}")
}

/// What keys begin with that a prefix, without the `*` at its end, covers.
///
/// # Errors
/// When nothing that is stored could begin so.
pub(crate) fn prefix(settings: &Settings, start: &str) -> Result<String, CacheError> {
    let wrong = || CacheError::Key(format!("{start}*"));
    if start.chars().any(char::is_control) {
        return Err(wrong());
    }
    if let Some(rest) = start.strip_prefix("mirror:") {
        let (name, path) = rest
            .split_once('/')
            .map_or((rest, None), |(name, path)| (name, Some(path)));
        let known = settings.mirrors.iter().any(|mirror| match path {
            Some(_) => mirror.name == name,
            None => mirror.name.starts_with(name),
        });
        if !known {
            return Err(CacheError::Mirror(unknown_mirror(settings, name)));
        }
        return match path {
            Some(path) => mirror_start(name, path).ok_or_else(wrong),
            None => Ok(start.to_owned()),
        };
    }
    match url_start(start).ok_or_else(wrong)? {
        Start::Url(url) => match mirrored(settings, &url) {
            Some((name, path, _)) => mirror_start(name, path).ok_or_else(wrong),
            None => Ok(url.to_string()),
        },
        Start::Host(text) => Ok(text),
    }
}

/// The mirrors that have an upstream below a prefix of URLs, but are not what it stands for: what they have is stored under keys
/// of their own.
pub(crate) fn mirrors_below(settings: &Settings, start: &str) -> Vec<String> {
    let (text, within) = match url_start(start) {
        Some(Start::Url(url)) => {
            let within = mirrored(settings, &url).map(|(name, ..)| name.to_owned());
            (url.to_string(), within)
        }
        Some(Start::Host(text)) => (text, None),
        None => return Vec::new(),
    };
    let below = |base: &Url| format!("{}/", base.to_string().trim_end_matches('/')).starts_with(&text);
    // Of two mirrors that have the same URL the first is whose it is.
    let first = settings
        .mirrors
        .iter()
        .take_while(|mirror| Some(&mirror.name) != within.as_ref());
    let named = first.filter(|mirror| mirror.upstreams.iter().any(below));
    named.map(|mirror| mirror.name.clone()).collect()
}

/// A prefix of URLs.
enum Start {
    /// Host, port and at least the begin of a path.
    Url(Url),
    /// No more than scheme and a part of what names hosts.
    Host(String),
}

/// A prefix of URLs in the spelling that keys have; `None` when it is none of any.
fn url_start(start: &str) -> Option<Start> {
    let (scheme, rest) = start.split_once("://")?;
    let known = scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https");
    let sound = known && start.bytes().all(|octet| octet.is_ascii_graphic()) && !start.contains('#');
    if !sound || cuts_an_escape(start) {
        return None;
    }
    if rest.contains(['/', '?']) {
        // Behind its end more follows: it has no last segment that could be a dot.
        let mut url = Url::parse(&format!("{start}x"))?;
        url.path.pop();
        return Some(Start::Url(url));
    }
    (!rest.contains('@')).then(|| Start::Host(start.to_ascii_lowercase()))
}

fn mirror_start(name: &str, path: &str) -> Option<String> {
    let mut key = mirror_key(name, &format!("{path}x"));
    key.pop();
    (!cuts_an_escape(path)).then_some(key)
}

/// Whether it ends within an escape: no key goes on there.
fn cuts_an_escape(start: &str) -> bool {
    start.bytes().rev().take(2).any(|octet| octet == b'%')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Mirror;
    use proptest::prelude::*;

    fn settings() -> Settings {
        let mirror = |name: &str, upstreams: &[&str]| Mirror {
            name: name.into(),
            upstreams: upstreams.iter().map(|url| Url::parse(url).unwrap()).collect(),
        };
        Settings {
            mirrors: vec![
                mirror("security", &["http://deb.example.org/debian/security"]),
                mirror("debian", &["http://deb.example.org/debian", "https://b.example.org/"]),
            ],
            ..Settings::default()
        }
    }

    fn of(start: &str) -> String {
        prefix(&settings(), start).unwrap_or_else(|error| error.to_string())
    }

    #[test]
    fn a_prefix_below_an_upstream_is_the_mirrors() {
        for (start, key) in [
            ("http://deb.example.org/debian/", "mirror:debian/"),
            ("HTTP://Deb.Example.org:80/debian/pool/a", "mirror:debian/pool/a"),
            ("http://deb.example.org/debian/pool/.", "mirror:debian/pool/."),
            ("http://deb.example.org/debian/x/../g%2b", "mirror:debian/g%2B"),
            ("http://deb.example.org/debian/security/p", "mirror:security/p"),
            ("https://b.example.org/", "mirror:debian/"),
            ("mirror:debian/", "mirror:debian/"),
            ("mirror:debian/a/./b", "mirror:debian/a/b"),
            ("mirror:deb", "mirror:deb"),
            ("mirror:", "mirror:"),
        ] {
            assert_eq!(of(start), key, "{start}");
        }
    }

    #[test]
    fn a_prefix_above_or_beside_stays_what_it_is_and_the_mirrors_below_it_are_named() {
        for (start, key, below) in [
            (
                "http://deb.example.org/",
                "http://deb.example.org/",
                &["security", "debian"][..],
            ),
            (
                "http://Deb.example.org",
                "http://deb.example.org",
                &["security", "debian"],
            ),
            (
                "http://deb.example.org/debian",
                "http://deb.example.org/debian",
                &["security", "debian"],
            ),
            ("http://deb.example.org/debian/", "mirror:debian/", &["security"]),
            (
                "http://deb.example.org/debian-x/",
                "http://deb.example.org/debian-x/",
                &[],
            ),
            ("http://c.example.org/?a/", "http://c.example.org/?a/", &[]),
            ("https://b.example.org", "https://b.example.org", &["debian"]),
            ("http://", "http://", &["security", "debian"]),
            ("https://b.example.org/p", "mirror:debian/p", &[]),
            ("mirror:debian/", "mirror:debian/", &[]),
        ] {
            assert_eq!(of(start), key, "{start}");
            assert_eq!(mirrors_below(&settings(), start), below, "{start}");
        }
    }

    #[test]
    fn what_could_keep_nothing_is_refused() {
        let none = of("mirror:debain/");
        assert!(
            none.contains("\"debain\"") && none.ends_with("there are security, debian"),
            "{none}"
        );
        assert!(of("mirror:x").contains("there is no mirror \"x\""));
        for start in [
            "",
            "no",
            "ftp://a/",
            "locked:ours/",
            "http://u:p@a/",
            "http://u:p@a",
            "http://a:x/",
            "http://a/b#c",
            "http://a/%2",
            "mirror:debian/%",
            "mirror:debian/a\nb",
            "http://a/\n",
            "http:/",
        ] {
            assert!(of(start).contains("is neither a URL nor"), "{start}: {}", of(start));
        }
    }

    proptest! {
        #[test]
        fn what_a_url_begins_with_its_key_begins_with(path in "[a-z./%25?]{0,20}", cut in 0usize..40) {
            let text = format!("http://deb.example.org/debian/{path}");
            let settings = settings();
            let url = Url::parse(&text).unwrap();
            let key = match mirrored(&settings, &url) {
                Some((name, path, _)) => mirror_key(name, path),
                None => url.to_string(),
            };
            // Dots and doubled slashes take parts of a path away, and a text that is no spelling of a URL is none of a prefix.
            let start = &text[..cut.min(text.len())];
            let plain = url.to_string() == text && !text.contains("//s") && !path.contains("//") && !path.starts_with('/');
            if let Some(start) = prefix(&settings, start).ok().filter(|_| plain) {
                let above = mirrors_below(&settings, &text[..cut.min(text.len())]);
                let left_out = above.iter().any(|name| key.starts_with(&format!("mirror:{name}/")));
                prop_assert!(left_out || key.starts_with(&start), "{key} {start}");
            }
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,60}", path in "[ -~]{0,40}") {
            for start in [text, format!("http://deb.example.org/{path}"), format!("mirror:debian/{path}")] {
                let _ = (prefix(&settings(), &start), mirrors_below(&settings(), &start));
            }
        }
    }
}

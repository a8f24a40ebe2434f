//! A hook: where to, which events, whom to trust.

use std::fmt;

use http::Uri;
use rackbar_model::{Event, EventKind, Severity};

use crate::message::event_name;

/// A webhook, as the configuration has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hook {
    /// Its name, unique on the appliance.
    pub name: String,
    /// Where events are posted to.
    pub url: HookUrl,
    /// Names of events such as `drift_seen`; one that ends with `*` stands for all that begin so. Empty for all.
    pub events: Vec<String>,
    /// Only those that ask for at least this much attention.
    pub severity: Severity,
    /// Certificates (DER) of the only authorities trusted for it; empty for the public ones.
    pub roots: Vec<Vec<u8>>,
}

impl Hook {
    /// True when an event is to be told to it. What is said of hooks themselves is told to none: a receiver that fails
    /// would be sent the news of its failure, and that again.
    pub fn wants(&self, event: &Event) -> bool {
        if matches!(&event.kind, EventKind::Service { name, .. } if name.starts_with("webhook ")) {
            return false;
        }
        if event.kind.severity() < self.severity {
            return false;
        }
        let name = event_name(&event.kind);
        self.events.is_empty() || self.events.iter().any(|pattern| fits(pattern, &name))
    }
}

fn fits(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(begin) => name.starts_with(begin),
        None => pattern == name,
    }
}

/// An absolute `http` or `https` URL. Its path and query may hold what only the receiver should know, so that neither
/// `Display` nor `Debug` shows them.
#[derive(Clone, PartialEq, Eq)]
pub struct HookUrl(Uri);

/// Why a text is no URL of a receiver.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum UrlError {
    /// Not a URL.
    #[error("it is no http or https URL")]
    NoUrl,
    /// A user name or password in it.
    #[error("a user name or password in a URL ends in logs; give the hook a secret in place of it")]
    UserInfo,
}

impl HookUrl {
    /// Reads an absolute URL (RFC 3986) of scheme `http` or `https`, without user information.
    ///
    /// # Errors
    /// When it is another one.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        let uri: Uri = text.trim().parse().map_err(|_| UrlError::NoUrl)?;
        let known = matches!(uri.scheme_str(), Some("http" | "https"));
        let authority = uri.authority().filter(|_| known).ok_or(UrlError::NoUrl)?;
        if authority.as_str().contains('@') {
            return Err(UrlError::UserInfo);
        }
        if authority.host().is_empty() || text.contains('#') {
            return Err(UrlError::NoUrl);
        }
        Ok(Self(uri))
    }

    pub(crate) fn uri(&self) -> &Uri {
        &self.0
    }

    /// True when the way there is encrypted.
    pub fn is_https(&self) -> bool {
        self.0.scheme_str() == Some("https")
    }
}

impl fmt::Display for HookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let authority = self.0.authority().map_or("", |authority| authority.as_str());
        write!(f, "{}://{authority}/...", self.0.scheme_str().unwrap_or_default())
    }
}

impl fmt::Debug for HookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HookUrl({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rackbar_model::Timestamp;

    fn hook(events: &[&str], severity: Severity) -> Hook {
        Hook {
            name: "chat".into(),
            url: HookUrl::parse("https://hooks.example/x").unwrap(),
            events: events.iter().map(|one| (*one).to_owned()).collect(),
            severity,
            roots: Vec::new(),
        }
    }

    fn event(kind: EventKind) -> Event {
        Event {
            seq: 1,
            at: Timestamp(0),
            node: None,
            mac: None,
            kind,
        }
    }

    fn note(severity: Severity) -> Event {
        let text = "x".into();
        event(EventKind::Note { text, severity })
    }

    #[test]
    fn events_are_chosen_by_name_by_beginning_and_by_severity() {
        let drift = event(EventKind::DriftSeen { what: "x".into() });
        assert!(hook(&[], Severity::Info).wants(&drift));
        assert!(hook(&["drift_seen"], Severity::Info).wants(&drift));
        assert!(hook(&["note", "drift_*"], Severity::Info).wants(&drift));
        assert!(!hook(&["drift"], Severity::Info).wants(&drift));
        assert!(hook(&[], Severity::Warning).wants(&note(Severity::Error)));
        assert!(!hook(&[], Severity::Warning).wants(&note(Severity::Info)));
    }

    #[test]
    fn the_failure_of_a_hook_is_told_to_no_hook() {
        let failing = event(EventKind::Service {
            name: "webhook chat".into(),
            state: "failing".into(),
            severity: Severity::Error,
        });
        assert!(!hook(&[], Severity::Info).wants(&failing));
    }

    #[test]
    fn a_url_shows_no_path_and_takes_no_user() {
        let url = HookUrl::parse("https://hooks.example:8443/T00/B00/geheim?key=geheim").unwrap();
        assert_eq!(url.to_string(), "https://hooks.example:8443/...");
        assert!(!format!("{url:?}").contains("geheim"));
        assert_eq!(
            HookUrl::parse("https://anna:geheim@hooks.example/"),
            Err(UrlError::UserInfo)
        );
        for bad in [
            "",
            "hooks.example",
            "/x",
            "ftp://hooks.example/",
            "http://",
            "http://a/#b",
            "http:///x",
        ] {
            assert_eq!(HookUrl::parse(bad), Err(UrlError::NoUrl), "{bad:?}");
        }
    }
}

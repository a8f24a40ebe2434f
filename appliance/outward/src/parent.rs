//! A proxy of others through which everything that leaves goes: who it is, what is reached without it, and what it says
//! when it does not want to.

use std::fmt;
use std::net::IpAddr;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::{HeaderMap, HeaderValue, Uri};
use ipnet::IpNet;

/// Of the words of a refusal.
const WORDS: usize = 60;

/// The parent proxy as the operator describes it. Neither `Debug` nor `Display` show its login.
#[derive(Clone, PartialEq, Eq)]
pub struct Parent {
    pub(crate) tls: bool,
    pub(crate) host: String,
    pub(crate) port: u16,
    login: Option<HeaderValue>,
    direct: Vec<Direct>,
    pub(crate) roots: Vec<Vec<u8>>,
}

/// Who is reached without the parent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Direct {
    /// A host by its very name.
    Host(String),
    /// All hosts below a domain: `*.example.org`.
    Below(String),
    /// Hosts that are written as an address of this network; names are not looked up for it.
    Net(IpNet),
}

/// Why a parent cannot be used as it is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadParent {
    /// Not of the form `http://HOST:PORT`.
    #[error("it is no URL of a proxy: http:// or https://, a host and a port, and nothing more")]
    Url,
    /// A password in the URL would be read by everybody who sees the configuration or a log.
    #[error("a login has no place in a URL, which is shown and logged")]
    Login,
    /// RFC 7617 section 2: the user name ends at the first colon, and control characters are in neither.
    #[error("the user name is empty or has a colon, or it or the password has a control character")]
    Credentials,
}

/// What went wrong at the parent, and not at the origin behind it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ParentError {
    /// No connection to it.
    #[error("the parent proxy {parent} cannot be reached: {why}")]
    Unreachable {
        /// Its URL.
        parent: String,
        /// Why not.
        why: String,
    },
    /// 407.
    #[error(
        "the parent proxy {parent} wants a login (407){}; see parent_login in the [proxy] section of rackbar.toml",
        if *.given { " and does not take the one it is given" } else { "" }
    )]
    Login {
        /// Its URL.
        parent: String,
        /// It was given one.
        given: bool,
    },
    /// Any other 4xx of its own.
    #[error(
        "the parent proxy {parent} refuses the way to {to} ({said}); whoever runs it decides that, and what is to be reached \
         without it goes into parent_direct in the [proxy] section of rackbar.toml"
    )]
    Refused {
        /// Its URL.
        parent: String,
        /// Where to.
        to: String,
        /// Status and words.
        said: String,
    },
    /// A 5xx of its own.
    #[error("the parent proxy {parent} does not get to {to} ({said})")]
    Failed {
        /// Its URL.
        parent: String,
        /// Where to.
        to: String,
        /// Status and words.
        said: String,
    },
}

impl fmt::Display for Parent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}", authority(&self.host, self.port))
    }
}

impl fmt::Debug for Parent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Parent({self}, login: {}, ..)", self.login.is_some())
    }
}

/// `HOST:PORT`, an IPv6 address in brackets.
pub(crate) fn authority(host: &str, port: u16) -> String {
    match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}

impl Parent {
    /// Takes `http://HOST:PORT` or `https://HOST:PORT`; without a port it is that of the scheme.
    ///
    /// # Errors
    /// When it is another URL, or one with a login.
    pub fn parse(url: &str) -> Result<Self, BadParent> {
        let uri: Uri = url.parse().map_err(|_| BadParent::Url)?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(BadParent::Url),
        };
        let place = uri.authority().ok_or(BadParent::Url)?;
        if place.as_str().contains('@') {
            return Err(BadParent::Login);
        }
        // A port that is written and none is no port left out.
        let written = place.as_str() != place.host();
        let port = place.port_u16().or((!written).then_some(if tls { 443 } else { 80 }));
        let host = place.host().trim_matches(['[', ']']).to_ascii_lowercase();
        let plain = matches!(uri.path(), "" | "/") && uri.query().is_none() && !url.contains('#');
        match port.filter(|port| *port != 0 && plain && !host.is_empty()) {
            Some(port) => Ok(Self {
                tls,
                host,
                port,
                login: None,
                direct: Vec::new(),
                roots: Vec::new(),
            }),
            None => Err(BadParent::Url),
        }
    }

    /// With a login by RFC 7617 (`Basic`).
    ///
    /// # Errors
    /// When the two cannot be sent that way.
    pub fn with_login(mut self, user: &str, password: &str) -> Result<Self, BadParent> {
        let control = user.chars().chain(password.chars()).any(char::is_control);
        if user.is_empty() || user.contains(':') || control {
            return Err(BadParent::Credentials);
        }
        let words = format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")));
        let mut value = HeaderValue::from_str(&words).map_err(|_| BadParent::Credentials)?;
        value.set_sensitive(true);
        self.login = Some(value);
        Ok(self)
    }

    /// With those that are reached without it.
    pub fn with_direct(mut self, direct: impl IntoIterator<Item = Direct>) -> Self {
        self.direct.extend(direct);
        self
    }

    /// With authorities (DER) to trust besides the public ones, where the way to it is `https`.
    pub fn with_roots(mut self, roots: Vec<Vec<u8>>) -> Self {
        self.roots = roots;
        self
    }

    /// Its host, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Whether the way to a host is through it.
    pub fn leads(&self, host: &str) -> bool {
        let host = host.trim_matches(['[', ']']).trim_end_matches('.').to_ascii_lowercase();
        let address = host.parse::<IpAddr>().ok();
        !self.direct.iter().any(|one| match one {
            Direct::Host(name) => *name == host,
            Direct::Below(domain) => host
                .strip_suffix(domain.as_str())
                .is_some_and(|rest| rest.ends_with('.')),
            Direct::Net(net) => address.is_some_and(|address| net.contains(&address)),
        })
    }

    /// The value of `Proxy-Authorization`.
    pub fn login(&self) -> Option<&HeaderValue> {
        self.login.as_ref()
    }

    /// The same for a request that is sent to it itself: a plain one, which it leads on.
    pub fn login_for(&self, uri: &Uri) -> Option<&HeaderValue> {
        let plain = uri.scheme_str() == Some("http") && uri.host().is_some_and(|host| self.leads(host));
        self.login.as_ref().filter(|_| plain)
    }

    /// What it says in an answer that is its own and no origin's: 407 is never anything else; of other statuses the fields
    /// `Proxy-Status` (RFC 9209, with `error`) and Squid's `X-Squid-Error` say so. An answer without any is the origin's.
    pub fn refusal(&self, uri: &Uri, status: u16, headers: &HeaderMap) -> Option<ParentError> {
        let host = uri.host().filter(|host| self.leads(host))?;
        let plain = uri.scheme_str() == Some("http");
        let told = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let squid = told("x-squid-error");
        let standard = told("proxy-status").filter(|text| text.contains("error="));
        let marked = squid.or(standard).filter(|_| status >= 400);
        (plain && (status == 407 || marked.is_some())).then(|| self.said(host, status, marked.unwrap_or_default()))
    }

    /// An answer of its own to a request for `to`.
    pub(crate) fn said(&self, to: &str, status: u16, words: &str) -> ParentError {
        let (parent, to) = (self.to_string(), to.to_owned());
        let words: String = words.chars().filter(|c| !c.is_control()).take(WORDS).collect();
        let said = format!("{status} {words}").trim_end().to_owned();
        match status {
            407 => ParentError::Login {
                parent,
                given: self.login.is_some(),
            },
            400..=499 => ParentError::Refused { parent, to, said },
            _ => ParentError::Failed { parent, to, said },
        }
    }
}

impl Direct {
    /// Reads `host`, `*.domain`, an address or a network; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        if let Ok(net) = text.parse::<IpNet>() {
            return Some(Self::Net(net.trunc()));
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Some(Self::Net(address.into()));
        }
        let (below, name) = match text.strip_prefix("*.") {
            Some(name) => (true, name),
            None => (false, text),
        };
        let name = name.to_ascii_lowercase();
        let letters = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let sound = !name.is_empty() && name.len() <= 253 && name.chars().all(letters);
        let labels = name.split('.').all(|label| !label.is_empty());
        (sound && labels).then_some(if below { Self::Below(name) } else { Self::Host(name) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parent() -> Parent {
        Parent::parse("http://proxy.example.net:3128").unwrap()
    }

    #[test]
    fn a_parent_is_scheme_host_and_port_and_never_a_login() {
        for (good, shown) in [
            ("http://proxy.example.net:3128", "http://proxy.example.net:3128"),
            ("http://Proxy/", "http://proxy:80"),
            ("https://[2001:db8::1]:8443", "https://[2001:db8::1]:8443"),
            ("https://10.0.0.1", "https://10.0.0.1:443"),
        ] {
            assert_eq!(Parent::parse(good).unwrap().to_string(), shown);
        }
        for bad in [
            "",
            "proxy:3128",
            "ftp://a:1",
            "http://",
            "http://a/x",
            "http://a:0",
            "http://a?x",
            "http://a:99999",
            "socks5://a:1",
            "http://a/#x",
        ] {
            assert_eq!(Parent::parse(bad), Err(BadParent::Url), "{bad}");
        }
        assert_eq!(Parent::parse("http://me:word@proxy:3128"), Err(BadParent::Login));
    }

    #[test]
    fn a_login_is_in_no_text() {
        let parent = parent().with_login("me", "s3cret-word").unwrap();
        let sent = parent.login().unwrap();
        assert_eq!(sent, "Basic bWU6czNjcmV0LXdvcmQ=");
        let said = parent.said("x", 407, "words");
        for text in [format!("{parent:?} {parent} {sent:?}"), format!("{said} {said:?}")] {
            assert!(!text.contains("s3cret") && !text.contains("bWU6"), "{text}");
        }
        for (user, word) in [("", "x"), ("a:b", "x"), ("a", "x\ny"), ("a\r", "x")] {
            let refused = Parent::parse("http://p").unwrap().with_login(user, word);
            assert_eq!(refused, Err(BadParent::Credentials));
        }
    }

    #[test]
    fn the_login_goes_to_the_parent_alone() {
        let direct = Direct::parse("*.site.example");
        let parent = parent().with_login("me", "word").unwrap().with_direct(direct);
        let sent = |uri: &str| parent.login_for(&uri.parse().unwrap()).is_some();
        assert!(sent("http://deb.example.org/x"));
        // What goes through a tunnel is read by the origin.
        assert!(!sent("https://deb.example.org/x"));
        assert!(!sent("http://a.site.example/x"));
    }

    #[test]
    fn what_is_reached_without_it_is_said_by_name_domain_or_network() {
        let all = [
            "deb.site.example",
            "*.rack.example",
            "10.20.0.0/16",
            "2001:db8::/32",
            "192.0.2.7",
        ];
        let parent = parent().with_direct(all.iter().map(|one| Direct::parse(one).unwrap()));
        for direct in [
            "deb.site.example",
            "DEB.site.example.",
            "a.rack.example",
            "a.b.rack.example",
            "10.20.3.4",
            "[2001:db8::9]",
            "192.0.2.7",
        ] {
            assert!(!parent.leads(direct), "{direct}");
        }
        for through in [
            "rack.example",
            "evilrack.example",
            "x.deb.site.example",
            "10.21.0.1",
            "192.0.2.8",
            "deb",
        ] {
            assert!(parent.leads(through), "{through}");
        }
        for bad in ["", "*", "*.", "a..b", "http://a", "a b", ".a", "a/8"] {
            assert_eq!(Direct::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn an_answer_of_the_parent_is_told_from_one_of_the_origin() {
        let uri: Uri = "http://deb.example.org/x".parse().unwrap();
        let headers = |pairs: &[(&'static str, &'static str)]| -> HeaderMap {
            let parsed = |(name, value): &(&'static str, &'static str)| {
                (http::HeaderName::from_static(name), HeaderValue::from_static(value))
            };
            pairs.iter().map(parsed).collect()
        };
        let parent = parent();
        let says = |status, pairs| {
            parent
                .refusal(&uri, status, &headers(pairs))
                .map(|error| error.to_string())
        };
        // Its own.
        let login = says(407, &[]).unwrap();
        assert!(
            login.contains("http://proxy.example.net:3128 wants a login (407);"),
            "{login}"
        );
        let denied = says(403, &[("x-squid-error", "ERR_ACCESS_DENIED 0")]).unwrap();
        assert!(
            denied.contains("refuses the way to deb.example.org (403 ERR_ACCESS_DENIED 0)"),
            "{denied}"
        );
        let failed = says(503, &[("proxy-status", "p; error=dns_error")]).unwrap();
        assert!(
            failed.contains("does not get to deb.example.org (503 p; error=dns_error)"),
            "{failed}"
        );
        // The origin's.
        assert_eq!(says(403, &[]), None);
        assert_eq!(
            says(502, &[("via", "1.1 proxy"), ("proxy-status", "p; received-status=502")]),
            None
        );
        assert_eq!(says(200, &[("x-squid-error", "x")]), None);
        let through_a_tunnel = "https://deb.example.org/x".parse().unwrap();
        assert_eq!(parent.refusal(&through_a_tunnel, 407, &headers(&[])), None);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic_and_what_is_taken_is_written_the_same_way(text in "\\PC{0,40}", port in 0u32..70_000) {
            for url in [text.clone(), format!("http://{text}"), format!("https://{text}:{port}/")] {
                if let Ok(parent) = Parent::parse(&url) {
                    prop_assert_eq!(Parent::parse(&parent.to_string()), Ok(parent.clone()));
                    prop_assert!(!parent.to_string().contains('@'));
                }
            }
            if let Some(one) = Direct::parse(&text) {
                let _ = parent().with_direct([one]).leads(&text);
            }
        }
    }
}

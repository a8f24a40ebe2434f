//! What a request is for: URLs in one spelling, mirror paths, and the keys things are stored under.

use std::fmt;

/// Longest URL taken.
const LONGEST: usize = 4096;

/// An absolute `http` or `https` URL in one spelling.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Url {
    /// TLS to the origin.
    pub https: bool,
    /// Name, in lower case, or address without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Path and query, beginning with `/`, escapes in one spelling.
    pub path: String,
}

impl Url {
    /// Reads an absolute URL. User names are refused: they would end up in logs and keys.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > LONGEST || !text.bytes().all(|b| b.is_ascii_graphic()) {
            return None;
        }
        let (scheme, rest) = text.split_once("://")?;
        let https = match scheme {
            s if s.eq_ignore_ascii_case("http") => false,
            s if s.eq_ignore_ascii_case("https") => true,
            _ => return None,
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (host, port) = authority(rest.get(..end)?, if https { 443 } else { 80 })?;
        let path = rest.get(end..)?.split('#').next().unwrap_or_default();
        Some(Self {
            https,
            host,
            port,
            path: normal_path(path),
        })
    }

    /// `host` or `host:port`, as a `Host` field has it.
    pub fn authority(&self) -> String {
        let name = if self.host.contains(':') {
            format!("[{}]", self.host)
        } else {
            self.host.clone()
        };
        let usual = if self.https { 443 } else { 80 };
        if self.port == usual {
            name
        } else {
            format!("{name}:{}", self.port)
        }
    }

    /// The part of the path below `base`, when this URL lies below it.
    pub fn below(&self, base: &Self) -> Option<&str> {
        let same = self.https == base.https && self.host == base.host && self.port == base.port;
        let rest = self.path.strip_prefix(base.path.trim_end_matches('/'))?;
        (same && rest.starts_with('/')).then(|| rest.trim_start_matches('/'))
    }

    /// The URL of `path` below this one, which is taken as a folder.
    pub fn join(&self, path: &str) -> Self {
        let path = normal_path(&format!(
            "{}/{}",
            self.path.trim_end_matches('/'),
            path.trim_start_matches('/')
        ));
        Self { path, ..self.clone() }
    }

    /// Where `location` of a redirection leads (RFC 3986 section 5.2).
    pub fn follow(&self, location: &str) -> Option<Self> {
        let scheme = location
            .split(['/', '?', '#'])
            .next()
            .is_some_and(|first| first.contains(':'));
        if scheme {
            return Self::parse(location);
        }
        let path = if location.starts_with('?') {
            format!("{}{location}", self.path.split('?').next().unwrap_or_default())
        } else if location.starts_with('/') && !location.starts_with("//") {
            location.to_owned()
        } else if location.starts_with("//") {
            return Self::parse(&format!("{}:{location}", if self.https { "https" } else { "http" }));
        } else {
            let plain = self.path.split('?').next().unwrap_or_default();
            format!("{}/{location}", plain.rsplit_once('/').map_or("", |(folder, _)| folder))
        };
        let clean = path.len() <= LONGEST && path.bytes().all(|b| b.is_ascii_graphic());
        clean.then(|| Self {
            path: normal_path(path.split('#').next().unwrap_or_default()),
            ..self.clone()
        })
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.https { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority(), self.path)
    }
}

/// Reads `host`, `host:port`, `[v6]:port`.
pub fn authority(text: &str, usual: u16) -> Option<(String, u16)> {
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (inside, after) = rest.split_once(']')?;
        inside.parse::<std::net::Ipv6Addr>().ok()?;
        (
            inside,
            after
                .strip_prefix(':')
                .or(if after.is_empty() { Some("") } else { None })?,
        )
    } else {
        text.split_once(':').unwrap_or((text, ""))
    };
    // One dot at the end says that the name is whole (RFC 3986 section 3.2.2). More, or a dot alone, name nothing.
    let host = host.strip_suffix('.').unwrap_or(host);
    let named = |b: u8| b.is_ascii_alphanumeric() || b"-._:".contains(&b);
    if host.is_empty() || host.len() > 253 || !host.bytes().all(named) || host.split('.').any(str::is_empty) {
        return None;
    }
    let port = match port {
        "" => usual,
        text if text.bytes().all(|b| b.is_ascii_digit()) => text.parse().ok().filter(|port| *port != 0)?,
        _ => return None,
    };
    Some((host.to_ascii_lowercase(), port))
}

/// Escapes in one spelling (RFC 3986 section 6.2.2), dot segments taken out.
fn normal_path(text: &str) -> String {
    let (path, query) = match text.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (text, None),
    };
    let mut segments: Vec<String> = Vec::new();
    for segment in path.split('/').skip(usize::from(path.starts_with('/'))) {
        let segment = normal_escapes(segment);
        match segment.as_str() {
            ".." => {
                segments.pop();
            }
            "." => {}
            _ => segments.push(segment),
        }
    }
    let mut out = format!("/{}", segments.join("/"));
    if let Some(query) = query {
        out.push('?');
        out.push_str(&normal_escapes(query));
    }
    out
}

fn normal_escapes(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        out.push_str(rest.get(..at).unwrap_or_default());
        let byte = rest
            .get(at + 1..at + 3)
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match byte {
            Some(byte) if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => out.push(char::from(byte)),
            Some(byte) => out.push_str(&format!("%{byte:02X}")),
            None => {
                out.push_str("%25");
                rest = rest.get(at + 1..).unwrap_or_default();
                continue;
            }
        }
        rest = rest.get(at + 3..).unwrap_or_default();
    }
    out.push_str(rest);
    out
}

/// A key or URL without its query, which may have a secret in it: what is told or logged of it.
pub fn without_query(key: &str) -> &str {
    key.split('?').next().unwrap_or_default()
}

/// A key with its escapes undone, as package indexes spell paths.
pub fn plain(key: &str) -> String {
    let bytes = key.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let escape = key.get(at + 1..at + 3).filter(|_| *byte == b'%');
        match escape.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(decoded) => {
                out.push(decoded);
                at += 3;
            }
            None => {
                out.push(*byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The key of a path of a mirror.
pub fn mirror_key(mirror: &str, path: &str) -> String {
    let path = normal_path(path);
    format!("mirror:{mirror}{path}")
}

/// Name and path of a mirror's key.
pub fn mirror_of(key: &str) -> Option<(&str, &str)> {
    key.strip_prefix("mirror:")?.split_once('/')
}

/// Whether the key names an index of packages, whose content changes under its name.
pub fn is_index(key: &str) -> bool {
    let path = key.split('?').next().unwrap_or_default();
    let name = path.rsplit('/').next().unwrap_or_default();
    let bare = name.split('.').next().unwrap_or_default();
    let index = ["InRelease", "Release", "Packages", "Sources", "repomd"].contains(&bare);
    index && !path.contains("/by-hash/")
}

/// The digest that the key itself promises: `.../by-hash/SHA256/<64 hex>`.
pub fn digest_in(key: &str) -> Option<rackbar_model::Digest> {
    let (_, hex) = key.rsplit_once("/by-hash/SHA256/")?;
    hex.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn spelt(text: &str) -> String {
        Url::parse(text).map_or_else(String::new, |url| url.to_string())
    }

    #[test]
    fn one_resource_has_one_spelling() {
        for same in [
            "http://Deb.Example.org/debian/a%7eb+c",
            "HTTP://deb.example.org:80/debian/./x/../a~b+c#f",
            "http://deb.example.org./debian/a%7Eb+c",
        ] {
            assert_eq!(spelt(same), "http://deb.example.org/debian/a~b+c", "{same}");
        }
        assert_eq!(spelt("https://[2001:db8::1]:8443?q"), "https://[2001:db8::1]:8443/?q");
        assert_eq!(spelt("http://a/%2f%zz"), "http://a/%2F%25zz");
        assert_eq!(spelt("http://a/x/../../../etc"), "http://a/etc");
        for bad in [
            "ftp://a/",
            "http://u:p@a/",
            "http://",
            "http://a:0/",
            "http://a:x/",
            "http://a b/",
            "a/b",
            "http://./",
            "http://a../",
            "http://.a/",
        ] {
            assert_eq!(spelt(bad), "", "{bad}");
        }
    }

    #[test]
    fn a_mirror_and_the_urls_of_its_upstreams_meet() {
        let base = Url::parse("http://deb.example.org/debian").unwrap();
        let url = Url::parse("http://deb.example.org/debian/pool/g++.deb").unwrap();
        assert_eq!(url.below(&base), Some("pool/g++.deb"));
        assert_eq!(
            Url::parse("http://deb.example.org/debian-security/x")
                .unwrap()
                .below(&base),
            None
        );
        assert_eq!(base.join("/pool/g++.deb"), url);
        assert_eq!(
            mirror_of(&mirror_key("debian", "pool/a.deb")),
            Some(("debian", "pool/a.deb"))
        );
        // A client cannot climb out of a mirror.
        assert_eq!(
            base.join(mirror_of(&mirror_key("debian", "../../x")).unwrap().1)
                .to_string(),
            "http://deb.example.org/debian/x"
        );
    }

    #[test]
    fn redirections_are_followed_from_where_they_stand() {
        let from = Url::parse("https://a.example/x/y?z").unwrap();
        let to = |location: &str| from.follow(location).map(|url| url.to_string());
        assert_eq!(to("w").unwrap(), "https://a.example/x/w");
        assert_eq!(to("/w").unwrap(), "https://a.example/w");
        assert_eq!(to("//b.example/w").unwrap(), "https://b.example/w");
        assert_eq!(to("http://b.example").unwrap(), "http://b.example/");
        assert_eq!(to("file:///etc/passwd"), None);
        assert_eq!(to("mailto:x"), None);
        // A URL in a query is a part of the query (RFC 3986 section 4.1).
        assert_eq!(
            to("/dl?from=https://b.example/v").unwrap(),
            "https://a.example/dl?from=https://b.example/v"
        );
        assert_eq!(
            to("dl?from=http://b.example").unwrap(),
            "https://a.example/x/dl?from=http://b.example"
        );
        assert_eq!(to("?w").unwrap(), "https://a.example/x/y?w");
    }

    #[test]
    fn indexes_and_promised_digests_are_told_by_their_names() {
        assert!(is_index("mirror:debian/dists/bookworm/InRelease"));
        assert!(is_index("http://a/repodata/repomd.xml"));
        assert!(!is_index("http://a/pool/m/main/Packages-tools.deb"));
        let hash = "00".repeat(32);
        assert!(digest_in(&format!("http://a/dists/x/main/by-hash/SHA256/{hash}")).is_some());
        assert!(digest_in("http://a/by-hash/SHA256/12").is_none());
        assert_eq!(plain("http://a/g%2b%2B%"), "http://a/g++%");
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic_and_spelling_again_changes_nothing(text in "\\PC{0,80}", path in "[ -~]{0,60}") {
            let _ = (Url::parse(&text), plain(&text), mirror_key("m", &text), authority(&text, 80));
            if let Some(url) = Url::parse(&format!("http://h.example/{}", path.replace(' ', ""))) {
                prop_assert_eq!(Url::parse(&url.to_string()), Some(url.clone()));
                let _ = url.follow(&path);
            }
        }
    }
}

//! What is asked for: a key, where it can be had, and the client's own words.

use http::{HeaderMap, HeaderValue};
use rackbar_upstream::Sum;

use crate::rules::cache_control::CacheControl;
use crate::rules::conditional::strip_hop_by_hop;
use crate::rules::target::Url;

/// Fields of a client that are ours to set.
const OURS: [&str; 10] = [
    "host",
    "range",
    "if-range",
    "if-none-match",
    "if-modified-since",
    "if-match",
    "if-unmodified-since",
    "content-length",
    "expect",
    "x-forwarded-for",
];

/// Fields by which a client proves who it is.
const SECRETS: [&str; 2] = ["authorization", "cookie"];

/// One place to ask.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Upstream {
    /// URL.
    pub url: Url,
    /// The operator wrote it into the configuration.
    pub trusted: bool,
    /// Its number among the upstreams of its mirror.
    pub index: usize,
    /// It is the one that the client named, or the first of the mirror it named: no other is told what the client proves
    /// itself with.
    pub named: bool,
}

impl Upstream {
    /// Where this one leads: trusted and told a client's secrets only as long as it is the same origin (RFC 6454 section 4).
    pub fn led(self, url: Url) -> Self {
        let place = url.host == self.url.host && url.port == self.url.port;
        let same = place && url.https == self.url.https;
        Self {
            trusted: self.trusted && place,
            named: self.named && same,
            url,
            ..self
        }
    }

    /// The fields that it is sent of those of a request.
    pub fn headers(&self, all: &HeaderMap) -> HeaderMap {
        let mut headers = all.clone();
        if !self.named {
            for name in SECRETS {
                headers.remove(name);
            }
        }
        headers
    }
}

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Ask {
    /// What it is stored under.
    pub key: String,
    /// The mirror it belongs to.
    pub mirror: Option<String>,
    /// Where it can be had, in the order to try.
    pub upstreams: Vec<Upstream>,
    /// The client's fields, as far as they go on to the origin.
    pub headers: HeaderMap,
    /// What the client wants of the cache.
    pub wanted: CacheControl,
    /// The digest an index of packages promises, or the name itself.
    pub expected: Option<Sum>,
    /// Nothing else than what is expected is given out, not even where nobody can be asked for better.
    pub strict: bool,
    /// Another key under which what is expected may be kept.
    pub held: Option<String>,
}

impl Ask {
    /// The fields that go to the origin.
    pub fn forwarded(client: &HeaderMap, via: &HeaderValue) -> HeaderMap {
        let mut headers = client.clone();
        strip_hop_by_hop(&mut headers);
        for name in OURS {
            headers.remove(name);
        }
        headers.append(http::header::VIA, via.clone());
        headers
    }

    /// The name of the flight it may join: fields by which origins usually choose an answer are part of it, and those by
    /// which they know a user, whose refusal is nobody else's; and that what comes is not to be stored, so for nobody else.
    pub fn flight(&self) -> String {
        let mut name = self.key.clone();
        if self.wanted.no_store {
            name.push_str("\nno-store");
        }
        if let Some(sum) = self.expected.filter(|_| self.strict) {
            // Others may take what has another digest.
            name.push_str(&format!("\n{sum}"));
        }
        for field in [
            "accept-encoding",
            "accept",
            "accept-language",
            "authorization",
            "cookie",
        ] {
            name.push('\n');
            // All of them, and by octets: a cookie may have any.
            for value in self.headers.get_all(field) {
                name.push_str(&format!("{}\r", value.as_bytes().escape_ascii()));
            }
        }
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flight(cookies: &[&[u8]]) -> String {
        let mut client = HeaderMap::new();
        for cookie in cookies {
            client.append("cookie", HeaderValue::from_bytes(cookie).unwrap());
        }
        let ask = Ask {
            key: "http://a/b".into(),
            mirror: None,
            upstreams: Vec::new(),
            headers: Ask::forwarded(&client, &HeaderValue::from_static("1.1 us")),
            wanted: CacheControl::default(),
            expected: None,
            strict: false,
            held: None,
        };
        ask.flight()
    }

    #[test]
    fn two_users_are_in_no_flight_together_whatever_octets_tell_them_apart() {
        let all: [&[&[u8]]; 7] = [
            &[],
            &[b"id=1"],
            &[b"id=1", b"id=2"],
            &[b"id=1", b"id=3"],
            &[b"id=\xfc"],
            &[b"id=\xf6"],
            &[b"id=\\xf6"],
        ];
        let names: std::collections::HashSet<String> = all.iter().map(|cookies| flight(cookies)).collect();
        assert_eq!(names.len(), all.len(), "{names:?}");
        assert_eq!(flight(all[3]), flight(all[3]));
    }
}

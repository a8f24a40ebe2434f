//! The `Cache-Control` field (RFC 9111 section 5.2, RFC 5861, RFC 8246).

use http::HeaderMap;
use http::header::{CACHE_CONTROL, PRAGMA};

/// The greatest number of seconds a directive can mean (RFC 9111 section 1.2.2).
const MAX_DELTA: u64 = 1 << 31;

/// The directives that mean something to us; others are ignored as RFC 9111 section 5.2.3 wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CacheControl {
    /// `no-store`.
    pub no_store: bool,
    /// `no-cache`, with field names or without: both are taken as the stricter one.
    pub no_cache: bool,
    /// `private`, with field names or without.
    pub private: bool,
    /// `public`.
    pub public: bool,
    /// `must-revalidate`.
    pub must_revalidate: bool,
    /// `proxy-revalidate`.
    pub proxy_revalidate: bool,
    /// `must-understand`.
    pub must_understand: bool,
    /// `immutable` (RFC 8246).
    pub immutable: bool,
    /// `only-if-cached`, of a request.
    pub only_if_cached: bool,
    /// `max-age`.
    pub max_age: Option<u64>,
    /// `s-maxage`.
    pub s_maxage: Option<u64>,
    /// `min-fresh`, of a request.
    pub min_fresh: Option<u64>,
    /// `max-stale`, of a request; without a value any staleness will do.
    pub max_stale: Option<u64>,
    /// `stale-if-error` (RFC 5861 section 4).
    pub stale_if_error: Option<u64>,
}

impl CacheControl {
    /// Reads all `Cache-Control` fields of a message. A `Pragma: no-cache` counts in a request without any (RFC 9111
    /// section 5.4); in a response it means nothing.
    pub fn of(headers: &HeaderMap, request: bool) -> Self {
        let mut out = Self::default();
        let mut seen = false;
        for value in headers.get_all(CACHE_CONTROL) {
            seen = true;
            out.add(value.as_bytes());
        }
        if request
            && !seen
            && headers
                .get_all(PRAGMA)
                .iter()
                .any(|value| has_no_cache(value.as_bytes()))
        {
            out.no_cache = true;
        }
        out
    }

    /// Adds the directives of one field value. Of a directive that comes twice the stricter meaning stays.
    pub fn add(&mut self, value: &[u8]) {
        for item in split(value) {
            let (name, argument) = match item.iter().position(|b| *b == b'=') {
                Some(at) => (item.get(..at).unwrap_or_default(), item.get(at + 1..)),
                None => (item, None),
            };
            self.directive(
                &name.trim_ascii().to_ascii_lowercase(),
                argument.map(<[u8]>::trim_ascii),
            );
        }
    }

    fn directive(&mut self, name: &[u8], argument: Option<&[u8]>) {
        // An argument that is no number counts as 0: RFC 9111 section 4.2.1 encourages to take that as stale.
        let seconds = || argument.map_or(0, delta);
        let least = |old: Option<u64>| Some(old.map_or(seconds(), |old| old.min(seconds())));
        match name {
            b"no-store" => self.no_store = true,
            b"no-cache" => self.no_cache = true,
            b"private" => self.private = true,
            b"public" => self.public = true,
            b"must-revalidate" => self.must_revalidate = true,
            b"proxy-revalidate" => self.proxy_revalidate = true,
            b"must-understand" => self.must_understand = true,
            b"immutable" => self.immutable = true,
            b"only-if-cached" => self.only_if_cached = true,
            b"max-age" => self.max_age = least(self.max_age),
            b"s-maxage" => self.s_maxage = least(self.s_maxage),
            b"stale-if-error" => self.stale_if_error = least(self.stale_if_error),
            b"max-stale" => {
                let wanted = argument.map_or(MAX_DELTA, delta);
                self.max_stale = Some(self.max_stale.map_or(wanted, |old| old.min(wanted)));
            }
            b"min-fresh" => {
                let wanted = argument.map_or(MAX_DELTA, delta_or_max);
                self.min_fresh = Some(self.min_fresh.map_or(wanted, |old| old.max(wanted)));
            }
            _ => {}
        }
    }
}

fn has_no_cache(value: &[u8]) -> bool {
    split(value).any(|item| item.eq_ignore_ascii_case(b"no-cache"))
}

/// The members of a list, commas inside quotes left alone.
fn split(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(value);
    std::iter::from_fn(move || {
        let text = rest?;
        let (mut quoted, mut escaped) = (false, false);
        let end = text.iter().position(|byte| {
            let comma = *byte == b',' && !quoted;
            match byte {
                _ if escaped => escaped = false,
                b'\\' if quoted => escaped = true,
                b'"' => quoted = !quoted,
                _ => {}
            }
            comma
        });
        rest = end.and_then(|end| text.get(end + 1..));
        Some(text.get(..end.unwrap_or(text.len())).unwrap_or_default().trim_ascii())
    })
    .filter(|item| !item.is_empty())
}

fn delta(text: &[u8]) -> u64 {
    number(text).unwrap_or(0)
}

fn delta_or_max(text: &[u8]) -> u64 {
    number(text).unwrap_or(MAX_DELTA)
}

/// Delta-seconds; what is larger than fits counts as the largest. Quotes are tolerated, as senders use them.
fn number(text: &[u8]) -> Option<u64> {
    let bare = text
        .strip_prefix(b"\"")
        .and_then(|t| t.strip_suffix(b"\""))
        .unwrap_or(text);
    if bare.is_empty() || !bare.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value = std::str::from_utf8(bare).ok()?.parse().unwrap_or(MAX_DELTA);
    Some(value.min(MAX_DELTA))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> CacheControl {
        let mut out = CacheControl::default();
        out.add(text.as_bytes());
        out
    }

    #[test]
    fn directives_are_read_whatever_their_spelling() {
        let all = read("Max-Age=60, s-maxage=\"30\" ,PUBLIC, stale-if-error = 5, foo=\"a,no-store\", immutable");
        assert_eq!(
            (all.max_age, all.s_maxage, all.stale_if_error),
            (Some(60), Some(30), Some(5))
        );
        assert!(all.public && all.immutable && !all.no_store);
        assert!(read("private=\"set-cookie\", no-cache=\"x\"").private);
        assert_eq!(read("max-stale").max_stale, Some(MAX_DELTA));
    }

    #[test]
    fn doubtful_values_are_read_as_the_stricter_meaning() {
        assert_eq!(read("max-age=soon").max_age, Some(0));
        assert_eq!(read("max-age=-1").max_age, Some(0));
        assert_eq!(read("max-age=10, max-age=600").max_age, Some(10));
        assert_eq!(read("max-age=99999999999999999999999").max_age, Some(MAX_DELTA));
        assert_eq!(read("min-fresh=x").min_fresh, Some(MAX_DELTA));
    }

    #[test]
    fn pragma_counts_only_in_a_request_without_cache_control() {
        let mut headers = HeaderMap::new();
        headers.insert(PRAGMA, "no-cache".parse().unwrap());
        assert!(CacheControl::of(&headers, true).no_cache);
        assert!(!CacheControl::of(&headers, false).no_cache);
        headers.insert(CACHE_CONTROL, "max-age=3".parse().unwrap());
        assert!(!CacheControl::of(&headers, true).no_cache);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut out = CacheControl::default();
            out.add(&bytes);
            prop_assert!(out.max_age.is_none_or(|age| age <= MAX_DELTA));
        }
    }
}

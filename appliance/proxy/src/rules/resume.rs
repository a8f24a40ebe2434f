//! Going on with a broken fetch: what to ask, and whether the answer is the rest of the same thing.

use http::header::{CONTENT_RANGE, IF_RANGE, RANGE};
use http::{HeaderMap, HeaderValue};

use super::conditional::{strong_date, strong_etag};
use super::range::ContentRange;

/// What is known of the content that broke off.
#[derive(Clone, Debug)]
pub struct Broken<'a> {
    /// Headers of its answer.
    pub headers: &'a HeaderMap,
    /// Bytes that came.
    pub got: u64,
    /// Size of the whole, when it was announced.
    pub size: Option<u64>,
    /// The digest of the whole is known beforehand: then nothing wrong can pass for the rest.
    pub digest_known: bool,
}

/// How an answer goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Continuation {
    /// It begins with the first missing byte.
    Appends,
    /// It is the whole again, and so many bytes are here already.
    Skip(u64),
    /// It is something else.
    No,
}

impl Broken<'_> {
    /// Whether going on can be told from mixing two versions at all.
    pub fn can_resume(&self) -> bool {
        self.digest_known || strong_etag(self.headers).is_some() || strong_date(self.headers).is_some()
    }

    /// Puts the range and its condition into a request.
    pub fn ask(&self, request: &mut HeaderMap) {
        if self.got == 0 {
            return;
        }
        if let Ok(range) = HeaderValue::from_str(&format!("bytes={}-", self.got)) {
            request.insert(RANGE, range);
        }
        // Another mirror has the same content under other tags; the digest will tell.
        let validator = strong_etag(self.headers).or_else(|| strong_date(self.headers));
        if let Some(Ok(value)) = validator.filter(|_| !self.digest_known).map(HeaderValue::from_str) {
            request.insert(IF_RANGE, value);
        }
    }

    /// What the answer to that is.
    pub fn judge(&self, status: u16, answer: &HeaderMap) -> Continuation {
        match status {
            206 => {
                let range = answer
                    .get(CONTENT_RANGE)
                    .and_then(|v| v.to_str().ok())
                    .and_then(ContentRange::parse);
                let fits = range.is_some_and(|range| {
                    let same = self.size.is_none() || range.size.is_none() || range.size == self.size;
                    range.first == self.got && same && range.size.is_none_or(|size| range.last + 1 == size)
                });
                if fits && self.same(answer) {
                    Continuation::Appends
                } else {
                    Continuation::No
                }
            }
            200 if self.got == 0 || self.same_strongly(answer) || self.digest_known => Continuation::Skip(self.got),
            _ => Continuation::No,
        }
    }

    /// A 206 carries the tag when `If-Range` held; an origin that leaves it out promised it by answering 206.
    fn same(&self, answer: &HeaderMap) -> bool {
        match (strong_etag(self.headers), strong_etag(answer)) {
            (Some(old), Some(new)) => old == new || self.digest_known,
            _ => true,
        }
    }

    fn same_strongly(&self, answer: &HeaderMap) -> bool {
        let tags = (strong_etag(self.headers), strong_etag(answer));
        if let (Some(old), Some(new)) = tags {
            return old == new;
        }
        let dates = (strong_date(self.headers), strong_date(answer));
        matches!(dates, (Some(old), Some(new)) if old == new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderName;

    fn map(pairs: &[(&str, &str)]) -> HeaderMap {
        let parsed = |(name, value): &(&str, &str)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        pairs.iter().map(parsed).collect()
    }

    fn broken(headers: &HeaderMap, digest_known: bool) -> Broken<'_> {
        Broken {
            headers,
            got: 40,
            size: Some(100),
            digest_known,
        }
    }

    #[test]
    fn the_rest_must_be_of_the_same_version() {
        let old = map(&[("etag", "\"a\"")]);
        let broken = broken(&old, false);
        let mut request = HeaderMap::new();
        broken.ask(&mut request);
        assert_eq!(request, map(&[("range", "bytes=40-"), ("if-range", "\"a\"")]));
        let judge = |status, pairs: &[(&str, &str)]| broken.judge(status, &map(pairs));
        assert_eq!(
            judge(206, &[("etag", "\"a\""), ("content-range", "bytes 40-99/100")]),
            Continuation::Appends
        );
        assert_eq!(
            judge(206, &[("content-range", "bytes 40-99/100")]),
            Continuation::Appends
        );
        assert_eq!(
            judge(206, &[("etag", "\"b\""), ("content-range", "bytes 40-99/100")]),
            Continuation::No
        );
        assert_eq!(judge(206, &[("content-range", "bytes 30-99/100")]), Continuation::No);
        assert_eq!(judge(206, &[("content-range", "bytes 40-98/100")]), Continuation::No);
        assert_eq!(judge(206, &[("content-range", "bytes 40-100/101")]), Continuation::No);
        assert_eq!(judge(206, &[]), Continuation::No);
        assert_eq!(judge(200, &[("etag", "\"a\"")]), Continuation::Skip(40));
        assert_eq!(judge(200, &[("etag", "\"b\"")]), Continuation::No);
        assert_eq!(judge(200, &[]), Continuation::No);
        assert_eq!(judge(503, &[("etag", "\"a\"")]), Continuation::No);
    }

    #[test]
    fn without_a_strong_validator_only_a_known_digest_helps() {
        let weak = map(&[("etag", "W/\"a\"")]);
        assert!(!broken(&weak, false).can_resume());
        let known = broken(&weak, true);
        assert!(known.can_resume());
        let mut request = HeaderMap::new();
        known.ask(&mut request);
        assert_eq!(request, map(&[("range", "bytes=40-")]));
        assert_eq!(known.judge(200, &map(&[])), Continuation::Skip(40));
    }
}

//! Going on with a broken fetch: what to ask, and whether the answer is the rest of the same thing.

use http::header::{CONTENT_RANGE, IF_RANGE, LAST_MODIFIED, RANGE};
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
                    // Of a part whose end is nobody's word for the whole's end more may be missing; a digest would tell.
                    let known = self.size.is_some() || range.size.is_some() || self.digest_known;
                    range.first == self.got && known && same && range.size.is_none_or(|size| range.last + 1 == size)
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

    /// What is put together shares a validator (RFC 9110 section 15.3.7.3). A part comes with its tag; its date need not be
    /// said again to an `If-Range` that held, but when it is said, not every origin looked at that field.
    fn same(&self, answer: &HeaderMap) -> bool {
        if self.digest_known {
            return true;
        }
        match (strong_etag(self.headers), strong_etag(answer)) {
            (Some(old), Some(new)) => old == new,
            (Some(_), None) => self.same_strongly(answer),
            (None, _) => {
                let said = answer.get(LAST_MODIFIED);
                said.is_none() || said == self.headers.get(LAST_MODIFIED)
            }
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
        // Whoever has a tag sends it with a part too.
        assert_eq!(judge(206, &[("content-range", "bytes 40-99/100")]), Continuation::No);
        assert_eq!(
            judge(206, &[("etag", "W/\"a\""), ("content-range", "bytes 40-99/100")]),
            Continuation::No
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
    fn without_a_tag_the_date_of_the_part_has_to_be_the_one_of_the_whole() {
        let (old, new) = ("Sun, 06 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 09:49:37 GMT");
        let date = ("date", "Mon, 07 Nov 1994 08:49:37 GMT");
        let first = map(&[("last-modified", old), date]);
        let known = broken(&first, true);
        let broken = broken(&first, false);
        let mut request = HeaderMap::new();
        broken.ask(&mut request);
        assert_eq!(request, map(&[("range", "bytes=40-"), ("if-range", old)]));
        let part = ("content-range", "bytes 40-99/100");
        let judge = |pairs: &[(&str, &str)]| broken.judge(206, &map(pairs));
        assert_eq!(judge(&[part, date, ("last-modified", old)]), Continuation::Appends);
        assert_eq!(judge(&[part, date, ("last-modified", new)]), Continuation::No);
        assert_eq!(judge(&[part, date, ("last-modified", "yesterday")]), Continuation::No);
        // To a condition that held, a part need not say it again (RFC 9110 section 15.3.7).
        assert_eq!(judge(&[part, date]), Continuation::Appends);
        // What came first had no tag, what comes now has one: the date has to agree all the same.
        let tag = ("etag", "\"x\"");
        assert_eq!(judge(&[part, date, tag, ("last-modified", new)]), Continuation::No);
        let later = [part, date, ("last-modified", new)];
        assert_eq!(
            known.judge(206, &map(&later)),
            Continuation::Appends,
            "the digest will tell"
        );
    }

    #[test]
    fn a_part_ends_what_nobody_knows_the_length_of_only_when_it_says_so() {
        let old = map(&[("etag", "\"a\"")]);
        let (unknown, known, promised) = (
            Broken {
                size: None,
                ..broken(&old, false)
            },
            broken(&old, false),
            Broken {
                size: None,
                ..broken(&old, true)
            },
        );
        let judge =
            |broken: &Broken<'_>, range| broken.judge(206, &map(&[("etag", "\"a\""), ("content-range", range)]));
        assert_eq!(judge(&unknown, "bytes 40-99/100"), Continuation::Appends);
        assert_eq!(judge(&unknown, "bytes 40-69/100"), Continuation::No);
        assert_eq!(judge(&unknown, "bytes 40-69/*"), Continuation::No);
        assert_eq!(
            judge(&known, "bytes 40-69/*"),
            Continuation::Appends,
            "the rest is asked for then"
        );
        assert_eq!(
            judge(&promised, "bytes 40-69/*"),
            Continuation::Appends,
            "the digest will tell"
        );
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

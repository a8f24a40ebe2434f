//! Byte ranges (RFC 9110 section 14).

use std::ops::Range;

/// One range that a client asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ByteRange {
    /// From the first to the last byte given, or to the end.
    From(u64, Option<u64>),
    /// That many at the end.
    Last(u64),
}

impl ByteRange {
    /// Reads a `Range` field. Other units, several ranges and malformed ones give `None`: section 14.2 allows a server to
    /// ignore them and answer with the whole.
    pub fn parse(value: &str) -> Option<Self> {
        let (unit, spec) = value.split_once('=')?;
        if !unit.trim().eq_ignore_ascii_case("bytes") {
            return None;
        }
        let (from, to) = spec.trim().split_once('-')?;
        match (from.is_empty(), to.is_empty()) {
            (true, false) => Some(Self::Last(number(to)?)),
            (false, true) => Some(Self::From(number(from)?, None)),
            (false, false) => {
                let (from, to) = (number(from)?, number(to)?);
                (from <= to).then_some(Self::From(from, Some(to)))
            }
            (true, true) => None,
        }
    }

    /// The bytes meant of a content of `size`; `None` when there is no such byte (status 416).
    pub fn within(self, size: u64) -> Option<Range<u64>> {
        match self {
            Self::From(from, to) if from < size => {
                let end = to.map_or(size, |to| to.saturating_add(1).min(size));
                Some(from..end)
            }
            Self::Last(count) if count > 0 && size > 0 => Some(size.saturating_sub(count)..size),
            _ => None,
        }
    }
}

/// What a `Content-Range` field says of a partial answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ContentRange {
    /// First byte.
    pub first: u64,
    /// Last byte.
    pub last: u64,
    /// Size of the whole, unless the origin does not know it.
    pub size: Option<u64>,
}

impl ContentRange {
    /// Reads `bytes FIRST-LAST/SIZE`; `None` when malformed or contradicting itself.
    pub fn parse(value: &str) -> Option<Self> {
        let rest = value.trim();
        let unit = rest.get(..6)?;
        if !unit.eq_ignore_ascii_case("bytes ") {
            return None;
        }
        let (range, size) = rest.get(6..)?.trim().split_once('/')?;
        let (first, last) = range.split_once('-')?;
        let (first, last) = (number(first)?, number(last)?);
        let size = match size {
            "*" => None,
            size => Some(number(size)?),
        };
        (first <= last && size.is_none_or(|size| last < size)).then_some(Self { first, last, size })
    }
}

fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ranges_fall_inside_the_content() {
        let within = |text: &str| ByteRange::parse(text).and_then(|range| range.within(100));
        assert_eq!(within("bytes=0-9"), Some(0..10));
        assert_eq!(within("Bytes=90-"), Some(90..100));
        assert_eq!(within("bytes=90-1000"), Some(90..100));
        assert_eq!(within("bytes=-5"), Some(95..100));
        assert_eq!(within("bytes=-500"), Some(0..100));
        for unsatisfiable in ["bytes=100-", "bytes=-0"] {
            assert_eq!(within(unsatisfiable), None);
        }
        for ignored in ["bytes=5-4", "bytes=0-1,5-6", "lines=0-1", "bytes=-", "bytes=+1-2"] {
            assert_eq!(ByteRange::parse(ignored), None, "{ignored}");
        }
    }

    #[test]
    fn a_partial_answer_that_contradicts_itself_is_not_taken() {
        let whole = ContentRange {
            first: 5,
            last: 9,
            size: Some(10),
        };
        assert_eq!(ContentRange::parse("bytes 5-9/10"), Some(whole));
        assert_eq!(ContentRange::parse("bytes 5-9/*").and_then(|r| r.size), None);
        for bad in [
            "bytes 9-5/10",
            "bytes 5-10/10",
            "bytes */10",
            "bytes=5-9/10",
            "5-9/10",
            "",
        ] {
            assert_eq!(ContentRange::parse(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn every_range_lies_inside(from: u64, to: Option<u64>, size: u64) {
            for range in [ByteRange::From(from, to.map(|to| to.max(from))), ByteRange::Last(from)] {
                if let Some(part) = range.within(size) {
                    prop_assert!(part.start < part.end && part.end <= size);
                }
            }
        }

        #[test]
        fn no_text_makes_it_panic(text in "[ -~]{0,60}") {
            let _ = ByteRange::parse(&text);
            let _ = ContentRange::parse(&text);
            let _ = ContentRange::parse(&format!("bytes {text}"));
        }
    }
}

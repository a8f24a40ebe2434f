//! Conditions of requests (RFC 9110 section 13), ours to the origin and a client's to us, and validators.

use http::header::{ETAG, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, LAST_MODIFIED};
use http::{HeaderMap, HeaderName};

use super::freshness::http_date;

/// Fields of a stored answer that a 304 does not replace (RFC 9111 section 3.2, RFC 9110 section 15.4.5).
const KEPT: [&str; 5] = [
    "content-length",
    "content-encoding",
    "content-range",
    "content-type",
    "transfer-encoding",
];

/// Fields that mean something between two neighbours only (RFC 9110 section 7.6.1), besides those that `Connection` names.
pub const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authentication-info",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
];

fn text<'a>(headers: &'a HeaderMap, name: &http::HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// The strong validator of an answer: its entity tag unless weak.
pub fn strong_etag(headers: &HeaderMap) -> Option<&str> {
    text(headers, &ETAG).filter(|tag| tag.len() >= 2 && tag.starts_with('"') && tag.ends_with('"'))
}

/// The modification date as a strong validator: it must be at least a minute before the answer's date (RFC 9110 section
/// 8.8.2.2), or two versions might share it.
pub fn strong_date(headers: &HeaderMap) -> Option<&str> {
    let modified = text(headers, &LAST_MODIFIED)?;
    let date = http_date(text(headers, &http::header::DATE)?)?;
    let at = http_date(modified)?;
    (at.checked_add(60)? <= date).then_some(modified)
}

/// Whether the client's copy is still good, so that 304 is the answer. `If-None-Match` rules alone where it stands.
pub fn not_modified(request: &HeaderMap, stored: &HeaderMap) -> bool {
    let mut lists = request.get_all(IF_NONE_MATCH).iter().peekable();
    if lists.peek().is_some() {
        let ours = stored.get(ETAG).map(|tag| opaque(tag.as_bytes()));
        return lists.any(|list| names(list.as_bytes(), ours));
    }
    let since = text(request, &IF_MODIFIED_SINCE).and_then(http_date);
    let modified = text(stored, &LAST_MODIFIED).and_then(http_date);
    matches!((since, modified), (Some(since), Some(modified)) if modified <= since)
}

/// Tags are compared weakly: without the mark (RFC 9110 section 8.8.3.2).
fn opaque(tag: &[u8]) -> &[u8] {
    tag.strip_prefix(b"W/").unwrap_or(tag)
}

/// Whether a list of `If-None-Match` names this tag, or any by a single `*`. A tag may have commas in it, and octets that are
/// no ASCII (RFC 9110 section 8.8.3); where a list is no list any more, the rest of it names nothing.
fn names(list: &[u8], ours: Option<&[u8]>) -> bool {
    let whole = list.trim_ascii();
    // Some origins forget the quotation marks: their tag is known by what it is alone.
    if whole == b"*" || Some(opaque(whole)) == ours {
        return true;
    }
    let mut rest = list;
    loop {
        let between = |octet: &u8| matches!(octet, b' ' | b'\t' | b',');
        let begin = rest.iter().position(|octet| !between(octet)).unwrap_or(rest.len());
        let tag = opaque(rest.get(begin..).unwrap_or_default());
        let Some(inner) = tag.strip_prefix(b"\"") else {
            return false;
        };
        let Some(end) = inner.iter().position(|octet| *octet == b'"') else {
            return false;
        };
        let (tag, after) = tag.split_at(end + 2);
        if Some(tag) == ours {
            return true;
        }
        rest = after;
    }
}

/// Whether a range is to be answered: there is no `If-Range`, or it names the stored answer by a strong validator.
pub fn range_holds(request: &HeaderMap, stored: &HeaderMap) -> bool {
    match text(request, &IF_RANGE) {
        None => !request.contains_key(IF_RANGE),
        Some(tag) if tag.starts_with('"') => strong_etag(stored) == Some(tag),
        Some(date) => strong_date(stored) == Some(date),
    }
}

/// Puts the conditions of a validation into a request to the origin; `false` when the stored answer has no validator.
pub fn set_validators(request: &mut HeaderMap, stored: &HeaderMap) -> bool {
    let mut some = false;
    for (from, to) in [(ETAG, IF_NONE_MATCH), (LAST_MODIFIED, IF_MODIFIED_SINCE)] {
        request.remove(&to);
        if let Some(value) = stored.get(from) {
            request.insert(to, value.clone());
            some = true;
        }
    }
    some
}

/// Whether a 304 is about the stored answer: its strong entity tag is the stored one's too, a weak one names it (RFC 9111
/// section 4.3.4). One that says no tag is about what was asked for.
pub fn validates(stored: &HeaderMap, validated: &HeaderMap) -> bool {
    let Some(tag) = validated.get(ETAG) else { return true };
    match (stored.get(ETAG), strong_etag(validated)) {
        (ours, Some(_)) => ours == Some(tag),
        (Some(ours), None) => opaque(ours.as_bytes()) == opaque(tag.as_bytes()),
        (None, None) => true,
    }
}

/// The stored headers after a 304 (RFC 9111 section 4.3.4).
pub fn freshened(stored: &HeaderMap, validated: &HeaderMap) -> HeaderMap {
    let mut out = stored.clone();
    for name in validated.keys() {
        let fixed = KEPT.contains(&name.as_str()) || HOP_BY_HOP.contains(&name.as_str());
        if !fixed {
            out.remove(name);
            for value in validated.get_all(name) {
                out.append(name.clone(), value.clone());
            }
        }
    }
    // An old age would be counted again.
    if !validated.contains_key(http::header::AGE) {
        out.remove(http::header::AGE);
    }
    out
}

/// Removes what must not be passed on.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let lists = headers.get_all(http::header::CONNECTION).iter();
    // By octets: a name beside one that is none is still named.
    let named: Vec<HeaderName> = lists
        .flat_map(|list| list.as_bytes().split(|octet| *octet == b','))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        .collect();
    for name in &named {
        headers.remove(name);
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> HeaderMap {
        let parsed = |(name, value): &(&str, &str)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        pairs.iter().map(parsed).collect()
    }

    const OLD: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const LATER: &str = "Sun, 06 Nov 1994 08:50:36 GMT";
    const MUCH_LATER: &str = "Mon, 07 Nov 1994 08:49:37 GMT";

    #[test]
    fn tags_rule_over_dates() {
        let stored = map(&[("etag", "W/\"a\""), ("last-modified", OLD)]);
        assert!(not_modified(&map(&[("if-none-match", "\"x\", \"a\"")]), &stored));
        assert!(not_modified(&map(&[("if-none-match", "*")]), &stored));
        assert!(!not_modified(&map(&[("if-none-match", "\"a,*,b\"")]), &stored));
        assert!(!not_modified(&map(&[("if-none-match", "a, \"b")]), &stored));
        let bare = map(&[("etag", "a")]);
        assert!(
            not_modified(&map(&[("if-none-match", "a")]), &bare)
                && !not_modified(&map(&[("if-none-match", "\"a\"")]), &bare)
        );
        let commas = map(&[("etag", "\"a,b\"")]);
        assert!(not_modified(&map(&[("if-none-match", "W/\"x\" ,\"a,b\"")]), &commas));
        assert!(!not_modified(
            &map(&[("if-none-match", "\"b\""), ("if-modified-since", LATER)]),
            &stored
        ));
        assert!(not_modified(&map(&[("if-modified-since", OLD)]), &stored));
        assert!(!not_modified(&map(&[("if-modified-since", "yesterday")]), &stored));
        assert!(!not_modified(&map(&[]), &stored));
    }

    #[test]
    fn ranges_want_a_strong_validator() {
        let strong = map(&[("etag", "\"a\""), ("last-modified", OLD), ("date", MUCH_LATER)]);
        assert!(range_holds(&map(&[]), &strong));
        assert!(range_holds(&map(&[("if-range", "\"a\"")]), &strong));
        assert!(range_holds(&map(&[("if-range", OLD)]), &strong));
        assert!(!range_holds(&map(&[("if-range", "\"b\"")]), &strong));
        assert!(!range_holds(
            &map(&[("if-range", "W/\"a\"")]),
            &map(&[("etag", "W/\"a\"")])
        ));
        let young = map(&[("last-modified", OLD), ("date", LATER)]);
        assert!(!range_holds(&map(&[("if-range", OLD)]), &young));
    }

    #[test]
    fn a_validation_renews_all_but_what_describes_the_content() {
        let stored = map(&[
            ("etag", "\"a\""),
            ("content-length", "9"),
            ("age", "7"),
            ("cache-control", "max-age=1"),
        ]);
        let new = freshened(
            &stored,
            &map(&[("cache-control", "max-age=60"), ("content-length", "0")]),
        );
        assert_eq!(
            new,
            map(&[
                ("etag", "\"a\""),
                ("content-length", "9"),
                ("cache-control", "max-age=60")
            ])
        );
    }

    #[test]
    fn a_304_with_another_tag_is_about_another_version() {
        let tag = |tag: &str| map(&[("etag", tag)]);
        let none = map(&[("last-modified", OLD)]);
        for (stored, said, holds) in [
            (tag("\"a\""), tag("\"a\""), true),
            (tag("\"a\""), tag("\"b\""), false),
            (tag("W/\"a\""), tag("\"a\""), false),
            (none.clone(), tag("\"a\""), false),
            (tag("\"a\""), tag("W/\"a\""), true),
            (tag("W/\"a\""), tag("W/\"a\""), true),
            (tag("W/\"a\""), tag("W/\"b\""), false),
            (none.clone(), tag("W/\"a\""), true),
            (tag("\"a\""), none.clone(), true),
            (tag("a"), tag("a"), true),
        ] {
            assert_eq!(validates(&stored, &said), holds, "{stored:?} {said:?}");
        }
    }

    #[test]
    fn what_connection_names_is_not_passed_on() {
        let mut headers = map(&[
            ("connection", "x-one, close"),
            ("x-one", "1"),
            ("x-two", "2"),
            ("te", "trailers"),
        ]);
        strip_hop_by_hop(&mut headers);
        assert_eq!(headers, map(&[("x-two", "2")]));
        let mut headers = map(&[("x-one", "1"), ("x-two", "2")]);
        let mixed = http::HeaderValue::from_bytes(b"\xfc, X-One").unwrap();
        headers.insert("connection", mixed);
        strip_hop_by_hop(&mut headers);
        assert_eq!(headers, map(&[("x-two", "2")]));
    }
}

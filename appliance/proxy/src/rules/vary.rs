//! Which stored answer fits which request: the `Vary` field (RFC 9111 section 4.1).

use http::header::VARY;
use http::{HeaderMap, HeaderName};

/// The request fields an answer depends on, with the values they had when it was asked for.
pub type Selecting = Vec<(String, Option<String>)>;

/// What an answer depends on. `None` when it fits no other request (`Vary: *`, or a field that is no field name).
pub fn selecting(response: &HeaderMap, request: &HeaderMap) -> Option<Selecting> {
    let mut out = Selecting::new();
    for value in response.get_all(VARY) {
        for name in value
            .to_str()
            .ok()?
            .split(',')
            .map(str::trim)
            .filter(|name| !name.is_empty())
        {
            if name == "*" {
                return None;
            }
            let name: HeaderName = name.parse().ok()?;
            if out.iter().all(|(known, _)| known != name.as_str()) {
                out.push((name.as_str().to_owned(), value_of(request, name.as_str())));
            }
        }
    }
    out.sort_unstable();
    Some(out)
}

/// Whether an answer that depends on `selecting` fits `request`.
pub fn fits(selecting: &Selecting, request: &HeaderMap) -> bool {
    selecting.iter().all(|(name, value)| value_of(request, name) == *value)
}

/// All values of a field joined, spaces around commas and letters' case in lists of codings left out of the comparison
/// where that is safe: only spaces are.
fn value_of(headers: &HeaderMap, name: &str) -> Option<String> {
    let mut values = headers.get_all(name).iter().peekable();
    values.peek()?;
    let items = values.flat_map(|value| value.as_bytes().split(|b| *b == b','));
    // No two values that differ are the same text; none has a line's end of its own.
    let text = |item: &[u8]| match std::str::from_utf8(item) {
        Ok(text) => text.to_owned(),
        Err(_) => format!("\n{}", item.escape_ascii()),
    };
    let items: Vec<_> = items.map(|item| text(item.trim_ascii())).collect();
    Some(items.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> HeaderMap {
        let parsed = |(name, value): &(&str, &str)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        pairs.iter().map(parsed).collect()
    }

    #[test]
    fn an_answer_fits_requests_with_the_same_values() {
        let asked = map(&[("accept-encoding", "gzip, br"), ("user-agent", "apt")]);
        let selecting = selecting(&map(&[("vary", "Accept-Encoding, accept-language")]), &asked).unwrap();
        assert!(fits(
            &selecting,
            &map(&[("accept-encoding", "gzip,br"), ("user-agent", "curl")])
        ));
        assert!(!fits(&selecting, &map(&[("accept-encoding", "br")])));
        assert!(!fits(&selecting, &map(&[])));
        assert!(!fits(
            &selecting,
            &map(&[("accept-encoding", "gzip,br"), ("accept-language", "de")])
        ));
    }

    #[test]
    fn values_that_differ_in_octets_that_are_no_text_differ() {
        let with = |cookie: &[u8]| {
            HeaderMap::from_iter([(http::header::COOKIE, http::HeaderValue::from_bytes(cookie).unwrap())])
        };
        let vary = map(&[("vary", "cookie")]);
        let one = selecting(&vary, &with(b"id=\xfc")).unwrap();
        assert!(fits(&one, &with(b"id=\xfc")));
        for other in [&b"id=\xf6"[..], b"id=\xef\xbf\xbd", b"id=\\xfc"] {
            assert!(!fits(&one, &with(other)), "{other:?}");
        }
    }

    #[test]
    fn an_answer_that_varies_by_anything_fits_nothing() {
        assert_eq!(selecting(&map(&[("vary", "*")]), &map(&[])), None);
        assert_eq!(selecting(&map(&[("vary", "a b")]), &map(&[])), None);
        assert_eq!(selecting(&map(&[]), &map(&[])), Some(Vec::new()));
    }
}

//! Reading one request out of what a connection has received (RFC 9112). Pure.

use std::ops::Range as Span;

/// A request line and headers larger than this are refused; firmware sends a few hundred bytes.
pub(crate) const MAX_HEAD: usize = 8 << 10;
/// A body larger than this is refused; a boot report has some hundred bytes.
pub(crate) const MAX_BODY: usize = 64 << 10;
const MAX_HEADERS: usize = 48;

/// What is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Method {
    Get,
    Head,
    Post,
    /// Known to HTTP, not to us.
    Other,
}

/// Bytes of a file a client wants (RFC 9110 section 14.1.2), one range only.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Range {
    /// From the first to the last byte given, or to the end.
    From(u64, Option<u64>),
    /// That many at the end.
    Last(u64),
}

/// A whole request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Request {
    pub(crate) method: Method,
    /// Path without the query, as sent.
    pub(crate) path: String,
    /// Query without the `?`.
    pub(crate) query: String,
    pub(crate) host: Option<String>,
    pub(crate) keep_alive: bool,
    pub(crate) range: Option<Range>,
    pub(crate) if_range: Option<String>,
    pub(crate) if_none_match: Option<String>,
    pub(crate) if_modified_since: Option<String>,
    pub(crate) body: Vec<u8>,
    /// HTTP/1.0 clients must not be sent what they do not know.
    pub(crate) http10: bool,
}

/// What the bytes received so far amount to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Parsed {
    /// Not a whole request yet.
    Partial {
        /// The client waits for `100 Continue` before it sends the body.
        wants_continue: bool,
    },
    /// A request, and how many bytes it took.
    Whole(Box<Request>, usize),
    /// Nothing we can answer with other than this status; the connection ends.
    Bad(u16, &'static str),
}

/// Reads the first request in `input`.
pub(crate) fn parse(input: &[u8]) -> Parsed {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut head = httparse::Request::new(&mut headers);
    let head_len = match head.parse(input) {
        Ok(httparse::Status::Complete(len)) if len > MAX_HEAD => return Parsed::Bad(431, "the headers are too large"),
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) if input.len() >= MAX_HEAD => {
            return Parsed::Bad(431, "the headers are too large");
        }
        Ok(httparse::Status::Partial) => return Parsed::Partial { wants_continue: false },
        Err(httparse::Error::TooManyHeaders) => return Parsed::Bad(431, "too many headers"),
        Err(_) => return Parsed::Bad(400, "this is not an HTTP/1 request"),
    };
    match read_head(&head, head_len) {
        Err(bad) => bad,
        Ok((_, body, expects)) if input.len() < body.end => Parsed::Partial {
            wants_continue: expects,
        },
        Ok((mut request, body, _)) => {
            let end = body.end;
            request.body = input.get(body).unwrap_or_default().to_vec();
            Parsed::Whole(Box::new(request), end)
        }
    }
}

/// The request without its body, where the body lies, and whether the client waits for a go-ahead.
fn read_head(head: &httparse::Request<'_, '_>, head_len: usize) -> Result<(Request, Span<usize>, bool), Parsed> {
    let http10 = head.version == Some(0);
    let (path, query) = split_target(head.path.unwrap_or_default());
    let mut request = Request {
        method: match head.method {
            Some("GET") => Method::Get,
            Some("HEAD") => Method::Head,
            Some("POST") => Method::Post,
            _ => Method::Other,
        },
        path: path.to_owned(),
        query: query.to_owned(),
        host: None,
        keep_alive: !http10,
        range: None,
        if_range: None,
        if_none_match: None,
        if_modified_since: None,
        body: Vec::new(),
        http10,
    };
    let mut length: Option<usize> = None;
    let mut expects = false;
    for header in head.headers.iter() {
        let Ok(value) = std::str::from_utf8(header.value).map(str::trim) else {
            continue;
        };
        let is = |name: &str| header.name.eq_ignore_ascii_case(name);
        if is("content-length") {
            length = Some(content_length(value, length)?);
        } else if is("transfer-encoding") {
            return Err(Parsed::Bad(411, "send the body with a Content-Length"));
        } else if is("connection") {
            let has = |token: &str| value.split(',').any(|t| t.trim().eq_ignore_ascii_case(token));
            request.keep_alive = !has("close") && (!http10 || has("keep-alive"));
        } else if is("host") {
            request.host = Some(value.to_owned());
        } else if is("range") {
            request.range = parse_range(value);
        } else if is("if-range") {
            request.if_range = Some(value.to_owned());
        } else if is("if-none-match") {
            request.if_none_match = Some(value.to_owned());
        } else if is("if-modified-since") {
            request.if_modified_since = Some(value.to_owned());
        } else if is("expect") {
            expects = value.eq_ignore_ascii_case("100-continue") && !http10;
        }
    }
    let length = length.unwrap_or(0);
    if length > MAX_BODY {
        return Err(Parsed::Bad(413, "the body is too large"));
    }
    Ok((request, head_len..head_len + length, expects))
}

/// Two different lengths would let somebody smuggle a request past a proxy in front of us.
fn content_length(value: &str, before: Option<usize>) -> Result<usize, Parsed> {
    let digits = value.bytes().all(|b| b.is_ascii_digit());
    match value.parse().ok().filter(|_| digits) {
        Some(new) if before.is_none_or(|old| old == new) => Ok(new),
        _ => Err(Parsed::Bad(400, "the Content-Length is not a number")),
    }
}

/// Splits a request target in origin or absolute form (RFC 9112 section 3.2) into path and query.
fn split_target(target: &str) -> (&str, &str) {
    let origin = match target.get(..7) {
        Some(scheme) if scheme.eq_ignore_ascii_case("http://") => {
            let rest = target.get(7..).unwrap_or_default();
            rest.find('/').and_then(|at| rest.get(at..)).unwrap_or("/")
        }
        _ => target,
    };
    let origin = origin.split('#').next().unwrap_or_default();
    origin.split_once('?').unwrap_or((origin, ""))
}

/// Reads `bytes=a-b`. Anything else, also several ranges, is ignored as RFC 9110 section 14.2 allows: the answer is then
/// the whole file.
fn parse_range(value: &str) -> Option<Range> {
    let (unit, spec) = value.split_once('=')?;
    let number = |text: &str| -> Option<u64> {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| text.parse().unwrap_or(u64::MAX))
    };
    let (from, to) = spec.trim().split_once('-')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    match (from.is_empty(), to.is_empty()) {
        (true, false) => Some(Range::Last(number(to)?)),
        (false, true) => Some(Range::From(number(from)?, None)),
        (false, false) => {
            let (from, to) = (number(from)?, number(to)?);
            (from <= to).then_some(Range::From(from, Some(to)))
        }
        (true, true) => None,
    }
}

impl Range {
    /// First byte and length within a content of `size` bytes; `None` when no byte of it exists.
    pub(crate) fn within(self, size: u64) -> Option<(u64, u64)> {
        match self {
            Self::From(from, _) if from >= size => None,
            Self::From(from, to) => {
                let last = to.map_or(size - 1, |to| to.min(size - 1));
                Some((from, last - from + 1))
            }
            Self::Last(0) => None,
            Self::Last(count) if size > 0 => {
                let count = count.min(size);
                Some((size - count, count))
            }
            Self::Last(_) => None,
        }
    }
}

/// The first value of `name` in a query, percent-decoded; keys and values of ours are plain ASCII.
pub(crate) fn query_value(query: &str, name: &str) -> Option<String> {
    let pair = query
        .split('&')
        .find_map(|pair| pair.split_once('=').filter(|(key, _)| *key == name))?;
    percent_decoded(pair.1)
}

/// Text with its `%xx` as the bytes they stand for (RFC 3986 section 2.1); `None` when it is none then.
pub(crate) fn percent_decoded(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => {
                let mut nibble = || (bytes.next()? as char).to_digit(16);
                (nibble()? << 4 | nibble()?) as u8
            }
            other => other,
        });
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn whole(text: &str) -> (Request, usize) {
        match parse(text.as_bytes()) {
            Parsed::Whole(request, used) => (*request, used),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn reads_what_ipxe_sends_and_leaves_the_next_request() {
        let one = "GET /boot/v1/script.ipxe?mac=52-54-00-00-00-01 HTTP/1.1\r\nConnection: keep-alive\r\n\
            User-Agent: iPXE/1.0.0\r\nHost: 10.0.0.1\r\n\r\n";
        let (request, used) = whole(&format!("{one}GET / HTTP/1.1\r\n\r\n"));
        assert_eq!(used, one.len());
        assert_eq!(request.path, "/boot/v1/script.ipxe");
        assert_eq!(query_value(&request.query, "mac").unwrap(), "52-54-00-00-00-01");
        assert!(request.keep_alive);
    }

    #[test]
    fn connections_end_when_the_client_says_or_is_old() {
        assert!(!whole("GET / HTTP/1.1\r\nConnection: foo, Close\r\n\r\n").0.keep_alive);
        assert!(!whole("GET / HTTP/1.0\r\n\r\n").0.keep_alive);
        assert!(whole("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n").0.keep_alive);
    }

    #[test]
    fn waits_for_the_whole_body_and_bounds_it() {
        let head = "POST /boot/v1/report HTTP/1.1\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n";
        assert_eq!(
            parse(format!("{head}abc").as_bytes()),
            Parsed::Partial { wants_continue: true }
        );
        assert_eq!(whole(&format!("{head}abcd")).0.body, b"abcd");
        let status = |text: &str| match parse(text.as_bytes()) {
            Parsed::Bad(status, _) => status,
            other => panic!("{other:?}"),
        };
        assert_eq!(status("POST / HTTP/1.1\r\nContent-Length: 65537\r\n\r\n"), 413);
        assert_eq!(
            status("POST / HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n"),
            400
        );
        assert_eq!(
            status("POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"),
            400
        );
        assert_eq!(status("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"), 411);
        assert_eq!(status(&format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(MAX_HEAD))), 431);
        assert_eq!(status("\x16\x03\x01\x02\0\x01\0"), 400);
    }

    #[test]
    fn ranges_fall_inside_the_file() {
        let within = |text: &str| parse_range(text).and_then(|range| range.within(100));
        assert_eq!(within("bytes=0-9"), Some((0, 10)));
        assert_eq!(within("bytes=90-"), Some((90, 10)));
        assert_eq!(within("bytes=90-1000"), Some((90, 10)));
        assert_eq!(within("bytes=-5"), Some((95, 5)));
        assert_eq!(within("bytes=-500"), Some((0, 100)));
        assert_eq!(within("bytes=100-"), None);
        assert_eq!(within("bytes=-0"), None);
        for ignored in ["bytes=5-4", "bytes=0-1,5-6", "lines=0-1", "bytes=-", "bytes=+1-2"] {
            assert_eq!(parse_range(ignored), None, "{ignored}");
        }
        assert_eq!(Range::Last(5).within(0), None);
    }

    #[test]
    fn takes_a_target_in_absolute_form() {
        assert_eq!(split_target("http://10.0.0.1/a?b"), ("/a", "b"));
        assert_eq!(split_target("HTTP://10.0.0.1"), ("/", ""));
        assert_eq!(split_target("/a?b?c#d"), ("/a", "b?c"));
    }

    proptest! {
        #[test]
        fn never_panics_and_never_takes_more_than_there_is(input in proptest::collection::vec(any::<u8>(), 0..400)) {
            if let Parsed::Whole(_, used) = parse(&input) {
                prop_assert!(used <= input.len());
            }
        }

        #[test]
        fn never_panics_near_a_request(tail in "[ -~\r\n]{0,200}", query in "[ -~]{0,60}") {
            parse(format!("GET /boot/v1/files/a HTTP/1.1\r\nHost: x\r\n{tail}\r\n\r\n").as_bytes());
            let _ = query_value(&query, "mac");
            let _ = parse_range(&query).and_then(|range| range.within(1000));
        }

        #[test]
        fn every_range_lies_inside(from: u64, to: Option<u64>, size: u64) {
            for range in [Range::From(from, to.map(|to| to.max(from))), Range::Last(from)] {
                if let Some((at, len)) = range.within(size) {
                    prop_assert!(len > 0 && at.checked_add(len).is_some_and(|end| end <= size));
                }
            }
        }
    }
}

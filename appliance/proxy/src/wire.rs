//! Reading one request of a client out of what its connection has received (RFC 9112). Pure.

use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HOST, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Method};

/// A request line and headers larger than this are refused.
pub const MAX_HEAD: usize = 16 << 10;
const MAX_HEADERS: usize = 64;

/// A request without its body.
#[derive(Clone, Debug)]
pub struct Head {
    /// Method.
    pub method: Method,
    /// Request target as sent.
    pub target: String,
    /// All fields.
    pub headers: HeaderMap,
    /// The client speaks HTTP/1.0: it must not be sent chunks.
    pub http10: bool,
    /// Another request may follow.
    pub keep_alive: bool,
    /// Its body.
    pub body: Content,
    /// The client waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
}

/// The body of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Content {
    /// There is none.
    None,
    /// It has so many bytes.
    Known(u64),
    /// It comes in chunks: see [`crate::chunks`].
    Chunked,
}

impl Content {
    /// There is none.
    pub fn is_none(self) -> bool {
        self == Self::None
    }
}

/// What the bytes received so far amount to.
#[derive(Clone, Debug)]
pub enum Parsed {
    /// Not a whole head yet.
    Partial,
    /// A head, and how many bytes it took.
    Whole(Box<Head>, usize),
    /// Nothing we can answer with other than this status; the connection ends.
    Bad(u16, &'static str),
}

/// Reads the first request in `input`.
pub fn parse(input: &[u8]) -> Parsed {
    let mut fields = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut raw = httparse::Request::new(&mut fields);
    let length = match raw.parse(input) {
        Ok(httparse::Status::Complete(length)) if length <= MAX_HEAD => length,
        Ok(httparse::Status::Partial) if input.len() < MAX_HEAD => return Parsed::Partial,
        Ok(_) => return Parsed::Bad(431, "the headers are too large"),
        Err(httparse::Error::TooManyHeaders) => return Parsed::Bad(431, "too many headers"),
        Err(_) => return Parsed::Bad(400, "this is not an HTTP/1 request"),
    };
    match read(&raw) {
        Ok(head) => Parsed::Whole(Box::new(head), length),
        Err((status, text)) => Parsed::Bad(status, text),
    }
}

fn read(raw: &httparse::Request<'_, '_>) -> Result<Head, (u16, &'static str)> {
    let http10 = raw.version == Some(0);
    let mut headers = HeaderMap::with_capacity(raw.headers.len());
    for field in raw.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes());
        let value = HeaderValue::from_bytes(field.value.trim_ascii());
        let (Ok(name), Ok(value)) = (name, value) else {
            return Err((400, "a header is malformed"));
        };
        headers.append(name, value);
    }
    let hosts = headers.get_all(HOST).iter().count();
    if hosts > 1 || (hosts == 0 && !http10) {
        return Err((400, "a request has one Host field (RFC 9112 section 3.2)"));
    }
    let body = body(&headers, http10)?;
    let tokens = |token: &str| {
        let mut values = headers
            .get_all(CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok());
        values.any(|value| value.split(',').any(|one| one.trim().eq_ignore_ascii_case(token)))
    };
    let keep_alive = !tokens("close") && (!http10 || tokens("keep-alive"));
    let expects = headers
        .get(EXPECT)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    let method = raw
        .method
        .unwrap_or_default()
        .parse()
        .map_err(|_| (400, "the method is malformed"))?;
    Ok(Head {
        method,
        target: raw.path.unwrap_or_default().to_owned(),
        http10,
        keep_alive,
        body,
        expects_continue: expects && !http10 && !body.is_none(),
        headers,
    })
}

/// What is said of the body. What two readers could take for two things could hide a second request (RFC 9112 section 6.3).
fn body(headers: &HeaderMap, http10: bool) -> Result<Content, (u16, &'static str)> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let Some(coding) = codings.next() else {
        return body_length(headers).map(|length| match length {
            0 => Content::None,
            length => Content::Known(length),
        });
    };
    if http10 || headers.contains_key(CONTENT_LENGTH) {
        return Err((
            400,
            "a body has either a Content-Length or chunks, and HTTP/1.0 has none of these",
        ));
    }
    if codings.next().is_some() || !coding.as_bytes().eq_ignore_ascii_case(b"chunked") {
        return Err((501, "a body may come in chunks, and in no other coding"));
    }
    Ok(Content::Chunked)
}

fn body_length(headers: &HeaderMap) -> Result<u64, (u16, &'static str)> {
    let mut length = None;
    for value in headers.get_all(CONTENT_LENGTH) {
        let digits = !value.is_empty() && value.as_bytes().iter().all(u8::is_ascii_digit);
        let new = value
            .to_str()
            .ok()
            .filter(|_| digits)
            .and_then(|text| text.parse::<u64>().ok());
        match (length, new) {
            (None, Some(new)) => length = Some(new),
            (Some(old), Some(new)) if old == new => {}
            _ => return Err((400, "the Content-Length is not one number")),
        }
    }
    Ok(length.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn whole(text: &str) -> (Head, usize) {
        match parse(text.as_bytes()) {
            Parsed::Whole(head, used) => (*head, used),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn reads_what_apt_sends_and_leaves_the_next_request() {
        let one = "GET http://deb.example.org/debian/dists/bookworm/InRelease HTTP/1.1\r\nHost: deb.example.org\r\n\
            Cache-Control: max-age=0\r\nUser-Agent: Debian APT-HTTP/1.3 (2.6.1)\r\n\r\n";
        let (head, used) = whole(&format!("{one}GET / HTTP/1.1\r\nHost: x\r\n\r\n"));
        assert_eq!(used, one.len());
        assert_eq!(head.target, "http://deb.example.org/debian/dists/bookworm/InRelease");
        assert!(head.keep_alive && head.body.is_none());
        let body = |fields: &str| whole(&format!("POST / HTTP/1.1\r\nHost: x\r\n{fields}\r\n\r\n")).0.body;
        assert_eq!(body("Content-Length: 7"), Content::Known(7));
        assert_eq!(body("Content-Length: 0"), Content::None);
        assert_eq!(body("Transfer-Encoding: Chunked"), Content::Chunked);
        assert!(!whole("GET / HTTP/1.0\r\n\r\n").0.keep_alive);
        assert!(
            !whole("GET / HTTP/1.1\r\nHost: x\r\nConnection: a, Close\r\n\r\n")
                .0
                .keep_alive
        );
    }

    #[test]
    fn what_could_hide_a_second_request_is_refused() {
        let status = |text: &str| match parse(text.as_bytes()) {
            Parsed::Bad(status, _) => status,
            other => panic!("{other:?}"),
        };
        assert_eq!(
            status("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"),
            400
        );
        assert_eq!(status("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +1\r\n\r\n"), 400);
        assert_eq!(
            status("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n"),
            400
        );
        assert_eq!(status("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"), 400);
        for coding in [
            "gzip, chunked",
            "chunked, chunked",
            "xchunked",
            "chunked\r\nTransfer-Encoding: chunked",
        ] {
            let request = format!("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: {coding}\r\n\r\n");
            assert_eq!(status(&request), 501, "{coding}");
        }
        assert_eq!(status("GET / HTTP/1.1\r\nHost: x\r\nA : b\r\n\r\n"), 400);
        assert_eq!(status(&format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(MAX_HEAD))), 431);
        assert_eq!(status("\x16\x03\x01\x02\0\x01\0"), 400);
    }

    #[test]
    fn a_request_names_its_host_once() {
        let status = |text: &str| match parse(text.as_bytes()) {
            Parsed::Bad(status, _) => status,
            _ => 0,
        };
        assert_eq!(status("GET http://a/ HTTP/1.1\r\n\r\n"), 400);
        assert_eq!(status("CONNECT a:443 HTTP/1.1\r\n\r\n"), 400);
        for version in ["1.0", "1.1"] {
            let request = |hosts: &str| format!("GET http://a/ HTTP/{version}\r\n{hosts}\r\n");
            assert_eq!(status(&request("Host: a\r\nhost: a\r\n")), 400, "{version}");
            assert_eq!(status(&request("Host: b\r\n")), 0, "{version}");
            assert_eq!(status(&request("Host:\r\n")), 0, "{version}");
        }
        assert_eq!(status("GET http://a/ HTTP/1.0\r\n\r\n"), 0);
    }

    proptest! {
        #[test]
        fn never_panics_and_never_takes_more_than_there_is(input in proptest::collection::vec(any::<u8>(), 0..400)) {
            if let Parsed::Whole(_, used) = parse(&input) {
                prop_assert!(used <= input.len());
            }
        }

        #[test]
        fn never_panics_near_a_request(tail in "[ -~\r\n]{0,200}") {
            parse(format!("GET http://a/b HTTP/1.1\r\nHost: x\r\n{tail}\r\n\r\n").as_bytes());
        }
    }
}

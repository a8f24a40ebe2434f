//! Requests and response heads of HTTP/1.1 (RFC 9112), as much as a boot needs.

use alloc::format;
use alloc::string::{String, ToString};
use core::fmt;

/// Longest response head in bytes.
pub const MAX_HEAD: usize = 8 << 10;

/// What a response head says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Head {
    /// Status code.
    pub status: u16,
    /// Bytes of the body.
    pub length: u64,
    /// First byte of a partial answer (status 206).
    pub range_start: Option<u64>,
    /// True when the server closes the connection behind the body.
    pub close: bool,
}

/// Why a response cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BadHead {
    /// Not HTTP/1.x.
    Malformed,
    /// Longer than [`MAX_HEAD`] or with more than 32 fields.
    TooLong,
    /// Neither length nor a status that has no body: we take no chunks and no bodies that end with the connection.
    NoLength,
}

impl fmt::Display for BadHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "the server's answer is not HTTP/1.1",
            Self::TooLong => "the head of the server's answer is too long",
            Self::NoLength => "the server does not say how long its answer is",
        })
    }
}

impl core::error::Error for BadHead {}

/// Reads the head at the beginning of `bytes`: it and its length, or `None` while it is incomplete.
///
/// # Errors
/// [`BadHead`]; the connection is of no more use then.
pub fn head(bytes: &[u8]) -> Result<Option<(Head, usize)>, BadHead> {
    let mut fields = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut fields);
    let used = match response.parse(bytes) {
        Ok(httparse::Status::Complete(used)) => used,
        Ok(httparse::Status::Partial) if bytes.len() > MAX_HEAD => return Err(BadHead::TooLong),
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(BadHead::TooLong),
        Err(_) => return Err(BadHead::Malformed),
    };
    let status = response.code.ok_or(BadHead::Malformed)?;
    let field = |name: &str| -> Option<&str> {
        let field = response
            .headers
            .iter()
            .find(|field| field.name.eq_ignore_ascii_case(name))?;
        core::str::from_utf8(field.value).ok().map(str::trim)
    };
    let length = match (field("transfer-encoding"), field("content-length")) {
        (None, Some(length)) => decimal(length).ok_or(BadHead::Malformed)?,
        (None, None) if status == 204 || status == 304 => 0,
        _ => return Err(BadHead::NoLength),
    };
    let old = response.version == Some(0);
    let close = match field("connection") {
        Some(value) => value.split(',').any(|word| word.trim().eq_ignore_ascii_case("close")),
        None => old,
    };
    let range_start = field("content-range")
        .and_then(|value| value.strip_prefix("bytes ")?.split('-').next())
        .and_then(decimal);
    let head = Head {
        status,
        length,
        range_start,
        close,
    };
    Ok(Some((head, used)))
}

/// Digits only: `parse` alone would take a sign.
fn decimal(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

/// A GET of `path` from byte `from` on.
pub fn get(host: &str, path: &str, from: u64) -> String {
    let range = match from {
        0 => String::new(),
        from => format!("Range: bytes={from}-\r\n"),
    };
    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: rackbar-loader\r\n{range}\r\n")
}

/// The head of a POST of `length` bytes.
pub fn post(host: &str, path: &str, length: usize) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: rackbar-loader\r\nContent-Type: application/octet-stream\r\n\
         Content-Length: {length}\r\n\r\n"
    )
}

/// True when `path` can stand in a request line as it is. A manifest is signed, but no signature makes a line break in a
/// path a good idea.
pub fn is_path(path: &str) -> bool {
    path.starts_with('/') && path.bytes().all(|b| b.is_ascii_graphic())
}

/// The host of a request, without the port that is the default.
pub fn host(server: &crate::server::Server) -> String {
    server.to_string().trim_start_matches("http://").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    #[test]
    fn a_head_is_read_when_it_is_whole() {
        let bytes = b"HTTP/1.1 206 Partial\r\ncontent-length: 5\r\nContent-Range: bytes 7-11/12\r\n\r\nhello";
        for cut in 0..bytes.len() - 5 {
            assert_eq!(head(&bytes[..cut]), Ok(None), "{cut}");
        }
        let (found, used) = head(bytes).unwrap().unwrap();
        assert_eq!(&bytes[used..], b"hello");
        assert_eq!(
            (found.status, found.length, found.range_start, found.close),
            (206, 5, Some(7), false)
        );
    }

    #[test]
    fn connections_end_when_the_server_says_so() {
        let close = |text: &str| head(text.as_bytes()).unwrap().unwrap().0.close;
        assert!(close(
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: Close\r\n\r\n"
        ));
        assert!(close("HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n"));
        assert!(!close("HTTP/1.1 204 No Content\r\n\r\n"));
    }

    #[test]
    fn answers_without_a_length_are_refused() {
        let bad = |text: &str| head(text.as_bytes()).unwrap_err();
        assert_eq!(bad("HTTP/1.1 200 OK\r\n\r\n"), BadHead::NoLength);
        let both = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(bad(both), BadHead::NoLength);
        assert_eq!(bad("HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\n"), BadHead::Malformed);
        assert_eq!(bad("SSH-2.0-OpenSSH\r\n\r\n"), BadHead::Malformed);
    }

    #[test]
    fn requests_ask_for_the_rest() {
        assert!(get("192.0.2.1", "/x", 0).starts_with("GET /x HTTP/1.1\r\nHost: 192.0.2.1\r\n"));
        assert!(!get("192.0.2.1", "/x", 0).contains("Range"));
        assert!(get("192.0.2.1", "/x", 9).ends_with("\r\nRange: bytes=9-\r\n\r\n"));
        assert!(is_path("/boot/v1/files/ab/vmlinuz") && !is_path("/a b") && !is_path("/a\r\nX: y") && !is_path("x"));
    }

    proptest::proptest! {
        #[test]
        fn hostile_heads_never_panic(bytes: Vec<u8>, tail: Vec<u8>) {
            let _ = head(&bytes);
            let _ = head(&[&b"HTTP/1.1 200 OK\r\nContent-Length: "[..], &tail, b"\r\n\r\n"].concat());
            let _ = head(&[&b"HTTP/1.1 206 OK\r\nContent-Range: "[..], &tail, b"\r\n\r\n"].concat());
        }
    }
}

//! Heads of answers.

use std::fmt::Write as _;

use http::{HeaderMap, StatusCode};

use crate::rules::freshness::dated;

/// Fields that every answer gets anew.
const OURS: [&str; 6] = [
    "age",
    "content-length",
    "content-range",
    "accept-ranges",
    "cache-status",
    "connection",
];

/// Status line and the fields of an answer that stay the same, whoever asks.
pub(crate) fn prelude(status: u16, headers: &HeaderMap) -> Vec<u8> {
    let reason = StatusCode::from_u16(status)
        .ok()
        .and_then(|status| status.canonical_reason());
    let mut out = format!("HTTP/1.1 {status} {}\r\n", reason.unwrap_or("Status")).into_bytes();
    for (name, value) in headers.iter().filter(|(name, _)| !OURS.contains(&name.as_str())) {
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out
}

/// Fields of an answer that is ours.
pub(super) fn ours() -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("server", http::HeaderValue::from_static("rackbar"));
    dated(&mut headers, crate::now());
    headers
}

/// The age that a cache before us said (RFC 9111 section 5.1).
pub(super) fn age_said(headers: &HeaderMap) -> Option<u64> {
    headers.get("age")?.to_str().ok()?.trim().parse().ok()
}

/// What we did, behind what the caches before us say that they did (RFC 9211 section 2).
pub(super) fn appended(headers: &HeaderMap, ours: String) -> String {
    let before = headers.get_all("cache-status").iter();
    let mut all: Vec<&str> = before.filter_map(|value| value.to_str().ok()).collect();
    all.push(&ours);
    all.join(", ")
}

/// What is said of the length of a content.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Length {
    /// So many bytes.
    Known(u64),
    /// It comes in chunks.
    Chunked,
    /// It ends with the connection.
    UntilClose,
    /// There is none, as in a 304.
    None,
}

/// Fields of one answer.
pub(super) struct Tail<'a> {
    pub(super) length: Length,
    pub(super) age: Option<u64>,
    /// Parts of it can be asked for.
    pub(super) ranges: bool,
    pub(super) cache_status: Option<String>,
    pub(super) via: &'a str,
    /// First byte, last byte, size.
    pub(super) range: Option<(u64, u64, u64)>,
    pub(super) keep_alive: bool,
}

/// A prelude with what is said to one client.
pub(super) fn head(prelude: &[u8], tail: &Tail<'_>) -> Vec<u8> {
    let mut text = String::with_capacity(256);
    match tail.length {
        Length::Known(length) => {
            let _ = write!(text, "content-length: {length}\r\n");
        }
        Length::Chunked => text.push_str("transfer-encoding: chunked\r\n"),
        Length::UntilClose | Length::None => {}
    }
    if let Some(age) = tail.age {
        let _ = write!(text, "age: {age}\r\n");
    }
    if let Some((first, last, size)) = tail.range {
        let _ = write!(text, "content-range: bytes {first}-{last}/{size}\r\n");
    }
    if let Some(status) = &tail.cache_status {
        let _ = write!(text, "cache-status: {status}\r\n");
    }
    if tail.ranges {
        text.push_str("accept-ranges: bytes\r\n");
    }
    let connection = if tail.keep_alive { "keep-alive" } else { "close" };
    let _ = write!(text, "via: {}\r\nconnection: {connection}\r\n\r\n", tail.via);
    [prelude, text.as_bytes()].concat()
}

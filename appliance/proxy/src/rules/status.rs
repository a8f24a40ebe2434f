//! The `Cache-Status` field (RFC 9211): what the cache did with a request, for whoever looks with `curl -v`.

use std::fmt;

/// Why a request went forward to the origin (RFC 9211 section 2.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Forward {
    /// Nothing was stored under the URI.
    UriMiss,
    /// What is stored fits other requests.
    VaryMiss,
    /// What is stored is stale, or the request wants it validated.
    Stale,
    /// The method is none that is answered from a store.
    Method,
    /// The cache was not asked.
    Bypass,
}

/// What was done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CacheStatus {
    /// Answered from the store, fresh for so many seconds more.
    Hit(i64),
    /// Answered from the store although the origin should have been asked.
    Used(&'static str),
    /// Asked the origin.
    Forwarded {
        /// Why.
        why: Forward,
        /// The origin's status.
        status: Option<u16>,
        /// The answer is kept.
        stored: bool,
        /// Somebody else's request for the same went forward.
        collapsed: bool,
        /// More, as one word.
        detail: Option<&'static str>,
    },
}

impl fmt::Display for CacheStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hit(ttl) => write!(f, "rackbar; hit; ttl={ttl}"),
            Self::Used(why) => write!(f, "rackbar; hit; detail={why}"),
            Self::Forwarded {
                why,
                status,
                stored,
                collapsed,
                detail,
            } => {
                let why = match why {
                    Forward::UriMiss => "uri-miss",
                    Forward::VaryMiss => "vary-miss",
                    Forward::Stale => "stale",
                    Forward::Method => "method",
                    Forward::Bypass => "bypass",
                };
                write!(f, "rackbar; fwd={why}")?;
                if let Some(status) = status {
                    write!(f, "; fwd-status={status}")?;
                }
                for (set, word) in [(stored, "; stored"), (collapsed, "; collapsed")] {
                    f.write_str(if *set { word } else { "" })?;
                }
                detail.iter().try_for_each(|detail| write!(f, "; detail={detail}"))
            }
        }
    }
}

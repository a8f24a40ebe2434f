//! One stored answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use http::HeaderMap;

use super::{Object, Record};
use crate::rules::cache_control::CacheControl;
use crate::rules::freshness::{Freshness, Judged, dated};
use crate::rules::target::is_index;

/// An answer that is stored.
pub struct Entry {
    /// What it answers and how.
    pub record: Record,
    /// Headers, without those that mean something between neighbours only.
    pub headers: HeaderMap,
    /// Its age and lifetime.
    pub fresh: Freshness,
    /// Its content.
    pub object: Arc<Object>,
    /// Name of the data pack it came with.
    pub pack: Option<Arc<str>>,
    pub(crate) used: AtomicU64,
    pub(crate) hits: AtomicU64,
    pub(crate) pinned: AtomicBool,
    /// A request changed what it answers (RFC 9111 section 4.4): it has to be validated, however fresh it would be.
    pub(super) invalid: AtomicBool,
    /// Status line and headers as every answer from the store begins, made once.
    pub(crate) prelude: Vec<u8>,
}

impl Entry {
    pub(crate) fn new(record: Record, object: Arc<Object>, pack: Option<Arc<str>>) -> Self {
        let mut headers = record.header_map();
        dated(&mut headers, record.response_time);
        let fresh = Freshness::of(
            &headers,
            record.request_time,
            record.response_time,
            is_index(&record.key),
        );
        Self {
            prelude: crate::serve::head::prelude(record.status, &headers),
            used: AtomicU64::new(millis()),
            headers,
            fresh,
            object,
            pack,
            hits: AtomicU64::new(0),
            pinned: AtomicBool::new(false),
            invalid: AtomicBool::new(false),
            record,
        }
    }

    /// Answers given from it since the start.
    pub fn hits(&self) -> u64 {
        self.hits.load(Ordering::Relaxed)
    }

    /// When it was used last, in milliseconds since 1970: seconds would not tell what to evict first.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// It is never evicted.
    pub fn pinned(&self) -> bool {
        self.pinned.load(Ordering::Relaxed)
    }

    /// About what it takes in memory, in bytes: its headers are there as they are written, as they are worked with, and as
    /// they are sent.
    pub(super) fn weight(&self) -> u64 {
        let text = |(name, value): &(String, Vec<u8>)| name.len() + value.len() + 64;
        let selecting =
            |(name, value): &(String, Option<String>)| name.len() + value.as_ref().map_or(0, String::len) + 64;
        let headers: usize = self.record.headers.iter().map(text).sum();
        let selected: usize = self.record.selecting.iter().map(selecting).sum();
        (1024 + 2 * self.record.key.len() + 3 * headers + selected) as u64
    }

    /// A request changed what it answers, and nobody asked its origin since (RFC 9111 section 4.4).
    pub(crate) fn is_invalid(&self) -> bool {
        self.invalid.load(Ordering::Relaxed)
    }

    /// Whether it may answer a request without the origin's word, `now` in seconds since 1970.
    pub(crate) fn is_fresh(&self, wanted: &CacheControl, now: u64) -> bool {
        !self.is_invalid() && self.fresh.judge(wanted, now) == Judged::Fresh
    }

    pub(crate) fn touch(&self) {
        self.used.store(millis(), Ordering::Relaxed);
        self.hits.fetch_add(1, Ordering::Relaxed);
    }
}

fn millis() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

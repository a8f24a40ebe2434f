//! Whether an answer may be stored, how long it is fresh, and what a request makes of it (RFC 9111 sections 3 and 4).

use std::time::Duration;

use http::header::{AGE, AUTHORIZATION, DATE, ETAG, EXPIRES, LAST_MODIFIED, SET_COOKIE};
use http::{HeaderMap, HeaderValue, Method};

use super::cache_control::CacheControl;

/// Without explicit freshness an answer is fresh for a tenth of the time since its last change (RFC 9111 section 4.2.2),
/// and no longer than a day.
const HEURISTIC_MOST: u64 = 24 * 3600;

/// Packages' indexes change while their names stay, several times a day, and all files of one state belong together.
const INDEX_MOST: u64 = 120;

/// The last second of the year 9999.
const LAST_DATE: u64 = 253_402_300_799;

/// Statuses a cache may reuse without explicit freshness (RFC 9110 section 15.1), but for 206 and errors.
const REUSABLE: [u16; 4] = [200, 203, 300, 301];

/// Statuses we understand: their answers may be stored with explicit freshness (RFC 9111 section 3).
const UNDERSTOOD: [u16; 9] = [200, 203, 300, 301, 302, 307, 308, 404, 410];

/// Seconds since 1970 of an HTTP-date in any of its three forms (RFC 9110 section 5.6.7).
pub fn http_date(text: &str) -> Option<u64> {
    let time = httpdate::parse_http_date(text).ok()?;
    Some(time.duration_since(std::time::UNIX_EPOCH).ok()?.as_secs())
}

/// Says when an answer came, in seconds since 1970, where it does not say when it was made (RFC 9110 section 6.6.1).
pub(crate) fn dated(headers: &mut HeaderMap, came: u64) {
    // The years after 9999 have no spelling.
    let at = std::time::UNIX_EPOCH + Duration::from_secs(came.min(LAST_DATE));
    if let (false, Ok(date)) = (
        headers.contains_key(DATE),
        HeaderValue::from_str(&httpdate::fmt_http_date(at)),
    ) {
        headers.insert(DATE, date);
    }
}

fn date_in(headers: &HeaderMap, name: http::HeaderName) -> Option<u64> {
    http_date(headers.get(name)?.to_str().ok()?)
}

/// How old an answer was and how long it stays fresh. Made once, when it is stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Freshness {
    /// For how many seconds it is fresh.
    pub lifetime: u64,
    /// Its age when it came (RFC 9111 section 4.2.3, `corrected_initial_age`).
    pub initial_age: u64,
    /// When it came.
    pub response_time: u64,
    /// It must not be used when stale: `must-revalidate`, `proxy-revalidate`, `s-maxage`.
    pub strict: bool,
    /// It must be validated before every use.
    pub no_cache: bool,
    /// Longer than fresh by so many seconds it may be used when the origin answers with an error.
    pub stale_if_error: Option<u64>,
}

impl Freshness {
    /// Reads a response's headers. `index`: it is an index of packages, see [`super::target`].
    pub fn of(headers: &HeaderMap, request_time: u64, response_time: u64, index: bool) -> Self {
        let directives = CacheControl::of(headers, false);
        let date = date_in(headers, DATE).unwrap_or(response_time);
        let age_value = headers
            .get(AGE)
            .and_then(|v| v.to_str().ok())
            .and_then(|v| v.trim().parse().ok());
        let delay = response_time.saturating_sub(request_time);
        let corrected = u64::saturating_add(age_value.unwrap_or(0), delay);
        Self {
            lifetime: lifetime(headers, &directives, date, index),
            initial_age: corrected.max(response_time.saturating_sub(date)),
            response_time,
            strict: directives.must_revalidate || directives.proxy_revalidate || directives.s_maxage.is_some(),
            no_cache: directives.no_cache,
            stale_if_error: directives.stale_if_error,
        }
    }

    /// The age at `now`.
    pub fn age(&self, now: u64) -> u64 {
        self.initial_age.saturating_add(now.saturating_sub(self.response_time))
    }

    /// For how many seconds more it is fresh at `now`; negative when stale.
    pub fn left(&self, now: u64) -> i64 {
        let of = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        of(self.lifetime).saturating_sub(of(self.age(now)))
    }

    /// What a request with `wanted` makes of it at `now`.
    pub fn judge(&self, wanted: &CacheControl, now: u64) -> Judged {
        let age = self.age(now);
        if self.no_cache || wanted.no_cache || wanted.max_age.is_some_and(|most| age > most) {
            return Judged::Validate;
        }
        let left = self.left(now);
        if let Some(least) = wanted.min_fresh {
            let enough = i64::try_from(least).is_ok_and(|least| left >= least);
            return if enough { Judged::Fresh } else { Judged::Validate };
        }
        if left > 0 {
            return Judged::Fresh;
        }
        match wanted.max_stale {
            Some(most) if !self.strict && left.unsigned_abs() <= most => Judged::Fresh,
            _ => Judged::Validate,
        }
    }

    /// Whether it may be used although it is stale, since the origin cannot be reached (`unreachable`) or answered with
    /// an error. `most`: how stale at most for the first, where the response itself says nothing.
    pub fn usable_after_error(&self, wanted: &CacheControl, now: u64, unreachable: bool, most: u64) -> bool {
        if self.strict || self.no_cache || wanted.no_cache || wanted.max_age.is_some_and(|age| self.age(now) > age) {
            return self.left(now) > 0 && !self.no_cache;
        }
        let stale = u64::try_from(self.left(now).saturating_neg()).unwrap_or(0);
        let asked = wanted.stale_if_error.or(self.stale_if_error);
        stale <= asked.unwrap_or(if unreachable { most } else { 0 })
    }
}

/// What is to be done with a stored answer for a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Judged {
    /// It may be sent as it is.
    Fresh,
    /// The origin must be asked whether it still holds.
    Validate,
}

fn lifetime(headers: &HeaderMap, directives: &CacheControl, date: u64, index: bool) -> u64 {
    if let Some(seconds) = directives.s_maxage.or(directives.max_age) {
        return seconds;
    }
    if let Some(expires) = headers.get(EXPIRES) {
        // An invalid date, above all "0", means that it has expired (RFC 9111 section 5.3).
        let at = expires.to_str().ok().and_then(http_date).unwrap_or(0);
        return at.saturating_sub(date);
    }
    let most = if index { INDEX_MOST } else { HEURISTIC_MOST };
    let unchanged = date_in(headers, LAST_MODIFIED).map_or(0, |at| date.saturating_sub(at));
    (unchanged / 10).min(most)
}

/// Why an answer is not stored; the text goes into `Cache-Status`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NotStored {
    /// Another method than GET.
    Method,
    /// A status that is not kept.
    Status,
    /// Request or response say `no-store`.
    NoStore,
    /// For one user only.
    Private,
    /// It can be used for no second request.
    Useless,
    /// It would take the place of what is pinned, and is no such content.
    Pinned,
}

impl NotStored {
    /// One word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::Status => "status",
            Self::NoStore => "no-store",
            Self::Private => "private",
            Self::Useless => "not-reusable",
            Self::Pinned => "pinned",
        }
    }
}

/// Whether a shared cache may store the answer (RFC 9111 section 3), and would ever use it.
///
/// # Errors
/// Why not.
pub fn storable(method: &Method, request: &HeaderMap, status: u16, response: &HeaderMap) -> Result<(), NotStored> {
    if *method != Method::GET {
        return Err(NotStored::Method);
    }
    if !UNDERSTOOD.contains(&status) {
        return Err(NotStored::Status);
    }
    let theirs = CacheControl::of(response, false);
    // `must-understand` overrules `no-store` for who understands the status, and we do by now.
    if CacheControl::of(request, true).no_store || (theirs.no_store && !theirs.must_understand) {
        return Err(NotStored::NoStore);
    }
    let shared = theirs.public || theirs.s_maxage.is_some();
    if theirs.private || (request.contains_key(AUTHORIZATION) && !shared && !theirs.must_revalidate) {
        return Err(NotStored::Private);
    }
    // RFC 9111 section 7.3 leaves it to us; what sets a cookie was made for one user unless it says otherwise.
    if response.contains_key(SET_COOKIE) && !shared {
        return Err(NotStored::Private);
    }
    let explicit = shared || theirs.max_age.is_some() || response.contains_key(EXPIRES);
    if !explicit && !REUSABLE.contains(&status) {
        return Err(NotStored::Status);
    }
    let validator = response.contains_key(ETAG) || response.contains_key(LAST_MODIFIED);
    let lives = Freshness::of(response, 0, date_in(response, DATE).unwrap_or(0), false).lifetime > 0;
    if lives || validator {
        Ok(())
    } else {
        Err(NotStored::Useless)
    }
}

/// Whether a request of this method makes what is stored under its URI invalid when it succeeds (RFC 9111 section 4.4).
pub fn invalidates(method: &Method, status: u16) -> bool {
    !method.is_safe() && (200..400).contains(&status)
}

#[cfg(test)]
mod tests;

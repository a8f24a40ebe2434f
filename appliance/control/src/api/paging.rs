//! Lists a page at a time, and answers that need not be sent again.

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Problem;

const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 1_000;

/// Which page of a list.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct PageQuery {
    /// Entries in one answer, 1 to 1000; 100 when left out.
    #[param(minimum = 1, maximum = 1000)]
    pub(super) limit: Option<usize>,
    /// `next_page_token` of the answer before.
    pub(super) page_token: Option<String>,
}

impl PageQuery {
    /// The limit, checked.
    pub(crate) fn limit(&self) -> Result<usize, Problem> {
        match self.limit {
            None => Ok(DEFAULT_LIMIT),
            Some(n @ 1..=MAX_LIMIT) => Ok(n),
            Some(n) => Err(Problem::invalid(format!("limit: {n} is not between 1 and {MAX_LIMIT}"))),
        }
    }

    /// The key of the last entry the caller has. Tokens are the key in hexadecimal, so that nobody builds one by hand.
    fn after(&self) -> Result<Option<String>, Problem> {
        let Some(token) = &self.page_token else { return Ok(None) };
        let bad = || Problem::invalid("page_token: not a token of ours; begin again without one");
        if token.len() % 2 != 0 || !token.is_ascii() {
            return Err(bad());
        }
        let bytes: Option<Vec<u8>> = (0..token.len())
            .step_by(2)
            .map(|i| u8::from_str_radix(token.get(i..i + 2)?, 16).ok())
            .collect();
        String::from_utf8(bytes.ok_or_else(bad)?).map(Some).map_err(|_| bad())
    }

    /// Cuts this page out of `items`, which are sorted by `key`.
    pub(crate) fn cut<T>(&self, items: Vec<T>, key: impl Fn(&T) -> String) -> Result<Page<T>, Problem> {
        let (limit, after) = (self.limit()?, self.after()?);
        let mut rest = items
            .into_iter()
            .filter(|item| after.as_ref().is_none_or(|after| key(item) > *after));
        let items: Vec<T> = rest.by_ref().take(limit).collect();
        let next = rest
            .next()
            .and(items.last())
            .map(|last| key(last).bytes().map(|b| format!("{b:02x}")).collect());
        Ok(Page {
            items,
            next_page_token: next,
        })
    }
}

/// One page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Page<T> {
    /// The entries.
    pub(crate) items: Vec<T>,
    /// For `page_token` of the next request; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) next_page_token: Option<String>,
}

/// `body` as JSON with an `ETag` (RFC 9110 section 8.8.3), or 304 when the caller has it.
pub(crate) fn tagged(request: &HeaderMap, body: &impl Serialize) -> Response {
    let Ok(json) = serde_json::to_vec(body) else {
        return Problem::internal("the answer could not be written as JSON").into_response();
    };
    let tag = etag(&json);
    let fresh = known(request, &tag);
    let tag = [(
        header::ETAG,
        HeaderValue::from_str(&tag).unwrap_or(HeaderValue::from_static("\"\"")),
    )];
    if fresh {
        return (StatusCode::NOT_MODIFIED, tag).into_response();
    }
    (
        tag,
        [
            (header::CONTENT_TYPE, "application/json"),
            (header::CACHE_CONTROL, "no-cache"),
        ],
        json,
    )
        .into_response()
}

/// The strong entity tag of these bytes.
pub(crate) fn etag(json: &[u8]) -> String {
    let sum = digest(&SHA256, json);
    let hex: String = sum.as_ref().iter().take(12).map(|b| format!("{b:02x}")).collect();
    format!("\"{hex}\"")
}

/// True when the caller has what this tag stands for. The comparison is the weak one (RFC 9110 section 13.1.2): whoever packs
/// answers on the way weakens their tags.
pub(crate) fn known(request: &HeaderMap, tag: &str) -> bool {
    listed(request, header::IF_NONE_MATCH, tag) || listed(request, header::IF_NONE_MATCH, &format!("W/{tag}"))
}

/// Refuses to go on when `now`, the resource as [`tagged`] shows it, is another one by now than its caller read (`If-Match`,
/// RFC 9110 section 13.1.1).
pub(super) fn unchanged(request: &HeaderMap, now: &impl Serialize, what: &str) -> Result<(), Problem> {
    let tag = || etag(&serde_json::to_vec(now).unwrap_or_default());
    if !request.contains_key(header::IF_MATCH) || listed(request, header::IF_MATCH, &tag()) {
        return Ok(());
    }
    Err(Problem::stale(format!(
        "{what} changed since you read it; read it again before you decide"
    )))
}

/// True when the header lists this tag or `*`.
pub(crate) fn listed(request: &HeaderMap, name: header::HeaderName, tag: &str) -> bool {
    let values = request.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .any(|one| one == "*" || one == tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(limit: usize, token: Option<String>) -> Page<u32> {
        let query = PageQuery {
            limit: Some(limit),
            page_token: token,
        };
        query.cut((100..110).collect(), u32::to_string).unwrap()
    }

    #[test]
    fn pages_cover_the_list_once() {
        let mut seen = Vec::new();
        let mut token = None;
        loop {
            let next = page(3, token);
            seen.extend(next.items);
            token = next.next_page_token;
            if token.is_none() {
                break;
            }
        }
        assert_eq!(seen, (100..110).collect::<Vec<_>>());
    }

    #[test]
    fn a_page_that_takes_all_has_no_next() {
        assert_eq!(page(10, None).next_page_token, None);
    }

    #[test]
    fn bad_limits_and_tokens_are_refused() {
        for (limit, token) in [
            (Some(0), None),
            (Some(1001), None),
            (None, Some("zz")),
            (None, Some("f")),
            (None, Some("ä")),
        ] {
            let query = PageQuery {
                limit,
                page_token: token.map(str::to_owned),
            };
            assert!(query.cut(vec![1u32], u32::to_string).is_err(), "{limit:?} {token:?}");
        }
    }
}

//! `/api/v1/cache`: the caching proxy.

use axum::Json;
use axum::extract::{Extension, Query, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};

use super::paging::{Page, PageQuery, tagged};
use super::{Deed, Problem};
use crate::Context;
use crate::operations::{CacheDone, CacheEntry, CacheOrder, CacheState};

/// The cache as a whole.
#[utoipa::path(
    get, path = "/api/v1/cache", tag = "cache",
    responses((status = 200, body = CacheState), (status = 503, body = Problem))
)]
pub(crate) async fn show(State(context): State<Context>, headers: HeaderMap) -> Result<Response, Problem> {
    Ok(tagged(&headers, &context.operations.cache().await?))
}

/// What is stored, by key.
#[utoipa::path(
    get, path = "/api/v1/cache/entries", tag = "cache", params(PageQuery),
    responses((status = 200, body = Page<CacheEntry>), (status = 400, body = Problem), (status = 503, body = Problem))
)]
pub(crate) async fn entries(
    State(context): State<Context>,
    Query(page): Query<PageQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let items = context.operations.cache_entries().await?;
    // Two answers to one key differ in what they depend on, and so in content.
    let page = page.cut(items, |entry| format!("{} {}", entry.key, entry.sha256))?;
    Ok(tagged(&headers, &page))
}

/// Pins, refreshes, verifies, or changes the mode.
#[utoipa::path(
    post, path = "/api/v1/cache", tag = "cache", request_body = CacheOrder,
    responses(
        (status = 200, body = CacheDone), (status = 400, body = Problem), (status = 502, body = Problem),
        (status = 503, body = Problem)
    )
)]
pub(crate) async fn order(State(context): State<Context>, Json(order): Json<CacheOrder>) -> Result<Response, Problem> {
    let done = context.operations.order_cache(order).await?;
    let deed = Deed(format!("cache: {done}"));
    Ok((Extension(deed), Json(CacheDone { done })).into_response())
}

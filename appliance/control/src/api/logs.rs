//! `/api/v1/logs`: what machines sent to the log collector.

use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::Response;

use super::Problem;
use super::paging::{Page, tagged};
use crate::Context;
use crate::operations::{LogLine, LogQuery};

/// Log messages, oldest first. Ask again with `after` the last number to follow.
#[utoipa::path(
    get, path = "/api/v1/logs", tag = "logs", params(LogQuery),
    responses(
        (status = 200, body = Page<LogLine>), (status = 400, body = Problem), (status = 404, body = Problem)
    )
)]
pub(crate) async fn list(
    State(context): State<Context>,
    Query(query): Query<LogQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let items = context.operations.logs(query).await?;
    let page = Page {
        items,
        next_page_token: None,
    };
    Ok(tagged(&headers, &page))
}

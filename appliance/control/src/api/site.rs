//! `/api/v1/site`: the site file, as TOML text, and looks at it that change nothing.

use axum::Json;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::paging::{Page, etag, known, listed, tagged};
use super::{Caller, Deed, Problem};
use crate::Context;
use crate::operations::{ExpectedMachine, RuleMatch, SiteMistake};

/// The site file in force; empty when none was set.
#[utoipa::path(
    get, path = "/api/v1/site", tag = "site",
    responses((status = 200, body = String, content_type = "application/toml"), (status = 304))
)]
pub(crate) async fn show(State(context): State<Context>, headers: HeaderMap) -> Result<Response, Problem> {
    let text = context.operations.site().await?;
    let tag = etag(text.as_bytes());
    let value = [(
        header::ETAG,
        HeaderValue::from_str(&tag).unwrap_or(HeaderValue::from_static("\"\"")),
    )];
    if known(&headers, &tag) {
        return Ok((StatusCode::NOT_MODIFIED, value).into_response());
    }
    let kind = [
        (header::CONTENT_TYPE, "application/toml"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    Ok((value, kind, text).into_response())
}

/// Puts a site file in force; a file with mistakes is refused whole. With `If-Match`, only if nobody set another one
/// meanwhile. Nothing happens to any machine before a plan is committed.
#[utoipa::path(
    put, path = "/api/v1/site", tag = "site", request_body(content = String, content_type = "application/toml"),
    params(("If-Match" = Option<String>, Header)),
    responses((status = 204), (status = 412, body = Problem), (status = 422, body = Problem))
)]
pub(crate) async fn set(
    State(context): State<Context>,
    headers: HeaderMap,
    Extension(Caller(by)): Extension<Caller>,
    text: String,
) -> Result<Response, Problem> {
    if headers.contains_key(header::IF_MATCH) {
        let now = etag(context.operations.site().await?.as_bytes());
        if !listed(&headers, header::IF_MATCH, &now) {
            return Err(Problem::stale(
                "the site file changed since you read it; read it again and bring both together",
            ));
        }
    }
    let tag = etag(text.as_bytes());
    let lines = text.lines().count();
    context.operations.set_site(text, &by.name).await?;
    let deed = Deed(format!("set the site file, {lines} lines"));
    let tag = HeaderValue::from_str(&tag).unwrap_or(HeaderValue::from_static("\"\""));
    Ok((Extension(deed), [(header::ETAG, tag)], StatusCode::NO_CONTENT).into_response())
}

/// What a check of a site file found.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Checked {
    /// True when it could be put in force.
    right: bool,
    /// What is wrong with it.
    mistakes: Vec<SiteMistake>,
}

/// Checks a site file without setting it.
#[utoipa::path(
    post, path = "/api/v1/site/check", tag = "site",
    request_body(content = String, content_type = "application/toml"), responses((status = 200, body = Checked))
)]
pub(crate) async fn check(State(context): State<Context>, text: String) -> Result<Response, Problem> {
    let mistakes = context.operations.check_site(text).await?;
    let right = mistakes.is_empty();
    Ok(Json(Checked { right, mistakes }).into_response())
}

/// JSON Schema of the site file.
#[utoipa::path(get, path = "/api/v1/site/schema", tag = "site", responses((status = 200, body = Object)))]
pub(crate) async fn schema(State(context): State<Context>, headers: HeaderMap) -> Result<Response, Problem> {
    Ok(tagged(&headers, &context.operations.site_schema().await?))
}

/// Two site files.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SiteDiff {
    /// The older one; the one in force when left out.
    before: Option<String>,
    /// The newer one.
    after: String,
}

/// What differs between two site files, one line each, by what they mean and not how they are written.
#[utoipa::path(
    post, path = "/api/v1/site/diff", tag = "site", request_body = SiteDiff,
    responses((status = 200, body = Page<String>), (status = 422, body = Problem))
)]
pub(crate) async fn diff(State(context): State<Context>, Json(diff): Json<SiteDiff>) -> Result<Response, Problem> {
    let before = match diff.before {
        Some(text) => text,
        None => context.operations.site().await?,
    };
    let items = context.operations.diff_sites(before, diff.after).await?;
    let page = Page {
        items,
        next_page_token: None,
    };
    Ok(Json(page).into_response())
}

/// The machines that the site file in force expects: which of them showed themselves, and what those lack.
#[utoipa::path(
    get, path = "/api/v1/site/machines", tag = "site",
    responses((status = 200, body = Page<ExpectedMachine>), (status = 304))
)]
pub(crate) async fn machines(State(context): State<Context>, headers: HeaderMap) -> Result<Response, Problem> {
    let page = Page {
        items: context.operations.expected().await?,
        next_page_token: None,
    };
    Ok(tagged(&headers, &page))
}

/// Holds rules against every machine. The body is a site file; empty for the one in force.
#[utoipa::path(
    post, path = "/api/v1/site/rules/test", tag = "site",
    request_body(content = String, content_type = "application/toml"),
    responses((status = 200, body = Page<RuleMatch>), (status = 422, body = Problem))
)]
pub(crate) async fn test_rules(State(context): State<Context>, text: String) -> Result<Response, Problem> {
    let text = (!text.trim().is_empty()).then_some(text);
    let mut items = context.operations.test_rules(text).await?;
    items.sort_by(|a, b| a.node.cmp(&b.node));
    let page = Page {
        items,
        next_page_token: None,
    };
    Ok(Json(page).into_response())
}

//! `/api/v1/audit`: who changed what, and what came of it.

use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::Response;
use rackbar_model::{Event, EventKind, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Problem;
use super::paging::{Page, tagged};
use crate::Context;

const MAX_LIMIT: usize = 1_000;

/// Which changes.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct AuditFilter {
    /// Only changes before this event number.
    before: Option<u64>,
    /// At most so many, 1 to 1000; 100 when left out.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// Only those of this token's holder.
    by: Option<String>,
}

/// One change that somebody asked for.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Change {
    /// Number of the event.
    pub(crate) seq: u64,
    /// When it was answered.
    pub(crate) at: Timestamp,
    /// Who asked: a token's name, or `console`.
    pub(crate) by: String,
    /// What for.
    pub(crate) what: String,
    /// What came of it.
    pub(crate) outcome: String,
    /// False when it was refused or failed.
    pub(crate) ok: bool,
}

/// Changes, newest first.
#[utoipa::path(
    get, path = "/api/v1/audit", tag = "events", params(AuditFilter),
    responses((status = 200, body = Page<Change>), (status = 400, body = Problem))
)]
pub(crate) async fn list(
    State(context): State<Context>,
    Query(filter): Query<AuditFilter>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let page = Page {
        items: newest(&context, filter).await?,
        next_page_token: None,
    };
    Ok(tagged(&headers, &page))
}

/// The changes of a filter, newest first.
pub(crate) async fn newest(context: &Context, filter: AuditFilter) -> Result<Vec<Change>, Problem> {
    let limit = filter.limit.unwrap_or(100);
    if limit == 0 || limit > MAX_LIMIT {
        return Err(Problem::invalid(format!(
            "limit: {limit} is not between 1 and {MAX_LIMIT}"
        )));
    }
    let rack = context.rack.clone();
    // All of them may have to be read for those of one person.
    let found = tokio::task::spawn_blocking(move || {
        rack.changes(filter.before.unwrap_or(u64::MAX), limit, filter.by.as_deref())
    });
    let found = found.await.map_err(|error| Problem::internal(error.to_string()))?;
    let found = found.map_err(|error| Problem::internal(error.to_string()))?;
    Ok(found.into_iter().filter_map(change).collect())
}

fn change(event: Event) -> Option<Change> {
    let EventKind::Changed { by, what, outcome, ok } = event.kind else {
        return None;
    };
    Some(Change {
        seq: event.seq,
        at: event.at,
        by,
        what,
        outcome,
        ok,
    })
}

impl AuditFilter {
    /// The newest so many.
    pub(crate) fn first(limit: usize) -> Self {
        Self {
            limit: Some(limit),
            ..Self::default()
        }
    }
}

//! `/api/v1/repositories`: package repositories of the site, and the states that they are locked to.

use axum::Json;
use axum::extract::{Extension, Path, Query, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};

use serde::Deserialize;

use super::paging::{Page, tagged};
use super::{Caller, Deed, Problem};
use crate::Context;
use crate::operations::{RepositoryCheck, RepositoryDone, RepositoryEntry};

/// The repositories of the site file, and those that are locked, by name.
#[utoipa::path(
    get, path = "/api/v1/repositories", tag = "repositories", responses((status = 200, body = Page<RepositoryEntry>))
)]
pub(crate) async fn list(State(context): State<Context>, headers: HeaderMap) -> Result<Response, Problem> {
    let page = Page {
        items: context.operations.repositories().await?,
        next_page_token: None,
    };
    Ok(tagged(&headers, &page))
}

/// A repository with its lock.
#[utoipa::path(
    get, path = "/api/v1/repositories/{name}", tag = "repositories", params(("name" = String, Path)),
    responses((status = 200, body = RepositoryEntry), (status = 404, body = Problem))
)]
pub(crate) async fn show(
    State(context): State<Context>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let all = context.operations.repositories().await?;
    let found = all.into_iter().find(|one| one.name == name);
    let found =
        found.ok_or_else(|| crate::operations::Refused::NotFound(format!("there is no repository {name:?}")))?;
    Ok(tagged(&headers, &found))
}

/// What its origin has now, and what a new lock would bring. Nothing is changed.
#[utoipa::path(
    get, path = "/api/v1/repositories/{name}/check", tag = "repositories", params(("name" = String, Path)),
    responses(
        (status = 200, body = RepositoryCheck), (status = 404, body = Problem), (status = 502, body = Problem),
        (status = 503, body = Problem)
    )
)]
pub(crate) async fn check(State(context): State<Context>, Path(name): Path<String>) -> Result<Response, Problem> {
    Ok(Json(context.operations.check_repository(&name).await?).into_response())
}

/// What else a lock is to do.
#[derive(Deserialize)]
pub(crate) struct LockOrder {
    #[serde(default)]
    fetch: bool,
}

/// Locks a repository to the state that its origin has now, once its signature and its lists are verified, or of a Git repository
/// every object. Machines get this state until it is locked again; plans that were made before are stale. With `fetch`, all of
/// its packages are fetched then and kept, whatever becomes of its origin; `fetch` of the repository says how far that is. What the
/// cache has no room for is refused before anything is changed.
#[utoipa::path(
    put, path = "/api/v1/repositories/{name}/lock", tag = "repositories",
    params(("name" = String, Path), ("fetch" = Option<bool>, Query, description = "Fetch and keep all packages too")),
    responses(
        (status = 200, body = RepositoryDone), (status = 404, body = Problem), (status = 409, body = Problem),
        (status = 502, body = Problem), (status = 503, body = Problem)
    )
)]
pub(crate) async fn lock(
    State(context): State<Context>,
    Extension(Caller(by)): Extension<Caller>,
    Path(name): Path<String>,
    Query(order): Query<LockOrder>,
) -> Result<Response, Problem> {
    let done = context.operations.lock_repository(&name, &by.name, order.fetch).await?;
    let deed = Deed(match order.fetch {
        true => format!("lock repository {name} and fetch its packages"),
        false => format!("lock repository {name}"),
    });
    Ok((Extension(deed), Json(RepositoryDone { done })).into_response())
}

/// Takes a lock back: machines can get nothing from the repository until it is locked again.
#[utoipa::path(
    delete, path = "/api/v1/repositories/{name}/lock", tag = "repositories", params(("name" = String, Path)),
    responses((status = 200, body = RepositoryDone), (status = 404, body = Problem))
)]
pub(crate) async fn unlock(State(context): State<Context>, Path(name): Path<String>) -> Result<Response, Problem> {
    let done = context.operations.unlock_repository(&name).await?;
    let deed = Deed(format!("unlock repository {name}"));
    Ok((Extension(deed), Json(RepositoryDone { done })).into_response())
}

//! `/api/v1/tokens`: who may do what. For admins.

use axum::Json;
use axum::extract::{Extension, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use rackbar_model::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::paging::Page;
use super::{Caller, Deed, Problem};
use crate::Context;
use crate::auth::{Role, TokenEntry, TokenError};

impl From<TokenError> for Problem {
    fn from(error: TokenError) -> Self {
        let words = error.to_string();
        match error {
            TokenError::Name(_) => Self::invalid(words),
            TokenError::Taken(_) | TokenError::Configured(_) => Self::conflict(words),
            TokenError::Unknown(_) => Self::not_found(words),
            TokenError::Store(_) => Self::internal(words),
        }
    }
}

/// All tokens by name; never their text.
#[utoipa::path(
    get, path = "/api/v1/tokens", tag = "tokens",
    responses((status = 200, body = Page<TokenEntry>), (status = 403, body = Problem))
)]
pub(crate) async fn list(State(context): State<Context>) -> Response {
    let page = Page {
        items: context.access.list(),
        next_page_token: None,
    };
    Json(page).into_response()
}

/// A token to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TokenRequest {
    /// Who will hold it.
    name: String,
    /// What its holder may do.
    role: Role,
}

/// A new token.
#[derive(Serialize, ToSchema)]
pub(crate) struct NewToken {
    /// What it is.
    #[serde(flatten)]
    entry: TokenEntry,
    /// Its text, told this once: only its digest is kept.
    token: String,
}

/// Makes a token.
#[utoipa::path(
    post, path = "/api/v1/tokens", tag = "tokens", request_body = TokenRequest,
    responses((status = 201, body = NewToken), (status = 400, body = Problem), (status = 409, body = Problem))
)]
pub(crate) async fn create(
    State(context): State<Context>,
    Extension(Caller(by)): Extension<Caller>,
    Json(request): Json<TokenRequest>,
) -> Result<Response, Problem> {
    let (token, entry) = make_token(&context, request.name, request.role, &by.name).await?;
    let deed = made_deed(&entry);
    Ok((StatusCode::CREATED, Extension(deed), Json(NewToken { entry, token })).into_response())
}

/// Makes a token and gives its text.
pub(crate) async fn make_token(
    context: &Context,
    name: String,
    role: Role,
    by: &str,
) -> Result<(String, TokenEntry), Problem> {
    let (access, by, now) = (context.access.clone(), by.to_owned(), now());
    // The store writes it to the disk.
    let made = tokio::task::spawn_blocking(move || access.create(&name, role, &by, now)).await;
    Ok(made.map_err(|error| Problem::internal(error.to_string()))??)
}

/// What the record of changes says of a token that was made.
pub(crate) fn made_deed(entry: &TokenEntry) -> Deed {
    Deed(format!("make token {} with role {}", entry.name, entry.role))
}

/// Takes a token away; page sessions made with it end.
#[utoipa::path(
    delete, path = "/api/v1/tokens/{name}", tag = "tokens", params(("name" = String, Path)),
    responses((status = 204), (status = 404, body = Problem), (status = 409, body = Problem))
)]
pub(crate) async fn revoke(State(context): State<Context>, Path(name): Path<String>) -> Result<Response, Problem> {
    revoke_token(&context, name.clone()).await?;
    Ok((Extension(revoked_deed(&name)), StatusCode::NO_CONTENT).into_response())
}

/// Takes a token away.
pub(crate) async fn revoke_token(context: &Context, name: String) -> Result<(), Problem> {
    let access = context.access.clone();
    let gone = tokio::task::spawn_blocking(move || access.revoke(&name)).await;
    Ok(gone.map_err(|error| Problem::internal(error.to_string()))??)
}

/// What the record of changes says of a token that was taken away.
pub(crate) fn revoked_deed(name: &str) -> Deed {
    Deed(format!("revoke token {name}"))
}

/// The appliance's clock.
fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Timestamp(since.map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX)))
}

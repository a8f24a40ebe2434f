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
    let (access, name) = (context.access.clone(), by.name.clone());
    let now = now();
    let (wanted, role) = (request.name, request.role);
    let made = tokio::task::spawn_blocking(move || access.create(&wanted, role, &name, now)).await;
    let (token, entry) = made.map_err(|error| Problem::internal(error.to_string()))??;
    let deed = Deed(format!("make token {} with role {}", entry.name, entry.role));
    Ok((StatusCode::CREATED, Extension(deed), Json(NewToken { entry, token })).into_response())
}

/// Takes a token away; page sessions made with it end.
#[utoipa::path(
    delete, path = "/api/v1/tokens/{name}", tag = "tokens", params(("name" = String, Path)),
    responses((status = 204), (status = 404, body = Problem), (status = 409, body = Problem))
)]
pub(crate) async fn revoke(State(context): State<Context>, Path(name): Path<String>) -> Result<Response, Problem> {
    let (access, wanted) = (context.access.clone(), name.clone());
    let gone = tokio::task::spawn_blocking(move || access.revoke(&wanted)).await;
    gone.map_err(|error| Problem::internal(error.to_string()))??;
    Ok((Extension(Deed(format!("revoke token {name}"))), StatusCode::NO_CONTENT).into_response())
}

/// The appliance's clock.
fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Timestamp(since.map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX)))
}

//! `/api/v1/secrets`: how the stored secrets are locked, and the BMC accounts for the day the appliance is lost. For
//! admins. No secret comes out of here unsealed.

use axum::Json;
use axum::extract::{Extension, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::ToSchema;

use super::state::long_enough;
use super::{Deed, Problem};
use crate::Context;
use crate::operations::SecretsLock;

/// How the stored secrets are locked.
#[utoipa::path(
    get, path = "/api/v1/secrets", tag = "state",
    responses((status = 200, body = SecretsLock), (status = 403, body = Problem))
)]
pub(crate) async fn show(State(context): State<Context>) -> Result<Json<SecretsLock>, Problem> {
    Ok(Json(context.operations.secrets().await?))
}

/// A passphrase that something is to be sealed with.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Passphrase {
    /// At least twelve characters.
    passphrase: String,
}

/// Puts the stored secrets behind a passphrase, or behind another one. From then on the appliance waits for it at every
/// start, and serves nothing until somebody has given it there.
#[utoipa::path(
    put, path = "/api/v1/secrets/passphrase", tag = "state", request_body = Passphrase,
    responses((status = 200, body = SecretsLock), (status = 400, body = Problem), (status = 403, body = Problem))
)]
pub(crate) async fn lock(State(context): State<Context>, Json(request): Json<Passphrase>) -> Result<Response, Problem> {
    long_enough(&request.passphrase)?;
    let lock = context.operations.lock_secrets(Some(request.passphrase)).await?;
    let deed = Deed("put the stored secrets behind a passphrase".into());
    Ok((Extension(deed), Json(lock)).into_response())
}

/// Takes the passphrase away: the key of the secrets lies in a file on the appliance's disk again.
#[utoipa::path(
    delete, path = "/api/v1/secrets/passphrase", tag = "state",
    responses((status = 200, body = SecretsLock), (status = 403, body = Problem))
)]
pub(crate) async fn unlock(State(context): State<Context>) -> Result<Response, Problem> {
    let lock = context.operations.lock_secrets(None).await?;
    let deed = Deed("take the passphrase of the stored secrets away".into());
    Ok((Extension(deed), Json(lock)).into_response())
}

/// Every BMC account with its passwords as one file, sealed with a passphrase. `rackbar secrets read` opens it without
/// an appliance.
#[utoipa::path(
    post, path = "/api/v1/secrets/bmc-logins", tag = "state", request_body = Passphrase,
    responses(
        (status = 200, body = Vec<u8>, content_type = "application/octet-stream"), (status = 400, body = Problem),
        (status = 403, body = Problem)
    )
)]
pub(crate) async fn bmc_logins(
    State(context): State<Context>,
    Json(request): Json<Passphrase>,
) -> Result<Response, Problem> {
    long_enough(&request.passphrase)?;
    let file = context.operations.bmc_logins(request.passphrase).await?;
    let head = [
        (header::CONTENT_TYPE, "application/octet-stream"),
        (
            header::CONTENT_DISPOSITION,
            "attachment; filename=\"rackbar-bmc-passwords\"",
        ),
        (header::CACHE_CONTROL, "no-store"),
    ];
    Ok((Extension(Deed("take the BMC accounts out".into())), head, file).into_response())
}

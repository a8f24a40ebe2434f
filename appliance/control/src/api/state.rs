//! The whole state as one sealed file, out and in, and the rack as other tools read it.

use axum::Json;
use axum::body::{Body, to_bytes};
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::paging::tagged;
use super::{Caller, Deed, Problem};
use crate::Context;

/// The header that carries the passphrase of a state file that is put in. A header and not the query: URLs are logged.
const PASSPHRASE: &str = "rackbar-passphrase";
/// A short one could be guessed by whoever finds the file.
const SHORTEST: usize = 12;

/// More than the state of any rack: the journal's 200,000 events are about 60 MB.
const LARGEST: usize = 512 << 20;

/// The passphrase that seals a state file.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExportRequest {
    /// At least twelve characters; without it nobody opens the file again.
    passphrase: String,
}

/// The whole state, keys and passwords included, sealed with a passphrase.
#[utoipa::path(
    post, path = "/api/v1/export", tag = "state", request_body = ExportRequest,
    responses(
        (status = 200, body = Vec<u8>, content_type = "application/octet-stream"), (status = 400, body = Problem),
        (status = 403, body = Problem)
    )
)]
pub(crate) async fn export(
    State(context): State<Context>,
    Json(request): Json<ExportRequest>,
) -> Result<Response, Problem> {
    long_enough(&request.passphrase)?;
    let file = context.operations.export(request.passphrase).await?;
    let name = [
        (header::CONTENT_TYPE, "application/octet-stream"),
        (header::CONTENT_DISPOSITION, "attachment; filename=\"rackbar-state\""),
        (header::CACHE_CONTROL, "no-store"),
    ];
    Ok((Extension(Deed("take the whole state out".into())), name, file).into_response())
}

/// Refuses a passphrase that could be guessed.
pub(super) fn long_enough(passphrase: &str) -> Result<(), Problem> {
    if passphrase.chars().count() < SHORTEST {
        return Err(Problem::invalid(format!(
            "the passphrase has fewer than {SHORTEST} characters"
        )));
    }
    Ok(())
}

/// What was put in.
#[derive(Serialize, ToSchema)]
pub(crate) struct Imported {
    /// In words.
    taken: String,
}

/// Puts a state file in the place of this appliance's own state; the appliance starts anew with it. The passphrase comes
/// in the header `Rackbar-Passphrase`.
#[utoipa::path(
    post, path = "/api/v1/import", tag = "state",
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    params(("Rackbar-Passphrase" = String, Header)),
    responses((status = 200, body = Imported), (status = 400, body = Problem), (status = 403, body = Problem))
)]
pub(crate) async fn import(
    State(context): State<Context>,
    Extension(Caller(by)): Extension<Caller>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let passphrase = headers.get(PASSPHRASE).and_then(|value| value.to_str().ok());
    let Some(passphrase) = passphrase else {
        return Err(Problem::invalid(
            "the header Rackbar-Passphrase is missing, or holds more than ASCII",
        ));
    };
    let file = to_bytes(body, LARGEST).await.map_err(|error| {
        match error.into_inner().downcast_ref::<http_body_util::LengthLimitError>() {
            Some(_) => Problem::too_large(format!("no state file is larger than {} MiB", LARGEST >> 20)),
            None => Problem::invalid("the state file did not come whole; send it again"),
        }
    })?;
    let operations = &context.operations;
    let taken = operations
        .import(file.to_vec(), passphrase.to_owned(), &by.name)
        .await?;
    Ok((Extension(Deed("put a state file in".into())), Json(Imported { taken })).into_response())
}

/// The rack as an Ansible inventory, as `ansible-inventory --list` wants it of a script.
#[utoipa::path(get, path = "/api/v1/handoff/ansible", tag = "state", responses((status = 200, body = Object)))]
pub(crate) async fn ansible(State(context): State<Context>, headers: HeaderMap) -> Result<Response, Problem> {
    Ok(tagged(&headers, &context.operations.ansible().await?))
}

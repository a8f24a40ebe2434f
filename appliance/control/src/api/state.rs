//! The whole state as one sealed file, out and in, and the rack as other tools read it.

use axum::Json;
use axum::body::Body;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use futures_util::TryStreamExt as _;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::paging::tagged;
use super::{Caller, Deed, Problem};
use crate::Context;
use crate::operations::{ExportParts, ExportSizes};

/// The header that carries the passphrase of a state file that is put in. A header and not the query: URLs are logged.
const PASSPHRASE: &str = "rackbar-passphrase";
/// A short one could be guessed by whoever finds the file.
const SHORTEST: usize = 12;

/// The passphrase that seals a state file.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExportRequest {
    /// At least twelve characters; without it nobody opens the file again.
    passphrase: String,
    /// Whether the images of the catalogue and the data packs that were put in go along; true when left out.
    #[serde(default = "yes")]
    images: bool,
    /// Whether what the proxy stored goes along; true when left out.
    #[serde(default = "yes")]
    cache: bool,
}

const fn yes() -> bool {
    true
}

/// What a state file would hold and how large that is.
#[utoipa::path(
    get, path = "/api/v1/export", tag = "state",
    responses((status = 200, body = ExportSizes), (status = 403, body = Problem))
)]
pub(crate) async fn sizes(State(context): State<Context>, headers: HeaderMap) -> Result<Response, Problem> {
    Ok(tagged(&headers, &context.operations.export_sizes().await?))
}

/// The whole state in one file: keys and passwords included, which are sealed with a passphrase; the users' programs; the
/// images of the catalogue; data packs that were put in; and what the proxy stored. It is made while it is read, so its length is not known before its end.
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
    let ExportRequest {
        passphrase,
        images,
        cache,
    } = request;
    let file = context
        .operations
        .export(passphrase, ExportParts { images, cache })
        .await?;
    let name = [
        (header::CONTENT_TYPE, "application/octet-stream"),
        (header::CONTENT_DISPOSITION, "attachment; filename=\"rackbar-state\""),
        (header::CACHE_CONTROL, "no-store"),
    ];
    let what = match (images, cache) {
        (true, true) => "",
        (true, false) => ", without what the proxy stored",
        (false, true) => ", without images",
        (false, false) => ", without images and what the proxy stored",
    };
    let deed = Deed(format!("take the whole state out{what}"));
    Ok((Extension(deed), name, Body::from_stream(file)).into_response())
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
/// in the header `Rackbar-Passphrase`. Programs, images, data packs and stored answers that come with it join those that
/// are here, in the place of those with the same names. Nothing is changed before all of it has come and was found right.
#[utoipa::path(
    post, path = "/api/v1/import", tag = "state",
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    params(("Rackbar-Passphrase" = String, Header)),
    responses(
        (status = 200, body = Imported), (status = 400, body = Problem), (status = 403, body = Problem),
        (status = 409, body = Problem)
    )
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
    let file = Box::pin(body.into_data_stream().map_err(std::io::Error::other));
    let operations = &context.operations;
    let taken = operations.import(file, passphrase.to_owned(), &by.name).await?;
    Ok((Extension(Deed("put a state file in".into())), Json(Imported { taken })).into_response())
}

/// The rack as an Ansible inventory, as `ansible-inventory --list` wants it of a script.
#[utoipa::path(get, path = "/api/v1/handoff/ansible", tag = "state", responses((status = 200, body = Object)))]
pub(crate) async fn ansible(State(context): State<Context>, headers: HeaderMap) -> Result<Response, Problem> {
    Ok(tagged(&headers, &context.operations.ansible().await?))
}

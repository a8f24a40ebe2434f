//! `/api/v1/programs`: the users' programs, which steps of the site file name.

use axum::Json;
use axum::body::Body as HttpBody;
use axum::extract::{Extension, Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use futures_util::TryStreamExt as _;
use rackbar_model::ProgramEntry;

use super::images::content_digest;
use super::paging::{Page, tagged};
use super::{Deed, Problem};
use crate::Context;
use crate::operations::{NewProgram, PutProgram};

/// The programs, by name.
#[utoipa::path(get, path = "/api/v1/programs", tag = "programs", responses((status = 200, body = Page<ProgramEntry>)))]
pub(crate) async fn list(State(context): State<Context>, headers: HeaderMap) -> Result<Response, Problem> {
    let mut items = context.operations.programs().await?;
    items.sort_by(|a, b| a.name.cmp(&b.name));
    let page = Page {
        items,
        next_page_token: None,
    };
    Ok(tagged(&headers, &page))
}

/// Puts a program in, or another in its place: a static executable for x86-64 Linux of at most 64 MiB. The body is the
/// file as it is; with `Content-Digest` (RFC 9530) a file that came wrong is refused. Plans that were committed keep the
/// program that they were made with.
#[utoipa::path(
    put, path = "/api/v1/programs/{name}", tag = "programs",
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    params(
        ("name" = String, Path),
        ("Content-Digest" = Option<String>, Header, description = "`sha-256=:<base64>:`")
    ),
    responses(
        (status = 200, description = "in the place of the one before, or the same", body = ProgramEntry),
        (status = 201, body = ProgramEntry), (status = 400, body = Problem), (status = 409, body = Problem)
    )
)]
pub(crate) async fn put(
    State(context): State<Context>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: HttpBody,
) -> Result<Response, Problem> {
    let program = NewProgram {
        name,
        sha256: content_digest(&headers)?,
        body: Box::pin(body.into_data_stream().map_err(std::io::Error::other)),
    };
    let PutProgram { entry, before } = context.operations.put_program(program).await?;
    let instead = match &before {
        Some(before) if before.sha256 != entry.sha256 => format!(" in place of SHA-256 {}", before.sha256),
        _ => String::new(),
    };
    let deed = Deed(format!(
        "put in program {}, {} bytes, SHA-256 {}{instead}",
        entry.name, entry.bytes, entry.sha256
    ));
    let status = if before.is_some() {
        StatusCode::OK
    } else {
        StatusCode::CREATED
    };
    Ok((status, Extension(deed), Json(entry)).into_response())
}

/// Takes a program out. Refused while a run that has not ended names it.
#[utoipa::path(
    delete, path = "/api/v1/programs/{name}", tag = "programs", params(("name" = String, Path)),
    responses((status = 204), (status = 404, body = Problem), (status = 409, body = Problem))
)]
pub(crate) async fn remove(State(context): State<Context>, Path(name): Path<String>) -> Result<Response, Problem> {
    context.operations.remove_program(&name).await?;
    let deed = Deed(format!("take out program {name}"));
    Ok((Extension(deed), StatusCode::NO_CONTENT).into_response())
}

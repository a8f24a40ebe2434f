//! `/api/v1/nodes/{node}/console`: a machine's serial console. Reading is a body without end, typing a body that is taken
//! as it comes.

use axum::body::Body;
use axum::extract::{Extension, Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt as _;

use super::lasting::LetIn;
use super::nodes::find;
use super::{Deed, Problem};
use crate::Context;

/// What the machine printed lately on its serial port, then what it prints, as raw bytes, until one end has enough. Opens
/// the console over the BMC (Serial over LAN) when nobody looks on yet, and takes it from whoever has it there.
#[utoipa::path(
    get, path = "/api/v1/nodes/{node}/console", tag = "nodes",
    params(("node" = String, Path, description = "Name, id or MAC address")),
    responses(
        (status = 200, body = Vec<u8>, content_type = "application/octet-stream"), (status = 404, body = Problem),
        (status = 502, body = Problem)
    )
)]
pub(crate) async fn show(State(context): State<Context>, Path(name): Path<String>) -> Result<Response, Problem> {
    let node = find(&context, &name)?;
    let pieces = context.operations.console(&node.id.to_string()).await?;
    let head = [
        (header::CONTENT_TYPE, "application/octet-stream"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    Ok((head, Body::from_stream(pieces)).into_response())
}

/// What was recorded of a machine's serial console, oldest first, raw bytes: of every time that somebody looked on, or of
/// all the time where `[bmc] record_consoles` asks for it. The newest two MiB are kept.
#[utoipa::path(
    get, path = "/api/v1/nodes/{node}/console/record", tag = "nodes",
    params(("node" = String, Path, description = "Name, id or MAC address")),
    responses(
        (status = 200, body = Vec<u8>, content_type = "application/octet-stream"), (status = 404, body = Problem)
    )
)]
pub(crate) async fn record(State(context): State<Context>, Path(name): Path<String>) -> Result<Response, Problem> {
    let node = find(&context, &name)?;
    let record = context.operations.console_record(&node.id.to_string()).await?;
    let head = [
        (header::CONTENT_TYPE, "application/octet-stream"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    Ok((head, record).into_response())
}

/// Types the body on the console, byte by byte as it comes, as long as the caller's token is valid. Somebody must look on
/// at it.
#[utoipa::path(
    post, path = "/api/v1/nodes/{node}/console", tag = "nodes",
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    params(("node" = String, Path, description = "Name, id or MAC address")),
    responses((status = 204), (status = 404, body = Problem), (status = 409, body = Problem))
)]
pub(crate) async fn type_in(
    State(context): State<Context>,
    Path(name): Path<String>,
    Extension(by): Extension<LetIn>,
    body: Body,
) -> Result<Response, Problem> {
    let node = find(&context, &name)?;
    let id = node.id.to_string();
    let mut pieces = body.into_data_stream().take_until(Box::pin(by.end(&context)));
    // The connection may break off: what was typed until then was typed.
    while let Some(Ok(piece)) = pieces.next().await {
        context.operations.type_in(&id, piece.to_vec()).await?;
    }
    let deed = Deed(format!("type on the serial console of {}", node.name));
    Ok((StatusCode::NO_CONTENT, Extension(deed)).into_response())
}

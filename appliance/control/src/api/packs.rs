//! `/api/v1/packs`: data packs.

use axum::Json;
use axum::body::Body as HttpBody;
use axum::extract::{Extension, Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::TryStreamExt as _;

use super::paging::tagged;
use super::{Deed, Problem};
use crate::Context;
use crate::operations::{NewPack, PackDone, PackEntry, PackOrder, PackState};

/// All data packs, wherever they lie, and the keys whose packs are taken.
#[utoipa::path(get, path = "/api/v1/packs", tag = "packs", responses((status = 200, body = PackState)))]
pub(crate) async fn list(State(context): State<Context>, headers: HeaderMap) -> Result<Response, Problem> {
    Ok(tagged(&headers, &context.operations.packs().await?))
}

/// Makes a pack, or reads one through.
#[utoipa::path(
    post, path = "/api/v1/packs", tag = "packs", request_body = PackOrder,
    responses(
        (status = 200, body = PackDone), (status = 400, body = Problem), (status = 404, body = Problem),
        (status = 409, body = Problem)
    )
)]
pub(crate) async fn order(State(context): State<Context>, Json(order): Json<PackOrder>) -> Result<Response, Problem> {
    let done = context.operations.order_packs(order).await?;
    let deed = Deed(format!("packs: {done}"));
    Ok((Extension(deed), Json(PackDone { done })).into_response())
}

/// The pack as a file.
#[utoipa::path(
    get, path = "/api/v1/packs/{name}", tag = "packs", params(("name" = String, Path)),
    responses(
        (status = 200, body = Vec<u8>, content_type = "application/octet-stream"), (status = 404, body = Problem)
    )
)]
pub(crate) async fn show(State(context): State<Context>, Path(name): Path<String>) -> Result<Response, Problem> {
    let file = context.operations.pack_file(&name).await?;
    let head = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_LENGTH, file.bytes.to_string()),
    ];
    Ok((head, HttpBody::from_stream(file.body)).into_response())
}

/// Puts a pack in. It is checked while it comes: one that is cut off, changed, or signed by somebody who is not trusted is
/// refused, and nothing of it is kept.
#[utoipa::path(
    put, path = "/api/v1/packs/{name}", tag = "packs",
    request_body(content = Vec<u8>, content_type = "application/octet-stream"), params(("name" = String, Path)),
    responses((status = 201, body = PackEntry), (status = 400, body = Problem), (status = 409, body = Problem))
)]
pub(crate) async fn put(
    State(context): State<Context>,
    Path(name): Path<String>,
    body: HttpBody,
) -> Result<Response, Problem> {
    let body = Box::pin(body.into_data_stream().map_err(std::io::Error::other));
    let entry = context.operations.put_pack(NewPack { name, body }).await?;
    let deed = Deed(format!(
        "put in data pack {}, {} bytes, signed by {}",
        entry.name, entry.bytes, entry.key
    ));
    Ok((StatusCode::CREATED, Extension(deed), Json(entry)).into_response())
}

/// Removes a pack that was put in or made here.
#[utoipa::path(
    delete, path = "/api/v1/packs/{name}", tag = "packs", params(("name" = String, Path)),
    responses((status = 204), (status = 404, body = Problem), (status = 409, body = Problem))
)]
pub(crate) async fn remove(State(context): State<Context>, Path(name): Path<String>) -> Result<Response, Problem> {
    context.operations.remove_pack(&name).await?;
    let deed = Deed(format!("remove data pack {name}"));
    Ok((Extension(deed), StatusCode::NO_CONTENT).into_response())
}

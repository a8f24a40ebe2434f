//! `/api/v1/adopt`: machines that somebody else installed, taken in as they are.

use axum::Json;
use axum::extract::{Extension, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};

use super::paging::tagged;
use super::{Caller, Deed, Problem};
use crate::Context;
use crate::operations::{AdoptRequest, Adoption, LoginKey};

/// The public key by which the appliance logs in to machines: for `authorized_keys` of one that is to be adopted.
#[utoipa::path(get, path = "/api/v1/adopt", tag = "nodes", responses((status = 200, body = LoginKey)))]
pub(crate) async fn key(State(context): State<Context>, headers: HeaderMap) -> Result<Response, Problem> {
    Ok(tagged(&headers, &context.operations.adoption_key().await?))
}

/// Adopts a running machine: the appliance logs in over SSH, looks at the machine and its system, finds the node that it
/// is or makes one, and records it as ready with the system that it has. Nothing is written to its disks. With `dry_run`
/// nothing is recorded either. To take it back, forget the node.
#[utoipa::path(
    post, path = "/api/v1/adopt", tag = "nodes", request_body = AdoptRequest,
    responses(
        (status = 200, body = Adoption), (status = 400, body = Problem), (status = 404, body = Problem),
        (status = 409, body = Problem), (status = 422, body = Problem), (status = 502, body = Problem)
    )
)]
pub(crate) async fn adopt(
    State(context): State<Context>,
    Extension(Caller(caller)): Extension<Caller>,
    Json(request): Json<AdoptRequest>,
) -> Result<Response, Problem> {
    let (user, address, port) = (request.user.clone(), request.address, request.port);
    let adoption = context.operations.adopt(request, &caller.name).await?;
    let deed = match (adoption.recorded, &adoption.node) {
        (true, Some(node)) => format!("adopt {node}, as {user} at {address} port {port}"),
        _ => format!("look at {address} port {port} as {user}, to be adopted; nothing recorded"),
    };
    Ok((Extension(Deed(deed)), Json::<Adoption>(adoption)).into_response())
}

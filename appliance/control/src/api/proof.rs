//! Checks, and the signed reports of what they found.

use axum::Json;
use axum::extract::{Extension, Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::ToSchema;

use super::nodes::find;
use super::{Caller, Deed, Problem};
use crate::Context;

/// A signed report, byte for byte as it was signed.
pub(crate) fn report(json: String) -> Response {
    let kind = [
        (header::CONTENT_TYPE, "application/json"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (kind, json).into_response()
}

/// The newest signed report of one machine.
#[utoipa::path(
    get, path = "/api/v1/nodes/{node}/report", tag = "proof",
    params(("node" = String, Path, description = "Name, id or MAC address")),
    responses((status = 200, body = Object), (status = 404, body = Problem))
)]
pub(crate) async fn node_report(State(context): State<Context>, Path(name): Path<String>) -> Result<Response, Problem> {
    let node = find(&context, &name)?;
    Ok(report(context.operations.report(&node.id.to_string()).await?))
}

/// The newest signed report of the rack.
#[utoipa::path(
    get, path = "/api/v1/report", tag = "proof",
    responses((status = 200, body = Object), (status = 404, body = Problem))
)]
pub(crate) async fn rack_report(State(context): State<Context>) -> Result<Response, Problem> {
    Ok(report(context.operations.rack_report().await?))
}

/// Which machines to check.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct VerifyRequest {
    /// Names, ids or MAC addresses; empty for the whole rack.
    nodes: Vec<String>,
}

/// Runs the checks now and waits for them; the answer is the signed report. A check that fails is a result, not an
/// error.
#[utoipa::path(
    post, path = "/api/v1/verify", tag = "proof", request_body = VerifyRequest,
    responses((status = 200, body = Object), (status = 404, body = Problem), (status = 409, body = Problem))
)]
pub(crate) async fn verify(
    State(context): State<Context>,
    Extension(Caller(by)): Extension<Caller>,
    Json(request): Json<VerifyRequest>,
) -> Result<Response, Problem> {
    let mut ids = Vec::new();
    for name in &request.nodes {
        ids.push(find(&context, name)?.id.to_string());
    }
    let deed = match request.nodes.as_slice() {
        [] => "check the rack".to_owned(),
        nodes => format!("check {}", nodes.join(", ")),
    };
    let json = context.operations.verify(ids, &by.name).await?;
    Ok((Extension(Deed(deed)), report(json)).into_response())
}

//! `/api/v1/storage`: the appliance's own disks, and which of them has its state.

use axum::Json;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};

use super::paging::tagged;
use super::{Caller, Deed, Problem};
use crate::Context;
use crate::operations::{StorageDone, StorageOrder, StorageState};

/// Where the state is, and the disks of the management machine.
#[utoipa::path(
    get, path = "/api/v1/storage", tag = "appliance",
    responses((status = 200, body = StorageState), (status = 503, body = Problem))
)]
pub(crate) async fn show(State(context): State<Context>, headers: HeaderMap) -> Result<Response, Problem> {
    Ok(tagged(&headers, &context.operations.storage().await?))
}

/// Moves the state from memory to a disk. The answer comes when the disk is prepared and most is copied; the appliance then
/// starts anew on it, which interrupts its services for some seconds. Nothing on the disk is destroyed without `destroy`.
#[utoipa::path(
    post, path = "/api/v1/storage", tag = "appliance", request_body = StorageOrder,
    responses(
        (status = 202, body = StorageDone), (status = 404, body = Problem), (status = 409, body = Problem),
        (status = 500, body = Problem), (status = 503, body = Problem)
    )
)]
pub(crate) async fn use_disk(
    State(context): State<Context>,
    Extension(Caller(caller)): Extension<Caller>,
    Json(order): Json<StorageOrder>,
) -> Result<Response, Problem> {
    let deed = Deed(deed(&order));
    let done = context.operations.use_disk(order, &caller.name).await?;
    Ok((Extension(deed), (StatusCode::ACCEPTED, Json(StorageDone { done }))).into_response())
}

/// The order in words, for the audit trail.
pub(crate) fn deed(order: &StorageOrder) -> String {
    match &order.destroy {
        Some(_) => format!(
            "move the state to the disk {:?}, with all that was on it lost",
            order.disk
        ),
        None => format!("move the state to the empty disk {:?}", order.disk),
    }
}

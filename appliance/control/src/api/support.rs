//! `/api/v1/support-bundle`: one file for somebody elsewhere.

use axum::extract::{Extension, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};

use super::{Deed, Problem};
use crate::Context;

/// Logs, events, configuration without secrets, versions, services, machines and their timelines as one tar archive,
/// compressed with Zstandard. For admins.
#[utoipa::path(
    post, path = "/api/v1/support-bundle", tag = "state",
    responses(
        (status = 200, body = Vec<u8>, content_type = "application/zstd"), (status = 403, body = Problem)
    )
)]
pub(crate) async fn bundle(State(context): State<Context>) -> Result<Response, Problem> {
    let file = context.operations.support_bundle().await?;
    let head = [
        (header::CONTENT_TYPE, "application/zstd"),
        (
            header::CONTENT_DISPOSITION,
            "attachment; filename=\"rackbar-support.tar.zst\"",
        ),
        (header::CACHE_CONTROL, "no-store"),
    ];
    Ok((Extension(Deed("make a support bundle".into())), head, file).into_response())
}

//! `/api/v1/nodes/{node}/answers`: answer files of installers for a boot server or medium of somebody else's.

use axum::Json;
use axum::extract::{Extension, Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};

use super::{Deed, Problem};
use crate::Context;
use crate::operations::{Answers, AnswersRequest};

/// Renders what the installer of a system needs to install this machine by its role: answer files, which hold password hashes,
/// and how the installer is started. Nothing is ordered, recorded or kept, and no private key of the machine is given out.
#[utoipa::path(
    post, path = "/api/v1/nodes/{node}/answers", tag = "nodes", request_body = AnswersRequest,
    params(("node" = String, Path)),
    responses(
        (status = 200, body = Answers), (status = 400, body = Problem), (status = 404, body = Problem),
        (status = 409, body = Problem)
    )
)]
pub(crate) async fn render(
    State(context): State<Context>,
    Path(node): Path<String>,
    Json(request): Json<AnswersRequest>,
) -> Result<Response, Problem> {
    let answers = context.operations.answers(&node, request).await?;
    let deed = Deed(format!(
        "render the answers of {} for {}, for use elsewhere; nothing recorded",
        answers.system, answers.node
    ));
    let head = [(header::CACHE_CONTROL, "no-store")];
    Ok((Extension(deed), head, Json::<Answers>(answers)).into_response())
}

//! `/api/v1/webhooks`: programs elsewhere that are told what happens. Which there are is the configuration's to say.

use axum::Json;
use axum::extract::{Extension, Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};

use super::paging::Page;
use super::{Deed, Problem};
use crate::Context;
use crate::operations::{WebhookEntry, WebhookSecret};

/// All webhooks by name, and how far each receiver was told.
#[utoipa::path(
    get, path = "/api/v1/webhooks", tag = "webhooks",
    responses((status = 200, body = Page<WebhookEntry>))
)]
pub(crate) async fn list(State(context): State<Context>) -> Result<Response, Problem> {
    let page = Page {
        items: context.operations.webhooks().await?,
        next_page_token: None,
    };
    Ok(Json(page).into_response())
}

/// Gives a webhook the secret that its messages are signed with, and answers with it: it is sealed in the store and not
/// shown again. For admins.
#[utoipa::path(
    put, path = "/api/v1/webhooks/{name}/secret", tag = "webhooks", request_body = WebhookSecret,
    params(("name" = String, Path)),
    responses(
        (status = 200, body = WebhookSecret), (status = 400, body = Problem), (status = 403, body = Problem),
        (status = 404, body = Problem)
    )
)]
pub(crate) async fn set_secret(
    State(context): State<Context>,
    Path(name): Path<String>,
    Json(request): Json<WebhookSecret>,
) -> Result<Response, Problem> {
    let text = context.operations.set_webhook_secret(&name, request.secret).await?;
    let deed = Deed(format!("give webhook {name} a new secret"));
    let answer = WebhookSecret { secret: Some(text) };
    let head = [(header::CACHE_CONTROL, "no-store")];
    Ok((Extension(deed), head, Json(answer)).into_response())
}

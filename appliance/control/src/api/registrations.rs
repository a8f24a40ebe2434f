//! `/api/v1/registrations`: services of ready machines in a registry outside. Which one, and what services, is the site's
//! to say.

use axum::Json;
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use super::{Deed, Problem};
use crate::Context;
use crate::operations::{RegistrationState, RegistrationToken};

/// What is registered for which machine, and what stands in the way of the rest.
#[utoipa::path(
    get, path = "/api/v1/registrations", tag = "handoff",
    responses((status = 200, body = RegistrationState))
)]
pub(crate) async fn show(State(context): State<Context>) -> Result<Json<RegistrationState>, Problem> {
    Ok(Json(context.operations.registrations().await?))
}

/// Gives the token for the registry that the site in force names. It is sealed in the store, never shown, and sent to that
/// URL only. For admins.
#[utoipa::path(
    put, path = "/api/v1/registrations/token", tag = "handoff", request_body = RegistrationToken,
    responses(
        (status = 204), (status = 400, body = Problem), (status = 403, body = Problem), (status = 409, body = Problem)
    )
)]
pub(crate) async fn set_token(
    State(context): State<Context>,
    Json(request): Json<RegistrationToken>,
) -> Result<Response, Problem> {
    let deed = match request.token {
        Some(_) => "give the registry's token",
        None => "forget the registry's token",
    };
    context.operations.set_registration_token(request.token).await?;
    Ok((Extension(Deed(deed.into())), StatusCode::NO_CONTENT).into_response())
}

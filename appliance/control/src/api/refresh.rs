//! `/api/v1/images/{name}/upstream`, `/refresh` and `/pin`: where an image is had from, and whether it stays as it is.

use axum::Json;
use axum::extract::{Extension, Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use rackbar_model::Upstream;

use super::paging::tagged;
use super::{Deed, Problem};
use crate::Context;
use crate::operations::{ImagePin, ImageRefresh, ImageStandingDone};

/// Says where an image is had from, and whose signature it must have there. Nothing is fetched.
#[utoipa::path(
    put, path = "/api/v1/images/{name}/upstream", tag = "images", params(("name" = String, Path)),
    request_body = Upstream,
    responses(
        (status = 200, description = "what was done, in words", body = ImageStandingDone),
        (status = 400, body = Problem), (status = 404, body = Problem), (status = 409, body = Problem)
    )
)]
pub(crate) async fn set_upstream(
    State(context): State<Context>,
    Path(name): Path<String>,
    Json(upstream): Json<Upstream>,
) -> Result<Response, Problem> {
    let deed = Deed(format!("image {name} is had from {} from now on", upstream.asked()));
    let done = context.operations.set_image_upstream(&name, upstream).await?;
    Ok((Extension(deed), Json(ImageStandingDone { done })).into_response())
}

/// Keeps an image as it is, whatever its publisher offers, or lets it be refreshed again.
#[utoipa::path(
    put, path = "/api/v1/images/{name}/pin", tag = "images", params(("name" = String, Path)),
    request_body = ImagePin,
    responses(
        (status = 200, description = "what was done, in words", body = ImageStandingDone),
        (status = 404, body = Problem), (status = 409, body = Problem)
    )
)]
pub(crate) async fn pin(
    State(context): State<Context>,
    Path(name): Path<String>,
    Json(pin): Json<ImagePin>,
) -> Result<Response, Problem> {
    let deed = pinned_deed(&name, &pin);
    let done = context.operations.pin_image(&name, pin).await?;
    Ok((Extension(deed), Json(ImageStandingDone { done })).into_response())
}

/// Begins to look for a newer image where it is had from. Signature and digest are verified before it takes the old one's place,
/// in one step; runs that have begun end with the old one. How it goes is told by `GET`.
#[utoipa::path(
    post, path = "/api/v1/images/{name}/refresh", tag = "images", params(("name" = String, Path)),
    responses(
        (status = 202, body = ImageRefresh), (status = 404, body = Problem), (status = 409, body = Problem),
        (status = 503, body = Problem)
    )
)]
pub(crate) async fn begin(State(context): State<Context>, Path(name): Path<String>) -> Result<Response, Problem> {
    let begun = context.operations.refresh_image(&name).await?;
    let deed = refreshed_deed(&name);
    Ok((Extension(deed), (StatusCode::ACCEPTED, Json(begun))).into_response())
}

/// How the last refresh of an image since the appliance's start goes or went.
#[utoipa::path(
    get, path = "/api/v1/images/{name}/refresh", tag = "images", params(("name" = String, Path)),
    responses((status = 200, body = ImageRefresh), (status = 404, body = Problem))
)]
pub(crate) async fn show(
    State(context): State<Context>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    Ok(tagged(&headers, &context.operations.image_refresh(&name).await?))
}

/// What the record of changes says of a refresh.
pub(crate) fn refreshed_deed(name: &str) -> Deed {
    Deed(format!("refresh image {name}"))
}

/// What the record of changes says of a pin.
pub(crate) fn pinned_deed(name: &str, pin: &ImagePin) -> Deed {
    match pin.pinned {
        true => Deed(format!("pin image {name}")),
        false => Deed(format!("let image {name} be refreshed again")),
    }
}

//! `/api/v1/hardware-profiles`: how machines of a kind are treated, and whose word that is.

use axum::Json;
use axum::extract::{Extension, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};

use super::paging::{Page, tagged};
use super::{Deed, Problem};
use crate::Context;
use crate::operations::{HardwareProfile, ProfileSignature, ProfileToSign};

/// The hardware profiles that were read at the appliance's start: the shipped ones, then the site's own in the order in
/// which they count, with who signed them, and why one is not in force.
#[utoipa::path(
    get, path = "/api/v1/hardware-profiles", tag = "state",
    responses((status = 200, body = Page<HardwareProfile>))
)]
pub(crate) async fn list(State(context): State<Context>, headers: HeaderMap) -> Result<Response, Problem> {
    let items = context.operations.hardware_profiles().await?;
    let page = Page {
        items,
        next_page_token: None,
    };
    Ok(tagged(&headers, &page))
}

/// Signs a hardware profile with this appliance's key, which others name under `trust` in the section `[packs]`.
#[utoipa::path(
    post, path = "/api/v1/hardware-profiles/sign", tag = "state", request_body = ProfileToSign,
    responses((status = 200, body = ProfileSignature), (status = 400, body = Problem))
)]
pub(crate) async fn sign(
    State(context): State<Context>,
    Json(profile): Json<ProfileToSign>,
) -> Result<Response, Problem> {
    let signed = context.operations.sign_profile(profile.text).await?;
    let deed = Deed(format!("sign hardware profile {}", signed.name));
    Ok((Extension(deed), Json(signed)).into_response())
}

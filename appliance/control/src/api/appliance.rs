//! `/api/v1/appliance/deeds`: what a person does at the appliance's own console screen, for the audit trail. The screen does
//! these things itself, so that they can be done when the daemon cannot; it tells of them first.

use axum::Json;
use axum::extract::Extension;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Deed, Local, Problem};

/// What is done at the console screen.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ConsoleDeed {
    /// Restart the appliance.
    Restart,
    /// Switch the appliance off.
    PowerOff,
    /// Show the first admin token.
    ShowToken,
    /// Forget the first admin token: it was written down.
    PutTokenAway,
}

impl ConsoleDeed {
    /// In words, as the audit trail has it.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Restart => "restart the appliance",
            Self::PowerOff => "switch the appliance off",
            Self::ShowToken => "show the first admin token on the screen",
            Self::PutTokenAway => "put the first admin token away",
        }
    }
}

/// A deed at the console.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AtConsole {
    /// What is about to be done.
    pub deed: ConsoleDeed,
}

/// Records what is about to be done at the appliance's console. Only the console itself can say so: over HTTPS this is
/// refused. When the answer comes, the audit trail holds it durably.
#[utoipa::path(
    post, path = "/api/v1/appliance/deeds", tag = "appliance", request_body = AtConsole,
    responses((status = 204), (status = 403, body = Problem))
)]
pub(crate) async fn deeds(
    local: Option<Extension<Local>>,
    Json(AtConsole { deed }): Json<AtConsole>,
) -> Result<Response, Problem> {
    if local.is_none() {
        return Err(Problem::forbidden(
            "only the appliance's own console tells what is done there",
        ));
    }
    Ok((Extension(Deed(deed.words().into())), StatusCode::NO_CONTENT).into_response())
}

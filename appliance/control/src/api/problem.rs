//! Errors as RFC 9457 problem documents.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::operations::{Consent, Refused, SiteMistake};

/// Media type of a problem (RFC 9457 section 3).
const PROBLEM: &str = "application/problem+json";

/// An error, for programs (`type`, `status`) and people (`title`, `detail`). The members after `detail` are there when
/// they hold something.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Problem {
    /// Identifies the kind of problem; stable.
    #[serde(rename = "type")]
    kind: &'static str,
    /// The kind in words.
    title: &'static str,
    /// HTTP status.
    status: u16,
    /// What happened here, and what to do.
    detail: String,
    /// More, where there is more.
    #[serde(flatten)]
    more: Box<More>,
}

/// What only some problems hold.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
struct More {
    /// What is wrong with a site file, each at its line and field.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    mistakes: Vec<SiteMistake>,
    /// What changed since a plan was made.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    changed: Vec<String>,
    /// Consent that a plan still needs: name these machines in `destroy`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    consent: Vec<Consent>,
}

/// What a problem says, beside the answer that carries it: the audit trail tells it.
#[derive(Clone)]
pub(crate) struct Told(pub(crate) String);

impl Problem {
    fn new(status: StatusCode, kind: &'static str, title: &'static str, detail: impl Into<String>) -> Self {
        Self {
            kind,
            title,
            status: status.as_u16(),
            detail: detail.into(),
            more: Box::default(),
        }
    }

    fn with(mut self, more: More) -> Self {
        *self.more = more;
        self
    }

    /// The words, for a page.
    pub(crate) fn detail(&self) -> &str {
        &self.detail
    }

    /// The HTTP status.
    pub(crate) fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// What is wrong with a site file.
    pub(crate) fn mistakes(&self) -> &[SiteMistake] {
        &self.more.mistakes
    }

    /// What changed since a plan was made.
    pub(crate) fn changed(&self) -> &[String] {
        &self.more.changed
    }

    /// Consent that a plan still needs.
    pub(crate) fn consent(&self) -> &[Consent] {
        &self.more.consent
    }

    pub(crate) fn unauthorized() -> Self {
        let detail = "send `Authorization: Bearer <token>`; the admin token was shown on the console at first boot";
        Self::new(
            StatusCode::UNAUTHORIZED,
            "urn:rackbar:unauthorized",
            "No valid token",
            detail,
        )
    }

    pub(crate) fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "urn:rackbar:forbidden", "Not allowed", detail)
    }

    pub(crate) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "urn:rackbar:not-found", "Not found", detail)
    }

    pub(crate) fn invalid(detail: impl Into<String>) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "urn:rackbar:invalid",
            "Invalid request",
            detail,
        )
    }

    pub(crate) fn conflict(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "urn:rackbar:conflict", "Conflict", detail)
    }

    pub(crate) fn stale(detail: impl Into<String>) -> Self {
        Self::new(
            StatusCode::PRECONDITION_FAILED,
            "urn:rackbar:stale",
            "Changed meanwhile",
            detail,
        )
    }

    pub(crate) fn bad_gateway(detail: impl Into<String>) -> Self {
        Self::new(
            StatusCode::BAD_GATEWAY,
            "urn:rackbar:device",
            "A device did not do it",
            detail,
        )
    }

    pub(crate) fn internal(detail: impl Into<String>) -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "urn:rackbar:internal",
            "Internal error",
            detail,
        )
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        let words = refused.to_string();
        match refused {
            Refused::NotFound(_) => Self::not_found(words),
            Refused::Invalid(_) => Self::invalid(words),
            Refused::Conflict(_) => Self::conflict(words),
            Refused::Device(_) => Self::bad_gateway(words),
            Refused::Internal(_) => Self::internal(words),
            Refused::Unavailable(_) => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "urn:rackbar:unavailable",
                "Not to be had here",
                words,
            ),
            Refused::Mistakes(mistakes) => Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "urn:rackbar:site",
                "The site file has mistakes",
                words,
            )
            .with(More {
                mistakes,
                ..More::default()
            }),
            Refused::Stale(changed) => Self::new(
                StatusCode::CONFLICT,
                "urn:rackbar:stale-plan",
                "The plan no longer fits",
                words,
            )
            .with(More {
                changed,
                ..More::default()
            }),
            // RFC 6585 section 3: the request must be conditional, here on consent.
            Refused::Consent(consent) => Self::new(
                StatusCode::PRECONDITION_REQUIRED,
                "urn:rackbar:consent",
                "Consent is missing",
                words,
            )
            .with(More {
                consent,
                ..More::default()
            }),
        }
    }
}

/// The largest text of an error that becomes a `detail`.
const LONGEST: usize = 4 << 10;

/// Makes a problem of every error that is none yet: what the framework says of a body, a query or a method is for people
/// alone. Its headers stay, such as `Allow`.
pub(crate) async fn every(response: Response) -> Response {
    let status = response.status();
    let kind = response.headers().get(header::CONTENT_TYPE);
    let is_problem = kind.is_some_and(|kind| kind.as_bytes() == PROBLEM.as_bytes());
    if !(status.is_client_error() || status.is_server_error()) || is_problem {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let said = axum::body::to_bytes(body, LONGEST).await.unwrap_or_default();
    let title = status.canonical_reason().unwrap_or("Error");
    let detail = match String::from_utf8_lossy(&said).trim() {
        "" => title.to_owned(),
        said => said.to_owned(),
    };
    // RFC 9457 section 4.2.1: no more is known of it than the status says.
    let problem = Problem::new(status, "about:blank", title, detail).into_response();
    let (about, body) = problem.into_parts();
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.extend(about.headers);
    parts.extensions.extend(about.extensions);
    Response::from_parts(parts, body)
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.status();
        let told = Told(self.detail.clone());
        let mut response = (status, Json(self)).into_response();
        response.extensions_mut().insert(told);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Bearer realm=\"rackbar\""),
            );
        }
        response
    }
}

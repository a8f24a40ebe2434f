//! `/api/v1/handoff`: the rack in the words of other tools, the one-time secrets by which machines enrol themselves there,
//! and the answer to a Puppet server that asks whether to sign.

use axum::Json;
use axum::extract::{Extension, Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use super::paging::Page;
use super::{Caller, Deed, Problem};
use crate::Context;
use crate::operations::{EnrolmentEntry, ExportEntry, Verdict};

/// Every export there is.
#[utoipa::path(get, path = "/api/v1/handoff", tag = "handoff", responses((status = 200, body = Page<ExportEntry>)))]
pub(crate) async fn list(State(context): State<Context>) -> Result<Json<Page<ExportEntry>>, Problem> {
    let items = context.operations.exports().await?;
    Ok(Json(Page {
        items,
        next_page_token: None,
    }))
}

/// Of which machine.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Of {
    /// Name, full name or id; for exports that are of one machine.
    node: Option<String>,
}

/// One export, as its tool reads it: YAML, JSON or INI. What a tool asks for at every run of its own is empty, and no
/// error, for a machine that is not known.
#[utoipa::path(
    get, path = "/api/v1/handoff/{tool}/{what}", tag = "handoff",
    params(("tool" = String, Path), ("what" = String, Path), Of),
    responses((status = 200, body = String, content_type = "text/plain"), (status = 400, body = Problem),
              (status = 404, body = Problem), (status = 409, body = Problem))
)]
pub(crate) async fn show(
    State(context): State<Context>,
    Path((tool, what)): Path<(String, String)>,
    Query(of): Query<Of>,
) -> Result<Response, Problem> {
    let text = context.operations.export_of(&tool, &what, of.node).await?;
    let head = [
        (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    Ok((head, text).into_response())
}

/// What a Puppet server asks its policy executable.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SignRequest {
    /// Name the certificate is for.
    certname: String,
    /// The request in PEM.
    csr: String,
}

/// Whether a certificate request may be signed. A good token is used up by it; a request that is refused is no error.
#[utoipa::path(
    post, path = "/api/v1/handoff/puppet/autosign", tag = "handoff", request_body = SignRequest,
    responses((status = 200, body = Verdict), (status = 403, body = Problem))
)]
pub(crate) async fn autosign(
    State(context): State<Context>,
    Json(request): Json<SignRequest>,
) -> Result<Response, Problem> {
    let name: String = request.certname.chars().filter(|c| !c.is_control()).take(200).collect();
    let verdict = context.operations.autosign(request.certname, request.csr).await?;
    let word = if verdict.sign { "sign" } else { "do not sign" };
    let deed = Deed(format!("asked for the certificate of {name}: {word}, {}", verdict.why));
    Ok((Extension(deed), Json(verdict)).into_response())
}

/// Every secret by which a machine enrols itself; never the secret.
#[utoipa::path(get, path = "/api/v1/enrolments", tag = "handoff", responses((status = 200, body = Page<EnrolmentEntry>)))]
pub(crate) async fn enrolments(State(context): State<Context>) -> Result<Json<Page<EnrolmentEntry>>, Problem> {
    let items = context.operations.enrolments().await?;
    Ok(Json(Page {
        items,
        next_page_token: None,
    }))
}

/// A secret to be made.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EnrolRequest {
    /// Name or id of an installed machine.
    node: String,
    /// `puppet`, `salt` or `chef`.
    tool: String,
}

/// Makes a new secret for a machine that is installed already, in the place of the one before, and gives the files that
/// carry it: this once, and to nobody else.
#[utoipa::path(
    post, path = "/api/v1/enrolments", tag = "handoff", request_body = EnrolRequest,
    responses((status = 201, body = Object), (status = 400, body = Problem), (status = 404, body = Problem))
)]
pub(crate) async fn enrol(
    State(context): State<Context>,
    Extension(Caller(by)): Extension<Caller>,
    Json(request): Json<EnrolRequest>,
) -> Result<Response, Problem> {
    let files = context.operations.enrol(&request.node, &request.tool, &by.name).await?;
    let deed = Deed(format!("make a secret of {} for {}", request.tool, request.node));
    let head = [(header::CACHE_CONTROL, "no-store")];
    Ok((StatusCode::CREATED, Extension(deed), head, Json(files)).into_response())
}

/// Takes a secret back.
#[utoipa::path(
    delete, path = "/api/v1/enrolments/{tool}/{node}", tag = "handoff",
    params(("tool" = String, Path), ("node" = String, Path)),
    responses((status = 204), (status = 404, body = Problem))
)]
pub(crate) async fn revoke(
    State(context): State<Context>,
    Path((tool, node)): Path<(String, String)>,
) -> Result<Response, Problem> {
    context.operations.revoke_enrolment(&node, &tool).await?;
    let deed = Deed(format!("take back the secret of {tool} for {node}"));
    Ok((Extension(deed), StatusCode::NO_CONTENT).into_response())
}

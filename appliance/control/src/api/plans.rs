//! `/api/v1/plans`: what would be done, and the word to do it.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Extension, Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use rackbar_plan::Plan;
use serde::Deserialize;
use utoipa::ToSchema;

use super::paging::tagged;
use super::{Caller, Deed, Problem, RunSummary};
use crate::Context;
use crate::operations::{Consent, PlanRequest};

/// Makes a plan. Nothing happens to any machine; the same inputs give the same plan.
#[utoipa::path(
    post, path = "/api/v1/plans", tag = "plans", request_body = PlanRequest,
    responses((status = 201, body = Plan), (status = 400, body = Problem), (status = 404, body = Problem))
)]
pub(crate) async fn make(
    State(context): State<Context>,
    Json(request): Json<PlanRequest>,
) -> Result<Response, Problem> {
    let plan = context.operations.plan(request).await?;
    let deed = Deed(format!("make plan {}", plan.id));
    let place = [(header::LOCATION, format!("/api/v1/plans/{}", plan.id))];
    Ok((StatusCode::CREATED, Extension(deed), place, Json(plan.as_ref())).into_response())
}

/// A plan that was made.
#[utoipa::path(
    get, path = "/api/v1/plans/{plan}", tag = "plans", params(("plan" = String, Path)),
    responses((status = 200, body = Plan), (status = 404, body = Problem))
)]
pub(crate) async fn show(
    State(context): State<Context>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    Ok(tagged(&headers, context.operations.plan_by_id(&id).await?.as_ref()))
}

/// Consent to what a plan destroys.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct CommitRequest {
    /// Names of the machines whose data may be destroyed: all that the plan destroys data of.
    destroy: Vec<String>,
}

/// Starts a plan. 409 when what it rests on has changed since, with what; 428 when consent is missing, with whose.
#[utoipa::path(
    post, path = "/api/v1/plans/{plan}/commit", tag = "plans", request_body = CommitRequest,
    params(("plan" = String, Path)),
    responses(
        (status = 201, body = RunSummary), (status = 404, body = Problem), (status = 409, body = Problem),
        (status = 428, body = Problem)
    )
)]
pub(crate) async fn commit(
    State(context): State<Context>,
    Path(id): Path<String>,
    Extension(Caller(by)): Extension<Caller>,
    Json(request): Json<CommitRequest>,
) -> Result<Response, Problem> {
    let deed = deed(&id, &request.destroy);
    let run = context.operations.commit(&id, request.destroy, &by.name).await?;
    let place = [(header::LOCATION, format!("/api/v1/runs/{}", run.id))];
    let deed = Deed(format!("{deed}, as run {}", run.id));
    Ok((
        StatusCode::CREATED,
        Extension(deed),
        place,
        Json(RunSummary::from(run.as_ref())),
    )
        .into_response())
}

/// A commit in words, with the consent that was given.
pub(crate) fn deed(plan: &str, destroy: &[String]) -> String {
    if destroy.is_empty() {
        format!("commit plan {plan}")
    } else {
        format!("commit plan {plan}, destroying data of {}", destroy.join(", "))
    }
}

/// What a plan destroys, by machine; `name` gives a machine's name.
pub(crate) fn destroyed(plan: &Plan, name: impl Fn(rackbar_model::NodeId) -> String) -> Vec<Consent> {
    let mut by_node: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for action in &plan.actions {
        if let (Some(node), Some(loses)) = (action.node, &action.destroys) {
            by_node.entry(name(node)).or_default().push(loses.clone());
        }
    }
    by_node
        .into_iter()
        .map(|(node, loses)| Consent { node, loses })
        .collect()
}

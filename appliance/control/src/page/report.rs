//! Signed reports as a page that can be printed.

use axum::Router;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::get;
use minijinja::context;

use super::{Viewer, frame, render, shown, trouble};
use crate::Context;
use crate::api::{Problem, find_node};
use crate::auth::Holder;

pub(super) fn router() -> Router<Context> {
    Router::new()
        .route("/report", get(rack))
        .route("/nodes/{node}/report", get(node))
}

async fn rack(State(context): State<Context>, Viewer(user): Viewer, headers: HeaderMap) -> Response {
    match context.operations.rack_report().await {
        Ok(json) => page(&context, &headers, &user, "/api/v1/report", &json),
        Err(refused) => empty(&context, &headers, &user, &refused.to_string()),
    }
}

async fn node(
    State(context): State<Context>,
    Path(name): Path<String>,
    Viewer(user): Viewer,
    headers: HeaderMap,
) -> Response {
    let node = match find_node(&context, &name) {
        Ok(node) => node,
        Err(problem) => return trouble(&problem),
    };
    match context.operations.report(&node.id.to_string()).await {
        Ok(json) => page(
            &context,
            &headers,
            &user,
            &format!("/api/v1/nodes/{}/report", node.id),
            &json,
        ),
        Err(refused) => empty(&context, &headers, &user, &refused.to_string()),
    }
}

fn empty(context: &Context, headers: &HeaderMap, user: &Holder, why: &str) -> Response {
    render(
        "report.html",
        context! { page => "report", why, ..frame(context, headers, user) },
    )
}

fn page(context: &Context, headers: &HeaderMap, user: &Holder, file: &str, json: &str) -> Response {
    let checked = match rackbar_verify::check(json.as_bytes(), None) {
        Ok(checked) => checked,
        Err(error) => return trouble(&Problem::internal(format!("the report in the store: {error}"))),
    };
    let counts: Vec<_> = checked
        .report
        .nodes
        .iter()
        .map(rackbar_verify::NodeReport::counts)
        .collect();
    let key: String = checked.key.iter().map(|byte| format!("{byte:02x}")).collect();
    render(
        "report.html",
        context! {
            page => "report",
            report => shown(&checked.report),
            passed => checked.report.passed(),
            proved => checked.report.nodes.iter().filter(|node| node.passed()).count(),
            counts => shown(&counts),
            key,
            file,
            ..frame(context, headers, user)
        },
    )
}

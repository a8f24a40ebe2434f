//! The pages of a machine's hardware as its BMC sees it. They are pages of their own: the machine's page must not wait for
//! a slow BMC.

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::get;
use minijinja::context;

use super::{Viewer, frame, render, shown, trouble};
use crate::Context;
use crate::api::{LogLength, Problem, find_node};

/// Routes of this part; the caller guards them.
pub(super) fn router() -> Router<Context> {
    Router::new()
        .route("/nodes/{node}/sensors", get(sensors))
        .route("/nodes/{node}/log", get(log))
}

async fn sensors(
    State(context): State<Context>,
    Path(name): Path<String>,
    Viewer(user): Viewer,
    headers: HeaderMap,
) -> Response {
    let node = match find_node(&context, &name) {
        Ok(node) => node,
        Err(problem) => return trouble(&problem),
    };
    let list = match context.operations.sensors(&node.id.to_string()).await {
        Ok(list) => list,
        Err(refused) => return trouble(&Problem::from(refused)),
    };
    let readings: Vec<String> = list.items.iter().map(|one| one.shown()).collect();
    render(
        "sensors.html",
        context! { page => "rack", list => shown(&list), readings, ..frame(&context, &headers, &user) },
    )
}

async fn log(
    State(context): State<Context>,
    Path(name): Path<String>,
    Query(length): Query<LogLength>,
    Viewer(user): Viewer,
    headers: HeaderMap,
) -> Response {
    let node = match find_node(&context, &name) {
        Ok(node) => node,
        Err(problem) => return trouble(&problem),
    };
    let limit = match length.lines() {
        Ok(limit) => limit,
        Err(problem) => return trouble(&problem),
    };
    match context.operations.hardware_log(&node.id.to_string(), limit).await {
        Ok(log) => render(
            "hardware_log.html",
            context! { page => "rack", log => shown(&log), limit, ..frame(&context, &headers, &user) },
        ),
        Err(refused) => trouble(&Problem::from(refused)),
    }
}

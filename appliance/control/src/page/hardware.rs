//! The pages of a machine's hardware as its BMC sees it. They are pages of their own: the machine's page must not wait for
//! a slow BMC.

use axum::Router;
use axum::extract::{Extension, Form, Path, Query, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use minijinja::context;
use rackbar_model::NodeId;
use serde::Deserialize;

use super::{Viewer, foreign_form, frame, render, shown, trouble};
use crate::Context;
use crate::api::{LogLength, Problem, boot_deed, find_node, media_deed};
use crate::operations::{BootRequest, BootSource, check_url};

/// Routes of this part; the caller guards them.
pub(super) fn router() -> Router<Context> {
    Router::new()
        .route("/nodes/{node}/sensors", get(sensors))
        .route("/nodes/{node}/accounts", get(accounts))
        .route("/nodes/{node}/log", get(log))
        .route("/nodes/{node}/media", get(media).post(set_media))
        .route("/nodes/{node}/boot", post(set_boot))
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

async fn accounts(
    State(context): State<Context>,
    Path(name): Path<String>,
    Viewer(user): Viewer,
    headers: HeaderMap,
) -> Response {
    let node = match find_node(&context, &name) {
        Ok(node) => node,
        Err(problem) => return trouble(&problem),
    };
    match context.operations.accounts(&node.id.to_string()).await {
        Ok(list) => render(
            "accounts.html",
            context! { page => "rack", list => shown(&list), ..frame(&context, &headers, &user) },
        ),
        Err(refused) => trouble(&Problem::from(refused)),
    }
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

/// Virtual drives and the next boot on one page: one is of little use without the other. A BMC that lacks one still shows
/// the other.
async fn media(
    State(context): State<Context>,
    Path(name): Path<String>,
    Viewer(user): Viewer,
    headers: HeaderMap,
) -> Response {
    let node = match find_node(&context, &name) {
        Ok(node) => node,
        Err(problem) => return trouble(&problem),
    };
    let id = node.id.to_string();
    let (drives, no_drives) = apart(context.operations.media(&id).await);
    let (boot, no_boot) = apart(context.operations.boot(&id).await);
    render(
        "media.html",
        context! {
            page => "rack", node => node.name.as_str(), id, drives => shown(&drives), no_drives,
            boot => shown(&boot), no_boot, sources => BootSource::ALL.map(BootSource::name),
            ..frame(&context, &headers, &user)
        },
    )
}

fn apart<T>(answer: Result<T, crate::operations::Refused>) -> (Option<T>, Option<String>) {
    match answer {
        Ok(answer) => (Some(answer), None),
        Err(refused) => (None, Some(refused.to_string())),
    }
}

#[derive(Deserialize)]
struct MediaForm {
    form_key: String,
    /// Empty: take out what is in.
    #[serde(default)]
    image: String,
}

async fn set_media(
    State(context): State<Context>,
    Path(name): Path<String>,
    headers: HeaderMap,
    Form(form): Form<MediaForm>,
) -> Response {
    if let Some(refused) = foreign_form(&headers, &form.form_key) {
        return refused;
    }
    let image = Some(form.image.trim().to_owned()).filter(|image| !image.is_empty());
    let done = async {
        image.as_deref().map_or(Ok(()), check_url).map_err(Problem::invalid)?;
        let node = find_node(&context, &name)?;
        let deed = media_deed(&node.name, image.as_deref());
        context.operations.set_media(&node.id.to_string(), image).await?;
        Ok((Extension(deed), to_media(node.id)))
    };
    done.await
        .map_or_else(|problem| trouble(&problem), IntoResponse::into_response)
}

#[derive(Deserialize)]
struct BootForm {
    form_key: String,
    from: BootSource,
    #[serde(default)]
    url: String,
    restart: Option<String>,
}

async fn set_boot(
    State(context): State<Context>,
    Path(name): Path<String>,
    Viewer(user): Viewer,
    headers: HeaderMap,
    Form(form): Form<BootForm>,
) -> Response {
    if let Some(refused) = foreign_form(&headers, &form.form_key) {
        return refused;
    }
    let request = BootRequest {
        from: form.from,
        url: Some(form.url.trim().to_owned()).filter(|url| !url.is_empty()),
        restart: form.restart.is_some(),
    };
    let done = async {
        request.check().map_err(Problem::invalid)?;
        let node = find_node(&context, &name)?;
        let deed = boot_deed(&node.name, &request);
        context
            .operations
            .set_boot(&node.id.to_string(), request, &user.name)
            .await?;
        Ok((Extension(deed), to_media(node.id)))
    };
    done.await
        .map_or_else(|problem| trouble(&problem), IntoResponse::into_response)
}

fn to_media(node: NodeId) -> Redirect {
    Redirect::to(&format!("/nodes/{node}/media"))
}

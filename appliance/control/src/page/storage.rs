//! The page of the appliance's own disks, where an appliance that runs from memory is given one.

use axum::Router;
use axum::extract::{Extension, Form, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use minijinja::context;
use serde::Deserialize;

use super::{Viewer, foreign_form, frame, message, render, shown, trouble};
use crate::Context;
use crate::api::{Deed, Problem, storage_deed};
use crate::operations::StorageOrder;

/// Routes of this part; the caller guards them.
pub(super) fn router() -> Router<Context> {
    Router::new().route("/storage", get(show).post(use_disk))
}

async fn show(State(context): State<Context>, Viewer(user): Viewer, headers: HeaderMap) -> Response {
    match context.operations.storage().await {
        Ok(state) => render(
            "storage.html",
            context! { page => "services", state => shown(&state), ..frame(&context, &headers, &user) },
        ),
        Err(refused) => trouble(&Problem::from(refused)),
    }
}

#[derive(Deserialize)]
struct Order {
    form_key: String,
    disk: String,
    #[serde(default)]
    destroy: String,
}

async fn use_disk(
    State(context): State<Context>,
    Viewer(user): Viewer,
    headers: HeaderMap,
    Form(form): Form<Order>,
) -> Response {
    if let Some(refused) = foreign_form(&headers, &form.form_key) {
        return refused;
    }
    let typed = form.destroy.trim();
    let order = StorageOrder {
        disk: form.disk,
        destroy: (!typed.is_empty()).then(|| typed.to_owned()),
    };
    let deed = Deed(storage_deed(&order));
    match context.operations.use_disk(order, &user.name).await {
        // The appliance goes away for a moment: a page that is there already is better than one to be fetched.
        Ok(done) => (Extension(deed), message(StatusCode::OK, &done)).into_response(),
        Err(refused) => trouble(&Problem::from(refused)),
    }
}

//! Buttons of the page of images: look for a newer one at its publisher, keep one as it is.

use std::collections::BTreeMap;

use axum::Router;
use axum::extract::{Extension, Form, Path, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::post;
use serde::Deserialize;

use super::{foreign_form, trouble};
use crate::Context;
use crate::api::{Problem, pinned_deed, refreshed_deed};
use crate::operations::{CatalogueEntry, ImagePin, ImageRefresh};

/// Routes of this part; the caller guards them.
pub(super) fn router() -> Router<Context> {
    Router::new()
        .route("/images/{name}/refresh", post(begin))
        .route("/images/{name}/pin", post(pin))
}

/// How the last refresh of each image goes or went, where there was one.
pub(super) async fn last(context: &Context, images: &[CatalogueEntry]) -> BTreeMap<String, ImageRefresh> {
    let mut found = BTreeMap::new();
    for entry in images.iter().filter(|entry| entry.upstream.is_some()) {
        let name = &entry.image.name;
        if let Ok(refresh) = context.operations.image_refresh(name).await {
            found.insert(name.clone(), refresh);
        }
    }
    found
}

#[derive(Deserialize)]
struct RefreshForm {
    form_key: String,
}

async fn begin(
    State(context): State<Context>,
    Path(name): Path<String>,
    headers: HeaderMap,
    Form(form): Form<RefreshForm>,
) -> Response {
    if let Some(refused) = foreign_form(&headers, &form.form_key) {
        return refused;
    }
    match context.operations.refresh_image(&name).await {
        Ok(_) => (Extension(refreshed_deed(&name)), Redirect::to("/images")).into_response(),
        Err(refused) => trouble(&Problem::from(refused)),
    }
}

#[derive(Deserialize)]
struct PinForm {
    form_key: String,
    pinned: bool,
}

async fn pin(
    State(context): State<Context>,
    Path(name): Path<String>,
    headers: HeaderMap,
    Form(form): Form<PinForm>,
) -> Response {
    if let Some(refused) = foreign_form(&headers, &form.form_key) {
        return refused;
    }
    let pin = ImagePin { pinned: form.pinned };
    let deed = pinned_deed(&name, &pin);
    match context.operations.pin_image(&name, pin).await {
        Ok(_) => (Extension(deed), Redirect::to("/images")).into_response(),
        Err(refused) => trouble(&Problem::from(refused)),
    }
}

//! The page of tokens: who may do what. For admins.

use axum::Router;
use axum::extract::{Extension, Form, Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use minijinja::context;
use serde::{Deserialize, Serialize};

use super::{Viewer, foreign_form, frame, render, shown, trouble};
use crate::Context;
use crate::api::{made_deed, make_token, revoke_token, revoked_deed};
use crate::auth::{Holder, Role, TokenEntry};

/// Routes of this part; the caller guards them, and lets admins alone in.
pub(super) fn router() -> Router<Context> {
    Router::new()
        .route("/tokens", get(show).post(make))
        .route("/tokens/{name}/revoke", post(revoke))
}

#[derive(Serialize)]
struct Row {
    name: String,
    role: String,
    made: String,
    by: String,
    /// The configuration's is changed where it stands.
    fixed: bool,
}

impl From<&TokenEntry> for Row {
    fn from(entry: &TokenEntry) -> Self {
        Self {
            name: entry.name.clone(),
            role: entry.role.to_string(),
            made: entry.made.map(|at| at.to_string()).unwrap_or_default(),
            by: entry.by.clone(),
            fixed: entry.made.is_none(),
        }
    }
}

/// The list, with a new token's text when one was made just now.
fn listed(context: &Context, headers: &HeaderMap, user: &Holder, new: Option<(&str, &str)>) -> Response {
    render(
        "tokens.html",
        context! {
            page => "tokens",
            tokens => shown(&context.access.list().iter().map(Row::from).collect::<Vec<_>>()),
            new_name => new.map(|(name, _)| name),
            new_token => new.map(|(_, token)| token),
            ..frame(context, headers, user)
        },
    )
}

async fn show(State(context): State<Context>, Viewer(user): Viewer, headers: HeaderMap) -> Response {
    listed(&context, &headers, &user, None)
}

#[derive(Deserialize)]
struct Wanted {
    form_key: String,
    name: String,
    role: Role,
}

/// Makes a token. Its text is in this one answer, which no browser keeps, and in no address: reloading makes no second one,
/// as its name is taken then.
async fn make(
    State(context): State<Context>,
    Viewer(user): Viewer,
    headers: HeaderMap,
    Form(form): Form<Wanted>,
) -> Response {
    if let Some(refused) = foreign_form(&headers, &form.form_key) {
        return refused;
    }
    match make_token(&context, form.name.trim().to_owned(), form.role, &user.name).await {
        Ok((token, entry)) => {
            let mut answer = listed(&context, &headers, &user, Some((&entry.name, &token)));
            *answer.status_mut() = StatusCode::CREATED;
            (Extension(made_deed(&entry)), answer).into_response()
        }
        Err(problem) => trouble(&problem),
    }
}

#[derive(Deserialize)]
struct Order {
    form_key: String,
}

async fn revoke(
    State(context): State<Context>,
    Path(name): Path<String>,
    Viewer(_): Viewer,
    headers: HeaderMap,
    Form(form): Form<Order>,
) -> Response {
    if let Some(refused) = foreign_form(&headers, &form.form_key) {
        return refused;
    }
    match revoke_token(&context, name.clone()).await {
        Ok(()) => (Extension(revoked_deed(&name)), Redirect::to("/tokens")).into_response(),
        Err(problem) => trouble(&problem),
    }
}

//! The site file on the page: look, change, check, set, and see which rule fits which machine.

use axum::Router;
use axum::extract::{Extension, Form, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use minijinja::context;
use serde::Deserialize;

use super::{Viewer, foreign_form, frame, render, shown, trouble};
use crate::Context;
use crate::api::{Deed, Looked, Problem, etag};
use crate::auth::Holder;
use crate::operations::{Refused, SiteMistake};

pub(super) fn router() -> Router<Context> {
    Router::new()
        .route("/site", get(show).post(change))
        .route("/site/rules", get(rules))
}

/// The introduction's site of `docs/site.md`, shown in grey where nothing is set yet.
const FIRST_SITE: &str = include_str!("../../templates/first-site.toml");

/// What is shown around the text.
#[derive(Default)]
struct Around<'a> {
    mistakes: &'a [SiteMistake],
    /// A check found nothing.
    right: bool,
    error: Option<&'a str>,
    /// The tag of the text in force that this page was made from.
    tag: String,
}

fn page(context: &Context, headers: &HeaderMap, user: &Holder, text: &str, around: &Around<'_>) -> Response {
    let rows = text.lines().count().clamp(16, 40);
    render(
        "site.html",
        context! {
            page => "site",
            text,
            rows,
            example => FIRST_SITE,
            tag => around.tag.as_str(),
            mistakes => shown(&around.mistakes),
            right => around.right,
            error => around.error,
            ..frame(context, headers, user)
        },
    )
}

async fn show(State(context): State<Context>, Viewer(user): Viewer, headers: HeaderMap) -> Response {
    match context.operations.site().await {
        Ok(text) => {
            let around = Around {
                tag: etag(text.as_bytes()),
                ..Around::default()
            };
            page(&context, &headers, &user, &text, &around)
        }
        Err(refused) => trouble(&Problem::from(refused)),
    }
}

#[derive(Deserialize)]
struct SiteForm {
    form_key: String,
    text: String,
    tag: String,
    action: String,
}

async fn change(
    State(context): State<Context>,
    Viewer(user): Viewer,
    headers: HeaderMap,
    Form(form): Form<SiteForm>,
) -> Response {
    if let Some(refused) = foreign_form(&headers, &form.form_key) {
        return refused;
    }
    // A browser sends the lines of a form with CR LF (WHATWG HTML section 4.10.21.4).
    let text = form.text.replace("\r\n", "\n");
    let around = Around {
        tag: form.tag.clone(),
        ..Around::default()
    };
    if form.action != "set" {
        return check(&context, &headers, &user, &text, around).await;
    }
    let now = match context.operations.site().await {
        Ok(now) => etag(now.as_bytes()),
        Err(refused) => return trouble(&Problem::from(refused)),
    };
    let deed = Deed(format!("set the site file, {} lines", text.lines().count()));
    let refused = if now == form.tag {
        context.operations.set_site(text.clone(), &user.name).await.err()
    } else {
        let words =
            "Somebody else set another site file meanwhile. Copy what you wrote, reload, and bring both together.";
        Some(Refused::Conflict(words.into()))
    };
    let Some(refused) = refused else {
        return (Extension(deed), Redirect::to("/site")).into_response();
    };
    let problem = Problem::from(refused);
    let around = Around {
        mistakes: problem.mistakes(),
        error: Some(problem.detail()),
        ..around
    };
    let mut response = page(&context, &headers, &user, &text, &around);
    *response.status_mut() = problem.status();
    let told = problem.clone().into_response();
    response.extensions_mut().extend(told.extensions().clone());
    response.extensions_mut().insert(deed);
    response
}

async fn check(context: &Context, headers: &HeaderMap, user: &Holder, text: &str, around: Around<'_>) -> Response {
    let mut response = match context.operations.check_site(text.to_owned()).await {
        Ok(mistakes) => {
            let around = Around {
                right: mistakes.is_empty(),
                mistakes: &mistakes,
                ..around
            };
            page(context, headers, user, text, &around)
        }
        Err(refused) => trouble(&Problem::from(refused)),
    };
    response.extensions_mut().insert(Looked);
    response
}

async fn rules(State(context): State<Context>, Viewer(user): Viewer, headers: HeaderMap) -> Response {
    match context.operations.test_rules(None).await {
        Ok(mut matches) => {
            matches.sort_by(|a, b| a.node.cmp(&b.node));
            render(
                "rules.html",
                context! { page => "site", matches => shown(&matches), ..frame(&context, &headers, &user) },
            )
        }
        Err(refused) => trouble(&Problem::from(refused)),
    }
}

//! The page: rendered here, readable on a phone and without JavaScript; a small script only keeps it live.

mod assets;
mod cache;
#[cfg(test)]
mod cache_tests;
#[cfg(test)]
mod fake;
mod graph;
mod hardware;
mod plan_view;
mod refresh;
mod report;
mod repositories;
#[cfg(test)]
mod repositories_tests;
mod site;
mod storage;
#[cfg(test)]
mod tests;
mod tokens;
#[cfg(test)]
mod tokens_tests;
mod view;
mod works;
#[cfg(test)]
mod works_tests;

use axum::Router;
use axum::extract::Extension;
use axum::extract::{Form, FromRequestParts, Path, Query, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware;
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use minijinja::{Value, context};
use rackbar_model::PowerAction;
use serde::Deserialize;

use crate::Context;
use crate::api::{Caller, Deed, EventFilter, Problem, events_of, every, find_node, page_guard, power_word};
use crate::auth::{Holder, Role, form_key};

/// The page's routes; all but logging in and the style ask who it is.
pub(crate) fn router(context: &Context) -> Router<Context> {
    let guarded = Router::new()
        .route("/", get(rack))
        .route("/nodes/{node}", get(node))
        .route("/nodes/{node}/power", post(power))
        .route("/leases", get(leases))
        .route("/events", get(events))
        .route("/services", get(services))
        .route("/logs", get(logs))
        .merge(cache::router())
        .merge(works::router())
        .merge(hardware::router())
        .merge(refresh::router())
        .merge(repositories::router())
        .merge(storage::router())
        .merge(tokens::router())
        .route_layer(middleware::from_fn_with_state(context.clone(), page_guard));
    Router::new()
        .merge(guarded)
        .route("/login", get(log_in_form).post(log_in))
        .route("/logout", post(log_out))
        .route("/assets/{name}", get(assets::serve))
}

/// Any other path.
pub(crate) async fn missing(headers: HeaderMap) -> Response {
    if wants_html(&headers) {
        return message(StatusCode::NOT_FOUND, "There is no such page.");
    }
    Problem::not_found("there is nothing at this path; /openapi.json lists what there is").into_response()
}

/// A path that is there, asked for by a method that it does not take.
pub(crate) async fn wrong_method(headers: HeaderMap) -> Response {
    if wants_html(&headers) {
        return message(
            StatusCode::METHOD_NOT_ALLOWED,
            "This page is not asked for in this way.",
        );
    }
    every(StatusCode::METHOD_NOT_ALLOWED.into_response()).await
}

fn wants_html(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT);
    accept.is_some_and(|v| v.to_str().is_ok_and(|v| v.contains("text/html")))
}

/// Who looks at a page. [`page_guard`] has seen to it that somebody does.
struct Viewer(Holder);

impl FromRequestParts<Context> for Viewer {
    type Rejection = Redirect;

    async fn from_request_parts(parts: &mut Parts, _: &Context) -> Result<Self, Redirect> {
        let caller = parts.extensions.get::<Caller>();
        caller
            .map(|Caller(holder)| Self(holder.clone()))
            .ok_or_else(|| Redirect::to("/login"))
    }
}

/// Refuses a form that did not come from a page of this session.
fn foreign_form(headers: &HeaderMap, key: &str) -> Option<Response> {
    if form_key(headers).as_deref() == Some(key) {
        return None;
    }
    let words = "This form is from an older session. Go back, reload, and try again.";
    Some(message(StatusCode::FORBIDDEN, words))
}

/// A problem of the API, as a page.
fn trouble(problem: &Problem) -> Response {
    let mut response = message(problem.status(), problem.detail());
    let told = problem.clone().into_response();
    response.extensions_mut().extend(told.extensions().clone());
    response
}

fn render(template: &str, values: Value) -> Response {
    match assets::templates()
        .get_template(template)
        .and_then(|t| t.render(values))
    {
        Ok(html) => ([(header::CACHE_CONTROL, "no-store")], Html(html)).into_response(),
        Err(error) => {
            tracing::error!(template, error = %format!("{error:#}"), "a page could not be rendered");
            (
                StatusCode::INTERNAL_SERVER_ERROR,
                "This page could not be rendered; the log says why.",
            )
                .into_response()
        }
    }
}

/// Plain data as a template's value.
fn shown(data: &impl serde::Serialize) -> Value {
    Value::from(minijinja::value::Serde(data))
}

pub(crate) fn message(status: StatusCode, text: &str) -> Response {
    let mut response = render("message.html", context! { text });
    *response.status_mut() = status;
    response
}

/// What every page shows around its content.
fn frame(context: &Context, headers: &HeaderMap, user: &Holder) -> Value {
    context! {
        site => context.about.site.as_str(),
        version => context.about.version.as_str(),
        volatile => context.about.volatile,
        fingerprint => context.about.fingerprint.as_str(),
        last_event => context.rack.last_seq(),
        user => user.name.as_str(),
        role => user.role.to_string(),
        may_change => user.role >= Role::Operator,
        form_key => form_key(headers),
    }
}

async fn rack(State(context): State<Context>, Viewer(user): Viewer, headers: HeaderMap) -> Response {
    let nodes = context.rack.nodes();
    let events = context
        .rack
        .events(context.rack.last_seq().saturating_sub(12), 12)
        .unwrap_or_default();
    render(
        "rack.html",
        context! {
            page => "rack",
            nodes => shown(&nodes.iter().map(|n| view::NodeRow::from(n.as_ref())).collect::<Vec<_>>()),
            states => shown(&view::state_counts(&nodes)),
            events => shown(&events.iter().rev().map(|e| view::EventRow::new(e, &context.rack)).collect::<Vec<_>>()),
            services => shown(&view::service_rows(&context.rack, true)),
            unseen => shown(&unseen(&context).await),
            ..frame(&context, &headers, &user)
        },
    )
}

/// Names of expected machines that never showed themselves. Where nobody can say, the page shows what there is.
async fn unseen(context: &Context) -> Vec<String> {
    let expected = context.operations.expected().await.unwrap_or_default();
    let unseen = expected.into_iter().filter(|one| one.node.is_none());
    unseen.map(|one| one.name).collect()
}

async fn node(
    State(context): State<Context>,
    Path(name): Path<String>,
    Viewer(user): Viewer,
    headers: HeaderMap,
) -> Response {
    let Some(node) = context.rack.node(&name) else {
        return message(StatusCode::NOT_FOUND, &format!("There is no machine called {name}."));
    };
    let timeline = context.rack.timeline(node.id).unwrap_or_default();
    render(
        "node.html",
        context! {
            page => "rack",
            node => shown(&view::NodeDetail::new(&node, &context.rack)),
            timeline => shown(&view::timeline(&timeline, &context.rack)),
            ..frame(&context, &headers, &user)
        },
    )
}

#[derive(Deserialize)]
struct PowerForm {
    action: PowerAction,
    form_key: String,
}

async fn power(
    State(context): State<Context>,
    Path(name): Path<String>,
    Viewer(user): Viewer,
    headers: HeaderMap,
    Form(form): Form<PowerForm>,
) -> Response {
    if let Some(refused) = foreign_form(&headers, &form.form_key) {
        return refused;
    }
    let node = match find_node(&context, &name) {
        Ok(node) => node,
        Err(problem) => return trouble(&problem),
    };
    let deed = Deed(format!("power {} of {}", power_word(form.action), node.name));
    match context.rack.power(node.id, form.action, &user.name).await {
        Ok(()) => (Extension(deed), Redirect::to(&format!("/nodes/{}", node.id))).into_response(),
        Err(error) => trouble(&Problem::bad_gateway(error.to_string())),
    }
}

async fn leases(State(context): State<Context>, Viewer(user): Viewer, headers: HeaderMap) -> Response {
    let mut leases = context.rack.leases();
    leases.sort_by_key(|lease| lease.address);
    let rows: Vec<_> = leases
        .iter()
        .map(|lease| view::LeaseRow::new(lease, &context.rack))
        .collect();
    render(
        "leases.html",
        context! { page => "leases", leases => shown(&rows), ..frame(&context, &headers, &user) },
    )
}

async fn events(
    State(context): State<Context>,
    Query(mut filter): Query<EventFilter>,
    Viewer(user): Viewer,
    headers: HeaderMap,
) -> Response {
    filter.limit = Some(filter.limit.unwrap_or(200).clamp(1, 1_000));
    let events = match events_of(&context, &filter) {
        Ok(events) => events,
        Err(problem) => return trouble(&problem),
    };
    let rows: Vec<_> = events
        .iter()
        .rev()
        .map(|e| view::EventRow::new(e, &context.rack))
        .collect();
    let older = events
        .first()
        .map(|e| e.seq.saturating_sub(201))
        .filter(|_| filter.node.is_none());
    render(
        "events.html",
        context! { page => "events", events => shown(&rows), older, ..frame(&context, &headers, &user) },
    )
}

async fn services(State(context): State<Context>, Viewer(user): Viewer, headers: HeaderMap) -> Response {
    let services = view::service_rows(&context.rack, false);
    // The services are told also where this cannot be.
    let boot = context.operations.boot_control().await.ok();
    let profiles = context.operations.hardware_profiles().await.unwrap_or_default();
    render(
        "services.html",
        context! {
            page => "services",
            services => shown(&services),
            boot => shown(&boot),
            profiles => shown(&profiles),
            ..frame(&context, &headers, &user)
        },
    )
}

/// The log messages that fit, newest first: a form and a table, which need no script.
async fn logs(
    State(context): State<Context>,
    Viewer(user): Viewer,
    Query(mut query): Query<crate::operations::LogQuery>,
    headers: HeaderMap,
) -> Response {
    // An empty field of a form says nothing.
    let said = |field: Option<String>| field.filter(|text| !text.trim().is_empty());
    (query.node, query.severity, query.grep) = (said(query.node), said(query.severity), said(query.grep));
    query.limit = Some(query.limit.unwrap_or(200).min(1000));
    let (found, trouble) = match context.operations.logs(query.clone()).await {
        Ok(found) => (found, None),
        Err(refused) => (crate::operations::LogPage::default(), Some(refused.to_string())),
    };
    let lines: Vec<_> = found.items.iter().rev().collect();
    let path = |path: &str, place: (&str, u64)| log_path(path, &query, place);
    let older = found.more.then(|| path("/logs", ("before", found.position)));
    // Who looks at the newest sees what comes; an older page stays as it is.
    let newest = query.before.is_none() && query.after.is_none() && trouble.is_none();
    let stream = newest.then(|| path("/api/v1/logs/stream", ("after", found.newest)));
    render(
        "logs.html",
        context! {
            page => "logs", lines => shown(&lines), query => shown(&query), trouble, older, stream,
            ..frame(&context, &headers, &user)
        },
    )
}

/// A path that asks for the messages of a query, from a place on.
fn log_path(path: &str, query: &crate::operations::LogQuery, (name, place): (&str, u64)) -> String {
    let fields = [
        ("node", &query.node),
        ("severity", &query.severity),
        ("grep", &query.grep),
    ];
    let mut out = format!("{path}?{name}={place}");
    for (name, value) in fields {
        for (first, byte) in value.iter().flat_map(|text| text.bytes().enumerate()) {
            if first == 0 {
                out += &format!("&{name}=");
            }
            // Everything but letters and digits as RFC 3986 section 2.1 has it.
            if byte.is_ascii_alphanumeric() {
                out.push(char::from(byte));
            } else {
                out += &format!("%{byte:02X}");
            }
        }
    }
    out
}

async fn log_in_form(State(context): State<Context>) -> Response {
    render("login.html", login_values(&context, None))
}

fn login_values(context: &Context, error: Option<&str>) -> Value {
    context! { site => context.about.site.as_str(), fingerprint => context.about.fingerprint.as_str(), error }
}

#[derive(Deserialize)]
struct LoginForm {
    token: String,
}

async fn log_in(State(context): State<Context>, Form(form): Form<LoginForm>) -> Response {
    match context
        .access
        .log_in(&form.token)
        .and_then(|cookie| HeaderValue::from_str(&cookie).ok())
    {
        Some(cookie) => ([(header::SET_COOKIE, cookie)], Redirect::to("/")).into_response(),
        None => {
            let mut response = render(
                "login.html",
                login_values(&context, Some("This token is not known here.")),
            );
            *response.status_mut() = StatusCode::UNAUTHORIZED;
            response
        }
    }
}

async fn log_out(State(context): State<Context>, headers: HeaderMap) -> Response {
    match HeaderValue::from_str(&context.access.log_out(&headers)) {
        Ok(cookie) => ([(header::SET_COOKIE, cookie)], Redirect::to("/login")).into_response(),
        Err(_) => Redirect::to("/login").into_response(),
    }
}

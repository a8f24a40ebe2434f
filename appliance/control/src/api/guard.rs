//! The gate in front of every route: who is it, may they, and the record of what they changed.
//!
//! Whatever is not known to only look needs an operator, so that a new route is closed to viewers until somebody opens
//! it. Every change that is let through or refused becomes an [`EventKind::Changed`].

use axum::extract::{Request, State};
use axum::http::{Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use rackbar_model::EventKind;

use super::Problem;
use super::lasting::{LetIn, bounded};
use super::problem::Told;
use crate::Context;
use crate::auth::{Holder, Role};

/// The holder of the token or session a request came with; put there by the guards.
#[derive(Clone)]
pub(crate) struct Caller(pub(crate) Holder);

/// Marks a request that came through the socket file that only root can open.
#[derive(Clone)]
pub(crate) struct Local;

/// What a request changed, in words; a handler puts it into its answer for the audit trail.
#[derive(Clone)]
pub(crate) struct Deed(pub(crate) String);

/// Requests that send a body and yet change nothing.
const LOOKS: [&str; 3] = ["/api/v1/site/check", "/api/v1/site/diff", "/api/v1/site/rules/test"];
/// What only an admin may, in any way.
const ADMIN: [&str; 7] = [
    "/api/v1/tokens",
    "/tokens",
    "/api/v1/export",
    "/api/v1/import",
    "/api/v1/secrets",
    "/api/v1/support-bundle",
    "/api/v1/registrations/token",
];

fn looks(method: &Method, path: &str) -> bool {
    method.is_safe() || LOOKS.contains(&path)
}

/// What a request needs.
fn needed(method: &Method, path: &str) -> Role {
    let under = |prefix: &&str| {
        path.strip_prefix(*prefix)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let secret = path.starts_with("/api/v1/webhooks/") && path.ends_with("/secret");
    // A key to the machine that outlives the token it was made with. Before the console: an account may be called that.
    let keys = path.starts_with("/api/v1/nodes/") && path.split('/').nth(5) == Some("accounts") && !method.is_safe();
    // It may take a disk's content away, and it stops every service for a moment.
    let moves = matches!(path, "/api/v1/storage" | "/storage") && !method.is_safe();
    if secret || keys || moves || ADMIN.iter().any(under) {
        Role::Admin
    } else if path.starts_with("/api/v1/nodes/") && (path.ends_with("/console") || path.ends_with("/console/record")) {
        // Who looks on takes the console from whoever has it, and it may show what was typed at a prompt.
        Role::Operator
    } else if under(&"/api/v1/captures") {
        // Others' packets, if without their payloads.
        Role::Operator
    } else if looks(method, path) {
        Role::Viewer
    } else {
        Role::Operator
    }
}

fn refusal(caller: &Holder, needed: Role) -> Problem {
    Problem::forbidden(format!(
        "{} has the role {}, this needs {needed}: ask an admin for a token (`rackbar token create`)",
        caller.name, caller.role
    ))
}

fn identify(context: &Context, request: &Request) -> Option<(Holder, LetIn)> {
    if request.extensions().get::<Local>().is_some() {
        let root = Holder {
            name: "console".into(),
            role: Role::Admin,
        };
        return Some((root, LetIn(None)));
    }
    let pass = context.access.pass(request.headers())?;
    Some((context.access.holder(pass)?, LetIn(Some(pass))))
}

/// In front of the API.
pub(super) async fn api_guard(State(context): State<Context>, mut request: Request, next: Next) -> Response {
    let Some((caller, by)) = identify(&context, &request) else {
        return Problem::unauthorized().into_response();
    };
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    // A cookie alone must not change anything: a form on another site could send it. Programs use a token.
    let by_cookie = request.headers().get(header::AUTHORIZATION).is_none();
    let local = request.extensions().get::<Local>().is_some();
    let needed = needed(&method, &path);
    let refused = if by_cookie && !local && !method.is_safe() {
        let words = "changes through the API need a bearer token, not a page session";
        Some(Problem::forbidden(words))
    } else if caller.role < needed {
        Some(refusal(&caller, needed))
    } else {
        None
    };
    request.extensions_mut().insert(Caller(caller.clone()));
    request.extensions_mut().insert(by);
    let looking = looks(&method, &path);
    let answer = async move {
        let response = match refused {
            Some(problem) => problem.into_response(),
            None => next.run(request).await,
        };
        // Some only look and yet say that it is to be told, such as who reads a capture.
        if !looking || response.extensions().get::<Deed>().is_some() {
            let change = change(&caller.name, &method, &path, &response);
            record(&context, change).await;
        }
        bounded(response, context, by)
    };
    if looking {
        answer.await
    } else {
        to_its_end(answer).await
    }
}

/// Carries a change to its end also when whoever asked for it hangs up: half of a power cycle is a machine that stays
/// off, and what was done belongs into the audit trail.
async fn to_its_end(change: impl Future<Output = Response> + Send + 'static) -> Response {
    let done = tokio::spawn(change).await;
    done.unwrap_or_else(|error| Problem::internal(error.to_string()).into_response())
}

/// In front of the page: who has not logged in is led to the form.
pub(crate) async fn page_guard(State(context): State<Context>, mut request: Request, next: Next) -> Response {
    let Some((caller, by)) = identify(&context, &request) else {
        return Redirect::to("/login").into_response();
    };
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let needed = needed(&method, &path);
    request.extensions_mut().insert(Caller(caller.clone()));
    request.extensions_mut().insert(by);
    let looking = method.is_safe();
    let answer = async move {
        let response = if caller.role < needed {
            let problem = refusal(&caller, needed);
            let told = Told(problem.detail().to_owned());
            let mut response = crate::page::message(problem.status(), problem.detail());
            response.extensions_mut().insert(told);
            response
        } else {
            next.run(request).await
        };
        // A form that was only looked at again (a check) says so itself.
        if !looking && response.extensions().get::<Looked>().is_none() {
            let change = change(&caller.name, &method, &path, &response);
            record(&context, change).await;
        }
        bounded(response, context, by)
    };
    if looking {
        answer.await
    } else {
        to_its_end(answer).await
    }
}

/// Marks the answer to a form of the page that changed nothing.
#[derive(Clone)]
pub(crate) struct Looked;

/// What the audit trail tells of a request and its answer.
fn change(by: &str, method: &Method, path: &str, response: &Response) -> EventKind {
    let told = response.extensions().get::<Told>();
    let ok = told.is_none() && !response.status().is_client_error() && !response.status().is_server_error();
    let what = match response.extensions().get::<Deed>() {
        Some(Deed(words)) => words.clone(),
        None => format!("{method} {}", shortened(path)),
    };
    let outcome = match told {
        Some(Told(words)) => format!("refused: {words}"),
        None if ok => "done".to_owned(),
        None => format!("refused with status {}", response.status().as_u16()),
    };
    let by = by.to_owned();
    EventKind::Changed { by, what, outcome, ok }
}

/// Puts a change into the audit trail before its answer leaves.
async fn record(context: &Context, change: EventKind) {
    let rack = context.rack.clone();
    let recorded = tokio::task::spawn_blocking(move || rack.record_change(change)).await;
    // What was done is done: the answer leaves also when the disk is broken, which the store's own service line tells.
    if let Ok(Err(error)) = recorded {
        tracing::error!(%error, "a change is not in the audit trail");
    }
}

/// A path as it may stand in the journal: what a stranger made longer than any of ours is cut.
fn shortened(path: &str) -> String {
    path.chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looking_needs_a_viewer_changing_an_operator_and_tokens_an_admin() {
        for (method, path, role) in [
            (Method::GET, "/api/v1/nodes", Role::Viewer),
            (Method::HEAD, "/api/v1/nodes", Role::Viewer),
            (Method::POST, "/api/v1/site/check", Role::Viewer),
            (Method::PUT, "/api/v1/site", Role::Operator),
            (Method::POST, "/api/v1/plans/ab/commit", Role::Operator),
            (Method::DELETE, "/api/v1/images/debian-12", Role::Operator),
            (Method::GET, "/api/v1/programs", Role::Viewer),
            (Method::PUT, "/api/v1/programs/setup", Role::Operator),
            (Method::POST, "/api/v1/something/new", Role::Operator),
            (Method::GET, "/api/v1/tokens", Role::Admin),
            (Method::GET, "/tokens", Role::Admin),
            (Method::POST, "/tokens/anna/revoke", Role::Admin),
            (Method::DELETE, "/api/v1/tokens/anna", Role::Admin),
            (Method::POST, "/api/v1/import", Role::Admin),
            (Method::POST, "/api/v1/export", Role::Admin),
            (Method::GET, "/api/v1/secrets", Role::Admin),
            (Method::POST, "/api/v1/secrets/bmc-logins", Role::Admin),
            (Method::GET, "/api/v1/nodes/n1/console", Role::Operator),
            (Method::GET, "/api/v1/nodes/n1/console/record", Role::Operator),
            (Method::GET, "/api/v1/nodes/n1/accounts", Role::Viewer),
            (Method::POST, "/api/v1/nodes/n1/accounts", Role::Admin),
            (Method::PATCH, "/api/v1/nodes/n1/accounts/anna", Role::Admin),
            (Method::DELETE, "/api/v1/nodes/n1/accounts/console", Role::Admin),
            (Method::PATCH, "/api/v1/nodes/accounts", Role::Operator),
            (Method::POST, "/api/v1/support-bundle", Role::Admin),
            (Method::GET, "/api/v1/captures/recent", Role::Operator),
            (Method::POST, "/api/v1/captures", Role::Operator),
            (Method::GET, "/api/v1/storage", Role::Viewer),
            (Method::POST, "/api/v1/storage", Role::Admin),
            (Method::POST, "/storage", Role::Admin),
            (Method::GET, "/api/v1/tokensmith", Role::Viewer),
            (Method::GET, "/api/v1/webhooks", Role::Viewer),
            (Method::PUT, "/api/v1/webhooks/chat/secret", Role::Admin),
            (Method::GET, "/api/v1/registrations", Role::Viewer),
            (Method::PUT, "/api/v1/registrations/token", Role::Admin),
        ] {
            assert_eq!(needed(&method, path), role, "{method} {path}");
        }
    }
}

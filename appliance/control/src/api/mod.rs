//! `/api/v1`: resources, and the handlers that give them.

mod events;
mod health;
mod nodes;
mod paging;
mod problem;
mod services;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use utoipa::OpenApi;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::Context;
pub(crate) use events::{EventFilter, newest as events_of};
pub(crate) use nodes::find as find_node;
pub(crate) use problem::Problem;

/// The holder of the token a request came with; put there by [`authenticate`].
#[derive(Clone)]
pub(crate) struct Caller(pub(crate) String);

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Rackbar",
        description = "Takes a rack from bare metal to ready state. Times are RFC 3339 in UTC, identifiers are UUIDs, \
                       errors are RFC 9457 problems.",
        license(name = "Apache-2.0 OR MIT")
    ),
    modifiers(&Security),
    security(("token" = []))
)]
struct Document;

struct Security;

impl utoipa::Modify for Security {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("token", SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)));
    }
}

fn documented() -> OpenApiRouter<Context> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(services::about))
        .routes(routes!(nodes::list))
        .routes(routes!(nodes::show, nodes::change))
        .routes(routes!(nodes::timeline))
        .routes(routes!(nodes::inventories))
        .routes(routes!(nodes::power))
        .routes(routes!(services::leases))
        .routes(routes!(services::services))
        .routes(routes!(events::list))
        .routes(routes!(events::stream))
}

/// The OpenAPI document, as `/openapi.json` serves it.
pub fn openapi_json() -> String {
    let mut text = documented().split_for_parts().1.to_pretty_json().unwrap_or_default();
    text.push('\n');
    text
}

/// All routes of the API. Everything but health and the document wants a token.
pub(crate) fn router(context: &Context) -> Router<Context> {
    let (api, _) = documented().split_for_parts();
    let api = api
        .route("/metrics", get(health::metrics))
        .route_layer(middleware::from_fn_with_state(context.clone(), authenticate));
    Router::new()
        .merge(api)
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .route("/openapi.json", get(health::openapi))
}

async fn authenticate(State(context): State<Context>, mut request: Request, next: Next) -> Response {
    // A local caller came through the socket that only root can open; the server marked it.
    if request.extensions().get::<Caller>().is_none() {
        match context.access.identify(request.headers()) {
            Some(name) => {
                request.extensions_mut().insert(Caller(name));
            }
            None => return Problem::unauthorized().into_response(),
        }
    }
    // A cookie alone must not change anything: a form on another site could send it. Programs use a token.
    let by_cookie = request.headers().get(axum::http::header::AUTHORIZATION).is_none();
    let local = request.extensions().get::<crate::server::Local>().is_some();
    if by_cookie && !local && !request.method().is_safe() {
        return Problem::forbidden("changes through the API need a bearer token, not a page session").into_response();
    }
    next.run(request).await
}

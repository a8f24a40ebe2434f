//! `/api/v1`: resources, and the handlers that give them.

mod accounts;
mod adopt;
mod answers;
mod appliance;
mod cache;
mod captures;
mod changes;
mod console;
mod events;
mod guard;
mod handoff;
mod hardware;
mod health;
mod images;
mod lasting;
mod logs;
mod nodes;
mod packs;
mod paging;
mod plans;
mod problem;
mod profiles;
mod programs;
mod proof;
mod refresh;
mod registrations;
mod repositories;
mod runs;
mod secrets;
mod services;
mod site;
mod state;
mod storage;
mod support;
mod tokens;
mod webhooks;

use axum::Router;
use axum::middleware;
use axum::routing::get;
use utoipa::OpenApi;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::Context;
pub use appliance::{AtConsole, ConsoleDeed};
pub(crate) use changes::{AuditFilter, newest as changes_of};
pub(crate) use events::{EventFilter, newest as events_of};
pub(crate) use guard::{Caller, Deed, Local, Looked, page_guard};
pub(crate) use hardware::{LogLength, boot_deed, media_deed};
pub(crate) use images::standing_deed;
pub(crate) use nodes::{find as find_node, power_word};
pub(crate) use paging::etag;
pub(crate) use plans::{deed as commit_deed, destroyed};
pub(crate) use problem::{Problem, every};
pub(crate) use refresh::{pinned_deed, refreshed_deed};
pub(crate) use runs::{RunSummary, order_named};
pub(crate) use storage::deed as storage_deed;
pub(crate) use tokens::{made_deed, make_token, revoke_token, revoked_deed};

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
        .routes(routes!(appliance::deeds))
        .routes(routes!(nodes::list))
        .routes(routes!(nodes::show, nodes::change, nodes::forget))
        .routes(routes!(adopt::key, adopt::adopt))
        .routes(routes!(nodes::timeline))
        .routes(routes!(nodes::inventories))
        .routes(routes!(nodes::power))
        .routes(routes!(nodes::bind))
        .routes(routes!(answers::render))
        .routes(routes!(nodes::recover))
        .routes(routes!(nodes::maintenance))
        .routes(routes!(nodes::firmware, nodes::forget_firmware))
        .routes(routes!(console::show, console::type_in))
        .routes(routes!(console::record))
        .routes(routes!(hardware::sensors))
        .routes(routes!(hardware::log))
        .routes(routes!(accounts::list, accounts::add))
        .routes(routes!(accounts::switch, accounts::remove))
        .routes(routes!(hardware::media, hardware::insert, hardware::eject))
        .routes(routes!(hardware::boot, hardware::set_boot))
        .routes(routes!(proof::node_report))
        .routes(routes!(proof::rack_report))
        .routes(routes!(proof::verify))
        .routes(routes!(site::show, site::set))
        .routes(routes!(site::check))
        .routes(routes!(site::schema))
        .routes(routes!(site::diff))
        .routes(routes!(site::machines))
        .routes(routes!(site::test_rules))
        .routes(routes!(plans::make))
        .routes(routes!(plans::show))
        .routes(routes!(plans::commit))
        .routes(routes!(runs::list))
        .routes(routes!(runs::show))
        .routes(routes!(runs::stream))
        .routes(routes!(runs::order))
        .routes(routes!(images::list))
        .routes(routes!(images::put, images::remove))
        .routes(routes!(images::set_standing))
        .routes(routes!(profiles::list))
        .routes(routes!(profiles::sign))
        .routes(routes!(programs::list))
        .routes(routes!(programs::put, programs::remove))
        .routes(routes!(refresh::set_upstream))
        .routes(routes!(refresh::pin))
        .routes(routes!(refresh::begin, refresh::show))
        .routes(routes!(repositories::list))
        .routes(routes!(repositories::show))
        .routes(routes!(repositories::check))
        .routes(routes!(repositories::lock, repositories::unlock))
        .routes(routes!(tokens::list, tokens::create))
        .routes(routes!(tokens::revoke))
        .routes(routes!(changes::list))
        .routes(routes!(state::sizes, state::export))
        .routes(routes!(state::import))
        .routes(routes!(storage::show, storage::use_disk))
        .routes(routes!(support::bundle))
        .routes(routes!(state::ansible))
        .routes(routes!(handoff::list))
        .routes(routes!(handoff::show))
        .routes(routes!(handoff::autosign))
        .routes(routes!(handoff::enrolments, handoff::enrol))
        .routes(routes!(handoff::revoke))
        .routes(routes!(secrets::show))
        .routes(routes!(secrets::lock, secrets::unlock))
        .routes(routes!(secrets::bmc_logins))
        .routes(routes!(cache::show, cache::order))
        .routes(routes!(cache::entries))
        .routes(routes!(packs::list, packs::order))
        .routes(routes!(packs::show, packs::put, packs::remove))
        .routes(routes!(registrations::show))
        .routes(routes!(registrations::set_token))
        .routes(routes!(webhooks::list))
        .routes(routes!(webhooks::set_secret))
        .routes(routes!(services::leases))
        .routes(routes!(services::services))
        .routes(routes!(services::boot))
        .routes(routes!(captures::recent))
        .routes(routes!(captures::begin))
        .routes(routes!(logs::list))
        .routes(routes!(logs::stream))
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
        .route_layer(middleware::from_fn_with_state(context.clone(), guard::api_guard))
        .layer(middleware::map_response(every));
    Router::new()
        .merge(api)
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .route("/openapi.json", get(health::openapi))
}

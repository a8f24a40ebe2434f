//! Leases, services, and the appliance itself.

use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::Response;
use rackbar_model::{Lease, ServiceStatus};
use serde::Serialize;
use utoipa::ToSchema;

use super::Problem;
use super::paging::{Page, PageQuery, tagged};
use crate::Context;
use crate::operations::BootControl;

/// The appliance.
#[derive(Serialize, ToSchema)]
pub(crate) struct Appliance {
    /// The site's name.
    site: String,
    /// Version of the program.
    version: String,
    /// SHA-256 of the site CA certificate; compare it with the console.
    fingerprint: String,
    /// True when state is lost with the power.
    volatile: bool,
    /// Number of the newest event.
    last_event: u64,
}

/// The appliance itself.
#[utoipa::path(get, path = "/api/v1", tag = "appliance", responses((status = 200, body = Appliance)))]
pub(crate) async fn about(State(context): State<Context>, headers: HeaderMap) -> Response {
    let about = &context.about;
    let body = Appliance {
        site: about.site.clone(),
        version: about.version.clone(),
        fingerprint: about.fingerprint.clone(),
        volatile: about.volatile,
        last_event: context.rack.last_seq(),
    };
    tagged(&headers, &body)
}

/// DHCP leases, by address.
#[utoipa::path(
    get, path = "/api/v1/leases", tag = "services", params(PageQuery),
    responses((status = 200, body = Page<Lease>), (status = 400, body = Problem))
)]
pub(crate) async fn leases(
    State(context): State<Context>,
    Query(page): Query<PageQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let mut leases = context.rack.leases();
    leases.sort_by_key(|lease| lease.address);
    // Padded, so that text order is address order.
    let page = page.cut(leases, |lease| format!("{:010}", u32::from(lease.address)))?;
    Ok(tagged(&headers, &page))
}

/// How each service of the appliance is doing.
#[utoipa::path(
    get, path = "/api/v1/services", tag = "services",
    responses((status = 200, body = Page<ServiceStatus>))
)]
pub(crate) async fn services(State(context): State<Context>, headers: HeaderMap) -> Response {
    let mut items = context.rack.services();
    items.sort_by(|a, b| a.name.cmp(&b.name));
    tagged(
        &headers,
        &Page {
            items,
            next_page_token: None,
        },
    )
}

/// How many machines fetch boot files at a time, how many may, and who waits.
#[utoipa::path(
    get, path = "/api/v1/boot", tag = "services",
    responses((status = 200, body = BootControl), (status = 503, body = Problem))
)]
pub(crate) async fn boot(State(context): State<Context>, headers: HeaderMap) -> Result<Response, Problem> {
    Ok(tagged(&headers, &context.operations.boot_control().await?))
}

//! `/api/v1/captures`: packets that the appliance's rack interfaces see and send, as pcapng files.

use axum::Json;
use axum::body::Body;
use axum::extract::{Extension, Query, State};
use axum::http::{HeaderName, header};
use axum::response::{IntoResponse, Response};

use super::{Deed, Problem};
use crate::Context;
use crate::operations::{CaptureOrder, RecentCapture};

const PCAPNG: &str = "application/x-pcapng";

fn head(name: &str) -> [(HeaderName, String); 3] {
    [
        (header::CONTENT_TYPE, PCAPNG.to_owned()),
        (
            header::CONTENT_DISPOSITION,
            format!("attachment; filename=\"{name}.pcapng\""),
        ),
        (header::CACHE_CONTROL, "no-store".to_owned()),
    ]
}

/// The newest boot packets, as far back as the memory for them reaches: ARP, LLDP, DHCP, ICMP, requests and first blocks of
/// TFTP, beginnings and ends of connections to boot HTTP. Payloads are cut off. For operators; the audit trail has who asked.
#[utoipa::path(
    get, path = "/api/v1/captures/recent", tag = "services", params(RecentCapture),
    responses(
        (status = 200, body = Vec<u8>, content_type = "application/x-pcapng"), (status = 403, body = Problem),
        (status = 404, body = Problem), (status = 503, body = Problem)
    )
)]
pub(crate) async fn recent(
    State(context): State<Context>,
    Query(query): Query<RecentCapture>,
) -> Result<Response, Problem> {
    let of = of_whom(query.node.as_deref(), query.interface.as_deref());
    let name = match &query.node {
        Some(node) => format!("rackbar-{}", plain(node)),
        None => "rackbar-recent".to_owned(),
    };
    let file = context.operations.recent_capture(query).await?;
    let deed = Deed(format!("read the newest boot packets{of}"));
    Ok((Extension(deed), head(&name), file).into_response())
}

/// Captures from now on, and gives the file piece by piece while it grows. It ends with its time, when it is full, or when
/// whoever asked hangs up.
#[utoipa::path(
    post, path = "/api/v1/captures", tag = "services", request_body = CaptureOrder,
    responses(
        (status = 200, body = Vec<u8>, content_type = "application/x-pcapng"), (status = 400, body = Problem),
        (status = 404, body = Problem), (status = 409, body = Problem), (status = 503, body = Problem)
    )
)]
pub(crate) async fn begin(
    State(context): State<Context>,
    Json(order): Json<CaptureOrder>,
) -> Result<Response, Problem> {
    let of = of_whom(order.node.as_deref(), order.interface.as_deref());
    let deed = Deed(format!(
        "capture {}{of}",
        if order.all {
            "all packets' headers"
        } else {
            "boot packets"
        }
    ));
    let pieces = context.operations.capture(order).await?;
    Ok((Extension(deed), head("rackbar-capture"), Body::from_stream(pieces)).into_response())
}

fn of_whom(node: Option<&str>, interface: Option<&str>) -> String {
    let part = |word: &str, name: Option<&str>| name.map(|name| format!(" {word} {name}")).unwrap_or_default();
    format!("{}{}", part("of", node), part("on", interface))
}

/// A name that no header and no file system takes for anything else.
fn plain(name: &str) -> String {
    name.chars()
        .filter(|c| c.is_ascii_alphanumeric() || "-_.".contains(*c))
        .take(64)
        .collect()
}

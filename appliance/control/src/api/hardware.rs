//! `/api/v1/nodes/{node}/sensors`, `/log`, `/media` and `/boot`: what a machine's BMC sees of the hardware, its virtual
//! drives and the next boot. Each is asked of the BMC at that moment and may take as long as it takes.

use axum::Json;
use axum::extract::{Extension, Path, Query, State};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use super::nodes::find;
use super::{Caller, Deed, Problem};
use crate::Context;
use crate::operations::{BootRequest, BootState, HardwareLog, MediaList, SensorList, check_url};

/// Lines of the log that are read when nobody says how many.
pub(crate) const LINES: u16 = 100;

/// What a machine's sensors read now, asked of its BMC over Redfish, or IPMI where that has none.
#[utoipa::path(
    get, path = "/api/v1/nodes/{node}/sensors", tag = "nodes",
    params(("node" = String, Path, description = "Name, id or MAC address")),
    responses((status = 200, body = SensorList), (status = 404, body = Problem), (status = 502, body = Problem))
)]
pub(crate) async fn sensors(
    State(context): State<Context>,
    Path(name): Path<String>,
) -> Result<Json<SensorList>, Problem> {
    let node = find(&context, &name)?;
    Ok(Json(context.operations.sensors(&node.id.to_string()).await?))
}

/// How much of the log.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct LogLength {
    /// At most so many lines, 1 to 1000; 100 when left out.
    limit: Option<u16>,
}

impl LogLength {
    /// Lines to read.
    ///
    /// # Errors
    /// When more is wanted than is given at once.
    pub(crate) fn lines(&self) -> Result<u16, Problem> {
        let limit = self.limit.unwrap_or(LINES);
        if (1..=1_000).contains(&limit) {
            return Ok(limit);
        }
        Err(Problem::invalid(format!("limit is {limit}; it may be 1 to 1000")))
    }
}

/// The event log that a machine's BMC keeps of its hardware (Redfish log service, IPMI SEL), newest first.
#[utoipa::path(
    get, path = "/api/v1/nodes/{node}/log", tag = "nodes",
    params(("node" = String, Path, description = "Name, id or MAC address"), LogLength),
    responses(
        (status = 200, body = HardwareLog), (status = 400, body = Problem), (status = 404, body = Problem),
        (status = 502, body = Problem)
    )
)]
pub(crate) async fn log(
    State(context): State<Context>,
    Path(name): Path<String>,
    Query(length): Query<LogLength>,
) -> Result<Json<HardwareLog>, Problem> {
    let limit = length.lines()?;
    let node = find(&context, &name)?;
    Ok(Json(
        context.operations.hardware_log(&node.id.to_string(), limit).await?,
    ))
}

/// The virtual drives of a machine's BMC, and what is in them.
#[utoipa::path(
    get, path = "/api/v1/nodes/{node}/media", tag = "nodes",
    params(("node" = String, Path, description = "Name, id or MAC address")),
    responses((status = 200, body = MediaList), (status = 404, body = Problem), (status = 502, body = Problem))
)]
pub(crate) async fn media(
    State(context): State<Context>,
    Path(name): Path<String>,
) -> Result<Json<MediaList>, Problem> {
    let node = find(&context, &name)?;
    Ok(Json(context.operations.media(&node.id.to_string()).await?))
}

/// An image for the virtual CD drive.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct MediaRequest {
    /// Its URL, `http` or `https`, which the BMC must be able to reach.
    image: String,
}

/// Puts an image into the virtual CD drive of a machine's BMC, in the place of the one that is in.
#[utoipa::path(
    put, path = "/api/v1/nodes/{node}/media", tag = "nodes", request_body = MediaRequest,
    params(("node" = String, Path, description = "Name, id or MAC address")),
    responses(
        (status = 200, body = MediaList), (status = 400, body = Problem), (status = 404, body = Problem),
        (status = 502, body = Problem)
    )
)]
pub(crate) async fn insert(
    State(context): State<Context>,
    Path(name): Path<String>,
    Json(request): Json<MediaRequest>,
) -> Result<(Extension<Deed>, Json<MediaList>), Problem> {
    check_url(&request.image).map_err(Problem::invalid)?;
    let node = find(&context, &name)?;
    let deed = media_deed(&node.name, Some(&request.image));
    let list = context
        .operations
        .set_media(&node.id.to_string(), Some(request.image))
        .await?;
    Ok((Extension(deed), Json(list)))
}

/// Takes out what is in the virtual CD drive of a machine's BMC.
#[utoipa::path(
    delete, path = "/api/v1/nodes/{node}/media", tag = "nodes",
    params(("node" = String, Path, description = "Name, id or MAC address")),
    responses((status = 200, body = MediaList), (status = 404, body = Problem), (status = 502, body = Problem))
)]
pub(crate) async fn eject(
    State(context): State<Context>,
    Path(name): Path<String>,
) -> Result<(Extension<Deed>, Json<MediaList>), Problem> {
    let node = find(&context, &name)?;
    let list = context.operations.set_media(&node.id.to_string(), None).await?;
    Ok((Extension(media_deed(&node.name, None)), Json(list)))
}

/// A change of the virtual drive in the words of the audit trail.
pub(crate) fn media_deed(node: &str, image: Option<&str>) -> Deed {
    match image {
        Some(image) => Deed(format!("put {image} into the virtual CD drive of {node}")),
        None => Deed(format!("empty the virtual CD drive of {node}")),
    }
}

/// Where a machine's next boot comes from, as its BMC says.
#[utoipa::path(
    get, path = "/api/v1/nodes/{node}/boot", tag = "nodes",
    params(("node" = String, Path, description = "Name, id or MAC address")),
    responses((status = 200, body = BootState), (status = 404, body = Problem), (status = 502, body = Problem))
)]
pub(crate) async fn boot(State(context): State<Context>, Path(name): Path<String>) -> Result<Json<BootState>, Problem> {
    let node = find(&context, &name)?;
    Ok(Json(context.operations.boot(&node.id.to_string()).await?))
}

/// Has a machine's next boot come from elsewhere, once. The lasting boot order stays.
#[utoipa::path(
    put, path = "/api/v1/nodes/{node}/boot", tag = "nodes", request_body = BootRequest,
    params(("node" = String, Path, description = "Name, id or MAC address")),
    responses(
        (status = 200, body = BootState), (status = 400, body = Problem), (status = 404, body = Problem),
        (status = 502, body = Problem)
    )
)]
pub(crate) async fn set_boot(
    State(context): State<Context>,
    Path(name): Path<String>,
    Extension(Caller(by)): Extension<Caller>,
    Json(request): Json<BootRequest>,
) -> Result<(Extension<Deed>, Json<BootState>), Problem> {
    request.check().map_err(Problem::invalid)?;
    let node = find(&context, &name)?;
    let deed = boot_deed(&node.name, &request);
    let state = context
        .operations
        .set_boot(&node.id.to_string(), request, &by.name)
        .await?;
    Ok((Extension(deed), Json(state)))
}

/// A change of the next boot in the words of the audit trail.
pub(crate) fn boot_deed(node: &str, request: &BootRequest) -> Deed {
    let from = request.url.as_deref().unwrap_or(request.from.name());
    let restart = if request.restart { ", and restart it" } else { "" };
    Deed(format!("boot {node} from {from} once{restart}"))
}

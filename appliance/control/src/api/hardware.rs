//! `/api/v1/nodes/{node}/sensors` and `/log`: what a machine's BMC sees of the hardware. Each is asked of the BMC at that
//! moment and may take as long as it takes.

use axum::Json;
use axum::extract::{Path, Query, State};
use serde::Deserialize;
use utoipa::IntoParams;

use super::Problem;
use super::nodes::find;
use crate::Context;
use crate::operations::{HardwareLog, SensorList};

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

//! `/api/v1/nodes`: the machines of the rack.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use rackbar_model::{Event, FirmwareHabit, Inventory, Node, PowerAction, Timestamp};
use rackbar_orchestrator::{PowerWay, RenameError};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::paging::{Page, PageQuery, etag, listed, tagged, unchanged};
use super::{Caller, Deed, Problem};
use crate::Context;
use crate::operations::Refused;

/// The node of that name, id or MAC address.
pub(crate) fn find(context: &Context, name: &str) -> Result<Arc<Node>, Problem> {
    context
        .rack
        .node(name)
        .ok_or_else(|| Problem::not_found(format!("there is no node `{name}`")))
}

/// Which nodes.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct NodeQuery {
    /// Only nodes in this state, such as `discovered`.
    state: Option<String>,
    /// Entries in one answer, 1 to 1000; 100 when left out.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// `next_page_token` of the answer before.
    page_token: Option<String>,
}

/// The machines of the rack, by name.
#[utoipa::path(
    get, path = "/api/v1/nodes", tag = "nodes", params(NodeQuery),
    responses((status = 200, body = Page<Node>), (status = 400, body = Problem), (status = 401, body = Problem))
)]
pub(crate) async fn list(
    State(context): State<Context>,
    Query(query): Query<NodeQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let NodeQuery {
        state,
        limit,
        page_token,
    } = query;
    let page = PageQuery { limit, page_token };
    let mut nodes = context.rack.nodes();
    nodes.retain(|node| state.as_ref().is_none_or(|state| node.state.name() == state));
    nodes.sort_by(|a, b| a.name.cmp(&b.name));
    let page = page.cut(nodes, |node| node.name.clone())?;
    let Page { items, next_page_token } = page;
    Ok(tagged(
        &headers,
        &Page {
            items: items.iter().map(|n| n.as_ref()).collect(),
            next_page_token,
        },
    ))
}

/// One machine, whole.
#[utoipa::path(
    get, path = "/api/v1/nodes/{node}", tag = "nodes",
    params(("node" = String, Path, description = "Name, id or MAC address")),
    responses((status = 200, body = Node), (status = 304), (status = 404, body = Problem))
)]
pub(crate) async fn show(
    State(context): State<Context>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    Ok(tagged(&headers, find(&context, &name)?.as_ref()))
}

/// What may be changed of a node.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NodeChange {
    /// A new name: letters, digits and hyphens, as a host name (RFC 1123 section 2.1).
    name: String,
}

/// Renames a machine. With `If-Match`, only if nobody changed it meanwhile.
#[utoipa::path(
    patch, path = "/api/v1/nodes/{node}", tag = "nodes", request_body = NodeChange,
    params(("node" = String, Path, description = "Name, id or MAC address"), ("If-Match" = Option<String>, Header)),
    responses(
        (status = 200, body = Node), (status = 404, body = Problem), (status = 409, body = Problem),
        (status = 412, body = Problem)
    )
)]
pub(crate) async fn change(
    State(context): State<Context>,
    Path(name): Path<String>,
    headers: HeaderMap,
    Json(change): Json<NodeChange>,
) -> Result<Response, Problem> {
    let node = find(&context, &name)?;
    let as_seen = |now: &Node| {
        let tag = || etag(&serde_json::to_vec(now).unwrap_or_default());
        !headers.contains_key(header::IF_MATCH) || listed(&headers, header::IF_MATCH, &tag())
    };
    let renamed = context.rack.rename_if(node.id, &change.name, as_seen);
    renamed.map_err(|error| match error {
        RenameError::Changed(_) => Problem::stale(error.to_string()),
        _ => Problem::conflict(error.to_string()),
    })?;
    let deed = Deed(format!("rename {} to {}", node.name, change.name));
    let now = find(&context, &node.id.to_string())?;
    Ok((Extension(deed), tagged(&HeaderMap::new(), now.as_ref())).into_response())
}

/// Everything that happened to one machine, oldest first, with the verdict on its last boot.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Timeline {
    /// The machine's name.
    name: String,
    /// The verdict in words.
    verdict: String,
    /// The events, each with its wording.
    items: Vec<WordedEvent>,
}

/// An event and what it says.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct WordedEvent {
    /// The event.
    #[serde(flatten)]
    pub(crate) event: Event,
    /// The event in words.
    pub(crate) text: String,
}

impl From<Event> for WordedEvent {
    fn from(event: Event) -> Self {
        Self {
            text: event.kind.to_string(),
            event,
        }
    }
}

/// One machine's netboot timeline.
#[utoipa::path(
    get, path = "/api/v1/nodes/{node}/timeline", tag = "nodes",
    params(("node" = String, Path, description = "Name, id or MAC address")),
    responses((status = 200, body = Timeline), (status = 404, body = Problem))
)]
pub(crate) async fn timeline(
    State(context): State<Context>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let node = find(&context, &name)?;
    let events = context
        .rack
        .timeline(node.id)
        .map_err(|e| Problem::internal(e.to_string()))?;
    let items = events.into_iter().map(WordedEvent::from).collect();
    Ok(tagged(
        &headers,
        &Timeline {
            name: node.name.clone(),
            verdict: node.verdict.clone(),
            items,
        },
    ))
}

/// An inventory and when it was taken.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DatedInventory {
    /// When.
    at: Timestamp,
    /// What was found.
    inventory: Inventory,
}

/// One machine's inventories, newest first: only those that differ from the one before are kept.
#[utoipa::path(
    get, path = "/api/v1/nodes/{node}/inventories", tag = "nodes",
    params(("node" = String, Path, description = "Name, id or MAC address")),
    responses((status = 200, body = Page<DatedInventory>), (status = 404, body = Problem))
)]
pub(crate) async fn inventories(
    State(context): State<Context>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let node = find(&context, &name)?;
    let history = context
        .rack
        .inventory_history(node.id)
        .map_err(|e| Problem::internal(e.to_string()))?;
    let mut items: Vec<_> = history
        .into_iter()
        .map(|(at, inventory)| DatedInventory { at, inventory })
        .collect();
    items.sort_by_key(|item| std::cmp::Reverse(item.at));
    Ok(tagged(
        &headers,
        &Page {
            items,
            next_page_token: None,
        },
    ))
}

/// A power action.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PowerRequest {
    /// What to do.
    action: PowerAction,
}

/// Who carried a power action out.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PowerAnswer {
    /// `bmc`, or `agent` when no BMC of the machine is known or it is silent.
    way: &'static str,
}

/// Switches the machine through its BMC, else through its agent, and waits until that took it.
#[utoipa::path(
    post, path = "/api/v1/nodes/{node}/power", tag = "nodes", request_body = PowerRequest,
    params(("node" = String, Path, description = "Name, id or MAC address")),
    responses(
        (status = 200, body = PowerAnswer), (status = 404, body = Problem), (status = 422, body = Problem),
        (status = 502, body = Problem)
    )
)]
pub(crate) async fn power(
    State(context): State<Context>,
    Path(name): Path<String>,
    Extension(Caller(by)): Extension<Caller>,
    Json(request): Json<PowerRequest>,
) -> Result<Response, Problem> {
    let node = find(&context, &name)?;
    let way = context.rack.power_way(node.id, request.action, &by.name).await;
    let way = match way.map_err(|error| Problem::bad_gateway(error.to_string()))? {
        PowerWay::Bmc => "bmc",
        PowerWay::Agent => "agent",
    };
    let deed = Deed(format!("power {} of {}", power_word(request.action), node.name));
    Ok((Extension(deed), Json(PowerAnswer { way })).into_response())
}

/// The action as the API writes it.
pub(crate) const fn power_word(action: PowerAction) -> &'static str {
    match action {
        PowerAction::On => "on",
        PowerAction::Off => "off",
        PowerAction::Shutdown => "shutdown",
        PowerAction::Cycle => "cycle",
        PowerAction::Reset => "reset",
        PowerAction::Netboot => "netboot",
    }
}

/// Which role a machine is to have.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BindRequest {
    /// A role of the site file; `null` leaves the choice to the rules again.
    role: Option<String>,
}

/// Binds a machine to a role by hand. Nothing happens to it before a plan is committed.
#[utoipa::path(
    post, path = "/api/v1/nodes/{node}/bind", tag = "nodes", request_body = BindRequest,
    params(("node" = String, Path, description = "Name, id or MAC address")),
    responses((status = 200, body = Node), (status = 404, body = Problem), (status = 400, body = Problem))
)]
pub(crate) async fn bind(
    State(context): State<Context>,
    Path(name): Path<String>,
    Extension(Caller(by)): Extension<Caller>,
    Json(request): Json<BindRequest>,
) -> Result<Response, Problem> {
    let node = find(&context, &name)?;
    let deed = match &request.role {
        Some(role) => format!("bind {} to role {role}", node.name),
        None => format!("leave the role of {} to the rules", node.name),
    };
    let id = node.id.to_string();
    context.operations.bind(&id, request.role, &by.name).await?;
    Ok((
        Extension(Deed(deed)),
        tagged(&HeaderMap::new(), find(&context, &id)?.as_ref()),
    )
        .into_response())
}

/// What was done to bring a machine back.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Recovered {
    /// In words.
    done: String,
}

/// Brings a machine back to a known state from wherever it is; its history is kept.
#[utoipa::path(
    post, path = "/api/v1/nodes/{node}/recover", tag = "nodes",
    params(("node" = String, Path, description = "Name, id or MAC address")),
    responses((status = 200, body = Recovered), (status = 404, body = Problem), (status = 409, body = Problem),
        (status = 502, body = Problem))
)]
pub(crate) async fn recover(
    State(context): State<Context>,
    Path(name): Path<String>,
    Extension(Caller(by)): Extension<Caller>,
) -> Result<Response, Problem> {
    let node = find(&context, &name)?;
    let done = context.operations.recover(&node.id.to_string(), &by.name).await?;
    let deed = Deed(format!("recover {}", node.name));
    Ok((Extension(deed), Json(Recovered { done })).into_response())
}

/// Forgets a machine that is gone for good: its name, its addresses, what was installed on it. What happened to it stays in
/// the journal. One that comes back is a new machine. With `If-Match`, only if nothing of it changed meanwhile.
#[utoipa::path(
    delete, path = "/api/v1/nodes/{node}", tag = "nodes",
    params(("node" = String, Path, description = "Name, id or MAC address"), ("If-Match" = Option<String>, Header)),
    responses(
        (status = 204), (status = 404, body = Problem), (status = 409, body = Problem), (status = 412, body = Problem)
    )
)]
pub(crate) async fn forget(
    State(context): State<Context>,
    Path(name): Path<String>,
    headers: HeaderMap,
    Extension(Caller(by)): Extension<Caller>,
) -> Result<Response, Problem> {
    let node = find(&context, &name)?;
    unchanged(&headers, node.as_ref(), &node.name)?;
    context.operations.forget(&node.id.to_string(), &by.name).await?;
    Ok((Extension(Deed(format!("forget {}", node.name))), StatusCode::NO_CONTENT).into_response())
}

/// Hands off, or on again.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct MaintenanceRequest {
    /// True: Rackbar does nothing to the machine.
    on: bool,
    /// Why, for whoever finds it so.
    #[serde(default)]
    reason: String,
}

/// Puts a machine into maintenance, or takes it out.
#[utoipa::path(
    post, path = "/api/v1/nodes/{node}/maintenance", tag = "nodes", request_body = MaintenanceRequest,
    params(("node" = String, Path, description = "Name, id or MAC address")),
    responses((status = 200, body = Node), (status = 404, body = Problem), (status = 409, body = Problem))
)]
pub(crate) async fn maintenance(
    State(context): State<Context>,
    Path(name): Path<String>,
    Extension(Caller(by)): Extension<Caller>,
    Json(request): Json<MaintenanceRequest>,
) -> Result<Response, Problem> {
    let node = find(&context, &name)?;
    let word = if request.on { "into" } else { "out of" };
    let deed = Deed(format!("{} {word} maintenance", node.name));
    let id = node.id.to_string();
    context
        .operations
        .maintenance(&id, request.on, request.reason, &by.name)
        .await?;
    Ok((
        Extension(deed),
        tagged(&HeaderMap::new(), find(&context, &id)?.as_ref()),
    )
        .into_response())
}

/// What was learnt of a machine's boot firmware by watching it boot: one entry for each interface that it booted by.
#[utoipa::path(
    get, path = "/api/v1/nodes/{node}/firmware", tag = "nodes",
    params(("node" = String, Path, description = "Name, id or MAC address")),
    responses((status = 200, body = Vec<FirmwareHabit>), (status = 404, body = Problem))
)]
pub(crate) async fn firmware(
    State(context): State<Context>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let node = find(&context, &name)?;
    let habits = context.rack.firmware_of(&node);
    let habits = habits.map_err(|error| Refused::Internal(error.to_string()))?;
    Ok(tagged(&headers, &habits))
}

/// Forgets what was learnt of a machine's boot firmware: it was replaced, updated or set up anew. With `If-Match`, only if
/// nothing more was learnt meanwhile.
#[utoipa::path(
    delete, path = "/api/v1/nodes/{node}/firmware", tag = "nodes",
    params(("node" = String, Path, description = "Name, id or MAC address"), ("If-Match" = Option<String>, Header)),
    responses((status = 204), (status = 404, body = Problem), (status = 412, body = Problem))
)]
pub(crate) async fn forget_firmware(
    State(context): State<Context>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let node = find(&context, &name)?;
    if headers.contains_key(header::IF_MATCH) {
        let habits = context.rack.firmware_of(&node);
        let habits = habits.map_err(|error| Refused::Internal(error.to_string()))?;
        unchanged(&headers, &habits, "what was learnt of it")?;
    }
    context.operations.forget_firmware(&node.id.to_string()).await?;
    let deed = Deed(format!("forget what was learnt of the boot firmware of {}", node.name));
    Ok((Extension(deed), StatusCode::NO_CONTENT).into_response())
}

//! `/api/v1/nodes/{node}/accounts`: the accounts on a machine's BMC. Changes are for admins: an account is a key to the
//! machine that outlives the token it was made with, and its password comes out of here once.

use axum::Json;
use axum::extract::{Extension, Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};

use super::nodes::find;
use super::{Deed, Problem};
use crate::Context;
use crate::operations::{AccountList, AccountOrder, AccountSwitch, AccountsChanged, NewAccount};

/// The accounts on a machine's BMC, asked over Redfish, or IPMI where that has none.
#[utoipa::path(
    get, path = "/api/v1/nodes/{node}/accounts", tag = "nodes", operation_id = "accounts",
    params(("node" = String, Path, description = "Name, id or MAC address")),
    responses((status = 200, body = AccountList), (status = 404, body = Problem), (status = 502, body = Problem))
)]
pub(crate) async fn list(
    State(context): State<Context>,
    Path(name): Path<String>,
) -> Result<Json<AccountList>, Problem> {
    let node = find(&context, &name)?;
    Ok(Json(context.operations.accounts(&node.id.to_string()).await?))
}

/// Makes an account on a machine's BMC. It is read back and has logged in, or has had its password tested, before this
/// answers. Without a password in the request one is made, and told in the answer this once.
#[utoipa::path(
    post, path = "/api/v1/nodes/{node}/accounts", tag = "nodes", operation_id = "add_account", request_body = NewAccount,
    params(("node" = String, Path, description = "Name, id or MAC address")),
    responses(
        (status = 200, body = AccountsChanged), (status = 400, body = Problem), (status = 403, body = Problem),
        (status = 404, body = Problem), (status = 502, body = Problem)
    )
)]
pub(crate) async fn add(
    State(context): State<Context>,
    Path(name): Path<String>,
    Json(request): Json<NewAccount>,
) -> Result<Response, Problem> {
    order(&context, &name, AccountOrder::Add(request)).await
}

/// Lets an account on a machine's BMC log in, or not. Refused for the one that Rackbar logs in with and for the last
/// administrator.
#[utoipa::path(
    patch, path = "/api/v1/nodes/{node}/accounts/{account}", tag = "nodes", operation_id = "switch_account",
    request_body = AccountSwitch,
    params(
        ("node" = String, Path, description = "Name, id or MAC address"),
        ("account" = String, Path, description = "The name it logs in with")
    ),
    responses(
        (status = 200, body = AccountsChanged), (status = 400, body = Problem), (status = 403, body = Problem),
        (status = 404, body = Problem), (status = 409, body = Problem), (status = 502, body = Problem)
    )
)]
pub(crate) async fn switch(
    State(context): State<Context>,
    Path((name, account)): Path<(String, String)>,
    Json(request): Json<AccountSwitch>,
) -> Result<Response, Problem> {
    order(&context, &name, AccountOrder::Enable(account, request.enabled)).await
}

/// Takes an account away from a machine's BMC, or empties its slot. Refused as when it is disabled.
#[utoipa::path(
    delete, path = "/api/v1/nodes/{node}/accounts/{account}", tag = "nodes", operation_id = "remove_account",
    params(
        ("node" = String, Path, description = "Name, id or MAC address"),
        ("account" = String, Path, description = "The name it logs in with")
    ),
    responses(
        (status = 200, body = AccountsChanged), (status = 403, body = Problem), (status = 404, body = Problem),
        (status = 409, body = Problem), (status = 502, body = Problem)
    )
)]
pub(crate) async fn remove(
    State(context): State<Context>,
    Path((name, account)): Path<(String, String)>,
) -> Result<Response, Problem> {
    order(&context, &name, AccountOrder::Remove(account)).await
}

async fn order(context: &Context, node: &str, order: AccountOrder) -> Result<Response, Problem> {
    let node = find(context, node)?;
    let deed = Deed(order.deed(&node.name));
    let done = context.operations.order_account(&node.id.to_string(), order).await?;
    let head = [(header::CACHE_CONTROL, "no-store")];
    Ok((Extension(deed), head, Json(done)).into_response())
}

//! Serial consoles, for those who ask through the API.

use std::io::ErrorKind;

use rackbar_control::operations::{Body, Refused};
use rackbar_model::Node;
use rackbar_orchestrator::Consoles;

use super::super::refusals::of_bmc;

/// What was recorded of a machine's console.
pub(super) async fn record(consoles: &Consoles, node: &Node) -> Result<Vec<u8>, Refused> {
    match consoles.record(&node.name).await {
        Ok(record) => Ok(record),
        Err(error) if error.kind() == ErrorKind::NotFound => Err(Refused::NotFound(format!(
            "nothing of the console of {} was recorded: nobody looked on yet, and [bmc] record_consoles is off",
            node.name
        ))),
        Err(error) => Err(Refused::Internal(format!("the record cannot be read: {error}"))),
    }
}

/// What it printed lately, then what it prints.
pub(super) async fn watch(consoles: &Consoles, node: &Node) -> Result<Body, Refused> {
    let watcher = consoles.watch(node.id).await.map_err(of_bmc)?;
    let pieces = futures_util::stream::unfold(watcher, |mut watcher| async move {
        let piece = watcher.next().await?;
        Some((Ok(piece.into()), watcher))
    });
    Ok(Box::pin(pieces))
}

/// Types on it, where somebody looks on.
pub(super) async fn type_in(consoles: &Consoles, node: &Node, keys: Vec<u8>) -> Result<(), Refused> {
    if consoles.type_in(node.id, keys).await {
        return Ok(());
    }
    let words = format!(
        "nobody looks on at the console of {}: open it first, then type",
        node.name
    );
    Err(Refused::Conflict(words))
}

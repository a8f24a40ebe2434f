//! Packet captures, for those who ask through the API.

use std::sync::Arc;

use bytes::Bytes;
use rackbar_control::operations::{Body, CaptureOrder, RecentCapture, Refused};
use rackbar_model::Node;
use rackbar_orchestrator::Rack;
use rackbar_services::capture::{CaptureError, Captures, Given, LEAST_BYTES, MOST_BYTES, MOST_SECONDS, Machine, Order};
use tokio::sync::mpsc::{self, error::TrySendError};

use super::answers::node;

const SECONDS: u32 = 60;
const BYTES: u64 = 64 << 20;
/// Pieces that wait for whoever reads them.
const PIECES: usize = 64;

/// The newest boot packets.
pub(super) fn recent(captures: &Captures, rack: &Rack, query: &RecentCapture) -> Result<Vec<u8>, Refused> {
    let machine = query.node.as_deref().map(|name| machine(rack, name)).transpose()?;
    let file = captures.recent(query.interface.as_deref(), machine.as_ref());
    file.map_err(|error| refused(&error))
}

/// A capture that has begun.
pub(super) fn begin(captures: &Arc<Captures>, rack: &Rack, order: CaptureOrder) -> Result<Body, Refused> {
    let (seconds, bytes) = (order.seconds.unwrap_or(SECONDS), order.max_bytes.unwrap_or(BYTES));
    if !(1..=MOST_SECONDS).contains(&seconds) {
        let words = format!("seconds: a capture takes 1 to {MOST_SECONDS} seconds, not {seconds}");
        return Err(Refused::Invalid(words));
    }
    if !(LEAST_BYTES..=MOST_BYTES).contains(&bytes) {
        let words = format!("max_bytes: a capture has {LEAST_BYTES} to {MOST_BYTES} bytes, not {bytes}");
        return Err(Refused::Invalid(words));
    }
    let order = Order {
        machine: order.node.as_deref().map(|name| machine(rack, name)).transpose()?,
        interface: order.interface,
        everything: order.all,
        seconds,
        bytes,
    };
    let live = captures.open(order).map_err(|error| refused(&error))?;
    let (send, pieces) = mpsc::channel::<Bytes>(PIECES);
    let give = move |piece: Vec<u8>| match piece.is_empty() {
        true if send.is_closed() => Given::Gone,
        true => Given::Taken,
        false => match send.try_send(piece.into()) {
            Ok(()) => Given::Taken,
            Err(TrySendError::Full(_)) => Given::Full,
            Err(TrySendError::Closed(_)) => Given::Gone,
        },
    };
    // A thread that nobody waits for: it ends with its time, or soon after the last reader is gone.
    let begun = std::thread::Builder::new()
        .name("capture".into())
        .spawn(move || live.run(give));
    begun.map_err(|error| Refused::Internal(format!("the capture cannot begin: {error}")))?;
    let pieces = futures_util::stream::unfold(pieces, |mut pieces| async move {
        let piece = pieces.recv().await?;
        Some((Ok(piece), pieces))
    });
    Ok(Box::pin(pieces))
}

/// By what the frames of a machine are known: its MAC addresses, its BMC's, and the addresses they have by lease or word.
fn machine(rack: &Rack, name: &str) -> Result<Machine, Refused> {
    let node: Arc<Node> = node(rack, name)?;
    let mut machine = Machine {
        macs: node.macs.clone(),
        addresses: node.address.into_iter().chain(node.bmc_address).collect(),
    };
    for lease in rack.leases() {
        let address = lease.address.into();
        if node.bmc_address == Some(address) && !machine.macs.contains(&lease.mac) {
            machine.macs.push(lease.mac);
        }
        if node.macs.contains(&lease.mac) && !machine.addresses.contains(&address) {
            machine.addresses.push(address);
        }
    }
    Ok(machine)
}

fn refused(error: &CaptureError) -> Refused {
    let words = error.to_string();
    match error {
        CaptureError::Off(_) | CaptureError::System(_) => Refused::Unavailable(words),
        CaptureError::Interface { .. } => Refused::NotFound(words),
        CaptureError::Busy(_) => Refused::Conflict(words),
    }
}

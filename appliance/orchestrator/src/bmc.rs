//! Finding BMCs, learning which machine each belongs to, and working their power.
//!
//! A BMC shows itself by a lease on a network of role `bmc` or by its host's agent. It is looked at, tied to a node, and
//! asked for power from time to time: often while it answers, ever more rarely while it does not. At most [`AT_ONCE`]
//! conversations run at a time: management networks are slow, and so are BMCs.

use std::collections::HashMap;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rackbar_model::{EventKind, MacAddr, NodeId, NodeState, PowerAction, PowerState};
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use crate::{BmcSight, PowerError, Rack};

/// Conversations with BMCs at a time.
const AT_ONCE: usize = 32;

/// Between two looks at the power of a BMC that answers.
const POLL: Duration = Duration::from_secs(30);

/// The longest between two tries of one that does not.
const SLOWEST: Duration = Duration::from_secs(15 * 60);

/// Between the first tries of a BMC that has just got its address: most start their network before their web server.
const FIRST_RETRY: Duration = Duration::from_secs(5);

/// Why a BMC did not do what it was asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BmcError {
    /// Nothing that speaks a protocol of ours answers there.
    Silent(String),
    /// It took none of our credentials, or forbids it.
    Refused(String),
    /// It answered and failed.
    Failed(String),
}

impl std::fmt::Display for BmcError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Silent(reason) | Self::Refused(reason) | Self::Failed(reason) => f.write_str(reason),
        }
    }
}

/// A future of a [`BmcDoor`].
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, BmcError>> + Send + 'a>>;

/// The way to BMCs: `rackbar-devices` in the appliance, a table in tests.
pub trait BmcDoor: Send + Sync + 'static {
    /// Asks who is at `address`.
    fn look(&self, address: IpAddr) -> Answer<'_, BmcSight>;

    /// Asks for the power state.
    fn power(&self, address: IpAddr) -> Answer<'_, PowerState>;

    /// Changes power.
    fn act(&self, address: IpAddr, action: PowerAction) -> Answer<'_, ()>;
}

pub(crate) type Door = OnceLock<Arc<dyn BmcDoor>>;

/// A BMC as the watcher sees it.
struct Watched {
    mac: Option<MacAddr>,
    due: Instant,
    failures: u32,
    busy: bool,
    /// Said once per silence, not with every try.
    complained: bool,
}

impl Watched {
    fn new(mac: Option<MacAddr>) -> Self {
        Self {
            mac,
            due: Instant::now(),
            failures: 0,
            busy: false,
            complained: false,
        }
    }

    fn done(&mut self, good: bool) {
        self.busy = false;
        self.failures = if good { 0 } else { self.failures.saturating_add(1) };
        self.complained &= !good;
        let wait = match self.failures {
            0 => POLL,
            n => FIRST_RETRY.saturating_mul(1 << (n - 1).min(10)).min(SLOWEST),
        };
        self.due = Instant::now() + wait;
    }
}

/// Watches BMCs through `door` until `stop` is true or its sender is gone. The first call on a rack counts; a second
/// one returns at once.
pub async fn run(rack: Rack, door: Arc<dyn BmcDoor>, mut stop: watch::Receiver<bool>) {
    let Some(mut probes) = rack.take_probes() else { return };
    let _ = rack.inner.door.set(door.clone());
    let mut watched: HashMap<IpAddr, Watched> = HashMap::new();
    for address in rack.nodes().iter().filter_map(|node| node.bmc_address) {
        watched.insert(address, Watched::new(None));
    }
    let permits = Arc::new(Semaphore::new(AT_ONCE));
    let (done, mut finished) = tokio::sync::mpsc::channel::<(IpAddr, bool)>(AT_ONCE);
    loop {
        let due = watched.values().filter(|one| !one.busy).map(|one| one.due).min();
        let due = due.unwrap_or_else(|| Instant::now() + POLL);
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            Some((address, mac)) = probes.recv() => {
                let one = watched.entry(address).or_insert_with(|| Watched::new(mac));
                one.mac = mac.or(one.mac);
                // A renewed lease is no reason to disturb a BMC that is well; a new one ends any back-off.
                if one.failures > 0 && !one.busy {
                    one.due = Instant::now();
                }
            }
            Some((address, good)) = finished.recv() => {
                if let Some(one) = watched.get_mut(&address) {
                    one.done(good);
                }
            }
            () = tokio::time::sleep_until(due) => {
                for (address, one) in watched.iter_mut().filter(|(_, one)| !one.busy && one.due <= Instant::now()) {
                    let Ok(permit) = permits.clone().try_acquire_owned() else {
                        one.due = Instant::now() + Duration::from_millis(100);
                        continue;
                    };
                    one.busy = true;
                    let complain = one.failures == 2 && !one.complained;
                    one.complained |= complain;
                    let visit = visit(rack.clone(), door.clone(), *address, one.mac, complain);
                    let done = done.clone();
                    tokio::spawn(async move {
                        let outcome = (visit.0, visit.1.await);
                        drop(permit);
                        let _ = done.send(outcome).await;
                    });
                }
            }
        }
    }
}

/// One look: who is there when that is not known yet, else only its power.
fn visit(
    rack: Rack,
    door: Arc<dyn BmcDoor>,
    address: IpAddr,
    mac: Option<MacAddr>,
    complain: bool,
) -> (IpAddr, impl Future<Output = bool> + Send) {
    let work = async move {
        let owner = rack.with(|mind, _| mind.owner_of_bmc_at(address));
        let result = match owner {
            Some(id) => {
                let power = door.power(address).await;
                power.map(|power| rack.with(|mind, now| mind.power_seen(now, id, power)))
            }
            None => match door.look(address).await {
                Ok(sight) => {
                    let sight = BmcSight {
                        mac: sight.mac.or(mac),
                        ..sight
                    };
                    let node = rack.with(|mind, now| mind.bmc_seen(now, address, &sight));
                    wake(&rack, node, sight.power).await;
                    Ok(())
                }
                Err(error) => Err(error),
            },
        };
        if let (Err(_), Some(id)) = (&result, owner) {
            // Another BMC may have this address by now: whoever answers next is asked who it is.
            rack.with(|mind, _| mind.record(id).map(|record| record.bmc_asked = false));
        }
        if let Err(error) = &result
            && complain
        {
            let reason = format!("it was asked three times who it is and for its power: {error}");
            rack.with(|mind, now| mind.emit(now, owner, mac, EventKind::BmcFailed { address, reason }));
        }
        result.is_ok()
    };
    (address, work)
}

/// Switches a machine on to be discovered, where the site wants that: one that is off and was never looked at.
async fn wake(rack: &Rack, node: Option<NodeId>, power: PowerState) {
    let wanted = rack.with(|mind, _| {
        let node = node
            .and_then(|id| mind.node(id))
            .filter(|node| node.state == NodeState::Enrolled);
        node.filter(|_| mind.settings.power_on_discovered && power == PowerState::Off)
    });
    if let Some(node) = wanted
        && let Err(error) = rack
            .power(node.id, PowerAction::Netboot, "bmc.power_on_discovered")
            .await
    {
        tracing::warn!(node = %node.name, %error, "a machine could not be switched on to be discovered");
    }
}

/// Carries out a power action and looks at the result.
pub(crate) async fn power(rack: &Rack, id: NodeId, action: PowerAction, by: &str) -> Result<(), PowerError> {
    let node = rack.with(|mind, _| mind.node(id)).ok_or(PowerError::NoSuchNode(id))?;
    let name = node.name.clone();
    let (Some(address), Some(door)) = (node.bmc_address, rack.inner.door.get().cloned()) else {
        return Err(PowerError::NoBmc(name));
    };
    let word = word(action);
    let requested = EventKind::PowerRequested {
        action: word.into(),
        by: by.into(),
    };
    rack.with(|mind, now| mind.emit(now, Some(node.id), None, requested));
    let done = door.act(address, action).await;
    if let Err(error) = &done {
        let reason = format!("power {word}: {error}");
        rack.with(|mind, now| mind.emit(now, Some(node.id), None, EventKind::BmcFailed { address, reason }));
    } else if let Ok(power) = door.power(address).await {
        // What we ordered is not what is: only the BMC's own word changes the view.
        rack.with(|mind, now| mind.power_seen(now, node.id, power));
    }
    done.map_err(|error| match error {
        BmcError::Refused(reason) => PowerError::Refused { name, address, reason },
        BmcError::Silent(reason) | BmcError::Failed(reason) => PowerError::Failed { name, address, reason },
    })
}

const fn word(action: PowerAction) -> &'static str {
    match action {
        PowerAction::On => "on",
        PowerAction::Off => "off",
        PowerAction::Shutdown => "shutdown",
        PowerAction::Cycle => "cycle",
        PowerAction::Reset => "reset",
        PowerAction::Netboot => "netboot",
    }
}

//! Who gets one of the places for connections: a share of them for each address, so that no stranger has all.
//!
//! One over its address' share is closed at once: whoever holds as many can use those. When all places are taken the
//! newcomer waits instead, since firmware that is closed gives up its boot, and those that ask for nothing make room for it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// What happens to many connections in the same way is told this often.
const TOLD_EVERY: Duration = Duration::from_secs(60);

/// Bounds on what strangers can take from a server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Open connections of all clients; a page holds one, a program one or two.
    pub connections: usize,
    /// Open connections of one address: many people may be behind one (NAT). The appliance itself is not counted.
    pub per_address: usize,
    /// How long a connection may be open without a request, a request under way without a byte of its body, and an answer
    /// without its client taking a byte of it.
    pub idle: Duration,
    /// The same for a connection without a request while somebody waits for its place.
    pub spare: Duration,
    /// An HTTP/2 client is asked this often whether it is still there; one of HTTP/1 has an end of its own for each request.
    pub ping: Duration,
    /// How long it may take to answer that.
    pub pong: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 512,
            per_address: 64,
            idle: Duration::from_secs(60),
            spare: Duration::from_secs(2),
            ping: Duration::from_secs(30),
            pong: Duration::from_secs(20),
        }
    }
}

/// The places of a server, which its listeners share.
#[derive(Clone)]
pub(super) struct Places(Arc<Shared>);

struct Shared {
    limits: Limits,
    free: Arc<Semaphore>,
    taken_by: Mutex<HashMap<IpAddr, usize>>,
    /// How many newcomers wait for a place.
    waiting: watch::Sender<usize>,
    refused: Mutex<Seldom>,
    full: Mutex<Seldom>,
}

/// A place; dropping it gives it back.
pub(super) struct Place {
    _of_all: OwnedSemaphorePermit,
    _of_address: Option<Share>,
}

/// A place of the share of an address.
struct Share {
    places: Places,
    address: IpAddr,
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut taken_by = lock(&self.places.0.taken_by);
        if let Some(count) = taken_by.get_mut(&self.address) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                taken_by.remove(&self.address);
            }
        }
    }
}

/// A newcomer that waits for a place.
struct Waiting<'a>(&'a watch::Sender<usize>);

impl<'a> Waiting<'a> {
    fn new(waiting: &'a watch::Sender<usize>) -> Self {
        waiting.send_modify(|count| *count = count.saturating_add(1));
        Self(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count = count.saturating_sub(1));
    }
}

impl Places {
    /// All of them free.
    pub(super) fn new(limits: Limits) -> Self {
        Self(Arc::new(Shared {
            limits,
            free: Arc::new(Semaphore::new(limits.connections)),
            taken_by: Mutex::default(),
            waiting: watch::Sender::new(0),
            refused: Mutex::default(),
            full: Mutex::default(),
        }))
    }

    /// The bounds.
    pub(super) fn limits(&self) -> Limits {
        self.0.limits
    }

    /// How many newcomers wait for a place.
    pub(super) fn waiting(&self) -> watch::Receiver<usize> {
        self.0.waiting.subscribe()
    }

    /// A place for a connection of `peer` to our address `local`, as soon as one is free; `None` when the address has its
    /// share.
    pub(super) async fn take(&self, peer: IpAddr, local: Option<IpAddr>) -> Option<Place> {
        let address = peer.to_canonical();
        // Only the appliance itself reaches one of its addresses from that same address.
        let own = local.is_some_and(|local| local.to_canonical() == address);
        let share = if own { None } else { Some(self.share(address)?) };
        let free = self.0.free.clone();
        let permit = match free.clone().try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                if let Some(count) = lock(&self.0.full).due(Instant::now()) {
                    let places = self.0.limits.connections;
                    tracing::warn!(count, places, "all places for connections are taken; newcomers wait");
                }
                let _waiting = Waiting::new(&self.0.waiting);
                free.acquire_owned().await.ok()?
            }
        };
        Some(Place {
            _of_all: permit,
            _of_address: share,
        })
    }

    fn share(&self, address: IpAddr) -> Option<Share> {
        let mut taken_by = lock(&self.0.taken_by);
        let count = taken_by.entry(address).or_default();
        if *count < self.0.limits.per_address {
            *count += 1;
            let places = self.clone();
            return Some(Share { places, address });
        }
        drop(taken_by);
        if let Some(count) = lock(&self.0.refused).due(Instant::now()) {
            let most = self.0.limits.per_address;
            tracing::warn!(%address, most, count, "closed connections of an address that has its share of them open");
        }
        None
    }
}

/// Counts what happens often, so that it is told seldom.
#[derive(Default)]
struct Seldom {
    told: Option<Instant>,
    count: u64,
}

impl Seldom {
    /// It happened once more: how often since it was last told, when it is to be told now.
    fn due(&mut self, now: Instant) -> Option<u64> {
        self.count = self.count.saturating_add(1);
        if self.told.is_some_and(|told| now < told + TOLD_EVERY) {
            return None;
        }
        self.told = Some(now);
        Some(std::mem::take(&mut self.count))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    const STRANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9));
    const OURS: Option<IpAddr> = Some(IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1)));

    #[tokio::test]
    async fn an_address_has_its_share_and_gets_it_back() {
        let limits = Limits {
            per_address: 2,
            ..Limits::default()
        };
        let places = Places::new(limits);
        let first = places.take(STRANGER, OURS).await.unwrap();
        let second = places.take(STRANGER, OURS).await.unwrap();
        assert!(places.take(STRANGER, OURS).await.is_none());
        // The same client at a listener for both families.
        let mapped = Ipv4Addr::new(203, 0, 113, 9).to_ipv6_mapped().into();
        assert!(places.take(mapped, OURS).await.is_none());
        drop(first);
        let third = places.take(STRANGER, OURS).await.unwrap();
        drop((second, third));
        assert!(lock(&places.0.taken_by).is_empty(), "no memory of those who left");
    }

    #[test]
    fn what_happens_often_is_told_once_a_minute() {
        let (mut seldom, start) = (Seldom::default(), Instant::now());
        assert_eq!(seldom.due(start), Some(1));
        for _ in 0..9 {
            assert_eq!(seldom.due(start + TOLD_EVERY / 2), None);
        }
        assert_eq!(seldom.due(start + TOLD_EVERY), Some(10));
    }
}

//! The handle on the live view. It gives the mind its clock, writes what the mind leaves to the store, and keeps the
//! services that see packets from waiting: their events go through a bounded queue.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rackbar_model::{
    Event, EventKind, Inventory, Lease, LeaseState, MacAddr, Node, NodeId, PowerAction, ServiceStatus, Severity,
    Timestamp,
};
use rackbar_store::{Store, StoreError};
use tokio::sync::{broadcast, mpsc};

use crate::PowerWay;
use crate::error::{PowerError, RenameError};
use crate::executor::around::Leased;
use crate::installs::Installs;
use crate::mind::Mind;
use crate::record::Record;
use crate::serving::Serving;
use crate::settings::{Role, Settings};
use crate::tokens::Tokens;

/// Events of services that may wait to be taken in. Beyond that they are counted and dropped.
const MAX_QUEUED: usize = 16_384;

/// Events a slow subscriber may fall behind before it is told that it lost some.
const SUBSCRIBER_LAG: usize = 4_096;

/// Events of a timeline that are shown.
const TIMELINE: usize = 4_096;

/// Time between two looks at limits and verdicts.
const TICK: Duration = Duration::from_secs(1);

/// How a rack is started.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The configuration's part.
    pub settings: Settings,
    /// The store's file lies in memory: it outlives this program, not the power.
    pub volatile: bool,
}

/// Where a BMC may be.
pub(crate) struct ProbeTarget {
    pub(crate) address: IpAddr,
    /// Its MAC address, when known.
    pub(crate) mac: Option<MacAddr>,
    /// A login there has just succeeded.
    pub(crate) opened: bool,
}

/// The live view of the rack. Clones share it.
#[derive(Clone)]
pub struct Rack {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) store: Store,
    mind: Mutex<Mind>,
    revision: AtomicU64,
    broadcast: broadcast::Sender<Arc<Event>>,
    services: Mutex<BTreeMap<String, ServiceStatus>>,
    pub(crate) serving: Serving,
    leases: Mutex<BTreeMap<Ipv4Addr, Lease>>,
    queue: Mutex<Queue>,
    wake: Condvar,
    probe: mpsc::Sender<ProbeTarget>,
    probes: Mutex<Option<mpsc::Receiver<ProbeTarget>>>,
    pub(crate) connections: AtomicU64,
    pub(crate) door: crate::bmc::Door,
    pub(crate) tokens: Mutex<Tokens>,
    pub(crate) installs: Mutex<Installs>,
    pub(crate) jobs: crate::jobs::Jobs,
    volatile: bool,
}

#[derive(Default)]
struct Queue {
    events: VecDeque<(Timestamp, Option<MacAddr>, EventKind)>,
    dropped: u64,
}

/// The system's clock.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// A UUID of version 7 (RFC 9562 section 5.7): sorted by first sight.
fn new_id(now: Timestamp) -> NodeId {
    // Without randomness two nodes of one millisecond would share an id; the counter below keeps them apart.
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let count = COUNTER.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    let mut id: [u8; 16] = rackbar_trust::random().unwrap_or_default();
    id[..6].copy_from_slice(&now.0.to_be_bytes()[2..]);
    id[14] ^= count[6];
    id[15] ^= count[7];
    id[6] = 0x70 | (id[6] & 0x0f);
    id[8] = 0x80 | (id[8] & 0x3f);
    NodeId(id)
}

pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Rack {
    /// Starts the view from what the store holds, and the thread that takes in events. The thread ends when the last
    /// handle is gone.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn start(store: Store, options: Options) -> Result<Self, StoreError> {
        let volatile = options.volatile || store.path().is_none();
        let mut mind = Mind::new(options.settings, new_id);
        for (id, json) in store.nodes()? {
            let recent = store.timeline(id, 96)?;
            match Record::restore(&json, store.newest_inventory(id)?, recent) {
                Ok(record) => mind.adopt(record),
                Err(error) => {
                    tracing::error!(node = %id, %error, "a node in the store cannot be read; it will be found again")
                }
            }
        }
        let leases = store
            .leases()?
            .into_iter()
            .map(|lease| (lease.address, lease))
            .collect();
        let tokens = Tokens::load(store.clone())?;
        let installs = Installs::load(store.clone())?;
        let (broadcast, _) = broadcast::channel(SUBSCRIBER_LAG);
        let to_all = broadcast.clone();
        store.set_listener(Arc::new(move |event| drop(to_all.send(Arc::new(event)))));
        let (probe, probes) = mpsc::channel(1_024);
        let inner = Arc::new(Inner {
            store,
            mind: Mutex::new(mind),
            revision: AtomicU64::new(1),
            broadcast,
            services: Mutex::default(),
            serving: Serving::default(),
            leases: Mutex::new(leases),
            queue: Mutex::default(),
            wake: Condvar::new(),
            probe,
            probes: Mutex::new(Some(probes)),
            connections: AtomicU64::new(0),
            door: crate::bmc::Door::new(),
            tokens: Mutex::new(tokens),
            installs: Mutex::new(installs),
            jobs: crate::jobs::Jobs::default(),
            volatile,
        });
        let weak = Arc::downgrade(&inner);
        std::thread::Builder::new()
            .name("rack".into())
            .spawn(move || {
                let mut ticked = std::time::Instant::now();
                while let Some(inner) = weak.upgrade() {
                    Self { inner }.take_in(&mut ticked);
                }
            })
            .map_err(|error| StoreError::Failed(format!("the rack's thread could not be started: {error}")))?;
        Ok(Self { inner })
    }

    /// One round of the thread: waits for events a little, takes them in, ticks once a second.
    fn take_in(&self, ticked: &mut std::time::Instant) {
        let queue = locked(&self.inner.queue);
        let (mut queue, _) = self
            .inner
            .wake
            .wait_timeout_while(queue, Duration::from_millis(250), |queue| {
                queue.events.is_empty() && queue.dropped == 0
            })
            .unwrap_or_else(PoisonError::into_inner);
        let events = std::mem::take(&mut queue.events);
        let dropped = std::mem::take(&mut queue.dropped);
        drop(queue);
        let tick = ticked.elapsed() >= TICK;
        if events.is_empty() && dropped == 0 && !tick {
            return;
        }
        self.with(|mind, now| {
            for (at, mac, kind) in events {
                mind.observe(at, mac, kind);
            }
            if dropped > 0 {
                let text =
                    format!("{dropped} events were not taken in: they came faster than this appliance can follow");
                mind.observe(
                    now,
                    None,
                    EventKind::Note {
                        text,
                        severity: Severity::Warning,
                    },
                );
            }
            if tick {
                mind.tick(now);
            }
        });
        if tick {
            *ticked = std::time::Instant::now();
            self.watch_store();
        }
    }

    /// Works on the mind and carries out what it leaves.
    pub(crate) fn with<T>(&self, work: impl FnOnce(&mut Mind, Timestamp) -> T) -> T {
        let mut mind = locked(&self.inner.mind);
        let at = now();
        let result = work(&mut mind, at);
        let out = mind.take_out(at);
        let mut nodes: Vec<(NodeId, Option<Vec<u8>>)> = out.removed.iter().map(|id| (*id, None)).collect();
        for id in &out.dirty {
            match mind.records.get(id).map(Record::to_json) {
                Some(Ok(json)) => nodes.push((*id, Some(json))),
                Some(Err(error)) => tracing::error!(node = %id, %error, "a node could not be written as JSON"),
                None => {}
            }
        }
        self.inner.store.record(nodes, out.events);
        for event in out.unkept {
            let _ = self.inner.broadcast.send(Arc::new(event));
        }
        for target in out.probe {
            // A full queue means a thousand BMCs wait already; the periodic look finds the rest.
            let _ = self.inner.probe.try_send(target);
        }
        if out.changed {
            self.inner.revision.fetch_add(1, Ordering::Release);
        }
        result
    }

    /// Looks at the mind and changes nothing.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&Mind) -> T) -> T {
        look(&locked(&self.inner.mind))
    }

    fn watch_store(&self) {
        let (state, severity) = match self.inner.store.trouble() {
            Some(error) => (format!("not writing: {error}"), Severity::Error),
            None if self.inner.volatile => (
                "in memory: everything is lost at power-off; `rackbar storage use DISK` gives it a disk".into(),
                Severity::Warning,
            ),
            None => ("writing".into(), Severity::Info),
        };
        self.set_service(ServiceStatus {
            name: "store".into(),
            state,
            severity,
            since: now(),
        });
    }

    /// All nodes, by name.
    pub fn nodes(&self) -> Vec<Arc<Node>> {
        let mut nodes: Vec<_> = locked(&self.inner.mind)
            .records
            .values()
            .map(|record| record.node.clone())
            .collect();
        nodes.sort_by(|a, b| a.name.cmp(&b.name));
        nodes
    }

    /// A node by its name, its id (also one that was merged into it), or one of its MAC addresses.
    pub fn node(&self, name_or_id: &str) -> Option<Arc<Node>> {
        let mind = locked(&self.inner.mind);
        if let Ok(id) = name_or_id.parse::<NodeId>() {
            return mind.node(id);
        }
        if let Ok(mac) = name_or_id.parse::<MacAddr>() {
            return mind.by_mac.get(&mac).and_then(|id| mind.node(*id));
        }
        mind.records
            .values()
            .find(|record| record.node.name == name_or_id)
            .map(|record| record.node.clone())
    }

    /// A number that grows with every change of a node.
    pub fn revision(&self) -> u64 {
        self.inner.revision.load(Ordering::Acquire)
    }

    /// What happened to a node, oldest first, including what happened to identities merged into it.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn timeline(&self, id: NodeId) -> Result<Vec<Event>, StoreError> {
        let ids = {
            let mind = locked(&self.inner.mind);
            let id = mind.resolve(id);
            let aliases = mind
                .records
                .get(&id)
                .map(|record| record.aliases.clone())
                .unwrap_or_default();
            std::iter::once(id).chain(aliases).collect::<Vec<_>>()
        };
        let mut events = Vec::new();
        for id in ids {
            events.extend(self.inner.store.timeline(id, TIMELINE)?);
        }
        events.sort_by_key(|event| event.seq);
        Ok(events)
    }

    /// Up to `limit` events of the journal after number `after`.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn events(&self, after: u64, limit: usize) -> Result<Vec<Event>, StoreError> {
        self.inner.store.events(after, limit)
    }

    /// Up to `limit` changes that somebody asked for with event numbers below `before`, newest first; of one person where `by`
    /// names one. The journal may have dropped them long ago.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn changes(&self, before: u64, limit: usize, by: Option<&str>) -> Result<Vec<Event>, StoreError> {
        self.inner.store.changes(before, limit, by)
    }

    /// Number of the newest event.
    pub fn last_seq(&self) -> u64 {
        self.inner.store.last_seq()
    }

    /// Every event from now on, once it is in the journal. Those of a flood that the journal does not keep have the number 0:
    /// what acts on events is not to miss one.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Event>> {
        self.inner.broadcast.subscribe()
    }

    /// The inventories kept of a node, oldest first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn inventory_history(&self, id: NodeId) -> Result<Vec<(Timestamp, Inventory)>, StoreError> {
        let id = self.look(|mind| mind.resolve(id));
        self.inner.store.inventories(id)
    }

    /// Gives a node a name.
    ///
    /// # Errors
    /// When there is no such node, the name is no host name, or another node has it.
    pub fn rename(&self, id: NodeId, name: &str) -> Result<(), RenameError> {
        self.rename_if(id, name, |_| true)
    }

    /// The same, only if it is still as its caller saw it; nobody can change it between that question and the new name.
    ///
    /// # Errors
    /// As [`Self::rename`]; [`RenameError::Changed`] when it is not.
    pub fn rename_if(&self, id: NodeId, name: &str, as_seen: impl FnOnce(&Node) -> bool) -> Result<(), RenameError> {
        if !is_host_name(name) {
            return Err(RenameError::BadName(name.into()));
        }
        self.with(|mind, now| {
            let id = mind.resolve(id);
            let taken = mind
                .records
                .values()
                .find(|one| one.node.name == name && one.node.id != id);
            if let Some(other) = taken.map(|one| one.node.id) {
                return Err(RenameError::Taken {
                    name: name.into(),
                    other,
                });
            }
            let record = mind.records.get_mut(&id).ok_or(RenameError::NoSuchNode(id))?;
            if !as_seen(&record.node) {
                return Err(RenameError::Changed(record.node.name.clone()));
            }
            let old = std::mem::replace(&mut record.edit().name, name.into());
            record.dirty = true;
            let text = format!("renamed from {old} to {name}");
            mind.emit(
                now,
                Some(id),
                None,
                EventKind::Note {
                    text,
                    severity: Severity::Info,
                },
            );
            Ok(())
        })
    }

    /// All leases, by address.
    pub fn leases(&self) -> Vec<Lease> {
        locked(&self.inner.leases).values().cloned().collect()
    }

    /// Which network and address the newest lease of each MAC address is of, that has not ended.
    pub(crate) fn leased(&self) -> Leased {
        let leases = locked(&self.inner.leases);
        let now = now();
        let bound = leases.values();
        let mut bound: Vec<&Lease> = bound
            .filter(|lease| lease.state == LeaseState::Bound && lease.expires > now)
            .collect();
        bound.sort_by_key(|lease| lease.expires);
        let of = |lease: &Lease| (lease.mac, (lease.network.clone(), lease.address.into()));
        bound.into_iter().map(of).collect()
    }

    /// True when `client` has an address that we gave to another machine than the one that `mac` is of. Only machines that are
    /// discovered are told apart: two interfaces of one that is not may still be taken for two. Where another server gives the
    /// addresses nothing is known.
    pub(crate) fn speaks_for_another(&self, client: IpAddr, mac: MacAddr) -> bool {
        let IpAddr::V4(client) = client else { return false };
        let holder = {
            let leases = locked(&self.inner.leases);
            let bound = leases.get(&client).filter(|lease| lease.state == LeaseState::Bound);
            bound.map(|lease| lease.mac).filter(|holder| *holder != mac)
        };
        let Some(holder) = holder else { return false };
        self.look(|mind| {
            let of = |mac| {
                let node = mind.node(*mind.by_mac.get(&mac)?)?;
                node.inventory.is_some().then_some(node.id)
            };
            matches!((of(holder), of(mac)), (Some(one), Some(other)) if one != other)
        })
    }

    /// Our services, by name.
    pub fn services(&self) -> Vec<ServiceStatus> {
        locked(&self.inner.services).values().cloned().collect()
    }

    /// Sets how a service is doing. A change becomes an event; `since` of one that says the same stays.
    pub fn set_service(&self, status: ServiceStatus) {
        let ServiceStatus {
            name, state, severity, ..
        } = status.clone();
        {
            let mut services = locked(&self.inner.services);
            if services
                .get(&name)
                .is_some_and(|old| old.state == state && old.severity == severity)
            {
                return;
            }
            services.insert(name.clone(), status);
        }
        self.queue_event(None, EventKind::Service { name, state, severity });
    }

    /// Replaces the configuration's part.
    pub fn configure(&self, settings: Settings) {
        self.with(|mind, _| mind.settings = settings);
    }

    /// The store beneath.
    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    /// Queues an event of a service; returns at once.
    pub(crate) fn queue_event(&self, mac: Option<MacAddr>, kind: EventKind) {
        let mut queue = locked(&self.inner.queue);
        if queue.events.len() >= MAX_QUEUED {
            queue.dropped += 1;
            return;
        }
        queue.events.push_back((now(), mac, kind));
        drop(queue);
        self.inner.wake.notify_one();
    }

    /// Records what a person or a program changed, and returns when the journal holds it: the audit trail is read
    /// right after a change, and must not lack it after a power cut.
    ///
    /// Blocks for one durable commit of the store.
    ///
    /// # Errors
    /// When the journal does not hold it durably.
    pub fn record_change(&self, kind: EventKind) -> Result<(), StoreError> {
        self.with(|mind, now| mind.observe(now, None, kind));
        self.inner.store.flush()
    }

    /// Leases are safe: show them, and look at BMCs that got one.
    pub(crate) fn leases_committed(&self, batch: &[Lease]) {
        let others: Vec<bool> = {
            let mut leases = locked(&self.inner.leases);
            let mut put = |lease: &Lease| leases.insert(lease.address, lease.clone());
            let before = batch.iter().map(|lease| put(lease).map(|old| old.mac));
            before.zip(batch).map(|(old, lease)| old != Some(lease.mac)).collect()
        };
        self.with(|mind, now| {
            let bound = |(lease, _): &(&Lease, bool)| lease.state == LeaseState::Bound;
            for (lease, other) in batch.iter().zip(others).filter(bound) {
                if mind.settings.role(&lease.network) == Some(Role::Bmc) {
                    mind.note_bmc_client(now, lease.mac);
                    // Once, and not with each renewal: a few BMCs ask for their lease with another MAC address than they tell.
                    if other {
                        mind.bmc_moved_in(lease.address.into(), lease.mac);
                    }
                    mind.out.probe.push(ProbeTarget {
                        address: lease.address.into(),
                        mac: Some(lease.mac),
                        opened: false,
                    });
                }
            }
        });
    }

    /// The addresses to be looked at for a BMC; only the first caller gets them.
    pub(crate) fn take_probes(&self) -> Option<mpsc::Receiver<ProbeTarget>> {
        locked(&self.inner.probes).take()
    }

    /// Changes a node's power, as [`Self::power_way`] does.
    ///
    /// # Errors
    /// As there.
    pub async fn power(&self, id: NodeId, action: PowerAction, by: &str) -> Result<(), PowerError> {
        self.power_way(id, action, by).await.map(drop)
    }

    /// Asks the node's BMC to change its power; where none is known or it is silent, the agent on the machine, which can
    /// shut down (`Off`, `Shutdown`) and restart (`Reset`). Says who did it.
    ///
    /// # Errors
    /// When the node is not known, has neither, or the one that was asked did not do it.
    pub async fn power_way(&self, id: NodeId, action: PowerAction, by: &str) -> Result<PowerWay, PowerError> {
        crate::power::power(self, id, action, by).await
    }
}

/// RFC 1123 section 2.1, in lower case.
pub(crate) fn is_host_name(name: &str) -> bool {
    let inside = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = name.as_bytes();
    (1..=63).contains(&bytes.len())
        && bytes.iter().all(|b| inside(*b) || *b == b'-')
        && bytes.first().is_some_and(|b| inside(*b))
        && bytes.last().is_some_and(|b| inside(*b))
}

//! The appliance's memory: the journal of events, leases, nodes, inventories, secrets, tokens, and the configuration
//! that last worked, in one redb file.
//!
//! One thread writes. Requests queue up while it commits, and whatever has gathered by then becomes the next commit,
//! so that a hundred leases acknowledged in the same moment cost one sync of the disk. Events are handed over without
//! waiting; leases, nodes and secrets can be waited for. A commit is durable when it returns (`Durability::Immediate`).
//!
//! redb refuses every write after one failed write until the file is opened again; the writer does that. While the
//! disk stays broken, writes that are waited for fail, and events are numbered, shown and kept in a bounded backlog.
//!
//! The file is created with mode 0600. The values of [`Table::Secrets`] are sealed in it ([`LockState`]); everything
//! else is not.

mod attached;
mod bmc;
mod break_glass;
mod changes;
mod error;
mod export;
mod queue;
mod records;
mod tables;
mod vault;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;

use rackbar_model::{Event, Inventory, Lease, NodeId, Timestamp};

pub use attached::{Attached, Attachments, Outgoing};
pub use bmc::{BmcLogin, Whose};
pub use break_glass::read_bmc_logins;
pub use error::StoreError;
pub use export::{ExportInfo, look_at_export};
pub use queue::Written;
pub use tables::SCHEMA;
pub use vault::{KEY_FILE_WARNING, LockState};

use queue::{Op, Queue};
use tables::Home;
use vault::Vault;

/// How a store is opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// Events kept; older ones are removed when the disk has nothing else to do.
    pub max_events: u64,
    /// Changes that people asked for, kept beyond what the journal still has of them.
    pub max_changes: u64,
    /// Inventories kept per node.
    pub max_inventories: usize,
}

impl Default for Options {
    fn default() -> Self {
        // About 300 bytes an event with its index: 60 MB of a data partition that has at least 256 MB.
        Self {
            max_events: 200_000,
            // Some 15 MB.
            max_changes: 50_000,
            max_inventories: 64,
        }
    }
}

/// The named values a store keeps beside nodes, leases and events.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Table {
    /// Keys and certificates of the site, passwords of BMCs: sealed at rest, and not to be had while the store is
    /// locked ([`StoreError::Locked`]).
    Secrets,
    /// Configurations that worked.
    Config,
    /// Boot tokens and agent sessions, by digest.
    Tokens,
    /// Certificates that BMCs are known by.
    Bmcs,
    /// What was learnt of machines' boot firmware, by MAC address.
    Firmware,
    /// The site in force, runs with the standing of their actions, what was installed where, and reports.
    Work,
    /// How far each webhook's receiver was told, by the hook's name.
    Webhooks,
    /// Locked repositories by name: the record, and each of its lists of packages.
    Repositories,
    /// What was registered for machines in registries of services elsewhere.
    Registrations,
}

/// A key and its value.
pub type NamedValue = (Vec<u8>, Vec<u8>);

/// Called by the writer with each event once it has its number and, unless the disk is broken, is safe.
pub type Listener = Arc<dyn Fn(Event) + Send + Sync>;

/// A handle on the store; clones share it. The last one to go closes the file in good order.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
    _closer: Arc<Closer>,
}

pub(crate) struct Shared {
    pub(crate) home: Home,
    pub(crate) options: Options,
    pub(crate) db: RwLock<Option<redb::Database>>,
    pub(crate) queue: Queue,
    pub(crate) last_seq: AtomicU64,
    pub(crate) listener: Mutex<Option<Listener>>,
    pub(crate) trouble: Mutex<Option<StoreError>>,
    /// Held for reading while a secret is sealed and queued, for writing while the key changes.
    pub(crate) vault: RwLock<Vault>,
    /// Commits that are still taken, for [`Store::cut_power_after`].
    pub(crate) commits_left: AtomicU64,
}

struct Closer {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Drop for Closer {
    fn drop(&mut self) {
        self.shared.queue.close();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.thread().id() != std::thread::current().id()
        {
            // The writer only ends after it has written what was queued.
            let _ = thread.join();
        }
    }
}

impl Store {
    /// Opens the store at `path`, or creates it, with default [`Options`].
    ///
    /// # Errors
    /// When the file cannot be read or written, is no store, is in use, or is of a newer version of Rackbar.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        Self::open_with(path, Options::default())
    }

    /// Opens the store at `path`, or creates it.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_with(path: impl AsRef<Path>, options: Options) -> Result<Self, StoreError> {
        Self::start(Home::File(path.as_ref().to_path_buf()), options)
    }

    /// A store in memory, for an appliance without a data partition: gone at power-off.
    ///
    /// # Errors
    /// When memory is short.
    pub fn in_memory(options: Options) -> Result<Self, StoreError> {
        Self::start(Home::Memory, options)
    }

    fn start(home: Home, options: Options) -> Result<Self, StoreError> {
        let db = home.open()?;
        let (last_seq, count) = tables::extent(&db)?;
        let vault = Vault::open(&db, &home)?;
        let shared = Arc::new(Shared {
            home,
            options,
            db: RwLock::new(Some(db)),
            queue: Queue::default(),
            last_seq: AtomicU64::new(last_seq),
            listener: Mutex::new(None),
            trouble: Mutex::new(None),
            vault: RwLock::new(vault),
            commits_left: AtomicU64::new(u64::MAX),
        });
        let for_thread = shared.clone();
        let thread = std::thread::Builder::new()
            .name("store".into())
            .spawn(move || writer::run(&for_thread, last_seq, count))
            .map_err(|error| StoreError::Failed(format!("the store's thread could not be started: {error}")))?;
        Ok(Self {
            shared: shared.clone(),
            _closer: Arc::new(Closer {
                shared,
                thread: Mutex::new(Some(thread)),
            }),
        })
    }

    /// The file; `None` in memory.
    pub fn path(&self) -> Option<PathBuf> {
        match &self.shared.home {
            Home::File(path) => Some(path.clone()),
            Home::Memory => None,
        }
    }

    /// Sets who is told of each event. Events of before are not told again.
    pub fn set_listener(&self, listener: Listener) {
        *self.shared.listener.lock().unwrap_or_else(PoisonError::into_inner) = Some(listener);
    }

    /// What is wrong with the disk now, if anything.
    pub fn trouble(&self) -> Option<StoreError> {
        self.shared
            .trouble
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Queues an event for the journal; its `seq` is given there. Returns at once. False when the queue is full and
    /// the event was dropped; the journal then says how many.
    pub fn append(&self, event: Event) -> bool {
        self.shared.queue.push_event(event)
    }

    /// Records leases durably; one commit for all, shared with whoever else waits.
    ///
    /// # Errors
    /// When they are not safe.
    pub fn commit_leases(&self, leases: &[Lease]) -> Result<(), StoreError> {
        if leases.is_empty() {
            return Ok(());
        }
        let ops = leases.iter().map(records::lease_op).collect::<Result<Vec<_>, _>>()?;
        self.shared.queue.push_and_wait(ops)
    }

    /// The newest lease of every address.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn leases(&self) -> Result<Vec<Lease>, StoreError> {
        self.read(tables::leases)
    }

    /// Queues the record of a node, replacing the one before; returns at once.
    pub fn save_node(&self, node: NodeId, json: Vec<u8>) {
        self.shared.queue.push(Op::Node { node, json: Some(json) });
    }

    /// Queues what changed of nodes (`None` removes a record, whose events stay) and what is told of that; returns at once. A power cut leaves neither
    /// without the other.
    pub fn record(&self, nodes: Vec<(NodeId, Option<Vec<u8>>)>, events: Vec<Event>) {
        let nodes = nodes.into_iter().map(|(node, json)| Op::Node { node, json });
        self.shared
            .queue
            .push_all(nodes.chain(events.into_iter().map(Op::Event)).collect());
    }

    /// The records of all nodes.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn nodes(&self) -> Result<Vec<(NodeId, Vec<u8>)>, StoreError> {
        self.read(tables::nodes)
    }

    /// Queues an inventory for a node's history; returns at once.
    pub fn save_inventory(&self, node: NodeId, at: Timestamp, inventory: &Inventory) {
        match serde_json::to_vec(inventory) {
            Ok(json) => self.shared.queue.push(Op::Inventory { node, at, json }),
            Err(error) => tracing::error!(%node, %error, "an inventory could not be written as JSON"),
        }
    }

    /// The inventories kept of a node, oldest first.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn inventories(&self, node: NodeId) -> Result<Vec<(Timestamp, Inventory)>, StoreError> {
        self.read(|tx| tables::inventories(tx, node))
    }

    /// The newest inventory of a node.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn newest_inventory(&self, node: NodeId) -> Result<Option<(Timestamp, Inventory)>, StoreError> {
        self.read(|tx| tables::newest_inventory(tx, node))
    }

    /// Up to `limit` events after number `after`, oldest first.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn events(&self, after: u64, limit: usize) -> Result<Vec<Event>, StoreError> {
        self.read(|tx| tables::events(tx, after, limit))
    }

    /// Up to `limit` changes that somebody asked for with event numbers below `before`, newest first; of one person where `by`
    /// names one. The journal may have dropped them long ago.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn changes(&self, before: u64, limit: usize, by: Option<&str>) -> Result<Vec<Event>, StoreError> {
        self.read(|tx| changes::newest(tx, before, limit, by))
    }

    /// The newest `limit` events of a node, oldest first.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn timeline(&self, node: NodeId, limit: usize) -> Result<Vec<Event>, StoreError> {
        self.read(|tx| tables::timeline(tx, node, limit))
    }

    /// Number of the newest event; 0 before the first. Never lower than that of an event that was read before; its own event
    /// may be a moment away from being readable.
    pub fn last_seq(&self) -> u64 {
        self.shared.last_seq.load(Ordering::Acquire)
    }

    /// Records a named value durably.
    ///
    /// # Errors
    /// When it is not safe.
    pub fn put(&self, table: Table, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.put_all(table, &[(key, Some(value))])
    }

    /// Records or removes (`None`) several named values and tells of them, in one durable commit: neither is ever there without
    /// the other. Of what is refused nothing is told.
    ///
    /// # Errors
    /// As [`Self::put_all`].
    pub fn put_all_telling(
        &self,
        table: Table,
        entries: &[(&[u8], Option<&[u8]>)],
        events: Vec<Event>,
    ) -> Result<(), StoreError> {
        let vault = self.vault();
        let values = entries.iter().map(|(key, value)| value_op(&vault, table, key, *value));
        let ops = values.chain(events.into_iter().map(|event| Ok(Op::Outcome(event))));
        let written = self.shared.queue.push_for(ops.collect::<Result<_, _>>()?)?;
        drop(vault);
        written.wait()
    }

    /// Records or removes (`None`) several named values in one durable commit: all or nothing.
    ///
    /// # Errors
    /// When they are not safe; [`StoreError::Locked`] for secrets while they are locked.
    pub fn put_all(&self, table: Table, entries: &[(&[u8], Option<&[u8]>)]) -> Result<(), StoreError> {
        self.begin_put_all(table, entries)?.wait()
    }

    /// As [`Self::put_all`], but returns at once with something to wait on: whoever holds a lock lets go of it before, and
    /// many share one commit. Written in the order of these calls.
    ///
    /// # Errors
    /// [`StoreError::Locked`] for secrets while they are locked; [`StoreError::Closed`].
    pub fn begin_put_all(&self, table: Table, entries: &[(&[u8], Option<&[u8]>)]) -> Result<Written, StoreError> {
        let vault = self.vault();
        let ops = entries.iter().map(|(key, value)| value_op(&vault, table, key, *value));
        self.shared.queue.push_for(ops.collect::<Result<_, _>>()?)
    }

    /// Queues a named value, or its removal (`None`); returns at once. For what may be lost in a power cut.
    pub fn queue(&self, table: Table, key: &[u8], value: Option<&[u8]>) {
        let vault = self.vault();
        match value_op(&vault, table, key, value) {
            Ok(op) => self.shared.queue.push(op),
            Err(error) => tracing::error!(%error, "a value could not be queued"),
        }
    }

    /// A named value.
    ///
    /// # Errors
    /// When the file cannot be read; [`StoreError::Locked`] for secrets while they are locked.
    pub fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let vault = self.vault();
        let value = self.read(|tx| tables::value(tx, table, key))?;
        match table {
            Table::Secrets => {
                vault.key()?;
                value.map(|sealed| vault.unseal(key, &sealed)).transpose()
            }
            _ => Ok(value),
        }
    }

    /// All named values of a table, by key.
    ///
    /// # Errors
    /// When the file cannot be read; [`StoreError::Locked`] for secrets while they are locked.
    pub fn list(&self, table: Table) -> Result<Vec<NamedValue>, StoreError> {
        let vault = self.vault();
        let mut values = self.read(|tx| tables::values(tx, table))?;
        if table == Table::Secrets {
            vault.key()?;
            for (key, value) in &mut values {
                *value = vault.unseal(key, value)?;
            }
        }
        Ok(values)
    }

    /// Waits until everything queued so far is written.
    ///
    /// # Errors
    /// When the disk is broken.
    pub fn flush(&self) -> Result<(), StoreError> {
        self.shared.queue.push_and_wait(Vec::new())
    }

    /// Takes so many commits more and refuses every other, as a disk does whose power went: for trying what a power cut leaves
    /// behind.
    pub fn cut_power_after(&self, commits: u64) {
        self.shared.commits_left.store(commits, Ordering::Release);
    }

    /// Writes what is queued and closes the file; every later request through any handle fails.
    pub fn close(&self) {
        self.shared.queue.close();
        let thread = self
            ._closer
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }

    fn read<T>(&self, look: impl FnOnce(&redb::ReadTransaction) -> Result<T, StoreError>) -> Result<T, StoreError> {
        use redb::ReadableDatabase as _;
        let guard = self.shared.db.read().unwrap_or_else(PoisonError::into_inner);
        let db = guard.as_ref().ok_or(StoreError::Closed)?;
        let tx = db.begin_read().map_err(|error| StoreError::from_redb(error.into()))?;
        look(&tx)
    }
}

fn value_op(vault: &Vault, table: Table, key: &[u8], value: Option<&[u8]>) -> Result<Op, StoreError> {
    let value = match (table, value) {
        (Table::Secrets, Some(plain)) => Some(vault.seal(key, plain)?),
        (_, value) => value.map(<[u8]>::to_vec),
    };
    let key = key.to_vec();
    Ok(Op::Value { table, key, value })
}

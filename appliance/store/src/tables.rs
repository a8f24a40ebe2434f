//! The tables and what is done to them in one transaction.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rackbar_model::{Event, Inventory, Lease, NodeId, Timestamp};
use redb::{
    Database, ReadTransaction, ReadableDatabase as _, ReadableTable, ReadableTableMetadata as _, TableDefinition,
};

use crate::changes::{self, CHANGES};
use crate::queue::Op;
use crate::{NamedValue, Options, StoreError, Table, records};

/// Version of the tables. Raised when an older program could no longer read them.
///
/// 2: secrets are sealed. A store of version 1 becomes one of version 2 when it is opened.
pub const SCHEMA: u64 = 2;

/// Cache of redb in bytes. Its default of 1 GiB is more than the memory of a small appliance.
const CACHE: usize = 16 << 20;

/// Files up to this size are left as they are.
const COMPACT_FROM: u64 = 16 << 20;

pub(crate) type Bytes = TableDefinition<'static, &'static [u8], &'static [u8]>;
type BytesTable = redb::ReadOnlyTable<&'static [u8], &'static [u8]>;

const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
pub(crate) const EVENTS: TableDefinition<u64, &[u8]> = TableDefinition::new("events");
/// Key: node id, then the event's number in big-endian, so that a range is a timeline.
const NODE_EVENTS: TableDefinition<&[u8], ()> = TableDefinition::new("node_events");
const LEASES: Bytes = TableDefinition::new("leases");
const NODES: Bytes = TableDefinition::new("nodes");
/// Key: node id, then milliseconds in big-endian.
const INVENTORIES: Bytes = TableDefinition::new("inventories");
const SECRETS: Bytes = TableDefinition::new("secrets");
const CONFIG: Bytes = TableDefinition::new("config");
const TOKENS: Bytes = TableDefinition::new("tokens");
const BMCS: Bytes = TableDefinition::new("bmcs");
/// One record, [`LOCK_KEY`]: the sealing key of the secrets, sealed.
const LOCK: Bytes = TableDefinition::new("lock");
const LOCK_KEY: &[u8] = b"lock";
const WORK: Bytes = TableDefinition::new("work");
const FIRMWARE: Bytes = TableDefinition::new("firmware");
const WEBHOOKS: Bytes = TableDefinition::new("webhooks");
const REPOSITORIES: Bytes = TableDefinition::new("repositories");
const REGISTRATIONS: Bytes = TableDefinition::new("registrations");

const fn definition(table: Table) -> Bytes {
    match table {
        Table::Secrets => SECRETS,
        Table::Config => CONFIG,
        Table::Tokens => TOKENS,
        Table::Bmcs => BMCS,
        Table::Work => WORK,
        Table::Firmware => FIRMWARE,
        Table::Webhooks => WEBHOOKS,
        Table::Repositories => REPOSITORIES,
        Table::Registrations => REGISTRATIONS,
    }
}

/// Tables of an export by their numbers there; a number is never given to another table. A new [`Table`] goes to the end.
/// The lock is not among them: an export has its own.
const NUMBERED: [Bytes; 13] = [
    LEASES,
    NODES,
    INVENTORIES,
    SECRETS,
    CONFIG,
    TOKENS,
    BMCS,
    WORK,
    FIRMWARE,
    WEBHOOKS,
    REPOSITORIES,
    REGISTRATIONS,
    CHANGES,
];
pub(crate) const SECRETS_NUMBER: u8 = 3;
const EVENTS_NUMBER: u8 = 100;

/// True for the number of a table that an export of today may hold.
pub(crate) fn is_exported(number: u8) -> bool {
    number == EVENTS_NUMBER || usize::from(number) < NUMBERED.len()
}

/// Takes a record: the table's number, key and value.
pub(crate) type Taker<'a> = dyn FnMut(u8, &[u8], &[u8]) -> Result<(), StoreError> + 'a;

/// Where a store lives.
pub(crate) enum Home {
    File(PathBuf),
    Memory,
}

impl Home {
    pub(crate) fn open(&self) -> Result<Database, StoreError> {
        let mut builder = Database::builder();
        builder.set_cache_size(CACHE);
        match self {
            Self::Memory => {
                let db = builder
                    .create_with_backend(redb::backends::InMemoryBackend::new())
                    .map_err(|error| StoreError::Failed(error.to_string()))?;
                initialise(&db)?;
                Ok(db)
            }
            Self::File(path) => {
                if !path.exists() {
                    create(&builder, path)?;
                }
                let mut db = builder.open(path).map_err(|error| StoreError::opening(path, error))?;
                check_schema(&db, path)?;
                changes::take_over(&db)?;
                compact(&mut db, path);
                Ok(db)
            }
        }
    }
}

/// Makes the file whole beside its place and moves it there: a power cut leaves no half-made store.
fn create(builder: &redb::Builder, path: &Path) -> Result<(), StoreError> {
    let draft = path.with_extension("new");
    drop(empty(builder, &draft)?);
    std::fs::rename(&draft, path)
        .and_then(|()| sync_folder(path))
        .map_err(|error| StoreError::Failed(format!("{} could not be created: {error}", path.display())))
}

/// A new store that is not in its place yet.
pub(crate) fn draft(path: &Path) -> Result<Database, StoreError> {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE);
    empty(&builder, path)
}

fn empty(builder: &redb::Builder, draft: &Path) -> Result<Database, StoreError> {
    let failed =
        |error: std::io::Error| StoreError::Failed(format!("{} could not be created: {error}", draft.display()));
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(draft)
        .map_err(failed)?;
    let db = builder
        .create_file(file)
        .map_err(|error| StoreError::opening(draft, error))?;
    initialise(&db)?;
    Ok(db)
}

/// Every record of every table that is exported, as its bytes.
pub(crate) fn each(tx: &ReadTransaction, take: &mut Taker<'_>) -> Result<(), StoreError> {
    for (number, definition) in (0u8..).zip(NUMBERED) {
        let Some(table) = present(tx, definition)? else {
            continue;
        };
        for entry in table.iter()? {
            let (key, value) = entry?;
            take(number, key.value(), value.value())?;
        }
    }
    for entry in tx.open_table(EVENTS)?.iter()? {
        let (seq, json) = entry?;
        take(EVENTS_NUMBER, &seq.value().to_be_bytes(), json.value())?;
    }
    Ok(())
}

/// Records as [`each`] gave them, in one commit.
pub(crate) fn insert(db: &Database, records: &[(u8, Vec<u8>, Vec<u8>)]) -> Result<(), StoreError> {
    let tx = db.begin_write()?;
    for (number, key, value) in records {
        if let Some(definition) = NUMBERED.get(usize::from(*number)) {
            tx.open_table(*definition)?.insert(key.as_slice(), value.as_slice())?;
            continue;
        }
        let Ok(seq) = <[u8; 8]>::try_from(key.as_slice()).map(u64::from_be_bytes) else {
            return Err(StoreError::BadExport("an event in it has no number".into()));
        };
        tx.open_table(EVENTS)?.insert(seq, value.as_slice())?;
        let Some(event) = records::event(value) else { continue };
        // An export of before their table has changes in the journal alone.
        changes::keep(&tx, &event, value)?;
        if let Some(node) = event.node {
            tx.open_table(NODE_EVENTS)?.insert(keyed(node, seq).as_slice(), ())?;
        }
    }
    Ok(tx.commit()?)
}

/// Makes a rename in the folder of `path` survive a power cut.
pub(crate) fn sync_folder(path: &Path) -> std::io::Result<()> {
    match path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

/// Gives back what is free when that is most of the file: a journal that was trimmed leaves its pages behind, and the
/// data partition may be small. Only at opening, because nothing may read or write meanwhile.
fn compact(db: &mut Database, path: &Path) {
    let free = |db: &Database| -> Result<bool, redb::Error> {
        let stats = db.begin_write()?.stats()?;
        let used = stats.allocated_pages().saturating_mul(stats.page_size() as u64);
        let size = std::fs::metadata(path)?.len();
        Ok(size > COMPACT_FROM && used < size / 2)
    };
    let done = free(db).and_then(|much| if much { Ok(db.compact()?) } else { Ok(false) });
    if let Err(error) = done {
        tracing::warn!(%error, "the store could not be made smaller");
    }
}

/// Every table is made at once, so that readers need not ask whether one exists.
fn initialise(db: &Database) -> Result<(), StoreError> {
    let tx = db.begin_write()?;
    tx.open_table(META)?.insert("schema", SCHEMA)?;
    tx.open_table(EVENTS)?;
    tx.open_table(NODE_EVENTS)?;
    for table in [
        LEASES,
        NODES,
        INVENTORIES,
        SECRETS,
        CONFIG,
        TOKENS,
        BMCS,
        WORK,
        FIRMWARE,
        WEBHOOKS,
        REPOSITORIES,
        CHANGES,
        LOCK,
    ] {
        tx.open_table(table)?;
    }
    Ok(tx.commit()?)
}

fn check_schema(db: &Database, path: &Path) -> Result<(), StoreError> {
    let tx = db.begin_read()?;
    let damaged = |reason: &str| StoreError::Damaged {
        path: path.display().to_string(),
        reason: reason.into(),
    };
    let meta = tx
        .open_table(META)
        .map_err(|_| damaged("it is a redb file but not a store of Rackbar"))?;
    match meta.get("schema")?.map(|found| found.value()) {
        Some(1..=SCHEMA) => Ok(()),
        Some(found) if found > SCHEMA => Err(StoreError::Newer {
            path: path.display().to_string(),
            found,
            known: SCHEMA,
        }),
        _ => Err(damaged("it does not say its schema")),
    }
}

/// The lock record; `None` in a store of version 1.
pub(crate) fn lock(db: &Database) -> Result<Option<Vec<u8>>, StoreError> {
    lock_record(&db.begin_read()?)
}

pub(crate) fn lock_record(tx: &ReadTransaction) -> Result<Option<Vec<u8>>, StoreError> {
    match tx.open_table(LOCK) {
        Ok(table) => Ok(table.get(LOCK_KEY)?.map(|record| record.value().to_vec())),
        Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Makes a store of version 1 one of version 2, in one commit: every secret sealed, the lock recorded.
pub(crate) fn reseal(
    db: &Database,
    lock: &[u8],
    seal: impl Fn(&[u8], &[u8]) -> Result<Vec<u8>, StoreError>,
) -> Result<(), StoreError> {
    let plain = values(&db.begin_read()?, Table::Secrets)?;
    let tx = db.begin_write()?;
    {
        let mut secrets = tx.open_table(SECRETS)?;
        for (name, value) in plain {
            secrets.insert(name.as_slice(), seal(&name, &value)?.as_slice())?;
        }
        tx.open_table(BMCS)?;
        tx.open_table(LOCK)?.insert(LOCK_KEY, lock)?;
        tx.open_table(META)?.insert("schema", SCHEMA)?;
    }
    Ok(tx.commit()?)
}

/// Number of the newest event and how many there are.
pub(crate) fn extent(db: &Database) -> Result<(u64, u64), StoreError> {
    let tx = db.begin_read()?;
    let events = tx.open_table(EVENTS)?;
    let last = events.last()?.map_or(0, |(seq, _)| seq.value());
    Ok((last, events.len()?))
}

/// Carries out `ops` in order in one durable commit.
pub(crate) fn write(db: &Database, ops: &[Op], options: &Options) -> Result<(), StoreError> {
    let tx = db.begin_write()?;
    {
        let mut events = tx.open_table(EVENTS)?;
        let mut node_events = tx.open_table(NODE_EVENTS)?;
        let mut leases = tx.open_table(LEASES)?;
        let mut nodes = tx.open_table(NODES)?;
        let mut inventories = tx.open_table(INVENTORIES)?;
        for op in ops {
            match op {
                Op::Event(event) | Op::Outcome(event) => {
                    let json = serde_json::to_vec(event).map_err(|error| StoreError::Failed(error.to_string()))?;
                    events.insert(event.seq, json.as_slice())?;
                    changes::keep(&tx, event, &json)?;
                    if let Some(node) = event.node {
                        node_events.insert(keyed(node, event.seq).as_slice(), ())?;
                    }
                }
                Op::Lease { address, value } => {
                    leases.insert(address.as_slice(), value.as_slice())?;
                }
                Op::Node { node, json: Some(json) } => {
                    nodes.insert(node.0.as_slice(), json.as_slice())?;
                }
                Op::Node { node, json: None } => {
                    nodes.remove(node.0.as_slice())?;
                }
                Op::Inventory { node, at, json } => {
                    inventories.insert(keyed(*node, at.0).as_slice(), json.as_slice())?;
                    trim_inventories(&mut inventories, *node, options.max_inventories)?;
                }
                Op::Value { table, key, value } => {
                    let mut values = tx.open_table(definition(*table))?;
                    match value {
                        Some(value) => drop(values.insert(key.as_slice(), value.as_slice())?),
                        None => drop(values.remove(key.as_slice())?),
                    }
                }
                Op::Lock(record) => drop(tx.open_table(LOCK)?.insert(LOCK_KEY, record.as_slice())?),
            }
        }
    }
    Ok(tx.commit()?)
}

fn trim_inventories(
    table: &mut redb::Table<'_, &'static [u8], &'static [u8]>,
    node: NodeId,
    max: usize,
) -> Result<(), StoreError> {
    let (first, last) = (keyed(node, 0), keyed(node, u64::MAX));
    let keys = table
        .range(first.as_slice()..=last.as_slice())?
        .map(|entry| entry.map(|(key, _)| key.value().to_vec()))
        .collect::<Result<Vec<_>, _>>()?;
    for key in keys.iter().take(keys.len().saturating_sub(max)) {
        table.remove(key.as_slice())?;
    }
    Ok(())
}

/// Removes the `count` oldest events, and changes beyond their own bound; says how many events went.
pub(crate) fn trim(db: &Database, count: u64, options: &Options) -> Result<u64, StoreError> {
    let tx = db.begin_write()?;
    let mut removed = 0;
    {
        let mut events = tx.open_table(EVENTS)?;
        let mut node_events = tx.open_table(NODE_EVENTS)?;
        while removed < count {
            let Some((seq, json)) = events.pop_first()? else { break };
            if let Some(node) = records::event(json.value()).and_then(|event| event.node) {
                node_events.remove(keyed(node, seq.value()).as_slice())?;
            }
            removed += 1;
        }
    }
    changes::trim(&tx, options.max_changes)?;
    tx.commit()?;
    Ok(removed)
}

fn keyed(node: NodeId, number: u64) -> [u8; 24] {
    let mut key = [0; 24];
    key[..16].copy_from_slice(&node.0);
    key[16..].copy_from_slice(&number.to_be_bytes());
    key
}

fn number_of(key: &[u8]) -> u64 {
    key.get(16..24)
        .and_then(|tail| tail.try_into().ok())
        .map_or(0, u64::from_be_bytes)
}

pub(crate) fn leases(tx: &ReadTransaction) -> Result<Vec<Lease>, StoreError> {
    let table = tx.open_table(LEASES)?;
    let mut leases = Vec::new();
    for entry in table.iter()? {
        let (_, value) = entry?;
        match records::lease(value.value()) {
            Some(lease) => leases.push(lease),
            None => tracing::warn!("a lease in the store is of a form this program does not know; skipped"),
        }
    }
    Ok(leases)
}

pub(crate) fn nodes(tx: &ReadTransaction) -> Result<Vec<(NodeId, Vec<u8>)>, StoreError> {
    let table = tx.open_table(NODES)?;
    let mut nodes = Vec::new();
    for entry in table.iter()? {
        let (key, value) = entry?;
        if let Ok(id) = key.value().try_into() {
            nodes.push((NodeId(id), value.value().to_vec()));
        }
    }
    Ok(nodes)
}

pub(crate) fn inventories(tx: &ReadTransaction, node: NodeId) -> Result<Vec<(Timestamp, Inventory)>, StoreError> {
    let table = tx.open_table(INVENTORIES)?;
    let (first, last) = (keyed(node, 0), keyed(node, u64::MAX));
    let mut found = Vec::new();
    for entry in table.range(first.as_slice()..=last.as_slice())? {
        let (key, value) = entry?;
        if let Ok(inventory) = serde_json::from_slice(value.value()) {
            found.push((Timestamp(number_of(key.value())), inventory));
        }
    }
    Ok(found)
}

pub(crate) fn newest_inventory(
    tx: &ReadTransaction,
    node: NodeId,
) -> Result<Option<(Timestamp, Inventory)>, StoreError> {
    let table = tx.open_table(INVENTORIES)?;
    let (first, last) = (keyed(node, 0), keyed(node, u64::MAX));
    for entry in table.range(first.as_slice()..=last.as_slice())?.rev() {
        let (key, value) = entry?;
        if let Ok(inventory) = serde_json::from_slice(value.value()) {
            return Ok(Some((Timestamp(number_of(key.value())), inventory)));
        }
    }
    Ok(None)
}

pub(crate) fn events(tx: &ReadTransaction, after: u64, limit: usize) -> Result<Vec<Event>, StoreError> {
    let table = tx.open_table(EVENTS)?;
    let mut found = Vec::new();
    for entry in table.range(after.saturating_add(1)..)? {
        if found.len() >= limit {
            break;
        }
        found.extend(records::event(entry?.1.value()));
    }
    Ok(found)
}

pub(crate) fn timeline(tx: &ReadTransaction, node: NodeId, limit: usize) -> Result<Vec<Event>, StoreError> {
    let index = tx.open_table(NODE_EVENTS)?;
    let table = tx.open_table(EVENTS)?;
    let (first, last) = (keyed(node, 0), keyed(node, u64::MAX));
    let mut found = Vec::new();
    for entry in index.range(first.as_slice()..=last.as_slice())?.rev().take(limit) {
        if let Some(json) = table.get(number_of(entry?.0.value()))? {
            found.extend(records::event(json.value()));
        }
    }
    found.reverse();
    Ok(found)
}

pub(crate) fn value(tx: &ReadTransaction, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
    let Some(table) = opened(tx, table)? else {
        return Ok(None);
    };
    Ok(table.get(key)?.map(|value| value.value().to_vec()))
}

pub(crate) fn values(tx: &ReadTransaction, table: Table) -> Result<Vec<NamedValue>, StoreError> {
    let Some(table) = opened(tx, table)? else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    for entry in table.iter()? {
        let (key, value) = entry?;
        found.push((key.value().to_vec(), value.value().to_vec()));
    }
    Ok(found)
}

/// A table of named values; `None` in a file of an earlier version that has not got it yet: the first write makes it.
fn opened(tx: &ReadTransaction, table: Table) -> Result<Option<BytesTable>, StoreError> {
    present(tx, definition(table))
}

pub(crate) fn present(tx: &ReadTransaction, definition: Bytes) -> Result<Option<BytesTable>, StoreError> {
    match tx.open_table(definition) {
        Ok(table) => Ok(Some(table)),
        Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

//! The audit trail. A change that somebody asked for is an event as others are, and the journal drops its oldest events: one
//! rack that is brought up would wash out who changed what. Changes stand here besides, with a bound of their own.

use rackbar_model::{Event, EventKind};
use redb::{
    Database, ReadTransaction, ReadableDatabase as _, ReadableTable, ReadableTableMetadata as _, WriteTransaction,
};

use crate::tables::{Bytes, EVENTS, present};
use crate::{StoreError, records};

/// Key: the event's number in big-endian. Value: the event as the journal has it.
pub(crate) const CHANGES: Bytes = Bytes::new("changes");

/// Keeps an event that is a change; `json` is how the journal has it.
pub(crate) fn keep(tx: &WriteTransaction, event: &Event, json: &[u8]) -> Result<(), StoreError> {
    if matches!(event.kind, EventKind::Changed { .. }) {
        let number = event.seq.to_be_bytes();
        tx.open_table(CHANGES)?.insert(number.as_slice(), json)?;
    }
    Ok(())
}

/// Removes the oldest beyond `max`.
pub(crate) fn trim(tx: &WriteTransaction, max: u64) -> Result<(), StoreError> {
    let mut changes = tx.open_table(CHANGES)?;
    while changes.len()? > max {
        changes.pop_first()?;
    }
    Ok(())
}

/// Up to `limit` changes with numbers below `before`, newest first; of one person where `by` names one.
pub(crate) fn newest(
    tx: &ReadTransaction,
    before: u64,
    limit: usize,
    by: Option<&str>,
) -> Result<Vec<Event>, StoreError> {
    let Some(changes) = present(tx, CHANGES)? else {
        return Ok(Vec::new());
    };
    let before = before.to_be_bytes();
    let mut found = Vec::new();
    for entry in changes.range(..before.as_slice())?.rev() {
        if found.len() >= limit {
            break;
        }
        let event = records::event(entry?.1.value());
        let of_whom = |event: &Event| match &event.kind {
            EventKind::Changed { by: who, .. } => by.is_none_or(|by| by == who),
            _ => false,
        };
        found.extend(event.filter(of_whom));
    }
    Ok(found)
}

/// Gives a store of before this table the changes that its journal still has.
pub(crate) fn take_over(db: &Database) -> Result<(), StoreError> {
    let read = db.begin_read()?;
    if present(&read, CHANGES)?.is_some() {
        return Ok(());
    }
    let tx = db.begin_write()?;
    tx.open_table(CHANGES)?;
    for entry in read.open_table(EVENTS)?.iter()? {
        let (_, json) = entry?;
        if let Some(event) = records::event(json.value()) {
            keep(&tx, &event, json.value())?;
        }
    }
    Ok(tx.commit()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Store;

    fn tell(store: &Store, kind: EventKind) {
        let event = Event {
            seq: 0,
            at: rackbar_model::Timestamp(7),
            node: None,
            mac: None,
            kind,
        };
        assert!(store.append(event));
    }

    #[test]
    fn a_store_of_before_takes_over_what_its_journal_has_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.redb");
        let store = Store::open(&path).unwrap();
        let by = || String::from("anna");
        tell(
            &store,
            EventKind::Note {
                text: by(),
                severity: rackbar_model::Severity::Info,
            },
        );
        tell(
            &store,
            EventKind::Changed {
                by: by(),
                what: by(),
                outcome: by(),
                ok: false,
            },
        );
        store.flush().unwrap();
        let before = store.changes(u64::MAX, 9, None).unwrap();
        assert_eq!(before.len(), 1);
        drop(store);
        let db = Database::open(&path).unwrap();
        let tx = db.begin_write().unwrap();
        assert!(tx.delete_table(CHANGES).unwrap());
        tx.commit().unwrap();
        drop(db);
        let store = Store::open(&path).unwrap();
        assert_eq!(store.changes(u64::MAX, 9, None).unwrap(), before);
        drop(store);
        // Once it is there, it is what counts: the journal would not be read again for it.
        let db = Database::open(&path).unwrap();
        let tx = db.begin_write().unwrap();
        trim(&tx, 0).unwrap();
        tx.commit().unwrap();
        drop(db);
        let store = Store::open(&path).unwrap();
        assert_eq!(store.changes(u64::MAX, 9, None).unwrap(), []);
        assert_eq!(store.events(0, 9).unwrap().len(), 2);
    }

    #[test]
    fn an_export_of_before_brings_the_changes_of_its_journal() {
        let event = Event {
            seq: 5,
            at: rackbar_model::Timestamp(7),
            node: None,
            mac: None,
            kind: EventKind::Changed {
                by: "anna".into(),
                what: "site".into(),
                outcome: "done".into(),
                ok: true,
            },
        };
        let record = (100, 5u64.to_be_bytes().to_vec(), serde_json::to_vec(&event).unwrap());
        let folder = tempfile::tempdir().unwrap();
        let db = crate::tables::draft(&folder.path().join("draft")).unwrap();
        crate::tables::insert(&db, &[record]).unwrap();
        let found = newest(&db.begin_read().unwrap(), u64::MAX, 9, None).unwrap();
        assert_eq!(found, [event]);
    }
}

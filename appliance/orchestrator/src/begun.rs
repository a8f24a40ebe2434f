//! Work that may not be done twice: before it is begun, a mark in the store says that it was, and where.
//!
//! An attempt that an earlier life of the appliance had under way keeps its number and is taken up again. Nearly everything may
//! then simply be done once more. A script of the user's may not, and hardware that was to bear a load must not be called sound
//! by a second load after the first one brought it down.

use rackbar_messages::JobId;
use rackbar_store::{Store, StoreError, Table};

/// What the keys of marks begin with.
const PREFIX: &str = "begun/";

/// Where work was begun: a boot of the machine, as its agent's connections have it.
pub(crate) type Place = [u8; 32];

/// What is begun over SSH, where the machine's boot is not known.
pub(crate) const OVER_SSH: Place = [0; 32];

fn key(job: JobId) -> Vec<u8> {
    let digits: String = job.0.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{PREFIX}{digits}").into_bytes()
}

/// Where `job` was begun; `None` when it never was.
///
/// # Errors
/// When the store cannot be read.
pub(crate) fn place(store: &Store, job: JobId) -> Result<Option<Place>, StoreError> {
    let found = store.get(Table::Work, &key(job))?;
    // A mark of another form is a mark too.
    Ok(found.map(|value| Place::try_from(value).unwrap_or([u8::MAX; 32])))
}

/// Marks `job` as begun at `place`, durably, unless it is marked already. Gives where it was begun before.
///
/// # Errors
/// When the mark is not safe; the job is not to be begun then.
pub(crate) async fn begin(store: &Store, job: JobId, at: Place) -> Result<Option<Place>, StoreError> {
    let before = place(store, job)?;
    if before.is_none() {
        let store = store.clone();
        let written = tokio::task::spawn_blocking(move || store.put(Table::Work, &key(job), &at)).await;
        // Only a panic of the store ends that task early.
        written.unwrap_or(Err(StoreError::Closed))?;
    }
    Ok(before)
}

/// The end of the job was written down: its mark is of no use any more.
pub(crate) fn forget(store: &Store, job: JobId) {
    // Most jobs have none. One that cannot be read now goes at the next start.
    if matches!(place(store, job), Ok(Some(_))) {
        store.queue(Table::Work, &key(job), None);
    }
}

#[cfg(test)]
mod tests {
    use rackbar_store::Options;

    use super::*;

    #[tokio::test]
    async fn the_first_place_is_kept_until_it_is_forgotten() {
        let store = Store::in_memory(Options::default()).unwrap();
        let (one, other) = (JobId([1; 16]), JobId([2; 16]));
        assert_eq!(begin(&store, one, OVER_SSH).await.unwrap(), None);
        assert_eq!(begin(&store, one, [7; 32]).await.unwrap(), Some(OVER_SSH));
        assert_eq!(begin(&store, other, [7; 32]).await.unwrap(), None);
        forget(&store, one);
        store.flush().unwrap();
        assert_eq!(place(&store, one).unwrap(), None);
        assert_eq!(place(&store, other).unwrap(), Some([7; 32]));
    }
}

//! What can go wrong with the store, in words for the operator.

/// Why the store did not do what it was asked. The texts say what, where and what to do.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StoreError {
    /// The file was written by a newer Rackbar.
    #[error(
        "{path} was written by a newer Rackbar (its schema is {found}, this program knows up to {known}): boot the \
         newer version again, or move the file away to start without history and leases"
    )]
    Newer {
        /// The file.
        path: String,
        /// Its schema.
        found: u64,
        /// The newest schema this program knows.
        known: u64,
    },
    /// Another program has the file open.
    #[error("{0} is in use by another program: only one Rackbar may run on a data directory")]
    InUse(String),
    /// The content of the file contradicts itself.
    #[error("{path} is damaged ({reason}): restore it from an export, or move it away to start without it")]
    Damaged {
        /// The file.
        path: String,
        /// What redb says.
        reason: String,
    },
    /// Reading or writing failed.
    #[error("the store failed: {0}")]
    Failed(String),
    /// The secrets are locked; says how to open them.
    #[error("the secrets are locked: {0}")]
    Locked(String),
    /// The passphrase opens nothing.
    #[error("the passphrase is not the one the secrets were locked with")]
    WrongPassphrase,
    /// An export that cannot be taken; nothing of it was.
    #[error("the export cannot be imported, and nothing was changed: {0}")]
    BadExport(String),
    /// What comes with an export does not fit; nothing of it was taken.
    #[error("the export does not fit, and nothing was changed: {0}")]
    NoRoom(String),
    /// The store was closed.
    #[error("the store is closed: the appliance is shutting down")]
    Closed,
}

impl StoreError {
    /// For an error in a transaction, where the path is known to the reader of the log.
    pub(crate) fn from_redb(error: redb::Error) -> Self {
        Self::Failed(error.to_string())
    }

    /// For an error at opening.
    pub(crate) fn opening(path: &std::path::Path, error: redb::DatabaseError) -> Self {
        let path = path.display().to_string();
        match error {
            redb::DatabaseError::DatabaseAlreadyOpen => Self::InUse(path),
            redb::DatabaseError::Storage(redb::StorageError::Corrupted(reason)) => Self::Damaged { path, reason },
            redb::DatabaseError::Storage(redb::StorageError::Io(error))
                if error.kind() == std::io::ErrorKind::InvalidData =>
            {
                let reason = error.to_string();
                Self::Damaged { path, reason }
            }
            redb::DatabaseError::UpgradeRequired(version) => Self::Damaged {
                path,
                reason: format!("redb file format {version} is older than this program reads"),
            },
            other => Self::Failed(format!("{path} could not be opened: {other}")),
        }
    }
}

macro_rules! from_redb {
    ($($error:ty),*) => {
        $(impl From<$error> for StoreError {
            fn from(error: $error) -> Self {
                Self::from_redb(error.into())
            }
        })*
    };
}

from_redb!(
    redb::TransactionError,
    redb::TableError,
    redb::StorageError,
    redb::CommitError
);

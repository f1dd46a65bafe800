//! What can go wrong with the database file.

use std::sync::Arc;

/// The database file could not be read or written. Nothing of the failed transaction remains, in the file or in
/// memory.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// The disk is full.
    #[error("the disk is full; free some space and try again")]
    DiskFull,
    /// The file or its folder cannot be written, or it was opened to be read only.
    #[error("the database can only be read here")]
    ReadOnly,
    /// Another process holds the database for longer than [`limits::BUSY_TIMEOUT`](crate::limits::BUSY_TIMEOUT).
    #[error("the database is in use by another process; try again")]
    Busy,
    /// The file is no SQLite database, or damaged.
    #[error("the database file is damaged: {0}")]
    Damaged(String),
    /// The file was written by a newer version of Motet.
    #[error("the database has format {found}, this version knows formats up to {supported}; update the app")]
    Newer {
        /// The file's `user_version`.
        found: i64,
        /// The newest this build knows.
        supported: i64,
    },
    /// This or another process has removed what was here, signed the user out, or has everything read anew, while something was being sent or
    /// received.
    #[error("the data of this device was removed or repaired, or its user signed out, meanwhile")]
    Emptied,
    /// The app's [`Sealer`](crate::Sealer) does not seal what is to be sent. It waits.
    #[error("{0}")]
    Sealer(String),
    /// The replica is shut down.
    #[error("the replica is closed")]
    Closed,
    /// A query asks for something that cannot be.
    #[error("the query is not valid: {0}")]
    Query(String),
    /// Anything else that SQLite reports.
    #[error("the database failed: {0}")]
    Sqlite(Arc<rusqlite::Error>),
    /// The file system refused.
    #[error("{0}")]
    Io(String),
}

impl StorageError {
    /// Stable code for logs and support.
    pub fn code(&self) -> &'static str {
        match self {
            StorageError::DiskFull => "storage-full",
            StorageError::ReadOnly => "storage-read-only",
            StorageError::Busy => "storage-busy",
            StorageError::Damaged(_) => "storage-damaged",
            StorageError::Newer { .. } => "storage-newer",
            StorageError::Emptied => "storage-emptied",
            StorageError::Sealer(_) => "storage-sealer",
            StorageError::Closed => "storage-closed",
            StorageError::Query(_) => "query-invalid",
            StorageError::Sqlite(_) => "storage-failed",
            StorageError::Io(_) => "storage-io",
        }
    }

    /// Whether the same call may succeed later without anything being repaired.
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            StorageError::DiskFull | StorageError::Busy | StorageError::Emptied | StorageError::Sealer(_)
        )
    }
}

impl From<rusqlite::Error> for StorageError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode::*;
        // Each statement asks for what was once written, so what cannot be read, or is not there, is not as it was written.
        if matches!(
            error,
            rusqlite::Error::InvalidColumnType(..)
                | rusqlite::Error::IntegralValueOutOfRange(..)
                | rusqlite::Error::FromSqlConversionFailure(..)
                | rusqlite::Error::Utf8Error(..)
                | rusqlite::Error::QueryReturnedNoRows
        ) {
            return StorageError::Damaged(error.to_string());
        }
        match error.sqlite_error_code() {
            Some(DiskFull) => StorageError::DiskFull,
            // The index of the write-ahead log, which readers need too, could not be made as long as it has to be.
            _ if extended_code(&error) == Some(rusqlite::ffi::SQLITE_IOERR_SHMSIZE) => StorageError::DiskFull,
            Some(ReadOnly) => StorageError::ReadOnly,
            // The last says that a lock of the write-ahead log was not to be had in some ten seconds.
            Some(DatabaseBusy | DatabaseLocked | FileLockingProtocolFailed) => StorageError::Busy,
            // Rows refer to rows that are not there, or are there twice.
            Some(DatabaseCorrupt | NotADatabase | ConstraintViolation) => {
                StorageError::Damaged(error.to_string())
            }
            _ if is_of_damaged_index(&error.to_string()) => StorageError::Damaged(error.to_string()),
            _ => StorageError::Sqlite(Arc::new(error)),
        }
    }
}

fn extended_code(error: &rusqlite::Error) -> Option<i32> {
    match error {
        rusqlite::Error::SqliteFailure(error, _) => Some(error.extended_code),
        _ => None,
    }
}

/// A full-text index that cannot be opened has no code of its own.
fn is_of_damaged_index(message: &str) -> bool {
    ["fts5: ", "invalid fts5 file format", "vtable constructor failed: search:"]
        .iter()
        .any(|damage| message.starts_with(damage))
}

//! What an app can tell its user about syncing.

use serde::{Deserialize, Serialize};

use super::Version;

/// State of the replica's space, as of now and across restarts.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Status {
    /// The state in one word.
    #[serde(flatten)]
    pub state: SyncState,
    /// Documents with changes that the remote does not hold yet. One that changes again while it is being sent counts
    /// twice.
    pub pending: u64,
    /// When a round was last completed, in milliseconds since 1970.
    pub last_synced_at: Option<i64>,
    /// The last error, until a round completes.
    pub last_error: Option<LastError>,
}

/// State of a space in one word. "Synced" means: the remote holds everything durably.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum SyncState {
    /// No relay is configured; everything stays on this device.
    LocalOnly,
    /// Connected, and the remote holds everything.
    Synced,
    /// Sending or receiving.
    Syncing {
        /// Entries of the remote's log that have been read.
        done: u64,
        /// Entries of the remote's log.
        total: u64,
    },
    /// Changes wait for the next round.
    Pending,
    /// The relay cannot be reached; changes are kept and sent later.
    Offline,
    /// The relay wants another token; changes are kept.
    AuthNeeded,
    /// Something else failed; see [`Status::last_error`].
    Error,
    /// Not connected because the app has not asked for it, or has disconnected; see [`Status::last_synced_at`].
    Paused,
}

/// A failed round, kept until one completes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastError {
    /// Stable code, as of [`SyncError::code`](crate::SyncError::code).
    pub code: String,
    /// For a person.
    pub message: String,
    /// Milliseconds since 1970.
    pub at: i64,
}

/// State of one document.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DocumentStatus {
    /// The state in one word.
    pub state: DocumentState,
    /// When the remote last confirmed that it holds the document's changes, in milliseconds since 1970.
    pub last_synced_at: Option<i64>,
    /// Changes made here that the remote does not hold yet.
    pub pending_changes: u64,
    /// When the oldest of them was made, in milliseconds since 1970.
    pub pending_since: Option<i64>,
    /// When the document last changed on this device, in milliseconds since 1970.
    pub updated_at: i64,
    /// Concurrent values that lost and that nobody has settled.
    pub conflicts: u64,
    /// The version: hashes of the latest changes, sorted. An edit may be based on it.
    pub heads: Version,
    /// The document is deleted.
    pub deleted: bool,
    /// Why the remote rejected the document's changes for good.
    pub error: Option<LastError>,
}

/// A document with changes that the remote does not hold yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PendingDocument {
    /// Collection of the document.
    pub collection: String,
    /// Id of the document.
    pub id: String,
    /// What is pending.
    pub state: DocumentState,
    /// Since when, in milliseconds since 1970.
    pub since: i64,
}

/// State of a document in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum DocumentState {
    /// The remote holds it durably.
    Synced,
    /// Made here, not yet on the remote.
    PendingCreate,
    /// Changed here, not yet on the remote.
    PendingUpdate,
    /// Deleted here, the remote does not know it yet.
    PendingDelete,
    /// Kept here, and the remote does not know yet that it shall forget it.
    PendingErase,
    /// On the remote, and two devices wrote one field at the same time: see the conflict journal.
    Conflict,
    /// On this device only: no relay is configured, the document or its collection stays here, or somebody had the relay forget it and nobody
    /// has written in it since.
    LocalOnly,
    /// The remote rejected its changes for good.
    Error,
}

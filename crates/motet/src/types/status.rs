//! What an app can tell its user about syncing.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Version;

/// State of the replica's space, as of now and across restarts.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Status {
    /// The state in one word.
    #[serde(flatten)]
    pub state: SyncState,
    /// Documents with changes that the remote does not hold yet. One that changes again while it is being sent counts
    /// twice.
    pub pending: u64,
    /// When this device and the remote last held the same, in milliseconds since 1970: a round was completed, or the remote
    /// said that it is still there, as it does about every 25 seconds while a session is open and nobody writes.
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
#[non_exhaustive]
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
#[non_exhaustive]
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
    /// Why the remote rejected the document's changes for good, or why what arrived of it cannot be applied here.
    pub error: Option<LastError>,
}

/// A document with changes that the remote does not hold yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
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
    /// The remote rejected its changes for good, or what is stored of it is damaged: [`DocumentStatus::error`] says which.
    Error,
}

/// In one word, as in JSON; while syncing with how far it is.
impl fmt::Display for SyncState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SyncState::LocalOnly => "local-only",
            SyncState::Synced => "synced",
            SyncState::Syncing { done, total } if total > done => {
                return write!(f, "syncing ({done} of {total})");
            }
            SyncState::Syncing { .. } => "syncing",
            SyncState::Pending => "pending",
            SyncState::Offline => "offline",
            SyncState::AuthNeeded => "auth-needed",
            SyncState::Error => "error",
            SyncState::Paused => "paused",
        })
    }
}

/// The state, how many documents are pending, and the last error.
impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.state)?;
        if self.pending > 0 {
            write!(f, ", {} to send", self.pending)?;
        }
        let Some(error) = &self.last_error else { return Ok(()) };
        // What the state says the message need not say again.
        let said = error.message.strip_prefix(&format!("{}: ", self.state)).unwrap_or(&error.message);
        write!(f, ": {said}")
    }
}

/// In one word, as in JSON.
impl fmt::Display for DocumentState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DocumentState::Synced => "synced",
            DocumentState::PendingCreate => "pending-create",
            DocumentState::PendingUpdate => "pending-update",
            DocumentState::PendingDelete => "pending-delete",
            DocumentState::PendingErase => "pending-erase",
            DocumentState::Conflict => "conflict",
            DocumentState::LocalOnly => "local-only",
            DocumentState::Error => "error",
        })
    }
}

/// The state, how many changes are to be sent, and why the remote does not take them.
impl fmt::Display for DocumentStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.state)?;
        if self.pending_changes > 0 {
            write!(f, ", {} changes to send", self.pending_changes)?;
        }
        self.error.as_ref().map_or(Ok(()), |error| write!(f, ": {}", error.message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_says_everything_once() {
        let error =
            |message: &str| Some(LastError { code: "sync-offline".into(), message: message.into(), at: 0 });
        let status = |state, last_error| Status { state, pending: 2, last_synced_at: None, last_error };
        let offline = status(SyncState::Offline, error("offline: refused"));
        assert_eq!(offline.to_string(), "offline, 2 to send: refused");
        let wanted = status(SyncState::AuthNeeded, error("sign-in needed: the token is not valid"));
        assert_eq!(wanted.to_string(), "auth-needed, 2 to send: sign-in needed: the token is not valid");
    }
}

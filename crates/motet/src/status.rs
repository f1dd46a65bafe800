//! What an app can tell its user about syncing.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::limits;
use crate::store::RemoteRow;

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

/// A version of a document: the hashes of its latest changes, sorted. Shown as hex, separated by commas.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Version(pub(crate) Vec<[u8; 32]>);

/// The text given is not a version.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0:?} is not a version: versions are hashes of 64 hex digits, separated by commas")]
pub struct ParseVersionError(String);

impl Version {
    pub(crate) fn hashes(&self) -> Vec<crate::doc::ChangeHash> {
        self.0.iter().copied().map(crate::doc::ChangeHash).collect()
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, hash) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            hash.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        }
        Ok(())
    }
}

impl std::str::FromStr for Version {
    type Err = ParseVersionError;

    fn from_str(text: &str) -> Result<Self, ParseVersionError> {
        let hash = |part: &str| part.trim().parse::<crate::doc::ChangeHash>().map(|hash| hash.0);
        let mut hashes: Vec<_> = text
            .split(',')
            .map(hash)
            .collect::<Result<_, _>>()
            .map_err(|_| ParseVersionError(text.to_owned()))?;
        hashes.sort_unstable();
        hashes.dedup();
        Ok(Self(hashes))
    }
}

impl Serialize for Version {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Where the parts of the status come together. Whoever changes a part publishes the whole.
pub(crate) struct StatusBoard {
    parts: Mutex<Parts>,
    published: watch::Sender<Status>,
    /// When the app last asked.
    asked: Mutex<Option<Instant>>,
}

/// The connection as its driver sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    /// The app has not connected.
    None,
    /// The app has disconnected: others may go on writing.
    LetGo,
    Connecting,
    /// Connected and at work; `done` of `total` entries of the log are read.
    Busy {
        done: u64,
        total: u64,
    },
    /// Connected, nothing under way.
    Idle,
    /// Not connected, waiting to try again.
    Waiting,
}

#[derive(Debug)]
struct Parts {
    link: Link,
    has_remote: bool,
    /// What is here has to be compared with what the remote holds.
    is_compared: bool,
    pending: i64,
    last_synced_at: Option<i64>,
    last_error: Option<LastError>,
}

impl StatusBoard {
    pub(crate) fn new() -> Self {
        let parts = Parts {
            link: Link::None,
            has_remote: false,
            is_compared: false,
            pending: 0,
            last_synced_at: None,
            last_error: None,
        };
        let published = watch::Sender::new(parts.status());
        Self { parts: Mutex::new(parts), published, asked: Mutex::default() }
    }

    pub(crate) fn current(&self) -> Status {
        self.published.borrow().clone()
    }

    /// The same for the app. Whether it had not asked for a while: then nobody has looked at what other processes write.
    pub(crate) fn ask(&self) -> (Status, bool) {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let is_news = !is_recent(asked.replace(Instant::now()));
        (self.current(), is_news)
    }

    /// Whether somebody is told of each status, or asks again and again.
    pub(crate) fn is_watched(&self) -> bool {
        let asked = *self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        self.published.receiver_count() > 0 || is_recent(asked)
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Status> {
        self.published.subscribe()
    }

    /// Takes over what the database holds.
    pub(crate) fn reload(&self, remotes: &[RemoteRow], pending: i64) {
        self.update(|parts| {
            parts.has_remote = remotes.iter().any(|remote| remote.active);
            parts.pending = pending;
            let active = remotes.iter().find(|remote| remote.active);
            parts.is_compared = active.is_some_and(|remote| remote.reseed);
            parts.last_synced_at = active.and_then(|remote| remote.last_synced_at);
            let error = active.and_then(|remote| remote.last_error.as_deref());
            parts.last_error = error.and_then(|json| serde_json::from_str(json).ok());
        });
    }

    pub(crate) fn add_pending(&self, delta: i64) {
        self.update(|parts| parts.pending = (parts.pending + delta).max(0));
    }

    pub(crate) fn set_link(&self, link: Link) {
        self.update(|parts| parts.link = link);
    }

    pub(crate) fn set_synced(&self, at: i64) {
        self.update(|parts| {
            parts.last_synced_at = Some(at);
            parts.last_error = None;
        });
    }

    pub(crate) fn set_error(&self, error: LastError) {
        self.update(|parts| parts.last_error = Some(error));
    }

    fn update(&self, change: impl FnOnce(&mut Parts)) {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut parts);
        let status = parts.status();
        // Under the lock, so that what is published last is what holds.
        self.published.send_if_modified(|current| {
            let changed = *current != status;
            *current = status;
            changed
        });
    }
}

fn is_recent(asked: Option<Instant>) -> bool {
    asked.is_some_and(|asked| asked.elapsed() < limits::STATUS_ASKED)
}

impl Parts {
    fn status(&self) -> Status {
        Status {
            state: self.state(),
            pending: self.pending.max(0) as u64,
            last_synced_at: self.last_synced_at,
            last_error: self.last_error.clone(),
        }
    }

    fn state(&self) -> SyncState {
        if !self.has_remote {
            return SyncState::LocalOnly;
        }
        match self.link {
            Link::Connecting => SyncState::Syncing { done: 0, total: 0 },
            Link::Busy { done, total } => SyncState::Syncing { done, total },
            Link::Idle if self.pending > 0 => SyncState::Pending,
            Link::Idle => SyncState::Synced,
            Link::None | Link::LetGo | Link::Waiting => {
                match self.last_error.as_ref().map(|error| error.code.as_str()) {
                    Some("sync-offline") => SyncState::Offline,
                    Some("sync-auth-needed") => SyncState::AuthNeeded,
                    Some(_) => SyncState::Error,
                    None if self.pending > 0 => SyncState::Pending,
                    None if self.link == Link::LetGo => SyncState::Paused,
                    None if self.last_synced_at.is_some() && !self.is_compared => SyncState::Synced,
                    None => SyncState::Paused,
                }
            }
        }
    }
}

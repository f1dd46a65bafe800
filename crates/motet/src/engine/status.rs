//! The state of syncing, as the parts of this process know it.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::watch;

use crate::limits;
use crate::store::RemoteRow;
use crate::types::{LastError, Status, SyncState};

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

    /// Whether a session is under way and has nothing to do.
    #[cfg(feature = "simulation")]
    pub(crate) fn is_at_rest(&self) -> bool {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner).link == Link::Idle
    }

    /// Whether a session is under way, or about to be.
    pub(crate) fn is_connected(&self) -> bool {
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        matches!(parts.link, Link::Connecting | Link::Busy { .. } | Link::Idle)
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

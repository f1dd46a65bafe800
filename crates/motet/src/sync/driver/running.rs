//! One session: how it begins, what is under way for it, and how it ends.

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::time::Duration;

use futures_util::future::{BoxFuture, OptionFuture};
use futures_util::stream::FuturesOrdered;
use motet_proto::session::{ClientSession, OutboxBatch};
use motet_proto::{DocumentId, Position, limits as proto};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::taking_in::Deaths;
use crate::engine::Received;
use crate::error::SyncError;
use crate::limits;
use crate::store::StorageError;
use crate::sync::connection::Connection;

/// One session and what is under way for it.
pub(super) struct Running {
    pub(super) session: ClientSession,
    /// How often the file had been emptied when it began.
    pub(super) era: i64,
    pub(super) connection: Connection,
    pub(super) loading: OptionFuture<BoxFuture<'static, Result<OutboxBatch, StorageError>>>,
    pub(super) applying: FuturesOrdered<BoxFuture<'static, Result<Applied, StorageError>>>,
    /// Until when nothing is sent.
    pub(super) holds_until: Option<Instant>,
    /// Entries that were being opened when a process ended.
    pub(super) deaths: Deaths,
    /// The last apply has been handed to the writer: the next may follow.
    pub(super) submitted: Option<oneshot::Receiver<()>>,
    /// The documents of the last page that was not small.
    pub(super) received: HashSet<DocumentId>,
    /// Documents that are shown already are being merged.
    pub(super) merging: OptionFuture<BoxFuture<'static, Result<Received, StorageError>>>,
    pub(super) is_merging: bool,
    /// There may be more such documents.
    pub(super) unmerged: bool,
    /// Rounds that are complete when those are merged.
    pub(super) almost_done: Vec<u64>,
    /// Bytes of the next batch, and when those under way were handed out: a slow way gets small batches, so that each is
    /// acknowledged soon and a way that breaks repeats little.
    pub(super) batch_bytes: usize,
    pub(super) pushed_at: VecDeque<Instant>,
    /// Entries of the log that are read, and that there are.
    pub(super) progress: (u64, u64),
    pub(super) was_idle: bool,
    /// How long nothing must happen before it compacts, and when that is so.
    pub(super) compact_after: Duration,
    pub(super) compact_at: Option<Instant>,
    /// Documents that were asked for because something of them was missing.
    pub(super) asked: HashSet<DocumentId>,
    /// When a WebSocket is tried while `POST` is in use, how long after that again, and the attempt that is under way.
    pub(super) upgrade_at: Option<Instant>,
    pub(super) upgrade_after: Duration,
    pub(super) upgrading: OptionFuture<BoxFuture<'static, Option<Connection>>>,
}

/// How a session begins.
pub(super) struct Begun {
    pub(super) remote: i64,
    pub(super) position: Option<Position>,
    pub(super) reseeding: bool,
    pub(super) deaths: Deaths,
    pub(super) era: i64,
}

/// How a session ended.
pub(in crate::sync) enum Ended {
    /// The replica let go.
    LetGo,
    /// What there was to do is done, and the policy asks for no more.
    Done,
    /// There is another session to be begun at once: the log belongs to another remote, or what is here was removed.
    Anew,
    /// The user has signed out, in this process or in another: until the app connects anew.
    SignedOut,
    Failed(SyncError),
}

pub(super) struct Applied {
    pub(super) received: Received,
    /// Entries, and those of them that other devices have sent.
    pub(super) entries: u64,
    pub(super) foreign: u64,
    pub(super) progress: (u64, u64),
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LetGo => f.write_str("the replica let go"),
            Self::Done => f.write_str("done"),
            Self::Anew => f.write_str("another session begins"),
            Self::SignedOut => f.write_str("the user has signed out"),
            Self::Failed(error) => error.fmt(f),
        }
    }
}

impl From<SyncError> for Ended {
    fn from(error: SyncError) -> Self {
        Self::Failed(error)
    }
}

impl Running {
    pub(super) fn take_batch(&mut self, batch: OutboxBatch, now: Duration) {
        if !batch.items.is_empty() {
            self.pushed_at.push_back(Instant::now());
        }
        self.session.handle_outbox(batch, now);
    }

    /// Receipts tell how fast the way is.
    pub(super) fn note_receipts(&mut self, any: bool) {
        let Some(at) = self.pushed_at.front().filter(|_| any) else { return };
        self.batch_bytes = match at.elapsed() <= limits::BATCH_TAKES {
            true => (2 * self.batch_bytes).min(proto::PUSH_BATCH_BYTES),
            false => (self.batch_bytes / 2).max(limits::SMALLEST_BATCH_BYTES),
        };
        self.pushed_at.pop_front();
    }
}

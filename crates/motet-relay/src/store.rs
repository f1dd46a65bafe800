//! Where logs live. A store keeps the log of each (account, space): it appends durably, drops duplicates by id, and
//! reads what lies after a position.
//!
//! [`sqlite`] is the default: one file in a folder. `postgres` (a feature) is for several relays over one database. [`memory`] is for tests.

mod damage;
mod folder;
pub mod memory;
#[cfg(feature = "postgres")]
pub mod postgres;
mod room;
pub mod sqlite;

pub(crate) use folder::{make_private, moved_to};
use futures_util::future::{BoxFuture, FutureExt};
use motet_proto::entry::EntryError;
use motet_proto::message::{Outcome, Rejection};
use motet_proto::session::{AppendOutcome, DocumentPage, ReadOutcome};
use motet_proto::{DocumentId, Entry, Kind, Position, RelayId, SpaceId};

use crate::config::Limits;
use crate::limits;

/// The log of one space of one account.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LogId {
    /// The account that the log belongs to.
    pub account: String,
    /// The space.
    pub space: SpaceId,
}

/// The store failed. Nothing of the failed call remains.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The disk is full.
    #[error("the relay is full: there is no room left on its disk")]
    Full,
    /// The files are damaged, or written by a newer version.
    #[error("the relay's data cannot be used: {0}")]
    Unusable(String),
    /// The logs of an account hold as much as they may.
    #[error("the relay is full for this account: {0}")]
    Quota(String),
    /// An account has as many logs or documents as it may, or the relay has as many logs.
    #[error("{0}")]
    Limit(String),
    /// Another relay has the folder open.
    #[error("another relay uses {0}; each needs a data folder of its own")]
    InUse(String),
    /// Anything else.
    #[error("the relay's store failed: {0}")]
    Failed(String),
    /// Too many pushes wait for the disk, or the lock of the database was not to be had in time.
    #[error("the relay is too busy to read or write; try again later")]
    Busy,
    /// The relay is stopping.
    #[error("the relay is stopping")]
    Closed,
}

impl StoreError {
    /// Stable code for logs.
    pub fn code(&self) -> &'static str {
        match self {
            StoreError::Full => "store-full",
            StoreError::Unusable(_) => "store-unusable",
            StoreError::Quota(_) => "store-quota",
            StoreError::Limit(_) => "store-limit",
            StoreError::InUse(_) => "store-in-use",
            StoreError::Failed(_) => "store-failed",
            StoreError::Busy => "store-busy",
            StoreError::Closed => "store-closed",
        }
    }

    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        !matches!(self, StoreError::Unusable(_))
    }
}

/// The health of a store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreState {
    /// There is no room: pushes are refused, but erasures are not.
    pub is_full: bool,
    /// What could not be read since the store was opened, if anything: the first that was met. What can be read goes on.
    pub damage: Option<String>,
    /// Pushes that wait to be written, and their bytes.
    pub queued: (u64, u64),
    /// Bytes that the store takes on its disk, if that is known.
    pub stored_bytes: Option<u64>,
    /// Bytes that are free on its disk, if that is known.
    pub free_bytes: Option<u64>,
}

/// What an append did.
#[derive(Debug)]
pub struct Appended {
    /// For the session that pushed.
    pub outcome: AppendOutcome,
    /// The entries that are new, in log order, for the hub.
    pub fresh: Vec<Entry>,
    /// Some of a large push is durable, and this is why the rest is not.
    pub failed: Option<StoreError>,
}

/// A home for logs.
///
/// A store of a program's own sees to what follows; [`memory`] is the shortest example.
///
/// - **Entries** that fail [`Entry::check`] for the space of the log are [`rejected`] one by one, and so are snapshots that name what they
///   may not; the others of the same call are appended.
/// - **Limits**: [`set_limits`](Self::set_limits) says how many logs and documents an account may have, how many bytes, and how many logs there
///   may be. What would go beyond is [refused](Appended::refused) with [`StoreError::Limit`] or [`StoreError::Quota`]; an erasure never is.
/// - **Order**: numbers of a log begin with 1 and have no gaps, the tag of each position is [`Position::next`] of the one before, and nothing can be
///   read before everything with a smaller number can.
/// - **Several relays** over one store: each returns the same [`id`](Self::id), an append is decided by the end of the log as all see it (a
///   compare-and-set or a lock), and [`sweep`](Self::sweep) may be called by each of them. They notify each other through a
///   [`Notifier`](crate::notifier::Notifier).
pub trait LogStore: Send + Sync + 'static {
    /// What tells these logs from those of another store, wherever they are moved to.
    fn id(&self) -> RelayId;

    /// Last sequence number of a log; 0 if it holds nothing.
    fn head<'a>(&'a self, log: &'a LogId) -> BoxFuture<'a, Result<u64, StoreError>>;

    /// Where several logs end, in their order; [`Position::start`] if one holds nothing. A store that [is shared](Self::is_shared) has to say so.
    fn ends<'a>(&'a self, logs: &'a [LogId]) -> BoxFuture<'a, Result<Vec<Position>, StoreError>> {
        _ = logs;
        std::future::ready(Ok(Vec::new())).boxed()
    }

    /// Whether other processes may append to these logs, so that the relay looks by itself, every
    /// [`HEADS_LOOKED_AT_EVERY`](crate::limits::HEADS_LOOKED_AT_EVERY), whether a log has grown, or is another one: a [`Notifier`](crate::notifier::Notifier) may lose notices.
    fn is_shared(&self) -> bool {
        false
    }

    /// Appends entries in order; calls for one log take effect in the order made. When the future resolves, they are durable. The call
    /// itself may wait for the disk, as long as that is quick. A large append is made in steps, between which others have their turn; if
    /// a later one fails, what the earlier ones have stored stays, and [`Appended::failed`] says why the rest is not there. Entries that break the protocol are rejected one by one; entries that
    /// the log holds already keep their sequence number. What a snapshot supersedes stays until it is [swept](Self::sweep); what an
    /// erasure is about is not read any more from then on and leaves in steps, and no snapshot that was made before brings it back.
    fn append(&self, log: LogId, entries: Vec<Entry>) -> BoxFuture<'static, Result<Appended, StoreError>>;

    /// One page of what lies after a position.
    fn read<'a>(
        &'a self,
        log: &'a LogId,
        after: Option<Position>,
    ) -> BoxFuture<'a, Result<ReadOutcome, StoreError>>;

    /// One page of what the log holds of one document after a sequence number, without what is superseded: the entries if `whole`,
    /// otherwise their names.
    fn read_document<'a>(
        &'a self,
        log: &'a LogId,
        document: DocumentId,
        after: u64,
        whole: bool,
    ) -> BoxFuture<'a, Result<DocumentPage, StoreError>>;

    /// Removes what was superseded before `before`, in seconds since 1970, of all logs. Positions stay as they are. Returns how many
    /// entries left; if it is [`SWEPT_ENTRIES`](crate::limits::SWEPT_ENTRIES), there may be more.
    fn sweep(&self, before: i64) -> BoxFuture<'static, Result<usize, StoreError>>;

    /// The spaces of which an account has a log, in any order.
    fn logs_of<'a>(&'a self, account: &'a str) -> BoxFuture<'a, Result<Vec<SpaceId>, StoreError>>;

    /// Takes a part out of a log, from its end on, for good; true if there is more. What is left is a log that ends earlier. With the last
    /// part the log is not there any more, and what it held does not count for the account.
    fn remove(&self, log: LogId) -> BoxFuture<'static, Result<bool, StoreError>>;

    /// Whether the store could write now: resolves when it has tried.
    fn probe(&self) -> BoxFuture<'static, Result<(), StoreError>>;

    /// Changes how much accounts may have. What is there already stays.
    fn set_limits(&self, limits: &Limits);

    /// What is known of the store's health without trying.
    fn state(&self) -> StoreState {
        StoreState::default()
    }

    /// What is to be done every few seconds, if anything: to see that `reserve` bytes of a disk are free, to make files short that a long read
    /// has made long. A failure is logged.
    fn maintain(&self, reserve: u64) -> BoxFuture<'_, ()> {
        _ = reserve;
        std::future::ready(()).boxed()
    }
}

/// What an account has in its logs, as the limits count it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) bytes: u64,
    pub(crate) documents: u64,
}

impl std::ops::Add for Counts {
    type Output = Self;

    fn add(self, more: Self) -> Self {
        Self { bytes: self.bytes + more.bytes, documents: self.documents + more.documents }
    }
}

impl Counts {
    /// Whether an entry may be added to it, of a document of which the log has nothing yet if `is_new`; the limit that it would break. An erasure of
    /// what is there always may: it makes room.
    pub(crate) fn check(self, entry: &Entry, is_new: bool, limits: &Limits) -> Result<(), StoreError> {
        if entry.kind == Kind::Erased && !is_new {
            return Ok(());
        }
        if self.bytes + entry.size() as u64 > limits.bytes_per_account {
            let most = limits.bytes_per_account;
            return Err(StoreError::Quota(format!("its logs may hold {most} bytes")));
        }
        if is_new && self.documents >= limits.documents_per_account {
            let most = limits.documents_per_account;
            return Err(StoreError::Limit(format!("this account may have {most} documents")));
        }
        Ok(())
    }
}

/// Whether a push of so many bytes may wait, where `own` bytes of its account wait already, and `all` of everybody. A little is taken in from everybody,
/// whatever others have queued.
pub(crate) fn may_wait(bytes: usize, own: usize, all: usize) -> bool {
    let is_too_much = own > 0 && own + bytes > limits::QUEUED_BYTES_PER_ACCOUNT;
    let is_full = all + bytes > limits::QUEUED_BYTES && own + bytes > limits::QUEUED_BYTES_ALWAYS;
    !is_too_much && !is_full
}

impl Appended {
    /// Nothing was appended.
    pub fn refused(error: StoreError) -> Self {
        let outcome = AppendOutcome { outcomes: Vec::new(), appended: None };
        Self { outcome, fresh: Vec::new(), failed: Some(error) }
    }
}

/// What a device is told of an entry that breaks the protocol.
pub fn rejected(error: &EntryError) -> Outcome {
    let why = match error {
        EntryError::WrongId => Rejection::WrongId,
        EntryError::TooLarge { .. } | EntryError::HeaderTooLarge => Rejection::TooLarge,
        EntryError::Unsorted => Rejection::Malformed,
    };
    Outcome::Rejected(why, error.to_string())
}

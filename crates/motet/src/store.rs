//! The database file: the only module that uses SQLite.
//!
//! One connection writes and groups what waits into one transaction ([`writer`]); readers have connections of their
//! own ([`readers`]). WAL, `synchronous=FULL` for anything a caller waits for.

mod backup;
mod busy;
mod compaction;
mod connection;
mod documents;
mod error;
mod feed;
mod filter;
mod finding;
mod foreign;
mod history;
mod integrity;
mod journal;
mod names;
mod opening;
mod outbox;
mod packed;
mod quarantine;
mod read_only;
mod readers;
mod remotes;
mod rows;
mod salvage;
mod space;
mod sql;
mod stale;
mod steps;
mod unmerged;
mod words;
mod writer;

use motet_proto::SpaceId;

pub(crate) use backup::backup;
pub(crate) use connection::{empty_log, open, shrink};
pub(crate) use documents::StoredDocument;
pub(crate) use documents::{DocumentRow, MOST_CHANGES, change_id};
pub use error::StorageError;
pub(crate) use feed::ChangedRow;
pub(crate) use foreign::{Cell, ForeignTable};
pub(crate) use integrity::SealedRow;
pub(crate) use journal::{Losers, MORE, MORE_OPEN, NewConflict, StoredConflict, row_bytes};
pub(crate) use names::Names;
pub(crate) use opening::ended_over;
pub(crate) use outbox::{Op, OutboxRow};
pub(crate) use quarantine::{QuarantineRow, QuarantinedRow, SetAside, Worth};
pub(crate) use read_only::copy_to_read;
pub(crate) use readers::{ListRow, PendingRow, Readers, StatusRow, TrashRow};
pub(crate) use remotes::{RemoteRow, RoundRow};
pub(crate) use rows::{ACCOUNT, ACCOUNT_LOST, DECLARATION_LOST, SEALED, is_name};
pub(crate) use salvage::{Aside, remove_aside, salvage};
pub(crate) use sql::run_sql;
pub(crate) use steps::{StepDocument, StepKind, StepRow, StoredVersion};
pub(crate) use words::UnindexedRow;
pub(crate) use writer::{Durability, Engine, Ticket, Writer};

/// The number of the next write of a projection. A row that was removed leaves its number behind in `meta`. One that is damaged keeps nobody
/// from writing.
macro_rules! next_seq {
    () => {
        "1 + min(max(COALESCE((SELECT CAST(max(seq) AS INTEGER) FROM projection), 0),
                     COALESCE((SELECT CAST(value AS INTEGER) FROM meta WHERE key = 'seq'), 0)), 1 << 62)"
    };
}
use next_seq;

/// A running transaction on the writer connection, or a consistent read on a reader.
#[derive(Clone, Copy)]
pub(crate) struct Tx<'c> {
    conn: &'c rusqlite::Connection,
    /// The space that the file holds.
    space: SpaceId,
}

/// Runs the first reads and writes on the writer's connection, before its thread has it. A new file becomes one of the space `wanted`.
pub(crate) fn setup<T, E: From<StorageError>>(
    conn: &rusqlite::Connection,
    wanted: Option<SpaceId>,
    work: impl FnOnce(Tx<'_>) -> std::result::Result<T, E>,
) -> std::result::Result<T, E> {
    let execute = |sql| conn.execute_batch(sql).map_err(|error| E::from(error.into()));
    execute("BEGIN IMMEDIATE")?;
    let space = space::settle(conn, wanted).map_err(E::from);
    let outcome = space.and_then(|space| work(Tx { conn, space }));
    execute(if outcome.is_ok() { "COMMIT" } else { "ROLLBACK" })?;
    outcome
}

pub(crate) type Result<T> = std::result::Result<T, StorageError>;

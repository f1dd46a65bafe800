//! Logs in one SQLite file: one connection that writes, with group commit, and a few readers. WAL, `synchronous=FULL`.

pub mod care;
mod left;
mod logs;
mod queue;
mod reader;
mod shrink;
mod usage;
mod writer;

pub use usage::{Stored, stored};

use std::path::Path;
use std::sync::Arc;

use futures_util::future::{BoxFuture, FutureExt};
use motet_proto::planted::{Bug, is_planted};
use motet_proto::session::{DocumentPage, ReadOutcome};
use motet_proto::{DocumentId, Entry, EntryId, Kind, Position, RelayId, SpaceId};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, OptionalExtension, TransactionBehavior};

use super::damage::Damage;
use super::folder::{self, Folder};
use super::room::Room;
use super::{Appended, LogId, LogStore, StoreError, StoreState};
use crate::config::Limits;
use crate::limits;
use logs::Logs;
use reader::Readers;
use writer::Writer;

const MIGRATIONS: [&str; 6] = [
    include_str!("migrations/001.sql"),
    include_str!("migrations/002.sql"),
    include_str!("migrations/003.sql"),
    include_str!("migrations/004.sql"),
    include_str!("migrations/005.sql"),
    include_str!("migrations/006.sql"),
];

/// Those that hold what follows from nothing else.
const NEEDED_TABLES: [&str; 2] = ["space", "entry"];

/// Marks a file as the relay's (`application_id`).
const APPLICATION_ID: i64 = 0x4d6f_7472;

/// Bits of an entry's row id that hold its sequence number. No log has more entries, and the file no more logs, than
/// [`LAST_SEQ`] and [`LAST_SPACE`].
const SEQ_BITS: u32 = 40;

/// The last sequence number that a row id holds.
const LAST_SEQ: u64 = (1 << SEQ_BITS) - 1;

/// In the place of the sequence number because of which an entry has left its log: that is not known, but it has been looked at.
const CAUSE_UNKNOWN: i64 = -1;

/// The last log of which all row ids are positive and its own; the base of the one after it is still a number.
const LAST_SPACE: i64 = limits::SPACES as i64;

/// The embedded store.
pub struct SqliteStore {
    id: RelayId,
    writer: Writer,
    readers: Readers,
    /// Given back last, when nothing writes any more.
    folder: Option<Folder>,
    room: Arc<Room>,
    damage: Arc<Damage>,
}

impl SqliteStore {
    /// Opens or creates `relay.db` in the folder `data`, which is created if needed. The folder is this store's alone until it is
    /// dropped.
    ///
    /// # Errors
    /// [`StoreError::InUse`] if another relay has the folder open; [`StoreError::Unusable`] if the file is no relay's or was written
    /// by a newer version; it is left as it was.
    pub fn open(data: &Path) -> Result<Self, StoreError> {
        Self::open_with(data, &Limits::default())
    }

    /// The same with other limits. A disk without room is no error: what there is can be read.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with(data: &Path, limits: &Limits) -> Result<Self, StoreError> {
        let folder = Folder::take(data)?;
        let mut opened = Self::open_file(&folder.database(), None);
        if opened.is_err() {
            // There may be no room even for SQLite's index of its log.
            folder.give_up_ballast();
            opened = Self::open_file(&folder.database(), None);
        }
        let mut store = opened?;
        store.folder = Some(folder);
        store.set_limits(limits);
        store.look_at_room(limits.reserve_bytes);
        Ok(store)
    }

    /// Looks at the disk, of which `reserve` bytes are to be left.
    fn look_at_room(&self, reserve: u64) {
        let Some(folder) = &self.folder else { return };
        self.room.note_stored(folder.stored_bytes());
        let free = self.room.look(folder.path(), reserve);
        match free {
            Some(free) if free < folder::BALLAST_BYTES / 2 => folder.give_up_ballast(),
            Some(free) if free > reserve + folder::BALLAST_BYTES => folder.keep_ballast(),
            _ => {}
        }
    }

    /// Opens or creates the database at `path`, in a folder that exists. New data gets the id `fresh`, or a random one.
    ///
    /// # Errors
    /// [`StoreError::Unusable`] if the file is no relay's or was written by a newer version; it is left as it was.
    pub fn open_file(path: &Path, fresh: Option<RelayId>) -> Result<Self, StoreError> {
        let mut conn = Connection::open(path)?;
        configure(&conn)?;
        // Of a file that has tables it changes nothing.
        shrink::prepare(&conn)?;
        migrate(&mut conn, fresh)?;
        check_tables(&conn)?;
        conn.pragma_update(None, "journal_mode", "WAL")?;
        let id = id(&conn)?;
        let (room, damage) = (Arc::<Room>::default(), Arc::<Damage>::default());
        let writer = Writer::spawn(Logs::new(conn, room.clone(), damage.clone())?)?;
        let readers = Readers::new(path.to_owned(), damage.clone());
        Ok(Self { id, writer, readers, folder: None, room, damage })
    }
}

/// The logs of a folder, for reading, also while a relay runs over it.
pub struct ReadOnly(Readers);

impl ReadOnly {
    /// Opens them. Nothing is written.
    ///
    /// # Errors
    /// [`StoreError::Unusable`] if there is no relay, or its file has another format.
    pub fn open(data: &Path) -> Result<Self, StoreError> {
        let path = data.join(folder::DATABASE);
        if !path.exists() {
            return Err(StoreError::Unusable(format!("{} holds no relay", data.display())));
        }
        let conn = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        conn.busy_timeout(limits::BUSY_TIMEOUT)?;
        let found = conn.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0))?;
        if found != MIGRATIONS.len() as i64 {
            return Err(StoreError::Unusable(format!(
                "relay.db has format {found}, and this version reads format {}",
                MIGRATIONS.len()
            )));
        }
        Ok(Self(Readers::new(path, Arc::default())))
    }

    /// The spaces of which an account has a log.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn logs_of(&self, account: &str) -> Result<Vec<SpaceId>, StoreError> {
        self.0.logs_of(account).await
    }

    /// One page of what lies after a position.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn read(&self, log: &LogId, after: Option<Position>) -> Result<ReadOutcome, StoreError> {
        self.0.read(log, after).await
    }
}

impl std::fmt::Debug for ReadOnly {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("ReadOnly").finish_non_exhaustive()
    }
}

impl LogStore for SqliteStore {
    fn id(&self) -> RelayId {
        self.id
    }

    fn head<'a>(&'a self, log: &'a LogId) -> BoxFuture<'a, Result<u64, StoreError>> {
        self.readers.head(log).boxed()
    }

    fn append(&self, log: LogId, entries: Vec<Entry>) -> BoxFuture<'static, Result<Appended, StoreError>> {
        // What frees room is let in.
        if self.room.is_full() && !entries.iter().all(|entry| entry.kind == Kind::Erased) {
            return std::future::ready(Err(StoreError::Full)).boxed();
        }
        self.writer.append(log, entries)
    }

    fn read<'a>(
        &'a self,
        log: &'a LogId,
        after: Option<Position>,
    ) -> BoxFuture<'a, Result<ReadOutcome, StoreError>> {
        self.readers.read(log, after).boxed()
    }

    fn read_document<'a>(
        &'a self,
        log: &'a LogId,
        document: DocumentId,
        after: u64,
        whole: bool,
    ) -> BoxFuture<'a, Result<DocumentPage, StoreError>> {
        self.readers.read_document(log, document, after, whole).boxed()
    }

    fn sweep(&self, before: i64) -> BoxFuture<'static, Result<usize, StoreError>> {
        self.writer.sweep(before)
    }

    fn logs_of<'a>(&'a self, account: &'a str) -> BoxFuture<'a, Result<Vec<SpaceId>, StoreError>> {
        self.readers.logs_of(account).boxed()
    }

    fn remove(&self, log: LogId) -> BoxFuture<'static, Result<bool, StoreError>> {
        self.writer.remove(log)
    }

    fn probe(&self) -> BoxFuture<'static, Result<(), StoreError>> {
        self.writer.probe()
    }

    fn set_limits(&self, limits: &Limits) {
        self.writer.set_limits(limits);
    }

    fn state(&self) -> StoreState {
        let (free_bytes, stored_bytes) = self.room.known();
        let (is_full, damage) = (self.room.is_full(), self.damage.known());
        StoreState { is_full, damage, queued: self.writer.queued(), stored_bytes, free_bytes }
    }

    fn maintain(&self, reserve: u64) -> BoxFuture<'_, ()> {
        self.look_at_room(reserve);
        async {
            if let Err(error) = self.readers.tidy().await {
                tracing::debug!(%error, "the write-ahead log stays as long as it is for now");
            }
        }
        .boxed()
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::Error::{
            FromSqlConversionFailure, IntegralValueOutOfRange, InvalidColumnType, Utf8Error,
        };
        use rusqlite::ErrorCode::*;
        if let FromSqlConversionFailure(..)
        | IntegralValueOutOfRange(..)
        | InvalidColumnType(..)
        | Utf8Error(..) = &error
        {
            return StoreError::Unusable(format!(
                "a row of relay.db holds what the relay never wrote: {error}"
            ));
        }
        match error.sqlite_error_code() {
            Some(DiskFull) => StoreError::Full,
            Some(DatabaseCorrupt | NotADatabase) => StoreError::Unusable(error.to_string()),
            // Somebody who reads the file beside the relay, a backup for one, or a machine under heavy load.
            Some(DatabaseBusy | DatabaseLocked | FileLockingProtocolFailed) => StoreError::Busy,
            _ => StoreError::Failed(error.to_string()),
        }
    }
}

fn configure(conn: &Connection) -> Result<(), StoreError> {
    conn.busy_timeout(limits::BUSY_TIMEOUT)?;
    let synchronous = if is_planted(Bug::RelaySkipsFsync) { "OFF" } else { "FULL" };
    conn.pragma_update(None, "synchronous", synchronous)?;
    // Without it SQLite parses a statement anew for each value that is bound beside a partial index.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    conn.pragma_update(None, "cache_size", -limits::PAGE_CACHE_KIB)?;
    conn.pragma_update(None, "wal_autocheckpoint", limits::CHECKPOINT_PAGES)?;
    conn.pragma_update(None, "journal_size_limit", limits::WAL_KEPT_BYTES)?;
    conn.pragma_update(None, "trusted_schema", false)?;
    // What has left is not in free pages either.
    conn.pragma_update(None, "secure_delete", true)?;
    Ok(())
}

fn migrate(conn: &mut Connection, fresh: Option<RelayId>) -> Result<(), StoreError> {
    let pragma =
        |conn: &Connection, name| conn.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, i64>(0));
    let supported = MIGRATIONS.len() as i64;
    if pragma(conn, "user_version")? == supported && pragma(conn, "application_id")? == APPLICATION_ID {
        // Nothing is written: the disk may be full.
        return Ok(());
    }
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found = pragma(&tx, "user_version")?;
    let tables: i64 = tx.query_row("SELECT COUNT(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if tables > 0 && pragma(&tx, "application_id")? != APPLICATION_ID {
        return Err(StoreError::Unusable("relay.db is a database of another application".into()));
    }
    if found > supported {
        let message = format!("relay.db has format {found}, this version knows formats up to {supported}");
        return Err(StoreError::Unusable(message));
    }
    let done = usize::try_from(found).map_err(|_| {
        StoreError::Unusable(format!(
            "relay.db says that it has format {found}, which no version has written"
        ))
    })?;
    for migration in MIGRATIONS.iter().skip(done) {
        tx.execute_batch(migration)?;
    }
    if let Some(id) = fresh.filter(|_| tables == 0) {
        tx.execute("UPDATE relay SET id = ?", [id.as_bytes()])?;
    }
    tx.pragma_update(None, "user_version", supported)?;
    tx.pragma_update(None, "application_id", APPLICATION_ID)?;
    Ok(tx.commit()?)
}

/// A file that lacks a table, a column of one, or the row of a log is not served.
fn check_tables(conn: &Connection) -> Result<(), StoreError> {
    let remedy = "`motet-relay repair` makes of it what can be made, or says that nothing can";
    let Some(table) = care::unusable_table(conn) else {
        return match care::log_without_row(conn) {
            Some(number) => Err(StoreError::Unusable(format!(
                "relay.db has entries of log {number}, and table space has no row for it: {remedy}"
            ))),
            None => Ok(()),
        };
    };
    Err(StoreError::Unusable(format!("table {table} of relay.db is gone, or lacks a column: {remedy}")))
}

/// What tells this data from that of other relays. Of several the first that is one counts, so that it stays the same.
fn id(conn: &Connection) -> Result<RelayId, StoreError> {
    let sql = "SELECT id FROM relay WHERE typeof(id) = 'blob' AND length(id) = ? ORDER BY rowid LIMIT 1";
    let id = conn.query_row(sql, [RelayId::LEN as i64], |row| row.get(0).map(RelayId)).optional()?;
    let lost = "table relay of relay.db has no id of 16 bytes, by which devices know their logs; \
                `motet-relay repair` gives it another one, and devices compare everything then";
    id.ok_or_else(|| StoreError::Unusable(lost.into()))
}

/// What tells the entries of a document apart, as far as it is kept in the index.
fn id_head(id: &EntryId) -> &[u8] {
    &id.0[..8]
}

/// Where the log of a space ends: where its last entry stands. An entry's id and tag never leave.
fn end(conn: &Connection, row: i64, space: SpaceId) -> Result<Position, StoreError> {
    let (end, last) = last_position(conn, row, space, LAST_SEQ)?;
    if end.seq != last {
        let row = row_base(row) + last as i64;
        return Err(StoreError::Unusable(format!(
            "the log ends with row {row} of table entry, which has no tag"
        )));
    }
    Ok(end)
}

/// The position of the last entry up to a sequence number, and the last number. Where a tag is not one any more, the ids from the last
/// good one on tell it; what has neither is behind the position.
fn last_position(
    conn: &Connection,
    row: i64,
    space: SpaceId,
    seq: u64,
) -> Result<(Position, u64), StoreError> {
    let sql = "SELECT id, tag, entry FROM entry WHERE id > ? AND id <= ? ORDER BY id DESC";
    let base = row_base(row);
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query([base, base + seq.min(LAST_SEQ) as i64])?;
    let (mut position, mut last, mut untagged) = (Position::start(space), None, Vec::new());
    while let Some(found) = rows.next()? {
        let seq = (found.get::<_, i64>(0)? - base) as u64;
        last.get_or_insert(seq);
        if let Ok(tag) = found.get(1) {
            position = Position { seq, tag };
            break;
        }
        untagged.push((seq, found.get(2).ok().map(EntryId)));
    }
    for (seq, id) in untagged.into_iter().rev() {
        match id {
            Some(id) if seq == position.seq + 1 => position = position.next(id),
            _ => break,
        }
    }
    Ok((position, last.unwrap_or(0)))
}

/// The number of a log, if it can be one: row ids made of another one would be those of another log.
fn number(row: i64) -> Result<i64, StoreError> {
    match (1..=LAST_SPACE).contains(&row) {
        true => Ok(row),
        false => {
            Err(StoreError::Unusable(format!("table space has row {row}, which is the number of no log")))
        }
    }
}

/// First row id of a space's log, minus one.
pub(super) const fn row_base(space: i64) -> i64 {
    space << SEQ_BITS
}

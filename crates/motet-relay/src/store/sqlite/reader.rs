//! Reads on connections of their own, off the async threads.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use motet_proto::message::Listed;
use motet_proto::planted::{Bug, batch, is_planted};
use motet_proto::session::{DocumentPage, ReadOutcome};
use motet_proto::{DeviceId, DocumentId, Entry, EntryId, Kind, Position, SpaceId, limits as proto};
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, params};
use tokio::sync::Semaphore;

use super::{CAUSE_UNKNOWN, LAST_SEQ, configure, last_position, number, row_base};
use crate::limits;
use crate::store::damage::Damage;
use crate::store::{LogId, StoreError};

/// What [`entry`] reads, and the tag.
macro_rules! entries {
    () => {
        "SELECT id, entry, tag, document, device, kind, suite, payload FROM entry "
    };
}

/// A small pool of reader connections.
#[derive(Clone)]
pub(super) struct Readers {
    path: Arc<PathBuf>,
    idle: Arc<Mutex<Vec<Connection>>>,
    permits: Arc<Semaphore>,
    damage: Arc<Damage>,
}

impl Readers {
    pub(super) fn new(path: PathBuf, damage: Arc<Damage>) -> Self {
        Self {
            path: Arc::new(path),
            idle: Arc::default(),
            permits: Arc::new(Semaphore::new(limits::CONCURRENT_READS)),
            damage,
        }
    }

    pub(super) async fn head(&self, log: &LogId) -> Result<u64, StoreError> {
        let log = log.clone();
        self.run(move |conn| Ok(find(conn, &log)?.map_or(0, |(_, head)| head))).await
    }

    pub(super) async fn logs_of(&self, account: &str) -> Result<Vec<SpaceId>, StoreError> {
        let account = account.to_owned();
        self.run(move |conn| {
            let mut statement = conn.prepare_cached("SELECT uuid FROM space WHERE account = ?")?;
            let spaces = statement.query_map([account], |row| row.get(0).map(SpaceId))?;
            Ok(spaces.collect::<rusqlite::Result<_>>()?)
        })
        .await
    }

    pub(super) async fn read(&self, log: &LogId, after: Option<Position>) -> Result<ReadOutcome, StoreError> {
        let (log, damage) = (log.clone(), self.damage.clone());
        self.run(move |conn| read(conn, &log, after, &damage)).await
    }

    pub(super) async fn read_document(
        &self,
        log: &LogId,
        document: DocumentId,
        after: u64,
        whole: bool,
    ) -> Result<DocumentPage, StoreError> {
        let (log, damage) = (log.clone(), self.damage.clone());
        self.run(move |conn| read_document(conn, &log, document, (after, whole), &damage)).await
    }

    pub(super) async fn tidy(&self) -> Result<(), StoreError> {
        let mut wal = self.path.as_os_str().to_owned();
        wal.push("-wal");
        if !std::fs::metadata(wal).is_ok_and(|wal| wal.len() > limits::WAL_KEPT_BYTES as u64) {
            return Ok(());
        }
        let readers = self.clone();
        let work = move || {
            let conn = readers.open()?;
            conn.busy_timeout(std::time::Duration::ZERO)?;
            // The long part first, which keeps nobody from writing.
            for mode in ["PASSIVE", "TRUNCATE"] {
                conn.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |_| Ok(()))?;
            }
            Ok(())
        };
        tokio::task::spawn_blocking(work).await.map_err(|e| StoreError::Failed(e.to_string()))?
    }

    async fn run<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let _permit = self.permits.acquire().await.map_err(|_| StoreError::Closed)?;
        let readers = self.clone();
        let work = move || {
            let idle = readers.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let mut conn = idle.map_or_else(|| readers.open(), Ok)?;
            // One transaction, so that log and head are of one moment.
            let tx = conn.transaction()?;
            let value = read(&tx);
            readers.damage.note_failure(&value);
            let value = value?;
            drop(tx);
            let mut idle = readers.idle.lock().unwrap_or_else(PoisonError::into_inner);
            if idle.len() < limits::IDLE_READERS {
                idle.push(conn);
            }
            Ok(value)
        };
        tokio::task::spawn_blocking(work).await.map_err(|e| StoreError::Failed(e.to_string()))?
    }

    fn open(&self) -> Result<Connection, StoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let conn = Connection::open_with_flags(self.path.as_path(), flags)?;
        configure(&conn)?;
        conn.pragma_update(None, "query_only", true)?;
        Ok(conn)
    }
}

fn read(
    conn: &Connection,
    log: &LogId,
    after: Option<Position>,
    damage: &Damage,
) -> Result<ReadOutcome, StoreError> {
    let start = Position::start(log.space);
    let after = after.unwrap_or(start);
    let Some((row, head)) = find(conn, log)? else {
        let empty = ReadOutcome::Page { entries: Vec::new(), position: start, head: 0 };
        return Ok(if after == start { empty } else { ReadOutcome::Refused });
    };
    let is_its_tag = |at: Position| at.tag == after.tag || is_planted(Bug::TagIgnored);
    if after != start && !position_at(conn, row, log, after.seq)?.is_some_and(is_its_tag) {
        return Ok(ReadOutcome::Refused);
    }
    let sql = concat!(entries!(), "WHERE id > ? AND id <= ? ORDER BY id LIMIT ?");
    let base = row_base(row);
    let mut statement = conn.prepare_cached(sql)?;
    let most = limits::PAGE_ROWS as i64;
    let mut rows = statement.query(params![base + after.seq as i64, base + head as i64, most])?;
    let erasing = erasing(conn, row)?;
    let (mut entries, mut position, mut bytes, mut last) = (Vec::new(), after, 0, after.seq);
    while bytes < proto::PAGE_BYTES && entries.len() < batch(proto::PAGE_ENTRIES) {
        let row = match rows.next().map_err(StoreError::from) {
            Ok(Some(row)) => row,
            Ok(None) => break,
            // What stands before it goes out; whoever asks for more is told.
            Err(StoreError::Unusable(error)) if !entries.is_empty() => {
                damage.note(&format!("behind row {} of table entry: {error}", base + position.seq as i64));
                break;
            }
            Err(error) => return Err(error),
        };
        let seq = (row.get::<_, i64>(0)? - base) as u64;
        if seq != last + 1 {
            damage.note(&format!(
                "rows of table entry between {} and {} are gone",
                base + last as i64,
                base + seq as i64
            ));
        }
        last = seq;
        position = position_after(row, position, seq);
        match live(row, seq, &erasing) {
            Ok(Some(entry)) => {
                bytes += entry.size();
                entries.push((seq, entry));
            }
            Ok(None) => {}
            // One bad row keeps nobody from the rest. A repair changes the chain there, so whoever has passed it compares everything.
            Err(error) => damage.note(&format!("row {} of table entry: {error}", base + seq as i64)),
        }
    }
    if position == after && head > after.seq && entries.is_empty() {
        return Err(StoreError::Unusable(format!("ids and tags of the rows behind {} are lost", after.seq)));
    }
    Ok(ReadOutcome::Page { entries, position, head })
}

/// The position behind a row. Where its tag is not one any more, the position before it and the entry's id tell it; without both, it is
/// known again behind the next row.
fn position_after(row: &Row<'_>, before: Position, seq: u64) -> Position {
    match (row.get(2), row.get(1)) {
        (Ok(tag), _) => Position { seq, tag },
        (_, Ok(id)) if before.seq + 1 == seq => before.next(EntryId(id)),
        _ => before,
    }
}

/// The entry of a row, unless it has left the log, or is about to.
fn live(row: &Row<'_>, seq: u64, erasing: &HashMap<DocumentId, u64>) -> Result<Option<Entry>, StoreError> {
    if row.get_ref(5)?.as_blob().is_ok_and(<[u8]>::is_empty) {
        // The row that it names stands behind it. Whether that tells the same, `verify` finds out.
        return match row.get::<_, i64>(6)? {
            cause if cause == CAUSE_UNKNOWN || u64::try_from(cause).is_ok_and(|cause| cause > seq) => {
                Ok(None)
            }
            _ => Err(StoreError::Unusable("it is gone, and no erasure or snapshot says why".into())),
        };
    }
    let entry = entry(row)?;
    let is_leaving = erasing.get(&entry.document).is_some_and(|erased| seq < *erased);
    Ok((!is_leaving).then_some(entry))
}

fn read_document(
    conn: &Connection,
    log: &LogId,
    document: DocumentId,
    (after, whole): (u64, bool),
    damage: &Damage,
) -> Result<DocumentPage, StoreError> {
    let mut page = DocumentPage { last: after, ..DocumentPage::default() };
    let Some((row, _)) = find(conn, log)? else { return Ok(page) };
    let sql = "SELECT seq FROM entry_of WHERE space = ? AND document = ? AND seq > ? AND superseded = 0
               AND typeof(seq) = 'integer' ORDER BY seq LIMIT ?";
    let mut statement = conn.prepare_cached(sql)?;
    let most = batch(proto::PAGE_ENTRIES);
    let after = i64::try_from(after).unwrap_or(i64::MAX);
    let after = erasing(conn, row)?.get(&document).map_or(after, |erased| after.max(*erased as i64 - 1));
    let rows =
        statement.query_map(params![row, document.as_bytes(), after, most as i64], |row| row.get(0))?;
    let found: Vec<i64> = rows.collect::<Result<_, _>>()?;
    page.more = found.len() == most;
    let mut bytes = 0;
    for seq in found {
        if bytes >= proto::PAGE_BYTES {
            page.more = true;
            break;
        }
        page.last = seq as u64;
        let id = row_base(row).saturating_add(seq);
        match find_in_document(conn, id, document, whole) {
            Ok(Some(Found::Entry(entry))) => {
                bytes += entry.size();
                page.entries.push(entry);
            }
            Ok(Some(Found::Listed(id, bytes))) => {
                page.listed.push(Listed { seq: seq as u64, id, bytes });
            }
            Ok(None) => {
                damage.note(&format!("row {id} of table entry, of which table entry_of tells, is not there"))
            }
            // What is damaged keeps nobody from the others.
            Err(StoreError::Unusable(error)) => damage.note(&format!("row {id} of table entry: {error}")),
            Err(error) => return Err(error),
        }
    }
    Ok(page)
}

/// What a page of a document says of an entry.
enum Found {
    Entry(Entry),
    /// Its id, and the bytes of its payload.
    Listed(EntryId, u64),
}

/// An entry of a document by its row; `None` if the row is not there, or of another document.
fn find_in_document(
    conn: &Connection,
    id: i64,
    document: DocumentId,
    whole: bool,
) -> Result<Option<Found>, StoreError> {
    let found = if whole {
        let sql = concat!(entries!(), "WHERE id = ?");
        let found =
            conn.prepare_cached(sql)?.query_row([id], |row| Ok(entry(row))).optional()?.transpose()?;
        found.map(|entry| (entry.document, Found::Entry(entry)))
    } else {
        let sql = "SELECT document, entry, length(payload) FROM entry WHERE id = ?";
        let listed = |row: &Row<'_>| {
            let bytes = row.get::<_, i64>(2)?.unsigned_abs();
            Ok((DocumentId(row.get(0)?), Found::Listed(EntryId(row.get(1)?), bytes)))
        };
        conn.prepare_cached(sql)?.query_row([id], listed).optional()?
    };
    Ok(found.filter(|(of, _)| *of == document).map(|(_, found)| found))
}

/// Up to which sequence number documents of a log are erased of which something has not left yet.
fn erasing(conn: &Connection, row: i64) -> Result<HashMap<DocumentId, u64>, StoreError> {
    // The erasure itself says which document it is about. A cross join looks only at entries that are named.
    let sql = "SELECT entry.document, MAX(entry.id) FROM erasing CROSS JOIN entry ON entry.id = erasing.entry
               WHERE erasing.entry > ? AND erasing.entry <= ? AND kind = ? AND typeof(entry.document) = 'blob'
               AND length(entry.document) = 16 GROUP BY entry.document";
    let mut statement = conn.prepare_cached(sql)?;
    let base = row_base(row);
    let kind = Kind::Erased.to_bytes();
    let found = statement.query_map(params![base, row_base(row + 1), kind], |found| {
        Ok((DocumentId(found.get(0)?), (found.get::<_, i64>(1)? - base) as u64))
    })?;
    Ok(found.collect::<Result<_, _>>()?)
}

fn find(conn: &Connection, log: &LogId) -> Result<Option<(i64, u64)>, StoreError> {
    let sql = "SELECT id FROM space WHERE account = ? AND uuid = ?";
    let place = params![log.account, log.space.as_bytes()];
    let found = conn.prepare_cached(sql)?.query_row(place, |row| row.get(0)).optional()?;
    let found = found.map(number).transpose()?;
    let Some(row) = found else { return Ok(None) };
    let head = match last_position(conn, row, log.space, LAST_SEQ) {
        // What has no position behind that cannot be read.
        Ok((last, _)) => last.seq,
        // Its last page is damaged: what stands before it is read until there.
        Err(StoreError::Unusable(_)) => LAST_SEQ,
        Err(error) => return Err(error),
    };
    Ok(Some((row, head)))
}

/// The position of an entry, if the log has that many.
fn position_at(conn: &Connection, row: i64, log: &LogId, seq: u64) -> Result<Option<Position>, StoreError> {
    if seq > LAST_SEQ {
        return Ok(None);
    }
    Ok(Some(last_position(conn, row, log.space, seq)?.0).filter(|found| found.seq == seq))
}

fn entry(row: &Row<'_>) -> Result<Entry, StoreError> {
    let kind = row.get_ref(5)?.as_blob().ok().and_then(Kind::from_bytes);
    Ok(Entry {
        id: EntryId(row.get(1)?),
        document: DocumentId(row.get(3)?),
        device: DeviceId(row.get(4)?),
        kind: kind.ok_or_else(|| StoreError::Unusable("an entry's kind cannot be read".into()))?,
        suite: row.get(6)?,
        payload: row.get(7)?,
    })
}

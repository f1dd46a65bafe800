//! Reads on connections of their own, off the async threads.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use motet_proto::message::Listed;
use motet_proto::planted::{Bug, batch, is_planted};
use motet_proto::position::TAG_LEN;
use motet_proto::session::{DocumentPage, ReadOutcome};
use motet_proto::{DeviceId, DocumentId, Entry, EntryId, Kind, Position, limits as proto};
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, params};
use tokio::sync::Semaphore;

use super::{SEQ_BITS, configure, end, row_base};
use crate::limits;
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
}

impl Readers {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path: Arc::new(path),
            idle: Arc::default(),
            permits: Arc::new(Semaphore::new(limits::CONCURRENT_READS)),
        }
    }

    pub(super) async fn head(&self, log: &LogId) -> Result<u64, StoreError> {
        let log = log.clone();
        self.run(move |conn| Ok(find(conn, &log)?.map_or(0, |(_, head)| head))).await
    }

    pub(super) async fn read(&self, log: &LogId, after: Option<Position>) -> Result<ReadOutcome, StoreError> {
        let log = log.clone();
        self.run(move |conn| read(conn, &log, after)).await
    }

    pub(super) async fn read_document(
        &self,
        log: &LogId,
        document: DocumentId,
        after: u64,
        whole: bool,
    ) -> Result<DocumentPage, StoreError> {
        let log = log.clone();
        self.run(move |conn| read_document(conn, &log, document, after, whole)).await
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
            let value = read(&tx)?;
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

fn read(conn: &Connection, log: &LogId, after: Option<Position>) -> Result<ReadOutcome, StoreError> {
    let start = Position::start(log.space);
    let after = after.unwrap_or(start);
    let Some((row, head)) = find(conn, log)? else {
        let empty = ReadOutcome::Page { entries: Vec::new(), position: start, head: 0 };
        return Ok(if after == start { empty } else { ReadOutcome::Refused });
    };
    let is_its_tag = |tag: [u8; TAG_LEN]| tag == after.tag || is_planted(Bug::TagIgnored);
    if after != start && !tag_at(conn, row, after.seq)?.is_some_and(is_its_tag) {
        return Ok(ReadOutcome::Refused);
    }
    let sql = concat!(entries!(), "WHERE id > ? AND id <= ? ORDER BY id LIMIT ?");
    let base = row_base(row);
    let mut statement = conn.prepare_cached(sql)?;
    let most = limits::PAGE_ROWS as i64;
    let mut rows = statement.query(params![base + after.seq as i64, base + head as i64, most])?;
    let erasing = erasing(conn, row)?;
    let (mut entries, mut position, mut bytes) = (Vec::new(), after, 0);
    while bytes < proto::PAGE_BYTES
        && entries.len() < batch(proto::PAGE_ENTRIES)
        && let Some(row) = rows.next()?
    {
        let seq = (row.get::<_, i64>(0)? - base) as u64;
        position = Position { seq, tag: row.get(2)? };
        if row.get_ref(5)?.as_blob().is_ok_and(<[u8]>::is_empty) {
            // It has left the log.
            continue;
        }
        if !erasing.is_empty() && erasing.get(&DocumentId(row.get(3)?)).is_some_and(|erased| seq < *erased) {
            // It is about to.
            continue;
        }
        let entry = entry(row)?;
        bytes += entry.size();
        entries.push((seq, entry));
    }
    Ok(ReadOutcome::Page { entries, position, head })
}

fn read_document(
    conn: &Connection,
    log: &LogId,
    document: DocumentId,
    after: u64,
    whole: bool,
) -> Result<DocumentPage, StoreError> {
    let mut page = DocumentPage { last: after, ..DocumentPage::default() };
    let Some((row, _)) = find(conn, log)? else { return Ok(page) };
    let sql = "SELECT seq FROM entry_of WHERE space = ? AND document = ? AND seq > ? AND superseded = 0
               ORDER BY seq LIMIT ?";
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
        let id = row_base(row) + seq;
        page.last = seq as u64;
        if whole {
            let sql = concat!(entries!(), "WHERE id = ?");
            let entry = conn.prepare_cached(sql)?.query_row([id], |row| Ok(entry(row)))??;
            bytes += entry.size();
            page.entries.push(entry);
        } else {
            let sql = "SELECT entry, length(payload) FROM entry WHERE id = ?";
            let listed = conn.prepare_cached(sql)?.query_row([id], |row| {
                let bytes = row.get::<_, i64>(1)?.unsigned_abs();
                Ok(Listed { seq: seq as u64, id: EntryId(row.get(0)?), bytes })
            })?;
            page.listed.push(listed);
        }
    }
    Ok(page)
}

/// Up to which sequence number documents of a log are erased of which something has not left yet.
fn erasing(conn: &Connection, row: i64) -> Result<HashMap<DocumentId, u64>, StoreError> {
    let sql = "SELECT document, MAX(entry) FROM erasing WHERE entry > ? AND entry <= ? GROUP BY document";
    let mut statement = conn.prepare_cached(sql)?;
    let base = row_base(row);
    let found = statement.query_map([base, row_base(row + 1)], |found| {
        Ok((DocumentId(found.get(0)?), (found.get::<_, i64>(1)? - base) as u64))
    })?;
    Ok(found.collect::<Result<_, _>>()?)
}

fn find(conn: &Connection, log: &LogId) -> Result<Option<(i64, u64)>, StoreError> {
    let sql = "SELECT id FROM space WHERE account = ? AND uuid = ?";
    let place = params![log.account, log.space.as_bytes()];
    let found = conn.prepare_cached(sql)?.query_row(place, |row| row.get(0)).optional()?;
    found.map(|row| Ok((row, end(conn, row, log.space)?.seq))).transpose()
}

fn tag_at(conn: &Connection, row: i64, seq: u64) -> Result<Option<[u8; TAG_LEN]>, StoreError> {
    if seq >= 1 << SEQ_BITS {
        return Ok(None);
    }
    let sql = "SELECT tag FROM entry WHERE id = ?";
    Ok(conn.prepare_cached(sql)?.query_row([row_base(row) + seq as i64], |row| row.get(0)).optional()?)
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

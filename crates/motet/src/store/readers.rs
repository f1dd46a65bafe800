//! Reads: connections of their own, one consistent view per call, never a loaded document.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use motet_proto::SpaceId;
use rusqlite::{Connection, OptionalExtension};

use super::connection::{log_of, open_reader};
use super::documents::{Hash, MOST_CHANGES, change_id, hashes};
use super::outbox::Op;
use super::{Result, Tx};
use crate::limits;

/// A small pool of reader connections.
pub(crate) struct Readers {
    path: PathBuf,
    space: SpaceId,
    idle: Mutex<Vec<Connection>>,
}

/// One document as its projection shows it.
#[derive(Debug)]
pub(crate) struct ListRow {
    pub(crate) name: String,
    pub(crate) heads: Vec<Hash>,
    pub(crate) json: String,
}

/// A document in the trash.
#[derive(Debug)]
pub(crate) struct TrashRow {
    pub(crate) name: String,
    /// Milliseconds since 1970, as below.
    pub(crate) deleted_at: i64,
    pub(crate) json: String,
    /// Another device has purged it: when it goes.
    pub(crate) leaves_at: Option<i64>,
}

/// Per-document sync state.
#[derive(Debug)]
pub(crate) struct StatusRow {
    pub(crate) id: i64,
    pub(crate) heads: Vec<Hash>,
    pub(crate) deleted: bool,
    pub(crate) conflicts: i64,
    pub(crate) updated_at: i64,
    pub(crate) last_synced_at: Option<i64>,
    /// The remote was told to forget it.
    pub(crate) is_erased: bool,
    /// What is pending, since when, how many changes, and the error if one is parked.
    pub(crate) pending: Option<PendingRow>,
    /// Why what arrived of it cannot be applied to what is stored here, and since when.
    pub(crate) damage: Option<(String, i64)>,
}

#[derive(Debug)]
pub(crate) struct PendingRow {
    pub(crate) op: Op,
    pub(crate) since: i64,
    pub(crate) changes: u64,
    pub(crate) error: Option<String>,
}

impl Readers {
    pub(crate) fn new(path: &Path, space: SpaceId) -> Self {
        Self { path: path.to_owned(), space, idle: Mutex::new(Vec::new()) }
    }

    /// Runs a read on one consistent view of the database.
    pub(crate) fn read<T>(&self, read: impl FnOnce(Tx<'_>) -> Result<T>) -> Result<T> {
        let idle = self.lock().pop();
        let mut conn = match idle {
            Some(conn) => conn,
            None => open_reader(&self.path)?,
        };
        let begun = Instant::now();
        let tx = conn.transaction()?;
        let value = read(Tx { conn: &tx, space: self.space })?;
        drop(tx);
        if begun.elapsed() >= limits::LONG_READ {
            self.tidy();
        }
        let mut idle = self.lock();
        if idle.len() < limits::IDLE_READERS {
            idle.push(conn);
        }
        Ok(value)
    }

    /// Makes the write-ahead log short again if a long read has let it grow, here or in another process. Whoever is at work just now is not
    /// waited for: it is done another time then.
    pub(crate) fn tidy(&self) {
        if std::fs::metadata(log_of(&self.path)).is_ok_and(|wal| wal.len() > limits::WAL_KEPT_BYTES as u64)
            && let Err(error) = self.shorten_wal()
        {
            tracing::debug!(%error, "the write-ahead log stays as long as it is for now");
        }
    }

    fn shorten_wal(&self) -> Result<()> {
        let conn = open_reader(&self.path)?;
        conn.busy_timeout(Duration::ZERO)?;
        // The long part first, which keeps nobody from writing.
        for mode in ["PASSIVE", "TRUNCATE"] {
            conn.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |_| Ok(()))?;
        }
        Ok(())
    }

    /// Looks for what is wrong with the file, on a connection that remembers nothing of it: the full-text index of an idle one would be
    /// checked against what it was when that connection last used it, and be taken for damaged.
    pub(crate) fn integrity(&self) -> Result<Vec<String>> {
        Tx { conn: &open_reader(&self.path)?, space: self.space }.integrity()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tx<'_> {
    /// A document that exists and is not deleted.
    pub(crate) fn get(&self, collection: &str, name: &str) -> Result<Option<ListRow>> {
        let sql = "SELECT d.name, p.heads, p.json FROM document d JOIN projection p ON p.document = d.id
                   WHERE d.collection = ? AND d.name = ? AND d.space = 1 AND p.deleted = 0";
        Ok(self.conn.prepare_cached(sql)?.query_row([collection, name], list_row).optional()?)
    }

    /// Hands every live document of a collection to `each`, ordered by id, until it fails.
    pub(crate) fn list<E: From<super::StorageError>>(
        &self,
        collection: &str,
        mut each: impl FnMut(ListRow) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let sql = "SELECT d.name, p.heads, p.json FROM document d JOIN projection p ON p.document = d.id
                   WHERE d.collection = ? AND d.space = 1 AND p.deleted = 0 ORDER BY d.name";
        let from = |e: rusqlite::Error| E::from(e.into());
        let mut statement = self.conn.prepare_cached(sql).map_err(from)?;
        let mut rows = statement.query([collection]).map_err(from)?;
        while let Some(row) = rows.next().map_err(from)? {
            each(list_row(row).map_err(from)?)?;
        }
        Ok(())
    }

    /// Deleted documents of a collection, the latest first.
    pub(crate) fn trash(&self, collection: &str) -> Result<Vec<TrashRow>> {
        let sql = "SELECT d.name, p.updated_at, p.json, CASE typeof(l.at) WHEN 'integer' THEN l.at END
                   FROM document d JOIN projection p ON p.document = d.id
                   LEFT JOIN leaving l ON l.document = d.id
                   WHERE d.collection = ? AND p.deleted = 1 AND p.purged = 0 ORDER BY p.updated_at DESC, d.name";
        let mut statement = self.conn.prepare_cached(sql)?;
        let row = |row: &rusqlite::Row<'_>| {
            Ok(TrashRow {
                name: row.get(0)?,
                deleted_at: row.get(1)?,
                json: row.get(2)?,
                leaves_at: row.get(3)?,
            })
        };
        let rows = statement.query_map([collection], row)?;
        Ok(rows.collect::<std::result::Result<_, _>>()?)
    }

    /// Names of the collections that hold a live document.
    pub(crate) fn collection_names(&self) -> Result<Vec<String>> {
        let sql = "SELECT DISTINCT d.collection FROM document d JOIN projection p ON p.document = d.id
                   WHERE p.deleted = 0 ORDER BY d.collection";
        let mut statement = self.conn.prepare_cached(sql)?;
        let rows = statement.query_map([], |row| row.get(0))?;
        Ok(rows.collect::<std::result::Result<_, _>>()?)
    }

    pub(crate) fn status(&self, collection: &str, name: &str) -> Result<Option<StatusRow>> {
        let sql = "SELECT d.id, p.heads, p.deleted, p.conflicts, p.updated_at, d.last_synced_at,
                     EXISTS (SELECT 1 FROM erased e JOIN remote r ON r.id = e.remote
                       WHERE e.document = d.id AND r.active = 1)
                   FROM document d JOIN projection p ON p.document = d.id
                   WHERE d.collection = ? AND d.name = ? AND d.space = 1";
        let row = self.conn.prepare_cached(sql)?.query_row([collection, name], |row| {
            Ok(StatusRow {
                id: row.get(0)?,
                heads: hashes(row.get_ref(1)?.as_blob()?),
                deleted: row.get(2)?,
                conflicts: row.get(3)?,
                updated_at: row.get(4)?,
                is_erased: row.get(6)?,
                last_synced_at: row.get(5)?,
                pending: None,
                damage: None,
            })
        });
        let Some(mut row) = row.optional()? else { return Ok(None) };
        row.pending = self.pending_of(row.id)?;
        row.damage = self.damage_of(row.id)?;
        Ok(Some(row))
    }

    fn damage_of(&self, document: i64) -> Result<Option<(String, i64)>> {
        let sql = "SELECT q.reason, q.at FROM quarantine q JOIN document d ON d.key = q.document
                   WHERE d.id = ? AND q.dormant = 4 ORDER BY q.id LIMIT 1";
        let mut statement = self.conn.prepare_cached(sql)?;
        Ok(statement.query_row([document], |row| Ok((row.get(0)?, row.get(1)?))).optional()?)
    }

    fn pending_of(&self, document: i64) -> Result<Option<PendingRow>> {
        // Several rows of one document: the first tells since when, the last what is pending.
        let sql = "SELECT op, since, error, first_change, last_change FROM outbox WHERE document = ?
                   AND remote IN (SELECT id FROM remote WHERE active = 1) ORDER BY id";
        let mut statement = self.conn.prepare_cached(sql)?;
        let mut rows = statement.query([document])?;
        let mut pending: Option<PendingRow> = None;
        while let Some(row) = rows.next()? {
            let (op, since, error) =
                (Op::from_i64(row.get(0)?), row.get(1)?, row.get::<_, Option<String>>(2)?);
            let (first, last): (i64, Option<i64>) = (row.get(3)?, row.get(4)?);
            let sql = "SELECT COUNT(*) FROM change WHERE id BETWEEN ? AND ? AND origin IS NULL";
            let last = last.unwrap_or(change_id(document, MOST_CHANGES));
            let range = [first.max(change_id(document, 0)), last];
            let changes: i64 = self.conn.prepare_cached(sql)?.query_row(range, |row| row.get(0))?;
            let entry = pending.get_or_insert(PendingRow { op, since, changes: 0, error: None });
            entry.changes += changes as u64;
            if !(entry.op == Op::Create && op == Op::Update) {
                entry.op = op;
            }
            entry.error = error.or(entry.error.take());
        }
        Ok(pending)
    }

    pub(crate) fn count_live_documents(&self) -> Result<u64> {
        let sql = "SELECT COUNT(*) FROM projection WHERE deleted = 0";
        Ok(self.conn.prepare_cached(sql)?.query_row([], |row| row.get::<_, i64>(0))? as u64)
    }

    /// Counts of open conflicts of live documents and of quarantined items that somebody may miss.
    pub(crate) fn troubles(&self) -> Result<(u64, u64)> {
        let sql =
            "SELECT (SELECT COALESCE(SUM(conflicts), 0) FROM projection WHERE conflicts > 0 AND deleted = 0),
                   (SELECT COUNT(*) FROM quarantine WHERE dormant IN (0, 3, 4))";
        let row = self.conn.prepare_cached(sql)?.query_row([], |row| Ok((row.get(0)?, row.get(1)?)));
        let (conflicts, quarantined): (i64, i64) = row?;
        Ok((conflicts as u64, quarantined as u64))
    }

    /// Pending documents, oldest first: collection, name, op, since.
    pub(crate) fn pending_documents(&self, limit: usize) -> Result<Vec<(String, String, Op, i64)>> {
        let sql =
            "SELECT d.collection, d.name, o.op, o.since FROM outbox o JOIN document d ON d.id = o.document
                   WHERE o.remote IN (SELECT id FROM remote WHERE active = 1) ORDER BY o.id LIMIT ?";
        let mut statement = self.conn.prepare_cached(sql)?;
        let rows = statement.query_map([limit as i64], |row| {
            Ok((row.get(0)?, row.get(1)?, Op::from_i64(row.get(2)?), row.get(3)?))
        })?;
        Ok(rows.collect::<std::result::Result<_, _>>()?)
    }
}

pub(super) fn list_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<ListRow> {
    Ok(ListRow { name: row.get(0)?, heads: hashes(row.get_ref(1)?.as_blob()?), json: row.get(2)? })
}

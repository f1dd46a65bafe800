//! Which documents were written, in the order of their last write, by whatever process.

use rusqlite::Row;

use super::{Result, Tx};

/// A document as the feed tells of it.
#[derive(Debug)]
pub(crate) struct ChangedRow {
    /// Grows with every write of any document.
    pub(crate) seq: i64,
    /// Row id: the larger, the newer the document on this device.
    pub(crate) document: i64,
    pub(crate) collection: String,
    pub(crate) name: String,
    pub(crate) deleted: bool,
    pub(crate) updated_at: i64,
    pub(crate) json: String,
}

const CHANGED: &str = "SELECT seq, document, collection, name, deleted, updated_at, json FROM projection WHERE purged = 0 AND typeof(seq) = 'integer'";

impl Tx<'_> {
    /// Number of the latest write; 0 if there was none.
    pub(crate) fn latest_seq(&self) -> Result<i64> {
        let sql = concat!("SELECT -1 + ", super::next_seq!());
        Ok(self.conn.prepare_cached(sql)?.query_row([], |row| row.get(0))?)
    }

    /// The largest row id of a document; 0 if there is none.
    pub(crate) fn latest_document(&self) -> Result<i64> {
        let sql = "SELECT COALESCE(max(id), 0) FROM document";
        Ok(self.conn.prepare_cached(sql)?.query_row([], |row| row.get(0))?)
    }

    /// Documents that were written after the write number `after`, in that order.
    pub(crate) fn changed_after(&self, after: i64, limit: usize) -> Result<Vec<ChangedRow>> {
        let sql = format!("{CHANGED} AND seq > ? ORDER BY seq LIMIT ?");
        let mut statement = self.conn.prepare_cached(&sql)?;
        let rows = statement.query_map([after, limit as i64], changed_row)?;
        Ok(rows.collect::<std::result::Result<_, _>>()?)
    }

    /// Documents that were written after `since`, in milliseconds since 1970, oldest first.
    pub(crate) fn changed_since(&self, since: i64) -> Result<Vec<ChangedRow>> {
        let sql = format!("{CHANGED} AND updated_at > ? ORDER BY updated_at, document");
        let mut statement = self.conn.prepare_cached(&sql)?;
        let rows = statement.query_map([since], changed_row)?;
        Ok(rows.collect::<std::result::Result<_, _>>()?)
    }
}

fn changed_row(row: &Row<'_>) -> rusqlite::Result<ChangedRow> {
    Ok(ChangedRow {
        seq: row.get(0)?,
        document: row.get(1)?,
        collection: row.get(2)?,
        name: row.get(3)?,
        deleted: row.get(4)?,
        updated_at: row.get(5)?,
        json: row.get(6)?,
    })
}

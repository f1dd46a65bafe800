//! Documents whose projections lag behind their changes. What is derived must not keep a damaged file from being opened: a time that is
//! none reads as 0.

use std::collections::HashMap;

use motet_proto::DocumentId;
use rusqlite::OptionalExtension;

use super::documents::{DocumentRow, MOST_CHANGES, change_id};
use super::packed::chunk_at;
use super::{Result, StorageError, Tx};

/// Without rows whose document is not there.
macro_rules! behind {
    () => {
        "FROM behind b JOIN document d ON d.id = b.document JOIN projection p ON p.document = b.document"
    };
}

impl Tx<'_> {
    /// Notes that the projection of a document lags behind its changes.
    pub(crate) fn mark_stale(&self, document: i64, at: i64) -> Result<()> {
        self.conn
            .prepare_cached("INSERT INTO behind (document, at) VALUES (?, ?)")?
            .execute([document, at])?;
        Ok(())
    }

    /// The documents of a collection show differently from now on.
    pub(crate) fn mark_collection_stale(&self, collection: &str) -> Result<()> {
        let sql = "INSERT OR IGNORE INTO behind (document, at)
                   SELECT document, 0 FROM projection WHERE collection = ? AND purged = 0";
        self.conn.prepare_cached(sql)?.execute([collection])?;
        Ok(())
    }

    /// The projection of a document shows all its changes again.
    pub(crate) fn unmark_stale(&self, document: i64) -> Result<()> {
        self.conn.prepare_cached("DELETE FROM behind WHERE document = ?")?.execute([document])?;
        Ok(())
    }

    /// As [`unmark_stale`](Self::unmark_behind), for a document that cannot be read.
    pub(crate) fn unmark_stale_key(&self, key: DocumentId) -> Result<()> {
        let sql = "DELETE FROM behind WHERE document IN (SELECT id FROM document WHERE key = ?)";
        self.conn.prepare_cached(sql)?.execute([key.as_bytes()])?;
        Ok(())
    }

    /// Documents whose projection lags behind, and since when (milliseconds since 1970; 0: by a new declaration).
    pub(crate) fn behind(&self) -> Result<HashMap<DocumentId, i64>> {
        let sql = "SELECT d.key, CAST(b.at AS INTEGER) FROM behind b JOIN document d ON d.id = b.document";
        let mut statement = self.conn.prepare_cached(sql)?;
        let rows = statement.query_map([], |row| Ok((DocumentId(row.get(0)?), row.get(1)?)))?;
        Ok(rows.collect::<std::result::Result<_, _>>()?)
    }

    /// Some of the documents whose projections lag behind, and since when.
    pub(crate) fn stale_documents(&self, most: usize) -> Result<Vec<(DocumentRow, i64)>> {
        let sql = concat!("SELECT b.document, CAST(b.at AS INTEGER) ", behind!(), " LIMIT ?");
        let mut statement = self.conn.prepare_cached(sql)?;
        let rows = statement.query_map([most as i64], |row| Ok((row.get(0)?, row.get(1)?)))?;
        rows.map(|row| {
            row.map_err(StorageError::from).and_then(|(id, at)| Ok((self.document_by_id(id)?, at)))
        })
        .collect()
    }

    /// When the projection of a document began to lag behind; `None` if it does not.
    pub(crate) fn stale_since(&self, document: i64) -> Result<Option<i64>> {
        let sql = "SELECT CAST(at AS INTEGER) FROM behind WHERE document = ?";
        Ok(self.conn.prepare_cached(sql)?.query_row([document], |row| row.get(0)).optional()?)
    }

    /// Whether reads would miss something.
    pub(crate) fn is_behind(&self) -> Result<bool> {
        Ok(self.conn.prepare_cached(concat!("SELECT 1 ", behind!(), " LIMIT 1"))?.exists([])?)
    }

    /// Bytes of the changes of a document that its row does not count yet, and the number of its last change.
    pub(crate) fn changes_after(&self, row: &DocumentRow) -> Result<(Vec<Vec<u8>>, i64)> {
        let sql = "SELECT id, bytes FROM change WHERE id > ? AND id <= ? ORDER BY id";
        let mut statement = self.conn.prepare_cached(sql)?;
        let mut rows = statement.query([change_id(row.id, row.changes), change_id(row.id, MOST_CHANGES)])?;
        let (mut changes, mut last) = (Vec::new(), row.changes);
        while let Some(found) = rows.next()? {
            last = found.get::<_, i64>(0)? - change_id(row.id, 0);
            changes.push(chunk_at(found, 1, row.id)?);
        }
        Ok((changes, last))
    }
}

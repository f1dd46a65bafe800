//! Documents whose entries may be worth one snapshot, and those that a remote was told to forget.

use std::collections::HashSet;

use motet_proto::DocumentId;
use rusqlite::params;

use super::integrity::number;
use super::{Result, Tx};

/// Set once something had to leave the quarantine without a trace.
const OVERFLOWED: &str = "quarantine-overflowed";

impl Tx<'_> {
    pub(crate) fn mark_compactable(&self, document: i64) -> Result<()> {
        let sql = "INSERT OR IGNORE INTO compactable (document) VALUES (?)";
        self.conn.prepare_cached(sql)?.execute([document])?;
        Ok(())
    }

    pub(crate) fn unmark_compactable(&self, document: i64) -> Result<()> {
        self.conn.prepare_cached("DELETE FROM compactable WHERE document = ?")?.execute([document])?;
        Ok(())
    }

    /// Documents that may be worth a snapshot, none of whose changes waits to be sent, and those that were purged before a time, of which
    /// a remote may still hold something.
    pub(crate) fn compactable(&self, limit: usize, purged_before: i64) -> Result<Vec<DocumentId>> {
        let sql = "SELECT d.key FROM compactable c JOIN document d ON d.id = c.document
                   JOIN projection p ON p.document = c.document
                   WHERE NOT EXISTS (SELECT 1 FROM outbox o WHERE o.document = c.document)
                     AND (p.purged = 0 OR p.updated_at <= ?) LIMIT ?";
        let mut statement = self.conn.prepare_cached(sql)?;
        let rows = statement.query_map([purged_before, limit as i64], |row| Ok(DocumentId(row.get(0)?)))?;
        Ok(rows.collect::<std::result::Result<_, _>>()?)
    }

    /// Whether everything that was ever set aside of a document, and is not applied, is still known.
    pub(crate) fn knows_quarantined(&self) -> Result<bool> {
        Ok(self.meta(OVERFLOWED)?.is_none())
    }

    pub(super) fn note_quarantine_overflow(&self) -> Result<()> {
        self.set_meta(OVERFLOWED, Some("1"))
    }

    /// Remotes and documents that they were told to forget.
    pub(crate) fn erased(&self) -> Result<HashSet<(i64, i64)>> {
        let mut statement = self.conn.prepare_cached("SELECT remote, document FROM erased")?;
        let rows = statement.query_map([], |row| Ok((number(row.get_ref(0)?), number(row.get_ref(1)?))))?;
        Ok(rows.collect::<std::result::Result<_, _>>()?)
    }

    pub(crate) fn mark_erased(&self, remote: i64, document: i64) -> Result<()> {
        let sql = "INSERT OR IGNORE INTO erased (remote, document) VALUES (?, ?)";
        self.conn.prepare_cached(sql)?.execute([remote, document])?;
        Ok(())
    }

    pub(crate) fn unmark_erased(&self, remote: i64, document: i64) -> Result<()> {
        let sql = "DELETE FROM erased WHERE remote = ? AND document = ?";
        self.conn.prepare_cached(sql)?.execute([remote, document])?;
        Ok(())
    }

    /// Row ids of the documents of a collection that remotes may hold.
    pub(crate) fn documents_of(&self, collection: &str) -> Result<Vec<i64>> {
        let sql = "SELECT document FROM projection WHERE collection = ? AND length(heads) > 0";
        let mut statement = self.conn.prepare_cached(sql)?;
        let rows = statement.query_map(params![collection], |row| row.get(0))?;
        Ok(rows.collect::<std::result::Result<_, _>>()?)
    }

    /// Row ids and names of all documents of a collection.
    pub(crate) fn named_documents(&self, collection: &str) -> Result<Vec<(i64, String)>> {
        let sql = "SELECT id, name FROM document WHERE collection = ?";
        let mut statement = self.conn.prepare_cached(sql)?;
        let rows = statement.query_map(params![collection], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(rows.collect::<std::result::Result<_, _>>()?)
    }
}

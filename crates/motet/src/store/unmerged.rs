//! Documents that are shown as they came and have not been merged yet.

use rusqlite::OptionalExtension;

use super::{Result, Tx};

impl Tx<'_> {
    /// What a live document without conflicts shows, if that is final.
    pub(crate) fn shown_plainly(&self, document: i64) -> Result<Option<String>> {
        let sql = "SELECT json FROM projection WHERE document = ?1 AND deleted = 0 AND conflicts = 0
                   AND NOT EXISTS (SELECT 1 FROM behind WHERE document = ?1)
                   AND NOT EXISTS (SELECT 1 FROM unmerged WHERE document = ?1)";
        Ok(self.conn.prepare_cached(sql)?.query_row([document], |row| row.get(0)).optional()?)
    }

    pub(crate) fn mark_unmerged(&self, document: i64, remote: i64) -> Result<()> {
        let sql = "INSERT INTO unmerged (document, remote) VALUES (?, ?)";
        self.conn.prepare_cached(sql)?.execute([document, remote])?;
        Ok(())
    }

    /// The document is merged. False if it was already.
    pub(crate) fn is_unmerged(&self, document: i64) -> Result<bool> {
        Ok(self.conn.prepare_cached("SELECT 1 FROM unmerged WHERE document = ?")?.exists([document])?)
    }

    pub(crate) fn unmark_unmerged(&self, document: i64) -> Result<bool> {
        Ok(self.conn.prepare_cached("DELETE FROM unmerged WHERE document = ?")?.execute([document])? > 0)
    }

    /// Documents that are not merged: row id, and the remote they came from.
    pub(crate) fn unmerged(&self, limit: usize) -> Result<Vec<(i64, i64)>> {
        let sql = "SELECT u.document, u.remote FROM unmerged u JOIN document d ON d.id = u.document
                   JOIN projection p ON p.document = u.document ORDER BY u.document LIMIT ?";
        let mut statement = self.conn.prepare_cached(sql)?;
        let rows = statement.query_map([limit as i64], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(rows.collect::<std::result::Result<_, _>>()?)
    }
}

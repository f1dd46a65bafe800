//! What was received and could not be applied.

use motet_proto::DocumentId;
use rusqlite::params;

use super::{Result, Tx};
use crate::limits;

/// Something received and not applied.
#[derive(Debug)]
pub(crate) struct QuarantineRow<'a> {
    pub(crate) remote: i64,
    pub(crate) document: DocumentId,
    /// Of the change; or the id of the entry, if nothing is known of what is in it.
    pub(crate) hash: &'a [u8; 32],
    pub(crate) waits: bool,
    pub(crate) worth: Worth,
    pub(crate) reason: &'a str,
    pub(crate) bytes: &'a [u8],
}

/// Whether anybody has to know of what is set aside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Worth {
    /// It is counted and listed.
    #[default]
    Counted,
    /// Of a document that is purged here, and brings nothing of it back: it goes after a time.
    Dormant,
    /// A purge of what is not here: there are no words in it. It is kept, in case that what it purges arrives.
    OnlyMarks,
    /// It is counted and listed, and perhaps nobody else has it: it comes from this device's own file, or from a log that was lost.
    OnlyHere,
    /// It is counted and listed: it cannot be applied because what this file holds of the document is damaged.
    Damaged,
}

/// What is in quarantine of one document.
#[derive(Debug)]
pub(crate) struct SetAside {
    pub(crate) hash: [u8; 32],
    /// It is tried again when the document receives more; `None` if not, or if its bytes are gone.
    pub(crate) waiting: Option<Vec<u8>>,
    /// Perhaps no remote, or not the one that something arrives from, has it.
    pub(crate) is_only_here: bool,
}

/// An item as people see it.
#[derive(Debug)]
pub(crate) struct QuarantinedRow {
    /// Collection and name, if the document is known.
    pub(crate) document: Option<(String, String)>,
    pub(crate) hash: [u8; 32],
    pub(crate) waits: bool,
    pub(crate) reason: String,
    /// Bytes kept; `None` once they had to make room.
    pub(crate) bytes: Option<i64>,
    pub(crate) at: i64,
}

impl Tx<'_> {
    /// Sets something aside. Returns whether it was not yet.
    pub(crate) fn quarantine(&self, row: &QuarantineRow<'_>, now: i64) -> Result<bool> {
        let known = "SELECT 1 FROM quarantine WHERE document = ? AND hash = ?";
        let is_new = !self.conn.prepare_cached(known)?.exists(params![row.document.as_bytes(), row.hash])?;
        let sql = "INSERT INTO quarantine (remote, document, hash, waits, reason, bytes, at, dormant) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
                   ON CONFLICT DO UPDATE SET waits = excluded.waits, dormant = CASE dormant WHEN 3 THEN 3 ELSE excluded.dormant END, reason = excluded.reason, bytes = excluded.bytes";
        self.conn.prepare_cached(sql)?.execute(params![
            row.remote,
            row.document.as_bytes(),
            row.hash,
            row.waits,
            row.reason,
            row.bytes,
            now,
            row.worth as i64
        ])?;
        Ok(is_new)
    }

    /// The log of a remote is another one than before, or is compared: what waits here of it may be nowhere else.
    pub(crate) fn doubt_quarantined(&self, remote: i64) -> Result<()> {
        let sql = "UPDATE quarantine SET dormant = 3 WHERE remote = ? AND waits = 1 AND dormant IN (0, 4)";
        self.conn.prepare_cached(sql)?.execute([remote])?;
        Ok(())
    }

    /// Removes what has been dormant since before `before` (milliseconds since 1970).
    pub(crate) fn forget_dormant(&self, before: i64) -> Result<()> {
        let sql = "DELETE FROM quarantine WHERE dormant = 1 AND at < ?";
        self.conn.prepare_cached(sql)?.execute([before])?;
        Ok(())
    }

    /// What is set aside of a document, oldest first. `remote`: where something else of it arrives from.
    pub(crate) fn quarantined_of(&self, document: DocumentId, remote: Option<i64>) -> Result<Vec<SetAside>> {
        let sql = "SELECT hash, CASE waits WHEN 1 THEN bytes END, dormant = 3 OR remote <> ?
                   FROM quarantine WHERE document = ? ORDER BY id LIMIT ?";
        let mut statement = self.conn.prepare_cached(sql)?;
        let limit = limits::WAITING_CHANGES as i64;
        let rows = statement.query_map(params![remote.unwrap_or(0), document.as_bytes(), limit], |row| {
            Ok(SetAside { hash: row.get(0)?, waiting: row.get(1)?, is_only_here: row.get(2)? })
        })?;
        Ok(rows.collect::<std::result::Result<_, _>>()?)
    }

    /// Of what was refused of a document, at most `limit` changes: those whose hashes follow `after`, and from the start again behind the last.
    pub(crate) fn refused_of(
        &self,
        document: DocumentId,
        after: &[u8; 32],
        limit: usize,
    ) -> Result<Vec<Vec<u8>>> {
        let sql = "SELECT bytes FROM quarantine WHERE document = ? AND waits = 0 AND bytes IS NOT NULL
                   ORDER BY hash <= ?, hash LIMIT ?";
        let mut statement = self.conn.prepare_cached(sql)?;
        let rows =
            statement.query_map(params![document.as_bytes(), after, limit as i64], |row| row.get(0))?;
        Ok(rows.collect::<std::result::Result<_, _>>()?)
    }

    /// Whether something is set aside of a document.
    pub(crate) fn has_quarantined(&self, document: DocumentId) -> Result<bool> {
        let sql = "SELECT 1 FROM quarantine WHERE document = ?";
        Ok(self.conn.prepare_cached(sql)?.exists([document.as_bytes()])?)
    }

    /// It is known under another name now.
    pub(crate) fn rename_quarantined(
        &self,
        document: DocumentId,
        from: &[u8; 32],
        to: &[u8; 32],
    ) -> Result<()> {
        let sql = "UPDATE OR REPLACE quarantine SET hash = ? WHERE document = ? AND hash = ?";
        self.conn.prepare_cached(sql)?.execute(params![to, document.as_bytes(), from])?;
        Ok(())
    }

    /// It is applied now.
    pub(crate) fn release(&self, document: DocumentId, hash: &[u8; 32]) -> Result<()> {
        let sql = "DELETE FROM quarantine WHERE document = ? AND hash = ?";
        self.conn.prepare_cached(sql)?.execute(params![document.as_bytes(), hash])?;
        Ok(())
    }

    /// Whether anything is set aside.
    pub(crate) fn is_anything_quarantined(&self) -> Result<bool> {
        Ok(self.conn.prepare_cached("SELECT 1 FROM quarantine LIMIT 1")?.exists([])?)
    }

    /// Keeps the quarantine within its limits. What has to make room loses its bytes first, what waits after that, and what perhaps nobody
    /// else has last; that it was there and why stays.
    pub(crate) fn bound_quarantine(&self) -> Result<()> {
        let sql = "SELECT COALESCE(SUM(length(bytes)), 0) FROM quarantine";
        let mut over = self.conn.prepare_cached(sql)?.query_row([], |row| row.get::<_, i64>(0))?
            - limits::QUARANTINE_BYTES as i64;
        if over > 0 {
            let sql = "SELECT id, length(bytes) FROM quarantine WHERE bytes IS NOT NULL ORDER BY dormant = 3, waits, id";
            let mut statement = self.conn.prepare_cached(sql)?;
            let mut rows = statement.query([])?;
            let mut evicted = Vec::new();
            while over > 0
                && let Some(row) = rows.next()?
            {
                evicted.push(row.get::<_, i64>(0)?);
                over -= row.get::<_, i64>(1)?;
            }
            let mut evict = self.conn.prepare_cached("UPDATE quarantine SET bytes = NULL WHERE id = ?")?;
            evicted.iter().try_for_each(|id| evict.execute([id]).map(drop))?;
        }
        let sql = "DELETE FROM quarantine WHERE id <= (SELECT id FROM quarantine ORDER BY id DESC LIMIT 1 OFFSET ?)";
        match self.conn.prepare_cached(sql)?.execute([limits::QUARANTINE_ROWS as i64])? {
            0 => Ok(()),
            _ => self.note_quarantine_overflow(),
        }
    }

    /// What is set aside and somebody may miss, the latest first.
    pub(crate) fn quarantined(&self, limit: usize) -> Result<Vec<QuarantinedRow>> {
        let sql = "SELECT d.collection, d.name, q.hash, q.waits, q.reason, length(q.bytes), q.at
                   FROM quarantine q LEFT JOIN document d ON d.key = q.document
                   WHERE q.dormant IN (0, 3, 4) ORDER BY q.id DESC LIMIT ?";
        let mut statement = self.conn.prepare_cached(sql)?;
        let rows = statement.query_map([limit as i64], |row| {
            let (collection, name): (Option<String>, Option<String>) = (row.get(0)?, row.get(1)?);
            Ok(QuarantinedRow {
                document: collection.zip(name),
                hash: row.get(2)?,
                waits: row.get(3)?,
                reason: row.get(4)?,
                bytes: row.get(5)?,
                at: row.get(6)?,
            })
        })?;
        Ok(rows.collect::<std::result::Result<_, _>>()?)
    }
}

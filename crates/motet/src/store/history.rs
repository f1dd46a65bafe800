//! Which transaction made which change, what was undone, and restore points.

use motet_proto::DeviceId;
use rusqlite::{OptionalExtension, params};

use super::documents::hashes;
use super::{Result, Tx};

/// A document as a restore point remembers it.
#[derive(Debug)]
pub(crate) struct RememberedRow {
    pub(crate) collection: String,
    pub(crate) name: String,
    /// Empty if the document was deleted then, or not there.
    pub(crate) heads: Vec<[u8; 32]>,
}

impl Tx<'_> {
    /// Names of the devices that are known.
    pub(crate) fn devices(&self) -> Result<Vec<(DeviceId, String)>> {
        let mut statement = self.conn.prepare_cached("SELECT id, name FROM device")?;
        let rows = statement.query_map([], |row| Ok((DeviceId(row.get(0)?), row.get(1)?)))?;
        Ok(rows.collect::<std::result::Result<_, _>>()?)
    }

    /// Changes that a transaction of this device made: document and bytes.
    pub(crate) fn changes_of(&self, transaction: i64) -> Result<Vec<(i64, Vec<u8>)>> {
        let mut statement =
            self.conn.prepare_cached("SELECT id >> 24, bytes FROM change WHERE tx = ? ORDER BY id")?;
        let rows = statement.query_map([transaction], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(rows.collect::<std::result::Result<_, _>>()?)
    }

    /// The latest transaction of this device that is no undo and not undone.
    pub(crate) fn undo_candidate(&self) -> Result<Option<i64>> {
        // The latest step about a transaction tells whether it is undone now.
        let sql = "SELECT MAX(tx) FROM change c WHERE tx IS NOT NULL AND tx NOT IN (SELECT tx FROM undo)
                   AND COALESCE((SELECT is_redo FROM undo u WHERE u.target = c.tx ORDER BY u.tx DESC LIMIT 1), 1) = 1";
        Ok(self.conn.prepare_cached(sql)?.query_row([], |row| row.get(0))?)
    }

    /// The latest undo that nothing but undos followed, and what it took back.
    pub(crate) fn redo_candidate(&self) -> Result<Option<(i64, i64)>> {
        let sql = "SELECT u.tx, u.target FROM undo u WHERE u.is_redo = 0
                   AND NOT EXISTS (SELECT 1 FROM undo r WHERE r.target = u.target AND r.tx > u.tx)
                   AND NOT EXISTS (SELECT 1 FROM change c WHERE c.tx > u.tx AND c.tx NOT IN (SELECT tx FROM undo))
                   ORDER BY u.tx DESC LIMIT 1";
        let row = self.conn.prepare_cached(sql)?.query_row([], |row| Ok((row.get(0)?, row.get(1)?)));
        Ok(row.optional()?)
    }

    /// The transaction that did `target` again, the last time.
    pub(crate) fn latest_redo(&self, target: i64) -> Result<Option<i64>> {
        let sql = "SELECT MAX(tx) FROM undo WHERE target = ? AND is_redo = 1";
        Ok(self.conn.prepare_cached(sql)?.query_row([target], |row| row.get(0))?)
    }

    pub(crate) fn note_undo(&self, transaction: i64, target: i64, is_redo: bool) -> Result<()> {
        let sql = "INSERT INTO undo (tx, target, is_redo) VALUES (?, ?, ?)";
        self.conn.prepare_cached(sql)?.execute(params![transaction, target, is_redo])?;
        Ok(())
    }

    /// Remembers the state of every document under a name; one of that name is replaced.
    pub(crate) fn create_restore_point(&self, name: &str, now: i64) -> Result<()> {
        self.remove_restore_point(name)?;
        self.conn
            .prepare_cached("INSERT INTO restore_point (name, created_at) VALUES (?, ?)")?
            .execute(params![name, now])?;
        let sql = "INSERT INTO restore_point_document (point, document, heads)
                   SELECT ?, document, heads FROM projection WHERE deleted = 0 AND length(heads) > 0";
        self.conn.prepare_cached(sql)?.execute([self.conn.last_insert_rowid()])?;
        Ok(())
    }

    /// Forgets a restore point; false if there is none of that name.
    pub(crate) fn remove_restore_point(&self, name: &str) -> Result<bool> {
        let sql =
            "DELETE FROM restore_point_document WHERE point = (SELECT id FROM restore_point WHERE name = ?)";
        self.conn.prepare_cached(sql)?.execute([name])?;
        Ok(self.conn.prepare_cached("DELETE FROM restore_point WHERE name = ?")?.execute([name])? > 0)
    }

    /// Names and times of the restore points, the latest first.
    pub(crate) fn restore_points(&self) -> Result<Vec<(String, i64)>> {
        let sql = "SELECT name, created_at FROM restore_point ORDER BY created_at DESC, id DESC";
        let mut statement = self.conn.prepare_cached(sql)?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(rows.collect::<std::result::Result<_, _>>()?)
    }

    /// The documents whose state is not the one a restore point remembers; `None` if there is no such point.
    pub(crate) fn differing_from(&self, point: &str) -> Result<Option<Vec<RememberedRow>>> {
        let sql = "SELECT id FROM restore_point WHERE name = ?";
        let id: Option<i64> =
            self.conn.prepare_cached(sql)?.query_row([point], |row| row.get(0)).optional()?;
        let Some(id) = id else { return Ok(None) };
        let sql = "SELECT p.collection, p.name, COALESCE(r.heads, x'') FROM projection p
                   LEFT JOIN restore_point_document r ON r.point = ? AND r.document = p.document
                   WHERE p.purged = 0 AND length(p.heads) > 0
                     AND CASE WHEN r.heads IS NULL THEN p.deleted = 0 ELSE p.heads <> r.heads END";
        let mut statement = self.conn.prepare_cached(sql)?;
        let rows = statement.query_map([id], |row| {
            let heads = hashes(row.get_ref(2)?.as_blob()?);
            Ok(RememberedRow { collection: row.get(0)?, name: row.get(1)?, heads })
        })?;
        Ok(Some(rows.collect::<std::result::Result<_, _>>()?))
    }
}

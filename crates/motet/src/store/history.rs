//! Devices by name, and restore points.

use motet_proto::DeviceId;
use rusqlite::types::ValueRef;
use rusqlite::{OptionalExtension, params};

use super::documents::hashes;
use super::integrity::text;
use super::{Result, Tx};

/// A document as a restore point remembers it.
#[derive(Debug)]
pub(crate) struct RememberedRow {
    pub(crate) collection: String,
    pub(crate) name: String,
    /// Empty if the document was deleted then, or not there.
    pub(crate) heads: Vec<[u8; 32]>,
    /// The document has come from another device since the restore point, which was made at this time (milliseconds since 1970).
    pub(crate) arrived_since: Option<i64>,
}

impl Tx<'_> {
    /// Names of the devices that are known.
    pub(crate) fn devices(&self) -> Result<Vec<(DeviceId, String)>> {
        let mut statement = self.conn.prepare_cached("SELECT id, name FROM device")?;
        let rows = statement.query_map([], |row| {
            // One that cannot be read hides no other.
            let id = row.get_ref(0)?.as_blob().ok().and_then(|id| id.try_into().ok());
            Ok(id.map(|id| (DeviceId(id), text(row.get_ref(1).unwrap_or(ValueRef::Null)))))
        })?;
        let rows = rows.filter_map(std::result::Result::transpose);
        Ok(rows.collect::<std::result::Result<_, _>>()?)
    }

    /// Remembers the state of every document under a name; one of that name is replaced.
    pub(crate) fn create_restore_point(&self, name: &str, now: i64) -> Result<()> {
        self.remove_restore_point(name)?;
        self.conn
            .prepare_cached(
                "INSERT INTO restore_point (name, created_at, last_document)
                 VALUES (?, ?, (SELECT COALESCE(MAX(id), 0) FROM document))",
            )?
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

    /// Collection and name of the documents that a restore point remembers and that were purged since.
    pub(crate) fn purged_since(&self, point: &str) -> Result<Vec<(String, String)>> {
        let sql = "SELECT p.collection, p.name FROM restore_point_document r JOIN projection p ON p.document = r.document
                   WHERE r.point = (SELECT id FROM restore_point WHERE name = ?) AND p.purged = 1
                   ORDER BY p.collection, p.name";
        let mut statement = self.conn.prepare_cached(sql)?;
        let rows = statement.query_map([point], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(rows.collect::<std::result::Result<_, _>>()?)
    }

    /// The documents whose state is not the one a restore point remembers; `None` if there is no such point.
    pub(crate) fn differing_from(&self, point: &str) -> Result<Option<Vec<RememberedRow>>> {
        let sql = "SELECT id, created_at, last_document FROM restore_point WHERE name = ?";
        let found = self.conn.prepare_cached(sql)?.query_row([point], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, Option<i64>>(2)?))
        });
        let Some((id, made_at, last)) = found.optional()? else { return Ok(None) };
        // What came as a saved document has no changes of its own here.
        let sql = "SELECT p.collection, p.name, COALESCE(r.heads, x''),
                     p.document > ?2 AND COALESCE((SELECT origin IS NOT NULL FROM change
                       WHERE id BETWEEN p.document << 24 AND p.document << 24 | 0xffffff ORDER BY id LIMIT 1), 1)
                   FROM projection p
                   LEFT JOIN restore_point_document r ON r.point = ?1 AND r.document = p.document
                   WHERE p.purged = 0 AND length(p.heads) > 0
                     AND CASE WHEN r.heads IS NULL THEN p.deleted = 0 ELSE p.heads <> r.heads END";
        let mut statement = self.conn.prepare_cached(sql)?;
        let rows = statement.query_map([id, last.unwrap_or(i64::MAX)], |row| {
            let heads = hashes(row.get_ref(2)?.as_blob()?);
            let arrived_since = row.get::<_, bool>(3)?.then_some(made_at);
            Ok(RememberedRow { collection: row.get(0)?, name: row.get(1)?, heads, arrived_since })
        })?;
        Ok(Some(rows.collect::<std::result::Result<_, _>>()?))
    }
}

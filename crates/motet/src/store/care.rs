//! Looking at the file itself, and taking damaged parts out of it.

use std::path::Path;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags, OptionalExtension};
use serde_json::Value as Json;

use super::documents::{MOST_CHANGES, change_id};
use super::{Result, StorageError, Tx};

impl Tx<'_> {
    /// What SQLite finds wrong with the file.
    pub(crate) fn integrity(&self) -> Result<Vec<String>> {
        let mut statement = self.conn.prepare("PRAGMA integrity_check")?;
        let rows = statement.query_map([], |row| row.get::<_, String>(0))?;
        let lines = rows.collect::<std::result::Result<Vec<_>, _>>()?;
        Ok(lines.into_iter().filter(|line| line != "ok").collect())
    }

    pub(crate) fn document_ids_after(&self, after: i64, limit: usize) -> Result<Vec<i64>> {
        let sql = "SELECT id FROM document WHERE id > ? ORDER BY id LIMIT ?";
        let mut statement = self.conn.prepare_cached(sql)?;
        let rows = statement.query_map([after, limit as i64], |row| row.get(0))?;
        Ok(rows.collect::<std::result::Result<_, _>>()?)
    }

    /// What the projection shows of a document.
    pub(crate) fn shown(&self, document: i64) -> Result<Option<String>> {
        let sql = "SELECT json FROM projection WHERE document = ?";
        Ok(self.conn.prepare_cached(sql)?.query_row([document], |row| row.get(0)).optional()?)
    }

    pub(crate) fn change_rows(&self, document: i64) -> Result<Vec<(i64, Vec<u8>)>> {
        let sql = "SELECT id, bytes FROM change WHERE id BETWEEN ? AND ? ORDER BY id";
        let mut statement = self.conn.prepare_cached(sql)?;
        let range = [change_id(document, 0), change_id(document, MOST_CHANGES)];
        let rows = statement.query_map(range, |row| {
            // Whatever stands there, so that it can be told to be damaged.
            Ok((row.get(0)?, row.get_ref(1)?.as_bytes_or_null().ok().flatten().unwrap_or_default().to_vec()))
        })?;
        Ok(rows.collect::<std::result::Result<_, _>>()?)
    }

    pub(crate) fn drop_change(&self, id: i64) -> Result<()> {
        self.conn.prepare_cached("DELETE FROM change WHERE id = ?")?.execute([id])?;
        Ok(())
    }

    pub(crate) fn drop_snapshot(&self, document: i64) -> Result<()> {
        self.conn.prepare_cached("DELETE FROM snapshot WHERE document = ?")?.execute([document])?;
        Ok(())
    }

    /// Every remote is read from the start with the next session.
    pub(crate) fn forget_positions(&self) -> Result<()> {
        self.conn.prepare_cached("UPDATE remote SET position = NULL, reseed = 1")?.execute([])?;
        Ok(())
    }

    pub(crate) fn drop_search_tables(&self) -> Result<()> {
        let sql = "SELECT name FROM sqlite_schema WHERE type = 'table' AND sql LIKE 'CREATE VIRTUAL TABLE%'
                   AND name GLOB 'search:*'";
        let mut statement = self.conn.prepare(sql)?;
        let names = statement.query_map([], |row| row.get(0))?;
        for name in names.collect::<std::result::Result<Vec<String>, _>>()? {
            self.conn.execute_batch(&format!("DROP TABLE {}", super::finding::identifier(&name)))?;
        }
        Ok(())
    }

    pub(crate) fn mark_all_unindexed(&self) -> Result<()> {
        let sql = "INSERT OR IGNORE INTO unindexed (document) SELECT id FROM document";
        self.conn.prepare_cached(sql)?.execute([])?;
        Ok(())
    }

    /// Documents with open conflicts, or with any in the journal.
    pub(crate) fn conflicted_documents(&self, settled: bool) -> Result<Vec<(String, String)>> {
        let sql = "SELECT collection, name FROM projection p WHERE p.conflicts > 0
                   OR (? AND document IN (SELECT document FROM conflict)) ORDER BY collection, name";
        let mut statement = self.conn.prepare_cached(sql)?;
        let rows = statement.query_map([settled], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(rows.collect::<std::result::Result<_, _>>()?)
    }
}

/// Runs a query on a connection that cannot write. Returns the names of the columns, and the rows.
pub(crate) fn run_sql(database: &Path, query: &str) -> Result<(Vec<String>, Vec<Vec<Json>>)> {
    let conn = Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let invalid = |e: rusqlite::Error| StorageError::Query(e.to_string());
    let mut statement = conn.prepare(query).map_err(invalid)?;
    let columns: Vec<String> = statement.column_names().map(Into::into).collect();
    let mut rows = statement.query([]).map_err(invalid)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next().map_err(invalid)? {
        found.push((0..columns.len()).map(|i| Ok(json(row.get_ref(i)?))).collect::<Result<_>>()?);
    }
    Ok((columns, found))
}

fn json(value: ValueRef<'_>) -> Json {
    match value {
        ValueRef::Null => Json::Null,
        ValueRef::Integer(n) => n.into(),
        ValueRef::Real(n) => n.into(),
        ValueRef::Text(text) => String::from_utf8_lossy(text).into(),
        ValueRef::Blob(bytes) => bytes.iter().copied().map(Json::from).collect(),
    }
}

//! Queries in SQL that an app writes.

use std::path::Path;

use rusqlite::limits::Limit;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags};
use serde_json::Value as Json;

use super::{Result, StorageError};

/// Runs a query on a connection that cannot write, here or into another file. Returns the names of the columns, and the rows.
pub(crate) fn run_sql(database: &Path, query: &str) -> Result<(Vec<String>, Vec<Vec<Json>>)> {
    let conn = Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    // `VACUUM INTO` is a read of this file, and writes a copy: with what stays on this device, for anybody to read.
    conn.set_limit(Limit::SQLITE_LIMIT_ATTACHED, 0)?;
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

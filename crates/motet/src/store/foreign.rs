//! A database of another app, which is only read.

use std::path::Path;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags};
use serde_json::{Number, Value as Json};

use super::finding::identifier;
use super::{Result, StorageError};

/// A table, or a view, of another database.
pub(crate) struct ForeignTable {
    conn: Connection,
    table: String,
    /// Names of its columns, in their order.
    pub(crate) columns: Vec<String>,
    /// The columns of its primary key, in their order; none if it declares none.
    pub(crate) key: Vec<String>,
}

/// What stands in a column of a row.
pub(crate) enum Cell<'r> {
    Value(Json),
    Blob(&'r [u8]),
    /// It cannot be told in JSON.
    Fault(String),
}

impl ForeignTable {
    pub(crate) fn open(database: &Path, table: &str) -> Result<Self> {
        let failed = |e: rusqlite::Error| StorageError::Io(format!("{}: {e}", database.display()));
        let conn = Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(failed)?;
        let columns = column_names(&conn, table).map_err(failed)?;
        let key = primary_key(&conn, table).map_err(failed)?;
        Ok(Self { conn, table: table.into(), columns, key })
    }

    /// Hands on every row: what stands in these columns, in their order.
    pub(crate) fn each_row<E: From<StorageError>>(
        &self,
        columns: &[String],
        mut each: impl FnMut(Vec<Cell<'_>>) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let failed = |e: rusqlite::Error| E::from(StorageError::from(e));
        let list = columns.iter().map(|name| identifier(name)).collect::<Vec<_>>().join(", ");
        let sql = format!("SELECT {list} FROM {}", identifier(&self.table));
        let mut statement = self.conn.prepare(&sql).map_err(failed)?;
        let mut rows = statement.query([]).map_err(failed)?;
        while let Some(row) = rows.next().map_err(failed)? {
            let cells = (0..columns.len()).map(|i| row.get_ref(i).map(cell));
            each(cells.collect::<rusqlite::Result<_>>().map_err(failed)?)?;
        }
        Ok(())
    }
}

fn column_names(conn: &Connection, table: &str) -> rusqlite::Result<Vec<String>> {
    let statement = conn.prepare(&format!("SELECT * FROM {}", identifier(table)))?;
    Ok(statement.column_names().map(Into::into).collect())
}

fn primary_key(conn: &Connection, table: &str) -> rusqlite::Result<Vec<String>> {
    let mut statement = conn.prepare("SELECT name FROM pragma_table_info(?) WHERE pk > 0 ORDER BY pk")?;
    statement.query_map([table], |row| row.get(0))?.collect()
}

fn cell(value: ValueRef<'_>) -> Cell<'_> {
    match value {
        ValueRef::Null => Cell::Value(Json::Null),
        ValueRef::Integer(n) => Cell::Value(n.into()),
        ValueRef::Real(n) => match Number::from_f64(n) {
            Some(n) => Cell::Value(Json::Number(n)),
            None => Cell::Fault(format!("{n} is no number that JSON has")),
        },
        ValueRef::Text(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => Cell::Value(text.into()),
            Err(error) => {
                Cell::Fault(format!("its text is not UTF-8 from byte {} on", error.valid_up_to() + 1))
            }
        },
        ValueRef::Blob(bytes) => Cell::Blob(bytes),
    }
}

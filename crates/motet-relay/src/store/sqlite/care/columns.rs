//! What each column may hold. SQLite takes any type in any column, so one damaged byte can make text of a number.

use motet_proto::position::TAG_LEN;
use motet_proto::{DeviceId, DocumentId, EntryId, RelayId, SpaceId, limits as proto};
use rusqlite::Connection;

use super::super::{CAUSE_UNKNOWN, LAST_SEQ, LAST_SPACE, row_base};
use crate::limits;

/// What the relay writes into a column.
#[derive(Clone, Copy)]
enum Holds {
    /// A whole number from one to another.
    Number(i64, i64),
    /// Bytes, of one of these lengths if there are any.
    Bytes(&'static [usize]),
    /// Text that is UTF-8.
    Text,
}
use Holds::{Bytes, Number, Text};

const SPACE: Holds = Number(1, LAST_SPACE);
const ROW: Holds = Number(row_base(1), i64::MAX);
const TIME: Holds = Number(0, limits::LAST_SECOND);

/// All tables and their columns. What has left a log has a document and a device without bytes, and as its suite the number of what it has
/// left for.
const TABLES: &[(&str, &[(&str, Holds)])] = &[
    ("space", &[("id", SPACE), ("account", Text), ("uuid", Bytes(&[SpaceId::LEN]))]),
    (
        "entry",
        &[
            ("id", ROW),
            ("entry", Bytes(&[EntryId::LEN])),
            ("tag", Bytes(&[TAG_LEN])),
            ("document", Bytes(&[0, DocumentId::LEN])),
            ("device", Bytes(&[0, DeviceId::LEN])),
            ("kind", Bytes(&[])),
            ("suite", Number(CAUSE_UNKNOWN, LAST_SEQ as i64)),
            ("payload", Bytes(&[])),
            ("received_at", TIME),
        ],
    ),
    (
        "entry_of",
        &[
            ("space", SPACE),
            ("document", Bytes(&[DocumentId::LEN])),
            ("head", Bytes(&[8])),
            ("seq", Number(1, LAST_SEQ as i64)),
            ("superseded", Number(0, LAST_SEQ as i64)),
        ],
    ),
    ("superseded", &[("at", TIME), ("entry", ROW)]),
    ("erasing", &[("entry", ROW), ("document", Bytes(&[DocumentId::LEN]))]),
    ("superseding", &[("entry", ROW), ("done", Number(0, proto::SNAPSHOT_SUPERSEDES as i64))]),
    ("usage", &[("account", Text), ("bytes", Number(0, i64::MAX)), ("documents", Number(0, i64::MAX))]),
    ("relay", &[("id", Bytes(&[RelayId::LEN]))]),
];

impl Holds {
    /// The condition under which a column holds something else. Whether text is UTF-8 SQL does not tell.
    fn odd(self, column: &str) -> String {
        match self {
            Number(low, high) => {
                format!("typeof({column}) <> 'integer' OR {column} NOT BETWEEN {low} AND {high}")
            }
            Bytes([]) => format!("typeof({column}) <> 'blob'"),
            Bytes(lengths) => {
                let lengths: Vec<_> = lengths.iter().map(ToString::to_string).collect();
                format!("typeof({column}) <> 'blob' OR length({column}) NOT IN ({})", lengths.join(", "))
            }
            Text => format!("typeof({column}) <> 'text'"),
        }
    }

    fn name(self) -> String {
        match self {
            Number(low, high) => format!("a number from {low} to {high}"),
            Bytes([]) => "bytes".into(),
            Bytes(lengths) => format!("bytes, {} of them", lengths[lengths.len() - 1]),
            Text => "text in UTF-8".into(),
        }
    }
}

/// Names the tables that cannot be asked for anything, or are views under their names, to which nothing can be written.
pub(super) fn missing_tables(conn: &Connection) -> Vec<&'static str> {
    let is_missing =
        |table: &&str| !is_table(conn, table) || conn.prepare(&format!("SELECT 1 FROM {table}")).is_err();
    TABLES.iter().map(|(table, _)| *table).filter(is_missing).collect()
}

/// The first table that is not there, lacks a column, or is a view.
pub(super) fn unusable_table(conn: &Connection) -> Option<&'static str> {
    let is_unusable = |(table, columns): &&(&str, &[(&str, Holds)])| {
        let names: Vec<_> = columns.iter().map(|(column, _)| *column).collect();
        !is_table(conn, table) || conn.prepare(&format!("SELECT {} FROM {table}", names.join(", "))).is_err()
    };
    TABLES.iter().find(is_unusable).map(|(table, _)| *table)
}

fn is_table(conn: &Connection, name: &str) -> bool {
    let sql = "SELECT COUNT(*) FROM sqlite_schema WHERE type = 'table' AND name = ?";
    conn.query_row(sql, [name], |row| row.get::<_, i64>(0)).is_ok_and(|count| count == 1)
}

/// Values that the relay never wrote. Where a table cannot be read, its pages are found damaged elsewhere.
pub(super) fn odd_values(conn: &Connection) -> Vec<String> {
    let mut problems = Vec::new();
    for (table, columns) in TABLES {
        let mut counts = odd_counts(conn, table, columns).unwrap_or_default();
        for (n, (column, _)) in columns.iter().enumerate().filter(|(_, (_, holds))| matches!(holds, Text)) {
            if let Some(count) = counts.get_mut(n) {
                *count += bad_text(conn, table, column).unwrap_or(0);
            }
        }
        for ((column, holds), count) in columns.iter().zip(counts).filter(|(_, count)| *count > 0) {
            let name = holds.name();
            problems.push(format!("table {table}, column {column}: {count} values are not {name}"));
        }
    }
    problems
}

fn odd_counts(conn: &Connection, table: &str, columns: &[(&str, Holds)]) -> rusqlite::Result<Vec<i64>> {
    let sums: Vec<_> =
        columns.iter().map(|(column, holds)| format!("COALESCE(SUM({}), 0)", holds.odd(column))).collect();
    let sql = format!("SELECT {} FROM {table}", sums.join(", "));
    conn.query_row(&sql, [], |row| (0..columns.len()).map(|n| row.get(n)).collect())
}

/// Texts that are not UTF-8.
fn bad_text(conn: &Connection, table: &str, column: &str) -> rusqlite::Result<i64> {
    let mut statement =
        conn.prepare(&format!("SELECT {column} FROM {table} WHERE typeof({column}) = 'text'"))?;
    let mut rows = statement.query([])?;
    let mut count = 0;
    while let Some(row) = rows.next()? {
        count += i64::from(row.get_ref(0)?.as_str().is_err());
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::migrate;

    #[test]
    fn every_column_of_every_table_is_named() {
        let mut conn = Connection::open_in_memory().unwrap();
        migrate(&mut conn, None).unwrap();
        let sql =
            "SELECT t.name, c.name FROM sqlite_schema t, pragma_table_info(t.name) c WHERE t.type = 'table'";
        let mut statement = conn.prepare(sql).unwrap();
        let found = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        let mut found: Vec<(String, String)> = found.map(Result::unwrap).collect();
        let own = |(table, columns): &(&str, &[(&str, Holds)])| -> Vec<(String, String)> {
            columns.iter().map(|(column, _)| ((*table).to_owned(), (*column).to_owned())).collect()
        };
        let mut named: Vec<_> = TABLES.iter().flat_map(own).collect();
        found.sort();
        named.sort();
        assert_eq!(found, named);
        assert_eq!((odd_values(&conn), missing_tables(&conn)), (vec![], vec![]));
    }
}

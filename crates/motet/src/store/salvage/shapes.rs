//! What the rows of a table look like, so that it can be told to which one a row belongs that stands somewhere in a file.

use rusqlite::Connection;
use rusqlite::types::{Value, ValueRef};
use serde_json::Value as Json;

use super::cells::Record;
use crate::schema::CollectionSchema;
use crate::store::finding::identifier;
use crate::store::rows::allows;
use crate::store::{DECLARATION_LOST, Result};

/// Tables whose rows are known wherever they stand. Those of the others are made of these, or look like those of another table or of an index;
/// and a restore point of which a document is missing would remove it.
const KNOWN_ANYWHERE: [&str; 17] = [
    "document",
    "change",
    "snapshot",
    "projection",
    "local_field",
    "outbox",
    "remote",
    "quarantine",
    "conflict",
    "history",
    "traffic",
    "step",
    "grave",
    "meta",
    "device",
    "collection",
    "excluded",
];

/// A table of this format.
pub(super) struct Shape {
    pub(super) name: String,
    columns: Vec<Column>,
    /// Places of the columns, in the order in which they stand in a row.
    stored: Vec<usize>,
    /// Columns that each row has: later versions have added others.
    least: usize,
    /// The column that is the row id; none if the rows stand under their key.
    number: Option<usize>,
    /// The column that names the document which a row is about.
    document: Option<usize>,
    pub(super) is_known_anywhere: bool,
}

struct Column {
    name: String,
    kind: String,
    is_nullable: bool,
    /// What an older row has there.
    default: Value,
}

impl Shape {
    pub(super) fn of(conn: &Connection, table: &str) -> Result<Self> {
        let sql = "SELECT name, type, \"notnull\", dflt_value, pk FROM pragma_table_info(?) ORDER BY cid";
        let mut statement = conn.prepare(sql)?;
        let found = statement.query_map([table], |row| {
            let default: Option<String> = row.get(3)?;
            let is_set_by_itself = default.is_some();
            let (is_set, place) = (row.get::<_, bool>(2)?, row.get::<_, u32>(4)?);
            let column = Column {
                name: row.get(0)?,
                kind: row.get(1)?,
                is_nullable: !is_set && place == 0,
                default: default.and_then(|n| n.parse().ok()).map_or(Value::Null, Value::Integer),
            };
            Ok((column, place, is_set_by_itself))
        })?;
        let found: Vec<(Column, u32, bool)> = found.collect::<std::result::Result<_, _>>()?;
        let sql = "SELECT wr FROM pragma_table_list WHERE schema = 'main' AND name = ?";
        let is_by_key: bool = conn.query_row(sql, [table], |row| row.get(0))?;
        let mut stored: Vec<usize> = (0..found.len()).collect();
        if is_by_key {
            // First those of the key, in its order.
            stored.sort_by_key(|place| match found[*place].1 {
                0 => u32::MAX,
                key => key,
            });
        }
        let added = stored.iter().rev().take_while(|place| {
            let (column, key, has_default) = &found[**place];
            *key == 0 && (column.is_nullable || *has_default)
        });
        let least = found.len() - added.count();
        let columns: Vec<Column> = found.into_iter().map(|(column, ..)| column).collect();
        let number = columns
            .iter()
            .position(|column| column.kind == "INTEGER")
            .filter(|place| !is_by_key && *place == 0);
        let document = match table {
            "change" => Some(0),
            "quarantine" => None,
            _ => columns.iter().position(|column| column.name == "document"),
        };
        let is_known_anywhere = KNOWN_ANYWHERE.contains(&table);
        Ok(Self { name: table.to_owned(), columns, stored, least, number, document, is_known_anywhere })
    }

    /// The values of a row of this table, in the order of its columns; `None` if it is none of this table.
    pub(super) fn row(&self, record: &Record) -> Option<Vec<Value>> {
        let is_long_enough = (self.least..=self.columns.len()).contains(&record.values.len());
        if !is_long_enough || record.rowid.is_some() != self.number.is_some() {
            return None;
        }
        let mut row: Vec<Value> = self.columns.iter().map(|column| column.default.clone()).collect();
        for (place, value) in self.stored.iter().zip(&record.values) {
            row[*place] = value.clone();
        }
        if let (Some(place), Some(rowid)) = (self.number, record.rowid)
            && std::mem::replace(&mut row[place], rowid.into()) != Value::Null
        {
            return None;
        }
        let fits = |(column, value): (&Column, &Value)| {
            column.allows(value) && allows(&self.name, &column.name, ValueRef::from(value))
        };
        (self.columns.iter().zip(&row).all(fits) && self.is_content_fitting(&row)).then_some(row)
    }

    /// What tables whose columns are alike differ in.
    fn is_content_fitting(&self, row: &[Value]) -> bool {
        let text = |place: usize| match row.get(place) {
            Some(Value::Text(text)) => text.as_str(),
            _ => "",
        };
        let is_json = |place| serde_json::from_str::<Json>(text(place)).is_ok_and(|json| json.is_object());
        match &*self.name {
            "collection" => text(1) == DECLARATION_LOST || CollectionSchema::from_stored(text(1)).is_some(),
            "meta" => !is_json(1),
            "local_field" => is_json(1),
            _ => true,
        }
    }

    /// The document that a row is about, if the table is about documents.
    pub(super) fn document_of(&self, row: &[Value]) -> Option<i64> {
        match row.get(self.document?)? {
            Value::Integer(change) if self.name == "change" => Some(change >> 24),
            Value::Integer(document) => Some(*document),
            _ => None,
        }
    }

    pub(super) fn insert(&self) -> String {
        let names = self.columns.iter().map(|column| identifier(&column.name)).collect::<Vec<_>>().join(", ");
        let places = vec!["?"; self.columns.len()].join(", ");
        format!("INSERT OR IGNORE INTO {} ({names}) VALUES ({places})", identifier(&self.name))
    }
}

impl Column {
    fn allows(&self, value: &Value) -> bool {
        match (value, &*self.kind) {
            (Value::Null, _) => self.is_nullable,
            (Value::Integer(_), "INTEGER") | (Value::Text(_), "TEXT") | (Value::Blob(_), "BLOB") => true,
            _ => false,
        }
    }
}

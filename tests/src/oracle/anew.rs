//! A document read anew from its changes, by Automerge and nothing of the library.

use std::collections::BTreeMap;
use std::path::Path;

use automerge::{Automerge, ObjId, ObjType, ROOT, ReadDoc, ScalarValue, Value as Held};
use rusqlite::{Connection, OpenFlags};
use serde_json::{Map, Number, Value};

use super::model::COUNTER_MAX;
use super::script::Fields;

/// What the changes of a document say.
#[derive(Clone, Debug, Default)]
pub(super) struct Anew {
    /// Its fields.
    pub(super) fields: Fields,
    /// Fields that hold more than one value.
    pub(super) contested: Vec<String>,
    /// It has changes.
    pub(super) has_changes: bool,
}

/// Opens the file of a replica.
///
/// # Errors
/// What SQLite says.
pub(super) fn open(database: &Path) -> Result<Connection, String> {
    let conn = Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_WRITE);
    conn.map_err(|error| format!("the file cannot be opened: {error}"))
}

/// Reads all documents of a collection.
///
/// # Errors
/// What cannot be read.
pub(super) fn read(conn: &Connection, collection: &str) -> Result<BTreeMap<String, Anew>, String> {
    let failed = |error: rusqlite::Error| format!("the file cannot be read: {error}");
    let mut documents =
        conn.prepare_cached("SELECT id, name FROM document WHERE collection = ?").map_err(failed)?;
    let ids: Vec<(i64, String)> = documents
        .query_map([collection], |row| Ok((row.get(0)?, row.get(1)?)))
        .and_then(Iterator::collect)
        .map_err(failed)?;
    let mut all = BTreeMap::new();
    for (id, name) in ids {
        let mut bytes: Vec<u8> = Vec::new();
        let mut statement = conn
            .prepare_cached(
                "SELECT bytes FROM snapshot WHERE document = ?1 AND is_primary = 1
                 UNION ALL SELECT bytes FROM (SELECT bytes FROM change WHERE id >> 24 = ?1 ORDER BY id)",
            )
            .map_err(failed)?;
        let chunks: Vec<Vec<u8>> =
            statement.query_map([id], |row| row.get(0)).and_then(Iterator::collect).map_err(failed)?;
        chunks.into_iter().for_each(|row| bytes.extend(crate::raw::chunk(id, row)));
        let document =
            Automerge::load(&bytes).map_err(|error| format!("{name} cannot be loaded: {error}"))?;
        let mut anew = Anew { has_changes: !document.get_heads().is_empty(), ..Anew::default() };
        anew.fields = map(&document, &ROOT, "", &mut anew.contested);
        // What a document says of conflicts stands beside its fields.
        anew.fields.retain(|name, _| !name.starts_with('\u{1}'));
        all.insert(name, anew);
    }
    Ok(all)
}

fn map(document: &Automerge, object: &ObjId, path: &str, contested: &mut Vec<String>) -> Map<String, Value> {
    let mut fields = Map::new();
    for key in document.keys(object) {
        let values = document.get_all(object, &key).unwrap_or_default();
        let path = format!("{path}/{key}");
        if values.len() > 1 {
            contested.push(path.clone());
        }
        if let Some((held, id)) = values.last() {
            fields.insert(key, value(document, held, id, &path, contested));
        }
    }
    fields
}

fn value(
    document: &Automerge,
    held: &Held<'_>,
    id: &ObjId,
    path: &str,
    contested: &mut Vec<String>,
) -> Value {
    match held {
        Held::Object(ObjType::Text) => document.text(id).unwrap_or_default().into(),
        Held::Object(ObjType::List) => (0..document.length(id))
            .map(|at| {
                let values = document.get_all(id, at).unwrap_or_default();
                let path = format!("{path}/{at}");
                if values.len() > 1 {
                    contested.push(path.clone());
                }
                values.last().map_or(Value::Null, |(held, id)| value(document, held, id, &path, contested))
            })
            .collect(),
        Held::Object(_) => {
            let fields = map(document, id, path, contested);
            // A set is marked by a field without a name; its elements are the other names, as JSON.
            match fields.contains_key("") {
                true => fields.keys().filter(|key| !key.is_empty()).map(|key| element(key)).collect(),
                false => Value::Object(fields),
            }
        }
        Held::Scalar(scalar) => match scalar.as_ref() {
            ScalarValue::Str(text) => text.as_str().into(),
            ScalarValue::Int(n) | ScalarValue::Timestamp(n) => (*n).into(),
            ScalarValue::Uint(n) => (*n).into(),
            ScalarValue::F64(n) => Number::from_f64(*n).map_or(Value::Null, Value::Number),
            // What concurrent writes have added up to beyond the bounds shows as the bound.
            ScalarValue::Counter(counter) => i64::from(counter).clamp(-COUNTER_MAX, COUNTER_MAX).into(),
            ScalarValue::Boolean(b) => (*b).into(),
            _ => Value::Null,
        },
    }
}

fn element(key: &str) -> Value {
    serde_json::from_str(key).unwrap_or_else(|_| key.into())
}

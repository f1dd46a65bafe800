//! An app's existing rows become documents.

mod intake;
mod times;

use std::collections::HashMap;
use std::path::Path;

use serde::Serialize;
use serde_json::Value as Json;

use self::intake::{Bad, Intake, Row};
use self::times::milliseconds;
use super::json::{as_text, parse_with_faults};
use super::lines::{Lines, Unread};
use super::refusal::{BadRows, Target};
use crate::api::replica::Replica;
use crate::doc::Fields;
use crate::error::WriteError;
use crate::query::near_name;
use crate::store::ForeignTable;
use crate::types::Refusal;

/// How rows are taken up.
///
/// Two devices that adopt the same rows end up with one document each, and no conflict; of rows that differ the one with the
/// later `updated_at` wins, and what it overwrote stands in the conflict journal. If both adopt the same newer rows they make one
/// change of it, as long as they know the same history of the fields that changed: what a counter gained is added once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adoption {
    /// The columns that name a row.
    pub id: KeyColumns,
    /// Put before every id and reference. Databases that number their rows use the same numbers for different things: give
    /// each its own prefix, unless they are copies of one another.
    pub prefix: String,
    /// Columns that hold the id of another row.
    pub references: Vec<String>,
    /// The column that says when a row was last changed: ISO 8601 with or without fractions, as SQLite writes it, or
    /// seconds or milliseconds since 1970. A row in which it is missing, null or empty is undated: it becomes a document where there is
    /// none, and changes none that is there, since nobody can say which of the two is newer. One in which it is anything else, also a number
    /// beyond 2^53 milliseconds, is refused.
    pub updated_at: String,
    /// The column that is set in rows that are deleted; these are passed over. Null, 0, false and an empty text do not set it.
    pub deleted_at: String,
    /// Columns that are not taken up.
    pub exclude: Vec<String>,
    /// What becomes of the others when a row cannot be taken up.
    pub bad_rows: BadRows,
}

/// The columns that name a row. By default the primary key of its table, else the column `id`.
///
/// The id of a document is the value of the column. Of several columns it is their values, separated by `/`; inside of them `/` is written
/// `~1` and `~` is written `~0`. A BLOB is written in hex.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyColumns(Vec<String>);

/// What became of adopted rows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct AdoptSummary {
    /// Rows that became documents.
    pub new: u64,
    /// Rows that were newer than their document.
    pub updated: u64,
    /// Rows whose document had all of it already, or was newer.
    pub unchanged: u64,
    /// Rows without a time that differ from their document, which was left as it is.
    pub undated: u64,
    /// The first [`LISTED_REFUSALS`](crate::limits::LISTED_REFUSALS) of them, with the first field that differs.
    pub undated_rows: Vec<Refusal>,
    /// Rows that are deleted, or whose document is.
    pub passed_over: u64,
    /// Rows that cannot be taken up.
    pub refused: u64,
    /// The first [`LISTED_REFUSALS`](crate::limits::LISTED_REFUSALS) of them.
    pub refusals: Vec<Refusal>,
    /// Columns that were left out of a row that was taken up: BLOBs of more than
    /// [`ADOPTED_BLOB_BYTES`](crate::limits::ADOPTED_BLOB_BYTES).
    pub left_out: u64,
    /// The first [`LISTED_REFUSALS`](crate::limits::LISTED_REFUSALS) of these.
    pub omissions: Vec<Refusal>,
}

impl Default for Adoption {
    fn default() -> Self {
        Self {
            id: KeyColumns::default(),
            prefix: String::new(),
            references: Vec::new(),
            updated_at: "updated_at".into(),
            deleted_at: "deleted_at".into(),
            exclude: Vec::new(),
            bad_rows: BadRows::Report,
        }
    }
}

impl From<&str> for KeyColumns {
    fn from(column: &str) -> Self {
        Self(vec![column.into()])
    }
}

impl From<String> for KeyColumns {
    fn from(column: String) -> Self {
        Self(vec![column])
    }
}

impl From<Vec<String>> for KeyColumns {
    fn from(columns: Vec<String>) -> Self {
        Self(columns)
    }
}

impl Replica {
    /// Takes up rows as documents of a collection. May be called again: what has been taken up is not taken up twice.
    ///
    /// Every row is judged as [`Collection::upsert`](crate::Collection::upsert) judges a value. One that cannot be taken up is counted and named in
    /// the summary, and the others are taken up, unless [`Adoption::bad_rows`] says otherwise. Of two rows with one id the first is taken
    /// up.
    ///
    /// ```
    /// # use motet::{Adoption, Replica, json};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let replica = Replica::open(dir.path().join("t.db"))?;
    /// let rows = vec![
    ///     json!({ "id": 7, "title": "Aloha ʻOe", "updated_at": "2025-01-03T10:00:00.25Z" }),
    ///     json!({ "id": 8, "title": "Hiʻilawe", "updated_at": "soon" }),
    /// ];
    /// let summary = replica.adopt("songs", rows.clone(), &Adoption::default())?;
    /// assert_eq!((summary.new, summary.refused), (1, 1));
    /// let refused = summary.refusals[0].to_string();
    /// assert_eq!(refused, "row 2: \"updated_at\": \"soon\" is no time (songs/8)");
    /// assert_eq!(replica.adopt("songs", rows, &Adoption::default())?.unchanged, 1);
    /// assert_eq!(replica.documents("songs").get("7")?.unwrap()["title"], "Aloha ʻOe");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`WriteError::Refused`] if no row can be taken up, or if one cannot and it is to refuse all: nothing is taken up then.
    /// [`WriteError::Storage`]: rows of earlier batches stay.
    pub fn adopt(
        &self,
        collection: &str,
        rows: Vec<Json>,
        adoption: &Adoption,
    ) -> Result<AdoptSummary, WriteError> {
        let mut intake = Intake::new(self, collection, adoption, adoption.id.or(&[]));
        for (number, row) in (1_u64..).zip(rows) {
            intake.take_json(format!("row {number}"), row)?;
        }
        intake.finish()
    }

    /// Takes up the objects of a JSON array, or of JSONL, as rows. A byte order mark is passed over.
    ///
    /// # Errors
    /// [`WriteError::BadValue`] if it is neither; else as [`adopt`](Self::adopt).
    pub fn adopt_json(
        &self,
        text: &[u8],
        collection: &str,
        adoption: &Adoption,
    ) -> Result<AdoptSummary, WriteError> {
        let mut intake = Intake::new(self, collection, adoption, adoption.id.or(&[]));
        let is_array = as_text(text).is_ok_and(|text| text.trim_start().starts_with('['));
        if !is_array {
            for line in Lines::new(text) {
                let line = line.map_err(WriteError::bad_value)?;
                match line.value {
                    Ok(value) => intake.take_json(line.place, value)?,
                    Err(Unread { error, row }) => {
                        let id = adoption.id_of(&row, &intake.key);
                        let target = Target { collection: Some(collection), id: id.as_deref() };
                        intake.refusals.add(Refusal::unread(line.place, target, &error));
                    }
                }
            }
            return intake.finish();
        }
        let (array, faults) = parse_with_faults(text).map_err(WriteError::bad_value)?;
        let Json::Array(rows) = array else {
            return Err(WriteError::bad_value("it is no JSON array"));
        };
        let mut faulty = HashMap::new();
        for mut fault in faults {
            let place = fault.path.first().and_then(|place| place.parse::<usize>().ok());
            fault.path.drain(..fault.path.len().min(1));
            faulty.entry(place.unwrap_or_default()).or_insert(fault);
        }
        for (number, row) in rows.into_iter().enumerate() {
            let place = format!("row {}", number + 1);
            match faulty.get(&number) {
                Some(fault) => {
                    let id = adoption.id_of(&row, &intake.key);
                    let target = Target { collection: Some(collection), id: id.as_deref() };
                    intake.refusals.add(Refusal::unread(place, target, fault));
                }
                None => intake.take_json(place, row)?,
            }
        }
        intake.finish()
    }

    /// Takes up a table of another SQLite database, which is only read. A BLOB of up to
    /// [`ADOPTED_BLOB_BYTES`](crate::limits::ADOPTED_BLOB_BYTES) becomes an object `{"base64": …}`; a larger one is left out of its row, and
    /// the summary says so. A row with a text that is not UTF-8, or an infinite number, is refused.
    ///
    /// # Errors
    /// [`WriteError::Storage`] if the database or the table cannot be read; `write-bad-value` if the table lacks a column that `adoption` names
    /// (`updated_at` and `deleted_at` need not be there), and nothing is taken up then; else as [`adopt`](Self::adopt).
    pub fn adopt_sqlite(
        &self,
        database: impl AsRef<Path>,
        table: &str,
        collection: &str,
        adoption: &Adoption,
    ) -> Result<AdoptSummary, WriteError> {
        let table = ForeignTable::open(database.as_ref(), table)?;
        let mut intake = Intake::new(self, collection, adoption, adoption.id.or(&table.key));
        adoption.check_columns(&intake.key, &table.columns).map_err(WriteError::bad_value)?;
        let is_wanted = |name: &&String| intake.key.contains(name) || !adoption.exclude.contains(name);
        let columns: Vec<String> = table.columns.iter().filter(is_wanted).cloned().collect();
        let mut number = 0_u64;
        table.each_row(&columns, |cells| {
            number += 1;
            intake.take_cells(format!("row {number}"), &columns, cells)
        })?;
        intake.finish()
    }
}

impl KeyColumns {
    /// These columns, or those of a primary key, or `id`.
    fn or(&self, primary: &[String]) -> Vec<String> {
        match (&self.0[..], primary) {
            ([], []) => vec!["id".into()],
            ([], primary) => primary.to_vec(),
            (given, _) => given.to_vec(),
        }
    }
}

impl Adoption {
    /// Says which column is named that a table with these columns does not have.
    fn check_columns(&self, key: &[String], columns: &[String]) -> Result<(), String> {
        let usual = Self::default();
        let times = [(&self.updated_at, &usual.updated_at), (&self.deleted_at, &usual.deleted_at)];
        let times = times.into_iter().filter(|(named, usual)| named != usual).map(|(named, _)| named);
        let named = key.iter().chain(&self.references).chain(&self.exclude).chain(times);
        let Some(missing) = named.into_iter().find(|name| !columns.contains(*name)) else { return Ok(()) };
        let all = || columns.iter().map(String::as_str);
        Err(match near_name(missing, all()) {
            Some(near) => format!("the table has no column {missing:?}; {near:?} was probably meant"),
            None => format!(
                "the table has no column {missing:?}; it has {}",
                all().collect::<Vec<_>>().join(", ")
            ),
        })
    }

    /// Whether a row says that it is deleted.
    fn is_deleted(&self, fields: &Fields) -> bool {
        match fields.get(&self.deleted_at) {
            None | Some(Json::Null | Json::Bool(false)) => false,
            Some(Json::Number(at)) => at.as_f64() != Some(0.0),
            Some(Json::String(at)) => !matches!(at.trim(), "" | "0"),
            Some(_) => true,
        }
    }

    /// The id of a row, with its prefix.
    fn id_in(&self, fields: &Fields, key: &[String]) -> Result<String, Bad> {
        let part = |column: &String| match fields.get(column) {
            Some(Json::String(id)) if !id.is_empty() => Ok(id.clone()),
            Some(Json::Number(id)) => Ok(id.to_string()),
            None | Some(Json::Null) => Err((Some(column.clone()), format!("it has no {column:?}"))),
            Some(other) => Err((Some(column.clone()), format!("{column:?}: {other} is no id"))),
        };
        let parts = key.iter().map(part).collect::<Result<Vec<_>, Bad>>()?;
        let id = match &parts[..] {
            [id] => id.clone(),
            parts => {
                let escaped = parts.iter().map(|part| part.replace('~', "~0").replace('/', "~1"));
                escaped.collect::<Vec<_>>().join("/")
            }
        };
        Ok(format!("{}{id}", self.prefix))
    }

    fn id_of(&self, row: &Json, key: &[String]) -> Option<String> {
        row.as_object().and_then(|fields| self.id_in(fields, key).ok())
    }

    /// A row as it is taken up.
    fn read(&self, place: String, id: String, mut fields: Fields, key: &[String]) -> Result<Row, Bad> {
        fields.remove(&self.deleted_at);
        let updated_at = match fields.get(&self.updated_at) {
            None | Some(Json::Null) => None,
            Some(Json::String(at)) if at.trim().is_empty() => None,
            Some(at) => Some(milliseconds(at).ok_or_else(|| {
                (Some(self.updated_at.clone()), format!("{:?}: {at} is no time", self.updated_at))
            })?),
        };
        // The one column that names a row is the id of its document; of several each says something of its own.
        if let [column] = key {
            fields.remove(column);
        } else if key.iter().any(|column| column == "id") {
            fields.remove("id");
        }
        fields.retain(|name, _| !self.exclude.contains(name));
        if fields.contains_key("id") {
            let reason = "field \"id\": a document has its id in it; exclude the column, or make it the key";
            return Err((Some("id".into()), reason.into()));
        }
        for name in &self.references {
            if let Some(value) = fields.get_mut(name) {
                match value {
                    Json::Number(id) => *value = format!("{}{id}", self.prefix).into(),
                    Json::String(id) => *value = format!("{}{id}", self.prefix).into(),
                    _ => {}
                }
            }
        }
        Ok(Row { place, id, fields, updated_at })
    }
}

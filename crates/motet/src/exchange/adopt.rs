//! An app's existing rows become documents.

use std::path::Path;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde::Serialize;
use serde_json::Value as Json;

use crate::doc::Fields;
use crate::engine::Adopted;
use crate::error::WriteError;
use crate::limits;
use crate::replica::Replica;
use crate::store;

/// How rows are taken up.
///
/// Two devices that adopt the same rows end up with one document each, and no conflict; of rows that differ the one with the
/// later `updated_at` wins, and what it overwrote stands in the conflict journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adoption {
    /// The column that names a row.
    pub id: String,
    /// Put before every id and reference. Databases that number their rows use the same numbers for different things: give
    /// each its own prefix, unless they are copies of one another.
    pub prefix: String,
    /// Columns that hold the id of another row.
    pub references: Vec<String>,
    /// The column that says when a row was last changed: ISO 8601 with or without fractions, as SQLite writes it, or
    /// seconds or milliseconds since 1970.
    pub updated_at: String,
    /// The column that is set in rows that are deleted; these are passed over.
    pub deleted_at: String,
    /// Columns that are not taken up.
    pub exclude: Vec<String>,
}

/// What became of adopted rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AdoptSummary {
    /// Rows that became documents.
    pub new: u64,
    /// Rows that were newer than their document.
    pub updated: u64,
    /// Rows whose document had all of it already, or was newer.
    pub unchanged: u64,
    /// Rows that are deleted, or whose document is.
    pub passed_over: u64,
}

impl Default for Adoption {
    fn default() -> Self {
        Self {
            id: "id".into(),
            prefix: String::new(),
            references: Vec::new(),
            updated_at: "updated_at".into(),
            deleted_at: "deleted_at".into(),
            exclude: Vec::new(),
        }
    }
}

impl Replica {
    /// Takes up rows as documents of a collection. May be called again: what has been taken up is not taken up twice.
    ///
    /// ```
    /// # use motet::{Adoption, Replica, json};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let replica = Replica::open(dir.path().join("t.db"))?;
    /// let rows = vec![json!({ "id": 7, "title": "Aloha ʻOe", "updated_at": "2025-01-03T10:00:00.25Z" })];
    /// assert_eq!(replica.adopt("songs", rows.clone(), &Adoption::default())?.new, 1);
    /// assert_eq!(replica.adopt("songs", rows, &Adoption::default())?.unchanged, 1);
    /// assert_eq!(replica.documents("songs").get("7")?.unwrap()["title"], "Aloha ʻOe");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`WriteError::BadValue`] names the row that cannot be taken up; those of earlier batches stay.
    pub fn adopt(
        &self,
        collection: &str,
        rows: Vec<Json>,
        adoption: &Adoption,
    ) -> Result<AdoptSummary, WriteError> {
        let mut summary = AdoptSummary::default();
        let mut ready = Vec::new();
        for (number, row) in (1..).zip(rows) {
            let bad = |reason: String| WriteError::BadValue { reason: format!("row {number}: {reason}") };
            match adoption.read(row).map_err(bad)? {
                Some(row) => ready.push(row),
                None => summary.passed_over += 1,
            }
        }
        while !ready.is_empty() {
            let rest = ready.split_off(ready.len().min(limits::ADOPTED_ROWS));
            let (batch, collection) = (std::mem::replace(&mut ready, rest), collection.to_owned());
            let adopted = self.run(move |tx, core| {
                let take = |row: &Row| core.adopt(tx, &collection, &row.id, &row.fields, row.updated_at);
                batch.iter().map(take).collect::<Result<Vec<_>, _>>()
            })?;
            for adopted in adopted {
                match adopted {
                    Adopted::New => summary.new += 1,
                    Adopted::Updated => summary.updated += 1,
                    Adopted::Unchanged => summary.unchanged += 1,
                }
            }
        }
        Ok(summary)
    }

    /// Takes up a table of another SQLite database, which is only read.
    ///
    /// # Errors
    /// [`WriteError::Storage`] if the database or the table cannot be read; else as [`adopt`](Self::adopt).
    pub fn adopt_sqlite(
        &self,
        database: impl AsRef<Path>,
        table: &str,
        collection: &str,
        adoption: &Adoption,
    ) -> Result<AdoptSummary, WriteError> {
        let rows = store::foreign_rows(database.as_ref(), table)?;
        self.adopt(collection, rows.into_iter().map(Json::Object).collect(), adoption)
    }
}

struct Row {
    id: String,
    fields: Fields,
    updated_at: i64,
}

impl Adoption {
    /// A row as it is taken up; `None` if it is deleted.
    fn read(&self, row: Json) -> Result<Option<Row>, String> {
        let Json::Object(mut fields) = row else { return Err("it is not an object".into()) };
        let id = match fields.remove(&self.id) {
            Some(Json::String(id)) if !id.is_empty() => id,
            Some(Json::Number(id)) => id.to_string(),
            _ => return Err(format!("it has no {:?}", self.id)),
        };
        if fields.remove(&self.deleted_at).is_some_and(|at| !at.is_null()) {
            return Ok(None);
        }
        let updated_at = match fields.get(&self.updated_at) {
            None | Some(Json::Null) => 0,
            Some(at) => milliseconds(at).ok_or_else(|| format!("{:?}: {at} is no time", self.updated_at))?,
        };
        fields.retain(|name, _| !self.exclude.contains(name));
        for name in &self.references {
            if let Some(value) = fields.get_mut(name) {
                match value {
                    Json::Number(id) => *value = format!("{}{id}", self.prefix).into(),
                    Json::String(id) => *value = format!("{}{id}", self.prefix).into(),
                    _ => {}
                }
            }
        }
        Ok(Some(Row { id: format!("{}{id}", self.prefix), fields, updated_at }))
    }
}

/// A time in whatever form databases keep it, as milliseconds since 1970.
fn milliseconds(at: &Json) -> Option<i64> {
    match at {
        Json::Number(n) => {
            let n = n.as_f64()?;
            // Seconds until the year 5138; anything larger is milliseconds.
            Some(if n.abs() < 1e11 { (n * 1e3) as i64 } else { n as i64 })
        }
        Json::String(text) => {
            let instant = text.parse::<Timestamp>().ok();
            let local =
                || text.parse::<DateTime>().ok()?.to_zoned(TimeZone::UTC).ok().map(|at| at.timestamp());
            instant.or_else(local).map(|at| at.as_millisecond())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn times_are_read_in_every_usual_form() {
        let second = 1_735_898_400_000;
        for (at, expected) in [
            (json!("2025-01-03T10:00:00Z"), second),
            (json!("2025-01-03T10:00:00.250Z"), second + 250),
            (json!("2025-01-03T00:00:00-10:00"), second),
            (json!("2025-01-03 10:00:00"), second),
            (json!("2025-01-03 10:00:00.5"), second + 500),
            (json!(1_735_898_400), second),
            (json!(1_735_898_400_250_i64), second + 250),
        ] {
            assert_eq!(milliseconds(&at), Some(expected), "{at}");
        }
        assert_eq!(milliseconds(&json!("yesterday")), None);
    }
}

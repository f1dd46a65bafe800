//! Change logs as JSON: what changed since a time, for people and for other programs.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json, json};

use super::json::{JsonError, parse_with_faults};
use super::refusal::{BadRows, Refusals, Target, judge};
use crate::api::replica::{Replica, check_cursor, number};
use crate::doc::Fields;
use crate::engine::{Composed, Entrance, Patch, bytes_of, declared, is_big, schema_of};
use crate::error::{ReadError, WriteError};
use crate::limits;
use crate::store::{self, ChangedRow, Tx};
use crate::types::Refusal;

/// What a change log did to the documents here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ChangeLogSummary {
    /// Documents made or changed.
    pub upserted: u64,
    /// Documents deleted.
    pub deleted: u64,
    /// Deletes of documents that were not here.
    pub missing: u64,
    /// Entries that cannot be carried out.
    pub refused: u64,
    /// The first [`LISTED_REFUSALS`](crate::limits::LISTED_REFUSALS) of them.
    pub refusals: Vec<Refusal>,
}

/// The collection whose documents stand under `config`, as key and value.
const CONFIG: &str = "config";

#[derive(Deserialize)]
struct LoggedChange {
    op: Op,
    #[serde(default)]
    data: Fields,
}

#[derive(Deserialize)]
struct ConfigEntry {
    value: Json,
}

/// An entry that can be carried out.
struct Entry {
    place: String,
    collection: String,
    id: String,
    op: Op,
    data: Fields,
}

#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Op {
    Upsert,
    Delete,
}

impl Replica {
    /// What changed here after `since` (milliseconds since 1970), as one JSON object: `device_id`, `sync_version`,
    /// `timestamp`, `cursor`, `changes` with a list of `{op, id, data}` per collection, and `config` with those documents of that
    /// collection that have a `value` and nothing else, as `{key, value}`. Fields and collections that stay on this device are not in it.
    ///
    /// With its `timestamp` as the next `since` nothing is left out as long as the clock is not set back; what was written in the
    /// millisecond in which the log was made comes again. With its `cursor`, [`export_change_log_after`](Self::export_change_log_after)
    /// leaves out and repeats nothing.
    ///
    /// An entry has a document as it is now: a field that was removed is missing, and whoever takes up the entry keeps it. Purged
    /// documents have none.
    ///
    /// # Errors
    /// [`ReadError`] if the file cannot be read.
    pub fn export_change_log(&self, since: i64) -> Result<Json, ReadError> {
        self.change_log(Some(since), |tx| tx.changed_since(since))
    }

    /// What changed here after another change log was made, of which this is the `cursor`; 0 for everything. Otherwise as
    /// [`export_change_log`](Self::export_change_log). A cursor belongs to this database file: it is what
    /// [`latest_change`](Self::latest_change) was.
    ///
    /// # Errors
    /// [`ReadError`] if the file cannot be read; [`ReadError::UnknownChange`] if it has no change with a number as large as `cursor`.
    ///
    /// ```
    /// use motet::Replica;
    /// use serde_json::json;
    /// # let dir = tempfile::tempdir().unwrap();
    /// let replica = Replica::open(dir.path().join("songs.db"))?;
    /// replica.documents("songs").upsert("1", &json!({ "title": "Hoʻi" }))?;
    /// let all = replica.export_change_log_after(0)?;
    /// let cursor = all["cursor"].as_u64().unwrap();
    /// assert_eq!(replica.export_change_log_after(cursor)?["changes"], json!({}));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn export_change_log_after(&self, cursor: u64) -> Result<Json, ReadError> {
        let log = self.change_log(None, |tx| tx.changed_after(number(cursor), usize::MAX))?;
        check_cursor(cursor, log["cursor"].as_i64().unwrap_or_default())?;
        Ok(log)
    }

    /// A log of the rows that `changed` reads. Its time is no earlier than `since`.
    fn change_log(
        &self,
        since: Option<i64>,
        changed: impl FnOnce(Tx<'_>) -> store::Result<Vec<ChangedRow>>,
    ) -> Result<Json, ReadError> {
        // Looked up first: whatever is written after the rows were read is no earlier than this.
        let now = self.now_ms();
        let (rows, cursor, schemas) = self.read(|tx| Ok((changed(tx)?, tx.latest_seq()?, declared(tx)?)))?;
        let latest = rows.iter().map(|row| row.updated_at).max().or(since).unwrap_or(now);
        // More may be written in this millisecond.
        let timestamp = latest.min(now.saturating_sub(1)).max(since.unwrap_or(i64::MIN));
        let mut changes: Map<String, Json> = Map::new();
        let mut config = Vec::new();
        for row in rows {
            let schema = schema_of(&schemas, &row.collection, &row.name);
            if schema.is_local() {
                continue;
            }
            let mut data: Fields = serde_json::from_str(&row.json).unwrap_or_default();
            data.retain(|name, _| !schema.is_device_local(name));
            if row.collection == CONFIG
                && !row.deleted
                && let (Some(value), 1) = (data.get("value"), data.len())
            {
                config.push(json!({ "key": row.name, "value": value }));
                continue;
            }
            let entry = match row.deleted {
                true => json!({ "op": "delete", "id": row.name }),
                false => json!({ "op": "upsert", "id": row.name, "data": data }),
            };
            if let Json::Array(list) = changes.entry(row.collection).or_insert_with(|| json!([])) {
                list.push(entry);
            }
        }
        Ok(json!({
            "device_id": self.device_id().to_string(),
            "sync_version": 1,
            "timestamp": timestamp,
            "cursor": cursor,
            "changes": changes,
            "config": config,
        }))
    }

    /// Carries out a change log, in one transaction. What is here already is merged with it. An entry that cannot be carried out is counted
    /// and named in the summary.
    ///
    /// # Errors
    /// [`WriteError::BadValue`] if it is no change log, [`WriteError::Refused`] if no entry of it can be carried out; nothing is changed
    /// then.
    pub fn import_change_log(&self, log: &Json) -> Result<ChangeLogSummary, WriteError> {
        self.carry_out(log.clone(), &[], BadRows::Report)
    }

    /// The same from JSON text, in which what [`parse_json`](crate::parse_json) refuses concerns only the entry that it stands in.
    ///
    /// # Errors
    /// As [`import_change_log`](Self::import_change_log); with [`BadRows::RefuseAll`] also [`WriteError::Refused`] if one entry cannot be
    /// carried out.
    pub fn import_change_log_text(
        &self,
        text: &[u8],
        bad_rows: BadRows,
    ) -> Result<ChangeLogSummary, WriteError> {
        let (log, faults) = parse_with_faults(text).map_err(|e| bad_log(&e))?;
        self.carry_out(log, &faults, bad_rows)
    }

    fn carry_out(
        &self,
        log: Json,
        faults: &[JsonError],
        bad_rows: BadRows,
    ) -> Result<ChangeLogSummary, WriteError> {
        let mut refusals = Refusals::default();
        let entries = self.compose_entries(entries_of(log, faults, &mut refusals)?);
        self.run(move |tx, core| {
            let mut summary = ChangeLogSummary::default();
            for (Entry { place, collection, id, op, data }, composed) in entries {
                let patch = Patch { set: data, ..Patch::default() };
                core.offer(composed);
                let outcome = match op {
                    Op::Upsert => core.put_row(tx, &collection, &id, &patch),
                    Op::Delete => core.delete(tx, &collection, &id).map(drop),
                };
                match (op, outcome) {
                    (Op::Upsert, Ok(())) => summary.upserted += 1,
                    (Op::Delete, Ok(())) => summary.deleted += 1,
                    (Op::Delete, Err(WriteError::NotFound { .. })) => summary.missing += 1,
                    (_, Err(WriteError::Storage(error))) => return Err(error.into()),
                    (_, Err(error)) => {
                        let target = Target { collection: Some(&collection), id: Some(&id) };
                        refusals.add(Refusal::unwritten(place, target, &error));
                    }
                }
            }
            refusals.settle(bad_rows, summary.upserted + summary.deleted + summary.missing)?;
            Ok(ChangeLogSummary { refused: refusals.count, refusals: refusals.listed, ..summary })
        })
    }
}

impl Replica {
    /// Composes big entries before the transaction of their log, as far as memory allows: others write meanwhile.
    fn compose_entries(&self, entries: Vec<Entry>) -> Vec<(Entry, Option<Composed>)> {
        let mut room = limits::CHANGE_LOG_AHEAD_BYTES;
        let compose = |entry: Entry| {
            let bytes = bytes_of(&entry.data);
            if entry.op == Op::Delete || !is_big(&entry.data) || bytes > room {
                return (entry, None);
            }
            room -= bytes;
            let patch = Patch { set: entry.data.clone(), ..Patch::default() };
            let composed = self.compose_ahead(&entry.collection, &entry.id, &patch, None, Entrance::Row);
            (entry, composed)
        };
        entries.into_iter().map(compose).collect()
    }
}

fn bad_log(reason: impl std::fmt::Display) -> WriteError {
    WriteError::bad_value(format!("change log: {reason}"))
}

/// The entries of a change log that can be read. `faults` stand in the text that it was read from.
fn entries_of(log: Json, faults: &[JsonError], refusals: &mut Refusals) -> Result<Vec<Entry>, WriteError> {
    let Json::Object(mut log) = log else { return Err(bad_log("it is not an object")) };
    let changes = match log.remove("changes") {
        None => Map::new(),
        Some(Json::Object(changes)) => changes,
        Some(_) => return Err(bad_log("\"changes\" is not an object")),
    };
    let config = match log.remove("config") {
        None => Vec::new(),
        Some(Json::Array(config)) => config,
        Some(_) => return Err(bad_log("\"config\" is not a list")),
    };
    // What stands outside of entries concerns all of it.
    let depth = |fault: &JsonError| if fault.path.first().is_some_and(|part| part == CONFIG) { 2 } else { 3 };
    if let Some(fault) = faults.iter().find(|fault| fault.path.len() < depth(fault)) {
        return Err(bad_log(fault));
    }
    let mut entries = Vec::new();
    for (collection, list) in changes {
        let Json::Array(list) = list else { return Err(bad_log(format!("{collection} is not a list"))) };
        for (number, entry) in list.into_iter().enumerate() {
            let place = format!("entry {} of {collection}", number + 1);
            let path = ["changes", &collection, &number.to_string()];
            let fault = fault_below(faults, &path);
            match read_entry(place, &collection, entry, fault) {
                Ok(entry) => entries.push(entry),
                Err(refusal) => refusals.add(refusal),
            }
        }
    }
    for (number, entry) in config.into_iter().enumerate() {
        let place = format!("entry {} of {CONFIG}", number + 1);
        let fault = fault_below(faults, &[CONFIG, &number.to_string()]);
        match read_config(place, entry, fault) {
            Ok(entry) => entries.push(entry),
            Err(refusal) => refusals.add(refusal),
        }
    }
    Ok(entries)
}

/// The first fault of the text inside of an entry, as it is named there.
fn fault_below(faults: &[JsonError], path: &[&str]) -> Option<JsonError> {
    let fault = faults.iter().find(|fault| fault.path.iter().zip(path).all(|(a, b)| a == b))?;
    let inner = fault.path.iter().skip(path.len()).skip_while(|part| *part == "data").cloned().collect();
    Some(JsonError { path: inner, reason: fault.reason.clone() })
}

fn read_entry(
    place: String,
    collection: &str,
    entry: Json,
    fault: Option<JsonError>,
) -> Result<Entry, Refusal> {
    let id = id_of(entry.get("id"));
    let target = Target { collection: Some(collection), id: id.as_deref().ok() };
    if let Some(fault) = fault {
        return Err(Refusal::unread(place, target, &fault));
    }
    let change: LoggedChange =
        serde_json::from_value(entry).map_err(|error| Refusal::new(&place, target, error))?;
    let id = id.clone().map_err(|reason| Refusal::new(&place, target, reason))?;
    let mut data = change.data;
    // It names the document and is no field of it.
    data.remove("id");
    judge(&place, target, &data)?;
    Ok(Entry { place, collection: collection.into(), id, op: change.op, data })
}

fn read_config(place: String, entry: Json, fault: Option<JsonError>) -> Result<Entry, Refusal> {
    let id = id_of(entry.get("key"));
    let target = Target { collection: Some(CONFIG), id: id.as_deref().ok() };
    if let Some(fault) = fault {
        return Err(Refusal::unread(place, target, &fault));
    }
    let ConfigEntry { value } =
        serde_json::from_value(entry).map_err(|error| Refusal::new(&place, target, error))?;
    let id = id.clone().map_err(|reason| Refusal::new(&place, target, reason))?;
    let data = Fields::from_iter([("value".to_owned(), value)]);
    judge(&place, target, &data)?;
    Ok(Entry { place, collection: CONFIG.into(), id, op: Op::Upsert, data })
}

fn id_of(id: Option<&Json>) -> Result<String, String> {
    match id {
        Some(Json::String(id)) => Ok(id.clone()),
        Some(Json::Number(id)) => Ok(id.to_string()),
        Some(other) => Err(format!("{other} is no id")),
        None => Err("it has no id".into()),
    }
}

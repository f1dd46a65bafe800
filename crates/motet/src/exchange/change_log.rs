//! Change logs as JSON: what changed since a time, for people and for other programs.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json, json};

use crate::doc::Fields;
use crate::error::{ReadError, WriteError};
use crate::replica::Replica;

/// What a change log did to the documents here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ChangeLogSummary {
    /// Documents made or changed.
    pub upserted: u64,
    /// Documents deleted.
    pub deleted: u64,
    /// Deletes of documents that were not here.
    pub missing: u64,
}

/// The collection whose documents stand under `config`, as key and value.
const CONFIG: &str = "config";

#[derive(Deserialize)]
struct ChangeLog {
    #[serde(default)]
    changes: Map<String, Json>,
    #[serde(default)]
    config: Vec<ConfigEntry>,
}

#[derive(Deserialize)]
struct ConfigEntry {
    key: String,
    value: Json,
}

#[derive(Deserialize)]
struct LoggedChange {
    op: Op,
    id: Json,
    #[serde(default)]
    data: Fields,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Op {
    Upsert,
    Delete,
}

impl Replica {
    /// What changed here after `since` (milliseconds since 1970), as one JSON object: `device_id`, `sync_version`,
    /// `timestamp`, `changes` with a list of `{op, id, data}` per collection, and `config` with the documents of that
    /// collection as `{key, value}`. Fields and collections that stay on this device are not in it.
    ///
    /// # Errors
    /// [`ReadError`] if the file cannot be read.
    pub fn export_change_log(&self, since: i64) -> Result<Json, ReadError> {
        let rows = self.read(|tx| tx.changed_since(since))?;
        let schemas = self.schemas();
        let mut changes: Map<String, Json> = Map::new();
        let mut config = Vec::new();
        let mut latest = since;
        for row in rows {
            latest = latest.max(row.updated_at);
            let schema = schemas.get(&row.collection).cloned().unwrap_or_default();
            if schema.is_local() {
                continue;
            }
            let mut data: Fields = serde_json::from_str(&row.json).unwrap_or_default();
            data.retain(|name, _| !schema.keeps(name));
            if row.collection == CONFIG && !row.deleted {
                config.push(json!({ "key": row.name, "value": data.remove("value") }));
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
            "timestamp": latest,
            "changes": changes,
            "config": config,
        }))
    }

    /// Carries out a change log, all of it or nothing, durably. What is here already is merged with it.
    ///
    /// # Errors
    /// [`WriteError::BadValue`] names the entry that cannot be read.
    pub fn import_change_log(&self, log: &Json) -> Result<ChangeLogSummary, WriteError> {
        let bad = |reason: String| WriteError::BadValue { reason: format!("change log: {reason}") };
        let log: ChangeLog = serde_json::from_value(log.clone()).map_err(|e| bad(e.to_string()))?;
        let mut entries = Vec::new();
        for (collection, list) in log.changes {
            let Json::Array(list) = list else { return Err(bad(format!("{collection} is not a list"))) };
            for (number, entry) in (1..).zip(list) {
                let entry: LoggedChange = serde_json::from_value(entry)
                    .map_err(|e| bad(format!("entry {number} of {collection}: {e}")))?;
                let id = match entry.id {
                    Json::String(id) => id,
                    Json::Number(id) => id.to_string(),
                    other => return Err(bad(format!("entry {number} of {collection}: {other} is no id"))),
                };
                entries.push((collection.clone(), id, entry.op, entry.data));
            }
        }
        for ConfigEntry { key, value } in log.config {
            entries.push((CONFIG.into(), key, Op::Upsert, Fields::from_iter([("value".into(), value)])));
        }
        self.transaction(move |tx| {
            let mut summary = ChangeLogSummary::default();
            for (collection, id, op, data) in &entries {
                match op {
                    Op::Upsert => {
                        tx.put(collection, id, data)?;
                        summary.upserted += 1;
                    }
                    Op::Delete => match tx.delete(collection, id) {
                        Ok(()) => summary.deleted += 1,
                        Err(WriteError::NotFound { .. }) => summary.missing += 1,
                        Err(error) => return Err(error),
                    },
                }
            }
            Ok(summary)
        })
    }
}

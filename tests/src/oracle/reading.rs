//! What the ways of reading show of a device.

use std::collections::{BTreeMap, BTreeSet};

use motet::Replica;
use serde_json::Value;

use super::anew;
use super::device::{COLLECTION, Device, number, without_id};
use super::script::{Fields, id};

/// Of so many reads of the view one goes through the library.
const SQL_EVERY: u32 = 8;

/// What one way of reading shows: the fields of each live document.
pub(super) type Shown = BTreeMap<usize, Fields>;

/// What stands beside the fields of a document.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Status {
    /// Its version.
    pub(super) version: String,
    /// It is in the trash.
    pub(super) deleted: bool,
}

/// What the ways of reading show.
impl Device {
    /// What `list` shows.
    ///
    /// # Errors
    /// What the library says.
    pub(super) fn listed(&self, replica: &Replica) -> Result<Shown, String> {
        let list = replica.documents(COLLECTION).list().map_err(|error| format!("list: {error}"))?;
        Ok(list
            .into_iter()
            .filter_map(|record| Some((number(&record.id)?, without_id(record.value)?)))
            .collect())
    }

    /// What the view in SQL shows.
    ///
    /// # Errors
    /// What the library says.
    pub(super) fn selected(&self) -> Result<Shown, String> {
        let query = format!("SELECT id, json FROM collection_{COLLECTION}");
        let fields = |id: &str, json: &str| Some((number(id)?, serde_json::from_str(json).ok()?));
        self.selections.set(self.selections.get() + 1);
        if self.selections.get() % SQL_EVERY == 1 {
            let table = self.replica().sql(&query).map_err(|error| format!("sql: {error}"))?;
            let row = |row: &Vec<Value>| fields(row[0].as_str()?, row[1].as_str()?);
            return Ok(table.rows.iter().filter_map(row).collect());
        }
        // A connection of its own for each call takes an eighth of all the time.
        let Some(conn) = &self.conn else { return Err("the file is not open".into()) };
        let read = || {
            let mut statement = conn.prepare_cached(&query)?;
            let rows =
                statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        };
        let rows = read().map_err(|error| format!("sql: {error}"))?;
        Ok(rows.iter().filter_map(|(id, json)| fields(id, json)).collect())
    }

    /// Every document read anew from its changes, by Automerge alone.
    ///
    /// # Errors
    /// What cannot be read.
    pub(super) fn anew(&self) -> Result<BTreeMap<usize, anew::Anew>, String> {
        let Some(conn) = &self.conn else { return Err("the file is not open".into()) };
        let all = anew::read(conn, COLLECTION)?;
        Ok(all.into_iter().filter_map(|(name, read)| Some((number(&name)?, read))).collect())
    }

    /// Fields that are listed because they break a rule.
    ///
    /// # Errors
    /// What the library says.
    pub(super) fn violations(&self) -> Result<BTreeSet<(usize, String)>, String> {
        let all = self.replica().documents(COLLECTION).violations();
        let all = all.map_err(|error| format!("violations: {error}"))?;
        Ok(all.into_iter().filter_map(|broken| Some((number(&broken.id)?, broken.field))).collect())
    }

    /// What the trash shows.
    ///
    /// # Errors
    /// What the library says.
    pub(super) fn trash(&self) -> Result<Shown, String> {
        let trash =
            self.replica().documents(COLLECTION).trash().map_err(|error| format!("trash: {error}"))?;
        Ok(trash.into_iter().filter_map(|gone| Some((number(&gone.id)?, without_id(gone.fields)?))).collect())
    }

    /// The state of a document, deleted or not; `None` if there is none.
    pub(super) fn status(&self, doc: usize) -> Option<Status> {
        let status = self.replica().documents(COLLECTION).document(&id(doc)).status().ok()??;
        Some(Status { version: status.heads.to_string(), deleted: status.deleted })
    }
}

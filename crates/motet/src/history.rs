//! What was, and going back to it.

use motet_proto::DeviceId;
use serde::Serialize;
use serde_json::Value as Json;

use crate::collection::Collection;
use crate::doc::Fields;
use crate::error::{ReadError, WriteError};
use crate::events::as_text;
use crate::replica::Replica;
use crate::status::Version;

/// One step in the history of a document.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Revision {
    /// The document as it was on the device that made the step, right after it.
    pub version: Version,
    /// What happened.
    pub kind: RevisionKind,
    /// Hex id of the device that made it, if known.
    #[serde(serialize_with = "as_text")]
    pub device: Option<DeviceId>,
    /// Name of that device, if known.
    pub device_name: Option<String>,
    /// Seconds since 1970, by the clock of that device.
    pub time: i64,
    /// What the app noted with [`set_message`](crate::Transaction::set_message).
    pub message: Option<String>,
    /// The fields that were touched.
    pub fields: Vec<String>,
}

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RevisionKind {
    /// It made the document.
    Created,
    /// It changed fields.
    Updated,
    /// It deleted the document.
    Deleted,
    /// It brought the document back.
    Restored,
}

/// A field that differs between two versions.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FieldDiff {
    /// The field.
    pub field: String,
    /// Its value in the first version; `None` if it had none.
    pub before: Option<Json>,
    /// Its value in the second version; `None` if it has none.
    pub after: Option<Json>,
}

/// A named state of all documents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RestorePoint {
    /// Its name.
    pub name: String,
    /// When it was made, in milliseconds since 1970.
    pub created_at: i64,
}

impl<T> Collection<T> {
    /// The latest steps in the history of a document, at most `limit`, the latest first.
    ///
    /// # Errors
    /// [`WriteError::NotFound`] if there never was such a document, or it was purged.
    pub fn history(&self, id: &str, limit: usize) -> Result<Vec<Revision>, WriteError> {
        let (name, id) = (self.name().to_owned(), id.to_owned());
        self.replica().run(move |tx, core| core.revisions(tx, &name, &id, limit))
    }

    /// The fields of a document as they were at a version.
    ///
    /// # Errors
    /// [`WriteError::UnknownVersion`] if this device does not hold it; [`WriteError::NotFound`].
    pub fn at(&self, id: &str, version: &Version) -> Result<Json, WriteError> {
        self.fields_at(id, version).map(Json::Object)
    }

    /// The fields that differ between two versions of a document.
    ///
    /// # Errors
    /// As [`at`](Self::at).
    pub fn diff(&self, id: &str, first: &Version, second: &Version) -> Result<Vec<FieldDiff>, WriteError> {
        let (before, after) = (self.fields_at(id, first)?, self.fields_at(id, second)?);
        let fields = crate::engine::touched(&before, &after).into_iter();
        Ok(fields
            .map(|field| {
                let value = |fields: &Fields| fields.get(&field).cloned();
                FieldDiff { before: value(&before), after: value(&after), field }
            })
            .collect())
    }

    /// Makes a document what it was at a version, by a new change, durably. A deleted document comes back.
    ///
    /// # Errors
    /// As [`at`](Self::at).
    pub fn restore_version(&self, id: &str, version: &Version) -> Result<Version, WriteError> {
        let (name, id, version) = (self.name().to_owned(), id.to_owned(), version.clone());
        self.replica().transaction(move |tx| tx.restore_version(&name, &id, &version))
    }

    fn fields_at(&self, id: &str, version: &Version) -> Result<Fields, WriteError> {
        let (name, id, version) = (self.name().to_owned(), id.to_owned(), version.clone());
        self.replica().run(move |tx, core| core.fields_at(tx, &name, &id, &version))
    }
}

impl Replica {
    /// Takes back the latest transaction of this device that is not taken back yet, durably. What others have written since
    /// stays: texts and lists lose only what the transaction put into them, counters and sets what it added, and other
    /// fields go back only if nobody has written them since. Fields that stay on this device are not touched. False if
    /// there is nothing to undo.
    ///
    /// ```
    /// # use motet::{Replica, json};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let replica = Replica::open(dir.path().join("t.db"))?;
    /// let tasks = replica.documents("tasks");
    /// let id = tasks.insert(&json!({ "title": "Practise" }))?;
    /// tasks.set(&id, &json!({ "title": "Rest" }))?;
    /// assert!(replica.undo()?);
    /// assert_eq!(tasks.get(&id)?.unwrap()["title"], "Practise");
    /// assert!(replica.redo()?);
    /// assert_eq!(tasks.get(&id)?.unwrap()["title"], "Rest");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`WriteError`]; nothing is taken back then.
    pub fn undo(&self) -> Result<bool, WriteError> {
        Ok(self.run(|tx, core| core.undo(tx))?.is_some())
    }

    /// Does again what the latest [`undo`](Self::undo) took back, durably. False if there is none, or something else was
    /// written on this device since.
    ///
    /// # Errors
    /// [`WriteError`]; nothing is done then.
    pub fn redo(&self) -> Result<bool, WriteError> {
        Ok(self.run(|tx, core| core.redo(tx))?.is_some())
    }

    /// Remembers the state of all documents under a name, on this device. A point of that name is replaced.
    ///
    /// # Errors
    /// [`WriteError`]; the points are as before then.
    pub fn create_restore_point(&self, name: &str) -> Result<(), WriteError> {
        let name = name.to_owned();
        self.run(move |tx, core| Ok(core.create_restore_point(tx, &name)?))
    }

    /// Restore points, the latest first.
    ///
    /// # Errors
    /// [`ReadError`] if the file cannot be read.
    pub fn restore_points(&self) -> Result<Vec<RestorePoint>, ReadError> {
        let rows = self.read(|tx| tx.restore_points())?;
        Ok(rows.into_iter().map(|(name, created_at)| RestorePoint { name, created_at }).collect())
    }

    /// Makes all documents what they were at a restore point, by new changes, in one transaction; those made since go into
    /// the trash. With `only`, a collection and an id, just that document. Returns how many documents changed.
    ///
    /// # Errors
    /// [`WriteError::NoRestorePoint`]; nothing is changed then.
    pub fn restore_point(&self, name: &str, only: Option<(&str, &str)>) -> Result<usize, WriteError> {
        let name = name.to_owned();
        let only = only.map(|(collection, id)| (collection.to_owned(), id.to_owned()));
        self.run(move |tx, core| core.restore_point(tx, &name, only.as_ref()))
    }

    /// Forgets a restore point. False if there is none of that name.
    ///
    /// # Errors
    /// [`WriteError`]; it is kept then.
    pub fn remove_restore_point(&self, name: &str) -> Result<bool, WriteError> {
        let name = name.to_owned();
        self.run(move |tx, _| Ok(tx.remove_restore_point(&name)?))
    }
}

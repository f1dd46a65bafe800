//! What was, and going back to it.

use motet_proto::DeviceId;
use serde::Serialize;
use serde_json::Value as Json;

use crate::collection::Collection;
use crate::doc::Fields;
use crate::engine::Ahead;
use crate::error::{ReadError, WriteError};
use crate::events::as_text;
use crate::replica::Replica;
use crate::status::Version;
use crate::store::StepKind;

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

/// What [`Replica::restore_point`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PointRestored {
    /// Documents that changed; 0 if all of them were as the point has them.
    pub changed: usize,
    /// Collection and id of documents that the point has and that were purged since: they cannot come back.
    pub purged: Vec<(String, String)>,
}

/// What [`undo_within`](Replica::undo_within) and [`redo_within`](Replica::redo_within) are limited to. The default is every
/// document, and the transactions without a label.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UndoScope {
    collection: Option<String>,
    id: Option<String>,
    label: Option<String>,
}

impl UndoScope {
    /// The documents of a collection.
    pub fn collection(name: &str) -> Self {
        Self { collection: Some(name.to_owned()), ..Self::default() }
    }

    /// One document.
    pub fn document(collection: &str, id: &str) -> Self {
        Self { id: Some(id.to_owned()), ..Self::collection(collection) }
    }

    /// The transactions that have this [label](crate::Transaction::set_label), and no others.
    #[must_use]
    pub fn labelled(mut self, label: &str) -> Self {
        self.label = Some(label.to_owned());
        self
    }

    pub(crate) fn label(&self) -> Option<&str> {
        self.label.as_deref()
    }

    pub(crate) fn is_everywhere(&self) -> bool {
        self.collection.is_none()
    }

    pub(crate) fn has(&self, collection: &str, id: &str) -> bool {
        self.collection.as_deref().is_none_or(|limit| limit == collection)
            && self.id.as_deref().is_none_or(|limit| limit == id)
    }
}

/// What an undo has taken back, or a redo has done again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Undone {
    /// What the app noted with [`set_message`](crate::Transaction::set_message) when it made the transaction.
    pub message: Option<String>,
    /// The transaction's [label](crate::Transaction::set_label).
    pub label: Option<String>,
    /// When it was made, in milliseconds since 1970.
    pub at: i64,
    /// The documents that were in it, and in the scope.
    pub documents: Vec<UndoneDocument>,
}

/// What an undo or a redo has done to one document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct UndoneDocument {
    /// Collection of the document.
    pub collection: String,
    /// Id of the document.
    pub id: String,
    /// What has become of it.
    pub effect: UndoneEffect,
    /// The fields that show something else than before, in order; all of them if the document went or came back.
    pub fields: Vec<String>,
}

/// What has become of a document by an undo or a redo.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum UndoneEffect {
    /// Its fields changed.
    Updated,
    /// It was deleted: the transaction had made it, or brought it back.
    Deleted,
    /// It came back: the transaction had deleted it.
    Restored,
    /// It stays, although the transaction had made it or brought it back: others have written in it since.
    Kept,
    /// It shows the same as before: others have done the same, written all of it anew since, or deleted it.
    Unchanged,
}

impl<T> Collection<T> {
    /// The latest steps in the history of a document, at most `limit`, the latest first.
    ///
    /// # Errors
    /// [`WriteError::NotFound`] if there never was such a document, or it was purged.
    pub fn history(&self, id: &str, limit: usize) -> Result<Vec<Revision>, WriteError> {
        let (name, id) = (self.name().to_owned(), id.to_owned());
        self.replica().run_reading(move |tx, core| core.revisions(tx, &name, &id, limit))
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
        self.replica().write(self.ahead_of(&id), move |tx| tx.restore_version(&name, &id, &version))
    }

    fn fields_at(&self, id: &str, version: &Version) -> Result<Fields, WriteError> {
        let (name, id, version) = (self.name().to_owned(), id.to_owned(), version.clone());
        self.replica().run_reading(move |tx, core| core.fields_at(tx, &name, &id, &version))
    }
}

impl Replica {
    /// Takes back the latest transaction of this device that is not taken back yet, durably, and says what that was; `None` if
    /// there is none. Transactions with a [label](crate::Transaction::set_label) of their own are left alone, as is what the library
    /// writes by itself.
    ///
    /// As long as nobody else has written in a document, it becomes exactly what it was before the transaction: after as many undos
    /// as there were transactions, it is as before the first of them. What others have written since stays: texts and lists lose
    /// only what the transaction put into them, counters and sets what it added, and other fields go back only if nobody has written
    /// them since. A document that the transaction made, and others have written in since, is not deleted: it
    /// loses what the transaction put into it, and is [told of](UndoneEffect::Kept). What others have deleted since stays deleted.
    ///
    /// Fields and collections that stay on this device are not touched, and a purge is for good. Rules that were declared since do
    /// not stand in the way: what was there may come back. [`UNDO_STEPS`](crate::limits::UNDO_STEPS) transactions can be undone, also after
    /// the file was closed, and whichever program made them; in a copy or a backup of the file none of them.
    ///
    /// ```
    /// # use motet::{Replica, json};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let replica = Replica::open(dir.path().join("t.db"))?;
    /// let tasks = replica.documents("tasks");
    /// let id = tasks.insert(&json!({ "title": "Practise" }))?;
    /// replica.transaction({
    ///     let id = id.clone();
    ///     move |tx| {
    ///         tx.set_message("no practice today")?;
    ///         tx.set("tasks", &id, &json!({ "title": "Rest" }))
    ///     }
    /// })?;
    /// let undone = replica.undo()?.ok_or("nothing to undo")?;
    /// assert_eq!(undone.message.as_deref(), Some("no practice today"));
    /// assert_eq!(undone.documents[0].fields, ["title"]);
    /// assert_eq!(tasks.get(&id)?.unwrap()["title"], "Practise");
    /// assert!(replica.redo()?.is_some());
    /// assert_eq!(tasks.get(&id)?.unwrap()["title"], "Rest");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`WriteError`]; nothing is taken back then.
    pub fn undo(&self) -> Result<Option<Undone>, WriteError> {
        self.undo_within(&UndoScope::default())
    }

    /// [`undo`](Self::undo), limited to a document, a collection or a label. Of a transaction that changed other documents as well,
    /// only what lies in the scope is taken back; the rest can be undone by itself.
    ///
    /// ```
    /// # use motet::{Replica, UndoScope, json};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let replica = Replica::open(dir.path().join("t.db"))?;
    /// let tasks = replica.documents("tasks");
    /// tasks.put("one", &json!({ "title": "Practise" }))?;
    /// tasks.put("two", &json!({ "title": "Rest" }))?;
    /// replica.undo_within(&UndoScope::document("tasks", "one"))?;
    /// assert!(tasks.get("one")?.is_none() && tasks.get("two")?.is_some());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`undo`](Self::undo).
    pub fn undo_within(&self, scope: &UndoScope) -> Result<Option<Undone>, WriteError> {
        let ahead = Ahead::Step { scope: scope.clone(), kind: StepKind::Undo };
        let scope = scope.clone();
        self.run_prepared(Some(ahead), move |tx, core| core.undo(tx, &scope))
    }

    /// Does again what the latest [`undo`](Self::undo) took back, durably, and says what that was. `None` if there is none, or
    /// another transaction of this device came after it.
    ///
    /// # Errors
    /// [`WriteError`]; nothing is done then.
    pub fn redo(&self) -> Result<Option<Undone>, WriteError> {
        self.redo_within(&UndoScope::default())
    }

    /// [`redo`](Self::redo), limited as by [`undo_within`](Self::undo_within): only a later transaction in the same scope keeps an
    /// undo from being redone.
    ///
    /// # Errors
    /// As [`redo`](Self::redo).
    pub fn redo_within(&self, scope: &UndoScope) -> Result<Option<Undone>, WriteError> {
        let ahead = Ahead::Step { scope: scope.clone(), kind: StepKind::Redo };
        let scope = scope.clone();
        self.run_prepared(Some(ahead), move |tx, core| core.redo(tx, &scope))
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
    /// the trash. What another device had made before the point, and has arrived here since, stays: a point that is made before the first sync
    /// does not empty what all share. With `only`, a collection and an id, just that document. Says how many documents changed, and which are gone for good.
    ///
    /// # Errors
    /// [`WriteError::NoRestorePoint`]; nothing is changed then.
    pub fn restore_point(&self, name: &str, only: Option<(&str, &str)>) -> Result<PointRestored, WriteError> {
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

//! Undo and restore points.

use crate::api::replica::Replica;
use crate::engine::{Ahead, check_name};
use crate::error::{ReadError, WriteError};
use crate::store::StepKind;
use crate::types::{PointRestored, RestorePoint, UndoScope, Undone};

impl Replica {
    /// Takes back the latest transaction of this device that is not taken back yet, durably, and says what that was; `None` if
    /// there is none. Transactions with a [label](crate::Transaction::set_label) of their own are left alone, as is what the library
    /// writes by itself.
    ///
    /// As long as nobody else has written in a document, it becomes exactly what it was before the transaction: after as many undos
    /// as there were transactions, it is as before the first of them. What others have written since stays: texts and lists lose
    /// only what the transaction put into them, counters and sets what it added, and other fields go back only if nobody has written
    /// them since. A document that the transaction made, and others have written in since, is not deleted: it
    /// loses what the transaction put into it, and is [told of](crate::UndoneEffect::Kept). What others have deleted since stays deleted.
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
    ///         tx.documents("tasks").patch(&id, &json!({ "title": "Rest" }))
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
    /// tasks.upsert("one", &json!({ "title": "Practise" }))?;
    /// tasks.upsert("two", &json!({ "title": "Rest" }))?;
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
    /// [`WriteError::BadName`] if the name is empty, has more than 512 bytes or a control character; [`WriteError::Storage`]. The points are as
    /// before then.
    pub fn create_restore_point(&self, name: &str) -> Result<(), WriteError> {
        check_name(name)?;
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

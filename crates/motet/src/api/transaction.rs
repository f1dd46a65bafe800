//! Several documents, one commit.

use std::fmt;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value as Json;
use uuid::Uuid;

use crate::api::collection::{Base, Record, shape_error};
use crate::doc::{Fields, RESERVED_MESSAGES};
use crate::engine::{Composed, Core, Patch, TextWrite};
use crate::error::WriteError;
use crate::limits;
use crate::store::{Ticket, Tx};
use crate::types::{Resolution, TextEdit, TextEdited, Version, not_finite};

/// A running transaction; see [`Replica::transaction`](crate::Replica::transaction). It sees its own writes.
pub struct Transaction<'t> {
    tx: Tx<'t>,
    core: &'t mut Core,
}

/// A write that was handed over. Await it, or wait for it with [`durable`](Self::durable); dropping it does not take
/// the write back. Writes that are handed over one after another and waited for later share their fsyncs.
#[must_use = "without waiting, nobody learns whether the write succeeded"]
pub struct PendingWrite<R>(Ticket<R, WriteError>);

impl<R> PendingWrite<R> {
    pub(crate) fn new(ticket: Ticket<R, WriteError>) -> Self {
        Self(ticket)
    }

    /// Waits until the write survives a crash.
    ///
    /// # Errors
    /// As the call that handed it over.
    pub fn durable(self) -> Result<R, WriteError> {
        self.0.wait()
    }

    /// The outcome, without waiting: `None` until the write survives a crash or has failed, and once it was taken. For a loop that must
    /// not wait.
    ///
    /// # Errors
    /// As the call that handed it over. Whoever has taken the outcome and waits for it all the same gets
    /// [`StorageError::Closed`](crate::StorageError::Closed).
    pub fn try_durable(&mut self) -> Option<Result<R, WriteError>> {
        self.0.try_take()
    }
}

impl<R> Future for PendingWrite<R> {
    type Output = Result<R, WriteError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx)
    }
}

impl<'t> Transaction<'t> {
    pub(crate) fn new(tx: Tx<'t>, core: &'t mut Core) -> Self {
        Self { tx, core }
    }

    /// The next write of this transaction has been composed before it.
    pub(crate) fn offer(&mut self, composed: Option<Composed>) {
        self.core.offer(composed);
    }

    /// The documents of a collection as values of type `T`, as this transaction sees them.
    pub fn collection<'c, T>(&'c mut self, name: &'c str) -> TransactionCollection<'c, 't, T> {
        TransactionCollection { tx: self, name, value: PhantomData }
    }

    /// The documents of a collection as JSON, as this transaction sees them.
    pub fn documents<'c>(&'c mut self, name: &'c str) -> TransactionCollection<'c, 't, Json> {
        self.collection(name)
    }

    /// A note for the history: why this transaction was made. It is kept with the changes and reaches every device.
    ///
    /// # Errors
    /// [`WriteError::BadValue`] if it is longer than [`MESSAGE_BYTES`](crate::limits::MESSAGE_BYTES), or begins with `motet:`, as notes
    /// of this library do. The transaction can go on without it.
    pub fn set_message(&mut self, message: &str) -> Result<(), WriteError> {
        if message.len() > limits::MESSAGE_BYTES {
            let reason =
                format!("a message has at most {} bytes, not {}", limits::MESSAGE_BYTES, message.len());
            return Err(WriteError::bad_value(reason));
        }
        if message.starts_with(RESERVED_MESSAGES) {
            let reason = format!("a message must not begin with {RESERVED_MESSAGES:?}");
            return Err(WriteError::bad_value(reason));
        }
        self.core.set_message(message);
        Ok(())
    }

    /// Gives this transaction an undo history of its own: [`undo`](crate::Replica::undo) passes it over, and only an undo that is
    /// limited to the [label](crate::UndoScope::labelled) takes it back. For what an app writes by itself, such as a log, or for
    /// one part of an app whose undo leaves the others alone. A label stays on this device.
    ///
    /// # Errors
    /// [`WriteError::BadValue`] if it is empty or longer than [`UNDO_LABEL_BYTES`](crate::limits::UNDO_LABEL_BYTES).
    pub fn set_label(&mut self, label: &str) -> Result<(), WriteError> {
        if label.is_empty() || label.len() > limits::UNDO_LABEL_BYTES {
            let reason = format!("a label has 1 to {} bytes, not {}", limits::UNDO_LABEL_BYTES, label.len());
            return Err(WriteError::bad_value(reason));
        }
        self.core.set_label(label);
        Ok(())
    }

    /// Changes fields of a document that exists, as it was at a version. Returns the version of the document, and what further
    /// edits of the same value are based on.
    pub(crate) fn update_fields(
        &mut self,
        collection: &str,
        id: &str,
        (patch, fields): (Patch, String),
        base: &Version,
    ) -> Result<(Version, Base), WriteError> {
        let (document, version) = self.core.update_branch(self.tx, collection, id, &patch, base)?;
        Ok((document, Base { version, fields }))
    }

    pub(crate) fn edit_text(
        &mut self,
        collection: &str,
        id: &str,
        text: &TextWrite,
    ) -> Result<TextEdited, WriteError> {
        self.core.edit_text(self.tx, collection, id, text)
    }

    pub(crate) fn insert_patch(
        &mut self,
        collection: &str,
        id: &str,
        patch: &Patch,
    ) -> Result<Version, WriteError> {
        self.core.insert(self.tx, collection, id, patch)
    }

    pub(crate) fn put_patch(
        &mut self,
        collection: &str,
        id: &str,
        patch: &Patch,
        base: Option<&Version>,
    ) -> Result<Version, WriteError> {
        self.core.put(self.tx, collection, id, patch, base)
    }

    pub(crate) fn set_patch(
        &mut self,
        collection: &str,
        id: &str,
        patch: &Patch,
    ) -> Result<Version, WriteError> {
        self.core.update(self.tx, collection, id, patch)
    }

    pub(crate) fn delete(&mut self, collection: &str, id: &str) -> Result<(), WriteError> {
        self.core.delete(self.tx, collection, id).map(drop)
    }

    pub(crate) fn increment(
        &mut self,
        collection: &str,
        id: &str,
        field: &str,
        by: i64,
    ) -> Result<Version, WriteError> {
        self.core.increment(self.tx, collection, id, field, by)
    }

    pub(crate) fn edit_set(
        &mut self,
        collection: &str,
        id: &str,
        field: &str,
        add: &[Json],
        remove: &[Json],
    ) -> Result<Version, WriteError> {
        self.core.edit_set(self.tx, collection, id, field, add, remove)
    }

    pub(crate) fn resolve(
        &mut self,
        collection: &str,
        id: &str,
        path: &str,
        resolution: &Resolution,
    ) -> Result<Version, WriteError> {
        self.core.resolve(self.tx, collection, id, path, resolution)
    }

    pub(crate) fn restore(&mut self, collection: &str, id: &str) -> Result<Version, WriteError> {
        self.core.restore(self.tx, collection, id)
    }

    pub(crate) fn restore_version(
        &mut self,
        collection: &str,
        id: &str,
        version: &Version,
    ) -> Result<Version, WriteError> {
        self.core.restore_version(self.tx, collection, id, version)
    }
}

/// The documents of one collection inside a [`Transaction`]. The calls are those of [`Collection`](crate::Collection) and
/// [`DocumentHandle`](crate::DocumentHandle); what they write is kept or taken back with the transaction.
pub struct TransactionCollection<'c, 't, T> {
    tx: &'c mut Transaction<'t>,
    name: &'c str,
    value: PhantomData<fn() -> T>,
}

impl<T: Serialize> TransactionCollection<'_, '_, T> {
    /// Adds a document and returns its id: the value's own `id` field if it has one, else a new UUID. A deleted document of that id is
    /// made anew.
    ///
    /// # Errors
    /// [`WriteError::Exists`] if there is a document of that id; [`WriteError::BadValue`] if the value is no object,
    /// [`WriteError::BadName`] if collection or id cannot be used; [`WriteError::Purged`].
    pub fn insert(&mut self, value: &T) -> Result<String, WriteError> {
        let (id, set) = to_fields(value)?;
        let id = id.unwrap_or_else(new_id);
        self.tx.insert_patch(self.name, &id, &Patch { set, ..Patch::default() })?;
        Ok(id)
    }

    /// Makes the document `id`, or changes those fields of it that `value` names, as
    /// [`Collection::upsert`](crate::Collection::upsert) does.
    ///
    /// # Errors
    /// As [`insert`](Self::insert), but that there may be such a document.
    pub fn upsert(&mut self, id: &str, value: &T) -> Result<Version, WriteError> {
        self.tx.put_patch(self.name, id, &to_patch(value)?, None)
    }

    /// [`upsert`](Self::upsert) for many documents: a value's own `id` names it, and one without is new. New documents are made on all
    /// cores. Returns the ids.
    ///
    /// # Errors
    /// As [`upsert`](Self::upsert).
    pub fn upsert_many(&mut self, values: &[T]) -> Result<Vec<String>, WriteError> {
        let named = |value| {
            let (id, fields) = to_fields(value)?;
            Ok((id.unwrap_or_else(new_id), fields))
        };
        let documents = values.iter().map(named).collect::<Result<Vec<_>, WriteError>>()?;
        let ids = documents.iter().map(|(id, _)| id.clone()).collect();
        let outcomes = self.tx.core.put_many(self.tx.tx, self.name, documents)?;
        outcomes.into_iter().collect::<Result<(), WriteError>>()?;
        Ok(ids)
    }

    /// [`upsert`](Self::upsert) of a document that exists, as an edit of the version `base`: what was written since then is merged, not
    /// reverted.
    ///
    /// # Errors
    /// [`WriteError::UnknownVersion`] if this device does not hold that version; else as [`upsert`](Self::upsert).
    pub fn upsert_at(&mut self, id: &str, value: &T, base: &Version) -> Result<Version, WriteError> {
        self.tx.put_patch(self.name, id, &to_patch(value)?, Some(base))
    }

    /// Writes back a record that was read: only what the app changed becomes ops, based on the version it was read
    /// at. Fields that `T` does not know stay. The record then continues from what was written, as with
    /// [`Collection::update`](crate::Collection::update); if the transaction fails afterwards, it must be read again.
    ///
    /// # Errors
    /// [`WriteError::NotFound`] if the document is gone; else as [`upsert`](Self::upsert).
    pub fn update(&mut self, record: &mut Record<T>) -> Result<Version, WriteError> {
        let (version, next) =
            self.tx.update_fields(self.name, &record.id, record.written()?, &record.version)?;
        record.continue_from(next);
        Ok(version)
    }
}

impl<T: Serialize + DeserializeOwned> TransactionCollection<'_, '_, T> {
    /// The document `id`, or `None` if there is none.
    ///
    /// # Errors
    /// [`WriteError::BadValue`] if the document does not have the shape of `T`.
    pub fn get(&mut self, id: &str) -> Result<Option<Record<T>>, WriteError> {
        let Some((fields, version)) = self.tx.core.get(self.tx.tx, self.name, id)? else { return Ok(None) };
        let json = Json::Object(fields).to_string();
        let record = Record::new(id.to_owned(), &json, version)
            .map_err(|reason| WriteError::bad_value(shape_error(self.name, id, reason)))?;
        Ok(Some(record))
    }
}

impl<T> TransactionCollection<'_, '_, T> {
    /// Sets single fields of a document that exists.
    ///
    /// # Errors
    /// [`WriteError::NotFound`] if there is no such document, [`WriteError::BadValue`] if `fields` is no object.
    pub fn patch<F: Serialize>(&mut self, id: &str, fields: &F) -> Result<Version, WriteError> {
        self.tx.set_patch(self.name, id, &to_patch(fields)?)
    }

    /// Replaces `delete` characters (Unicode code points) from `position` on by `insert`, in a text field.
    ///
    /// # Errors
    /// [`WriteError::BadValue`] if the field is no text or the range lies outside of it; [`WriteError::NotFound`].
    pub fn splice_text(
        &mut self,
        id: &str,
        field: &str,
        position: usize,
        delete: usize,
        insert: &str,
    ) -> Result<Version, WriteError> {
        let edits = [TextEdit::new(position, delete, insert)];
        self.edit_text(id, field, &edits, None).map(|edited| edited.version)
    }

    /// Makes edits of a text field in one change, as [`DocumentHandle::edit_text`](crate::DocumentHandle::edit_text) does.
    ///
    /// # Errors
    /// As there.
    pub fn edit_text(
        &mut self,
        id: &str,
        field: &str,
        edits: &[TextEdit],
        base: Option<&Version>,
    ) -> Result<TextEdited, WriteError> {
        let text = TextWrite { field: field.to_owned(), edits: edits.to_vec(), base: base.cloned() };
        self.tx.edit_text(self.name, id, &text)
    }

    /// Deletes a document. An edit that another device makes without knowing of it brings the document back.
    ///
    /// # Errors
    /// [`WriteError::NotFound`] if there is no such document.
    pub fn delete(&mut self, id: &str) -> Result<(), WriteError> {
        self.tx.delete(self.name, id)
    }

    /// Adds to a counter; a document without the field gets it.
    ///
    /// # Errors
    /// [`WriteError::BadValue`] if the field is neither a counter nor declared as one; [`WriteError::NotFound`].
    pub fn increment(&mut self, id: &str, field: &str, by: i64) -> Result<Version, WriteError> {
        self.tx.increment(self.name, id, field, by)
    }

    /// Adds elements to a set. One that is in it already is added again: it then stays even if another device takes it
    /// out meanwhile.
    ///
    /// # Errors
    /// [`WriteError::BadValue`] if the field is neither a set nor declared as one; [`WriteError::NotFound`].
    pub fn add_to_set(&mut self, id: &str, field: &str, elements: &[Json]) -> Result<Version, WriteError> {
        self.tx.edit_set(self.name, id, field, elements, &[])
    }

    /// Takes elements out of a set.
    ///
    /// # Errors
    /// As [`add_to_set`](Self::add_to_set).
    pub fn remove_from_set(
        &mut self,
        id: &str,
        field: &str,
        elements: &[Json],
    ) -> Result<Version, WriteError> {
        self.tx.edit_set(self.name, id, field, &[], elements)
    }

    /// Settles the concurrent values of the field at `path`, a JSON pointer such as `/title`.
    ///
    /// # Errors
    /// [`WriteError::NoConflict`] if there is no such field, or none in conflict; [`WriteError::NoLoser`] if the conflict has no
    /// such value; [`WriteError::NotFound`].
    pub fn resolve(&mut self, id: &str, path: &str, resolution: &Resolution) -> Result<Version, WriteError> {
        self.tx.resolve(self.name, id, path, resolution)
    }

    /// Brings a deleted document back as it was.
    ///
    /// # Errors
    /// [`WriteError::NotFound`] if there is no such deleted document, or it was purged.
    pub fn restore(&mut self, id: &str) -> Result<Version, WriteError> {
        self.tx.restore(self.name, id)
    }

    /// Makes a document what it was at a version, by a new change. A deleted document comes back.
    ///
    /// # Errors
    /// [`WriteError::UnknownVersion`] if this device does not hold the version; [`WriteError::NotFound`].
    pub fn restore_version(&mut self, id: &str, version: &Version) -> Result<Version, WriteError> {
        self.tx.restore_version(self.name, id, version)
    }

    /// Removes a deleted document for good, here and on every device. An edit that another device makes without knowing
    /// of it brings the document back whole.
    ///
    /// # Errors
    /// [`WriteError::NotFound`] if there is no such deleted document.
    pub fn purge(&mut self, id: &str) -> Result<(), WriteError> {
        self.tx.core.purge(self.tx.tx, self.name, id)
    }

    /// Removes for good what has been in the trash since before `before`, in milliseconds since 1970. Returns how many
    /// documents.
    ///
    /// # Errors
    /// [`WriteError::Storage`].
    pub fn purge_trash(&mut self, before: i64) -> Result<usize, WriteError> {
        let names = self.tx.core.deleted_before(self.tx.tx, self.name, before)?;
        names.iter().try_for_each(|name| self.purge(name))?;
        Ok(names.len())
    }
}

impl<R> fmt::Debug for PendingWrite<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PendingWrite").finish_non_exhaustive()
    }
}

impl fmt::Debug for Transaction<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transaction").finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for TransactionCollection<'_, '_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TransactionCollection({})", self.name)
    }
}

/// What sets the fields of a value. Its `id` is no field of it.
pub(crate) fn to_patch<T: Serialize>(value: &T) -> Result<Patch, WriteError> {
    let (_, set) = to_fields(value)?;
    Ok(Patch { set, ..Patch::default() })
}

/// The fields of a value, and its `id`, which names the document and is no field of it.
pub(crate) fn to_fields<T: Serialize>(value: &T) -> Result<(Option<String>, Fields), WriteError> {
    let bad = |reason: String| WriteError::bad_value(reason);
    if let Some(field) = not_finite(value) {
        let reason = format!("field {field:?}: a number that is not finite");
        return Err(WriteError::bad_field(&field, reason));
    }
    match serde_json::to_value(value).map_err(|e| bad(e.to_string()))? {
        Json::Object(mut fields) => {
            let id = match fields.remove("id") {
                None | Some(Json::Null) => None,
                Some(Json::String(id)) => Some(id).filter(|id| !id.is_empty()),
                Some(Json::Number(id)) => Some(id.to_string()),
                Some(other) => return Err(bad(format!("an id is a string, not {other}"))),
            };
            Ok((id, fields))
        }
        other => {
            let kind = match other {
                Json::Null => "null",
                Json::Bool(_) => "a boolean",
                Json::Number(_) => "a number",
                Json::String(_) => "a string",
                Json::Array(_) => "an array",
                Json::Object(_) => "an object",
            };
            Err(bad(format!("a document is an object, not {kind}")))
        }
    }
}

pub(crate) fn new_id() -> String {
    Uuid::now_v7().to_string()
}

//! The documents of one collection, as the app's own type or as JSON.

mod record;
mod writes;

use std::fmt;
use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value as Json;

pub use self::record::Record;
pub(crate) use self::record::{Base, shape_error};
use crate::api::document::DocumentHandle;
use crate::api::editor::Editor;
use crate::api::listed::{Hit, Hits, Misfit, Records};
use crate::api::live::LiveQuery;
use crate::api::replica::Replica;
use crate::api::transaction::PendingWrite;
use crate::doc::Fields;
use crate::engine::declared;
use crate::error::{ReadError, WriteError};
use crate::query::{FieldPath, Filter, Query, words};
use crate::schema::Rule;
use crate::store::{self, ListRow, StorageError, TrashRow, Tx};
use crate::types::Version;

/// The documents of one collection as values of type `T`.
///
/// `T` is any serde type that serializes to an object. A field `id` of it holds the document's id; every other field
/// is a field of the document. Reads come from the projection and never load a document.
///
/// ```
/// use motet::{Replica, Schema};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct Piece {
///     title: String,
///     lyrics: String,
/// }
/// # let dir = tempfile::tempdir().unwrap();
/// let replica = Replica::open(dir.path().join("songs.db"))?;
/// replica.apply_schema(&Schema::new().text("pieces", "lyrics"))?;
/// let pieces = replica.collection::<Piece>("pieces");
///
/// let id = pieces.insert(&Piece { title: "Aloha ʻOe".into(), lyrics: "Haʻaheo ka ua\n".into() })?;
/// let mut piece = pieces.get(&id)?.expect("just inserted");
/// piece.lyrics.push_str("i nā pali\n");
/// pieces.update(&mut piece)?;
/// piece.title.push('!');
/// pieces.update(&mut piece)?;
/// assert_eq!(pieces.list()?.len(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Collection<T> {
    replica: Replica,
    name: String,
    value: PhantomData<fn() -> T>,
}

/// A field that breaks a rule declared for it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Violation {
    /// Id of the document.
    pub id: String,
    /// The field.
    pub field: String,
    /// The rule, and how it is broken.
    #[serde(flatten)]
    pub rule: Rule,
}

/// A deleted document.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Trashed {
    /// Id of the document.
    pub id: String,
    /// When this device learned of it, in milliseconds since 1970.
    pub deleted_at: i64,
    /// What it held.
    pub fields: Json,
    /// Another device has removed it for good: it stays here until then (milliseconds since 1970), and
    /// [`restore`](DocumentHandle::restore) brings it back everywhere.
    pub leaves_at: Option<i64>,
}

impl Trashed {
    fn from_row(row: TrashRow) -> Self {
        let fields = serde_json::from_str(&row.json).unwrap_or_default();
        Self { id: row.name, deleted_at: row.deleted_at, fields, leaves_at: row.leaves_at }
    }
}

impl<T> Collection<T> {
    pub(crate) fn new(replica: Replica, name: &str) -> Self {
        Self { replica, name: name.to_owned(), value: PhantomData }
    }

    pub(crate) fn replica(&self) -> &Replica {
        &self.replica
    }

    /// Name of the collection.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A handle on the document `id`: its text edits, counters, history, conflicts, and how it stands. There need not be such a document yet.
    pub fn document(&self, id: &str) -> DocumentHandle<T> {
        DocumentHandle::new(self.clone(), id)
    }

    /// Deletes a document, durably. An edit that another device makes without knowing of it brings the document
    /// back.
    ///
    /// # Errors
    /// [`WriteError::NotFound`] if there is no such document.
    pub fn delete(&self, id: &str) -> Result<(), WriteError> {
        self.replica.write(self.ahead_of(id), self.deleting(id))
    }

    /// [`delete`](Self::delete) for async code.
    pub fn delete_async(&self, id: &str) -> PendingWrite<()> {
        self.replica.write_async(Some(self.ahead_of(id)), self.deleting(id))
    }

    /// Sets single fields of a document that exists, durably; the others stay. Each field is written as by [`upsert`](Self::upsert). To
    /// remove a field, [`update`](Self::update) a record without it.
    ///
    /// # Errors
    /// [`WriteError::NotFound`] if there is no such document, [`WriteError::BadValue`] if `fields` is no object.
    pub fn patch<F: Serialize>(&self, id: &str, fields: &F) -> Result<Version, WriteError> {
        let (ahead, write) = self.patching(id, fields, true);
        self.replica.write(ahead, write)
    }

    /// [`patch`](Self::patch) for async code.
    pub fn patch_async<F: Serialize>(&self, id: &str, fields: &F) -> PendingWrite<Version> {
        let (ahead, write) = self.patching(id, fields, false);
        self.replica.write_async(ahead, write)
    }

    /// Deleted documents, the latest first. They stay in the trash until they are purged here, or for a time after another device has purged
    /// them ([`ReplicaBuilder::purge_grace`](crate::ReplicaBuilder::purge_grace)).
    ///
    /// # Errors
    /// [`ReadError`] if the file cannot be read.
    pub fn trash(&self) -> Result<Vec<Trashed>, ReadError> {
        Ok(self.replica.read(|tx| tx.trash(&self.name))?.into_iter().map(Trashed::from_row).collect())
    }

    /// Removes for good what has been in the trash since before `before` (milliseconds since 1970), here and on every
    /// device; on the others after a time of grace, in which each of them can restore it. Returns how many documents.
    ///
    /// A clock that is far ahead removes nothing that was deleted a moment ago: if a relay has told this device how late it is, no more time
    /// counts as past than until then. Whoever has not synced for ten days finds everything ten days younger. A `before` that is not in
    /// the past means all of the trash.
    ///
    /// # Errors
    /// [`WriteError`] if the file cannot be written; nothing is removed then.
    pub fn purge_trash(&self, before: i64) -> Result<usize, WriteError> {
        self.replica.transaction(|tx| tx.documents(&self.name).purge_trash(before))
    }
}

impl<T: Serialize + DeserializeOwned> Collection<T> {
    /// Adds a document, durably, and returns its id: the value's own `id` field if it has one, else a new UUID. A deleted
    /// document of that id is made anew, of what the value names alone.
    ///
    /// # Errors
    /// [`WriteError::Exists`] if there is a document of that id here. (Another device may make one at the same time; the two become one,
    /// with the words of both.) [`WriteError::BadValue`] if the value is no object, [`WriteError::BadName`] if collection or id cannot be
    /// used; [`WriteError::Purged`] if a document of that id was removed for good.
    pub fn insert(&self, value: &T) -> Result<String, WriteError> {
        let (ahead, write) = self.inserting(value, true);
        self.replica.write(ahead, write)
    }

    /// [`insert`](Self::insert) for async code.
    pub fn insert_async(&self, value: &T) -> PendingWrite<String> {
        let (ahead, write) = self.inserting(value, false);
        self.replica.write_async(ahead, write)
    }

    /// Makes the document `id`, or changes those fields of it that the value names; durable on return. Fields that the value does not
    /// name stay, and so do keys of an object inside a field. Of a text, set, list or array what differs is changed, so that it merges with what
    /// others write meanwhile. `null` is a value. A deleted document is made anew, of what the value names alone.
    ///
    /// To write back a value that was read, use [`update`](Self::update): it leaves alone what others wrote since it was read.
    ///
    /// # Errors
    /// [`WriteError::BadValue`] if the value is no object, [`WriteError::BadName`] if collection or id cannot be used;
    /// [`WriteError::Purged`] if a document of that id was removed for good.
    pub fn upsert(&self, id: &str, value: &T) -> Result<Version, WriteError> {
        let (ahead, write) = self.upserting(id, value, true);
        self.replica.write(ahead, write)
    }

    /// [`upsert`](Self::upsert) for async code.
    pub fn upsert_async(&self, id: &str, value: &T) -> PendingWrite<Version> {
        let (ahead, write) = self.upserting(id, value, false);
        self.replica.write_async(ahead, write)
    }

    /// Writes back a record that was read, durably: only what the app changed becomes ops, based on the version it
    /// was read at. Fields that `T` does not know stay, and so does what others wrote meanwhile. Returns the version of the
    /// document.
    ///
    /// The record then continues from what was written: the next `update` of it writes what has changed since this one. Its
    /// value stays as it is; what others wrote meanwhile is in the document and shows when it is read again.
    ///
    /// # Errors
    /// [`WriteError::NotFound`] if the document is gone; else as [`insert`](Self::insert). The record is as before then, and
    /// can be written again.
    pub fn update(&self, record: &mut Record<T>) -> Result<Version, WriteError> {
        let (ahead, write) = self.updating(record, true);
        let (version, next) = self.replica.write(ahead, write)?;
        record.continue_from(next);
        Ok(version)
    }

    /// [`update`](Self::update) for async code. Yields the record to go on with; the one given stays as it is.
    pub fn update_async(&self, record: &Record<T>) -> PendingWrite<Record<T>>
    where
        T: Clone + Send + 'static,
    {
        let mut next = record.clone();
        let (ahead, write) = self.updating(record, false);
        self.replica.write_async(ahead, move |tx| {
            next.continue_from(write(tx)?.1);
            Ok(next)
        })
    }

    /// The document `id`, or `None` if there is none.
    ///
    /// # Errors
    /// [`ReadError::Shape`] if the document does not have the shape of `T`.
    pub fn get(&self, id: &str) -> Result<Option<Record<T>>, ReadError> {
        let row = self.replica.read(|tx| tx.get(&self.name, id))?;
        row.map(|row| self.record(row)).transpose()
    }

    /// Opens a document in an editor, which turns what is typed in one moment into one change; `None` if there is none.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn edit(&self, id: &str) -> Result<Option<Editor<T>>, ReadError> {
        let record = self.get(id)?;
        record.map(|record| Editor::open(self.replica.clone(), &self.name, record)).transpose()
    }

    /// All documents of the collection, ordered by id. Those that do not have the shape of `T` are named beside them.
    ///
    /// # Errors
    /// [`ReadError`] if the file cannot be read.
    pub fn list(&self) -> Result<Records<T>, ReadError> {
        let mut records = Records::default();
        self.replica.list::<ReadError>(&self.name, |row| {
            records.push(self.fitting(row));
            Ok(())
        })?;
        Ok(records)
    }

    /// Hands all documents of the collection to `each`, ordered by id, one at a time. Returns those that do not have the shape of
    /// `T`.
    ///
    /// # Errors
    /// [`ReadError`] if the file cannot be read.
    pub fn for_each(&self, mut each: impl FnMut(Record<T>)) -> Result<Vec<Misfit>, ReadError> {
        let mut misfits = Vec::new();
        self.replica.list::<ReadError>(&self.name, |row| {
            match self.fitting(row) {
                Ok(record) => each(record),
                Err(misfit) => misfits.push(misfit),
            }
            Ok(())
        })?;
        Ok(misfits)
    }

    /// The documents that a query finds, in its order. Those that do not have the shape of `T` are named beside them.
    ///
    /// # Errors
    /// [`ReadError::Storage`] with code `query-invalid` if the query names no field, compares with an array or object, names a
    /// field that no document has and whose name is nearly that of a declared one, or is too long
    /// ([`QUERY_VALUES`](crate::limits::QUERY_VALUES), [`QUERY_DEPTH`](crate::limits::QUERY_DEPTH),
    /// [`QUERY_ORDERS`](crate::limits::QUERY_ORDERS)).
    pub fn find(&self, query: &Query) -> Result<Records<T>, ReadError> {
        let mut rows = Vec::new();
        self.replica.read(|tx| {
            self.check_names(tx, query.fields())?;
            tx.find(&self.name, query, |row| rows.push(row))
        })?;
        Ok(rows.into_iter().map(|row| self.fitting(row)).collect())
    }

    /// How many documents a filter lets through.
    ///
    /// # Errors
    /// As [`find`](Self::find).
    pub fn count(&self, filter: &Filter) -> Result<u64, ReadError> {
        Ok(self.replica.read(|tx| {
            self.check_names(tx, filter.fields())?;
            tx.count(&self.name, filter)
        })?)
    }

    /// Full-text search, best match first: every word must occur, without regard to case and diacritics and to what an
    /// ʻokina was typed as. `"two words"` stand side by side, `alo*` begins a word. In scripts that are written without spaces, and
    /// in Korean, any part of what is written is found.
    ///
    /// First come documents of which a short field is just what was typed, then those in which all the words stand in short fields or
    /// make up much of a text, then the others; among each of these the better match. Of very many that match,
    /// [`SEARCH_CANDIDATES`](crate::limits::SEARCH_CANDIDATES) of each are compared.
    ///
    /// # Errors
    /// [`ReadError::Storage`] with code `query-invalid` if there are more than
    /// [`SEARCH_WORDS`](crate::limits::SEARCH_WORDS) words.
    pub fn search(&self, words: &str, limit: u64) -> Result<Hits<T>, ReadError> {
        let search = words::Search::new(words).map_err(|error| StorageError::Query(error.to_string()))?;
        let Some(search) = search else { return Ok(Hits::default()) };
        let look = || {
            self.replica.index_words()?;
            Ok(self.replica.read(|tx| tx.search(&self.name, &search, limit))?)
        };
        let found = match look() {
            // The index is made of what documents show, and can be made anew at any time.
            Err(ReadError::Storage(StorageError::Damaged(reason)))
                if self.replica.rebuild_search().is_ok() =>
            {
                tracing::warn!(reason, "the full-text index was damaged, and is made anew");
                look()?
            }
            found => found?,
        };
        let hit = |(score, row): (f64, ListRow)| {
            let fields: Fields = serde_json::from_str(&row.json).unwrap_or_default();
            let snippet = search.snippet(&fields);
            Ok(Hit { record: self.fitting(row)?, score, snippet })
        };
        Ok(found.into_iter().map(hit).collect())
    }

    /// Fields whose values break a rule that is declared for them. A write that does so is refused; what arrives from a device with
    /// other rules is kept and listed here.
    ///
    /// # Errors
    /// [`ReadError`] if the file cannot be read.
    pub fn violations(&self) -> Result<Vec<Violation>, ReadError> {
        let schema = self.replica.read(declared)?.remove(&self.name).unwrap_or_default();
        let mut violations = Vec::new();
        self.replica.list::<ReadError>(&self.name, |row| {
            let fields: Fields = serde_json::from_str(&row.json).unwrap_or_default();
            for (field, declared) in &schema.fields {
                if let Some(rule) = fields.get(field).and_then(|value| declared.broken_by(value)) {
                    violations.push(Violation { id: row.name.clone(), field: field.clone(), rule });
                }
            }
            Ok(())
        })?;
        Ok(violations)
    }

    /// A query whose results are handed out again whenever they have changed.
    ///
    /// # Errors
    /// As [`find`](Self::find).
    pub fn live(&self, query: Query) -> Result<LiveQuery<T>, ReadError> {
        LiveQuery::new(self.clone(), query, self.replica.listen(), self.replica.commits())
    }

    pub(crate) fn matches(&self, filter: &Filter, id: &str) -> Result<bool, ReadError> {
        Ok(self.replica.read(|tx| tx.matches(&self.name, filter, id))?)
    }

    fn record(&self, row: ListRow) -> Result<Record<T>, ReadError> {
        let ListRow { name, heads, json } = row;
        Record::new(name.clone(), &json, Version(heads)).map_err(|e| shape_error(&self.name, &name, e))
    }

    fn fitting(&self, row: ListRow) -> Result<Record<T>, Misfit> {
        let ListRow { name, heads, json } = row;
        Record::new(name.clone(), &json, Version(heads))
            .map_err(|e| Misfit { id: name, reason: e.to_string() })
    }

    /// A name that is nearly that of a declared field, and that no document has, is a typing error; so is one that a field had before.
    fn check_names(&self, tx: Tx<'_>, names: Vec<&str>) -> store::Result<()> {
        let schemas = declared(tx)?;
        let Some(schema) = schemas.get(&self.name) else { return Ok(()) };
        for name in names {
            if let Some(older) = FieldPath::parse(name).and_then(|path| schema.older_name(&path))
                && !tx.is_field_used(&self.name, name)?
            {
                let newest = schema.canonical(&older);
                let reason = format!("the field {older:?} of {} is called {newest:?} now", self.name);
                return Err(StorageError::Query(reason));
            }
            if let Some(near) = schema.near_declared(name)
                && !tx.is_field_used(&self.name, name)?
            {
                let reason =
                    format!("no document of {} has a field {name:?}; did you mean {near:?}?", self.name);
                return Err(StorageError::Query(reason));
            }
        }
        Ok(())
    }
}

impl<T> Clone for Collection<T> {
    fn clone(&self) -> Self {
        Self::new(self.replica.clone(), &self.name)
    }
}

impl<T> fmt::Debug for Collection<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Collection({})", self.name)
    }
}

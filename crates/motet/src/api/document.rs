//! One document by its id.

use std::fmt;

use motet_proto::DocumentId;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value as Json;

use crate::api::collection::{Collection, Record};
use crate::api::editor::Editor;
use crate::api::sync::{document_status, read_error};
use crate::api::transaction::{PendingWrite, Transaction};
use crate::doc::Fields;
use crate::engine::{self, Ahead, TextWrite, declared, schema_of};
use crate::error::{ReadError, SyncError, WriteError};
use crate::sync::DocumentTask;
use crate::types::{
    Conflict, DocumentStatus, FieldDiff, Resolution, Revision, SyncState, TextEdit, TextEdited, Version,
};

/// One document of a collection: what can be asked of it, and done with it. From [`Collection::document`]; there need not be such a document
/// yet. Cheap to clone.
///
/// ```
/// use motet::{Replica, Schema, json};
/// # let dir = tempfile::tempdir().unwrap();
/// let replica = Replica::open(dir.path().join("songs.db"))?;
/// replica.apply_schema(&Schema::new().text("pieces", "lyrics"))?;
/// let pieces = replica.documents("pieces");
/// let id = pieces.insert(&json!({ "title": "Aloha ʻOe", "lyrics": "Haʻaheo ka ua i nā pali\n" }))?;
///
/// let piece = pieces.document(&id);
/// piece.splice_text("lyrics", 0, 0, "1. ")?;
/// let (latest, first) = (&piece.history(10)?[0], &piece.history(10)?[1]);
/// assert_eq!(piece.diff(&first.version, &latest.version)?[0].field, "lyrics");
/// piece.restore_version(&first.version)?;
/// assert_eq!(piece.get()?.unwrap()["lyrics"], "Haʻaheo ka ua i nā pali\n");
/// assert!(piece.conflicts()?.is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct DocumentHandle<T> {
    collection: Collection<T>,
    id: String,
}

impl<T> DocumentHandle<T> {
    pub(crate) fn new(collection: Collection<T>, id: &str) -> Self {
        Self { collection, id: id.to_owned() }
    }

    /// Id of the document.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The collection that it belongs to.
    pub fn collection(&self) -> &Collection<T> {
        &self.collection
    }

    /// Sets single fields of the document, durably, as [`Collection::patch`] does.
    ///
    /// # Errors
    /// As [`Collection::patch`].
    pub fn patch<F: Serialize>(&self, fields: &F) -> Result<Version, WriteError> {
        self.collection.patch(&self.id, fields)
    }

    /// Deletes the document, durably, as [`Collection::delete`] does.
    ///
    /// # Errors
    /// As [`Collection::delete`].
    pub fn delete(&self) -> Result<(), WriteError> {
        self.collection.delete(&self.id)
    }

    /// Replaces `delete` characters (Unicode code points) from `position` on by `insert`, in a text field, durably.
    ///
    /// # Errors
    /// [`WriteError::BadValue`] if the field is no text or the range lies outside of it; [`WriteError::NotFound`].
    pub fn splice_text(
        &self,
        field: &str,
        position: usize,
        delete: usize,
        insert: &str,
    ) -> Result<Version, WriteError> {
        let edits = [TextEdit::new(position, delete, insert)];
        self.edit_text(field, &edits, None).map(|edited| edited.version)
    }

    /// [`splice_text`](Self::splice_text) for async code. Splices that are handed over one after another and awaited
    /// later share their fsyncs.
    pub fn splice_text_async(
        &self,
        field: &str,
        position: usize,
        delete: usize,
        insert: &str,
    ) -> PendingWrite<Version> {
        let edits = [TextEdit::new(position, delete, insert)];
        let (ahead, write) = self.editing_text(field, &edits, None);
        self.collection.replica().write_async(Some(ahead), |tx| write(tx).map(|edited| edited.version))
    }

    /// Makes edits of a text field in one change, durably, each on what those before it have left. With `base` they are made on that
    /// version of the document, and merge with everything that has come since: for a view that shows an older version than this device
    /// has by now, such as a text field in which somebody is typing while changes of others arrive. [`TextEdited::branch`] is the base of what is
    /// typed next in such a view.
    ///
    /// ```
    /// use motet::{Replica, Schema, TextEdit, json};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// let replica = Replica::open(dir.path().join("songs.db"))?;
    /// replica.apply_schema(&Schema::new().text("songs", "lyrics"))?;
    /// let songs = replica.documents("songs");
    /// let shown = songs.upsert("1", &json!({ "lyrics": "Aloha ʻoe" }))?;
    /// let song = songs.document("1");
    /// song.splice_text("lyrics", 9, 0, ", aloha ʻoe")?;
    /// // Somebody still sees the first version, and types there.
    /// let edited = song.edit_text("lyrics", &[TextEdit::new(0, 0, "« "), TextEdit::new(2, 1, "a")], Some(&shown))?;
    /// assert_eq!(songs.get("1")?.unwrap()["lyrics"], "« aloha ʻoe, aloha ʻoe");
    /// assert_eq!(song.at(&edited.branch)?["lyrics"], "« aloha ʻoe");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`WriteError::BadValue`] if the field is no text, or an edit lies outside of what it is made on; [`WriteError::UnknownVersion`] if this
    /// device does not hold `base`; [`WriteError::NotFound`]. Nothing is changed then.
    pub fn edit_text(
        &self,
        field: &str,
        edits: &[TextEdit],
        base: Option<&Version>,
    ) -> Result<TextEdited, WriteError> {
        let (ahead, write) = self.editing_text(field, edits, base);
        self.collection.replica().write(ahead, write)
    }

    /// [`edit_text`](Self::edit_text) for async code. Edits that are handed over one after another and awaited later share their fsyncs.
    pub fn edit_text_async(
        &self,
        field: &str,
        edits: &[TextEdit],
        base: Option<&Version>,
    ) -> PendingWrite<TextEdited> {
        let (ahead, write) = self.editing_text(field, edits, base);
        self.collection.replica().write_async(Some(ahead), write)
    }

    /// Adds to a counter, durably; a document without the field gets it.
    ///
    /// # Errors
    /// [`WriteError::BadValue`] if the field is neither a counter nor declared as one; [`WriteError::NotFound`].
    pub fn increment(&self, field: &str, by: i64) -> Result<Version, WriteError> {
        let field = field.to_owned();
        self.write(move |tx, name, id| tx.increment(name, id, &field, by))
    }

    /// [`increment`](Self::increment) for async code.
    pub fn increment_async(&self, field: &str, by: i64) -> PendingWrite<Version> {
        let field = field.to_owned();
        self.write_async(move |tx, name, id| tx.increment(name, id, &field, by))
    }

    /// Adds elements to a set, durably. One that is in it already is added again: it then stays even if another device takes it out
    /// meanwhile.
    ///
    /// # Errors
    /// [`WriteError::BadValue`] if the field is neither a set nor declared as one; [`WriteError::NotFound`].
    pub fn add_to_set(&self, field: &str, elements: &[Json]) -> Result<Version, WriteError> {
        let (field, elements) = (field.to_owned(), elements.to_vec());
        self.write(move |tx, name, id| tx.edit_set(name, id, &field, &elements, &[]))
    }

    /// [`add_to_set`](Self::add_to_set) for async code.
    pub fn add_to_set_async(&self, field: &str, elements: &[Json]) -> PendingWrite<Version> {
        let (field, elements) = (field.to_owned(), elements.to_vec());
        self.write_async(move |tx, name, id| tx.edit_set(name, id, &field, &elements, &[]))
    }

    /// Takes elements out of a set, durably.
    ///
    /// # Errors
    /// As [`add_to_set`](Self::add_to_set).
    pub fn remove_from_set(&self, field: &str, elements: &[Json]) -> Result<Version, WriteError> {
        let (field, elements) = (field.to_owned(), elements.to_vec());
        self.write(move |tx, name, id| tx.edit_set(name, id, &field, &[], &elements))
    }

    /// [`remove_from_set`](Self::remove_from_set) for async code.
    pub fn remove_from_set_async(&self, field: &str, elements: &[Json]) -> PendingWrite<Version> {
        let (field, elements) = (field.to_owned(), elements.to_vec());
        self.write_async(move |tx, name, id| tx.edit_set(name, id, &field, &[], &elements))
    }

    /// The concurrent writes of the document that lost, open ones and settled ones, oldest first.
    ///
    /// # Errors
    /// [`ReadError`] if the file cannot be read.
    pub fn conflicts(&self) -> Result<Vec<Conflict>, ReadError> {
        let rows =
            self.collection.replica().read(|tx| match tx.document(self.collection.name(), &self.id)? {
                Some(row) => tx.conflicts(row.id),
                None => Ok(Vec::new()),
            })?;
        Ok(rows.into_iter().map(Conflict::from_row).collect())
    }

    /// Settles the concurrent values of the field at `path`, a JSON pointer such as `/title`, durably and for every
    /// device.
    ///
    /// # Errors
    /// [`WriteError::NoConflict`] if there is no such field, or none in conflict; [`WriteError::NoLoser`] if the conflict has no
    /// such value; [`WriteError::NotFound`].
    pub fn resolve(&self, path: &str, resolution: Resolution) -> Result<Version, WriteError> {
        let path = path.to_owned();
        self.write(move |tx, name, id| tx.resolve(name, id, &path, &resolution))
    }

    /// [`resolve`](Self::resolve) for async code.
    pub fn resolve_async(&self, path: &str, resolution: Resolution) -> PendingWrite<Version> {
        let path = path.to_owned();
        self.write_async(move |tx, name, id| tx.resolve(name, id, &path, &resolution))
    }

    /// Brings the deleted document back as it was, durably.
    ///
    /// # Errors
    /// [`WriteError::NotFound`] if there is no such deleted document, or it was purged.
    pub fn restore(&self) -> Result<Version, WriteError> {
        self.write(|tx, name, id| tx.restore(name, id))
    }

    /// [`restore`](Self::restore) for async code.
    pub fn restore_async(&self) -> PendingWrite<Version> {
        self.write_async(|tx, name, id| tx.restore(name, id))
    }

    /// The latest steps in the history of the document, at most `limit`, the latest first.
    ///
    /// # Errors
    /// [`WriteError::NotFound`] if there never was such a document, or it was purged.
    pub fn history(&self, limit: usize) -> Result<Vec<Revision>, WriteError> {
        let (name, id) = self.key();
        self.collection.replica().run_reading(move |tx, core| core.revisions(tx, &name, &id, limit))
    }

    /// The fields of the document as they were at a version.
    ///
    /// # Errors
    /// [`WriteError::UnknownVersion`] if this device does not hold it; [`WriteError::NotFound`].
    pub fn at(&self, version: &Version) -> Result<Json, WriteError> {
        self.fields_at(version).map(Json::Object)
    }

    /// The fields that differ between two versions of the document.
    ///
    /// # Errors
    /// As [`at`](Self::at).
    pub fn diff(&self, first: &Version, second: &Version) -> Result<Vec<FieldDiff>, WriteError> {
        let (before, after) = (self.fields_at(first)?, self.fields_at(second)?);
        let fields = engine::touched(&before, &after).into_iter();
        Ok(fields
            .map(|field| {
                let value = |fields: &Fields| fields.get(&field).cloned();
                FieldDiff { before: value(&before), after: value(&after), field }
            })
            .collect())
    }

    /// Makes the document what it was at a version, by a new change, durably. A deleted document comes back.
    ///
    /// # Errors
    /// As [`at`](Self::at).
    pub fn restore_version(&self, version: &Version) -> Result<Version, WriteError> {
        let version = version.clone();
        self.write(move |tx, name, id| tx.restore_version(name, id, &version))
    }

    /// [`restore_version`](Self::restore_version) for async code.
    pub fn restore_version_async(&self, version: &Version) -> PendingWrite<Version> {
        let version = version.clone();
        self.write_async(move |tx, name, id| tx.restore_version(name, id, &version))
    }

    /// How the document stands: saved here only, waiting to be sent, safe on the relay; `None` if there never was one.
    ///
    /// # Errors
    /// [`ReadError`] if the file cannot be read.
    pub fn status(&self) -> Result<Option<DocumentStatus>, ReadError> {
        let (replica, name) = (self.collection.replica(), self.collection.name());
        let (row, excluded, schemas) =
            replica.read(|tx| Ok((tx.status(name, &self.id)?, tx.excluded()?, declared(tx)?)))?;
        let local_only = schema_of(&schemas, name, &self.id).is_local()
            || excluded.iter().any(|excluded| excluded == name)
            || replica.status().state == SyncState::LocalOnly;
        Ok(row.map(|row| document_status(row, local_only)))
    }

    /// Syncs the document before everything else that is under way: sends what is pending of it, merges what the relay holds of it,
    /// and tells how it stands then; `None` if there is none on either side. During a long first download a document is there
    /// within moments. Its status may still say pending: what was sent counts as safe when the log has been read up to there.
    ///
    /// # Errors
    /// As [`Replica::sync_now`](crate::Replica::sync_now).
    pub fn sync(&self) -> Result<Option<DocumentStatus>, SyncError> {
        pollster::block_on(self.request(DocumentTask::Sync))?;
        self.status().map_err(read_error)
    }

    /// [`sync`](Self::sync) for async code.
    pub fn sync_async(
        &self,
    ) -> impl Future<Output = Result<Option<DocumentStatus>, SyncError>> + Send + use<T> {
        let (request, document) = (self.request(DocumentTask::Sync), self.clone());
        async move {
            request.await?;
            document.status().map_err(read_error)
        }
    }

    /// Makes what the relay holds of the document one snapshot, if that saves at least half of it; true if so. What the snapshot
    /// supersedes leaves the relay after its retention time. A connected replica does this by itself while nothing else is to be
    /// done; nothing is lost either way.
    ///
    /// # Errors
    /// As [`Replica::sync_now`](crate::Replica::sync_now).
    pub fn compact(&self) -> Result<bool, SyncError> {
        pollster::block_on(self.compact_async())
    }

    /// [`compact`](Self::compact) for async code.
    pub fn compact_async(&self) -> impl Future<Output = Result<bool, SyncError>> + Send + use<T> {
        self.request(DocumentTask::Compact)
    }

    fn request(&self, task: DocumentTask) -> impl Future<Output = Result<bool, SyncError>> + Send + use<T> {
        let space = self.collection.replica().space();
        let document = DocumentId::derive(space, self.collection.name(), &self.id);
        let sync = self.collection.replica().sync();
        let request = sync.as_ref().map(|sync| sync.request_document(document, task));
        drop(sync);
        async move {
            match request {
                Some(request) => request.await,
                None => Err(SyncError::NotConnected),
            }
        }
    }

    fn fields_at(&self, version: &Version) -> Result<Fields, WriteError> {
        let ((name, id), version) = (self.key(), version.clone());
        self.collection.replica().run_reading(move |tx, core| core.fields_at(tx, &name, &id, &version))
    }

    pub(super) fn key(&self) -> (String, String) {
        (self.collection.name().to_owned(), self.id.clone())
    }

    pub(super) fn ahead(&self) -> Ahead {
        Ahead::of(self.collection.name(), &self.id)
    }

    fn write<R: Send + 'static>(
        &self,
        write: impl FnOnce(&mut Transaction<'_>, &str, &str) -> Result<R, WriteError> + Send + 'static,
    ) -> Result<R, WriteError> {
        let (name, id) = self.key();
        self.collection.replica().write(self.ahead(), move |tx| write(tx, &name, &id))
    }

    fn write_async<R: Send + 'static>(
        &self,
        write: impl FnOnce(&mut Transaction<'_>, &str, &str) -> Result<R, WriteError> + Send + 'static,
    ) -> PendingWrite<R> {
        let (name, id) = self.key();
        self.collection.replica().write_async(Some(self.ahead()), move |tx| write(tx, &name, &id))
    }

    fn editing_text(
        &self,
        field: &str,
        edits: &[TextEdit],
        base: Option<&Version>,
    ) -> (Ahead, impl FnOnce(&mut Transaction<'_>) -> Result<TextEdited, WriteError> + Send + 'static + use<T>)
    {
        let (name, id) = self.key();
        let text = TextWrite { field: field.to_owned(), edits: edits.to_vec(), base: base.cloned() };
        let ahead = match text.is_big() {
            true => Ahead::Text { collection: name.clone(), id: id.clone(), text: text.clone() },
            false => self.ahead(),
        };
        (ahead, move |tx: &mut Transaction<'_>| tx.edit_text(&name, &id, &text))
    }
}

impl<T: Serialize + DeserializeOwned> DocumentHandle<T> {
    /// The document, or `None` if there is none.
    ///
    /// # Errors
    /// [`ReadError::Shape`] if it does not have the shape of `T`.
    pub fn get(&self) -> Result<Option<Record<T>>, ReadError> {
        self.collection.get(&self.id)
    }

    /// Opens the document in an editor, as [`Collection::edit`] does; `None` if there is none.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn edit(&self) -> Result<Option<Editor<T>>, ReadError> {
        self.collection.edit(&self.id)
    }

    /// The document as it is on this device, or, if this device has none, as the relay has it: fetched before everything else that is
    /// under way. For opening a document while thousands are still on their way. `None` if neither has it.
    ///
    /// # Errors
    /// As [`Replica::sync_now`](crate::Replica::sync_now), if it has to be fetched; [`SyncError::Storage`] if what is here cannot be read.
    pub fn fetch(&self) -> Result<Option<Record<T>>, SyncError> {
        if let Some(record) = self.get().map_err(read_error)? {
            return Ok(Some(record));
        }
        pollster::block_on(self.request(DocumentTask::Fetch))?;
        self.get().map_err(read_error)
    }

    /// [`fetch`](Self::fetch) for async code.
    pub fn fetch_async(&self) -> impl Future<Output = Result<Option<Record<T>>, SyncError>> + Send + use<T> {
        let document = self.clone();
        async move {
            if let Some(record) = document.get().map_err(read_error)? {
                return Ok(Some(record));
            }
            document.request(DocumentTask::Fetch).await?;
            document.get().map_err(read_error)
        }
    }
}

impl<T> Clone for DocumentHandle<T> {
    fn clone(&self) -> Self {
        Self { collection: self.collection.clone(), id: self.id.clone() }
    }
}

impl<T> fmt::Debug for DocumentHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DocumentHandle({}/{})", self.collection.name(), self.id)
    }
}

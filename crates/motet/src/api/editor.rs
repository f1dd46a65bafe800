//! A document open in an editor: what is typed in one moment becomes one change.

mod shared;
mod unsaved;

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::thread::JoinHandle;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value as Json;

use crate::api::collection::{Collection, Record, shape_error};
use crate::api::replica::Replica;
use crate::api::transaction::to_fields;
use crate::error::{ReadError, WriteError};
use shared::{EditorShared, Outcome};
pub use unsaved::{Unsaved, UnsavedField};

/// A document that somebody types in. Dereferences to its value.
///
/// [`save_soon`](Self::save_soon) after each keystroke costs nothing: the value is written when typing has paused for
/// [`TYPING_PAUSE`](crate::limits::TYPING_PAUSE), and every [`TYPING_SAVED_EVERY`](crate::limits::TYPING_SAVED_EVERY) while it goes on,
/// as one change. What others write meanwhile is merged with it, in the document at once and in this value with
/// [`refresh`](Self::refresh).
///
/// ```
/// # use motet::{Replica, json};
/// # let dir = tempfile::tempdir().unwrap();
/// # let replica = Replica::open(dir.path().join("songs.db"))?;
/// # let songs = replica.documents("songs");
/// # let id = songs.insert(&json!({ "lyrics": "" }))?;
/// let mut editor = songs.edit(&id)?.expect("it is there");
/// for key in ["A", "l", "o", "h", "a"] {
///     let lyrics = format!("{}{key}", editor["lyrics"].as_str().unwrap_or_default());
///     editor["lyrics"] = lyrics.into();
///     editor.save_soon()?;
/// }
/// editor.close()?;
/// assert_eq!(songs.get(&id)?.unwrap()["lyrics"], "Aloha");
/// assert_eq!(songs.document(&id).history(10)?.len(), 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # What cannot be saved
/// A field that breaks a rule, such as a title that is too short until it is typed to its end, does not hold the others back: they are
/// saved, and it waits. [`unsaved`](Self::unsaved) tells which fields wait and why. [`close`](Self::close) saves what it can and returns
/// the rest. Dropping the editor tries as well, and can only log what it could not save.
///
/// # When the document is deleted
/// [`refresh`](Self::refresh) tells. If another device has deleted it, what is typed here and not saved yet is something that the delete
/// had not seen: saving it brings the document back with these words. Where the collection declares that a delete wins, the words are in
/// the deleted document, and there when it is restored. If it was deleted on this device, or purged, nothing is saved any more:
/// [`save`](Self::save) says [`WriteError::NotFound`] or [`WriteError::Purged`], and [`close`](Self::close) returns the words.
pub struct Editor<T: Serialize> {
    value: T,
    shared: Arc<EditorShared>,
    thread: Option<JoinHandle<()>>,
    closed: bool,
}

impl<T: Serialize + DeserializeOwned> Editor<T> {
    pub(crate) fn open(replica: Replica, collection: &str, record: Record<T>) -> Result<Self, ReadError> {
        let base = record.base().map_err(|e| shape_error(collection, &record.id, e))?;
        let shared = Arc::new(EditorShared::new(replica, collection, record.id, base, record.version));
        let saving = shared.clone();
        let thread = std::thread::Builder::new()
            .name("motet-editor".into())
            .spawn(move || saving.save_in_time())
            .map_err(|e| crate::store::StorageError::Io(e.to_string()))?;
        Ok(Self { value: record.value, shared, thread: Some(thread), closed: false })
    }

    /// Writes what waits and takes in what others have written. False if the document has been deleted; the value stays as it was.
    ///
    /// A field that cannot be saved stays as it is typed, and is later merged with what others have written in it.
    ///
    /// # Errors
    /// [`WriteError`] if the file cannot be read or written, or the document does not have the shape of `T` any more; the value stays as
    /// it was.
    pub fn refresh(&mut self) -> Result<bool, WriteError> {
        self.announce()?;
        let writing = self.shared.begin();
        let refused = match writing.save() {
            Ok(outcome) => outcome.refused,
            Err(WriteError::NotFound { .. } | WriteError::Purged { .. }) => return Ok(false),
            Err(error) => return Err(error),
        };
        let documents: Collection<T> = self.shared.replica.collection(&self.shared.collection);
        let read = documents.get(&self.shared.id).map_err(|error| match error {
            ReadError::Storage(error) => WriteError::Storage(error),
            other => bad(other),
        })?;
        let Some(record) = read else { return Ok(false) };
        let base = record.base().map_err(bad)?;
        let version = record.version.clone();
        self.value = match refused.is_empty() {
            true => record.value,
            false => {
                let (_, typed) = to_fields(&self.value)?;
                let mut shown = base.clone();
                for (field, _) in &refused {
                    match typed.get(field) {
                        Some(value) => _ = shown.insert(field.clone(), value.clone()),
                        None => _ = shown.remove(field),
                    }
                }
                let json = Json::Object(shown).to_string();
                Record::new(record.id, &json, record.version).map_err(bad)?.value
            }
        };
        writing.go_on_from(base, version, &refused);
        Ok(true)
    }
}

impl<T: Serialize> Editor<T> {
    /// Id of the document.
    pub fn id(&self) -> &str {
        &self.shared.id
    }

    /// Notes that the value has changed. It is not durable yet when this returns; [`is_saved`](Self::is_saved) tells.
    ///
    /// # Errors
    /// [`WriteError::BadValue`] if the value is no object. If saving failed since the last call, that error; what was typed is kept
    /// and tried again, a field that cannot be written with the next change of the value.
    pub fn save_soon(&mut self) -> Result<(), WriteError> {
        self.announce()?;
        self.shared.take_error().map_or(Ok(()), Err)
    }

    /// Writes the value now; durable on return.
    ///
    /// # Errors
    /// As [`Collection::update`]. If it is a field that cannot be written, the others are; what was not written is kept, can be saved
    /// again, and is told by [`unsaved`](Self::unsaved).
    pub fn save(&mut self) -> Result<(), WriteError> {
        // Also what was never announced. What went wrong before is tried again here.
        self.announce()?;
        let Outcome { refused } = self.shared.begin().save()?;
        refused.into_iter().next().map_or(Ok(()), |(_, error)| Err(error))
    }

    /// Whether everything that was announced is durable.
    pub fn is_saved(&self) -> bool {
        self.shared.is_saved()
    }

    /// The fields that could not be written when they were last tried, with the values that they have here.
    pub fn unsaved(&self) -> Vec<UnsavedField> {
        self.shared.unsaved()
    }

    /// Saves the value and closes the editor.
    ///
    /// # Errors
    /// [`Unsaved`] holds the fields that could not be written, with what was typed in them and why; everything else is saved.
    #[allow(clippy::result_large_err)] // Once in an editor's life.
    pub fn close(mut self) -> Result<(), Unsaved> {
        self.closed = true;
        let saved = self.save();
        // What is handed back here is not written later.
        let fields = self.shared.give_up(saved.as_ref().err());
        saved.map_err(|error| Unsaved {
            collection: self.shared.collection.clone(),
            id: self.shared.id.clone(),
            fields,
            error,
        })
    }

    fn announce(&self) -> Result<(), WriteError> {
        let (_, fields) = to_fields(&self.value)?;
        self.shared.announce(fields);
        Ok(())
    }
}

impl<T: Serialize> Deref for Editor<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: Serialize> DerefMut for Editor<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

impl<T: Serialize + fmt::Debug> fmt::Debug for Editor<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Editor")
            .field("id", &self.shared.id)
            .field("value", &self.value)
            .finish_non_exhaustive()
    }
}

impl<T: Serialize> Drop for Editor<T> {
    fn drop(&mut self) {
        if !self.closed
            && !std::thread::panicking()
            && let Err(error) = self.announce()
        {
            tracing::warn!(code = error.code(), %error, "what was typed last is not saved");
        }
        self.shared.close();
        if let Some(thread) = self.thread.take() {
            _ = thread.join();
        }
    }
}

fn bad(error: impl fmt::Display) -> WriteError {
    WriteError::bad_value(error)
}

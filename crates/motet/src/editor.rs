//! A document open in an editor: what is typed in one moment becomes one change.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::collection::{Collection, Record, shape_error};
use crate::doc::Fields;
use crate::engine::diff;
use crate::error::{ReadError, WriteError};
use crate::limits;
use crate::replica::Replica;
use crate::status::Version;
use crate::transaction::to_fields;

/// A document that somebody types in. Dereferences to its value.
///
/// [`save_soon`](Self::save_soon) after each keystroke costs nothing: the value is written when typing has paused for
/// [`TYPING_PAUSE`](limits::TYPING_PAUSE), and every [`TYPING_SAVED_EVERY`](limits::TYPING_SAVED_EVERY) while it goes on, as one change.
/// What others write meanwhile is merged with it, in the document at once and in this value with [`refresh`](Self::refresh).
/// Dropping the editor writes what waits.
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
/// editor.save()?;
/// assert_eq!(songs.get(&id)?.unwrap()["lyrics"], "Aloha");
/// assert_eq!(songs.history(&id, 10)?.len(), 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Editor<T: Serialize> {
    value: T,
    desk: Arc<Desk>,
    thread: Option<JoinHandle<()>>,
}

/// What the editor and the thread that saves have between them.
struct Desk {
    replica: Replica,
    collection: String,
    id: String,
    sheet: Mutex<Sheet>,
    /// Rung when something is to be saved, and when the editor closes.
    rung: Condvar,
    /// Held while something is written.
    writing: Mutex<()>,
}

struct Sheet {
    /// The value that the next change starts from, and the version that has exactly this value.
    base: Fields,
    version: Version,
    waiting: Option<Waiting>,
    /// Why the latest attempt to save failed.
    error: Option<WriteError>,
    closed: bool,
}

#[derive(Clone)]
struct Waiting {
    fields: Fields,
    /// When the first keystroke that waits was made, and the latest.
    since: Instant,
    latest: Instant,
}

impl<T: Serialize + DeserializeOwned> Editor<T> {
    pub(crate) fn open(replica: Replica, collection: &str, record: Record<T>) -> Result<Self, ReadError> {
        let base = record.base().map_err(|e| shape_error(collection, &record.id, e))?;
        let sheet = Sheet { base, version: record.version, waiting: None, error: None, closed: false };
        let desk = Arc::new(Desk {
            replica,
            collection: collection.to_owned(),
            id: record.id,
            sheet: Mutex::new(sheet),
            rung: Condvar::new(),
            writing: Mutex::new(()),
        });
        let saving = desk.clone();
        let thread = std::thread::Builder::new()
            .name("motet-editor".into())
            .spawn(move || saving.save_in_time())
            .map_err(|e| crate::store::StorageError::Io(e.to_string()))?;
        Ok(Self { value: record.value, desk, thread: Some(thread) })
    }

    /// Writes what waits and takes in what others have written. False if the document has been deleted; the value stays as it was.
    ///
    /// # Errors
    /// As [`save`](Self::save); the value stays as it was.
    pub fn refresh(&mut self) -> Result<bool, WriteError> {
        self.save()?;
        let documents: Collection<T> = self.desk.replica.collection(&self.desk.collection);
        let read = documents.get(&self.desk.id).map_err(|error| match error {
            ReadError::Storage(error) => WriteError::Storage(error),
            other => WriteError::BadValue { reason: other.to_string() },
        })?;
        let Some(record) = read else { return Ok(false) };
        let base = record.base().map_err(|e| WriteError::BadValue { reason: e.to_string() })?;
        self.value = record.value;
        let mut sheet = self.desk.sheet();
        (sheet.base, sheet.version) = (base, record.version);
        Ok(true)
    }
}

impl<T: Serialize> Editor<T> {
    /// Id of the document.
    pub fn id(&self) -> &str {
        &self.desk.id
    }

    /// Notes that the value has changed. It is not durable yet when this returns; [`is_saved`](Self::is_saved) tells.
    ///
    /// # Errors
    /// [`WriteError::BadValue`] if the value is no object. If saving failed since the last call, that error; what was typed is kept
    /// and tried again.
    pub fn save_soon(&mut self) -> Result<(), WriteError> {
        self.announce()?;
        self.desk.sheet().error.take().map_or(Ok(()), Err)
    }

    /// Writes the value now; durable on return.
    ///
    /// # Errors
    /// As [`Collection::update`]; what was typed is kept and can be saved again.
    pub fn save(&mut self) -> Result<(), WriteError> {
        // Also what was never announced. What went wrong before is tried again here.
        self.announce()?;
        self.desk.save()
    }

    fn announce(&self) -> Result<(), WriteError> {
        let (_, fields) = to_fields(&self.value)?;
        let now = Instant::now();
        let mut sheet = self.desk.sheet();
        let since = sheet.waiting.as_ref().map_or(now, |waiting| waiting.since);
        sheet.waiting = Some(Waiting { fields, since, latest: now });
        self.desk.rung.notify_one();
        Ok(())
    }

    /// Whether everything that was announced is durable.
    pub fn is_saved(&self) -> bool {
        self.desk.sheet().waiting.is_none()
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
            .field("id", &self.desk.id)
            .field("value", &self.value)
            .finish_non_exhaustive()
    }
}

impl<T: Serialize> Drop for Editor<T> {
    fn drop(&mut self) {
        self.desk.sheet().closed = true;
        self.desk.rung.notify_one();
        if let Some(thread) = self.thread.take() {
            _ = thread.join();
        }
    }
}

impl Desk {
    fn sheet(&self) -> MutexGuard<'_, Sheet> {
        self.sheet.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs until the editor is closed and everything is saved, or cannot be.
    fn save_in_time(&self) {
        let mut sheet = self.sheet();
        loop {
            let due = sheet.waiting.as_ref().map(|waiting| {
                (waiting.latest + limits::TYPING_PAUSE).min(waiting.since + limits::TYPING_SAVED_EVERY)
            });
            let now = Instant::now();
            sheet = match due {
                None if sheet.closed => return,
                None => self.rung.wait(sheet).unwrap_or_else(PoisonError::into_inner),
                Some(due) if due > now && !sheet.closed => {
                    self.rung.wait_timeout(sheet, due - now).unwrap_or_else(PoisonError::into_inner).0
                }
                Some(_) => {
                    let closed = sheet.closed;
                    drop(sheet);
                    let saved = self.save();
                    let mut sheet = self.sheet();
                    if let Err(error) = saved {
                        tracing::warn!(code = error.code(), %error, "what was typed is not saved");
                        if closed {
                            return;
                        }
                        // Tried again in time, and told with the next keystroke.
                        if let Some(waiting) = &mut sheet.waiting {
                            waiting.since = Instant::now();
                            waiting.latest = waiting.since + limits::TYPING_SAVED_EVERY;
                        }
                        sheet.error = Some(error);
                    }
                    sheet
                }
            };
        }
    }

    /// Writes what waits, if anything does.
    fn save(&self) -> Result<(), WriteError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let (waiting, patch, version) = {
            let sheet = self.sheet();
            let Some(waiting) = sheet.waiting.clone() else { return Ok(()) };
            let patch = diff(&sheet.base, &waiting.fields);
            (waiting, patch, sheet.version.clone())
        };
        let (collection, id) = (self.collection.clone(), self.id.clone());
        let write = move |tx: crate::store::Tx<'_>, core: &mut crate::engine::Core| {
            Ok(core.update_branch(tx, &collection, &id, &patch, &version)?.1)
        };
        let version = self.replica.run(write)?;
        let mut sheet = self.sheet();
        (sheet.base, sheet.version, sheet.error) = (waiting.fields, version, None);
        // A keystroke meanwhile waits for the next time.
        if sheet.waiting.as_ref().is_some_and(|newer| newer.latest == waiting.latest) {
            sheet.waiting = None;
        } else if let Some(newer) = &mut sheet.waiting {
            newer.since = newer.latest;
        }
        Ok(())
    }
}

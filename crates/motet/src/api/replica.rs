//! The entry point.

mod access;

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex};

use motet_proto::{DeviceId, SpaceId};

use self::access::whole;
use crate::api::builder::ReplicaBuilder;
use crate::api::collection::Collection;
use crate::api::transaction::{PendingWrite, Transaction};
use crate::api::watch::Events;
use crate::engine::{self, Core, Database, declared, schema_of};
use crate::error::{OpenError, ReadError, WriteError};
use crate::schema::{Declare, Schema};
use crate::store::{self, Durability, StorageError, Tx};
use crate::sync::SyncHandle;

/// One device's whole local copy: documents in one SQLite file, and the connection to a relay if there is one.
///
/// Cheap to clone; clones share everything. Calls block and are quick; those that wait for the disk have an `_async`
/// form. A write that has returned survives a crash. The last clone to go ends the connection and waits for writes
/// that are under way.
///
/// ```
/// use motet::{Replica, Schema, json};
/// # let dir = tempfile::tempdir().unwrap();
/// let replica = Replica::open(dir.path().join("songs.db"))?;
/// replica.apply_schema(&Schema::new().text("pieces", "lyrics"))?;
///
/// let pieces = replica.documents("pieces");
/// let id = pieces.insert(&json!({ "title": "Aloha ʻOe", "lyrics": "Haʻaheo ka ua i nā pali\n" }))?;
/// pieces.document(&id).splice_text("lyrics", 0, 0, "1. ")?;
/// assert_eq!(pieces.get(&id)?.unwrap()["lyrics"], "1. Haʻaheo ka ua i nā pali\n");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Replica {
    inner: Arc<Inner>,
}

struct Inner {
    // Dropped first: the sync task holds on to `database`.
    sync: Mutex<Option<SyncHandle>>,
    database: Arc<Database>,
}

impl Replica {
    pub(super) fn new(database: Database) -> Self {
        Self { inner: Arc::new(Inner { sync: Mutex::new(None), database: Arc::new(database) }) }
    }

    /// Opens the replica in the file `path`, or makes a new one there. The folder must exist.
    ///
    /// # Errors
    /// [`OpenError`]; a file that is no replica, or was written by a newer version, is left as it was.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        Self::builder(path).open()
    }

    /// Opens a replica with more than a path.
    pub fn builder(path: impl AsRef<Path>) -> ReplicaBuilder {
        ReplicaBuilder::new(path.as_ref())
    }

    /// This device's id: made when the file was, and the same for as long as the file is there. A copy of the file is another
    /// device, from when it is first opened.
    pub fn device_id(&self) -> DeviceId {
        self.inner.database.shared.device
    }

    /// The space that the file holds ([`ReplicaBuilder::space`]).
    pub fn space(&self) -> SpaceId {
        self.inner.database.shared.space
    }

    /// The database file, as it was given.
    pub fn path(&self) -> &Path {
        &self.inner.database.path
    }

    /// This device's name, as other devices see it.
    pub fn device_name(&self) -> &str {
        &self.inner.database.shared.device_name
    }

    /// The documents of a collection as values of the app's own type.
    pub fn collection<T>(&self, name: &str) -> Collection<T> {
        Collection::new(self.clone(), name)
    }

    /// Applies what a type declares, and returns its collection. May be called at every start.
    ///
    /// # Errors
    /// As [`apply_schema`](Self::apply_schema).
    pub fn declare<T: Declare>(&self) -> Result<Collection<T>, WriteError> {
        self.apply_schema(&T::schema())?;
        Ok(self.collection(T::COLLECTION))
    }

    /// The documents of a collection as JSON objects.
    pub fn documents(&self, name: &str) -> Collection<serde_json::Value> {
        self.collection(name)
    }

    /// Names of the collections that hold documents, sorted.
    ///
    /// # Errors
    /// [`ReadError`] if the file cannot be read.
    pub fn collections(&self) -> Result<Vec<String>, ReadError> {
        Ok(self.read(|tx| tx.collection_names())?)
    }

    /// Adds declarations to those made before, durably. May be called at every start.
    ///
    /// # Errors
    /// [`WriteError`]; nothing is applied then.
    pub fn apply_schema(&self, schema: &Schema) -> Result<(), WriteError> {
        schema.check()?;
        let schema = schema.clone();
        self.run(move |tx, core| core.apply_schema(tx, &schema))
    }

    /// All that is declared for this replica: by this app, by earlier versions of it, and by other programs on the same file.
    ///
    /// # Errors
    /// [`ReadError`] if the file cannot be read.
    pub fn schema(&self) -> Result<Schema, ReadError> {
        Ok(self.read(|tx| Ok(engine::schema_from(&declared(tx)?)))?)
    }

    /// Writes several documents at once: all of it or nothing, durable on return.
    ///
    /// Other processes that write to the same file wait until it ends: what takes long, such as comparing a big text, is better done with
    /// [`Collection::upsert`](crate::Collection::upsert) and its like, which do it before their transaction.
    ///
    /// The closure runs on this thread and may borrow. It must not call the replica itself; such a call fails. Returning an error, or a
    /// panic, takes everything back.
    ///
    /// ```
    /// # use motet::{Replica, WriteError, json};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let replica = Replica::open(dir.path().join("t.db"))?;
    /// let title = String::from("Learn the hula");
    /// let (task, goal) = replica.transaction(|tx| {
    ///     let goal = tx.documents("goals").insert(&json!({ "title": title }))?;
    ///     let task = tx.documents("tasks").insert(&json!({ "title": "Practise", "goal": goal }))?;
    ///     Ok((task, goal))
    /// })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// What the closure returned, or [`WriteError`] from the store; nothing is kept then.
    pub fn transaction<R: Send>(
        &self,
        write: impl FnOnce(&mut Transaction<'_>) -> Result<R, WriteError> + Send,
    ) -> Result<R, WriteError> {
        self.try_transaction(write)
    }

    /// [`transaction`](Self::transaction) with an error type of the app.
    ///
    /// ```
    /// # use motet::{Replica, WriteError, json};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let replica = Replica::open(dir.path().join("t.db"))?;
    /// #[derive(Debug, PartialEq)]
    /// enum Spend {
    ///     TooFew(i64),
    ///     Store(String),
    /// }
    ///
    /// impl From<WriteError> for Spend {
    ///     fn from(error: WriteError) -> Self {
    ///         Spend::Store(error.to_string())
    ///     }
    /// }
    ///
    /// # replica.documents("heroes").upsert("1", &json!({ "gems": 3 }))?;
    /// let spent = replica.try_transaction(|tx| {
    ///     let mut heroes = tx.documents("heroes");
    ///     let gems = heroes.get("1")?.map_or(0, |hero| hero["gems"].as_i64().unwrap_or(0));
    ///     if gems < 5 {
    ///         return Err(Spend::TooFew(gems));
    ///     }
    ///     heroes.patch("1", &json!({ "gems": gems - 5 }))?;
    ///     Ok(())
    /// });
    /// assert_eq!(spent, Err(Spend::TooFew(3)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`transaction`](Self::transaction).
    pub fn try_transaction<R: Send, E: From<WriteError> + Send>(
        &self,
        write: impl FnOnce(&mut Transaction<'_>) -> Result<R, E> + Send,
    ) -> Result<R, E> {
        self.inner.database.may_write().map_err(WriteError::from)?;
        let write = whole(move |tx: Tx<'_>, core: &mut Core| {
            write(&mut Transaction::new(tx, core)).map_err(AppError)
        });
        self.inner.database.writer.run_here(Durability::Full, write).map_err(|error| error.0)
    }

    /// [`transaction`](Self::transaction) that returns at once with a handle, to be awaited or waited on later.
    pub fn transaction_async<R: Send + 'static>(
        &self,
        write: impl FnOnce(&mut Transaction<'_>) -> Result<R, WriteError> + Send + 'static,
    ) -> PendingWrite<R> {
        self.write_async(None, write)
    }

    /// Events after each commit, from now on. A listener that falls more than
    /// [`EVENT_BACKLOG`](crate::limits::EVENT_BACKLOG) events behind learns that it has [missed](crate::Missed) some.
    pub fn events(&self) -> Events {
        Events::new(self.listen())
    }

    /// Numbers of live documents, open conflicts, quarantined items and documents that are about to go.
    ///
    /// # Errors
    /// [`ReadError`] if the file cannot be read.
    pub fn counts(&self) -> Result<Counts, ReadError> {
        let counts = self.read(|tx| {
            let (documents, (conflicts, quarantined)) = (tx.count_live_documents()?, tx.troubles()?);
            Ok(Counts { documents, conflicts, quarantined, leaving: tx.all_leaving()?.len() as u64 })
        })?;
        Ok(counts)
    }

    /// Copies the replica into the new file `to`, consistently, while it is in use. All its edits are in it, those too that were
    /// not sent yet. Opened, it becomes a device of its own, so both may be used.
    ///
    /// # Errors
    /// [`WriteError`] if `to` exists or cannot be written; nothing is left at `to` then.
    pub fn backup(&self, to: impl AsRef<Path>) -> Result<(), WriteError> {
        Ok(store::backup(&self.inner.database.file, to.as_ref())?)
    }

    /// A setting of the app, kept on this device only.
    ///
    /// # Errors
    /// [`ReadError`] if the file cannot be read.
    pub fn setting(&self, key: &str) -> Result<Option<String>, ReadError> {
        let key = format!("app.{key}");
        Ok(self.read(|tx| tx.meta(&key))?)
    }

    /// Keeps or removes a setting of the app, durably, on this device only.
    ///
    /// # Errors
    /// [`WriteError`] if it cannot be written.
    pub fn set_setting(&self, key: &str, value: Option<&str>) -> Result<(), WriteError> {
        let (key, value) = (format!("app.{key}"), value.map(str::to_owned));
        self.run(move |tx, _| Ok(tx.set_meta(&key, value.as_deref())?))
    }

    /// What leaves this device of a document, as it is listed with its `id`: its fields without those that are declared to stay. `None` if
    /// all of it stays. This goes by what is declared now: for a document that was read before another process declared something else,
    /// it may name what was to stay then. [`export`](Self::export) reads both at once.
    ///
    /// # Errors
    /// [`ReadError`] if the file cannot be read.
    pub fn shared_fields(
        &self,
        collection: &str,
        mut document: serde_json::Value,
    ) -> Result<Option<serde_json::Value>, ReadError> {
        let id = document.get("id").and_then(serde_json::Value::as_str).unwrap_or_default();
        let schema = schema_of(&self.database().readers.read(declared)?, collection, id);
        if schema.is_local() {
            return Ok(None);
        }
        if let serde_json::Value::Object(fields) = &mut document {
            fields.retain(|name, _| name == "id" || !schema.is_device_local(name));
        }
        Ok(Some(document))
    }

    /// Number of the latest change of any document in this file: where [`changed_after`](Self::changed_after) goes on from.
    ///
    /// # Errors
    /// [`ReadError`] if the file cannot be read.
    pub fn latest_change(&self) -> Result<u64, ReadError> {
        Ok(self.read(|tx| tx.latest_seq())?.unsigned_abs())
    }

    /// Documents that changed here after the change number `after`, by whatever program, in the order of their latest change,
    /// at most `limit`. Ask again with the last [`seq`](ChangedDocument::seq): every document that changes is told of, one that
    /// changes twice in between once.
    ///
    /// # Errors
    /// [`ReadError`] if the file cannot be read; [`ReadError::UnknownChange`] if it has no change with a number as large as `after`.
    pub fn changed_after(&self, after: u64, limit: usize) -> Result<Vec<ChangedDocument>, ReadError> {
        let (rows, latest) =
            self.read(|tx| Ok((tx.changed_after(number(after), limit)?, tx.latest_seq()?)))?;
        check_cursor(after, latest)?;
        let document = |row: store::ChangedRow| ChangedDocument {
            seq: row.seq.unsigned_abs(),
            collection: row.collection,
            id: row.name,
            deleted: row.deleted,
            at: row.updated_at,
        };
        Ok(rows.into_iter().map(document).collect())
    }

    /// Documents that have open conflicts, or with `settled` any in the journal: collection and id. The open ones of a document in the trash
    /// are open again once it is restored; until then only `settled` lists it.
    ///
    /// # Errors
    /// [`ReadError`] if the file cannot be read.
    pub fn conflicted_documents(&self, settled: bool) -> Result<Vec<(String, String)>, ReadError> {
        Ok(self.read(|tx| tx.conflicted_documents(settled))?)
    }

    /// Runs a query in SQL that only reads. Every collection is a view, `collection_NAME`, with the declared fields as
    /// columns, `id`, `updated_at` and the whole document as `json`.
    ///
    /// # Errors
    /// [`ReadError`] with code `query-invalid` if it is no such query.
    pub fn sql(&self, query: &str) -> Result<SqlTable, ReadError> {
        self.read(|_| Ok(()))?;
        let (columns, rows) = store::run_sql(&self.inner.database.file, query)?;
        Ok(SqlTable { columns, rows })
    }
}

/// A document that changed.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct ChangedDocument {
    /// Number of its latest change; grows with every change of any document in this file.
    pub seq: u64,
    /// Collection of the document.
    pub collection: String,
    /// Id of the document.
    pub id: String,
    /// It is in the trash now.
    pub deleted: bool,
    /// When it changed here, in milliseconds since 1970.
    pub at: i64,
}

/// What a query in SQL returned.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct SqlTable {
    /// Names of the columns.
    pub columns: Vec<String>,
    /// A value per column for each row.
    pub rows: Vec<Vec<serde_json::Value>>,
}

/// Numbers for a status page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Counts {
    /// Live documents.
    pub documents: u64,
    /// Concurrent writes in live documents that lost and that nobody has settled.
    pub conflicts: u64,
    /// Received items that could not be applied.
    pub quarantined: u64,
    /// Documents that other devices have purged, and that can still be restored here: `trash` says until when.
    pub leaving: u64,
}

impl fmt::Debug for Replica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replica").field("path", &self.path()).finish_non_exhaustive()
    }
}

/// An error of the app, as the store passes it on.
struct AppError<E>(E);

impl<E: From<WriteError>> From<StorageError> for AppError<E> {
    fn from(error: StorageError) -> Self {
        Self(E::from(WriteError::Storage(error)))
    }
}

impl<E: From<WriteError>> From<WriteError> for AppError<E> {
    fn from(error: WriteError) -> Self {
        Self(E::from(error))
    }
}

/// The number of a change, as the file has it.
pub(crate) fn number(change: u64) -> i64 {
    i64::try_from(change).unwrap_or(i64::MAX)
}

/// Whether the file has as many changes as whoever goes on from `after` has been told of.
pub(crate) fn check_cursor(after: u64, latest: i64) -> Result<(), ReadError> {
    match number(after) <= latest {
        true => Ok(()),
        false => Err(ReadError::UnknownChange { number: after, latest: latest.unsigned_abs() }),
    }
}

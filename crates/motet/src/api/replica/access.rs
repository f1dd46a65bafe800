//! How the rest of the library writes to a replica and reads from it: with work ahead of a transaction, and many documents in turns.

use std::collections::VecDeque;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::{broadcast, watch};

use super::Replica;
use crate::api::transaction::{PendingWrite, Transaction};
use crate::doc::Fields;
use crate::engine::{self, Ahead, Composed, Core, Database, Entrance, Patch};
use crate::error::{ReadError, WriteError};
use crate::limits;
use crate::store::{self, Durability, StorageError, Tx};
use crate::sync::SyncHandle;
use crate::types::{Commits, Event, Version};

impl Replica {
    /// [`transaction`](Self::transaction), of a write that says what it will need.
    pub(crate) fn write<R: Send + 'static>(
        &self,
        ahead: impl Into<Option<Ahead>>,
        write: impl FnOnce(&mut Transaction<'_>) -> Result<R, WriteError> + Send + 'static,
    ) -> Result<R, WriteError> {
        self.run_prepared(ahead.into(), move |tx, core| write(&mut Transaction::new(tx, core)))
    }

    /// [`transaction_async`](Self::transaction_async), of a write that may say what it will need.
    pub(crate) fn write_async<R: Send + 'static>(
        &self,
        ahead: Option<Ahead>,
        write: impl FnOnce(&mut Transaction<'_>) -> Result<R, WriteError> + Send + 'static,
    ) -> PendingWrite<R> {
        let may_write = self.inner.database.may_write();
        let write = whole(move |tx, core: &mut Core| {
            may_write?;
            write(&mut Transaction::new(tx, core))
        });
        PendingWrite::new(self.inner.database.writer.submit_prepared(Durability::Full, ahead, write))
    }

    pub(crate) fn listen(&self) -> broadcast::Receiver<Event> {
        let events = self.inner.database.shared.events.subscribe();
        self.inner.database.writer.watch_file();
        events
    }

    pub(crate) fn commits(&self) -> watch::Receiver<Commits> {
        self.inner.database.shared.commits.subscribe()
    }

    pub(crate) fn read<T>(&self, read: impl FnOnce(Tx<'_>) -> store::Result<T>) -> store::Result<T> {
        let database = &self.inner.database;
        let mut read = Some(read);
        let mut once = |tx: Tx<'_>| match read.take() {
            Some(read) => read(tx).map(Some),
            None => Ok(None),
        };
        let found = database.readers.read(|tx| if tx.is_behind()? { Ok(None) } else { once(tx) })?;
        if let Some(found) = found {
            return Ok(found);
        }
        // Inside a transaction of this thread it is refused; what is committed is read as it is shown then.
        let catch_up = |tx: Tx<'_>, core: &mut Core| core.catch_up_turn(tx, true);
        loop {
            match database.writer.run_prepared(
                Durability::Normal,
                Some(Ahead::Behind { all: true }),
                catch_up,
            ) {
                Ok(true) => break,
                Ok(false) => {}
                Err(error) => {
                    // The disk is full, say. What was written is to be read all the same.
                    tracing::debug!(%error, "reading what cannot be kept");
                    let catch_up = |tx: Tx<'_>, core: &mut Core| core.catch_up_all(tx);
                    match database.writer.peek(catch_up, |tx| Ok(once(tx))) {
                        Ok(found) => return found?.ok_or(StorageError::Closed),
                        Err(error) => {
                            tracing::debug!(%error, "reading without catching up");
                            break;
                        }
                    }
                }
            }
        }
        database.readers.read(once)?.ok_or(StorageError::Closed)
    }

    /// Takes into the full-text index what it does not know yet.
    pub(crate) fn index_words(&self) -> Result<(), ReadError> {
        while self.read(|tx| tx.is_unindexed())? {
            let index = |tx: Tx<'_>, core: &mut Core| core.index_batch(tx);
            self.inner.database.writer.run::<_, StorageError>(Durability::Normal, index)?;
        }
        Ok(())
    }

    /// Has the full-text index made anew.
    pub(crate) fn rebuild_search(&self) -> Result<(), WriteError> {
        self.run(|tx, core| Ok(core.rebuild_search(tx)?))
    }

    /// Milliseconds since 1970, by the clock of the app.
    pub(crate) fn now_ms(&self) -> i64 {
        self.inner.database.shared.now_ms()
    }

    pub(crate) fn list<E: From<StorageError>>(
        &self,
        collection: &str,
        each: impl FnMut(store::ListRow) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut outcome = Ok(());
        self.read(|tx| {
            outcome = tx.list(collection, each);
            Ok(())
        })?;
        outcome
    }

    pub(crate) fn run<R: Send + 'static>(
        &self,
        write: impl FnOnce(Tx<'_>, &mut Core) -> Result<R, WriteError> + Send + 'static,
    ) -> Result<R, WriteError> {
        self.run_prepared(None, write)
    }

    /// [`run`](Self::run), of a write that says what it will need.
    pub(crate) fn run_prepared<R: Send + 'static>(
        &self,
        ahead: Option<Ahead>,
        write: impl FnOnce(Tx<'_>, &mut Core) -> Result<R, WriteError> + Send + 'static,
    ) -> Result<R, WriteError> {
        self.inner.database.may_write()?;
        self.inner.database.writer.run_prepared(Durability::Full, ahead, whole(write))
    }

    /// Reads what only the connection that writes can: a document's history.
    pub(crate) fn run_reading<R: Send + 'static>(
        &self,
        read: impl FnOnce(Tx<'_>, &mut Core) -> Result<R, WriteError> + Send + 'static,
    ) -> Result<R, WriteError> {
        self.inner.database.writer.run(Durability::Normal, read)
    }

    /// What is done of a write of a document before its transaction: a big one is composed, on the thread of a caller that waits for it, else
    /// when its turn comes.
    pub(crate) fn ahead(
        &self,
        collection: &str,
        id: &str,
        patch: Option<&Patch>,
        base: Option<&Version>,
        waits: bool,
    ) -> (Option<Ahead>, Option<Composed>) {
        let document = || Ahead::of(collection, id);
        let Some(patch) = patch.filter(|patch| engine::is_big(&patch.set)) else {
            return (Some(document()), None);
        };
        if waits {
            let composed = self.compose_ahead(collection, id, patch, base, Entrance::Put);
            return (composed.is_none().then(document), composed);
        }
        let (collection, id) = (collection.to_owned(), id.to_owned());
        (Some(Ahead::Patch { collection, id, patch: patch.clone(), base: base.cloned() }), None)
    }

    /// Composes a write before its transaction; `None` if that is to be done in it.
    pub(crate) fn compose_ahead(
        &self,
        collection: &str,
        id: &str,
        patch: &Patch,
        base: Option<&Version>,
        entrance: Entrance,
    ) -> Option<Composed> {
        let Database { shared, readers, .. } = &*self.inner.database;
        engine::compose_ahead(shared, readers, (collection, id), patch, base, entrance)
    }

    /// Writes many documents of a collection, in as many transactions as it takes for others to write in between. Returns of each whether
    /// it was written.
    pub(crate) fn write_many(
        &self,
        collection: &str,
        documents: Vec<(String, Fields)>,
    ) -> Result<Vec<Result<(), WriteError>>, WriteError> {
        let Database { shared, readers, .. } = &*self.inner.database;
        let mut ready = engine::compose_many(shared, readers, collection, documents)?;
        let mut outcomes = Vec::with_capacity(ready.len());
        while !ready.is_empty() {
            let (name, mut waiting) = (collection.to_owned(), std::mem::take(&mut ready));
            let (left, written) = self.run(move |tx, core| {
                let until = Some(Instant::now() + limits::WRITE_TURN);
                let written = core.write_many(tx, &name, &mut waiting, until)?;
                core.let_go(tx)?;
                Ok((waiting, written))
            })?;
            ready = left;
            outcomes.extend(written);
        }
        Ok(outcomes)
    }

    /// Composes rows of another database before the transactions that write them.
    pub(crate) fn compose_rows<R: Send>(
        &self,
        collection: &str,
        rows: Vec<R>,
        of: impl Fn(&R) -> (&str, &Fields, Option<i64>) + Sync,
    ) -> VecDeque<(R, Option<Composed>)> {
        let Database { shared, readers, .. } = &*self.inner.database;
        engine::compose_rows(shared, readers, collection, rows, of)
    }

    /// The sync task, if the app has connected.
    pub(crate) fn sync(&self) -> MutexGuard<'_, Option<SyncHandle>> {
        self.inner.sync.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn database(&self) -> &Arc<Database> {
        &self.inner.database
    }
}

/// A write of the app, to its end.
pub(super) fn whole<R, E: From<WriteError>>(
    write: impl FnOnce(Tx<'_>, &mut Core) -> Result<R, E>,
) -> impl FnOnce(Tx<'_>, &mut Core) -> Result<R, E> {
    move |tx, core| {
        let written = write(tx, core)?;
        core.finish_write(tx).map_err(WriteError::from)?;
        Ok(written)
    }
}

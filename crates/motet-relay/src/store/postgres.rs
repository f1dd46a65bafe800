//! Logs in a Postgres database, which several relays may serve at a time.
//!
//! A log is one row that holds its end, and a row for each entry. An append is one statement: it moves the end, on condition that the log still
//! ends where the relay has read that it does, and inserts the entries. So numbers follow the order of commits, nothing can be read before
//! everything with a smaller number can, and of two relays that append at the same time one finds the end moved and reads it again. It uses no
//! sequences, advisory locks or notifications of the database.

mod append;
mod blocking;
mod database;
mod migrate;
mod plan;
mod read;
mod remove;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use deadpool_postgres::Client;
use futures_util::future::{BoxFuture, FutureExt, TryFutureExt};
use motet_proto::session::{DocumentPage, ReadOutcome};
use motet_proto::{DocumentId, Entry, Position, RelayId, SpaceId};

use super::{Appended, LogId, LogStore, StoreError, StoreState};
use crate::config::Limits;
use crate::limits;
use append::Appender;
pub(crate) use blocking::Blocking;
pub(crate) use database::{Address, told};
use database::{Database, Failure, first, select};
pub use migrate::{Migrated, migrate};

/// The tables of this version.
const FORMAT: i64 = 1;

/// A store whose logs are in a Postgres database. Several relays may serve it, each with a
/// [`Notifier`](crate::notifier::Notifier).
pub struct PostgresStore {
    id: RelayId,
    database: Database,
    appender: Arc<Appender>,
    measured: Mutex<Measured>,
}

/// What the tables take, as it was asked last.
#[derive(Default)]
struct Measured {
    bytes: Option<u64>,
    at: Option<Instant>,
}

impl PostgresStore {
    /// Opens the logs in the database of an address, such as `postgres://relay:secret@db.internal/motet`, and makes the tables if there are none.
    /// At most `connections` to the database are open at a time. Must be called in a Tokio runtime.
    ///
    /// With `sslmode=require` in the address connections are encrypted, and the certificate of the server is checked against the authorities that the
    /// system trusts; with `prefer`, the default, if the server offers it.
    ///
    /// # Errors
    /// [`StoreError::Failed`] if the address is not valid or the database refuses, [`StoreError::Busy`] if it does not answer in time,
    /// [`StoreError::Unusable`] if its tables are of a newer version.
    pub async fn open(url: &str, connections: usize, limits: &Limits) -> Result<Self, StoreError> {
        let database = Database::new(url, connections)?;
        database.reach().await?;
        let id = database.run(|client| prepare(client).boxed()).await??;
        let appender = Appender::new(database.clone(), limits);
        Ok(Self { id, database, appender, measured: Mutex::default() })
    }

    /// Which database it is, without user and password, for people.
    pub fn place(&self) -> String {
        self.database.place()
    }

    fn measured(&self) -> std::sync::MutexGuard<'_, Measured> {
        self.measured.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes of the tables and their indexes, asked at most once in a while: counting takes the database some milliseconds.
    async fn measure(&self) {
        {
            let mut measured = self.measured();
            if measured.at.is_some_and(|at| at.elapsed() < limits::POSTGRES_MEASURED_EVERY) {
                return;
            }
            measured.at = Some(Instant::now());
        }
        let sum = "SELECT pg_total_relation_size('entry') + pg_total_relation_size('log')";
        let bytes = self.database.run(move |client| {
            async move { Ok(first(client, sum, &[]).await?.and_then(|row| row.try_get::<_, i64>(0).ok())) }.boxed()
        });
        let bytes = bytes.await.ok().flatten();
        self.measured().bytes = bytes.map(i64::unsigned_abs);
    }
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore").field("id", &self.id).finish_non_exhaustive()
    }
}

impl LogStore for PostgresStore {
    fn id(&self) -> RelayId {
        self.id
    }

    fn head<'a>(&'a self, log: &'a LogId) -> BoxFuture<'a, Result<u64, StoreError>> {
        let ends = read::ends(&self.database, std::slice::from_ref(log));
        ends.map_ok(|ends| ends.first().map_or(0, |end| end.seq)).boxed()
    }

    fn ends<'a>(&'a self, logs: &'a [LogId]) -> BoxFuture<'a, Result<Vec<Position>, StoreError>> {
        read::ends(&self.database, logs).boxed()
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn append(&self, log: LogId, entries: Vec<Entry>) -> BoxFuture<'static, Result<Appended, StoreError>> {
        self.appender.append(log, entries)
    }

    fn read<'a>(
        &'a self,
        log: &'a LogId,
        after: Option<Position>,
    ) -> BoxFuture<'a, Result<ReadOutcome, StoreError>> {
        read::read(&self.database, log, after).boxed()
    }

    fn read_document<'a>(
        &'a self,
        log: &'a LogId,
        document: DocumentId,
        after: u64,
        whole: bool,
    ) -> BoxFuture<'a, Result<DocumentPage, StoreError>> {
        read::read_document(&self.database, log, document, after, whole).boxed()
    }

    fn sweep(&self, before: i64) -> BoxFuture<'static, Result<usize, StoreError>> {
        let database = self.database.clone();
        async move { remove::sweep(&database, before).await }.boxed()
    }

    fn logs_of<'a>(&'a self, account: &'a str) -> BoxFuture<'a, Result<Vec<SpaceId>, StoreError>> {
        read::logs_of(&self.database, account).boxed()
    }

    fn remove(&self, log: LogId) -> BoxFuture<'static, Result<bool, StoreError>> {
        let database = self.database.clone();
        async move { remove::remove(&database, &log).await }.boxed()
    }

    fn probe(&self) -> BoxFuture<'static, Result<(), StoreError>> {
        let database = self.database.clone();
        async move {
            let sql = "UPDATE motet SET value = value + 1 WHERE key = 'probe'";
            database.run(move |client| async move { select(client, sql, &[]).await.map(drop) }.boxed()).await
        }
        .boxed()
    }

    fn set_limits(&self, limits: &Limits) {
        self.appender.set_limits(limits);
    }

    fn state(&self) -> StoreState {
        let stored_bytes = self.measured().bytes;
        StoreState {
            is_full: self.database.is_full(),
            queued: self.appender.queued(),
            stored_bytes,
            ..StoreState::default()
        }
    }

    fn maintain(&self, _: u64) -> BoxFuture<'_, ()> {
        self.measure().boxed()
    }
}

/// Makes the tables if there are none. Returns the name of the store.
async fn prepare(client: &mut Client) -> Result<Result<RelayId, StoreError>, Failure> {
    let exists = "SELECT to_regclass('motet') IS NOT NULL";
    let is_there = first(client, exists, &[]).await?.is_some_and(|row| row.get(0));
    if !is_there {
        let foreign = "SELECT name FROM unnest(ARRAY['log', 'entry', 'erasing']) AS name WHERE to_regclass(name) IS NOT NULL";
        if let Some(found) = first(client, foreign, &[]).await? {
            let name: String = found.get(0);
            return Ok(Err(StoreError::Unusable(format!(
                "the database has a table {name:?} of somebody else: give the relays a database of their own"
            ))));
        }
        let mut id = [0; RelayId::LEN];
        getrandom::fill(&mut id).map_err(|e| Failure::Refused(StoreError::Failed(e.to_string())))?;
        let tx = client.transaction().await?;
        tx.batch_execute(include_str!("postgres/schema.sql")).await?;
        tx.execute("INSERT INTO motet (key, value) VALUES ('format', $1)", &[&FORMAT]).await?;
        tx.execute("INSERT INTO motet (key, name) VALUES ('id', $1)", &[&id.as_slice()]).await?;
        tx.commit().await?;
    }
    let sql =
        "SELECT (SELECT value FROM motet WHERE key = 'format'), (SELECT name FROM motet WHERE key = 'id')";
    let row = first(client, sql, &[]).await?;
    let found = row.map(|row| (row.get::<_, Option<i64>>(0), row.get::<_, Option<Vec<u8>>>(1)));
    Ok(match found {
        Some((Some(FORMAT), Some(id))) => match id.try_into() {
            Ok(id) => Ok(RelayId(id)),
            Err(_) => Err(StoreError::Unusable("the name of the store in table motet is none".into())),
        },
        Some((Some(format), _)) if format > FORMAT => Err(StoreError::Unusable(format!(
            "the tables have format {format}, this version knows formats up to {FORMAT}; update the relay"
        ))),
        _ => Err(StoreError::Unusable("table motet does not say which format the tables have".into())),
    })
}

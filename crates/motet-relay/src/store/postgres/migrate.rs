//! Copies the logs of a data folder into a database. Numbers and tags stay what they are, and so does the name of the store: devices go on as if nothing had
//! happened.

use std::collections::HashMap;
use std::path::Path;

use motet_proto::{EntryId, Kind, Position, SpaceId};
use rusqlite::{Connection, OpenFlags, Row, params};

use super::append::number;
use super::blocking::Blocking;
use super::database::Address;
use super::{LogStore, PostgresStore};
use crate::config::Limits;
use crate::limits;
use crate::store::StoreError;
use crate::store::folder::{DATABASE, note_moved};
use crate::store::sqlite::{SqliteStore, row_base};

/// What was copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Migrated {
    /// Logs.
    pub logs: u64,
    /// Entries that are in them.
    pub entries: u64,
    /// Bytes of those, as limits count them.
    pub bytes: u64,
}

/// Copies all logs of the folder `data`, whose relay does not run, into the database of an address, which has none yet. All of it, or nothing. The folder is not
/// served any more then. Must not be called on a thread of an async runtime.
///
/// # Errors
/// [`StoreError::InUse`] if a relay has the folder open, [`StoreError::Unusable`] if it is none, if something in it is damaged, or if the database has logs
/// already; otherwise as [`PostgresStore::open`].
pub fn migrate(data: &Path, url: &str) -> Result<Migrated, StoreError> {
    match data.join(DATABASE).try_exists() {
        Ok(true) => {}
        Ok(false) => {
            let reason = format!("{} holds no relay: there is no {DATABASE}", data.display());
            return Err(StoreError::Unusable(reason));
        }
        Err(error) => return Err(StoreError::Unusable(format!("{}: {error}", data.display()))),
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| StoreError::Failed(e.to_string()))?;
    // Held to the end: no relay writes to it meanwhile. What it had begun and not ended is done first.
    let held = SqliteStore::open_with(data, &Limits::default())?;
    while runtime.block_on(held.sweep(0))? > 0 {}
    drop(runtime.block_on(PostgresStore::open(url, 2, &Limits::default()))?);
    let address = Address::parse(url)?;
    let client =
        Blocking::connect(&address, limits::POSTGRES_MIGRATION_TIMEOUT).map_err(StoreError::Failed)?;
    client.run("BEGIN").map_err(StoreError::Failed)?;
    if !client.query("SELECT 1 FROM log LIMIT 1", &[]).map_err(StoreError::Failed)?.is_empty() {
        let reason = format!("{} holds logs already: copy into an empty database", address.place);
        return Err(StoreError::Unusable(reason));
    }
    let tx = &client;
    let id = held.id();
    tx.execute("UPDATE motet SET name = $1 WHERE key = 'id'", &[&id.0.as_slice()])
        .map_err(StoreError::Failed)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let from = Connection::open_with_flags(data.join(DATABASE), flags)?;
    let mut copying = Copying { superseded: superseded(&from)?, ..Copying::default() };
    for (row, account, space) in spaces(&from)? {
        copying.log(&from, tx, row, &account, space)?;
    }
    copying.documents(&from, tx)?;
    let last = "UPDATE motet SET value = (SELECT COALESCE(MAX(id), 0) FROM log) WHERE key = 'logs'";
    tx.execute(last, &[]).map_err(StoreError::Failed)?;
    tx.run("COMMIT").map_err(StoreError::Failed)?;
    // Two relays with the same name that go on apart would be told apart by nobody.
    note_moved(data, &address.place).map_err(|error| {
        let file = data.display();
        StoreError::Failed(format!("everything is copied, but the folder {file} does not say so, and must not be served any more: {error}"))
    })?;
    Ok(copying.done)
}

#[derive(Default)]
struct Copying {
    done: Migrated,
    /// When entries were superseded, by their rows.
    superseded: HashMap<i64, i64>,
    /// The first log of each account.
    accounts: HashMap<String, i64>,
    batch: Batch,
}

/// Rows that go together.
#[derive(Default)]
struct Batch {
    seqs: Vec<i64>,
    ids: Vec<Vec<u8>>,
    tags: Vec<Vec<u8>>,
    documents: Vec<Vec<u8>>,
    devices: Vec<Vec<u8>>,
    kinds: Vec<Vec<u8>>,
    suites: Vec<i16>,
    payloads: Vec<Vec<u8>>,
    sizes: Vec<i64>,
    received: Vec<i64>,
    superseded_by: Vec<Option<i64>>,
    superseded_at: Vec<Option<i64>>,
    bytes: usize,
}

impl Copying {
    fn log(
        &mut self,
        from: &Connection,
        tx: &Blocking,
        log: i64,
        account: &str,
        space: SpaceId,
    ) -> Result<(), StoreError> {
        let (mut end, mut bytes) = (Position::start(space), 0);
        let sql = "SELECT e.id, e.entry, e.tag, e.document, e.device, e.kind, e.suite, e.payload, e.received_at, o.superseded
                   FROM entry e LEFT JOIN entry_of o
                     ON o.space = ?1 AND o.document = e.document AND o.head = substr(e.entry, 1, 8) AND o.seq = e.id - ?2
                   WHERE e.id > ?2 AND e.id < ?3 ORDER BY e.id";
        let mut statement = from.prepare_cached(sql)?;
        let base = row_base(log);
        let mut rows = statement.query(params![log, base, row_base(log + 1)])?;
        while let Some(row) = rows.next()? {
            let seq = row.get::<_, i64>(0)? - base;
            let id = EntryId(row.get(1)?);
            let next = end.next(id);
            if (next.seq, next.tag) != (seq.unsigned_abs(), row.get(2)?) {
                let reason = format!(
                    "entry {seq} of log {log} does not follow the one before: repair the folder first"
                );
                return Err(StoreError::Unusable(reason));
            }
            end = next;
            let size = self.batch.add(row, seq, id, end, |at| self.superseded.get(&(base + at)).copied())?;
            bytes += size;
            self.done.entries += u64::from(size > 0);
            if self.batch.is_full() {
                self.batch.write(tx, log)?;
            }
        }
        self.batch.write(tx, log)?;
        let sql = "INSERT INTO log (id, account, space, head, tag, epoch, bytes, documents) VALUES ($1, $2, $3, $4, $5, 0, $6, 0)";
        let (space, head, tag) = (space.0.as_slice(), number(end.seq), end.tag.as_slice());
        tx.execute(sql, &[&log, &account, &space, &head, &tag, &bytes]).map_err(StoreError::Failed)?;
        self.accounts.entry(account.to_owned()).or_insert(log);
        self.done.logs += 1;
        self.done.bytes += bytes.unsigned_abs();
        Ok(())
    }

    /// Of documents it is known how many an account has, not in which log.
    fn documents(&self, from: &Connection, tx: &Blocking) -> Result<(), StoreError> {
        let mut statement = from.prepare("SELECT account, documents FROM usage")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (account, documents): (String, i64) = (row.get(0)?, row.get(1).unwrap_or(0));
            if let Some(log) = self.accounts.get(&account) {
                let sql = "UPDATE log SET documents = $1 WHERE id = $2";
                tx.execute(sql, &[&documents.max(0), log]).map_err(StoreError::Failed)?;
            }
        }
        Ok(())
    }
}

impl Batch {
    /// Adds a row; returns the size of its entry, which is 0 if it has left.
    fn add(
        &mut self,
        row: &Row<'_>,
        seq: i64,
        id: EntryId,
        at: Position,
        superseded_at: impl Fn(i64) -> Option<i64>,
    ) -> Result<i64, StoreError> {
        let kind: Vec<u8> = row.get(5)?;
        let payload: Vec<u8> = row.get(7)?;
        let has_left = kind.is_empty();
        let size = match Kind::from_bytes(&kind) {
            Some(kind) => number(kind.size_with(payload.len()) as u64),
            None if has_left => 0,
            None => {
                return Err(StoreError::Unusable(format!(
                    "the kind of entry {seq} is none: repair the folder first"
                )));
            }
        };
        let received: i64 = row.get(8)?;
        let by = row.get::<_, Option<i64>>(9)?.filter(|by| *by > 0 && !has_left);
        self.seqs.push(seq);
        self.ids.push(id.0.to_vec());
        self.tags.push(at.tag.to_vec());
        self.documents.push(row.get(3)?);
        self.devices.push(row.get(4)?);
        self.kinds.push(kind);
        self.suites.push(if has_left { 0 } else { row.get(6)? });
        self.bytes += payload.len();
        self.payloads.push(payload);
        self.sizes.push(size);
        self.received.push(received);
        self.superseded_by.push(by);
        self.superseded_at.push(by.map(|_| superseded_at(seq).unwrap_or(received)));
        Ok(size)
    }

    fn is_full(&self) -> bool {
        self.seqs.len() >= limits::POSTGRES_GROUP_ENTRIES || self.bytes >= limits::GROUP_BYTES
    }

    fn write(&mut self, tx: &Blocking, log: i64) -> Result<(), StoreError> {
        let sql = "INSERT INTO entry (log, seq, id, tag, document, device, kind, suite, payload, size, received_at, superseded_by, superseded_at)
                   SELECT $1, * FROM unnest($2::bigint[], $3::bytea[], $4::bytea[], $5::bytea[], $6::bytea[], $7::bytea[], $8::smallint[], $9::bytea[],
                                            $10::bigint[], $11::bigint[], $12::bigint[], $13::bigint[])";
        let batch = std::mem::take(self);
        tx.execute(
            sql,
            &[
                &log,
                &batch.seqs,
                &batch.ids,
                &batch.tags,
                &batch.documents,
                &batch.devices,
                &batch.kinds,
                &batch.suites,
                &batch.payloads,
                &batch.sizes,
                &batch.received,
                &batch.superseded_by,
                &batch.superseded_at,
            ],
        )
        .map_err(StoreError::Failed)?;
        Ok(())
    }
}

fn spaces(from: &Connection) -> Result<Vec<(i64, String, SpaceId)>, StoreError> {
    let mut statement = from.prepare("SELECT id, account, uuid FROM space ORDER BY id")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, SpaceId(row.get(2)?))))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

fn superseded(from: &Connection) -> Result<HashMap<i64, i64>, StoreError> {
    let mut statement = from.prepare("SELECT entry, at FROM superseded")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

//! Appends, grouped: whatever waits goes into one transaction and one fsync.

use std::collections::HashMap;
use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{SystemTime, UNIX_EPOCH};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use motet_proto::Kind;
use motet_proto::entry::EntryError;
use motet_proto::message::{Outcome, Rejection};
use motet_proto::planted::{Bug, is_planted};
use motet_proto::position::TAG_LEN;
use motet_proto::session::AppendOutcome;
use motet_proto::{DocumentId, Entry, EntryId, Position};
use rusqlite::{Connection, OptionalExtension, params};
use tokio::sync::oneshot;

use super::{id_head, row_base};
use crate::limits;
use crate::store::{Appended, LogId, StoreError};

/// Handle to the writer thread. Dropping it waits for queued pushes.
pub(super) struct Writer {
    queue: Option<Sender<Job>>,
    /// Bytes of entries that wait.
    queued: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

enum Job {
    Push(Push),
    /// Removes what was superseded before a time.
    Sweep(i64, oneshot::Sender<Result<usize, StoreError>>),
}

struct Push {
    bytes: usize,
    log: LogId,
    entries: Vec<Entry>,
    reply: oneshot::Sender<Result<Appended, StoreError>>,
}

/// A log's row and where it ends.
#[derive(Clone, Copy)]
struct Log {
    row: i64,
    head: Position,
}

impl Writer {
    pub(super) fn spawn(conn: Connection) -> Result<Self, StoreError> {
        let (queue, pushes) = channel();
        let queued = Arc::new(AtomicUsize::new(0));
        let waiting = queued.clone();
        let thread = std::thread::Builder::new()
            .name("relay-writer".into())
            .spawn(move || run(&conn, &pushes, &waiting))
            .map_err(|e| StoreError::Failed(e.to_string()))?;
        Ok(Self { queue: Some(queue), queued, thread: Some(thread) })
    }

    /// Queues a push at once, so that the order of calls is the order of appends.
    pub(super) fn append(
        &self,
        log: LogId,
        entries: Vec<Entry>,
    ) -> BoxFuture<'static, Result<Appended, StoreError>> {
        let (reply, answer) = oneshot::channel();
        let push = Push { bytes: size(&entries), log, entries, reply };
        let Some(queue) = &self.queue else { return ready(Err(StoreError::Closed)).boxed() };
        if self.queued.fetch_add(push.bytes, Ordering::Relaxed) > limits::QUEUED_BYTES {
            self.queued.fetch_sub(push.bytes, Ordering::Relaxed);
            return ready(Err(StoreError::Busy)).boxed();
        }
        // If the thread is gone the reply is dropped, and the answer says so.
        _ = queue.send(Job::Push(push));
        answer.map(|answer| answer.unwrap_or(Err(StoreError::Closed))).boxed()
    }

    pub(super) fn sweep(&self, before: i64) -> BoxFuture<'static, Result<usize, StoreError>> {
        let (reply, answer) = oneshot::channel();
        let Some(queue) = &self.queue else { return ready(Err(StoreError::Closed)).boxed() };
        _ = queue.send(Job::Sweep(before, reply));
        answer.map(|answer| answer.unwrap_or(Err(StoreError::Closed))).boxed()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            _ = thread.join();
        }
    }
}

fn run(conn: &Connection, jobs: &Receiver<Job>, queued: &AtomicUsize) {
    let mut logs = HashMap::new();
    let mut next = jobs.recv().ok();
    while let Some(job) = next.take() {
        let first = match job {
            Job::Push(push) => push,
            Job::Sweep(before, reply) => {
                let swept = sweep(conn, before);
                if let Err(error) = &swept {
                    tracing::error!(code = error.code(), %error, "sweeping failed");
                }
                _ = reply.send(swept);
                next = jobs.recv().ok();
                continue;
            }
        };
        let mut bytes = first.bytes;
        let mut group = vec![first];
        while group.len() < limits::GROUP_PUSHES && bytes < limits::GROUP_BYTES {
            match jobs.try_recv() {
                Ok(Job::Push(push)) => {
                    bytes += push.bytes;
                    group.push(push);
                }
                Ok(job) => {
                    next = Some(job);
                    break;
                }
                Err(_) => break,
            }
        }
        queued.fetch_sub(bytes, Ordering::Relaxed);
        let (work, replies): (Vec<_>, Vec<_>) =
            group.into_iter().map(|push| ((push.log, push.entries), push.reply)).unzip();
        match commit(conn, work, &mut logs) {
            Ok(appended) => {
                replies.into_iter().zip(appended).for_each(|(reply, done)| _ = reply.send(Ok(done)))
            }
            Err(error) => {
                tracing::error!(code = error.code(), %error, "appending failed");
                // Heads in memory may be ahead of the file now.
                if !is_planted(Bug::HeadsKeptAfterFailure) {
                    logs.clear();
                }
                replies.into_iter().for_each(|reply| _ = reply.send(Err(error.clone())));
            }
        }
        if next.is_none() {
            next = jobs.recv().ok();
        }
    }
}

/// One transaction: all of it or nothing.
fn transact<T>(conn: &Connection, work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    if is_planted(Bug::AckBeforeCommit) && !conn.is_autocommit() {
        conn.prepare_cached("COMMIT")?.execute([])?;
    }
    conn.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
    let outcome = work().and_then(|done| match is_planted(Bug::AckBeforeCommit) {
        true => Ok(done),
        false => Ok(conn.prepare_cached("COMMIT")?.execute([]).map(|_| done)?),
    });
    if outcome.is_err() && !conn.is_autocommit() {
        // The error that led here is what the sessions are told.
        _ = conn.execute_batch("ROLLBACK");
    }
    outcome
}

fn commit(
    conn: &Connection,
    work: Vec<(LogId, Vec<Entry>)>,
    logs: &mut HashMap<LogId, Log>,
) -> Result<Vec<Appended>, StoreError> {
    transact(conn, || work.into_iter().map(|(log, entries)| append(conn, log, entries, logs)).collect())
}

fn append(
    conn: &Connection,
    id: LogId,
    entries: Vec<Entry>,
    logs: &mut HashMap<LogId, Log>,
) -> Result<Appended, StoreError> {
    let mut log = match logs.get(&id) {
        Some(log) => *log,
        None => find_or_create(conn, &id)?,
    };
    let before = log.head;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs() as i64);
    let mut outcomes = Vec::with_capacity(entries.len());
    let mut fresh = Vec::with_capacity(entries.len());
    for entry in entries {
        if let Err(error) = entry.check(id.space) {
            let why = match error {
                EntryError::WrongId => Rejection::WrongId,
                EntryError::TooLarge { .. } | EntryError::HeaderTooLarge => Rejection::TooLarge,
            };
            outcomes.push(Outcome::Rejected(why, error.to_string()));
            continue;
        }
        let seq = log.head.seq + 1;
        if let Some(known) = claim(conn, log.row, &entry, seq)? {
            outcomes.push(Outcome::Stored(known));
            continue;
        }
        log.head = log.head.next(entry.id);
        let sql = "INSERT INTO entry (id, entry, tag, document, device, kind, suite, payload, received_at)
                   VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)";
        conn.prepare_cached(sql)?.execute(params![
            row_base(log.row) + seq as i64,
            entry.id.as_bytes(),
            log.head.tag,
            entry.document.as_bytes(),
            entry.device.as_bytes(),
            entry.kind.to_bytes(),
            entry.suite,
            entry.payload,
            now
        ])?;
        match &entry.kind {
            Kind::Snapshot { supersedes, .. } => {
                let itself = is_planted(Bug::SweepTakesSnapshot) && !supersedes.is_empty();
                let snapshot = itself.then_some(&entry.id);
                for id in supersedes.iter().chain(snapshot) {
                    supersede(conn, log.row, &entry, id, seq, now)?;
                }
            }
            Kind::Erased => erase(conn, log.row, &entry, seq)?,
            Kind::Changes | Kind::Other(_) => {}
        }
        outcomes.push(Outcome::Stored(seq));
        fresh.push(entry);
    }
    let appended = (!fresh.is_empty()).then_some((before.seq + 1, log.head));
    if appended.is_some() {
        let sql = "UPDATE space SET head = ?, tag = ? WHERE id = ?";
        conn.prepare_cached(sql)?.execute(params![log.head.seq as i64, log.head.tag, log.row])?;
    }
    if logs.len() >= limits::REMEMBERED_LOGS {
        logs.clear();
    }
    logs.insert(id, log);
    Ok(Appended { outcome: AppendOutcome { outcomes, appended }, fresh })
}

/// Takes `seq` for an entry, unless the log holds the entry already; then its sequence number.
fn claim(conn: &Connection, log: i64, entry: &Entry, seq: u64) -> Result<Option<u64>, StoreError> {
    let known = find_entry(conn, log, entry.document, &entry.id)?;
    if known.is_some() && !is_planted(Bug::NoDuplicatesDropped) {
        return Ok(known);
    }
    let sql = "INSERT INTO entry_of (space, document, head, seq) VALUES (?, ?, ?, ?)";
    let place = params![log, entry.document.as_bytes(), id_head(&entry.id), seq as i64];
    conn.prepare_cached(sql)?.execute(place)?;
    Ok(None)
}

/// Sequence number of an entry, if the log holds it.
fn find_entry(
    conn: &Connection,
    log: i64,
    document: DocumentId,
    id: &EntryId,
) -> Result<Option<u64>, StoreError> {
    let sql = "SELECT seq FROM entry_of WHERE space = ? AND document = ? AND head = ?";
    let mut statement = conn.prepare_cached(sql)?;
    let mut found = statement.query(params![log, document.as_bytes(), id_head(id)])?;
    while let Some(row) = found.next()? {
        let seq: i64 = row.get(0)?;
        let sql = "SELECT entry = ? FROM entry WHERE id = ?";
        let is_it = params![id.as_bytes(), row_base(log) + seq];
        if conn.prepare_cached(sql)?.query_row(is_it, |row| row.get(0))? {
            return Ok(Some(seq as u64));
        }
    }
    Ok(None)
}

/// Notes that the changes of the entry `id` are in the snapshot that was stored as number `seq`.
fn supersede(
    conn: &Connection,
    log: i64,
    snapshot: &Entry,
    id: &EntryId,
    seq: u64,
    now: i64,
) -> Result<(), StoreError> {
    // An entry that has left already, or comes later, is not there to be superseded.
    let found = find_entry(conn, log, snapshot.document, id)?;
    let Some(old) = found.filter(|old| *old < seq || is_planted(Bug::SweepTakesSnapshot)) else {
        return Ok(());
    };
    let sql = "UPDATE entry_of SET superseded = 1
               WHERE space = ? AND document = ? AND head = ? AND seq = ? AND superseded = 0";
    let place = params![log, snapshot.document.as_bytes(), id_head(id), old as i64];
    if conn.prepare_cached(sql)?.execute(place)? > 0 {
        let sql = "INSERT INTO superseded (at, entry) VALUES (?, ?)";
        conn.prepare_cached(sql)?.execute([now, row_base(log) + old as i64])?;
    }
    Ok(())
}

/// Everything that the log holds of a document before `seq` leaves.
fn erase(conn: &Connection, log: i64, erasure: &Entry, seq: u64) -> Result<(), StoreError> {
    let sql = "SELECT seq FROM entry_of WHERE space = ? AND document = ? AND seq < ?";
    let mut statement = conn.prepare_cached(sql)?;
    let document = params![log, erasure.document.as_bytes(), seq as i64];
    let found: Vec<i64> =
        statement.query_map(document, |row| row.get(0))?.collect::<Result<_, rusqlite::Error>>()?;
    found.into_iter().try_for_each(|old| remove(conn, row_base(log) + old))
}

/// Removes what was superseded before `before`, at most [`limits::SWEPT_ENTRIES`].
fn sweep(conn: &Connection, before: i64) -> Result<usize, StoreError> {
    let sql = "SELECT at, entry FROM superseded WHERE at < ? ORDER BY at, entry LIMIT ?";
    let mut statement = conn.prepare_cached(sql)?;
    let rows =
        statement.query_map([before, limits::SWEPT_ENTRIES as i64], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let due: Vec<(i64, i64)> = rows.collect::<Result<_, _>>()?;
    if due.is_empty() {
        return Ok(0);
    }
    // Nobody else writes: it is the same inside.
    transact(conn, || {
        for (at, entry) in &due {
            remove(conn, *entry)?;
            conn.prepare_cached("DELETE FROM superseded WHERE at = ? AND entry = ?")?.execute([at, entry])?;
        }
        Ok(due.len())
    })
}

/// Takes an entry out of the log. Id and tag stay: whoever has read up to it goes on from there.
fn remove(conn: &Connection, row: i64) -> Result<(), StoreError> {
    let sql = "DELETE FROM entry_of WHERE (space, document, head, seq) =
                 (SELECT id >> 40, document, substr(entry, 1, 8), id & 0xffffffffff FROM entry WHERE id = ?)";
    conn.prepare_cached(sql)?.execute([row])?;
    let sql =
        "UPDATE entry SET document = x'', device = x'', kind = x'', suite = 0, payload = x'' WHERE id = ?";
    conn.prepare_cached(sql)?.execute([row])?;
    Ok(())
}

fn find_or_create(conn: &Connection, id: &LogId) -> Result<Log, StoreError> {
    let sql = "SELECT id, head, tag FROM space WHERE account = ? AND uuid = ?";
    let found = conn
        .prepare_cached(sql)?
        .query_row(params![id.account, id.space.as_bytes()], |row| {
            Ok((row.get(0)?, row.get::<_, i64>(1)?, row.get::<_, [u8; TAG_LEN]>(2)?))
        })
        .optional()?;
    if let Some((row, seq, tag)) = found {
        return Ok(Log { row, head: Position { seq: seq as u64, tag } });
    }
    let head = Position::start(id.space);
    let sql = "INSERT INTO space (account, uuid, tag) VALUES (?, ?, ?)";
    conn.prepare_cached(sql)?.execute(params![id.account, id.space.as_bytes(), head.tag])?;
    Ok(Log { row: conn.last_insert_rowid(), head })
}

fn size(entries: &[Entry]) -> usize {
    entries.iter().map(Entry::size).sum()
}

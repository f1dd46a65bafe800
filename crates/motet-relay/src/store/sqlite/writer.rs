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

use motet_proto::entry::EntryError;
use motet_proto::message::{Outcome, Rejection};
use motet_proto::planted::{Bug, is_planted};
use motet_proto::position::TAG_LEN;
use motet_proto::session::AppendOutcome;
use motet_proto::{Entry, Position};
use rusqlite::{Connection, OptionalExtension, params};
use tokio::sync::oneshot;

use super::row_base;
use crate::limits;
use crate::store::{Appended, LogId, StoreError};

/// Handle to the writer thread. Dropping it waits for queued pushes.
pub(super) struct Writer {
    queue: Option<Sender<Push>>,
    /// Bytes of entries that wait.
    queued: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
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
        _ = queue.send(push);
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

fn run(conn: &Connection, pushes: &Receiver<Push>, queued: &AtomicUsize) {
    let mut logs = HashMap::new();
    while let Ok(first) = pushes.recv() {
        let mut bytes = first.bytes;
        let mut group = vec![first];
        while group.len() < limits::GROUP_PUSHES
            && bytes < limits::GROUP_BYTES
            && let Ok(next) = pushes.try_recv()
        {
            bytes += next.bytes;
            group.push(next);
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
    }
}

fn commit(
    conn: &Connection,
    work: Vec<(LogId, Vec<Entry>)>,
    logs: &mut HashMap<LogId, Log>,
) -> Result<Vec<Appended>, StoreError> {
    if is_planted(Bug::AckBeforeCommit) && !conn.is_autocommit() {
        conn.prepare_cached("COMMIT")?.execute([])?;
    }
    conn.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
    let outcome = work
        .into_iter()
        .map(|(log, entries)| append(conn, log, entries, logs))
        .collect::<Result<Vec<_>, _>>()
        .and_then(|done| match is_planted(Bug::AckBeforeCommit) {
            true => Ok(done),
            false => Ok(conn.prepare_cached("COMMIT")?.execute([]).map(|_| done)?),
        });
    if outcome.is_err() && !conn.is_autocommit() {
        // The error that led here is what the sessions are told.
        _ = conn.execute_batch("ROLLBACK");
    }
    outcome
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
    let sql = match is_planted(Bug::NoDuplicatesDropped) {
        true => "INSERT OR REPLACE INTO entry_id (space, entry, seq) VALUES (?, ?, ?)",
        false => "INSERT INTO entry_id (space, entry, seq) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
    };
    if conn.prepare_cached(sql)?.execute(params![log, entry.id.as_bytes(), seq as i64])? > 0 {
        return Ok(None);
    }
    let sql = "SELECT seq FROM entry_id WHERE space = ? AND entry = ?";
    let known: i64 =
        conn.prepare_cached(sql)?.query_row(params![log, entry.id.as_bytes()], |row| row.get(0))?;
    Ok(Some(known as u64))
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

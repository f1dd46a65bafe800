//! What is done to logs, each call one transaction: appending, and letting go of what is superseded.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use motet_proto::Kind;
use motet_proto::message::{Outcome, Rejection};
use motet_proto::planted::{Bug, is_planted};
use motet_proto::session::AppendOutcome;
use motet_proto::{DocumentId, Entry, EntryId, Position};
use rusqlite::{Connection, OptionalExtension, params};

use super::left::{Left, supersede};
use super::shrink::Shrink;
use super::usage::Usage;
use super::{CAUSE_UNKNOWN, LAST_SEQ, LAST_SPACE, end, id_head, number, row_base};
use crate::config::Limits;
use crate::limits;
use crate::store::damage::Damage;
use crate::store::room::Room;
use crate::store::{Appended, LogId, StoreError, rejected};

/// The connection that writes.
pub(super) struct Logs {
    conn: Connection,
    /// Where logs end that were written to lately.
    ends: HashMap<LogId, Log>,
    /// What is left to be done for entries that change many others.
    left: Left,
    shrink: Shrink,
    usage: Usage,
    pub(super) limits: Limits,
    room: Arc<Room>,
    damage: Arc<Damage>,
}

/// A log's row and where it ends.
#[derive(Clone, Copy)]
struct Log {
    row: i64,
    head: Position,
}

impl Logs {
    pub(super) fn new(conn: Connection, room: Arc<Room>, damage: Arc<Damage>) -> Result<Self, StoreError> {
        let (left, shrink) = (Left::load(&conn, &damage), Shrink::new(&conn));
        let (usage, limits) = (Usage::new(damage.clone()), Limits::default());
        Ok(Self { conn, ends: HashMap::new(), left: left?, shrink, usage, limits, room, damage })
    }

    /// Appends to several logs. If it fails, nothing of it remains.
    pub(super) fn append(&mut self, work: Vec<(LogId, Vec<Entry>)>) -> Result<Vec<Appended>, StoreError> {
        let appended = self
            .begin()
            .and_then(|()| work.into_iter().map(|(log, entries)| self.append_to(log, entries)).collect());
        self.end(appended)
    }

    /// Begins a transaction, unless another process holds the file: then it would have to wait, and nothing is begun.
    pub(super) fn try_begin(&mut self) -> bool {
        let patience = |conn: &Connection, time| conn.busy_timeout(time).is_ok();
        let begun = patience(&self.conn, Duration::ZERO) && self.begin().is_ok();
        patience(&self.conn, limits::BUSY_TIMEOUT) && begun
    }

    /// Appends to one log, in the transaction that [`try_begin`](Self::try_begin) has begun. If it fails, nothing of it remains.
    pub(super) fn finish(&mut self, log: LogId, entries: Vec<Entry>) -> Result<Appended, StoreError> {
        let appended = self.append_to(log, entries);
        self.end(appended)
    }

    fn begin(&mut self) -> Result<(), StoreError> {
        if !self.conn.is_autocommit() {
            // A panic left a transaction open.
            let end = if is_planted(Bug::AckBeforeCommit) { "COMMIT" } else { "ROLLBACK" };
            self.conn.execute_batch(end)?;
            self.ends.clear();
            self.usage.forget();
            self.left = Left::load(&self.conn, &self.damage)?;
        }
        self.conn.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        Ok(())
    }

    /// Ends a transaction as its work has ended.
    fn end<T>(&mut self, done: Result<T, StoreError>) -> Result<T, StoreError> {
        let done = done.and_then(|done| match is_planted(Bug::AckBeforeCommit) {
            true => Ok(done),
            false => Ok(self.conn.prepare_cached("COMMIT")?.execute([]).map(|_| done)?),
        });
        if done.is_ok() {
            // It is committed; a count that cannot be looked up is a little too high.
            let freed = self.left.take_freed();
            if !freed.is_empty() {
                self.shrink.note();
            }
            _ = self.usage.settle(&self.conn, freed);
        }
        if let Err(error) = &done {
            self.damage.note_failure(&done);
            if matches!(error, StoreError::Full) {
                self.room.note_full();
            }
            tracing::error!(code = error.code(), %error, "a log cannot be written");
            if !self.conn.is_autocommit() {
                // The error that led here is what the sessions are told.
                _ = self.conn.execute_batch("ROLLBACK");
            }
            // Ends in memory may be ahead of the file now.
            if !is_planted(Bug::HeadsKeptAfterFailure) {
                self.ends.clear();
            }
            self.usage.forget();
            // If it cannot be read, what it names is not done before the next start, and hidden as before.
            if let Ok(left) = Left::load(&self.conn, &self.damage) {
                self.left = left;
            }
        }
        done
    }

    /// Removes what was superseded before `before`, at most [`limits::SWEPT_ENTRIES`].
    pub(super) fn sweep(&mut self, before: i64) -> Result<usize, StoreError> {
        if self.usage.is_unsaved() {
            let saved = self.begin().and_then(|()| self.usage.save(&self.conn));
            self.end(saved)?;
        }
        let due = superseded(&self.conn, before);
        if due.as_ref().is_ok_and(Vec::is_empty) {
            // What is not marked yet may be due then.
            let is_work_left = !self.left.is_empty();
            self.work_off()?;
            return Ok(usize::from(is_work_left));
        }
        // Nobody else writes: it is the same inside.
        let swept = self.begin().and(due).and_then(|due| {
            let (mut done, mut bytes) = (0, 0);
            for (at, entry) in due {
                bytes += self.let_go(at, entry, before)?;
                done += 1;
                if bytes >= limits::STEP_FREED_BYTES {
                    break;
                }
            }
            Ok(done)
        });
        self.end(swept)
    }

    /// Takes a part out of a log, from its end on, so that what is left is one that ends earlier; true if there is more.
    pub(super) fn remove(&mut self, log: &LogId) -> Result<bool, StoreError> {
        let removed = self.begin().and_then(|()| self.remove_part(log));
        let (is_more, documents) = self.end(removed)?;
        // As with bytes, a count that cannot be looked up is a little too high.
        _ = self.usage.free_documents(&self.conn, &log.account, documents);
        Ok(is_more)
    }

    /// Also returns of how many documents nothing is left.
    fn remove_part(&mut self, id: &LogId) -> Result<(bool, u64), StoreError> {
        let Self { conn, ends, left, usage, .. } = self;
        ends.remove(id);
        let sql = "SELECT id FROM space WHERE account = ? AND uuid = ?";
        let place = params![id.account, id.space.as_bytes()];
        let found = conn.prepare_cached(sql)?.query_row(place, |row| row.get(0)).optional()?;
        let Some(log) = found.map(number).transpose()? else { return Ok((false, 0)) };
        let (base, last) = (row_base(log), row_base(log) + LAST_SEQ as i64);
        let sql = "SELECT id, document FROM entry WHERE id > ? AND id <= ? ORDER BY id DESC LIMIT ?";
        let mut statement = conn.prepare_cached(sql)?;
        let rows = statement.query_map([base, last, limits::STEP_CHANGED as i64], |row| {
            // Of one that has left, or was damaged, the document is none.
            Ok((row.get(0)?, row.get(1).ok().map(DocumentId)))
        })?;
        let rows: Vec<(i64, Option<DocumentId>)> = rows.collect::<rusqlite::Result<_>>()?;
        let (mut bytes, mut documents) = (0, 0);
        for (row, document) in &rows {
            bytes += left.remove(conn, *row, CAUSE_UNKNOWN)?;
            conn.prepare_cached("DELETE FROM entry WHERE id = ?")?.execute([row])?;
            if let Some(document) = document {
                documents += u64::from(usage.is_new_document(conn, log, *document)?);
            }
            if bytes >= limits::STEP_FREED_BYTES {
                break;
            }
        }
        if !rows.is_empty() {
            // What has left is counted once it has, and by the row of its log.
            return Ok((true, documents));
        }
        conn.execute("DELETE FROM entry_of WHERE space = ?", [log])?;
        for table in ["erasing", "superseding", "superseded"] {
            conn.execute(&format!("DELETE FROM {table} WHERE entry > ? AND entry <= ?"), [base, last])?;
        }
        conn.execute("DELETE FROM space WHERE id = ?", [log])?;
        left.forget_log(log);
        // The name of the account may be on this page.
        left.is_in_log = true;
        if !conn.prepare_cached("SELECT 1 FROM space WHERE account = ?")?.exists([&id.account])? {
            usage.remove(conn, &id.account)?;
        }
        Ok((false, 0))
    }

    /// Lets go of an entry that table `superseded` names. What is not marked where its document is looked up as well stays, and what has
    /// come only after it is said to be superseded has its time from then on: a damaged row takes nothing away.
    fn let_go(&mut self, at: i64, entry: i64, before: i64) -> Result<usize, StoreError> {
        let conn = &self.conn;
        let sql = "DELETE FROM superseded WHERE at = ? AND entry = ?";
        conn.prepare_cached(sql)?.execute([at, entry])?;
        let sql = "SELECT received_at, superseded FROM entry JOIN entry_of
                     ON space = id >> 40 AND entry_of.document = entry.document AND head = substr(entry, 1, 8)
                     AND seq = id & 0xffffffffff
                   WHERE id = ? AND kind <> x'' AND typeof(superseded) = 'integer' AND superseded > 0";
        let read = |row: &rusqlite::Row<'_>| Ok((row.get(0).unwrap_or(at), row.get(1)?));
        let marked: Option<(i64, i64)> = conn.prepare_cached(sql)?.query_row([entry], read).optional()?;
        let put_off = |until: i64| {
            let sql = "INSERT OR IGNORE INTO superseded (at, entry) VALUES (?, ?)";
            conn.prepare_cached(sql)?.execute([until, entry])
        };
        match marked {
            // It still says what else it supersedes.
            Some(_) if self.left.is_superseding(entry) => _ = put_off(before)?,
            Some((came, _)) if came >= before => _ = put_off(came)?,
            // Before version 6 it was not noted because of which snapshot.
            Some((_, 1)) => return self.left.remove(conn, entry, CAUSE_UNKNOWN),
            Some((_, snapshot)) => return self.left.remove(conn, entry, snapshot),
            None => tracing::debug!(entry, "it has left already, or was never superseded"),
        }
        Ok(0)
    }

    /// Does one step of what is left to be done; true if there is more.
    pub(super) fn work_off(&mut self) -> Result<bool, StoreError> {
        if self.left.is_empty() {
            return Ok(false);
        }
        let worked = self.begin().and_then(|()| self.left.step(&self.conn));
        let worked = self.end(worked);
        if let Err(StoreError::Unusable(_)) = &worked {
            // It is damaged, and stays to be done until a repair: everything else goes on.
            self.left.put_off();
        }
        worked?;
        Ok(!self.left.is_empty())
    }

    /// Gives a part of the free pages back to the disk, if there are many. Returns how long others are to have the file before the next
    /// part, if there is more.
    pub(super) fn shrink(&mut self) -> Option<Duration> {
        if !self.left.is_empty() || self.shrink.due_in().is_none() {
            return None;
        }
        match self.shrink.is_worth_it(&self.conn) {
            Ok(true) => {
                let begun = self.begin();
                let step = begun.and_then(|()| Ok(self.shrink.step(&self.conn)?));
                if self.end(step).is_err() {
                    self.shrink.put_off();
                }
            }
            Ok(false) => {}
            Err(_) => self.shrink.put_off(),
        }
        // The file gets shorter only when all of SQLite's log goes into it.
        self.left.is_in_log |= self.shrink.is_done();
        self.shrink.due_in()
    }

    /// How long others have the file before [`shrink`](Self::shrink) is due; `None` if it is not.
    pub(super) fn shrinks_in(&self) -> Option<Duration> {
        self.shrink.due_in()
    }

    /// Once all of it has left: SQLite's log is emptied, in which it still stands. If somebody is just reading it, that is tried again.
    pub(super) fn empty_log(&mut self) {
        if !self.left.is_in_log || !self.left.is_empty() || !self.conn.is_autocommit() {
            return;
        }
        _ = self.conn.busy_timeout(Duration::ZERO);
        let emptied = self.conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0));
        self.left.is_in_log = emptied != Ok(0);
        _ = self.conn.busy_timeout(limits::BUSY_TIMEOUT);
    }

    /// Whether the file could be written to.
    pub(super) fn probe(&mut self) -> Result<(), StoreError> {
        let begun = self.begin();
        self.end(begun)
    }

    fn append_to(&mut self, id: LogId, entries: Vec<Entry>) -> Result<Appended, StoreError> {
        let Self { conn, ends, left, usage, limits: allowed, .. } = self;
        let mut log = match ends.get(&id) {
            Some(log) => *log,
            None => match find_or_create(conn, &id, allowed)? {
                Ok(log) => log,
                Err(limit) => return Ok(Appended::refused(limit)),
            },
        };
        let before = log.head;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs() as i64);
        let mut outcomes = Vec::with_capacity(entries.len());
        let mut fresh = Vec::with_capacity(entries.len());
        let mut misses = 0;
        let mut failed = None;
        for entry in entries {
            if let Err(error) = entry.check(id.space) {
                outcomes.push(rejected(&error));
                continue;
            }
            let seq = log.head.seq + 1;
            let known = find_entry(conn, left, log.row, entry.document, &entry.id)?;
            if let Some(known) = known.filter(|_| !is_planted(Bug::NoDuplicatesDropped)) {
                outcomes.push(Outcome::Stored(known));
                continue;
            }
            if is_outdated(conn, left, log.row, &entry, &mut misses)? {
                let why = "nothing of what it supersedes is in the log any more".into();
                outcomes.push(Outcome::Rejected(Rejection::Outdated, why));
                continue;
            }
            let is_new = usage.is_new_document(conn, log.row, entry.document)?;
            if let Err(error) = usage.check(conn, &id.account, &entry, is_new, allowed)? {
                failed = Some(error);
                break;
            }
            if seq > LAST_SEQ {
                failed = Some(StoreError::Limit("this space has as many entries as a space can have".into()));
                break;
            }
            log.head = log.head.next(entry.id);
            let sql =
                "INSERT INTO entry (id, entry, tag, document, device, kind, suite, payload, received_at)
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
            let sql = "INSERT INTO entry_of (space, document, head, seq) VALUES (?, ?, ?, ?)";
            let place = params![log.row, entry.document.as_bytes(), id_head(&entry.id), seq as i64];
            conn.prepare_cached(sql)?.execute(place)?;
            match &entry.kind {
                Kind::Snapshot { supersedes, .. } => {
                    let itself = is_planted(Bug::SweepTakesSnapshot) && !supersedes.is_empty();
                    let snapshot = itself.then_some(&entry.id);
                    let place = row_base(log.row) + seq as i64;
                    for id in supersedes.iter().take(limits::STEP_CHANGED).chain(snapshot) {
                        supersede(conn, left, place, entry.document, id, now)?;
                    }
                    left.note_superseding(conn, place, supersedes.len())?;
                }
                Kind::Erased => left.erase(conn, row_base(log.row) + seq as i64, entry.document)?,
                Kind::Changes | Kind::Other(_) => {}
            }
            usage.add(&id.account, &entry, is_new);
            outcomes.push(Outcome::Stored(seq));
            fresh.push(entry);
        }
        let appended = (!fresh.is_empty()).then_some((before.seq + 1, log.head));
        if ends.len() >= limits::REMEMBERED_LOGS {
            ends.clear();
        }
        ends.insert(id, log);
        Ok(Appended { outcome: AppendOutcome { outcomes, appended }, fresh, failed })
    }
}

/// Whether an entry is a snapshot of which everything that it supersedes has left the log. It was made before that, and would bring
/// back what somebody had erased. Who names many entries that are not there is not looked at for ever: `misses` counts them over a
/// step.
fn is_outdated(
    conn: &Connection,
    left: &Left,
    log: i64,
    entry: &Entry,
    misses: &mut usize,
) -> Result<bool, StoreError> {
    let Kind::Snapshot { supersedes, .. } = &entry.kind else { return Ok(false) };
    for id in supersedes {
        if find_entry(conn, left, log, entry.document, id)?.is_some() {
            return Ok(false);
        }
        *misses += 1;
        if *misses > limits::STEP_NAMED {
            break;
        }
    }
    Ok(!supersedes.is_empty())
}

/// Sequence number of an entry, if the log holds it.
pub(super) fn find_entry(
    conn: &Connection,
    left: &Left,
    log: i64,
    document: DocumentId,
    id: &EntryId,
) -> Result<Option<u64>, StoreError> {
    let sql = "SELECT seq FROM entry_of WHERE space = ? AND document = ? AND head = ?";
    let mut statement = conn.prepare_cached(sql)?;
    let mut found = statement.query(params![log, document.as_bytes(), id_head(id)])?;
    while let Some(row) = found.next()? {
        // A row that names nothing is no reason not to take the entry.
        let Ok(seq) = row.get::<_, i64>(0) else { continue };
        if left.is_erased(row_base(log).saturating_add(seq), document) {
            continue;
        }
        // Of one that was emptied by damage nothing is here.
        let sql = "SELECT 1 FROM entry WHERE entry = ? AND id = ? AND kind <> x''";
        if conn.prepare_cached(sql)?.exists(params![id.as_bytes(), row_base(log).saturating_add(seq)])? {
            return Ok(Some(seq as u64));
        }
    }
    Ok(None)
}

/// What was superseded before `before`, at most [`limits::SWEPT_ENTRIES`]: since when, and the entry's row.
fn superseded(conn: &Connection, before: i64) -> Result<Vec<(i64, i64)>, StoreError> {
    let sql = "SELECT at, entry FROM superseded WHERE at < ? AND typeof(at) = 'integer' AND typeof(entry) = 'integer'
               ORDER BY at, entry LIMIT ?";
    let mut statement = conn.prepare_cached(sql)?;
    let rows =
        statement.query_map([before, limits::SWEPT_ENTRIES as i64], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The log of an id; the limit that it would break, if there is none yet.
fn find_or_create(
    conn: &Connection,
    id: &LogId,
    allowed: &Limits,
) -> Result<Result<Log, StoreError>, StoreError> {
    let sql = "SELECT id FROM space WHERE account = ? AND uuid = ?";
    let place = params![id.account, id.space.as_bytes()];
    let found = conn.prepare_cached(sql)?.query_row(place, |row| row.get(0)).optional()?;
    if let Some(row) = found {
        let row = number(row)?;
        return Ok(Ok(Log { row, head: end(conn, row, id.space)? }));
    }
    // The last row is found at once, those of an account are counted: there are not many.
    let count = |sql: &str, place: &[&dyn rusqlite::ToSql]| -> Result<i64, StoreError> {
        Ok(conn.prepare_cached(sql)?.query_row(place, |row| row.get(0))?)
    };
    let last = count("SELECT COALESCE(MAX(id), 0) FROM space", &[])?;
    // Logs that were removed leave numbers behind, so that only where there were as many as that they have to be counted.
    let most = i64::try_from(allowed.spaces).unwrap_or(i64::MAX);
    if last >= LAST_SPACE || (last >= most && count("SELECT COUNT(*) FROM space", &[])? >= most) {
        return Ok(Err(StoreError::Limit("the relay has as many spaces as it may have".into())));
    }
    let own = count("SELECT COUNT(*) FROM space WHERE account = ?", &[&id.account])?;
    if own.unsigned_abs() >= allowed.spaces_per_account {
        return Ok(Err(StoreError::Limit(format!("this account has {own} spaces, and may have no more"))));
    }
    conn.prepare_cached("INSERT INTO space (account, uuid) VALUES (?, ?)")?.execute(place)?;
    Ok(Ok(Log { row: conn.last_insert_rowid(), head: Position::start(id.space) }))
}

impl Drop for Logs {
    fn drop(&mut self) {
        if self.usage.is_unsaved() {
            // What is lost is a count that is a little too low.
            let saved = self.begin().and_then(|()| self.usage.save(&self.conn));
            _ = self.end(saved);
        }
    }
}

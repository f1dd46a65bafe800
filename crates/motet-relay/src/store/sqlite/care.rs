//! Looking after the relay's file: is each log what it was, and if not, making a log of what is left of it.
//!
//! A log is a chain: the tag of each entry is a hash over all entries before it. Up to its first damaged entry a log stays as it is. What
//! can be read behind that is chained anew, so every device that had read on from there is refused its position, compares everything
//! and sends what the log lacks.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::{Path, PathBuf};

use motet_proto::position::TAG_LEN;
use motet_proto::{DeviceId, DocumentId, Entry, EntryId, Kind, Position, SpaceId};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags, Row, params};

use super::{SqliteStore, id_head, migrate, row_base};
use crate::limits;
use crate::store::StoreError;
use crate::store::folder::Folder;

/// What was found in the file of a relay, or done to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CareReport {
    /// Logs that were looked at.
    pub logs: u64,
    /// Entries that are what they were.
    pub entries: u64,
    /// What is not as it should be, each with the account that it is about, if that is known.
    pub problems: Vec<String>,
    /// Where the damaged file was put, after a repair.
    pub put_aside: Option<PathBuf>,
}

/// An entry of a log as its row has it; what has left the log has only an id.
struct Stored {
    id: EntryId,
    tag: [u8; TAG_LEN],
    received_at: i64,
    /// `None` if it has left the log.
    entry: Option<Entry>,
}

/// A log with what can be read of it.
struct FoundLog {
    row: i64,
    account: String,
    space: SpaceId,
    /// By sequence number.
    rows: BTreeMap<u64, Stored>,
    /// How many of the first numbers are a sound chain.
    sound: u64,
    problems: Vec<String>,
}

/// Looks at all logs of a data folder that no relay uses.
///
/// # Errors
/// [`StoreError::InUse`] while a relay runs; [`StoreError::Unusable`] if the file is no relay's.
pub fn verify(data: &Path) -> Result<CareReport, StoreError> {
    let folder = Folder::take(data)?;
    let conn = open(&folder.database())?;
    let mut report = CareReport { problems: integrity(&conn), ..CareReport::default() };
    let logs = find_logs(&conn, &mut report.problems);
    for log in &logs {
        report.logs += 1;
        report.entries += log.rows.values().filter(|stored| stored.entry.is_some()).count() as u64;
        report.problems.extend(log.problems.iter().cloned());
    }
    if report.problems.is_empty() {
        report.problems = unlisted(&conn, &logs);
    }
    Ok(report)
}

/// Writes a damaged file anew from what can be read of it, and puts the old one aside. A sound file is left as it is.
///
/// # Errors
/// As [`verify`]; [`StoreError::Full`] if there is no room for a second file. The file is as it was then.
pub fn repair(data: &Path) -> Result<CareReport, StoreError> {
    let mut report = verify(data)?;
    if report.problems.is_empty() {
        return Ok(report);
    }
    let folder = Folder::take(data)?;
    let old = open(&folder.database())?;
    let path = folder.path().join("relay.repaired.db");
    remove(&path);
    let written = write_anew(&old, &path);
    // The log of the old file goes into it now.
    drop(old);
    let written = written.and_then(|entries| {
        let io = |error: std::io::Error| StoreError::Failed(error.to_string());
        let aside = folder.path().join("relay.damaged.db");
        remove(&aside);
        for end in ["", "-wal", "-shm"] {
            let (from, to) = (with(&folder.database(), end), with(&aside, end));
            if from.exists() {
                std::fs::rename(from, to).map_err(io)?;
            }
        }
        std::fs::rename(&path, folder.database()).map_err(io)?;
        report.entries = entries;
        report.put_aside = Some(aside);
        Ok(())
    });
    remove(&path);
    written?;
    drop(folder);
    // It is opened once, so that it is known to be one that can be.
    SqliteStore::open(data).map(|_| report)
}

fn open(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    let pragma = |name| conn.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, i64>(0));
    let is_ours = pragma("application_id")? == super::APPLICATION_ID;
    if !is_ours || pragma("user_version")? != super::MIGRATIONS.len() as i64 {
        return Err(StoreError::Unusable("relay.db is of another version, or of another application".into()));
    }
    Ok(conn)
}

fn integrity(conn: &Connection) -> Vec<String> {
    let lines = || -> rusqlite::Result<Vec<String>> {
        conn.prepare("PRAGMA integrity_check")?.query_map([], |row| row.get(0))?.collect()
    };
    match lines() {
        Ok(lines) => lines.into_iter().filter(|line| line != "ok").collect(),
        Err(error) => vec![error.to_string()],
    }
}

/// All logs, with what can be read of each.
fn find_logs(conn: &Connection, problems: &mut Vec<String>) -> Vec<FoundLog> {
    let mut spaces = Vec::new();
    let mut take = |row: &Row<'_>| -> rusqlite::Result<i64> {
        let id = row.get(0)?;
        if let (Ok(account), Ok(space)) = (row.get::<_, String>(1), row.get(2)) {
            spaces.push((id, account, SpaceId(space)));
        }
        Ok(id)
    };
    if !read_rows(conn, "SELECT id, account, uuid FROM space", (0, i64::MAX), &mut take) {
        problems.push("some logs cannot be found any more".into());
    }
    spaces.sort_unstable_by_key(|(id, ..)| *id);
    spaces.dedup_by_key(|(id, ..)| *id);
    spaces.into_iter().map(|(row, account, space)| FoundLog::read(conn, row, account, space)).collect()
}

impl FoundLog {
    fn read(conn: &Connection, row: i64, account: String, space: SpaceId) -> Self {
        let (mut rows, mut problems) = (BTreeMap::new(), Vec::new());
        let base = row_base(row);
        let mut take = |found: &Row<'_>| -> rusqlite::Result<i64> {
            let id: i64 = found.get(0)?;
            if let Some(stored) = stored(found) {
                rows.insert((id - base) as u64, stored);
            }
            Ok(id)
        };
        let sql = "SELECT id, entry, tag, document, device, kind, suite, payload, received_at FROM entry";
        if !read_rows(conn, sql, (base, row_base(row + 1)), &mut take) {
            problems.push(format!("a part of the log of {account} cannot be read"));
        }
        let mut log = Self { row, account, space, rows, sound: 0, problems };
        log.judge();
        log
    }

    /// Finds out where the chain breaks, and takes out what is not what it was.
    fn judge(&mut self) {
        let mut head = Position::start(self.space);
        for (seq, stored) in &self.rows {
            let next = head.next(stored.id);
            let is_entry = stored.entry.as_ref().is_none_or(|entry| entry.check(self.space).is_ok());
            if *seq != head.seq + 1 || next.tag != stored.tag || !is_entry {
                break;
            }
            head = next;
        }
        self.sound = head.seq;
        let (space, before) = (self.space, self.rows.len());
        if self.rows.last_key_value().is_none_or(|(last, _)| *last <= self.sound) {
            return;
        }
        let sound = self.sound;
        self.rows.retain(|seq, stored| {
            // Behind the break the place of what has left tells nothing any more.
            *seq <= sound || stored.entry.as_ref().is_some_and(|entry| entry.check(space).is_ok())
        });
        self.problems.push(format!(
            "the log of {} is damaged behind its first {} entries; {} of {before} can be read",
            self.account,
            self.sound,
            self.rows.len()
        ));
    }

    /// What was erased of each document: everything before this number.
    fn erased(&self) -> HashMap<DocumentId, u64> {
        let erasures = self.rows.iter().filter_map(|(seq, stored)| {
            let entry = stored.entry.as_ref().filter(|entry| entry.kind == Kind::Erased)?;
            Some((entry.document, *seq))
        });
        erasures.collect()
    }

    /// Writes the log into another file.
    fn write(&self, old: &Connection, new: &Connection) -> Result<u64, StoreError> {
        new.execute(
            "INSERT INTO space (id, account, uuid) VALUES (?, ?, ?)",
            params![self.row, self.account, self.space.as_bytes()],
        )?;
        let erased = self.erased();
        let (mut head, mut entries) = (Position::start(self.space), 0);
        for (seq, stored) in &self.rows {
            let is_erased = |entry: &&Entry| erased.get(&entry.document).is_some_and(|last| seq < last);
            let entry = stored.entry.as_ref().filter(|entry| !is_erased(entry));
            if entry.is_none() && *seq > self.sound {
                continue;
            }
            // Without what was lost the chain is another one: no position that covers it is good any more.
            head = head.next(stored.id);
            write_entry(new, row_base(self.row) + head.seq as i64, stored, head.tag, entry)?;
            if let Some(entry) = entry {
                entries += 1;
                let superseded = if *seq <= self.sound {
                    superseded_at(old, row_base(self.row) + *seq as i64)
                } else {
                    None
                };
                let sql =
                    "INSERT INTO entry_of (space, document, head, seq, superseded) VALUES (?, ?, ?, ?, ?)";
                let seq = head.seq as i64;
                let place = params![
                    self.row,
                    entry.document.as_bytes(),
                    id_head(&entry.id),
                    seq,
                    superseded.is_some()
                ];
                new.prepare_cached(sql)?.execute(place)?;
                if let Some(at) = superseded {
                    let sql = "INSERT INTO superseded (at, entry) VALUES (?, ?)";
                    new.prepare_cached(sql)?.execute(params![at, row_base(self.row) + seq])?;
                }
            }
        }
        Ok(entries)
    }
}

fn write_anew(old: &Connection, path: &Path) -> Result<u64, StoreError> {
    let mut new = Connection::open(path)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let private = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(path, private).map_err(|e| StoreError::Failed(e.to_string()))?;
    }
    // Devices know the logs by it. If it is lost, they compare everything, as with logs that they have not met.
    migrate(&mut new, super::id(old).ok())?;
    let tx = new.transaction()?;
    let mut entries = 0;
    for log in find_logs(old, &mut Vec::new()) {
        entries += log.write(old, &tx)?;
    }
    tx.execute_batch(
        "INSERT INTO usage (account, bytes, documents)
           SELECT account, SUM(length(payload) + length(kind) + 100), COUNT(DISTINCT entry.document)
           FROM space JOIN entry ON entry.id >> 40 = space.id WHERE kind <> x'' GROUP BY account;",
    )?;
    tx.commit()?;
    new.close().map_err(|(_, error)| error)?;
    std::fs::File::open(path)
        .and_then(|file| file.sync_all())
        .map_err(|e| StoreError::Failed(e.to_string()))?;
    Ok(entries)
}

fn write_entry(
    new: &Connection,
    row: i64,
    stored: &Stored,
    tag: [u8; TAG_LEN],
    entry: Option<&Entry>,
) -> Result<(), StoreError> {
    let sql = "INSERT INTO entry (id, entry, tag, document, device, kind, suite, payload, received_at)
               VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)";
    let mut statement = new.prepare_cached(sql)?;
    let (id, at) = (stored.id.as_bytes(), stored.received_at);
    let none: &[u8] = &[];
    match entry {
        Some(entry) => statement.execute(params![
            row,
            id,
            tag,
            entry.document.as_bytes(),
            entry.device.as_bytes(),
            entry.kind.to_bytes(),
            entry.suite,
            entry.payload,
            at
        ])?,
        None => statement.execute(params![row, id, tag, none, none, none, 0, none, at])?,
    };
    Ok(())
}

/// Since when an entry is superseded.
fn superseded_at(old: &Connection, row: i64) -> Option<i64> {
    let sql = "SELECT at FROM superseded WHERE entry = ? LIMIT 1";
    old.prepare_cached(sql).and_then(|mut found| found.query_row([row], |row| row.get(0))).ok()
}

/// Entries that cannot be found by their document, although they are there.
fn unlisted(conn: &Connection, logs: &[FoundLog]) -> Vec<String> {
    let sql = "SELECT 1 FROM entry_of WHERE space = ? AND document = ? AND head = ? AND seq = ?";
    let Ok(mut statement) = conn.prepare(sql) else { return vec!["entries cannot be looked up".into()] };
    let mut problems = Vec::new();
    for log in logs {
        let live = log.rows.iter().filter_map(|(seq, stored)| Some((*seq, stored.entry.as_ref()?)));
        let missing = live.filter(|(seq, entry)| {
            let place = params![log.row, entry.document.as_bytes(), id_head(&entry.id), *seq as i64];
            !statement.exists(place).unwrap_or(false)
        });
        let missing = missing.count();
        if missing > 0 {
            problems.push(format!("{missing} entries of {} cannot be found by their document", log.account));
        }
    }
    problems
}

fn stored(row: &Row<'_>) -> Option<Stored> {
    let (id, tag) = (EntryId(row.get(1).ok()?), row.get(2).ok()?);
    let received_at = row.get(8).unwrap_or_default();
    let kind = row.get_ref(5).ok().filter(|kind| matches!(kind, ValueRef::Blob(_)))?.as_blob().ok()?;
    if kind.is_empty() {
        return Some(Stored { id, tag, received_at, entry: None });
    }
    let entry = Entry {
        id,
        document: DocumentId(row.get(3).ok()?),
        device: DeviceId(row.get(4).ok()?),
        kind: Kind::from_bytes(kind)?,
        suite: row.get(6).ok()?,
        payload: row.get(7).ok()?,
    };
    Some(Stored { id, tag, received_at, entry: Some(entry) })
}

/// Reads the rows of a table between two ids, from both ends if some cannot be read, and then what lies between damaged pages. Says
/// whether that were all.
fn read_rows(
    conn: &Connection,
    select: &str,
    (low, high): (i64, i64),
    take: &mut dyn FnMut(&Row<'_>) -> rusqlite::Result<i64>,
) -> bool {
    let mut run = |low: i64, high: i64, direction: &str| -> (Option<i64>, bool) {
        let mut reached = None;
        let sql = format!("{select} WHERE id > ? AND id < ? ORDER BY id {direction}");
        let Ok(mut statement) = conn.prepare(&sql) else { return (None, false) };
        let Ok(mut rows) = statement.query([low, high]) else { return (None, false) };
        loop {
            match rows.next() {
                Ok(Some(row)) => reached = take(row).ok().or(reached),
                Ok(None) => return (reached, true),
                Err(_) => return (reached, false),
            }
        }
    };
    let (first, is_whole) = run(low, high, "ASC");
    if is_whole {
        return true;
    }
    let (last, _) = run(low, high, "DESC");
    let mut gaps = VecDeque::from([(first.unwrap_or(low), last.unwrap_or(high))]);
    for _ in 0..limits::SALVAGE_PROBES {
        let Some((low, high)) = gaps.pop_front() else { break };
        if high.saturating_sub(low) <= 1 {
            continue;
        }
        let middle = low + (high - low) / 2;
        let (last, is_whole) = run(middle - 1, high, "ASC");
        if !is_whole {
            gaps.push_back((last.unwrap_or(middle - 1).max(low), high));
        }
        let (first, is_whole) = run(low, middle, "DESC");
        if !is_whole {
            gaps.push_back((low, first.unwrap_or(middle)));
        }
    }
    false
}

fn with(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    PathBuf::from(name)
}

fn remove(path: &Path) {
    ["", "-journal", "-wal", "-shm"].iter().for_each(|end| _ = std::fs::remove_file(with(path, end)));
}

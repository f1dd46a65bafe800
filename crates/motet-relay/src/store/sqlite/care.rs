//! Looking after the relay's file: is everything in it what it was, and if not, making a file of what is left of it.
//!
//! What the logs are made of is entries, and an entry's id is a hash of it: what is sound can be told from what is not, wherever it
//! stands. Everything else in the file follows from the entries, or is only known to the file itself (who has which log).

mod backup;
mod columns;
mod erased;
mod file;
mod log;
mod row;
mod scan;
mod side;
mod spaces;

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rusqlite::Connection;

use super::{LAST_SPACE, SqliteStore, id, migrate, shrink};
use crate::store::StoreError;
use crate::store::folder::Folder;
pub use backup::{RestoreReport, RestoredAccounts, backup, restore};
use file::Cut;
use log::FoundLog;
use side::Side;
use spaces::Home;

/// What was found in the file of a relay, or done to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CareReport {
    /// Logs that were looked at.
    pub logs: u64,
    /// Entries that are what they were, or can be made so.
    pub entries: u64,
    /// What is not as it should be, each with the account that it is about, if that is known.
    pub problems: Vec<String>,
    /// Where the damaged file was put, after a repair.
    pub put_aside: Option<PathBuf>,
    /// A sound file of an earlier version, which never got smaller, was written anew: its bytes before and after.
    pub compacted: Option<(u64, u64)>,
}

/// Looks at all logs of a data folder that no relay uses, and at what is kept beside them. A file that was cut off is told to be so, and
/// not looked into.
///
/// # Errors
/// [`StoreError::InUse`] while a relay runs; [`StoreError::Unusable`] if the file is no relay's, or nothing of it can be read.
pub fn verify(data: &Path) -> Result<CareReport, StoreError> {
    let folder = Folder::take_of_relay(data)?;
    match file::cut_off(&folder.database())? {
        Some(cut) => Ok(CareReport { problems: vec![cut.tell()], ..CareReport::default() }),
        None => {
            let mut report = look(&folder.database())?;
            report.problems.extend(backup::fault_of_accounts(data));
            Ok(report)
        }
    }
}

/// Writes a damaged file anew from what can be read of it, and puts the old one aside. A sound file is left as it is, unless it is one that
/// cannot become smaller: it is written anew as well.
///
/// # Errors
/// As [`verify`]; [`StoreError::Full`] if there is no room for a second file. The file is as it was then.
pub fn repair(data: &Path) -> Result<CareReport, StoreError> {
    let folder = Folder::take_of_relay(data)?;
    let cut = file::cut_off(&folder.database())?;
    if let Some(cut) = cut {
        cut.fill_up(&folder.database())?;
    }
    let repaired = repair_file(&folder, cut);
    if let (Err(_), Some(cut)) = (&repaired, cut) {
        cut.cut_again(&folder.database())?;
    }
    let report = repaired?;
    drop(folder);
    // It is opened once, so that it is known to be one that can be.
    SqliteStore::open(data).map(|_| report)
}

fn repair_file(folder: &Folder, cut: Option<Cut>) -> Result<CareReport, StoreError> {
    let mut report = look(&folder.database())?;
    report.problems.splice(0..0, cut.map(Cut::tell));
    if report.problems.is_empty() {
        report.compacted = compact(folder)?;
        return Ok(report);
    }
    let (new, aside) = (folder.path().join("relay.repaired.db"), folder.path().join("relay.damaged.db"));
    file::remove(&new);
    // The log of the old file goes into it when it is closed.
    let written = file::open(&folder.database()).and_then(|old| write_anew(&old, &new)).and_then(|entries| {
        file::remove(&aside);
        file::rename(&folder.database(), &aside)?;
        file::rename(&new, &folder.database())?;
        Ok(entries)
    });
    file::remove(&new);
    report.entries = written?;
    report.put_aside = Some(aside);
    Ok(report)
}

/// Writes a sound file anew as one that can shrink. Returns its bytes before and after, if it is not one already.
fn compact(folder: &Folder) -> Result<Option<(u64, u64)>, StoreError> {
    let (database, new) = (folder.database(), folder.path().join("relay.repaired.db"));
    let old = file::open(&database)?;
    if shrink::is_prepared(&old)? {
        return Ok(None);
    }
    let bytes = |path: &Path| std::fs::metadata(path).map_or(0, |file| file.len());
    let before = bytes(&database);
    file::remove(&new);
    let write = || -> Result<u64, StoreError> {
        // Made first, so that nobody else ever reads it.
        file::create_private(&new)?;
        shrink::prepare(&old)?;
        old.execute("VACUUM INTO ?", [new.to_string_lossy()])?;
        file::sync(&new)?;
        // Its log goes into the old file, and must not be taken for one of the new.
        old.query_row("PRAGMA journal_mode = DELETE", [], |_| Ok(()))?;
        let after = bytes(&new);
        file::rename(&new, &database)?;
        Ok(after)
    };
    let written = write();
    file::remove(&new);
    Ok(Some((before, written?)))
}

fn look(database: &Path) -> Result<CareReport, StoreError> {
    let conn = file::open(database)?;
    let mut report = CareReport { problems: integrity(&conn), ..CareReport::default() };
    report.problems.extend(columns::odd_values(&conn));
    let missing = columns::missing_tables(&conn).into_iter();
    report.problems.extend(missing.map(|table| format!("table {table} is gone")));
    report.problems.extend(side::check_relay(&conn));
    let now = now();
    let mut side = Side::load(&conn).map_err(|error| error.to_string());
    for home in spaces::homes(&conn, &mut report.problems) {
        let log = read(&conn, &home, now);
        report.logs += 1;
        report.entries += log.entries().count() as u64;
        let is_sound = log.problems.is_empty() && home.rows.len() == 1;
        match &mut side {
            Ok(side) if is_sound => match side.check(&conn, home.rows[0], &log) {
                Ok(problems) => report.problems.extend(problems),
                Err(error) => {
                    report.problems.push(format!("what is beside the log of {}: {error}", home.account))
                }
            },
            _ => report.problems.extend(log.problems),
        }
    }
    // Where something is damaged already, what does not fit it tells nothing new.
    if report.problems.is_empty() {
        match side.and_then(|side| side.rest(&conn).map_err(|error| error.to_string())) {
            Ok(problems) => report.problems.extend(problems),
            Err(error) => report.problems.push(format!("what is beside the logs cannot be read: {error}")),
        }
    }
    Ok(report)
}

/// A table without which a relay would take pushes that it cannot store, or forget what it has.
pub(super) fn unusable_table(conn: &Connection) -> Option<&'static str> {
    columns::unusable_table(conn)
}

/// The number of a log that has entries and no row.
pub(super) fn log_without_row(conn: &Connection) -> Option<i64> {
    spaces::without_row(conn)
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

fn read(conn: &Connection, home: &Home, now: i64) -> FoundLog {
    let mut parts = home.rows.iter().map(|row| FoundLog::read(conn, *row, &home.account, home.space, now));
    // There is always a first one.
    let mut log = parts.next().unwrap_or_else(|| FoundLog::read(conn, 0, &home.account, home.space, now));
    parts.for_each(|part| log.absorb(part));
    log
}

fn write_anew(old: &Connection, path: &Path) -> Result<u64, StoreError> {
    let mut new = Connection::open(path)?;
    file::keep_private(path)?;
    shrink::prepare(&new)?;
    // Devices know the logs by it. If it is lost, they compare everything, as with logs that they have not met.
    migrate(&mut new, id(old).ok())?;
    let tx = new.transaction()?;
    let mut counts = Side::default();
    let homes = spaces::homes(old, &mut Vec::new());
    let mut last = homes.iter().filter_map(Home::number).max().unwrap_or(0);
    for home in homes {
        let number = home.number().unwrap_or(last + 1);
        last = last.max(number);
        if number <= LAST_SPACE {
            let mut log = read(old, &home, now());
            log.erase();
            log.write(&tx, number)?;
            counts.count(&log);
        }
    }
    side::write_usage(old, &tx, &counts)?;
    tx.commit()?;
    new.close().map_err(|(_, error)| error)?;
    file::sync(path)?;
    Ok(counts.entries())
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs() as i64)
}

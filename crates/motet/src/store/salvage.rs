//! A database file of which pages are damaged: all rows that can still be read go into a new one, which takes its place. What SQLite does not
//! find is looked for in the pages themselves.

mod aside;
mod cells;
mod log;
mod pages;
mod scan;
mod shapes;

use std::collections::{HashSet, VecDeque};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use rusqlite::backup::{Backup, StepResult};
use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};

use super::backup::{columns, tables};
use super::connection::{check_format, empty_log, log_of, migrate, open_reader};
use super::finding::identifier;
use super::{Result, StorageError, Tx, busy, space};
use crate::limits;
use aside::without_log;
pub(crate) use aside::{Aside, remove_aside};
use pages::{HEADER_BYTES, Pages};
use scan::Scan;

/// Writes a damaged file anew from what can be read of it, in its place: others that have it open go on with the new content. Every
/// remote is read again with the next session. With `is_kept` the damaged file stays beside it, and where is returned.
///
/// # Errors
/// [`StorageError::Damaged`] if nothing can be read, [`StorageError::DiskFull`] if there is no room for the copies; the file is as it was then.
pub(crate) fn salvage(path: &Path, is_kept: bool) -> Result<Option<PathBuf>> {
    // While it is open nobody else is the last to close the file: SQLite would remove a log then, also one that it cannot read.
    let _open = match open_to_read(path) {
        Err(StorageError::Damaged(_) | StorageError::Sqlite(_)) if is_log_to_blame(path) => {
            return Err(refused(path, &Aside::of(path)?, is_kept));
        }
        open => open?,
    };
    for _ in 0..limits::SALVAGE_ATTEMPTS {
        // Nobody must have written since it was read, or that would be lost.
        let watch = open_reader(path)?;
        let before = data_version(&watch)?;
        let aside = Aside::of(path)?;
        let partial = aside::private(path)?;
        let mut salvaged = Connection::open(&partial.path)?;
        salvaged.pragma_update(None, "secure_delete", true)?;
        salvaged.execute_batch(
            "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA foreign_keys = OFF",
        )?;
        let pages = Pages::open(&aside.main.path, &aside.log.path).map_err(failed)?;
        if let Some(pages) = &pages {
            // It goes into the place of the other page by page.
            salvaged.pragma_update(None, "page_size", pages.size as u32)?;
        }
        migrate(&mut salvaged)?;
        let checkpointed = match pages.as_ref().is_some_and(Pages::is_log_damaged) {
            true => Pages::open_main(&aside.main.path).map_err(failed)?,
            false => None,
        };
        read_all(&open_reader(path)?, &salvaged, pages.as_ref(), checkpointed.as_ref())?;
        let mut live = Connection::open(path)?;
        let backup = busy::wait_on(&mut live)
            .and_then(|()| Ok(Backup::new(&salvaged, &mut live)?))
            .and_then(|backup| Ok((backup.step(1)?, backup)));
        let (begun, backup) = match backup {
            Err(StorageError::Damaged(_) | StorageError::Sqlite(_)) if is_log_to_blame(path) => {
                return Err(refused(path, &aside, is_kept));
            }
            begun => begun?,
        };
        // From the first page on, nobody else writes.
        if matches!(begun, StepResult::Busy | StepResult::Locked) || data_version(&watch)? != before {
            continue;
        }
        let kept = if is_kept { Some(aside.keep(path)?) } else { None };
        if begun == StepResult::Done || backup.step(-1)? == StepResult::Done {
            drop(backup);
            drop(live);
            // The damaged pages are in no file any more but the one that is kept.
            if let Err(error) = empty_log(path) {
                tracing::warn!(%error, "somebody reads the file: SQLite's log is emptied later");
            }
            return Ok(kept);
        }
    }
    Err(StorageError::Busy)
}

/// Whether a file that SQLite cannot work with is one without the log beside it.
fn is_log_to_blame(path: &Path) -> bool {
    let is_logged = std::fs::metadata(log_of(path)).is_ok_and(|log| log.len() > 0);
    is_logged && without_log(path).and_then(|conn| check_format(&conn)).is_ok()
}

/// Nothing can be written to a file whose first page stands in a log that was damaged while it is open. When it is closed SQLite may move what
/// stands there into the file: what there is now is kept.
fn refused(path: &Path, aside: &Aside, is_kept: bool) -> StorageError {
    let kept = if is_kept {
        aside.keep(path).map(|kept| format!("is kept as {}", kept.display()))
    } else {
        Ok("is beside it".into())
    };
    match kept {
        Ok(kept) => StorageError::Damaged(format!(
            "SQLite's log beside it was damaged while it is open, so it cannot be written to; what there is of both {kept}: close the file \
             everywhere, and salvage that one in its place"
        )),
        Err(error) => error,
    }
}

fn open_to_read(path: &Path) -> Result<Connection> {
    let checked = || {
        let conn = open_reader(path)?;
        check_format(&conn).map(|()| conn)
    };
    checked().or_else(|error| match error {
        StorageError::Damaged(_) => fill_up(path).and_then(|()| checked()),
        error => Err(error),
    })
}

/// Of a file that was cut off SQLite reads nothing: empty pages stand for those that are missing, and are found to be damaged.
fn fill_up(path: &Path) -> Result<()> {
    let file = File::options().read(true).write(true).open(path).map_err(failed)?;
    let mut header = [0; HEADER_BYTES];
    if (&file).read_exact(&mut header).is_err() {
        return Ok(());
    }
    let size = match u16::from_be_bytes([header[16], header[17]]) {
        1 => 1 << 16,
        size => u64::from(size),
    };
    let pages = u32::from_be_bytes([header[28], header[29], header[30], header[31]]);
    let named = u64::from(pages) * size;
    let len = file.metadata().map_err(failed)?.len();
    // A header that is damaged itself may name anything.
    match header.starts_with(b"SQLite format 3\0") && len < named && named - len <= len.max(limits::CUT_OFF) {
        true => file.set_len(named).map_err(failed),
        false => Ok(()),
    }
}

fn data_version(conn: &Connection) -> Result<i64> {
    Ok(conn.query_row("PRAGMA data_version", [], |row| row.get(0))?)
}

/// `checkpointed`: the file without SQLite's log, if that is damaged.
fn read_all(
    source: &Connection,
    target: &Connection,
    pages: Option<&Pages>,
    checkpointed: Option<&Pages>,
) -> Result<()> {
    source.execute_batch("BEGIN")?;
    target.execute_batch("BEGIN")?;
    let scan = pages.map(|pages| Scan::new(pages, source, target)).transpose()?;
    let (mut is_anything_read, mut unread) = (false, Vec::new());
    let names = tables(target)?;
    let is_strange = |name: &String| scan.as_ref().is_some_and(|scan| scan.is_strange(name));
    for name in &names {
        target.execute_batch(&format!("DELETE FROM {}", identifier(name)))?;
        if !is_strange(name) {
            let (is_read, is_whole) = Table::new(target, name)?.read(source, target, &|_| false)?;
            is_anything_read |= is_read;
            unread.extend((!is_whole).then(|| name.clone()));
        }
    }
    if let (Some(scan), Some(pages)) = (&scan, pages) {
        let gone = if pages.is_log_damaged() { purged(target)? } else { HashSet::new() };
        for name in &names {
            let found = scan.insert(name, target, |document| !gone.contains(&document))?;
            is_anything_read |= found > 0;
            unread.extend((found > 0).then(|| name.clone()));
        }
        // A change may have moved from a page that is read to one that was lost with the log: it stands where it stood before.
        if let Some(checkpointed) = checkpointed {
            let known = documents(target)?;
            let is_wanted = |document| known.contains(&document) && !gone.contains(&document);
            Scan::new(checkpointed, source, target)?.insert("change", target, is_wanted)?;
        }
        // Where pages of another table stand in a tree, what SQLite reads there comes last.
        for name in names.iter().filter(|name| is_strange(name)) {
            let is_of_another = |rowid| scan.is_of_another(name, rowid);
            is_anything_read |= Table::new(target, name)?.read(source, target, &is_of_another)?.0;
            unread.push(name.clone());
        }
    }
    if !is_anything_read {
        return Err(StorageError::Damaged("nothing of it can be read".into()));
    }
    let tx = Tx { conn: target, space: space::read(target)? };
    tx.mend_rows(&unread)?;
    tx.mark_all_unindexed()?;
    tx.forget_positions()?;
    declare(source, target);
    Ok(target.execute_batch("COMMIT")?)
}

/// Documents that are purged, and of which nothing is left: what an older page has of them stays away.
fn purged(conn: &Connection) -> Result<HashSet<i64>> {
    let sql = "SELECT document FROM projection p WHERE purged IS 1
               AND NOT EXISTS (SELECT 1 FROM snapshot s WHERE s.document = p.document)
               AND NOT EXISTS (SELECT 1 FROM change c WHERE c.id >> 24 = p.document)
               AND document NOT IN (SELECT document FROM leaving)";
    let mut statement = conn.prepare(sql)?;
    let found = statement.query_map([], |row| row.get(0))?;
    Ok(found.collect::<std::result::Result<_, _>>()?)
}

fn documents(conn: &Connection) -> Result<HashSet<i64>> {
    let mut statement = conn.prepare("SELECT id FROM document WHERE typeof(id) = 'integer'")?;
    let found = statement.query_map([], |row| row.get(0))?;
    Ok(found.collect::<std::result::Result<_, _>>()?)
}

/// Indexes and views that were declared, as far as they can be read. Others come back with the next declaration.
fn declare(source: &Connection, target: &Connection) {
    let sql = "SELECT sql FROM sqlite_schema WHERE type IN ('index', 'view') AND sql IS NOT NULL
               AND (name GLOB 'index:*' OR type = 'view')";
    let read = || -> rusqlite::Result<Vec<String>> {
        source.prepare(sql)?.query_map([], |row| row.get(0))?.collect()
    };
    for sql in read().unwrap_or_default() {
        if let Err(error) = target.execute_batch(&sql) {
            tracing::warn!(%error, "something declared is not in the file any more");
        }
    }
}

/// How a table is read row by row.
struct Table {
    select: String,
    insert: String,
    /// Columns of the key, in its order.
    key: Vec<String>,
    /// The place of a key that is one whole number, among the columns.
    number: Option<usize>,
}

/// Keys between which rows may stand that were not read.
type Gap = (i64, i64);

impl Table {
    fn new(target: &Connection, name: &str) -> Result<Self> {
        let columns = columns(target, name)?;
        let sql = "SELECT name, type FROM pragma_table_info(?) WHERE pk > 0 ORDER BY pk";
        let mut statement = target.prepare(sql)?;
        let found = statement.query_map([name], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let found: Vec<(String, String)> = found.collect::<std::result::Result<_, _>>()?;
        let number = match &found[..] {
            [(key, kind)] if kind == "INTEGER" => columns.iter().position(|column| column == key),
            _ => None,
        };
        let names = columns.iter().map(|column| identifier(column)).collect::<Vec<_>>().join(", ");
        let places = vec!["?"; columns.len()].join(", ");
        let table = identifier(name);
        Ok(Self {
            select: format!("SELECT {names} FROM {table}"),
            insert: format!("INSERT OR IGNORE INTO {table} ({names}) VALUES ({places})"),
            key: found.into_iter().map(|(key, _)| identifier(&key)).collect(),
            number,
        })
    }

    /// Reads all that can be read, from both ends and then between what cannot. Says whether anything could, and whether that was all.
    /// `is_left_out`: which rows are not taken, by their row ids if they have such.
    fn read(
        &self,
        source: &Connection,
        target: &Connection,
        is_left_out: &LeftOut<'_>,
    ) -> Result<(bool, bool)> {
        let run = Run { table: self, source, target, is_left_out };
        let (first, is_whole) = run.read("", "ASC")?;
        if is_whole {
            return Ok((true, true));
        }
        let (last, _) = run.read("", "DESC")?;
        if self.number.is_some() {
            let gap = (first.unwrap_or(0), last.unwrap_or(i64::MAX));
            run.read_between(gap)?;
        }
        Ok((first.or(last).is_some(), false))
    }
}

/// Says of a row whether it is left out.
type LeftOut<'f> = dyn Fn(Option<i64>) -> bool + 'f;

/// The reading of one table.
struct Run<'r> {
    table: &'r Table,
    source: &'r Connection,
    target: &'r Connection,
    is_left_out: &'r LeftOut<'r>,
}

impl Run<'_> {
    /// Rows between damaged pages: looked for by halves, so many times as there is patience for.
    fn read_between(&self, gap: Gap) -> Result<()> {
        let Some(key) = self.table.key.first() else { return Ok(()) };
        let mut gaps = VecDeque::from([gap]);
        for _ in 0..limits::SALVAGE_PROBES {
            let Some((low, high)) = gaps.pop_front() else { break };
            if high.saturating_sub(low) <= 1 {
                continue;
            }
            let middle = low + (high - low) / 2;
            let above = format!("WHERE {key} >= {middle} AND {key} < {high}");
            let (last, is_whole) = self.read(&above, "ASC")?;
            if !is_whole {
                gaps.push_back((last.unwrap_or(middle - 1).max(low), high));
            }
            let below = format!("WHERE {key} > {low} AND {key} < {middle}");
            let (first, is_whole) = self.read(&below, "DESC")?;
            if !is_whole {
                gaps.push_back((low, first.unwrap_or(middle)));
            }
        }
        Ok(())
    }

    /// Reads rows in one direction until one cannot be read. Returns the key of the last, if it is a number, and whether that was all.
    fn read(&self, condition: &str, direction: &str) -> Result<(Option<i64>, bool)> {
        let table = self.table;
        let order = table.key.iter().map(|key| format!("{key} {direction}")).collect::<Vec<_>>().join(", ");
        let sql = format!("{} {condition} ORDER BY {order}", table.select);
        let mut reached = None;
        let Ok(mut statement) = self.source.prepare(&sql) else { return Ok((reached, false)) };
        let width = statement.column_count();
        let Ok(mut rows) = statement.query([]) else { return Ok((reached, false)) };
        let mut insert = self.target.prepare_cached(&table.insert)?;
        loop {
            let row = match rows.next() {
                Ok(Some(row)) => row,
                Ok(None) => return Ok((reached, true)),
                Err(_) => return Ok((reached, false)),
            };
            let values = (0..width).map(|n| row.get_ref(n).map(Value::try_from));
            let values: Vec<Value> = values.flatten().flatten().collect();
            let number = match table.number.and_then(|place| values.get(place)) {
                Some(Value::Integer(number)) => Some(*number),
                _ => None,
            };
            if values.len() == width && !(self.is_left_out)(number) {
                // What breaks a rule of the table is no row of it.
                insert.execute(params_from_iter(&values))?;
            }
            match number {
                Some(number) => reached = Some(number),
                None => _ = reached.get_or_insert(0),
            }
        }
    }
}

/// A number of four bytes, the highest first; 0 where there are none.
fn number(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|four| four.try_into().ok()).map_or(0, u32::from_be_bytes)
}

fn failed(error: std::io::Error) -> StorageError {
    match error.kind() {
        std::io::ErrorKind::StorageFull => StorageError::DiskFull,
        _ => StorageError::Io(error.to_string()),
    }
}

//! A database file of which pages are damaged: all rows that can still be read go into a new one, which takes its place.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use rusqlite::backup::{Backup, StepResult};
use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};

use super::backup::{Partial, columns, tables};
use super::connection::{check_format, migrate, open_reader};
use super::finding::identifier;
use super::{Result, StorageError, Tx, busy};
use crate::limits;

/// Bytes of the header of a database, as of SQLite's file format.
const HEADER_BYTES: usize = 100;

/// Writes a damaged file anew from what can be read of it, in its place: others that have it open go on with the new content. Every
/// remote is read again with the next session.
///
/// # Errors
/// [`StorageError::Damaged`] if nothing can be read; the file is as it was then.
pub(crate) fn salvage(path: &Path) -> Result<()> {
    fill_up(path)?;
    check_format(&open_reader(path)?)?;
    for _ in 0..limits::SALVAGE_ATTEMPTS {
        // Nobody must have written since it was read, or that would be lost.
        let watch = open_reader(path)?;
        let before = data_version(&watch)?;
        let partial = Partial::beside(path)?;
        let mut salvaged = Connection::open(&partial.path)?;
        salvaged.pragma_update(None, "secure_delete", true)?;
        salvaged.execute_batch(
            "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA foreign_keys = OFF",
        )?;
        migrate(&mut salvaged)?;
        read_all(&open_reader(path)?, &salvaged)?;
        let mut live = Connection::open(path)?;
        busy::wait_on(&mut live)?;
        let backup = Backup::new(&salvaged, &mut live)?;
        // From the first page on, nobody else writes.
        let begun = backup.step(1)?;
        if matches!(begun, StepResult::Busy | StepResult::Locked) || data_version(&watch)? != before {
            continue;
        }
        if begun == StepResult::Done || backup.step(-1)? == StepResult::Done {
            drop(backup);
            // The damaged pages are in no file any more.
            _ = live.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
            return Ok(());
        }
    }
    Err(StorageError::Busy)
}

/// Of a file that was cut off SQLite reads nothing: empty pages stand for those that are missing, and are found to be damaged.
fn fill_up(path: &Path) -> Result<()> {
    let io = |error: std::io::Error| StorageError::Io(error.to_string());
    let file = File::options().read(true).write(true).open(path).map_err(io)?;
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
    let len = file.metadata().map_err(io)?.len();
    // A header that is damaged itself may name anything.
    match header.starts_with(b"SQLite format 3\0") && len < named && named - len <= len.max(limits::CUT_OFF) {
        true => file.set_len(named).map_err(io),
        false => Ok(()),
    }
}

fn data_version(conn: &Connection) -> Result<i64> {
    Ok(conn.query_row("PRAGMA data_version", [], |row| row.get(0))?)
}

fn read_all(source: &Connection, target: &Connection) -> Result<()> {
    source.execute_batch("BEGIN")?;
    target.execute_batch("BEGIN")?;
    let (mut is_anything_read, mut unread) = (false, Vec::new());
    for name in tables(target)? {
        target.execute_batch(&format!("DELETE FROM {}", identifier(&name)))?;
        let (is_read, is_whole) = Table::new(target, &name)?.read(source, target)?;
        is_anything_read |= is_read;
        unread.extend((!is_whole).then_some(name));
    }
    if !is_anything_read {
        return Err(StorageError::Damaged("nothing of it can be read".into()));
    }
    let tx = Tx { conn: target };
    tx.mend_rows(&unread)?;
    tx.mark_all_unindexed()?;
    tx.forget_positions()?;
    declare(source, target);
    Ok(target.execute_batch("COMMIT")?)
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
    fn read(&self, source: &Connection, target: &Connection) -> Result<(bool, bool)> {
        let (first, is_whole) = self.read_run(source, target, "", "ASC")?;
        if is_whole {
            return Ok((true, true));
        }
        let (last, _) = self.read_run(source, target, "", "DESC")?;
        if self.number.is_some() {
            let gap = (first.unwrap_or(0), last.unwrap_or(i64::MAX));
            self.read_between(source, target, gap)?;
        }
        Ok((first.or(last).is_some(), false))
    }

    /// Rows between damaged pages: looked for by halves, so many times as there is patience for.
    fn read_between(&self, source: &Connection, target: &Connection, gap: Gap) -> Result<()> {
        let Some(key) = self.key.first() else { return Ok(()) };
        let mut gaps = VecDeque::from([gap]);
        for _ in 0..limits::SALVAGE_PROBES {
            let Some((low, high)) = gaps.pop_front() else { break };
            if high.saturating_sub(low) <= 1 {
                continue;
            }
            let middle = low + (high - low) / 2;
            let above = format!("WHERE {key} >= {middle} AND {key} < {high}");
            let (last, is_whole) = self.read_run(source, target, &above, "ASC")?;
            if !is_whole {
                gaps.push_back((last.unwrap_or(middle - 1).max(low), high));
            }
            let below = format!("WHERE {key} > {low} AND {key} < {middle}");
            let (first, is_whole) = self.read_run(source, target, &below, "DESC")?;
            if !is_whole {
                gaps.push_back((low, first.unwrap_or(middle)));
            }
        }
        Ok(())
    }

    /// Reads rows in one direction until one cannot be read. Returns the key of the last, if it is a number, and whether that was all.
    fn read_run(
        &self,
        source: &Connection,
        target: &Connection,
        condition: &str,
        direction: &str,
    ) -> Result<(Option<i64>, bool)> {
        let order = self.key.iter().map(|key| format!("{key} {direction}")).collect::<Vec<_>>().join(", ");
        let sql = format!("{} {condition} ORDER BY {order}", self.select);
        let mut reached = None;
        let Ok(mut statement) = source.prepare(&sql) else { return Ok((reached, false)) };
        let width = statement.column_count();
        let Ok(mut rows) = statement.query([]) else { return Ok((reached, false)) };
        let mut insert = target.prepare_cached(&self.insert)?;
        loop {
            let row = match rows.next() {
                Ok(Some(row)) => row,
                Ok(None) => return Ok((reached, true)),
                Err(_) => return Ok((reached, false)),
            };
            let values = (0..width).map(|n| row.get_ref(n).map(Value::try_from));
            let values: Vec<Value> = values.flatten().flatten().collect();
            if values.len() == width {
                // What breaks a rule of the table is no row of it.
                insert.execute(params_from_iter(&values))?;
            }
            if let Some(Value::Integer(key)) = self.number.and_then(|place| values.get(place)) {
                reached = Some(*key);
            } else {
                reached.get_or_insert(0);
            }
        }
    }
}

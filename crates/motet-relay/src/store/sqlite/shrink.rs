//! Gives the disk back what has left the logs. SQLite keeps free pages for what comes next; when they are a large part of the file, the
//! last pages are moved into them, in short steps while nobody waits, and the file is cut off behind them.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use crate::limits;

/// What `PRAGMA auto_vacuum` says of a file whose pages can be moved.
const INCREMENTAL: i64 = 2;

/// Whether there is something to give back, and how much a step may do.
pub(super) struct Shrink {
    /// The write-ahead log, into which each moved page is written. A database in memory has none.
    wal: Option<PathBuf>,
    can_shrink: bool,
    /// Something has left since it was looked at last.
    is_due: bool,
    /// It was begun and goes on below the share at which it begins.
    is_begun: bool,
    /// The last step is done, or none can be.
    is_done: bool,
    /// Pages that a step moves.
    pages: i64,
}

impl Shrink {
    pub(super) fn new(conn: &Connection) -> Self {
        let can_shrink = pragma(conn, "auto_vacuum").is_ok_and(|mode| mode == INCREMENTAL);
        let wal =
            conn.path().filter(|path| !path.is_empty()).map(|path| PathBuf::from(format!("{path}-wal")));
        let pages = limits::SHRINK_STEP_PAGES_LEAST;
        let mut shrink = Self { wal, can_shrink, is_due: can_shrink, is_begun: false, is_done: false, pages };
        if !shrink.is_worth_it(conn).unwrap_or(false) {
            shrink.put_off();
        }
        shrink
    }

    /// Pages may have become free.
    pub(super) fn note(&mut self) {
        self.is_due = self.can_shrink;
    }

    /// How long to leave the file to others before the next step; `None` if there is nothing to do.
    pub(super) fn due_in(&self) -> Option<Duration> {
        self.is_due.then_some(limits::SHRINK_PAUSE)
    }

    /// It has failed, for want of room for one: it is tried again when something has left again.
    pub(super) fn put_off(&mut self) {
        self.is_done |= self.is_begun;
        (self.is_due, self.is_begun) = (false, false);
    }

    /// Whether it has come to an end since this was asked last.
    pub(super) fn is_done(&mut self) -> bool {
        std::mem::take(&mut self.is_done)
    }

    /// Whether a step is to be done now.
    pub(super) fn is_worth_it(&mut self, conn: &Connection) -> rusqlite::Result<bool> {
        if !self.is_due || self.wal_bytes() > 2 * limits::WAL_KEPT_BYTES as u64 {
            // Somebody reads for long: the log of SQLite would only grow.
            return Ok(false);
        }
        let (free, all) = (pragma(conn, "freelist_count")?, pragma(conn, "page_count")?);
        let share = if self.is_begun { limits::SHRINK_TO_PERCENT } else { limits::SHRINK_FROM_PERCENT };
        let is_much = free * 100 > all * share && (self.is_begun || free >= limits::SHRINK_FROM_PAGES);
        match is_much {
            true => self.is_begun = true,
            false => self.put_off(),
        }
        Ok(is_much)
    }

    /// Moves some pages, in the transaction that is open.
    pub(super) fn step(&mut self, conn: &Connection) -> rusqlite::Result<()> {
        let begun = Instant::now();
        let mut statement = conn.prepare(&format!("PRAGMA incremental_vacuum({})", self.pages))?;
        let mut rows = statement.query([])?;
        while rows.next()?.is_some() {}
        let took = begun.elapsed();
        let pages = if took > limits::SHRINK_STEP { self.pages / 2 } else { self.pages * 2 };
        self.pages = pages.clamp(limits::SHRINK_STEP_PAGES_LEAST, limits::SHRINK_STEP_PAGES_MOST);
        Ok(())
    }

    fn wal_bytes(&self) -> u64 {
        let wal = self.wal.as_ref().and_then(|path| std::fs::metadata(path).ok());
        wal.map_or(0, |wal| wal.len())
    }
}

/// Makes a file that has no tables yet one whose pages can be moved.
pub(super) fn prepare(conn: &Connection) -> rusqlite::Result<()> {
    conn.pragma_update(None, "auto_vacuum", INCREMENTAL)
}

/// Whether the pages of a file can be moved.
pub(super) fn is_prepared(conn: &Connection) -> rusqlite::Result<bool> {
    Ok(pragma(conn, "auto_vacuum")? == INCREMENTAL)
}

fn pragma(conn: &Connection, name: &str) -> rusqlite::Result<i64> {
    conn.query_row(&format!("PRAGMA {name}"), [], |row| row.get(0))
}

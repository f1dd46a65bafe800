//! The pages of a database and of SQLite's log beside it, read without SQLite: what stands in them can be read although nothing leads to
//! them any more.

use std::collections::HashSet;
use std::fs::File;
use std::io::{Read, Result, Seek, SeekFrom};
use std::path::Path;

use super::log::Log;
use super::number;

/// Bytes of the header of a database, as of SQLite's file format. It stands in the first page.
pub(super) const HEADER_BYTES: usize = 100;

/// The smallest page less what may be reserved of it.
const LEAST_USABLE: usize = 480;

/// A database with the newest committed version of each page.
pub(super) struct Pages {
    main: File,
    log: Option<File>,
    newer: Log,
    /// Bytes of a page.
    pub(super) size: usize,
    /// Bytes of a page that SQLite uses.
    pub(super) usable: usize,
    pub(super) count: u32,
}

impl Pages {
    /// `None` if the header of the database says nothing that can be.
    pub(super) fn open(main: &Path, log: &Path) -> Result<Option<Self>> {
        Self::open_both(main, Some(log))
    }

    /// The database as it is without the log beside it: as of the last checkpoint.
    pub(super) fn open_main(main: &Path) -> Result<Option<Self>> {
        Self::open_both(main, None)
    }

    fn open_both(main: &Path, log: Option<&Path>) -> Result<Option<Self>> {
        let main = File::open(main)?;
        let mut header = [0; HEADER_BYTES];
        if (&main).read_exact(&mut header).is_err() {
            return Ok(None);
        }
        let size = match u16::from_be_bytes([header[16], header[17]]) {
            1 => 1 << 16,
            size => usize::from(size),
        };
        let usable = size.saturating_sub(usize::from(header[20]));
        if !size.is_power_of_two() || usable < LEAST_USABLE {
            return Ok(None);
        }
        let newer = log.map_or_else(|| Ok(Log::default()), |log| Log::read(log, size))?;
        let held = u32::try_from(main.metadata()?.len() / size as u64).unwrap_or(u32::MAX);
        let log = log.and_then(|log| File::open(log).ok());
        let mut pages = Self { main, log, newer, size, usable, count: u32::MAX };
        // What is behind the last page is of an earlier time.
        let named = pages.newer.count.or_else(|| Some(number(&pages.read(1)?, 28)).filter(|n| *n > 0));
        // Nor is there anything behind what both files hold, whatever they name.
        let held = pages.newer.pages.keys().copied().fold(held, u32::max);
        pages.count = named.map_or(held, |named| named.min(held));
        Ok(Some(pages))
    }

    /// SQLite's log beside the database is not what was written, so some pages may be of an earlier time.
    pub(super) fn is_log_damaged(&self) -> bool {
        self.newer.is_damaged
    }

    pub(super) fn read(&self, page: u32) -> Option<Vec<u8>> {
        if page == 0 || page > self.count {
            return None;
        }
        let (mut file, at) = match (self.newer.pages.get(&page), &self.log) {
            (Some(at), Some(log)) => (log, *at),
            _ => (&self.main, u64::from(page - 1) * self.size as u64),
        };
        let mut bytes = vec![0; self.size];
        file.seek(SeekFrom::Start(at)).ok()?;
        file.read_exact(&mut bytes).ok()?;
        Some(bytes)
    }

    /// Pages that hold nothing any more, as far as the list of them can be read.
    pub(super) fn free(&self) -> HashSet<u32> {
        let mut free = HashSet::new();
        let mut next = self.read(1).map_or(0, |first| number(&first, 32));
        while next > 1 && !free.contains(&next) {
            let Some(bytes) = self.read(next) else { break };
            let count = number(&bytes, 4) as usize;
            if count > self.usable / 4 - 2 {
                break;
            }
            let listed: Vec<u32> = (0..count).map(|n| number(&bytes, 8 + 4 * n)).collect();
            let follows = number(&bytes, 0);
            // What names pages that cannot be is no part of the list.
            if follows > self.count || listed.iter().any(|page| *page < 2 || *page > self.count) {
                break;
            }
            free.insert(next);
            free.extend(listed);
            next = follows;
        }
        free
    }
}

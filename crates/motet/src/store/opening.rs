//! Large entries that are being opened: whoever comes after a process that ended meanwhile knows which they were.

use std::collections::{HashMap, HashSet};

use motet_proto::DocumentId;
use rusqlite::params;

use super::{Result, Tx};

/// How the reason begins of an entry that is set aside because processes ended over it.
const ENDED_OVER: &str = "the app ended ";

/// Why an entry is set aside untried.
pub(crate) fn ended_over(deaths: u32) -> String {
    match deaths {
        0 => format!("{ENDED_OVER}while it opened another entry of this document"),
        _ => format!("{ENDED_OVER}{deaths} times while it opened this"),
    }
}

impl Tx<'_> {
    /// Documents of which something is set aside because processes ended over it.
    pub(crate) fn ended_over(&self) -> Result<HashSet<DocumentId>> {
        let sql = "SELECT DISTINCT document FROM quarantine WHERE reason LIKE ? || '%'";
        let mut statement = self.conn.prepare_cached(sql)?;
        let rows = statement.query_map([ENDED_OVER], |row| Ok(DocumentId(row.get(0)?)))?;
        Ok(rows.collect::<std::result::Result<_, _>>()?)
    }

    /// What processes ended over is to be tried once more.
    pub(crate) fn try_ended_over(&self) -> Result<()> {
        let sql = "UPDATE quarantine SET reason = 'it is to be tried again' WHERE reason LIKE ? || '%'";
        self.conn.prepare_cached(sql)?.execute([ENDED_OVER])?;
        Ok(())
    }

    /// A session begins in the process `run`: how many processes have ended while they opened each entry that was not taken in. What
    /// this process itself had begun to open and given up is no such case.
    pub(crate) fn take_stock_of_opening(&self, run: &[u8; 16]) -> Result<HashMap<[u8; 32], u32>> {
        let sql = "UPDATE opening SET deaths = deaths + (run IS NOT ?), run = NULL WHERE run IS NOT NULL";
        self.conn.prepare_cached(sql)?.execute([run])?;
        self.conn.prepare_cached("DELETE FROM opening WHERE deaths = 0")?.execute([])?;
        let mut statement = self.conn.prepare_cached("SELECT entry, deaths FROM opening")?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(rows.collect::<std::result::Result<_, _>>()?)
    }

    /// Entries are about to be opened by the process `run`.
    pub(crate) fn note_opening(&self, run: &[u8; 16], entries: &[[u8; 32]]) -> Result<()> {
        let sql =
            "INSERT INTO opening (entry, run) VALUES (?, ?) ON CONFLICT DO UPDATE SET run = excluded.run";
        let mut statement = self.conn.prepare_cached(sql)?;
        entries.iter().try_for_each(|entry| statement.execute(params![entry, run]).map(drop))?;
        Ok(())
    }

    /// Entries are taken in, or set aside.
    pub(crate) fn note_opened(&self, entries: &[[u8; 32]]) -> Result<()> {
        let mut statement = self.conn.prepare_cached("DELETE FROM opening WHERE entry = ?")?;
        entries.iter().try_for_each(|entry| statement.execute([entry]).map(drop))?;
        Ok(())
    }
}

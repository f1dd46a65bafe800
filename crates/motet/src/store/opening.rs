//! Large entries that are being opened: whoever comes after a process that ended meanwhile knows which they were.

use std::collections::HashMap;

use rusqlite::params;

use super::{Result, Tx};

impl Tx<'_> {
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

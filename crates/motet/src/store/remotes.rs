//! Remotes, devices, settings and the history of rounds.

use motet_proto::{DeviceId, Position};
use rusqlite::{OptionalExtension, params};

use super::{Result, Tx};
use crate::limits;

/// A remote as the store knows it.
#[derive(Clone, Debug)]
pub(crate) struct RemoteRow {
    pub(crate) id: i64,
    pub(crate) url: String,
    /// The status speaks of this one.
    pub(crate) active: bool,
    pub(crate) position: Option<Position>,
    pub(crate) reseed: bool,
    pub(crate) last_synced_at: Option<i64>,
    /// JSON of the last error, if the last round failed.
    pub(crate) last_error: Option<String>,
}

/// A finished round for the history.
#[derive(Debug)]
pub(crate) struct RoundRow {
    pub(crate) remote: i64,
    pub(crate) started_at: i64,
    pub(crate) duration_ms: i64,
    pub(crate) summary: String,
}

impl Tx<'_> {
    pub(crate) fn meta(&self, key: &str) -> Result<Option<String>> {
        let sql = "SELECT value FROM meta WHERE key = ?";
        Ok(self.conn.prepare_cached(sql)?.query_row([key], |row| row.get(0)).optional()?)
    }

    pub(crate) fn set_meta(&self, key: &str, value: Option<&str>) -> Result<()> {
        match value {
            Some(value) => {
                let sql = "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value";
                self.conn.prepare_cached(sql)?.execute([key, value])?;
            }
            None => {
                self.conn.prepare_cached("DELETE FROM meta WHERE key = ?")?.execute([key])?;
            }
        }
        Ok(())
    }

    pub(crate) fn collections(&self) -> Result<Vec<(String, String)>> {
        let mut statement = self.conn.prepare_cached("SELECT name, schema FROM collection")?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(rows.collect::<std::result::Result<_, _>>()?)
    }

    pub(crate) fn put_collection(&self, name: &str, schema: &str) -> Result<()> {
        let sql = "INSERT INTO collection (name, schema) VALUES (?, ?) ON CONFLICT DO UPDATE SET schema = excluded.schema";
        self.conn.prepare_cached(sql)?.execute([name, schema])?;
        Ok(())
    }

    pub(crate) fn put_device(&self, id: DeviceId, name: &str) -> Result<()> {
        let sql = "INSERT INTO device (id, name) VALUES (?, ?)
                   ON CONFLICT DO UPDATE SET name = excluded.name WHERE name <> excluded.name";
        self.conn.prepare_cached(sql)?.execute(params![id.as_bytes(), name])?;
        Ok(())
    }

    pub(crate) fn remotes(&self) -> Result<Vec<RemoteRow>> {
        let sql =
            "SELECT id, url, position, reseed, last_synced_at, last_error, active FROM remote ORDER BY id";
        let mut statement = self.conn.prepare_cached(sql)?;
        let rows = statement.query_map([], |row| {
            Ok(RemoteRow {
                id: row.get(0)?,
                url: row.get(1)?,
                position: row.get::<_, Option<Vec<u8>>>(2)?.and_then(|bytes| Position::from_bytes(&bytes)),
                reseed: row.get(3)?,
                last_synced_at: row.get(4)?,
                last_error: row.get(5)?,
                active: row.get(6)?,
            })
        })?;
        Ok(rows.collect::<std::result::Result<_, _>>()?)
    }

    /// Adds a remote; the caller queues what it lacks, which is everything.
    pub(crate) fn insert_remote(&self, url: &str) -> Result<i64> {
        self.conn.prepare_cached("INSERT INTO remote (space, url) VALUES (1, ?)")?.execute([url])?;
        Ok(self.conn.last_insert_rowid())
    }

    pub(crate) fn set_active(&self, remote: i64) -> Result<()> {
        self.conn.prepare_cached("UPDATE remote SET active = (id = ?)")?.execute([remote])?;
        Ok(())
    }

    pub(crate) fn set_position(&self, remote: i64, position: Option<Position>) -> Result<()> {
        let sql = "UPDATE remote SET position = ? WHERE id = ?";
        self.conn.prepare_cached(sql)?.execute(params![position.map(Position::to_bytes), remote])?;
        Ok(())
    }

    pub(crate) fn set_reseed(&self, remote: i64, reseed: bool) -> Result<()> {
        self.conn
            .prepare_cached("UPDATE remote SET reseed = ? WHERE id = ?")?
            .execute(params![reseed, remote])?;
        Ok(())
    }

    pub(crate) fn finish_round(&self, round: &RoundRow, now: i64) -> Result<()> {
        self.set_synced(round.remote, now)?;
        let sql = "INSERT INTO history (remote, started_at, duration_ms, summary) VALUES (?, ?, ?, ?)";
        self.conn.prepare_cached(sql)?.execute(params![
            round.remote,
            round.started_at,
            round.duration_ms,
            round.summary
        ])?;
        let sql = "DELETE FROM history WHERE id <= (SELECT MAX(id) FROM history) - ?";
        self.conn.prepare_cached(sql)?.execute([limits::HISTORY_ROWS])?;
        Ok(())
    }

    pub(crate) fn set_synced(&self, remote: i64, at: i64) -> Result<()> {
        let sql = "UPDATE remote SET last_synced_at = ?, last_error = NULL WHERE id = ?";
        self.conn.prepare_cached(sql)?.execute([at, remote])?;
        Ok(())
    }

    pub(crate) fn set_last_error(&self, remote: i64, error: &str) -> Result<()> {
        self.conn
            .prepare_cached("UPDATE remote SET last_error = ? WHERE id = ?")?
            .execute(params![error, remote])?;
        Ok(())
    }
}

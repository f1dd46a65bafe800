//! Remotes, devices, settings and the history of rounds.

use motet_proto::{DeviceId, LogName, Position};
use rusqlite::{OptionalExtension, params};

use super::integrity::{number, text};
use super::{Result, StorageError, Tx};
use crate::limits;
use crate::types::SyncPolicy;

/// Where the policy stands in `meta`.
const POLICY: &str = "sync-policy";

/// Where the time of the last comparison stands in `meta`.
fn compared_key(remote: i64) -> String {
    format!("compared-{remote}")
}

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

    /// A number from 0 to `most` that stands in `meta`; one that cannot be read is as good as none.
    pub(crate) fn meta_number(&self, key: &str, most: i64) -> Result<Option<i64>> {
        let number = self.meta(key)?.and_then(|number| number.parse().ok());
        Ok(number.filter(|number| (0..=most).contains(number)))
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

    /// When to sync; `None` if the app has not said so.
    pub(crate) fn sync_policy(&self) -> Result<Option<SyncPolicy>> {
        let Some(json) = self.meta(POLICY)? else { return Ok(None) };
        // What cannot be read, or followed, was written by another version: as if it had not been said. A file is not lost for that.
        let policy = serde_json::from_str(&json);
        Ok(policy.inspect_err(|error| tracing::warn!(%error, "the kept sync policy is passed over")).ok())
    }

    pub(crate) fn set_sync_policy(&self, policy: &SyncPolicy) -> Result<()> {
        let json = serde_json::to_string(policy).map_err(|e| StorageError::Io(e.to_string()))?;
        self.set_meta(POLICY, Some(&json))
    }

    /// When everything was last compared with a remote, in milliseconds since 1970.
    pub(crate) fn compared_at(&self, remote: i64) -> Result<Option<i64>> {
        self.meta_number(&compared_key(remote), limits::LATEST_TIME)
    }

    pub(crate) fn set_compared_at(&self, remote: i64, at: i64) -> Result<()> {
        self.set_meta(&compared_key(remote), Some(&at.to_string()))
    }

    pub(crate) fn collections(&self) -> Result<Vec<(String, String)>> {
        let mut statement = self.conn.prepare_cached("SELECT name, schema FROM collection")?;
        let rows = statement.query_map([], |row| Ok((text(row.get_ref(0)?), text(row.get_ref(1)?))))?;
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
            // Who examines the file finds what is odd; a file does not stay closed for it.
            let text = |n: usize| row.get_ref(n).map(|text| text.as_str().ok().map(str::to_owned));
            Ok(RemoteRow {
                id: row.get(0)?,
                url: text(1)?.unwrap_or_default(),
                position: row.get_ref(2)?.as_blob().ok().and_then(Position::from_bytes),
                reseed: number(row.get_ref(3)?) != 0,
                last_synced_at: row.get_ref(4)?.as_i64().ok().filter(|at| *at >= 0),
                last_error: text(5)?,
                active: number(row.get_ref(6)?) == 1,
            })
        })?;
        Ok(rows.collect::<std::result::Result<_, _>>()?)
    }

    /// Adds a remote; the caller queues what it lacks, which is everything. If this device's own changes may be set aside, because a repair has
    /// lost what they build on, all is compared once the log has been read: they come back with what arrives, and are not queued yet.
    pub(crate) fn insert_remote(&self, url: &str) -> Result<i64> {
        let sql = "INSERT INTO remote (space, url, reseed)
                   VALUES (1, ?, EXISTS (SELECT 1 FROM quarantine WHERE waits = 1))";
        self.conn.prepare_cached(sql)?.execute([url])?;
        Ok(self.conn.last_insert_rowid())
    }

    /// The status speaks of this one, or of none.
    pub(crate) fn set_active(&self, remote: Option<i64>) -> Result<()> {
        self.conn.prepare_cached("UPDATE remote SET active = coalesce(id = ?, 0)")?.execute([remote])?;
        Ok(())
    }

    /// What the log of a remote is called, if it was ever met.
    pub(crate) fn log_of(&self, remote: i64) -> Result<Option<LogName>> {
        let sql = "SELECT log FROM remote WHERE id = ?";
        let log = self
            .conn
            .prepare_cached(sql)?
            .query_row([remote], |row| Ok(row.get_ref(0)?.as_blob().ok().and_then(LogName::from_slice)));
        Ok(log.optional()?.flatten())
    }

    /// The remote whose log has this name.
    pub(crate) fn remote_of(&self, log: LogName) -> Result<Option<i64>> {
        let sql = "SELECT id FROM remote WHERE log = ? ORDER BY id DESC LIMIT 1";
        Ok(self.conn.prepare_cached(sql)?.query_row([log.as_bytes()], |row| row.get(0)).optional()?)
    }

    pub(crate) fn set_log(&self, remote: i64, log: LogName) -> Result<()> {
        let sql = "UPDATE remote SET log = ? WHERE id = ?";
        self.conn.prepare_cached(sql)?.execute(params![log.as_bytes(), remote])?;
        Ok(())
    }

    /// Two remotes have each other's address from now on.
    pub(crate) fn swap_urls(&self, one: i64, other: i64) -> Result<()> {
        let url = |remote: i64| -> Result<String> {
            let sql = "SELECT url FROM remote WHERE id = ?";
            Ok(self.conn.prepare_cached(sql)?.query_row([remote], |row| row.get(0))?)
        };
        let (of_one, of_other) = (url(one)?, url(other)?);
        // No two have one address, also not in between.
        let free = format!("{of_one}\n");
        let mut set = self.conn.prepare_cached("UPDATE remote SET url = ? WHERE id = ?")?;
        for (url, remote) in [(&free, one), (&of_one, other), (&of_other, one)] {
            set.execute(params![url, remote])?;
        }
        Ok(())
    }

    /// Whether a remote was ever met.
    pub(crate) fn was_met(&self, remote: i64) -> Result<bool> {
        let sql = "SELECT 1 FROM remote WHERE id = ?
                   AND (log IS NOT NULL OR position IS NOT NULL OR last_synced_at IS NOT NULL)";
        Ok(self.conn.prepare_cached(sql)?.exists([remote])?)
    }

    /// Forgets a remote that was never met.
    pub(crate) fn drop_remote(&self, remote: i64) -> Result<()> {
        for table in ["outbox", "erased", "unmerged", "quarantine", "history"] {
            self.conn.execute(&format!("DELETE FROM {table} WHERE remote = ?"), [remote])?;
        }
        self.set_meta(&compared_key(remote), None)?;
        self.conn.execute("DELETE FROM remote WHERE id = ?", [remote])?;
        Ok(())
    }

    /// The remote that is in use, or was last, if it was met and holds what is not owed to it. One that was chosen and not met yet holds nothing,
    /// whatever another one has.
    pub(crate) fn home(&self) -> Result<Option<i64>> {
        let sql = "SELECT id, reseed, log IS NOT NULL OR last_synced_at IS NOT NULL AS is_met FROM remote
                   ORDER BY active DESC, is_met DESC, last_synced_at DESC LIMIT 1";
        let found = self.conn.prepare_cached(sql)?.query_row([], |row| {
            // What one holds that is being compared is not known.
            let (is_compared, is_met): (bool, bool) = (row.get(1)?, row.get(2)?);
            Ok((is_met && !is_compared).then_some(row.get(0)?))
        });
        Ok(found.optional()?.flatten())
    }

    /// Forgets what was done with all remotes.
    pub(crate) fn forget_rounds(&self) -> Result<()> {
        let sql = "DELETE FROM history; DELETE FROM traffic;
                   UPDATE remote SET last_synced_at = NULL, last_error = NULL, reseed = 0";
        Ok(self.conn.execute_batch(sql)?)
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

    pub(crate) fn add_traffic(&self, day: i64, up: u64, down: u64) -> Result<()> {
        let sql = "INSERT INTO traffic (day, up, down) VALUES (?, ?, ?)
                   ON CONFLICT DO UPDATE SET up = up + excluded.up, down = down + excluded.down";
        self.conn.prepare_cached(sql)?.execute(params![day, up as i64, down as i64])?;
        self.conn
            .prepare_cached("DELETE FROM traffic WHERE day <= ?")?
            .execute([day - limits::TRAFFIC_DAYS])?;
        Ok(())
    }

    /// Days since 1970 and the bytes sent and received on them, the latest first.
    pub(crate) fn traffic(&self, days: usize) -> Result<Vec<(i64, u64, u64)>> {
        let sql = "SELECT day, up, down FROM traffic ORDER BY day DESC LIMIT ?";
        let mut statement = self.conn.prepare_cached(sql)?;
        let rows = statement.query_map([days as i64], |row| {
            Ok((row.get(0)?, row.get::<_, i64>(1)?.unsigned_abs(), row.get::<_, i64>(2)?.unsigned_abs()))
        })?;
        Ok(rows.collect::<std::result::Result<_, _>>()?)
    }

    /// When the remote last confirmed a document of a collection.
    pub(crate) fn last_synced_at(&self, collection: &str) -> Result<Option<i64>> {
        let sql = "SELECT max(last_synced_at) FROM document WHERE collection = ?";
        Ok(self.conn.prepare_cached(sql)?.query_row([collection], |row| row.get(0))?)
    }

    pub(crate) fn excluded(&self) -> Result<Vec<String>> {
        let mut statement =
            self.conn.prepare_cached("SELECT collection FROM excluded ORDER BY collection")?;
        let rows = statement.query_map([], |row| Ok(text(row.get_ref(0)?)))?;
        Ok(rows.collect::<std::result::Result<_, _>>()?)
    }

    pub(crate) fn set_excluded(&self, collection: &str, excluded: bool) -> Result<()> {
        let sql = match excluded {
            true => "INSERT OR IGNORE INTO excluded (collection) VALUES (?)",
            false => "DELETE FROM excluded WHERE collection = ?",
        };
        self.conn.prepare_cached(sql)?.execute([collection])?;
        Ok(())
    }
}

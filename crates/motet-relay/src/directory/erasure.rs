//! Accounts that are erased: when somebody has asked for it and its time has come, everything that the relay has of them leaves.

use std::time::Duration;

use motet_proto::SpaceId;

use super::audit::{Action, Actor, By};
use super::sql::{self, Sql, params};
use super::{Directory, DirectoryError, Result, composed, hash, later, now_ms};
use crate::limits;

/// An account that is not there any more, and whose logs leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Erasing {
    pub(crate) account: String,
    /// Spaces whose logs are kept under its name and are another account's by now.
    pub(crate) kept: Vec<SpaceId>,
}

impl Directory {
    /// Has an account erased after a time, until which [`keep_account`](Self::keep_account) takes that back: its devices are signed out then, its shared
    /// spaces end, and everything that the relay has of it leaves. What its devices have stays on them. A later call changes the time. Returns when, in milliseconds
    /// since 1970.
    ///
    /// # Errors
    /// [`DirectoryError::NoAccount`], [`DirectoryError::File`].
    pub fn erase_account(&self, name: &str, after: Duration) -> Result<i64> {
        self.erase_account_by(name, after, By(Actor::Operator))
    }

    pub(super) fn erase_account_by(&self, name: &str, after: Duration, by: By) -> Result<i64> {
        let name = &*composed(name);
        let at = later(now_ms(), after);
        self.set_erasure(name, Some(at), |conn| by.note(conn, name, Action::ErasureAsked, ""))?;
        Ok(at)
    }

    /// Keeps an account that was to be erased.
    ///
    /// # Errors
    /// [`DirectoryError::NoAccount`], also of one that was erased already; [`DirectoryError::NotErased`] if nobody has asked for it;
    /// [`DirectoryError::File`].
    pub fn keep_account(&self, name: &str) -> Result<()> {
        self.keep_account_by(name, By(Actor::Operator))
    }

    pub(super) fn keep_account_by(&self, name: &str, by: By) -> Result<()> {
        let name = &*composed(name);
        self.set_erasure(name, None, |conn| by.note(conn, name, Action::ErasureCancelled, ""))
    }

    fn set_erasure(
        &self,
        name: &str,
        at: Option<i64>,
        note: impl FnOnce(&Sql<'_>) -> sql::Result<()>,
    ) -> Result<()> {
        self.attempt(|conn| {
            let sql = "SELECT erase_at FROM account WHERE name = ?";
            let found: Vec<Option<i64>> = conn.rows(sql, [name], |row| row.get(0))?;
            match found.first() {
                None => return Ok(Err(DirectoryError::NoAccount(name.to_owned()))),
                Some(None) if at.is_none() => {
                    return Ok(Err(DirectoryError::NotErased(name.to_owned())));
                }
                Some(_) => {}
            }
            conn.execute("UPDATE account SET erase_at = ? WHERE name = ?", params![at, name])?;
            note(conn).map(Ok)
        })?
    }

    /// Removes the accounts whose time has come. Returns all whose logs leave.
    pub(crate) fn begin_erasures(&self) -> Result<Vec<Erasing>> {
        let is_due = self.read(|conn| {
            let sql = "SELECT 1 FROM account WHERE erase_at <= ?";
            conn.exists(sql, [now_ms()])
        })?;
        if is_due {
            self.write(|conn| {
                let sql = "SELECT name FROM account WHERE erase_at <= ?";
                let due: Vec<String> = conn.rows(sql, [now_ms()], |row| row.get(0))?;
                due.iter().try_for_each(|name| begin(conn, name))
            })?;
            self.reload()?;
        }
        self.read(|conn| {
            // Sessions of its devices have ended by then, on all relays.
            let sql = "SELECT account FROM erasure WHERE account IS NOT NULL AND at <= ?";
            let accounts: Vec<String> = conn.rows(sql, [now_ms() - grace()], |row| row.get(0))?;
            let kept = |account: String| {
                let sql = "SELECT id FROM shared_space WHERE log_of = ?";
                let kept = conn.rows(sql, [&account], |row| row.get::<Vec<u8>>(0))?;
                let kept = kept.iter().filter_map(|id| SpaceId::from_slice(id)).collect();
                Ok(Erasing { account, kept })
            };
            accounts.into_iter().map(kept).collect()
        })
    }

    /// Spaces of erased accounts whose logs are kept under another name, with that name, and leave.
    pub(crate) fn erasing_spaces(&self) -> Result<Vec<(String, SpaceId)>> {
        let sql = "SELECT log_of, id FROM erasing_space WHERE at <= ?";
        let rows = self.rows(sql, [now_ms() - grace()], |row| Ok((row.get(0)?, row.get::<Vec<u8>>(1)?)))?;
        Ok(rows.into_iter().filter_map(|(of, id)| Some((of, SpaceId::from_slice(&id)?))).collect())
    }

    /// The log of such a space has left.
    pub(crate) fn end_erasure_of_space(&self, space: SpaceId) -> Result<()> {
        let sql = "DELETE FROM erasing_space WHERE id = ?";
        self.write(|conn| conn.execute(sql, [space.as_bytes()])).map(drop)
    }

    /// Whether the logs of an account leave.
    pub(crate) fn is_erasing(&self, account: &str) -> Result<bool> {
        self.read(|conn| is_erasing(conn, account))
    }

    /// The logs of an account have left.
    pub(crate) fn end_erasure(&self, account: &str) -> Result<()> {
        self.write(|conn| {
            let sql = "UPDATE erasure SET account = NULL WHERE account = ?";
            if conn.execute(sql, [account])? > 0 {
                By(Actor::Relay).note(conn, "", Action::LogsErased, "")?;
            }
            Ok(())
        })?;
        self.lock().empty_log();
        Ok(())
    }
}

fn grace() -> i64 {
    i64::try_from(limits::ERASURE_GRACE.as_millis()).unwrap_or(i64::MAX)
}

/// Removes what the accounts have of one, and notes that its logs are to leave.
fn begin(conn: &Sql<'_>, name: &str) -> sql::Result<()> {
    // Those that somebody else has made and handed over.
    let sql = "INSERT INTO erasing_space (id, log_of, at)
               SELECT id, log_of, CAST(?2 AS bigint) FROM shared_space WHERE owner = ?1 AND log_of <> ?1";
    conn.execute(sql, params![name, now_ms()])?;
    // Not as of an account that is only removed: whoever it was may begin anew.
    conn.execute("DELETE FROM identity WHERE account = ?", [name])?;
    super::remove_rows(conn, name)?;
    conn.execute("DELETE FROM audit WHERE account = ?", [name])?;
    conn.execute("UPDATE audit SET member = '' WHERE member = ?", [name])?;
    let sql = "INSERT INTO erasure (hash, account, at) VALUES (?, ?, ?)
               ON CONFLICT (hash) DO UPDATE SET account = excluded.account, at = excluded.at";
    conn.execute(sql, params![hash(name), name, now_ms()])?;
    By(Actor::Relay).note(conn, "", Action::AccountErased, "")
}

/// Whether logs of an account of this name still leave.
pub(super) fn is_erasing(conn: &Sql<'_>, name: &str) -> sql::Result<bool> {
    conn.exists("SELECT 1 FROM erasure WHERE account = ?", [name])
}

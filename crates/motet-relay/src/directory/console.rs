//! Links with which people sign in to the console: good once, for a short time. Only hashes of them are kept.

use super::sql::{self, OptionalExtension, Sql, params};
use motet_proto::device_key::PublicKey;

use super::audit::{Action, Actor, By};
use super::{Directory, DirectoryError, Result, composed, hash, later, now_ms, secret, spaces::has_account};
use crate::limits;

/// What the secret of a link begins with, so that people and scanners of leaked secrets know one.
const LINK_PREFIX: &str = "motet-console-";

/// Whom a link signs in to the console.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConsoleHolder {
    /// Whoever runs the relay.
    Operator,
    /// Whoever has an account.
    #[non_exhaustive]
    Account {
        /// Its name.
        name: String,
        /// When it was added: an account that is added later under the same name is another one.
        since: i64,
        /// The device that made the link, if one did: with it the sign-in ends.
        device: Option<PublicKey>,
    },
}

impl Directory {
    /// Makes a link to the console for an account, or for the operator, and returns its secret, which is shown once and stands nowhere. `device`:
    /// which one of the account has asked for it.
    ///
    /// # Errors
    /// [`DirectoryError::NoAccount`], [`DirectoryError::Random`], [`DirectoryError::File`].
    pub fn create_console_link(&self, account: Option<&str>, device: Option<&PublicKey>) -> Result<String> {
        let account = account.map(composed);
        let link = secret::<32>(LINK_PREFIX)?;
        let now = now_ms();
        let expires_at = later(now, limits::CONSOLE_LINK_LIFETIME);
        self.attempt(|conn| {
            conn.execute("DELETE FROM console_link WHERE expires_at <= ?", [now])?;
            if let Some(name) = &account
                && !has_account(conn, name)?
            {
                return Ok(Err(DirectoryError::NoAccount(name.clone())));
            }
            let sql = "INSERT INTO console_link (hash, account, device, expires_at) VALUES (?, ?, ?, ?)";
            conn.execute(sql, params![hash(&link), account, device.map(|key| key.0), expires_at])?;
            let sql = "DELETE FROM console_link WHERE account IS NOT DISTINCT FROM ?1 AND hash NOT IN (
                         SELECT hash FROM console_link WHERE account IS NOT DISTINCT FROM ?1 ORDER BY expires_at DESC, hash LIMIT ?2)";
            conn.execute(sql, params![account, limits::CONSOLE_LINKS])?;
            let by = By(if account.is_some() && device.is_some() { Actor::Account } else { Actor::Operator });
            let of = account.as_deref().unwrap_or_default();
            by.note(conn, of, Action::ConsoleLinkCreated, "").map(Ok)
        })??;
        Ok(link)
    }

    /// Whom a link signs in, without using it; `None` if it is not good, or not any more.
    ///
    /// # Errors
    /// [`DirectoryError::File`].
    pub fn console_link(&self, link: &str) -> Result<Option<ConsoleHolder>> {
        self.read(|conn| find(conn, link, now_ms()))
    }

    /// The same, and uses it.
    ///
    /// # Errors
    /// [`DirectoryError::File`].
    pub fn redeem_console_link(&self, link: &str) -> Result<Option<ConsoleHolder>> {
        self.write(|conn| {
            let found = find(conn, link, now_ms())?;
            conn.execute("DELETE FROM console_link WHERE hash = ?", [hash(link)])?;
            Ok(found)
        })
    }

    /// Whether somebody who has signed in to the console may stay: the account is there, and the device that made the link is signed in.
    ///
    /// # Errors
    /// [`DirectoryError::File`].
    pub fn is_console_holder(&self, holder: &ConsoleHolder) -> Result<bool> {
        let ConsoleHolder::Account { name, since, device } = holder else { return Ok(true) };
        self.read(|conn| {
            let account = "SELECT 1 FROM account WHERE name = ? AND created_at = ?";
            if !conn.exists(account, params![name, since])? {
                return Ok(false);
            }
            let Some(device) = device else { return Ok(true) };
            let sql = "SELECT 1 FROM device WHERE key = ? AND account = ? AND revoked_at IS NULL";
            conn.exists(sql, params![device.0, name])
        })
    }
}

/// Whom a link signs in.
fn find(conn: &Sql<'_>, link: &str, now: i64) -> sql::Result<Option<ConsoleHolder>> {
    let sql = "SELECT l.account, a.created_at, l.device, d.key IS NOT NULL FROM console_link l
               LEFT JOIN account a ON a.name = l.account
               LEFT JOIN device d ON d.key = l.device AND d.account = l.account AND d.revoked_at IS NULL
               WHERE l.hash = ? AND l.expires_at > ?";
    let found = conn.query_row(sql, params![hash(link), now], |row| {
        let account: Option<String> = row.get(0)?;
        let (since, device): (Option<i64>, Option<[u8; 32]>) = (row.get(1)?, row.get(2)?);
        let is_signed_in: bool = row.get(3)?;
        Ok(match (account, since, device) {
            (None, ..) => Some(ConsoleHolder::Operator),
            (Some(_), _, Some(_)) if !is_signed_in => None,
            (Some(name), Some(since), key) => {
                Some(ConsoleHolder::Account { name, since, device: key.map(PublicKey) })
            }
            (Some(_), None, _) => None,
        })
    });
    Ok(found.optional()?.flatten())
}

//! Keys with which devices sign in.

use std::time::Duration;

use super::audit::{Action, Actor, By};
use super::sql::{NONE, OptionalExtension, params};

use super::{
    Directory, DirectoryError, Result, composed, hash, hex, later, now_ms, secret, spaces::has_account,
};

/// What a sign-in key begins with, so that people and scanners of leaked secrets know one.
const KEY_PREFIX: &str = "motet-key-";

/// A key with which devices sign in to an account.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SignInKey {
    /// Names it in lists; not the key.
    pub id: String,
    /// The account.
    pub account: String,
    /// When it was made, in milliseconds since 1970.
    pub created_at: i64,
    /// Until when it is good, in milliseconds since 1970; `None`: until it is revoked.
    pub expires_at: Option<i64>,
    /// Any number of devices sign in with it, and not just one.
    pub is_reusable: bool,
    /// Devices that have signed in with it.
    pub used: u64,
}

impl Directory {
    /// Makes a key with which devices sign in to an account: one device, or any number. It is shown once and stands nowhere.
    ///
    /// # Errors
    /// [`DirectoryError::NoAccount`], [`DirectoryError::Random`], [`DirectoryError::File`].
    pub fn create_key(
        &self,
        account: &str,
        expires_after: Option<Duration>,
        is_reusable: bool,
    ) -> Result<String> {
        let account = &*composed(account);
        let key = secret::<32>(KEY_PREFIX)?;
        let now = now_ms();
        let expires_at = expires_after.map(|after| later(now, after));
        self.attempt(|conn| {
            if !has_account(conn, account)? {
                return Ok(Err(DirectoryError::NoAccount(account.to_owned())));
            }
            let sql = "INSERT INTO sign_in_key (hash, account, created_at, expires_at, is_reusable) VALUES (?, ?, ?, ?, ?)";
            conn.execute(sql, params![hash(&key), account, now, expires_at, is_reusable])?;
            By(Actor::Operator).note(conn, account, Action::KeyCreated, &short(&hash(&key))).map(Ok)
        })??;
        Ok(key)
    }

    /// The sign-in keys that are good or were, the latest first.
    ///
    /// # Errors
    /// [`DirectoryError::File`].
    pub fn keys(&self) -> Result<Vec<SignInKey>> {
        let sql = "SELECT hash, account, created_at, expires_at, is_reusable, used FROM sign_in_key
                   ORDER BY created_at DESC, hash";
        self.rows(sql, NONE, |row| {
            Ok(SignInKey {
                id: row.get::<Vec<u8>>(0).map(|hash| short(&hash))?,
                account: row.get(1)?,
                created_at: row.get(2)?,
                expires_at: row.get(3)?,
                is_reusable: row.get(4)?,
                used: row.get::<i64>(5)? as u64,
            })
        })
    }

    /// Lets nobody sign in with a key any more. Devices that have are not affected.
    ///
    /// # Errors
    /// [`DirectoryError::NoKey`], [`DirectoryError::Ambiguous`], [`DirectoryError::File`].
    pub fn revoke_key(&self, id: &str) -> Result<()> {
        let id = id.to_ascii_lowercase();
        let found = self.rows("SELECT hash FROM sign_in_key", NONE, |row| row.get::<Vec<u8>>(0))?;
        let mut found = found.into_iter().filter(|hash| !id.is_empty() && hex(hash).starts_with(&id));
        let hash = found.next().ok_or_else(|| DirectoryError::NoKey(id.clone()))?;
        if found.next().is_some() {
            return Err(DirectoryError::Ambiguous(id));
        }
        self.write(|conn| {
            let sql = "SELECT account FROM sign_in_key WHERE hash = ?";
            let account: Option<String> = conn.query_row(sql, [&hash], |row| row.get(0)).optional()?;
            // Another program may have revoked it a moment ago.
            let Some(account) = account else { return Ok(()) };
            conn.execute("DELETE FROM sign_in_key WHERE hash = ?", [&hash])?;
            By(Actor::Operator).note(conn, &account, Action::KeyRevoked, &short(&hash))
        })
    }
}

/// What names a key in lists.
fn short(hash: &[u8]) -> String {
    hex(&hash[..4.min(hash.len())])
}

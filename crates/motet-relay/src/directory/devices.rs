//! Devices that have signed in, and those that do.

use std::sync::PoisonError;

use super::sql::{self, OptionalExtension, Row, Sql, params};
use motet_proto::device_key::PublicKey;
use motet_proto::{AccountId, DeviceId};

use super::audit::{Action, Actor, By};
use super::identities::{account_for, note_used};
use super::{Directory, DirectoryError, Result, check_name, composed, hash, now_ms};
use crate::auth::{RegisterError, Registration};
use crate::identity::Identity;
use crate::limits;
use crate::own_account::Device;

impl Directory {
    /// The devices of an account, or of all: those that are signed in first, by account, each with the one seen last in front.
    ///
    /// # Errors
    /// [`DirectoryError::NoAccount`], [`DirectoryError::File`].
    pub fn devices(&self, account: Option<&str>) -> Result<Vec<Device>> {
        let account = account.map(composed);
        if let Some(name) = &account {
            let found = self.rows("SELECT 1 FROM account WHERE name = ?", [name], |_| Ok(()))?;
            found.first().ok_or_else(|| DirectoryError::NoAccount(name.clone()))?;
        }
        let sql =
            "SELECT account, id, name, platform, version, registered_at, last_seen_at, revoked_at FROM device
                   WHERE account = COALESCE(?, account) ORDER BY revoked_at IS NOT NULL, account, last_seen_at DESC, key";
        self.rows(sql, [account], device)
    }

    /// Signs a device out, by the beginning of its id: its sessions end within [`TOKENS_LOOKED_AT_EVERY`](limits::TOKENS_LOOKED_AT_EVERY), and it is
    /// not let in again until it signs in anew. What it had not sent stays on it. One that has signed in to several accounts is signed out of all of
    /// them, if none is named. Returns it as it was in each.
    ///
    /// # Errors
    /// [`DirectoryError::NoDevice`], [`DirectoryError::Ambiguous`], [`DirectoryError::File`].
    pub fn revoke_device(&self, id: &str, account: Option<&str>) -> Result<Vec<Device>> {
        self.revoke_device_by(id, account, By(Actor::Operator))
    }

    pub(super) fn revoke_device_by(&self, id: &str, account: Option<&str>, by: By) -> Result<Vec<Device>> {
        let devices = self.named(id, account)?;
        let sql = "UPDATE device SET revoked_at = ? WHERE account = ? AND id = ? AND revoked_at IS NULL";
        self.write(|conn| {
            devices.iter().try_for_each(|d| {
                if conn.execute(sql, params![now_ms(), d.account, d.id.as_bytes()])? > 0 {
                    by.note(conn, &d.account, Action::DeviceSignedOut, &d.id.to_string())?;
                }
                Ok(())
            })
        })?;
        self.reload_devices()?;
        Ok(devices)
    }

    /// Signs out the device that has proven this key.
    pub(super) fn revoke_key_of_device(&self, key: &PublicKey) -> Result<()> {
        self.write(|conn| {
            let sql = "SELECT account, id FROM device WHERE key = ? AND revoked_at IS NULL";
            let found: Option<(String, [u8; DeviceId::LEN])> =
                conn.query_row(sql, [key.0], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
            let Some((account, id)) = found else { return Ok(()) };
            conn.execute("UPDATE device SET revoked_at = ? WHERE key = ?", params![now_ms(), key.0])?;
            let device = DeviceId(id);
            By(Actor::Device(device)).note(conn, &account, Action::DeviceSignedOut, &device.to_string())
        })?;
        self.reload_devices()
    }

    /// Gives a device another name, by the beginning of its id, in each account that it has signed in to if none is named.
    ///
    /// # Errors
    /// [`DirectoryError::BadName`], [`DirectoryError::NoDevice`], [`DirectoryError::Ambiguous`], [`DirectoryError::File`].
    pub fn rename_device(&self, id: &str, account: Option<&str>, name: &str) -> Result<Vec<Device>> {
        self.rename_device_by(id, account, name, By(Actor::Operator))
    }

    pub(super) fn rename_device_by(
        &self,
        id: &str,
        account: Option<&str>,
        name: &str,
        by: By,
    ) -> Result<Vec<Device>> {
        check_name(name)?;
        let devices = self.named(id, account)?;
        let sql = "UPDATE device SET name = ? WHERE account = ? AND id = ? AND revoked_at IS NULL";
        self.write(|conn| {
            devices.iter().try_for_each(|d| {
                if conn.execute(sql, params![name, d.account, d.id.as_bytes()])? > 0 {
                    by.note(conn, &d.account, Action::DeviceRenamed, &d.id.to_string())?;
                }
                Ok(())
            })
        })?;
        Ok(devices)
    }

    /// Registers a device with a sign-in key, or with an identity that its token has proven. The same registration again, after a reply that was lost, does not use the key again.
    pub(super) fn register(
        &self,
        new: &Registration,
        identity: Option<&Identity>,
    ) -> std::result::Result<String, RegisterError> {
        let outcome = self.attempt(|conn| add_device(conn, new, identity, now_ms()));
        let outcome = outcome.unwrap_or_else(|error| {
            tracing::error!(%error, "a device cannot be registered");
            Err(RegisterError::Unavailable)
        });
        let is_known = self.known.read().unwrap_or_else(PoisonError::into_inner).contains_key(&new.key);
        if outcome.is_ok()
            && !is_known
            && let Err(error) = self.reload_devices()
        {
            tracing::error!(%error, "a device that was registered is let in later");
        }
        outcome
    }

    /// The device that is signed in whose id begins so, in each account that it has signed in to.
    fn named(&self, id: &str, account: Option<&str>) -> Result<Vec<Device>> {
        let id = id.to_ascii_lowercase();
        let mut found = self.devices(account)?;
        found.retain(|device| {
            device.revoked_at.is_none() && !id.is_empty() && device.id.to_string().starts_with(&id)
        });
        let first = found.first().ok_or_else(|| DirectoryError::NoDevice(id.clone()))?.id;
        match found.iter().all(|device| device.id == first) {
            true => Ok(found),
            false => Err(DirectoryError::Ambiguous(id)),
        }
    }
}

type Registered = sql::Result<std::result::Result<String, RegisterError>>;

fn add_device(conn: &Sql<'_>, new: &Registration, identity: Option<&Identity>, now: i64) -> Registered {
    let Some(identity) = identity else { return add_with_key(conn, new, now) };
    let account = match account_for(conn, identity, new.bound_to.is_some(), now)? {
        Ok(account) => account,
        Err(error) => return Ok(Err(error)),
    };
    if let Some(known) = known(conn, new, &account)? {
        let reason = "this device was signed out, or is one of another account; begin the sign-in anew";
        return Ok(known.map_err(|error| match error {
            RegisterError::Invalid => RegisterError::IdentityRefused(reason.into()),
            error => error,
        }));
    }
    let added = insert(conn, new, account, now)?;
    if added.is_ok() {
        note_used(conn, identity, now)?;
    }
    Ok(added)
}

fn add_with_key(conn: &Sql<'_>, new: &Registration, now: i64) -> Registered {
    let hash = hash(&new.credential);
    let sql = "SELECT account, expires_at, is_reusable, used FROM sign_in_key WHERE hash = ?";
    let found = conn.query_row(sql, [hash], |row| {
        Ok((row.get::<String>(0)?, row.get::<Option<i64>>(1)?, row.get::<bool>(2)?, row.get::<i64>(3)?))
    });
    let Some((account, expires_at, is_reusable, used)) = found.optional()? else {
        return Ok(Err(RegisterError::Invalid));
    };
    if let Some(known) = known(conn, new, &account)? {
        return Ok(known);
    }
    if expires_at.is_some_and(|at| at <= now) {
        return Ok(Err(RegisterError::Expired));
    }
    if !is_reusable && used > 0 {
        return Ok(Err(RegisterError::Used));
    }
    let added = insert(conn, new, account, now)?;
    if added.is_ok() {
        conn.execute("UPDATE sign_in_key SET used = used + 1 WHERE hash = ?", [hash])?;
    }
    Ok(added)
}

/// What is said to a device that is not to be added: it is known already, or may not be one of this account.
fn known(
    conn: &Sql<'_>,
    new: &Registration,
    account: &str,
) -> sql::Result<Option<std::result::Result<String, RegisterError>>> {
    if new.bound_to.is_some_and(|bound| bound != AccountId::derive(account)) {
        return Ok(Some(Err(RegisterError::OtherAccount(account.to_owned()))));
    }
    let sql = "SELECT account, id, revoked_at FROM device WHERE key = ?";
    let same = conn.query_row(sql, [new.key.0], |row| {
        Ok((row.get::<String>(0)?, row.get::<Vec<u8>>(1)?, row.get::<Option<i64>>(2)?))
    });
    Ok(match same.optional()? {
        Some((of, id, None)) if of == account && id == new.device.as_bytes() => Some(Ok(of)),
        // A key that was signed out, or is somebody else's, does not come back.
        Some(_) => Some(Err(RegisterError::Invalid)),
        None => None,
    })
}

fn insert(conn: &Sql<'_>, new: &Registration, account: String, now: i64) -> Registered {
    let sql = "UPDATE device SET revoked_at = ? WHERE account = ? AND id = ? AND revoked_at IS NULL";
    conn.execute(sql, params![now, account, new.device.as_bytes()])?;
    let sql = "SELECT COUNT(*) FROM device WHERE account = ? AND revoked_at IS NULL";
    let devices: i64 = conn.query_row(sql, [&account], |row| row.get(0))?;
    if devices >= limits::DEVICES_PER_ACCOUNT {
        return Ok(Err(RegisterError::TooManyDevices));
    }
    let sql = "INSERT INTO device (key, account, id, name, platform, version, registered_at, last_seen_at)
               VALUES (?, ?, ?, ?, ?, ?, ?7, ?7)";
    let Registration { key, device, name, platform, version, .. } = new;
    conn.execute(sql, params![key.0, account, device.as_bytes(), name, platform, version, now])?;
    // What was signed out long ago tells nobody anything.
    let sql = "DELETE FROM device WHERE account = ?1 AND revoked_at IS NOT NULL AND key NOT IN (
                 SELECT key FROM device WHERE account = ?1 AND revoked_at IS NOT NULL ORDER BY revoked_at DESC LIMIT ?2)";
    conn.execute(sql, params![account, limits::DEVICES_PER_ACCOUNT])?;
    By(Actor::Device(*device)).note(conn, &account, Action::DeviceSignedIn, &device.to_string())?;
    Ok(Ok(account))
}

fn device(row: &Row) -> sql::Result<Device> {
    let id: Vec<u8> = row.get(1)?;
    Ok(Device {
        account: row.get(0)?,
        id: DeviceId::from_slice(&id).unwrap_or(DeviceId([0; DeviceId::LEN])),
        name: row.get(2)?,
        platform: row.get(3)?,
        version: row.get(4)?,
        registered_at: row.get(5)?,
        last_seen_at: row.get(6)?,
        revoked_at: row.get(7)?,
    })
}

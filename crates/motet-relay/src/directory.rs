//! Accounts and their devices, in a file of the relay's data folder: [`Directory`].
//!
//! An operator adds an account and makes a sign-in key for it; a device registers its public key with that, and proves with each
//! connection that it has the secret half. The file may be written to while a relay runs: programs that do see each other's changes, and
//! [`Directory::refresh`] takes them up.

mod members;
mod spaces;

use std::collections::HashMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use motet_proto::device_key::PublicKey;
use motet_proto::{DeviceId, SpaceId};
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, TransactionBehavior, params};
use tokio::sync::watch;

use crate::auth::{RegisterError, Registration};
use crate::limits;
pub use members::Members;
use spaces::KnownSpace;
pub use spaces::SharedSpace;

/// The file inside of the data folder.
const FILE: &str = "accounts.db";

/// Tells the file from one of another program, and its format.
const APPLICATION_ID: i64 = 0x6d74_6163;
const FORMAT: i64 = 1;

/// What a sign-in key begins with, so that people and scanners of leaked secrets know one.
const KEY_PREFIX: &str = "motet-key-";

/// Accounts, sign-in keys and devices. `Debug` shows the path.
pub struct Directory {
    path: PathBuf,
    conn: Mutex<Connection>,
    /// The devices that are let in, by what they prove.
    known: RwLock<HashMap<PublicKey, Known>>,
    /// The spaces that accounts share.
    spaces: RwLock<HashMap<SpaceId, KnownSpace>>,
    /// Told when somebody may do something else with a space.
    changes: watch::Sender<()>,
    /// What SQLite counts up when another program has written.
    version: Mutex<Option<i64>>,
    /// When devices were seen that the file does not say so of yet.
    seen: Mutex<HashMap<PublicKey, i64>>,
}

/// A device, for whoever has to decide whether to let it in.
#[derive(Clone, Debug)]
struct Known {
    account: String,
    device: DeviceId,
    is_revoked: bool,
    /// As the file says.
    last_seen_at: i64,
}

/// An account.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Account {
    /// Its name, under which its logs are kept. It does not change.
    pub name: String,
    /// When it was added, in milliseconds since 1970.
    pub created_at: i64,
    /// Devices that are signed in.
    pub devices: u64,
}

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

/// A device of an account.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Device {
    /// The account.
    pub account: String,
    /// Its id, as its entries name it.
    pub id: DeviceId,
    /// What people call it.
    pub name: String,
    /// What it runs on, as it said itself.
    pub platform: String,
    /// The program that signed it in, and which version, as it said itself.
    pub version: String,
    /// When it signed in, in milliseconds since 1970.
    pub registered_at: i64,
    /// When it last connected, in milliseconds since 1970, to within [`SEEN_KEPT_EVERY`](limits::SEEN_KEPT_EVERY).
    pub last_seen_at: i64,
    /// When it was signed out, in milliseconds since 1970.
    pub revoked_at: Option<i64>,
}

/// Why something is not done with the accounts. What was there stays as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DirectoryError {
    /// The file cannot be opened, read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// The file is one of another program.
    #[error("{} is no file of accounts of a relay", .0.display())]
    Foreign(PathBuf),
    /// A later version has written the file.
    #[error("{} has format {found}, and this version knows {FORMAT}: update the relay", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: i64,
    },
    /// There are no accounts in this folder.
    #[error("{} has no accounts: begin with `motet-relay account add NAME`", .0.display())]
    NoAccounts(PathBuf),
    /// What is no name of an account, or of a device.
    #[error(
        "{0:?} is no name: it has 1 to 64 characters, none of them a control character, and no blank at either end"
    )]
    BadName(String),
    /// There is an account of this name.
    #[error("there is an account {0:?} already")]
    AccountExists(String),
    /// There is no account of this name.
    #[error("there is no account {0:?}")]
    NoAccount(String),
    /// There is no such key, or several begin like that.
    #[error("{0:?} names no sign-in key, or more than one")]
    NoKey(String),
    /// There is no such space, or several are called like that.
    #[error("{0:?} names no shared space, or more than one")]
    NoSpace(String),
    /// The account shares a space of this name already.
    #[error("the account shares a space {0:?} already")]
    SpaceExists(String),
    /// The account is no member of the space.
    #[error("{0:?} is no member of it")]
    NoMember(String),
    /// The account owns the space.
    #[error("{0:?} owns it: members read, or write as well")]
    IsOwner(String),
    /// There is no such device, or several begin like that.
    #[error("{0:?} names no device that is signed in, or more than one")]
    NoDevice(String),
    /// The system has no randomness.
    #[error("the system gives no random numbers: {0}")]
    Random(String),
}

impl DirectoryError {
    /// Stable code for logs and scripts.
    pub fn code(&self) -> &'static str {
        match self {
            Self::File { .. } => "accounts-file",
            Self::Foreign(_) => "accounts-foreign",
            Self::Newer { .. } => "accounts-newer",
            Self::NoAccounts(_) => "accounts-none",
            Self::BadName(_) => "accounts-bad-name",
            Self::AccountExists(_) => "accounts-exists",
            Self::NoAccount(_) => "accounts-no-account",
            Self::NoKey(_) => "accounts-no-key",
            Self::NoSpace(_) => "accounts-no-space",
            Self::SpaceExists(_) => "accounts-space-exists",
            Self::NoMember(_) => "accounts-no-member",
            Self::IsOwner(_) => "accounts-is-owner",
            Self::NoDevice(_) => "accounts-no-device",
            Self::Random(_) => "accounts-random",
        }
    }

    /// Whether the same call may succeed later without anything being changed.
    pub fn is_retryable(&self) -> bool {
        use rusqlite::ErrorCode::{DatabaseBusy, DatabaseLocked, DiskFull};
        let Self::File { source, .. } = self else { return false };
        matches!(source.sqlite_error_code(), Some(DatabaseBusy | DatabaseLocked | DiskFull))
    }
}

type Result<T> = std::result::Result<T, DirectoryError>;

impl Directory {
    /// Opens the accounts of a relay whose data is in `folder`; without any a file is made, and the folder if needed.
    ///
    /// # Errors
    /// [`DirectoryError::File`], [`DirectoryError::Foreign`] or [`DirectoryError::Newer`].
    pub fn open(folder: &Path) -> Result<Self> {
        let path = folder.join(FILE);
        let made = crate::store::make_private(folder, FILE);
        made.map_err(|e| file_error(&path, io_error(&e)))?;
        Self::open_file(path)
    }

    /// The same, of a relay that has accounts; `None` if it has none.
    ///
    /// # Errors
    /// As of [`open`](Self::open).
    pub fn open_existing(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(FILE);
        if path.exists() { Self::open_file(path).map(Some) } else { Ok(None) }
    }

    fn open_file(path: PathBuf) -> Result<Self> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let opened = Connection::open_with_flags(&path, flags).and_then(|mut conn| {
            conn.busy_timeout(limits::BUSY_TIMEOUT)?;
            conn.pragma_update(None, "foreign_keys", true)?;
            conn.pragma_update(None, "trusted_schema", false)?;
            conn.pragma_update(None, "secure_delete", true)?;
            let number =
                |conn: &Connection, name| conn.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
            let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let tables: i64 = tx.query_row("SELECT COUNT(*) FROM sqlite_schema", [], |row| row.get(0))?;
            if tables == 0 {
                tx.execute_batch(include_str!("directory/schema.sql"))?;
                tx.pragma_update(None, "application_id", APPLICATION_ID)?;
                tx.pragma_update(None, "user_version", FORMAT)?;
            }
            tx.commit()?;
            conn.pragma_update(None, "journal_mode", "WAL")?;
            conn.pragma_update(None, "synchronous", "FULL")?;
            let known = (number(&conn, "application_id")?, number(&conn, "user_version")?);
            Ok((conn, known))
        });
        match opened.map_err(|source| file_error(&path, source))? {
            (_, (APPLICATION_ID, found)) if found > FORMAT => Err(DirectoryError::Newer { path, found }),
            (conn, (APPLICATION_ID, _)) => {
                let directory = Self {
                    path,
                    conn: Mutex::new(conn),
                    known: RwLock::default(),
                    spaces: RwLock::default(),
                    changes: watch::Sender::new(()),
                    version: Mutex::default(),
                    seen: Mutex::default(),
                };
                directory.refresh()?;
                Ok(directory)
            }
            _ => Err(DirectoryError::Foreign(path)),
        }
    }

    /// Adds an account.
    ///
    /// # Errors
    /// [`DirectoryError::BadName`], [`DirectoryError::AccountExists`], [`DirectoryError::File`].
    pub fn add_account(&self, name: &str) -> Result<()> {
        check_name(name)?;
        let sql = "INSERT INTO account (name, created_at) VALUES (?, ?) ON CONFLICT DO NOTHING";
        match self.write(|conn| conn.execute(sql, params![name, now_ms()]))? {
            0 => Err(DirectoryError::AccountExists(name.to_owned())),
            _ => Ok(()),
        }
    }

    /// All accounts, by name.
    ///
    /// # Errors
    /// [`DirectoryError::File`].
    pub fn accounts(&self) -> Result<Vec<Account>> {
        let sql = "SELECT name, created_at, (SELECT COUNT(*) FROM device d WHERE d.account = a.name AND d.revoked_at IS NULL)
                   FROM account a ORDER BY name";
        self.rows(sql, [], |row| {
            Ok(Account { name: row.get(0)?, created_at: row.get(1)?, devices: row.get::<_, i64>(2)? as u64 })
        })
    }

    /// Removes an account with its sign-in keys, and signs its devices out. Its logs stay on the relay, and are those of an account that is
    /// added under the same name. Returns how many devices were signed in.
    ///
    /// # Errors
    /// [`DirectoryError::NoAccount`], [`DirectoryError::File`].
    pub fn remove_account(&self, name: &str) -> Result<u64> {
        let devices = self.write(|conn| {
            conn.execute("DELETE FROM sign_in_key WHERE account = ?", [name])?;
            let sql = "SELECT COUNT(*) FROM device WHERE account = ? AND revoked_at IS NULL";
            let devices: i64 = conn.query_row(sql, [name], |row| row.get(0))?;
            conn.execute("DELETE FROM device WHERE account = ?", [name])?;
            conn.execute("DELETE FROM member WHERE account = ?", [name])?;
            let removed = conn.execute("DELETE FROM account WHERE name = ?", [name])?;
            Ok((removed > 0).then_some(devices as u64))
        })?;
        self.reload()?;
        devices.ok_or_else(|| DirectoryError::NoAccount(name.to_owned()))
    }

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
        let mut random = [0; 32];
        getrandom::fill(&mut random).map_err(|e| DirectoryError::Random(e.to_string()))?;
        let key = format!("{KEY_PREFIX}{}", URL_SAFE_NO_PAD.encode(random));
        let now = now_ms();
        let expires_at = expires_after
            .map(|after| now.saturating_add(i64::try_from(after.as_millis()).unwrap_or(i64::MAX)));
        let sql = "INSERT INTO sign_in_key (hash, account, created_at, expires_at, is_reusable)
                   SELECT ?, name, ?, ?, ? FROM account WHERE name = ?";
        let row = params![hash(&key), now, expires_at, is_reusable, account];
        match self.write(|conn| conn.execute(sql, row))? {
            0 => Err(DirectoryError::NoAccount(account.to_owned())),
            _ => Ok(key),
        }
    }

    /// The sign-in keys that are good or were, the latest first.
    ///
    /// # Errors
    /// [`DirectoryError::File`].
    pub fn keys(&self) -> Result<Vec<SignInKey>> {
        let sql = "SELECT hash, account, created_at, expires_at, is_reusable, used FROM sign_in_key
                   ORDER BY created_at DESC, hash";
        self.rows(sql, [], |row| {
            Ok(SignInKey {
                id: hex(&row.get::<_, Vec<u8>>(0)?[..4.min(row.get_ref(0)?.as_blob()?.len())]),
                account: row.get(1)?,
                created_at: row.get(2)?,
                expires_at: row.get(3)?,
                is_reusable: row.get(4)?,
                used: row.get::<_, i64>(5)? as u64,
            })
        })
    }

    /// Lets nobody sign in with a key any more. Devices that have are not affected.
    ///
    /// # Errors
    /// [`DirectoryError::NoKey`], [`DirectoryError::File`].
    pub fn revoke_key(&self, id: &str) -> Result<()> {
        let place = "lower(hex(hash)) GLOB ?1 || '*'";
        let id = id.to_ascii_lowercase();
        let is_hex = id.len() >= 4 && id.bytes().all(|b| b.is_ascii_hexdigit());
        let sql = format!(
            "DELETE FROM sign_in_key WHERE {place} AND (SELECT COUNT(*) FROM sign_in_key WHERE {place}) = 1"
        );
        match is_hex.then(|| self.write(|conn| conn.execute(&sql, [&id]))).transpose()? {
            Some(1) => Ok(()),
            _ => Err(DirectoryError::NoKey(id)),
        }
    }

    /// The devices of an account, or of all: those that are signed in first, each group with the one seen last in front.
    ///
    /// # Errors
    /// [`DirectoryError::NoAccount`], [`DirectoryError::File`].
    pub fn devices(&self, account: Option<&str>) -> Result<Vec<Device>> {
        if let Some(name) = account {
            let found = self.rows("SELECT 1 FROM account WHERE name = ?", [name], |_| Ok(()))?;
            found.first().ok_or_else(|| DirectoryError::NoAccount(name.to_owned()))?;
        }
        let sql =
            "SELECT account, id, name, platform, version, registered_at, last_seen_at, revoked_at FROM device
                   WHERE ?1 IS NULL OR account = ?1 ORDER BY revoked_at IS NOT NULL, last_seen_at DESC, key";
        self.rows(sql, [account], device)
    }

    /// Signs a device out, by the beginning of its id: its sessions end within [`TOKENS_LOOKED_AT_EVERY`](limits::TOKENS_LOOKED_AT_EVERY), and it is
    /// not let in again until it signs in anew. What it had not sent stays on it.
    ///
    /// # Errors
    /// [`DirectoryError::NoDevice`], [`DirectoryError::File`].
    pub fn revoke_device(&self, id: &str) -> Result<Device> {
        let device = self.one_device(id)?;
        let now = now_ms();
        let sql = "UPDATE device SET revoked_at = ? WHERE account = ? AND id = ? AND revoked_at IS NULL";
        self.write(|conn| conn.execute(sql, params![now, device.account, device.id.as_bytes()]))?;
        self.reload()?;
        Ok(Device { revoked_at: Some(now), ..device })
    }

    /// Gives a device another name, by the beginning of its id.
    ///
    /// # Errors
    /// [`DirectoryError::BadName`], [`DirectoryError::NoDevice`], [`DirectoryError::File`].
    pub fn rename_device(&self, id: &str, name: &str) -> Result<Device> {
        check_name(name)?;
        let device = self.one_device(id)?;
        let sql = "UPDATE device SET name = ? WHERE account = ? AND id = ? AND revoked_at IS NULL";
        self.write(|conn| conn.execute(sql, params![name, device.account, device.id.as_bytes()]))?;
        Ok(Device { name: name.to_owned(), ..device })
    }

    /// Takes up what other programs have written, and writes down which devices were seen. Returns whether somebody may do something else now.
    ///
    /// # Errors
    /// [`DirectoryError::File`]; what was known stays known.
    pub fn refresh(&self) -> Result<bool> {
        let now = self.rows("PRAGMA data_version", [], |row| row.get::<_, i64>(0))?.first().copied();
        let mut version = self.version.lock().unwrap_or_else(PoisonError::into_inner);
        let has_changed = *version != now && self.reload()?;
        *version = now;
        drop(version);
        let seen = std::mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner));
        if !seen.is_empty() {
            self.write(|conn| {
                let mut put = conn
                    .prepare_cached("UPDATE device SET last_seen_at = MAX(last_seen_at, ?) WHERE key = ?")?;
                seen.iter().try_for_each(|(key, at)| put.execute(params![at, key.0]).map(drop))
            })?;
            let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
            for (key, at) in seen {
                known.entry(key).and_modify(|known| known.last_seen_at = known.last_seen_at.max(at));
            }
        }
        Ok(has_changed)
    }

    /// Reads which devices and shared spaces there are. Returns whether that has changed.
    fn reload(&self) -> Result<bool> {
        let sql = "SELECT key, account, id, revoked_at IS NOT NULL, last_seen_at FROM device";
        let rows = self.rows(sql, [], |row| {
            let bytes = |column| row.get::<_, Vec<u8>>(column);
            Ok((bytes(0)?, bytes(2)?, row.get(1)?, row.get(3)?, row.get(4)?))
        })?;
        let mut now = HashMap::with_capacity(rows.len());
        for (key, id, account, is_revoked, last_seen_at) in rows {
            let (Ok(key), Some(device)) = (key.try_into(), DeviceId::from_slice(&id)) else {
                tracing::error!(path = %self.path.display(), "a device has no key or id, and is not let in");
                continue;
            };
            now.insert(PublicKey(key), Known { account, device, is_revoked, last_seen_at });
        }
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let is_same = |(key, now): (&PublicKey, &Known)| {
            known.get(key).is_some_and(|was| {
                (&was.account, was.device, was.is_revoked) == (&now.account, now.device, now.is_revoked)
            })
        };
        let has_changed = known.len() != now.len() || !now.iter().all(is_same);
        *known = now;
        drop(known);
        let spaces = self.read_spaces()?;
        let mut known = self.spaces.write().unwrap_or_else(PoisonError::into_inner);
        let are_others = *known != spaces;
        *known = spaces;
        drop(known);
        if are_others {
            self.changes.send_replace(());
        }
        Ok(has_changed || are_others)
    }

    /// Registers a device with a sign-in key. The same registration again, after a reply that was lost, does not use the key again.
    pub(crate) fn register(&self, new: &Registration) -> std::result::Result<String, RegisterError> {
        let outcome = self.write(|conn| add_device(conn, new, now_ms()));
        let outcome = outcome.unwrap_or_else(|error| {
            tracing::error!(%error, "a device cannot be registered");
            Err(RegisterError::Unavailable)
        });
        if outcome.is_ok()
            && let Err(error) = self.reload()
        {
            tracing::error!(%error, "a device that was registered is let in later");
        }
        outcome
    }

    fn one_device(&self, id: &str) -> Result<Device> {
        let sql =
            "SELECT account, id, name, platform, version, registered_at, last_seen_at, revoked_at FROM device
                   WHERE revoked_at IS NULL AND lower(hex(id)) GLOB ?1 || '*'";
        let id = id.to_ascii_lowercase();
        let is_hex = id.len() >= 4 && id.bytes().all(|b| b.is_ascii_hexdigit());
        let found = if is_hex { self.rows(sql, [&id], device)? } else { Vec::new() };
        let [device] = &found[..] else { return Err(DirectoryError::NoDevice(id)) };
        Ok(device.clone())
    }

    fn write<T>(&self, write: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T> {
        let mut conn = self.lock();
        let done = conn.transaction_with_behavior(TransactionBehavior::Immediate).and_then(|tx| {
            let done = write(&tx)?;
            tx.commit().map(|()| done)
        });
        done.map_err(|source| file_error(&self.path, source))
    }

    fn rows<T>(
        &self,
        sql: &str,
        params: impl rusqlite::Params,
        of: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>> {
        let conn = self.lock();
        let read =
            || -> rusqlite::Result<Vec<T>> { conn.prepare_cached(sql)?.query_map(params, of)?.collect() };
        read().map_err(|source| file_error(&self.path, source))
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.conn.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Directory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Directory").field("path", &self.path).finish_non_exhaustive()
    }
}

fn add_device(
    conn: &Connection,
    new: &Registration,
    now: i64,
) -> rusqlite::Result<std::result::Result<String, RegisterError>> {
    let hash = hash(&new.sign_in_key);
    let sql = "SELECT account, expires_at, is_reusable, used FROM sign_in_key WHERE hash = ?";
    let found = conn.query_row(sql, [hash], |row| {
        Ok((
            row.get::<_, String>(0)?,
            row.get::<_, Option<i64>>(1)?,
            row.get::<_, bool>(2)?,
            row.get::<_, i64>(3)?,
        ))
    });
    let Some((account, expires_at, is_reusable, used)) = found.optional()? else {
        return Ok(Err(RegisterError::Invalid));
    };
    let sql = "SELECT account, id, revoked_at FROM device WHERE key = ?";
    let same = conn.query_row(sql, [new.key.0], |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, Vec<u8>>(1)?, row.get::<_, Option<i64>>(2)?))
    });
    match same.optional()? {
        Some((of, id, None)) if of == account && id == new.device.as_bytes() => return Ok(Ok(account)),
        // A key that was signed out, or is somebody else's, does not come back.
        Some(_) => return Ok(Err(RegisterError::Invalid)),
        None => {}
    }
    if expires_at.is_some_and(|at| at <= now) {
        return Ok(Err(RegisterError::Expired));
    }
    if !is_reusable && used > 0 {
        return Ok(Err(RegisterError::Used));
    }
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
    conn.execute("UPDATE sign_in_key SET used = used + 1 WHERE hash = ?", [hash])?;
    // What was signed out long ago tells nobody anything.
    let sql = "DELETE FROM device WHERE account = ?1 AND revoked_at IS NOT NULL AND key NOT IN (
                 SELECT key FROM device WHERE account = ?1 AND revoked_at IS NOT NULL ORDER BY revoked_at DESC LIMIT ?2)";
    conn.execute(sql, params![account, limits::DEVICES_PER_ACCOUNT])?;
    Ok(Ok(account))
}

fn device(row: &Row<'_>) -> rusqlite::Result<Device> {
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

fn check_name(name: &str) -> Result<()> {
    let is_name = (1..=64).contains(&name.chars().count())
        && name.trim() == name
        && !name.chars().any(char::is_control);
    if is_name { Ok(()) } else { Err(DirectoryError::BadName(name.chars().take(80).collect())) }
}

fn file_error(path: &Path, source: rusqlite::Error) -> DirectoryError {
    DirectoryError::File { path: path.to_owned(), source }
}

/// Why a file cannot be made, as SQLite would say it.
fn io_error(error: &std::io::Error) -> rusqlite::Error {
    let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CANTOPEN);
    rusqlite::Error::SqliteFailure(code, Some(error.to_string()))
}

fn hash(key: &str) -> [u8; 32] {
    *blake3::hash(key.as_bytes()).as_bytes()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        _ = write!(text, "{byte:02x}");
        text
    })
}

/// By the clock of this machine.
pub(crate) fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

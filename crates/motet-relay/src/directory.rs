//! Accounts and their devices, in a file of the relay's data folder, or in a database that several relays have: [`Directory`].
//!
//! An operator adds an account and makes a sign-in key for it; a device registers its public key with that, and proves with each
//! connection that it has the secret half. The file may be written to while a relay runs: programs that do see each other's changes, and
//! [`Directory::refresh`] takes them up.

mod audit;
mod console;
mod devices;
mod erasure;
mod error;
mod identities;
mod invites;
mod keys;
mod members;
mod own_account;
#[cfg(feature = "postgres")]
mod server;
mod sharing;
mod spaces;
mod sql;

use std::collections::HashMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use motet_proto::device_key::PublicKey;
use motet_proto::{DeviceId, SpaceId};
use rusqlite::{Connection, OpenFlags, TransactionBehavior};
use tokio::sync::watch;
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

use crate::limits;
pub use crate::own_account::{AuditRecord, Device, LinkedIdentity};
pub use crate::sharing::Invite;
use crate::store::sqlite::{Stored, stored};
pub use audit::Actor;
use audit::{Action, By};
pub use console::ConsoleHolder;
pub(crate) use erasure::Erasing;
pub use error::DirectoryError;
pub use keys::SignInKey;
pub use members::Members;
use spaces::KnownSpace;
pub use spaces::SharedSpace;
pub use sql::SqlError;
use sql::{Database, Ends, NONE, Params, Row, Sql, params};

/// The file inside of the data folder.
const FILE: &str = "accounts.db";

/// Tells the file from one of another program, and its format.
const APPLICATION_ID: i64 = 0x6d74_6163;
const FORMAT: i64 = 4;

/// All tables with their columns, in an order in which rows can be inserted.
const TABLES: [(&str, &str); 11] = [
    ("account", "name, created_at, erase_at"),
    ("sign_in_key", "hash, account, created_at, expires_at, is_reusable, used"),
    ("device", "key, account, id, name, platform, version, registered_at, last_seen_at, revoked_at"),
    ("shared_space", "id, name, owner, created_at, log_of"),
    ("member", "space, account, may_write, since"),
    ("identity", "issuer, subject, account, shown, linked_at, last_used_at"),
    ("invite", "hash, space, may_write, made_by, created_at, expires_at, is_reusable, used"),
    ("console_link", "hash, account, device, expires_at"),
    ("audit", "number, at, account, actor, action, subject, member"),
    ("erasure", "hash, account, at"),
    ("erasing_space", "id, log_of, at"),
];

/// Accounts, sign-in keys and devices. `Debug` shows the path.
pub struct Directory {
    path: PathBuf,
    database: Mutex<Database>,
    /// The devices that are let in, by what they prove.
    known: RwLock<HashMap<PublicKey, Known>>,
    /// The spaces that accounts share.
    spaces: RwLock<HashMap<SpaceId, KnownSpace>>,
    /// Held from reading the file until what was read is taken up: of two that read, the one that read earlier must not come last.
    reloading: Mutex<()>,
    /// Told when somebody may do something else with a space.
    changes: watch::Sender<()>,
    /// What SQLite counts up when another program has written.
    version: Mutex<Option<i64>>,
    /// Something has changed that [`refresh`](Self::refresh) has not said yet, whoever read it: a device that signs in reads what others have
    /// written as well.
    has_news: AtomicBool,
    /// What tells the file from one that has taken its place.
    identity: Option<(u64, u64)>,
    /// When the database was looked at last because somebody was to be refused.
    looked_at: Mutex<Option<Instant>>,
    is_shared: bool,
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
    /// When one of them last connected, in milliseconds since 1970.
    pub last_seen_at: Option<i64>,
    /// When it is to be erased, in milliseconds since 1970, if somebody has asked for it.
    pub erase_at: Option<i64>,
}

type Result<T> = std::result::Result<T, DirectoryError>;

impl Directory {
    /// Opens the accounts of a relay whose data is in `folder`; without any a file is made, and the folder if needed.
    ///
    /// # Errors
    /// [`DirectoryError::File`], [`DirectoryError::Foreign`] or [`DirectoryError::Newer`].
    pub fn open(folder: &Path) -> Result<Self> {
        check_moved(folder)?;
        let path = folder.join(FILE);
        if !path.exists() {
            // What a file that was removed has left beside it is of no other one.
            for beside in ["accounts.db-wal", "accounts.db-shm"] {
                _ = std::fs::remove_file(folder.join(beside));
            }
        }
        let made = crate::store::make_private(folder, FILE);
        made.map_err(|e| file_error(&path, io_error(&e)))?;
        Self::open_file(path)
    }

    /// The same, of a relay that has accounts; `None` if it has none.
    ///
    /// # Errors
    /// As of [`open`](Self::open).
    pub fn open_existing(folder: &Path) -> Result<Option<Self>> {
        check_moved(folder)?;
        let path = folder.join(FILE);
        match std::fs::metadata(&path) {
            // A file that was cut off is not one without accounts.
            Ok(found) if found.len() == 0 => Err(DirectoryError::Empty(path)),
            Ok(_) => Self::open_file(path).map(Some),
            Err(_) => Ok(None),
        }
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
            let tables = |conn: &Connection| {
                conn.query_row("SELECT COUNT(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0))
            };
            // Of a file that is one already nothing is written: the disk may be full.
            if tables(&conn)? == 0 {
                conn.pragma_update(None, "journal_mode", "WAL")?;
                let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
                if tables(&tx)? == 0 {
                    tx.execute_batch(include_str!("directory/schema.sql"))?;
                    tx.execute_batch(include_str!("directory/schema_2.sql"))?;
                    tx.execute_batch(include_str!("directory/schema_3.sql"))?;
                    tx.execute_batch(include_str!("directory/schema_4.sql"))?;
                    tx.pragma_update(None, "application_id", APPLICATION_ID)?;
                    tx.pragma_update(None, "user_version", FORMAT)?;
                }
                tx.commit()?;
            }
            let is_ours = number(&conn, "application_id")? == APPLICATION_ID;
            if is_ours && (1..FORMAT).contains(&number(&conn, "user_version")?) {
                let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
                let found = number(&tx, "user_version")?;
                if found == 1 {
                    tx.execute_batch(include_str!("directory/schema_2.sql"))?;
                }
                if found <= 2 {
                    tx.execute_batch(include_str!("directory/schema_3.sql"))?;
                }
                if found <= 3 {
                    tx.execute_batch(include_str!("directory/schema_4.sql"))?;
                    tx.pragma_update(None, "user_version", FORMAT)?;
                }
                tx.commit()?;
            }
            conn.pragma_update(None, "synchronous", "FULL")?;
            let known = (number(&conn, "application_id")?, number(&conn, "user_version")?);
            if known == (APPLICATION_ID, FORMAT) {
                // A copy has another mode, in which readers and writers only wait for each other.
                _ = conn.pragma_update(None, "journal_mode", "WAL");
            }
            Ok((conn, known))
        });
        match opened.map_err(|source| file_error(&path, source))? {
            (_, (APPLICATION_ID, found)) if found > FORMAT => Err(DirectoryError::Newer { path, found }),
            (conn, (APPLICATION_ID, _)) => {
                let identity = identity(&path);
                Self::of(Database::Sqlite(conn), path, identity)
            }
            _ => Err(DirectoryError::Foreign(path)),
        }
    }

    /// Opens the accounts of relays whose logs are in the Postgres database of an address, and makes their tables if there are none. Not to be called on
    /// a thread of an async runtime, as all that reads or writes.
    ///
    /// # Errors
    /// [`DirectoryError::File`] if the address is not valid or the database cannot be reached, [`DirectoryError::Newer`].
    #[cfg(feature = "postgres")]
    pub fn connect(url: &str) -> Result<Self> {
        let file_error = |source| DirectoryError::File { path: "the database".into(), source };
        let mut server = server::Server::new(url).map_err(file_error)?;
        let path = PathBuf::from(server.place());
        let found =
            server.prepare(FORMAT).map_err(|source| DirectoryError::File { path: path.clone(), source })?;
        if found > FORMAT {
            return Err(DirectoryError::Newer { path, found });
        }
        Self::of(Database::Server(Box::new(server)), path, None)
    }

    fn of(database: Database, path: PathBuf, identity: Option<(u64, u64)>) -> Result<Self> {
        let is_shared = !database.is_file();
        let directory = Self {
            path,
            database: Mutex::new(database),
            known: RwLock::default(),
            spaces: RwLock::default(),
            reloading: Mutex::default(),
            changes: watch::Sender::new(()),
            version: Mutex::default(),
            identity,
            has_news: AtomicBool::new(false),
            looked_at: Mutex::default(),
            is_shared,
            seen: Mutex::default(),
        };
        directory.refresh()?;
        Ok(directory)
    }

    /// Copies all accounts with what is theirs into others, which are empty, or have what an earlier attempt has copied. Returns how many accounts.
    ///
    /// # Errors
    /// [`DirectoryError::NotEmpty`], [`DirectoryError::File`]; nothing is copied then.
    pub fn copy_to(&self, to: &Self) -> Result<u64> {
        let tables = self.read(|conn| {
            let rows = |(table, columns): &(&str, &str)| {
                conn.rows(&format!("SELECT {columns} FROM {table}"), NONE, |row| Ok(row.values()))
            };
            TABLES.iter().map(rows).collect::<sql::Result<Vec<_>>>()
        })?;
        let accounts = tables.first().map_or(0, |accounts| accounts.len() as u64);
        to.attempt(|conn| {
            // Those of an attempt before may be there.
            let columns = TABLES[0].1;
            let found = conn.rows(&format!("SELECT {columns} FROM account"), NONE, |row| Ok(row.values()))?;
            if !tables.first().is_some_and(|own| found.iter().all(|account| own.contains(account))) {
                return Ok(Err(DirectoryError::NotEmpty(to.path.clone())));
            }
            for ((table, columns), rows) in TABLES.iter().zip(tables) {
                let places = vec!["?"; columns.split(',').count()].join(", ");
                let sql = format!("INSERT INTO {table} ({columns}) VALUES ({places}) ON CONFLICT DO NOTHING");
                rows.into_iter().try_for_each(|row| conn.execute(&sql, row).map(drop))?;
            }
            Ok(Ok(()))
        })??;
        to.reload()?;
        Ok(accounts)
    }

    /// What an account has in its logs, or each of all, as of the last minute. Of all it takes a while in a database with many.
    ///
    /// # Errors
    /// [`StoreError`](crate::store::StoreError) if that cannot be read.
    pub fn stored(
        &self,
        account: Option<&str>,
    ) -> std::result::Result<HashMap<String, Stored>, crate::store::StoreError> {
        if self.lock().is_file() {
            return stored(self.path.parent().unwrap_or(Path::new(".")), account);
        }
        let read = self.read(|conn| {
            let mut stored = HashMap::new();
            if conn.query_row("SELECT to_regclass('log') IS NULL", NONE, |row| row.get(0))? {
                return Ok(stored);
            }
            let sql = "SELECT account, CAST(SUM(bytes) AS bigint), CAST(SUM(documents) AS bigint) FROM log";
            let (sql, given) = match account {
                Some(account) => (format!("{sql} WHERE account = ? GROUP BY account"), params![account]),
                None => (format!("{sql} GROUP BY account"), Vec::new()),
            };
            let count = |row: &Row, column| row.get::<i64>(column).map(i64::unsigned_abs);
            let of =
                |row: &Row| Ok((row.get(0)?, Stored { bytes: count(row, 1)?, documents: count(row, 2)? }));
            stored.extend(conn.rows(&sql, given, of)?);
            Ok(stored)
        });
        read.map_err(|error| crate::store::StoreError::Failed(error.to_string()))
    }

    /// Adds an account. The name is brought to its composed form (NFC), as are names wherever one is given.
    ///
    /// # Errors
    /// [`DirectoryError::BadName`], [`DirectoryError::AccountExists`] also of a name that only looks the same (case, diacritics, kinds of apostrophes),
    /// [`DirectoryError::Erasing`] if logs of an account of this name still leave, [`DirectoryError::File`].
    pub fn add_account(&self, name: &str) -> Result<()> {
        let name = &composed(name);
        check_name(name)?;
        let looks = looks_like(name);
        self.write(|conn| {
            let known: Vec<String> = conn.rows("SELECT name FROM account", NONE, |row| row.get(0))?;
            if let Some(same) = known.into_iter().find(|known| looks_like(known) == looks) {
                return Ok(Err(DirectoryError::AccountExists(same)));
            }
            if erasure::is_erasing(conn, name)? {
                return Ok(Err(DirectoryError::Erasing(name.to_owned())));
            }
            let sql = "INSERT INTO account (name, created_at) VALUES (?, ?)";
            conn.execute(sql, params![name, now_ms()])?;
            By(Actor::Operator).note(conn, name, Action::AccountAdded, "").map(Ok)
        })?
    }

    /// All accounts, by name.
    ///
    /// # Errors
    /// [`DirectoryError::File`].
    pub fn accounts(&self) -> Result<Vec<Account>> {
        let sql = format!("{ACCOUNTS} GROUP BY a.name ORDER BY a.name");
        self.rows(&sql, NONE, account)
    }

    /// One account.
    ///
    /// # Errors
    /// [`DirectoryError::NoAccount`], [`DirectoryError::File`].
    pub fn account(&self, name: &str) -> Result<Account> {
        let sql = format!("{ACCOUNTS} WHERE a.name = ? GROUP BY a.name");
        let mut found = self.rows(&sql, [composed(name)], account)?;
        found.pop().ok_or_else(|| DirectoryError::NoAccount(name.to_owned()))
    }

    /// Removes an account with its sign-in keys, signs its devices out, and ends the sharing of its spaces. Its logs stay on the relay, and
    /// are those of an account that is added under the same name. Returns how many devices were signed in.
    ///
    /// # Errors
    /// [`DirectoryError::NoAccount`], [`DirectoryError::File`].
    pub fn remove_account(&self, name: &str) -> Result<u64> {
        let name = &*composed(name);
        let devices = self.write(|conn| {
            let sql = "SELECT COUNT(*) FROM device WHERE account = ? AND revoked_at IS NULL";
            let devices: i64 = conn.query_row(sql, [name], |row| row.get(0))?;
            let is_removed = remove_rows(conn, name)?;
            if is_removed {
                By(Actor::Operator).note(conn, name, Action::AccountRemoved, "")?;
            }
            Ok(is_removed.then_some(devices as u64))
        })?;
        self.reload()?;
        devices.ok_or_else(|| DirectoryError::NoAccount(name.to_owned()))
    }

    /// Takes up what other programs have written, and writes down which devices were seen. Returns whether somebody may do something else now.
    ///
    /// # Errors
    /// [`DirectoryError::File`]; what was known stays known.
    pub fn refresh(&self) -> Result<bool> {
        self.catch_up()?;
        // Who may do what is told whatever becomes of that: it is only for lists.
        if let Err(error) = self.write_seen() {
            tracing::warn!(%error, "when devices were last seen is not written down");
        }
        Ok(self.has_news.swap(false, Ordering::AcqRel))
    }

    /// Takes up what other programs have written.
    fn catch_up(&self) -> Result<()> {
        let now = Some(self.lock().version().map_err(|source| file_error(&self.path, source))?);
        let mut version = self.version.lock().unwrap_or_else(PoisonError::into_inner);
        if *version != now {
            self.reload()?;
        }
        *version = now;
        Ok(())
    }

    /// The same before somebody is refused: another relay may have let them in a moment ago. A file is looked at often enough, as one program alone lets
    /// devices in there.
    fn catch_up_for_a_refusal(&self) {
        let mut last = self.looked_at.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = last.is_none_or(|last| last.elapsed() >= limits::ACCOUNTS_LOOKED_AT_AGAIN);
        if !is_due {
            return;
        }
        let caught_up = self.catch_up();
        *last = Some(Instant::now());
        if let Err(error) = caught_up {
            tracing::warn!(%error, "it is not known whether somebody who is refused was let in elsewhere");
        }
    }

    fn write_seen(&self) -> Result<()> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if seen.is_empty() {
            return Ok(());
        }
        // Nobody may do anything else because of it.
        self.transact(|conn| {
            let sql = "UPDATE device SET last_seen_at = ?1 WHERE key = ?2 AND last_seen_at < ?1";
            seen.iter().try_for_each(|(key, at)| conn.execute(sql, params![at, key.0]).map(drop))?;
            Ok(((), Ends::CommittedQuietly))
        })?;
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).retain(|key, at| seen.get(key) != Some(at));
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        for (key, at) in seen {
            known.entry(key).and_modify(|known| known.last_seen_at = known.last_seen_at.max(at));
        }
        Ok(())
    }

    /// Whether another file has taken the place of the one that is open, or none is there any more.
    pub(crate) fn is_elsewhere(&self) -> bool {
        identity(&self.path) != self.identity
    }

    /// Reads which devices and shared spaces there are.
    fn reload(&self) -> Result<()> {
        self.reload_devices()?;
        self.reload_spaces()
    }

    fn reload_devices(&self) -> Result<()> {
        let _one_at_a_time = self.reloading.lock().unwrap_or_else(PoisonError::into_inner);
        let sql = "SELECT key, account, id, revoked_at IS NOT NULL, last_seen_at FROM device";
        let rows = self.rows(sql, NONE, |row| {
            let bytes = |column| row.get::<Vec<u8>>(column);
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
        if has_changed {
            tracing::debug!("other devices are signed in");
            self.has_news.store(true, Ordering::Release);
        }
        Ok(())
    }

    fn reload_spaces(&self) -> Result<()> {
        let _one_at_a_time = self.reloading.lock().unwrap_or_else(PoisonError::into_inner);
        let spaces = self.read_spaces()?;
        let mut known = self.spaces.write().unwrap_or_else(PoisonError::into_inner);
        let are_others = *known != spaces;
        *known = spaces;
        drop(known);
        if are_others {
            tracing::debug!("spaces are shared otherwise");
            self.changes.send_replace(());
            self.has_news.store(true, Ordering::Release);
        }
        Ok(())
    }

    fn write<T>(&self, write: impl FnOnce(&Sql<'_>) -> sql::Result<T>) -> Result<T> {
        self.transact(|conn| Ok((write(conn)?, Ends::Committed)))
    }

    /// The same of what may be refused: nothing is written then.
    fn attempt<T, E>(
        &self,
        write: impl FnOnce(&Sql<'_>) -> sql::Result<std::result::Result<T, E>>,
    ) -> Result<std::result::Result<T, E>> {
        self.transact(|conn| {
            let done = write(conn)?;
            let ends = if done.is_ok() { Ends::Committed } else { Ends::RolledBack };
            Ok((done, ends))
        })
    }

    fn transact<T>(&self, work: impl FnOnce(&Sql<'_>) -> sql::Result<(T, Ends)>) -> Result<T> {
        self.lock().write(work).map_err(|source| file_error(&self.path, source))
    }

    fn read<T>(&self, work: impl FnOnce(&Sql<'_>) -> sql::Result<T>) -> Result<T> {
        self.lock().read(work).map_err(|source| file_error(&self.path, source))
    }

    fn rows<T>(
        &self,
        sql: &str,
        params: impl Params,
        of: impl FnMut(&Row) -> sql::Result<T>,
    ) -> Result<Vec<T>> {
        self.read(|conn| conn.rows(sql, params, of))
    }

    fn lock(&self) -> MutexGuard<'_, Database> {
        self.database.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Directory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Directory").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Accounts with their devices.
const ACCOUNTS: &str = "SELECT a.name, a.created_at, COUNT(d.key), MAX(d.last_seen_at), MAX(a.erase_at)
                        FROM account a LEFT JOIN device d ON d.account = a.name AND d.revoked_at IS NULL";

fn account(row: &Row) -> sql::Result<Account> {
    Ok(Account {
        name: row.get(0)?,
        created_at: row.get(1)?,
        devices: row.get::<i64>(2)?.unsigned_abs(),
        last_seen_at: row.get(3)?,
        erase_at: row.get(4)?,
    })
}

/// Removes what belongs to an account, and then itself; false if there is none of this name.
fn remove_rows(conn: &Sql<'_>, name: &str) -> sql::Result<bool> {
    conn.execute("DELETE FROM sign_in_key WHERE account = ?", [name])?;
    conn.execute("DELETE FROM console_link WHERE account = ?", [name])?;
    // Whoever it was does not come back by signing in once more.
    conn.execute("UPDATE identity SET account = NULL WHERE account = ?", [name])?;
    let sql = "DELETE FROM invite WHERE space IN (SELECT id FROM shared_space WHERE owner = ?)";
    conn.execute(sql, [name])?;
    conn.execute("DELETE FROM device WHERE account = ?", [name])?;
    let sql =
        "DELETE FROM member WHERE account = ?1 OR space IN (SELECT id FROM shared_space WHERE owner = ?1)";
    conn.execute(sql, [name])?;
    conn.execute("DELETE FROM shared_space WHERE owner = ?", [name])?;
    Ok(conn.execute("DELETE FROM account WHERE name = ?", [name])? > 0)
}

/// The accounts of a relay that has moved into a database are there.
fn check_moved(folder: &Path) -> Result<()> {
    match crate::store::moved_to(folder) {
        Some(place) => Err(DirectoryError::Moved { folder: folder.to_owned(), place }),
        None => Ok(()),
    }
}

#[cfg(unix)]
fn identity(path: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path).ok().map(|file| (file.dev(), file.ino()))
}

#[cfg(not(unix))]
fn identity(path: &Path) -> Option<(u64, u64)> {
    path.exists().then_some((0, 0))
}

/// In the form in which names are kept: a keyboard and a file name may give the same letters in different forms.
fn composed(name: &str) -> String {
    name.nfc().collect()
}

/// What a person takes for the same name: without case, diacritics, and how an apostrophe or an ʻokina was typed.
fn looks_like(name: &str) -> String {
    let apostrophe = |c| if "ʻʼ‘’`´'".contains(c) { '\'' } else { c };
    let letters = name.nfkd().filter(|c| !is_combining_mark(*c)).map(apostrophe);
    letters.flat_map(char::to_lowercase).filter(|c| !c.is_whitespace()).collect()
}

fn check_name(name: &str) -> Result<()> {
    let is_name = (1..=64).contains(&name.chars().count())
        && name.trim() == name
        // Steps in a path.
        && ![".", ".."].contains(&name)
        && !name.chars().any(|c| c.is_control() || is_invisible(c));
    if is_name { Ok(()) } else { Err(DirectoryError::BadName(name.chars().take(80).collect())) }
}

/// What stands in a text and is not seen, or turns round what follows.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{2800}' | '\u{3164}' | '\u{ffa0}' | '\u{e0000}'..='\u{e007f}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

fn file_error(path: &Path, source: impl Into<SqlError>) -> DirectoryError {
    DirectoryError::File { path: path.to_owned(), source: source.into() }
}

/// Why a file cannot be made, as SQLite would say it.
fn io_error(error: &std::io::Error) -> rusqlite::Error {
    let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CANTOPEN);
    rusqlite::Error::SqliteFailure(code, Some(error.to_string()))
}

/// A secret that nobody guesses: `N` random bytes behind a prefix, by which people know what it is.
fn secret<const N: usize>(prefix: &str) -> Result<String> {
    let mut random = [0; N];
    getrandom::fill(&mut random).map_err(|e| DirectoryError::Random(e.to_string()))?;
    Ok(format!("{prefix}{}", URL_SAFE_NO_PAD.encode(random)))
}

/// So long after a time in milliseconds.
fn later(now: i64, after: Duration) -> i64 {
    now.saturating_add(i64::try_from(after.as_millis()).unwrap_or(i64::MAX))
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
fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

//! Copies of a relay's data: [`backup`] beside a relay that runs, [`restore`] in the place of one that does not.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};

use super::{CareReport, erased, file, look};
use crate::limits;
use crate::store::StoreError;
use crate::store::folder::{Folder, create};

/// The files of a backup, as in a data folder.
const RELAY: &str = "relay.db";
const ACCOUNTS: &str = "accounts.db";

/// What was there before a backup was restored.
const REPLACED: &str = "relay.replaced";

/// What [`restore`] has done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RestoreReport {
    /// What the backup holds.
    pub restored: CareReport,
    /// Where the logs were put that were there before.
    pub put_aside: Option<PathBuf>,
    /// The accounts are those of the backup, and where those that were there are, if any were. `None`: those that are there were kept, or there are
    /// none in the backup.
    pub accounts: Option<RestoredAccounts>,
    /// Logs of accounts that were erased since the backup was made, and that it brings back: they were taken out of it.
    pub erased: u64,
}

/// Accounts of a backup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RestoredAccounts {
    /// Sign-in keys that are not good any more: nobody knows who has used them since.
    pub voided_keys: u64,
    /// Where what was there before was put.
    pub put_aside: Option<PathBuf>,
}

/// Copies the data of a relay, which may run meanwhile, into a folder that is new or empty, and looks whether the copy is sound, as
/// [`verify`](super::verify) does. The logs are as of one moment; the accounts as of one shortly before.
///
/// # Errors
/// [`StoreError::Unusable`] if there is no relay, if there is something in the folder already, or if it cannot be written;
/// [`StoreError::Full`] if there is no room. What was copied until then is removed.
pub fn backup(data: &Path, to: &Path) -> Result<CareReport, StoreError> {
    let database = data.join(RELAY);
    if !database.exists() {
        return Err(StoreError::Unusable(format!("{} holds no relay: there is no {RELAY}", data.display())));
    }
    create(to).map_err(|e| unusable("create", to, &e))?;
    let mut others = std::fs::read_dir(to).map_err(|e| unusable("read", to, &e))?;
    if others.next().is_some() {
        return Err(StoreError::Unusable(format!(
            "{} is not empty: a backup goes into a folder of its own",
            to.display()
        )));
    }
    let accounts = data.join(ACCOUNTS);
    let (copy, of_accounts) = (to.join(RELAY), to.join(ACCOUNTS));
    let copied = || -> Result<CareReport, StoreError> {
        if accounts.exists() {
            copy_database(&accounts, &of_accounts)?;
        }
        copy_database(&database, &copy)?;
        sync_folder(to)?;
        look(&copy)
    };
    copied().inspect_err(|_| {
        file::remove(&copy);
        file::remove(&of_accounts);
    })
}

/// Puts the data of a [`backup`] in the place of what a relay that does not run has, which is put aside. The folder is created if needed.
/// Devices notice that the log is an earlier one, and send what it lacks. What was erased since with its account is erased from it as well.
///
/// Accounts that are there are newer than those of the backup, and stay: who was signed out or removed since stays so. Those of the backup take
/// their place if there are none, if they are damaged, or `with_accounts`; their sign-in keys are not good any more.
///
/// # Errors
/// [`StoreError::InUse`] while a relay runs; [`StoreError::Unusable`] if there is no backup, or it is damaged; [`StoreError::Full`]. What the relay has
/// is as it was then.
pub fn restore(data: &Path, from: &Path, with_accounts: bool) -> Result<RestoreReport, StoreError> {
    let source = from.join(RELAY);
    if !source.exists() {
        return Err(StoreError::Unusable(format!("{} holds no backup: there is no {RELAY}", from.display())));
    }
    let folder = Folder::take(data)?;
    let (database, accounts) = (folder.database(), data.join(ACCOUNTS));
    let (new, new_accounts) = (data.join("relay.repaired.db"), data.join("accounts.restored.db"));
    let keeps_accounts = !with_accounts && accounts.exists() && fault_of_accounts(data).is_none();
    let mut report = RestoreReport::default();
    let prepare = |report: &mut RestoreReport| -> Result<(), StoreError> {
        file::remove(&new);
        copy_database(&source, &new)?;
        report.restored = look(&new)?;
        if !report.restored.problems.is_empty() {
            return Err(StoreError::Unusable(format!(
                "the backup is damaged: {}",
                report.restored.problems.join("; ")
            )));
        }
        file::remove(&new_accounts);
        // What is not readable any more is not known to have been erased.
        let mut erased = erased::read(&accounts).unwrap_or_default();
        if !keeps_accounts && from.join(ACCOUNTS).exists() {
            copy_database(&from.join(ACCOUNTS), &new_accounts)?;
            let voided_keys = void_keys(&new_accounts)?;
            erased::apply_to_accounts(&new_accounts, &erased)?;
            erased.extend(erased::read(&new_accounts)?);
            report.accounts = Some(RestoredAccounts { voided_keys, put_aside: None });
        }
        let in_force = if new_accounts.exists() { &new_accounts } else { &accounts };
        report.erased = erased::apply_to_logs(&new, &erased, &erased::kept(in_force)?)?;
        file::sync(&new)?;
        Ok(())
    };
    if let Err(error) = prepare(&mut report) {
        file::remove(&new);
        file::remove(&new_accounts);
        return Err(error);
    }
    // The accounts first: a relay over logs of the backup and accounts of before lets in whom it let in.
    if let Some(restored) = &mut report.accounts {
        restored.put_aside = replace(&accounts, &new_accounts, "accounts.replaced")?;
    }
    report.put_aside = replace(&database, &new, REPLACED)?;
    Ok(report)
}

/// What is wrong with the accounts of a relay, if it has any.
pub(super) fn fault_of_accounts(data: &Path) -> Option<String> {
    let path = data.join(ACCOUNTS);
    if !path.exists() {
        return None;
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let looked = Connection::open_with_flags(&path, flags).and_then(|conn| {
        conn.busy_timeout(limits::BUSY_TIMEOUT)?;
        let of_later_formats: &[&str] = match format_of(&conn)? {
            ..2 => &[],
            2 => &["identity", "invite"],
            3 => &["identity", "invite", "console_link"],
            4.. => &["identity", "invite", "console_link", "audit", "erasure", "erasing_space"],
        };
        let tables = ["account", "sign_in_key", "device", "shared_space", "member"];
        for table in tables.iter().chain(of_later_formats) {
            conn.query_row(&format!("SELECT COUNT(*) FROM {table}"), [], |_| Ok(()))?;
        }
        conn.query_row("PRAGMA integrity_check(1)", [], |row| row.get::<_, String>(0))
    });
    let fault = match looked {
        Ok(said) if said == "ok" => return None,
        Ok(said) => said,
        Err(error) => error.to_string(),
    };
    Some(format!(
        "accounts.db: {fault}; a repair does not mend it: restore it from a backup, or move it away and let the devices sign in anew"
    ))
}

/// Puts a new file in the place of a database that nobody uses, and that one aside, under a name that nothing has. At any time one of the two is
/// there: a relay that finds none would begin with nothing, and let everybody in.
fn replace(database: &Path, new: &Path, name: &str) -> Result<Option<PathBuf>, StoreError> {
    let folder = database.parent().unwrap_or(Path::new("."));
    let mut aside = None;
    // `Folder::take` makes an empty file where there is none.
    if std::fs::metadata(database).is_ok_and(|file| file.len() > 0) {
        // What is in its log goes into the file, if it is sound enough for that.
        if let Ok(conn) = Connection::open(database) {
            _ = conn.query_row("PRAGMA journal_mode = DELETE", [], |_| Ok(()));
        }
        let free = |n: &u32| !folder.join(numbered(name, *n)).exists();
        let to = folder.join(numbered(name, (1..).find(free).unwrap_or_default()));
        let failed = |error| unusable("put aside", database, &error);
        if std::fs::hard_link(database, &to).is_err() {
            std::fs::copy(database, &to).map_err(failed)?;
        }
        for end in ["-wal", "-shm"] {
            if file::with(database, end).exists() {
                std::fs::rename(file::with(database, end), file::with(&to, end)).map_err(failed)?;
            }
        }
        sync_folder(folder)?;
        aside = Some(to);
    }
    // What a relay that was killed has left beside a file that is gone would be taken for the log of the new one.
    for end in ["-wal", "-shm", "-journal"] {
        _ = std::fs::remove_file(file::with(database, end));
    }
    file::rename(new, database)?;
    sync_folder(folder)?;
    Ok(aside)
}

fn numbered(name: &str, n: u32) -> String {
    if n == 1 { format!("{name}.db") } else { format!("{name}-{n}.db") }
}

/// Copies a database as of one moment, with all that is in its log.
fn copy_database(from: &Path, to: &Path) -> Result<(), StoreError> {
    let named = |error: StoreError| match error {
        StoreError::Unusable(reason) => StoreError::Unusable(format!("{}: {reason}", from.display())),
        StoreError::Failed(reason) => StoreError::Failed(format!("{}: {reason}", from.display())),
        other => other,
    };
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let copy = || -> Result<(), StoreError> {
        let conn = Connection::open_with_flags(from, flags)?;
        conn.busy_timeout(limits::BUSY_TIMEOUT)?;
        // Made first, so that nobody else ever reads it.
        file::create_private(to)?;
        conn.execute("VACUUM INTO ?", [to.to_string_lossy()])?;
        file::sync(to)
    };
    copy().map_err(named)
}

/// Nobody knows who has used the sign-in keys, invitations and links of a backup since. Returns how many keys there were.
fn void_keys(accounts: &Path) -> Result<u64, StoreError> {
    let conn = Connection::open(accounts)?;
    let keys = conn.execute("DELETE FROM sign_in_key", [])?;
    if format_of(&conn)? >= 2 {
        conn.execute("DELETE FROM invite", [])?;
    }
    if format_of(&conn)? >= 3 {
        conn.execute("DELETE FROM console_link", [])?;
    }
    drop(conn);
    file::sync(accounts)?;
    Ok(keys as u64)
}

pub(super) fn format_of(conn: &Connection) -> rusqlite::Result<i64> {
    conn.pragma_query_value(None, "user_version", |row| row.get(0))
}

fn sync_folder(folder: &Path) -> Result<(), StoreError> {
    #[cfg(unix)]
    std::fs::File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|e| unusable("write", folder, &e))?;
    #[cfg(not(unix))]
    let _ = folder;
    Ok(())
}

fn unusable(what: &str, path: &Path, error: &std::io::Error) -> StoreError {
    StoreError::Unusable(format!("cannot {what} {}: {error}", path.display()))
}

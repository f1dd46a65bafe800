//! Copies of a relay's data: [`backup`] beside a relay that runs, [`restore`] in the place of one that does not.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};

use super::{CareReport, file, look};
use crate::limits;
use crate::store::StoreError;
use crate::store::folder::{Folder, create};

/// The files of a backup, as in a data folder.
const RELAY: &str = "relay.db";
const ACCOUNTS: &str = "accounts.db";

/// What was there before a backup was restored.
const REPLACED: &str = "relay.replaced.db";

/// What [`restore`] has done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RestoreReport {
    /// What the backup holds.
    pub restored: CareReport,
    /// Where the logs were put that were there before; the accounts are beside them, as `accounts.replaced.db`.
    pub put_aside: Option<PathBuf>,
    /// Sign-in keys that are not good any more: nobody knows who has used them since the backup.
    pub voided_keys: u64,
    /// Devices that were signed out since the backup, and stay so.
    pub still_revoked: u64,
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
/// Devices notice that the log is an earlier one, and send what it lacks; whoever was signed out since then stays signed out, if the accounts
/// that are there say so; sign-in keys are not good any more.
///
/// # Errors
/// [`StoreError::InUse`] while a relay runs; [`StoreError::Unusable`] if there is no backup, or it is damaged; [`StoreError::Full`]. What the relay has
/// is as it was then.
pub fn restore(data: &Path, from: &Path) -> Result<RestoreReport, StoreError> {
    let source = from.join(RELAY);
    if !source.exists() {
        return Err(StoreError::Unusable(format!("{} holds no backup: there is no {RELAY}", from.display())));
    }
    let folder = Folder::take(data)?;
    let (database, accounts) = (folder.database(), data.join(ACCOUNTS));
    let (new, new_accounts) = (data.join("relay.repaired.db"), data.join("accounts.restored.db"));
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
        if from.join(ACCOUNTS).exists() {
            copy_database(&from.join(ACCOUNTS), &new_accounts)?;
            (report.voided_keys, report.still_revoked) = bring_up_to_date(&new_accounts, &accounts)?;
        }
        Ok(())
    };
    if let Err(error) = prepare(&mut report) {
        file::remove(&new);
        file::remove(&new_accounts);
        return Err(error);
    }
    // `Folder::take` makes an empty file where there is none.
    if std::fs::metadata(&database).is_ok_and(|file| file.len() > 0) {
        let aside = data.join(REPLACED);
        file::remove(&aside);
        file::rename(&database, &aside)?;
        report.put_aside = Some(aside);
    }
    file::rename(&new, &database)?;
    if new_accounts.exists() {
        let aside = data.join("accounts.replaced.db");
        file::remove(&aside);
        file::rename(&accounts, &aside)?;
        file::rename(&new_accounts, &accounts)?;
    }
    sync_folder(data)?;
    Ok(report)
}

/// Copies a database as of one moment, with all that is in its log.
fn copy_database(from: &Path, to: &Path) -> Result<(), StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(from, flags)?;
    conn.busy_timeout(limits::BUSY_TIMEOUT)?;
    // Made first, so that nobody else ever reads it.
    file::create_private(to)?;
    conn.execute("VACUUM INTO ?", [to.to_string_lossy()])?;
    file::sync(to)
}

/// Sign-in keys of a backup may have been used since, and devices signed out. Returns how many of each.
fn bring_up_to_date(restored: &Path, present: &Path) -> Result<(u64, u64), StoreError> {
    let conn = Connection::open(restored)?;
    let keys = conn.execute("DELETE FROM sign_in_key", [])?;
    let mut revoked = 0;
    if present.exists() {
        conn.execute("ATTACH ? AS present", [present.to_string_lossy()])?;
        let sql = "UPDATE main.device SET revoked_at = (SELECT p.revoked_at FROM present.device p WHERE p.key = main.device.key)
                   WHERE revoked_at IS NULL AND key IN (SELECT key FROM present.device WHERE revoked_at IS NOT NULL)";
        revoked = conn.execute(sql, [])?;
        conn.execute("DETACH present", [])?;
    }
    drop(conn);
    file::sync(restored)?;
    Ok((keys as u64, revoked as u64))
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

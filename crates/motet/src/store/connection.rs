//! Opening the file: settings of every connection, and migrations.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};

use super::{Result, StorageError, busy, packed};
use crate::limits;

/// The format since which rows of chunks are bound to their documents; SQL alone cannot do that to those of an older file.
const BOUND_SINCE: i64 = 12;

/// Migrations in order; `user_version` counts how many a file has had.
const MIGRATIONS: [&str; 12] = [
    include_str!("migrations/001.sql"),
    include_str!("migrations/002.sql"),
    include_str!("migrations/003.sql"),
    include_str!("migrations/004.sql"),
    include_str!("migrations/005.sql"),
    include_str!("migrations/006.sql"),
    include_str!("migrations/007.sql"),
    include_str!("migrations/008.sql"),
    include_str!("migrations/009.sql"),
    include_str!("migrations/010.sql"),
    include_str!("migrations/011.sql"),
    include_str!("migrations/012.sql"),
];

/// Marks a file as Motet's (`application_id`), so that another app's database is not taken for one.
const APPLICATION_ID: i64 = 0x4d6f_7465;

/// Opens or creates a database and brings it to the newest format.
///
/// # Errors
/// [`StorageError::Newer`] before anything was changed, if a newer version of Motet wrote the file;
/// [`StorageError::Damaged`] if it is not a database of Motet; [`StorageError::Io`] if it cannot have its companions there;
/// [`StorageError::ReadOnly`] if the file is there and cannot be written, or nothing can be written beside it.
pub(crate) fn open(path: &Path) -> Result<Connection> {
    check_place(path)?;
    // SQLite would open it to be read, and leave files beside it.
    let refused = std::fs::OpenOptions::new().write(true).open(path).err().map(|error| error.kind());
    if matches!(refused, Some(ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem)) {
        return Err(StorageError::ReadOnly);
    }
    open_for_writing(path).map_err(|error| match error {
        StorageError::Sqlite(of)
            if of.sqlite_error_code() == Some(ErrorCode::CannotOpen) && std::fs::File::open(path).is_ok() =>
        {
            StorageError::ReadOnly
        }
        other => other,
    })
}

fn open_for_writing(path: &Path) -> Result<Connection> {
    let mut conn = Connection::open(path)?;
    configure(&mut conn)?;
    migrate(&mut conn)?;
    conn.pragma_update(None, "journal_mode", "WAL")?;
    Ok(conn)
}

/// Whether a database can be there with the files that SQLite keeps beside it.
fn check_place(path: &Path) -> Result<()> {
    let bytes = |name: &std::ffi::OsStr| name.as_encoded_bytes().len();
    let name = path.file_name().map_or(0, bytes);
    let whole = std::path::absolute(path).map_or(0, |path| bytes(path.as_os_str()));
    for (what, bytes, limit) in
        [("name", name, limits::FILE_NAME_BYTES), ("path", whole, limits::FILE_PATH_BYTES)]
    {
        if bytes > limit {
            let reason = format!(
                "the {what} of the database has {bytes} bytes; SQLite keeps other files beside it, so it can have {limit}"
            );
            return Err(StorageError::Io(reason));
        }
    }
    // Whoever opened a pipe would wait for somebody to write to it.
    if std::fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        return Err(StorageError::Io(format!("{} is no file", path.display())));
    }
    #[cfg(unix)]
    if let Some(names) = std::fs::metadata(path).ok().map(|file| std::os::unix::fs::MetadataExt::nlink(&file))
        && names > 1
    {
        let reason = format!(
            "{} is one of {names} names (hard links) of a file: each name would have a log of its own, and what one writes the other would lose; keep one",
            path.display()
        );
        return Err(StorageError::Io(reason));
    }
    Ok(())
}

/// Where SQLite keeps the log of a database.
pub(super) fn log_of(database: &Path) -> PathBuf {
    let mut log = database.as_os_str().to_owned();
    log.push("-wal");
    log.into()
}

/// Opens one more connection to a file that [`open`] has prepared.
pub(super) fn open_reader(path: &Path) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut conn = Connection::open_with_flags(path, flags)?;
    configure(&mut conn)?;
    conn.pragma_update(None, "query_only", true)?;
    Ok(conn)
}

fn configure(conn: &mut Connection) -> Result<()> {
    busy::wait_on(conn)?;
    conn.pragma_update(None, "synchronous", "FULL")?;
    // Without it SQLite parses a statement anew for each value that is bound beside a partial index.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    conn.pragma_update(None, "foreign_keys", true)?;
    conn.pragma_update(None, "cache_size", -limits::PAGE_CACHE_KIB)?;
    conn.pragma_update(None, "wal_autocheckpoint", limits::CHECKPOINT_PAGES)?;
    conn.pragma_update(None, "journal_size_limit", limits::WAL_KEPT_BYTES)?;
    conn.pragma_update(None, "trusted_schema", false)?;
    // What was deleted is not in free pages either.
    conn.pragma_update(None, "secure_delete", true)?;
    conn.set_prepared_statement_cache_capacity(limits::CACHED_STATEMENTS);
    Ok(())
}

/// Moves SQLite's log into the database and empties it, so that nothing is left in it of what was deleted. Somebody who is just reading
/// an older state keeps it from that, for a while.
pub(crate) fn empty_log(path: &Path) -> Result<()> {
    empty_log_within(path, limits::BUSY_TIMEOUT, limits::EMPTY_LOG_ATTEMPTS)
}

/// The same, without waiting for long, and gives room that is free in the database back to the disk.
pub(crate) fn shrink(path: &Path) -> Result<()> {
    let conn = open_reader(path)?;
    conn.pragma_update(None, "query_only", false)?;
    conn.busy_timeout(limits::EMPTY_LOG_WAIT)?;
    if let Err(error) = conn.execute_batch("VACUUM") {
        tracing::debug!(%error, "the database stays as large as it is");
    }
    drop(conn);
    empty_log_within(path, limits::EMPTY_LOG_WAIT, 1)
}

fn empty_log_within(path: &Path, wait: Duration, attempts: usize) -> Result<()> {
    let conn = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    conn.busy_timeout(wait)?;
    for _ in 0..attempts {
        let busy = conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0))?;
        if busy == 0 {
            return Ok(());
        }
    }
    Err(StorageError::Busy)
}

/// The file is Motet's and of the format of this version. What else it holds is not looked at.
pub(super) fn check_format(conn: &Connection) -> Result<()> {
    let pragma = |name| conn.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, i64>(0));
    let (found, supported) = (pragma("user_version")?, MIGRATIONS.len() as i64);
    match pragma("application_id")? {
        APPLICATION_ID if found == supported => Ok(()),
        APPLICATION_ID if found > supported => Err(StorageError::Newer { found, supported }),
        _ => Err(StorageError::Damaged("it is not a database of this version of Motet".into())),
    }
}

pub(super) fn migrate(conn: &mut Connection) -> Result<()> {
    let pragma =
        |conn: &Connection, name| conn.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, i64>(0));
    let supported = MIGRATIONS.len() as i64;
    let found = pragma(conn, "user_version")?;
    if found == supported && pragma(conn, "application_id")? == APPLICATION_ID {
        return Ok(());
    }
    // Two processes may open a new file at once; the second finds the work done.
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found = pragma(&tx, "user_version")?;
    let tables: i64 = tx.query_row("SELECT COUNT(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if tables > 0 && pragma(&tx, "application_id")? != APPLICATION_ID {
        return Err(StorageError::Damaged("it is a database of another application".into()));
    }
    if found > supported {
        return Err(StorageError::Newer { found, supported });
    }
    let done = usize::try_from(found).map_err(|_| {
        StorageError::Damaged(format!(
            "it says that it has format {found}, which no version of Motet has written"
        ))
    })?;
    for (n, migration) in MIGRATIONS.iter().enumerate().skip(done) {
        // SQLite's words alone, without the whole text of a migration.
        tx.execute_batch(migration).map_err(|error| {
            let reason = match &error {
                rusqlite::Error::SqlInputError { msg, .. } => msg,
                rusqlite::Error::SqliteFailure(code, Some(msg)) if code.code == ErrorCode::Unknown => msg,
                _ => return error.into(),
            };
            let next = n + 1;
            StorageError::Damaged(format!(
                "it says that it has format {found}, and cannot be brought to format {next}: {reason}"
            ))
        })?;
    }
    if found < BOUND_SINCE {
        packed::bind_all(&tx)?;
    }
    tx.pragma_update(None, "user_version", supported)?;
    tx.pragma_update(None, "application_id", APPLICATION_ID)?;
    tx.commit()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_file_and_a_foreign_file_are_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.db");
        drop(open(&path).unwrap());
        Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
        let before = std::fs::read(&path).unwrap();
        let error = open(&path).unwrap_err();
        assert!(
            matches!(error, StorageError::Newer { found: 99, supported } if supported == MIGRATIONS.len() as i64),
            "{error}"
        );
        assert!(error.to_string().contains("update the app"), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), before);

        // Nor is a file made that could not have others beside it.
        let long = dir.path().join("x".repeat(250));
        assert!(matches!(open(&long), Err(StorageError::Io(reason)) if reason.contains("can have 247")));
        assert!(!long.exists());
        let deep = ["y".repeat(200), "z".repeat(200), "a.db".repeat(40)]
            .iter()
            .fold(dir.path().to_owned(), |path, part| path.join(part));
        assert!(matches!(open(&deep), Err(StorageError::Io(reason)) if reason.contains("can have 504")));
        assert!(matches!(open(dir.path()), Err(StorageError::Io(reason)) if reason.contains("is no file")));
        // A number that no version has written, and one of an earlier version.
        for (version, reason) in [(-1, "has format -1"), (3, "cannot be brought to format 4")] {
            let odd = dir.path().join(format!("{version}.db"));
            drop(open(&odd).unwrap());
            Connection::open(&odd).unwrap().pragma_update(None, "user_version", version).unwrap();
            let error = open(&odd).unwrap_err().to_string();
            assert!(error.contains(reason) && error.len() < 300, "{error}");
        }
        #[cfg(unix)]
        {
            let twice = dir.path().join("twice.db");
            drop(open(&dir.path().join("once.db")).unwrap());
            std::fs::hard_link(dir.path().join("once.db"), &twice).unwrap();
            assert!(matches!(open(&twice), Err(StorageError::Io(reason)) if reason.contains("hard links")));
        }
        let other = dir.path().join("other.db");
        Connection::open(&other).unwrap().execute_batch("CREATE TABLE t (x)").unwrap();
        assert!(matches!(open(&other).unwrap_err(), StorageError::Damaged(_)));
        let garbage = dir.path().join("garbage.db");
        std::fs::write(&garbage, "no database at all, just words").unwrap();
        assert!(matches!(open(&garbage).unwrap_err(), StorageError::Damaged(_)));
    }
}

//! A database that cannot be written where it is: a copy of it is read in its place.
//!
//! What is read may have to be brought in line first (projections, the full-text index), and SQLite writes beside a file that it reads.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, backup::Backup};
use tempfile::TempDir;

use super::connection::log_of;
use super::{Result, StorageError};
use crate::limits;

/// Copies a database into a folder of its own, which nobody else can read and which goes with what is returned. The file and its folder are left
/// as they are.
///
/// # Errors
/// [`StorageError::Io`] if there is no such file or it cannot be read; [`StorageError::DiskFull`].
pub(crate) fn copy_to_read(path: &Path) -> Result<(TempDir, PathBuf)> {
    let io = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::StorageFull => StorageError::DiskFull,
        _ => StorageError::Io(format!("{}: {error}", path.display())),
    };
    let folder = tempfile::Builder::new().prefix("motet-").tempdir().map_err(io)?;
    let copy = folder.path().join("copy.db");
    // Without a log nobody has the file open, and SQLite, asked to read it, would leave one there.
    let log = log_of(path);
    if !log.exists() || by_sqlite(path, &copy).is_err() {
        // SQLite cannot read a log where it can make no file beside it. Nobody writes there then, so the files are what they are.
        std::fs::copy(path, &copy).map_err(io)?;
        if log.exists() {
            std::fs::copy(log, log_of(&copy)).map_err(io)?;
        }
    }
    writable(&copy).map_err(io)?;
    Ok((folder, copy))
}

/// As of one moment, also while somebody who can is writing.
fn by_sqlite(from: &Path, to: &Path) -> Result<()> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let source = Connection::open_with_flags(from, flags)?;
    source.busy_timeout(limits::BUSY_TIMEOUT)?;
    let mut target = Connection::open(to)?;
    Backup::new(&source, &mut target)?.run_to_completion(limits::COPIED_PAGES, Duration::ZERO, None)?;
    Ok(())
}

/// A copy has the permissions of the original.
fn writable(copy: &Path) -> std::io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        for file in std::fs::read_dir(copy.parent().unwrap_or(copy))? {
            std::fs::set_permissions(file?.path(), std::fs::Permissions::from_mode(0o600))?;
        }
    }
    Ok(())
}

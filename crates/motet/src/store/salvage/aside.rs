//! The damaged file, kept beside the new one: a better tool may read of it what this one could not.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::backup::Backup;
use rusqlite::{Connection, OpenFlags};

use super::failed;
use crate::limits;
use crate::store::backup::Partial;
use crate::store::connection::{log_of, open_reader};
use crate::store::{Result, StorageError};

/// What stands before the ending of the name of the file that is kept.
const MARK: &str = ".damaged";

/// A copy of a database and of SQLite's log beside it, page by page. It goes unless it is [kept](Self::keep).
pub(crate) struct Aside {
    pub(super) main: Partial,
    pub(super) log: Partial,
}

impl Aside {
    /// Copies both as they are. The log comes first: what is moved from it into the database meanwhile stands in both copies then.
    pub(crate) fn of(path: &Path) -> Result<Self> {
        let aside = Self { main: private(path)?, log: private(path)? };
        match File::open(log_of(path)) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            log => {
                let mut to = OpenOptions::new().write(true).open(&aside.log.path).map_err(failed)?;
                std::io::copy(&mut log.map_err(failed)?, &mut to).map_err(failed)?;
                to.sync_all().map_err(failed)?;
            }
        }
        if let Err(error) = copy(without_log(path)?, &aside.main.path) {
            if matches!(error, StorageError::DiskFull) {
                return Err(error);
            }
            // The first page, from which SQLite knows what the file is, may stand in the log alone.
            copy(open_reader(path)?, &aside.main.path)?;
        }
        OpenOptions::new()
            .write(true)
            .open(&aside.main.path)
            .and_then(|file| file.sync_all())
            .map_err(failed)?;
        Ok(aside)
    }

    /// Gives the copies their names, in place of those of an earlier repair. Returns where they are. What was kept a short time ago stays: what
    /// is damaged now was made of it, and has no more than that.
    pub(crate) fn keep(&self, path: &Path) -> Result<PathBuf> {
        let to = aside_of(path);
        let kept_at = std::fs::metadata(&to).and_then(|kept| kept.modified());
        // A clock that went back says nothing.
        if kept_at.is_ok_and(|at| at.elapsed().is_ok_and(|age| age < limits::DAMAGED_KEPT)) {
            return Ok(to);
        }
        remove(&to);
        std::fs::rename(&self.main.path, &to).map_err(failed)?;
        if std::fs::metadata(&self.log.path).is_ok_and(|log| log.len() > 0) {
            std::fs::rename(&self.log.path, log_of(&to)).map_err(failed)?;
        }
        Ok(to)
    }
}

/// Removes what earlier repairs have kept of a damaged file.
pub(crate) fn remove_aside(path: &Path) {
    remove(&aside_of(path));
}

fn remove(aside: &Path) {
    for file in [aside.to_owned(), log_of(aside)] {
        _ = std::fs::remove_file(file);
    }
}

/// Where a damaged file is kept: `notes.db` as `notes.damaged.db`.
fn aside_of(path: &Path) -> PathBuf {
    let text = |part: Option<&std::ffi::OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
    let (mut stem, ending) = (text(path.file_stem()), path.extension());
    let ending = ending.map_or(String::new(), |ending| format!(".{}", text(Some(ending))));
    let room = limits::FILE_NAME_BYTES.saturating_sub(MARK.len() + ending.len());
    while stem.len() > room {
        stem.pop();
    }
    path.with_file_name(format!("{stem}{MARK}{ending}"))
}

/// A file that is empty, and that its user alone reads.
pub(super) fn private(path: &Path) -> Result<Partial> {
    let partial = Partial::beside(path)?;
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    options.open(&partial.path).map_err(failed)?;
    Ok(partial)
}

/// A database as it is without what stands in SQLite's log. It is opened by SQLite: a process that opens such a file by itself and closes it
/// loses all locks that SQLite has on it for others in that process.
pub(super) fn without_log(path: &Path) -> Result<Connection> {
    let path = std::path::absolute(path).map_err(failed)?;
    let mut uri = String::from(if cfg!(windows) { "file:///" } else { "file:" });
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => {
                uri.push(char::from(*byte))
            }
            b'\\' if cfg!(windows) => uri.push('/'),
            byte => uri.push_str(&format!("%{byte:02X}")),
        }
    }
    uri.push_str("?immutable=1");
    let flags =
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    Ok(Connection::open_with_flags(uri, flags)?)
}

/// Copies pages as they are: what they hold is not looked at.
fn copy(from: Connection, to: &Path) -> Result<()> {
    let mut to = Connection::open(to)?;
    to.execute_batch("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF")?;
    Backup::new(&from, &mut to)?.run_to_completion(limits::COPIED_PAGES, Duration::ZERO, None)?;
    Ok(())
}

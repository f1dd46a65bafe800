//! The file itself: whether it is whole, and whether SQLite knows what is in it.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};

use super::super::{APPLICATION_ID, MIGRATIONS, NEEDED_TABLES};
use super::columns;
use crate::limits;
use crate::store::StoreError;

/// Bytes of the header of a database, as of SQLite's file format.
const HEADER_BYTES: usize = 100;

/// A file that ends before its last page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cut {
    /// Bytes that are there.
    pub(super) len: u64,
    /// Bytes that there should be.
    pub(super) named: u64,
}

/// Whether a file was cut off. One beside which SQLite's log has pages may be shorter than its header says: the rest is in the log.
pub(super) fn cut_off(path: &Path) -> Result<Option<Cut>, StoreError> {
    if std::fs::metadata(with(path, "-wal")).is_ok_and(|wal| wal.len() > 0) {
        return Ok(None);
    }
    let file = File::open(path).map_err(failed)?;
    let len = file.metadata().map_err(failed)?.len();
    let mut header = [0; HEADER_BYTES];
    if (&file).read_exact(&mut header).is_err() || !header.starts_with(b"SQLite format 3\0") {
        return Ok(None);
    }
    let size = match u16::from_be_bytes([header[16], header[17]]) {
        1 => 1 << 16,
        size => u64::from(size),
    };
    let pages = u32::from_be_bytes([header[28], header[29], header[30], header[31]]);
    let named = u64::from(pages) * size;
    Ok((len < named).then_some(Cut { len, named }))
}

impl Cut {
    pub(super) fn tell(self) -> String {
        let Self { len, named } = self;
        format!(
            "relay.db was cut off: {len} of {named} bytes are there; a repair saves what can be read of it"
        )
    }

    /// Of a file that was cut off SQLite reads nothing: empty pages stand for those that are missing, and are found to be damaged.
    pub(super) fn fill_up(self, path: &Path) -> Result<(), StoreError> {
        let Self { len, named } = self;
        if named - len > len.max(limits::CUT_OFF_BYTES) {
            let why =
                format!("relay.db has {len} bytes, and its header names {named}: that is damaged itself");
            return Err(StoreError::Unusable(why));
        }
        set_len(path, named)
    }

    /// As it was.
    pub(super) fn cut_again(self, path: &Path) -> Result<(), StoreError> {
        set_len(path, self.len)
    }
}

fn set_len(path: &Path, len: u64) -> Result<(), StoreError> {
    File::options().write(true).open(path).and_then(|file| file.set_len(len)).map_err(failed)
}

/// Opens the file of a relay of this version.
pub(super) fn open(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    let pragma = |name| conn.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, i64>(0));
    let unreadable = |what: String| {
        StoreError::Unusable(format!(
            "{what}, so nothing of relay.db can be read. It is left as it is; move it away, and the devices send to the new one what \
             they hold"
        ))
    };
    let read = || -> rusqlite::Result<_> { Ok((pragma("application_id")?, pragma("user_version")?)) };
    let (application, version) = match read().map_err(StoreError::from) {
        Ok(found) => found,
        Err(StoreError::Unusable(error)) => {
            return Err(unreadable(format!(
                "the first page is damaged or SQLite's list of tables is ({error})"
            )));
        }
        Err(error) => return Err(error),
    };
    if std::fs::metadata(path).is_ok_and(|file| file.len() == 0) && application == 0 {
        return Err(StoreError::Unusable("relay.db is empty: a relay that starts makes a new one".into()));
    }
    let supported = MIGRATIONS.len() as i64;
    if application == APPLICATION_ID && (1..supported).contains(&version) {
        let older = format!(
            "relay.db has format {version}, and this version checks format {supported}: a relay that starts makes that of it"
        );
        return Err(StoreError::Unusable(older));
    }
    if application != APPLICATION_ID || version != supported {
        return Err(StoreError::Unusable("relay.db is of another version, or of another application".into()));
    }
    let mut missing = columns::missing_tables(&conn);
    missing.retain(|table| NEEDED_TABLES.contains(table));
    if !missing.is_empty() {
        return Err(unreadable(format!(
            "SQLite's list of tables is damaged ({} cannot be found)",
            missing.join(", ")
        )));
    }
    Ok(conn)
}

/// Makes a file that a user alone reads.
pub(super) fn keep_private(path: &Path) -> Result<(), StoreError> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    }
    #[cfg(not(unix))]
    {
        _ = path;
    }
    Ok(())
}

/// Makes an empty file that a user alone reads.
pub(super) fn create_private(path: &Path) -> Result<(), StoreError> {
    File::create_new(path).map_err(failed)?;
    keep_private(path)
}

/// Waits until a file is on the disk.
pub(super) fn sync(path: &Path) -> Result<(), StoreError> {
    File::open(path).and_then(|file| file.sync_all()).map_err(failed)
}

/// Moves a database with what belongs to it.
pub(super) fn rename(from: &Path, to: &Path) -> Result<(), StoreError> {
    for end in ["", "-wal", "-shm"] {
        let (from, to) = (with(from, end), with(to, end));
        if from.exists() {
            std::fs::rename(from, to).map_err(failed)?;
        }
    }
    Ok(())
}

/// Removes a database with what belongs to it.
pub(super) fn remove(path: &Path) {
    ["", "-journal", "-wal", "-shm"].iter().for_each(|end| _ = std::fs::remove_file(with(path, end)));
}

/// The file beside a database whose name ends so.
pub(super) fn with(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    PathBuf::from(name)
}

fn failed(error: std::io::Error) -> StoreError {
    StoreError::Failed(error.to_string())
}

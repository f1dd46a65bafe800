//! Copies of a live database, table by table: what stays on this device never gets into one, not for a moment.

use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::connection::migrate;
use super::{Result, StorageError, Tx, space};
use crate::platform;

/// Documents of which nothing is left in a copy: they are made of what stays on this device alone.
const GONE: &str = "SELECT document FROM src.projection WHERE length(heads) = 0 AND purged = 0";

/// Tables that tell of this device alone: what it could undo, and what its apps keep to it.
const KEPT_BACK: [&str; 3] = ["step", "same_version", "local_field"];

/// A file that is being written, removed unless it is [published](Self::publish).
pub(super) struct Partial {
    pub(super) path: PathBuf,
}

/// Copies a live database into a new file, consistently, without stopping writers for long.
///
/// # Errors
/// [`StorageError::Io`] if the target exists; it is left as it is. Nothing is left of a copy that failed.
pub(crate) fn backup(from: &Path, to: &Path) -> Result<()> {
    let exists = || StorageError::Io(format!("{} exists already; a backup never overwrites", to.display()));
    if to.exists() {
        return Err(exists());
    }
    let partial = Partial::beside(to)?;
    let mut target = Connection::open(&partial.path)?;
    // Pages that are split leave nothing in what is free of them.
    target.pragma_update(None, "secure_delete", true)?;
    // Nobody else sees the file before it is whole and on the disk.
    target.execute_batch("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA foreign_keys = OFF")?;
    migrate(&mut target)?;
    target.execute("ATTACH ? AS src", [path_text(from)?])?;
    copy(&target)?;
    target.execute_batch("DETACH src")?;
    target.close().map_err(|(_, error)| error)?;
    partial.publish(to, exists)
}

fn copy(conn: &Connection) -> Result<()> {
    // Within one transaction all is read as it was at one moment.
    conn.execute_batch("BEGIN")?;
    for table in tables(conn)?.iter().filter(|table| !KEPT_BACK.contains(&&***table)) {
        let columns = columns(conn, table)?;
        let key = if table == "document" { "id" } else { "document" };
        let is_of_documents = columns.iter().any(|column| column == key);
        let filter = match is_of_documents && table != "quarantine" {
            true => format!("WHERE {key} NOT IN ({GONE})"),
            false => String::new(),
        };
        // A document that has something of this device shows itself anew, from its changes.
        let value = |column: &String| match (&**table, &**column) {
            ("projection", "json") => {
                "CASE WHEN document IN (SELECT document FROM src.local_field) THEN '{}' ELSE json END".into()
            }
            _ => format!("\"{column}\""),
        };
        let values = columns.iter().map(value).collect::<Vec<_>>().join(", ");
        let columns = columns.iter().map(|column| format!("\"{column}\"")).collect::<Vec<_>>().join(", ");
        conn.execute_batch(&format!(
            "DELETE FROM main.\"{table}\";
             INSERT INTO main.\"{table}\" ({columns}) SELECT {values} FROM src.\"{table}\" {filter}"
        ))?;
    }
    conn.execute_batch(&format!(
        "DELETE FROM main.sqlite_sequence;
         INSERT INTO main.sqlite_sequence (name, seq) SELECT name, seq FROM src.sqlite_sequence;
         INSERT OR IGNORE INTO main.behind (document, at)
           SELECT document, 0 FROM src.local_field WHERE document NOT IN ({GONE});"
    ))?;
    // The full-text index may know words that are gone; it is made anew where the copy is opened.
    Tx { conn, space: space::read(conn)? }.mark_all_unindexed()?;
    declare(conn)?;
    Ok(conn.execute_batch("COMMIT")?)
}

/// Indexes and views that were declared.
fn declare(conn: &Connection) -> Result<()> {
    let sql = "SELECT sql FROM src.sqlite_schema WHERE type IN ('index', 'view') AND sql IS NOT NULL
               AND name NOT IN (SELECT name FROM main.sqlite_schema)";
    let mut statement = conn.prepare(sql)?;
    let declared = statement.query_map([], |row| row.get(0))?;
    for sql in declared.collect::<std::result::Result<Vec<String>, _>>()? {
        conn.execute_batch(&sql)?;
    }
    Ok(())
}

/// The tables of this format, without those that SQLite keeps for itself.
pub(super) fn tables(conn: &Connection) -> Result<Vec<String>> {
    let sql = "SELECT name FROM main.sqlite_schema WHERE type = 'table' AND name NOT GLOB 'sqlite_*'";
    let mut statement = conn.prepare(sql)?;
    let names = statement.query_map([], |row| row.get(0))?;
    Ok(names.collect::<std::result::Result<_, _>>()?)
}

/// The columns of a table.
pub(super) fn columns(conn: &Connection, table: &str) -> Result<Vec<String>> {
    let mut statement = conn.prepare("SELECT name FROM pragma_table_info(?, 'main') ORDER BY cid")?;
    let names = statement.query_map([table], |row| row.get(0))?;
    Ok(names.collect::<std::result::Result<_, _>>()?)
}

impl Partial {
    /// A name beside a file that nobody else takes.
    pub(super) fn beside(file: &Path) -> Result<Self> {
        let random: [u8; 8] = platform::random().map_err(|e| StorageError::Io(e.to_string()))?;
        let mut path = file.as_os_str().to_owned();
        path.push(format!(".{:016x}.motet-partial", u64::from_be_bytes(random)));
        Ok(Self { path: PathBuf::from(path) })
    }

    /// Gives the file its name, if there is none of that name yet. It is on the disk then.
    fn publish(self, to: &Path, exists: impl Fn() -> StorageError) -> Result<()> {
        let io = |error: std::io::Error| match error.kind() {
            std::io::ErrorKind::AlreadyExists => exists(),
            std::io::ErrorKind::StorageFull => StorageError::DiskFull,
            _ => StorageError::Io(error.to_string()),
        };
        std::fs::File::open(&self.path).and_then(|file| file.sync_all()).map_err(io)?;
        match std::fs::hard_link(&self.path, to) {
            // Not every file system has links.
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists && !to.exists() => {
                std::fs::rename(&self.path, to).map_err(io)?;
            }
            linked => linked.map_err(io)?,
        }
        #[cfg(unix)]
        if let Some(folder) = to.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(io)?;
        }
        Ok(())
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        for end in ["", "-journal", "-wal", "-shm"] {
            let mut path = self.path.as_os_str().to_owned();
            path.push(end);
            _ = std::fs::remove_file(path);
        }
    }
}

fn path_text(path: &Path) -> Result<&str> {
    path.to_str().ok_or_else(|| StorageError::Io(format!("{} is no valid UTF-8", path.display())))
}

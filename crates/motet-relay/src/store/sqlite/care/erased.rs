//! What a backup brings back although its account was erased since: it is erased again.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use rusqlite::{Connection, OpenFlags, params};

use super::backup::format_of;
use crate::limits;
use crate::store::StoreError;
use crate::store::sqlite::{LAST_SEQ, row_base};

/// Accounts that were erased, by the hashes of their names, and when, in milliseconds since 1970.
pub(super) type Erased = HashMap<[u8; 32], i64>;

/// The format of the accounts from which on they say what was erased.
const NOTES_ERASURES: i64 = 4;

/// Which accounts were erased, as a file of accounts says it; none if there is none.
pub(super) fn read(accounts: &Path) -> Result<Erased, StoreError> {
    let Some(conn) = open(accounts)? else { return Ok(Erased::new()) };
    let mut statement = conn.prepare("SELECT hash, at FROM erasure")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Of accounts that a backup has from before they were erased: they are due at once, when the relay runs.
pub(super) fn apply_to_accounts(accounts: &Path, erased: &Erased) -> Result<(), StoreError> {
    let Some(conn) = open(accounts)? else { return Ok(()) };
    let mut statement = conn.prepare("SELECT name, created_at FROM account")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let known: Vec<(String, i64)> = rows.collect::<rusqlite::Result<_>>()?;
    for (name, created_at) in known {
        let hash = *blake3::hash(name.as_bytes()).as_bytes();
        // One that was added later under the same name is another one.
        if erased.get(&hash).is_some_and(|at| *at >= created_at) {
            conn.execute("UPDATE account SET erase_at = 0 WHERE name = ?", [name])?;
        }
    }
    // So that the next restore knows of them too.
    for (hash, at) in erased {
        let sql = "INSERT INTO erasure (hash, account, at) VALUES (?, NULL, ?) ON CONFLICT DO NOTHING";
        conn.execute(sql, params![hash, at])?;
    }
    Ok(())
}

/// Spaces whose logs are kept under the name of an account that does not own them any more.
pub(super) fn kept(accounts: &Path) -> Result<HashSet<[u8; 16]>, StoreError> {
    let Some(conn) = open(accounts)? else { return Ok(HashSet::new()) };
    let mut statement = conn.prepare("SELECT id FROM shared_space WHERE log_of <> owner")?;
    let rows = statement.query_map([], |row| row.get(0))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Takes out of the logs of a backup, which nobody uses, those of accounts that were erased after everything in them had come. Returns how many.
pub(super) fn apply_to_logs(
    logs: &Path,
    erased: &Erased,
    kept: &HashSet<[u8; 16]>,
) -> Result<u64, StoreError> {
    if erased.is_empty() {
        return Ok(0);
    }
    let mut conn = Connection::open(logs)?;
    conn.pragma_update(None, "secure_delete", true)?;
    let tx = conn.transaction()?;
    let mut statement = tx.prepare("SELECT id, account, uuid FROM space")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let all: Vec<(i64, String, [u8; 16])> = rows.collect::<rusqlite::Result<_>>()?;
    drop(statement);
    let mut removed = 0;
    for (log, account, space) in all {
        let Some(at) = erased.get(blake3::hash(account.as_bytes()).as_bytes()) else { continue };
        let (first, last) = (row_base(log), row_base(log) + LAST_SEQ as i64);
        let sql = "SELECT COALESCE(MAX(received_at), 0) FROM entry WHERE id > ? AND id <= ?";
        let came: i64 = tx.query_row(sql, [first, last], |row| row.get(0))?;
        if kept.contains(&space) || came.saturating_mul(1_000) > *at {
            continue;
        }
        tx.execute("DELETE FROM entry WHERE id > ? AND id <= ?", [first, last])?;
        tx.execute("DELETE FROM entry_of WHERE space = ?", [log])?;
        for table in ["erasing", "superseding", "superseded"] {
            tx.execute(&format!("DELETE FROM {table} WHERE entry > ? AND entry <= ?"), [first, last])?;
        }
        tx.execute("DELETE FROM space WHERE id = ?", [log])?;
        let sql =
            "DELETE FROM usage WHERE account = ?1 AND NOT EXISTS (SELECT 1 FROM space WHERE account = ?1)";
        tx.execute(sql, [account])?;
        removed += 1;
    }
    tx.commit()?;
    Ok(removed)
}

/// The accounts, if there are some, of a format that notes what was erased.
fn open(accounts: &Path) -> Result<Option<Connection>, StoreError> {
    if !accounts.exists() {
        return Ok(None);
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(accounts, flags)?;
    conn.busy_timeout(limits::BUSY_TIMEOUT)?;
    Ok((format_of(&conn)? >= NOTES_ERASURES).then_some(conn))
}

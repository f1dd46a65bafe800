//! What accounts have in their logs, counted as it comes and goes. It is written down now and then, not with every push: that would be
//! a page more for each.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use motet_proto::{DocumentId, Entry};
use rusqlite::{Connection, OpenFlags, OptionalExtension, params};

use crate::config::Limits;
use crate::limits;
use crate::store::damage::Damage;
use crate::store::{Counts, StoreError};

/// Counts of accounts that were written to since the relay started.
pub(super) struct Usage {
    accounts: HashMap<String, Count>,
    /// What the transaction that is under way adds.
    adding: HashMap<String, Count>,
    damage: Arc<Damage>,
}

#[derive(Clone, Copy, Default)]
struct Count {
    bytes: u64,
    documents: u64,
    is_unsaved: bool,
}

impl Usage {
    pub(super) fn new(damage: Arc<Damage>) -> Self {
        Self { accounts: HashMap::new(), adding: HashMap::new(), damage }
    }

    /// Whether an account may add an entry; the limit that it would break.
    pub(super) fn check(
        &mut self,
        conn: &Connection,
        account: &str,
        entry: &Entry,
        is_new: bool,
        allowed: &Limits,
    ) -> Result<Result<(), StoreError>, StoreError> {
        let known = match self.accounts.get(account) {
            Some(count) => *count,
            None => {
                let count = load(conn, account, &self.damage)?;
                self.accounts.insert(account.to_owned(), count);
                count
            }
        };
        let adding = self.adding.get(account).copied().unwrap_or_default();
        let sum = Counts { bytes: known.bytes, documents: known.documents };
        let sum = sum + Counts { bytes: adding.bytes, documents: adding.documents };
        Ok(sum.check(entry, is_new, allowed))
    }

    /// Whether a log has nothing of a document.
    pub(super) fn is_new_document(
        &self,
        conn: &Connection,
        log: i64,
        document: DocumentId,
    ) -> Result<bool, StoreError> {
        let sql = "SELECT 1 FROM entry_of WHERE space = ? AND document = ? LIMIT 1";
        Ok(!conn.prepare_cached(sql)?.exists(params![log, document.as_bytes()])?)
    }

    /// An entry is added, if the transaction is.
    pub(super) fn add(&mut self, account: &str, entry: &Entry, is_new: bool) {
        let adding = self.adding.entry(account.to_owned()).or_default();
        adding.bytes += entry.size() as u64;
        adding.documents += u64::from(is_new);
    }

    /// The transaction is done: what it added counts, and what left is free again.
    pub(super) fn settle(&mut self, conn: &Connection, freed: HashMap<i64, u64>) -> Result<(), StoreError> {
        for (account, added) in self.adding.drain() {
            let count = self.accounts.entry(account).or_default();
            count.bytes += added.bytes;
            count.documents += added.documents;
            count.is_unsaved = true;
        }
        for (log, bytes) in freed.into_iter().filter(|(_, bytes)| *bytes > 0) {
            let sql = "SELECT account FROM space WHERE id = ?";
            let account: Option<String> =
                conn.prepare_cached(sql)?.query_row([log], |row| row.get(0)).optional()?;
            let Some(account) = account else { continue };
            let mut count = match self.accounts.get(&account) {
                Some(count) => *count,
                None => load(conn, &account, &self.damage)?,
            };
            count.bytes = count.bytes.saturating_sub(bytes);
            count.is_unsaved = true;
            self.accounts.insert(account, count);
        }
        Ok(())
    }

    /// Of so many documents of an account nothing is left.
    pub(super) fn free_documents(
        &mut self,
        conn: &Connection,
        account: &str,
        documents: u64,
    ) -> Result<(), StoreError> {
        if documents == 0 {
            return Ok(());
        }
        let mut count = match self.accounts.get(account) {
            Some(count) => *count,
            None => load(conn, account, &self.damage)?,
        };
        count.documents = count.documents.saturating_sub(documents);
        count.is_unsaved = true;
        self.accounts.insert(account.to_owned(), count);
        Ok(())
    }

    /// An account has no log any more.
    pub(super) fn remove(&mut self, conn: &Connection, account: &str) -> Result<(), StoreError> {
        self.accounts.remove(account);
        conn.prepare_cached("DELETE FROM usage WHERE account = ?")?.execute([account])?;
        Ok(())
    }

    /// The transaction has failed.
    pub(super) fn forget(&mut self) {
        self.adding.clear();
    }

    pub(super) fn is_unsaved(&self) -> bool {
        self.accounts.values().any(|count| count.is_unsaved)
    }

    /// Writes down what has changed.
    pub(super) fn save(&mut self, conn: &Connection) -> Result<(), StoreError> {
        let sql = "INSERT OR REPLACE INTO usage (account, bytes, documents) VALUES (?, ?, ?)";
        let mut statement = conn.prepare_cached(sql)?;
        for (account, count) in self.accounts.iter_mut().filter(|(_, count)| count.is_unsaved) {
            statement.execute(params![account, count.bytes as i64, count.documents as i64])?;
            count.is_unsaved = false;
        }
        Ok(())
    }
}

/// What is written down of an account. A count that is none begins at zero: nobody is kept from sending because of it, and a repair
/// counts anew.
fn load(conn: &Connection, account: &str, damage: &Damage) -> Result<Count, StoreError> {
    let sql = "SELECT bytes, documents FROM usage WHERE account = ?";
    let count = |row: &rusqlite::Row<'_>, column| {
        let count = row.get::<_, i64>(column).ok().and_then(|count| u64::try_from(count).ok());
        count.unwrap_or_else(|| {
            damage.note(&format!("what {account} has in its logs is no count in table usage"));
            0
        })
    };
    let read = |row: &rusqlite::Row<'_>| {
        Ok(Count { bytes: count(row, 0), documents: count(row, 1), is_unsaved: false })
    };
    Ok(conn.prepare_cached(sql)?.query_row([account], read).optional()?.unwrap_or_default())
}

/// What an account has in its logs, as it is written down once a minute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stored {
    /// Bytes of entries, as the limit `bytes_per_account` counts them.
    pub bytes: u64,
    /// Documents that it ever had, as `documents_per_account` counts them.
    pub documents: u64,
}

/// What an account, or each of all, has in the logs of a data folder, also of a relay that runs. Nothing is written.
///
/// # Errors
/// [`StoreError`] if the file is there and cannot be read.
pub fn stored(data: &Path, account: Option<&str>) -> Result<HashMap<String, Stored>, StoreError> {
    let path = data.join(crate::store::folder::DATABASE);
    if !path.exists() {
        return Ok(HashMap::new());
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(&path, flags)?;
    conn.busy_timeout(limits::BUSY_TIMEOUT)?;
    // Of one account the others are not read.
    let only = if account.is_some() { " WHERE account = ?" } else { "" };
    let mut rows = conn.prepare(&format!("SELECT account, bytes, documents FROM usage{only}"))?;
    let count = |row: &rusqlite::Row<'_>, column| {
        row.get::<_, i64>(column).ok().and_then(|count| u64::try_from(count).ok()).unwrap_or_default()
    };
    let of = |row: &rusqlite::Row<'_>| {
        Ok((row.get(0)?, Stored { bytes: count(row, 1), documents: count(row, 2) }))
    };
    Ok(rows.query_map(rusqlite::params_from_iter(account), of)?.collect::<rusqlite::Result<_>>()?)
}

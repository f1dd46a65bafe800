//! Looking at the file itself, and taking damaged parts out of it.

use std::collections::HashSet;

use rusqlite::types::ValueRef;
use rusqlite::{OptionalExtension, Row, params};

use motet_proto::{DeviceId, DocumentId, Entry, EntryId, Kind, SpaceId};

use super::documents::{MOST_CHANGES, change_id};
use super::finding::identifier;
use super::outbox::Op;
use super::packed::{Pack, unpack};
use super::{Result, StorageError, Tx};

/// Where it stands in `meta` how often the file was emptied, or its user signed out.
const ERA: &str = "era";

/// Where it stands how often its user signed out.
const SIGN_OUTS: &str = "sign-outs";

/// Tables whose rows are about a document, and nothing without it.
const OF_DOCUMENTS: [&str; 12] = [
    "snapshot",
    "unindexed",
    "behind",
    "unmerged",
    "local_field",
    "outbox",
    "conflict",
    "compactable",
    "erased",
    "grave",
    "leaving",
    "restore_point_document",
];

/// A saved document as it stands in its row, whatever that looks like.
#[derive(Debug)]
pub(crate) struct RawSnapshot {
    pub(crate) bytes: Vec<u8>,
    /// It says that it holds all changes up to this id.
    pub(crate) upto: i64,
    pub(crate) is_primary: bool,
}

/// A row of the outbox whose entry is fixed, as far as it can be read.
#[derive(Debug)]
pub(crate) struct SealedRow {
    pub(crate) remote: i64,
    /// The entry, if it is the one that was fixed; else what is wrong with it.
    pub(crate) entry: std::result::Result<Entry, String>,
}

impl Tx<'_> {
    /// What SQLite finds wrong with the file.
    pub(crate) fn integrity(&self) -> Result<Vec<String>> {
        let mut statement = self.conn.prepare("PRAGMA integrity_check")?;
        let rows = statement.query_map([], |row| row.get::<_, String>(0))?;
        let lines = rows.collect::<std::result::Result<Vec<_>, _>>()?;
        Ok(lines.into_iter().filter(|line| line != "ok").collect())
    }

    /// Ids of all documents that have a row or show something.
    pub(crate) fn all_document_ids(&self) -> Result<Vec<i64>> {
        let sql = "SELECT id FROM document UNION SELECT document FROM projection ORDER BY 1";
        let mut statement = self.conn.prepare_cached(sql)?;
        let rows = statement.query_map([], |row| row.get(0))?;
        let ids = rows.collect::<std::result::Result<Vec<i64>, _>>();
        match ids.map_err(StorageError::from) {
            Err(StorageError::Damaged(_)) => {
                // Some page cannot be read: each one that there may be is looked for by itself.
                let sql = "SELECT seq FROM sqlite_sequence WHERE name = 'document'";
                let last: i64 = self.conn.prepare_cached(sql)?.query_row([], |row| row.get(0))?;
                Ok((1..=last).filter(|id| self.may_be_there(*id)).collect())
            }
            ids => ids,
        }
    }

    /// Whether there is a document of this id, as far as that can be read.
    fn may_be_there(&self, document: i64) -> bool {
        let is_in = |sql: &str| self.conn.prepare_cached(sql).and_then(|mut found| found.exists([document]));
        ["SELECT 1 FROM document WHERE id = ?", "SELECT 1 FROM projection WHERE document = ?"]
            .into_iter()
            .any(|sql| is_in(sql).unwrap_or(true))
    }

    /// What is stored of documents that are not there.
    pub(crate) fn of_nobody(&self) -> Result<Vec<String>> {
        let mut found = Vec::new();
        let mut next =
            self.conn.prepare_cached("SELECT id >> 24 FROM change WHERE id > ? ORDER BY id LIMIT 1")?;
        let mut is_there = self.conn.prepare_cached("SELECT 1 FROM document WHERE id = ?")?;
        let mut after = -1;
        while let Some(document) = next.query_row([after], |row| row.get::<_, i64>(0)).optional()? {
            if !is_there.exists([document])? {
                found.push(format!("there are changes of a document {document}, which is not there"));
            }
            let last = change_id(document, MOST_CHANGES);
            if last <= after {
                // Pages of the table stand where others should: going on would have no end.
                return Err(StorageError::Damaged("the changes are not in order".into()));
            }
            after = last;
        }
        for table in OF_DOCUMENTS {
            let sql = format!("SELECT COUNT(*) FROM {table} WHERE document NOT IN (SELECT id FROM document)");
            let rows: i64 = self.conn.prepare_cached(&sql)?.query_row([], |row| row.get(0))?;
            if rows > 0 {
                found.push(format!("there are {rows} rows in {table} of documents that are not there"));
            }
        }
        let sql = "SELECT 1 FROM outbox WHERE remote NOT IN (SELECT id FROM remote)";
        if self.conn.prepare_cached(sql)?.exists([])? {
            found.push("something waits to be sent to a remote that is not there".into());
        }
        Ok(found)
    }

    /// Removes a document with all that is stored of it, so that no trace of it is left. Numbers of the feed go on behind its own. Steps of
    /// undo name it still.
    pub(crate) fn remove_document(&self, document: i64) -> Result<()> {
        self.set_meta("seq", Some(&self.latest_seq()?.to_string()))?;
        let changes = [change_id(document, 0), change_id(document, MOST_CHANGES)];
        self.conn.prepare_cached("DELETE FROM change WHERE id BETWEEN ? AND ?")?.execute(changes)?;
        for table in OF_DOCUMENTS.into_iter().chain(["projection"]) {
            let sql = format!("DELETE FROM {table} WHERE document = ?");
            self.conn.prepare_cached(&sql)?.execute([document])?;
        }
        self.conn.prepare_cached("DELETE FROM document WHERE id = ?")?.execute([document])?;
        Ok(())
    }

    /// Forgets all restore points.
    pub(crate) fn drop_points(&self) -> Result<()> {
        Ok(self.conn.execute_batch("DELETE FROM restore_point_document; DELETE FROM restore_point")?)
    }

    /// Forgets what was set aside, and what was being opened.
    pub(crate) fn drop_quarantine(&self) -> Result<()> {
        Ok(self.conn.execute_batch("DELETE FROM quarantine; DELETE FROM opening")?)
    }

    /// How often what a session goes by was taken away: the file was emptied, its user signed out, or all logs are to be read anew.
    pub(crate) fn era(&self) -> Result<i64> {
        self.counted(ERA)
    }

    /// How often its user signed out.
    pub(crate) fn sign_outs(&self) -> Result<i64> {
        self.counted(SIGN_OUTS)
    }

    pub(crate) fn count_sign_out(&self) -> Result<()> {
        self.set_meta(SIGN_OUTS, Some(&(self.sign_outs()? + 1).to_string()))
    }

    fn counted(&self, key: &str) -> Result<i64> {
        // One that was damaged is counted on from the start.
        Ok(self.meta_number(key, 1 << 48)?.unwrap_or_default())
    }

    /// Forgets which devices there are beside this one, and which collections are switched off.
    pub(crate) fn forget_others(&self, own: DeviceId) -> Result<()> {
        self.conn.prepare_cached("DELETE FROM device WHERE id <> ?")?.execute([own.as_bytes()])?;
        Ok(self.conn.execute_batch("DELETE FROM excluded")?)
    }

    pub(crate) fn begin_era(&self) -> Result<()> {
        self.set_meta(ERA, Some(&(self.era()? + 1).to_string()))
    }

    pub(crate) fn drop_of_nobody(&self) -> Result<()> {
        self.conn.execute("DELETE FROM change WHERE id >> 24 NOT IN (SELECT id FROM document)", [])?;
        for table in OF_DOCUMENTS {
            let sql = format!("DELETE FROM {table} WHERE document NOT IN (SELECT id FROM document)");
            self.conn.execute(&sql, [])?;
        }
        for table in ["outbox", "unmerged", "quarantine", "erased"] {
            let sql = format!("DELETE FROM {table} WHERE remote NOT IN (SELECT id FROM remote)");
            self.conn.execute(&sql, [])?;
        }
        Ok(())
    }

    /// Makes every index anew from its table.
    pub(crate) fn rebuild_indexes(&self) -> Result<()> {
        Ok(self.conn.execute_batch("REINDEX")?)
    }

    /// What the projection shows of a document, whatever stands there: what is no UTF-8 is no reason to end a repair.
    pub(crate) fn shown(&self, document: i64) -> Result<Option<String>> {
        let sql = "SELECT json FROM projection WHERE document = ?";
        let json = self.conn.prepare_cached(sql)?.query_row([document], |row| Ok(text(row.get_ref(0)?)));
        Ok(json.optional()?)
    }

    /// Whether a document shows no field.
    pub(crate) fn shows_nothing(&self, document: i64) -> Result<bool> {
        let sql = "SELECT 1 FROM projection WHERE document = ? AND json IS NOT '{}'";
        Ok(!self.conn.prepare_cached(sql)?.exists([document])?)
    }

    pub(crate) fn change_rows(&self, document: i64) -> Result<Vec<(i64, Vec<u8>)>> {
        let sql = "SELECT id, bytes FROM change WHERE id BETWEEN ? AND ? ORDER BY id";
        let mut statement = self.conn.prepare_cached(sql)?;
        let range = [change_id(document, 0), change_id(document, MOST_CHANGES)];
        let rows = statement.query_map(range, |row| {
            // Whatever stands there, so that it can be told to be damaged.
            Ok((row.get(0)?, unpack(document, bytes(row.get_ref(1)?))))
        })?;
        Ok(rows.collect::<std::result::Result<_, _>>()?)
    }

    /// Id of the last change of a document that has a row; 0 if none has.
    pub(crate) fn last_change(&self, document: i64) -> Result<i64> {
        let sql = "SELECT COALESCE(MAX(id), 0) FROM change WHERE id BETWEEN ? AND ?";
        let range = [change_id(document, 0), change_id(document, MOST_CHANGES)];
        Ok(self.conn.prepare_cached(sql)?.query_row(range, |row| row.get(0))?)
    }

    /// Ids of the changes of a document that have rows.
    pub(crate) fn change_ids(&self, document: i64) -> Result<HashSet<i64>> {
        let sql = "SELECT id FROM change WHERE id BETWEEN ? AND ?";
        let mut statement = self.conn.prepare_cached(sql)?;
        let range = [change_id(document, 0), change_id(document, MOST_CHANGES)];
        let rows = statement.query_map(range, |row| row.get(0))?;
        Ok(rows.collect::<std::result::Result<_, _>>()?)
    }

    /// Id of the first change of a document that waits to be sent; `None` if nothing waits, or all of the document does.
    pub(crate) fn first_unsent(&self, document: i64) -> Result<Option<i64>> {
        let sql = "SELECT MIN(first_change) FROM outbox WHERE document = ? AND op <> 3";
        let first: Option<i64> = self.conn.prepare_cached(sql)?.query_row([document], |row| row.get(0))?;
        Ok(first.filter(|first| *first > 0))
    }

    /// Whether no remote ever had anything of a document.
    pub(crate) fn is_never_sent(&self, document: i64) -> Result<bool> {
        let sql = "SELECT 1 FROM document WHERE id = ?1 AND last_synced_at IS NULL
                   UNION ALL SELECT 1 WHERE NOT EXISTS (SELECT 1 FROM document WHERE id = ?1)
                     AND NOT EXISTS (SELECT 1 FROM remote)";
        Ok(self.conn.prepare_cached(sql)?.exists([document])?)
    }

    /// The saved form of a document.
    pub(crate) fn raw_snapshot(&self, document: i64) -> Result<Option<RawSnapshot>> {
        let sql = "SELECT bytes, is_primary, upto FROM snapshot WHERE document = ?";
        let raw = self.conn.prepare_cached(sql)?.query_row([document], |row| {
            let upto = row.get_ref(2)?.as_i64().unwrap_or(i64::MAX);
            Ok(RawSnapshot {
                bytes: unpack(document, bytes(row.get_ref(0)?)),
                upto,
                // Any other number says nothing that could be relied on.
                is_primary: number(row.get_ref(1)?) == 1,
            })
        });
        Ok(raw.optional()?)
    }

    /// The rows of the outbox that are about a document and are fixed.
    pub(crate) fn sealed_rows(&self, document: i64, key: DocumentId) -> Result<Vec<SealedRow>> {
        let sql = "SELECT remote, entry, device, kind, suite, sealed FROM outbox
                   WHERE document = ? AND entry IS NOT NULL ORDER BY id";
        let mut statement = self.conn.prepare_cached(sql)?;
        let rows = statement.query_map([document], |row| {
            Ok(SealedRow { remote: row.get(0)?, entry: sealed((self.space, key), row, 1) })
        })?;
        Ok(rows.collect::<std::result::Result<_, _>>()?)
    }

    /// Why rows of the outbox that are about a document are not sent although nobody has refused them.
    pub(crate) fn parked_as_damaged(&self, document: i64) -> Result<Option<String>> {
        let sql =
            "SELECT error FROM outbox WHERE document = ? AND error LIKE '%\"storage-damaged\"%' LIMIT 1";
        Ok(self.conn.prepare_cached(sql)?.query_row([document], |row| row.get(0)).optional()?)
    }

    /// Whether each remote in use lacks all of a document, which could not be sent to it because of damage.
    pub(crate) fn is_lacked_by_all(&self, document: i64) -> Result<bool> {
        let sql = "SELECT 1 WHERE EXISTS (SELECT 1 FROM remote WHERE active = 1) AND NOT EXISTS (
                     SELECT 1 FROM remote r WHERE r.active = 1 AND NOT EXISTS (SELECT 1 FROM outbox WHERE remote = r.id
                       AND document = ? AND first_change = 0 AND error LIKE '%\"storage-damaged\"%'))";
        Ok(self.conn.prepare_cached(sql)?.exists([document])?)
    }

    /// Drops what waits to be sent of a document to a remote, but for erasures. Returns how many rows that were.
    pub(crate) fn drop_pending_changes(&self, remote: i64, document: i64) -> Result<usize> {
        let sql = "DELETE FROM outbox WHERE remote = ? AND document = ? AND op <> 3";
        Ok(self.conn.prepare_cached(sql)?.execute([remote, document])?)
    }

    /// Remotes to which something of a document waits to be sent, and what that means to a person.
    pub(crate) fn pending_remotes(&self, document: i64) -> Result<Vec<(i64, Op)>> {
        let sql = "SELECT remote, op FROM outbox WHERE document = ? AND op <> 3 GROUP BY remote HAVING id = MIN(id)";
        let mut statement = self.conn.prepare_cached(sql)?;
        let rows = statement
            .query_map([document], |row| Ok((row.get(0)?, Op::from_i64(number(row.get_ref(1)?)))))?;
        Ok(rows.collect::<std::result::Result<_, _>>()?)
    }

    /// The beginnings of the hashes of a document's changes, as far as they stand in rows of their own.
    pub(crate) fn change_sums(&self, document: i64) -> Result<Vec<u32>> {
        let sql = "SELECT substr(bytes, 5, 4) FROM change WHERE id BETWEEN ? AND ?";
        let mut statement = self.conn.prepare_cached(sql)?;
        let range = [change_id(document, 0), change_id(document, MOST_CHANGES)];
        let rows = statement.query_map(range, |row| {
            let sum = row.get_ref(0)?.as_blob().ok().and_then(|sum| sum.try_into().ok());
            Ok(u32::from_be_bytes(sum.unwrap_or_default()))
        })?;
        Ok(rows.collect::<std::result::Result<_, _>>()?)
    }

    /// Writes the rows of a document again as this connection reads them. It may have their pages in memory as they were, while others read
    /// from the file that they are damaged; and what is written over with the same bytes is not written to the file.
    pub(crate) fn write_again(&self, document: i64) -> Result<()> {
        let range = (change_id(document, 0), change_id(document, MOST_CHANGES));
        let tables = [("change", "id", range), ("snapshot", "document", (document, document))];
        for (table, key, (first, last)) in tables {
            let rows = format!("FROM main.{table} WHERE {key} BETWEEN {first} AND {last}");
            let written = self.conn.execute_batch(&format!(
                "SAVEPOINT again; CREATE TEMP TABLE again AS SELECT * {rows}; DELETE {rows};
                 INSERT INTO main.{table} SELECT * FROM temp.again; DROP TABLE temp.again; RELEASE again"
            ));
            if let Err(error) = written {
                // What cannot be read is dealt with afterwards.
                tracing::debug!(%error, table, "rows that cannot be written again");
                self.conn.execute_batch("ROLLBACK TO again; RELEASE again")?;
            }
        }
        Ok(())
    }

    /// What is stored of a document is read as bytes, whatever it is marked as.
    pub(crate) fn take_as_bytes(&self, document: i64) -> Result<()> {
        let sql = "UPDATE change SET bytes = CAST(bytes AS BLOB) WHERE id BETWEEN ? AND ? AND typeof(bytes) <> 'blob'";
        let range = [change_id(document, 0), change_id(document, MOST_CHANGES)];
        self.conn.prepare_cached(sql)?.execute(range)?;
        let sql = "UPDATE change SET origin = NULL WHERE id BETWEEN ? AND ? AND typeof(origin) NOT IN ('integer', 'null')";
        self.conn.prepare_cached(sql)?.execute(range)?;
        let sql = "UPDATE snapshot SET bytes = CAST(bytes AS BLOB), upto = CAST(upto AS INTEGER),
                     is_primary = CAST(is_primary AS INTEGER)
                   WHERE document = ? AND (typeof(bytes) <> 'blob' OR typeof(upto) <> 'integer'
                     OR typeof(is_primary) <> 'integer')";
        self.conn.prepare_cached(sql)?.execute([document])?;
        Ok(())
    }

    /// Replaces the bytes of a change, if there is such a row.
    pub(crate) fn replace_change(&self, id: i64, bytes: &[u8]) -> Result<()> {
        let bound = Pack { document: id >> 24, chunk: bytes };
        self.conn.prepare_cached("UPDATE change SET bytes = ? WHERE id = ?")?.execute(params![bound, id])?;
        Ok(())
    }

    /// The saved form of a document holds changes that no row holds, and says nothing about which rows it holds: 1 is below the numbers of all
    /// changes.
    pub(crate) fn rely_on_snapshot(&self, document: i64) -> Result<()> {
        let sql = "UPDATE snapshot SET is_primary = 1, upto = MIN(upto, 1) WHERE document = ?";
        self.conn.prepare_cached(sql)?.execute([document])?;
        Ok(())
    }

    pub(crate) fn drop_change(&self, id: i64) -> Result<()> {
        self.conn.prepare_cached("DELETE FROM change WHERE id = ?")?.execute([id])?;
        Ok(())
    }

    pub(crate) fn drop_snapshot(&self, document: i64) -> Result<()> {
        self.conn.prepare_cached("DELETE FROM snapshot WHERE document = ?")?.execute([document])?;
        Ok(())
    }

    /// Every remote is read from the start with the next session.
    pub(crate) fn forget_positions(&self) -> Result<()> {
        self.conn.prepare_cached("UPDATE remote SET position = NULL, reseed = 1")?.execute([])?;
        Ok(())
    }

    pub(crate) fn drop_search_tables(&self) -> Result<()> {
        self.search_tables()?.iter().try_for_each(|name| {
            let drop = format!("DROP TABLE {}", identifier(name));
            if self.conn.execute_batch(&drop).is_ok() {
                return Ok(());
            }
            // FTS5 opens an index before it drops it, and opens none that does not say which version it is of.
            let config = identifier(&format!("{name}_config"));
            Ok(self.conn.execute_batch(&format!(
                "CREATE TABLE IF NOT EXISTS {config} (k PRIMARY KEY, v) WITHOUT ROWID;
                 INSERT OR REPLACE INTO {config} (k, v) VALUES ('version', 4);
                 {drop}"
            ))?)
        })
    }

    /// Names of the full-text indexes.
    pub(super) fn search_tables(&self) -> Result<Vec<String>> {
        let sql = "SELECT name FROM sqlite_schema WHERE type = 'table' AND sql LIKE 'CREATE VIRTUAL TABLE%'
                   AND name GLOB 'search:*'";
        let mut statement = self.conn.prepare(sql)?;
        let names = statement.query_map([], |row| row.get(0))?;
        Ok(names.collect::<std::result::Result<_, _>>()?)
    }

    pub(crate) fn mark_all_unindexed(&self) -> Result<()> {
        let sql = "INSERT OR IGNORE INTO unindexed (document) SELECT id FROM document";
        self.conn.prepare_cached(sql)?.execute([])?;
        Ok(())
    }

    /// Live documents with open conflicts, or documents with any in the journal.
    pub(crate) fn conflicted_documents(&self, settled: bool) -> Result<Vec<(String, String)>> {
        let sql = "SELECT collection, name FROM projection p WHERE (p.conflicts > 0 AND p.deleted = 0)
                   OR (? AND document IN (SELECT document FROM conflict)) ORDER BY collection, name";
        let mut statement = self.conn.prepare_cached(sql)?;
        let rows = statement.query_map([settled], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(rows.collect::<std::result::Result<_, _>>()?)
    }
}

/// The entry in the five columns of a row from `first` on, if it is whole and the one that was sealed; else what is wrong with it.
pub(super) fn sealed(
    (space, document): (SpaceId, DocumentId),
    row: &Row<'_>,
    first: usize,
) -> std::result::Result<Entry, String> {
    let column = |n: usize| row.get_ref(first + n).ok();
    let blob = |n: usize| column(n)?.as_blob().ok();
    let entry = || {
        Some(Entry {
            id: EntryId(blob(0)?.try_into().ok()?),
            document,
            device: motet_proto::DeviceId(blob(1)?.try_into().ok()?),
            kind: Kind::from_bytes(blob(2)?)?,
            suite: u8::try_from(number(column(3)?)).ok()?,
            payload: blob(4)?.to_vec(),
        })
    };
    let entry = entry().ok_or("an outbox row cannot be read")?;
    entry.check(space).map_err(|error| error.to_string())?;
    Ok(entry)
}

pub(super) fn bytes(value: ValueRef<'_>) -> Vec<u8> {
    value.as_bytes_or_null().ok().flatten().unwrap_or_default().to_vec()
}

/// As far as it is text.
pub(super) fn text(value: ValueRef<'_>) -> String {
    String::from_utf8_lossy(&bytes(value)).into_owned()
}

pub(super) fn number(value: ValueRef<'_>) -> i64 {
    value.as_i64().unwrap_or_default()
}

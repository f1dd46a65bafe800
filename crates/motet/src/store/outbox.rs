//! The outbox: what a remote does not hold yet.

use motet_proto::planted::{Bug, is_planted};
use motet_proto::{DocumentId, Entry, EntryId};
use rusqlite::types::ValueRef;
use rusqlite::{OptionalExtension, params};

use super::documents::{MOST_CHANGES, change_id};
use super::integrity::{number, sealed};
use super::packed::chunk_at;
use super::{Result, StorageError, Tx};

/// Why a row is parked that a proxy does not let through.
const TOO_LARGE_FOR_THE_WAY: &str = "rejected-toolargefortheway";
/// Why a row is parked that the account may not send.
const FORBIDDEN: &str = "rejected-forbidden";

/// What a pending row means to a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    Create = 0,
    Update = 1,
    Delete = 2,
    /// Of the remote's copy; devices keep theirs.
    Erase = 3,
}

impl Op {
    pub(super) fn from_i64(value: i64) -> Self {
        match value {
            0 => Op::Create,
            2 => Op::Delete,
            3 => Op::Erase,
            _ => Op::Update,
        }
    }
}

/// A row that may be sent.
#[derive(Clone, Debug)]
pub(crate) struct OutboxRow {
    pub(crate) id: i64,
    pub(crate) document: i64,
    pub(crate) key: DocumentId,
    pub(crate) collection: String,
    pub(crate) name: String,
    pub(crate) op: Op,
    /// Local changes from this id on; 0 for the whole document.
    pub(crate) first_change: i64,
    /// Id of the entry that was fixed before the row was first sent.
    pub(crate) sealed: Option<EntryId>,
}

macro_rules! sendable {
    () => {
        "SELECT o.id, o.document, d.key, d.collection, d.name, o.op, o.first_change, o.entry
         FROM outbox o JOIN document d ON d.id = o.document "
    };
}

impl Tx<'_> {
    /// Notes that a document has changes which `remote` lacks. Returns true if a row was added; an open row of the
    /// document takes later changes in.
    pub(crate) fn add_pending(
        &self,
        remote: i64,
        document: i64,
        op: Op,
        first_change: i64,
        now: i64,
    ) -> Result<bool> {
        let sealed = "SELECT 1 FROM outbox WHERE remote = ? AND document = ? AND entry IS NOT NULL";
        if is_planted(Bug::EditJoinsSealedRow)
            && self.conn.prepare_cached(sealed)?.exists([remote, document])?
        {
            return Ok(false);
        }
        let sql = "INSERT INTO outbox (remote, document, op, since, first_change) VALUES (?, ?, ?, ?, ?)
                   ON CONFLICT (remote, document) WHERE entry IS NULL DO NOTHING";
        let added = self.conn.prepare_cached(sql)?.execute(params![
            remote,
            document,
            op as i64,
            now,
            first_change
        ])?;
        if added == 0 {
            // A document deleted before it was sent is pending as a delete; written again after that, as an update.
            let sql = "UPDATE outbox SET op = ?1 WHERE remote = ?2 AND document = ?3 AND entry IS NULL
                       AND op <> ?1 AND (?1 = 2 OR op = 2)";
            self.conn.prepare_cached(sql)?.execute(params![op as i64, remote, document])?;
        }
        Ok(added > 0)
    }

    /// Queues every document for `remote` as a whole, except those that `skip` names, and those that were purged and sent. Returns how
    /// many.
    pub(crate) fn add_all_pending(
        &self,
        remote: i64,
        skip: &dyn Fn(i64, &str, &str) -> bool,
        now: i64,
    ) -> Result<usize> {
        let sql =
            "SELECT d.id, p.deleted, p.collection, d.name FROM document d JOIN projection p ON p.document = d.id
                   WHERE d.space = (SELECT space FROM remote WHERE id = ?)
                     AND (p.purged = 0 AND length(p.heads) > 0
                       OR p.purged = 0 AND p.json IS NOT '{}'
                         AND NOT EXISTS (SELECT 1 FROM local_field WHERE document = d.id)
                       OR EXISTS (SELECT 1 FROM change WHERE id BETWEEN d.id << 24 AND d.id << 24 | 0xffffff)
                       OR EXISTS (SELECT 1 FROM snapshot WHERE document = d.id))
                   ORDER BY d.id";
        let mut statement = self.conn.prepare_cached(sql)?;
        let mut rows = statement.query([remote])?;
        let mut added = 0;
        while let Some(row) = rows.next()? {
            let document = row.get(0)?;
            if skip(document, &row.get::<_, String>(2)?, &row.get::<_, String>(3)?) {
                continue;
            }
            let op = if row.get(1)? { Op::Delete } else { Op::Create };
            added += usize::from(self.add_pending(remote, document, op, 0, now)?);
            self.widen_pending(remote, document)?;
        }
        Ok(added)
    }

    /// An open row may cover only recent changes: from now on it covers the whole document.
    pub(crate) fn widen_pending(&self, remote: i64, document: i64) -> Result<()> {
        let sql = "UPDATE outbox SET first_change = 0 WHERE remote = ? AND document = ? AND entry IS NULL";
        self.conn.prepare_cached(sql)?.execute([remote, document])?;
        Ok(())
    }

    /// The next rows to send after row `after`, parked ones left out.
    pub(crate) fn sendable(&self, remote: i64, after: i64, limit: usize) -> Result<Vec<OutboxRow>> {
        let sql =
            concat!(sendable!(), "WHERE o.remote = ? AND o.id > ? AND o.error IS NULL ORDER BY o.id LIMIT ?");
        let mut statement = self.conn.prepare_cached(sql)?;
        let rows = statement.query_map(params![remote, after, limit as i64], outbox_row)?;
        Ok(rows.collect::<std::result::Result<_, _>>()?)
    }

    /// The rows of one document after row `after` that may be sent, at most `limit`.
    pub(crate) fn sendable_of(
        &self,
        remote: i64,
        document: DocumentId,
        after: i64,
        limit: usize,
    ) -> Result<Vec<OutboxRow>> {
        let sql = concat!(
            sendable!(),
            "WHERE o.remote = ? AND d.key = ? AND o.id > ? AND o.error IS NULL ORDER BY o.id LIMIT ?"
        );
        let mut statement = self.conn.prepare_cached(sql)?;
        let rows =
            statement.query_map(params![remote, document.as_bytes(), after, limit as i64], outbox_row)?;
        Ok(rows.collect::<std::result::Result<_, _>>()?)
    }

    /// The entry of a sealed row, with its sealed bytes; [`StorageError::Damaged`] if it is not the one that was sealed.
    pub(crate) fn sealed_entry(&self, row: &OutboxRow) -> Result<Entry> {
        let sql = "SELECT entry, device, kind, suite, sealed FROM outbox WHERE id = ?";
        let entry = self
            .conn
            .prepare_cached(sql)?
            .query_row([row.id], |columns| Ok(sealed((self.space, row.key), columns, 0)))?;
        entry.map_err(StorageError::Damaged)
    }

    /// Ids and bytes of the changes that a row covers, in order: those that did not come from `remote`, from
    /// `first_change` on; all of them if the row covers the whole document.
    pub(crate) fn pending_changes(&self, row: &OutboxRow, remote: i64) -> Result<Vec<(i64, Vec<u8>)>> {
        let sql = "SELECT id, bytes FROM change WHERE id >= ?1 AND id <= ?2
                   AND (?3 OR origin IS NULL OR origin <> ?4) ORDER BY id";
        let mut statement = self.conn.prepare_cached(sql)?;
        let first = row.first_change.max(change_id(row.document, 0));
        let (whole, document) = (row.first_change == 0, row.document);
        let range = params![first, change_id(row.document, MOST_CHANGES), whole, remote];
        let rows = statement.query_map(range, |row| Ok((row.get(0)?, chunk_at(row, 1, document)?)))?;
        Ok(rows.collect::<std::result::Result<_, _>>()?)
    }

    /// Whether the changes that a row covers are stored, wherever they came from.
    pub(crate) fn has_pending_changes(&self, row: &OutboxRow) -> Result<bool> {
        let sql = "SELECT 1 FROM change WHERE id BETWEEN ?1 AND ?2
                   UNION ALL SELECT 1 FROM snapshot WHERE document = ?3 AND upto >= ?1";
        let last = change_id(row.document, MOST_CHANGES);
        Ok(self.conn.prepare_cached(sql)?.exists([row.first_change, last, row.document])?)
    }

    /// Whether some of the numbers from the first change of a row to the last of its document belong to no change that is stored. A number may
    /// also have been given up, so this is a reason to look closer, and no proof of damage.
    pub(crate) fn has_gaps(&self, row: &OutboxRow) -> Result<bool> {
        let sql = "SELECT (SELECT COUNT(*) FROM change WHERE id BETWEEN ?1 AND ?2),
                          (SELECT changes FROM projection WHERE document = ?3),
                          EXISTS (SELECT 1 FROM snapshot WHERE document = ?3 AND upto >= ?1)";
        let (first, document) = (row.first_change, row.document);
        let range = [first, change_id(document, MOST_CHANGES), document];
        self.conn
            .prepare_cached(sql)?
            .query_row(range, |columns| {
                let (stored, counted) = (number(columns.get_ref(0)?), number(columns.get_ref(1)?));
                let expected = change_id(document, counted) - first + 1;
                Ok(stored < expected && !columns.get::<_, bool>(2)?)
            })
            .map_err(Into::into)
    }

    /// Fixes what a row sends. Later changes of the document open a new row.
    pub(crate) fn seal_row(&self, id: i64, last_change: i64, entry: &Entry) -> Result<()> {
        let sql = "UPDATE outbox SET last_change = ?, entry = ?, device = ?, kind = ?, suite = ?, sealed = ? WHERE id = ?";
        self.conn.prepare_cached(sql)?.execute(params![
            last_change,
            entry.id.as_bytes(),
            entry.device.as_bytes(),
            entry.kind.to_bytes(),
            entry.suite,
            entry.payload,
            id
        ])?;
        Ok(())
    }

    /// Adds a row that is fixed from the start: a further piece of what row `first` sends.
    pub(crate) fn add_piece(
        &self,
        remote: i64,
        first: &OutboxRow,
        last_change: i64,
        entry: &Entry,
        now: i64,
    ) -> Result<()> {
        let sql =
            "INSERT INTO outbox (remote, document, op, since, first_change, entry) VALUES (?, ?, ?, ?, ?, ?)";
        let row =
            params![remote, first.document, first.op as i64, now, first.first_change, entry.id.as_bytes()];
        self.conn.prepare_cached(sql)?.execute(row)?;
        self.seal_row(self.conn.last_insert_rowid(), last_change, entry)
    }

    /// Drops what waits to be sent of a document and is not fixed.
    pub(crate) fn drop_open(&self, remote: i64, document: i64) -> Result<()> {
        let sql = "DELETE FROM outbox WHERE remote = ? AND document = ? AND entry IS NULL";
        self.conn.prepare_cached(sql)?.execute([remote, document])?;
        Ok(())
    }

    /// Whether something of a document waits to be sent.
    pub(crate) fn is_pending(&self, remote: i64, document: i64) -> Result<bool> {
        let sql = "SELECT 1 FROM outbox WHERE remote = ? AND document = ?";
        Ok(self.conn.prepare_cached(sql)?.exists([remote, document])?)
    }

    /// The remote holds the row durably. Returns its document.
    pub(crate) fn settle(&self, id: i64, now: i64) -> Result<Option<i64>> {
        let sql = "DELETE FROM outbox WHERE id = ? RETURNING document, op";
        let settled = self
            .conn
            .prepare_cached(sql)?
            .query_row([id], |row| Ok((row.get::<_, i64>(0)?, Op::from_i64(row.get(1)?))))
            .optional()?;
        let document = settled.map(|(document, _)| document);
        if let Some((document, Op::Erase)) = settled {
            self.conn
                .prepare_cached("UPDATE document SET last_synced_at = NULL WHERE id = ?")?
                .execute([document])?;
        } else if let Some(document) = document {
            if is_planted(Bug::ReceiptSettlesDocument) {
                self.conn.execute("DELETE FROM outbox WHERE document = ?", [document])?;
            }
            self.mark_synced(document, now)?;
        }
        Ok(document)
    }

    /// The remote will never accept the row as it is: it stays, visible, with the reason.
    pub(crate) fn park(&self, id: i64, error: &str) -> Result<bool> {
        let sql = "UPDATE outbox SET error = ? WHERE id = ? AND error IS NULL";
        Ok(self.conn.prepare_cached(sql)?.execute(params![error, id])? > 0)
    }

    /// Rows that were too large for the way to the remote may be sent again: it may be another way by now.
    pub(crate) fn unpark_too_large(&self, remote: i64) -> Result<()> {
        self.unpark(remote, TOO_LARGE_FOR_THE_WAY)
    }

    /// So may those that the account was not allowed to send: it may be by now.
    pub(crate) fn unpark_forbidden(&self, remote: i64) -> Result<()> {
        self.unpark(remote, FORBIDDEN)
    }

    fn unpark(&self, remote: i64, code: &str) -> Result<()> {
        let sql =
            "UPDATE outbox SET error = NULL WHERE remote = ? AND json_valid(error) AND error ->> 'code' = ?";
        self.conn.prepare_cached(sql)?.execute(params![remote, code])?;
        Ok(())
    }

    /// Rows that the app's sealer did not seal are tried again, behind all others: a session that is under way looks only behind what it has
    /// read.
    pub(crate) fn unpark_unsealed(&self, remote: i64) -> Result<()> {
        let sql = "SELECT id, document, op, since, first_change FROM outbox
                   WHERE remote = ? AND entry IS NULL AND json_valid(error) AND error ->> 'code' = ? ORDER BY id";
        let code = StorageError::Sealer(String::new()).code();
        let mut statement = self.conn.prepare_cached(sql)?;
        let read =
            |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?));
        let rows: Vec<(i64, i64, i64, i64, i64)> =
            statement.query_map(params![remote, code], read)?.collect::<std::result::Result<_, _>>()?;
        for (id, document, op, since, first_change) in rows {
            self.conn.prepare_cached("DELETE FROM outbox WHERE id = ?")?.execute([id])?;
            let sql = "INSERT INTO outbox (remote, document, op, since, first_change) VALUES (?, ?, ?, ?, ?)";
            self.conn.prepare_cached(sql)?.execute([remote, document, op, since, first_change])?;
        }
        Ok(())
    }

    /// Drops what waits to be sent of a collection.
    pub(crate) fn drop_pending_of(&self, collection: &str) -> Result<()> {
        let sql = "DELETE FROM outbox WHERE document IN (SELECT id FROM document WHERE collection = ?)";
        self.conn.prepare_cached(sql)?.execute([collection])?;
        Ok(())
    }

    /// Drops what waits to be sent of a document.
    pub(crate) fn drop_pending_of_document(&self, document: i64) -> Result<()> {
        self.conn.prepare_cached("DELETE FROM outbox WHERE document = ?")?.execute([document])?;
        Ok(())
    }

    /// Drops a row that has nothing to send.
    pub(crate) fn drop_pending(&self, id: i64) -> Result<()> {
        self.conn.prepare_cached("DELETE FROM outbox WHERE id = ?")?.execute([id])?;
        Ok(())
    }

    /// Rows that may be sent to the active remote.
    pub(crate) fn count_sendable(&self) -> Result<u64> {
        let sql = "SELECT COUNT(*) FROM outbox WHERE error IS NULL
                   AND remote IN (SELECT id FROM remote WHERE active = 1)";
        Ok(self.conn.prepare_cached(sql)?.query_row([], |row| row.get::<_, i64>(0))? as u64)
    }

    /// Rows that the active remote does not hold, parked ones included.
    pub(crate) fn count_pending(&self) -> Result<u64> {
        let sql = "SELECT COUNT(*) FROM outbox WHERE remote IN (SELECT id FROM remote WHERE active = 1)";
        Ok(self.conn.prepare_cached(sql)?.query_row([], |row| row.get::<_, i64>(0))? as u64)
    }
}

fn outbox_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<OutboxRow> {
    // One that is damaged is found out where it can be dealt with; the others go on.
    let sealed = match row.get_ref(7)? {
        ValueRef::Null => None,
        id => Some(EntryId(id.as_blob().ok().and_then(|id| id.try_into().ok()).unwrap_or_default())),
    };
    let text = |n: usize| row.get_ref(n).map(|text| text.as_str().unwrap_or_default().to_owned());
    Ok(OutboxRow {
        id: row.get(0)?,
        document: row.get(1)?,
        key: DocumentId(
            row.get_ref(2)?.as_blob().ok().and_then(|key| key.try_into().ok()).unwrap_or_default(),
        ),
        collection: text(3)?,
        name: text(4)?,
        op: Op::from_i64(number(row.get_ref(5)?)),
        first_change: number(row.get_ref(6)?),
        sealed,
    })
}

//! Documents, their changes and projections.

use std::collections::HashSet;

use motet_proto::DocumentId;
use rusqlite::{OptionalExtension, Row, params};

use super::integrity::text;
use super::packed::{Pack, chunk_at, head_and_length, unpacked_len};
use super::{Result, StorageError, Tx, next_seq};

/// Heads and hashes as the store keeps them.
pub(crate) type Hash = [u8; 32];

/// A document as far as the store knows it without loading it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct DocumentRow {
    pub(crate) id: i64,
    pub(crate) key: DocumentId,
    pub(crate) collection: String,
    pub(crate) name: String,
    pub(crate) heads: Vec<Hash>,
    pub(crate) deleted: bool,
    pub(crate) conflicts: i64,
    /// Numbers given out to changes.
    pub(crate) changes: i64,
    /// Milliseconds since 1970.
    pub(crate) updated_at: i64,
    /// Gone for good: only id and heads are left.
    pub(crate) purged: bool,
}

/// What a document is loaded from.
#[derive(Debug, Default)]
pub(crate) struct StoredDocument {
    pub(crate) snapshot: Option<Vec<u8>>,
    /// Bytes of the changes that the snapshot lacks, in order.
    pub(crate) changes: Vec<Vec<u8>>,
    /// Id of the last change, for a new snapshot.
    pub(crate) last_change: i64,
}

const DOCUMENT: &str =
    "SELECT d.id, d.key, d.collection, d.name, p.heads, p.deleted, p.conflicts, p.changes, p.updated_at, p.purged
                         FROM document d JOIN projection p ON p.document = d.id";

impl Tx<'_> {
    pub(crate) fn document(&self, collection: &str, name: &str) -> Result<Option<DocumentRow>> {
        let sql = format!("{DOCUMENT} WHERE d.collection = ? AND d.name = ? AND d.space = 1");
        Ok(self.conn.prepare_cached(&sql)?.query_row([collection, name], document_row).optional()?)
    }

    pub(crate) fn document_by_key(&self, key: DocumentId) -> Result<Option<DocumentRow>> {
        let sql = format!("{DOCUMENT} WHERE d.key = ?");
        Ok(self.conn.prepare_cached(&sql)?.query_row([key.as_bytes()], document_row).optional()?)
    }

    pub(crate) fn document_by_id(&self, id: i64) -> Result<DocumentRow> {
        let sql = format!("{DOCUMENT} WHERE d.id = ?");
        Ok(self.conn.prepare_cached(&sql)?.query_row([id], document_row)?)
    }

    /// Which of these documents there are.
    pub(crate) fn known_documents(&self, keys: &[DocumentId]) -> Result<HashSet<DocumentId>> {
        let mut statement = self.conn.prepare_cached("SELECT 1 FROM document WHERE key = ?")?;
        let mut known = HashSet::new();
        for key in keys {
            if statement.exists([key.as_bytes()])? {
                known.insert(*key);
            }
        }
        Ok(known)
    }

    pub(crate) fn stored_document(&self, id: i64) -> Result<StoredDocument> {
        let mut stored = StoredDocument::default();
        let mut statement =
            self.conn.prepare_cached("SELECT bytes, upto FROM snapshot WHERE document = ?")?;
        let snapshot =
            statement.query_row([id], |row| Ok((chunk_at(row, 0, id)?, row.get(1)?))).optional()?;
        if let Some((bytes, upto)) = snapshot {
            stored.snapshot = Some(bytes);
            stored.last_change = upto;
        }
        let sql = "SELECT id, bytes FROM change WHERE id > ? AND id <= ? ORDER BY id";
        let mut statement = self.conn.prepare_cached(sql)?;
        let mut rows =
            statement.query([stored.last_change.max(change_id(id, 0)), change_id(id, MOST_CHANGES)])?;
        while let Some(row) = rows.next()? {
            stored.last_change = row.get(0)?;
            stored.changes.push(chunk_at(row, 1, id)?);
        }
        Ok(stored)
    }

    /// Adds a document and its projection; returns its row id. `synced_at`: when a remote held it, if one does.
    pub(crate) fn insert_document(
        &self,
        row: &DocumentRow,
        json: &str,
        synced_at: Option<i64>,
    ) -> Result<i64> {
        let sql = "INSERT INTO document (space, key, collection, name, created_at, last_synced_at)
                   VALUES (1, ?, ?, ?, ?, ?)";
        let document = params![row.key.as_bytes(), row.collection, row.name, row.updated_at, synced_at];
        self.conn.prepare_cached(sql)?.execute(document)?;
        let id = self.conn.last_insert_rowid();
        let sql = concat!(
            "INSERT INTO projection
               (document, collection, name, heads, deleted, conflicts, changes, updated_at, json, seq)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ",
            next_seq!(),
            ")"
        );
        let heads = row.heads.as_flattened();
        let shown = params![
            id,
            row.collection,
            row.name,
            heads,
            row.deleted,
            row.conflicts,
            row.changes,
            row.updated_at,
            json
        ];
        self.conn.prepare_cached(sql)?.execute(shown)?;
        Ok(id)
    }

    /// Brings a document's projection up to date.
    pub(crate) fn update_document(&self, row: &DocumentRow, json: &str) -> Result<()> {
        let sql = concat!(
            "UPDATE projection SET heads = ?, deleted = ?, conflicts = ?, changes = ?, updated_at = ?, json = ?,
             purged = ?, seq = ",
            next_seq!(),
            " WHERE document = ?"
        );
        let heads = row.heads.as_flattened();
        let shown =
            params![heads, row.deleted, row.conflicts, row.changes, row.updated_at, json, row.purged, row.id];
        if self.conn.prepare_cached(sql)?.execute(shown)? != 1 {
            return Err(StorageError::Damaged(format!(
                "{}/{} is not there any more",
                row.collection, row.name
            )));
        }
        Ok(())
    }

    /// Keeps the original bytes of a document's change number `number`.
    pub(crate) fn insert_change(
        &self,
        document: i64,
        number: i64,
        bytes: &[u8],
        origin: Option<i64>,
    ) -> Result<()> {
        if number > MOST_CHANGES {
            return Err(StorageError::Damaged(format!("a document has more than {MOST_CHANGES} changes")));
        }
        let sql = "INSERT INTO change (id, bytes, origin) VALUES (?, ?, ?)";
        let id = change_id(document, number);
        self.conn.prepare_cached(sql)?.execute(params![id, Pack { document, chunk: bytes }, origin])?;
        Ok(())
    }

    /// Names of the deleted documents of a collection that were last touched before `before`.
    pub(crate) fn deleted_before(&self, collection: &str, before: i64) -> Result<Vec<String>> {
        let sql = "SELECT d.name FROM projection p JOIN document d ON d.id = p.document
                   WHERE p.deleted = 1 AND p.purged = 0 AND d.collection = ? AND p.updated_at < ?";
        let mut statement = self.conn.prepare_cached(sql)?;
        let rows = statement.query_map(params![collection, before], |row| row.get(0))?;
        Ok(rows.collect::<std::result::Result<_, _>>()?)
    }

    /// Drops what is left of a purged document, unless some of it has to be sent first.
    pub(crate) fn sweep_purged(&self, document: i64) -> Result<()> {
        let sql = "SELECT 1 FROM outbox WHERE document = ? UNION ALL
                   SELECT 1 FROM projection WHERE document = ? AND purged = 0";
        if self.conn.prepare_cached(sql)?.exists([document, document])? {
            return Ok(());
        }
        self.clear_content(document)?;
        for table in ["conflict", "local_field", "leaving"] {
            self.conn
                .prepare_cached(&format!("DELETE FROM {table} WHERE document = ?"))?
                .execute([document])?;
        }
        let sql = "DELETE FROM quarantine WHERE document = (SELECT key FROM document WHERE id = ?)";
        self.conn.prepare_cached(sql)?.execute([document])?;
        self.note_scrub()
    }

    /// When the content of a document goes that another device has purged (milliseconds since 1970).
    pub(crate) fn leaves_at(&self, document: i64) -> Result<Option<i64>> {
        // What is no time says nothing: it is found by who examines the file.
        let sql = "SELECT at FROM leaving WHERE document = ? AND typeof(at) = 'integer' AND at > 0";
        Ok(self.conn.prepare_cached(sql)?.query_row([document], |row| row.get(0)).optional()?)
    }

    /// The content of a document goes at `at`.
    pub(crate) fn let_leave(&self, document: i64, at: i64) -> Result<()> {
        let sql =
            "INSERT INTO leaving (document, at) VALUES (?, ?) ON CONFLICT DO UPDATE SET at = excluded.at";
        self.conn.prepare_cached(sql)?.execute([document, at])?;
        Ok(())
    }

    /// A document does not go, or is gone.
    pub(crate) fn end_leaving(&self, document: i64) -> Result<()> {
        self.conn.prepare_cached("DELETE FROM leaving WHERE document = ?")?.execute([document])?;
        Ok(())
    }

    /// Whether documents wait to go.
    pub(crate) fn is_anything_leaving(&self) -> Result<bool> {
        Ok(self.conn.prepare_cached("SELECT 1 FROM leaving LIMIT 1")?.exists([])?)
    }

    /// All documents that wait to go.
    pub(crate) fn all_leaving(&self) -> Result<Vec<i64>> {
        let sql = "SELECT document FROM leaving WHERE typeof(at) = 'integer' AND at > 0";
        let mut statement = self.conn.prepare_cached(sql)?;
        let rows = statement.query_map([], |row| row.get(0))?;
        Ok(rows.collect::<std::result::Result<_, _>>()?)
    }

    /// The documents that were to go at `at` or before, at most `limit`.
    pub(crate) fn leaving_at(&self, at: i64, limit: usize) -> Result<Vec<i64>> {
        let sql = "SELECT document FROM leaving WHERE typeof(at) = 'integer' AND at BETWEEN 1 AND ?
                   ORDER BY at LIMIT ?";
        let mut statement = self.conn.prepare_cached(sql)?;
        let rows = statement.query_map(params![at, limit as i64], |row| row.get(0))?;
        Ok(rows.collect::<std::result::Result<_, _>>()?)
    }

    /// When a purged document was deleted, as its changes had it (milliseconds since 1970).
    pub(crate) fn tombstone(&self, document: i64) -> Result<Option<i64>> {
        let sql = "SELECT CAST(at AS INTEGER) FROM grave WHERE document = ?";
        Ok(self.conn.prepare_cached(sql)?.query_row([document], |row| row.get(0)).optional()?)
    }

    /// Notes when a purged document was deleted, and the changes that did it.
    pub(crate) fn put_tombstone(&self, document: i64, at: i64, changes: &[u8]) -> Result<()> {
        let sql = "INSERT INTO grave (document, at, changes) VALUES (?, ?, ?)
                   ON CONFLICT DO UPDATE SET at = excluded.at, changes = excluded.changes";
        self.conn.prepare_cached(sql)?.execute(params![document, at, changes])?;
        Ok(())
    }

    /// The changes that deleted and purged a document.
    pub(crate) fn purge_changes(&self, document: i64) -> Result<Option<Vec<u8>>> {
        let sql = "SELECT changes FROM grave WHERE document = ? AND typeof(changes) = 'blob'";
        Ok(self.conn.prepare_cached(sql)?.query_row([document], |row| row.get(0)).optional()?)
    }

    /// Whether nothing is left of a purged document but, maybe, the changes that purged it.
    pub(crate) fn is_purged_and_gone(&self, document: i64) -> Result<bool> {
        Ok(self.document_by_id(document)?.purged && !self.has_content(document)?)
    }

    /// The purged documents of which nothing is left but the changes that purged them.
    pub(crate) fn purged_documents(&self) -> Result<Vec<i64>> {
        let sql = "SELECT g.document FROM grave g JOIN projection p ON p.document = g.document
                   WHERE p.purged = 1 AND length(p.heads) > 0 AND typeof(g.changes) = 'blob'
                     AND NOT EXISTS (SELECT 1 FROM change
                       WHERE id BETWEEN g.document << 24 AND g.document << 24 | 0xffffff)
                     AND NOT EXISTS (SELECT 1 FROM snapshot s WHERE s.document = g.document)";
        let mut statement = self.conn.prepare_cached(sql)?;
        let rows = statement.query_map([], |row| row.get(0))?;
        Ok(rows.collect::<std::result::Result<_, _>>()?)
    }

    /// Drops all that a document is made of, so that it can be written anew. The numbers of its changes are not used again.
    pub(crate) fn clear_content(&self, document: i64) -> Result<()> {
        let range = [change_id(document, 0), change_id(document, MOST_CHANGES)];
        self.conn.prepare_cached("DELETE FROM change WHERE id BETWEEN ? AND ?")?.execute(range)?;
        self.conn.prepare_cached("DELETE FROM snapshot WHERE document = ?")?.execute([document])?;
        Ok(())
    }

    /// Fields of a document that stay on this device, as JSON.
    pub(crate) fn local_fields(&self, document: i64) -> Result<Option<String>> {
        let sql = "SELECT json FROM local_field WHERE document = ?";
        let json = self.conn.prepare_cached(sql)?.query_row([document], |row| Ok(text(row.get_ref(0)?)));
        Ok(json.optional()?)
    }

    pub(crate) fn put_local_fields(&self, document: i64, json: &str) -> Result<()> {
        let sql = "INSERT INTO local_field (document, json) VALUES (?, ?)
                   ON CONFLICT DO UPDATE SET json = excluded.json";
        self.conn.prepare_cached(sql)?.execute(params![document, json])?;
        Ok(())
    }

    pub(crate) fn drop_local_fields(&self, document: i64) -> Result<()> {
        self.conn.prepare_cached("DELETE FROM local_field WHERE document = ?")?.execute([document])?;
        Ok(())
    }

    /// The documents of a collection that have fields that stay on this device, and those that are nothing else.
    pub(crate) fn documents_with_local(&self, collection: &str) -> Result<Vec<i64>> {
        let sql = "SELECT p.document FROM projection p LEFT JOIN local_field l ON l.document = p.document
                   WHERE p.collection = ? AND p.purged = 0 AND (l.document IS NOT NULL OR length(p.heads) = 0)";
        let mut statement = self.conn.prepare_cached(sql)?;
        let rows = statement.query_map([collection], |row| row.get(0))?;
        Ok(rows.collect::<std::result::Result<_, _>>()?)
    }

    /// Bytes that a document is loaded from; 0 if there is no such document.
    pub(crate) fn stored_bytes(&self, key: DocumentId) -> Result<i64> {
        let sql = concat!(
            "SELECT d.id, s.upto, ",
            head_and_length!("coalesce(s.bytes, x'')"),
            " FROM document d LEFT JOIN snapshot s ON s.document = d.id WHERE d.key = ?"
        );
        let opened = |row: &Row<'_>, at, id| {
            Ok::<_, rusqlite::Error>(unpacked_len(id, row.get_ref(at)?.as_blob()?, row.get(at + 1)?))
        };
        let found = self.conn.prepare_cached(sql)?.query_row([key.as_bytes()], |row| {
            let id: i64 = row.get(0)?;
            Ok((id, row.get::<_, Option<i64>>(1)?, opened(row, 2, id)?))
        });
        let Some((id, upto, mut bytes)) = found.optional()? else { return Ok(0) };
        let range = [upto.unwrap_or_default().max(change_id(id, 0)), change_id(id, MOST_CHANGES)];
        let sql = concat!("SELECT ", head_and_length!("bytes"), " FROM change WHERE id > ? AND id <= ?");
        let mut statement = self.conn.prepare_cached(sql)?;
        let mut later = statement.query(range)?;
        while let Some(row) = later.next()? {
            bytes += opened(row, 0, id)?;
        }
        Ok(bytes)
    }

    /// Whether a document has a row, whatever is missing beside it.
    pub(crate) fn has_row(&self, key: DocumentId) -> Result<bool> {
        Ok(self.conn.prepare_cached("SELECT 1 FROM document WHERE key = ?")?.exists([key.as_bytes()])?)
    }

    /// Whether anything is kept of what a document was made of.
    pub(crate) fn has_content(&self, document: i64) -> Result<bool> {
        let sql = "SELECT 1 FROM change WHERE id BETWEEN ? AND ? UNION ALL SELECT 1 FROM snapshot WHERE document = ?";
        let range = [change_id(document, 0), change_id(document, MOST_CHANGES), document];
        Ok(self.conn.prepare_cached(sql)?.exists(range)?)
    }

    /// Keeps a snapshot that holds every change up to the id `upto`. `primary`: also changes that no row holds.
    pub(crate) fn put_snapshot(&self, document: i64, bytes: &[u8], upto: i64, primary: bool) -> Result<()> {
        let sql = "INSERT INTO snapshot (document, bytes, upto, is_primary) VALUES (?, ?, ?, ?)
                   ON CONFLICT DO UPDATE SET bytes = excluded.bytes, upto = excluded.upto,
                   is_primary = MAX(is_primary, excluded.is_primary)";
        self.conn.prepare_cached(sql)?.execute(params![
            document,
            Pack { document, chunk: bytes },
            upto,
            primary
        ])?;
        Ok(())
    }

    /// The snapshot of a document if it holds exactly the changes up to the id `upto`.
    pub(crate) fn snapshot_at(&self, document: i64, upto: i64) -> Result<Option<Vec<u8>>> {
        let sql = "SELECT bytes FROM snapshot WHERE document = ? AND upto = ?";
        let read = |row: &Row<'_>| chunk_at(row, 0, document);
        Ok(self.conn.prepare_cached(sql)?.query_row([document, upto], read).optional()?)
    }

    pub(crate) fn has_primary_snapshot(&self, document: i64) -> Result<bool> {
        let sql = "SELECT EXISTS (SELECT 1 FROM snapshot WHERE document = ? AND is_primary = 1)";
        Ok(self.conn.prepare_cached(sql)?.query_row([document], |row| row.get(0))?)
    }

    /// Whether a snapshot holds changes of a document that had numbers, and that no row holds.
    pub(crate) fn has_numbered_snapshot(&self, document: i64) -> Result<bool> {
        let sql = "SELECT EXISTS (SELECT 1 FROM snapshot WHERE document = ? AND is_primary = 1 AND upto > 0)";
        Ok(self.conn.prepare_cached(sql)?.query_row([document], |row| row.get(0))?)
    }

    pub(crate) fn mark_synced(&self, document: i64, now: i64) -> Result<()> {
        let sql = "UPDATE document SET last_synced_at = ? WHERE id = ?";
        self.conn.prepare_cached(sql)?.execute([now, document])?;
        Ok(())
    }
}

/// Changes that one document can have: 16.7 million.
pub(crate) const MOST_CHANGES: i64 = (1 << 24) - 1;

/// Row id of a document's change.
pub(crate) fn change_id(document: i64, number: i64) -> i64 {
    (document << 24) | number
}

/// Splits the stored form of heads.
pub(super) fn hashes(bytes: &[u8]) -> Vec<Hash> {
    bytes.as_chunks::<32>().0.to_vec()
}

fn document_row(row: &Row<'_>) -> rusqlite::Result<DocumentRow> {
    Ok(DocumentRow {
        id: row.get(0)?,
        key: DocumentId(row.get(1)?),
        collection: row.get(2)?,
        name: row.get(3)?,
        heads: hashes(row.get_ref(4)?.as_blob()?),
        deleted: row.get(5)?,
        conflicts: row.get(6)?,
        changes: row.get(7)?,
        updated_at: row.get(8)?,
        purged: row.get(9)?,
    })
}

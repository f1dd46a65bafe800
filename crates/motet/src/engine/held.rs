//! The documents that are held in memory between transactions, also beyond the writes of other processes.
//!
//! When another process has written, what is held may be an earlier state. It is not dropped, since loading a big document takes longer
//! than others should wait: it is *unsure*, and counts once the running transaction finds in the file exactly what it has.
//!
//! The stored content of a document is what the heads of its row name, with all that led there, and the changes with numbers that the
//! row does not count yet (the projection lags behind them). A hash names a change and everything before it. So a document in memory
//! has the same content if it has every change that those two name, and its own heads are among them. It shows the same if it was
//! loaded under the same declaration and nothing of it stays on this device: what stays here has no hash. Whatever is written of a
//! document changes one of these:
//! - a write, a received change, a delete, a restored or an undone version: the heads, or a change that the row does not count;
//! - a purge: `purged`; its content is gone then, below heads that stay;
//! - a removed row: there is none, or one whose heads are others;
//! - a document that waits to be merged: its mark;
//! - a repair that drops changes: the heads of the row, which it makes anew from what is left;
//! - a snapshot, local or of a compaction: nothing, as it has the same changes;
//! - a declaration: the schema.

use motet_proto::DocumentId;

use super::{Core, Loaded};
use crate::doc::{Document, split_changes};
use crate::store::{self, DocumentRow, Tx};

impl Core {
    /// Takes out what is held of a document and is as the file is.
    pub(super) fn take_held(&mut self, tx: Tx<'_>, key: DocumentId) -> store::Result<Option<Box<Loaded>>> {
        let unsure = self.unsure.pop(&key);
        if let Some(held) = self.pop_sure(key) {
            return Ok(Some(held));
        }
        let Some(mut held) = unsure else { return Ok(None) };
        if !self.is_held_as_stored(tx, &held)? {
            return Ok(None);
        }
        held.keep_snapshot(tx);
        Ok(Some(held))
    }

    /// A copy of what is held of a document, so that it can be merged with ahead of the transaction; `None` if nothing is, or that is better
    /// done in it. What is rolled back meanwhile has other heads than the row has then, and the copy is not used.
    pub(crate) fn copy_held(&self, tx: Tx<'_>, key: DocumentId) -> store::Result<Option<Box<Loaded>>> {
        let Some(held) = self.staged.documents.get(&key).or_else(|| self.cache.peek(&key)) else {
            return Ok(None);
        };
        let is_merged_ahead = !held.row.purged
            && tx.document_by_key(key)?.is_some_and(|row| row == held.row)
            && tx.stale_since(held.row.id)?.is_none()
            && !tx.has_quarantined(key)?
            && !tx.is_unmerged(held.row.id)?;
        Ok(is_merged_ahead.then(|| held.to_merge_into()))
    }

    /// Nothing is held of a document any more.
    pub(super) fn forget_held(&mut self, key: DocumentId) {
        self.unsure.pop(&key);
        drop(self.pop_sure(key));
    }

    /// Nothing is held of any document.
    pub(super) fn forget_all_held(&mut self) {
        self.cache.clear();
        self.unsure.clear();
        self.staged.documents.clear();
    }

    /// Another process has written.
    pub(super) fn doubt_held(&mut self) {
        while let Some((key, held)) = self.cache.pop_lru() {
            if held.can_be_checked() {
                self.unsure.put(key, held);
            }
        }
    }

    fn pop_sure(&mut self, key: DocumentId) -> Option<Box<Loaded>> {
        let in_transaction = self.write.documents.remove(&key).or_else(|| self.staged.documents.remove(&key));
        // An older state in the cache must not come back if this one is forgotten.
        let cached = self.cache.pop(&key);
        in_transaction.or(cached)
    }

    /// Whether a document is what loading it would make of it now.
    fn is_held_as_stored(&self, tx: Tx<'_>, held: &Loaded) -> store::Result<bool> {
        let Some(row) = tx.document(&held.row.collection, &held.row.name)? else { return Ok(false) };
        Ok(held.can_be_checked()
            && held.schema == self.schema_of(&row.collection, &row.name)
            && is_as_stored(tx, &row, &held.row, &held.document)?)
    }
}

impl Loaded {
    /// Whether heads and declaration say all of what it is.
    pub(super) fn can_be_checked(&self) -> bool {
        // What is in the trash may still have what stayed on this device once.
        !self.schema.has_local() && !self.schema.is_local() && !self.row.deleted && !self.row.purged
    }
}

/// Whether what was loaded, or written, as `known` is what the file has: its `row` and, if the row lags behind them, the changes after it.
/// `document` has at least the content of `known`, and what it may have besides is not in the file.
pub(super) fn is_as_stored(
    tx: Tx<'_>,
    row: &DocumentRow,
    known: &DocumentRow,
    document: &Document,
) -> store::Result<bool> {
    let is_same_row = row.id == known.id && row.key == known.key && !row.deleted && !row.purged;
    if !is_same_row || tx.is_unmerged(row.id)? {
        return Ok(false);
    }
    if tx.stale_since(row.id)?.is_none() {
        return Ok(row.heads == known.heads
            && row.changes == known.changes
            && row.conflicts == known.conflicts);
    }
    // A new declaration may name open conflicts otherwise: who loads the document writes that down.
    if row.conflicts > 0 || known.conflicts > 0 {
        return Ok(false);
    }
    let mut named = row.heads.clone();
    let (later, last) = tx.changes_after(row)?;
    for bytes in &later {
        // What cannot be read is found by loading it.
        let Ok(changes) = split_changes(bytes) else { return Ok(false) };
        named.extend(changes.iter().map(|change| change.hash().0));
    }
    Ok(last == known.changes
        && named.iter().all(|hash| document.has_hash(hash))
        && known.heads.iter().all(|head| named.contains(head)))
}

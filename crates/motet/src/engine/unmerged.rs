//! Documents that are shown before they are merged.
//!
//! A device that meets a space with thousands of documents keeps each as it came, with the preview that its sender made: it can
//! be listed, searched and opened at once. [`merge_all`] then merges them on all cores, outside of any transaction;
//! [`Core::settle_merged`] writes down where the preview was wrong, which is the exception. Whatever loads such a document meanwhile
//! merges it, so nothing is ever built on a preview.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::incoming::{BadEntry, Group, Part, Whole, name_of_content};
use super::journal::open_conflicts;
use super::overlay::Overlay;
use super::parallel::on_all_cores;
use super::receive::{Delivery, Received};
use super::{Commit, Core, Loaded, declared, from_json, new_document, schema_of, to_json, touched};
use crate::doc::{ChangeHash, Document, FieldConflict, Fields, Identity, split_changes};
use crate::limits;
use crate::schema::CollectionSchema;
use crate::store::{
    self, DocumentRow, Durability, Op, Readers, StorageError, StoredDocument, Ticket, Tx, Writer,
};
use crate::types::ChangeKind;

/// A document that was merged outside of a transaction.
pub(crate) struct MergedLater {
    row: DocumentRow,
    remote: i64,
    schema: Arc<CollectionSchema>,
    outcome: Result<Shown, String>,
}

struct Shown {
    document: Document,
    fields: Fields,
    conflicts: Vec<FieldConflict>,
    /// The preview said the same.
    is_same: bool,
}

/// Merges all documents that are only shown so far. Every core reads, merges and hands over to the writer what it has,
/// while the others go on; `goes_on` is told of each step.
pub(crate) fn merge_all(
    readers: &Readers,
    writer: &Writer<Core>,
    goes_on: &(dyn Fn() + Sync),
) -> store::Result<Received> {
    let all = Mutex::new(Received::default());
    loop {
        let documents = readers.read(|tx| tx.unmerged(limits::UNMERGED_READ))?;
        if documents.is_empty() {
            return Ok(all.into_inner().unwrap_or_else(PoisonError::into_inner));
        }
        let left = Mutex::new(documents.chunks(limits::MERGED_BEHIND));
        let indexed = AtomicBool::new(false);
        let work = || -> store::Result<()> {
            if !indexed.swap(true, Ordering::Relaxed) {
                // One of the cores: searching works from here on.
                while readers.read(|tx| tx.is_unindexed())? {
                    let index = |tx: Tx<'_>, core: &mut Core| core.index_batch(tx);
                    writer.submit::<_, StorageError>(Durability::Normal, index).wait()?;
                    goes_on();
                }
            }
            let mut under_way: Option<Ticket<Received, StorageError>> = None;
            loop {
                let chunk = left.lock().unwrap_or_else(PoisonError::into_inner).next();
                let merged = chunk.map(|chunk| readers.read(|tx| merge_some(tx, chunk)));
                if let Some(ticket) = under_way.take() {
                    let received = ticket.wait()?;
                    goes_on();
                    all.lock().unwrap_or_else(PoisonError::into_inner).add(received);
                }
                let Some(merged) = merged.transpose()? else { return Ok(()) };
                let settle = move |tx: Tx<'_>, core: &mut Core| core.settle_merged(tx, merged);
                under_way = Some(writer.submit(Durability::Normal, settle));
            }
        };
        on_all_cores(documents.len(), work)?;
    }
}

fn merge_some(tx: Tx<'_>, documents: &[(i64, i64)]) -> store::Result<Vec<MergedLater>> {
    let schemas = declared(tx)?;
    let mut merged = Vec::with_capacity(documents.len());
    for (document, remote) in documents {
        let row = tx.document_by_id(*document)?;
        let shown = tx.shown(*document)?.unwrap_or_default();
        let schema = schema_of(&schemas, &row.collection, &row.name);
        let local = Overlay::read(tx, *document, &schema)?;
        let identity = Identity { space: tx.space(), document: row.key };
        let outcome = merge(identity, &row, &tx.stored_document(*document)?, &shown, (&local, &schema));
        merged.push(MergedLater { row, remote: *remote, schema, outcome });
    }
    Ok(merged)
}

fn merge(
    identity: Identity,
    row: &DocumentRow,
    stored: &StoredDocument,
    shown: &str,
    (local, schema): (&Overlay, &CollectionSchema),
) -> Result<Shown, String> {
    let mut document = Document::load_foreign(identity, stored.snapshot.as_deref(), &stored.changes, schema)?;
    if document.heads().iter().map(|head| head.0).ne(row.heads.iter().copied()) {
        return Err("it is not what its header says".into());
    }
    if document.is_deleted(schema) != row.deleted {
        return Err("it is deleted, which its preview does not say".into());
    }
    let read = document.take_shown(schema);
    let mut fields = read.fields;
    local.lay_over(schema, &mut fields);
    let is_same = read.conflicts.is_empty() && to_json(&fields).is_ok_and(|json| json == shown);
    Ok(Shown { document, fields, conflicts: read.conflicts, is_same })
}

impl Core {
    /// Keeps a document as it came.
    pub(super) fn keep_unmerged(
        &mut self,
        tx: Tx<'_>,
        remote: i64,
        group: Group,
        whole: Whole,
        now: i64,
    ) -> store::Result<()> {
        let schema = self.schema_of(&group.collection, &group.name);
        let identity = Identity { space: tx.space(), document: group.key };
        let mut loaded = new_document(identity, &group.collection, &group.name, schema);
        let row = &mut loaded.row;
        row.heads.clone_from(&whole.heads);
        row.changes = whole.changes.len() as i64;
        row.updated_at = now;
        self.ensure_view(tx, &row.collection)?;
        row.id = tx.insert_document(row, &whole.json, Some(now))?;
        self.told.projected = true;
        self.mark_unindexed(tx, row.id)?;
        tx.mark_unmerged(row.id, remote)?;
        match whole.snapshot() {
            Some(bytes) => tx.put_snapshot(row.id, bytes, 0, true)?,
            None => {
                for (number, bytes) in (1..).zip(&whole.changes) {
                    tx.insert_change(row.id, number, bytes, Some(remote))?;
                }
            }
        }
        if self.leaves(&group.collection, &group.name) {
            for other in self.remotes.iter().copied().filter(|other| *other != remote).collect::<Vec<_>>() {
                if tx.add_pending(other, row.id, Op::Create, 0, now)? {
                    self.count_pending(other, 1);
                }
            }
        }
        let heads: Vec<_> = whole.heads.iter().copied().map(ChangeHash).collect();
        self.note_held(remote, row.id, &group, &heads, true);
        let fields = whole.fields.keys().cloned().collect();
        let commit = Commit { origin: Some(remote), ..Commit::of(&[], ChangeKind::Created) };
        let device = group.devices.into_keys().next();
        self.note_event(&loaded.row, &commit, fields, device);
        Ok(())
    }

    /// Writes down documents that were merged outside of a transaction, as far as they are still what they were.
    pub(crate) fn settle_merged(&mut self, tx: Tx<'_>, merged: Vec<MergedLater>) -> store::Result<Received> {
        let mut received = Received::default();
        self.catch_up_all(tx)?;
        let now = self.shared.now_ms();
        for MergedLater { row, remote, schema, outcome } in merged {
            let Some(current) = tx.document_by_key(row.key)? else { continue };
            let is_declared = schema == self.schema_of(&row.collection, &row.name);
            if current != row || !is_declared || !tx.unmark_unmerged(row.id)? {
                // Somebody has written to it meanwhile, or declared something else of it: its turn comes again.
                continue;
            }
            match outcome {
                Ok(shown) if shown.is_same => {}
                Ok(shown) => self.correct(tx, row, remote, shown, &mut received, now)?,
                Err(reason) => self.take_apart(tx, &row, remote, &reason, &mut received, now)?,
            }
        }
        if received.quarantined > 0 {
            tx.bound_quarantine()?;
        }
        Ok(received)
    }

    /// The preview was not what the document says.
    fn correct(
        &mut self,
        tx: Tx<'_>,
        row: DocumentRow,
        remote: i64,
        shown: Shown,
        received: &mut Received,
        now: i64,
    ) -> store::Result<()> {
        let before = tx.shown(row.id)?.map(|json| from_json(&json)).unwrap_or_default();
        let schema = self.schema_of(&row.collection, &row.name);
        let mut loaded = Loaded::new(row, shown.document, schema);
        loaded.fields = shown.fields;
        loaded.row.conflicts = open_conflicts(&shown.conflicts);
        loaded.row.updated_at = now;
        // A document that is held was loaded from the same changes.
        self.forget_held(loaded.row.key);
        self.project(tx, &loaded)?;
        let found = self.journal(tx, &loaded.row, &shown.conflicts, now)?;
        if found > 0 {
            *received.conflicts.entry(loaded.row.collection.clone()).or_default() += found as u64;
        }
        let commit = Commit { origin: Some(remote), ..Commit::of(&[], ChangeKind::Updated) };
        self.note_event(&loaded.row, &commit, touched(&before, &loaded.fields), None);
        Ok(())
    }

    /// A document that does not merge is no document: what can be applied of it is received anew, the rest is set aside.
    fn take_apart(
        &mut self,
        tx: Tx<'_>,
        row: &DocumentRow,
        remote: i64,
        reason: &str,
        received: &mut Received,
        now: i64,
    ) -> store::Result<()> {
        tracing::warn!(document = %row.key, reason, "a document is not what its preview says");
        let stored = tx.stored_document(row.id)?;
        self.forget_held(row.key);
        self.behind(tx)?.remove(&row.key);
        tx.remove_document(row.id)?;
        let commit = Commit { origin: Some(remote), ..Commit::of(&[], ChangeKind::Deleted) };
        self.note_event(row, &commit, Vec::new(), None);
        let mut bad: Vec<BadEntry> = Vec::new();
        let set_aside = |bytes: Vec<u8>, reason: &str| {
            let hash = name_of_content(&bytes);
            BadEntry { document: row.key, hash, bytes, reason: reason.to_owned(), supersedes: false }
        };
        bad.extend(stored.snapshot.map(|bytes| set_aside(bytes, reason)));
        let mut changes = Vec::new();
        for bytes in stored.changes {
            match split_changes(&bytes) {
                Ok(more) => changes.extend(more),
                Err(error) => bad.push(set_aside(bytes, &error.to_string())),
            }
        }
        self.quarantine_bad(tx, remote, &bad, received, now)?;
        if changes.is_empty() {
            return Ok(());
        }
        let mut group = Group::new(row.key, row.collection.clone(), row.name.clone());
        group.hashes = changes.iter().map(|change| change.hash().0).collect();
        group.parts = vec![Part::Changes(changes)];
        self.receive_group(tx, Delivery { remote, now, is_news: false }, group, received)
    }
}

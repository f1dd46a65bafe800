//! A document in memory beside its rows.

use std::sync::Arc;

use super::Commit;
use super::journal::open_conflicts;
use super::overlay::Overlay;
use crate::doc::{Change, Document, FieldConflict, Fields, Identity, split_changes};
use crate::limits;
use crate::schema::CollectionSchema;
use crate::store::{self, DocumentRow, StorageError, StoredVersion, Tx};

/// A document with its row and what its projection shows. Boxed wherever it goes: it measures kilobytes.
pub(crate) struct Loaded {
    pub(super) row: DocumentRow,
    pub(super) document: Document,
    pub(super) fields: Fields,
    /// Those of the fields that stay on this device.
    pub(super) local: Overlay,
    pub(super) schema: Arc<CollectionSchema>,
    /// A new document with exactly the changes that it has in memory, saved and loaded back.
    pub(super) saved: Option<Vec<u8>>,
    /// A snapshot of what it was loaded from, up to the id of a change, that a reader could not keep.
    snapshot: Option<(Vec<u8>, i64)>,
}

impl Loaded {
    pub(super) fn new(row: DocumentRow, document: Document, schema: Arc<CollectionSchema>) -> Box<Self> {
        Box::new(Self {
            row,
            document,
            fields: Fields::new(),
            local: Overlay::default(),
            schema,
            saved: None,
            snapshot: None,
        })
    }

    /// A copy to merge into ahead of a transaction.
    pub(super) fn to_merge_into(&self) -> Box<Self> {
        let mut copy = Self::new(self.row.clone(), self.document.clone(), self.schema.clone());
        copy.fields.clone_from(&self.fields);
        copy.local.clone_from(&self.local);
        copy
    }

    /// Keeps the snapshot that was made when it was loaded, if its rows are still those. A reader cannot: it is kept once the document
    /// is taken into a transaction.
    pub(super) fn keep_snapshot(&mut self, tx: Tx<'_>) {
        if let Some((bytes, upto)) = &self.snapshot {
            match tx.put_snapshot(self.row.id, bytes, *upto, false) {
                Ok(()) => self.snapshot = None,
                // Only a cache.
                Err(error) => tracing::debug!(%error, "a snapshot is not kept"),
            }
        }
    }

    /// Saves a new document, if it is worth it: it loads in less than half the time then, here and on
    /// the devices that it is first pushed to.
    pub(super) fn save_new(&mut self, commit: &Commit<'_>) {
        if self.saved.is_none() && commit.bytes() >= limits::SNAPSHOT_NEW_BYTES && !self.schema.is_local() {
            self.saved = self.document.save_checked();
        }
    }

    /// Saves a document that arrived as changes, if they are so big or so many that it matters: of 5 MB, changes load in 6 s with 1.5 GB, a
    /// snapshot in 2 s with 0.5 GB.
    pub(super) fn save_received(&mut self, changes: &[Change]) {
        let bytes: usize = changes.iter().map(|change| change.raw_bytes().len()).sum();
        let is_much =
            bytes >= limits::SNAPSHOT_AFTER_BYTES || changes.len() >= limits::SNAPSHOT_AFTER_CHANGES;
        if self.saved.is_none() && is_much && !self.schema.is_local() {
            self.saved = self.document.save_checked();
        }
    }

    /// The document as its row has it.
    pub(super) fn version(&self) -> StoredVersion {
        StoredVersion { heads: self.row.heads.clone(), deleted: self.row.deleted }
    }

    /// Brings the row in line with the document; if asked, also the fields, and returns the open conflicts.
    pub(super) fn refresh(&mut self, reread: bool) -> Vec<FieldConflict> {
        self.row.heads = self.document.heads().into_iter().map(|head| head.0).collect();
        self.row.deleted = self.document.is_deleted(&self.schema);
        if !reread {
            return Vec::new();
        }
        let shown = self.document.take_shown(&self.schema);
        self.fields = shown.fields;
        self.local.lay_over(&self.schema, &mut self.fields);
        shown.conflicts
    }
}

/// A document that has no rows yet.
pub(super) fn new_document(
    identity: Identity,
    collection: &str,
    name: &str,
    schema: Arc<CollectionSchema>,
) -> Box<Loaded> {
    let row = DocumentRow {
        id: 0,
        key: identity.document,
        collection: collection.to_owned(),
        name: name.to_owned(),
        heads: Vec::new(),
        deleted: false,
        conflicts: 0,
        changes: 0,
        updated_at: 0,
        purged: false,
    };
    Loaded::new(row, Document::new(identity), schema)
}

/// Loads a document from its rows; one with a long tail of changes gets a new snapshot on the way.
pub(super) fn load(
    tx: Tx<'_>,
    row: DocumentRow,
    schema: Arc<CollectionSchema>,
) -> store::Result<Box<Loaded>> {
    if row.purged && !tx.has_content(row.id)? {
        let identity = Identity { space: tx.space(), document: row.key };
        let mut loaded = new_document(identity, &row.collection, &row.name, schema);
        loaded.row = row;
        return Ok(loaded);
    }
    let heads = row.heads.clone();
    let loaded = load_stale(tx, row, schema)?;
    if loaded.row.heads != heads {
        let (collection, name) = (&loaded.row.collection, &loaded.row.name);
        let what = format!("{collection}/{name}: its stored changes do not lead to its heads");
        return Err(StorageError::Damaged(what));
    }
    Ok(loaded)
}

/// Loads a document whose row tells of an earlier state.
pub(super) fn load_stale(
    tx: Tx<'_>,
    mut row: DocumentRow,
    schema: Arc<CollectionSchema>,
) -> store::Result<Box<Loaded>> {
    let damaged = |what: String| StorageError::Damaged(format!("{}/{}: {what}", row.collection, row.name));
    let identity = Identity { space: tx.space(), document: row.key };
    let stored = tx.stored_document(row.id)?;
    let tail: usize = stored.changes.iter().map(Vec::len).sum();
    let saved = stored.snapshot.as_ref().map_or(0, Vec::len);
    let mut changes = Vec::with_capacity(stored.changes.len());
    for bytes in &stored.changes {
        changes.extend(split_changes(bytes).map_err(|e| damaged(e.to_string()))?);
    }
    let document =
        Document::load(identity, stored.snapshot.as_deref(), changes).map_err(|e| damaged(e.to_string()))?;
    if let Some(at) = tx.stale_since(row.id)? {
        row.updated_at = row.updated_at.max(at);
    }
    row.changes = row.changes.max(stored.last_change - store::change_id(row.id, 0));
    // A small tail of a big document is no reason to write all of it anew.
    let is_big = tail >= limits::SNAPSHOT_AFTER_BYTES.max(saved / 4);
    let mut snapshot = None;
    if is_big || stored.changes.len() >= limits::SNAPSHOT_AFTER_CHANGES {
        snapshot = document.save_checked().map(|bytes| (bytes, stored.last_change));
    }
    let mut loaded = Loaded::new(row, document, schema);
    loaded.snapshot = snapshot;
    loaded.keep_snapshot(tx);
    // A document in the trash may still have what was local once.
    if loaded.schema.has_local() || loaded.row.deleted {
        loaded.local = Overlay::read(tx, loaded.row.id, &loaded.schema)?;
    }
    let conflicts = loaded.refresh(true);
    loaded.row.conflicts = open_conflicts(&conflicts);
    if loaded.row.purged {
        // Nothing is removed because of a mark: the changes decide.
        loaded.row.purged = loaded.document.is_purged(&loaded.schema);
    }
    Ok(loaded)
}

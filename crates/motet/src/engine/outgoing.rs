//! From the outbox to entries.

use std::collections::HashSet;
use std::sync::atomic::Ordering;

use motet_proto::envelope::About;
use motet_proto::payload::{Payload, Preview};
use motet_proto::session::{OutboxBatch, OutboxItem};
use motet_proto::{DocumentId, Entry, Kind, limits as proto, planted};

use super::Core;
use super::repair::is_short;
use crate::doc::{Fields, is_intact, split_headers};
use crate::limits;
use crate::platform;
use crate::store::{self, DocumentRow, Op, OutboxRow, StorageError, Tx};
use crate::types::LastError;

/// Heads of a document, and its compact form.
type Saved = (Vec<[u8; 32]>, Vec<u8>);

/// What a row sends.
struct RowSent {
    entry: Entry,
    /// It did not fit, and goes on in another row.
    has_rest: bool,
}

impl Core {
    /// The next rows after `after`, as a batch of about `most_bytes` within the limits of the protocol. Each row is sealed before it is
    /// handed out, so that whatever happens the same bytes are sent again and known again.
    pub(crate) fn next_batch(
        &mut self,
        tx: Tx<'_>,
        remote: i64,
        after: i64,
        most_bytes: usize,
    ) -> store::Result<OutboxBatch> {
        self.check_era(tx)?;
        let most = planted::batch(proto::PUSH_BATCH_ENTRIES);
        let rows = tx.sendable(remote, after, most)?;
        // What is dropped or parked on the way makes room for rows that were not even looked at.
        let more = rows.len() == most;
        let batch = self.seal_rows(tx, remote, rows, most_bytes.min(proto::PUSH_BATCH_BYTES))?;
        Ok(OutboxBatch { more: batch.more || more, ..batch })
    }

    /// The rows of one document after `after`, in order, each sealed; as many as fit into a batch.
    pub(crate) fn batch_of(
        &mut self,
        tx: Tx<'_>,
        remote: i64,
        document: DocumentId,
        after: i64,
    ) -> store::Result<Vec<OutboxItem>> {
        self.check_era(tx)?;
        let rows = tx.sendable_of(remote, document, after, planted::batch(proto::PUSH_BATCH_ENTRIES))?;
        Ok(self.seal_rows(tx, remote, rows, proto::PUSH_BATCH_BYTES)?.items)
    }

    /// The sealed payload of an entry of a document. `whole`: the body is all of it, so it may be shown before it is merged.
    pub(super) fn payload(
        &mut self,
        tx: Tx<'_>,
        document: i64,
        (collection, name): (&str, &str),
        body: Vec<u8>,
        whole: bool,
    ) -> store::Result<Vec<u8>> {
        let payload = Payload {
            collection: collection.to_owned(),
            name: name.to_owned(),
            device_name: self.shared.device_name.clone(),
            preview: if whole { self.preview(tx, document, (collection, name))? } else { None },
            body,
        };
        let key = DocumentId::derive(tx.space(), collection, name);
        self.seal(key, &payload.encode())
    }

    fn seal(&self, document: DocumentId, plain: &[u8]) -> store::Result<Vec<u8>> {
        let sealed = self.shared.sealer.seal(About::entry(self.shared.space, document), plain);
        sealed.map_err(|error| StorageError::Sealer(error.to_string()))
    }

    /// Seals rows until they have `most_bytes`.
    pub(super) fn seal_rows(
        &mut self,
        tx: Tx<'_>,
        remote: i64,
        rows: Vec<OutboxRow>,
        most_bytes: usize,
    ) -> store::Result<OutboxBatch> {
        let mut batch = OutboxBatch::default();
        let mut bytes = 0;
        for row in rows {
            if bytes >= most_bytes {
                batch.more = true;
                break;
            }
            let entry = match row.sealed {
                Some(_) => match tx.sealed_entry(&row) {
                    Err(StorageError::Damaged(reason)) => {
                        let Some(entry) = self.seal_again(tx, remote, &row, &reason)? else {
                            // One of the rows behind it covers more now than when they were read.
                            batch.more = true;
                            break;
                        };
                        entry
                    }
                    entry => entry?,
                },
                None => match self.seal_row(tx, remote, &row) {
                    Ok(Some(RowSent { entry, has_rest })) => {
                        // The rest stands in a row behind all that were looked at.
                        batch.more |= has_rest;
                        entry
                    }
                    Ok(None) => continue,
                    Err(error @ (StorageError::Damaged(_) | StorageError::Sealer(_))) => {
                        // The others go on; this one stays, visible, with its reason.
                        self.park(tx, row.id, error)?;
                        continue;
                    }
                    Err(error) => return Err(error),
                },
            };
            bytes += entry.payload.len();
            batch.items.push(OutboxItem { row: row.id, entry });
        }
        Ok(batch)
    }

    fn park(&self, tx: Tx<'_>, row: i64, error: StorageError) -> store::Result<()> {
        if matches!(error, StorageError::Sealer(_)) {
            self.shared.has_unsealed.store(true, Ordering::Relaxed);
        }
        let code = error.code().into();
        let message = match error {
            StorageError::Damaged(message) | StorageError::Sealer(message) => message,
            error => error.to_string(),
        };
        let error = LastError { code, message, at: self.shared.now_ms() };
        tx.park(row, &super::to_json(&error)?)?;
        Ok(())
    }

    /// Heads and compact form of a document; `None` if it does not load from that form, as hostile changes can bring about.
    pub(super) fn save(&mut self, tx: Tx<'_>, document: i64) -> store::Result<Option<Saved>> {
        self.catch_up_all(tx)?;
        let loaded = self.take(tx, tx.document_by_id(document)?)?;
        let saved = loaded.document.save_checked().map(|bytes| (loaded.row.heads.clone(), bytes));
        self.put_back(loaded);
        Ok(saved)
    }

    /// What a document shows, for devices that meet it for the first time: only if it is simple and final.
    fn preview(
        &mut self,
        tx: Tx<'_>,
        document: i64,
        (collection, name): (&str, &str),
    ) -> store::Result<Option<Preview>> {
        let Some(mut json) = tx.shown_plainly(document)?.filter(|json| json.len() <= limits::PREVIEW_BYTES)
        else {
            return Ok(None);
        };
        let schema = self.schema_of(collection, name);
        if schema.has_local() {
            let mut fields: Fields = super::from_json(&json);
            fields.retain(|name, _| !schema.is_device_local(name));
            json = super::to_json(&fields)?;
        }
        Ok(Some(Preview { json, schema: schema.fingerprint() }))
    }

    /// What a row had fixed is damaged on disk, and nobody would take it. An erasure is sealed again; of anything else the whole document
    /// is owed in another row, which holds at least as much.
    fn seal_again(
        &mut self,
        tx: Tx<'_>,
        remote: i64,
        row: &OutboxRow,
        reason: &str,
    ) -> store::Result<Option<Entry>> {
        tracing::warn!(document = %row.key, reason, "an entry that waits to be sent is damaged, and is sealed again");
        if row.op == Op::Erase {
            return Ok(self.seal_row(tx, remote, row)?.map(|sealed| sealed.entry));
        }
        tx.drop_pending(row.id)?;
        self.count_pending(remote, -1);
        if tx.add_pending(remote, row.document, row.op, 0, self.shared.now_ms())? {
            self.count_pending(remote, 1);
        }
        tx.widen_pending(remote, row.document)?;
        Ok(None)
    }

    /// Fixes what a row sends. Where stored changes are damaged they are made anew first, from whatever holds them.
    fn seal_row(&mut self, tx: Tx<'_>, remote: i64, row: &OutboxRow) -> store::Result<Option<RowSent>> {
        let is_open = row.first_change > 0 && row.op != Op::Erase;
        if is_open && tx.has_gaps(row)? && !tx.is_purged_and_gone(row.document)? {
            self.mend(tx, row.document)?;
        }
        match self.seal_stored(tx, remote, row) {
            Err(StorageError::Damaged(_)) => {
                self.mend(tx, row.document)?;
                if row.op == Op::Erase || tx.has_pending_changes(row)? {
                    return self.seal_stored(tx, remote, row);
                }
                // Nothing of the document is lost, and nobody knows which of its changes the row was about.
                tx.widen_pending(remote, row.document)?;
                self.seal_stored(tx, remote, &OutboxRow { first_change: 0, ..row.clone() })
            }
            sealed => sealed,
        }
    }

    /// Fixes what a row sends: concatenated original bytes, or a saved document where a snapshot replaced them. What
    /// does not fit into one entry goes into further rows. Everything is checked against its hash, since nobody else can tell what was meant.
    fn seal_stored(&mut self, tx: Tx<'_>, remote: i64, row: &OutboxRow) -> store::Result<Option<RowSent>> {
        if DocumentId::derive(tx.space(), &row.collection, &row.name) != row.key {
            return Err(StorageError::Damaged("its rows do not agree on its name".into()));
        }
        // A number that was damaged erases nothing: what is to be erased is noted in two places.
        if row.op == Op::Erase && self.erased.contains(&(remote, row.document)) {
            let entry = self.erasure(row.key)?;
            tx.seal_row(row.id, 0, &entry)?;
            return Ok(Some(RowSent { entry, has_rest: false }));
        }
        let whole = row.first_change == 0;
        let changes = tx.pending_changes(row, remote)?;
        if whole && changes.is_empty() && tx.is_purged_and_gone(row.document)? {
            return self.seal_purge(tx, remote, row);
        }
        let last = changes.last().map_or(0, |(id, _)| *id);
        let many = changes.len() > limits::FIRST_PUSH_CHANGES;
        let primary = whole && tx.has_primary_snapshot(row.document)?;
        let hashes = headers(&changes)?;
        let is_gone = changes.is_empty() && tx.is_purged_and_gone(row.document)?;
        if !whole && changes.is_empty() && !is_gone && !tx.has_pending_changes(row)? {
            return Err(StorageError::Damaged("what waits to be sent of it is not there".into()));
        }
        if whole && !primary && changes.is_empty() && tx.local_fields(row.document)?.is_none() {
            return Err(StorageError::Damaged("none of its changes is there".into()));
        }
        let mut saved = None;
        if many && whole || primary {
            saved = self.save(tx, row.document)?;
        }
        if whole && !primary {
            self.catch_up_all(tx)?;
            let stored = tx.document_by_id(row.document)?;
            check_whole(&stored, &hashes)?;
            if is_short(tx, &stored)? {
                return Err(StorageError::Damaged("its last changes are not there".into()));
            }
            if !many {
                // It may have been saved when it was new, and not have changed since.
                let bytes = tx.snapshot_at(row.document, last)?;
                saved = bytes.filter(|bytes| is_intact(bytes)).map(|bytes| (stored.heads, bytes));
            }
        }
        if primary && saved.is_none() {
            return Err(StorageError::Damaged("it cannot be saved in a form that others can load".into()));
        }
        // What does not fit into one entry goes out as changes, in pieces.
        let saved = saved.filter(|(heads, body)| {
            body.len() <= MOST_SNAPSHOT_BYTES && heads.len() <= proto::SNAPSHOT_HEADS
        });
        let (kind, bodies) = match saved {
            Some((heads, body)) => (Kind::Snapshot { heads, supersedes: Vec::new() }, vec![body]),
            // Of a whole document nothing may be missing, and what its snapshot holds stands in no row.
            None if primary => (Kind::Changes, pieces(self.all_changes(tx, row.document)?)),
            None => (Kind::Changes, pieces(changes.into_iter().map(|(_, bytes)| bytes))),
        };
        let has_rest = bodies.len() > 1;
        let mut bodies = bodies.into_iter();
        let Some(body) = bodies.next() else {
            tx.drop_pending(row.id)?;
            self.count_pending(remote, -1);
            return Ok(None);
        };
        let payload =
            self.payload(tx, row.document, (&row.collection, &row.name), body, whole && !has_rest)?;
        let entry = self.entry(row.key, kind, payload);
        // The last piece counts the changes: until it is there, they are not.
        let none = row.first_change - 1;
        tx.seal_row(row.id, if has_rest { none } else { last }, &entry)?;
        while let Some(piece) = bodies.next() {
            let payload = self.payload(tx, row.document, (&row.collection, &row.name), piece, false)?;
            let further = self.entry(row.key, Kind::Changes, payload);
            let last = if bodies.len() > 0 { none } else { last };
            tx.add_piece(remote, row, last, &further, self.shared.now_ms())?;
            self.count_pending(remote, 1);
        }
        Ok(Some(RowSent { entry, has_rest }))
    }

    /// What is sent of a document that is purged and gone: the changes that did it.
    fn seal_purge(&mut self, tx: Tx<'_>, remote: i64, row: &OutboxRow) -> store::Result<Option<RowSent>> {
        let Some(changes) = tx.purge_changes(row.document)?.filter(|changes| !changes.is_empty()) else {
            tx.drop_pending(row.id)?;
            self.count_pending(remote, -1);
            return Ok(None);
        };
        let payload = self.payload(tx, row.document, (&row.collection, &row.name), changes, false)?;
        let entry = self.entry(row.key, Kind::Changes, payload);
        tx.seal_row(row.id, 0, &entry)?;
        Ok(Some(RowSent { entry, has_rest: false }))
    }

    pub(super) fn entry(&self, document: DocumentId, kind: Kind, sealed: Vec<u8>) -> Entry {
        Entry::new(self.shared.space, document, self.shared.device, kind, self.shared.sealer.suite(), sealed)
    }

    /// An erasure of what a remote holds of a document. Not two are the same entry.
    pub(super) fn erasure(&self, document: DocumentId) -> store::Result<Entry> {
        let salt: [u8; 16] = platform::random().map_err(|e| StorageError::Io(e.to_string()))?;
        Ok(self.entry(document, Kind::Erased, self.seal(document, &salt)?))
    }

    /// Original bytes of all changes of a document, in order.
    fn all_changes(&mut self, tx: Tx<'_>, document: i64) -> store::Result<Vec<Vec<u8>>> {
        let loaded = self.take(tx, tx.document_by_id(document)?)?;
        let changes = loaded.document.changes().map_err(StorageError::Damaged);
        self.put_back(loaded);
        Ok(changes?.iter().map(|change| change.raw_bytes().to_vec()).collect())
    }
}

/// A snapshot and what stands beside it in its entry, even if nothing of it can be compressed. Loading it takes a third of the time
/// and memory that its changes take.
const MOST_SNAPSHOT_BYTES: usize =
    proto::ENTRY_PAYLOAD_BYTES - limits::PREVIEW_BYTES - 4 * (proto::NAME_BYTES + proto::DEVICE_NAME_BYTES);

/// Changes as bodies of at most half an entry, so that sealed and compressed they fit; a larger one stands alone.
fn pieces(changes: impl IntoIterator<Item = Vec<u8>>) -> Vec<Vec<u8>> {
    let mut pieces: Vec<Vec<u8>> = Vec::new();
    for bytes in changes {
        match pieces.last_mut() {
            Some(piece) if piece.len() + bytes.len() <= proto::ENTRY_PAYLOAD_BYTES / 2 => {
                piece.extend_from_slice(&bytes);
            }
            _ => pieces.push(bytes),
        }
    }
    pieces
}

/// Changes by their hashes, and what they build on.
#[derive(Default)]
struct Hashes {
    own: HashSet<[u8; 32]>,
    needed: HashSet<[u8; 32]>,
}

/// Hashes of changes, each checked against its bytes.
fn headers(changes: &[(i64, Vec<u8>)]) -> store::Result<Hashes> {
    let mut hashes = Hashes::default();
    for (_, bytes) in changes {
        for header in split_headers(bytes).map_err(|error| StorageError::Damaged(error.to_string()))? {
            hashes.own.insert(header.hash);
            hashes.needed.extend(header.deps);
        }
    }
    Ok(hashes)
}

/// What is stored of a document leads to what it says to be, and lacks nothing on the way.
fn check_whole(stored: &DocumentRow, hashes: &Hashes) -> store::Result<()> {
    let is_gone = stored.purged && hashes.own.is_empty();
    let leads_to_heads = stored.heads.iter().all(|head| hashes.own.contains(head));
    if is_gone || leads_to_heads && hashes.needed.is_subset(&hashes.own) {
        return Ok(());
    }
    Err(StorageError::Damaged("its stored changes do not lead to its heads".into()))
}

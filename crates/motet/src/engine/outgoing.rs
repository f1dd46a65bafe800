//! From the outbox to entries.

use motet_proto::payload::{Payload, Preview};
use motet_proto::session::{OutboxBatch, OutboxItem};
use motet_proto::{Entry, Kind, SpaceId, envelope, limits as proto, planted};

use super::Core;
use crate::doc::Fields;
use crate::limits;
use crate::status::LastError;
use crate::store::{self, Op, OutboxRow, StorageError, Tx};

/// Heads of a document, and its compact form.
type Saved = (Vec<[u8; 32]>, Vec<u8>);

impl Core {
    /// The next rows after `after`, as a batch of about `most_bytes` within the limits of the protocol. Each row is frozen before it is
    /// handed out, so that whatever happens the same bytes are sent again and known again.
    pub(crate) fn next_batch(
        &mut self,
        tx: Tx<'_>,
        remote: i64,
        after: i64,
        most_bytes: usize,
    ) -> store::Result<OutboxBatch> {
        let mut batch = OutboxBatch::default();
        let mut bytes = 0;
        let most = planted::batch(proto::PUSH_BATCH_ENTRIES);
        let rows = tx.sendable(remote, after, most)?;
        // What is dropped or parked on the way makes room for rows that were not even looked at.
        batch.more = rows.len() == most;
        for row in rows {
            if bytes >= most_bytes.min(proto::PUSH_BATCH_BYTES) {
                batch.more = true;
                break;
            }
            let entry = match row.frozen {
                Some(_) => tx.frozen_entry(&row)?,
                None => match self.freeze(tx, remote, &row) {
                    Ok(Some(entry)) => entry,
                    Ok(None) => continue,
                    Err(StorageError::Damaged(message)) => {
                        // The others go on; this one stays, visible, with its reason.
                        let error =
                            LastError { code: "storage-damaged".into(), message, at: self.shared.now_ms() };
                        tx.park(row.id, &super::to_json(&error)?)?;
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

    /// Heads and compact form of a document that was saved when it was new and has not changed since.
    fn saved(&mut self, tx: Tx<'_>, document: i64, last: i64) -> store::Result<Option<Saved>> {
        let Some(bytes) = tx.snapshot_at(document, last)? else { return Ok(None) };
        self.catch_up_all(tx)?;
        Ok(Some((tx.document_by_id(document)?.heads, bytes)))
    }

    /// Heads and compact form of a document; `None` if it does not load from that form, as hostile changes can bring about.
    fn save(&mut self, tx: Tx<'_>, document: i64) -> store::Result<Option<Saved>> {
        self.catch_up_all(tx)?;
        let loaded = self.take(tx, tx.document_by_id(document)?)?;
        let saved = loaded.document.save_checked().map(|bytes| (loaded.row.heads.clone(), bytes));
        self.put_back(loaded);
        Ok(saved)
    }

    /// What a document shows, for devices that meet it for the first time: only if it is simple and final.
    fn preview(&mut self, tx: Tx<'_>, row: &OutboxRow) -> store::Result<Option<Preview>> {
        let Some(mut json) =
            tx.shown_plainly(row.document)?.filter(|json| json.len() <= limits::PREVIEW_BYTES)
        else {
            return Ok(None);
        };
        let schema = self.schema_of(&row.collection);
        if schema.has_local() {
            let mut fields: Fields = super::from_json(&json);
            fields.retain(|name, _| !schema.keeps(name));
            json = super::to_json(&fields)?;
        }
        Ok(Some(Preview { json, schema: schema.fingerprint() }))
    }

    /// Fixes what a row sends: concatenated original bytes, or a saved document where a snapshot replaced them. What
    /// does not fit into one entry goes into a new row.
    fn freeze(&mut self, tx: Tx<'_>, remote: i64, row: &OutboxRow) -> store::Result<Option<Entry>> {
        let whole = row.first_change == 0;
        let changes = tx.pending_changes(row, remote)?;
        let last = changes.last().map_or(0, |(id, _)| *id);
        let many = changes.len() > limits::FIRST_PUSH_CHANGES;
        let primary = whole && tx.has_primary_snapshot(row.document)?;
        let mut saved = match whole {
            true if many || primary => self.save(tx, row.document)?,
            true => self.saved(tx, row.document, last)?,
            false => None,
        };
        if primary && saved.is_none() {
            return Err(StorageError::Damaged("it cannot be saved in a form that others can load".into()));
        }
        if !primary {
            // What does not fit into one entry goes out as changes, in pieces.
            saved = saved.filter(|(_, body)| body.len() <= proto::ENTRY_PAYLOAD_BYTES / 2);
        }
        let (kind, body, last, rest) = match saved {
            Some((heads, body)) => (Kind::Snapshot { heads, supersedes: Vec::new() }, body, last, None),
            None => {
                let (body, last, rest) = take_changes(changes, last);
                (Kind::Changes, body, last, rest)
            }
        };
        if body.is_empty() {
            tx.drop_pending(row.id)?;
            self.count_pending(remote, -1);
            return Ok(None);
        }
        let payload = Payload {
            collection: row.collection.clone(),
            name: row.name.clone(),
            device_name: self.shared.device_name.clone(),
            preview: if whole && rest.is_none() { self.preview(tx, row)? } else { None },
            body,
        };
        let sealed = envelope::seal_plain(&payload.encode());
        let entry =
            Entry::new(SpaceId::DEFAULT, row.key, self.shared.device, kind, envelope::SUITE_PLAIN, sealed);
        tx.freeze(row.id, last, &entry)?;
        if let Some(first) = rest {
            let added = tx.add_pending(remote, row.document, Op::Update, first, self.shared.now_ms())?;
            self.count_pending(remote, i64::from(added));
        }
        Ok(Some(entry))
    }
}

/// Changes as one body of at most half an entry; also the id of the last change in it, and of the first that no
/// longer fits.
fn take_changes(changes: Vec<(i64, Vec<u8>)>, last: i64) -> (Vec<u8>, i64, Option<i64>) {
    let mut body = Vec::new();
    let mut taken = last;
    for (id, bytes) in changes {
        if !body.is_empty() && body.len() + bytes.len() > proto::ENTRY_PAYLOAD_BYTES / 2 {
            return (body, taken, Some(id));
        }
        taken = id;
        body.extend_from_slice(&bytes);
    }
    (body, taken, None)
}

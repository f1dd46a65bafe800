//! What a remote sends: entries in, documents out, in two steps.
//!
//! [`prepare`] runs before the transaction, on all cores: it opens envelopes, checks and parses, and merges whole
//! documents that this device does not have. [`Core::receive`] runs on the writer thread: it merges the rest and
//! writes everything down together with the receipts and, last, the position.

use std::collections::{BTreeMap, HashMap};

use motet_proto::payload::Payload;
use motet_proto::session::StoredReceipt;
use motet_proto::{DeviceId, DocumentId, Entry, Kind, Position, SpaceId, envelope};
use serde::{Deserialize, Serialize};

use super::{Commit, Core, Loaded};
use crate::doc::{Change, Document, Identity, MergeOutcome, Rejected, load_snapshot, split_changes};
use crate::events::ChangeKind;
use crate::limits;
use crate::status::LastError;
use crate::store::{self, DocumentRow, QuarantineRow, Tx};
use crate::time;

/// A batch of received entries, grouped by document in the order of their first entry.
#[derive(Debug, Default)]
pub(crate) struct Incoming {
    groups: Vec<Group>,
    bad: Vec<BadEntry>,
}

/// What arrived for one document.
struct Group {
    key: DocumentId,
    collection: String,
    name: String,
    devices: BTreeMap<DeviceId, String>,
    parts: Vec<Part>,
    /// Changes, and heads of snapshots, that arrived.
    hashes: Vec<[u8; 32]>,
    /// The document as a whole, made ahead because this device had none.
    ahead: Option<Ahead>,
}

enum Part {
    Changes(Vec<Change>),
    Snapshot(Box<Document>, Vec<u8>),
}

struct Ahead {
    loaded: Loaded,
    snapshot: Option<Vec<u8>>,
    outcome: MergeOutcome,
}

#[derive(Debug)]
struct BadEntry {
    entry: Entry,
    reason: String,
}

/// What a batch did, for the summary of a round.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Received {
    pub(crate) collections: BTreeMap<String, CollectionCounts>,
    pub(crate) quarantined: u64,
}

/// What a round did to the documents of one collection on this device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CollectionCounts {
    /// Documents that are new on this device.
    pub new: u64,
    /// Documents that changed.
    pub updated: u64,
    /// Documents that were deleted.
    pub deleted: u64,
    /// Concurrent writes that lost, newly found.
    pub conflicts: u64,
}

impl std::fmt::Debug for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Group").field("key", &self.key).field("parts", &self.parts.len()).finish()
    }
}

/// Opens and checks entries, and merges whole those documents of which `is_absent` says that this device has none.
/// That is only a forecast: a document that appears meanwhile is merged again in the transaction.
pub(crate) fn prepare(entries: Vec<Entry>, is_absent: impl Fn(DocumentId) -> bool) -> Incoming {
    let mut incoming = Incoming::default();
    let opened = parallel(entries, |entry| {
        let opened = open(&entry);
        (entry, opened)
    });
    let mut places: HashMap<DocumentId, usize> = HashMap::new();
    for (entry, opened) in opened {
        let (payload, part) = match opened {
            Ok(opened) => opened,
            Err(reason) => {
                incoming.bad.push(BadEntry { entry, reason });
                continue;
            }
        };
        let place = *places.entry(entry.document).or_insert_with(|| {
            incoming.groups.push(Group {
                key: entry.document,
                collection: payload.collection,
                name: payload.name,
                devices: BTreeMap::new(),
                parts: Vec::new(),
                hashes: Vec::new(),
                ahead: None,
            });
            incoming.groups.len() - 1
        });
        let group = &mut incoming.groups[place];
        group.devices.insert(entry.device, payload.device_name);
        match &part {
            Part::Changes(changes) => group.hashes.extend(changes.iter().map(|change| change.hash().0)),
            Part::Snapshot(document, _) => group.hashes.extend(document.heads().iter().map(|head| head.0)),
        }
        group.parts.push(part);
    }
    let absent: Vec<bool> = incoming.groups.iter().map(|group| is_absent(group.key)).collect();
    let groups = incoming.groups.into_iter().zip(absent).collect();
    incoming.groups = parallel(groups, |(mut group, absent)| {
        if absent {
            group.merge_ahead();
        }
        group
    });
    incoming
}

impl Core {
    /// Merges a batch and writes it down: documents, receipts, and last the position. All or nothing.
    pub(crate) fn receive(
        &mut self,
        tx: Tx<'_>,
        remote: i64,
        incoming: Incoming,
        receipts: &[StoredReceipt],
        position: Option<Position>,
    ) -> store::Result<Received> {
        let now = time::now_ms();
        let mut received = Received::default();
        for bad in &incoming.bad {
            received.quarantined += 1;
            tracing::warn!(entry = %bad.entry.id, reason = bad.reason, "an entry was set aside");
            let row = QuarantineRow {
                remote,
                document: bad.entry.document,
                hash: &bad.entry.id.0,
                waits: false,
                reason: &bad.reason,
                bytes: &bad.entry.payload,
            };
            tx.quarantine(&row, now)?;
        }
        for group in incoming.groups {
            self.receive_group(tx, remote, group, &mut received, now)?;
        }
        for receipt in receipts {
            self.settle(tx, remote, receipt, now)?;
        }
        if position.is_some() {
            tx.set_position(remote, position)?;
        }
        Ok(received)
    }

    fn receive_group(
        &mut self,
        tx: Tx<'_>,
        remote: i64,
        mut group: Group,
        received: &mut Received,
        now: i64,
    ) -> store::Result<()> {
        for (device, name) in &group.devices {
            tx.put_device(*device, name)?;
        }
        let existing = tx.document_by_key(group.key)?;
        let was_live = existing.as_ref().is_some_and(|row| !row.deleted);
        let (mut loaded, snapshot, mut outcome) = match (existing, group.ahead.take()) {
            (None, Some(ahead)) => (ahead.loaded, ahead.snapshot, ahead.outcome),
            (None, None) => {
                let (loaded, snapshot) = (group.new_document(), None);
                (loaded, snapshot, MergeOutcome::default())
            }
            (Some(row), ahead) => {
                if let Some(ahead) = ahead {
                    group.parts.push(Part::Snapshot(Box::new(ahead.loaded.document), Vec::new()));
                }
                (self.take(tx, row)?, None, MergeOutcome::default())
            }
        };
        let heads = loaded.document.heads();
        let mut hashes = group.hashes;
        let mut changes = waiting(tx, group.key)?;
        let waited = !changes.is_empty();
        for part in group.parts {
            match part {
                Part::Changes(more) => changes.extend(more),
                Part::Snapshot(other, _) => {
                    changes.extend(loaded.document.lacking(&other).unwrap_or_default())
                }
            }
        }
        if !changes.is_empty() {
            let merged = loaded.document.merge(changes);
            outcome.applied.extend(merged.applied);
            outcome.rejected.extend(merged.rejected);
        }
        if waited {
            outcome.applied.iter().try_for_each(|change| tx.release(&change.hash().0))?;
        }
        received.quarantined += self.set_aside(tx, remote, group.key, &outcome.rejected, now)?;
        let is_new = loaded.row.id == 0;
        if is_new && loaded.document.heads().is_empty() {
            return Ok(());
        }
        hashes.retain(|hash| loaded.document.heads().iter().any(|head| head.0 == *hash));
        if !is_new && loaded.document.heads() == heads {
            self.note_held(remote, loaded.row.id, hashes);
            self.put_back(loaded);
            return Ok(());
        }
        let is_deleted = loaded.document.is_deleted();
        let kind = match (was_live, is_deleted) {
            (_, true) => ChangeKind::Deleted,
            (false, false) => ChangeKind::Created,
            (true, false) => ChangeKind::Updated,
        };
        let key = loaded.row.key;
        let collection = loaded.row.collection.clone();
        let commit = Commit { changes: &outcome.applied, origin: Some(remote), stale: true, kind };
        let conflicts = self.commit(tx, loaded, &commit, now)?;
        if let (Some(bytes), Some(loaded)) = (snapshot, self.in_write.get(&key)) {
            tx.put_snapshot(loaded.row.id, &bytes, 0, true)?;
        }
        if let Some(loaded) = self.in_write.get(&key) {
            tx.mark_synced(loaded.row.id, now)?;
            let document = loaded.row.id;
            self.note_held(remote, document, hashes);
        }
        let counts = received.collections.entry(collection).or_default();
        counts.conflicts += conflicts as u64;
        match kind {
            ChangeKind::Created => counts.new += 1,
            ChangeKind::Updated => counts.updated += 1,
            // A document that came and went while this device was away is not worth a word.
            ChangeKind::Deleted => counts.deleted += u64::from(was_live),
        }
        Ok(())
    }

    /// While a lost log is read again: it holds these heads of the document.
    fn note_held(&mut self, remote: i64, document: i64, hashes: Vec<[u8; 32]>) {
        if let Some(seen) = self.reseeding.get_mut(&remote) {
            seen.entry(document).or_default().extend(hashes);
        }
    }

    fn set_aside(
        &mut self,
        tx: Tx<'_>,
        remote: i64,
        document: DocumentId,
        rejected: &[Rejected],
        now: i64,
    ) -> store::Result<u64> {
        for item in rejected {
            tracing::warn!(%document, change = %item.change.hash(), reason = item.reason, "a change was set aside");
            let row = QuarantineRow {
                remote,
                document,
                hash: &item.change.hash().0,
                waits: item.waits,
                reason: &item.reason,
                bytes: item.change.raw_bytes(),
            };
            tx.quarantine(&row, now)?;
        }
        Ok(rejected.len() as u64)
    }

    fn settle(&mut self, tx: Tx<'_>, remote: i64, receipt: &StoredReceipt, now: i64) -> store::Result<()> {
        match &receipt.result {
            Ok(()) => {
                if tx.settle(receipt.row, now)?.is_some() {
                    self.count_pending(remote, -1);
                }
            }
            Err((rejection, message)) => {
                let error = LastError {
                    code: format!("rejected-{rejection:?}").to_lowercase(),
                    message: message.clone(),
                    at: now,
                };
                if tx.park(receipt.row, &super::to_json(&error)?)? {
                    self.count_pending(remote, -1);
                }
            }
        }
        Ok(())
    }
}

impl Group {
    fn new_document(&self) -> Loaded {
        let identity = Identity { space: SpaceId::DEFAULT, document: self.key };
        self.loaded(Document::new(identity))
    }

    fn loaded(&self, document: Document) -> Loaded {
        let row = DocumentRow {
            id: 0,
            key: self.key,
            collection: self.collection.clone(),
            name: self.name.clone(),
            heads: Vec::new(),
            deleted: false,
            conflicts: 0,
            changes: 0,
        };
        Loaded::new(row, document)
    }

    fn merge_ahead(&mut self) {
        let mut snapshot = None;
        let mut loaded = self.new_document();
        let mut changes = Vec::new();
        for part in std::mem::take(&mut self.parts) {
            match part {
                Part::Snapshot(document, bytes) if snapshot.is_none() && changes.is_empty() => {
                    loaded.document = *document;
                    snapshot = Some(bytes);
                }
                Part::Snapshot(other, _) => {
                    changes.extend(loaded.document.lacking(&other).unwrap_or_default())
                }
                Part::Changes(more) => changes.extend(more),
            }
        }
        let outcome =
            if changes.is_empty() { MergeOutcome::default() } else { loaded.document.merge(changes) };
        loaded.refresh(true);
        self.ahead = Some(Ahead { loaded, snapshot, outcome });
    }
}

/// Everything that can be said about an entry without the document it belongs to.
fn open(entry: &Entry) -> Result<(Payload, Part), String> {
    entry.check(SpaceId::DEFAULT).map_err(|e| e.to_string())?;
    let opened = envelope::open(entry.suite, &entry.payload).map_err(|e| e.to_string())?;
    let mut payload =
        Payload::decode(&opened, SpaceId::DEFAULT, entry.document).map_err(|e| e.to_string())?;
    let body = std::mem::take(&mut payload.body);
    let part = match &entry.kind {
        Kind::Changes => Part::Changes(split_changes(&body).map_err(|e| e.to_string())?),
        Kind::Snapshot { heads, .. } => {
            let identity = Identity { space: SpaceId::DEFAULT, document: entry.document };
            Part::Snapshot(Box::new(load_snapshot(identity, &body, heads)?), body)
        }
    };
    Ok((payload, part))
}

/// Changes of the document that waited for others.
fn waiting(tx: Tx<'_>, document: DocumentId) -> store::Result<Vec<Change>> {
    let mut changes = Vec::new();
    for bytes in tx.waiting_changes(document)? {
        // They were parsed before they were set aside.
        changes.extend(split_changes(&bytes).unwrap_or_default());
    }
    Ok(changes)
}

/// Maps on all cores, keeping the order.
fn parallel<T: Send, U: Send>(items: Vec<T>, map: impl Fn(T) -> U + Sync) -> Vec<U> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    if items.len() < limits::PARALLEL_FROM_DOCUMENTS || threads == 1 {
        return items.into_iter().map(map).collect();
    }
    let chunk = items.len().div_ceil(threads);
    let mut items = items.into_iter();
    let map = &map;
    std::thread::scope(|scope| {
        let mut running = Vec::new();
        loop {
            let part: Vec<T> = items.by_ref().take(chunk).collect();
            if part.is_empty() {
                break;
            }
            running.push(scope.spawn(move || part.into_iter().map(map).collect::<Vec<U>>()));
        }
        running.into_iter().flat_map(|thread| thread.join().unwrap_or_default()).collect()
    })
}

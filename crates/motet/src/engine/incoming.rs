//! What a remote has sent, before the transaction and on all cores: envelopes are opened, bytes checked and parsed. Whole
//! documents that this device does not have are merged, or, when many come at once with previews, prepared to be shown as
//! they are.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use motet_proto::envelope::{About, Sealer};
use motet_proto::payload::{Payload, Preview};
use motet_proto::planted::batch;
use motet_proto::{DeviceId, DocumentId, Entry, EntryId, Kind, SpaceId};

use super::check::check_name;
use super::parallel::parallel;
use super::{Core, Database, Loaded, Schemas, new_document, schema_of};
use crate::doc::{
    Change, Document, Fields, Identity, MergeOutcome, check_fields, check_snapshot, heads_of, load_snapshot,
    operations_in, split_changes, split_headers,
};
use crate::limits;
use crate::schema::CollectionSchema;
use crate::store::{DocumentRow, Durability, Readers, StorageError, Tx};

/// A batch of received entries, grouped by document in the order of their first entry.
#[derive(Debug, Default)]
pub(crate) struct Incoming {
    pub(super) groups: Vec<Group>,
    pub(super) bad: Vec<BadEntry>,
    /// Documents that the remote was told to forget; and whether entries of them followed.
    pub(super) erased: Vec<(DocumentId, bool)>,
    /// Entries that would take much memory, and how much, by a rough count: left to be opened once that is written down.
    pub(crate) heavy: Vec<(Entry, usize)>,
}

/// How entries are opened.
#[derive(Clone, Copy)]
pub(crate) struct Opening<'a> {
    pub(crate) schemas: &'a Schemas,
    pub(crate) space: SpaceId,
    pub(crate) sealer: &'a dyn Sealer,
    /// It is written down which they are: whatever they take, they are opened.
    pub(crate) is_noted: bool,
}

/// What arrived for one document.
pub(super) struct Group {
    pub(super) key: DocumentId,
    pub(super) collection: String,
    pub(super) name: String,
    pub(super) devices: BTreeMap<DeviceId, String>,
    /// Entries that are opened and not yet parsed.
    opened: Vec<Opened>,
    pub(super) parts: Vec<Part>,
    bad: Vec<BadEntry>,
    /// Ids of the entries that could be read.
    pub(super) entries: Vec<[u8; 32]>,
    /// Changes, and heads of snapshots, that arrived.
    pub(super) hashes: Vec<[u8; 32]>,
    /// Beginnings of the hashes of all changes that arrived, also of those inside of snapshots of documents that are here.
    pub(super) sums: Vec<u32>,
    /// The document merged ahead, or as a whole because this device had none.
    pub(super) ahead: Option<Ahead>,
}

pub(super) enum Part {
    Changes(Vec<Change>),
    Snapshot(Snapshot),
}

pub(super) struct Snapshot {
    pub(super) entry: EntryId,
    /// `None` once it has been taken as the document to merge into: a big one is not held twice.
    pub(super) document: Option<Box<Document>>,
    pub(super) bytes: Vec<u8>,
    /// The remote lets other entries go because of it.
    pub(super) supersedes: bool,
}

pub(super) enum Ahead {
    Merged(Box<Merged>),
    Shown(Box<Whole>),
}

pub(super) struct Merged {
    pub(super) loaded: Box<Loaded>,
    /// The document's row as it was loaded; `None` if this device had none.
    pub(super) onto: Option<DocumentRow>,
    pub(super) snapshot: Option<Snapshot>,
    pub(super) outcome: MergeOutcome,
}

/// A document in one entry, with what it shows.
pub(super) struct Whole {
    opened: Opened,
    pub(super) heads: Vec<[u8; 32]>,
    /// Original bytes of its changes; none for a snapshot.
    pub(super) changes: Vec<Vec<u8>>,
    pub(super) fields: Fields,
    pub(super) json: String,
}

/// Something that cannot be read.
#[derive(Debug)]
pub(super) struct BadEntry {
    pub(super) document: DocumentId,
    /// Entry id, or hash of the change.
    pub(super) hash: [u8; 32],
    pub(super) bytes: Vec<u8>,
    pub(super) reason: String,
    /// The remote lets other entries go because of it.
    pub(super) supersedes: bool,
}

struct Opened {
    entry: Entry,
    body: Vec<u8>,
    preview: Option<Preview>,
}

/// The beginning of a change's hash, which also stands at its own beginning.
pub(super) fn sum_of(change: &Change) -> u32 {
    let [a, b, c, d, ..] = change.hash().0;
    u32::from_be_bytes([a, b, c, d])
}

impl Incoming {
    /// An entry is set aside untried.
    pub(crate) fn set_aside(&mut self, entry: Entry, reason: &str) {
        self.bad.push(BadEntry::new(entry, reason.to_owned()));
    }
}

impl std::fmt::Debug for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Group").field("key", &self.key).field("parts", &self.parts.len()).finish()
    }
}

/// Copies of those documents that are held in memory, to be merged with ahead of the transaction. What was received before is in them.
pub(crate) fn copy_held(
    database: &Database,
    documents: HashSet<DocumentId>,
) -> HashMap<DocumentId, Box<Loaded>> {
    let copy = move |tx: Tx<'_>, core: &mut Core| {
        let mut copies = HashMap::new();
        for document in documents {
            if let Some(copy) = core.copy_held(tx, document)? {
                copies.insert(document, copy);
            }
        }
        Ok(copies)
    };
    // Without them they are loaded.
    database.writer.run(Durability::Normal, copy).unwrap_or_else(|error: StorageError| {
        tracing::debug!(%error, "what is held cannot be copied");
        HashMap::new()
    })
}

/// Loads a document of this device so that it can be merged with ahead of the transaction; `None` if that is better done in it.
pub(crate) fn load_ahead(readers: &Readers, schemas: &Schemas, document: DocumentId) -> Option<Box<Loaded>> {
    let load = |tx: Tx<'_>| {
        let Some(row) = tx.document_by_key(document)? else { return Ok(None) };
        if row.purged || tx.has_quarantined(document)? || tx.is_unmerged(row.id)? {
            return Ok(None);
        }
        let schema = schema_of(schemas, &row.collection, &row.name);
        super::load(tx, row, schema).map(Some)
    };
    // What is wrong with it is found out again where it can be dealt with.
    readers.read(load).ok().flatten()
}

/// Opens and checks entries, and prepares whole those documents of which `is_absent` says that this device has none; the others are
/// merged with what `load` has of them. That is only a forecast: a document that appears or changes meanwhile is merged in the
/// transaction.
pub(crate) fn prepare(
    entries: Vec<Entry>,
    how: Opening<'_>,
    is_absent: impl Fn(DocumentId) -> bool,
    load: impl Fn(DocumentId) -> Option<Box<Loaded>> + Sync,
) -> Incoming {
    let mut incoming = Incoming::default();
    let (erasures, entries): (Vec<_>, Vec<_>) =
        entries.into_iter().enumerate().partition(|(_, entry)| entry.kind == Kind::Erased);
    let last: HashMap<DocumentId, usize> = entries.iter().map(|(n, entry)| (entry.document, *n)).collect();
    let entries: Vec<_> = entries.into_iter().map(|(_, entry)| entry).collect();
    for (n, entry) in erasures {
        let is_followed = last.get(&entry.document).is_some_and(|last| *last > n);
        match entry.check(how.space) {
            Ok(()) => incoming.erased.push((entry.document, is_followed)),
            Err(error) => incoming.bad.push(BadEntry::new(entry, error.to_string())),
        }
    }
    let Opening { schemas, space, sealer, is_noted } = how;
    let opened = parallel(entries, |entry| {
        let opened = open(&entry, space, sealer);
        let weight = if is_noted { 0 } else { opened.as_ref().map_or(0, weight) };
        (entry, opened, weight)
    });
    let mut room = limits::OPENED_BYTES;
    let mut places: HashMap<DocumentId, usize> = HashMap::new();
    for (entry, opened, weight) in opened {
        match room.checked_sub(weight).filter(|_| weight < limits::NOTED_OPENING_BYTES) {
            Some(left) => room = left,
            None => {
                incoming.heavy.push((entry, weight));
                continue;
            }
        }
        let payload = match opened {
            Ok(payload) => payload,
            Err(reason) => {
                incoming.bad.push(BadEntry::new(entry, reason));
                continue;
            }
        };
        let place = *places.entry(entry.document).or_insert_with(|| {
            incoming.groups.push(Group::new(entry.document, payload.collection, payload.name));
            incoming.groups.len() - 1
        });
        let group = &mut incoming.groups[place];
        group.devices.insert(entry.device, shown_name(payload.device_name));
        group.opened.push(Opened { entry, body: payload.body, preview: payload.preview });
    }
    let absent: Vec<bool> = incoming.groups.iter().map(|group| is_absent(group.key)).collect();
    let show = absent.iter().filter(|absent| **absent).count() >= batch(limits::PREVIEW_FROM_DOCUMENTS);
    let groups: Vec<_> = incoming.groups.into_iter().zip(absent).collect();
    let are_few = groups.len() < limits::PARALLEL_FROM_DOCUMENTS;
    incoming.groups = parallel(groups, |(mut group, absent)| {
        let schema = schema_of(schemas, &group.collection, &group.name);
        if !(absent && show && group.show_ahead(&schema)) {
            group.parse(space, &schema, !absent, are_few);
            if absent && !group.parts.is_empty() {
                group.merge_ahead(space, schema);
            } else if group.has_changes_only()
                && let Some(loaded) = load(group.key)
            {
                group.merge_onto(loaded);
            }
        }
        group
    });
    incoming.bad.extend(incoming.groups.iter_mut().flat_map(|group| std::mem::take(&mut group.bad)));
    incoming.groups.retain(|group| !group.parts.is_empty() || group.ahead.is_some());
    incoming
}

impl Group {
    pub(super) fn new(key: DocumentId, collection: String, name: String) -> Self {
        Self {
            key,
            collection,
            name,
            devices: BTreeMap::new(),
            opened: Vec::new(),
            parts: Vec::new(),
            bad: Vec::new(),
            entries: Vec::new(),
            hashes: Vec::new(),
            sums: Vec::new(),
            ahead: None,
        }
    }

    /// True if the one entry is a whole document that can be shown as it is.
    fn show_ahead(&mut self, schema: &CollectionSchema) -> bool {
        let [opened] = &mut self.opened[..] else { return false };
        // What might end the process is merged while that is noted.
        if opened.body.len() >= limits::NOTED_OPENING_BYTES {
            return false;
        }
        let Some(preview) = opened.preview.take().filter(|p| p.schema == schema.fingerprint()) else {
            return false;
        };
        let Ok(fields) = serde_json::from_str::<Fields>(&preview.json) else { return false };
        if check_fields(&fields).is_err() {
            return false;
        }
        let (heads, changes) = match &opened.entry.kind {
            Kind::Changes => {
                let Ok(headers) = split_headers(&opened.body) else { return false };
                let Some(heads) = heads_of(&headers) else { return false };
                self.hashes = headers.iter().map(|header| header.hash).collect();
                (heads, headers.iter().map(|header| header.bytes.to_vec()).collect())
            }
            Kind::Snapshot { heads, .. } => {
                if check_snapshot(&opened.body).is_err() {
                    return false;
                }
                let mut heads = heads.clone();
                heads.sort_unstable();
                self.hashes.clone_from(&heads);
                (heads, Vec::new())
            }
            Kind::Erased | Kind::Other(_) => return false,
        };
        if let Some(opened) = self.opened.pop() {
            self.entries.push(opened.entry.id.0);
            let whole = Whole { opened, heads, changes, fields, json: preview.json };
            self.ahead = Some(Ahead::Shown(Box::new(whole)));
        }
        true
    }

    /// `on_all_cores`: other documents do not keep them busy.
    fn parse(&mut self, space: SpaceId, schema: &CollectionSchema, is_here: bool, on_all_cores: bool) {
        let opened = std::mem::take(&mut self.opened);
        let parse = |opened: Opened| (opened.entry.id.0, opened.parse(space, schema));
        let parsed = match on_all_cores {
            true => parallel(opened, parse),
            false => opened.into_iter().map(parse).collect(),
        };
        for (id, parsed) in parsed {
            match parsed {
                Ok(part) => {
                    self.entries.push(id);
                    match &part {
                        Part::Changes(changes) => {
                            self.hashes.extend(changes.iter().map(|c| c.hash().0));
                            self.sums.extend(changes.iter().map(sum_of));
                        }
                        Part::Snapshot(snapshot) => {
                            let inside = snapshot.document.as_ref().filter(|_| is_here);
                            let inside = inside.and_then(|document| document.changes().ok());
                            self.sums.extend(inside.iter().flatten().map(sum_of));
                            let heads = snapshot.document.iter().flat_map(|document| document.heads());
                            self.hashes.extend(heads.map(|head| head.0));
                        }
                    }
                    self.parts.push(part);
                }
                Err(bad) => self.bad.push(*bad),
            }
        }
    }

    fn has_changes_only(&self) -> bool {
        !self.parts.is_empty() && self.parts.iter().all(|part| matches!(part, Part::Changes(_)))
    }

    fn merge_onto(&mut self, mut loaded: Box<Loaded>) {
        let changes = std::mem::take(&mut self.parts).into_iter().flat_map(|part| match part {
            Part::Changes(changes) => changes,
            Part::Snapshot(_) => Vec::new(),
        });
        let schema = loaded.schema.clone();
        let onto = Some(loaded.row.clone());
        let outcome = loaded.document.merge(changes.collect(), &schema);
        self.ahead = Some(Ahead::Merged(Box::new(Merged { loaded, onto, snapshot: None, outcome })));
    }

    fn merge_ahead(&mut self, space: SpaceId, schema: Arc<CollectionSchema>) {
        let mut snapshot = None;
        let identity = Identity { space, document: self.key };
        let mut loaded = new_document(identity, &self.collection, &self.name, schema.clone());
        let mut changes = Vec::new();
        let mut later = Vec::new();
        for part in std::mem::take(&mut self.parts) {
            match part {
                Part::Snapshot(first) if snapshot.is_none() && changes.is_empty() => snapshot = Some(first),
                // A second snapshot is taken up in the transaction, where it can be set aside.
                part @ Part::Snapshot(_) => later.push(part),
                Part::Changes(more) => changes.extend(more),
            }
        }
        let outcome = if changes.is_empty() {
            if let Some(document) = snapshot.as_mut().and_then(|snapshot| snapshot.document.take()) {
                loaded.document = *document;
            }
            MergeOutcome::default()
        } else {
            if let Some(document) = snapshot.as_ref().and_then(|snapshot| snapshot.document.as_ref()) {
                loaded.document = (**document).clone();
            }
            loaded.document.merge(changes, &schema)
        };
        if snapshot.is_none() {
            loaded.save_received(&outcome.applied);
        }
        self.parts = later;
        self.ahead = Some(Ahead::Merged(Box::new(Merged { loaded, onto: None, snapshot, outcome })));
    }
}

impl Opened {
    fn parse(self, space: SpaceId, schema: &CollectionSchema) -> Result<Part, Box<BadEntry>> {
        let part = match &self.entry.kind {
            Kind::Changes => split_changes(&self.body).map(Part::Changes).map_err(|e| e.to_string()),
            Kind::Snapshot { heads, supersedes } => {
                let supersedes = !supersedes.is_empty();
                let identity = Identity { space, document: self.entry.document };
                load_snapshot(identity, &self.body, heads, schema).map(|document| {
                    let (entry, document) = (self.entry.id, Some(Box::new(document)));
                    Part::Snapshot(Snapshot { entry, document, bytes: self.body, supersedes })
                })
            }
            Kind::Erased | Kind::Other(_) => {
                Err("it is of a later version; it is tried again when this one is updated".into())
            }
        };
        part.map_err(|reason| Box::new(BadEntry::new(self.entry, reason)))
    }
}

impl Whole {
    /// The saved document, if it came as such.
    pub(super) fn snapshot(&self) -> Option<&[u8]> {
        matches!(self.opened.entry.kind, Kind::Snapshot { .. }).then_some(&self.opened.body)
    }

    /// What it would have been without a preview. If it is nothing, also the name under which its content was set aside after it had been
    /// shown.
    pub(super) fn into_part(
        self,
        space: SpaceId,
        (collection, name): (&str, &str),
        schemas: &Schemas,
    ) -> Result<Part, (Box<BadEntry>, [u8; 32])> {
        let shown_as = name_of_content(&self.opened.body);
        self.opened.parse(space, &schema_of(schemas, collection, name)).map_err(|bad| (bad, shown_as))
    }
}

impl BadEntry {
    fn new(entry: Entry, reason: String) -> Self {
        let supersedes = matches!(&entry.kind, Kind::Snapshot { supersedes, .. } if !supersedes.is_empty());
        Self { document: entry.document, hash: entry.id.0, bytes: entry.payload, reason, supersedes }
    }
}

/// What an entry takes beyond the bytes that it opens to, which are counted before: of few operations those without content count, of very many
/// all.
fn weight(payload: &Payload) -> usize {
    let operations = operations_in(&payload.body);
    let counted = match operations >= limits::NOTED_OPERATIONS {
        true => operations,
        false => operations.saturating_sub(payload.body.len()),
    };
    counted.saturating_mul(limits::OPERATION_BYTES)
}

/// Whether an entry is one of those that [`prepare`] leaves to be opened alone.
pub(crate) fn is_heavy(entry: &Entry, space: SpaceId, sealer: &dyn Sealer) -> bool {
    open(entry, space, sealer).is_ok_and(|payload| weight(&payload) >= limits::NOTED_OPENING_BYTES)
}

/// Everything that can be said about an entry without the document it belongs to and without its body.
pub(super) fn open(entry: &Entry, space: SpaceId, sealer: &dyn Sealer) -> Result<Payload, String> {
    entry.check(space).map_err(|e| e.to_string())?;
    let about = About::entry(space, entry.document);
    let opened = sealer.open(about, entry.suite, &entry.payload).map_err(|e| e.to_string())?;
    let payload = Payload::decode(&opened, space, entry.document).map_err(|e| e.to_string())?;
    for name in [&payload.collection, &payload.name] {
        check_name(name).map_err(|error| error.to_string())?;
    }
    Ok(payload)
}

/// The name of what is set aside of a document that was stored before it was read, when the entry that brought it is not known any more.
pub(super) fn name_of_content(bytes: &[u8]) -> [u8; 32] {
    *blake3::hash(bytes).as_bytes()
}

/// The name of another device, without what would look like lines of their own, or steer a terminal.
fn shown_name(name: String) -> String {
    match name.contains(char::is_control) {
        true => name.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect(),
        false => name,
    }
}

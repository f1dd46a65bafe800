//! The writer's side of the replica: loaded documents on one hand, rows on the other, and the promise that memory
//! never holds what disk lacks.
//!
//! Most of it runs with the writer's connection, inside a transaction. A document is taken out of the cache, edited in
//! place, and put back only when its rows are committed; after any failure it is simply gone and will be loaded
//! again, with a fresh actor.

mod account;
mod adopt;
mod ahead;
mod bulk;
mod check;
mod collisions;
mod compact;
mod composed;
mod database;
mod declare;
mod feed;
mod fields;
mod foreign;
mod held;
mod history;
mod incoming;
mod integrity;
mod journal;
mod lifecycle;
mod loaded;
mod local;
mod outgoing;
mod overlay;
mod parallel;
mod presence;
mod presence_board;
mod projection;
mod receive;
mod remotes;
mod repair;
mod sealing;
mod search;
mod seen;
mod send_slot;
mod shown;
mod staged;
mod status;
mod transacting;
mod typing;
mod undo;
mod unmerged;
mod writing;

use std::collections::{HashMap, HashSet};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use lru::LruCache;
use motet_proto::envelope::Sealer;
use motet_proto::planted::{Bug, is_planted};
use motet_proto::{DeviceId, DocumentId, SpaceId};
use tokio::sync::{Notify, broadcast, watch};

use crate::doc::{Change, Fields};
use crate::limits;
use crate::schema::{CollectionSchema, Schema};
use crate::store::{self, DocumentRow, Op, Readers, StorageError, Tx};
use crate::time::Clock;
use crate::types::{ChangeKind, Commits, Event};
use crate::types::{Conditions, SyncPolicy};

pub(crate) use account::{Admission, Emptying, account, is_known, is_news};
pub(crate) use adopt::{Adopted, compose_rows};
pub(crate) use ahead::Ahead;
pub(crate) use bulk::compose_many;
pub(crate) use check::check_name;
pub(crate) use composed::{Composed, Entrance, bytes_of, compose_ahead, is_big};
pub(crate) use database::Database;
pub(crate) use incoming::{Incoming, Opening, copy_held, is_heavy, load_ahead, prepare};
pub(crate) use integrity::{Examined, examine, examine_rows_beside};
pub(crate) use loaded::Loaded;
use loaded::{load, load_stale, new_document};
pub(crate) use local::{Patch, diff};
pub(crate) use presence::CursorAt;
pub(crate) use presence_board::PresenceBoard;
pub(crate) use receive::{Arrival, Received};
pub(crate) use remotes::is_due;
pub(crate) use repair::Repaired;
pub(crate) use sealing::Guarded;
pub(crate) use send_slot::SendSlot;
use staged::{Staged, StagedWrite};
pub(crate) use status::{Link, StatusBoard};
pub(crate) use unmerged::merge_all;
pub(crate) use writing::TextWrite;

/// What the writer thread shares with the rest of the replica.
pub(crate) struct Shared {
    pub(crate) device: DeviceId,
    /// The space that the file holds.
    pub(crate) space: SpaceId,
    pub(crate) device_name: String,
    pub(crate) events: broadcast::Sender<Event>,
    /// Counted up after the events of a commit were sent.
    pub(crate) commits: watch::Sender<Commits>,
    /// Rung after a commit that added to the outbox.
    pub(crate) outbox: Notify,
    /// Rung after a commit that saw writes of another process, or that emptied the file: something may wait to be sent, or a session may be
    /// about what is no longer here.
    pub(crate) changed_elsewhere: Notify,
    /// What the sync task sends next, if it waits for that.
    pub(crate) send_slot: SendSlot,
    pub(crate) board: StatusBoard,
    /// Who is where.
    pub(crate) presence: PresenceBoard,
    /// When to sync, and what the system says.
    pub(crate) policy: watch::Sender<(SyncPolicy, Conditions)>,
    /// What was declared when this process last wrote.
    pub(crate) schemas: RwLock<Arc<Schemas>>,
    /// Milliseconds since 1970; for what people see, never for what is right.
    pub(crate) clock: Clock,
    /// Seals what leaves the device, and opens what arrives.
    pub(crate) sealer: Arc<dyn Sealer>,
    /// Something waits because the sealer did not seal it.
    pub(crate) has_unsealed: AtomicBool,
    /// How long what other devices have purged stays in the trash.
    pub(crate) purge_grace: Duration,
    /// Empties SQLite's log, on a thread of its own.
    pub(crate) empty_log: Box<dyn Fn() + Send + Sync>,
    /// Where conflicts are written to as text, for people.
    pub(crate) conflict_log: Option<PathBuf>,
}

impl Shared {
    pub(crate) fn now_ms(&self) -> i64 {
        (self.clock)().clamp(0, limits::LATEST_TIME)
    }

    /// What was declared when this process last wrote, for work that is prepared before its transaction and checked there. Another process
    /// may have declared something else since: what is read goes by [`declared`].
    pub(crate) fn schemas(&self) -> Arc<Schemas> {
        self.schemas.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Declarations by collection.
pub(crate) type Schemas = HashMap<String, Arc<CollectionSchema>>;

/// All that is declared, as an app sees it.
pub(crate) fn schema_from(schemas: &Schemas) -> Schema {
    let collections = schemas.iter().map(|(name, schema)| (name.clone(), (**schema).clone()));
    Schema { collections: collections.collect() }
}

/// What is declared, by the view of the file that `tx` reads.
pub(crate) fn declared(tx: Tx<'_>) -> store::Result<Schemas> {
    let parse = |(name, json): (String, String)| {
        let schema = CollectionSchema::from_stored(&json).unwrap_or_else(CollectionSchema::lost);
        (name, Arc::new(schema))
    };
    Ok(tx.collections()?.into_iter().map(parse).collect())
}

/// What is declared of a document.
pub(crate) fn schema_of(schemas: &Schemas, collection: &str, id: &str) -> Arc<CollectionSchema> {
    let schema = schemas.get(collection).cloned().unwrap_or_default();
    CollectionSchema::of_document(schema, id)
}

/// State of the writer thread.
pub(crate) struct Core {
    pub(crate) shared: Arc<Shared>,
    /// For what is done before a transaction.
    readers: Arc<Readers>,
    schema: Schemas,
    /// Collections that the user does not want synced at present.
    excluded: HashSet<String>,
    remotes: Vec<i64>,
    /// How often the file had been emptied when the last session began.
    era: Option<i64>,
    /// The remote that the status speaks of.
    active: Option<i64>,
    write: StagedWrite,
    staged: Staged,
    cache: LruCache<DocumentId, Box<Loaded>>,
    /// What was held before another process wrote: checked before it counts.
    unsure: LruCache<DocumentId, Box<Loaded>>,
    /// Documents whose projection lags behind their changes, and since when; `None`: as the file says.
    behind: Option<HashMap<DocumentId, i64>>,
    /// Documents wait for the full-text index; `None`: as the file says.
    unindexed: Option<bool>,
    /// The full-text index was damaged and is being made anew.
    is_search_rebuilt: bool,
    /// The document that is being taken into the full-text index, part by part.
    indexing: Option<search::Parts>,
    /// When to look whether purged documents are to go (milliseconds since 1970), the latest of all if there are none; `None`: at once.
    leaving: Option<i64>,
    /// Collections that have a view; `None`: as the file says.
    views: Option<HashSet<String>>,
    /// What has been told of the feed.
    told: feed::FeedCursor,
    /// Number of the running write. Grows, also over restarts as long as the machine's clock does.
    transaction: u64,
    /// What was changed was rolled back: read again.
    settings_stale: bool,
    /// They were read again, and listeners have not heard of it.
    settings_reloaded: bool,
    /// Remotes whose log was lost and is being read from the start: what of which document it holds.
    reseeding: HashMap<i64, HashMap<i64, Held>>,
    /// Remotes and documents that they were told to forget.
    erased: HashSet<(i64, i64)>,
}

/// What the log of a remote holds of a document.
#[derive(Default)]
struct Held {
    /// Those of the document's heads that have arrived.
    heads: HashSet<[u8; 32]>,
    /// The beginnings of the hashes of all changes that have arrived.
    changes: HashSet<u32>,
    /// The document was not here before: all of it has arrived.
    is_whole: bool,
}

/// How a change of a document is written down.
struct Commit<'a> {
    changes: &'a [Change],
    /// The remote that the changes came from; `None` if they were made here.
    origin: Option<i64>,
    /// The fields in memory are not those of the document any more.
    stale: bool,
    /// Fields that stay on this device have changed.
    local: bool,
    kind: ChangeKind,
    /// The fields that a local edit names.
    fields: Vec<String>,
    /// Made by the library itself: nothing that somebody would undo.
    automatic: bool,
}

impl Commit<'_> {
    /// Nothing but the fields named by a local edit has changed.
    fn is_plain_edit(&self) -> bool {
        self.origin.is_none() && self.kind == ChangeKind::Updated && !self.local && !self.changes.is_empty()
    }

    /// It costs more to read it anew, for another process that would have to show it, than to show it at once.
    fn is_big(&self) -> bool {
        self.bytes() >= limits::COMPOSED_AHEAD_BYTES
    }

    /// So many changes that a row for each would be larger, and slower to load, than all of them in one saved form.
    fn is_long(&self) -> bool {
        self.changes.len() >= limits::SNAPSHOT_AFTER_CHANGES
    }

    /// Size of its changes.
    fn bytes(&self) -> usize {
        self.changes.iter().map(|change| change.raw_bytes().len()).sum()
    }
}

impl Core {
    pub(crate) fn new(shared: Arc<Shared>, readers: Arc<Readers>, tx: Tx<'_>) -> store::Result<Self> {
        let capacity = NonZeroUsize::new(limits::CACHED_DOCUMENTS).unwrap_or(NonZeroUsize::MIN);
        let mut core = Self {
            shared,
            readers,
            schema: Schemas::new(),
            excluded: HashSet::new(),
            remotes: Vec::new(),
            active: None,
            era: None,
            write: StagedWrite::default(),
            staged: Staged::default(),
            cache: LruCache::new(capacity),
            unsure: LruCache::new(capacity),
            behind: None,
            unindexed: None,
            is_search_rebuilt: false,
            indexing: None,
            leaving: None,
            views: None,
            told: feed::FeedCursor::default(),
            transaction: 0,
            settings_stale: false,
            settings_reloaded: false,
            reseeding: HashMap::new(),
            erased: HashSet::new(),
        };
        core.reload_settings(tx)?;
        core.renew_finding(tx)?;
        core.behind(tx)?;
        core.unindexed = Some(tx.is_unindexed()?);
        core.note_start(tx)?;
        Ok(core)
    }

    /// Note for the history of what the running write does.
    pub(crate) fn set_message(&mut self, message: &str) {
        self.write.message = Some(message.to_owned());
    }

    /// The running write belongs to an undo history of its own.
    pub(crate) fn set_label(&mut self, label: &str) {
        self.write.label = Some(label.to_owned());
    }

    fn reload_settings(&mut self, tx: Tx<'_>) -> store::Result<()> {
        self.schema = declared(tx)?;
        self.excluded = tx.excluded()?.into_iter().collect();
        self.erased = tx.erased()?;
        self.settings_stale = false;
        self.publish_schema();
        let pending = tx.count_pending()? as i64;
        let remotes = tx.remotes()?;
        self.remotes = remotes.iter().map(|remote| remote.id).collect();
        self.active = remotes.iter().find(|remote| remote.active).map(|remote| remote.id);
        self.shared.board.reload(&remotes, pending);
        self.tell_place();
        if let Some(policy) = tx.sync_policy()? {
            self.publish_policy(policy);
        }
        Ok(())
    }

    /// Keeps a policy, and has it followed once the transaction is committed.
    pub(crate) fn set_sync_policy(&mut self, tx: Tx<'_>, policy: SyncPolicy) -> store::Result<()> {
        tx.set_sync_policy(&policy)?;
        self.write.policy = Some(policy);
        Ok(())
    }

    fn publish_policy(&self, policy: SyncPolicy) {
        self.shared.policy.send_if_modified(|(known, _)| std::mem::replace(known, policy) != policy);
    }

    /// The outbox of a remote has grown; people see that of the active one.
    fn count_pending(&mut self, remote: i64, rows: i64) {
        if Some(remote) == self.active {
            self.write.pending += rows;
        }
    }

    /// What is declared of a document.
    fn schema_of(&self, collection: &str, id: &str) -> Arc<CollectionSchema> {
        schema_of(&self.schema, collection, id)
    }

    fn schema_of_all(&self, collection: &str) -> Arc<CollectionSchema> {
        self.schema.get(collection).cloned().unwrap_or_default()
    }

    /// Whether a document is sent at all.
    pub(crate) fn leaves(&self, collection: &str, id: &str) -> bool {
        (!self.excluded.contains(collection) && !self.schema_of(collection, id).is_local())
            || is_planted(Bug::SwitchedOffLeaves)
    }

    fn publish_schema(&self) {
        *self.shared.schemas.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(self.schema.clone());
    }

    fn load(&self, tx: Tx<'_>, row: DocumentRow) -> store::Result<Box<Loaded>> {
        let schema = self.schema_of(&row.collection, &row.name);
        load(tx, row, schema)
    }

    /// Takes a document out by name, ready to be edited; `None` if there is none, not even a deleted one.
    fn find(&mut self, tx: Tx<'_>, collection: &str, name: &str) -> store::Result<Option<Box<Loaded>>> {
        let key = DocumentId::derive(tx.space(), collection, name);
        if let Some(held) = self.take_held(tx, key)? {
            return Ok(Some(held));
        }
        self.catch_up_with(tx, key)?;
        tx.document(collection, name)?.map(|row| self.load(tx, row)).transpose()
    }

    /// Takes a document out, ready to be edited. It comes back through [`commit`](Self::commit) or
    /// [`put_back`](Self::put_back), or is forgotten.
    fn take(&mut self, tx: Tx<'_>, row: DocumentRow) -> store::Result<Box<Loaded>> {
        self.take_held(tx, row.key)?.map_or_else(|| self.load(tx, row), Ok)
    }

    /// Holds a document until it is needed again. Of a purged one nothing is held: nothing may be built on what is gone from the file, or is
    /// about to go.
    fn put_back(&mut self, loaded: Box<Loaded>) {
        if !loaded.row.purged {
            self.write.documents.insert(loaded.row.key, loaded);
        }
    }

    /// Writes down what changed about a document: bytes, heads, projection, conflicts, outbox. Returns how many
    /// conflicts are new.
    fn commit(
        &mut self,
        tx: Tx<'_>,
        mut loaded: Box<Loaded>,
        commit: &Commit<'_>,
        now: i64,
    ) -> store::Result<usize> {
        let is_new = loaded.row.id == 0;
        // A local edit at the current version can only settle conflicts.
        let reread = commit.stale || loaded.row.conflicts > 0;
        let before = reread.then(|| loaded.fields.clone());
        let is_step = commit.origin.is_none() && !commit.automatic && !commit.changes.is_empty();
        let version = is_step.then(|| loaded.version());
        let conflicts = loaded.refresh(reread);
        let had_conflicts = loaded.row.conflicts > 0;
        loaded.row.updated_at = now;
        loaded.row.conflicts = journal::open_conflicts(&conflicts);
        let first_change = loaded.row.changes + 1;
        loaded.row.changes += commit.changes.len() as i64;
        if is_new {
            self.ensure_view(tx, &loaded.row.collection)?;
            loaded.row.id = tx.insert_document(&loaded.row, &to_json(&loaded.fields)?, None)?;
            self.told.projected = true;
            self.mark_unindexed(tx, loaded.row.id)?;
        } else if !reread && commit.is_plain_edit() && !commit.is_big() {
            self.mark_stale(tx, &loaded.row)?;
        } else {
            self.project(tx, &loaded)?;
        }
        let document = loaded.row.id;
        if commit.local {
            if is_new {
                loaded.local.lie_on(&loaded.row.heads);
            }
            loaded.local.write(tx, document)?;
        }
        if is_new {
            match commit.origin {
                None => loaded.save_new(commit),
                Some(_) => loaded.save_received(commit.changes),
            }
        }
        let saved = loaded.saved.take_if(|_| is_new);
        // Many changes that arrive at once are kept as the saved form alone.
        let is_saved_only = saved.is_some() && commit.origin.is_some() && commit.is_long();
        if !is_saved_only {
            for (number, change) in (first_change..).zip(commit.changes) {
                tx.insert_change(document, number, change.raw_bytes(), commit.origin)?;
            }
        }
        if let Some(before) = version {
            self.note_step(document, before, loaded.version());
        }
        if let Some(saved) = saved {
            let upto = store::change_id(document, loaded.row.changes);
            tx.put_snapshot(document, &saved, upto, is_saved_only)?;
        }
        let fresh = if had_conflicts || !conflicts.is_empty() {
            self.journal(tx, &loaded.row, &conflicts, now)?
        } else {
            0
        };
        let op = match (is_new, loaded.row.deleted) {
            (_, true) => Op::Delete,
            (true, false) => Op::Create,
            (false, false) => Op::Update,
        };
        let is_sent = !commit.changes.is_empty() && self.leaves(&loaded.row.collection, &loaded.row.name);
        if is_sent {
            self.note_growth(tx, &loaded.row, commit.changes.len())?;
            let bytes = if is_new { usize::MAX } else { commit.bytes() };
            self.write.bytes = self.write.bytes.saturating_add(bytes);
            let first_change = if is_new { 0 } else { store::change_id(document, first_change) };
            self.enqueue(tx, document, commit.origin, op, first_change, now)?;
        }
        self.note_brought_back(tx, &loaded, commit, now)?;
        self.sweep(tx, &mut loaded)?;
        let fields = match (is_new, before) {
            (true, _) => loaded.fields.keys().cloned().collect(),
            (false, Some(before)) => touched(&before, &loaded.fields),
            (false, None) => commit.fields.clone(),
        };
        let device = match (commit.origin, commit.changes.last()) {
            (None, _) => Some(self.shared.device),
            (Some(_), last) => last.and_then(|change| loaded.document.author_of(&change.hash())?.0),
        };
        self.note_event(&loaded.row, commit, fields, device);
        self.put_back(loaded);
        Ok(fresh)
    }
}

/// Names of the fields that differ.
pub(crate) fn touched(before: &Fields, after: &Fields) -> Vec<String> {
    let changed = after.iter().filter(|(name, value)| before.get(*name) != Some(value)).map(|(name, _)| name);
    let gone = before.keys().filter(|name| !after.contains_key(*name));
    changed.chain(gone).cloned().collect()
}

/// Reads what [`to_json`] has written.
fn from_json(json: &str) -> Fields {
    serde_json::from_str(json).unwrap_or_default()
}

fn to_json(value: &impl serde::Serialize) -> store::Result<String> {
    serde_json::to_string(value).map_err(|e| StorageError::Io(e.to_string()))
}

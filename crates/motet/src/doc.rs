//! One document: the only module that uses Automerge.
//!
//! ```text
//! genesis   containers that come out equal on every device
//! edit      new values -> the fewest ops
//! text      whole texts -> splices, and what a merge of two should show
//! read      ops -> JSON, through one resolver
//! names     a field under its older names
//! check     what may stand in a document
//! alike     edits that every device makes alike
//! chunk     headers of foreign bytes, checked before Automerge sees them
//! merge     foreign changes, on a clone, with panics caught
//! ```

mod adopt;
mod alike;
mod anew;
mod apart;
mod branch;
mod check;
mod chunk;
mod collisions;
mod counts;
mod cursor;
mod edit;
mod fork;
mod genesis;
mod history;
mod inverse;
mod list;
mod merge;
mod names;
mod overlap;
mod read;
mod reconcile;
mod rescue;
mod text;
mod three_way;
mod time;
mod woven;
mod writers;

#[cfg(test)]
mod many;

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use automerge::{ActorId, Author, Automerge, ChangeMetadata, ReadDoc, SaveOptions};
use motet_proto::planted::{Bug, is_planted};
use motet_proto::{DeviceId, DocumentId, SpaceId};

use self::branch::Branch;
use crate::platform;
use crate::schema::{CollectionSchema, DeletePolicy};

pub(crate) use alike::split_counted;
pub(crate) use automerge::{Change, ChangeHash};
pub(crate) use branch::TextEditsMade;
pub(crate) use check::{Misfit, check_field, check_fields};
pub(crate) use chunk::{
    ChunkError, check_change, check_snapshot, heads_of, is_intact, operations_in, split_changes,
    split_headers,
};
pub(crate) use collisions::Displaced;
pub(crate) use edit::{Edit, EditError, merged, take_at};
pub(crate) use history::ChangeAction;
pub(crate) use inverse::Step;
pub(crate) use merge::{MergeOutcome, Rejected, load_snapshot};
pub(crate) use overlap::TEXT_OVERLAP;
pub(crate) use read::{FieldConflict, Fields, excerpt, pointed, pointer};
pub(crate) use reconcile::Reconciled;
pub(crate) use three_way::carried_over;
pub(crate) use time::time_of;

impl crate::types::Version {
    pub(crate) fn hashes(&self) -> Vec<ChangeHash> {
        self.0.iter().copied().map(ChangeHash).collect()
    }
}

/// Messages of this library begin so. No app can give one to a change, and those that say that a document is deleted count only of changes
/// without ops.
pub(crate) const RESERVED_MESSAGES: &str = "motet:";

/// Message of a tombstone: a change without ops that deletes the document it stands at the head of.
const TOMBSTONE: &str = "motet:delete";

/// Message of a change that takes up a row of another database.
const ADOPT: &str = "motet:adopt";

/// Message of a change that takes up what a row brings, alike on every device; part of the edit that follows.
const TAKEN_UP: &str = "motet:taken-up";

/// Message of a tombstone after which nothing of the document is kept.
const PURGE: &str = "motet:purge";

/// Message of a change that brings a deleted document back.
const RESTORE: &str = "motet:restore";
/// Marks a change that makes a deleted document again, with the same or with something else.
const MADE_AGAIN: &str = "motet:again";

/// A loaded document.
#[derive(Clone)]
pub(crate) struct Document {
    am: Automerge,
    identity: Identity,
    /// False until this process has drawn an actor of its own for the document.
    has_actor: bool,
    /// The actor of a change that every device makes alike, in a document that is put together for it.
    alike: Option<ActorId>,
    /// What the document shows, read under guard after foreign changes were applied.
    shown: Option<Shown>,
    /// The tombstones that are not followed by a change that restored the document; found when first asked for.
    standing: Option<Vec<ChangeHash>>,
    /// An older version that edits are made on.
    branch: Option<Branch>,
}

/// What is known at some heads: those changes, and all that was known when they were made. Held as the changes that are not among them, which
/// are few as long as the heads are recent.
struct Known {
    unknown: HashSet<ChangeHash>,
}

/// What a document shows.
#[derive(Clone, Debug)]
pub(crate) struct Shown {
    pub(crate) fields: Fields,
    pub(crate) conflicts: Vec<FieldConflict>,
}

/// What deterministic changes are derived from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Identity {
    pub(crate) space: SpaceId,
    pub(crate) document: DocumentId,
}

impl Identity {
    /// The identity of the document `name` in `collection`.
    pub(crate) fn derive(space: SpaceId, collection: &str, name: &str) -> Self {
        Self { space, document: DocumentId::derive(space, collection, name) }
    }
}

/// The stored bytes of a document do not make a document.
#[derive(Debug, thiserror::Error)]
#[error("a stored document cannot be loaded: {0}")]
pub(crate) struct LoadError(String);

impl Document {
    pub(crate) fn new(identity: Identity) -> Self {
        Self::of(Automerge::new(), identity)
    }

    fn of(am: Automerge, identity: Identity) -> Self {
        Self { am, identity, has_actor: false, alike: None, shown: None, standing: None, branch: None }
    }

    /// Puts a document together from what the store holds. Everything stored was applied once, so a failure means
    /// that the file is damaged.
    pub(crate) fn load(
        identity: Identity,
        snapshot: Option<&[u8]>,
        changes: Vec<Change>,
    ) -> Result<Self, LoadError> {
        // What came with a preview is kept before it has been merged once.
        let load = || Self::load_unguarded(identity, snapshot, changes);
        catch_unwind(AssertUnwindSafe(load)).unwrap_or_else(|_| Err(LoadError("the merge fails".into())))
    }

    fn load_unguarded(
        identity: Identity,
        snapshot: Option<&[u8]>,
        changes: Vec<Change>,
    ) -> Result<Self, LoadError> {
        let mut am = match snapshot {
            Some(bytes) => Automerge::load(bytes).map_err(|e| LoadError(e.to_string()))?,
            None => Automerge::new(),
        };
        am.apply_changes(changes).map_err(|e| LoadError(e.to_string()))?;
        Ok(Self::of(am, identity))
    }

    /// Operations that it holds: what it takes in memory goes by them.
    pub(crate) fn operations(&self) -> u64 {
        self.am.stats().num_ops + self.branch.as_ref().map_or(0, Branch::operations)
    }

    pub(crate) fn heads(&self) -> Vec<ChangeHash> {
        self.am.get_heads()
    }

    pub(crate) fn has_hash(&self, hash: &[u8; 32]) -> bool {
        self.has_change(&ChangeHash(*hash))
    }

    pub(crate) fn has_change(&self, hash: &ChangeHash) -> bool {
        self.am.get_change_meta_by_hash(hash).is_some()
    }

    /// A document is deleted when its latest changes are tombstones: a delete loses to an edit it had not seen. Where deletes
    /// win, it is deleted when any tombstone is not followed by a change that restored it; where the latest wins, when such a
    /// tombstone is later than every edit it had not seen.
    pub(crate) fn is_deleted(&mut self, schema: &CollectionSchema) -> bool {
        let policy = schema.delete_policy();
        if policy == DeletePolicy::EditWins && !is_planted(Bug::DeleteWinsOverEdit) {
            let (tombstones, edits) = self.latest_of_somebody(&self.heads());
            if tombstones.is_empty() || edits.is_empty() {
                return !tombstones.is_empty();
            }
            let known = self.known_at(&tombstones);
            return edits.iter().all(|edit| known.has(edit));
        }
        match policy {
            DeletePolicy::Latest => self.deleted_at().is_some(),
            DeletePolicy::EditWins | DeletePolicy::Wins => !self.standing_tombstones().is_empty(),
        }
    }

    /// When the document was begun, by the earliest change of a device; `None` if there is none.
    pub(crate) fn begun_at(&self) -> Option<i64> {
        let metas = self.am.get_changes_meta(&[]);
        let edits = metas.iter().filter(|meta| self.is_of_somebody(meta));
        edits.map(|meta| time::milliseconds(meta.timestamp)).filter(|time| *time > 0).min()
    }

    /// When the document was deleted where the latest wins, by the latest tombstone that keeps it so; `None` if there is none.
    pub(crate) fn deleted_at(&mut self) -> Option<i64> {
        let standing = self.standing_tombstones();
        let lasting = standing.iter().filter(|tombstone| !self.is_outlived(tombstone));
        lasting.map(|hash| time::made_at(&self.am, hash)).max()
    }

    /// The tombstones that are not followed by a change that restored the document.
    fn standing_tombstones(&mut self) -> Vec<ChangeHash> {
        if self.standing.is_none() {
            let all = self.am.get_changes_meta(&[]);
            let hashes = |is_meant: &dyn Fn(&&ChangeMetadata<'_>) -> bool| {
                all.iter().filter(is_meant).map(|meta| meta.hash).collect::<Vec<_>>()
            };
            let restored = hashes(&|meta| brings_back(meta.message.as_deref()));
            self.note_tombstones(hashes(&|meta| is_end(meta)), &restored);
        }
        self.standing.clone().unwrap_or_default()
    }

    /// Whether nothing of a deleted document is to be kept: one of its purges stands by itself, whatever was deleted since. As of any
    /// delete, what a purge did not know of may bring the document back; deleted again, it is in the trash.
    pub(crate) fn is_purged(&mut self, schema: &CollectionSchema) -> bool {
        if !self.is_deleted(schema) {
            return false;
        }
        let metas = self.am.get_changes_meta(&[]);
        let is_purge =
            |meta: &&ChangeMetadata<'_>| has_no_ops(meta) && meta.message.as_deref() == Some(PURGE);
        let purges: Vec<_> = metas.iter().filter(is_purge).map(|meta| meta.hash).collect();
        if purges.is_empty() {
            return false;
        }
        if schema.delete_policy() != DeletePolicy::EditWins {
            let standing = self.standing_tombstones();
            let is_outlived = |purge: &ChangeHash| {
                schema.delete_policy() == DeletePolicy::Latest && self.is_outlived(purge)
            };
            return purges.iter().any(|purge| standing.contains(purge) && !is_outlived(purge));
        }
        let edits = metas.iter().filter(|meta| self.is_of_somebody(meta) && !is_end(meta));
        let edits: Vec<_> = edits.map(|meta| meta.hash).collect();
        purges.iter().any(|purge| {
            let known = self.known_at(std::slice::from_ref(purge));
            edits.iter().all(|edit| known.has(edit))
        })
    }

    /// The changes that deleted and purged the document, as far as nothing else lies between: they hold no words.
    pub(crate) fn purge_changes(&self) -> Vec<u8> {
        let (mut open, mut seen, mut found) = (self.heads(), HashSet::new(), Vec::new());
        while let Some(hash) = open.pop() {
            let change = self.am.get_change_by_hash(&hash).filter(is_tombstone);
            if let Some(change) = change.filter(|_| seen.insert(hash)) {
                open.extend(change.deps());
                found.extend_from_slice(change.raw_bytes());
            }
        }
        found
    }

    /// The tombstones and the edits at some heads on top of which nobody has made anything. What all devices make alike is nobody's: it does
    /// not bring back what was deleted, and hides no tombstone.
    fn latest_of_somebody(&self, heads: &[ChangeHash]) -> (Vec<ChangeHash>, Vec<ChangeHash>) {
        let (mut tombstones, mut edits) = (Vec::new(), Vec::new());
        let (mut open, mut seen) = (heads.to_vec(), HashSet::new());
        while let Some(hash) = open.pop() {
            let Some(meta) = self.am.get_change_meta_by_hash(&hash).filter(|_| seen.insert(hash)) else {
                continue;
            };
            if is_end(&meta) {
                tombstones.push(hash);
            } else if self.is_of_somebody(&meta) {
                edits.push(hash);
            } else {
                open.extend(meta.deps);
            }
        }
        (tombstones, edits)
    }

    /// Whether a change is an edit of a device, or takes up a row, and is not made alike on every device.
    fn is_of_somebody(&self, meta: &ChangeMetadata<'_>) -> bool {
        meta.author.is_some()
            || self.am.get_author_for_actor(&meta.actor).is_some()
            || meta.message.as_deref() == Some(ADOPT)
    }

    /// Whether somebody who did not know of a tombstone has edited the document at its time or later.
    fn is_outlived(&self, tombstone: &ChangeHash) -> bool {
        let at = time::made_at(&self.am, tombstone);
        self.am.get_changes_meta(std::slice::from_ref(tombstone)).iter().any(|meta| {
            self.is_of_somebody(meta) && !is_end(meta) && time::milliseconds(meta.timestamp) >= at
        })
    }

    /// Whether a deleted document is so because `device` has deleted it since the version `base`.
    pub(crate) fn was_deleted_by(
        &mut self,
        device: DeviceId,
        base: &[ChangeHash],
        schema: &CollectionSchema,
    ) -> bool {
        let (latest, _) = self.latest_of_somebody(&self.heads());
        let standing = self.standing_tombstones();
        let known = self.known_at(base);
        standing.iter().any(|tombstone| {
            // Where a delete loses, one that something was made on top of has lost or is followed by another.
            (schema.delete_policy() != DeletePolicy::EditWins || latest.contains(tombstone))
                && self.author_of(tombstone).and_then(|(author, _)| author) == Some(device)
                && !known.has(tombstone)
        })
    }

    /// The whole document in Automerge's compact form, without changes that wait for others.
    pub(crate) fn save(&self) -> Vec<u8> {
        self.am.save_with_options(SaveOptions { deflate: false, retain_orphans: false })
    }

    /// [`save`](Self::save), loaded back: only such a snapshot is trusted.
    pub(crate) fn save_checked(&self) -> Option<Vec<u8>> {
        let bytes = self.save();
        let again = Self::load(self.identity, Some(&bytes), Vec::new()).ok()?;
        (again.heads() == self.heads()).then_some(bytes)
    }

    /// What the document shows. Foreign content has been read once already, where a panic could do no harm.
    pub(crate) fn take_shown(&mut self, schema: &CollectionSchema) -> Shown {
        self.shown
            .take()
            .unwrap_or_else(|| Shown { fields: self.fields(schema), conflicts: self.conflicts(schema) })
    }

    /// Device and time (milliseconds since 1970) of the change `hash`.
    pub(crate) fn author_of(&self, hash: &ChangeHash) -> Option<(Option<DeviceId>, i64)> {
        let meta = self.am.get_change_meta_by_hash(hash)?;
        let author = meta.author.or_else(|| self.am.get_author_for_actor(&meta.actor));
        let device = author.and_then(|author| DeviceId::from_slice(author.as_bytes()));
        Some((device, time::milliseconds(meta.timestamp)))
    }

    /// Draws the actor under which this process writes. Fresh for every loaded document, so that a copied or
    /// restored database file never makes two changes with one (actor, seq).
    fn ensure_actor(&mut self, device: DeviceId) {
        self.shown = None;
        if let Some(actor) = &self.alike {
            self.am.set_author(None);
            self.am.set_actor(actor.clone());
            return;
        }
        if !self.has_actor {
            // A new author brings an actor of its own, so the author comes first.
            self.am.set_author(Some(Author::from(device.as_bytes().to_vec())));
            let fresh = platform::random().map_or_else(|_| ActorId::random(), |actor: [u8; 16]| actor.into());
            let kept = || ActorId::from(device.as_bytes());
            self.am.set_actor(if is_planted(Bug::CopyIsNotNoticed) { kept() } else { fresh });
            self.has_actor = true;
        }
    }

    /// Changes were made here or arrived: some may delete or restore the document.
    fn note_lifecycle(&mut self, changes: &[Change]) {
        if self.standing.is_some() {
            let restores = |change: &&Change| brings_back(change.message());
            let restored: Vec<_> = changes.iter().filter(restores).map(Change::hash).collect();
            let ends = changes.iter().filter(|change| is_tombstone(change)).map(Change::hash).collect();
            self.note_tombstones(ends, &restored);
        }
    }

    /// Adds tombstones to those that stand, and takes out what these restorations follow.
    fn note_tombstones(&mut self, new: Vec<ChangeHash>, restored: &[ChangeHash]) {
        let mut standing = self.standing.take().unwrap_or_default();
        standing.extend(new);
        if !standing.is_empty() && !restored.is_empty() {
            let known = self.known_at(restored);
            standing.retain(|tombstone| !known.has(tombstone));
        }
        self.standing = Some(standing);
    }

    fn known_at(&self, heads: &[ChangeHash]) -> Known {
        Known { unknown: self.am.get_changes_meta(heads).into_iter().map(|meta| meta.hash).collect() }
    }
}

impl Known {
    /// Of a change that the document holds.
    fn has(&self, change: &ChangeHash) -> bool {
        !self.unknown.contains(change)
    }
}

/// Whether a change says that nothing of its document is to be kept.
pub(crate) fn is_purge(change: &Change) -> bool {
    change.is_empty() && change.message() == Some(PURGE)
}

/// Whether a change deletes its document.
pub(crate) fn is_tombstone(change: &Change) -> bool {
    change.is_empty() && matches!(change.message(), Some(TOMBSTONE | PURGE))
}

/// Whether a change with this message brings a deleted document back.
fn brings_back(message: Option<&str>) -> bool {
    matches!(message, Some(RESTORE | MADE_AGAIN))
}

/// [`is_tombstone`], of a change that a document holds.
fn is_end(meta: &ChangeMetadata<'_>) -> bool {
    has_no_ops(meta) && matches!(meta.message.as_deref(), Some(TOMBSTONE | PURGE))
}

fn has_no_ops(meta: &ChangeMetadata<'_>) -> bool {
    meta.max_op < meta.start_op
}

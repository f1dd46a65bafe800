//! Deleted documents: back from the trash, or gone for good.
//!
//! A purge is a change like a tombstone, so that it reaches every device. Once it is sent, the device drops everything that
//! it held of the document but its id and heads. Whoever edited the document without knowing of the purge brings it back, and
//! pushes it whole: a device that purged it could not make anything of the edit alone.

use std::collections::HashSet;
use std::time::Duration;

use super::overlay::Overlay;
use super::{Commit, Core, Loaded, load_stale};
use crate::doc::{Change, MergeOutcome, Rejected, is_tombstone, time_of};
use crate::error::WriteError;
use crate::limits;
use crate::schema::DeletePolicy;
use crate::store::{self, DocumentRow, StorageError, Tx, Worth};
use crate::time::millis;
use crate::types::ChangeKind;
use crate::types::Version;

/// What became of changes that arrived beside a purge.
pub(super) struct AfterPurge {
    /// They may be kept.
    pub(super) is_kept: bool,
    /// The remote is owed the whole document.
    pub(super) owed: bool,
}

impl Core {
    /// Brings a deleted document back as it was.
    pub(crate) fn restore(
        &mut self,
        tx: Tx<'_>,
        collection: &str,
        name: &str,
    ) -> Result<Version, WriteError> {
        let mut loaded = self.find_deleted(tx, collection, name)?;
        let edit = self.edit(&loaded.schema, None, &loaded.fields);
        let mut changes = loaded.document.restore(&edit).map_err(super::local::write_error)?;
        let schema = loaded.schema.clone();
        let freed = loaded.local.free(&schema);
        let local = !freed.is_empty();
        if local {
            changes.extend(self.write_freed(&mut loaded, freed)?);
        }
        let how = Commit { local, stale: local, ..Commit::of(&changes, ChangeKind::Created) };
        self.finish(tx, loaded, &how)
    }

    /// Removes a deleted document for good, here and on every device.
    pub(crate) fn purge(&mut self, tx: Tx<'_>, collection: &str, name: &str) -> Result<(), WriteError> {
        let mut loaded = self.find_deleted(tx, collection, name)?;
        let edit = self.edit(&loaded.schema, None, &loaded.fields);
        let changes = loaded.document.purge(&edit).map_err(super::local::write_error)?;
        loaded.row.purged = true;
        self.finish(tx, loaded, &Commit::of(&changes, ChangeKind::Deleted))?;
        Ok(())
    }

    /// Names of the documents of a collection that were deleted before `before` (milliseconds since 1970).
    pub(crate) fn deleted_before(
        &mut self,
        tx: Tx<'_>,
        collection: &str,
        before: i64,
    ) -> store::Result<Vec<String>> {
        self.catch_up_all(tx)?;
        tx.deleted_before(collection, self.surely_past(tx, before)?)
    }

    /// A document was committed: if it was purged, what is left of it goes once nothing of it has to be sent. Where its collection is
    /// not sent at present, the purge is owed as well.
    pub(super) fn sweep(&mut self, tx: Tx<'_>, loaded: &mut Loaded) -> store::Result<()> {
        if loaded.row.purged && loaded.document.is_purged(&loaded.schema) {
            if let Some(at) = loaded.document.deleted_at() {
                tx.put_tombstone(loaded.row.id, at, &loaded.document.purge_changes())?;
            }
            loaded.fields.clear();
            loaded.local = Overlay::default();
            loaded.local.write(tx, loaded.row.id)?;
            self.project(tx, loaded)?;
            if self.leaves(&loaded.row.collection, &loaded.row.name) {
                if self.remotes.is_empty() {
                    // Nobody has it or will have it: what another device makes under this id is whole without it.
                    loaded.row.heads.clear();
                    self.project(tx, loaded)?;
                }
                tx.sweep_purged(loaded.row.id)?;
                tx.mark_compactable(loaded.row.id)?;
                self.unindexed = Some(true);
            }
        }
        Ok(())
    }

    /// A remote holds what was sent of a document: of a purged one the rest can go.
    pub(super) fn sweep_sent(&mut self, tx: Tx<'_>, document: i64) -> store::Result<()> {
        let row = match tx.document_by_id(document) {
            // It is not the time to find out what is wrong with it.
            Err(StorageError::Damaged(_)) => return Ok(()),
            row => row?,
        };
        if !row.purged {
            return Ok(());
        }
        if tx.has_content(document)? {
            let (key, schema) = (row.key, self.schema_of(&row.collection, &row.name));
            let loaded = match load_stale(tx, row, schema) {
                // It is not the time to find out what is wrong with it.
                Err(StorageError::Damaged(_)) => return Ok(()),
                loaded => loaded?,
            };
            if !loaded.row.purged {
                tracing::warn!(document = %key, "a document was marked as purged, and is not");
                return self.project(tx, &loaded);
            }
        }
        self.unindexed = Some(true);
        tx.mark_compactable(document)?;
        tx.sweep_purged(document)
    }

    /// Whether nothing is to be made of a document any more: it is purged, and its content gone, or here only to be restored.
    pub(super) fn is_over(&self, tx: Tx<'_>, loaded: &Loaded) -> store::Result<bool> {
        Ok(loaded.row.purged || is_leaving(tx, &loaded.row)?)
    }

    /// A document was committed: if it was to go and is back, it stays. Who has purged it has nothing of it, and is sent all.
    pub(super) fn note_brought_back(
        &mut self,
        tx: Tx<'_>,
        loaded: &Loaded,
        commit: &Commit<'_>,
        now: i64,
    ) -> store::Result<()> {
        let document = loaded.row.id;
        if commit.kind != ChangeKind::Created || loaded.row.deleted || tx.leaves_at(document)?.is_none() {
            return Ok(());
        }
        if commit.origin.is_none() && self.leaves(&loaded.row.collection, &loaded.row.name) {
            self.remotes
                .clone()
                .into_iter()
                .try_for_each(|remote| self.enqueue_whole(tx, remote, document, now))?;
        }
        tx.end_leaving(document)
    }

    /// What another device has purged goes when the time of grace is over.
    pub(super) fn keep_for_a_time(&mut self, tx: Tx<'_>, document: i64) -> store::Result<()> {
        let now = self.shared.now_ms();
        let look = limits::PURGED_LOOK.min(self.shared.purge_grace);
        self.leaving = self.leaving.map(|at| at.min(now + millis(look)));
        tx.let_leave(document, now.saturating_add(millis(self.shared.purge_grace)))
    }

    /// Takes the content of documents whose time is over after another device has purged them.
    pub(super) fn let_leave(&mut self, tx: Tx<'_>) -> store::Result<()> {
        let now = self.shared.now_ms();
        if self.leaving.is_some_and(|at| now < at) {
            return Ok(());
        }
        let due = tx.leaving_at(self.surely_past(tx, now - 1)?, limits::PURGED_BATCH)?;
        for document in &due {
            let row = tx.document_by_id(*document)?;
            tx.end_leaving(*document)?;
            let mut loaded = match self.take(tx, row) {
                Err(StorageError::Damaged(_)) => {
                    // It is not the time to find out what is wrong with it; the others go.
                    tx.let_leave(*document, now + millis(limits::PURGED_LOOK))?;
                    continue;
                }
                loaded => loaded?,
            };
            loaded.row.purged = loaded.row.deleted && loaded.document.is_purged(&loaded.schema);
            if loaded.row.purged {
                // There is nothing left to send.
                self.remotes
                    .clone()
                    .into_iter()
                    .try_for_each(|remote| self.unmark_erased(tx, remote, *document))?;
            }
            self.sweep(tx, &mut loaded)?;
            self.put_back(loaded);
        }
        self.leaving = match tx.is_anything_leaving()? {
            true if due.len() == limits::PURGED_BATCH => None,
            true => Some(now + millis(limits::PURGED_LOOK)),
            false => Some(i64::MAX),
        };
        Ok(())
    }

    /// How long until it is looked for documents that are to go, if there are any.
    pub(super) fn until_some_leave(&self) -> Option<Duration> {
        let wait = self.leaving.map_or(0, |at| at.saturating_sub(self.shared.now_ms()).max(0));
        let wait = Duration::from_millis(wait.unsigned_abs());
        (self.leaving != Some(i64::MAX)).then(|| wait.max(limits::PROJECTION_LAG))
    }

    /// Changes of a document arrived, a purge among them or before them. Says whether they may be kept: a fragment of a purged
    /// document is not, it waits for the rest; and whether the remote is now owed the whole document.
    pub(super) fn after_purge(
        &mut self,
        tx: Tx<'_>,
        remote: i64,
        loaded: &mut Loaded,
        applied: &[Change],
    ) -> store::Result<AfterPurge> {
        let mut owed = false;
        if loaded.row.purged && loaded.row.heads.iter().any(|head| !loaded.document.has_hash(head)) {
            return Ok(AfterPurge { is_kept: false, owed });
        }
        let brings_purge = applied.iter().any(crate::doc::is_purge);
        let was_leaving = is_leaving(tx, &loaded.row)?;
        if loaded.row.purged || brings_purge || was_leaving {
            let is_new = loaded.row.id == 0;
            let is_purged = loaded.document.is_purged(&loaded.schema);
            // What somebody else removes for good can be brought back here for a time.
            let is_kept = is_purged && !loaded.row.purged && !is_new && !self.shared.purge_grace.is_zero();
            // Each purge that arrives has its own time: somebody may have restored the document and written in it before.
            if is_kept && (brings_purge || !was_leaving) {
                self.keep_for_a_time(tx, loaded.row.id)?;
            } else if was_leaving && !is_kept {
                tx.end_leaving(loaded.row.id)?;
            }
            loaded.row.purged = is_purged && !is_kept;
            // Who has purged it holds nothing of it any more.
            if brings_purge && !is_purged && !is_new && self.leaves(&loaded.row.collection, &loaded.row.name)
            {
                self.enqueue_whole(tx, remote, loaded.row.id, self.shared.now_ms())?;
                owed = true;
            }
        }
        Ok(AfterPurge { is_kept: true, owed })
    }

    /// A fragment of a purged document has arrived, and waits for the rest. It waits uncounted if it brings nothing back, so that nobody
    /// will send the rest of it: where deletes win; where the latest wins and all edits in it were made before the document was deleted; where
    /// edits win and it ends in deletes itself, or the purge has seen it. If somebody else brings the document back, it belongs to it. Returns how many changes somebody may miss.
    pub(super) fn quarantine_fragment(
        &mut self,
        tx: Tx<'_>,
        remote: i64,
        loaded: &Loaded,
        outcome: MergeOutcome,
        now: i64,
    ) -> store::Result<u64> {
        let changes =
            || outcome.applied.iter().chain(outcome.rejected.iter().map(|rejected| &rejected.change));
        let dormant = match loaded.schema.delete_policy() {
            DeletePolicy::Wins => true,
            DeletePolicy::EditWins => {
                // What is kept of the purge may have seen it.
                let purge = self.purge_of(tx, loaded)?;
                let known: HashSet<_> = changes().chain(&purge).flat_map(Change::deps).collect();
                changes().filter(|change| !known.contains(&change.hash())).all(is_tombstone)
            }
            DeletePolicy::Latest => {
                // What was deleted or purged here may come back to this device: that is no edit.
                let latest = changes().filter(|change| !is_tombstone(change)).map(time_of).max();
                tx.tombstone(loaded.row.id)?.is_some_and(|at| latest.is_none_or(|latest| latest < at))
            }
        };
        let reason = "the document was purged here, and the rest of it has not arrived";
        let MergeOutcome { applied, mut rejected, .. } = outcome;
        let waits = |change| Rejected { change, reason: reason.into(), waits: true };
        rejected.extend(applied.into_iter().map(waits));
        let worth = if dormant { Worth::Dormant } else { Worth::Counted };
        let set_aside = self.set_aside(tx, remote, loaded.row.key, &rejected, worth, now)?;
        if dormant {
            tx.forget_dormant(now - millis(limits::PURGE_GRACE))?;
        }
        Ok(set_aside)
    }

    fn find_deleted(&mut self, tx: Tx<'_>, collection: &str, name: &str) -> Result<Box<Loaded>, WriteError> {
        let found =
            self.find(tx, collection, name)?.filter(|loaded| loaded.row.deleted && !loaded.row.purged);
        found.ok_or_else(|| super::local::not_found(collection, name))
    }
}

/// Whether another device has purged a document whose content is still here, to be restored for a time.
pub(super) fn is_leaving(tx: Tx<'_>, row: &DocumentRow) -> store::Result<bool> {
    Ok(row.deleted && tx.leaves_at(row.id)?.is_some())
}

//! The document that received changes go into: taken, merged, and rid of what has lost.

use std::collections::HashSet;

use motet_proto::planted::{Bug, is_planted};

use super::super::collisions::Rewrite;
use super::super::incoming::{BadEntry, Group, Merged, Part, Snapshot};
use super::super::{Core, Loaded, new_document};
use super::{Delivery, Received};
use crate::doc::{Change, Identity, MergeOutcome, Rejected, split_changes};
use crate::limits;
use crate::store::{self, DocumentRow, SetAside, StorageError, Tx, Worth};

/// A document and what is merged into it.
pub(super) struct MergeTarget {
    pub(super) loaded: Box<Loaded>,
    parts: Vec<Part>,
    /// The snapshot that a new document came as.
    pub(super) snapshot: Option<Snapshot>,
    pub(super) outcome: MergeOutcome,
}

impl Core {
    /// Takes the document that a group is about, with what is to be merged into it; `None` if it cannot be loaded and what came is set
    /// aside.
    pub(super) fn take_merge_target(
        &mut self,
        tx: Tx<'_>,
        Delivery { remote, now, .. }: Delivery,
        group: &Group,
        (existing, ahead): (Option<DocumentRow>, Option<Box<Merged>>),
        mut parts: Vec<Part>,
        received: &mut Received,
    ) -> store::Result<Option<MergeTarget>> {
        let identity = Identity { space: tx.space(), document: group.key };
        let mut snapshot = None;
        let mut outcome = MergeOutcome::default();
        let loaded = match (existing, ahead) {
            (existing, Some(ahead)) if ahead.onto == existing && self.is_declared(&ahead.loaded) => {
                // It is still as it was loaded; what may be held of it is the same without the merge.
                self.forget_held(group.key);
                (snapshot, outcome) = (ahead.snapshot, ahead.outcome);
                ahead.loaded
            }
            (None, None) => {
                let schema = self.schema_of(&group.collection, &group.name);
                new_document(identity, &group.collection, &group.name, schema)
            }
            (Some(row), None) => match self.take(tx, row) {
                Err(StorageError::Damaged(reason)) => {
                    // The others go on; these are tried again when the document is whole.
                    let rejected = changes_of(parts, &reason);
                    received.quarantined +=
                        self.set_aside(tx, remote, group.key, &rejected, Worth::Damaged, now)?;
                    return Ok(None);
                }
                taken => taken?,
            },
            (existing, Some(ahead)) => {
                // The document has changed since it was merged ahead, and with it what changes may have waited for.
                let Merged { loaded, snapshot: arrived, outcome: merged, .. } = *ahead;
                let waited = merged.rejected.into_iter().map(|rejected| rejected.change);
                let displaced = merged.displaced.into_iter().flat_map(|displaced| displaced.changes);
                let changes = merged.applied.into_iter().chain(waited).chain(displaced).collect();
                if let Some(mut snapshot) = arrived {
                    // If nothing more was merged into it, it was taken from there.
                    snapshot.document.get_or_insert(Box::new(loaded.document));
                    parts.push(Part::Snapshot(snapshot));
                }
                parts.push(Part::Changes(changes));
                match existing {
                    Some(row) => self.take(tx, row)?,
                    None => {
                        let schema = self.schema_of(&group.collection, &group.name);
                        new_document(identity, &group.collection, &group.name, schema)
                    }
                }
            }
        };
        Ok(Some(MergeTarget { loaded, parts, snapshot, outcome }))
    }

    /// Merges what has come, and what waited for it.
    pub(super) fn merge_parts(
        &mut self,
        tx: Tx<'_>,
        Delivery { remote, now, is_news }: Delivery,
        target: &mut MergeTarget,
        set_aside: &[SetAside],
        received: &mut Received,
    ) -> store::Result<()> {
        let MergeTarget { loaded, parts, outcome, .. } = target;
        // What waits was parsed before it was set aside.
        let waiting = set_aside
            .iter()
            .filter(|_| !is_planted(Bug::WaitingIsForgotten))
            .filter_map(|item| item.waiting.as_ref());
        let mut changes: Vec<_> =
            waiting.flat_map(|bytes| split_changes(bytes).unwrap_or_default()).collect();
        let purge = self.purge_of(tx, loaded)?;
        let of_purge: HashSet<_> = purge.iter().map(Change::hash).collect();
        changes.extend(purge);
        let mut left_out = false;
        for part in std::mem::take(parts) {
            match part {
                Part::Changes(more) => changes.extend(more),
                Part::Snapshot(Snapshot { document: None, .. }) => {}
                Part::Snapshot(Snapshot { document: Some(document), entry, bytes, supersedes }) => {
                    match loaded.document.lacking(&document) {
                        Ok(more) => {
                            let lacks = |more: Vec<Change>| !more.is_empty();
                            left_out |=
                                supersedes && is_news && document.lacking(&loaded.document).is_ok_and(lacks);
                            changes.extend(more);
                        }
                        Err(reason) => {
                            let (document, hash) = (loaded.row.key, entry.0);
                            let bad = BadEntry { document, hash, bytes, reason, supersedes: false };
                            self.quarantine_bad(tx, remote, &[bad], received, now)?;
                        }
                    }
                }
            }
        }
        if left_out && loaded.row.id != 0 && self.leaves(&loaded.row.collection, &loaded.row.name) {
            // The entries that it had those changes from may be about to leave.
            self.enqueue_whole(tx, remote, loaded.row.id, now)?;
            received.owed += 1;
        }
        if !changes.is_empty() {
            // What was merged ahead may have waited for what comes only now.
            let waited = outcome.rejected.extract_if(.., |rejected| rejected.waits);
            changes.extend(waited.map(|rejected| rejected.change));
            let schema = loaded.schema.clone();
            loaded.saved = None;
            let merged = loaded.document.merge(changes, &schema);
            outcome.applied.extend(merged.applied);
            outcome.rejected.extend(merged.rejected);
            outcome.displaced = match (outcome.displaced.take(), merged.displaced) {
                (Some(earlier), Some(later)) => Some(later.join(earlier)),
                (earlier, later) => later.or(earlier),
            };
            if !set_aside.is_empty() {
                self.merge_refused(tx, target)?;
            }
        }
        // Nothing of what came is set aside with it.
        target.outcome.rejected.retain(|rejected| !of_purge.contains(&rejected.change.hash()));
        Ok(())
    }

    /// What is left of a purged document: a log that has lost the purge, and is given the document again, leads to the same with it.
    pub(in crate::engine) fn purge_of(&self, tx: Tx<'_>, loaded: &Loaded) -> store::Result<Vec<Change>> {
        if !loaded.row.purged || loaded.row.heads.is_empty() {
            return Ok(Vec::new());
        }
        let bytes = tx.purge_changes(loaded.row.id)?.unwrap_or_default();
        let purge = split_changes(&bytes).unwrap_or_default();
        Ok(purge.into_iter().filter(|change| !loaded.document.has_change(&change.hash())).collect())
    }

    /// What was refused is tried again after all else, with what waits for it.
    fn merge_refused(
        &self,
        tx: Tx<'_>,
        MergeTarget { loaded, outcome, .. }: &mut MergeTarget,
    ) -> store::Result<()> {
        // Whose turn it is: no two heads are alike.
        let turn = loaded.document.heads().first().map(|head| head.0).unwrap_or_default();
        let refused = tx.refused_of(loaded.row.key, &turn, limits::REFUSED_RETRIES)?;
        let mut changes: Vec<_> =
            refused.iter().flat_map(|bytes| split_changes(bytes).unwrap_or_default()).collect();
        changes.retain(|change| !loaded.document.has_change(&change.hash()));
        if changes.is_empty() {
            return Ok(());
        }
        let again: HashSet<_> = changes.iter().map(Change::hash).collect();
        let waits = outcome.rejected.extract_if(.., |rejected| rejected.waits);
        changes.extend(waits.map(|rejected| rejected.change));
        let schema = loaded.schema.clone();
        let merged = loaded.document.merge_refused(changes, &schema);
        outcome.applied.extend(merged.applied);
        // What is refused again stands in quarantine already.
        let news = |rejected: &Rejected| !again.contains(&rejected.change.hash());
        outcome.rejected.extend(merged.rejected.into_iter().filter(news));
        Ok(())
    }

    /// What lost in a collision leaves the document and its rows. Returns what this device has to write anew.
    pub(super) fn resolve_displaced(
        &mut self,
        tx: Tx<'_>,
        remote: i64,
        target: &mut MergeTarget,
        received: &mut Received,
    ) -> store::Result<Option<Rewrite>> {
        let MergeTarget { loaded, snapshot, outcome, .. } = target;
        let Some(displaced) = outcome.displaced.take() else { return Ok(None) };
        loaded.saved = None;
        outcome.applied.retain(|change| loaded.document.has_change(&change.hash()));
        if snapshot.take().is_some() {
            // It holds what has lost: what is left of it is written down change by change.
            outcome.applied = loaded.document.changes().map_err(StorageError::Damaged)?;
        }
        self.store_anew(tx, remote, loaded, &displaced, &outcome.applied)?;
        received.owed += 1;
        let rewrite = self.to_rewrite(loaded, &displaced);
        outcome.rejected.extend(displaced.into_rejected());
        Ok(rewrite)
    }

    /// What it was loaded under is what is declared now.
    fn is_declared(&self, loaded: &Loaded) -> bool {
        loaded.schema == self.schema_of(&loaded.row.collection, &loaded.row.name)
    }
}

/// The changes of a group whose document cannot be loaded.
fn changes_of(parts: Vec<Part>, reason: &str) -> Vec<Rejected> {
    let changes = parts.into_iter().flat_map(|part| match part {
        Part::Changes(changes) => changes,
        Part::Snapshot(snapshot) => {
            snapshot.document.and_then(|document| document.changes().ok()).unwrap_or_default()
        }
    });
    changes.map(|change| Rejected { change, reason: reason.to_owned(), waits: true }).collect()
}

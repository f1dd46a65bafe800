//! What a remote sends, on the writing connection: it is merged and written down together with the receipts and, last, the
//! position. [`incoming`](super::incoming) has opened and checked it before.

mod merge_target;

use std::collections::BTreeMap;

use motet_proto::planted::{Bug, is_planted};
use motet_proto::session::StoredReceipt;
use motet_proto::{DocumentId, Position};

use super::incoming::{Ahead, BadEntry, Group, Incoming};
use super::{Commit, Core};
use crate::doc::{Change, ChangeHash, Reconciled, Rejected, is_purge, is_tombstone};
use crate::store::{self, QuarantineRow, StorageError, Tx, Worth};
use crate::types::LastError;
use crate::types::{ChangeKind, CollectionCounts};
use merge_target::MergeTarget;

/// What a batch did, for the summary of a round.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Received {
    /// What became of documents, in order. One that comes in several pages is there for each.
    pub(crate) documents: Vec<(DocumentId, String, ChangeKind)>,
    /// Concurrent writes that lost, newly found, of each collection.
    pub(crate) conflicts: BTreeMap<String, u64>,
    pub(crate) quarantined: u64,
    /// Documents in which something was folded, by a change of this device.
    pub(crate) folded: u64,
    /// Documents of which something was put into the outbox again.
    pub(crate) owed: u64,
    /// Documents were kept that are not merged yet.
    pub(crate) unmerged: bool,
    /// Documents of which changes wait for others that have not arrived.
    pub(crate) waiting: Vec<DocumentId>,
    /// Outbox rows that the remote has taken, and those that it never will.
    pub(crate) settled: u64,
    pub(crate) parked: u64,
}

/// When a batch came.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Arrival {
    /// It was asked for.
    Requested,
    /// In the order of the remote's log; more of the same page follows.
    Within,
    /// In the order of the remote's log, up to this position.
    UpTo(Position),
}

impl From<Option<Position>> for Arrival {
    fn from(position: Option<Position>) -> Self {
        position.map_or(Self::Requested, Self::UpTo)
    }
}

/// How a batch came.
#[derive(Clone, Copy)]
pub(super) struct Delivery {
    pub(super) remote: i64,
    pub(super) now: i64,
    /// It was read in its turn and for the first time: what is read out of turn, or anew, has been judged when it came.
    pub(super) is_news: bool,
}

impl Received {
    /// Something is to be sent because of it.
    pub(crate) fn wrote(&self) -> bool {
        self.folded + self.owed > 0
    }

    pub(crate) fn add(&mut self, more: Self) {
        self.documents.extend(more.documents);
        for (name, found) in more.conflicts {
            *self.conflicts.entry(name).or_default() += found;
        }
        self.quarantined += more.quarantined;
        self.folded += more.folded;
        self.owed += more.owed;
        self.unmerged |= more.unmerged;
        self.waiting.extend(more.waiting);
        self.settled += more.settled;
        self.parked += more.parked;
    }
}

impl CollectionCounts {
    /// Counts what has become of a document, of which `before` was told in the same round: each document counts once.
    pub(crate) fn count(&mut self, before: Option<ChangeKind>, now: ChangeKind) -> Option<ChangeKind> {
        let told = match (before, now) {
            (None, now) => Some(now),
            (Some(ChangeKind::Created), ChangeKind::Deleted) => None,
            (Some(ChangeKind::Created), _) => Some(ChangeKind::Created),
            (Some(_), ChangeKind::Deleted) => Some(ChangeKind::Deleted),
            (Some(_), _) => Some(ChangeKind::Updated),
        };
        if let Some(before) = before {
            *self.of(before) -= 1;
        }
        if let Some(told) = told {
            *self.of(told) += 1;
        }
        told
    }

    fn of(&mut self, kind: ChangeKind) -> &mut u64 {
        match kind {
            ChangeKind::Created => &mut self.new,
            ChangeKind::Updated => &mut self.updated,
            ChangeKind::Deleted => &mut self.deleted,
        }
    }
}

impl Core {
    /// Merges a batch and writes it down: documents, receipts, and last the position. All or nothing.
    pub(crate) fn receive(
        &mut self,
        tx: Tx<'_>,
        remote: i64,
        incoming: Incoming,
        receipts: &[StoredReceipt],
        turn: Arrival,
    ) -> store::Result<Received> {
        self.check_era(tx)?;
        self.catch_up_all(tx)?;
        let now = self.shared.now_ms();
        let is_news = turn != Arrival::Requested && !self.reseeding.contains_key(&remote);
        let delivery = Delivery { remote, now, is_news };
        let mut received = Received::default();
        if is_planted(Bug::BadEntryFailsBatch) && !incoming.bad.is_empty() {
            return Err(StorageError::Damaged("an entry cannot be read".into()));
        }
        self.quarantine_bad(tx, remote, &incoming.bad, &mut received, now)?;
        let unreadable = incoming.bad.iter().filter(|bad| bad.supersedes && is_news);
        for document in unreadable.map(|bad| bad.document).collect::<Vec<_>>() {
            received.owed += self.enqueue_if_known(tx, remote, document, now)?;
        }
        // Out of turn nobody can tell what came after an erasure.
        let erasures = incoming.erased.into_iter().filter(|_| turn != Arrival::Requested);
        let (followed, last): (Vec<_>, Vec<_>) = erasures.partition(|(_, is_followed)| *is_followed);
        received.owed += self.note_erased(tx, remote, followed.into_iter().map(|(key, _)| key), now)?;
        let devices: BTreeMap<_, _> = incoming.groups.iter().flat_map(|group| &group.devices).collect();
        devices.into_iter().try_for_each(|(device, name)| tx.put_device(*device, name))?;
        for group in incoming.groups {
            self.receive_group(tx, delivery, group, &mut received)?;
        }
        received.owed += self.note_erased(tx, remote, last.into_iter().map(|(key, _)| key), now)?;
        for receipt in receipts {
            self.settle(tx, remote, receipt, &mut received, now)?;
        }
        if received.quarantined > 0 {
            tx.bound_quarantine()?;
        }
        if let Arrival::UpTo(position) = turn {
            tx.set_position(remote, Some(position))?;
        }
        Ok(received)
    }

    pub(super) fn quarantine_bad(
        &mut self,
        tx: Tx<'_>,
        remote: i64,
        bad: &[BadEntry],
        received: &mut Received,
        now: i64,
    ) -> store::Result<()> {
        for BadEntry { document, hash, bytes, reason, .. } in bad {
            tracing::warn!(%document, reason, "an entry was set aside");
            let row = QuarantineRow {
                remote,
                document: *document,
                hash,
                waits: false,
                worth: Worth::Counted,
                reason,
                bytes,
            };
            received.quarantined += u64::from(tx.quarantine(&row, now)?);
        }
        Ok(())
    }

    pub(super) fn receive_group(
        &mut self,
        tx: Tx<'_>,
        delivery: Delivery,
        mut group: Group,
        received: &mut Received,
    ) -> store::Result<()> {
        let Delivery { remote, now, .. } = delivery;
        let existing = tx.document_by_key(group.key)?;
        if let Some(row) = &existing {
            received.owed += self.note_sent_again(tx, remote, row, &group.hashes, now)?;
        }
        let mut parts = std::mem::take(&mut group.parts);
        let ahead = match (group.ahead.take(), &existing) {
            (Some(Ahead::Shown(whole)), None) if !tx.has_quarantined(group.key)? => {
                received.documents.push((group.key, group.collection.clone(), ChangeKind::Created));
                received.unmerged = true;
                return self.keep_unmerged(tx, remote, group, *whole, now);
            }
            // The document has appeared since it was looked for, or some of it is set aside.
            (Some(Ahead::Shown(whole)), _) => {
                match whole.into_part(tx.space(), (&group.collection, &group.name), &self.schema) {
                    Ok(part) => parts.push(part),
                    Err((bad, shown_as)) => {
                        group.entries.retain(|entry| *entry != bad.hash);
                        tx.rename_quarantined(group.key, &shown_as, &bad.hash)?;
                        self.quarantine_bad(tx, remote, &[*bad], received, now)?;
                    }
                }
                None
            }
            (Some(Ahead::Merged(merged)), _) => Some(merged),
            (None, _) => None,
        };
        let was_live = existing.as_ref().is_some_and(|row| !row.deleted);
        let Some(mut target) =
            self.take_merge_target(tx, delivery, &group, (existing, ahead), parts, received)?
        else {
            return Ok(());
        };
        // Of the document as it is stored, whatever has been merged ahead.
        let before: Vec<_> = target.loaded.row.heads.iter().copied().map(ChangeHash).collect();
        let set_aside = tx.quarantined_of(group.key, Some(remote))?;
        self.merge_parts(tx, delivery, &mut target, &set_aside, received)?;
        let rewrite = self.resolve_displaced(tx, remote, &mut target, received)?;
        let MergeTarget { mut loaded, snapshot, mut outcome, .. } = target;
        outcome.rejected.retain(|rejected| !loaded.document.has_change(&rejected.change.hash()));
        let mut is_found_here = false;
        for item in set_aside {
            is_found_here |= item.is_only_here
                && loaded.document.has_hash(&item.hash)
                && !group.hashes.contains(&item.hash);
            if loaded.document.has_hash(&item.hash) || group.entries.contains(&item.hash) {
                tx.release(group.key, &item.hash)?;
            }
        }
        let after_purge = self.after_purge(tx, remote, &mut loaded, &outcome.applied)?;
        received.owed += u64::from(after_purge.owed);
        if !after_purge.is_kept {
            received.quarantined += self.quarantine_fragment(tx, remote, &loaded, outcome, now)?;
            return Ok(());
        }
        received.quarantined +=
            self.set_aside(tx, remote, group.key, &outcome.rejected, Worth::Counted, now)?;
        if outcome.rejected.iter().any(|rejected| rejected.waits) {
            received.waiting.push(group.key);
        }
        let is_new = loaded.row.id == 0;
        let heads = loaded.document.heads();
        if is_new && heads.is_empty() {
            return Ok(());
        }
        if !is_new && heads == before {
            self.note_held(remote, loaded.row.id, &group, &heads, false);
            let is_known = loaded.row.heads.iter().all(|head| group.hashes.contains(head));
            if loaded.row.purged && !is_known && self.leaves(&loaded.row.collection, &loaded.row.name) {
                // Somebody has sent it whole who knows nothing of the purge: the remote may have lost that.
                self.enqueue_whole(tx, remote, loaded.row.id, now)?;
                received.owed += 1;
            }
            self.put_back(loaded);
            return Ok(());
        }
        if let Some(reason) = unfit_rows(tx, &loaded, &outcome.applied)? {
            // The others go on; this is read again once the file is repaired.
            let set_aside = |change| Rejected { change, reason: reason.to_owned(), waits: true };
            let rejected: Vec<_> = outcome.applied.into_iter().map(set_aside).collect();
            received.quarantined += self.set_aside(tx, remote, group.key, &rejected, Worth::Damaged, now)?;
            return Ok(());
        }
        let is_deleted = loaded.document.is_deleted(&loaded.schema);
        let kind = match (was_live, is_deleted) {
            (_, true) => ChangeKind::Deleted,
            (false, false) => ChangeKind::Created,
            (true, false) => ChangeKind::Updated,
        };
        let key = loaded.row.key;
        let collection = loaded.row.collection.clone();
        let commit = Commit {
            changes: &outcome.applied,
            origin: Some(remote),
            stale: !is_planted(Bug::ProjectionIsForgotten),
            local: false,
            automatic: false,
            kind,
            fields: Vec::new(),
        };
        let mut conflicts = self.commit(tx, loaded, &commit, now)?;
        if let Some(document) = self.write.documents.get(&key).map(|loaded| loaded.row.id) {
            // With many changes on top, a saved form of all of it is kept instead.
            if let Some(snapshot) = snapshot
                && !tx.has_numbered_snapshot(document)?
            {
                tx.put_snapshot(document, &snapshot.bytes, 0, true)?;
            }
            tx.mark_synced(document, now)?;
            self.note_held(remote, document, &group, &heads, is_new);
            if is_found_here && self.leaves(&collection, &group.name) {
                // What a repair had set aside, or what waited while a log was lost, is of the document again. Perhaps no log has it.
                for remote in self.remotes.clone() {
                    self.enqueue_whole(tx, remote, document, now)?;
                    received.owed += 1;
                }
            }
        } else if let Some(snapshot) = snapshot
            && let Some(row) = tx.document_by_key(key)?
            && tx.has_content(row.id)?
        {
            // It is purged, and another remote has not heard of it: until then all of it is kept.
            tx.put_snapshot(row.id, &snapshot.bytes, 0, true)?;
        }
        if let Some(rewrite) = rewrite {
            self.rewrite(tx, key, &rewrite, now)?;
        }
        // In the trash as well: that is what comes back. Of what is gone for good nothing does.
        let is_over = match self.write.documents.get(&key) {
            Some(loaded) => self.is_over(tx, loaded)?,
            None => true,
        };
        if !is_over {
            let found = self.reconcile(tx, key, &before, &outcome.applied, now)?;
            received.folded += u64::from(found.is_some());
            conflicts += found.unwrap_or_default();
        }
        if !is_new && kind == ChangeKind::Created {
            received.folded += u64::from(self.free_revived(tx, key, now)?);
        }
        if is_new {
            // Nobody has asked for it yet: a first sync must not fill the memory.
            self.write.documents.remove(&key);
        }
        if conflicts > 0 {
            *received.conflicts.entry(collection.clone()).or_default() += conflicts as u64;
        }
        // A document that came and went while this device was away is not worth a word.
        if kind != ChangeKind::Deleted || was_live {
            received.documents.push((key, collection, kind));
        }
        Ok(())
    }

    /// Brings what two lines of changes have made to what it should show, and writes down where they wrote in one place. If
    /// changes were made for it, the number of conflicts that are open since then.
    pub(super) fn reconcile(
        &mut self,
        tx: Tx<'_>,
        key: DocumentId,
        before: &[ChangeHash],
        applied: &[Change],
        now: i64,
    ) -> store::Result<Option<usize>> {
        let Some(mut loaded) = self.write.documents.remove(&key) else { return Ok(None) };
        let schema = loaded.schema.clone();
        let Reconciled { changes, noticed } = match loaded.document.reconcile(&schema, before, applied) {
            Ok(done) => done,
            Err(error) => {
                // Both sides are in the document, as they merge without it. One document does not hold up the others.
                tracing::warn!(document = %key, %error, "what has met cannot be reconciled");
                return Ok(None);
            }
        };
        self.journal_merged(tx, &loaded.row, &noticed, now)?;
        if changes.is_empty() {
            self.put_back(loaded);
            return Ok(None);
        }
        let kind = if loaded.row.deleted { ChangeKind::Deleted } else { ChangeKind::Updated };
        let commit = Commit { stale: true, automatic: true, ..Commit::of(&changes, kind) };
        self.commit(tx, loaded, &commit, now).map(Some)
    }

    /// While a lost log is read again: what it holds of the document.
    pub(super) fn note_held(
        &mut self,
        remote: i64,
        document: i64,
        group: &Group,
        heads: &[ChangeHash],
        is_new: bool,
    ) {
        if let Some(seen) = self.reseeding.get_mut(&remote) {
            let held = seen.entry(document).or_default();
            let is_here = |head: &[u8; 32]| group.hashes.contains(head);
            held.heads.extend(heads.iter().map(|head| head.0).filter(is_here));
            held.changes.extend(&group.sums);
            held.is_whole |= is_new;
        }
    }

    pub(super) fn set_aside(
        &mut self,
        tx: Tx<'_>,
        remote: i64,
        document: DocumentId,
        rejected: &[Rejected],
        worth: Worth,
        now: i64,
    ) -> store::Result<u64> {
        let is_mark = |item: &Rejected| item.waits && is_tombstone(&item.change);
        let only_marks = rejected.iter().all(is_mark) && rejected.iter().any(|item| is_purge(&item.change));
        let worth = if worth == Worth::Counted && only_marks { Worth::OnlyMarks } else { worth };
        let mut count = 0;
        for item in rejected {
            tracing::warn!(%document, change = %item.change.hash(), reason = item.reason, "a change was set aside");
            let row = QuarantineRow {
                remote,
                document,
                hash: &item.change.hash().0,
                waits: item.waits,
                worth: if item.waits { worth } else { Worth::Counted },
                reason: &item.reason,
                bytes: item.change.raw_bytes(),
            };
            let is_new = tx.quarantine(&row, now)?;
            count += u64::from(is_new && !matches!(row.worth, Worth::Dormant | Worth::OnlyMarks));
        }
        Ok(count)
    }

    fn settle(
        &mut self,
        tx: Tx<'_>,
        remote: i64,
        receipt: &StoredReceipt,
        received: &mut Received,
        now: i64,
    ) -> store::Result<()> {
        match &receipt.result {
            Ok(()) => {
                // A row that went out twice is settled once.
                if let Some(document) = tx.settle(receipt.row, now)? {
                    self.sweep_sent(tx, document)?;
                    self.count_pending(remote, -1);
                    received.settled += 1;
                }
            }
            Err((rejection, message)) => {
                let error = LastError {
                    code: format!("rejected-{rejection:?}").to_lowercase(),
                    message: message.clone(),
                    at: now,
                };
                received.parked += u64::from(tx.park(receipt.row, &super::to_json(&error)?)?);
            }
        }
        Ok(())
    }
}

/// Why changes of a document cannot be written beside what is stored of it, if the file is damaged.
fn unfit_rows(tx: Tx<'_>, loaded: &super::Loaded, changes: &[Change]) -> store::Result<Option<&'static str>> {
    if loaded.row.id == 0 && tx.has_row(loaded.row.key)? {
        return Ok(Some("what this device shows of the document is missing in its file: repair it"));
    }
    let last = loaded.row.changes.saturating_add(changes.len() as i64);
    Ok((last > store::MOST_CHANGES).then_some("the numbers of its changes are used up: repair the file"))
}

//! What remotes hold and are owed: which there are, where their logs were read to, what is sent to them at all.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use motet_proto::planted::{Bug, is_planted};
use motet_proto::{DocumentId, Position};

use super::incoming::sum_of;
use super::{Core, Held, load_stale};
use crate::store::{self, DocumentRow, Op, StorageError, Tx};
use crate::time::millis;

impl Core {
    /// Stops sending a collection, or sends again what remotes lack of it: every document of it is queued, and what they hold already
    /// they recognise.
    pub(crate) fn set_collection_sync(
        &mut self,
        tx: Tx<'_>,
        collection: &str,
        on: bool,
    ) -> store::Result<()> {
        if on != self.excluded.contains(collection) {
            return Ok(());
        }
        self.catch_up_all(tx)?;
        self.write.settings_changed = true;
        tx.set_excluded(collection, !on)?;
        if on {
            self.excluded.remove(collection);
            let mut leaving = tx.named_documents(collection)?;
            leaving.retain(|(_, name)| self.leaves(collection, name));
            self.enqueue_documents(
                tx,
                &leaving.into_iter().map(|(document, _)| document).collect::<Vec<_>>(),
            )?;
        } else {
            self.excluded.insert(collection.to_owned());
            tx.drop_pending_of(collection)?;
        }
        self.write.recounts = true;
        Ok(())
    }

    /// Remotes are owed these documents as a whole, also those that were purged while they were not sent.
    pub(super) fn enqueue_documents(&mut self, tx: Tx<'_>, documents: &[i64]) -> store::Result<()> {
        let owed: HashSet<i64> = documents.iter().copied().collect();
        for remote in tx.remotes()? {
            // What was to be erased and has not been is not erased.
            for document in documents {
                tx.drop_open(remote.id, *document)?;
                self.unmark_erased(tx, remote.id, *document)?;
            }
            self.hold_back_leaving(tx, remote.id, |document| !owed.contains(&document))?;
            let skip = |document, _: &str, _: &str| {
                !owed.contains(&document) || self.erased.contains(&(remote.id, document))
            };
            tx.add_all_pending(remote.id, &skip, self.shared.now_ms())?;
        }
        self.write.bytes = usize::MAX;
        self.write.recounts = true;
        Ok(())
    }

    /// Has the remotes forget what they hold of a collection, and sends nothing of it from now on. Devices keep what they have.
    pub(crate) fn erase_remote(&mut self, tx: Tx<'_>, collection: &str) -> store::Result<()> {
        self.set_collection_sync(tx, collection, false)?;
        self.catch_up_all(tx)?;
        let now = self.shared.now_ms();
        for document in tx.documents_of(collection)? {
            for remote in self.remotes.clone() {
                tx.add_pending(remote, document, Op::Erase, 0, now)?;
                self.mark_erased(tx, remote, document)?;
            }
        }
        self.write.settings_changed = true;
        self.write.recounts = true;
        Ok(())
    }

    /// A remote has forgotten documents because somebody asked it to. What this device has is kept; what it sends next of them is
    /// the whole. Returns of how many that is at once.
    pub(super) fn note_erased(
        &mut self,
        tx: Tx<'_>,
        remote: i64,
        documents: impl Iterator<Item = DocumentId>,
        now: i64,
    ) -> store::Result<u64> {
        let mut owed = 0;
        for key in documents {
            let Some(row) = tx.document_by_key(key)? else { continue };
            if tx.is_pending(remote, row.id)? && self.leaves(&row.collection, &row.name) {
                // Parts of it are on their way, which are of no use alone.
                self.enqueue_whole(tx, remote, row.id, now)?;
                owed += 1;
            } else {
                self.mark_erased(tx, remote, row.id)?;
            }
        }
        Ok(owed)
    }

    /// Something of a document has come from a remote. If that had forgotten it, it knows the document again, and is owed what it lacks
    /// of what this device has. Returns whether it is, as a number.
    pub(super) fn note_sent_again(
        &mut self,
        tx: Tx<'_>,
        remote: i64,
        row: &DocumentRow,
        arrived: &[[u8; 32]],
        now: i64,
    ) -> store::Result<u64> {
        if self.erased.is_empty()
            || !self.erased.contains(&(remote, row.id))
            || !self.leaves(&row.collection, &row.name)
        {
            return Ok(0);
        }
        if row.heads.iter().all(|head| arrived.contains(head)) {
            self.unmark_erased(tx, remote, row.id)?;
            return Ok(0);
        }
        self.enqueue_whole(tx, remote, row.id, now)?;
        Ok(1)
    }

    /// A remote may lose what it holds of a document: it is owed the whole, if this device has it. Returns whether it is, as a number.
    pub(super) fn enqueue_if_known(
        &mut self,
        tx: Tx<'_>,
        remote: i64,
        document: DocumentId,
        now: i64,
    ) -> store::Result<u64> {
        match tx.document_by_key(document)? {
            Some(row) if !row.purged && self.leaves(&row.collection, &row.name) => {
                self.enqueue_whole(tx, remote, row.id, now)?;
                Ok(1)
            }
            _ => Ok(0),
        }
    }

    /// Every remote but the one that the changes came from is owed a document's changes from `first_change` on.
    pub(super) fn enqueue(
        &mut self,
        tx: Tx<'_>,
        document: i64,
        origin: Option<i64>,
        op: Op,
        first_change: i64,
        now: i64,
    ) -> store::Result<()> {
        for i in 0..self.remotes.len() {
            let remote = self.remotes[i];
            if Some(remote) == origin {
                continue;
            }
            if !self.erased.is_empty() && self.erased.contains(&(remote, document)) {
                self.enqueue_whole(tx, remote, document, now)?;
            } else if tx.add_pending(remote, document, op, first_change, now)? {
                self.count_pending(remote, 1);
            }
        }
        Ok(())
    }

    /// A remote is owed the whole document.
    pub(super) fn enqueue_whole(
        &mut self,
        tx: Tx<'_>,
        remote: i64,
        document: i64,
        now: i64,
    ) -> store::Result<()> {
        self.write.bytes = usize::MAX;
        self.unmark_erased(tx, remote, document)?;
        if tx.add_pending(remote, document, Op::Update, 0, now)? {
            self.count_pending(remote, 1);
        }
        tx.widen_pending(remote, document)
    }

    /// What is purged here, or by another device and here only to be restored, is not sent to a remote that knows nothing of it, until somebody
    /// else sends something of it there.
    fn hold_back_leaving(
        &mut self,
        tx: Tx<'_>,
        remote: i64,
        is_known: impl Fn(i64) -> bool,
    ) -> store::Result<()> {
        let over = tx.all_leaving()?.into_iter().chain(tx.purged_documents()?);
        for document in over.filter(|document| !is_known(*document)) {
            let row = match tx.document_by_id(document) {
                Err(StorageError::Damaged(_)) => continue,
                row => row?,
            };
            if row.deleted && self.leaves(&row.collection, &row.name) {
                self.mark_erased(tx, remote, document)?;
            }
        }
        Ok(())
    }

    fn mark_erased(&mut self, tx: Tx<'_>, remote: i64, document: i64) -> store::Result<()> {
        self.write.settings_changed = true;
        self.erased.insert((remote, document));
        tx.mark_erased(remote, document)
    }

    pub(super) fn unmark_erased(&mut self, tx: Tx<'_>, remote: i64, document: i64) -> store::Result<()> {
        if self.erased.remove(&(remote, document)) {
            self.write.settings_changed = true;
            tx.unmark_erased(remote, document)?;
        }
        Ok(())
    }

    /// Makes the remote at `url` the one that the status speaks of. A new one lacks everything, so every document is
    /// queued for it; one that was left earlier has been queued for all along.
    pub(crate) fn use_remote(&mut self, tx: Tx<'_>, url: &str, now: i64) -> store::Result<i64> {
        self.write.settings_changed = true;
        let known = tx.remotes()?.into_iter().find(|remote| remote.url == url);
        let id = match known {
            Some(remote) => remote.id,
            None => {
                self.catch_up_all(tx)?;
                let id = tx.insert_remote(url)?;
                self.hold_back_leaving(tx, id, |_| false)?;
                let skip = |document, collection: &str, name: &str| {
                    !self.leaves(collection, name) || self.erased.contains(&(id, document))
                };
                tx.add_all_pending(id, &skip, now)?;
                id
            }
        };
        tx.set_active(Some(id))?;
        self.read_remotes(tx)?;
        Ok(id)
    }

    /// Prepares a session with a remote. If its log was found to be another one earlier and that was not dealt with
    /// to the end, or if the last comparison is longer ago than `compares_after`, reading starts over. Returns the position, and
    /// whether that is so.
    pub(crate) fn begin_session(
        &mut self,
        tx: Tx<'_>,
        remote: i64,
        compares_after: Option<Duration>,
    ) -> store::Result<(Option<Position>, bool)> {
        self.era = Some(tx.era()?);
        if self.is_comparison_due(tx, remote, compares_after)? {
            tracing::info!("everything is compared with the relay");
            tx.set_reseed(remote, true)?;
        }
        let row = tx.remotes()?.into_iter().find(|row| row.id == remote);
        match row {
            Some(row) if row.reseed => self.reset_position(tx, remote).map(|()| (None, true)),
            row => Ok((row.and_then(|row| row.position), false)),
        }
    }

    fn is_comparison_due(
        &self,
        tx: Tx<'_>,
        remote: i64,
        compares_after: Option<Duration>,
    ) -> store::Result<bool> {
        let now = self.shared.now_ms();
        let last = tx.compared_at(remote)?;
        // Everything is read now anyway, or was lately. A clock that went back tells nothing.
        if compares_after.is_some() && last.is_none_or(|last| last > now) {
            tx.set_compared_at(remote, now)?;
        }
        Ok(is_due(compares_after, last, now))
    }

    /// The remote's log is not the one that was read and written before: read it from the start, and note what it
    /// holds, so that [`finish_reseed`](Self::finish_reseed) sends what it lacks.
    pub(crate) fn reset_position(&mut self, tx: Tx<'_>, remote: i64) -> store::Result<()> {
        self.check_era(tx)?;
        tx.set_position(remote, None)?;
        tx.doubt_quarantined(remote)?;
        tx.set_reseed(remote, !is_planted(Bug::ReseedIsNotRemembered))?;
        // What another log was told to forget, and still stands in this one, is read again.
        for (of, document) in self.erased.clone().into_iter().filter(|(of, _)| *of == remote) {
            let row = tx.document_by_id(document)?;
            if self.leaves(&row.collection, &row.name) {
                self.unmark_erased(tx, of, document)?;
            }
        }
        self.reseeding.insert(remote, HashMap::new());
        Ok(())
    }

    /// The next session with the active remote compares everything, as if its log had been lost.
    pub(crate) fn schedule_full_compare(&mut self, tx: Tx<'_>) -> store::Result<()> {
        match self.active {
            Some(remote) => tx.set_reseed(remote, true),
            None => Ok(()),
        }
    }

    /// The remote's log is read to its end. Queues every document of which it lacks something.
    pub(crate) fn finish_reseed(&mut self, tx: Tx<'_>, remote: i64) -> store::Result<()> {
        self.check_era(tx)?;
        let Some(seen) = self.reseeding.remove(&remote) else { return Ok(()) };
        let outcome = self.enqueue_lacking(tx, remote, &seen);
        self.write.reseeded.push((remote, seen));
        outcome
    }

    /// Queues every document of which a remote lacks something, whose log holds what was seen.
    fn enqueue_lacking(&mut self, tx: Tx<'_>, remote: i64, seen: &HashMap<i64, Held>) -> store::Result<()> {
        self.catch_up_all(tx)?;
        self.hold_back_leaving(tx, remote, |document| seen.contains_key(&document))?;
        let mut held = HashSet::new();
        let known: HashSet<_> = seen.keys().copied().collect();
        for (&document, seen) in seen {
            let heads = tx.document_by_id(document)?.heads;
            if heads.iter().all(|head| seen.heads.contains(head)) && is_covered(tx, document, seen)? {
                held.insert(document);
            }
        }
        let erased = |id| self.erased.contains(&(remote, id));
        let skip = |id, collection: &str, name: &str| {
            held.contains(&id) || !self.leaves(collection, name) || erased(id)
        };
        let added = tx.add_all_pending(remote, &skip, self.shared.now_ms())?;
        // It holds something of what is purged here, and not the purge.
        let purged = tx.purged_documents()?.into_iter().filter(|id| known.contains(id) && !held.contains(id));
        let purged: Vec<_> = purged.collect();
        self.count_pending(remote, added as i64);
        for document in purged {
            let row = tx.document_by_id(document)?;
            if self.leaves(&row.collection, &row.name) {
                self.enqueue_whole(tx, remote, document, self.shared.now_ms())?;
            }
        }
        tx.set_compared_at(remote, self.shared.now_ms())?;
        tx.set_reseed(remote, false)
    }
}

/// Whether a log holds all changes that are stored of a document, and not only the last of them: a device that meets it there for the first
/// time could make nothing of those.
fn is_covered(tx: Tx<'_>, document: i64, seen: &Held) -> store::Result<bool> {
    if seen.is_whole || is_planted(Bug::SendsToAnUnknownLog) {
        return Ok(true);
    }
    // Each stored change begins with four bytes of its hash. A saved form that holds no numbered change has come in one entry, with its heads.
    if !tx.change_sums(document)?.iter().all(|sum| seen.changes.contains(sum)) {
        return Ok(false);
    }
    if !tx.has_numbered_snapshot(document)? {
        return Ok(true);
    }
    let changes = match load_stale(tx, tx.document_by_id(document)?, Default::default()) {
        Ok(loaded) => loaded.document.changes(),
        Err(StorageError::Damaged(reason)) => Err(reason),
        Err(error) => return Err(error),
    };
    // What cannot be read is found out, and told, where it is needed.
    Ok(changes.is_ok_and(|changes| changes.iter().map(sum_of).all(|sum| seen.changes.contains(&sum))))
}

/// Whether what was last compared at a time is to be compared again.
pub(crate) fn is_due(compares_after: Option<Duration>, last: Option<i64>, now: i64) -> bool {
    compares_after.zip(last).is_some_and(|(every, last)| last <= now && now - last >= millis(every))
}

//! A transaction's beginning and end, as the engine sees them.

use std::time::Duration;

use motet_proto::planted::{Bug, is_planted};

use super::staged::StagedWrite;
use super::{Ahead, Core};
use crate::limits;
use crate::store::{self, Tx};

impl store::Engine for Core {
    type Ahead = Ahead;

    fn is_long(&mut self, tx: Tx<'_>, ahead: &Ahead, foreign: bool) -> bool {
        Self::is_long(self, tx, ahead, foreign)
    }

    fn prepare(&mut self, tx: Tx<'_>, ahead: Ahead, foreign: bool) {
        self.do_ahead(tx, ahead, foreign);
    }

    fn begin(&mut self, tx: Tx<'_>, foreign: bool) -> store::Result<()> {
        // Another process counts by the same clock, so that the latest transaction has the largest number.
        self.transaction = self.transaction.max(self.shared.now_ms().unsigned_abs() * 1_000);
        if foreign {
            // What is loaded may be stale, the settings too.
            self.doubt_held();
            self.forget_marks();
            self.settings_stale = true;
        }
        if self.settings_stale {
            self.settings_reloaded = true;
            self.reload_settings(tx)?;
        }
        self.note_foreign(tx, foreign)
    }

    fn before_commit(&mut self, tx: Tx<'_>) -> store::Result<()> {
        self.seal_awaited(tx)?;
        self.note_own(tx)?;
        if self.staged.recounts || self.write.recounts {
            self.staged.recounted = Some((tx.remotes()?, tx.count_pending()? as i64));
        }
        Ok(())
    }

    fn end_write(&mut self, ok: bool) {
        self.transaction += 1;
        match ok {
            true => self.staged.merge(std::mem::take(&mut self.write)),
            false => self.discard_write(),
        }
    }

    fn end(&mut self, committed: bool) {
        match committed {
            true => self.write = StagedWrite::default(),
            // A failure in the middle of a write has not ended it.
            false => self.discard_write(),
        }
        let staged = std::mem::take(&mut self.staged);
        self.shared.send_slot.put(staged.ready.filter(|_| committed));
        self.told.end(committed);
        if !committed {
            self.settings_stale |= staged.settings_changed;
            if is_planted(Bug::FailedWriteStaysLoaded) {
                for (key, loaded) in staged.documents {
                    self.cache.put(key, loaded);
                }
            }
            self.reseeding.extend(staged.reseeded);
            return;
        }
        if staged.scrubbed {
            (self.shared.empty_log)();
        }
        if staged.settings_changed {
            self.publish_schema();
            self.tell_place();
        }
        if let Some(policy) = staged.policy {
            self.publish_policy(policy);
        }
        let large = limits::CACHED_OPERATIONS / limits::CACHED_DOCUMENTS as u64;
        let is_large = staged.documents.values().any(|loaded| loaded.document.operations() > large);
        for (key, loaded) in staged.documents {
            self.cache.put(key, loaded);
        }
        if is_large {
            self.bound_cache();
        }
        let is_recounted = staged.recounted.is_some();
        if let Some((remotes, pending)) = staged.recounted {
            self.shared.board.reload(&remotes, pending);
        } else if staged.pending != 0 {
            self.shared.board.add_pending(staged.pending);
        }
        if staged.events.iter().any(|event| !event.remote) || staged.pending > 0 || is_recounted {
            self.shared.outbox.notify_one();
        }
        self.log_noticed(staged.noticed);
        for event in staged.events {
            // No listener is no error.
            _ = self.shared.events.send(event);
        }
        let reloaded = std::mem::take(&mut self.settings_reloaded);
        if reloaded || is_recounted {
            self.shared.changed_elsewhere.notify_one();
        }
        self.shared.commits.send_modify(|commits| {
            commits.count += 1;
            commits.settings += u64::from(staged.settings_changed || reloaded);
        });
    }

    fn lag(&self) -> Option<Duration> {
        let Some(behind) = &self.behind else { return Some(limits::PROJECTION_LAG) };
        if self.unindexed != Some(false) || behind.iter().any(|(key, at)| self.is_due(*key, *at)) {
            return Some(limits::PROJECTION_LAG);
        }
        let of_others = (!behind.is_empty()).then_some(limits::FOREIGN_PROJECTION_LAG);
        of_others.into_iter().chain(self.until_some_leave()).min()
    }

    fn stale_ahead() -> Ahead {
        Ahead::Behind { all: false }
    }

    fn catch_up(&mut self, tx: Tx<'_>) -> store::Result<()> {
        if !self.catch_up_turn(tx, false)? {
            return Ok(());
        }
        if let Err(error) = self.index_batch(tx) {
            // Searching tells of it; what else has caught up stays.
            tracing::error!(%error, "words cannot be indexed");
            self.unindexed = Some(false);
        }
        if let Err(error) = self.let_leave(tx) {
            // As above; it is tried again when the file is opened, or another process has written.
            tracing::error!(%error, "what was purged cannot be removed");
            self.leaving = Some(i64::MAX);
        }
        Ok(())
    }
}

impl Core {
    /// The running write leaves nothing behind. What is known of the file beside its documents may be rolled back with it.
    fn discard_write(&mut self) {
        let write = std::mem::take(&mut self.write);
        self.settings_stale |= write.settings_changed;
        self.reseeding.extend(write.reseeded);
        self.forget_marks();
        self.indexing = None;
        self.doubt_lagging();
    }

    /// Lets go of documents whose operations would take too much memory, but for the one used last.
    fn bound_cache(&mut self) {
        let mut operations = 0;
        let sizes = self.cache.iter().map(|(key, loaded)| (*key, loaded.document.operations()));
        let mut over = Vec::new();
        for (n, (key, size)) in sizes.enumerate() {
            operations += size;
            if n > 0 && operations > limits::CACHED_OPERATIONS {
                over.push(key);
            }
        }
        over.iter().for_each(|key| _ = self.cache.pop(key));
    }
}

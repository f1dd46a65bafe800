//! A transaction's beginning and end, as the engine sees them.

use std::time::Duration;

use motet_proto::planted::{Bug, is_planted};

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
        self.freeze_awaited(tx)?;
        self.note_own(tx)?;
        if self.recounts || self.write_recounts {
            self.recounted = Some((tx.remotes()?, tx.count_pending()? as i64));
        }
        Ok(())
    }

    fn end_write(&mut self, ok: bool) {
        self.transaction += 1;
        if ok {
            self.in_transaction.extend(self.in_write.drain());
            self.events.append(&mut self.write_events);
            self.pending += self.write_pending;
            self.recounts |= self.write_recounts;
        } else {
            self.in_write.clear();
            self.forget_marks();
            self.indexing = None;
            self.doubt_lagging();
            self.write_events.clear();
            self.settings_stale |= self.settings_changed;
        }
        self.composed = None;
        self.message = None;
        self.label = None;
        self.steps.clear();
        self.write_pending = 0;
        self.write_recounts = false;
        self.write_bytes = 0;
    }

    fn end(&mut self, committed: bool) {
        let settings_changed = std::mem::take(&mut self.settings_changed);
        let pending = std::mem::take(&mut self.pending);
        let events = std::mem::take(&mut self.events);
        let recounted = self.recounted.take();
        let ready = self.ready.take().filter(|_| committed);
        self.shared.send_slot.put(ready);
        let policy = self.policy.take();
        self.recounts = false;
        self.told.end(committed);
        self.composed = None;
        if std::mem::take(&mut self.scrubbed) && committed {
            (self.shared.empty_log)();
        }
        if !committed {
            self.noticed.clear();
            self.settings_stale |= settings_changed;
            if is_planted(Bug::FailedWriteStaysLoaded) {
                for (key, loaded) in self.in_transaction.drain() {
                    self.cache.put(key, loaded);
                }
            }
            self.in_transaction.clear();
            self.forget_marks();
            self.indexing = None;
            self.doubt_lagging();
            // A failure in the middle of a write has not ended it.
            self.in_write.clear();
            self.write_events.clear();
            self.steps.clear();
            self.write_pending = 0;
            self.write_recounts = false;
            self.write_bytes = 0;
            return;
        }
        if settings_changed {
            self.publish_schema();
            self.tell_place();
        }
        if let Some(policy) = policy {
            self.publish_policy(policy);
        }
        for (key, loaded) in self.in_transaction.drain() {
            self.cache.put(key, loaded);
        }
        let is_recounted = recounted.is_some();
        if let Some((remotes, pending)) = recounted {
            self.shared.board.reload(&remotes, pending);
        } else if pending != 0 {
            self.shared.board.add_pending(pending);
        }
        if events.iter().any(|event| !event.remote) || pending > 0 || is_recounted {
            self.shared.outbox.notify_one();
        }
        self.log_noticed();
        for event in events {
            // No listener is no error.
            _ = self.shared.events.send(event);
        }
        let reloaded = std::mem::take(&mut self.settings_reloaded);
        self.shared.commits.send_modify(|commits| {
            commits.count += 1;
            commits.settings += u64::from(settings_changed || reloaded);
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

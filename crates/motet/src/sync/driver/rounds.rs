//! What was done and what it cost: rounds that somebody waits for, the day's traffic, and what the status says of it.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{Applied, Command, Driver, Running, Taken};
use crate::engine::Database;
use crate::engine::Link;
use crate::engine::Received;
use crate::error::SyncError;
use crate::limits;
use crate::platform;
use crate::store::{Durability, RoundRow, StorageError};
use crate::sync::SyncSummary;
use crate::time::millis;
use crate::types::CollectionCounts;
use crate::types::LastError;

/// A round that somebody waits for.
pub(super) struct Round {
    pub(super) id: u64,
    reply: oneshot::Sender<Result<SyncSummary, SyncError>>,
    started: Instant,
    started_at: i64,
    pub(super) attempts: usize,
}

impl Driver {
    /// Publishes how it goes; when everything is synced, also for the next start.
    pub(super) async fn show(&mut self, running: &mut Running) {
        let idle = running.session.is_idle() && !running.unmerged && !running.is_merging;
        let board = &self.database.shared.board;
        if !idle {
            running.was_idle = false;
            running.compact_at = None;
            return board.set_link(Link::Busy { done: running.progress.0, total: running.progress.1 });
        }
        board.set_link(Link::Idle);
        if running.was_idle || board.current().pending > 0 {
            return;
        }
        running.was_idle = true;
        self.tidy();
        let quiet = running.compact_after;
        running.compact_at = running.connection.live.then(|| Instant::now() + quiet);
        self.note_synced();
    }

    /// Publishes that this device and the remote hold the same now, and writes it down now and then.
    pub(super) fn note_synced(&mut self) {
        let board = &self.database.shared.board;
        let now = self.database.shared.now_ms();
        // Other processes read of the error in the file.
        let had_failed = board.current().last_error.is_some();
        board.set_synced(now);
        if had_failed || now - self.synced_kept_at >= millis(limits::SYNCED_AT_KEPT_EVERY) {
            self.synced_kept_at = now;
            self.count_bytes();
            self.keep_traffic();
            let remote = self.remote;
            // Nobody depends on it: if it fails, an older time is shown after the next start.
            drop(self.database.writer.submit(Durability::Normal, move |tx, _| tx.set_synced(remote, now)));
        }
    }

    /// What a long read of any process has left of the write-ahead log.
    pub(super) fn tidy(&self) {
        let database = self.database.clone();
        drop(platform::off_thread(move || database.readers.tidy()));
    }

    pub(super) fn take_commands(&mut self) {
        while let Ok(command) = self.commands.try_recv() {
            self.take_command(command);
        }
    }

    pub(super) fn take_command(&mut self, command: Command) -> Taken {
        let reply = match command {
            Command::Round(reply) => reply,
            Command::Document(request) => return Taken::Document(self.take_document(request)),
        };
        let id = self.take_id();
        self.rounds.push(Round {
            id,
            reply,
            started: Instant::now(),
            started_at: self.database.shared.now_ms(),
            attempts: 0,
        });
        Taken::Round(id)
    }

    pub(super) fn take_applied(&mut self, running: &mut Running, applied: Applied) {
        let wrote = applied.received.wrote();
        running.unmerged |= applied.received.unmerged;
        self.ask_for_missing(running, &applied.received.waiting);
        self.count_applied(running, applied);
        running.session.handle_applied(wrote, self.started.elapsed());
    }

    pub(super) fn count_applied(&mut self, running: &mut Running, applied: Applied) {
        running.progress = applied.progress;
        if applied.received.settled > 0 {
            (self.not_taken, self.refusals) = (None, 0);
        }
        if applied.entries + applied.received.settled > 0 {
            self.progressed = true;
            self.traffic.works(Duration::ZERO);
            self.rounds.iter_mut().for_each(|round| round.attempts = 1);
        }
        self.tally.received += applied.foreign;
        self.tally.sent += applied.received.settled;
        self.tally.rejected += applied.received.parked;
        self.count_received(applied.received);
    }

    pub(super) fn count_received(&mut self, received: Received) {
        self.tally.quarantined += received.quarantined;
        for (name, found) in received.conflicts {
            self.tally.collections.entry(name).or_default().conflicts += found;
        }
        for (key, collection, kind) in received.documents {
            let counts = self.tally.collections.entry(collection).or_default();
            if let Some(told) = counts.count(self.tallied.remove(&key), kind) {
                self.tallied.insert(key, told);
            }
        }
    }

    pub(super) fn count_bytes(&mut self) {
        let now = self.traffic.now();
        let [up, down, messages] = std::array::from_fn(|i| now[i] - self.counted[i]);
        self.unkept = [self.unkept[0] + up, self.unkept[1] + down];
        self.tally.bytes_up += up;
        self.tally.bytes_down += down;
        self.tally.messages_up += messages;
        self.counted = now;
    }

    /// Adds what was sent and received to the day's counters.
    pub(super) fn keep_traffic(&mut self) {
        let [up, down] = std::mem::take(&mut self.unkept);
        if up + down > 0 {
            let day = self.database.shared.now_ms() / limits::DAY_MS;
            // Nobody waits for it; if it fails, the counters lack a little.
            drop(self.database.writer.submit(Durability::Normal, move |tx, _| tx.add_traffic(day, up, down)));
        }
    }

    pub(super) async fn finish_round(&mut self, id: u64) -> Result<(), StorageError> {
        let Some(at) = self.rounds.iter().position(|round| round.id == id) else { return Ok(()) };
        let round = self.rounds.remove(at);
        self.keep_traffic();
        if let Some(error) = &self.not_taken {
            // All that could be done is done, and uploads wait.
            _ = round.reply.send(Err(error.clone()));
            return Ok(());
        }
        let duration = round.started.elapsed().as_millis();
        self.tallied.clear();
        let mut summary = SyncSummary { duration_ms: duration as u64, ..std::mem::take(&mut self.tally) };
        summary.collections.retain(|_, counts| *counts != CollectionCounts::default());
        let now = self.database.shared.now_ms();
        let row = RoundRow {
            remote: self.remote,
            started_at: round.started_at,
            duration_ms: duration as i64,
            summary: serde_json::to_string(&summary).unwrap_or_default(),
        };
        let kept =
            self.database.writer.submit(Durability::Normal, move |tx, _| tx.finish_round(&row, now)).await;
        self.database.shared.board.set_synced(now);
        _ = round.reply.send(kept.clone().map(|()| summary).map_err(SyncError::Storage));
        kept
    }

    /// Tells those who wait, and keeps the error for the status. A round whose connection broke is tried again.
    pub(super) async fn note_failure(&mut self, error: &SyncError, reached: bool) {
        tracing::info!(code = error.code(), %error, "the sync session ended");
        self.failure.note(error);
        keep_error(&self.database, self.remote, error).await;
        // After it is kept: who waited may ask for the status next, or exit.
        let retry = reached && error.is_retryable() && !error.is_refusal();
        self.fail_rounds(error, retry);
        self.fail_documents(error, retry);
    }

    /// Tells those who wait for a round, unless it is tried again.
    pub(super) fn fail_rounds(&mut self, error: &SyncError, retry: bool) {
        for round in self.rounds.extract_if(.., |round| !retry || round.attempts >= limits::ROUND_ATTEMPTS) {
            _ = round.reply.send(Err(error.clone()));
        }
    }
}

/// Keeps an error for the status, of this process and after it.
pub(in crate::sync) async fn keep_error(database: &Database, remote: i64, error: &SyncError) {
    let at = database.shared.now_ms();
    let last = LastError { code: error.code().into(), message: error.to_string(), at };
    let json = serde_json::to_string(&last).unwrap_or_default();
    database.shared.board.set_error(last);
    // If this cannot be kept, the status of this process still shows it.
    _ = database.writer.submit(Durability::Normal, move |tx, _| tx.set_last_error(remote, &json)).await;
}

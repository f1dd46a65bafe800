//! What a session waits for, and what it does then.

use std::convert::Infallible;
use std::time::Duration;

use futures_util::stream::StreamExt;
use motet_proto::presence::Presence;
use motet_proto::{Message, limits as proto};
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};

use super::{Driver, Ended, Running, Taken, until};
use crate::engine::Received;
use crate::error::SyncError;
use crate::limits;
use crate::sync::connection::offline;
use crate::types::SyncMode;

impl Driver {
    /// Runs a session until it ends.
    pub(super) async fn drive(&mut self, running: &mut Running) -> Result<Infallible, Ended> {
        // Writes of other processes are looked for from now on.
        self.database.writer.watch_file();
        let poll = if running.connection.live { limits::LIVE_POLL } else { limits::POST_POLL };
        let mut poll = tokio::time::interval_at(Instant::now() + poll, poll);
        let comparison = limits::COMPARE_LOOKS_EVERY;
        let mut comparison = tokio::time::interval_at(Instant::now() + comparison, comparison);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        comparison.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            while let Some(effect) = running.session.poll_effect() {
                self.carry_out(running, effect).await?;
            }
            self.merge_stale(running);
            if !running.unmerged && !running.is_merging {
                for round in std::mem::take(&mut running.almost_done) {
                    self.count_bytes();
                    self.finish_round(round).await.map_err(SyncError::Storage)?;
                }
            }
            if !self.is_wanted() && self.mode() != SyncMode::Live {
                return Err(Ended::Done);
            }
            self.database.shared.send_slot.expect(
                self.connection,
                self.remote,
                running.session.waits_after(),
            );
            self.show(running).await;
            let now = self.started.elapsed();
            let timeout = running.session.poll_timeout().unwrap_or(now).saturating_sub(now);
            let saturated = running.session.is_saturated();
            // In this order, so that a simulation can repeat it, and nothing waits for ever: first what comes now and then, or ends by itself; then what
            // the app does, which takes a message along each time; then what arrives.
            tokio::select! {
                biased;
                Some(batch) = &mut running.loading => {
                    running.loading = None.into();
                    self.traffic.loads(Duration::ZERO);
                    running.take_batch(batch.map_err(SyncError::Storage)?, self.started.elapsed());
                }
                Some(applied) = running.applying.next() => {
                    self.take_applied(running, applied.map_err(SyncError::Storage)?);
                }
                Some(merged) = &mut running.merging => {
                    self.take_merged(running, merged.map_err(SyncError::Storage)?);
                }
                Some(upgraded) = &mut running.upgrading => self.take_upgrade(running, upgraded)?,
                command = self.commands.recv() => {
                    let Some(command) = command else { return Err(Ended::LetGo) };
                    match self.take_command(command) {
                        Taken::Round(id) => {
                            // Somebody may ask because of what was just done to the file.
                            self.look_at_file(running)?;
                            self.release(running);
                            self.try_to_seal_again().await.map_err(SyncError::Storage)?;
                            running.session.request_round(id, self.started.elapsed());
                        }
                        Taken::Document(token) => self.begin_document(running, token),
                    }
                    self.take_waiting(running, saturated)?;
                }
                () = self.database.shared.changed_elsewhere.notified() => self.look_at_file(running)?,
                () = tokio::time::sleep(timeout) => self.take_timeout(running, saturated),
                _ = poll.tick() => self.look_around(running)?,
                _ = comparison.tick() => {
                    self.tidy();
                    self.look_for_comparison(running)?;
                }
                () = until(running.holds_until) => self.release(running),
                () = until(running.compact_at) => self.look_for_compaction(running)?,
                () = until(running.upgrade_at) => self.try_upgrade(running),
                Ok(()) = self.policy.changed() => {}
                place = next_place(&mut self.place, self.place_due) => {
                    self.place_due = Instant::now() + limits::PRESENCE_EVERY;
                    running.session.set_presence(place);
                }
                () = self.database.shared.outbox.notified() => {
                    running.session.handle_outbox_changed(self.started.elapsed());
                    self.take_waiting(running, saturated)?;
                }
                message = running.connection.incoming.recv(), if !saturated => {
                    let message = message.unwrap_or_else(|| Err(offline("the connection was lost")))?;
                    self.take_message(running, message);
                }
            }
        }
    }

    /// Takes in a message that has arrived already, if one has.
    fn take_waiting(&mut self, running: &mut Running, saturated: bool) -> Result<(), Ended> {
        if saturated {
            return Ok(());
        }
        match running.connection.incoming.try_recv() {
            Ok(message) => self.take_message(running, message?),
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => return Err(offline("the connection was lost").into()),
        }
        Ok(())
    }

    fn take_message(&mut self, running: &mut Running, message: Message) {
        match message {
            // Whatever others had sent came before it.
            Message::Ping(_) | Message::Pong(_) if self.is_at_rest(running) => self.note_synced(),
            Message::Ping(_) | Message::Pong(_) | Message::Presence(_) => {}
            _ => self.traffic.brings_on(),
        }
        running.session.handle_message(message, self.started.elapsed());
    }

    /// Whether all that is here and all that has arrived is done with.
    fn is_at_rest(&self, running: &Running) -> bool {
        running.was_idle && running.session.is_idle() && self.database.shared.board.current().pending == 0
    }

    fn take_merged(&mut self, running: &mut Running, merged: Received) {
        running.merging = None.into();
        running.is_merging = false;
        if merged.wrote() {
            // What is to be sent because of it belongs to the rounds that wait for it.
            let now = self.started.elapsed();
            running.almost_done.drain(..).for_each(|id| running.session.request_round(id, now));
        }
        self.count_received(merged);
    }

    /// A deadline of the session has passed. A connection that moves bytes, or that this side does not read from,
    /// is not silent; an exchange over `POST` has a time limit of its own.
    fn take_timeout(&mut self, running: &mut Running, saturated: bool) {
        let now = self.started.elapsed();
        if saturated || !running.connection.live || !self.traffic.is_silent(proto::SILENCE) {
            running.session.handle_progress(now);
        } else {
            running.session.handle_timeout(now);
        }
    }

    /// Looks for what nobody reports: over `POST` entries of other devices, and whatever a report was missed of.
    fn look_around(&mut self, running: &mut Running) -> Result<(), Ended> {
        let was_idle = running.session.is_idle();
        self.look_at_file(running)?;
        if !running.connection.live && was_idle {
            let round = self.take_id();
            running.session.request_round(round, self.started.elapsed());
        }
        Ok(())
    }

    /// The file may have been emptied, be read anew, or have more to send.
    fn look_at_file(&mut self, running: &mut Running) -> Result<(), Ended> {
        if self.database.readers.read(|tx| tx.era()).is_ok_and(|era| era != running.era) {
            return Err(Ended::Anew);
        }
        if running.session.is_idle()
            && self.database.readers.read(|tx| tx.count_sendable()).is_ok_and(|rows| rows > 0)
        {
            running.session.handle_outbox_changed(self.started.elapsed());
        }
        Ok(())
    }
}

/// The next place of this device, not before `due`.
async fn next_place(place: &mut watch::Receiver<Option<Presence>>, due: Instant) -> Presence {
    loop {
        tokio::time::sleep_until(due).await;
        // The sender lives as long as the replica.
        if place.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        if let Some(place) = place.borrow_and_update().clone() {
            return place;
        }
    }
}

//! Carries out what a session asks for.

use std::collections::HashSet;
use std::time::Duration;

use futures_util::future::FutureExt;
use motet_proto::message::ErrorCode;
use motet_proto::session::{ClientEffect, EndReason};
use motet_proto::{AccountId, Entry, LogName};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::taking_in::{Page, opened_len};
use super::{Applied, Driver, Ended, Running, keep_error, retry_delay};
use crate::engine::{Admission, Arrival, Core, Opening, is_heavy, is_known, is_news, merge_all, prepare};
use crate::error::SyncError;
use crate::limits;
use crate::platform;
use crate::store::{Durability, StorageError, Tx};
use crate::sync::connection::offline;

impl Driver {
    pub(super) async fn carry_out(
        &mut self,
        running: &mut Running,
        effect: ClientEffect,
    ) -> Result<(), Ended> {
        let remote = self.remote;
        let writer = &self.database.writer;
        match effect {
            ClientEffect::Welcomed { account, log, time_ms } => {
                self.be_admitted(account, log).await?;
                if let Some(time) = time_ms {
                    self.note_time(time).await?;
                }
            }
            // A closed channel: the reading half tells why.
            ClientEffect::Send(message) => _ = running.connection.outgoing.send(message).await,
            ClientEffect::LoadOutbox { after_row }
                if let Some(batch) = self.database.shared.send_slot.take(remote, after_row) =>
            {
                running.take_batch(batch, self.started.elapsed());
            }
            // A few rows are read here and now, unless somebody writes: handing them over and back would take longer.
            ClientEffect::LoadOutbox { after_row }
                if self.database.shared.board.current().pending <= limits::SMALL_WORK && writer.is_free() =>
            {
                let bytes = running.batch_bytes;
                self.traffic.loads(limits::SLICE_TIME);
                let batch = writer
                    .run(Durability::Normal, move |tx, core| core.next_batch(tx, remote, after_row, bytes));
                self.traffic.loads(Duration::ZERO);
                running.take_batch(batch.map_err(SyncError::Storage)?, self.started.elapsed());
            }
            ClientEffect::LoadOutbox { after_row } => {
                let bytes = running.batch_bytes;
                // Before what the app writes: as long as that takes, there is something to send.
                self.traffic.loads(limits::SLICE_TIME);
                let batch = writer.submit_first(Durability::Normal, move |tx, core| {
                    core.next_batch(tx, remote, after_row, bytes)
                });
                running.loading = Some(batch.boxed()).into();
            }
            ClientEffect::LoadDocument { token, document, after_row } => {
                self.load_document(running, token, document, after_row).await?;
            }
            ClientEffect::Apply { entries, receipts, position, head } => {
                running.note_receipts(!receipts.is_empty());
                let count = entries.len() as u64;
                let own = self.database.shared.device;
                let foreign = entries.iter().filter(|entry| entry.device != own).count() as u64;
                let done = position.map_or(running.progress.0, |position| position.seq);
                let total = head.max(running.progress.1).max(done);
                let database = self.database.clone();
                let (submitted, next) = oneshot::channel();
                let previous = running.submitted.replace(next);
                let bytes: usize = entries.iter().map(Entry::size).sum();
                let opened: usize =
                    entries.iter().map(|entry| opened_len(entry, &*self.database.shared.sealer)).sum();
                let is_small = count <= limits::SMALL_WORK
                    && bytes <= limits::SMALL_WORK_BYTES
                    && opened < limits::NOTED_OPENING_BYTES
                    && !entries
                        .iter()
                        .any(|entry| is_heavy(entry, database.shared.space, &*database.shared.sealer));
                let turn = Arrival::from(position);
                if is_small && running.applying.is_empty() && writer.is_free() {
                    let incoming = {
                        let (schemas, sealer) = (database.shared.schemas(), &*database.shared.sealer);
                        let space = database.shared.space;
                        let how = Opening { schemas: &schemas, space, sealer, is_noted: true };
                        prepare(entries, how, |_| false, |_| None)
                    };
                    let receive = move |tx: Tx<'_>, core: &mut Core| {
                        core.receive(tx, remote, incoming, &receipts, turn)
                    };
                    let received =
                        database.writer.run(Durability::Normal, receive).map_err(SyncError::Storage)?;
                    _ = submitted.send(());
                    let progress = (done, total);
                    let applied = Applied { received, entries: count, foreign, progress };
                    self.take_applied(running, applied);
                    return Ok(());
                }
                let documents: HashSet<_> = entries.iter().map(|entry| entry.document).collect();
                let goes_on = !documents.is_disjoint(&running.received);
                running.received = documents;
                let (deaths, traffic) = (running.deaths.clone(), self.traffic.clone());
                let page = Page { remote, entries, receipts, turn, goes_on, deaths, traffic };
                let apply = async move {
                    let received = page.take_in(database, previous, submitted).await?;
                    Ok(Applied { received, entries: count, foreign, progress: (done, total) })
                };
                running.applying.push_back(apply.boxed());
            }
            ClientEffect::ResetPosition => {
                tracing::warn!(
                    "the relay's log is not the one that was read before; reading it from the start"
                );
                let reset = writer.submit(Durability::Full, move |tx, core| core.reset_position(tx, remote));
                reset.await.map_err(SyncError::Storage)?;
                running.session.handle_position_reset(self.started.elapsed());
            }
            ClientEffect::Reseed => {
                let finish = writer.submit(Durability::Full, move |tx, core| core.finish_reseed(tx, remote));
                finish.await.map_err(SyncError::Storage)?;
                running.session.handle_reseeded(self.started.elapsed());
            }
            ClientEffect::DocumentDone { token, taken } => {
                let outcome = match &self.not_taken {
                    Some(error) if !taken => Err(error.clone()),
                    _ => Ok(taken),
                };
                self.finish_document(token, outcome);
            }
            ClientEffect::NotTaken { code, message } => {
                self.take_refusal(running, not_taken_error(code, message)).await;
            }
            ClientEffect::Listed { token, listed } => self.compact(running, token, listed).await?,
            ClientEffect::Presence(presence) => {
                let shared = &self.database.shared;
                shared.presence.heard(&presence, shared.space, &*shared.sealer);
            }
            ClientEffect::RoundDone { round } => running.almost_done.push(round),
            ClientEffect::End(reason) => return Err(end_error(reason).into()),
        }
        Ok(())
    }

    /// The relay has let this device in: as whom, and to which log?
    async fn be_admitted(&mut self, account: Option<AccountId>, log: Option<LogName>) -> Result<(), Ended> {
        let remote = self.remote;
        let known = self.database.readers.read(|tx| is_known(tx, remote, account, log));
        let admission = match known.map_err(SyncError::Storage)? {
            true => Admission::Known,
            false => {
                let admit = move |tx: Tx<'_>, core: &mut Core| core.admit(tx, remote, account, log);
                self.database.writer.submit(Durability::Full, admit).await.map_err(SyncError::Storage)?
            }
        };
        match admission {
            Admission::Known => self.moved = false,
            Admission::OtherAccount { bound, found } => {
                return Err(SyncError::OtherAccount { bound, found }.into());
            }
            Admission::Moved(_) if self.moved => {
                let reason = "it is called otherwise each time".to_owned();
                return Err(SyncError::Relay { reason }.into());
            }
            Admission::Moved(remote) => {
                tracing::info!("the relay is one that was met at another address before");
                self.moved = true;
                self.remote = remote;
                self.failure.use_remote(remote);
                return Err(Ended::Anew);
            }
        }
        Ok(())
    }

    async fn note_time(&mut self, relay_time: i64) -> Result<(), Ended> {
        if self.database.readers.read(|tx| is_news(tx, relay_time)).map_err(SyncError::Storage)? {
            let note = move |tx: Tx<'_>, core: &mut Core| core.note_relay_time(tx, relay_time);
            self.database.writer.submit(Durability::Normal, note).await.map_err(SyncError::Storage)?;
        }
        Ok(())
    }

    /// The relay has not taken what was sent. Whoever waits is told at once if that takes somebody's doing, such as making room; otherwise
    /// it is sent again a few times first. What the relay has is received meanwhile.
    async fn take_refusal(&mut self, running: &mut Running, error: SyncError) {
        self.refusals += 1;
        let is_full = error.is_refusal();
        let pause = if is_full { limits::FULL_PAUSE } else { retry_delay(self.refusals + 1, self.window) };
        let until = Instant::now() + pause;
        running.holds_until = Some(until);
        self.full_until = is_full.then_some(until);
        // An answer to each of several pushes is one reason.
        let is_known = self.not_taken.as_ref().is_some_and(|known| known.to_string() == error.to_string());
        self.not_taken = Some(error.clone());
        if !is_known {
            tracing::info!(code = error.code(), %error, "the relay has not taken what was sent");
            self.failure.note(&error);
            keep_error(&self.database, self.remote, &error).await;
        }
        if is_full {
            return running.session.settle_without_pushes(self.started.elapsed());
        }
        self.rounds.iter_mut().for_each(|round| round.attempts += 1);
        self.fail_rounds(&error, true);
    }

    /// Sends again what was held.
    pub(super) fn release(&mut self, running: &mut Running) {
        running.holds_until = None;
        self.not_taken = None;
        running.session.release_pushes(self.started.elapsed());
    }

    /// What is shown already is merged when the log is read: until then every core has that to do.
    pub(super) fn merge_stale(&self, running: &mut Running) {
        let is_read = running.session.is_idle() || !running.almost_done.is_empty();
        if !running.unmerged || running.is_merging || !is_read {
            return;
        }
        (running.unmerged, running.is_merging) = (false, true);
        let (database, traffic) = (self.database.clone(), self.traffic.clone());
        traffic.works(limits::SLICE_TIME);
        let merge = platform::off_thread(move || {
            let goes_on = || traffic.works(limits::SLICE_TIME);
            let merged = merge_all(&database.readers, &database.writer, &goes_on);
            traffic.works(Duration::ZERO);
            merged
        });
        let merged = merge.map(|merged| merged.unwrap_or_else(|reason| Err(StorageError::Io(reason))));
        running.merging = Some(merged.boxed()).into();
    }
}

fn not_taken_error(code: ErrorCode, message: String) -> SyncError {
    let message = in_one_line(&message);
    let otherwise = format!("it did not take what was sent: {message}");
    relay_error(code, message, otherwise)
}

fn end_error(reason: EndReason) -> SyncError {
    let reason = match reason {
        EndReason::Relay { code, message } => EndReason::Relay { code, message: in_one_line(&message) },
        other => other,
    };
    let said = in_one_line(&reason.to_string());
    match reason {
        EndReason::Version(reason) => SyncError::Version { reason },
        EndReason::Silence => offline(&said),
        // It is found out in a new session which that is.
        EndReason::Relay { code: ErrorCode::ShuttingDown | ErrorCode::Other, message } => offline(&message),
        EndReason::Relay { code: ErrorCode::Unauthorized, message } => {
            SyncError::AuthNeeded { reason: message }
        }
        EndReason::Relay { code, message } => relay_error(code, message, said),
        EndReason::Protocol(_) => SyncError::Relay { reason: said },
    }
}

/// What a relay says, as people see it in the status and in logs: nothing that looks like a line of its own.
fn in_one_line(message: &str) -> String {
    message.chars().map(|c| if c.is_control() { ' ' } else { c }).take(limits::REFUSAL_BYTES).collect()
}

/// What a relay's message is for a person; what happens next goes by the code. `otherwise`: what is told of a code that means nothing special.
fn relay_error(code: ErrorCode, message: String, otherwise: String) -> SyncError {
    match code {
        ErrorCode::Full | ErrorCode::Limit => SyncError::Full { reason: message },
        ErrorCode::Forbidden => SyncError::Forbidden { reason: message },
        ErrorCode::Damaged => SyncError::Damaged { reason: message },
        _ => SyncError::Relay { reason: otherwise },
    }
}

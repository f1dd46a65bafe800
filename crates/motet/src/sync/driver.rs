//! Joins a session with the store, the clock and a connection, and comes back after every interruption.

mod rounds;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::{BoxFuture, FutureExt, OptionFuture};
use futures_util::stream::{FuturesOrdered, StreamExt};
use motet_proto::message::Hello;
use motet_proto::presence::Presence;
use motet_proto::session::{ClientEffect, ClientSession, EndReason, OutboxBatch};
use motet_proto::{Entry, Message, Position, SpaceId, limits as proto};
use tokio::sync::{mpsc, oneshot, watch};

use super::connection::{ConnectError, Connection, Endpoint, Traffic, connect};
use super::{Conditions, Relay, SyncMode, SyncPolicy, SyncSummary, TokenRequest};
use crate::engine::{Core, Received, merge_all, prepare};
use crate::error::SyncError;
use crate::limits;
use crate::machine;
use crate::replica::Local;
use crate::status::Link;
use crate::store::{Durability, StorageError, Tx};

/// What the replica asks of its sync task.
pub(super) enum Command {
    /// Run a full round and answer.
    Round(oneshot::Sender<Result<SyncSummary, SyncError>>),
}

pub(super) struct Driver {
    local: Arc<Local>,
    relay: Relay,
    endpoint: Endpoint,
    remote: i64,
    client: reqwest::Client,
    commands: mpsc::UnboundedReceiver<Command>,
    rounds: Vec<rounds::Round>,
    next_round: u64,
    /// Something was settled since the last failure.
    progressed: bool,
    /// What was done and not yet reported by a round.
    tally: SyncSummary,
    policy: watch::Receiver<(SyncPolicy, Conditions)>,
    /// Where this device is, and when that may be told again.
    place: watch::Receiver<Option<Presence>>,
    place_due: tokio::time::Instant,
    /// When the last round ended that the policy asked for.
    last_round: Option<Instant>,
    traffic: Arc<Traffic>,
    /// Traffic that is counted already; and of that, what the days' counters lack.
    counted: [u64; 3],
    unkept: [u64; 2],
    started: Instant,
    synced_kept_at: i64,
}

/// One session and what is under way for it.
struct Running {
    session: ClientSession,
    connection: Connection,
    loading: OptionFuture<BoxFuture<'static, Result<OutboxBatch, StorageError>>>,
    applying: FuturesOrdered<BoxFuture<'static, Result<Applied, StorageError>>>,
    /// The last apply has been handed to the writer: the next may follow.
    submitted: Option<oneshot::Receiver<()>>,
    /// Documents that are shown already are being merged.
    merging: OptionFuture<BoxFuture<'static, Result<Received, StorageError>>>,
    is_merging: bool,
    /// There may be more such documents.
    unmerged: bool,
    /// Rounds that are complete when those are merged.
    almost_done: Vec<u64>,
    /// Bytes of the next batch, and when those under way were handed out: a slow way gets small batches, so that each is
    /// acknowledged soon and a way that breaks repeats little.
    batch_bytes: usize,
    pushed_at: VecDeque<Instant>,
    /// Entries of the log that are read, and that there are.
    progress: (u64, u64),
    was_idle: bool,
}

/// How a session ended.
enum Ended {
    /// The replica let go.
    LetGo,
    /// What there was to do is done, and the policy asks for no more.
    Done,
    Failed(SyncError),
}

impl From<SyncError> for Ended {
    fn from(error: SyncError) -> Self {
        Self::Failed(error)
    }
}

struct Applied {
    received: Received,
    entries: u64,
    settled: u64,
    rejected: u64,
    progress: (u64, u64),
}

impl Running {
    fn take_batch(&mut self, batch: OutboxBatch, now: Duration) {
        if !batch.items.is_empty() {
            self.pushed_at.push_back(Instant::now());
        }
        self.session.handle_outbox(batch, now);
    }

    /// Receipts tell how fast the way is.
    fn note_receipts(&mut self, any: bool) {
        let Some(at) = self.pushed_at.front().filter(|_| any) else { return };
        self.batch_bytes = match at.elapsed() <= limits::BATCH_TAKES {
            true => (2 * self.batch_bytes).min(proto::PUSH_BATCH_BYTES),
            false => (self.batch_bytes / 2).max(limits::SMALLEST_BATCH_BYTES),
        };
        self.pushed_at.pop_front();
    }
}

impl Driver {
    pub(super) fn new(
        local: Arc<Local>,
        relay: Relay,
        endpoint: Endpoint,
        remote: i64,
        commands: mpsc::UnboundedReceiver<Command>,
        traffic: Arc<Traffic>,
    ) -> Result<Self, SyncError> {
        let client = reqwest::Client::builder()
            .connect_timeout(limits::CONNECT_TIMEOUT)
            // WebSocket needs HTTP/1.1; one client serves both transports.
            .http1_only()
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(agent())
            .build()
            .map_err(|e| SyncError::BadUrl { url: relay.url.clone(), reason: e.to_string() })?;
        let policy = local.shared.policy.subscribe();
        let place = local.shared.presence.own.subscribe();
        Ok(Self {
            policy,
            place,
            place_due: tokio::time::Instant::now(),
            last_round: None,
            unkept: [0; 2],
            local,
            relay,
            endpoint,
            remote,
            client,
            commands,
            rounds: Vec::new(),
            next_round: 1,
            progressed: false,
            tally: SyncSummary::default(),
            traffic,
            counted: [0; 3],
            started: Instant::now(),
            synced_kept_at: 0,
        })
    }

    /// Runs until the replica lets go of the command channel.
    pub(super) async fn run(mut self) {
        let mut failures = 0;
        while self.wait_for_turn().await {
            self.local.shared.board.set_link(Link::Connecting);
            let connected = self.connect().await;
            self.take_commands();
            let (error, reached) = match connected {
                Ok(connection) => match self.run_session(connection).await {
                    Ended::LetGo => return,
                    Ended::Done => {
                        (failures, self.progressed) = (0, false);
                        self.last_round = Some(Instant::now());
                        continue;
                    }
                    Ended::Failed(error) => (error, true),
                },
                Err((error, reached)) => (error, reached),
            };
            failures = if std::mem::take(&mut self.progressed) { 1 } else { failures + 1 };
            self.note_failure(&error, reached).await;
            self.local.shared.board.set_link(Link::Waiting);
            tokio::select! {
                () = tokio::time::sleep(retry_delay(failures)) => {}
                command = self.commands.recv() => match command {
                    // Somebody knows better, or the device has just woken up.
                    Some(command) => (failures, _) = (0, self.take_command(command)),
                    None => return,
                },
            }
        }
    }

    /// The error comes with whether somebody was there: if not, trying again at once is of no use.
    async fn connect(&mut self) -> Result<Connection, (SyncError, bool)> {
        for round in &mut self.rounds {
            round.attempts += 1;
        }
        let hello = Message::Hello(Hello {
            version_min: proto::VERSION_MIN,
            version_max: proto::VERSION_MAX,
            device: self.local.shared.device,
            space: SpaceId::DEFAULT,
            agent: agent(),
        });
        let mut refused: Option<(Option<String>, String)> = None;
        loop {
            let token = self.token(refused.is_some()).await.map_err(|error| (error, false))?;
            if let Some((before, reason)) = refused.take()
                && before == token
            {
                return Err((SyncError::AuthNeeded { reason }, false));
            }
            let transport = self.relay.transport;
            let (traffic, hello) = (self.traffic.clone(), hello.clone());
            match connect(&self.client, &self.endpoint, transport, token.clone(), hello, traffic).await {
                Ok(connection) => return Ok(connection),
                Err(ConnectError::Unauthorized(reason)) if token.is_none() => {
                    return Err((SyncError::AuthNeeded { reason }, false));
                }
                Err(ConnectError::Unauthorized(reason)) => refused = Some((token, reason)),
                Err(ConnectError::Away(error)) => return Err((error, false)),
                Err(ConnectError::Other(error)) => return Err((error, true)),
            }
        }
    }

    async fn token(&self, rejected: bool) -> Result<Option<String>, SyncError> {
        match &self.relay.token {
            None => Ok(None),
            Some(provider) => {
                let token = provider(TokenRequest { rejected }).await;
                token.map(Some).map_err(|reason| SyncError::AuthNeeded { reason })
            }
        }
    }

    /// How often to sync, as things are.
    fn mode(&self) -> SyncMode {
        let (policy, conditions) = *self.policy.borrow();
        policy.under(conditions)
    }

    /// Waits until there is something to connect for. False if the replica let go.
    async fn wait_for_turn(&mut self) -> bool {
        loop {
            let due = match self.mode() {
                _ if !self.rounds.is_empty() => return true,
                SyncMode::Live => return true,
                SyncMode::Every(pause) => match self.last_round {
                    Some(last) if last.elapsed() < pause => Some(pause - last.elapsed()),
                    _ => return true,
                },
                SyncMode::Manual => None,
            };
            self.local.shared.board.set_link(Link::None);
            let due = async {
                match due {
                    Some(due) => tokio::time::sleep(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = due => {}
                command = self.commands.recv() => match command {
                    Some(command) => self.take_command(command),
                    None => return false,
                },
                Ok(()) = self.policy.changed() => {}
            }
        }
    }

    /// Runs a session to its end.
    async fn run_session(&mut self, connection: Connection) -> Ended {
        let remote = self.remote;
        let begun = self
            .local
            .writer
            .submit(Durability::Normal, move |tx, core| core.begin_session(tx, remote))
            .await;
        let (position, reseeding): (Option<Position>, bool) = match begun {
            Ok(begun) => begun,
            Err(error) => return Ended::Failed(SyncError::Storage(error)),
        };
        let live = connection.live;
        let device = self.local.shared.device;
        let mut session = ClientSession::new(
            device,
            SpaceId::DEFAULT,
            agent(),
            position,
            reseeding,
            live,
            self.started.elapsed(),
        );
        if self.mode() != SyncMode::Live && self.rounds.is_empty() {
            self.take_command(Command::Round(oneshot::channel().0));
        }
        for round in &mut self.rounds {
            session.request_round(round.id, self.started.elapsed());
        }
        if let Some(place) = self.place.borrow_and_update().clone() {
            session.set_presence(place);
        }
        let mut running = Running {
            session,
            connection,
            loading: None.into(),
            applying: FuturesOrdered::new(),
            submitted: None,
            merging: None.into(),
            is_merging: false,
            unmerged: true,
            almost_done: Vec::new(),
            batch_bytes: limits::FIRST_BATCH_BYTES,
            pushed_at: VecDeque::new(),
            progress: (position.map_or(0, |position| position.seq), 0),
            was_idle: false,
        };
        let Err(ended) = self.drive(&mut running).await;
        self.local.shared.presence.forget();
        self.count_bytes();
        // What is under way in the store goes on; only its answer is no longer waited for.
        self.keep_traffic();
        ended
    }

    async fn drive(&mut self, running: &mut Running) -> Result<Infallible, Ended> {
        let poll = if running.connection.live { limits::FOREIGN_WRITE_POLL } else { limits::POST_POLL };
        let mut poll = tokio::time::interval_at(tokio::time::Instant::now() + poll, poll);
        loop {
            while let Some(effect) = running.session.poll_effect() {
                self.carry_out(running, effect).await?;
            }
            self.merge_behind(running);
            if !running.unmerged && !running.is_merging {
                for round in std::mem::take(&mut running.almost_done) {
                    self.count_bytes();
                    self.finish_round(round).await.map_err(SyncError::Storage)?;
                }
            }
            if self.rounds.is_empty() && self.mode() != SyncMode::Live {
                return Err(Ended::Done);
            }
            self.show(running).await;
            let now = self.started.elapsed();
            let timeout = running.session.poll_timeout().unwrap_or(now).saturating_sub(now);
            let saturated = running.session.is_saturated();
            tokio::select! {
                message = running.connection.incoming.recv(), if !saturated => {
                    let message = message.unwrap_or_else(|| Err(SyncError::Offline {
                        reason: "the connection was lost".into(),
                    }))?;
                    running.session.handle_message(message, self.started.elapsed());
                }
                Some(batch) = &mut running.loading => {
                    running.loading = None.into();
                    running.take_batch(batch.map_err(SyncError::Storage)?, self.started.elapsed());
                }
                Some(applied) = running.applying.next() => {
                    self.take_applied(running, applied.map_err(SyncError::Storage)?);
                }
                Some(merged) = &mut running.merging => {
                    running.merging = None.into();
                    running.is_merging = false;
                    self.count_received(merged.map_err(SyncError::Storage)?);
                }
                command = self.commands.recv() => {
                    let Some(command) = command else { return Err(Ended::LetGo) };
                    self.take_command(command);
                    if let Some(round) = self.rounds.last() {
                        running.session.request_round(round.id, self.started.elapsed());
                    }
                }
                () = self.local.shared.outbox.notified() => {
                    running.session.handle_outbox_changed(self.started.elapsed());
                }
                () = tokio::time::sleep(timeout) => self.take_timeout(running, saturated),
                _ = poll.tick() => self.look_around(running),
                Ok(()) = self.policy.changed() => {}
                place = next_place(&mut self.place, self.place_due) => {
                    self.place_due = tokio::time::Instant::now() + limits::PRESENCE_EVERY;
                    running.session.set_presence(place);
                }
            }
        }
    }

    async fn carry_out(&mut self, running: &mut Running, effect: ClientEffect) -> Result<(), Ended> {
        let remote = self.remote;
        let writer = &self.local.writer;
        match effect {
            // A closed channel: the reading half tells why.
            ClientEffect::Send(message) => _ = running.connection.outgoing.send(message).await,
            // A few rows are read here and now: handing them over and back would take longer.
            ClientEffect::LoadOutbox { after_row }
                if self.local.shared.board.current().pending <= limits::SMALL_WORK =>
            {
                let bytes = running.batch_bytes;
                let batch = writer
                    .run(Durability::Normal, move |tx, core| core.next_batch(tx, remote, after_row, bytes));
                running.take_batch(batch.map_err(SyncError::Storage)?, self.started.elapsed());
            }
            ClientEffect::LoadOutbox { after_row } => {
                let bytes = running.batch_bytes;
                let batch = writer.submit(Durability::Normal, move |tx, core| {
                    core.next_batch(tx, remote, after_row, bytes)
                });
                running.loading = Some(batch.boxed()).into();
            }
            ClientEffect::Apply { entries, receipts, position, head } => {
                let settled = receipts.iter().filter(|receipt| receipt.result.is_ok()).count() as u64;
                let rejected = receipts.len() as u64 - settled;
                running.note_receipts(!receipts.is_empty());
                let count = entries.len() as u64;
                let done = position.map_or(running.progress.0, |position| position.seq);
                let total = head.max(running.progress.1).max(done);
                let local = self.local.clone();
                let (submitted, next) = oneshot::channel();
                let previous = running.submitted.replace(next);
                let bytes: usize = entries.iter().map(Entry::size).sum();
                let is_small = count <= limits::SMALL_WORK && bytes <= limits::SMALL_WORK_BYTES;
                if is_small && running.applying.is_empty() {
                    let incoming = prepare(entries, &local.shared.schemas(), |_| false);
                    let receive = move |tx: Tx<'_>, core: &mut Core| {
                        core.receive(tx, remote, incoming, &receipts, position)
                    };
                    let received =
                        local.writer.run(Durability::Normal, receive).map_err(SyncError::Storage)?;
                    _ = submitted.send(());
                    let progress = (done, total);
                    let applied = Applied { received, entries: count, settled, rejected, progress };
                    self.take_applied(running, applied);
                    return Ok(());
                }
                let apply = async move {
                    let incoming = prepare_entries(&local, entries).await?;
                    if let Some(previous) = previous {
                        // If it was not submitted, it has failed, and so has the session.
                        previous.await.map_err(|_| StorageError::Closed)?;
                    }
                    let receive = local.writer.submit(Durability::Normal, move |tx, core| {
                        core.receive(tx, remote, incoming, &receipts, position)
                    });
                    _ = submitted.send(());
                    Ok(Applied {
                        received: receive.await?,
                        entries: count,
                        settled,
                        rejected,
                        progress: (done, total),
                    })
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
            ClientEffect::Presence(presence) => self.local.shared.presence.heard(&presence),
            ClientEffect::RoundDone { round } => running.almost_done.push(round),
            ClientEffect::End(reason) => return Err(end_error(reason).into()),
        }
        Ok(())
    }

    /// What is shown already is merged when the log is read: until then every core has that to do.
    fn merge_behind(&self, running: &mut Running) {
        let is_read = running.session.is_idle() || !running.almost_done.is_empty();
        if !running.unmerged || running.is_merging || !is_read {
            return;
        }
        (running.unmerged, running.is_merging) = (false, true);
        let local = self.local.clone();
        let merge =
            tokio::task::spawn_blocking(move || merge_all(&local.readers, &local.writer, &local.shared));
        let merged = async { merge.await.unwrap_or_else(|e| Err(StorageError::Io(e.to_string()))) };
        running.merging = Some(merged.boxed()).into();
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

    /// Looks for what nobody reports: writes of another process, and over `POST` entries of other devices.
    fn look_around(&mut self, running: &mut Running) {
        if !running.session.is_idle() {
            return;
        }
        if !running.connection.live {
            let round = self.next_round;
            self.next_round += 1;
            running.session.request_round(round, self.started.elapsed());
        } else if self.local.readers.read(|tx| tx.count_sendable()).is_ok_and(|rows| rows > 0) {
            running.session.handle_outbox_changed(self.started.elapsed());
        }
    }
}

/// Opens entries on all cores if there are many; a few are merged in the transaction at once.
async fn prepare_entries(
    local: &Arc<Local>,
    entries: Vec<Entry>,
) -> Result<crate::engine::Incoming, StorageError> {
    if entries.len() < limits::PARALLEL_FROM_DOCUMENTS {
        return Ok(prepare(entries, &local.shared.schemas(), |_| false));
    }
    let local = local.clone();
    let prepared = tokio::task::spawn_blocking(move || {
        let keys: Vec<_> = entries.iter().map(|entry| entry.document).collect();
        let known = local.readers.read(|tx| tx.known_documents(&keys))?;
        Ok(prepare(entries, &local.shared.schemas(), |key| !known.contains(&key)))
    });
    prepared.await.unwrap_or_else(|e| Err(StorageError::Io(e.to_string())))
}

/// The next place of this device, not before `due`.
async fn next_place(place: &mut watch::Receiver<Option<Presence>>, due: tokio::time::Instant) -> Presence {
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

fn retry_delay(failures: usize) -> Duration {
    let last = limits::RETRY_DELAYS.len() - 1;
    let base = limits::RETRY_DELAYS[(failures.max(1) - 1).min(last)];
    // Without randomness devices come back in step, which is no reason not to come back.
    let [random] = machine::random().unwrap_or_default();
    base + base.mul_f64(f64::from(random) / 255.0 / 4.0)
}

fn end_error(reason: EndReason) -> SyncError {
    match reason {
        EndReason::Version(reason) => SyncError::Version { reason },
        EndReason::Silence => SyncError::Offline { reason: reason.to_string() },
        EndReason::Relay { .. } | EndReason::Protocol(_) => SyncError::Relay { reason: reason.to_string() },
    }
}

fn agent() -> String {
    concat!("motet/", env!("CARGO_PKG_VERSION")).to_owned()
}

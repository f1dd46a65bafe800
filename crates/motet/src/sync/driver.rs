//! Joins a session with the store, the clock and a connection, and comes back after every interruption.

mod delays;
mod documents;
mod effects;
mod events;
mod rounds;
mod running;
mod schedule;
mod taking_in;

use std::collections::{HashMap, HashSet, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::FutureExt;
use futures_util::stream::{FuturesOrdered, StreamExt};
use motet_proto::DocumentId;
use motet_proto::presence::Presence;
use motet_proto::session::ClientSession;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

pub(super) use documents::DocumentRequest;
pub(crate) use documents::DocumentTask;
pub(super) use rounds::keep_error;

use delays::{asked_for, lengthened, retry_delay};
pub(super) use running::Ended;
use running::{Applied, Begun, Running};

use super::connection::{Connection, Traffic};
use super::dialer::Dialer;
use super::lock::SyncLock;
use super::tokens::{Tokens, panic_message};
use super::{LastFailure, Relay, SyncSummary, agent};
use crate::engine::{Core, Database, Link};
use crate::error::SyncError;
use crate::limits;
use crate::platform;
use crate::store::{Durability, StorageError, Tx};
use crate::types::ChangeKind;
use crate::types::{Conditions, SyncMode, SyncPolicy};

/// What the replica asks of its sync task.
pub(super) enum Command {
    /// Run a full round and answer.
    Round(oneshot::Sender<Result<SyncSummary, SyncError>>),
    /// Do something about one document, before everything else.
    Document(DocumentRequest),
}

pub(super) struct Driver {
    database: Arc<Database>,
    dialer: Dialer,
    tokens: Tokens,
    /// A WebSocket that was opened while `POST` was in use: the next session's.
    upgraded: Option<Connection>,
    /// The relay's address, as the store knows the remote.
    address: String,
    remote: i64,
    /// How often the user had signed out when the app connected.
    sign_outs: i64,
    /// The last session ended because the log belongs to another remote.
    moved: bool,
    /// As the engine numbers connections.
    connection: u64,
    commands: mpsc::UnboundedReceiver<Command>,
    rounds: Vec<rounds::Round>,
    documents: Vec<documents::UnderWay>,
    /// Number of the next round or request.
    next_id: u64,
    lock: SyncLock,
    /// Something was settled since the last failure.
    progressed: bool,
    /// Until when the relay is not asked whether it takes more.
    full_until: Option<Instant>,
    /// After a lost connection the first wait is a random part of this.
    window: Duration,
    /// No session has been.
    is_first: bool,
    /// Why it has not taken what was sent, and how often in a row, until it is sent again or some of it is taken.
    not_taken: Option<SyncError>,
    refusals: usize,
    /// What was done and not yet reported by a round.
    tally: SyncSummary,
    /// The documents that it counts, and as what.
    tallied: HashMap<DocumentId, ChangeKind>,
    policy: watch::Receiver<(SyncPolicy, Conditions)>,
    /// Where this device is, and when that may be told again.
    place: watch::Receiver<Option<Presence>>,
    place_due: Instant,
    /// When the last round ended that the policy asked for.
    last_round: Option<Instant>,
    traffic: Arc<Traffic>,
    /// For those whose time ends while it is being tried.
    failure: Arc<LastFailure>,
    /// Traffic that is counted already; and of that, what the days' counters lack.
    counted: [u64; 3],
    unkept: [u64; 2],
    started: Instant,
    synced_kept_at: i64,
}

/// A command that was taken in, by its number.
enum Taken {
    Round(u64),
    Document(u64),
}

impl Driver {
    pub(super) fn new(
        database: Arc<Database>,
        relay: Relay,
        dialer: Dialer,
        (remote, sign_outs, connection): (i64, i64, u64),
        commands: mpsc::UnboundedReceiver<Command>,
        (traffic, failure): (Arc<Traffic>, Arc<LastFailure>),
    ) -> Self {
        let policy = database.shared.policy.subscribe();
        let place = database.shared.presence.own.subscribe();
        let lock = SyncLock::new(&database.file);
        Self {
            connection,
            policy,
            place,
            place_due: Instant::now(),
            last_round: None,
            unkept: [0; 2],
            database,
            dialer,
            tokens: Tokens::new(relay.token),
            upgraded: None,
            failure,
            address: relay.address,
            remote,
            sign_outs,
            moved: false,
            commands,
            rounds: Vec::new(),
            documents: Vec::new(),
            next_id: 1,
            lock,
            progressed: false,
            full_until: None,
            window: limits::COME_BACK_WITHIN,
            is_first: true,
            not_taken: None,
            refusals: 0,
            tally: SyncSummary::default(),
            tallied: HashMap::new(),
            traffic,
            counted: [0; 3],
            started: Instant::now(),
            synced_kept_at: 0,
        }
    }

    /// Runs until the replica lets go of the command channel. A fault of this task, or of what the app has it call, ends a session
    /// with its reason, and not the task.
    pub(super) async fn run(mut self) {
        let mut failures = 0;
        while let Err(panic) = AssertUnwindSafe(self.serve()).catch_unwind().await {
            let error = SyncError::Internal { reason: panic_message(&*panic).to_owned() };
            tracing::error!(%error, "the sync task panicked, and begins anew");
            failures += 1;
            let noted = AssertUnwindSafe(self.note_failure(&error, false));
            _ = noted.catch_unwind().await;
            self.database.shared.board.set_link(Link::Waiting);
            self.database.shared.presence.forget();
            tokio::select! {
                () = tokio::time::sleep(retry_delay(failures, self.window)) => {}
                command = self.commands.recv() => match command {
                    Some(command) => {
                        failures = 0;
                        self.take_command(command);
                    }
                    None => return,
                },
            }
        }
    }

    /// Connects, runs a session, and comes back after its end.
    async fn serve(&mut self) {
        let mut failures = 0;
        while self.wait_for_turn().await {
            self.database.shared.board.set_link(Link::Connecting);
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
                    Ended::Anew | Ended::Failed(SyncError::Storage(StorageError::Emptied)) => continue,
                    Ended::SignedOut => return self.stay_signed_out().await,
                    Ended::Failed(error) => (error, true),
                },
                Err((error, reached)) => (error, reached),
            };
            if error.is_refusal() {
                self.full_until = Some(Instant::now() + limits::FULL_PAUSE);
            }
            failures = if std::mem::take(&mut self.progressed) { 1 } else { failures + 1 };
            self.note_failure(&error, reached).await;
            self.database.shared.board.set_link(Link::Waiting);
            tokio::select! {
                () = tokio::time::sleep(retry_delay(failures, self.window).max(asked_for(&error))) => {}
                command = self.commands.recv() => match command {
                    // Somebody knows better, or the device has just woken up.
                    Some(command) => {
                        failures = 0;
                        self.take_command(command);
                    }
                    None => return,
                },
            }
        }
    }

    /// Somebody waits for something.
    fn is_wanted(&self) -> bool {
        !self.rounds.is_empty() || !self.documents.is_empty()
    }

    fn take_id(&mut self) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        id
    }

    /// Runs a session to its end.
    pub(super) async fn run_session(&mut self, connection: Connection) -> Ended {
        let compares_after = self.compares_after();
        // Another way than the last one, perhaps.
        let is_other_way = connection.live || std::mem::take(&mut self.is_first);
        let (url, sign_outs) = (self.address.clone(), self.sign_outs);
        let begun = self.database.writer.submit(Durability::Normal, move |tx, core| {
            if tx.sign_outs()? != sign_outs {
                return Ok(None);
            }
            let remote = core.remote_at(tx, &url)?;
            if is_other_way {
                tx.unpark_too_large(remote)?;
            }
            tx.unpark_forbidden(remote)?;
            tx.unpark_unsealed(remote)?;
            let deaths = Arc::new(tx.take_stock_of_opening(&platform::process())?);
            let (position, reseeding) = core.begin_session(tx, remote, compares_after)?;
            Ok(Some(Begun { remote, position, reseeding, deaths, era: tx.era()? }))
        });
        let Begun { remote, position, reseeding, deaths, era } = match begun.await {
            Ok(Some(begun)) => begun,
            Ok(None) => return Ended::SignedOut,
            Err(error) => return Ended::Failed(SyncError::Storage(error)),
        };
        self.remote = remote;
        self.failure.use_remote(remote);
        let live = connection.live;
        let device = self.database.shared.device;
        let mut session = ClientSession::new(
            device,
            self.database.shared.space,
            agent(),
            position,
            reseeding,
            live,
            self.started.elapsed(),
        );
        if self.mode() != SyncMode::Live && !self.is_wanted() {
            self.take_command(Command::Round(oneshot::channel().0));
        }
        let holds_until = self.full_until.filter(|until| *until > Instant::now());
        let holds_until = holds_until.filter(|_| self.rounds.is_empty());
        match holds_until {
            Some(_) => session.hold_pushes(),
            None => self.not_taken = None,
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
            deaths,
            era,
            holds_until,
            submitted: None,
            received: HashSet::new(),
            merging: None.into(),
            is_merging: false,
            unmerged: true,
            almost_done: Vec::new(),
            batch_bytes: limits::FIRST_BATCH_BYTES,
            pushed_at: VecDeque::new(),
            progress: (position.map_or(0, |position| position.seq), 0),
            was_idle: false,
            compact_after: lengthened(limits::COMPACT_IDLE, 1.0),
            compact_at: None,
            asked: HashSet::new(),
            upgrade_at: (!live && self.dialer.may_upgrade())
                .then(|| Instant::now() + limits::UPGRADE_TRIED_AGAIN_FIRST),
            upgrade_after: limits::UPGRADE_TRIED_AGAIN_FIRST,
            upgrading: None.into(),
        };
        self.begin_documents(&mut running);
        let Err(ended) = self.drive(&mut running).await;
        if let Ended::Failed(error) = &ended
            && !matches!(error, SyncError::Offline { .. } | SyncError::Storage(_))
        {
            self.finish_applying(&mut running).await;
        }
        self.window =
            running.session.window().unwrap_or(limits::COME_BACK_WITHIN).min(limits::COME_BACK_LONGEST);
        self.database.shared.send_slot.expect(self.connection, self.remote, None);
        self.database.shared.presence.forget();
        self.count_bytes();
        // What is under way in the store goes on; only its answer is no longer waited for.
        self.keep_traffic();
        ended
    }

    /// What arrived before the relay ended the session is taken in: asked again it might never come further.
    async fn finish_applying(&mut self, running: &mut Running) {
        let finish = async {
            while let Some(Ok(applied)) = running.applying.next().await {
                self.take_applied(running, applied);
            }
        };
        _ = tokio::time::timeout(limits::SLICE_TIME, finish).await;
    }

    /// What the app's sealer did not seal is to be tried again, before anything is loaded for a round.
    async fn try_to_seal_again(&self) -> Result<(), StorageError> {
        if self.database.shared.has_unsealed.swap(false, Ordering::Relaxed) {
            let remote = self.remote;
            let unpark = move |tx: Tx<'_>, _: &mut Core| tx.unpark_unsealed(remote);
            self.database.writer.submit(Durability::Normal, unpark).await?;
        }
        Ok(())
    }

    /// Whoever asks for something is told that nobody is signed in.
    async fn stay_signed_out(&mut self) {
        self.lock.let_go();
        self.database.shared.board.set_link(Link::LetGo);
        let error = SyncError::AuthNeeded { reason: "the user has signed out on this device".into() };
        loop {
            self.failure.note(&error);
            self.fail_rounds(&error, false);
            self.fail_documents(&error, false);
            match self.commands.recv().await {
                Some(command) => _ = self.take_command(command),
                None => return,
            }
        }
    }
}

/// Resolves at a time, if there is one.
async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

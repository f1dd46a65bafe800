//! A session of the sync task for a simulation, which decides itself what happens when: messages are handed over one by one, slow work and writes
//! wait until they are asked for, and the clock is moved by hand.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use motet_proto::{DocumentId, Message, planted};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, oneshot};

use super::connection::{Connection, Traffic, offline};
use super::connector::{Connector, FrameChannel};
use super::driver::{Command, DocumentRequest, DocumentTask, Driver};
use super::{Active, LastFailure, Relay, SyncSummary, activate};
use crate::engine::{Database, Link};
use crate::error::SyncError;
use crate::limits;
use crate::platform::simulated::{Deferred, deferring};
use crate::store::StorageError;

/// What a round that was asked for came to.
type Answer = oneshot::Receiver<Result<SyncSummary, SyncError>>;

/// The sync task in one session.
pub(crate) struct Stepped {
    database: Arc<Database>,
    /// As the engine numbers connections.
    connection: u64,
    task: Option<Pin<Box<dyn Future<Output = String>>>>,
    commands: mpsc::UnboundedSender<Command>,
    incoming: mpsc::Sender<Result<Message, SyncError>>,
    outgoing: mpsc::Receiver<Message>,
    rounds: Vec<(u64, Answer)>,
    /// Work for other threads.
    deferred: Deferred,
    traffic: Arc<Traffic>,
    /// Why the task has ended.
    ended: Option<String>,
    now: Duration,
    /// The last: what is above was made in it.
    runtime: Runtime,
}

/// Connections are handed over.
struct HandedOver;

impl Connector for HandedOver {
    fn connect(
        &self,
        _: Option<String>,
    ) -> Pin<Box<dyn Future<Output = Result<FrameChannel, SyncError>> + Send>> {
        Box::pin(std::future::ready(Err(offline("connections are handed over"))))
    }
}

impl Stepped {
    /// Begins a session with the relay of a name. `live`: entries arrive as they are committed.
    pub(crate) fn begin(
        database: &Arc<Database>,
        relay: &str,
        live: bool,
        now: Duration,
    ) -> Result<Self, SyncError> {
        let relay = Relay::through(relay, HandedOver);
        let Active { dialer, address, remote, sign_outs } = activate(database, &relay)?;
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = runtime.map_err(|error| StorageError::Io(error.to_string()))?;
        // Its clock is the one that the task takes.
        let entered = runtime.enter();
        let (commands, receiver) = mpsc::unbounded_channel();
        let most = planted::queue(limits::QUEUED_FRAMES);
        let (outgoing, sent) = mpsc::channel(most);
        let (received, incoming) = mpsc::channel(most);
        let traffic = Arc::new(Traffic::default());
        let connection = database.shared.send_slot.begin();
        let mut driver = Driver::new(
            database.clone(),
            Relay { address, ..relay },
            dialer,
            (remote, sign_outs, connection),
            receiver,
            (traffic.clone(), Arc::new(LastFailure::new(remote))),
        );
        let task =
            async move { driver.run_session(Connection { outgoing, incoming, live }).await.to_string() };
        drop(entered);
        let mut begun = Self {
            database: database.clone(),
            connection,
            task: Some(Box::pin(task)),
            commands,
            incoming: received,
            outgoing: sent,
            rounds: Vec::new(),
            deferred: VecDeque::new(),
            traffic,
            ended: None,
            now,
            runtime,
        };
        begun.poll(now);
        Ok(begun)
    }

    /// Asks for a full round.
    pub(crate) fn request_round(&mut self, round: u64, now: Duration) {
        let (reply, answer) = oneshot::channel();
        _ = self.commands.send(Command::Round(reply));
        self.rounds.push((round, answer));
        self.poll(now);
    }

    /// Asks for something about one document.
    pub(crate) fn request_document(&mut self, document: DocumentId, task: DocumentTask, now: Duration) {
        _ = self.commands.send(Command::Document(DocumentRequest { document, task, reply: None }));
        self.poll(now);
    }

    /// A message has arrived. It is lost if [`is_saturated`](Self::is_saturated).
    pub(crate) fn take(&mut self, message: Message, now: Duration) {
        let entered = self.runtime.enter();
        self.traffic.received(0);
        drop(entered);
        _ = self.incoming.try_send(Ok(message));
        self.poll(now);
    }

    /// The connection breaks.
    pub(crate) fn lose(&mut self, now: Duration) {
        _ = self.incoming.try_send(Err(offline("the connection was lost")));
        self.poll(now);
    }

    /// Does one of the things that wait for the disk or for another thread; `choice` says which. False if there is none.
    pub(crate) fn work(&mut self, choice: u64, now: Duration) -> bool {
        let writes = usize::from(self.database.writer.has_waiting());
        let waiting = writes + self.deferred.len();
        if waiting > 0 {
            let chosen = (choice % waiting as u64) as usize;
            let _entered = self.runtime.enter();
            match chosen.checked_sub(writes) {
                None => self.database.writer.run_waiting(),
                Some(at) => self.deferred.remove(at).into_iter().for_each(|work| work()),
            }
        }
        self.poll(now);
        waiting > 0
    }

    /// Lets the task go on at a time, as far as it gets without anybody.
    pub(crate) fn poll(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.now);
        self.now = self.now.max(now);
        let Self { runtime, task: Some(task), deferred, .. } = self else { return };
        let ended = runtime.block_on(async {
            if !passed.is_zero() {
                tokio::time::advance(passed).await;
            }
            std::future::poll_fn(|context| Poll::Ready(deferring(deferred, || task.as_mut().poll(context))))
                .await
        });
        if let Poll::Ready(reason) = ended {
            (self.task, self.ended) = (None, Some(reason));
        }
    }

    /// The next message to send.
    pub(crate) fn poll_message(&mut self) -> Option<Message> {
        let message = self.outgoing.try_recv().ok()?;
        let entered = self.runtime.enter();
        self.traffic.sent(0, 1);
        drop(entered);
        Some(message)
    }

    /// A round that is complete.
    pub(crate) fn poll_done(&mut self) -> Option<u64> {
        let at = self.rounds.iter_mut().position(|(_, answer)| matches!(answer.try_recv(), Ok(Ok(_))))?;
        Some(self.rounds.remove(at).0)
    }

    /// Why the session is over, if it is.
    pub(crate) fn ended(&self) -> Option<&str> {
        self.ended.as_deref()
    }

    /// It takes no more messages for now.
    pub(crate) fn is_saturated(&self) -> bool {
        self.incoming.capacity() == 0
    }

    /// Nothing is under way.
    pub(crate) fn is_idle(&self) -> bool {
        self.ended.is_none()
            && self.deferred.is_empty()
            && !self.database.writer.has_waiting()
            && self.incoming.capacity() == self.incoming.max_capacity()
            && self.outgoing.is_empty()
            && self.database.shared.board.is_at_rest()
    }
}

impl Drop for Stepped {
    fn drop(&mut self) {
        // What the task holds is let go of before anything else happens.
        drop(self.task.take());
        // What other threads have begun goes on.
        let entered = self.runtime.enter();
        self.deferred.drain(..).for_each(|work| work());
        drop(entered);
        let shared = &self.database.shared;
        shared.send_slot.end(self.connection);
        shared.board.set_link(Link::LetGo);
        shared.presence.forget();
    }
}

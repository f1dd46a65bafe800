//! One connection: joins the session state machine with the store, the hub and whatever carries frames.

mod effects;
mod places;
mod post;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::ws::Message as WsMessage;
use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::{FuturesUnordered, Stream, StreamExt};
use futures_util::{Sink, SinkExt};
use motet_proto::message::{ErrorCode, Fetch};
use motet_proto::presence::Presence;
use motet_proto::session::{AppendOutcome, DocumentPage, Opened, ReadOutcome, RelaySession};
use motet_proto::{AccountId, DeviceId, Entry, LogName, Message, Position, SpaceId, frame, planted};
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, timeout};

use crate::access::{self, Access, AccessError};
use crate::auth::{self, Authenticator};
use crate::hub::HubEvent;
use crate::limits;
use crate::metrics::Way;
use crate::outgoing::Held;
use crate::state::{Admitted, Relay};
use crate::store::{LogId, StoreError};
pub(crate) use post::serve_post;

/// What the store has done for a session.
enum Done {
    Opened(Result<u64, StoreError>),
    Read(Option<Held>, Result<ReadOutcome, StoreError>),
    Appended(u32, Result<AppendOutcome, NotStored>),
    Document(Option<Held>, Fetch, Result<DocumentPage, StoreError>),
    /// Whether whoever was let in would be let in now.
    Valid(bool),
    /// What the account may do with the space.
    Access(Result<Access, AccessError>),
}

/// Why a push was not stored, and what of it was all the same.
struct NotStored {
    error: StoreError,
    appended: Option<(u64, Position)>,
}

impl From<StoreError> for NotStored {
    fn from(error: StoreError) -> Self {
        Self { error, appended: None }
    }
}

/// A session and what is under way for it.
struct Running {
    relay: Arc<Relay>,
    admitted: Admitted,
    id: u64,
    session: RelaySession,
    /// A session that stays; not a `POST`.
    is_socket: bool,
    device: Option<DeviceId>,
    /// Told when the device has opened newer sessions.
    replaced: Option<Arc<Notify>>,
    /// Nothing is read before this time: the account has sent too much lately.
    paused: Option<Instant>,
    /// What goes on without being served before this time: the greeting, and then whatever the device sends.
    idle_since: Instant,
    /// The space that the device has named, and its log once it may be read.
    space: Option<SpaceId>,
    log: Option<LogId>,
    access: Asked,
    hub: Option<Receiver<HubEvent>>,
    under_way: FuturesUnordered<BoxFuture<'static, Done>>,
    /// What is to be sent, encoded.
    frames: Vec<Frame>,
    /// Held for what was read and is not encoded yet; of a `POST`, for all of its answer.
    held: Option<Held>,
    closing: bool,
    /// Others were told something: they wait for it, while what this device gets is only a receipt.
    others_first: bool,
    /// The place of the device is told at this time, as it was told too often.
    tell_at: Option<Instant>,
    /// Since when places are counted, and how many there were.
    places: (Instant, u32),
    /// Where the device said that it is, and whether the others still believe it.
    place: Option<Presence>,
    is_present: bool,
    /// When something was received last, and whether it was asked since then whether it is there.
    heard: Instant,
    probed: bool,
}

/// What the account may do with the space, as far as that was found out.
#[derive(Default)]
struct Asked {
    found: Option<Access>,
    /// A question is under way, and something has changed since.
    is_asked: bool,
    is_stale: bool,
    /// It could not be found out since then, and is asked again at this time.
    unknown_since: Option<Instant>,
    ask_at: Option<Instant>,
}

/// A frame that is to be sent, and what it holds of the memory for such.
type Frame = (Vec<u8>, Option<Held>);

/// Serves a WebSocket, or what is like one, until either side is done with it.
pub(crate) async fn serve_socket<E: std::fmt::Display>(
    relay: Arc<Relay>,
    admitted: Admitted,
    id: u64,
    mut sink: impl Sink<WsMessage> + Unpin + Send + 'static,
    mut stream: impl Stream<Item = Result<WsMessage, E>> + Unpin,
) {
    let (outgoing, mut to_send) = mpsc::channel::<Frame>(planted::queue(limits::QUEUED_FRAMES));
    let mut sender = tokio::spawn(async move {
        while let Some((frame, _held)) = to_send.recv().await {
            let slow = Duration::from_secs(frame.len() as u64 / limits::SEND_BYTES_PER_SECOND);
            let send = sink.send(WsMessage::Binary(Bytes::from(frame)));
            if !matches!(timeout(limits::SEND_TIMEOUT + slow, send).await, Ok(Ok(()))) {
                return;
            }
        }
        _ = sink.close().await;
    });
    let _open = relay.metrics.open_session();
    relay.metrics.note_round(Way::WebSocket);
    let mut running = Running::new(relay, admitted, id);
    running.is_socket = true;
    tracing::debug!(session = id, "opened");
    running.serve(&mut stream, &outgoing).await;
    drop(outgoing);
    // The last frames, an error among them, should get out; a peer that does not read is not waited for.
    if timeout(limits::SHUTDOWN_GRACE, &mut sender).await.is_err() {
        sender.abort();
    }
    tracing::debug!(session = id, "closed");
}

impl Running {
    fn new(relay: Arc<Relay>, admitted: Admitted, id: u64) -> Self {
        let agent = concat!("motet-relay/", env!("CARGO_PKG_VERSION")).to_owned();
        Self {
            relay,
            admitted,
            id,
            session: RelaySession::new(id, agent),
            is_socket: false,
            device: None,
            replaced: None,
            paused: None,
            idle_since: Instant::now(),
            space: None,
            log: None,
            access: Asked::default(),
            hub: None,
            under_way: FuturesUnordered::new(),
            frames: Vec::new(),
            held: None,
            closing: false,
            others_first: false,
            tell_at: None,
            places: (Instant::now(), 0),
            place: None,
            is_present: false,
            heard: Instant::now(),
            probed: false,
        }
    }

    async fn serve<E: std::fmt::Display>(
        &mut self,
        stream: &mut (impl Stream<Item = Result<WsMessage, E>> + Unpin),
        outgoing: &mpsc::Sender<Frame>,
    ) {
        let mut stopping = self.relay.stopping.clone();
        let mut stop_at = None;
        self.session.set_window(self.relay.window());
        let mut auth = self.relay.auth.clone();
        let mut access = access::changes(&*self.relay.access);
        loop {
            self.carry_out();
            if std::mem::take(&mut self.others_first) {
                tokio::task::yield_now().await;
            }
            for frame in std::mem::take(&mut self.frames) {
                if !self.send(outgoing, frame).await {
                    return;
                }
            }
            if self.closing {
                return;
            }
            let patience = if self.log.is_some() { limits::IDLE_TIMEOUT } else { limits::HELLO_TIMEOUT };
            self.paused = self.paused.filter(|until| *until > Instant::now());
            let saturated = self.session.is_saturated() || self.paused.is_some();
            if saturated && self.log.is_some() {
                self.idle_since = Instant::now();
            }
            let silence = self.next_silence();
            // In this order, so that a simulation can repeat it, and nothing waits for ever: first what comes now and then; then what the store and others
            // do, which takes a message of the device along each time; then what the device sends.
            tokio::select! {
                biased;
                () = outgoing.closed() => return,
                () = until(Some(self.idle_since + patience)), if !saturated => {
                    // What has arrived meanwhile may only not have been read.
                    let received = stream.next().now_or_never();
                    let is_greeted = received.is_some() && self.take_waiting(received);
                    if !is_greeted || self.device.is_none() {
                        self.session.handle_failure(ErrorCode::Protocol, "nothing was heard for too long");
                    }
                }
                () = until(self.paused), if self.paused.is_some() => {}
                () = until(self.tell_at), if self.tell_at.is_some() => self.tell(),
                () = told(self.replaced.clone()) => {
                    self.session.handle_failure(ErrorCode::Replaced, "the device has opened newer sessions");
                }
                Ok(()) = auth.changed() => {
                    let authenticator = auth.borrow_and_update().clone();
                    self.ask_if_valid(authenticator);
                }
                () = next_change(&mut access) => self.ask_for_access(),
                () = until(self.access.ask_at), if self.access.ask_at.is_some() => self.ask_for_access(),
                _ = stopping.wait_for(|stopping| *stopping), if stop_at.is_none() => {
                    // As many leave at a time as can come back, wherever that is.
                    let window = self.relay.window();
                    self.session.set_window(window);
                    let step = window.min(limits::STOPPED_WITHIN).mul_f64(random_part());
                    stop_at = Some(Instant::now() + step);
                }
                () = until(stop_at), if stop_at.is_some() => {
                    self.session.handle_failure(ErrorCode::ShuttingDown, "the relay is stopping");
                }
                Some(done) = self.under_way.next() => {
                    self.take_done(done);
                    if !saturated && !self.take_waiting(stream.next().now_or_never()) {
                        return;
                    }
                }
                news = next_event(&mut self.hub) => {
                    self.take_event(news);
                    if !saturated && !self.take_waiting(stream.next().now_or_never()) {
                        return;
                    }
                }
                received = stream.next(), if !saturated => {
                    if !self.take_received(received) {
                        return;
                    }
                }
                // Behind what has arrived, which may have waited because nothing was read.
                () = until(silence), if !saturated => self.take_silence(),
            }
        }
    }

    /// Whether whoever was let in would be let in now.
    fn ask_if_valid(&mut self, authenticator: Arc<dyn Authenticator>) {
        let who = self.admitted.who.clone();
        let asked = async move { Done::Valid(auth::is_valid(authenticator, &who).await) };
        self.under_way.push(asked.boxed());
    }

    /// Takes in what has arrived already, if anything has; false if that was the end.
    fn take_waiting<E: std::fmt::Display>(&mut self, received: Option<Option<Result<WsMessage, E>>>) -> bool {
        received.is_none_or(|received| self.take_received(received))
    }

    /// Takes in what has arrived; false if that was the end.
    fn take_received<E: std::fmt::Display>(&mut self, received: Option<Result<WsMessage, E>>) -> bool {
        match received {
            Some(Ok(message)) => self.take(message),
            Some(Err(error)) => {
                tracing::debug!(session = self.id, %error, "the connection broke");
                false
            }
            None => false,
        }
    }

    /// Takes in what a WebSocket has brought; false if it was its end.
    fn take(&mut self, message: WsMessage) -> bool {
        let bytes = match &message {
            WsMessage::Binary(bytes) => bytes.len(),
            WsMessage::Close(_) => return false,
            _ => 0,
        };
        self.admitted.place.meter.complete();
        self.note_heard();
        // Who has not introduced itself has to, and nothing else counts.
        if self.log.is_some() {
            self.idle_since = Instant::now();
        }
        match message {
            WsMessage::Binary(bytes) => self.take_frame(&bytes),
            WsMessage::Text(_) => self.session.handle_bad_frame("text instead of a frame".into()),
            _ => self.charge(bytes),
        }
        true
    }

    /// What was taken in counts for the account; who sends too much is read later.
    fn charge(&mut self, bytes: usize) {
        let wait = self.admitted.request.account.charge(bytes, &self.relay.limits());
        if !wait.is_zero() {
            self.paused = Some(Instant::now() + wait.min(limits::IDLE_TIMEOUT));
        }
    }

    /// False if the connection takes no more. A device that takes nothing may be one that is not there any more.
    async fn send(&mut self, outgoing: &mpsc::Sender<Frame>, frame: Frame) -> bool {
        let mut sent = pin!(timeout(limits::SEND_TIMEOUT, outgoing.send(frame)));
        loop {
            tokio::select! {
                biased;
                sent = &mut sent => return matches!(sent, Ok(Ok(()))),
                () = until(self.next_silence()) => self.take_silence(),
            }
        }
    }

    fn take_done(&mut self, done: Done) {
        match done {
            Done::Opened(Ok(head)) => self.welcome(head),
            Done::Read(held, Ok(outcome)) => {
                self.held = self.held.take().or(held);
                self.session.handle_read(outcome);
            }
            Done::Appended(push, Ok(outcome)) => self.session.handle_appended(push, outcome),
            Done::Document(held, fetch, Ok(page)) => {
                self.held = self.held.take().or(held);
                self.session.handle_document(fetch, page);
            }
            Done::Access(found) => self.take_access(found),
            Done::Valid(true) => {}
            Done::Valid(false) => {
                self.session.handle_failure(ErrorCode::Unauthorized, "the token is not valid any more");
            }
            // The push alone is answered: who cannot send can still receive.
            Done::Appended(push, Err(NotStored { error, appended }))
                if !matches!(error, StoreError::Closed) =>
            {
                self.session.handle_not_appended(push, appended, code_of(&error), &error.to_string());
            }
            Done::Opened(Err(error))
            | Done::Read(_, Err(error))
            | Done::Appended(_, Err(NotStored { error, .. }))
            | Done::Document(_, _, Err(error)) => {
                self.session.handle_failure(code_of(&error), &error.to_string());
            }
        }
    }

    fn welcome(&mut self, head: u64) {
        let Some(LogId { account: owner, space }) = &self.log else { return };
        let log = LogName::derive(self.relay.store.id(), owner, *space);
        // Without tokens there are no accounts to be told apart.
        let account = self.admitted.who.is_known().then(|| AccountId::derive(&self.admitted.who.account));
        let time_ms = (self.relay.time_of_day)();
        self.session.handle_opened(Opened { head, account, log: Some(log), time_ms });
    }

    fn take_frame(&mut self, bytes: &[u8]) {
        let opened = frame::opened_len(bytes).min(motet_proto::limits::FRAME_BYTES);
        let message = beside_others(opened, || frame::decode(bytes));
        let (count, entries) = match &message {
            Ok(Message::Push(push)) => (push.entries.len(), push.entries.iter().map(Entry::size).sum()),
            _ => (0, 0),
        };
        self.relay.metrics.note_received(count, bytes.len());
        // What was opened for nothing counts as well.
        self.charge(opened.max(entries));
        match message {
            Ok(Message::Hello(hello)) => {
                self.device.get_or_insert(hello.device);
                tracing::debug!(session = self.id, device = %hello.device, agent = hello.agent, "hello");
                // A copy of a device's file is a device of its own, and has to sign in as one.
                if self.admitted.who.device.is_some_and(|proven| proven != hello.device) {
                    let message = "this key is of another device (a copy of a database is a device of its own): sign in anew";
                    return self.session.handle_failure(ErrorCode::Unauthorized, message);
                }
                self.session.handle_message(Message::Hello(hello));
            }
            Ok(message) => self.session.handle_message(message),
            Err(error) => {
                tracing::debug!(session = self.id, %error, "a bad frame");
                self.session.handle_bad_frame(error.to_string());
            }
        }
    }

    fn take_event(&mut self, news: Result<HubEvent, RecvError>) {
        match news {
            Ok(HubEvent::Committed(run)) => self.session.handle_committed(&run),
            Ok(HubEvent::Presence(presence)) => self.session.handle_presence(&presence),
            Ok(HubEvent::Missed) | Err(RecvError::Lagged(_)) => {
                self.session.handle_lagged();
                if let Some(log) = &self.log {
                    let everybody = self.relay.hub.everybody(log);
                    self.session.handle_everybody(everybody.iter().map(AsRef::as_ref));
                }
            }
            Err(RecvError::Closed) => self.hub = None,
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.hub = None;
        if let Some(log) = &self.log {
            self.relay.hub.leave(log, self.id);
        }
    }
}

fn code_of(error: &StoreError) -> ErrorCode {
    match error {
        StoreError::Closed => ErrorCode::ShuttingDown,
        StoreError::Busy => ErrorCode::Busy,
        StoreError::Full | StoreError::Quota(_) => ErrorCode::Full,
        StoreError::Limit(_) => ErrorCode::Limit,
        StoreError::Unusable(_) => ErrorCode::Damaged,
        _ => ErrorCode::Internal,
    }
}

/// An error of the protocol, for the metrics.
fn name_of(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::Protocol => "protocol",
        ErrorCode::Version => "version",
        ErrorCode::Internal => "internal",
        ErrorCode::ShuttingDown => "shutting-down",
        ErrorCode::Busy => "busy",
        ErrorCode::Full => "full",
        ErrorCode::Limit => "limit",
        ErrorCode::Unauthorized => "unauthorized",
        ErrorCode::Replaced => "replaced",
        ErrorCode::Damaged => "damaged",
        ErrorCode::Other => "other-log",
        ErrorCode::Forbidden => "forbidden",
        _ => "unknown",
    }
}

/// A number between 0 and 1.
fn random_part() -> f64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0) as f64 / u64::MAX as f64
}

/// Resolves when an answer of the authorizer may be another one.
async fn next_change(changes: &mut Option<watch::Receiver<()>>) {
    if let Some(changes) = changes.as_mut()
        && changes.changed().await.is_ok()
    {
        return;
    }
    // Nobody is left who would say so.
    *changes = None;
    std::future::pending().await
}

async fn next_event(hub: &mut Option<Receiver<HubEvent>>) -> Result<HubEvent, RecvError> {
    match hub {
        Some(hub) => hub.recv().await,
        None => std::future::pending().await,
    }
}

/// Works on a frame. A large one takes milliseconds, one of the largest size tens of them, in which others go on elsewhere.
fn beside_others<T>(bytes: usize, work: impl FnOnce() -> T) -> T {
    use tokio::runtime::{Handle, RuntimeFlavor};
    let can_move = || Handle::current().runtime_flavor() == RuntimeFlavor::MultiThread;
    match bytes >= limits::LARGE_FRAME_BYTES && can_move() {
        true => tokio::task::block_in_place(work),
        false => work(),
    }
}

/// Resolves when somebody is told to go.
async fn told(notify: Option<Arc<Notify>>) {
    match notify {
        Some(notify) => notify.notified().await,
        None => std::future::pending().await,
    }
}

/// Resolves at a time, if there is one.
async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

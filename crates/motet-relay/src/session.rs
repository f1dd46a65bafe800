//! One connection: joins the session state machine with the store, the hub and a socket.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::body::{Body, Bytes};
use axum::extract::ws::{Message as WsMessage, WebSocket};
use axum::http::StatusCode;
use futures_util::SinkExt;
use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::{FuturesUnordered, SplitStream, StreamExt};
use motet_proto::frame::FrameError;
use motet_proto::message::{ErrorCode, Fetch};
use motet_proto::presence::Presence;
use motet_proto::session::{AppendOutcome, DocumentPage, Opened, ReadOutcome, RelayEffect, RelaySession};
use motet_proto::{AccountId, DeviceId, Entry, LogName, Message, Position, SpaceId, frame};
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tokio::sync::{Notify, OwnedSemaphorePermit, mpsc};
use tokio::time::{timeout, timeout_at};

use crate::hub::HubEvent;
use crate::limits;
use crate::outgoing::Held;
use crate::state::{Admitted, Relay};
use crate::store::{Appended, LogId, LogStore, StoreError};

/// What the store has done for a session.
enum Done {
    Opened(Result<u64, StoreError>),
    Read(Option<Held>, Result<ReadOutcome, StoreError>),
    Appended(u32, Result<AppendOutcome, NotStored>),
    Document(Option<Held>, Fetch, Result<DocumentPage, StoreError>),
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
    log: Option<LogId>,
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

/// A frame that is to be sent, and what it holds of the memory for such.
type Frame = (Vec<u8>, Option<Held>);

/// The answer to a `POST`.
pub(crate) struct Answer {
    bytes: Vec<u8>,
    held: Option<Held>,
}

impl Answer {
    /// A body that holds what it does until the last of it is taken.
    pub(crate) fn into_body(self) -> Body {
        let bytes = Bytes::from(self.bytes);
        let parts = futures_util::stream::unfold((bytes, self.held), |(mut rest, held)| async move {
            let part = rest.split_to(rest.len().min(limits::BODY_PART_BYTES));
            (!part.is_empty()).then_some((Ok::<_, Infallible>(part), (rest, held)))
        });
        Body::from_stream(parts)
    }
}

/// Serves a WebSocket until either side is done with it.
pub(crate) async fn serve_socket(relay: Arc<Relay>, admitted: Admitted, id: u64, socket: WebSocket) {
    let (mut sink, mut stream) = socket.split();
    let (outgoing, mut to_send) = mpsc::channel::<Frame>(limits::QUEUED_FRAMES);
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

/// Answers the messages of one `POST`, as they come. What is not taken in is not answered, and the device sends it again.
pub(crate) async fn serve_post(
    relay: Arc<Relay>,
    admitted: Admitted,
    id: u64,
    body: Body,
) -> Result<Answer, (StatusCode, &'static str)> {
    let mut running = Running::new(relay, admitted, id);
    let mut body = body.into_data_stream();
    let (mut answer, mut waiting, mut received) = (Vec::new(), Vec::new(), 0);
    let begun = Instant::now();
    loop {
        let due = begun
            + limits::BODY_SILENCE
            + Duration::from_secs(received as u64 / limits::BODY_BYTES_PER_SECOND);
        let silent = Instant::now() + limits::BODY_SILENCE;
        let chunk = match timeout_at(due.min(silent).into(), body.next()).await {
            Err(_) => return Err((StatusCode::REQUEST_TIMEOUT, "the body takes too long")),
            Ok(Some(Err(_))) => {
                return Err((StatusCode::BAD_REQUEST, "the body broke off, or too much is under way"));
            }
            Ok(Some(Ok(chunk))) => chunk,
            Ok(None) => break,
        };
        received += chunk.len();
        if received > limits::POST_BYTES {
            return Err((StatusCode::PAYLOAD_TOO_LARGE, "the body is too large"));
        }
        waiting.extend_from_slice(&chunk);
        let mut rest = &waiting[..];
        while running.takes_more(&answer)
            && let Some(frame) = next_frame(&mut rest)
        {
            running.answer_frame(frame, &mut answer).await;
        }
        // The rest of the body is read and dropped, so that the answer arrives.
        let rest = if running.takes_more(&answer) { rest.len() } else { 0 };
        if rest < waiting.len() {
            waiting.drain(..waiting.len() - rest);
            running.admitted.place.meter.complete();
        }
    }
    if !waiting.is_empty() && running.takes_more(&answer) {
        running.answer_frame(Err(FrameError::Truncated), &mut answer).await;
    }
    let mut held = running.held.take();
    held.iter_mut().for_each(|held| held.shrink(answer.len()));
    Ok(Answer { bytes: answer, held })
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
            log: None,
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

    async fn serve(&mut self, stream: &mut SplitStream<WebSocket>, outgoing: &mpsc::Sender<Frame>) {
        let mut stopping = self.relay.stopping.clone();
        let mut stop_at = None;
        self.session.set_window(self.relay.window());
        let mut auth = self.relay.auth.clone();
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
            tokio::select! {
                received = stream.next(), if !saturated => match received {
                    Some(Ok(message)) => {
                        if !self.take(message) {
                            return;
                        }
                    }
                    Some(Err(error)) => {
                        tracing::debug!(session = self.id, %error, "the connection broke");
                        return;
                    }
                    None => return,
                },
                () = until(Some(self.idle_since + patience)), if !saturated => {
                    self.session.handle_failure(ErrorCode::Protocol, "nothing was heard for too long");
                }
                () = until(self.paused), if self.paused.is_some() => {}
                () = until(self.tell_at), if self.tell_at.is_some() => self.tell(),
                () = told(self.replaced.clone()) => {
                    self.session.handle_failure(ErrorCode::Replaced, "the device has opened newer sessions");
                }
                Ok(()) = auth.changed() => {
                    if !auth.borrow_and_update().knows(&self.admitted.who) {
                        self.session.handle_failure(ErrorCode::Unauthorized, "the token is not valid any more");
                    }
                }
                news = next_event(&mut self.hub) => self.take_event(news),
                Some(done) = self.under_way.next() => self.take_done(done),
                () = outgoing.closed() => return,
                () = until(silence), if !saturated => self.take_silence(),
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
            }
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

    /// Whether a `POST` takes in one more message.
    fn takes_more(&self, answer: &[u8]) -> bool {
        !self.closing && answer.len() <= limits::POST_ANSWER_BYTES
    }

    /// Takes in one message of a `POST`, and answers it.
    async fn answer_frame(&mut self, frame: Result<&[u8], FrameError>, answer: &mut Vec<u8>) {
        match frame {
            Ok(bytes) => self.take_frame(bytes),
            Err(error) => self.session.handle_bad_frame(error.to_string()),
        }
        self.settle().await;
        for (frame, _) in self.frames.drain(..) {
            answer.extend_from_slice(&(frame.len() as u32).to_be_bytes());
            answer.extend_from_slice(&frame);
        }
        if let Some(until) = self.paused.take() {
            tokio::time::sleep_until(until.into()).await;
        }
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

    /// Runs until nothing is under way.
    async fn settle(&mut self) {
        self.carry_out();
        while let Some(done) = self.under_way.next().await {
            self.take_done(done);
            self.carry_out();
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
        let Some(LogId { account, space }) = &self.log else { return };
        let log = LogName::derive(self.relay.store.id(), account, *space);
        // Without tokens there are no accounts to be told apart.
        let account = self.admitted.who.is_known().then(|| AccountId::derive(account));
        let time_ms = SystemTime::now().duration_since(UNIX_EPOCH).ok();
        let time_ms = time_ms.and_then(|time| i64::try_from(time.as_millis()).ok());
        self.session.handle_opened(Opened { head, account, log: Some(log), time_ms });
    }

    fn carry_out(&mut self) {
        while let Some(effect) = self.session.poll_effect() {
            match effect {
                RelayEffect::Send(message) => self.encode(&message),
                RelayEffect::Open { space } => {
                    if !self.introduce(space) {
                        continue;
                    }
                    let log = LogId { account: self.admitted.who.account.clone(), space };
                    // Before the head is read, so that nothing falls between.
                    let (hub, present) = self.relay.hub.subscribe(&log);
                    self.hub = Some(hub);
                    present.iter().for_each(|presence| self.session.handle_presence(presence));
                    self.log = Some(log.clone());
                    let relay = self.relay.clone();
                    self.under_way.push(async move { Done::Opened(relay.store.head(&log).await) }.boxed());
                }
                RelayEffect::Append { push, entries } => {
                    let Some(log) = self.log.clone() else { continue };
                    self.append(log, push, entries);
                }
                RelayEffect::Read { after } => {
                    let Some(log) = self.log.clone() else { continue };
                    let (relay, room) = (self.relay.clone(), self.room());
                    let read = async move {
                        let (held, _turn) = room.await;
                        Done::Read(held, relay.store.read(&log, after).await)
                    };
                    self.under_way.push(read.boxed());
                }
                RelayEffect::ReadDocument(fetch) => {
                    let Some(log) = self.log.clone() else { continue };
                    let (relay, room) = (self.relay.clone(), self.room());
                    let read = async move {
                        let Fetch { document, after, whole, .. } = fetch;
                        let (held, _turn) = room.await;
                        let page = relay.store.read_document(&log, document, after, whole).await;
                        Done::Document(held, fetch, page)
                    };
                    self.under_way.push(read.boxed());
                }
                RelayEffect::Presence(presence) => {
                    self.place = Some(presence).filter(|presence| !presence.sealed.is_empty());
                    self.tell_when_due();
                }
                RelayEffect::Close => self.closing = true,
            }
        }
        if self.is_socket {
            self.held = None;
        }
    }

    /// Encodes a message; what was read for it is held until it is sent.
    fn encode(&mut self, message: &Message) {
        let frame = encode(message);
        let is_read = self.is_socket && matches!(message, Message::Page(_) | Message::Fetched(_));
        let mut held = if is_read { self.held.take() } else { None };
        held.iter_mut().for_each(|held| held.shrink(frame.len()));
        self.frames.push((frame, held));
    }

    /// Waits for room for what is read, and then for a turn. A `POST` has room for all of its answer: it must not wait for itself.
    fn room(&self) -> impl Future<Output = (Option<Held>, Option<OwnedSemaphorePermit>)> + Send + use<> {
        let (relay, account) = (self.relay.clone(), self.admitted.request.account.clone());
        let bytes = match self.is_socket {
            true => Some(limits::READ_BYTES),
            false => self.held.is_none().then_some(limits::POST_ANSWER_BYTES + limits::READ_BYTES),
        };
        async move {
            let mut held = None;
            if let Some(bytes) = bytes {
                held = Some(relay.outgoing.reserve(account.outgoing.clone(), bytes, || relay.limits()).await);
            }
            // It is never closed.
            (held, account.reads.clone().acquire_owned().await.ok())
        }
    }

    /// The session is about a space, and counts from now on. False if the account has too many.
    fn introduce(&mut self, space: SpaceId) -> bool {
        let Some(device) = self.device.filter(|_| self.is_socket) else { return true };
        let limits = self.relay.limits();
        self.replaced = self.admitted.request.introduce(device, space, self.id, &limits);
        if self.replaced.is_none() {
            let message = format!("this account has {} sessions open already", limits.sessions_per_account);
            self.session.handle_failure(ErrorCode::Limit, &message);
        }
        self.replaced.is_some()
    }

    /// Tells the others where the device is, at once or when that may be told again; what it says meanwhile takes the place of it.
    fn tell_when_due(&mut self) {
        if self.tell_at.is_some() {
            return;
        }
        let (since, count) = &mut self.places;
        if since.elapsed() >= limits::PLACES_COUNTED_OVER {
            (*since, *count) = (Instant::now(), 0);
        }
        *count += 1;
        if *count > limits::PLACES {
            self.tell_at = Some(*since + limits::PLACES_COUNTED_OVER);
            return;
        }
        let listeners = self.log.as_ref().map_or(0, |log| self.relay.hub.listeners(log));
        let wait = self.admitted.request.account.charge_place(listeners, &self.relay.limits());
        if wait.is_zero() {
            return self.tell();
        }
        self.tell_at = Some(Instant::now() + wait);
    }

    fn tell(&mut self) {
        self.tell_at = None;
        match &self.place {
            Some(_) => self.present(),
            None => self.withdraw(),
        }
    }

    /// When the silence of a device that is somewhere has to be looked at.
    fn next_silence(&self) -> Option<Instant> {
        let silence = self.relay.present_silence;
        let silence = if self.probed { silence } else { silence.mul_f64(limits::PROBED_AFTER) };
        self.is_present.then(|| self.heard + silence)
    }

    /// A device that is somewhere was silent: it is asked whether it is there, and then it is not.
    fn take_silence(&mut self) {
        if !std::mem::replace(&mut self.probed, true) {
            return self.session.probe(self.heard.elapsed().as_millis() as u64);
        }
        tracing::debug!(session = self.id, "its device is silent, and nowhere for the others");
        self.withdraw();
    }

    /// The device is there; if the others were told otherwise, they hear of it.
    fn note_heard(&mut self) {
        (self.heard, self.probed) = (Instant::now(), false);
        if !self.is_present && self.place.is_some() {
            self.present();
        }
    }

    fn present(&mut self) {
        if let (Some(log), Some(place)) = (&self.log, &self.place) {
            self.is_present = true;
            self.relay.hub.present(log, self.id, place.clone());
        }
    }

    fn withdraw(&mut self) {
        self.is_present = false;
        if let Some(log) = &self.log {
            self.relay.hub.withdraw(log, self.id);
        }
    }

    /// Appends and tells the other sessions. What cannot be done at once is done in a task of its own: what is durable is announced
    /// even if the connection that brought it is gone by then.
    fn append(&mut self, log: LogId, push: u32, entries: Vec<Entry>) {
        let (relay, id) = (self.relay.clone(), self.id);
        let mut append = relay.store.append(log.clone(), entries);
        let tell = move |appended: Result<Appended, StoreError>| {
            let appended = appended?;
            let (outcome, failed) = (appended.outcome.clone(), appended.failed.clone());
            relay.hub.publish(&log, id, appended);
            match failed {
                None => Ok(outcome),
                Some(error) => Err(NotStored { error, appended: outcome.appended }),
            }
        };
        if let Some(appended) = (&mut append).now_or_never() {
            self.others_first = true;
            return self.take_done(Done::Appended(push, tell(appended)));
        }
        let task = tokio::spawn(async move { tell(append.await) });
        let failed = |e: tokio::task::JoinError| Err(StoreError::Failed(e.to_string()).into());
        let done = task.map(move |outcome| Done::Appended(push, outcome.unwrap_or_else(failed)));
        self.under_way.push(done.boxed());
    }

    fn take_frame(&mut self, bytes: &[u8]) {
        let opened = frame::opened_len(bytes).min(motet_proto::limits::FRAME_BYTES);
        let message = beside_others(opened, || frame::decode(bytes));
        let entries = match &message {
            Ok(Message::Push(push)) => push.entries.iter().map(Entry::size).sum(),
            _ => 0,
        };
        // What was opened for nothing counts as well.
        self.charge(opened.max(entries));
        match message {
            Ok(Message::Hello(hello)) => {
                self.device.get_or_insert(hello.device);
                tracing::debug!(session = self.id, device = %hello.device, agent = hello.agent, "hello");
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
            Err(RecvError::Lagged(_)) => {
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

/// A number between 0 and 1.
fn random_part() -> f64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0) as f64 / u64::MAX as f64
}

async fn next_event(hub: &mut Option<Receiver<HubEvent>>) -> Result<HubEvent, RecvError> {
    match hub {
        Some(hub) => hub.recv().await,
        None => std::future::pending().await,
    }
}

/// Encodes a message. Only those with entries are large.
fn encode(message: &Message) -> Vec<u8> {
    let entries = match message {
        Message::Page(page) => &page.entries[..],
        Message::Fetched(fetched) => &fetched.entries[..],
        _ => &[],
    };
    beside_others(entries.iter().map(Entry::size).sum(), || frame::encode(message))
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

/// The first frame of what has come of a body; `None` if it is not whole yet.
fn next_frame<'b>(body: &mut &'b [u8]) -> Option<Result<&'b [u8], FrameError>> {
    match frame::split_delimited(body) {
        Err(FrameError::Truncated) => None,
        frame => frame.transpose(),
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
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}

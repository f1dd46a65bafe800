//! One connection: joins the session state machine with the store, the hub and a socket.

use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use axum::body::Bytes;
use axum::extract::ws::{Message as WsMessage, WebSocket};
use futures_util::SinkExt;
use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::{FuturesUnordered, SplitStream, StreamExt};
use motet_proto::message::{ErrorCode, Fetch};
use motet_proto::presence::Presence;
use motet_proto::session::{AppendOutcome, DocumentPage, ReadOutcome, RelayEffect, RelaySession};
use motet_proto::{Entry, Message, frame};
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::hub::News;
use crate::limits;
use crate::server::Relay;
use crate::store::{Appended, LogId, LogStore, StoreError};

/// What the store has done for a session.
enum Done {
    Opened(Result<u64, StoreError>),
    Read(Result<ReadOutcome, StoreError>),
    Appended(u32, Result<AppendOutcome, StoreError>),
    Document(Fetch, Result<DocumentPage, StoreError>),
}

/// A session and what is under way for it.
struct Running {
    relay: Arc<Relay>,
    account: String,
    id: u64,
    session: RelaySession,
    log: Option<LogId>,
    hub: Option<Receiver<News>>,
    under_way: FuturesUnordered<BoxFuture<'static, Done>>,
    /// What is to be sent, encoded.
    frames: Vec<Vec<u8>>,
    closing: bool,
    /// Others were told something: they wait for it, while what this device gets is only a receipt.
    others_first: bool,
    /// Since when places are counted, and how many there were.
    places: (Instant, u32),
    /// Where the device said that it is, and whether the others still believe it.
    place: Option<Presence>,
    is_present: bool,
    /// When something was received last, and whether it was asked since then whether it is there.
    heard: Instant,
    probed: bool,
}

/// Serves a WebSocket until either side is done with it.
pub(crate) async fn serve_socket(relay: Arc<Relay>, account: String, id: u64, socket: WebSocket) {
    let (mut sink, mut stream) = socket.split();
    let (outgoing, mut to_send) = mpsc::channel::<Vec<u8>>(limits::QUEUED_FRAMES);
    let sender = tokio::spawn(async move {
        while let Some(frame) = to_send.recv().await {
            if sink.send(WsMessage::Binary(Bytes::from(frame))).await.is_err() {
                return;
            }
        }
        _ = sink.close().await;
    });
    let mut running = Running::new(relay, account, id);
    tracing::debug!(session = id, "opened");
    running.serve(&mut stream, &outgoing).await;
    drop(outgoing);
    // The last frames, an error among them, should get out; a peer that does not read is not waited for.
    _ = timeout(limits::SHUTDOWN_GRACE, sender).await;
    tracing::debug!(session = id, "closed");
}

/// Answers the messages of one `POST`.
pub(crate) async fn serve_post(relay: Arc<Relay>, account: String, id: u64, mut body: &[u8]) -> Vec<u8> {
    let mut running = Running::new(relay, account, id);
    let mut answer = Vec::new();
    loop {
        running.settle().await;
        for frame in running.frames.drain(..) {
            answer.extend_from_slice(&(frame.len() as u32).to_be_bytes());
            answer.extend_from_slice(&frame);
        }
        // What is not taken in here is not answered, and the device sends it again.
        if running.closing || answer.len() > limits::POST_ANSWER_BYTES {
            return answer;
        }
        match frame::split_delimited(&mut body) {
            Ok(None) => return answer,
            Ok(Some(bytes)) => running.take_frame(bytes),
            Err(error) => running.session.handle_bad_frame(error.to_string()),
        }
    }
}

impl Running {
    fn new(relay: Arc<Relay>, account: String, id: u64) -> Self {
        let agent = concat!("motet-relay/", env!("CARGO_PKG_VERSION")).to_owned();
        Self {
            relay,
            account,
            id,
            session: RelaySession::new(id, agent),
            log: None,
            hub: None,
            under_way: FuturesUnordered::new(),
            frames: Vec::new(),
            closing: false,
            others_first: false,
            places: (Instant::now(), 0),
            place: None,
            is_present: false,
            heard: Instant::now(),
            probed: false,
        }
    }

    async fn serve(&mut self, stream: &mut SplitStream<WebSocket>, outgoing: &mpsc::Sender<Vec<u8>>) {
        let mut stopping = self.relay.stopping.clone();
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
            let saturated = self.session.is_saturated();
            let silence = self.next_silence();
            tokio::select! {
                received = timeout(patience, stream.next()), if !saturated => match received {
                    Ok(Some(Ok(WsMessage::Binary(bytes)))) => {
                        self.note_heard();
                        self.take_frame(&bytes);
                    }
                    Ok(Some(Ok(WsMessage::Ping(_) | WsMessage::Pong(_)))) => self.note_heard(),
                    Ok(Some(Ok(WsMessage::Text(_)))) => self.session.handle_bad_frame("text instead of a frame".into()),
                    Ok(Some(Ok(WsMessage::Close(_))) | None) => return,
                    Ok(Some(Err(error))) => {
                        tracing::debug!(session = self.id, %error, "the connection broke");
                        return;
                    }
                    Err(_) => self.session.handle_failure(ErrorCode::Protocol, "nothing was heard for too long"),
                },
                news = next_news(&mut self.hub) => self.take_news(news),
                Some(done) = self.under_way.next() => self.take_done(done),
                () = until(silence), if !saturated => self.take_silence(),
                _ = stopping.wait_for(|stopping| *stopping) => {
                    self.session.handle_failure(ErrorCode::ShuttingDown, "the relay is stopping");
                }
            }
        }
    }

    /// False if the connection takes no more. A device that takes nothing may be one that is not there any more.
    async fn send(&mut self, outgoing: &mpsc::Sender<Vec<u8>>, frame: Vec<u8>) -> bool {
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
            Done::Opened(Ok(head)) => self.session.handle_opened(head),
            Done::Read(Ok(outcome)) => self.session.handle_read(outcome),
            Done::Appended(push, Ok(outcome)) => self.session.handle_appended(push, outcome),
            Done::Document(fetch, Ok(page)) => self.session.handle_document(fetch, page),
            Done::Opened(Err(error))
            | Done::Read(Err(error))
            | Done::Appended(_, Err(error))
            | Done::Document(_, Err(error)) => {
                let code = match error {
                    StoreError::Closed => ErrorCode::ShuttingDown,
                    StoreError::Busy => ErrorCode::Busy,
                    _ => ErrorCode::Internal,
                };
                self.session.handle_failure(code, &error.to_string());
            }
        }
    }

    fn carry_out(&mut self) {
        while let Some(effect) = self.session.poll_effect() {
            match effect {
                RelayEffect::Send(message) => self.frames.push(frame::encode(&message)),
                RelayEffect::Open { space } => {
                    let log = LogId { account: self.account.clone(), space };
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
                    let relay = self.relay.clone();
                    self.under_way
                        .push(async move { Done::Read(relay.store.read(&log, after).await) }.boxed());
                }
                RelayEffect::ReadDocument(fetch) => {
                    let Some(log) = self.log.clone() else { continue };
                    let relay = self.relay.clone();
                    let read = async move {
                        let Fetch { document, after, whole, .. } = fetch;
                        Done::Document(fetch, relay.store.read_document(&log, document, after, whole).await)
                    };
                    self.under_way.push(read.boxed());
                }
                // Who tells more often than an eye can follow is not passed on; the next one says all.
                RelayEffect::Presence(_) if !self.may_tell() => {}
                RelayEffect::Presence(presence) => {
                    self.place = Some(presence).filter(|presence| !presence.sealed.is_empty());
                    match &self.place {
                        Some(_) => self.present(),
                        None => self.withdraw(),
                    }
                }
                RelayEffect::Close => self.closing = true,
            }
        }
    }

    /// Whether the device may tell the others where it is once more.
    fn may_tell(&mut self) -> bool {
        let (since, count) = &mut self.places;
        if since.elapsed() >= limits::PLACES_COUNTED_OVER {
            (*since, *count) = (Instant::now(), 0);
        }
        *count += 1;
        *count <= limits::PLACES
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
            failed.map_or(Ok(outcome), Err)
        };
        if let Some(appended) = (&mut append).now_or_never() {
            self.others_first = true;
            return self.take_done(Done::Appended(push, tell(appended)));
        }
        let task = tokio::spawn(async move { tell(append.await) });
        let failed = |e: tokio::task::JoinError| Err(StoreError::Failed(e.to_string()));
        let done = task.map(move |outcome| Done::Appended(push, outcome.unwrap_or_else(failed)));
        self.under_way.push(done.boxed());
    }

    fn take_frame(&mut self, bytes: &[u8]) {
        match frame::decode(bytes) {
            Ok(Message::Hello(hello)) => {
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

    fn take_news(&mut self, news: Result<News, RecvError>) {
        match news {
            Ok(News::Committed(run)) => self.session.handle_committed(&run),
            Ok(News::Presence(presence)) => self.session.handle_presence(&presence),
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

async fn next_news(hub: &mut Option<Receiver<News>>) -> Result<News, RecvError> {
    match hub {
        Some(hub) => hub.recv().await,
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

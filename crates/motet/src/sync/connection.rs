//! One open connection: frames out, frames in, over WebSocket; [`post`] does the same by `POST`.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use motet_proto::{Message, frame, limits as proto};
use reqwest::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE};
use reqwest::{Response, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::{client::generate_key, derive_accept_key};
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Bytes, Message as WsMessage};

use super::answers::{self, Refused, offline, relay_error, root_cause};
use super::endpoint::Endpoint;
use super::{Transport, post};
use crate::error::SyncError;
use crate::limits;

/// An open connection. Dropping it closes it.
pub(super) struct Connection {
    pub(super) outgoing: mpsc::Sender<Message>,
    pub(super) incoming: mpsc::Receiver<Result<Message, SyncError>>,
    /// Entries arrive as they commit; otherwise only when asked for.
    pub(super) live: bool,
}

/// Bytes sent and received as they pass the socket (before TLS), and messages sent, of all connections to a relay.
#[derive(Debug)]
pub(super) struct Traffic {
    up: AtomicU64,
    down: AtomicU64,
    messages_up: AtomicU64,
    started: Instant,
    /// When something was received last, and until when what was sent may be under way, in milliseconds since the start.
    heard_at: AtomicU64,
    busy_until: AtomicU64,
    /// Until when what was received may be taken in, and when that was done last.
    works_until: AtomicU64,
    /// The same of what is made ready to be sent.
    loads_until: AtomicU64,
}

impl Default for Traffic {
    fn default() -> Self {
        let zero = || AtomicU64::new(0);
        let (up, down, messages_up, heard_at, busy_until) = (zero(), zero(), zero(), zero(), zero());
        let (works_until, loads_until) = (zero(), zero());
        let started = Instant::now();
        Self { up, down, messages_up, started, heard_at, busy_until, works_until, loads_until }
    }
}

impl Traffic {
    /// Whether the relay has been silent for longer than `patience` and the time that what was sent may take. Bytes that
    /// the system has taken are not there yet: a slow connection is silent for a minute while a batch goes out.
    pub(super) fn is_silent(&self, patience: Duration) -> bool {
        let since = self.heard_at.load(Ordering::Relaxed).max(self.busy_until.load(Ordering::Relaxed));
        self.started.elapsed() > Duration::from_millis(since) + patience
    }

    /// Whether nothing goes on: the relay is silent, nothing that it has sent is being taken in, and nothing is made ready to be sent.
    pub(super) fn is_idle(&self, patience: Duration) -> bool {
        let works_until =
            self.works_until.load(Ordering::Relaxed).max(self.loads_until.load(Ordering::Relaxed));
        self.is_silent(patience) && self.started.elapsed() > Duration::from_millis(works_until) + patience
    }

    /// Something is made ready to be sent, for `time` at most; zero: that was done. A large document takes its time.
    pub(super) fn loads(&self, time: Duration) {
        self.loads_until.store(self.now_ms() + time.as_millis() as u64, Ordering::Relaxed);
    }

    /// What was received is taken in, for `time` at most; zero: that was done.
    pub(super) fn works(&self, time: Duration) {
        self.works_until.store(self.now_ms() + time.as_millis() as u64, Ordering::Relaxed);
    }

    /// A connection begins: what was sent on others is of no account.
    fn begin(&self) {
        self.busy_until.store(0, Ordering::Relaxed);
        self.received(0);
    }

    /// Bytes up, bytes down, messages up so far.
    pub(super) fn now(&self) -> [u64; 3] {
        [&self.up, &self.down, &self.messages_up].map(|count| count.load(Ordering::Relaxed))
    }

    pub(super) fn sent(&self, bytes: usize, messages: usize) {
        self.up.fetch_add(bytes as u64, Ordering::Relaxed);
        self.messages_up.fetch_add(messages as u64, Ordering::Relaxed);
        let takes = bytes as u64 * 1_000 / limits::SLOWEST_BYTES_PER_SECOND;
        let busy_until = self.busy_until.load(Ordering::Relaxed).max(self.now_ms()) + takes;
        self.busy_until.store(busy_until, Ordering::Relaxed);
    }

    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    pub(super) fn received(&self, bytes: usize) {
        self.down.fetch_add(bytes as u64, Ordering::Relaxed);
        self.heard_at.store(self.now_ms(), Ordering::Relaxed);
    }
}

/// Opens a connection as the transport says. `hello` is what every `POST` begins with.
pub(super) async fn connect(
    client: &reqwest::Client,
    endpoint: &Endpoint,
    transport: Transport,
    token: Option<String>,
    hello: Message,
    traffic: Arc<Traffic>,
) -> Result<Connection, Refused> {
    traffic.begin();
    if transport != Transport::Post {
        match web_socket(client, endpoint, token.as_deref(), traffic.clone()).await {
            Ok(connection) => return Ok(connection),
            Err(NoSocket::PostMayWork(_)) if transport == Transport::Auto => {
                tracing::info!("the way to the relay lets no WebSocket through; trying POST");
            }
            Err(NoSocket::PostMayWork(error) | NoSocket::Refused(error)) => return Err(error),
        }
    }
    post::open(client, endpoint, token, hello, traffic).await
}

/// Why there is no WebSocket.
pub(super) enum NoSocket {
    /// Something on the way answers but does not speak WebSocket.
    PostMayWork(Refused),
    Refused(Refused),
}

impl From<Refused> for NoSocket {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

/// Opens a WebSocket.
pub(super) async fn web_socket(
    client: &reqwest::Client,
    endpoint: &Endpoint,
    token: Option<&str>,
    traffic: Arc<Traffic>,
) -> Result<Connection, NoSocket> {
    let key = generate_key();
    let mut request = client
        .get(endpoint.sync.clone())
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "websocket")
        .header(SEC_WEBSOCKET_VERSION, "13")
        .header(SEC_WEBSOCKET_KEY, &key);
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    let response = tokio::time::timeout(limits::CONNECT_TIMEOUT, request.send())
        .await
        .map_err(|_| Refused::Lost(offline("connecting took too long")))?
        .map_err(|e| answers::failed(&e, &endpoint.sync))?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let may_post = answers::may_post(&response);
        let refusal = answers::refusal(response).await;
        return Err(if may_post { NoSocket::PostMayWork(refusal) } else { NoSocket::Refused(refusal) });
    }
    let accept = response.headers().get(SEC_WEBSOCKET_ACCEPT).map(|value| value.as_bytes().to_vec());
    if accept.as_deref() != Some(derive_accept_key(key.as_bytes()).as_bytes()) {
        let reason = format!("what answers at {} speaks no WebSocket", endpoint.sync);
        return Err(NoSocket::PostMayWork(Refused::Settled(SyncError::NoRelay { reason })));
    }
    let upgraded = response.upgrade().await.map_err(|e| Refused::Lost(offline(&root_cause(&e))))?;
    let config = WebSocketConfig::default()
        .max_message_size(Some(proto::FRAME_BYTES))
        .max_frame_size(Some(proto::FRAME_BYTES))
        .max_write_buffer_size(2 * proto::FRAME_BYTES);
    let stream = Counted { stream: upgraded, traffic: traffic.clone() };
    let socket = WebSocketStream::from_raw_socket(stream, Role::Client, Some(config)).await;
    let (mut sink, mut stream) = socket.split();
    let (outgoing, mut to_send) = mpsc::channel::<Message>(limits::QUEUED_FRAMES);
    let (received, incoming) = mpsc::channel(limits::QUEUED_FRAMES);
    let counted = traffic.clone();
    tokio::spawn(async move {
        while let Some(message) = to_send.recv().await {
            let frame = frame::encode(&message);
            counted.sent(0, 1);
            if sink.send(WsMessage::Binary(Bytes::from(frame))).await.is_err() {
                // The reading half reports why.
                return;
            }
        }
        _ = sink.close().await;
    });
    tokio::spawn(async move {
        loop {
            let result = match stream.next().await {
                Some(Ok(WsMessage::Binary(bytes))) => {
                    frame::decode(&bytes).map_err(|e| relay_error(&e.to_string()))
                }
                Some(Ok(WsMessage::Ping(_) | WsMessage::Pong(_))) => continue,
                Some(Ok(WsMessage::Text(_) | WsMessage::Frame(_))) => Err(relay_error("it sent no frame")),
                Some(Ok(WsMessage::Close(_))) | None => Err(offline("the relay closed the connection")),
                Some(Err(error)) => Err(offline(&error.to_string())),
            };
            let over = result.is_err();
            if received.send(result).await.is_err() || over {
                return;
            }
        }
    });
    Ok(Connection { outgoing, incoming, live: true })
}

/// Counts what passes, also in the middle of a large frame: a slow connection is not a silent one.
struct Counted<S> {
    stream: S,
    traffic: Arc<Traffic>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        match buf.filled().len() - before {
            0 => {}
            read => self.traffic.received(read),
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        if let Poll::Ready(Ok(written)) = &polled {
            self.traffic.sent(*written, 0);
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Reads a body of at most `limit` bytes.
pub(super) async fn read_bounded(mut response: Response, limit: usize) -> Result<Vec<u8>, SyncError> {
    let mut body = Vec::new();
    let next =
        async |response: &mut Response| match tokio::time::timeout(proto::SILENCE, response.chunk()).await {
            Ok(chunk) => chunk.map_err(|e| offline(&root_cause(&e))),
            Err(_) => Err(offline("the relay stopped answering")),
        };
    while let Some(chunk) = next(&mut response).await? {
        if body.len() + chunk.len() > limit {
            return Err(relay_error("its answer is too large"));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

//! One open connection: frames out, frames in, over WebSocket or `POST`.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use motet_proto::frame::{split_delimited, write_delimited};
use motet_proto::{Message, frame, limits as proto};
use reqwest::header::{
    CONNECTION, CONTENT_TYPE, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use reqwest::{Response, StatusCode, Url};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::{client::generate_key, derive_accept_key};
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Bytes, Message as WsMessage};

use super::Transport;
use crate::error::SyncError;
use crate::limits;

/// Where sync messages go, under the relay's address.
const SYNC_PATH: &str = "v1/sync";

/// A relay's address in its normal form.
#[derive(Clone, Debug)]
pub(super) struct Endpoint {
    /// As the store knows the remote.
    pub(super) url: String,
    sync: Url,
}

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
}

impl Default for Traffic {
    fn default() -> Self {
        let zero = || AtomicU64::new(0);
        let (up, down, messages_up, heard_at, busy_until) = (zero(), zero(), zero(), zero(), zero());
        Self { up, down, messages_up, started: Instant::now(), heard_at, busy_until, works_until: zero() }
    }
}

impl Traffic {
    /// Whether the relay has been silent for longer than `patience` and the time that what was sent may take. Bytes that
    /// the system has taken are not there yet: a slow connection is silent for a minute while a batch goes out.
    pub(super) fn is_silent(&self, patience: Duration) -> bool {
        let since = self.heard_at.load(Ordering::Relaxed).max(self.busy_until.load(Ordering::Relaxed));
        self.started.elapsed() > Duration::from_millis(since) + patience
    }

    /// Whether nothing goes on: the relay is silent, and nothing that it has sent is being taken in.
    pub(super) fn is_idle(&self, patience: Duration) -> bool {
        let works_until = Duration::from_millis(self.works_until.load(Ordering::Relaxed));
        self.is_silent(patience) && self.started.elapsed() > works_until + patience
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

    fn sent(&self, bytes: usize, messages: usize) {
        self.up.fetch_add(bytes as u64, Ordering::Relaxed);
        self.messages_up.fetch_add(messages as u64, Ordering::Relaxed);
        let takes = bytes as u64 * 1_000 / limits::SLOWEST_BYTES_PER_SECOND;
        let busy_until = self.busy_until.load(Ordering::Relaxed).max(self.now_ms()) + takes;
        self.busy_until.store(busy_until, Ordering::Relaxed);
    }

    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    fn received(&self, bytes: usize) {
        self.down.fetch_add(bytes as u64, Ordering::Relaxed);
        self.heard_at.store(self.now_ms(), Ordering::Relaxed);
    }
}

/// Why a connection was not opened.
pub(super) enum ConnectError {
    /// The relay refused the token.
    Unauthorized(String),
    /// Nobody is there: no connection was made at all.
    Away(SyncError),
    Other(SyncError),
}

impl Endpoint {
    pub(super) fn parse(text: &str) -> Result<Self, SyncError> {
        let bad = |reason: String| SyncError::BadUrl { url: text.to_owned(), reason };
        let http = match text.split_once("://") {
            Some(("ws", rest)) => format!("http://{rest}"),
            Some(("wss", rest)) => format!("https://{rest}"),
            Some(("http" | "https", _)) => text.to_owned(),
            _ => return Err(bad("it must begin with http://, https://, ws:// or wss://".into())),
        };
        let mut base = Url::parse(&http).map_err(|e| bad(e.to_string()))?;
        if !base.username().is_empty() || base.password().is_some() {
            return Err(bad("it must not hold a user name or password".into()));
        }
        base.set_query(None);
        base.set_fragment(None);
        if !base.path().ends_with('/') {
            base.set_path(&format!("{}/", base.path()));
        }
        let sync = base.join(SYNC_PATH).map_err(|e| bad(e.to_string()))?;
        Ok(Self { url: base.to_string(), sync })
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
) -> Result<Connection, ConnectError> {
    traffic.begin();
    if transport != Transport::Post {
        match web_socket(client, endpoint, token.as_deref(), traffic.clone()).await {
            Ok(Some(connection)) => return Ok(connection),
            Ok(None) if transport == Transport::Auto => {
                tracing::info!("the way to the relay lets no WebSocket through; using POST");
            }
            Ok(None) => {
                let reason = "the way to the relay lets no WebSocket through".into();
                return Err(ConnectError::Other(SyncError::Offline { reason }));
            }
            Err(error) => return Err(error),
        }
    }
    post(client, endpoint, token, hello, traffic).await
}

/// `None` if something on the way answers but does not speak WebSocket.
async fn web_socket(
    client: &reqwest::Client,
    endpoint: &Endpoint,
    token: Option<&str>,
    traffic: Arc<Traffic>,
) -> Result<Option<Connection>, ConnectError> {
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
        .map_err(|_| ConnectError::Other(offline("connecting took too long")))?
        .map_err(|e| failed(&e))?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return match refusal(response).await {
            ConnectError::Other(SyncError::Relay { .. }) => Ok(None),
            error => Err(error),
        };
    }
    let accept = response.headers().get(SEC_WEBSOCKET_ACCEPT).map(|value| value.as_bytes().to_vec());
    if accept.as_deref() != Some(derive_accept_key(key.as_bytes()).as_bytes()) {
        return Ok(None);
    }
    let upgraded = response.upgrade().await.map_err(|e| ConnectError::Other(offline(&root_cause(&e))))?;
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
    Ok(Some(Connection { outgoing, incoming, live: true }))
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

/// A connection that is none: each exchange is a `POST` that begins with the greeting.
async fn post(
    client: &reqwest::Client,
    endpoint: &Endpoint,
    token: Option<String>,
    hello: Message,
    traffic: Arc<Traffic>,
) -> Result<Connection, ConnectError> {
    let (outgoing, mut to_send) = mpsc::channel::<Message>(limits::QUEUED_FRAMES);
    let (received, incoming) = mpsc::channel(limits::QUEUED_FRAMES);
    let exchange =
        Exchange { client: client.clone(), url: endpoint.sync.clone(), token, traffic: traffic.clone() };
    // The first exchange tells whether the relay is there and the token is good.
    let welcome = exchange.run(&hello, &[]).await?;
    tokio::spawn(async move {
        for message in welcome {
            _ = received.send(Ok(message)).await;
        }
        while let Some(first) = to_send.recv().await {
            let mut batch = vec![first];
            while let Ok(next) = to_send.try_recv() {
                batch.push(next);
            }
            batch.retain(|message| !matches!(message, Message::Hello(_)));
            if batch.is_empty() {
                continue;
            }
            let answers = match exchange.run_with_retries(&hello, &batch).await {
                // The greeting was answered before.
                Ok(answers) => {
                    answers.into_iter().filter(|m| !matches!(m, Message::Welcome(_))).map(Ok).collect()
                }
                Err(ConnectError::Unauthorized(reason)) => vec![Err(SyncError::AuthNeeded { reason })],
                Err(ConnectError::Away(error) | ConnectError::Other(error)) => vec![Err(error)],
            };
            for answer in answers {
                let over = answer.is_err();
                if received.send(answer).await.is_err() || over {
                    return;
                }
            }
        }
    });
    Ok(Connection { outgoing, incoming, live: false })
}

struct Exchange {
    client: reqwest::Client,
    url: Url,
    token: Option<String>,
    traffic: Arc<Traffic>,
}

impl Exchange {
    /// Tries again what was lost on the way: asked twice, the relay answers twice, and an entry that it holds already it does not
    /// take again.
    async fn run_with_retries(
        &self,
        hello: &Message,
        messages: &[Message],
    ) -> Result<Vec<Message>, ConnectError> {
        for delay in limits::EXCHANGE_RETRY_DELAYS {
            match self.run(hello, messages).await {
                Err(ConnectError::Other(error @ SyncError::Offline { .. })) => {
                    tracing::debug!(%error, "an exchange is tried again");
                }
                done => return done,
            }
            tokio::time::sleep(delay).await;
        }
        self.run(hello, messages).await
    }

    async fn run(&self, hello: &Message, messages: &[Message]) -> Result<Vec<Message>, ConnectError> {
        let mut body = Vec::new();
        write_delimited(hello, &mut body);
        messages.iter().for_each(|message| write_delimited(message, &mut body));
        self.traffic.sent(body.len(), 1 + messages.len());
        let mut request = self.client.post(self.url.clone()).header(CONTENT_TYPE, "application/vnd.motet");
        let patience =
            proto::SILENCE + Duration::from_secs(body.len() as u64 / limits::SLOWEST_BYTES_PER_SECOND);
        request = request.body(body);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        let sent = tokio::time::timeout(patience, request.send()).await;
        let response = sent.map_err(|_| silent())?.map_err(|e| failed(&e))?;
        if response.status() != StatusCode::OK {
            return Err(refusal(response).await);
        }
        let body = read_bounded(response, limits::EXCHANGE_BYTES).await.map_err(ConnectError::Other)?;
        self.traffic.received(body.len());
        let mut rest = &body[..];
        let mut answers = Vec::new();
        let broken = |e: frame::FrameError| ConnectError::Other(relay_error(&e.to_string()));
        while let Some(bytes) = split_delimited(&mut rest).map_err(broken)? {
            answers.push(frame::decode(bytes).map_err(broken)?);
        }
        Ok(answers)
    }
}

/// Reads a body of at most `limit` bytes.
async fn read_bounded(mut response: Response, limit: usize) -> Result<Vec<u8>, SyncError> {
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

/// What an HTTP status that is not the one hoped for means.
async fn refusal(response: Response) -> ConnectError {
    let status = response.status();
    let text = match read_bounded(response, limits::REFUSAL_BYTES).await {
        Ok(body) => String::from_utf8_lossy(&body).trim().to_owned(),
        Err(_) => String::new(),
    };
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            let reason = if text.is_empty() { "the relay refused the token".into() } else { text };
            ConnectError::Unauthorized(reason)
        }
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => ConnectError::Other(offline(&format!("the relay answers {status}"))),
        _ => ConnectError::Other(relay_error(&format!("it answers {status} {text}"))),
    }
}

fn failed(error: &reqwest::Error) -> ConnectError {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, TimedOut, UnexpectedEof};
    let offline = offline(&root_cause(error));
    let mut causes = std::iter::successors(std::error::Error::source(error), |cause| cause.source());
    let io = causes.find_map(|cause| cause.downcast_ref::<io::Error>()).map(io::Error::kind);
    // Somebody was there and was lost, in the middle of a TLS handshake for one.
    let was_there =
        matches!(io, Some(BrokenPipe | ConnectionAborted | ConnectionReset | TimedOut | UnexpectedEof));
    if error.is_connect() && !was_there { ConnectError::Away(offline) } else { ConnectError::Other(offline) }
}

fn silent() -> ConnectError {
    ConnectError::Other(offline("the relay stopped answering"))
}

fn offline(reason: &str) -> SyncError {
    SyncError::Offline { reason: reason.to_owned() }
}

fn relay_error(reason: &str) -> SyncError {
    SyncError::Relay { reason: reason.to_owned() }
}

/// The innermost error: "connection refused" rather than "error sending request".
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

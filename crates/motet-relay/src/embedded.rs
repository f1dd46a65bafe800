//! A relay without a listener, for programs that hold it and its devices.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::extract::ws::Message as WsMessage;
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use futures_util::{Sink, Stream, StreamExt, sink};
use motet_proto::limits::FRAME_BYTES;
use motet_proto::planted;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};

use crate::doors::Doors;
use crate::limits;
use crate::server::{self, Config, Opened, RunError};
use crate::session;
use crate::state::Relay;

/// A relay in the process of its devices: without a port, and without HTTP. Everything else is as [`run`](crate::run) has it: data that is
/// durable, accounts, limits, a lock on the folder. For tests of apps, demonstrations, and programs that hold several replicas.
///
/// [`close`](Self::close) ends its connections and gives the folder back. Dropping it cuts them, and the folder is free a moment later.
/// Everything that was acknowledged is durable at any time.
///
/// ```
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let folder = std::env::temp_dir().join(format!("motet-embedded-{}", std::process::id()));
/// let relay = motet_relay::Embedded::start(motet_relay::Config::new(&folder))?;
/// let (frames_to_relay, frames_from_relay) = relay.connect(None).await?;
/// # drop((frames_to_relay, frames_from_relay));
/// relay.close();
/// # std::fs::remove_dir_all(folder)?;
/// # Ok(())
/// # }
/// # tokio::runtime::Runtime::new()?.block_on(example())?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Embedded {
    relay: Arc<Relay>,
    doors: Arc<Doors>,
    stop: watch::Sender<bool>,
    /// There until it is dropped.
    runtime: Option<Runtime>,
}

/// Why a device is not connected to an [`Embedded`] relay.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The relay does not know the token, or there is none.
    #[error("{0}")]
    Unauthorized(String),
    /// There are too many connections already, or too many wrong tokens came lately. The same call may succeed later.
    #[error("{0}")]
    Busy(String),
    /// The relay has ended.
    #[error("the relay has ended")]
    Ended,
}

impl ConnectError {
    /// Stable code for logs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unauthorized(_) => "connect-unauthorized",
            Self::Busy(_) => "connect-busy",
            Self::Ended => "connect-ended",
        }
    }

    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Busy(_))
    }
}

impl Embedded {
    /// Opens the data, and begins to serve on threads of its own. [`Auth::Local`](crate::auth::Auth::Local) serves everybody in the process
    /// as one account.
    ///
    /// # Errors
    /// [`RunError::Store`] if the data cannot be used, [`RunError::Io`] if no thread can be started.
    pub fn start(config: Config) -> Result<Self, RunError> {
        // Its connections need no descriptors. And first: a runtime must not be dropped from within another one, and this may fail.
        let Opened { relay, stop, care } = server::open(config, u64::MAX, server::time_of_day)?;
        let runtime = crate::runtime()?;
        runtime.spawn(care);
        Ok(Self { relay, doors: Doors::new(u64::MAX), stop, runtime: Some(runtime) })
    }

    /// Connects a device: the frames that it sends, and those that it gets. Frames are as over a WebSocket: one that is larger than
    /// [`FRAME_BYTES`](motet_proto::limits::FRAME_BYTES) is an error of the sink. The stream ends when the relay does, or when it has nothing more to
    /// say to the device; what is sent from then on is dropped. [`QUEUED_FRAMES`](limits::QUEUED_FRAMES) wait in each direction, which no limit of bytes
    /// counts. Any executor will do.
    ///
    /// # Errors
    /// [`ConnectError`]; nothing is connected then.
    pub fn connect(
        &self,
        token: Option<&str>,
    ) -> impl Future<
        Output = Result<
            (
                impl Sink<Vec<u8>, Error = io::Error> + Send + Unpin + use<>,
                impl Stream<Item = Vec<u8>> + Send + Unpin + use<>,
            ),
            ConnectError,
        >,
    > + Send
    + use<> {
        let (relay, doors, token) = (self.relay.clone(), self.doors.clone(), token.map(str::to_owned));
        let connected = self.runtime.as_ref().map(|runtime| runtime.spawn(open(relay, doors, token)));
        async move {
            let ended = || ConnectError::Ended;
            let (to_relay, from_relay) = connected.ok_or_else(ended)?.await.map_err(|_| ended())??;
            Ok((Box::pin(sent(to_relay, Some)), Box::pin(received(from_relay).fuse())))
        }
    }

    /// Ends all connections, which are told so, and gives the data folder back: another relay may open it then. Waits for sessions for
    /// at most [`SHUTDOWN_GRACE`](limits::SHUTDOWN_GRACE); one that still writes then has the folder a little longer. Blocks the thread, so
    /// async code calls it on one for that.
    pub fn close(mut self) {
        _ = self.stop.send(true);
        let begun = Instant::now();
        // Sessions have a place until they have ended.
        while self.doors.open() > 0 && begun.elapsed() < limits::SHUTDOWN_GRACE {
            std::thread::sleep(Duration::from_millis(5));
        }
        if let Some(runtime) = self.runtime.take() {
            // Not from within another runtime, where waiting is forbidden.
            let left = limits::SHUTDOWN_GRACE.saturating_sub(begun.elapsed());
            let ends = std::thread::spawn(move || runtime.shutdown_timeout(left));
            _ = ends.join();
        }
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        _ = self.stop.send(true);
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl std::fmt::Debug for Embedded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Embedded").field("connections", &self.doors.open()).finish_non_exhaustive()
    }
}

/// A device's two channels to a session of its own.
pub(crate) type Channels = (mpsc::Sender<Vec<u8>>, mpsc::Receiver<Vec<u8>>);

pub(crate) async fn open(
    relay: Arc<Relay>,
    doors: Arc<Doors>,
    token: Option<String>,
) -> Result<Channels, ConnectError> {
    let mut headers = HeaderMap::new();
    if let Some(token) = &token {
        let value = HeaderValue::from_str(&format!("Bearer {token}"))
            .map_err(|_| ConnectError::Unauthorized("the token has characters that no token has".into()))?;
        headers.insert(AUTHORIZATION, value);
    }
    let busy = |reason: &str| ConnectError::Busy(reason.to_owned());
    let full = || busy("the relay, or the account, has too many connections open");
    let terms = relay.terms.borrow().clone();
    let place = doors.enter(IpAddr::V4(Ipv4Addr::LOCALHOST), &terms).ok_or_else(full)?;
    place.begin_request();
    place.become_session();
    let admitted = match relay.admit(&headers, &place).await {
        Ok(admitted) => admitted,
        Err(refusal) if refusal.status == StatusCode::UNAUTHORIZED => {
            let reason =
                if token.is_some() { refusal.reason.into_owned() } else { "a token is needed".into() };
            return Err(ConnectError::Unauthorized(reason));
        }
        Err(refusal) => return Err(busy(&refusal.reason)),
    };
    let most = planted::queue(limits::QUEUED_FRAMES);
    let (to_relay, from_device) = mpsc::channel::<Vec<u8>>(most);
    let (to_device, from_relay) = mpsc::channel::<Vec<u8>>(most);
    let incoming =
        received(from_device).map(|frame| Ok::<_, Infallible>(WsMessage::Binary(Bytes::from(frame))));
    let outgoing = sent(to_device, |message| match message {
        WsMessage::Binary(frame) => Some(Vec::from(frame)),
        _ => None,
    });
    let id = relay.next_session();
    tokio::spawn(session::serve_socket(relay, admitted, id, Box::pin(outgoing), Box::pin(incoming)));
    Ok((to_relay, from_relay))
}

fn received(receiver: mpsc::Receiver<Vec<u8>>) -> impl Stream<Item = Vec<u8>> + Send {
    futures_util::stream::unfold(receiver, |mut receiver| async move {
        let frame = receiver.recv().await?;
        Some((frame, receiver))
    })
}

/// Takes what becomes a frame; what does not is dropped.
fn sent<T: Send + 'static>(
    sender: mpsc::Sender<Vec<u8>>,
    frame: impl Fn(T) -> Option<Vec<u8>> + Send + 'static,
) -> impl Sink<T, Error = io::Error> + Send {
    sink::unfold((sender, frame), |(sender, frame), item: T| async move {
        match frame(item) {
            Some(frame) if frame.len() > FRAME_BYTES => {
                let reason = format!("a frame of {} bytes, at most {FRAME_BYTES} are allowed", frame.len());
                return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
            }
            // Whoever reads from the other side notices that it has ended.
            Some(frame) => _ = sender.send(frame).await,
            None => {}
        }
        Ok((sender, frame))
    })
}

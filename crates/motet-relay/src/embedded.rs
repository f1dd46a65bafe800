//! A relay without a listener, for programs that hold it and its devices.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::extract::ws::Message as WsMessage;
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use futures_util::{Sink, Stream, StreamExt, sink};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::doors::Doors;
use crate::limits;
use crate::server::{self, Config, Opened, RunError};
use crate::session;
use crate::state::Relay;

/// A relay in the process of its devices: without a port, and without HTTP. Everything else is as [`run`](crate::run) has it: data that is
/// durable, accounts, limits, a lock on the folder. For tests of apps, demonstrations, and programs that hold several replicas.
///
/// [`close`](Self::close) ends its connections and gives the folder back. Dropping it does the same without waiting for it. Everything that
/// was acknowledged is durable at any time.
///
/// ```
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// let folder = std::env::temp_dir().join(format!("motet-embedded-{}", std::process::id()));
/// let relay = motet_relay::Embedded::open(motet_relay::Config::new(&folder))?;
/// let (frames_to_relay, frames_from_relay) = relay.connect(None).await?;
/// # drop((frames_to_relay, frames_from_relay));
/// relay.close().await;
/// # std::fs::remove_dir_all(folder)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Embedded {
    relay: Arc<Relay>,
    doors: Arc<Doors>,
    stop: watch::Sender<bool>,
    care: JoinHandle<()>,
}

/// Why a device is not connected to an [`Embedded`] relay.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The relay does not know the token, or there is none.
    #[error("{0}")]
    Unauthorized(String),
    /// There are too many connections already. The same call may succeed later.
    #[error("{0}")]
    Busy(String),
}

impl ConnectError {
    /// Stable code for logs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unauthorized(_) => "connect-unauthorized",
            Self::Busy(_) => "connect-busy",
        }
    }

    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Busy(_))
    }
}

impl Embedded {
    /// Opens the data and begins to look after it, on the tokio runtime of the caller. [`Auth::Local`](crate::auth::Auth::Local) serves
    /// everybody in the process as one account.
    ///
    /// # Errors
    /// [`RunError::Store`] if the data cannot be used.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn open(config: Config) -> Result<Self, RunError> {
        let Opened { relay, stop, care } = server::open(config)?;
        Ok(Self { relay, doors: Doors::new(), stop, care: tokio::spawn(care) })
    }

    /// Connects a device: the frames that it sends, and those that it gets. Frames are as over a WebSocket. Both end when the relay
    /// does, or when it has nothing more to say to the device.
    ///
    /// # Errors
    /// [`ConnectError`]; nothing is connected then.
    pub async fn connect(
        &self,
        token: Option<&str>,
    ) -> Result<
        (
            impl Sink<Vec<u8>, Error = std::io::Error> + Send + use<>,
            impl Stream<Item = Vec<u8>> + Send + Unpin + use<>,
        ),
        ConnectError,
    > {
        let mut headers = HeaderMap::new();
        if let Some(token) = token {
            let value = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| {
                ConnectError::Unauthorized("the token has characters that no token has".into())
            })?;
            headers.insert(AUTHORIZATION, value);
        }
        let busy = || ConnectError::Busy("the relay has too many connections open".into());
        let terms = self.relay.terms.borrow().clone();
        let place = self.doors.enter(IpAddr::V4(Ipv4Addr::LOCALHOST), &terms).ok_or_else(busy)?;
        place.begin_request();
        place.become_session();
        let admitted = match self.relay.admit(&headers, &place).await {
            Ok(admitted) => admitted,
            Err(refusal) if refusal.status() == StatusCode::UNAUTHORIZED => {
                let reason = if token.is_some() { "the token is not valid" } else { "a token is needed" };
                return Err(ConnectError::Unauthorized(reason.into()));
            }
            Err(_) => return Err(busy()),
        };
        let (to_relay, from_device) = mpsc::channel::<Vec<u8>>(limits::QUEUED_FRAMES);
        let (to_device, from_relay) = mpsc::channel::<Vec<u8>>(limits::QUEUED_FRAMES);
        let incoming = received(from_device)
            .map(|frame| Ok::<_, std::convert::Infallible>(WsMessage::Binary(Bytes::from(frame))));
        let outgoing = sent(to_device, |message| match message {
            WsMessage::Binary(frame) => Some(Vec::from(frame)),
            _ => None,
        });
        let (relay, id) = (self.relay.clone(), self.relay.next_session());
        tokio::spawn(async move {
            session::serve_socket(relay, admitted, id, Box::pin(outgoing), Box::pin(incoming)).await;
        });
        Ok((sent(to_relay, Some), Box::pin(received(from_relay))))
    }

    /// Ends all connections, which are told so, and gives the data folder back: another relay may open it then. Waits for sessions for
    /// at most [`SHUTDOWN_GRACE`](limits::SHUTDOWN_GRACE); one that still writes then has the folder a little longer.
    pub async fn close(self) {
        _ = self.stop.send(true);
        self.care.abort();
        let begun = Instant::now();
        // Sessions and what they write hold the relay, and so does the care until it has ended.
        while Arc::strong_count(&self.relay) > 1 && begun.elapsed() < limits::SHUTDOWN_GRACE {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        _ = self.stop.send(true);
        self.care.abort();
    }
}

impl std::fmt::Debug for Embedded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Embedded").field("connections", &self.doors.open()).finish_non_exhaustive()
    }
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
) -> impl Sink<T, Error = std::io::Error> + Send {
    sink::unfold((sender, frame), |(sender, frame), item: T| async move {
        if let Some(frame) = frame(item) {
            sender.send(frame).await.map_err(|_| std::io::Error::from(std::io::ErrorKind::BrokenPipe))?;
        }
        Ok((sender, frame))
    })
}

//! A connection that the app brings.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Sink, SinkExt, Stream, StreamExt};
use motet_proto::{Message, frame, limits as proto};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::connection::{Connection, Refused, Traffic, offline, relay_error};
use crate::error::SyncError;
use crate::limits;

/// Opens connections to a relay by other means than HTTP: within one process, over a pipe, over a radio. See
/// [`Relay::through`](super::Relay::through).
///
/// ```
/// use std::pin::Pin;
/// use motet::{Connector, FrameChannel, SyncError};
///
/// struct Pipe;
///
/// impl Connector for Pipe {
///     fn connect(
///         &self,
///         token: Option<String>,
///     ) -> Pin<Box<dyn Future<Output = Result<FrameChannel, SyncError>> + Send>> {
///         Box::pin(async move {
///             let reason = "the pipe is not open".to_string();
///             Err(SyncError::Offline { reason, retry_after: None })
///         })
///     }
/// }
///
/// let relay = motet::Relay::through("pipe", Pipe);
/// ```
pub trait Connector: Send + Sync + 'static {
    /// Opens a connection. `token` is that of the [`Relay`](super::Relay), fresh if it has a provider. It must not block the thread; a
    /// connection that is not there within [`CONNECT_TIMEOUT`](crate::limits::CONNECT_TIMEOUT) is given up, and tried again later.
    ///
    /// # Errors
    /// [`SyncError::AuthNeeded`] if the token is not good: a provider is asked for another one. Whatever else becomes the replica's
    /// status as it is, and after a pause a connection is tried again.
    fn connect(
        &self,
        token: Option<String>,
    ) -> Pin<Box<dyn Future<Output = Result<FrameChannel, SyncError>> + Send>>;
}

/// An open connection to a relay that carries frames: whole, in order, each once. Dropping it closes it.
///
/// A frame has [`FRAME_BYTES`](motet_proto::limits::FRAME_BYTES) at most, most have less than 512 KiB. It has a check sum: one that is damaged on the
/// way ends the connection. A carrier that needs more than [`SILENCE`](motet_proto::limits::SILENCE) to bring a frame from the relay is taken for
/// broken, since nothing is heard meanwhile.
pub struct FrameChannel {
    outgoing: Pin<Box<dyn Sink<Vec<u8>, Error = io::Error> + Send>>,
    incoming: Pin<Box<dyn Stream<Item = io::Result<Vec<u8>>> + Send>>,
}

impl FrameChannel {
    /// A connection of two halves: what takes the frames that go to the relay, and those that come from there. The end of `incoming`,
    /// or an error of either, ends the connection. They are polled on the thread that syncs, so polling them must not block.
    pub fn new<E: fmt::Display>(
        outgoing: impl Sink<Vec<u8>, Error = E> + Send + 'static,
        incoming: impl Stream<Item = io::Result<Vec<u8>>> + Send + 'static,
    ) -> Self {
        let outgoing = outgoing.sink_map_err(|error: E| io::Error::other(error.to_string()));
        Self { outgoing: Box::pin(outgoing), incoming: Box::pin(incoming) }
    }
}

impl fmt::Debug for FrameChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameChannel").finish_non_exhaustive()
    }
}

pub(super) async fn open(
    connector: &Arc<dyn Connector>,
    token: Option<String>,
    traffic: Arc<Traffic>,
) -> Result<Connection, Refused> {
    match timeout(limits::CONNECT_TIMEOUT, connector.connect(token)).await {
        Ok(Ok(channel)) => Ok(carry(channel, Counted::Frames, traffic)),
        Ok(Err(SyncError::AuthNeeded { reason })) => Err(Refused::Unauthorized { reason, date: None }),
        Ok(Err(error)) => Err(Refused::Settled(error)),
        Err(_) => Err(Refused::Lost(offline("connecting took too long"))),
    }
}

/// What counts the bytes that pass on a channel.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Counted {
    /// Whoever carries the frames.
    Frames,
    /// The channel itself, as they pass a socket: a slow connection is not silent in the middle of a large frame.
    #[cfg(feature = "relay")]
    Below,
}

/// Carries messages over a channel of frames. An error of the channel that is [`io::ErrorKind::InvalidData`] is the relay's fault, any other
/// one means that it is not reached.
pub(super) fn carry(channel: FrameChannel, counted: Counted, traffic: Arc<Traffic>) -> Connection {
    let FrameChannel { outgoing: mut sink, incoming: mut stream } = channel;
    let (outgoing, mut to_send) = mpsc::channel::<Message>(limits::QUEUED_FRAMES);
    let (received, incoming) = mpsc::channel(limits::QUEUED_FRAMES);
    let (passed, ended) = (traffic.clone(), received.clone());
    let bytes_of = move |frame: &[u8]| if counted == Counted::Frames { frame.len() } else { 0 };
    tokio::spawn(async move {
        // When the session is over, what is under way has a moment to get out, however slow the app takes it.
        let over = async move {
            ended.closed().await;
            tokio::time::sleep(proto::SILENCE).await;
        };
        let sending = async move {
            while let Some(message) = to_send.recv().await {
                let frame = frame::encode(&message);
                let slow = Duration::from_secs(frame.len() as u64 / limits::SLOWEST_BYTES_PER_SECOND);
                // Before: while it goes out, the relay is not silent.
                passed.sent(bytes_of(&frame), 1);
                if !matches!(timeout(proto::SILENCE + slow, sink.send(frame)).await, Ok(Ok(()))) {
                    // The reading half reports why, or that nothing comes back.
                    return;
                }
            }
            _ = timeout(proto::SILENCE, sink.close()).await;
        };
        tokio::select! {
            () = sending => {}
            () = over => {}
        }
    });
    tokio::spawn(async move {
        loop {
            let next = tokio::select! {
                next = stream.next() => next,
                // Nobody listens any more: the stream is let go of, however long it would still be silent.
                () = received.closed() => return,
            };
            let result = match next {
                Some(Ok(bytes)) if bytes.len() > proto::FRAME_BYTES => {
                    Err(relay_error("it sent a frame that is too large"))
                }
                Some(Ok(bytes)) => {
                    traffic.received(bytes_of(&bytes));
                    frame::decode(&bytes).map_err(|e| relay_error(&e.to_string()))
                }
                Some(Err(error)) if error.kind() == io::ErrorKind::InvalidData => {
                    Err(relay_error(&error.to_string()))
                }
                Some(Err(error)) => Err(offline(&error.to_string())),
                None => Err(offline("the relay closed the connection")),
            };
            let over = result.is_err();
            if received.send(result).await.is_err() || over {
                return;
            }
        }
    });
    Connection { outgoing, incoming, live: true }
}

//! A connection over WebSocket.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::{SinkExt, StreamExt, future};
use motet_proto::limits as proto;
use reqwest::StatusCode;
use reqwest::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::{client::generate_key, derive_accept_key};
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Bytes, Error as WsError, Message as WsMessage};

use super::answers::{self, root_cause};
use super::endpoint::Endpoint;
use crate::error::SyncError;
use crate::limits;
use crate::sync::connection::{Connection, Refused, Traffic, offline};
use crate::sync::connector::{self, FrameChannel};

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
pub(super) async fn open(
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
    let (sink, stream) = socket.split();
    let sink = sink.with(|frame| future::ready(Ok::<_, WsError>(WsMessage::Binary(Bytes::from(frame)))));
    let stream = stream.filter_map(|received| future::ready(frame_of(received))).fuse();
    Ok(connector::carry(FrameChannel::new(sink, stream), connector::Counted::Below, traffic))
}

/// The frame in a message; `None` if it is only a sign of life.
fn frame_of(received: Result<WsMessage, WsError>) -> Option<io::Result<Vec<u8>>> {
    Some(match received {
        Ok(WsMessage::Binary(bytes)) => Ok(bytes.into()),
        Ok(WsMessage::Ping(_) | WsMessage::Pong(_)) => return None,
        Ok(WsMessage::Close(_)) => Err(io::Error::other("the relay closed the connection")),
        Ok(WsMessage::Text(_) | WsMessage::Frame(_)) => {
            Err(io::Error::new(io::ErrorKind::InvalidData, "it sent no frame"))
        }
        Err(error) => Err(io::Error::other(error)),
    })
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

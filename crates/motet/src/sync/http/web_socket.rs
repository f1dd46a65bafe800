//! A connection over WebSocket.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::{SinkExt, StreamExt};
use motet_proto::{Message, frame, limits as proto};
use reqwest::StatusCode;
use reqwest::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::{client::generate_key, derive_accept_key};
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Bytes, Message as WsMessage};

use super::answers::{self, root_cause};
use super::endpoint::Endpoint;
use crate::error::SyncError;
use crate::limits;
use crate::sync::connection::{Connection, Refused, Traffic, offline, relay_error};

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

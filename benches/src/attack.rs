//! Devices by hand, message by message, and a neighbour who only wants to write a little now and then.

use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use motet_proto::message::{ErrorMessage, Hello, Message, NotTaken, Push, Receipt};
use motet_proto::payload::Payload;
use motet_proto::{DeviceId, DocumentId, Entry, Kind, SpaceId, envelope, frame, limits};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error as WsError, Message as WsMessage};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

/// A connection that says what it is told to.
pub struct Peer {
    /// The socket.
    pub socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    next: u32,
}

impl Peer {
    /// Connects to the relay at `address`; an HTTP refusal is an error.
    ///
    /// # Errors
    /// What the WebSocket library says.
    pub async fn connect(address: &str, token: Option<&str>) -> Result<Self, WsError> {
        let mut request = format!("ws://{address}/v1/sync").into_client_request()?;
        if let Some(token) = token {
            request.headers_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        }
        let (socket, _) = tokio_tungstenite::connect_async(request).await?;
        Ok(Self { socket, next: 1 })
    }

    /// Connects and introduces itself; what the relay answers to that is returned with it.
    ///
    /// # Panics
    /// If the relay does not let it connect.
    pub async fn open(address: &str, token: Option<&str>, device: u8, space: SpaceId) -> (Self, Message) {
        let mut peer = Self::connect(address, token).await.unwrap();
        peer.send(&hello(DeviceId([device; 16]), space)).await;
        let answer = peer.receive().await.unwrap();
        (peer, answer)
    }

    /// The same in the default space, where it must be welcome.
    ///
    /// # Panics
    /// If it is not.
    pub async fn welcome(address: &str, token: Option<&str>, device: u8) -> Self {
        let (peer, answer) = Self::open(address, token, device, SpaceId::DEFAULT).await;
        assert!(matches!(answer, Message::Welcome(_)), "{answer:?}");
        peer
    }

    /// Sends a message. What the connection says to that shows when something is received.
    pub async fn send(&mut self, message: &Message) {
        _ = self.socket.send(WsMessage::Binary(frame::encode(message).into())).await;
    }

    /// Sends a frame as it is.
    pub async fn send_bytes(&mut self, frame: Vec<u8>) {
        _ = self.socket.send(WsMessage::Binary(frame.into())).await;
    }

    /// The next message; `None` when the connection has ended.
    pub async fn receive(&mut self) -> Option<Message> {
        loop {
            match self.socket.next().await? {
                Ok(WsMessage::Binary(bytes)) => return frame::decode(&bytes).ok(),
                Ok(WsMessage::Close(_)) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    /// Sends entries without waiting for what becomes of them.
    pub async fn start_push(&mut self, entries: Vec<Entry>) {
        self.next += 1;
        self.send(&Message::Push(Push { id: self.next, entries })).await;
    }

    /// Sends entries, and waits for the receipt.
    ///
    /// # Errors
    /// The relay's last words.
    pub async fn push(&mut self, entries: Vec<Entry>) -> Result<Receipt, Option<ErrorMessage>> {
        self.start_push(entries).await;
        loop {
            match self.receive().await {
                Some(Message::Receipt(receipt)) => return Ok(receipt),
                Some(Message::Error(error)) => return Err(Some(error)),
                Some(Message::NotTaken(NotTaken { code, message, .. })) => {
                    return Err(Some(ErrorMessage { code, message, window_ms: None }));
                }
                Some(_) => {}
                None => return Err(None),
            }
        }
    }
}

/// A device's first message.
pub fn hello(device: DeviceId, space: SpaceId) -> Message {
    let (version_min, version_max) = (limits::VERSION_MIN, limits::VERSION_MAX);
    Message::Hello(Hello {
        version_min,
        version_max,
        device,
        space,
        agent: "test".into(),
        account: None,
        log: None,
    })
}

/// An entry of the default space with `bytes` bytes that do not compress.
pub fn entry(document: u64, number: u64, kind: Kind, bytes: usize) -> Entry {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&document.to_le_bytes());
    let mut state =
        document.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ number.wrapping_mul(0xbf58_476d_1ce4_e5b9) | 1;
    let payload = (0..bytes.max(8))
        .map(|i| {
            (state, _) = (state ^ state << 13, ());
            (state, _) = (state ^ state >> 7, ());
            (state, _) = (state ^ state << 17, ());
            if i < 8 { number.to_le_bytes()[i] } else { state as u8 }
        })
        .collect();
    Entry::new(SpaceId::DEFAULT, DocumentId(id), DeviceId([7; 16]), kind, 0, payload)
}

/// A frame of some hundred bytes that opens to 9 MB: a message of this type with an unknown key, behind which arrays are nested.
///
/// # Panics
/// If zstd fails.
pub fn nested(kind: u8) -> Vec<u8> {
    let mut plain = vec![0xa2, 0x00, 0x01, 0x09];
    plain.resize(9 * 1_000_000, 0x81);
    plain.push(0x00);
    let body = zstd::bulk::compress(&plain, 1).unwrap();
    assert!(body.len() < 2_000);
    let check = blake3::Hasher::new().update(&[kind, 1]).update(&body).finalize();
    [&[kind, 1], &check.as_bytes()[..4], &body].concat()
}

/// An entry of a document of the default space, from a device that the others have not heard of, without a preview.
pub fn stranger(collection: &str, name: &str, kind: Kind, body: Vec<u8>) -> Entry {
    let document = DocumentId::derive(SpaceId::DEFAULT, collection, name);
    let payload = Payload {
        collection: collection.into(),
        name: name.into(),
        device_name: "stranger".into(),
        preview: None,
        body,
    };
    let sealed = envelope::seal_plain(&payload.encode());
    Entry::new(SpaceId::DEFAULT, document, DeviceId([9; 16]), kind, envelope::SUITE_PLAIN, sealed)
}

/// How long the pushes of a neighbour took.
#[derive(Clone, Debug, Default)]
pub struct Latencies {
    /// Sorted.
    pub times: Vec<Duration>,
    /// How often the relay refused one, or the connection was lost.
    pub refused: usize,
}

impl Latencies {
    /// The time that this share of pushes did not exceed.
    pub fn share(&self, share: f64) -> Duration {
        let last = self.times.len().saturating_sub(1);
        self.times.get((share * last as f64).round() as usize).copied().unwrap_or(Duration::MAX)
    }
}

/// Pushes one small entry every 20 ms for `time`, as a neighbour with an account of its own does.
///
/// # Panics
/// If it cannot connect at all.
pub async fn neighbour(address: &str, token: Option<&str>, seed: u64, time: Duration) -> Latencies {
    let mut peer = Peer::welcome(address, token, 200).await;
    let (mut latencies, begun) = (Latencies::default(), Instant::now());
    let mut due = tokio::time::interval(Duration::from_millis(20));
    due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut number = seed << 32;
    while begun.elapsed() < time {
        due.tick().await;
        number += 1;
        let sent = Instant::now();
        match peer.push(vec![entry(seed, number, Kind::Changes, 100)]).await {
            Ok(_) => latencies.times.push(sent.elapsed()),
            Err(_) => {
                latencies.refused += 1;
                if let Ok(mut again) = Peer::connect(address, token).await {
                    again.send(&hello(DeviceId([200; 16]), SpaceId::DEFAULT)).await;
                    if matches!(again.receive().await, Some(Message::Welcome(_))) {
                        peer = again;
                    }
                }
            }
        }
    }
    latencies.times.sort();
    latencies
}

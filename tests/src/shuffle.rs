//! A remote that delivers in any order, some of it late, some of it twice. It speaks the protocol over a real
//! socket; only its log is unlike any log.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::extract::ws::{Message as WsMessage, WebSocket, WebSocketUpgrade};
use motet_proto::message::{Outcome, Page, Receipt, Welcome};
use motet_proto::{DeviceId, Entry, Message, Position, frame};

/// A running remote.
pub struct ShufflingRelay {
    url: String,
    log: Arc<Mutex<Log>>,
    _runtime: tokio::runtime::Runtime,
}

struct Log {
    entries: Vec<Entry>,
    /// Per device: which entries it was given, and how many answers it had.
    given: HashMap<DeviceId, (Vec<usize>, u64)>,
    random: u64,
    hold_back: bool,
}

impl ShufflingRelay {
    /// Starts a remote whose whole behaviour follows from `seed`.
    pub fn start(seed: u64) -> Self {
        let log = Log { entries: Vec::new(), given: HashMap::new(), random: seed, hold_back: true };
        let log = Arc::new(Mutex::new(log));
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let app = Router::new().route("/v1/sync", axum::routing::get(upgrade)).with_state(log.clone());
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        runtime.spawn(async move { axum::serve(listener, app).await });
        Self { url, log, _runtime: runtime }
    }

    /// Where devices find it.
    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// From now on every pull is given everything that its device lacks.
    pub fn hold_back_nothing(&self) {
        self.log.lock().unwrap().hold_back = false;
    }
}

async fn upgrade(State(log): State<Arc<Mutex<Log>>>, upgrade: WebSocketUpgrade) -> axum::response::Response {
    upgrade.on_upgrade(move |socket| serve(log, socket))
}

async fn serve(log: Arc<Mutex<Log>>, mut socket: WebSocket) {
    let mut device = DeviceId([0; 16]);
    while let Some(Ok(message)) = socket.recv().await {
        let WsMessage::Binary(bytes) = message else { continue };
        let answer = match frame::decode(&bytes).unwrap() {
            Message::Hello(hello) => {
                device = hello.device;
                Message::Welcome(Welcome { version: 1, agent: "shuffling".into(), ..Welcome::default() })
            }
            Message::Push(push) => {
                let mut log = log.lock().unwrap();
                let outcomes = push.entries.into_iter().map(|entry| log.add(device, entry)).collect();
                Message::Receipt(Receipt { id: push.id, outcomes, position: None, after: 0 })
            }
            Message::Pull(pull) => Message::Page(log.lock().unwrap().page(device, pull.id)),
            Message::Ping(ping) => Message::Pong(ping),
            other => panic!("a device said {other:?}"),
        };
        if socket.send(WsMessage::Binary(frame::encode(&answer).into())).await.is_err() {
            return;
        }
    }
}

impl Log {
    fn add(&mut self, device: DeviceId, entry: Entry) -> Outcome {
        let at = self.entries.iter().position(|known| known.id == entry.id).unwrap_or_else(|| {
            self.entries.push(entry);
            self.entries.len() - 1
        });
        self.given.entry(device).or_default().0.push(at);
        // Positions of this log say nothing about its entries.
        Outcome::Stored(0)
    }

    fn page(&mut self, device: DeviceId, id: u32) -> Page {
        let (mut given, answers) = self.given.remove(&device).unwrap_or_default();
        let mut chosen = Vec::new();
        for at in 0..self.entries.len() {
            let is_new = !given.contains(&at);
            if (is_new && (!self.hold_back || self.below(3) > 0)) || (!is_new && self.below(4) == 0) {
                chosen.push(at);
            }
        }
        for i in (1..chosen.len()).rev() {
            let j = self.below(i as u64 + 1) as usize;
            chosen.swap(i, j);
        }
        given.extend(&chosen);
        let entries = chosen.iter().map(|at| self.entries[*at].clone()).collect();
        self.given.insert(device, (given, answers + 1));
        let position = Position { seq: answers + 1, tag: [7; 16] };
        Page { id: Some(id), entries, position, more: false, head: answers + 1, after: answers }
    }

    fn below(&mut self, n: u64) -> u64 {
        self.random =
            self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % n
    }
}

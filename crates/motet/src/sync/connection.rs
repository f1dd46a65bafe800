//! One open connection, whatever carries it: messages out, messages in, and what passes is counted.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use motet_proto::Message;
use tokio::sync::mpsc;
use tokio::time::Instant;

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
    /// When a message arrived last that brings a round on, and how many bytes had been received by then.
    brought_on: AtomicU64,
    down_then: AtomicU64,
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
        let (works_until, loads_until, brought_on, down_then) = (zero(), zero(), zero(), zero());
        let started = Instant::now();
        Self {
            up,
            down,
            messages_up,
            started,
            heard_at,
            brought_on,
            down_then,
            busy_until,
            works_until,
            loads_until,
        }
    }
}

impl Traffic {
    /// Whether the relay has been silent for longer than `patience` and the time that what was sent may take. Bytes that
    /// the system has taken are not there yet: a slow connection is silent for a minute while a batch goes out.
    pub(super) fn is_silent(&self, patience: Duration) -> bool {
        let since = self.heard_at.load(Ordering::Relaxed).max(self.busy_until.load(Ordering::Relaxed));
        self.started.elapsed() > Duration::from_millis(since) + patience
    }

    /// Whether nothing goes on: nothing has arrived that brings a round on, nothing that was received is being taken in, and nothing is made ready to be
    /// sent. Signs of life alone bring nothing on: a relay could send them for ever. A large message is on its way for as long as its bytes may take.
    pub(super) fn is_idle(&self, patience: Duration) -> bool {
        let [brought_on, down_then, down, busy, works, loads] = [
            &self.brought_on,
            &self.down_then,
            &self.down,
            &self.busy_until,
            &self.works_until,
            &self.loads_until,
        ]
        .map(|count| count.load(Ordering::Relaxed));
        let on_its_way = down.saturating_sub(down_then) * 1_000 / limits::SLOWEST_BYTES_PER_SECOND;
        let until = (brought_on + on_its_way).max(busy).max(works).max(loads);
        self.started.elapsed() > Duration::from_millis(until) + patience
    }

    /// A message has arrived that brings a round on.
    pub(super) fn brings_on(&self) {
        self.brought_on.store(self.now_ms(), Ordering::Relaxed);
        self.down_then.store(self.down.load(Ordering::Relaxed), Ordering::Relaxed);
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
    pub(super) fn begin(&self) {
        self.busy_until.store(0, Ordering::Relaxed);
        self.received(0);
        self.brings_on();
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

/// Why there is no connection, or no answer.
#[derive(Debug)]
pub(super) enum Refused {
    /// The relay refused the token, at a time by its clock.
    Unauthorized { reason: String, date: Option<SystemTime> },
    /// Asked again at once, it would be answered likewise.
    Settled(SyncError),
    /// Lost on the way.
    Lost(SyncError),
    /// What was sent is too large for the way to the relay, or for the relay.
    #[cfg(feature = "relay")]
    TooLarge(String),
}

pub(super) fn offline(reason: &str) -> SyncError {
    SyncError::Offline { reason: reason.to_owned(), retry_after: None }
}

pub(super) fn relay_error(reason: &str) -> SyncError {
    SyncError::Relay { reason: reason.to_owned() }
}

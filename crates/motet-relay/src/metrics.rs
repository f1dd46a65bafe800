//! What a relay counts of itself.
//!
//! The numbers stand in a registry of the relay's own, never in a global one: a program that embeds a relay keeps its own, and asks for
//! [`Metrics::text`] if it wants these. Labels hold names from lists of this crate alone: no account, no document, no address, so that their
//! number is bounded and a scrape tells nothing about people. Without the feature `metrics` nothing is counted.

#[cfg(not(feature = "metrics"))]
mod absent;
#[cfg(feature = "metrics")]
mod registered;

use std::sync::Arc;
use std::time::Duration;

#[cfg(not(feature = "metrics"))]
use absent::{Counter, Family, Gauge, Histogram, Registered};
#[cfg(feature = "metrics")]
use registered::{Counter, Family, Gauge, Histogram, Registered};

/// The numbers of one relay. Clones are handles on the same numbers.
#[derive(Clone, Default)]
pub struct Metrics(Arc<Registered>);

/// Why a limit refuses a request: the account has too many sessions.
pub(crate) const ACCOUNT_SESSIONS: &str = "account-sessions";

/// Likewise: the relay has too many sessions.
pub(crate) const SESSIONS: &str = "sessions";

/// How a device exchanges with the relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    WebSocket,
    Post,
}

/// What is known of the store, as far as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct StoreNumbers {
    pub(crate) is_full: bool,
    pub(crate) is_damaged: bool,
    pub(crate) queued_pushes: u64,
    pub(crate) queued_bytes: u64,
    pub(crate) stored_bytes: Option<u64>,
    pub(crate) free_bytes: Option<u64>,
}

/// Every number, by name. Counters only grow.
#[derive(Default)]
struct Numbers {
    sessions_open: Gauge,
    rounds: Family,
    refusals: Family,
    sign_in_refusals: Family,
    errors_sent: Family,
    entries_received: Counter,
    bytes_received: Counter,
    entries_sent: Counter,
    bytes_sent: Counter,
    push_seconds: Histogram,
    queued_pushes: Gauge,
    queued_bytes: Gauge,
    stored_bytes: Gauge,
    free_bytes: Gauge,
    disk_full: Gauge,
    damaged: Gauge,
}

/// A session that counts as open until it is dropped.
pub(crate) struct OpenSession(Metrics);

impl Way {
    fn name(self) -> &'static str {
        match self {
            Self::WebSocket => "websocket",
            Self::Post => "post",
        }
    }
}

impl Metrics {
    /// The numbers of a relay that has not counted anything.
    pub fn new() -> Self {
        Self::default()
    }

    /// All numbers in the text format of Prometheus, of which [`TEXT_TYPE`] is the content type.
    #[cfg(feature = "metrics")]
    pub fn text(&self) -> String {
        self.0.text()
    }

    pub(crate) fn open_session(&self) -> OpenSession {
        self.0.numbers.sessions_open.inc();
        OpenSession(self.clone())
    }

    /// A session or a `POST` was let in.
    pub(crate) fn note_round(&self, way: Way) {
        self.0.numbers.rounds.get_or_create(&[("way", way.name())]).inc();
    }

    /// A request of a known account was not let in.
    pub(crate) fn note_refusal(&self, reason: &'static str) {
        self.0.numbers.refusals.get_or_create(&[("reason", reason)]).inc();
    }

    /// A request was refused because of who sends it.
    pub(crate) fn note_sign_in_refusal(&self, reason: &'static str) {
        self.0.numbers.sign_in_refusals.get_or_create(&[("reason", reason)]).inc();
    }

    /// A session was told that it ends, or a push that it is not taken.
    pub(crate) fn note_error_sent(&self, code: &'static str) {
        self.0.numbers.errors_sent.get_or_create(&[("code", code)]).inc();
    }

    pub(crate) fn note_received(&self, entries: usize, bytes: usize) {
        self.0.numbers.entries_received.inc_by(entries as u64);
        self.0.numbers.bytes_received.inc_by(bytes as u64);
    }

    pub(crate) fn note_sent(&self, entries: usize, bytes: usize) {
        self.0.numbers.entries_sent.inc_by(entries as u64);
        self.0.numbers.bytes_sent.inc_by(bytes as u64);
    }

    /// A push is durable, so long after it was received.
    pub(crate) fn note_push(&self, took: Duration) {
        self.0.numbers.push_seconds.observe(took.as_secs_f64());
    }

    pub(crate) fn note_store(&self, store: StoreNumbers) {
        let numbers = &self.0.numbers;
        let set = |gauge: &Gauge, value: u64| {
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        };
        set(&numbers.disk_full, store.is_full.into());
        set(&numbers.damaged, store.is_damaged.into());
        set(&numbers.queued_pushes, store.queued_pushes);
        set(&numbers.queued_bytes, store.queued_bytes);
        set(&numbers.stored_bytes, store.stored_bytes.unwrap_or(0));
        set(&numbers.free_bytes, store.free_bytes.unwrap_or(0));
    }
}

impl Drop for OpenSession {
    fn drop(&mut self) {
        self.0.0.numbers.sessions_open.dec();
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// The content type of [`Metrics::text`].
#[cfg(feature = "metrics")]
pub const TEXT_TYPE: &str = prometheus_client::encoding::prometheus_text::CONTENT_TYPE;

#[cfg(all(test, feature = "metrics"))]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_is_printed() {
        let metrics = Metrics::new();
        let session = metrics.open_session();
        metrics.note_round(Way::WebSocket);
        metrics.note_round(Way::Post);
        metrics.note_received(3, 700);
        metrics.note_push(Duration::from_millis(3));
        metrics.note_store(StoreNumbers { is_full: true, free_bytes: Some(7), ..StoreNumbers::default() });
        let text = metrics.text();
        for line in [
            "motet_relay_sessions_open 1",
            "motet_relay_rounds_total{way=\"post\"} 1",
            "motet_relay_entries_received_total 3",
            "motet_relay_bytes_received_total 700",
            "motet_relay_push_seconds_bucket{le=\"0.004\"} 1",
            "motet_relay_push_seconds_count 1",
            "motet_relay_disk_full 1",
            "motet_relay_disk_free_bytes 7",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        drop(session);
        assert!(metrics.text().contains("motet_relay_sessions_open 0\n"));
        assert!(
            Metrics::new().text().contains("motet_relay_entries_received_total 0\n"),
            "nothing is shared"
        );
    }
}

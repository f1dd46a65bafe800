//! Numbers in a registry for Prometheus: each with its name and what it means.

use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::encoding::prometheus_text;
pub(super) use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family;
pub(super) use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram;
use prometheus_client::registry::Registry;

use super::{Numbers, Way};
use crate::limits;

/// One label, whose values are names of this crate.
type Label = [(&'static str, &'static str); 1];

/// Counters by a label.
pub(super) type Family = family::Family<Label, Counter>;

/// How long something took, in seconds.
#[derive(Clone)]
pub(super) struct Histogram(histogram::Histogram);

/// The numbers, and the registry that prints them.
pub(super) struct Registered {
    pub(super) numbers: Numbers,
    registry: Registry,
}

impl Default for Histogram {
    fn default() -> Self {
        Self(histogram::Histogram::new(limits::PUSH_SECONDS))
    }
}

impl Histogram {
    pub(super) fn observe(&self, seconds: f64) {
        self.0.observe(seconds);
    }
}

impl Default for Registered {
    fn default() -> Self {
        let numbers = Numbers::default();
        let mut registry = Registry::default();
        register(&mut registry, &numbers);
        Self { numbers, registry }
    }
}

impl Registered {
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        _ = prometheus_text::encode(&mut text, &self.registry);
        text
    }
}

fn register(registry: &mut Registry, numbers: &Numbers) {
    // What has not happened yet is 0, and not missing: a rate needs the first one as well.
    for way in [Way::WebSocket, Way::Post] {
        _ = numbers.rounds.get_or_create(&[("way", way.name())]);
    }
    for reason in [super::ACCOUNT_SESSIONS, super::SESSIONS] {
        _ = numbers.refusals.get_or_create(&[("reason", reason)]);
    }
    let build: family::Family<Label, Gauge> = family::Family::default();
    build.get_or_create(&[("version", env!("CARGO_PKG_VERSION"))]).set(1);
    registry.register("motet_relay_build_info", "1 for the version of the relay", build);
    let started: Gauge = Gauge::default();
    started.set(now());
    // As Prometheus names it for every program.
    registry.register(
        "process_start_time_seconds",
        "When the relay was started, in seconds since 1970",
        started,
    );
    let took = "Seconds from the receipt of a push until it is durable";
    registry.register("motet_relay_push_seconds", took, numbers.push_seconds.0.clone());
    for (name, help, gauge) in [
        ("sessions_open", "WebSocket sessions that are open", &numbers.sessions_open),
        ("queued_pushes", "Pushes that wait for the writer", &numbers.queued_pushes),
        ("queued_bytes", "Bytes of pushes that wait for the writer", &numbers.queued_bytes),
        ("stored_bytes", "Bytes of the database file and of its write-ahead log", &numbers.stored_bytes),
        ("disk_free_bytes", "Bytes that are free on the disk of the data folder", &numbers.free_bytes),
        ("disk_full", "1 if the relay takes nothing in because its disk is full", &numbers.disk_full),
        ("damaged", "1 if something in the database could not be read since the start", &numbers.damaged),
    ] {
        registry.register(format!("motet_relay_{name}"), help, gauge.clone());
    }
    for (name, help, counter) in [
        ("entries_received", "Entries that devices have pushed", &numbers.entries_received),
        ("bytes_received", "Bytes of frames from devices", &numbers.bytes_received),
        ("entries_sent", "Entries in frames to devices", &numbers.entries_sent),
        ("bytes_sent", "Bytes of frames to devices", &numbers.bytes_sent),
    ] {
        registry.register(format!("motet_relay_{name}"), help, counter.clone());
    }
    for (name, help, family) in [
        ("rounds", "Sessions and POST exchanges that were let in", &numbers.rounds),
        ("refusals", "Requests of known accounts that a limit has refused", &numbers.refusals),
        (
            "sign_in_refusals",
            "Requests that were refused because of who sends them",
            &numbers.sign_in_refusals,
        ),
        ("errors_sent", "Errors that sessions and pushes were answered with, by code", &numbers.errors_sent),
    ] {
        registry.register(format!("motet_relay_{name}"), help, family.clone());
    }
}

fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}

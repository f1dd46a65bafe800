//! Samples of the metrics over the last day. Each holds the differences to the sample before it.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use crate::limits;
use crate::metrics::Metrics;

/// Buckets of the time that pushes take; the last one has no upper bound.
const BUCKETS: usize = limits::PUSH_SECONDS.len() + 1;

/// The last [`limits::CONSOLE_SAMPLES`] samples, the latest at the end.
#[derive(Default)]
pub(super) struct Samples(Mutex<VecDeque<Sample>>);

/// A span of time.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sample {
    /// When it ended.
    pub(super) at: SystemTime,
    pub(super) took: Duration,
    /// Sessions that were open, at most.
    pub(super) sessions: u64,
    /// Entries that devices have pushed.
    pub(super) entries: u64,
    /// Errors that sessions and pushes were answered with.
    pub(super) errors: u64,
    /// Pushes by how long they took.
    pushes: [u64; BUCKETS],
}

/// The metrics at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
struct Reading {
    sessions: u64,
    entries: u64,
    errors: u64,
    /// Pushes that took at most as long as the bucket says.
    pushes: [u64; BUCKETS],
}

impl Samples {
    /// Takes a sample at each interval. Does not end.
    pub(super) async fn keep_taking(&self, metrics: &Metrics, every: Duration) {
        let mut due = tokio::time::interval(every.max(Duration::from_millis(10)));
        due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        due.tick().await;
        let (mut before, mut since) = (Reading::of(&metrics.text()), tokio::time::Instant::now());
        loop {
            due.tick().await;
            let now = Reading::of(&metrics.text());
            self.put(now.since(&before, since.elapsed()));
            (before, since) = (now, tokio::time::Instant::now());
        }
    }

    /// The samples of the last `span`, the earliest first. If there are more than `count`, neighbours are merged.
    pub(super) fn within(&self, span: Duration, count: usize) -> Vec<Sample> {
        let from = SystemTime::now().checked_sub(span).unwrap_or(SystemTime::UNIX_EPOCH);
        let seen: Vec<Sample> = self.lock().iter().filter(|sample| sample.at >= from).cloned().collect();
        let together = seen.len().div_ceil(count.max(1)).max(1);
        seen.chunks(together).filter_map(|chunk| chunk.iter().cloned().reduce(Sample::and)).collect()
    }

    fn put(&self, sample: Sample) {
        let mut kept = self.lock();
        if kept.len() >= limits::CONSOLE_SAMPLES {
            kept.pop_front();
        }
        kept.push_back(sample);
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Sample>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sample {
    /// Entries a second, on average.
    pub(super) fn entries_per_second(&self) -> f64 {
        self.entries as f64 / self.took.as_secs_f64().max(0.001)
    }

    /// The time in seconds within which this part of the pushes was durable, as Prometheus estimates it from buckets; `None` if there were none.
    pub(super) fn durable_within(&self, part: f64) -> Option<f64> {
        let all: u64 = self.pushes.iter().sum();
        let rank = part * all as f64;
        let (mut below, mut lower) = (0, 0.0);
        for (in_bucket, upper) in self.pushes.iter().zip(limits::PUSH_SECONDS) {
            if *in_bucket > 0 && (below + in_bucket) as f64 >= rank {
                return Some(lower + (upper - lower) * (rank - below as f64) / *in_bucket as f64);
            }
            (below, lower) = (below + in_bucket, upper);
        }
        (all > 0).then_some(lower)
    }

    /// Merges two neighbours.
    fn and(self, later: Self) -> Self {
        Self {
            at: later.at,
            took: self.took + later.took,
            sessions: self.sessions.max(later.sessions),
            entries: self.entries + later.entries,
            errors: self.errors + later.errors,
            pushes: std::array::from_fn(|bucket| self.pushes[bucket] + later.pushes[bucket]),
        }
    }
}

impl Reading {
    /// Reads the text format of Prometheus, because the library gives no other access to the buckets of a histogram.
    fn of(text: &str) -> Self {
        let mut read = Self::default();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some((name, value)) = line.rsplit_once(' ') else { continue };
            let value = value.parse::<f64>().unwrap_or(0.0) as u64;
            let (name, labels) = name.split_once('{').unwrap_or((name, ""));
            match name {
                "motet_relay_sessions_open" => read.sessions = value,
                "motet_relay_entries_received_total" => read.entries = value,
                "motet_relay_errors_sent_total" => read.errors += value,
                "motet_relay_push_seconds_bucket" => {
                    let bound = labels.trim_start_matches("le=\"").trim_end_matches("\"}");
                    // The one without a bound is called `+Inf`.
                    let bound = bound.parse::<f64>().unwrap_or(f64::INFINITY);
                    let bucket = limits::PUSH_SECONDS.iter().take_while(|upper| **upper < bound).count();
                    read.pushes[bucket] = value;
                }
                _ => {}
            }
        }
        read
    }

    fn since(&self, before: &Self, took: Duration) -> Sample {
        let up_to = |reading: &Self, bucket: usize| match bucket {
            0 => reading.pushes[0],
            _ => reading.pushes[bucket].saturating_sub(reading.pushes[bucket - 1]),
        };
        Sample {
            at: SystemTime::now(),
            took,
            sessions: self.sessions.max(before.sessions),
            entries: self.entries.saturating_sub(before.entries),
            errors: self.errors.saturating_sub(before.errors),
            pushes: std::array::from_fn(|bucket| up_to(self, bucket).saturating_sub(up_to(before, bucket))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_happened_between_two_looks_is_read_from_the_metrics() {
        let metrics = Metrics::new();
        metrics.note_received(5, 100);
        metrics.note_push(Duration::from_secs(60));
        let before = Reading::of(&metrics.text());
        let _open = metrics.open_session();
        metrics.note_received(30, 100);
        metrics.note_error_sent("full");
        metrics.note_error_sent("busy");
        (0..99).for_each(|_| metrics.note_push(Duration::from_millis(3)));
        metrics.note_push(Duration::from_secs(20));
        let sample = Reading::of(&metrics.text()).since(&before, Duration::from_secs(10));
        assert_eq!((sample.sessions, sample.entries, sample.errors), (1, 30, 2));
        assert_eq!(sample.entries_per_second(), 3.0);
        let (half, all) = (sample.durable_within(0.5).unwrap(), sample.durable_within(1.0).unwrap());
        assert!((0.002..0.004).contains(&half), "{half}");
        assert_eq!(all, 16.0, "what is longer than the last bound is not known");
        let none = Reading::default().since(&Reading::default(), Duration::ZERO);
        assert_eq!((none.durable_within(0.99), none.entries_per_second()), (None, 0.0));
    }

    #[test]
    fn samples_are_bounded_and_taken_together() {
        let samples = Samples::default();
        let reading = Reading { entries: 1, ..Reading::default() };
        for _ in 0..limits::CONSOLE_SAMPLES + 10 {
            samples.put(reading.since(&Reading::default(), Duration::from_secs(60)));
        }
        let day = Duration::from_secs(24 * 3_600);
        assert_eq!(samples.within(day, usize::MAX).len(), limits::CONSOLE_SAMPLES);
        let together = samples.within(day, 96);
        assert_eq!((together.len(), together[0].entries), (96, 15));
        assert!((together[0].entries_per_second() - 1.0 / 60.0).abs() < 1e-9);
        assert!(samples.within(Duration::ZERO, 96).is_empty());
    }
}

//! How long the driver waits before it comes back.

use std::time::Duration;

use crate::error::SyncError;
use crate::limits;
use crate::platform;

/// How long to wait after so many failures. All devices of a relay that was restarted fail at one moment: the first wait is any part of
/// the window that the relay has named, and each later one between half of its time and all of it.
pub(super) fn retry_delay(failures: usize, window: Duration) -> Duration {
    let last = limits::RETRY_DELAYS.len() - 1;
    match failures {
        0 | 1 => window.mul_f64(random_part()),
        _ => lengthened(limits::RETRY_DELAYS[(failures - 2).min(last)] / 2, 1.0),
    }
}

/// How long what answers in the place of the relay, or the relay, has asked to be left alone. Who was told so at one moment does not come
/// back at one moment.
pub(super) fn asked_for(error: &SyncError) -> Duration {
    match error {
        SyncError::Offline { retry_after: Some(time), .. } => {
            lengthened((*time).min(limits::RETRY_AFTER_LONGEST), 0.25)
        }
        _ => Duration::ZERO,
    }
}

/// A time, longer by up to this part of it, at random.
pub(super) fn lengthened(time: Duration, part: f64) -> Duration {
    time + time.mul_f64(random_part() * part)
}

/// A number between 0 and 1.
fn random_part() -> f64 {
    // Without randomness devices come back in step, which is no reason not to come back.
    let random = u32::from_be_bytes(platform::random().unwrap_or_default());
    f64::from(random) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A thousand devices that lose one relay: however they come back, no part of the time gets much more of them than another.
    #[test]
    fn devices_come_back_spread_over_the_time_that_they_have() {
        for window in [Duration::from_millis(500), Duration::from_secs(20)] {
            for failures in 1..9 {
                let delays: Vec<f64> =
                    (0..1_000).map(|_| retry_delay(failures, window).as_secs_f64()).collect();
                let most = match failures {
                    1 => window.as_secs_f64(),
                    2 => 4.0,
                    3 => 8.0,
                    4 => 16.0,
                    _ => 30.0,
                };
                let least = if failures == 1 { 0.0 } else { most / 2.0 };
                assert!(delays.iter().all(|delay| (least..=most).contains(delay)), "{failures}: {delays:?}");
                let tenth = (most - least) / 10.0;
                for part in 0..10 {
                    let from = least + f64::from(part) * tenth;
                    let here = delays.iter().filter(|delay| (from..from + tenth).contains(delay)).count();
                    assert!((50..170).contains(&here), "{failures}: {here} of 1,000 in part {part}");
                }
            }
        }
    }
}

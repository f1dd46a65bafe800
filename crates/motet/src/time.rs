//! The wall clock. For display and ordering of what people see; correctness never rests on it.

use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64)
}

/// Seconds since 1970.
pub(crate) fn now_s() -> i64 {
    now_ms() / 1_000
}

//! When a row was last changed, in whatever form databases keep it.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde_json::Value as Json;

use crate::limits;

/// A time in whatever form databases keep it, as milliseconds since 1970.
pub(super) fn milliseconds(at: &Json) -> Option<i64> {
    let milliseconds = match at {
        Json::Number(n) => {
            let n = n.as_f64()?;
            // Seconds until the year 5138; anything larger is milliseconds.
            Some(if n.abs() < 1e11 { (n * 1e3) as i64 } else { n as i64 })
        }
        Json::String(text) => {
            let instant = text.parse::<Timestamp>().ok();
            let local =
                || text.parse::<DateTime>().ok()?.to_zoned(TimeZone::UTC).ok().map(|at| at.timestamp());
            // The last days of the year 9999 mean “never” to many programs, and are beyond what an instant can be.
            let never = || text.starts_with("9999-12-3").then_some(Timestamp::MAX);
            instant.or_else(local).or_else(never).map(|at| at.as_millisecond())
        }
        _ => None,
    };
    milliseconds.filter(|at| at.unsigned_abs() <= limits::CHANGE_TIME.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn times_are_read_in_every_usual_form() {
        let second = 1_735_898_400_000;
        for (at, expected) in [
            (json!("2025-01-03T10:00:00Z"), second),
            (json!("2025-01-03T10:00:00.250Z"), second + 250),
            (json!("2025-01-03T00:00:00-10:00"), second),
            (json!("2025-01-03 10:00:00"), second),
            (json!("2025-01-03 10:00:00.5"), second + 500),
            (json!(1_735_898_400), second),
            (json!(1_735_898_400_250_i64), second + 250),
        ] {
            assert_eq!(milliseconds(&at), Some(expected), "{at}");
        }
        for never in ["9999-12-31T23:59:59Z", "9999-12-31 23:59:59.999", "9999-12-31"] {
            assert!(milliseconds(&json!(never)) > Some(253_402_000_000_000), "{never}");
        }
        for none in [json!("yesterday"), json!(1e300), json!(-1e300), json!(u64::MAX), json!(i64::MIN)] {
            assert_eq!(milliseconds(&none), None, "{none}");
        }
    }
}

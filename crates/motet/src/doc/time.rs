//! When changes were made. Among concurrent values the one of the later change shows, so seconds would be too coarse: a change
//! carries milliseconds.

use crate::limits;
use automerge::{Automerge, Change, ChangeHash};

/// Times below are seconds, as other programs write them: year 5138 in seconds, 1973 in milliseconds.
const FIRST_IN_MILLISECONDS: i64 = 100_000_000_000;

/// Time of a change in milliseconds since 1970, as its device told it; 0 for changes that every device makes alike on nothing.
pub(super) fn made_at(am: &Automerge, hash: &ChangeHash) -> i64 {
    am.get_change_meta_by_hash(hash).map_or(0, |meta| milliseconds(meta.timestamp))
}

/// Time of a change that no document has taken in, as [`made_at`].
pub(crate) fn time_of(change: &Change) -> i64 {
    milliseconds(change.timestamp())
}

/// The latest time of some changes.
pub(super) fn latest(am: &Automerge, hashes: &[ChangeHash]) -> i64 {
    hashes.iter().map(|hash| made_at(am, hash)).max().unwrap_or_default()
}

/// Time of a new change: later than what is known, so that a clock that is ahead loses its advantage once its changes are known.
pub(super) fn after(am: &Automerge, known: &[ChangeHash], now: i64) -> i64 {
    in_milliseconds(now.max(latest(am, known).saturating_add(1)))
}

/// A time that reads as milliseconds and that every device takes: what is earlier than 1973 is of 1973, and what is later than
/// [`limits::CHANGE_TIME`] is of then.
pub(super) fn in_milliseconds(time: i64) -> i64 {
    time.clamp(FIRST_IN_MILLISECONDS, limits::CHANGE_TIME)
}

/// What a change carries, in milliseconds.
pub(super) fn milliseconds(timestamp: i64) -> i64 {
    if (-FIRST_IN_MILLISECONDS..FIRST_IN_MILLISECONDS).contains(&timestamp) {
        timestamp * 1_000
    } else {
        timestamp
    }
}

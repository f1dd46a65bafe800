//! What of the relay's file could not be read since it started. The relay goes on with what can be; whoever runs it is told.

use std::sync::{Mutex, PoisonError};

use super::StoreError;

/// The first damage that was met.
#[derive(Default)]
pub(super) struct Damage(Mutex<Option<String>>);

impl Damage {
    /// Something is not what it should be. The log tells the first; `/healthz` tells it until the relay is started anew.
    pub(super) fn note(&self, what: &str) {
        let mut first = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if first.is_none() {
            tracing::error!(what, "relay.db is damaged: stop the relay and run `motet-relay repair`");
            *first = Some(what.to_owned());
        } else {
            tracing::debug!(what, "relay.db is damaged");
        }
    }

    /// Notes why something has failed, if that is damage.
    pub(super) fn note_failure<T>(&self, done: &Result<T, StoreError>) {
        if let Err(StoreError::Unusable(what)) = done {
            self.note(what);
        }
    }

    pub(super) fn known(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

//! Whether the relay does its work: not that it answers, but that it could write.

use std::time::Instant;

use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::limits;
use crate::store::{LogStore, StoreError};

/// What was found out last, and when.
#[derive(Default)]
pub(crate) struct Health {
    known: Mutex<Option<(Instant, Result<(), StoreError>)>>,
}

impl Health {
    /// Asks the store, unless that was done a moment ago. Those who ask at the same time wait for one answer.
    pub(crate) async fn check(&self, store: &dyn LogStore) -> Result<(), StoreError> {
        let mut known = self.known.lock().await;
        if let Some((at, found)) = &*known
            && at.elapsed() < limits::HEALTH_KNOWN_FOR
        {
            return found.clone();
        }
        let found = timeout(limits::HEALTH_TIMEOUT, store.probe())
            .await
            .unwrap_or_else(|_| Err(StoreError::Failed("the writer does not answer".into())));
        *known = Some((Instant::now(), found.clone()));
        found
    }
}

//! Hands committed runs round to the sessions of a log, inside this process.
//!
//! Queues are bounded: a session that is too slow loses runs and reads the log instead; nobody waits for it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use motet_proto::Entry;
use motet_proto::session::CommittedRun;
use tokio::sync::broadcast::{Receiver, Sender};

use crate::limits;
use crate::store::{Appended, LogId};

/// The meeting place of sessions.
#[derive(Default)]
pub(crate) struct Hub {
    logs: Mutex<HashMap<LogId, Sender<CommittedRun>>>,
}

impl Hub {
    /// Runs of a log from now on.
    pub(crate) fn subscribe(&self, log: &LogId) -> Receiver<CommittedRun> {
        let mut logs = self.lock();
        logs.entry(log.clone()).or_insert_with(|| Sender::new(limits::HUB_RUNS)).subscribe()
    }

    /// Tells the other sessions of a log what a push has appended. `origin` is the session that pushed.
    pub(crate) fn publish(&self, log: &LogId, origin: u64, appended: Appended) {
        let Some((first, position)) = appended.outcome.appended else { return };
        let logs = self.lock();
        let Some(sender) = logs.get(log) else { return };
        let bytes: usize = appended.fresh.iter().map(Entry::size).sum();
        let entries = (bytes <= limits::HUB_RUN_BYTES).then(|| Arc::new(appended.fresh));
        // An error means that nobody listens, which is fine.
        _ = sender.send(CommittedRun { origin, first, position, entries });
    }

    /// A session of the log has ended; the last one takes the log's place with it.
    pub(crate) fn forget_if_empty(&self, log: &LogId) {
        let mut logs = self.lock();
        if logs.get(log).is_some_and(|sender| sender.receiver_count() == 0) {
            logs.remove(log);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<LogId, Sender<CommittedRun>>> {
        self.logs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! Hands committed runs, and where devices are, round to the sessions of a log, inside this process.
//!
//! Queues are bounded: a session that is too slow loses news and reads the log instead; nobody waits for it.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use motet_proto::Entry;
use motet_proto::limits::PRESENT_DEVICES;
use motet_proto::presence::Presence;
use motet_proto::session::CommittedRun;
use tokio::sync::broadcast::{Receiver, Sender};

use crate::limits;
use crate::store::{Appended, LogId};

/// The meeting place of sessions.
#[derive(Default)]
pub(crate) struct Hub {
    logs: Mutex<HashMap<LogId, Place>>,
}

struct Place {
    sender: Sender<News>,
    /// Where the devices of the sessions are.
    present: BTreeMap<u64, Arc<Presence>>,
}

/// What a session hears of the others of its log.
#[derive(Clone, Debug)]
pub(crate) enum News {
    Committed(CommittedRun),
    Presence(Arc<Presence>),
}

impl Hub {
    /// News of a log from now on, and where others are now.
    pub(crate) fn subscribe(&self, log: &LogId) -> (Receiver<News>, Vec<Arc<Presence>>) {
        let mut logs = self.lock();
        let new = || Place { sender: Sender::new(limits::HUB_RUNS), present: BTreeMap::new() };
        let place = logs.entry(log.clone()).or_insert_with(new);
        (place.sender.subscribe(), place.present.values().cloned().collect())
    }

    /// Tells the other sessions of a log what a push has appended. `origin` is the session that pushed.
    pub(crate) fn publish(&self, log: &LogId, origin: u64, appended: Appended) {
        let Some((first, position)) = appended.outcome.appended else { return };
        let logs = self.lock();
        let Some(place) = logs.get(log) else { return };
        let bytes: usize = appended.fresh.iter().map(Entry::size).sum();
        let entries = (bytes <= limits::HUB_RUN_BYTES).then(|| Arc::new(appended.fresh));
        // An error means that nobody listens, which is fine.
        _ = place.sender.send(News::Committed(CommittedRun { origin, first, position, entries }));
    }

    /// Tells the sessions of a log where the device of a session is.
    pub(crate) fn present(&self, log: &LogId, session: u64, presence: Presence) {
        let mut logs = self.lock();
        let Some(place) = logs.get_mut(log) else { return };
        if place.present.len() >= PRESENT_DEVICES && !place.present.contains_key(&session) {
            return;
        }
        let presence = Arc::new(presence);
        match presence.sealed.is_empty() {
            true => _ = place.present.remove(&session),
            false => _ = place.present.insert(session, presence.clone()),
        }
        _ = place.sender.send(News::Presence(presence));
    }

    /// A session of the log has ended, and its device is nowhere; the last one takes the log's place with it.
    pub(crate) fn leave(&self, log: &LogId, session: u64) {
        let mut logs = self.lock();
        let Some(place) = logs.get_mut(log) else { return };
        if let Some(last) = place.present.remove(&session) {
            _ = place.sender.send(News::Presence(Arc::new(Presence::new(last.device, None))));
        }
        if place.sender.receiver_count() == 0 {
            logs.remove(log);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<LogId, Place>> {
        self.logs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

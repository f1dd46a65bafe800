//! Hands committed runs, and where devices are, round to the sessions of a log, inside this process.
//!
//! Queues are bounded: a session that is too slow loses news and reads the log instead; nobody waits for it.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use motet_proto::limits::PRESENT_DEVICES;
use motet_proto::presence::Presence;
use motet_proto::session::CommittedRun;
use motet_proto::{DeviceId, Entry};
use tokio::sync::broadcast::{Receiver, Sender};

use crate::limits;
use crate::store::{Appended, LogId};

/// The meeting place of sessions.
#[derive(Default)]
pub(crate) struct Hub {
    logs: Mutex<HashMap<LogId, Place>>,
}

struct Place {
    sender: Sender<HubEvent>,
    /// Where the sessions say that their devices are. Of several sessions of one device the newest is believed: the others have not
    /// noticed yet that their connection is gone.
    present: BTreeMap<u64, Arc<Presence>>,
}

/// What a session hears of the others of its log.
#[derive(Clone, Debug)]
pub(crate) enum HubEvent {
    Committed(Arc<CommittedRun>),
    Presence(Arc<Presence>),
}

impl Hub {
    /// Events of a log from now on, and where others are now.
    pub(crate) fn subscribe(&self, log: &LogId) -> (Receiver<HubEvent>, Vec<Arc<Presence>>) {
        let mut logs = self.lock();
        let new = || Place { sender: Sender::new(limits::HUB_RUNS), present: BTreeMap::new() };
        let place = logs.entry(log.clone()).or_insert_with(new);
        (place.sender.subscribe(), place.everybody())
    }

    /// Where the devices of a log are now.
    pub(crate) fn everybody(&self, log: &LogId) -> Vec<Arc<Presence>> {
        self.lock().get(log).map(Place::everybody).unwrap_or_default()
    }

    /// Sessions that hear the news of a log.
    pub(crate) fn listeners(&self, log: &LogId) -> usize {
        self.lock().get(log).map_or(0, |place| place.sender.receiver_count())
    }

    /// Tells the other sessions of a log what a push has appended. `origin` is the session that pushed.
    pub(crate) fn publish(&self, log: &LogId, origin: u64, appended: Appended) {
        let Some((first, position)) = appended.outcome.appended else { return };
        let logs = self.lock();
        let Some(place) = logs.get(log) else { return };
        let bytes: usize = appended.fresh.iter().map(Entry::size).sum();
        let entries = (bytes <= limits::HUB_RUN_BYTES).then(|| Arc::new(appended.fresh));
        // An error means that nobody listens, which is fine.
        let run = CommittedRun { origin, first, position, entries };
        _ = place.sender.send(HubEvent::Committed(Arc::new(run)));
    }

    /// Tells the sessions of a log where the device of a session is.
    pub(crate) fn present(&self, log: &LogId, session: u64, presence: Presence) {
        let mut logs = self.lock();
        let Some(place) = logs.get_mut(log) else { return };
        if place.present.len() < PRESENT_DEVICES || place.present.contains_key(&session) {
            place.change(session, Some(presence).filter(|presence| !presence.sealed.is_empty()));
        }
    }

    /// The device of a session is nowhere, or has not been heard of for too long.
    pub(crate) fn withdraw(&self, log: &LogId, session: u64) {
        if let Some(place) = self.lock().get_mut(log) {
            place.change(session, None);
        }
    }

    /// A session of the log has ended, and its device is nowhere, unless it has another session; the last one takes the log's place
    /// with it.
    pub(crate) fn leave(&self, log: &LogId, session: u64) {
        let mut logs = self.lock();
        let Some(place) = logs.get_mut(log) else { return };
        place.change(session, None);
        if place.sender.receiver_count() == 0 {
            logs.remove(log);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<LogId, Place>> {
        self.logs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// A session says that its device is somewhere, or nowhere. The others hear of it if it makes a difference.
    fn change(&mut self, session: u64, presence: Option<Presence>) {
        let known = presence.as_ref().or(self.present.get(&session).map(Arc::as_ref));
        let Some(device) = known.map(|known| known.device) else { return };
        let before = self.of(device);
        match presence {
            Some(presence) => _ = self.present.insert(session, Arc::new(presence)),
            None => _ = self.present.remove(&session),
        }
        let after = self.of(device);
        if before != after {
            let news = after.unwrap_or_else(|| Arc::new(Presence::new(device, None)));
            _ = self.sender.send(HubEvent::Presence(news));
        }
    }

    /// Where a device is, as its newest session says.
    fn of(&self, device: DeviceId) -> Option<Arc<Presence>> {
        self.present.values().rev().find(|presence| presence.device == device).cloned()
    }

    fn everybody(&self) -> Vec<Arc<Presence>> {
        let newest: BTreeMap<DeviceId, _> = self.present.values().map(|p| (p.device, p.clone())).collect();
        newest.into_values().collect()
    }
}

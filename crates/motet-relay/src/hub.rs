//! Hands committed runs, and where devices are, round to the sessions of a log: inside this process, and through the notifier to other relays.
//!
//! Queues are bounded: a session that is too slow loses news and reads the log instead; nobody waits for it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use motet_proto::limits::PRESENT_DEVICES;
use motet_proto::presence::Presence;
use motet_proto::session::CommittedRun;
use motet_proto::{DeviceId, Entry, Position, planted};
use tokio::sync::broadcast::{Receiver, Sender};
use tokio::time::Instant;

use crate::limits;
use crate::notifier::{Notice, Notifier};
use crate::store::{Appended, LogId};

/// The meeting place of sessions.
pub(crate) struct Hub {
    logs: Mutex<HashMap<LogId, Place>>,
    notifier: Arc<dyn Notifier>,
    /// What tells this relay's devices from those of others.
    relay: u64,
    /// The next run gets lost, and all that is heard of it is that something was.
    #[cfg(feature = "simulation")]
    loses_next: std::sync::atomic::AtomicBool,
}

struct Place {
    sender: Sender<HubEvent>,
    /// Where the log ended when its sessions last heard of it; `None` if they have not.
    heard: Option<Position>,
    /// Where the sessions say that their devices are. Of several sessions of one device the newest is believed: the others have not
    /// noticed yet that their connection is gone.
    present: BTreeMap<u64, (Arc<Presence>, Instant)>,
    /// Devices that are connected to other relays, by those.
    elsewhere: BTreeMap<(u64, DeviceId), Elsewhere>,
}

/// What another relay says of one of its devices.
struct Elsewhere {
    presence: Arc<Presence>,
    /// Since when it says just that.
    since: Instant,
    /// When it said so last.
    told: Instant,
}

/// What a session hears of the others of its log.
#[derive(Clone, Debug)]
pub(crate) enum HubEvent {
    Committed(Arc<CommittedRun>),
    Presence(Arc<Presence>),
    /// Some of this was lost.
    Missed,
}

impl Hub {
    pub(crate) fn new(notifier: Arc<dyn Notifier>) -> Self {
        Self {
            logs: Mutex::default(),
            notifier,
            relay: RandomState::new().hash_one(0),
            #[cfg(feature = "simulation")]
            loses_next: Default::default(),
        }
    }

    /// Loses the next run, as a notifier may that brings it from another relay.
    #[cfg(feature = "simulation")]
    pub(crate) fn lose_next(&self) {
        self.loses_next.store(true, std::sync::atomic::Ordering::Relaxed);
    }

    /// Events of a log from now on, and where others are now.
    pub(crate) fn subscribe(&self, log: &LogId) -> (Receiver<HubEvent>, Vec<Arc<Presence>>) {
        let mut logs = self.lock();
        let is_new = !logs.contains_key(log);
        let place = logs.entry(log.clone()).or_default();
        if is_new {
            self.notify(Notice::Asked { log: log.clone() });
        }
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
        self.notify(Notice::Committed { log: log.clone(), first, position });
        let mut logs = self.lock();
        let Some(place) = logs.get_mut(log) else { return };
        place.heard = Some(position);
        #[cfg(feature = "simulation")]
        if self.loses_next.swap(false, std::sync::atomic::Ordering::Relaxed) {
            _ = place.sender.send(HubEvent::Missed);
            return;
        }
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
            let news = place.change(session, Some(presence).filter(|presence| !presence.sealed.is_empty()));
            self.tell_others(log, news);
        }
    }

    /// The device of a session is nowhere, or has not been heard of for too long.
    pub(crate) fn withdraw(&self, log: &LogId, session: u64) {
        if let Some(place) = self.lock().get_mut(log) {
            let news = place.change(session, None);
            self.tell_others(log, news);
        }
    }

    /// A session of the log has ended, and its device is nowhere, unless it has another session; the last one takes the log's place
    /// with it.
    pub(crate) fn leave(&self, log: &LogId, session: u64) {
        let mut logs = self.lock();
        let Some(place) = logs.get_mut(log) else { return };
        let news = place.change(session, None);
        self.tell_others(log, news);
        if place.sender.receiver_count() == 0 {
            logs.remove(log);
        }
    }

    /// Passes on what other relays tell, and tells them again where devices are, every `again`. Ends when there are no others any more.
    pub(crate) async fn exchange(&self, again: Duration) {
        let mut notices = self.notifier.subscribe();
        // Of what was committed until now nobody has heard.
        self.take_notice(Notice::Missed);
        let mut due = tokio::time::interval(again.max(Duration::from_secs(1)));
        loop {
            tokio::select! {
                notice = notices.next() => match notice {
                    Some(notice) => self.take_notice(notice),
                    None => {
                        // Nobody will say that they have gone.
                        self.tell_again(Duration::ZERO);
                        return;
                    }
                },
                _ = due.tick() => self.tell_again(again * 3),
            }
        }
    }

    fn take_notice(&self, notice: Notice) {
        let mut logs = self.lock();
        match notice {
            // Where the log ends is asked of the store: the notice may be of a database as it was before it was restored, or of somebody else.
            Notice::Committed { log, .. } => {
                if let Some(place) = logs.get(&log) {
                    _ = place.sender.send(HubEvent::Missed);
                }
            }
            Notice::Presence { relay, log, presence } => {
                if let Some(place) = logs.get_mut(&log).filter(|_| relay != self.relay) {
                    place.change_elsewhere((relay, presence.device), presence);
                }
            }
            Notice::Asked { log } => {
                for presence in logs.get(&log).map(Place::own).unwrap_or_default().into_values() {
                    self.tell_others(&log, Some(presence));
                }
            }
            Notice::Missed => logs.values().for_each(|place| _ = place.sender.send(HubEvent::Missed)),
        }
    }

    /// Logs that have sessions.
    pub(crate) fn logs(&self) -> Vec<LogId> {
        self.lock().keys().cloned().collect()
    }

    /// A log was found to end there. Its sessions read it if that is not where they know it to end: it has grown, or it is another one, as of a database
    /// that was restored.
    pub(crate) fn note_end(&self, log: &LogId, end: Position) {
        if let Some(place) = self.lock().get_mut(log).filter(|place| place.heard != Some(end)) {
            place.heard = Some(end);
            _ = place.sender.send(HubEvent::Missed);
        }
    }

    /// Who has not been told of for so long is nowhere: their relay has gone without a word.
    fn tell_again(&self, forgotten_after: Duration) {
        for (log, place) in self.lock().iter_mut() {
            let gone = |(key, at): (&_, &Elsewhere)| (at.told.elapsed() >= forgotten_after).then_some(*key);
            for key in place.elsewhere.iter().filter_map(gone).collect::<Vec<_>>() {
                place.change_elsewhere(key, Arc::new(Presence::new(key.1, None)));
            }
            for presence in place.own().into_values() {
                self.tell_others(log, Some(presence));
            }
        }
    }

    /// The notifier may be the program's: a panic in it must not end a session, or the process where a session is just being dropped.
    fn notify(&self, notice: Notice) {
        if catch_unwind(AssertUnwindSafe(|| self.notifier.publish(notice))).is_err() {
            tracing::error!("the notifier panicked; other relays are not told");
        }
    }

    fn tell_others(&self, log: &LogId, news: Option<Arc<Presence>>) {
        if let Some(presence) = news {
            self.notify(Notice::Presence { relay: self.relay, log: log.clone(), presence });
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<LogId, Place>> {
        self.logs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Place {
    fn default() -> Self {
        let (heard, present, elsewhere) = Default::default();
        Self { sender: Sender::new(planted::queue(limits::HUB_RUNS)), heard, present, elsewhere }
    }
}

impl Place {
    /// A session says that its device is somewhere, or nowhere. The others hear of it if it makes a difference; returns what of it is for
    /// other relays.
    fn change(&mut self, session: u64, presence: Option<Presence>) -> Option<Arc<Presence>> {
        let known = presence.as_ref().or(self.present.get(&session).map(|(known, _)| known.as_ref()));
        let device = known.map(|known| known.device)?;
        let (before, own_before) = (self.of(device), self.own_of(device));
        match presence {
            Some(presence) => _ = self.present.insert(session, (Arc::new(presence), Instant::now())),
            None => _ = self.present.remove(&session),
        }
        self.tell_change(device, before.as_ref());
        let (own, own_before) = (self.own_of(device), own_before.map(|(presence, _)| presence));
        let own = own.map(|(presence, _)| presence);
        (own != own_before).then(|| own.unwrap_or_else(|| nowhere(device)))
    }

    /// Another relay says so of one of its devices.
    fn change_elsewhere(&mut self, key: (u64, DeviceId), presence: Arc<Presence>) {
        let before = self.of(key.1);
        let now = Instant::now();
        let known = self.elsewhere.get(&key);
        let since = known.filter(|known| known.presence == presence).map_or(now, |known| known.since);
        let has_room = self.elsewhere.len() < PRESENT_DEVICES || known.is_some();
        match presence.sealed.is_empty() {
            true => _ = self.elsewhere.remove(&key),
            false if has_room => _ = self.elsewhere.insert(key, Elsewhere { presence, since, told: now }),
            false => {}
        }
        self.tell_change(key.1, before.as_ref());
    }

    fn tell_change(&self, device: DeviceId, before: Option<&Arc<Presence>>) {
        let after = self.of(device);
        if before != after.as_ref() {
            _ = self.sender.send(HubEvent::Presence(after.unwrap_or_else(|| nowhere(device))));
        }
    }

    /// Where a device is, as was said last: by its newest session here, or by another relay.
    fn of(&self, device: DeviceId) -> Option<Arc<Presence>> {
        let elsewhere = self.elsewhere.iter().filter(|((_, of), _)| *of == device);
        let elsewhere = elsewhere.map(|(_, known)| (known.presence.clone(), known.since));
        let newest = self.own_of(device).into_iter().chain(elsewhere).max_by_key(|(_, since)| *since);
        newest.map(|(presence, _)| presence)
    }

    fn own_of(&self, device: DeviceId) -> Option<(Arc<Presence>, Instant)> {
        self.present.values().rev().find(|(presence, _)| presence.device == device).cloned()
    }

    fn own(&self) -> BTreeMap<DeviceId, Arc<Presence>> {
        self.present.values().map(|(presence, _)| (presence.device, presence.clone())).collect()
    }

    fn everybody(&self) -> Vec<Arc<Presence>> {
        let here = self.present.values().map(|(presence, _)| presence.device);
        let devices: BTreeSet<DeviceId> =
            here.chain(self.elsewhere.keys().map(|(_, device)| *device)).collect();
        devices.into_iter().filter_map(|device| self.of(device)).collect()
    }
}

fn nowhere(device: DeviceId) -> Arc<Presence> {
    Arc::new(Presence::new(device, None))
}

#[cfg(test)]
mod tests {
    use motet_proto::presence::Place as Somewhere;
    use motet_proto::{SpaceId, limits as proto};

    use super::*;
    use crate::notifier::{Alone, Channel};

    fn log() -> LogId {
        LogId { account: "keola".into(), space: SpaceId::DEFAULT }
    }

    fn device(n: u8) -> DeviceId {
        DeviceId([n; 16])
    }

    fn at(n: u8, name: &str) -> Presence {
        let (collection, device_name) = ("songs".into(), "a device".into());
        let place = Somewhere { name: name.into(), collection, device_name, field: None, cursor: None };
        Presence::new(device(n), Some(&place))
    }

    fn devices(hub: &Hub) -> Vec<DeviceId> {
        hub.everybody(&log()).iter().map(|presence| presence.device).collect()
    }

    #[tokio::test]
    async fn relays_of_one_store_tell_each_other_where_devices_are() {
        let channel = Channel::new();
        let hubs: Vec<_> = (0..3).map(|_| Arc::new(Hub::new(channel.join()))).collect();
        let _heard: Vec<_> = hubs.iter().map(|hub| hub.subscribe(&log()).0).collect();
        for hub in &hubs {
            let hub = hub.clone();
            tokio::spawn(async move { hub.exchange(Duration::from_secs(3_600)).await });
        }
        let settled = async || {
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
        };
        settled().await;
        hubs[0].present(&log(), 1, at(1, "a"));
        settled().await;
        hubs.iter().for_each(|hub| assert_eq!(devices(hub), [device(1)]));
        // It connects to another relay before the first has noticed that it is gone.
        hubs[1].present(&log(), 7, at(1, "b"));
        hubs[0].withdraw(&log(), 1);
        settled().await;
        hubs.iter().for_each(|hub| assert_eq!(devices(hub), [device(1)]));
        hubs[1].leave(&log(), 7);
        settled().await;
        hubs.iter().for_each(|hub| assert_eq!(devices(hub), []));
    }

    #[test]
    fn who_is_not_told_of_again_is_forgotten() {
        let hub = Hub::new(Arc::new(Alone));
        let (mut heard, _) = hub.subscribe(&log());
        let presence = Arc::new(at(1, "a"));
        hub.take_notice(Notice::Presence { relay: hub.relay ^ 1, log: log(), presence: presence.clone() });
        assert!(matches!(heard.try_recv(), Ok(HubEvent::Presence(found)) if found == presence));
        hub.tell_again(Duration::from_secs(60));
        assert_eq!(devices(&hub), [device(1)]);
        hub.tell_again(Duration::ZERO);
        assert_eq!(devices(&hub), []);
        assert!(matches!(heard.try_recv(), Ok(HubEvent::Presence(found)) if found.sealed.is_empty()));
    }

    /// A device whose connection to one relay has died without a word is where it says at another one; and where it is known to be is told
    /// to a relay at which somebody asks for the first time.
    #[test]
    fn what_was_said_last_counts() {
        let hub = Hub::new(Arc::new(Alone));
        let _heard = hub.subscribe(&log());
        let notice = |relay: u64, name: &str| Notice::Presence {
            relay: hub.relay ^ relay,
            log: log(),
            presence: Arc::new(at(1, name)),
        };
        let shown = || hub.everybody(&log())[0].clone();
        hub.present(&log(), 1, at(1, "old"));
        for (relay, name) in [(1, "b"), (9, "c"), (4, "d")] {
            hub.take_notice(notice(relay, name));
            assert_eq!(*shown(), at(1, name));
        }
        // What is told again is not newer for that.
        hub.take_notice(notice(1, "b"));
        assert_eq!(*shown(), at(1, "d"));
    }

    /// Whatever a notice says, only the store says where a log ends.
    #[test]
    fn a_notice_of_what_is_not_there_hides_nothing() {
        let hub = Hub::new(Arc::new(Alone));
        let (mut heard, _) = hub.subscribe(&log());
        let position = Position { seq: u64::MAX, tag: [0; 16] };
        hub.take_notice(Notice::Committed { log: log(), first: u64::MAX, position });
        assert!(matches!(heard.try_recv(), Ok(HubEvent::Missed)));
        // What is shorter, or ends otherwise, is another log.
        for (seq, tag, is_news) in [(5, 1, true), (5, 1, false), (6, 1, true), (6, 2, true), (3, 1, true)] {
            hub.note_end(&log(), Position { seq, tag: [tag; 16] });
            assert_eq!(heard.try_recv().is_ok(), is_news, "{seq} {tag}");
        }
    }

    #[test]
    fn a_notifier_that_panics_ends_nothing() {
        struct Panics;
        impl Notifier for Panics {
            fn publish(&self, _: Notice) {
                panic!("a notifier that panics");
            }

            fn subscribe(&self) -> futures_util::stream::BoxStream<'static, Notice> {
                panic!("a notifier that panics");
            }
        }
        let hub = Hub::new(Arc::new(Panics));
        let _heard = hub.subscribe(&log());
        hub.present(&log(), 1, at(1, "a"));
        hub.leave(&log(), 1);
    }

    #[test]
    fn another_relay_does_not_fill_the_memory_of_this_one() {
        let hub = Hub::new(Arc::new(Alone));
        let _heard = hub.subscribe(&log());
        for n in 0..2 * proto::PRESENT_DEVICES as u64 {
            let presence = Arc::new(at((n % 200) as u8, "a"));
            hub.take_notice(Notice::Presence { relay: n ^ hub.relay, log: log(), presence });
        }
        assert!(hub.lock()[&log()].elsewhere.len() <= proto::PRESENT_DEVICES);
    }
}

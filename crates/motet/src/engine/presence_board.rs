//! Which devices are where, in memory.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use motet_proto::envelope::Sealer;
use motet_proto::presence::{Place as SentPlace, Presence};
use motet_proto::{DeviceId, SpaceId, limits as proto};
use tokio::sync::watch;

/// What is known of others, and what is told of this device.
pub(crate) struct PresenceBoard {
    /// Where the app says that this device is.
    place: Mutex<Option<SentPlace>>,
    /// What of it is told.
    pub(crate) own: watch::Sender<Option<Presence>>,
    pub(crate) peers: watch::Sender<BTreeMap<DeviceId, SentPlace>>,
}

impl PresenceBoard {
    pub(crate) fn new() -> Self {
        let (own, peers) = (watch::Sender::new(None), watch::Sender::new(BTreeMap::new()));
        Self { place: Mutex::new(None), own, peers }
    }

    /// Where the app says that this device is.
    pub(crate) fn place(&self) -> Option<SentPlace> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_place(&self, place: Option<SentPlace>) {
        *self.place.lock().unwrap_or_else(PoisonError::into_inner) = place;
    }

    /// Tells the others where this device is. Nowhere is not told before somewhere.
    pub(crate) fn tell(&self, presence: Presence) {
        self.own.send_if_modified(|own| match own {
            None if presence.sealed.is_empty() => false,
            _ => own.replace(presence.clone()).as_ref() != Some(&presence),
        });
    }

    /// Another device tells where it is.
    pub(crate) fn heard(&self, presence: &Presence, space: SpaceId, sealer: &dyn Sealer) {
        let place = presence.place(space, sealer);
        self.peers.send_if_modified(|peers| match place {
            Some(place) if peers.len() < proto::PRESENT_DEVICES || peers.contains_key(&presence.device) => {
                peers.insert(presence.device, place.clone()).as_ref() != Some(&place)
            }
            Some(_) => false,
            None => peers.remove(&presence.device).is_some(),
        });
    }

    /// The connection is gone, and with it what was known.
    pub(crate) fn forget(&self) {
        self.peers.send_if_modified(|peers| !std::mem::take(peers).is_empty());
    }
}

//! Who is where: told to those who are connected, never stored.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::FutureExt;
use motet_proto::presence::Place as SentPlace;
use motet_proto::{DeviceId, limits as proto};
use tokio::sync::watch;

use crate::api::replica::Replica;
use crate::api::watch::block_on_for;
use crate::engine::{Core, CursorAt, check_name, declared};
use crate::error::{ReadError, WriteError};
use crate::store::{Durability, StorageError, Tx};

/// A place in a document.
///
/// ```
/// # use motet::Place;
/// let place = Place::document("pieces", "aloha-oe").cursor("lyrics", 12);
/// assert_eq!(place.cursor, Some(12));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Place {
    /// Collection of the document.
    pub collection: String,
    /// Id of the document.
    pub id: String,
    /// The field.
    pub field: Option<String>,
    /// Where in the field's text, in Unicode code points from its start.
    pub cursor: Option<usize>,
}

/// Another device, and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Peer {
    /// The device.
    pub device: DeviceId,
    /// Its name, as its user gave it.
    pub device_name: String,
    /// Where it is. Its cursor moves with what is typed before it; `None` as long as what it stands in has not arrived.
    pub place: Place,
}

/// Waits for changes of who is where; see [`Replica::watch_peers`]. What changes several times between two waits is told once.
#[derive(Debug)]
pub struct PeerWatch(watch::Receiver<BTreeMap<DeviceId, SentPlace>>);

impl Place {
    /// A document as a whole.
    pub fn document(collection: &str, id: &str) -> Self {
        Self { collection: collection.to_owned(), id: id.to_owned(), field: None, cursor: None }
    }

    /// A place in one of its texts.
    #[must_use]
    pub fn cursor(mut self, field: &str, at: usize) -> Self {
        self.field = Some(field.to_owned());
        self.cursor = Some(at);
        self
    }
}

impl Replica {
    /// Tells the devices that are connected where this one is; `None`: nowhere. They forget it when this device's connection ends, or
    /// when nothing was heard of this device for half a minute, and hear of it again when it is back.
    ///
    /// A device whose way to the relay lets no lasting connection through, and which therefore polls, tells nothing and hears of nobody:
    /// what it said would be out of date before it was heard.
    ///
    /// Of a collection or document that stays on this device, or of a collection that is not synced at present, nothing is told. If it is switched off later, the others
    /// hear that this device is nowhere, and where it is when the collection is switched on again. Nor is a field told that stays on
    /// this device.
    ///
    /// Calls in quick succession cost nothing: the last of them is told, at most every
    /// [`PRESENCE_EVERY`](crate::limits::PRESENCE_EVERY).
    ///
    /// # Errors
    /// [`WriteError::BadName`] if a name is longer than names can be, or could not be that of a collection or a document; [`WriteError::Storage`] if the document cannot be read.
    pub fn set_presence(&self, place: Option<&Place>) -> Result<(), WriteError> {
        let Some(place) = place.cloned() else {
            return self.run_presence(|_, core| {
                core.set_place(None);
                Ok(())
            });
        };
        check_name(&place.collection)?;
        check_name(&place.id)?;
        if let Some(name) = place.field.as_ref().filter(|name| name.len() > proto::NAME_BYTES) {
            return Err(WriteError::BadName { name: name.clone() });
        }
        let device_name = self.device_name().to_owned();
        self.run_presence(move |tx, core| {
            let cursor = match (&place.field, place.cursor) {
                (Some(field), Some(at)) => core.cursor(tx, &place.collection, &place.id, field, at)?,
                _ => None,
            };
            let Place { collection, id, field, .. } = place;
            core.set_place(Some(SentPlace { device_name, collection, name: id, field, cursor }));
            Ok(())
        })?;
        // As long as a place is told, the file is watched: another process may switch the collection off.
        self.database().writer.watch_file();
        Ok(())
    }

    /// The other devices that are connected and say where they are.
    ///
    /// # Errors
    /// [`ReadError`] if a document that somebody is in cannot be read.
    pub fn peers(&self) -> Result<Vec<Peer>, ReadError> {
        let known = self.database().shared.presence.peers.borrow().clone();
        let cursors: Vec<CursorAt> = known.values().filter_map(cursor_of).collect();
        let mut positions = match cursors.is_empty() {
            true => Vec::new(),
            false => self
                .database()
                .writer
                .run(Durability::Normal, move |tx, core| core.cursor_positions(tx, &cursors))
                .map_err(ReadError::Storage)?,
        }
        .into_iter();
        let schemas = self.database().readers.read(declared)?;
        let peer = |(device, sent): (DeviceId, SentPlace)| {
            let cursor = cursor_of(&sent).and_then(|_| positions.next().flatten());
            let SentPlace { device_name, collection, name, field, .. } = sent;
            // The other may call it otherwise.
            let schema = schemas.get(&collection);
            let field =
                field.map(|field| schema.map_or(&*field, |schema| schema.canonical(&field)).to_owned());
            Peer { device, device_name, place: Place { collection, id: name, field, cursor } }
        };
        Ok(known.into_iter().map(peer).collect())
    }

    /// Tells whenever [`peers`](Self::peers) has changed from now on.
    pub fn watch_peers(&self) -> PeerWatch {
        PeerWatch(self.database().shared.presence.peers.subscribe())
    }

    fn run_presence(
        &self,
        place: impl FnOnce(Tx<'_>, &mut Core) -> Result<(), StorageError> + Send + 'static,
    ) -> Result<(), WriteError> {
        self.database().writer.run(Durability::Normal, place).map_err(WriteError::Storage)
    }
}

impl PeerWatch {
    /// Waits until something has changed since the last time. It never resolves once the replica is gone.
    pub async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// [`changed`](Self::changed) for code that blocks, but no longer than this; whether something has changed.
    pub fn wait_for(&mut self, time: Duration) -> bool {
        block_on_for(self.changed(), time).is_some()
    }

    /// Whether something has changed since the last time, without waiting.
    pub fn has_changed(&mut self) -> bool {
        self.changed().now_or_never().is_some()
    }
}

fn cursor_of(sent: &SentPlace) -> Option<CursorAt> {
    Some(CursorAt {
        collection: sent.collection.clone(),
        name: sent.name.clone(),
        field: sent.field.clone()?,
        cursor: sent.cursor.clone()?,
    })
}

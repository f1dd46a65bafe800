//! Where this device is, and cursors of texts: made and found in the loaded document.

use motet_proto::presence::{Place, Presence};

use super::Core;
use crate::store::{self, Tx};

/// A cursor in a field of a document.
#[derive(Clone, Debug)]
pub(crate) struct CursorAt {
    pub(crate) collection: String,
    pub(crate) name: String,
    pub(crate) field: String,
    pub(crate) cursor: String,
}

impl Core {
    /// The app says where this device is.
    pub(crate) fn set_place(&self, place: Option<Place>) {
        self.shared.presence.set_place(place);
        self.tell_place();
    }

    /// Tells the others of the device's place what may be told, as the declarations and the collections that are synced now are.
    pub(super) fn tell_place(&self) {
        let board = &self.shared.presence;
        let told = board.place().and_then(|place| self.tellable(place));
        let sealer = &*self.shared.sealer;
        match Presence::seal(self.shared.device, told.as_ref(), self.shared.space, sealer) {
            Ok(presence) if presence.is_small() => board.tell(presence),
            Ok(_) => tracing::warn!("the others are not told where this device is: sealed it is too large"),
            Err(error) => tracing::warn!(%error, "the others are not told where this device is"),
        }
    }

    /// What of a place leaves this device.
    fn tellable(&self, mut place: Place) -> Option<Place> {
        if !self.leaves(&place.collection, &place.name) {
            return None;
        }
        let schema = self.schema_of(&place.collection, &place.name);
        // A place inside a field may be given as a path.
        let field = place.field.as_deref().map(|field| field.trim_start_matches('/'));
        let outer = field.and_then(|field| field.split(['.', '/']).next());
        if field.into_iter().chain(outer).any(|name| schema.is_local_field(name)) {
            (place.field, place.cursor) = (None, None);
        }
        Some(place)
    }

    /// The place before a code point of a text; `None` if there is no such text.
    pub(crate) fn cursor(
        &mut self,
        tx: Tx<'_>,
        collection: &str,
        name: &str,
        field: &str,
        at: usize,
    ) -> store::Result<Option<String>> {
        let Some(loaded) = self.find(tx, collection, name)? else { return Ok(None) };
        let cursor = loaded.document.cursor(&loaded.schema, field, at);
        self.put_back(loaded);
        Ok(cursor)
    }

    /// Where cursors are now; `None` for those that cannot be found (yet).
    pub(crate) fn cursor_positions(
        &mut self,
        tx: Tx<'_>,
        cursors: &[CursorAt],
    ) -> store::Result<Vec<Option<usize>>> {
        let mut positions = Vec::with_capacity(cursors.len());
        for CursorAt { collection, name, field, cursor } in cursors {
            let loaded = self.find(tx, collection, name)?;
            positions.push(loaded.and_then(|loaded| {
                let at = loaded.document.cursor_position(&loaded.schema, field, cursor);
                self.put_back(loaded);
                at
            }));
        }
        Ok(positions)
    }
}

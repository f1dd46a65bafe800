//! Cursors of texts: made and found in the loaded document.

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

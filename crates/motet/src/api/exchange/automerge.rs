//! Documents in Automerge's own format, for programs that use Automerge without Motet.

use crate::api::document::DocumentHandle;
use crate::doc::{Document, Identity};
use crate::engine::{declared, schema_of};
use crate::error::WriteError;
use crate::types::Version;

impl<T> DocumentHandle<T> {
    /// A document with its whole history, as Automerge saves it: other programs load it with `Automerge.load`. Fields that stay on this
    /// device are not in it. A document in the trash is exported as deleted.
    ///
    /// A text is a text, a list a list and a counter a counter in it; a set is a map from each element, written as JSON, to true.
    ///
    /// ```
    /// # use motet::{Replica, Schema, json};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let replica = Replica::open(dir.path().join("songs.db"))?;
    /// # replica.apply_schema(&Schema::new().text("pieces", "lyrics"))?;
    /// let pieces = replica.documents("pieces");
    /// let id = pieces.insert(&json!({ "title": "Aloha ʻOe" }))?;
    /// let saved = pieces.document(&id).export_automerge()?;
    /// // … another program edits it and saves it again …
    /// pieces.document(&id).import_automerge(&saved)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`WriteError::NotFound`] if there never was such a document, or it was purged; [`WriteError::BadValue`] if it is one that stays on
    /// this device and has no history.
    pub fn export_automerge(&self) -> Result<Vec<u8>, WriteError> {
        let (name, id) = self.key();
        self.collection().replica().run_reading(move |tx, core| core.export_automerge(tx, &name, &id))
    }

    /// Merges a document that another program has saved, with its whole history, into this one, durably; one that is not here is
    /// made. The changes count as made by whoever made them, merge like those of another device, and are sent to the relay.
    ///
    /// What was made from an [export](Self::export_automerge) goes on from it. A document that was made elsewhere has no history in
    /// common with the one here: two texts of one field are merged as where two devices make one document, other values are in conflict.
    ///
    /// To an [undo](crate::Replica::undo) it is nothing that this device has done; [`restore_version`](Self::restore_version) goes back to what was
    /// before.
    ///
    /// Dates show as numbers, bytes as lists of numbers. Accepted is what Automerge 3 saves: a document, compressed or not, changes, or both one after the other, of at most
    /// [`FOREIGN_DOCUMENT_BYTES`](crate::limits::FOREIGN_DOCUMENT_BYTES) when opened.
    ///
    /// # Errors
    /// [`WriteError::Automerge`] if the bytes are no such document, or hold what a document cannot hold;
    /// [`WriteError::TooLarge`] if there is more in it than can be sent at once; [`WriteError::Purged`];
    /// [`WriteError::BadValue`] if documents of that id stay on this device. Nothing is merged then.
    pub fn import_automerge(&self, saved: &[u8]) -> Result<Version, WriteError> {
        let (name, id) = self.key();
        let schemas = self.collection().replica().database().readers.read(declared)?;
        let schema = schema_of(&schemas, &name, &id);
        let identity = Identity::derive(self.collection().replica().space(), &name, &id);
        let changes = Document::foreign_changes(identity, saved, &schema)
            .map_err(|reason| WriteError::Automerge { reason })?;
        self.collection()
            .replica()
            .run_prepared(Some(self.ahead()), move |tx, core| core.import_automerge(tx, &name, &id, changes))
    }
}

//! What takes long and can be done before a transaction, so that other processes write meanwhile: composing a big write, and loading a
//! big document that is not in memory.

use motet_proto::DocumentId;

use super::composed::{compose_ahead, compose_text_ahead};
use super::held::is_as_stored;
use super::local::Patch;
use super::undo::documents_of_step;
use super::writing::TextWrite;
use super::{Core, Entrance, load_stale};
use crate::limits;
use crate::store::{self, StepKind, Tx};
use crate::types::UndoScope;
use crate::types::Version;

/// What a write says beforehand of what it will need.
pub(crate) enum Ahead {
    /// One document.
    Document { collection: String, id: String },
    /// The documents whose projections lag behind; with `all`, also those that another process is likely to project.
    Behind { all: bool },
    /// Fields of one document.
    Patch { collection: String, id: String, patch: Patch, base: Option<Version> },
    /// The documents of the step that an undo or a redo goes back over.
    Step { scope: UndoScope, kind: StepKind },
    /// Parts of a text.
    Text { collection: String, id: String, text: TextWrite },
}

impl Ahead {
    pub(crate) fn of(collection: &str, id: &str) -> Self {
        Self::Document { collection: collection.to_owned(), id: id.to_owned() }
    }
}

impl Core {
    pub(super) fn is_long(&mut self, tx: Tx<'_>, ahead: &Ahead, foreign: bool) -> bool {
        match ahead {
            Ahead::Document { collection, id } => self.is_cold(tx, collection, id, foreign),
            // Which documents those are takes reading steps: once, and not here as well.
            Ahead::Behind { .. } | Ahead::Step { .. } | Ahead::Patch { .. } | Ahead::Text { .. } => true,
        }
    }

    pub(super) fn do_ahead(&mut self, tx: Tx<'_>, ahead: Ahead, foreign: bool) {
        let (shared, readers) = (self.shared.clone(), self.readers.clone());
        match ahead {
            Ahead::Document { collection, id } => self.load_ahead(&collection, &id),
            Ahead::Behind { all } => {
                for (row, at) in tx.stale_documents(limits::DOCUMENTS_BEHIND).unwrap_or_default() {
                    if (all || self.is_due(row.key, at))
                        && self.is_cold(tx, &row.collection, &row.name, foreign)
                    {
                        self.load_ahead(&row.collection, &row.name);
                    }
                }
            }
            Ahead::Step { scope, kind } => {
                let documents = documents_of_step(tx, &scope, kind).unwrap_or_default();
                for (collection, id) in documents.iter().take(limits::DOCUMENTS_BEHIND) {
                    if self.is_cold(tx, collection, id, foreign) {
                        self.load_ahead(collection, id);
                    }
                }
            }
            Ahead::Patch { collection, id, patch, base } => {
                let of = (&*collection, &*id);
                self.offer(compose_ahead(&shared, &readers, of, &patch, base.as_ref(), Entrance::Put));
            }
            Ahead::Text { collection, id, text } => {
                self.offer(compose_text_ahead(&shared, &readers, (&collection, &id), &text));
            }
        }
    }

    /// Whether a document is big and would have to be loaded, or checked, before it is written.
    fn is_cold(&self, tx: Tx<'_>, collection: &str, name: &str, foreign: bool) -> bool {
        let key = DocumentId::derive(tx.space(), collection, name);
        let is_sure = !foreign && self.cache.contains(&key);
        let schema = self.schema_of(collection, name);
        // What stays on this device has no version to be checked.
        if is_sure || schema.has_local() || schema.is_local() {
            return false;
        }
        tx.stored_bytes(key).is_ok_and(|bytes| bytes >= limits::LOADED_AHEAD_BYTES)
    }

    /// Has a document in memory as it is now, to be checked again in the transaction. What fails is told there.
    fn load_ahead(&mut self, collection: &str, name: &str) {
        let key = DocumentId::derive(self.shared.space, collection, name);
        let mut held = self.cache.pop(&key).or_else(|| self.unsure.pop(&key));
        let schema = self.schema_of(collection, name);
        let load = |tx: Tx<'_>| -> store::Result<_> {
            let Some(row) = tx.document(collection, name)? else { return Ok(None) };
            if row.deleted || row.purged || tx.is_unmerged(row.id)? {
                return Ok(None);
            }
            if let Some(held) = held.take_if(|held| held.schema == schema && held.can_be_checked())
                && is_as_stored(tx, &row, &held.row, &held.document)?
            {
                return Ok(Some(held));
            }
            load_stale(tx, row, schema.clone()).map(Some)
        };
        let readers = self.readers.clone();
        if let Ok(Some(loaded)) = readers.read(load) {
            self.unsure.put(key, loaded);
        }
    }
}

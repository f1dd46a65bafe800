//! Documents as Automerge saves them, for other programs.

use motet_proto::{DocumentId, SpaceId};

use super::check::check_name;
use super::{Commit, Core, new_document};
use crate::doc::Change;
use crate::error::WriteError;
use crate::store::Tx;
use crate::types::{ChangeKind, Version};

impl Core {
    /// A document with its whole history.
    pub(crate) fn export_automerge(
        &mut self,
        tx: Tx<'_>,
        collection: &str,
        name: &str,
    ) -> Result<Vec<u8>, WriteError> {
        let loaded = self.find_any(tx, collection, name)?;
        if loaded.schema.is_local() && loaded.row.heads.is_empty() {
            return Err(stays_here(collection));
        }
        let saved = loaded.document.save();
        self.put_back(loaded);
        Ok(saved)
    }

    /// Merges the changes of a document that another program has saved, as if a device had sent them. All of them, or none.
    pub(crate) fn import_automerge(
        &mut self,
        tx: Tx<'_>,
        collection: &str,
        name: &str,
        changes: Vec<Change>,
    ) -> Result<Version, WriteError> {
        check_name(collection)?;
        check_name(name)?;
        let mut loaded = match self.find(tx, collection, name)? {
            Some(loaded) if self.is_over(tx, &loaded)? => {
                return Err(WriteError::Purged { collection: collection.to_owned(), id: name.to_owned() });
            }
            Some(loaded) => loaded,
            None => {
                let key = DocumentId::derive(SpaceId::DEFAULT, collection, name);
                new_document(key, collection, name, self.schema_of(collection, name))
            }
        };
        if loaded.schema.is_local() {
            return Err(stays_here(collection));
        }
        let was_live = loaded.row.id != 0 && !loaded.row.deleted;
        let schema = loaded.schema.clone();
        let outcome = loaded.document.merge(changes, &schema);
        if let Some(rejected) = outcome.rejected.first() {
            return Err(WriteError::Automerge { reason: rejected.reason.clone() });
        }
        if outcome.displaced.is_some() {
            let reason = "an actor has made other changes under the same numbers in this document".to_owned();
            return Err(WriteError::Automerge { reason });
        }
        let kind = match (was_live, loaded.document.is_deleted(&schema)) {
            (_, true) => ChangeKind::Deleted,
            (false, false) => ChangeKind::Created,
            (true, false) => ChangeKind::Updated,
        };
        self.finish(tx, loaded, &Commit { stale: true, ..Commit::of(&outcome.applied, kind) })
    }
}

fn stays_here(collection: &str) -> WriteError {
    WriteError::bad_value(format!(
        "documents that stay on this device have no history, and {collection} is declared so"
    ))
}

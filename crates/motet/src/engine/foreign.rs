//! Documents as Automerge saves them, for other programs.

use super::check::{check_name, check_shown};
use super::{Commit, Core, new_document};
use crate::doc::{Change, Identity, is_purge};
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
                let identity = Identity::derive(tx.space(), collection, name);
                new_document(identity, collection, name, self.schema_of(collection, name))
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
        check_shown(&loaded.document.fields(&schema)).map_err(|reason| WriteError::Automerge { reason })?;
        let brings_purge = outcome.applied.iter().any(is_purge);
        if brings_purge && loaded.document.is_purged(&schema) {
            // Whoever has purged it says so to all devices, and each has a time of grace to bring it back.
            return Err(WriteError::Purged { collection: collection.to_owned(), id: name.to_owned() });
        }
        // Who has purged it holds nothing of it any more.
        let is_whole_due = brings_purge && loaded.row.id != 0;
        let (key, now) = (loaded.row.key, self.shared.now_ms());
        let kind = match (was_live, loaded.document.is_deleted(&schema)) {
            (_, true) => ChangeKind::Deleted,
            (false, false) => ChangeKind::Created,
            (true, false) => ChangeKind::Updated,
        };
        // Who made the changes may have sent them as well, and others have built on them: it is no step of this device.
        let commit = Commit { stale: true, automatic: true, ..Commit::of(&outcome.applied, kind) };
        let version = self.finish(tx, loaded, &commit)?;
        for item in tx.quarantined_of(key, None)? {
            let held =
                self.write.documents.get(&key).is_some_and(|loaded| loaded.document.has_hash(&item.hash));
            if held {
                tx.release(key, &item.hash)?;
            }
        }
        if kind == ChangeKind::Created && self.free_revived(tx, key, now)? {
            self.catch_up_all(tx)?;
        }
        let document = self.write.documents.get(&key).map(|loaded| loaded.row.id);
        if let Some(document) = document.filter(|_| is_whole_due && self.leaves(collection, name)) {
            for remote in self.remotes.clone() {
                self.enqueue_whole(tx, remote, document, now)?;
            }
        }
        Ok(version)
    }
}

fn stays_here(collection: &str) -> WriteError {
    WriteError::bad_value(format!(
        "documents that stay on this device have no history, and {collection} is declared so"
    ))
}

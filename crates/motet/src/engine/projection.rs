//! Projections may lag behind: typing costs a change row then, and no rewrite of all that a document shows. Whoever reads
//! through a replica has them caught up first.

use std::collections::HashSet;

use motet_proto::DocumentId;

use super::{Core, Loaded, load_behind, to_json};
use crate::limits;
use crate::store::{self, DocumentRow, StorageError, Tx};

impl Core {
    /// The write is about to end. One that touched several documents shows them all at once.
    pub(crate) fn finish_write(&mut self, tx: Tx<'_>) -> store::Result<()> {
        self.keep_step(tx)?;
        if self.in_write.len() > 1 { self.catch_up_all(tx) } else { Ok(()) }
    }

    pub(super) fn mark_behind(&mut self, tx: Tx<'_>, row: &DocumentRow) -> store::Result<()> {
        let behind = self.behind(tx)?;
        if behind.insert(row.key) {
            let is_full = behind.len() > limits::DOCUMENTS_BEHIND;
            tx.mark_behind(row.id, row.updated_at)?;
            if is_full {
                // This one is in the caller's hands.
                let mut others = std::mem::take(self.behind(tx)?);
                others.remove(&row.key);
                self.project_all(tx, others)?;
                self.behind = Some(HashSet::from([row.key]));
            }
        }
        Ok(())
    }

    /// Brings one document's projection in line, if it lags behind.
    pub(super) fn catch_up_with(&mut self, tx: Tx<'_>, key: DocumentId) -> store::Result<()> {
        if self.behind(tx)?.contains(&key) { self.catch_up_all(tx) } else { Ok(()) }
    }

    pub(crate) fn catch_up_all(&mut self, tx: Tx<'_>) -> store::Result<()> {
        let behind = std::mem::take(self.behind(tx)?);
        self.project_all(tx, behind)
    }

    fn project_all(&mut self, tx: Tx<'_>, behind: HashSet<DocumentId>) -> store::Result<()> {
        for key in behind {
            let held = self.take_held(key);
            let was_held = held.is_some();
            let mut had_conflicts = false;
            let loaded = match held {
                Some(loaded) => Ok(loaded),
                None => tx.document_by_key(key)?.map_or_else(
                    || Err(StorageError::Damaged("a document is not there any more".into())),
                    |row| {
                        let schema = self.schema_of(&row.collection);
                        had_conflicts = row.conflicts > 0;
                        load_behind(tx, row, schema)
                    },
                ),
            };
            match loaded {
                Ok(loaded) => {
                    self.project(tx, &loaded)?;
                    // A new declaration concerns whole collections: they must not fill the memory. It may settle conflicts, or
                    // name them otherwise.
                    if was_held {
                        self.put_back(loaded);
                    } else if had_conflicts || loaded.row.conflicts > 0 {
                        let conflicts = loaded.document.conflicts(&loaded.schema);
                        let now = self.shared.now_ms();
                        tx.journal_conflicts(loaded.row.id, &super::conflict_rows(&conflicts)?, now)?;
                    }
                }
                // It is reported to whoever asks for the document; the others go on.
                Err(StorageError::Damaged(reason)) => {
                    tracing::error!(document = %key, reason, "a projection cannot be made");
                    tx.unmark_behind_key(key)?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    pub(super) fn project(&mut self, tx: Tx<'_>, loaded: &Loaded) -> store::Result<()> {
        tx.update_document(&loaded.row, &to_json(&loaded.fields)?)?;
        self.told.projected = true;
        self.mark_unindexed(tx, loaded.row.id)?;
        self.behind(tx)?.remove(&loaded.row.key);
        tx.unmark_behind(loaded.row.id)
    }

    pub(super) fn behind(&mut self, tx: Tx<'_>) -> store::Result<&mut HashSet<DocumentId>> {
        let behind = match self.behind.take() {
            Some(behind) => behind,
            None => tx.behind()?,
        };
        Ok(self.behind.insert(behind))
    }
}

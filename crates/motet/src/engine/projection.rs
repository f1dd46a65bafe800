//! Projections may lag behind: typing costs a change row then, and no rewrite of all that a document shows. Whoever reads
//! through a replica has them caught up first.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::Instant;

use motet_proto::DocumentId;

use super::{Core, Loaded, load_stale, to_json};
use crate::limits;
use crate::store::{self, DocumentRow, StorageError, Tx};

impl Core {
    /// The write is about to end. One that touched several documents shows them all at once.
    pub(crate) fn finish_write(&mut self, tx: Tx<'_>) -> store::Result<()> {
        self.keep_step(tx)?;
        if self.write.documents.len() > 1 { self.catch_up_all(tx) } else { Ok(()) }
    }

    pub(super) fn mark_stale(&mut self, tx: Tx<'_>, row: &DocumentRow) -> store::Result<()> {
        self.note_lagging(row);
        let behind = self.behind(tx)?;
        if let Entry::Vacant(entry) = behind.entry(row.key) {
            entry.insert(row.updated_at);
            let is_full = behind.len() > limits::DOCUMENTS_BEHIND;
            tx.mark_stale(row.id, row.updated_at)?;
            if is_full {
                // This one is in the caller's hands.
                let mut others = std::mem::take(self.behind(tx)?);
                others.remove(&row.key);
                others.into_keys().try_for_each(|key| self.project_late(tx, key))?;
                self.behind = Some(HashMap::from([(row.key, row.updated_at)]));
            }
        }
        Ok(())
    }

    /// Brings one document's projection in line, if it lags behind.
    pub(super) fn catch_up_with(&mut self, tx: Tx<'_>, key: DocumentId) -> store::Result<()> {
        if self.behind(tx)?.contains_key(&key) { self.catch_up_all(tx) } else { Ok(()) }
    }

    pub(crate) fn catch_up_all(&mut self, tx: Tx<'_>) -> store::Result<()> {
        let behind = std::mem::take(self.behind(tx)?);
        behind.into_keys().try_for_each(|key| self.project_late(tx, key))
    }

    /// [`catch_up_all`](Self::catch_up_all), but only for as long as others should wait: a new declaration concerns whole collections.
    /// Without `all`, what another process is likely to project is left to it. False if something else is left.
    pub(crate) fn catch_up_turn(&mut self, tx: Tx<'_>, all: bool) -> store::Result<bool> {
        let until = Instant::now() + limits::WRITE_TURN;
        let behind = std::mem::take(self.behind(tx)?);
        let (due, others): (Vec<_>, Vec<_>) =
            behind.into_iter().partition(|(key, at)| all || self.is_due(*key, *at));
        let mut due = due.into_iter();
        for (key, _) in due.by_ref() {
            self.project_late(tx, key)?;
            if Instant::now() >= until {
                break;
            }
        }
        let is_done = due.len() == 0;
        self.behind(tx)?.extend(due.chain(others));
        Ok(is_done)
    }

    fn project_late(&mut self, tx: Tx<'_>, key: DocumentId) -> store::Result<()> {
        let held = self.take_held(tx, key)?;
        let was_held = held.is_some();
        let mut had_conflicts = false;
        let loaded = match held {
            Some(loaded) => Ok(loaded),
            None => tx.document_by_key(key)?.map_or_else(
                || Err(StorageError::Damaged("a document is not there any more".into())),
                |row| {
                    let schema = self.schema_of(&row.collection, &row.name);
                    had_conflicts = row.conflicts > 0;
                    load_stale(tx, row, schema)
                },
            ),
        };
        match loaded {
            Ok(loaded) => {
                self.note_late(tx, &loaded.row)?;
                self.project(tx, &loaded)?;
                // A new declaration concerns whole collections: they must not fill the memory. It may settle conflicts, or
                // name them otherwise.
                if was_held {
                    self.put_back(loaded);
                } else if had_conflicts || loaded.row.conflicts > 0 {
                    let conflicts = loaded.document.conflicts(&loaded.schema);
                    let now = self.shared.now_ms();
                    self.journal(tx, &loaded.row, &conflicts, now)?;
                }
            }
            // It is reported to whoever asks for the document; the others go on.
            Err(StorageError::Damaged(reason)) => {
                tracing::error!(document = %key, reason, "a projection cannot be made");
                tx.unmark_stale_key(key)?;
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    pub(super) fn project(&mut self, tx: Tx<'_>, loaded: &Loaded) -> store::Result<()> {
        tx.update_document(&loaded.row, &to_json(&loaded.fields)?)?;
        self.told.projected = true;
        self.mark_unindexed(tx, loaded.row.id)?;
        self.behind(tx)?.remove(&loaded.row.key);
        tx.unmark_stale(loaded.row.id)
    }

    pub(super) fn behind(&mut self, tx: Tx<'_>) -> store::Result<&mut HashMap<DocumentId, i64>> {
        let behind = match self.behind.take() {
            Some(behind) => behind,
            None => tx.behind()?,
        };
        Ok(self.behind.insert(behind))
    }
}

//! What follows when a change loses in a collision: the document is stored anew, what left it is set aside, and who wrote that writes
//! its values once more.

use std::collections::HashMap;

use motet_proto::DocumentId;

use super::writing::WriteContext;
use super::{Commit, Core, Loaded};
use crate::doc::{Change, ChangeHash, Displaced, Fields, Rejected, split_headers};
use crate::error::WriteError;
use crate::store::{self, StorageError, Tx};
use crate::types::ChangeKind;
use crate::types::Version;

/// Values that this device wrote and lost.
pub(super) struct Rewrite {
    before: Fields,
    /// What the document shows without them, and the version that does.
    left: Fields,
    heads: Vec<ChangeHash>,
}

impl Displaced {
    /// What left the document, as it is set aside.
    pub(super) fn into_rejected(self) -> impl Iterator<Item = Rejected> {
        self.changes.into_iter().map(|change| Rejected {
            change,
            reason: "it, or what it is built on, has lost to another change with the same actor and number"
                .into(),
            waits: false,
        })
    }
}

impl Core {
    /// Writes down what is left of a document. `applied` is what its commit will add.
    pub(super) fn store_anew(
        &mut self,
        tx: Tx<'_>,
        remote: i64,
        loaded: &mut Loaded,
        displaced: &Displaced,
        applied: &[Change],
    ) -> store::Result<()> {
        if loaded.row.id == 0 {
            return Ok(());
        }
        tracing::warn!(document = %loaded.row.key, changes = displaced.changes.len(), "changes have lost in a collision");
        let all = loaded.document.changes().map_err(StorageError::Damaged)?;
        // Of what lies under a snapshot the original bytes are gone.
        let mut originals = HashMap::new();
        for (_, bytes) in tx.change_rows(loaded.row.id)? {
            if let Ok([header]) = split_headers(&bytes).as_deref() {
                originals.insert(header.hash, header.bytes.to_vec());
            }
        }
        tx.clear_content(loaded.row.id)?;
        for change in all.iter().filter(|change| !applied.iter().any(|new| new.hash() == change.hash())) {
            let original = originals.get(&change.hash().0).map(Vec::as_slice);
            loaded.row.changes += 1;
            let bytes = original.unwrap_or(change.raw_bytes());
            tx.insert_change(loaded.row.id, loaded.row.changes, bytes, Some(remote))?;
        }
        // Rows that were not sent name changes by numbers that are gone.
        let now = self.shared.now_ms();
        if self.leaves(&loaded.row.collection, &loaded.row.name) {
            for remote in self.remotes.clone() {
                self.enqueue_whole(tx, remote, loaded.row.id, now)?;
            }
        }
        Ok(())
    }

    /// The values of this device that have left the document, if there were any.
    pub(super) fn to_rewrite(&self, loaded: &Loaded, displaced: &Displaced) -> Option<Rewrite> {
        if loaded.row.id == 0 || !displaced.devices.contains(&self.shared.device) {
            return None;
        }
        let left = loaded.document.fields_at(&loaded.schema, &displaced.left)?;
        Some(Rewrite { before: loaded.fields.clone(), left, heads: displaced.left.clone() })
    }

    /// Writes lost values anew, under an actor of their own and beside what the winner says.
    pub(super) fn rewrite(
        &mut self,
        tx: Tx<'_>,
        key: DocumentId,
        rewrite: &Rewrite,
        now: i64,
    ) -> store::Result<()> {
        let Some(mut loaded) = self.write.documents.remove(&key) else { return Ok(()) };
        let patch = super::diff(&rewrite.left, &rewrite.before);
        let base = Version(rewrite.heads.iter().map(|head| head.0).collect());
        let by: WriteContext<'_> = self.by();
        let written = match by.compose(&mut loaded, &patch, Some(&base), ChangeKind::Updated) {
            Ok(written) => written,
            Err(WriteError::Storage(error)) => return Err(error),
            Err(error) => {
                // What was lost is set aside, and stays to be seen there.
                tracing::error!(document = %key, %error, "what lost in a collision cannot be written anew");
                self.put_back(loaded);
                return Ok(());
            }
        };
        let commit = Commit { stale: true, automatic: true, ..written.commit(ChangeKind::Updated) };
        self.commit(tx, loaded, &commit, now)?;
        Ok(())
    }
}

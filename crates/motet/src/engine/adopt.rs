//! Rows of another database.

use motet_proto::{DocumentId, SpaceId};

use super::local::{Patch, check_name};
use super::{Commit, Core, new_document};
use crate::doc::Fields;
use crate::error::WriteError;
use crate::events::ChangeKind;
use crate::store::Tx;

/// What became of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Adopted {
    New,
    Updated,
    Unchanged,
}

impl Core {
    /// Takes up a row. One whose document is there already changes it only if the row is newer than the document.
    pub(crate) fn adopt(
        &mut self,
        tx: Tx<'_>,
        collection: &str,
        name: &str,
        row: &Fields,
        updated_at: i64,
    ) -> Result<Adopted, WriteError> {
        check_name(collection)?;
        check_name(name)?;
        let patch = Patch { set: row.clone(), remove: Vec::new() };
        match self.find(tx, collection, name)? {
            Some(loaded) if loaded.row.deleted => {
                self.put_back(loaded);
                Ok(Adopted::Unchanged)
            }
            Some(loaded) => {
                let same = row.iter().all(|(name, value)| loaded.fields.get(name) == Some(value));
                let newest = loaded.document.made().iter().map(|made| made.time * 1_000).max();
                if same || newest.is_some_and(|newest| newest >= updated_at) {
                    self.put_back(loaded);
                    return Ok(Adopted::Unchanged);
                }
                self.write(tx, loaded, &patch, None, ChangeKind::Updated)?;
                Ok(Adopted::Updated)
            }
            None => {
                let key = DocumentId::derive(SpaceId::DEFAULT, collection, name);
                let mut loaded = new_document(key, collection, name, self.schema_of(collection));
                let (patch, local) = loaded.keep(&patch);
                let mut changes = Vec::new();
                if !loaded.schema.is_local() {
                    let schema = loaded.schema.clone();
                    let adopted = loaded.document.adopt(&schema, &patch.set, updated_at);
                    changes = adopted.map_err(super::local::write_error)?;
                }
                let commit = Commit { stale: true, local, ..Commit::of(&changes, ChangeKind::Created) };
                self.finish(tx, loaded, &commit)?;
                Ok(Adopted::New)
            }
        }
    }
}

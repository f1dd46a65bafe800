//! Rows of another database.

use motet_proto::{DocumentId, SpaceId};
use serde_json::Value as Json;

use super::check::{check_name, check_patch};
use super::local::{Patch, write_error};
use super::{Commit, Core, Loaded, new_document};
use crate::doc::Fields;
use crate::error::WriteError;
use crate::events::ChangeKind;
use crate::store::Tx;

/// What became of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Adopted {
    New,
    Updated,
    Unchanged,
    /// Its document is deleted.
    PassedOver,
    /// It does not say how new it is, and its document is there and has something else in this field.
    Undated {
        field: String,
    },
}

impl Core {
    /// Takes up a row as it was at `updated_at` (milliseconds since 1970, if it is known). One whose document is there already changes it
    /// only if the row is newer than the document.
    pub(crate) fn adopt(
        &mut self,
        tx: Tx<'_>,
        collection: &str,
        name: &str,
        row: &Fields,
        updated_at: Option<i64>,
    ) -> Result<Adopted, WriteError> {
        check_name(collection)?;
        check_name(name)?;
        let patch = Patch { set: row.clone(), remove: Vec::new() };
        match self.find(tx, collection, name)? {
            Some(loaded) if loaded.row.deleted => {
                self.put_back(loaded);
                Ok(Adopted::PassedOver)
            }
            Some(loaded) => self.adopt_newer(tx, loaded, &patch, updated_at),
            None => {
                let key = DocumentId::derive(SpaceId::DEFAULT, collection, name);
                let mut loaded = new_document(key, collection, name, self.schema_of(collection));
                let patch = patch.canonical(&loaded.schema)?;
                check_patch(&loaded, &patch)?;
                let (patch, local) = loaded.keep(&patch);
                let mut changes = Vec::new();
                if !loaded.schema.is_local() {
                    let schema = loaded.schema.clone();
                    changes = loaded
                        .document
                        .adopt(&schema, &patch.set, updated_at.unwrap_or_default())
                        .map_err(write_error)?;
                }
                let commit = Commit { stale: true, local, ..Commit::of(&changes, ChangeKind::Created) };
                self.finish(tx, loaded, &commit)?;
                Ok(Adopted::New)
            }
        }
    }

    fn adopt_newer(
        &mut self,
        tx: Tx<'_>,
        mut loaded: Box<Loaded>,
        patch: &Patch,
        updated_at: Option<i64>,
    ) -> Result<Adopted, WriteError> {
        let patch = patch.canonical(&loaded.schema)?;
        let shown = &loaded.fields;
        let new = patch.set.iter().filter(|(name, value)| shown.get(*name) != Some(*value));
        let new: Fields = new.map(|(name, value)| (name.clone(), value.clone())).collect();
        let Some(updated_at) = updated_at else {
            // A null where the document has nothing says no more than it does.
            let differs = |(name, value): &(&String, &Json)| !value.is_null() || shown.contains_key(*name);
            let field = new.iter().find(differs).map(|(name, _)| name.clone());
            self.put_back(loaded);
            return Ok(field.map_or(Adopted::Unchanged, |field| Adopted::Undated { field }));
        };
        if new.is_empty() || loaded.document.written_at() >= Some(updated_at) {
            self.put_back(loaded);
            return Ok(Adopted::Unchanged);
        }
        let patch = Patch { set: new, remove: Vec::new() };
        check_patch(&loaded, &patch)?;
        let (patch, local) = loaded.keep(&patch);
        let mut changes = Vec::new();
        if !loaded.schema.is_local() {
            let edit = self.by().edit(&loaded.schema, None, &loaded.fields);
            changes = loaded.document.adopt_newer(&edit, &patch.set, updated_at).map_err(write_error)?;
        }
        let is_changed = local || !changes.is_empty();
        let fields = patch.set.keys().cloned().collect();
        let commit = Commit { stale: true, local, fields, ..Commit::of(&changes, ChangeKind::Updated) };
        self.finish(tx, loaded, &commit)?;
        Ok(if is_changed { Adopted::Updated } else { Adopted::Unchanged })
    }

    /// Lets go of what the running write holds in memory: bulk work must not fill it.
    pub(crate) fn let_go(&mut self, tx: Tx<'_>) -> Result<(), WriteError> {
        self.catch_up_all(tx)?;
        self.in_write.clear();
        Ok(())
    }
}

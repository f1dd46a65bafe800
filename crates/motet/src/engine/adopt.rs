//! Rows of another database.

use std::collections::VecDeque;

use serde_json::Value as Json;

use super::check::{check_name, check_patch};
use super::local::{Patch, write_error};
use super::parallel::parallel;
use super::writing::{WriteContext, Written};
use super::{Composed, Core, Entrance, Loaded, Shared, compose_ahead, new_document};
use crate::doc::{Fields, Identity};
use crate::error::WriteError;
use crate::store::{Readers, Tx};
use crate::types::ChangeKind;

/// Composes rows of a collection before the transactions that write them, on all cores.
pub(crate) fn compose_rows<R: Send>(
    shared: &Shared,
    readers: &Readers,
    collection: &str,
    rows: Vec<R>,
    of: impl Fn(&R) -> (&str, &Fields, Option<i64>) + Sync,
) -> VecDeque<(R, Option<Composed>)> {
    let composed = parallel(rows, |row| {
        let (name, fields, updated_at) = of(&row);
        let patch = Patch { set: fields.clone(), ..Patch::default() };
        let entrance = Entrance::Adopted(updated_at);
        let composed = compose_ahead(shared, readers, (collection, name), &patch, None, entrance);
        (row, composed)
    });
    composed.into()
}

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
        let composed = self.take_composed(tx, (collection, name), None)?;
        if let Some(composed) = composed
            && let Some(adopted) = composed.adopted
        {
            self.finish(tx, composed.loaded, &composed.written.commit(composed.kind))?;
            return Ok(adopted);
        }
        let (mut loaded, kind) = match self.find(tx, collection, name)? {
            Some(loaded) if loaded.row.deleted => {
                self.put_back(loaded);
                return Ok(Adopted::PassedOver);
            }
            Some(loaded) => (loaded, ChangeKind::Updated),
            None => {
                let identity = Identity::derive(tx.space(), collection, name);
                let schema = self.schema_of(collection, name);
                (new_document(identity, collection, name, schema), ChangeKind::Created)
            }
        };
        let patch = Patch { set: row.clone(), ..Patch::default() };
        let (adopted, written) = self.by().compose_adopted(&mut loaded, &patch, updated_at)?;
        self.finish(tx, loaded, &written.commit(kind))?;
        Ok(adopted)
    }

    /// Lets go of what the running write holds in memory: bulk work must not fill it.
    pub(crate) fn let_go(&mut self, tx: Tx<'_>) -> Result<(), WriteError> {
        self.catch_up_all(tx)?;
        self.write.documents.clear();
        Ok(())
    }
}

impl WriteContext<'_> {
    /// Takes a row up into a document in memory, which is new or there already.
    pub(super) fn compose_adopted(
        &self,
        loaded: &mut Loaded,
        patch: &Patch,
        updated_at: Option<i64>,
    ) -> Result<(Adopted, Written), WriteError> {
        let patch = patch.canonical(&loaded.schema)?;
        if loaded.row.id != 0 {
            return self.compose_newer(loaded, &patch, updated_at);
        }
        check_patch(loaded, &patch)?;
        let (patch, local) = loaded.keep(&patch, None);
        let mut changes = Vec::new();
        if !loaded.schema.is_local() {
            let schema = loaded.schema.clone();
            let at = updated_at.unwrap_or_default();
            changes = loaded.document.adopt(&schema, &patch.set, at).map_err(write_error)?;
        }
        Ok((Adopted::New, Written { changes, local, fields: Vec::new(), stale: true, carried_over: false }))
    }

    fn compose_newer(
        &self,
        loaded: &mut Loaded,
        patch: &Patch,
        updated_at: Option<i64>,
    ) -> Result<(Adopted, Written), WriteError> {
        let nothing = || Written {
            changes: Vec::new(),
            local: false,
            fields: Vec::new(),
            stale: true,
            carried_over: false,
        };
        let shown = &loaded.fields;
        let new = patch.set.iter().filter(|(name, value)| shown.get(*name) != Some(*value));
        let new: Fields = new.map(|(name, value)| (name.clone(), value.clone())).collect();
        let Some(updated_at) = updated_at else {
            // A null where the document has nothing says no more than it does.
            let differs = |(name, value): &(&String, &Json)| !value.is_null() || shown.contains_key(*name);
            let field = new.iter().find(differs).map(|(name, _)| name.clone());
            return Ok((field.map_or(Adopted::Unchanged, |field| Adopted::Undated { field }), nothing()));
        };
        if new.is_empty() || loaded.document.written_at() >= Some(updated_at) {
            return Ok((Adopted::Unchanged, nothing()));
        }
        let patch = Patch { set: new, ..Patch::default() };
        check_patch(loaded, &patch)?;
        let (patch, local) = loaded.keep(&patch, None);
        let mut changes = Vec::new();
        if !loaded.schema.is_local() {
            let edit = self.edit(&loaded.schema, None, &loaded.fields);
            changes = loaded.document.adopt_newer(&edit, &patch.set, updated_at).map_err(write_error)?;
        }
        let adopted = if local || !changes.is_empty() { Adopted::Updated } else { Adopted::Unchanged };
        let fields = patch.set.keys().cloned().collect();
        Ok((adopted, Written { changes, local, fields, stale: true, carried_over: false }))
    }
}

//! Writes of an editor: what can be written is written, and who types loses no words to a delete that had not seen them.

use super::local::not_found;
use super::{Core, Loaded, Patch};
use crate::error::WriteError;
use crate::store::Tx;
use crate::types::ChangeKind;
use crate::types::Version;

/// What became of an edit.
pub(crate) struct Typed {
    /// The version that has what was written, and nothing that others have written since the edit's base.
    pub(crate) version: Version,
    /// Fields that were not written, and why.
    pub(crate) refused: Vec<(String, WriteError)>,
}

impl Core {
    /// Sets and removes fields on the version `base`. A field that cannot be written does not hold the others back. A document that
    /// another device has deleted meanwhile is edited all the same: its delete had not seen the edit, and whether it wins the
    /// collection's declaration says.
    pub(crate) fn update_typed(
        &mut self,
        tx: Tx<'_>,
        collection: &str,
        name: &str,
        patch: &Patch,
        base: &Version,
    ) -> Result<Typed, WriteError> {
        let mut refused = Vec::new();
        if let Some(composed) = self.take_composed(tx, (collection, name), Some(base))? {
            let branch = composed.written.branch(base);
            let version = self.finish(tx, composed.loaded, &composed.written.commit(composed.kind))?;
            return Ok(Typed { version: branch.unwrap_or(version), refused });
        }
        let mut patch = patch.clone();
        let mut probed = false;
        while !patch.is_empty() {
            let loaded = self.find_edited(tx, collection, name, base)?;
            let error = match self.type_into(tx, loaded, &patch, base) {
                Ok(version) => return Ok(Typed { version, refused }),
                Err(error) => error,
            };
            match error.field().map(ToOwned::to_owned) {
                Some(field) if patch.has(&field) => {
                    patch.take(&field);
                    refused.push((field, error));
                }
                _ if error.is_of_content() && !probed => {
                    probed = true;
                    let bad = self.probe(tx, collection, name, &patch, base)?;
                    if bad.is_empty() {
                        // Each field by itself could be written, all of them cannot.
                        return Err(error);
                    }
                    bad.iter().for_each(|(field, _)| _ = patch.take(field));
                    refused.extend(bad);
                }
                _ => return Err(error),
            }
        }
        Ok(Typed { version: base.clone(), refused })
    }

    /// The fields that cannot be written, each tried by itself.
    fn probe(
        &mut self,
        tx: Tx<'_>,
        collection: &str,
        name: &str,
        patch: &Patch,
        base: &Version,
    ) -> Result<Vec<(String, WriteError)>, WriteError> {
        let mut bad = Vec::new();
        for field in patch.fields() {
            let part = patch.clone().take(&field);
            // It is not put back: what is tried here is forgotten.
            let mut loaded = self.find_edited(tx, collection, name, base)?;
            match self.by().compose(&mut loaded, &part, Some(base), ChangeKind::Updated) {
                Ok(_) => {}
                Err(error) if error.is_of_content() => bad.push((field, error)),
                Err(error) => return Err(error),
            }
        }
        Ok(bad)
    }

    fn type_into(
        &mut self,
        tx: Tx<'_>,
        mut loaded: Box<Loaded>,
        patch: &Patch,
        base: &Version,
    ) -> Result<Version, WriteError> {
        let was_deleted = loaded.row.deleted;
        let written = self.by().compose(&mut loaded, patch, Some(base), ChangeKind::Updated)?;
        let branch = written.branch(base);
        let is_back = was_deleted && !loaded.document.is_deleted(&loaded.schema);
        let kind = if is_back { ChangeKind::Created } else { ChangeKind::Updated };
        let version = self.finish(tx, loaded, &written.commit(kind))?;
        Ok(branch.unwrap_or(version))
    }

    /// The document, unless it was purged, or deleted on this device: whoever did that here did it after what was typed.
    fn find_edited(
        &mut self,
        tx: Tx<'_>,
        collection: &str,
        name: &str,
        base: &Version,
    ) -> Result<Box<Loaded>, WriteError> {
        let found = self.find(tx, collection, name)?;
        let mut loaded = found.ok_or_else(|| not_found(collection, name))?;
        if self.is_over(tx, &loaded)? {
            return Err(WriteError::Purged { collection: collection.to_owned(), id: name.to_owned() });
        }
        let (device, schema) = (self.shared.device, loaded.schema.clone());
        if loaded.row.deleted && loaded.document.was_deleted_by(device, &base.hashes(), &schema) {
            self.put_back(loaded);
            return Err(not_found(collection, name));
        }
        Ok(loaded)
    }
}

impl Patch {
    pub(crate) fn is_empty(&self) -> bool {
        self.set.is_empty() && self.remove.is_empty()
    }

    /// The fields that it changes, each once.
    pub(crate) fn fields(&self) -> Vec<String> {
        let removed = self.remove.iter().filter_map(|path| path.first());
        let mut fields: Vec<String> = self.set.keys().chain(removed).cloned().collect();
        fields.sort_unstable();
        fields.dedup();
        fields
    }

    fn has(&self, field: &str) -> bool {
        self.set.contains_key(field)
            || self.remove.iter().any(|path| path.first().is_some_and(|f| f == field))
    }

    /// Takes out what it says of a field.
    pub(crate) fn take(&mut self, field: &str) -> Self {
        let mut part = Self::default();
        part.set.extend(self.set.remove_entry(field));
        let is_of = |path: &mut Vec<String>| path.first().is_some_and(|first| first == field);
        part.remove.extend(self.remove.extract_if(.., is_of));
        part.seen = self.seen.as_mut().map(|seen| seen.remove_entry(field).into_iter().collect());
        part
    }
}

impl WriteError {
    /// The field that could not be written, if it was one.
    fn field(&self) -> Option<&str> {
        match self {
            WriteError::Rule { field, .. } | WriteError::Contested { field } => Some(field),
            _ => None,
        }
    }

    /// Whether other values could be written.
    fn is_of_content(&self) -> bool {
        !matches!(
            self,
            WriteError::Storage(_)
                | WriteError::NotFound { .. }
                | WriteError::BadName { .. }
                | WriteError::Purged { .. }
                | WriteError::UnknownVersion { .. }
                | WriteError::Rejected(_)
        )
    }
}

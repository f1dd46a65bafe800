//! Writes of this device.

use std::borrow::Cow;

use serde_json::Value as Json;

use super::check::{check_name, check_size};
use super::seen::merges;
use super::writing::{TextWrite, WriteContext};
use super::{Commit, Core, Loaded, new_document};
use crate::doc::{Change, ChangeHash, Edit, EditError, Fields, Identity, check_change, merged, take_at};
use crate::error::WriteError;
use crate::schema::CollectionSchema;
use crate::store::{StorageError, Tx};
use crate::types::{ChangeKind, TextEdited, Version};

/// Fields to set and paths to remove.
#[derive(Clone, Debug, Default)]
pub(crate) struct Patch {
    pub(crate) set: Fields,
    pub(crate) remove: Vec<Vec<String>>,
    /// What its writer saw of the fields that it changes, if it was made from a value that was read.
    pub(crate) seen: Option<Fields>,
}

impl Patch {
    /// The same with every field under its newest name: a write under an older one is a write of the field.
    pub(super) fn canonical(&self, schema: &CollectionSchema) -> Result<Cow<'_, Self>, WriteError> {
        let is_older = |name: &String| schema.canonical(name) != name;
        let removed = self.remove.iter().filter_map(|path| path.first());
        if schema.aliased().next().is_none() || !self.set.keys().chain(removed).any(is_older) {
            return Ok(Cow::Borrowed(self));
        }
        let mut patch = Self::default();
        for (name, value) in &self.set {
            let newest = schema.canonical(name);
            if let Some(other) = patch.set.insert(newest.to_owned(), value.clone())
                && other != *value
            {
                let reason = format!("field {newest:?} is given twice, also under an older name");
                return Err(WriteError::bad_field(newest, reason));
            }
        }
        for path in &self.remove {
            let mut path = path.clone();
            if let Some(name) = path.first_mut() {
                *name = schema.canonical(name).to_owned();
            }
            // Not what is set under another name.
            if path.len() > 1 || !path.iter().any(|name| patch.set.contains_key(name)) {
                patch.remove.push(path);
            }
        }
        let newest = |(name, value): (&String, &Json)| (schema.canonical(name).to_owned(), value.clone());
        patch.seen = self.seen.as_ref().map(|seen| seen.iter().map(newest).collect());
        Ok(Cow::Owned(patch))
    }
}

/// What a write does that meets a document of its id.
#[derive(Clone, Copy, PartialEq)]
enum Existing {
    Changes,
    Refuses,
}

impl Core {
    /// The live document's fields and version, as the running transaction sees them.
    pub(crate) fn get(
        &mut self,
        tx: Tx<'_>,
        collection: &str,
        name: &str,
    ) -> Result<Option<(Fields, Version)>, WriteError> {
        let Some(loaded) = self.find(tx, collection, name)? else { return Ok(None) };
        if loaded.row.deleted {
            self.put_back(loaded);
            return Ok(None);
        }
        let found = (loaded.fields.clone(), Version(loaded.row.heads.clone()));
        self.put_back(loaded);
        Ok(Some(found))
    }

    /// Makes a document, or changes the fields named of one that exists. A deleted document is made anew: it comes
    /// back with the named fields only.
    pub(crate) fn put(
        &mut self,
        tx: Tx<'_>,
        collection: &str,
        name: &str,
        patch: &Patch,
        base: Option<&Version>,
    ) -> Result<Version, WriteError> {
        self.put_as(tx, (collection, name), patch, base, Existing::Changes)
    }

    /// Makes a document that does not exist. A deleted one is made anew, as by [`put`](Self::put).
    pub(crate) fn insert(
        &mut self,
        tx: Tx<'_>,
        collection: &str,
        name: &str,
        patch: &Patch,
    ) -> Result<Version, WriteError> {
        self.put_as(tx, (collection, name), patch, None, Existing::Refuses)
    }

    fn put_as(
        &mut self,
        tx: Tx<'_>,
        (collection, name): (&str, &str),
        patch: &Patch,
        base: Option<&Version>,
        existing: Existing,
    ) -> Result<Version, WriteError> {
        check_name(collection)?;
        check_name(name)?;
        let exists = || WriteError::Exists { collection: collection.to_owned(), id: name.to_owned() };
        if let Some(composed) = self.take_composed(tx, (collection, name), base)? {
            if existing == Existing::Refuses && composed.kind != ChangeKind::Created {
                return Err(exists());
            }
            return self.finish(tx, composed.loaded, &composed.written.commit(composed.kind));
        }
        match self.find(tx, collection, name)? {
            None if base.is_some() => Err(not_found(collection, name)),
            None => {
                let identity = Identity::derive(tx.space(), collection, name);
                let loaded = new_document(identity, collection, name, self.schema_of(collection, name));
                self.write(tx, loaded, patch, None, ChangeKind::Created)
            }
            Some(loaded) => {
                if self.is_over(tx, &loaded)? {
                    return Err(WriteError::Purged {
                        collection: collection.to_owned(),
                        id: name.to_owned(),
                    });
                }
                if existing == Existing::Refuses && !loaded.row.deleted {
                    self.put_back(loaded);
                    return Err(exists());
                }
                if !loaded.row.deleted || base.is_some() {
                    return self.write(tx, loaded, patch, base, ChangeKind::Updated);
                }
                let mut patch = patch.canonical(&loaded.schema)?.into_owned();
                // Nested ones as well: of what was deleted only what is named comes back.
                patch.remove.extend(diff(&loaded.fields, &patch.set).remove);
                self.write(tx, loaded, &patch, None, ChangeKind::Created)
            }
        }
    }

    /// Sets fields of a document that exists.
    pub(crate) fn update(
        &mut self,
        tx: Tx<'_>,
        collection: &str,
        name: &str,
        patch: &Patch,
    ) -> Result<Version, WriteError> {
        let composed = self.take_composed(tx, (collection, name), None)?;
        if let Some(composed) = composed.filter(|composed| composed.kind == ChangeKind::Updated) {
            return self.finish(tx, composed.loaded, &composed.written.commit(composed.kind));
        }
        let loaded = self.find_live(tx, collection, name)?;
        self.write(tx, loaded, patch, None, ChangeKind::Updated)
    }

    /// Sets and removes fields on the version `base`. Returns the version of the document, and the one that has the new values and
    /// nothing that others have written since `base`: who goes on typing goes on from there.
    pub(crate) fn update_branch(
        &mut self,
        tx: Tx<'_>,
        collection: &str,
        name: &str,
        patch: &Patch,
        base: &Version,
    ) -> Result<(Version, Version), WriteError> {
        let kind = ChangeKind::Updated;
        let (loaded, written) = match self.take_composed(tx, (collection, name), Some(base))? {
            Some(composed) => (composed.loaded, composed.written),
            None => {
                let mut loaded = self.find_live(tx, collection, name)?;
                let written = self.by().compose(&mut loaded, patch, Some(base), kind)?;
                (loaded, written)
            }
        };
        let branch = written.branch(base);
        let version = self.finish(tx, loaded, &written.commit(kind))?;
        Ok((version.clone(), branch.unwrap_or(version)))
    }

    /// Edits a text field. Returns as [`update_branch`](Self::update_branch).
    pub(crate) fn edit_text(
        &mut self,
        tx: Tx<'_>,
        collection: &str,
        name: &str,
        text: &TextWrite,
    ) -> Result<TextEdited, WriteError> {
        let (loaded, written) = match self.take_composed(tx, (collection, name), text.base.as_ref())? {
            Some(composed) => (composed.loaded, composed.written),
            None => {
                let mut loaded = self.find_live(tx, collection, name)?;
                let written = self.by().compose_text(&mut loaded, text)?;
                (loaded, written)
            }
        };
        let base = text.base.clone().unwrap_or_else(|| Version(loaded.row.heads.clone()));
        let branch = written.branch(&base);
        let version = self.finish(tx, loaded, &written.commit(ChangeKind::Updated))?;
        Ok(TextEdited { branch: branch.unwrap_or_else(|| version.clone()), version })
    }

    /// Deletes a document, by a tombstone that merges. Returns its version; of what never had one nothing is left.
    pub(crate) fn delete(&mut self, tx: Tx<'_>, collection: &str, name: &str) -> Result<Version, WriteError> {
        let mut loaded = self.find_live(tx, collection, name)?;
        if loaded.schema.is_local() && loaded.row.changes == 0 {
            self.behind(tx)?.remove(&loaded.row.key);
            if let Err(StorageError::Damaged(_)) = tx.forget_words(loaded.row.id, collection) {
                self.rebuild_search(tx)?;
            }
            let device = Some(self.shared.device);
            self.note_event(&loaded.row, &Commit::of(&[], ChangeKind::Deleted), Vec::new(), device);
            tx.remove_document(loaded.row.id)?;
            return Ok(Version(Vec::new()));
        }
        let edit = self.edit(&loaded.schema, None, &loaded.fields);
        let changes = loaded.document.delete(&edit).map_err(write_error)?;
        self.finish(tx, loaded, &Commit::of(&changes, ChangeKind::Deleted))
    }

    pub(super) fn find_live(
        &mut self,
        tx: Tx<'_>,
        collection: &str,
        name: &str,
    ) -> Result<Box<Loaded>, WriteError> {
        let found = self.find(tx, collection, name)?.filter(|loaded| !loaded.row.deleted);
        found.ok_or_else(|| not_found(collection, name))
    }

    pub(super) fn write(
        &mut self,
        tx: Tx<'_>,
        mut loaded: Box<Loaded>,
        patch: &Patch,
        base: Option<&Version>,
        kind: ChangeKind,
    ) -> Result<Version, WriteError> {
        let written = self.by().compose(&mut loaded, patch, base, kind)?;
        self.finish(tx, loaded, &written.commit(kind))
    }

    pub(super) fn by(&self) -> WriteContext<'_> {
        let (device, time) = (self.shared.device, self.shared.now_ms());
        WriteContext { device, time, message: self.write.message.as_deref() }
    }

    pub(super) fn finish(
        &mut self,
        tx: Tx<'_>,
        loaded: Box<Loaded>,
        commit: &Commit<'_>,
    ) -> Result<Version, WriteError> {
        if commit.changes.is_empty() && !commit.local && loaded.row.id != 0 {
            let version = Version(loaded.row.heads.clone());
            self.put_back(loaded);
            return Ok(version);
        }
        check_size(commit.bytes())?;
        commit.changes.iter().try_for_each(|change| {
            check_change(change).map_err(|error| WriteError::bad_value(format!("the change: {error}")))
        })?;
        let (key, before) =
            (loaded.row.key, loaded.row.heads.iter().copied().map(ChangeHash).collect::<Vec<_>>());
        self.commit(tx, loaded, commit, self.shared.now_ms())?;
        // Who writes on an older version merges with what has been written since.
        let is_merged = self.write.documents.get(&key).is_some_and(|loaded| loaded.row.heads.len() > 1);
        if is_merged && !before.is_empty() && !commit.changes.is_empty() {
            self.reconcile(tx, key, &before, commit.changes, self.shared.now_ms())?;
            // What this write has merged to is what an undo goes back from.
            let merged = self.write.documents.get(&key).map(|loaded| (loaded.row.id, loaded.version()));
            if let Some((document, version)) = merged.filter(|_| !commit.automatic) {
                self.note_step(document, version.clone(), version);
            }
        }
        Ok(Version(self.write.documents.get(&key).map(|loaded| loaded.row.heads.clone()).unwrap_or_default()))
    }

    pub(super) fn edit<'a>(
        &'a self,
        schema: &'a CollectionSchema,
        base: Option<&'a [ChangeHash]>,
        shown: &'a Fields,
    ) -> Edit<'a> {
        self.by().edit(schema, base, shown)
    }
}

impl<'a> Commit<'a> {
    /// A write of this device.
    pub(super) fn of(changes: &'a [Change], kind: ChangeKind) -> Self {
        Self { changes, origin: None, stale: false, local: false, kind, fields: Vec::new(), automatic: false }
    }
}

impl Loaded {
    /// Takes up those fields of a patch that stay on this device. Returns the rest, and whether there were any. As in what is shared,
    /// objects merge with what is there.
    pub(super) fn keep<'p>(
        &mut self,
        patch: &'p Patch,
        base: Option<&[ChangeHash]>,
    ) -> (Cow<'p, Patch>, bool) {
        if !self.schema.has_local() {
            return (Cow::Borrowed(patch), false);
        }
        let before = self.local.clone();
        let is_known = |base: &&[ChangeHash]| base.iter().all(|head| self.document.has_change(head));
        let base = base.filter(is_known).map(|base| base.iter().map(|head| head.0).collect::<Vec<_>>());
        // What merges was carried over to what there is; anything else is a value of the version that it was written on.
        let now = self.row.heads.clone();
        let heads = |name: &String, schema: &CollectionSchema| match &base {
            Some(base) if !merges(schema.kind(name)) => base.clone(),
            _ => now.clone(),
        };
        let mut rest = Patch::default();
        for (name, value) in &patch.set {
            if !self.schema.is_device_local(name) {
                rest.set.insert(name.clone(), value.clone());
                continue;
            }
            let value = merged(self.fields.get(name), value);
            self.local.set(name, value.clone(), &heads(name, &self.schema));
            self.fields.insert(name.clone(), value);
        }
        for path in &patch.remove {
            match path.split_first() {
                Some((name, inner)) if self.schema.is_device_local(name) => {
                    let heads = heads(name, &self.schema);
                    self.drop_kept(name, inner, &heads);
                }
                _ => rest.remove.push(path.clone()),
            }
        }
        (Cow::Owned(rest), self.local != before)
    }

    /// Removes what is at `inner` in a field that stays on this device. What others have of it is theirs.
    fn drop_kept(&mut self, name: &str, inner: &[String], heads: &[[u8; 32]]) {
        if inner.is_empty() {
            let hides = self.document.field(&self.schema, name).is_some();
            if self.fields.remove(name).is_some() {
                self.local.remove(name, hides, heads);
            }
        } else if let Some(value) = self.fields.get_mut(name)
            && take_at(value, inner).is_some()
        {
            self.local.set(name, value.clone(), heads);
        }
    }

    /// What the document shows after `patch` was made on its current version: the values given, except that objects
    /// have merged with what was there.
    pub(super) fn show(&mut self, patch: &Patch) {
        let removed = patch.remove.iter().filter_map(|path| path.first());
        // Objects merge with what is there, and an array may be a set.
        let is_merged = |value: &Json| value.is_object() || value.is_array();
        let merged = patch.set.iter().filter(|(_, value)| is_merged(value)).map(|(name, _)| name);
        for name in removed.chain(merged) {
            match self.document.field(&self.schema, name) {
                Some(value) => _ = self.fields.insert(name.clone(), value),
                None => _ = self.fields.remove(name),
            }
        }
        for (name, value) in patch.set.iter().filter(|(_, value)| !is_merged(value)) {
            self.fields.insert(name.clone(), value.clone());
        }
    }
}

/// Compares two objects: what to set and what to remove so that `old`, which was read, becomes `new`. Nested objects are compared
/// field by field, everything else as a whole.
pub(crate) fn diff(old: &Fields, new: &Fields) -> Patch {
    let mut patch = Patch::default();
    patch.set = diff_into(old, new, &mut Vec::new(), &mut patch.remove);
    let seen = patch.fields().into_iter().filter_map(|name| old.get_key_value(&name));
    patch.seen = Some(seen.map(|(name, value)| (name.clone(), value.clone())).collect());
    patch
}

fn diff_into(old: &Fields, new: &Fields, path: &mut Vec<String>, remove: &mut Vec<Vec<String>>) -> Fields {
    let mut set = Fields::new();
    for (key, value) in new {
        match (old.get(key), value) {
            (Some(before), _) if before == value => {}
            (Some(Json::Object(before)), Json::Object(after)) => {
                path.push(key.clone());
                let inner = diff_into(before, after, path, remove);
                path.pop();
                if !inner.is_empty() {
                    set.insert(key.clone(), Json::Object(inner));
                }
            }
            _ => _ = set.insert(key.clone(), value.clone()),
        }
    }
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        remove.push(path.iter().cloned().chain([key.clone()]).collect());
    }
    set
}

pub(super) fn check_rules(loaded: &Loaded, patch: &Patch) -> Result<(), WriteError> {
    for (name, value) in &patch.set {
        if let Some(rule) = loaded.schema.field(name).and_then(|field| field.broken_by(value)) {
            let collection = loaded.row.collection.clone();
            return Err(WriteError::Rule { collection, field: name.clone(), rule });
        }
    }
    Ok(())
}

pub(super) fn not_found(collection: &str, name: &str) -> WriteError {
    WriteError::NotFound { collection: collection.to_owned(), id: name.to_owned() }
}

pub(super) fn write_error(error: EditError) -> WriteError {
    match error {
        EditError::Contested(field) => WriteError::Contested { field },
        EditError::UnknownHeads(hash) => WriteError::UnknownVersion { heads: hash.to_string() },
        EditError::OutOfCount(field) => WriteError::bad_field(&field.clone(), EditError::OutOfCount(field)),
        other => WriteError::bad_value(other),
    }
}

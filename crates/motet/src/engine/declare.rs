//! Declarations, and what follows from them for the documents that are there already.

use std::sync::Arc;

use motet_proto::{DocumentId, limits as proto};

use super::check::check_name;
use super::local::write_error;
use super::overlay::{Freed, Overlay};
use super::{Commit, Core, Loaded, to_json};
use crate::doc::{Change, Fields};
use crate::error::WriteError;
use crate::schema::{CollectionSchema, FieldKind, Schema};
use crate::store::{self, Tx};
use crate::types::ChangeKind;

impl Core {
    /// Adds declarations to those there are.
    pub(crate) fn apply_schema(&mut self, tx: Tx<'_>, schema: &Schema) -> Result<(), WriteError> {
        let mut changed = Vec::new();
        for (name, new) in &schema.collections {
            check_name(name)?;
            let before = self.schema_of_all(name);
            let mut after = CollectionSchema::clone(&before);
            after.extend(name, new)?;
            after.check_names(name)?;
            if after != *before || !self.schema.contains_key(name) {
                changed.push((name, before, Arc::new(after)));
            }
        }
        let known = self.schema.clone();
        let declared =
            changed.into_iter().try_for_each(|(name, before, after)| self.declare(tx, name, &before, &after));
        if declared.is_err() {
            // It is rolled back, and other writes of the same transaction go on.
            self.schema = known;
        }
        declared
    }

    fn declare(
        &mut self,
        tx: Tx<'_>,
        name: &str,
        before: &Arc<CollectionSchema>,
        after: &Arc<CollectionSchema>,
    ) -> Result<(), WriteError> {
        self.write.settings_changed = true;
        tx.put_collection(name, &to_json(&**after)?)?;
        let (kept, freed) = moved(tx, name, before, after)?;
        if !kept.is_empty() {
            // What has not left yet does not leave any more.
            kept.iter().try_for_each(|document| tx.drop_pending_of_document(*document))?;
            self.write.recounts = true;
        }
        // What stays here is in conflict with nobody.
        if !after.shows_as(before) || !after.has_same_local_fields(before) {
            tx.mark_collection_stale(name)?;
        }
        if !after.is_searched_as(before) {
            tx.mark_collection_unindexed(name)?;
            self.unindexed = Some(true);
        }
        if after.indexes != before.indexes {
            tx.declare_indexes(name, after.indexes.as_deref().unwrap_or_default())?;
        }
        // What is loaded was read under the old declarations.
        self.forget_all_held();
        self.behind = None;
        self.schema.insert(name.to_owned(), after.clone());
        self.declare_view(tx, name)?;
        self.free_fields(tx, name, before, after)?;
        if !freed.is_empty() && !self.excluded.contains(name) {
            self.enqueue_documents(tx, &freed)?;
        }
        Ok(())
    }

    /// Takes into the documents of a collection what does not stay on this device any more.
    fn free_fields(
        &mut self,
        tx: Tx<'_>,
        collection: &str,
        before: &Arc<CollectionSchema>,
        after: &Arc<CollectionSchema>,
    ) -> Result<(), WriteError> {
        // Documents in the trash may have something of earlier declarations.
        let documents = tx.documents_with_local(collection)?;
        if documents.is_empty() {
            return Ok(());
        }
        self.catch_up_all(tx)?;
        for document in documents {
            let row = tx.document_by_id(document)?;
            let mut loaded = self.take(tx, row)?;
            let (name, key) = (loaded.row.name.clone(), loaded.row.key);
            let [before, after] =
                [before, after].map(|schema| CollectionSchema::of_document(schema.clone(), &name));
            // Under the new declarations there may be none.
            loaded.local = Overlay::read(tx, document, &before)?;
            let is_renamed = loaded.local.rename(&before, &after);
            // What a document in the trash had is taken over when it comes back, and goes nowhere before.
            let freed = if loaded.row.deleted { Vec::new() } else { loaded.local.free(&after) };
            let is_made = loaded.row.heads.is_empty() && !after.is_local();
            if freed.is_empty() && !is_made {
                if is_renamed || loaded.row.deleted {
                    loaded.local.write(tx, document)?;
                    loaded.refresh(true);
                    self.project(tx, &loaded)?;
                }
                continue;
            }
            let named = |error: WriteError| {
                WriteError::bad_value(format!("{collection}/{name} cannot be shared: {error}"))
            };
            let mut loaded = Some(loaded);
            for part in parts(freed) {
                let mut loaded = match loaded.take() {
                    Some(loaded) => loaded,
                    None => self.take(tx, tx.document_by_id(document)?)?,
                };
                let fields = part.iter().map(|freed| freed.name.clone()).collect();
                let changes = self.write_freed(&mut loaded, part).map_err(named)?;
                let kind = ChangeKind::Updated;
                let how = Commit {
                    stale: true,
                    local: true,
                    automatic: true,
                    fields,
                    ..Commit::of(&changes, kind)
                };
                self.finish(tx, loaded, &how).map_err(named)?;
            }
            // Whole collections must not fill the memory.
            self.write.documents.remove(&key);
        }
        Ok(())
    }

    /// A document has come back from the trash because another device wrote to it: it gets what was local of it once. True if there
    /// was something.
    pub(super) fn free_revived(&mut self, tx: Tx<'_>, key: DocumentId, now: i64) -> store::Result<bool> {
        let Some(mut loaded) = self.write.documents.remove(&key) else { return Ok(false) };
        let schema = loaded.schema.clone();
        let kept = loaded.local.clone();
        let freed = loaded.local.free(&schema);
        if freed.is_empty() {
            self.put_back(loaded);
            return Ok(false);
        }
        match self.write_freed(&mut loaded, freed) {
            Ok(changes) => {
                let how = Commit {
                    stale: true,
                    local: true,
                    automatic: true,
                    ..Commit::of(&changes, ChangeKind::Updated)
                };
                self.commit(tx, loaded, &how, now)?;
                Ok(true)
            }
            Err(WriteError::Storage(error)) => Err(error),
            Err(error) => {
                tracing::error!(document = %key, %error, "what was local of a document cannot be shared");
                loaded.local = kept;
                self.put_back(loaded);
                Ok(false)
            }
        }
    }

    /// Writes fields that do not stay on this device any more into their document, each as an edit of the version that it lies on.
    /// A value that breaks a rule is written all the same: it is there.
    pub(super) fn write_freed(
        &self,
        loaded: &mut Loaded,
        mut freed: Vec<Freed>,
    ) -> Result<Vec<Change>, WriteError> {
        let mut changes = Vec::new();
        let is_known = |base: &[crate::doc::ChangeHash], loaded: &Loaded| {
            !base.is_empty() && base.iter().all(|head| loaded.document.has_change(head))
        };
        let schema = loaded.schema.clone();
        let is_ask = |freed: &Freed| *schema.kind(&freed.name) == FieldKind::Ask;
        freed.sort_by_cached_key(|freed| (freed.base.as_ref().map(ToString::to_string), is_ask(freed)));
        if freed.is_empty() && loaded.document.heads().is_empty() {
            let edit = self.edit(&loaded.schema, None, &loaded.fields);
            return loaded.document.write(&edit, &Fields::new(), &[], true).map_err(write_error);
        }
        for group in freed.chunk_by(|a, b| a.base == b.base && is_ask(a) == is_ask(b)) {
            let base = match group[0].base.as_ref().map(crate::types::Version::hashes) {
                // It was made before anything of the document was known here.
                None => Some(Vec::new()),
                base => base.filter(|base| is_known(base, loaded)),
            };
            let mut set = Fields::new();
            let mut remove = Vec::new();
            for Freed { name, value, .. } in group {
                match value {
                    Some(value) => _ = set.insert(name.clone(), value.clone()),
                    None => remove.push(vec![name.clone()]),
                }
            }
            let create = loaded.document.heads().is_empty();
            let shown = loaded.document.fields(&loaded.schema);
            let mut edit = self.edit(&loaded.schema, base.as_deref(), &shown);
            // It was chosen here, beside whatever others wrote.
            edit.settle = is_ask(&group[0]);
            let more = loaded.document.write(&edit, &set, &remove, create).map_err(write_error)?;
            changes.extend(more);
        }
        Ok(changes)
    }
}

/// The documents of a collection that stay on this device from now on, and those that do not any more.
fn moved(
    tx: Tx<'_>,
    collection: &str,
    before: &Arc<CollectionSchema>,
    after: &Arc<CollectionSchema>,
) -> store::Result<(Vec<i64>, Vec<i64>)> {
    let (mut kept, mut freed) = (Vec::new(), Vec::new());
    if before.has_same_local_fields(after) {
        return Ok((kept, freed));
    }
    for (document, name) in tx.named_documents(collection)? {
        let stays =
            |schema: &Arc<CollectionSchema>| CollectionSchema::of_document(schema.clone(), &name).is_local();
        match (stays(before), stays(after)) {
            (false, true) => kept.push(document),
            (true, false) => freed.push(document),
            _ => {}
        }
    }
    Ok((kept, freed))
}

/// Fields in parts of which each fits into what one commit may have; at least one part.
fn parts(freed: Vec<Freed>) -> Vec<Vec<Freed>> {
    let (mut parts, mut bytes) = (vec![Vec::new()], 0);
    for field in freed {
        let more = field.value.as_ref().map_or(0, |value| value.to_string().len());
        bytes += more;
        if bytes > proto::ENTRY_PAYLOAD_BYTES / 2 {
            bytes = more;
            parts.push(Vec::new());
        }
        if let Some(part) = parts.last_mut() {
            part.push(field);
        }
    }
    parts.retain(|part| !part.is_empty());
    if parts.is_empty() { vec![Vec::new()] } else { parts }
}

//! Many documents at once: new ones are made on all cores.

use std::collections::{HashSet, VecDeque};
use std::time::Instant;

use super::check::{check_name, check_patch};
use super::composed::{Composed, Entrance, compose_ahead, is_big};
use super::local::{Patch, write_error};
use super::parallel::parallel;
use super::writing::{WriteContext, Written};
use super::{Core, Loaded, Schemas, Shared, new_document, schema_of};
use crate::doc::{Fields, Identity, split_counted};
use crate::error::WriteError;
use crate::store::{self, Readers, StorageError, Tx};
use crate::types::ChangeKind;

/// A document to be written: as it is, and what is to be set.
enum Item {
    New(Box<Loaded>, Patch),
    There(String, Patch),
    Refused(WriteError),
}

/// A document on its way into the file.
pub(crate) enum Ready {
    /// One that was made, and what it was made of.
    New(Box<Loaded>, Written, Patch),
    /// One that is there, and what was composed of it if that is much.
    There(String, Patch, Option<Box<Composed>>),
    /// Why there is none.
    Refused(WriteError),
}

/// Makes new documents of a collection, and composes what is big of others, before their transaction and on all cores.
pub(crate) fn compose_many(
    shared: &Shared,
    readers: &Readers,
    collection: &str,
    documents: Vec<(String, Fields)>,
) -> store::Result<VecDeque<Ready>> {
    let schemas = shared.schemas();
    let items = readers.read(|tx| items(tx, &schemas, collection, documents))?;
    let by = WriteContext { device: shared.device, time: shared.now_ms(), message: None };
    let ahead = |name: &str, patch: &Patch| {
        let of = (collection, name);
        is_big(&patch.set).then(|| compose_ahead(shared, readers, of, patch, None, Entrance::Row)).flatten()
    };
    Ok(compose(by, items, ahead))
}

/// Which documents are new.
fn items(
    tx: Tx<'_>,
    schemas: &Schemas,
    collection: &str,
    documents: Vec<(String, Fields)>,
) -> store::Result<Vec<Item>> {
    let mut items = Vec::with_capacity(documents.len());
    let mut seen = HashSet::new();
    for (name, set) in documents {
        if let Err(error) = check_name(collection).and_then(|()| check_name(&name)) {
            items.push(Item::Refused(error));
            continue;
        }
        let patch = Patch { set, ..Patch::default() };
        let identity = Identity::derive(tx.space(), collection, &name);
        let key = identity.document;
        // One that stands here twice is there when its second turn comes.
        let is_new = seen.insert(key) && tx.known_documents(&[key])?.is_empty();
        items.push(match is_new {
            true => Item::New(
                new_document(identity, collection, &name, schema_of(schemas, collection, &name)),
                patch,
            ),
            false => Item::There(name, patch),
        });
    }
    Ok(items)
}

fn compose(
    by: WriteContext<'_>,
    items: Vec<Item>,
    ahead: impl Fn(&str, &Patch) -> Option<Composed> + Sync,
) -> VecDeque<Ready> {
    let composed = parallel(items, |item| match item {
        Item::New(mut loaded, patch) => match by.compose(&mut loaded, &patch, None, ChangeKind::Created) {
            Ok(written) => {
                loaded.save_new(&written.commit(ChangeKind::Created));
                Ready::New(loaded, written, patch)
            }
            Err(error) => Ready::Refused(error),
        },
        Item::There(name, patch) => {
            let composed = ahead(&name, &patch).map(Box::new);
            Ready::There(name, patch, composed)
        }
        Item::Refused(error) => Ready::Refused(error),
    });
    composed.into()
}

impl Core {
    /// [`put`](Self::put) for many documents of a collection, in their order. Says of each whether it was written: one that is refused has
    /// changed nothing.
    pub(crate) fn put_many(
        &mut self,
        tx: Tx<'_>,
        collection: &str,
        documents: Vec<(String, Fields)>,
    ) -> Result<Vec<Result<(), WriteError>>, StorageError> {
        let items = items(tx, &self.schema, collection, documents)?;
        let mut ready = compose(self.by(), items, |_, _| None);
        self.write_many(tx, collection, &mut ready, None)
    }

    /// Writes documents that were composed, the first of them and others until a time is over: others want to write as well.
    pub(crate) fn write_many(
        &mut self,
        tx: Tx<'_>,
        collection: &str,
        ready: &mut VecDeque<Ready>,
        until: Option<Instant>,
    ) -> Result<Vec<Result<(), WriteError>>, StorageError> {
        let mut outcomes = Vec::new();
        while let Some(item) = ready.pop_front() {
            let outcome = match item {
                Ready::New(loaded, written, patch) => {
                    let (key, name) = (loaded.row.key, loaded.row.name.clone());
                    // It may have come from elsewhere meanwhile.
                    let is_new = loaded.schema == self.schema_of(collection, &name)
                        && tx.known_documents(&[key])?.is_empty();
                    let outcome = match is_new {
                        true => self.finish(tx, loaded, &written.commit(ChangeKind::Created)).map(drop),
                        false => self.put_row(tx, collection, &name, &patch),
                    };
                    // Nobody has asked for it yet: bulk work must not fill the memory.
                    self.write.documents.remove(&key);
                    outcome
                }
                Ready::There(name, patch, composed) => {
                    self.write.composed = composed;
                    self.put_row(tx, collection, &name, &patch)
                }
                Ready::Refused(error) => Err(error),
            };
            outcomes.push(match outcome {
                Err(WriteError::Storage(error)) => return Err(error),
                outcome => outcome,
            });
            if until.is_some_and(|until| Instant::now() >= until) {
                break;
            }
        }
        Ok(outcomes)
    }

    /// [`put`](Self::put) of a row that another device may take up as well, without knowing of this one.
    pub(crate) fn put_row(
        &mut self,
        tx: Tx<'_>,
        collection: &str,
        name: &str,
        patch: &Patch,
    ) -> Result<(), WriteError> {
        if let Some(composed) = self.take_composed(tx, (collection, name), None)? {
            let commit = composed.written.commit(composed.kind);
            return self.finish(tx, composed.loaded, &commit).map(drop);
        }
        match self.find(tx, collection, name)? {
            Some(mut loaded) if !loaded.row.deleted => {
                let written = self.by().compose_row(&mut loaded, patch)?;
                self.finish(tx, loaded, &written.commit(ChangeKind::Updated))?;
            }
            found => {
                found.into_iter().for_each(|loaded| self.put_back(loaded));
                self.put(tx, collection, name, patch, None)?;
            }
        }
        Ok(())
    }
}

impl WriteContext<'_> {
    /// Sets fields of a document in memory at its current version. Fields that count edits are written by changes that every device
    /// makes alike; what is left is an edit of this device, which also tells who took the row up.
    pub(super) fn compose_row(&self, loaded: &mut Loaded, patch: &Patch) -> Result<Written, WriteError> {
        let patch = &*patch.canonical(&loaded.schema)?;
        check_patch(loaded, patch)?;
        let fields = patch.set.keys().cloned().collect();
        let (patch, local) = loaded.keep(patch, None);
        let mut changes = Vec::new();
        if !loaded.schema.is_local() {
            let schema = loaded.schema.clone();
            let (counted, plain) = split_counted(&loaded.document, &schema, &patch.set, &loaded.fields);
            let edit = self.edit(&schema, None, &loaded.fields);
            changes = loaded.document.write_alike(&edit.alike(), &counted, &[]).map_err(write_error)?;
            let tells = !changes.is_empty();
            changes.extend(loaded.document.write(&edit, &plain, &[], tells).map_err(write_error)?);
        }
        Ok(Written { changes, local, fields, stale: true, carried_over: false })
    }
}

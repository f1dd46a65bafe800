//! Many documents at once: new ones are made on all cores.

use motet_proto::{DocumentId, SpaceId};

use super::check::{check_name, check_patch};
use super::local::{By, Patch, Written, write_error};
use super::parallel::parallel;
use super::{Core, Loaded, new_document};
use crate::doc::{Edit, Fields, split_counted};
use crate::error::WriteError;
use crate::events::ChangeKind;
use crate::store::{StorageError, Tx};

/// A document to be written: as it is, and what is to be set.
enum Item {
    New(Box<Loaded>, Patch),
    There(String, Patch),
    Refused(WriteError),
}

/// A document that was made, one that is there, or why there is none.
enum Composed {
    New(Box<Loaded>, Written),
    There(String, Patch),
    Refused(WriteError),
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
        let schema = self.schema_of(collection);
        let mut items = Vec::with_capacity(documents.len());
        let mut seen = std::collections::HashSet::new();
        for (name, set) in documents {
            if let Err(error) = check_name(collection).and_then(|()| check_name(&name)) {
                items.push(Item::Refused(error));
                continue;
            }
            let patch = Patch { set, remove: Vec::new() };
            let key = DocumentId::derive(SpaceId::DEFAULT, collection, &name);
            // One that stands here twice is there when its second turn comes.
            let is_new = seen.insert(key) && tx.known_documents(&[key])?.is_empty();
            items.push(match is_new {
                true => Item::New(new_document(key, collection, &name, schema.clone()), patch),
                false => Item::There(name, patch),
            });
        }
        let by = self.by();
        let composed = parallel(items, |item| match item {
            Item::New(mut loaded, patch) => {
                match by.compose(&mut loaded, &patch, None, ChangeKind::Created) {
                    Ok(written) => {
                        loaded.save_new(&written.commit(ChangeKind::Created));
                        Composed::New(loaded, written)
                    }
                    Err(error) => Composed::Refused(error),
                }
            }
            Item::There(name, patch) => Composed::There(name, patch),
            Item::Refused(error) => Composed::Refused(error),
        });
        let mut outcomes = Vec::with_capacity(composed.len());
        for item in composed {
            let outcome = match item {
                Composed::New(loaded, written) => {
                    let key = loaded.row.key;
                    let outcome = self.finish(tx, loaded, &written.commit(ChangeKind::Created)).map(drop);
                    // Nobody has asked for it yet: bulk work must not fill the memory.
                    self.in_write.remove(&key);
                    outcome
                }
                Composed::There(name, patch) => self.put_row(tx, collection, &name, &patch),
                Composed::Refused(error) => Err(error),
            };
            outcomes.push(match outcome {
                Err(WriteError::Storage(error)) => return Err(error),
                outcome => outcome,
            });
        }
        Ok(outcomes)
    }

    /// [`put`](Self::put) of a row that another device may take up as well, without knowing of this one.
    fn put_row(&mut self, tx: Tx<'_>, collection: &str, name: &str, patch: &Patch) -> Result<(), WriteError> {
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

impl By<'_> {
    /// Sets fields of a document in memory at its current version. Fields that count edits are written by changes that every device
    /// makes alike; what is left is an edit of this device, which also tells who took the row up.
    fn compose_row(&self, loaded: &mut Loaded, patch: &Patch) -> Result<Written, WriteError> {
        let patch = &*patch.canonical(&loaded.schema)?;
        check_patch(loaded, patch)?;
        let fields = patch.set.keys().cloned().collect();
        let (patch, local) = loaded.keep(patch);
        let mut changes = Vec::new();
        if !loaded.schema.is_local() {
            let schema = loaded.schema.clone();
            let (counted, plain) = split_counted(&loaded.document, &schema, &patch.set, &loaded.fields);
            let edit = self.edit(&schema, None, &loaded.fields);
            let alike = Edit { time: 0, message: None, ..edit.clone() };
            changes = loaded.document.write_alike(&alike, &counted, &[]).map_err(write_error)?;
            let tells = !changes.is_empty();
            changes.extend(loaded.document.write(&edit, &plain, &[], tells).map_err(write_error)?);
        }
        Ok(Written { changes, local, fields, stale: true })
    }
}

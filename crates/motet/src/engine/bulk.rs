//! Many documents at once: new ones are made on all cores.

use motet_proto::{DocumentId, SpaceId};

use super::local::{Patch, check_name};
use super::parallel::parallel;
use super::{Core, Loaded, new_document};
use crate::doc::Fields;
use crate::error::WriteError;
use crate::events::ChangeKind;
use crate::store::Tx;

/// A document to be written: as it is, and what is to be set.
enum Item {
    New(Box<Loaded>, Patch),
    There(String, Patch),
}

impl Core {
    /// [`put`](Self::put) for many documents of a collection, in their order.
    pub(crate) fn put_many(
        &mut self,
        tx: Tx<'_>,
        collection: &str,
        documents: Vec<(String, Fields)>,
    ) -> Result<(), WriteError> {
        check_name(collection)?;
        let schema = self.schema_of(collection);
        let mut items = Vec::with_capacity(documents.len());
        let mut seen = std::collections::HashSet::new();
        for (name, set) in documents {
            check_name(&name)?;
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
        let written = parallel(items, |item| match item {
            Item::New(mut loaded, patch) => {
                let written = by.compose(&mut loaded, &patch, None, ChangeKind::Created);
                if let Ok(written) = &written {
                    loaded.save_new(&written.commit(ChangeKind::Created));
                }
                Ok((loaded, written))
            }
            Item::There(name, patch) => Err((name, patch)),
        });
        for item in written {
            match item {
                Ok((loaded, written)) => {
                    let key = loaded.row.key;
                    self.finish(tx, loaded, &written?.commit(ChangeKind::Created))?;
                    // Nobody has asked for it yet: bulk work must not fill the memory.
                    self.in_write.remove(&key);
                }
                Err((name, patch)) => _ = self.put(tx, collection, &name, &patch, None)?,
            }
        }
        Ok(())
    }
}

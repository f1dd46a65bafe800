//! One document: is everything stored of it what it should be, and making it so.

use super::overlay::Overlay;
use super::{Core, Schemas, load_behind, new_document, to_json};
use crate::care::ProblemKind;
use crate::doc::{Document, Fields, Identity, split_changes};
use crate::store::{self, StorageError, Tx};
use motet_proto::SpaceId;

/// What is wrong with a document.
#[derive(Debug)]
pub(crate) struct Examined {
    pub(crate) collection: String,
    pub(crate) name: String,
    pub(crate) found: Vec<(ProblemKind, String)>,
}

/// Compares what is stored of a document; `None` if all is well.
pub(crate) fn examine(tx: Tx<'_>, schemas: &Schemas, document: i64) -> store::Result<Option<Examined>> {
    let row = tx.document_by_id(document)?;
    // What somebody is just writing follows in a moment.
    if row.purged || tx.behind_since(row.id)?.is_some() {
        return Ok(None);
    }
    let (collection, name, heads, key) =
        (row.collection.clone(), row.name.clone(), row.heads.clone(), row.key);
    let schema = schemas.get(&collection).cloned().unwrap_or_default();
    let mut found = Vec::new();
    let stored = match tx.stored_document(document) {
        Err(StorageError::Damaged(detail)) => {
            let found = vec![(ProblemKind::Changes, detail)];
            return Ok(Some(Examined { collection, name, found }));
        }
        stored => stored?,
    };
    let identity = Identity { space: SpaceId::DEFAULT, document: key };
    if let Some(snapshot) = &stored.snapshot
        && let Err(error) = Document::load(identity, Some(snapshot), Vec::new())
    {
        let primary = tx.has_primary_snapshot(document)?;
        let kind = if primary { ProblemKind::Changes } else { ProblemKind::Snapshot };
        found.push((kind, error.to_string()));
    } else {
        match load_behind(tx, row, schema) {
            Err(StorageError::Damaged(detail)) => found.push((ProblemKind::Changes, detail)),
            Err(error) => return Err(error),
            Ok(loaded) if loaded.row.heads != heads => {
                let lacks = heads.iter().any(|head| !loaded.document.has_hash(head));
                let kind = if lacks { ProblemKind::Changes } else { ProblemKind::Projection };
                found.push((kind, "its changes do not lead to its heads".into()));
            }
            Ok(loaded) => {
                let shown: Fields =
                    tx.shown(document)?.map(|json| super::from_json(&json)).unwrap_or_default();
                if shown != loaded.fields {
                    let detail = "what it shows is not what its changes say".into();
                    found.push((ProblemKind::Projection, detail));
                }
            }
        }
    }
    Ok(if found.is_empty() { None } else { Some(Examined { collection, name, found }) })
}

impl Core {
    /// Makes anew what can be made from the changes. With `lost`, keeps those changes that can still be read, and has
    /// everything read again that the remotes hold.
    pub(crate) fn repair(
        &mut self,
        tx: Tx<'_>,
        collection: &str,
        name: &str,
        lost: bool,
    ) -> store::Result<()> {
        self.forget_all_held();
        self.forget_marks();
        let Some(row) = tx.document(collection, name)? else { return Ok(()) };
        let schema = self.schema_of(collection);
        if !tx.has_primary_snapshot(row.id)? || lost {
            tx.drop_snapshot(row.id)?;
        }
        let mut loaded = if lost {
            let mut loaded = new_document(row.key, collection, name, schema.clone());
            let mut readable = Vec::new();
            for (id, bytes) in tx.change_rows(row.id)? {
                match split_changes(&bytes) {
                    Ok(changes) => readable.extend(changes.into_iter().map(|change| (id, change))),
                    Err(_) => tx.drop_change(id)?,
                }
            }
            let outcome =
                loaded.document.merge(readable.iter().map(|(_, change)| change.clone()).collect(), &schema);
            for (id, change) in &readable {
                if outcome.rejected.iter().any(|rejected| rejected.change.hash() == change.hash()) {
                    tx.drop_change(*id)?;
                }
            }
            loaded.row = row;
            loaded.local = Overlay::read(tx, loaded.row.id)?;
            tx.forget_positions()?;
            loaded
        } else {
            load_behind(tx, row, schema)?
        };
        let conflicts = loaded.refresh(true);
        loaded.row.conflicts = conflicts.len() as i64;
        self.told.projected = true;
        tx.update_document(&loaded.row, &to_json(&loaded.fields)?)?;
        tx.unmark_behind(loaded.row.id)?;
        self.mark_unindexed(tx, loaded.row.id)
    }

    /// Makes the full-text index anew, as documents are searched or the replica is idle.
    pub(crate) fn rebuild_search(&mut self, tx: Tx<'_>) -> store::Result<()> {
        tx.drop_search_tables()?;
        tx.mark_all_unindexed()?;
        self.unindexed = Some(true);
        Ok(())
    }
}

//! What follows the projection: full-text index and views.

use std::collections::HashSet;

use super::Core;
use crate::doc::Fields;
use crate::find::words::{FORMAT, IndexedWords};
use crate::find::{FieldPath, each_text};
use crate::limits;
use crate::schema::CollectionSchema;
use crate::store::{self, StorageError, Tx};

/// Where a file says in what format its full-text index, views and indexes are.
const FORMAT_KEY: &str = "finding";

impl Core {
    /// Takes some of the documents that wait into the full-text index. True if more are waiting. An index that is damaged is made anew.
    pub(crate) fn index_batch(&mut self, tx: Tx<'_>) -> store::Result<bool> {
        match self.index_some(tx) {
            // If that does not help, the file itself is damaged.
            Err(StorageError::Damaged(reason)) if !self.is_search_rebuilt => {
                tracing::warn!(reason, "the full-text index is damaged, and is made anew");
                self.is_search_rebuilt = true;
                self.rebuild_search(tx)?;
                Ok(true)
            }
            Ok(false) => {
                self.is_search_rebuilt = false;
                Ok(false)
            }
            outcome => outcome,
        }
    }

    fn index_some(&mut self, tx: Tx<'_>) -> store::Result<bool> {
        let rows = tx.unindexed(limits::INDEX_BATCH)?;
        for rows in rows.chunk_by(|a, b| a.collection == b.collection) {
            let schema = self.schema_of_all(&rows[0].collection);
            let index = tx.search_index(&rows[0].collection)?;
            for row in rows {
                let words = (!row.deleted).then(|| words_of(&schema, &super::from_json(&row.json)));
                tx.index_words(&index, row.document, words.as_ref())?;
            }
        }
        if let Some(last) = rows.last() {
            tx.unmark_unindexed_to(last.document)?;
        }
        let more = rows.len() == limits::INDEX_BATCH;
        self.unindexed = Some(more);
        if !more && let Some(more) = tx.scrub_words()? {
            // The rest is done when the replica is idle; the index knows everything meanwhile.
            self.unindexed = Some(more);
            self.scrubbed |= !more;
        }
        Ok(more)
    }

    pub(super) fn mark_unindexed(&mut self, tx: Tx<'_>, document: i64) -> store::Result<()> {
        self.unindexed = Some(true);
        tx.mark_unindexed(document)
    }

    /// Every collection can be read with plain SQL.
    pub(super) fn ensure_view(&mut self, tx: Tx<'_>, collection: &str) -> store::Result<()> {
        match self.views(tx)?.contains(collection) {
            true => Ok(()),
            false => self.declare_view(tx, collection),
        }
    }

    /// Makes the view of a collection, and anew those of the collections whose names differ from its name by case only.
    pub(super) fn declare_view(&mut self, tx: Tx<'_>, collection: &str) -> store::Result<()> {
        let views = self.views(tx)?;
        views.insert(collection.to_owned());
        let alike: Vec<String> =
            views.iter().filter(|name| name.eq_ignore_ascii_case(collection)).cloned().collect();
        alike.iter().try_for_each(|name| tx.drop_view(name))?;
        for name in &alike {
            let schema = self.schema_of_all(name);
            let fields: Vec<_> = schema.fields.keys().map(String::as_str).collect();
            tx.declare_view(name, &fields, alike.len() > 1)?;
        }
        Ok(())
    }

    fn views(&mut self, tx: Tx<'_>) -> store::Result<&mut HashSet<String>> {
        let views = match self.views.take() {
            Some(views) => views,
            None => tx.viewed_collections()?.into_iter().collect(),
        };
        Ok(self.views.insert(views))
    }

    /// Brings what follows the projection to the format of this version: words are folded anew, views and indexes made anew.
    pub(super) fn renew_finding(&mut self, tx: Tx<'_>) -> store::Result<()> {
        if tx.meta(FORMAT_KEY)?.as_deref() == Some(FORMAT) {
            return Ok(());
        }
        tx.drop_search_tables()?;
        tx.mark_all_unindexed()?;
        tx.drop_views()?;
        self.views = Some(HashSet::new());
        for collection in tx.known_collections()? {
            self.declare_view(tx, &collection)?;
        }
        self.declare_indexes(tx)?;
        tx.set_meta(FORMAT_KEY, Some(FORMAT))
    }

    /// Makes all indexes that are declared.
    pub(crate) fn declare_indexes(&self, tx: Tx<'_>) -> store::Result<()> {
        self.schema.iter().try_for_each(|(collection, schema)| {
            tx.declare_indexes(collection, schema.indexes.as_deref().unwrap_or_default())
        })
    }

    /// What is remembered of the file may not be what is in it any more.
    pub(super) fn forget_marks(&mut self) {
        self.behind = None;
        self.unindexed = None;
        self.leaving = None;
        self.views = None;
    }
}

/// The words of a document that search looks into.
fn words_of(schema: &CollectionSchema, fields: &Fields) -> IndexedWords {
    let mut words = IndexedWords::default();
    let read = |names: &Vec<String>| names.iter().filter_map(|name| FieldPath::parse(name)).collect();
    let searched: Option<Vec<FieldPath>> = schema.search.as_ref().map(read);
    for (name, value) in fields.iter().filter(|(name, _)| !schema.is_local_field(name)) {
        each_text(&mut vec![name], value, &mut |place, text| {
            if searched.as_ref().is_none_or(|paths| paths.iter().any(|path| path.holds(place))) {
                words.add(text);
            }
        });
    }
    words.finish()
}
